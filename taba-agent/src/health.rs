//! [`Health`] of a Server: whether requests may be sent to it.

use std::time::Duration;

/// Whether requests may be sent to a Server.
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
    /// Its last answer was good, or it was not asked yet.
    Up,
    /// It failed, and gets no requests until then.
    Resting {
        /// When it may be tried again, since the start of the Agent.
        until: Duration,
        /// Failures in a row.
        failures: u32,
    },
    /// It failed, and one request tests it.
    Trying {
        /// Failures in a row.
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

    /// Failures in a row.
    pub const fn failures(self) -> u32 {
        match self {
            Self::Up => 0,
            Self::Resting { failures, .. } | Self::Trying { failures } => failures,
        }
    }
}
