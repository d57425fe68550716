//! [`Condition`]: whether a Server is serving, stopping, or failed.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};

use taba_core::guard::panic_message;
use tokio::sync::watch;

/// Why a Server ended by itself. It accepts no more requests; what was acknowledged is stored, and the senders keep
/// the rest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} of the server failed: {why}")]
#[non_exhaustive]
pub struct ServerFailure {
    /// The failed part: `a worker`, `the store`.
    pub part: &'static str,
    /// The message of the panic.
    pub why: String,
}

/// Whether a Server is serving, stopping, or failed.
pub(crate) struct Condition {
    is_stopping: AtomicBool,
    failure: watch::Sender<Option<ServerFailure>>,
    /// Whether all workers have ended.
    is_over: watch::Sender<bool>,
}

impl Default for Condition {
    fn default() -> Self {
        Self {
            is_stopping: AtomicBool::new(false),
            failure: watch::Sender::new(None),
            is_over: watch::Sender::new(false),
        }
    }
}

impl Condition {
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Stops accepting requests. The first failure is kept.
    pub(crate) fn fail(&self, part: &'static str, panic: &(dyn Any + Send)) {
        self.stop();
        let failure = ServerFailure { part, why: panic_message(panic) };
        self.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                tracing::error!(
                    part,
                    why = failure.why,
                    "a part of the server failed; it accepts no more requests"
                );
                *first = Some(failure);
            }
            is_first
        });
    }

    /// Waits for a failure.
    pub(crate) async fn failed(&self) -> ServerFailure {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            // `self` owns the sender, so it cannot be dropped.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// All workers have ended.
    pub(super) fn end(&self) {
        self.is_over.send_replace(true);
    }

    /// Waits until all workers have ended.
    pub(crate) async fn until_over(&self) {
        // An error would mean that the sender is dropped, but `self` owns it.
        let _ = self.is_over.subscribe().wait_for(|is_over| *is_over).await;
    }
}
