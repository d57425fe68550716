//! [`Stamp`]: the time of a reading, in the order in which readings were taken.

use serde::{Deserialize, Serialize};
use taba_core::Timestamp;

/// The time of a reading; when it was [clamped](taba_core::Handler::clamp), also by how much.
///
/// Ordered by time, then by the time that the sender gave. So clamping never changes which of two readings is the
/// later: a sender whose clock is wrong by an hour still has its last reading shown as the last.
///
/// ```text
/// encoded   time zigzag | ahead varint, 0 unless it was clamped          one byte more than a plain time
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    time: Timestamp,
    /// How far ahead of `time` the sender's time was, in microseconds.
    ahead: u64,
}

impl Stamp {
    /// The most bytes that one takes when encoded.
    pub(crate) const ENCODED_BYTES_MAX: usize = 10 + 10;

    /// When the reading counts as taken.
    pub const fn time(&self) -> Timestamp {
        self.time
    }

    /// Moves a time after `latest` to `latest`.
    pub(crate) fn set_back_to(&mut self, latest: Timestamp) {
        if self.time > latest {
            // The sum is the difference of two i64, but for bytes that nobody wrote.
            self.ahead = self.ahead.saturating_add(self.time.as_micros().abs_diff(latest.as_micros()));
            self.time = latest;
        }
    }
}

impl From<Timestamp> for Stamp {
    fn from(time: Timestamp) -> Self {
        Self { time, ahead: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamping_keeps_the_order_and_can_be_repeated() {
        let stamp = |micros| Stamp::from(Timestamp::from_micros(micros));
        let clamped = |mut stamp: Stamp, latest| {
            stamp.set_back_to(Timestamp::from_micros(latest));
            stamp
        };
        assert!(clamped(stamp(70), 50) < clamped(stamp(71), 50));
        assert!(clamped(stamp(70), 50) > stamp(50));
        assert!(clamped(stamp(70), 50) < stamp(51));
        assert_eq!(clamped(clamped(stamp(70), 60), 50), clamped(stamp(70), 50));
        assert_eq!(clamped(stamp(i64::MAX), i64::MIN).ahead, u64::MAX);
    }
}
