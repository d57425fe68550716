//! [`Attempts`]: the clock of a cache.

use std::time::Duration;

use taba_core::Timestamp;

/// A State that is used again within this time is used often; within twice this time, perhaps.
pub(super) const OFTEN: Duration = Duration::from_secs(2);

/// Counts the attempts to commit, for "least recently used".
#[derive(Clone, Copy, Default)]
pub(super) struct Attempts {
    pub(super) now: u32,
    /// The first one in this period of [`OFTEN`], and in the one before.
    first: u32,
    first_before: u32,
    /// When this period began.
    began: Timestamp,
}

impl Attempts {
    /// The next one.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.now += 1;
        let after = |times: u32| now >= self.began.saturating_add(times * OFTEN);
        if now < self.began || after(1) {
            self.first_before = if now < self.began || after(2) { self.now } else { self.first };
            (self.first, self.began) = (self.now, now);
        }
    }

    /// Whether no number is left: after a year of 100 attempts a second.
    pub(super) const fn is_over(self) -> bool {
        self.now == u32::MAX
    }

    /// Whether an attempt was not long ago.
    pub(super) const fn is_recent(self, attempt: u32) -> bool {
        attempt >= self.first_before
    }
}
