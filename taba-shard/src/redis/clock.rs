//! The only file that reads the clock and random numbers.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "this is where the driver reads the clock")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

pub(crate) fn random() -> u64 {
    getrandom::u64().expect("the system has random numbers")
}
