//! [`Lane`]: one stream's ordered, gap-free sequence of Batches for one VBucket; the unit of exactly-once.
//!
//! ```text
//! released │ base …               cursor …                          last
//!  ────────┼──── acknowledged, ─────┼──── to send ──────────────┬─────────
//!          │     kept in case the   │ (at most one in flight)   │ filling
//!          │     store goes back    │                           │
//! ```
//! Blocks are written to the Spool and added to the last Batch; when it is full, or just before it is sent, it is
//! closed, and its content never changes again. Answers of Servers move the cursor: forward when a Batch is contained
//! in the stored States, back when the store went back in time, but never below `base`. When a Server learns that the
//! base is above its mark, it counts the events between as lost.
//!
//! # When a Batch is released
//! The store may undo an acknowledged Batch: a failover to a lagging replica undoes commits, and a primary that was
//! cut off acknowledges commits that are lost. So a Batch is released only when one answer, fresh from a commit, to a
//! message sent at least `confirm_after` after the Batch's own acknowledgement, says that it is contained and stable.
//! By then a primary that was cut off has noticed, and a stable commit is on every replica. A Lane without anything
//! to send asks with a Probe.

// answers: the effect of answers; recovered: a Lane of an earlier run; cut: Blocks into Batches; entry: one Batch;
// message: outgoing messages; release: confirmation and expiry; rewrite: copies, merges, and reading back.
mod answers;
mod cut;
mod entry;
mod message;
mod recovered;
mod release;
mod rewrite;

use std::collections::VecDeque;
use std::time::Duration;

use taba_core::ledger;
use taba_core::wire::{Block, Probe};
use taba_core::{SeqNo, Timestamp};

use self::entry::LaneEntry;
pub use self::message::{NextMessage, OutgoingBatch, OutgoingMessage};
use self::recovered::damage_note;
use self::release::LostBatches;
pub use self::rewrite::BatchCopy;
use self::rewrite::decode;
use crate::clock::StreamClock;
use crate::spool::record::{Fragment, LaneCheckpoint};
use crate::spool::recovery::Sending;
use crate::spool::{Fetch, FetchedContent, FragmentLocation, Purpose};
use crate::units::ClockReading;
pub use crate::units::LaneKey;

/// Maximum bytes before the Blocks of a Batch: stream, VBucket, four numbers.
pub const HEAD_BYTES_MAX: usize = 8 + 2 + 4 * 10;
/// Lost Batches are reported to Servers only while the last of them is younger than this. Later the Lane's mark may
/// be gone, and all of the Lane would be counted as lost.
pub const LOSS_AGE_MAX: Duration = Duration::from_secs(30 * 3600);

/// The bounds of every Lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneBounds {
    /// Bytes at which a Batch is closed; one large Block may exceed it.
    pub batch_bytes_max: usize,
    /// How long after a Batch's acknowledgement a message must be sent, for its answer to confirm the Batch.
    pub confirm_after: Duration,
    /// The interval between Probes for confirmation.
    pub probe_interval: Duration,
    /// Whether content can be read back from the Spool.
    pub spool_keeps_content: bool,
}

/// One Lane.
#[derive(Debug)]
pub struct Lane {
    key: LaneKey,
    bounds: LaneBounds,
    /// INVARIANT: without gaps, from `base` to `last`. `append`, `pop` and `replace_unsent` uphold it.
    entries: VecDeque<LaneEntry>,
    last: SeqNo,
    /// The next to send. INVARIANT: from `base` to `last + 1`.
    cursor: SeqNo,
    /// The last Batch that was, or may have been, sent.
    sent_through: SeqNo,
    /// Whether an earlier run may have sent more than was recovered: then a mark beyond the end means that all of
    /// this is contained.
    is_recovered: bool,
    /// The clock error of an earlier run's stream.
    clock: StreamClock,
    /// Since when a Batch may have been sent, in microseconds since the start of this run; `None`: never. A Batch
    /// that no Server can have does not age.
    begun: Option<i64>,
    /// The same, as recorded by an earlier run.
    begun_before: Sending,
    in_flight: Option<InFlightMessage>,
    /// Whether a Probe must be sent first.
    must_probe: bool,
    /// The earliest time of a Probe for confirmation.
    probe_not_before: Duration,
    /// The last stable number; reset when the store goes back.
    stable: SeqNo,
    /// Lost Batches, until the store has counted them for good.
    loss: Option<LostBatches>,
    /// Events in all Batches.
    events_offered: u64,
    /// Events in `entries`.
    events_held: u64,
    /// Bytes of unsent Batches from which merging is worthwhile.
    merge_at: u64,
}

#[derive(Clone, Copy, Debug)]
struct InFlightMessage {
    sent_at: Duration,
    is_probe: bool,
    /// The last that had been sent before.
    sent_before: SeqNo,
    /// Since when one had been.
    begun_before: Option<i64>,
}

/// The effect of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything up to this number is contained in the stored States.
    Applied(SeqNo),
    /// The store holds less than before: the cursor went back, and there is something to send at once.
    Rewound,
    /// No change: send the same again, later.
    Later,
    /// The answer violates the protocol; no change.
    ProtocolViolation,
}

/// Batches that a Lane has released.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the Spool still holds it"]
#[non_exhaustive]
pub struct ReleasedBatches {
    /// Events.
    pub events: u64,
    /// Batches.
    pub batches: u64,
    /// Their locations in the Spool.
    pub locations: Vec<FragmentLocation>,
}

impl ReleasedBatches {
    /// Adds the Batches released by another Lane.
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        self.batches += other.batches;
        self.locations.extend(other.locations);
    }
}

impl Lane {
    /// An empty Lane.
    pub fn new(key: LaneKey, bounds: LaneBounds) -> Self {
        Self {
            key,
            bounds,
            entries: VecDeque::new(),
            last: SeqNo::NONE,
            cursor: SeqNo::FIRST,
            sent_through: SeqNo::NONE,
            is_recovered: false,
            clock: StreamClock::default(),
            begun: None,
            begun_before: Sending::Never,
            in_flight: None,
            must_probe: false,
            probe_not_before: Duration::ZERO,
            stable: SeqNo::NONE,
            loss: None,
            events_offered: 0,
            events_held: 0,
            merge_at: 0,
        }
    }

    /// A Server has begun it after refusing it because of clocks: from here on its Batches age.
    pub fn is_begun(&mut self, now: Duration) {
        if !self.is_recovered {
            let now = now.as_micros() as i64;
            self.entries.iter_mut().for_each(|entry| entry.born = entry.born.max(now));
        }
    }

    /// The name of the Lane.
    pub const fn key(&self) -> LaneKey {
        self.key
    }

    /// Plans which Batches these Blocks become part of, in order, without a change: write the fragments to the Spool,
    /// then [`append`](Self::append) them.
    pub fn plan<'a>(&self, blocks: impl IntoIterator<Item = &'a Block>) -> Vec<Fragment> {
        let open = self.entries.back().filter(|entry| !entry.is_closed);
        self.cut(open, self.last.next(), self.events_offered, blocks)
    }

    /// Adds fragments that were [planned](Self::plan) and written to the Spool, which then ends at `written`.
    pub fn append(
        &mut self,
        now: ClockReading,
        fragments: impl IntoIterator<Item = (Fragment, FragmentLocation)>,
        written: u64,
    ) {
        for (fragment, location) in fragments {
            self.events_held = self.events_held.saturating_add(fragment.events);
            self.events_offered = self.events_offered.saturating_add(fragment.events);
            match self.entries.back_mut().filter(|back| back.seq == fragment.seq) {
                Some(open) => open.append(&fragment, location, written),
                None => {
                    debug_assert_eq!(
                        fragment.seq,
                        self.last.next(),
                        "a fragment was not planned on what is here"
                    );
                    self.close_last();
                    self.last = fragment.seq;
                    self.entries.push_back(LaneEntry::begin(now, fragment, location, written));
                }
            }
        }
        self.audit();
    }

    fn close_last(&mut self) {
        if let Some(last) = self.entries.back_mut() {
            last.close();
        }
    }

    /// The next message of [`send`](Self::send); `None` when one is in flight or there is none.
    pub fn next(&self) -> Option<NextMessage> {
        if self.in_flight.is_some() {
            return None;
        }
        if self.must_probe {
            return Some(NextMessage::Probe);
        }
        self.index(self.cursor).map(|index| NextMessage::Batch(HEAD_BYTES_MAX + self.entries[index].bytes()))
    }

    /// Since when the oldest unsent Batch has been waiting; `None` when there is none, or another message comes
    /// first.
    pub fn waiting_since(&self) -> Option<Duration> {
        if self.must_probe || self.cursor <= self.sent_through {
            return None;
        }
        self.index(self.cursor).map(|index| Duration::from_micros(self.entries[index].born.max(0) as u64))
    }

    /// Closes the Batch at the cursor; returns whether it is durable in the Spool.
    pub fn make_ready(&mut self, durable: u64) -> bool {
        if self.must_probe {
            return true;
        }
        match self.index(self.cursor) {
            None => true,
            Some(index) => {
                let entry = &mut self.entries[index];
                entry.close();
                entry.is_filed |= self.bounds.spool_keeps_content && entry.written <= durable;
                entry.written <= durable
            }
        }
    }

    /// The Batch at the cursor, if its content must be read back before it can be sent.
    pub fn away(&self) -> Option<Fetch> {
        if self.must_probe {
            return None;
        }
        let entry = &self.entries[self.index(self.cursor)?];
        entry.is_away().then(|| self.fetch(entry, Purpose::Send))
    }

    fn fetch(&self, entry: &LaneEntry, purpose: Purpose) -> Fetch {
        Fetch { lane: self.key, seq: entry.seq, locations: entry.locations.clone(), purpose }
    }

    /// The content of a Batch was read back; ignored if it was released or rewritten meanwhile. Damaged content is
    /// replaced by a note of the lost events, which are returned with their location.
    pub fn fetched(&mut self, now: Timestamp, fetch: &Fetch, content: FetchedContent) -> ReleasedBatches {
        let mut lost = ReleasedBatches::default();
        let Some(index) = self.index(fetch.seq) else { return lost };
        let (key, entry) = (self.key, &mut self.entries[index]);
        if !entry.is_away() || entry.locations != fetch.locations {
            return lost;
        }
        let blocks = if content.damaged.is_empty() { None } else { decode(&content.bytes).ok() };
        entry.put_here(content.bytes);
        if !content.damaged.is_empty() {
            (lost.events, lost.locations) = entry.damaged(&blocks.unwrap_or_default(), &content.damaged);
            if lost.events > 0 {
                entry.add_note(&damage_note(ledger::stream_client(key.stream), now, lost.events));
            }
            self.events_held -= lost.events;
        }
        lost
    }

    /// Sends the next message; it is in flight until it is acknowledged or given back. `None` when one is in flight,
    /// there is none, or its content is [away](Self::away).
    pub fn send(&mut self, now: ClockReading) -> Option<OutgoingMessage> {
        if self.in_flight.is_some() {
            return None;
        }
        let sent_before = self.sent_through;
        let message = if self.must_probe {
            let (base, events_before) = (self.base(), self.events_before_base());
            OutgoingMessage::Probe(Probe::new(self.key.stream, self.key.vbucket, base, events_before))
        } else {
            let (base, index) = (self.base(), self.index(self.cursor)?);
            let (key, entry) = (self.key, &mut self.entries[index]);
            let bytes = entry.content()?;
            let (seq, events_before, blocks) = (entry.seq, entry.events_before, entry.blocks);
            self.sent_through = self.sent_through.max(seq);
            OutgoingMessage::Batch(OutgoingBatch { lane: key, seq, base, events_before, blocks, bytes })
        };
        let begun_before = self.begun;
        self.begun.get_or_insert(now.uptime.as_micros() as i64);
        self.in_flight = Some(InFlightMessage {
            sent_at: now.uptime,
            is_probe: self.must_probe,
            sent_before,
            begun_before,
        });
        Some(message)
    }

    /// Whether a Batch is in flight.
    pub fn has_batch_in_flight(&self) -> bool {
        self.in_flight.is_some_and(|in_flight| !in_flight.is_probe)
    }

    /// Whether all Batches are contained in the store.
    pub fn is_applied(&self) -> bool {
        self.cursor > self.last && !self.must_probe && self.in_flight.is_none()
    }

    /// Whether it holds no Batches.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.loss.is_none() && !self.must_probe && self.in_flight.is_none()
    }

    /// Events of all Batches.
    pub const fn events_held(&self) -> u64 {
        self.events_held
    }

    /// Events and bytes not known to be contained in the store.
    pub fn unapplied(&self) -> crate::spool::Weight {
        let first = self.index(self.cursor).unwrap_or(self.entries.len());
        self.entries.range(first..).map(|entry| entry.weight).sum()
    }

    /// Whether the next Batch was, or may have been, sent before.
    pub fn is_replaying(&self) -> bool {
        self.cursor <= self.sent_through
    }

    /// Its state for a checkpoint.
    pub fn checkpoint(&self) -> LaneCheckpoint {
        LaneCheckpoint {
            lane: self.key,
            base: self.base(),
            applied: SeqNo(self.cursor.0 - 1),
            events_before: self.events_before_base(),
            last: self.last,
            events_end: self.events_offered,
        }
    }

    /// The next Batch to send, if there is one.
    pub const fn cursor(&self) -> SeqNo {
        self.cursor
    }

    /// One above its last Batch.
    pub const fn end(&self) -> SeqNo {
        self.last.next()
    }

    /// The oldest retained Batch; one above the last when there is none.
    pub fn base(&self) -> SeqNo {
        self.entries.front().map_or(self.last.next(), |oldest| oldest.seq)
    }

    fn events_before_base(&self) -> u64 {
        self.entries.front().map_or(self.events_offered, |oldest| oldest.events_before)
    }

    fn index(&self, seq: SeqNo) -> Option<usize> {
        let index = seq.0.checked_sub(self.base().0)? as usize;
        (index < self.entries.len()).then_some(index)
    }

    fn audit(&self) {
        debug_assert!(
            self.base() <= self.cursor && self.cursor <= self.last.next(),
            "the cursor is off: {self:?}"
        );
        debug_assert_eq!(
            self.last.next().0 - self.base().0,
            self.entries.len() as u64,
            "there is a gap: {self:?}"
        );
        debug_assert_eq!(
            self.entries.iter().map(|entry| entry.weight.events).sum::<u64>(),
            self.events_held,
            "the lane lost count"
        );
    }
}

#[cfg(test)]
mod tests;
