//! [`Pace`]: how fast VBuckets may move, in bytes and in moves a second. Pure: it is told the time.

use std::time::{Duration, Instant};

/// How fast VBuckets may move. `None`: as fast as can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Bytes a second that are copied.
    pub bytes: Option<u64>,
    /// Moves a second that are begun.
    pub moves: Option<u64>,
}

/// What has been spent of the [`Rates`]. A move is begun when what was spent before it is paid for, and its bytes are
/// spent when they are known: so over a longer time the rates hold, and a large VBucket is followed by a longer pause.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    rates: Rates,
    /// When everything that was spent is paid for.
    bytes_paid: Instant,
    moves_paid: Instant,
}

impl Pace {
    /// Nothing is spent.
    pub const fn new(rates: Rates, now: Instant) -> Self {
        Self { rates, bytes_paid: now, moves_paid: now }
    }

    /// Other rates from now on. What was spent under the old ones is forgiven: an operator who opens a throttle wants to
    /// see it.
    pub fn set(&mut self, rates: Rates, now: Instant) {
        if rates != self.rates {
            *self = Self::new(rates, now);
        }
    }

    /// How long to wait before the next move is begun.
    pub fn wait(&self, now: Instant) -> Duration {
        self.bytes_paid.max(self.moves_paid).saturating_duration_since(now)
    }

    /// A move is begun.
    pub fn begin(&mut self, now: Instant) {
        if let Some(rate) = self.rates.moves {
            self.moves_paid = self.moves_paid.max(now) + Duration::from_secs_f64(1.0 / rate.max(1) as f64);
        }
    }

    /// Bytes are copied.
    pub fn copied(&mut self, bytes: u64, now: Instant) {
        if let Some(rate) = self.rates.bytes {
            let time = bytes as f64 / rate.max(1) as f64;
            // A year is as good as for ever, and no sum of it overflows.
            self.bytes_paid = self.bytes_paid.max(now) + Duration::from_secs_f64(time.min(31_536_000.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do to begin with")]
    fn over_a_longer_time_the_rates_hold() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut pace = Pace::new(Rates { bytes: Some(1000), moves: Some(10) }, start);
        let (mut now, mut moves) = (0.0, 0);
        while now < 60.0 {
            now += pace.wait(at(now)).as_secs_f64();
            pace.begin(at(now));
            pace.copied(250, at(now));
            moves += 1;
        }
        assert!(
            (239..=242).contains(&moves),
            "60 s at 1,000 bytes/s are 240 moves of 250 bytes, not {moves}"
        );
        // Opened while it runs, it does not wait for what was spent before.
        pace.copied(1_000_000, at(now));
        pace.set(Rates::default(), at(now));
        assert_eq!(pace.wait(at(now)), Duration::ZERO);
        pace.begin(at(now));
        pace.copied(u64::MAX, at(now));
        assert_eq!(pace.wait(at(now)), Duration::ZERO);
    }
}
