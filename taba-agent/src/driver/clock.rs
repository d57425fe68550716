//! The one place of this crate that reads clocks and draws chance. Everything else is handed a [`Moment`].

use std::time::{Instant, SystemTime};

use taba_core::Timestamp;
use tokio::time;

use crate::relay::Moment;

/// The machine's clocks, counting from the start of the Agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts to count.
    #[expect(clippy::disallowed_methods, reason = "this is the driver's one clock")]
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Now, on both clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the driver's one clock")]
    pub(super) fn now(&self) -> Moment {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
        Moment { uptime: self.start.elapsed(), time: Timestamp::from_micros(micros) }
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
