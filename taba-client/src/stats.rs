//! [`ClientStats`]: the counters of a Client; [`FlushReport`]: the result of a flush.

use std::sync::Arc;

use crate::drops::Drops;

/// The counters of a Client, as of the last drain of its rings: at most one flush interval ago.
///
/// `recorded = acked + sealed + pending + dropped.total()`, all in events since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Events recorded, with any outcome.
    pub recorded: u64,
    /// Events that the Agent has.
    pub acked: u64,
    /// Events in the Batch in flight.
    pub sealed: u64,
    /// Events that wait to be sent.
    pub pending: u64,
    /// Bytes that they take, about.
    pub pending_bytes: usize,
    /// Events dropped in this process, by reason.
    pub dropped: Drops,
    /// Events among the acknowledged that the Agent refused; it has counted them as dropped.
    pub refused: u64,
    /// Batches that the Agent has.
    pub batches: u64,
    /// Deliveries that failed; nearly all were tried again.
    pub failures: u64,
    /// How often the background task panicked and was started again.
    pub restarts: u64,
    /// The last error, for people; it stays after recovery. Dropped events, a failed delivery, or a Handler that
    /// panicked.
    pub last_error: Option<Arc<str>>,
    /// Tabs that have had events.
    pub tabs: usize,
    /// Rings that are drained: threads that recorded and still live, about.
    pub rings: usize,
}

/// The result of a flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "events may have been left behind"]
#[non_exhaustive]
pub struct FlushReport {
    /// Events that the Agent has accepted since it began.
    pub flushed: u64,
    /// Events not known to be at the Agent, with those in flight at the deadline. 0 when everything recorded before
    /// is there, or was dropped and counted.
    pub left: u64,
    /// Events dropped since it began; [`ClientStats::dropped`] says why.
    pub dropped: u64,
}
