//! [`stop`]: the signals that ask a process to stop.

use std::future::Future;
use std::io;

/// Resolves when the process is asked to stop: SIGTERM, or Ctrl-C. From this call on, before the first await, no signal
/// is missed. Must be called inside a tokio runtime.
///
/// # Errors
/// When the operating system lets no signal be heard.
#[cfg(unix)]
pub fn stop() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Resolves when the process is asked to stop: Ctrl-C.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn stop() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without a way to hear it, the process runs until it is killed, which is safe.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
