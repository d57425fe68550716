//! [`LogThrottle`]: rate limits of the log lines of a Server.

use std::sync::{Mutex, PoisonError};

use taba_core::Throttle;

use crate::clock::monotonic;

/// The log lines that may come with every Batch: one per cause and interval is written.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<Throttle<(&'static str, String)>>);

impl LogThrottle {
    /// Whether the line `what` about this cause is written now: with the number of those that were suppressed before it,
    /// if there were some.
    pub(crate) fn admit(&self, what: &'static str, cause: &str) -> Option<Option<u64>> {
        // Counts of lines: nothing under this lock panics, and were it so, a count of lines would be wrong.
        let mut throttle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed = throttle.admit((what, cause.to_owned()), monotonic().into_std())?;
        Some(Some(suppressed).filter(|count| *count > 0))
    }
}
