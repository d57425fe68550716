//! [`StopSignals`]: the signals that ask a process to stop.

use std::io;

/// The signals that ask a process to stop: SIGTERM and SIGINT (Ctrl-C); where there is no SIGTERM, Ctrl-C.
///
/// The first asks it to come to an end; the second, as usual, to end at once.
#[derive(Debug)]
pub struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Begins to listen: from here on none is missed, and none ends the process by itself. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the operating system lets no signal be heard.
    pub fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};

            let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            Ok(Self { terminate, interrupt })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Resolves with the next signal.
    ///
    /// # Cancel safety
    /// Safe: a signal that came stays for the next call.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        // Without a way to hear it, the process runs until it is killed, which is safe.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
