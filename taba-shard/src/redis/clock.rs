//! The one file that reads the clock and asks for random numbers.

use std::time::Instant;

/// A moment, to measure how long things take.
#[expect(clippy::disallowed_methods, reason = "this is where the driver reads the clock")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// A random number.
pub(crate) fn random() -> u64 {
    getrandom::u64().expect("the system has random numbers")
}
