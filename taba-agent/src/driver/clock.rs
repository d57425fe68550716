//! The one place of this crate that reads clocks and draws chance. Everything else is handed a [`Moment`].

use std::time::{Instant, SystemTime};

use taba_core::Timestamp;
use tokio::time;

use crate::relay::Moment;

/// The machine's clocks, counting from the start of the Agent.
///
/// The time of day is read once, and goes on as time passes: a step of the machine's clock while the Agent runs makes
/// nothing older or younger. When the clock was wrong at the start, Servers say so, and take nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    start_time: Timestamp,
}

impl Clock {
    /// Starts to count.
    #[expect(clippy::disallowed_methods, reason = "this is the driver's one clock")]
    pub(super) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
        Self { start: Instant::now(), start_time: Timestamp::from_micros(micros) }
    }

    /// Now, on both clocks.
    pub(super) fn now(&self) -> Moment {
        let uptime = self.start.elapsed();
        Moment { uptime, time: self.start_time.saturating_add(uptime) }
    }

    /// The instant at which the Agent has been running for `uptime`.
    pub(super) fn at(&self, uptime: std::time::Duration) -> time::Instant {
        time::Instant::from_std(self.start + uptime)
    }
}

/// A random number from the operating system.
///
/// # Errors
/// When it has none; then no stream can be named.
pub(super) fn random() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}
