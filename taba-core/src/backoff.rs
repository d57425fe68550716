//! [`Backoff`]: delays between retries; [`Noise`]: seeded pseudo-random numbers. Pure.

use std::time::Duration;

/// Exponential backoff with jitter: delays double with each failure, up to a bound; each is shortened by up to half
/// at random, so that clients that failed together do not retry together.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use taba_core::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2), 7);
/// let third = backoff.after(3);
/// assert!(third >= Duration::from_millis(200) && third <= Duration::from_millis(400));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    noise: Noise,
}

impl Backoff {
    /// Delays from `min`, doubling to `max`; `seed` makes the jitter.
    pub const fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max, noise: Noise::new(seed) }
    }

    /// The delay after this number of `failures` in a row, from 1: between half and all of `min * 2^(failures - 1)`,
    /// capped at `max`.
    pub fn after(&mut self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let whole = self.min.saturating_mul(factor).min(self.max);
        whole.mul_f64(1.0 - self.noise.fraction() / 2.0)
    }
}

/// Pseudo-random numbers from a seed: SplitMix64. No number repeats within 2^64. Not for secrets.
///
/// Source: G. Steele, D. Lea, C. Flood, *Fast Splittable Pseudorandom Number Generators*, 2014.
#[derive(Clone, Debug)]
pub struct Noise(u64);

impl Noise {
    /// The sequence of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number in `[0, 1)`.
    pub fn fraction(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_vary() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2), 1);
        for (failures, whole) in
            [(0, 100), (1, 100), (2, 200), (3, 400), (5, 1600), (6, 2000), (40, 2000), (u32::MAX, 2000)]
        {
            let waits: Vec<_> = (0..100).map(|_| backoff.after(failures)).collect();
            let whole = Duration::from_millis(whole);
            assert!(waits.iter().all(|wait| *wait >= whole / 2 && *wait <= whole), "{failures}: {waits:?}");
            assert!(waits.iter().max() != waits.iter().min());
        }
    }

    #[test]
    fn numbers_are_those_of_splitmix64_and_their_fractions_spread_from_0_to_1() {
        let mut noise = Noise::new(1_234_567);
        assert_eq!([noise.number(), noise.number()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        let fractions: Vec<_> = (0..1000).map(|_| noise.fraction()).collect();
        assert!(fractions.iter().all(|fraction| (0.0..1.0).contains(fraction)));
        assert!(
            fractions.iter().any(|fraction| *fraction < 0.1)
                && fractions.iter().any(|fraction| *fraction > 0.9)
        );
    }
}
