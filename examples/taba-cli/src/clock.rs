//! The only file that reads clocks and sleeps.
#![expect(clippy::disallowed_methods, reason = "one place asks the system for the time and waits")]

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Microseconds since 1970.
pub(crate) fn time_of_day() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Waits between tries: a command does one thing at a time.
pub(crate) fn sleep(time: Duration) {
    thread::sleep(time);
}
