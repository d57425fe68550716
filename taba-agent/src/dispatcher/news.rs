//! [`ServerNews`]: how often the news of a new Server process may make all Lanes ask at once.

use std::time::Duration;

/// The shortest time between two rounds; it doubles while news keep coming.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The longest, and how long there must be no news until the shortest applies again.
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// When all Lanes ask because a new process of a Server or store was seen. The first news is followed at once; a Server that
/// calls itself another one in each answer costs a round a minute.
#[derive(Debug, Default)]
pub(super) struct ServerNews {
    /// From when on the next round may be.
    next_at: Duration,
    interval: Duration,
    is_due: bool,
}

impl ServerNews {
    /// There is news; it is followed by a round, now or later.
    pub(super) fn came(&mut self) {
        self.is_due = true;
    }

    /// When the next round is to be, if one is.
    pub(super) fn due_at(&self) -> Option<Duration> {
        self.is_due.then_some(self.next_at)
    }

    /// Whether a round is to be now; then it is.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        if !self.is_due || now < self.next_at {
            return false;
        }
        let is_calm = now >= self.next_at + INTERVAL_MAX || self.interval == Duration::ZERO;
        self.interval = if is_calm { INTERVAL_MIN } else { (self.interval * 2).min(INTERVAL_MAX) };
        self.next_at = now + self.interval;
        self.is_due = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_followed_at_once_and_then_ever_more_rarely() {
        let mut news = ServerNews::default();
        let mut rounds = Vec::new();
        for tenth in 0..1_200 {
            let now = Duration::from_millis(tenth * 100);
            news.came();
            if news.take(now) {
                rounds.push(now.as_secs());
            }
        }
        assert_eq!(rounds, [0, 1, 3, 7, 15, 31, 63]);
        // The last of it is not forgotten, and after a calm time it is as at first.
        let due = news.due_at().unwrap();
        assert!(news.take(due) && news.due_at().is_none());
        news.came();
        assert!(!news.take(due + Duration::from_secs(59)) && news.take(due + Duration::from_secs(130)));
        news.came();
        assert!(news.take(due + Duration::from_secs(131)));
    }
}
