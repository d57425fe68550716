//! [`HandlerPanics`]: panics of Handlers, counted, and logged once for each Tab type and method in a while.

use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "driver")]
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "driver")]
use taba_core::Throttle;
use taba_core::{Panicked, TabType};

/// A Handler panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerPanic {
    /// The Tab type that it is registered under.
    pub tab_type: TabType,
    /// In which method, and what it said.
    pub panicked: Panicked,
}

/// Panics of Handlers, of ingest and queries together.
#[derive(Debug, Default)]
pub struct HandlerPanics {
    count: AtomicU64,
    #[cfg(feature = "driver")]
    throttle: Mutex<Throttle<(TabType, &'static str)>>,
}

impl HandlerPanics {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts a panic, and says it if none of its Tab type and method was said lately.
    #[cfg(feature = "driver")]
    pub(crate) fn tell(&self, panic: &HandlerPanic) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let cause = (panic.tab_type.clone(), panic.panicked.method);
        let now = crate::clock::monotonic().into_std();
        // A count of log lines is right whatever a panic left of it.
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
