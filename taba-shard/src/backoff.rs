//! [`Backoff`]: when to try to connect again.

use std::time::{Duration, Instant};

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN};

/// Pauses between tries, doubled each time from [`BACKOFF_MIN`] to [`BACKOFF_MAX`], each shortened by up to a half so
/// that many processes do not come back in step. The try after the first failure is made at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// How long until the next try is allowed; `None` when it is allowed now.
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// A try failed. `noise` is a random number from 0 to 1.
    pub fn failed(&mut self, now: Instant, noise: f64) {
        let doublings = self.failures.saturating_sub(1).min(16);
        let pause = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        let pause = pause.mul_f64(1.0 - noise.clamp(0.0, 1.0) / 2.0);
        self.until = (self.failures > 0).then(|| now + pause);
        self.failures = self.failures.saturating_add(1);
    }

    /// A try succeeded: everything is as at first.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn pauses_double_from_the_second_failure_up_to_their_bound() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert_eq!(backoff.pause(now), None);
        backoff.failed(now, 0.0);
        assert_eq!(backoff.pause(now), None, "the first failure costs no pause");
        let mut pauses = Vec::new();
        for _ in 0..40 {
            backoff.failed(now, 0.0);
            pauses.push(backoff.pause(now).unwrap());
        }
        assert_eq!(pauses[..3], [BACKOFF_MIN, BACKOFF_MIN * 2, BACKOFF_MIN * 4]);
        assert_eq!(pauses[39], BACKOFF_MAX);
        assert_eq!(backoff.pause(now + BACKOFF_MAX), None);
        backoff.failed(now, 1.0);
        assert_eq!(backoff.pause(now), Some(BACKOFF_MAX / 2));
        backoff.succeeded();
        assert_eq!(backoff, Backoff::default());
    }
}
