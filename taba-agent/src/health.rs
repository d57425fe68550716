//! [`Health`] of a Server, and [`Backoff`]: how long to leave alone what has failed.

use std::time::Duration;

/// Whether a Server may be sent requests.
///
/// ```text
///          failed                          time is over, and a request goes out
///   Up ─────────────► Resting{until} ────────────────────────────────────────► Trying
///    ▲                   ▲   ▲  │ answered (to an earlier request)                │ │
///    └───────────────────┼───┼──┘◄──────────────────────── answered ──────────────┘ │
///                        │   └───────────────────────────── failed ─────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered last time, or has not been asked yet.
    Up,
    /// It failed, and is left alone until then.
    Resting {
        /// When it may be tried again, since the start of the Agent.
        until: Duration,
        /// How often in a row it failed.
        failures: u32,
    },
    /// It failed, and one request is under way to see whether it still does.
    Trying {
        /// How often in a row it failed.
        failures: u32,
    },
}

impl Health {
    /// The word in `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Resting { .. } => "resting",
            Self::Trying { .. } => "trying",
        }
    }

    /// How often in a row it failed.
    pub const fn failures(self) -> u32 {
        match self {
            Self::Up => 0,
            Self::Resting { failures, .. } | Self::Trying { failures } => failures,
        }
    }
}

/// Waiting times that double from failure to failure, up to a bound, each shortened by chance so that those who
/// failed together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    chance: Chance,
}

/// Numbers that look random: SplitMix64, from a seed. No number comes twice in 2^64.
///
/// Source: G. Steele, D. Lea, C. Flood, *Fast Splittable Pseudorandom Number Generators*, 2014.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Numbers that depend on nothing but the seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Backoff {
    /// From `min` doubling to `max`; `seed` is where the chance comes from.
    pub const fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max, chance: Chance::new(seed) }
    }

    /// How long to wait after the `failures`th failure in a row, from 1: between half and all of
    /// `min * 2^(failures - 1)`, and never over `max`.
    pub fn after(&mut self, failures: u32) -> Duration {
        let doubled =
            self.min.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        let whole = doubled.min(self.max);
        let part = (self.chance.draw() >> 11) as f64 / (1_u64 << 53) as f64;
        whole.mul_f64(0.5 + part / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_its_bound_and_varies() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2), 1);
        for (failures, whole) in
            [(1, 100), (2, 200), (3, 400), (5, 1600), (6, 2000), (40, 2000), (u32::MAX, 2000)]
        {
            let waits: Vec<_> = (0..100).map(|_| backoff.after(failures)).collect();
            let whole = Duration::from_millis(whole);
            assert!(waits.iter().all(|wait| *wait >= whole / 2 && *wait <= whole), "{failures}: {waits:?}");
            assert!(waits.iter().max() != waits.iter().min());
        }
    }
}
