//! [`LogThrottle`]: how often the log of an Agent says the same; [`LinesDropped`]: what its log could not say.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use taba_core::Throttle;

use super::clock::monotonic;

/// The log lines that may come with every Batch or request: one per cause and interval is written.
#[derive(Debug, Default)]
pub(super) struct LogThrottle(Mutex<Throttle<(&'static str, String)>>);

impl LogThrottle {
    /// Whether the line `what` about this cause is written now: with the number of those that were suppressed before it,
    /// if there were some.
    pub(super) fn admit(&self, what: &'static str, cause: &str) -> Option<Option<u64>> {
        // Counts of lines: nothing under this lock panics, and were it so, a count of lines would be wrong.
        let mut throttle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed = throttle.admit((what, cause.to_owned()), monotonic())?;
        Some(Some(suppressed).filter(|count| *count > 0))
    }
}

/// Tells how many lines of the process's log were dropped; whoever started the log knows.
#[derive(Clone, Default)]
pub(super) struct LinesDropped(Option<Arc<dyn Fn() -> u64 + Send + Sync>>);

impl LinesDropped {
    pub(super) fn of(count: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(count)))
    }

    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |count| count())
    }
}

impl fmt::Debug for LinesDropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinesDropped").field(&self.count()).finish()
    }
}
