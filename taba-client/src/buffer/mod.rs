//! [`EventBuffer`]: a Client's events between recording and the Agent's acknowledgement: what to send, and when to
//! release it. No clock, no thread, no socket.
//!
//! ```text
//!                offer ──► pending, by Tab: raw events, then a State ──► seal ──► one Batch in flight
//!                  │                 │ more of them fold into it                   │        │
//!                  ▼                 ▼                                             ▼        ▼
//!               dropped(why)      dropped(full)                                  acked   dropped(why)
//! ```

#[cfg(any(test, feature = "driver"))]
mod absorb;
#[cfg(any(test, feature = "driver"))]
mod by_tab;
mod pending;
mod sealed;
mod take;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use taba_core::ledger::Why;
use taba_core::limits::{BATCH_EVENTS_MAX, BLOCK_BYTES_MAX, BLOCK_EVENTS_MAX, FUTURE_MICROS_MAX};
use taba_core::wire::ClientBatch;
use taba_core::{ClientId, Registry, SeqNo, Timestamp};

use crate::column::Datum;
use crate::config::{LEDGER_BLOCKS_MAX, Verified};
use crate::drops::Drops;
use crate::fault::{self, ApplicationFault};
use crate::tab::TabSpec;

#[cfg(any(test, feature = "driver"))]
pub(crate) use absorb::PENDING_TAB_BYTES;
#[cfg(feature = "driver")]
pub(crate) use by_tab::ByTab;
use pending::{PendingEvents, TabCut};
pub use sealed::SealedBatch;
use sealed::notes;

/// The sender of the Batches of a [`EventBuffer`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SenderIdentity {
    /// The durable name of the application process.
    pub client: ClientId,
    /// Which run of it: a random number.
    pub incarnation: u64,
}

impl SenderIdentity {
    /// This run of this Client.
    pub const fn new(client: ClientId, incarnation: u64) -> Self {
        Self { client, incarnation }
    }
}

/// A point in the events of a [`EventBuffer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPoint {
    emptied: u64,
    seq: SeqNo,
    untold: bool,
}

/// Counts of all offered events by outcome, since the start.
///
/// # Laws
/// `recorded = acked + sealed + pending + dropped.total()`. A debug assert checks it after every input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventCounts {
    /// Offered, or reported as dropped before they could be.
    pub recorded: u64,
    /// Acknowledged by the Agent, as far as known here.
    pub acked: u64,
    /// In the Batch in flight.
    pub sealed: u64,
    /// Waiting to be sealed.
    pub pending: u64,
    /// Dropped, by reason.
    pub dropped: Drops,
}

/// A Client's events between recording and the Agent's acknowledgement.
///
/// # Examples
/// ```
/// use taba_client::{EventBuffer, Datum, SenderIdentity, TabSpec, Verified};
/// use taba_core::{ClientId, Registry, TabName, TabType, Timestamp};
///
/// let identity = SenderIdentity::new(ClientId::new("web-01")?, 7);
/// let mut buffer = EventBuffer::new(identity, Registry::default(), Verified::default());
/// let bids = buffer.declare(TabSpec::new::<f64>(TabName::new("bids_won")?, TabType::new("CounterGroup")?));
/// buffer.offer(bids, Timestamp::from_secs(1), Datum::Number(1.0));
///
/// let sealed = buffer.seal(Timestamp::from_secs(2)).expect("there is something to send");
/// assert_eq!(sealed.events(), 1);
/// assert!(buffer.acknowledge(sealed.seq()));
/// assert_eq!(buffer.counts().acked, 1);
/// # Ok::<(), taba_core::NameError>(())
/// ```
pub struct EventBuffer {
    identity: SenderIdentity,
    handlers: Registry,
    config: Verified,
    /// By number; `None` where a Tab was forgotten.
    tabs: Vec<Option<PendingEvents>>,
    tabs_known: usize,
    /// Tabs with pending events, the longest waiting first; each at most once.
    waiting: VecDeque<u32>,
    bytes: usize,
    /// The bound of `bytes`.
    bytes_max: usize,
    /// The latest time that a Server certainly accepts unchanged. Later events are not folded with others.
    believed: Timestamp,
    sealed: Option<Arc<SealedBatch>>,
    seq: SeqNo,
    /// How many times a Tab that waited was emptied, and how many times before the Batch in flight was sealed.
    emptied: u64,
    emptied_before: u64,
    counts: EventCounts,
    /// Drops that were reported to the Ledger, except in Batches that were given up.
    told: Drops,
    /// The next Tab to compact when memory is short.
    compact_next: usize,
    #[cfg(test)]
    compactions: u64,
    /// Memory is only compacted from this size on: the last pass over all Tabs found no more.
    compact_from: usize,
    /// The newest failure of application code, and the number of failures since they were last read.
    fault: Option<(ApplicationFault, u64)>,
    /// Whether the last Batch was full before everything was in it.
    left_behind: bool,
}

impl fmt::Debug for EventBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("identity", &self.identity)
            .field("seq", &self.seq)
            .field("bytes", &self.bytes)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl EventBuffer {
    /// An empty buffer. Tabs whose type is in `handlers` are folded.
    pub fn new(identity: SenderIdentity, handlers: Registry, config: Verified) -> Self {
        let bytes_max = config.pending_bytes_max;
        Self {
            identity,
            handlers,
            config,
            bytes_max,
            tabs: Vec::new(),
            tabs_known: 0,
            waiting: VecDeque::new(),
            bytes: 0,
            believed: Timestamp::MAX,
            sealed: None,
            seq: SeqNo::NONE,
            emptied: 0,
            emptied_before: 0,
            counts: EventCounts::default(),
            told: Drops::default(),
            compact_next: 0,
            #[cfg(test)]
            compactions: 0,
            compact_from: 0,
            fault: None,
            left_behind: false,
        }
    }

    /// Registers a Tab; returns the number for its events: 0, 1, 2, …
    pub fn declare(&mut self, spec: TabSpec) -> u32 {
        let number = self.tabs.len() as u32;
        self.declare_as(number, spec);
        number
    }

    /// Registers a Tab under a number that was never used, or whose Tab was [forgotten](Self::forget). Does nothing
    /// when the number has a Tab.
    pub fn declare_as(&mut self, number: u32, spec: TabSpec) {
        let number = number as usize;
        if self.tabs.len() <= number {
            self.tabs.resize_with(number + 1, || None);
        }
        if self.tabs[number].is_none() {
            self.tabs[number] = Some(PendingEvents::new(spec, &self.handlers));
            self.tabs_known += 1;
        }
    }

    /// Forgets a Tab that has nothing [waiting](Self::is_waiting). `false` when there is none, or it has.
    pub fn forget(&mut self, number: u32) -> bool {
        if !self.knows(number) || self.is_waiting(number) {
            return false;
        }
        if let Some(pending) = self.tabs[number as usize].take() {
            self.bytes -= pending.bytes();
            self.tabs_known -= 1;
        }
        true
    }

    /// Whether this is the number of a Tab.
    #[inline]
    pub fn knows(&self, number: u32) -> bool {
        matches!(self.tabs.get(number as usize), Some(Some(_)))
    }

    /// Whether events of this Tab wait to be sealed.
    pub fn is_waiting(&self, number: u32) -> bool {
        self.tabs.get(number as usize).and_then(Option::as_ref).is_some_and(|tab| !tab.is_empty())
    }

    /// How many Tabs are known.
    pub fn tabs(&self) -> usize {
        self.tabs_known
    }

    /// Sets the time. From then on, events more than [`FUTURE_MICROS_MAX`] later are sent unfolded: if a Server sets
    /// one back, others of its State would change with it. Before, all are folded.
    pub fn set_now(&mut self, now: Timestamp) {
        self.believed = now.saturating_add(Duration::from_micros(FUTURE_MICROS_MAX as u64));
    }

    /// Adds one event. Beyond a bound it is dropped and counted; so is an event of an unknown Tab (as one Tab too
    /// many), and one with an invalid value.
    #[inline]
    pub fn offer(&mut self, tab: u32, time: Timestamp, datum: Datum) {
        self.counts.recorded += 1;
        match self.take(tab, time, datum) {
            Ok(()) => self.counts.pending += 1,
            Err(why) => self.counts.dropped.add(why, 1),
        }
        self.audit();
    }

    /// Adds numbers of one Tab, as [`offer`](Self::offer) does one by one.
    #[cfg(any(test, feature = "driver"))]
    pub(crate) fn offer_numbers(&mut self, tab: u32, mut times: &[Timestamp], mut numbers: &[f64]) {
        while let (Some(&time), Some(&number)) = (times.first(), numbers.first()) {
            let taken = self.take_run(tab, times, numbers);
            self.counts.recorded += taken as u64;
            self.counts.pending += taken as u64;
            if taken == 0 {
                self.offer(tab, time, Datum::Number(number));
            }
            (times, numbers) = (&times[taken.max(1)..], &numbers[taken.max(1)..]);
        }
        self.audit();
    }

    /// The newest failure of application code, and the number of failures since the last call.
    pub fn take_fault(&mut self) -> Option<(ApplicationFault, u64)> {
        self.fault.take()
    }

    /// Counts events that were dropped before they could be offered.
    pub fn note_dropped(&mut self, why: Why, events: u64) {
        self.counts.recorded += events;
        self.counts.dropped.add(why, events);
        self.audit();
    }

    /// The Batch in flight; if there is none, seals one of the longest waiting events. `None` when there is nothing
    /// to send.
    ///
    /// It stays in flight, and is returned again, until it is [acknowledged](Self::acknowledge) or [given
    /// up](Self::give_up). Events beyond one Batch's bounds wait for the next.
    pub fn seal(&mut self, now: Timestamp) -> Option<Arc<SealedBatch>> {
        if self.sealed.is_none() {
            self.sealed = self.seal_next(now).map(Arc::new);
            self.audit();
        }
        self.sealed.clone()
    }

    fn seal_next(&mut self, now: Timestamp) -> Option<SealedBatch> {
        let emptied_before = self.emptied;
        let blocks_max = self.config.batch_blocks_max - LEDGER_BLOCKS_MAX;
        let (mut blocks, mut batch_bytes, mut unfolded) = (Vec::new(), 0, 0);
        // Room for a Block of the greatest size is room for any.
        while blocks.len() < blocks_max
            && batch_bytes + BLOCK_BYTES_MAX <= self.config.batch_bytes_max
            && unfolded + BLOCK_EVENTS_MAX as u64 <= BATCH_EVENTS_MAX
        {
            let Some(&tab) = self.waiting.front() else { break };
            let pending = self.tabs[tab as usize].as_mut().expect("a tab that waits is not forgotten");
            let before = pending.bytes();
            let cut = pending.cut(&self.identity.client, self.config.raw_events_max);
            self.bytes = self.bytes + pending.bytes() - before;
            if pending.is_empty() {
                self.waiting.pop_front();
                self.emptied += 1;
            }
            match cut {
                Ok(TabCut::Nothing) => {}
                Ok(TabCut::Block(block)) => {
                    batch_bytes += block.encoded_bytes();
                    unfolded += block.unfolded_events();
                    blocks.push(block);
                }
                Ok(TabCut::Oversized(events)) => {
                    self.counts.pending -= events;
                    self.counts.dropped.add(Why::Full, events);
                }
                Err(failed) => self.note_failed(tab, failed),
            }
        }
        self.compact_from = self.compact_from.min(self.bytes + self.bytes_max / 16);
        self.left_behind = !self.waiting.is_empty();
        let events = blocks.iter().map(|block| block.events).sum();
        let dropped = self.counts.dropped.since(&self.told);
        if blocks.is_empty() && dropped.total() == 0 {
            return None;
        }
        blocks.extend(notes(&self.identity.client, now, events, dropped));
        self.told = self.counts.dropped;
        self.counts.pending -= events;
        self.counts.sealed += events;
        self.seq = self.seq.next();
        self.emptied_before = emptied_before;
        let SenderIdentity { client, incarnation } = self.identity.clone();
        let batch = ClientBatch::new(client, incarnation, self.seq, now, blocks);
        Some(SealedBatch::new(batch, events, dropped))
    }

    /// The Agent has the Batch in flight. `false` when it is not this one: then nothing has changed.
    pub fn acknowledge(&mut self, seq: SeqNo) -> bool {
        let Some(sealed) = self.sealed.take_if(|sealed| sealed.seq() == seq) else { return false };
        self.counts.sealed -= sealed.events();
        self.counts.acked += sealed.events();
        self.audit();
        true
    }

    /// The Batch in flight can never be delivered: its events count as dropped, and the next Batch reports that, and
    /// the drops that this one would have reported. `false` when it is not this one.
    pub fn give_up(&mut self, seq: SeqNo, why: Why) -> bool {
        let Some(sealed) = self.sealed.take_if(|sealed| sealed.seq() == seq) else { return false };
        self.counts.sealed -= sealed.events();
        self.counts.dropped.add(why, sealed.events());
        self.told = self.told.since(&sealed.dropped);
        self.audit();
        true
    }

    /// The current content: pending events, the Batch in flight, and drops not yet reported.
    pub fn flush_point(&self) -> FlushPoint {
        let untold = self.counts.dropped.since(&self.told).total() > 0;
        FlushPoint { emptied: self.emptied + self.waiting.len() as u64, seq: self.seq, untold }
    }

    /// Whether everything before that point is with the Agent, or was dropped.
    pub fn is_settled(&self, point: FlushPoint) -> bool {
        // Tabs are emptied in the order in which they began to wait, each completely.
        let is_sealed = self.emptied >= point.emptied && !(point.untold && self.seq == point.seq);
        let is_in_flight = self.sealed.as_ref().is_some_and(|sealed| {
            self.emptied_before < point.emptied || sealed.seq() <= point.seq || {
                point.untold && sealed.seq() == point.seq.next()
            }
        });
        is_sealed && !is_in_flight
    }

    /// Whether the last Batch was full before all pending events were in it: then seal again at once.
    pub fn left_behind(&self) -> bool {
        self.left_behind
    }

    /// Recovers after a panic during a change: the Batch in flight stays as it was sealed; pending events may be
    /// inconsistent, so they are dropped and counted as damaged.
    pub fn salvage(&mut self) {
        for pending in self.tabs.iter_mut().flatten() {
            let new = PendingEvents::new(pending.spec().clone(), &self.handlers);
            let old = std::mem::replace(pending, new);
            // The panic may come from a value's drop.
            drop(fault::guarded(|| drop(old)));
        }
        self.waiting.clear();
        (self.bytes, self.compact_from, self.left_behind) = (0, 0, false);
        let counts = &mut self.counts;
        counts.sealed = self.sealed.as_ref().map_or(0, |sealed| sealed.events());
        let counted = counts.acked + counts.sealed + counts.dropped.total();
        counts.recorded = counts.recorded.max(counted);
        counts.dropped.add(Why::Damaged, counts.recorded - counted);
        counts.pending = 0;
        // Every Tab that waited is empty now.
        self.emptied = self.emptied.saturating_add(self.tabs.len() as u64);
        self.audit();
    }

    /// Gives back the memory that Tabs without events hold for more. For a Client that records nothing at the moment.
    pub fn release_room(&mut self) {
        for pending in self.tabs.iter_mut().flatten().filter(|pending| pending.is_empty()) {
            let before = pending.bytes();
            pending.release_room();
            self.bytes = self.bytes + pending.bytes() - before;
        }
        self.waiting.shrink_to_fit();
    }

    /// The counts of all events.
    pub fn counts(&self) -> EventCounts {
        self.counts
    }

    /// Approximate bytes of pending events, with reserved capacity.
    pub fn pending_bytes(&self) -> usize {
        self.bytes
    }

    /// The accounts must balance after every input.
    #[inline]
    fn audit(&self) {
        let n = &self.counts;
        debug_assert_eq!(
            n.recorded,
            n.acked + n.sealed + n.pending + n.dropped.total(),
            "the buffer lost count: {n:?}"
        );
        debug_assert_eq!(n.sealed, self.sealed.as_ref().map_or(0, |sealed| sealed.events()), "{n:?}");
    }

    /// Counts everything again, one Tab after the other.
    #[cfg(test)]
    fn audit_deeply(&self) {
        self.audit();
        assert_eq!(
            self.tabs.iter().flatten().map(PendingEvents::events).sum::<u64>(),
            self.counts.pending,
            "{self:?}"
        );
        assert_eq!(
            self.tabs.iter().flatten().map(PendingEvents::bytes).sum::<usize>(),
            self.bytes,
            "{self:?}"
        );
        let waiting = self.tabs.iter().flatten().filter(|tab| !tab.is_empty()).count();
        assert_eq!(waiting, self.waiting.len(), "{self:?}");
    }
}

#[cfg(test)]
mod tests;
