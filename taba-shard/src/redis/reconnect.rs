//! [`ReconnectPause`]: when to connect again.

use std::time::{Duration, Instant};

use taba_core::Backoff;

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN};

/// Pauses between connects, from [`BACKOFF_MIN`] to [`BACKOFF_MAX`]. The try after the first failure has no pause.
#[derive(Clone, Debug)]
pub(super) struct ReconnectPause {
    backoff: Backoff,
    failures: u32,
    until: Option<Instant>,
}

impl ReconnectPause {
    /// No pause yet. `seed` makes the jitter.
    pub(super) const fn new(seed: u64) -> Self {
        Self { backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX, seed), failures: 0, until: None }
    }

    /// Time until the next try; `None` when it may start now.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.until = (self.failures > 0).then(|| now + self.backoff.after(self.failures));
        self.failures = self.failures.saturating_add(1);
    }

    /// The next failure counts as the first again.
    pub(super) fn succeeded(&mut self) {
        (self.failures, self.until) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn pauses_begin_with_the_second_failure_and_end_with_a_success() {
        let now = Instant::now();
        let mut pause = ReconnectPause::new(7);
        assert_eq!(pause.left(now), None);
        pause.failed(now);
        assert_eq!(pause.left(now), None, "the first failure costs no pause");
        for doubled in [1, 2, 4] {
            pause.failed(now);
            let left = pause.left(now).unwrap();
            assert!(left >= BACKOFF_MIN * doubled / 2 && left <= BACKOFF_MIN * doubled, "{left:?}");
        }
        (0..40).for_each(|_| pause.failed(now));
        assert!(pause.left(now).is_some_and(|left| left >= BACKOFF_MAX / 2));
        assert_eq!(pause.left(now + BACKOFF_MAX), None);
        pause.succeeded();
        pause.failed(now);
        assert_eq!(pause.left(now), None, "it is the first again");
    }
}
