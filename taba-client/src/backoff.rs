//! [`Backoff`]: how long to wait before trying again.

use std::time::Duration;

/// The longest wait that an Agent can ask for.
const ASKED_MAX: Duration = Duration::from_secs(60);

/// How long to wait before trying again: twice as long each time, up to a bound, less a random part of up to half, so
/// that many Clients of one Agent that comes back do not come back as one.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Waits from `min` to `max`; `seed` makes the random part.
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max: max.max(min), failures: 0, random: seed }
    }

    /// One more failure: how long to wait. What the other side `asked` for is honoured, up to 60 s.
    pub fn failed(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = self.min.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let whole = doubled.min(self.max);
        self.failures = self.failures.saturating_add(1).min(31);
        let wait = whole - whole.mul_f64(self.fraction() / 2.0);
        wait.max(asked.unwrap_or_default().min(ASKED_MAX))
    }

    /// It worked: the next failure is the first again.
    pub fn worked(&mut self) {
        self.failures = 0;
    }

    /// Failures since it last worked; at most 31 are counted.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Never again waits for longer than the shortest wait: somebody stands at the door.
    pub fn hurry(&mut self) {
        self.max = self.min;
    }

    /// A number from 0 to 1, the end excluded: SplitMix64 (Steele, Lea, Flood 2014).
    pub fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_double_up_to_the_bound_and_begin_again() {
        let mut backoff = Backoff::new(100 * MS, 1000 * MS, 7);
        for whole in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.failed(None);
            assert!(
                wait > whole / 2 * MS && wait <= whole * MS,
                "{wait:?} is not from half of {whole} ms to it"
            );
        }
        backoff.worked();
        assert!(backoff.failed(None) <= 100 * MS);
        backoff.failed(None);
        backoff.hurry();
        assert!((0..100).all(|_| backoff.failed(None) <= 100 * MS));
    }

    #[test]
    fn what_was_asked_for_is_honoured_within_reason() {
        let mut backoff = Backoff::new(100 * MS, 1000 * MS, 7);
        assert_eq!(backoff.failed(Some(3000 * MS)), 3000 * MS);
        assert_eq!(backoff.failed(Some(86_400_000 * MS)), ASKED_MAX);
    }
}
