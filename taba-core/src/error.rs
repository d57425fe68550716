//! [`Remedy`]: what a caller can do about an error. Each operation has an error of its own, next to it.

use std::time::Duration;

/// What to do next about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// The fault may pass: try the same again, not before this long.
    Wait(Duration),
    /// Somebody else is responsible now: look again where to go, then try there.
    Reroute,
    /// Too much at once: send it in smaller pieces.
    Split,
    /// Trying again cannot help.
    GiveUp,
}
