//! [`ClientStats`]: where a Client stands.

use std::sync::Arc;

use crate::drops::Drops;

/// Where a Client stands, as of the last time its rings were drained: at most one flush interval ago.
///
/// `recorded = acked + sealed + pending + dropped.total()`, all in events since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Events recorded, whatever became of them.
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
    /// The last thing that went wrong, for a person to read; it stays when all is well again. Events that were dropped,
    /// a delivery that failed, a Handler that panicked.
    pub last_error: Option<Arc<str>>,
    /// Tabs that have had events.
    pub tabs: usize,
    /// Rings that are drained: threads that recorded and still live, about.
    pub rings: usize,
}
