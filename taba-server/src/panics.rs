//! [`HandlerPanics`]: counts panics of Handlers, and logs one line per Tab type, method and interval.

use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "driver")]
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "driver")]
use taba_core::Throttle;
use taba_core::{Panicked, TabType};

/// A panic of a Handler.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerPanic {
    /// Its Tab type.
    pub tab_type: TabType,
    /// The method and the message.
    pub panicked: Panicked,
}

/// Panics of Handlers, in ingest and queries.
#[derive(Debug, Default)]
pub struct HandlerPanics {
    count: AtomicU64,
    #[cfg(feature = "driver")]
    throttle: Mutex<Throttle<(TabType, &'static str)>>,
}

impl HandlerPanics {
    /// Their number.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts a panic, and logs it unless one of its Tab type and method was logged recently.
    #[cfg(feature = "driver")]
    pub(crate) fn tell(&self, panic: &HandlerPanic) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let cause = (panic.tab_type.clone(), panic.panicked.method);
        let now = crate::clock::monotonic().into_std();
        // A count of log lines is valid after any panic.
        let admitted = self.throttle.lock().unwrap_or_else(PoisonError::into_inner).admit(cause, now);
        if let Some(suppressed) = admitted {
            tracing::error!(
                tab_type = %panic.tab_type,
                method = panic.panicked.method,
                message = panic.panicked.message,
                suppressed,
                "a handler panicked; what it panicked at is refused or left out, and counted: run `handler_laws!` on it"
            );
        }
    }
}
