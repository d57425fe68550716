//! The only file of this crate that reads a clock.

use std::time::Instant;

pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the crate's one clock")]
    Instant::now()
}
