//! [`Status`]: the counters of a Server, in pairs of in and out, so that a read shows work in progress.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use serde::Serialize;
use taba_core::{DroppedLogLines, Timestamp};

use crate::panics::HandlerPanics;

/// Counters of one Server process, shared by workers and queries.
#[derive(Debug)]
pub struct Status {
    /// Arrival of the oldest uncommitted Batch, in microseconds; `i64::MAX` if there is none.
    oldest_open: AtomicI64,
    /// Requests from Agents.
    pub requests: AtomicU64,
    /// Batches that arrived.
    pub batches_in: AtomicU64,
    /// Batches committed.
    pub batches_committed: AtomicU64,
    /// Batches that were already committed.
    pub batches_duplicate: AtomicU64,
    /// Batches that did not follow their mark.
    pub batches_nak: AtomicU64,
    /// Probes that arrived.
    pub probes_in: AtomicU64,
    /// Probes answered by a commit; the others failed with the store.
    pub probes_answered: AtomicU64,
    /// Gaps in Lanes that were found and counted, by Batches and Probes.
    pub gaps: AtomicU64,
    /// Messages rejected because the clocks of sender and Server differ too much to begin a Lane.
    pub messages_misdated: AtomicU64,
    /// Batches answered *unavailable* because this build is too old for a Block or its stored State; each repetition
    /// counts.
    pub batches_newer: AtomicU64,
    /// Messages rejected because they are for another deployment.
    pub messages_misplaced: AtomicU64,
    /// Batches answered as busy, since there was more to fold in their request than may be.
    pub batches_busy: AtomicU64,
    /// Batches only checked, not stored.
    pub checks: AtomicU64,
    /// Events in committed Batches.
    pub events_in: AtomicU64,
    /// Events folded.
    pub events_folded: AtomicU64,
    /// Events refused, and counted in the Ledger.
    pub events_refused: AtomicU64,
    /// Notes under `taba.` refused: no sender may write them, or they cannot be folded.
    pub notes_refused: AtomicU64,
    /// Events lost in gaps of Lanes, and counted in the Ledger.
    pub events_gap: AtomicU64,
    /// Successful commits.
    pub commits: AtomicU64,
    /// Loads and commits that found another version than the cached one, and were retried.
    pub conflicts: AtomicU64,
    /// Loads and commits that failed in the store.
    pub store_errors: AtomicU64,
    /// Stability waits started; at most one per VBucket is running.
    pub stable_begun: AtomicU64,
    /// Stability waits that succeeded.
    pub stable_done: AtomicU64,
    /// Stability waits that failed in the store.
    pub stable_failed: AtomicU64,
    /// Stability waits whose result was ignored, because the cache had been dropped after a conflict or failure.
    pub stable_void: AtomicU64,
    /// Events refused, clamped or lost without a note in the Ledger, because its Handler is not registered or its
    /// State cannot be read.
    pub events_without_note: AtomicU64,
    /// Panics of Handlers, in ingest and in queries.
    pub panics: HandlerPanics,
    /// Log lines of the process that were dropped, because its reader is stalled or its disk is full.
    pub log_lines_dropped: DroppedLogLines,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            oldest_open: AtomicI64::new(i64::MAX),
            requests: AtomicU64::new(0),
            batches_in: AtomicU64::new(0),
            batches_committed: AtomicU64::new(0),
            batches_duplicate: AtomicU64::new(0),
            batches_nak: AtomicU64::new(0),
            probes_in: AtomicU64::new(0),
            probes_answered: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            messages_misdated: AtomicU64::new(0),
            batches_newer: AtomicU64::new(0),
            messages_misplaced: AtomicU64::new(0),
            batches_busy: AtomicU64::new(0),
            checks: AtomicU64::new(0),
            events_in: AtomicU64::new(0),
            events_folded: AtomicU64::new(0),
            events_refused: AtomicU64::new(0),
            notes_refused: AtomicU64::new(0),
            events_gap: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            store_errors: AtomicU64::new(0),
            stable_begun: AtomicU64::new(0),
            stable_done: AtomicU64::new(0),
            stable_failed: AtomicU64::new(0),
            stable_void: AtomicU64::new(0),
            events_without_note: AtomicU64::new(0),
            panics: HandlerPanics::default(),
            log_lines_dropped: DroppedLogLines::default(),
        }
    }
}

/// The values of [`Status`] at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each field is documented in `Status`")]
#[non_exhaustive]
pub struct StatusReport {
    pub requests: u64,
    pub batches_in: u64,
    pub batches_committed: u64,
    pub batches_duplicate: u64,
    pub batches_nak: u64,
    pub probes_in: u64,
    pub probes_answered: u64,
    pub gaps: u64,
    pub messages_misdated: u64,
    pub batches_newer: u64,
    pub messages_misplaced: u64,
    /// Batches answered as busy, since there was more to fold in their request than may be.
    pub batches_busy: u64,
    pub checks: u64,
    pub events_in: u64,
    pub events_folded: u64,
    pub events_refused: u64,
    pub notes_refused: u64,
    pub events_gap: u64,
    pub commits: u64,
    pub conflicts: u64,
    pub store_errors: u64,
    pub stable_begun: u64,
    pub stable_done: u64,
    pub stable_failed: u64,
    pub stable_void: u64,
    pub events_without_note: u64,
    pub handler_panics: u64,
    pub log_lines_dropped: u64,
}

impl Status {
    /// All counters 0, with the log's own count.
    pub fn new(log_lines_dropped: DroppedLogLines) -> Self {
        Self { log_lines_dropped, ..Self::default() }
    }

    /// Sets the arrival of the oldest uncommitted Batch; `None` if there is none.
    pub fn set_oldest_open(&self, arrival: Option<Timestamp>) {
        self.oldest_open.store(arrival.map_or(i64::MAX, Timestamp::as_micros), Ordering::Relaxed);
    }

    /// The freshness watermark: everything this Server received by then is in the answers.
    pub fn as_of(&self, now: Timestamp) -> Timestamp {
        now.min(Timestamp::from_micros(self.oldest_open.load(Ordering::Relaxed)))
    }

    /// All counters at one moment.
    pub fn report(&self) -> StatusReport {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StatusReport {
            requests: get(&self.requests),
            batches_in: get(&self.batches_in),
            batches_committed: get(&self.batches_committed),
            batches_duplicate: get(&self.batches_duplicate),
            batches_nak: get(&self.batches_nak),
            probes_in: get(&self.probes_in),
            probes_answered: get(&self.probes_answered),
            gaps: get(&self.gaps),
            messages_misdated: get(&self.messages_misdated),
            batches_newer: get(&self.batches_newer),
            messages_misplaced: get(&self.messages_misplaced),
            batches_busy: get(&self.batches_busy),
            checks: get(&self.checks),
            events_in: get(&self.events_in),
            events_folded: get(&self.events_folded),
            events_refused: get(&self.events_refused),
            notes_refused: get(&self.notes_refused),
            events_gap: get(&self.events_gap),
            commits: get(&self.commits),
            conflicts: get(&self.conflicts),
            store_errors: get(&self.store_errors),
            stable_begun: get(&self.stable_begun),
            stable_done: get(&self.stable_done),
            stable_failed: get(&self.stable_failed),
            stable_void: get(&self.stable_void),
            events_without_note: get(&self.events_without_note),
            handler_panics: self.panics.count(),
            log_lines_dropped: self.log_lines_dropped.count(),
        }
    }
}
