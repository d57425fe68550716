//! Ids and units: [`LaneKey`], [`ClockReading`].

use std::fmt;
use std::time::Duration;

use taba_core::limits::FRAME_BYTES_MAX;
use taba_core::wire::FRAME_HEADER_BYTES;
use taba_core::{StreamId, Timestamp};

/// Bytes of one body on the wire: a full frame.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX + FRAME_HEADER_BYTES;

/// A Batch older than this is never sent: the mark that identifies a repetition may be gone after 48 h.
pub const BATCH_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockReading {
    /// Since the start of the Agent; never decreases.
    pub uptime: Duration,
    /// The wall clock. [`Relay::set_clock`](crate::Relay::set_clock) moves it.
    pub time: Timestamp,
}

/// The name of a Lane. Sorts by stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey {
    /// The sender's incarnation.
    pub stream: StreamId,
    /// The VBucket.
    pub vbucket: u16,
}

impl fmt::Display for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.vbucket)
    }
}
