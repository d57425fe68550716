//! [`LogThrottle`]: rate limits of the log lines of a program.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::throttle::Throttle;

/// A [`Throttle`] for the lines of a program that may come with every Batch or request, with the program's clock.
#[derive(Debug)]
pub struct LogThrottle {
    clock: fn() -> Instant,
    throttle: Mutex<Throttle<(&'static str, String)>>,
}

impl LogThrottle {
    /// By this clock, which never goes back.
    pub fn new(clock: fn() -> Instant) -> Self {
        Self { clock, throttle: Mutex::default() }
    }

    /// Whether the line `what` about this cause is written now: with the number of those that were suppressed before it,
    /// if there were some.
    pub fn admit(&self, what: &'static str, cause: &str) -> Option<Option<u64>> {
        // Counts of lines: nothing under this lock panics, and were it so, a count of lines would be wrong.
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed = throttle.admit((what, cause.to_owned()), (self.clock)())?;
        Some(Some(suppressed).filter(|count| *count > 0))
    }
}
