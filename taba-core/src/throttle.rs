//! [`Throttle`]: limits how often equal log lines are written. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The default interval between lines of one cause.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// The default number of causes tracked at one time.
pub const CAUSES_MAX: usize = 1024;

/// Passes one log line per cause and interval, and counts those it suppresses.
///
/// A cause identifies a fault: the place in the code, and the Server, shard or reason.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// use taba_core::Throttle;
///
/// # #[expect(clippy::disallowed_methods, reason = "an example")]
/// let start = Instant::now();
/// let mut throttle = Throttle::default();
/// assert_eq!(throttle.admit("redis is away", start), Some(0));
/// assert_eq!(throttle.admit("redis is away", start + Duration::from_secs(1)), None);
/// assert_eq!(throttle.admit("the disk is full", start + Duration::from_secs(1)), Some(0));
/// assert_eq!(throttle.admit("redis is away", start + Duration::from_secs(10)), Some(1));
/// ```
///
/// # Laws
/// Lines offered = lines written + the counts reported + the counts not yet reported, at most one interval old.
/// Checked by the
/// tests of this file.
///
/// # Cost
/// One hash look-up a line; memory for at most [`CAUSES_MAX`] causes. Causes beyond them share one line per interval.
#[derive(Clone, Debug)]
pub struct Throttle<K> {
    interval: Duration,
    causes_max: usize,
    causes: HashMap<K, CauseState>,
    /// All causes beyond the bound.
    others: CauseState,
}

#[derive(Clone, Copy, Debug, Default)]
struct CauseState {
    written_at: Option<Instant>,
    suppressed: u64,
}

impl CauseState {
    fn is_open(&self, now: Instant, interval: Duration) -> bool {
        self.written_at.is_none_or(|at| now.saturating_duration_since(at) >= interval)
    }

    fn add(&mut self, times: u64, now: Instant, interval: Duration) -> Option<u64> {
        self.suppressed += times;
        if self.suppressed == 0 || !self.is_open(now, interval) {
            return None;
        }
        self.written_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl<K: Eq + Hash> Default for Throttle<K> {
    fn default() -> Self {
        Self::new(INTERVAL, CAUSES_MAX)
    }
}

impl<K: Eq + Hash> Throttle<K> {
    /// One line per cause and `interval`, for at most `causes_max` causes at a time.
    pub fn new(interval: Duration, causes_max: usize) -> Self {
        Self { interval, causes_max, causes: HashMap::new(), others: CauseState::default() }
    }

    /// Whether to write a line about this cause now: `Some` with the number of lines suppressed since the last one,
    /// `None` to suppress it.
    pub fn admit(&mut self, cause: K, now: Instant) -> Option<u64> {
        self.add(cause, 1, now).map(|times| times - 1)
    }

    /// Adds `times` to what a line about this cause says: `Some` with the sum since the last line if one is written now, `None`
    /// within the interval, and when there is nothing to say.
    pub fn add(&mut self, cause: K, times: u64, now: Instant) -> Option<u64> {
        let interval = self.interval;
        if let Some(known) = self.causes.get_mut(&cause) {
            return known.add(times, now, interval);
        }
        if self.causes.len() >= self.causes_max {
            self.causes.retain(|_, cause| cause.suppressed > 0 || !cause.is_open(now, interval));
        }
        if self.causes.len() >= self.causes_max {
            return self.others.add(times, now, interval);
        }
        self.causes.entry(cause).or_default().add(times, now, interval)
    }

    /// The causes whose interval is over and that have not recurred since, each with the number of suppressed lines.
    /// Each count is returned once. `None` is all causes beyond the bound.
    pub fn overdue(&mut self, now: Instant) -> Vec<(Option<K>, u64)> {
        let interval = self.interval;
        let is_over = |cause: &CauseState| cause.suppressed > 0 && cause.is_open(now, interval);
        let all = std::mem::take(&mut self.causes);
        let (over, causes): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, cause)| is_over(cause));
        self.causes.extend(causes);
        let mut told: Vec<_> = over.into_iter().map(|(key, cause)| (Some(key), cause.suppressed)).collect();
        if is_over(&self.others) {
            told.push((None, std::mem::take(&mut self.others).suppressed));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs some moment to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_cause_has_one_line_in_an_interval() {
        let (start, mut throttle) = (start(), Throttle::default());
        assert_eq!(throttle.admit("a", start), Some(0));
        for ms in 1..10_000 {
            assert_eq!(throttle.admit("a", start + Duration::from_millis(ms)), None);
        }
        assert_eq!(throttle.admit("b", start + SECOND), Some(0), "another cause");
        assert_eq!(throttle.admit("a", start + 10 * SECOND), Some(9_999));
        assert_eq!(throttle.admit("a", start + 10 * SECOND), None);
    }

    #[test]
    fn what_does_not_come_again_is_told_once() {
        let (start, mut throttle) = (start(), Throttle::default());
        for _ in 0..4 {
            let _ = throttle.admit("a", start);
        }
        assert_eq!(throttle.overdue(start + 9 * SECOND), []);
        assert_eq!(throttle.overdue(start + 10 * SECOND), [(Some("a"), 3)]);
        assert_eq!(throttle.overdue(start + 20 * SECOND), []);
    }

    #[test]
    fn what_is_added_within_the_interval_is_in_the_next_line() {
        let (start, mut throttle) = (start(), Throttle::default());
        assert_eq!(throttle.add("a", 0, start), None, "nothing to say");
        assert_eq!(throttle.add("a", 2, start), Some(2));
        assert_eq!([1, 5].map(|times| throttle.add("a", times, start + SECOND)), [None; 2]);
        assert_eq!(throttle.add("a", 0, start + 10 * SECOND), Some(6));
    }

    #[test]
    fn causes_beyond_the_bound_share_one_line() {
        let (start, mut throttle) = (start(), Throttle::new(INTERVAL, 2));
        assert_eq!([1, 2, 3, 4].map(|cause| throttle.admit(cause, start)), [Some(0), Some(0), Some(0), None]);
        assert_eq!(throttle.admit(5, start + 10 * SECOND), Some(0), "old causes make room");
        assert_eq!(throttle.overdue(start + 10 * SECOND), [(None, 1)]);
    }

    #[test]
    fn a_cause_with_suppressed_lines_makes_no_room() {
        let (start, mut throttle) = (start(), Throttle::new(INTERVAL, 1));
        assert_eq!([throttle.admit("a", start), throttle.admit("a", start)], [Some(0), None]);
        let later = start + 10 * SECOND;
        assert_eq!(throttle.admit("b", later), Some(0));
        assert_eq!(throttle.overdue(later), [(Some("a"), 1)]);
    }

    proptest! {
        #[test]
        fn no_line_is_lost(lines in prop::collection::vec((0_u8..6, 0_u64..8_000, any::<bool>()), 0..200)) {
            let mut now = start();
            let mut throttle = Throttle::new(INTERVAL, 3);
            let (mut written, mut told) = (0_u64, 0_u64);
            for (cause, ms, look) in &lines {
                now += Duration::from_millis(*ms);
                if *look {
                    told += throttle.overdue(now).iter().map(|(_, count)| count).sum::<u64>();
                }
                if let Some(suppressed) = throttle.admit(*cause, now) {
                    written += 1;
                    told += suppressed;
                }
            }
            told += throttle.overdue(now + INTERVAL).iter().map(|(_, count)| count).sum::<u64>();
            prop_assert_eq!(written + told, lines.len() as u64);
        }
    }
}
