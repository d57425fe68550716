//! The only file of this crate that reads the machine's clock. Everything else gets a [`Clock`].

use std::sync::Arc;
use std::time::SystemTime;

use taba_core::Timestamp;

/// The source of time, injected for tests.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        #[expect(clippy::disallowed_methods, reason = "this is the driver's one clock")]
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    })
}

/// The same, for intervals between log lines.
pub(crate) fn log_clock() -> std::time::Instant {
    monotonic().into_std()
}

/// The runtime's clock for intervals, which tests can pause.
pub(crate) fn monotonic() -> tokio::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the driver's one clock")]
    tokio::time::Instant::now()
}
