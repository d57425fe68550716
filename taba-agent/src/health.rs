//! [`Health`] of a Server: whether it may be sent requests.

use std::time::Duration;

/// Whether a Server may be sent requests.
///
/// ```text
///          failed                          time is over, and a request goes out
///   Up ─────────────► Resting{until} ────────────────────────────────────────► Trying
///    ▲                   ▲   ▲  │ answered (to an earlier request)                │ │
///    └───────────────────┼───┼──┘◄──────────────────────── answered ──────────────┘ │
///                        │   └───────────────────────────── failed ─────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered last time, or has not been asked yet.
    Up,
    /// It failed, and is left alone until then.
    Resting {
        /// When it may be tried again, since the start of the Agent.
        until: Duration,
        /// How often in a row it failed.
        failures: u32,
    },
    /// It failed, and one request is under way to see whether it still does.
    Trying {
        /// How often in a row it failed.
        failures: u32,
    },
}

impl Health {
    /// The word in `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Resting { .. } => "resting",
            Self::Trying { .. } => "trying",
        }
    }

    /// How often in a row it failed.
    pub const fn failures(self) -> u32 {
        match self {
            Self::Up => 0,
            Self::Resting { failures, .. } | Self::Trying { failures } => failures,
        }
    }
}
