//! [`LogLimit`]: one log line for each cause and interval, with a count.

use std::time::Duration;

use crate::clock::Stopwatch;

/// The least time between two lines about one cause.
const INTERVAL: Duration = Duration::from_secs(10);

/// Decides when a repeated cause is logged again.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    last: Option<Stopwatch>,
    held_back: u64,
}

impl LogLimit {
    /// Counts `times` more occurrences. Returns how many there were since the last line, if a line is due now.
    pub(super) fn happened(&mut self, times: u64) -> Option<u64> {
        self.held_back += times;
        if self.held_back == 0 || self.last.is_some_and(|last| last.elapsed() < INTERVAL) {
            return None;
        }
        self.last = Some(Stopwatch::start());
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_happening_is_counted_and_not_repeated() {
        let mut limit = LogLimit::default();
        assert_eq!(limit.happened(0), None);
        assert_eq!(limit.happened(2), Some(2));
        assert_eq!((limit.happened(1), limit.happened(5)), (None, None), "within the interval");
        limit.last = None;
        assert_eq!(limit.happened(0), Some(6));
    }
}
