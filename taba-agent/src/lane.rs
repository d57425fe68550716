//! [`Lane`]: one stream's ordered, gap-free sequence of Batches for one VBucket; the unit of exactly-once.
//!
//! ```text
//!   let go │ base …               cursor …                          last
//!  ────────┼──── acknowledged, ─────┼──── to send ──────────────┬─────────
//!          │     kept in case the   │ (at most one in flight)   │ filling
//!          │     store goes back    │                           │
//! ```
//! Blocks are written to the Spool and added to the last Batch as they come; when it is full, or just before it is sent,
//! it is closed, and its content never changes again. The cursor is what the Server's answers move: forward when a Batch
//! is contained in the stored States, back when the store went back in time, but never below `base`. When a Server
//! learns that the base is above its mark, it counts the events between as lost.
//!
//! # When a Batch may go
//! An acknowledged Batch is contained in a store that may yet go back: a failover to a replica that lags takes back
//! what was acknowledged, and a primary that was cut off goes on acknowledging what nobody will ever see. So a Batch is
//! let go only when one answer, fresh from a commit, to a message sent at least `confirm_after` after the Batch's own
//! acknowledgement, says that it is contained and that it is stable. By then a primary that was cut off has noticed, and
//! a stable commit is on every replica. A Lane that has nothing to send asks with a Probe.

mod parcel;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use taba_core::ledger::{self, Where, Why};
use taba_core::wire::{Ack, Answer, Block, Probe, Reader, WireError, put_u64};
use taba_core::{ClientId, Events, SeqNo, StreamId, Timestamp};

use self::parcel::Parcel;
use crate::relay::Moment;
use crate::sabotage::{CONFIRM, is_off};
use crate::spool::record::{Floor, Piece};
use crate::spool::recovery::FoundLane;
use crate::spool::{Place, ReadError, SegmentId, Spool};

/// Bytes before the Blocks of a Batch, at most: stream, VBucket, four numbers.
pub const HEAD_BYTES_MAX: usize = 8 + 2 + 4 * 10;
/// A Batch older than this is never sent: the mark that would tell a repetition may be gone after 48 h.
pub const BATCH_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// That Batches are lost is told to Servers only while the last of them is younger than this. Later the Lane's mark may
/// be gone, and all of the Lane would be counted as lost.
pub const LOSS_AGE_MAX: Duration = Duration::from_secs(30 * 3600);

/// The name of a Lane. Sorts by stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey {
    /// Which sender incarnation.
    pub stream: StreamId,
    /// Which VBucket.
    pub vbucket: u16,
}

impl fmt::Display for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.vbucket)
    }
}

/// What all Lanes keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneBounds {
    /// Bytes at which a Batch is closed; one large Block may be over it.
    pub batch_bytes_max: usize,
    /// How long after a Batch's own acknowledgement a message has to be sent, for its answer to confirm the Batch.
    pub confirm_after: Duration,
    /// How long to wait before asking again what was not confirmed.
    pub probe_interval: Duration,
    /// Whether the Spool gives back what it was given.
    pub spool_keeps_content: bool,
}

/// One Lane.
#[derive(Debug)]
pub struct Lane {
    key: LaneKey,
    bounds: LaneBounds,
    /// INVARIANT: without gaps, from `base` to `last`. `append`, `pop` and `replace_unsent` uphold it.
    parcels: VecDeque<Parcel>,
    last: SeqNo,
    /// The next to send. INVARIANT: from `base` to `last + 1`.
    cursor: SeqNo,
    /// The last that was ever sent, or may have been.
    sent_through: SeqNo,
    /// Whether an earlier run may have sent more than was found of it: then a mark beyond the end says that all of this
    /// is contained.
    is_recovered: bool,
    flight: Option<Flight>,
    /// Whether a Probe is to go before anything else.
    must_probe: bool,
    /// Not before then is a Probe sent to confirm.
    probe_not_before: Duration,
    /// What the last answer said is stable; forgotten when the store goes back.
    stable: SeqNo,
    /// Batches that are lost, until the store counts them for good.
    loss: Option<Loss>,
    /// Events in all Batches.
    events_offered: u64,
    /// Events in `parcels`.
    events_held: u64,
    /// Bytes of unsent Batches above which merging them is worth it.
    merge_at: u64,
}

/// Everything up to `through` is gone from here, and some of it may not have been stored. That is said with every
/// message, as the base; and like a Batch it is kept until it is confirmed that the store has heard it.
#[derive(Clone, Copy, Debug)]
struct Loss {
    through: SeqNo,
    acked_at: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    sent_at: Duration,
    is_probe: bool,
}

/// A Batch to be sent: shares its bytes with the Lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Which Lane.
    pub lane: LaneKey,
    /// The place in the Lane.
    pub seq: SeqNo,
    /// The oldest Batch that is retained.
    pub base: SeqNo,
    events_before: u64,
    blocks: u64,
    bytes: Bytes,
}

/// What a Lane has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Its next Batch.
    Batch(Outgoing),
    /// A question.
    Probe(Probe),
}

/// What a Lane would say, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A Batch of at most so many bytes.
    Batch(usize),
    /// A question.
    Probe,
}

/// What an answer changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything up to this number is contained in the stored States.
    Applied(SeqNo),
    /// The store holds less than it did; the cursor went back, and there is something to send at once.
    Rewound,
    /// Nothing moved: send the same again, later.
    Later,
    /// No honest Server answers so; nothing moved.
    Absurd,
}

/// What a Lane let go of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the Spool still holds it"]
pub struct Released {
    /// Events.
    pub events: u64,
    /// Batches.
    pub batches: u64,
    /// Where they stood in the Spool.
    pub places: Vec<Place>,
}

impl Released {
    /// Adds what another Lane let go of.
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        self.batches += other.batches;
        self.places.extend(other.places);
    }
}

impl Lane {
    /// An empty Lane.
    pub fn new(key: LaneKey, bounds: LaneBounds) -> Self {
        Self {
            key,
            bounds,
            parcels: VecDeque::new(),
            last: SeqNo::NONE,
            cursor: SeqNo::FIRST,
            sent_through: SeqNo::NONE,
            is_recovered: false,
            flight: None,
            must_probe: false,
            probe_not_before: Duration::ZERO,
            stable: SeqNo::NONE,
            loss: None,
            events_offered: 0,
            events_held: 0,
            merge_at: 0,
        }
    }

    /// A Lane of an earlier run, as it was found. It first asks how far it is contained in the store.
    pub fn recovered(key: LaneKey, bounds: LaneBounds, found: FoundLane, now: Moment) -> Self {
        let mut lane = Self::new(key, bounds);
        for batch in found.batches {
            let note = (batch.events_lost > 0).then(|| damage_note(key.stream, now.time, batch.events_lost));
            let mut parcel = Parcel::recovered(batch, now, note.as_ref());
            parcel.acked_at = (parcel.seq <= found.applied).then_some(now.uptime);
            debug_assert!(lane.parcels.is_empty() || parcel.seq == lane.last.next(), "there is a gap");
            if lane.parcels.is_empty() {
                lane.cursor = parcel.seq;
            }
            lane.last = parcel.seq;
            lane.events_held += parcel.weight.events;
            lane.events_offered = parcel.events_before.saturating_add(parcel.weight.events);
            lane.parcels.push_back(parcel);
        }
        lane.sent_through = lane.last;
        lane.cursor = lane.cursor.max(found.applied.min(lane.last).next());
        (lane.must_probe, lane.is_recovered) = (true, true);
        lane
    }

    /// The name of the Lane.
    pub const fn key(&self) -> LaneKey {
        self.key
    }

    /// Which Batches these Blocks would become part of, in order. Nothing changes: write the pieces to the Spool, then
    /// [`append`](Self::append) them.
    pub fn plan<'a>(&self, blocks: impl IntoIterator<Item = &'a Block>) -> Vec<Piece> {
        let open = self.parcels.back().filter(|parcel| !parcel.is_closed);
        self.cut(open, self.last.next(), self.events_offered, blocks)
    }

    fn cut<'a>(
        &self,
        open: Option<&Parcel>,
        next: SeqNo,
        events_before: u64,
        blocks: impl IntoIterator<Item = &'a Block>,
    ) -> Vec<Piece> {
        let vbucket = self.key.vbucket;
        let empty = |seq, events_before| Piece {
            vbucket,
            seq,
            events_before,
            blocks_before: 0,
            blocks: 0,
            events: 0,
            bytes: Vec::new(),
        };
        let mut pieces: Vec<Piece> = Vec::new();
        let (mut events, mut scratch) = (events_before, Vec::new());
        // What the Batch being filled holds before its piece.
        let mut held = open.map_or((0, 0), |open| (open.blocks, open.weight.bytes as usize));
        if let Some(open) = open {
            pieces.push(Piece { blocks_before: open.blocks, ..empty(open.seq, open.events_before) });
        }
        for block in blocks {
            scratch.clear();
            block.encode(&mut scratch);
            let has_room = |piece: &Piece| {
                let (blocks, bytes) = (held.0 + piece.blocks, held.1 + piece.bytes.len());
                blocks < taba_core::limits::BATCH_BLOCKS_MAX as u64
                    && (blocks == 0 || bytes + scratch.len() <= self.bounds.batch_bytes_max)
            };
            if !pieces.last().is_some_and(has_room) {
                let seq = pieces.last().map_or(next, |piece| piece.seq.next());
                pieces.push(empty(seq, events));
                held = (0, 0);
            }
            let piece = pieces.last_mut().expect("one was pushed if there was none");
            piece.blocks += 1;
            piece.bytes.extend_from_slice(&scratch);
            if !block.tab.is_reserved() {
                piece.events = piece.events.saturating_add(block.events);
                events = events.saturating_add(block.events);
            }
        }
        pieces.retain(|piece| piece.blocks > 0);
        pieces
    }

    /// Adds pieces that were [planned](Self::plan) and are in the Spool now, which ends at `written` with them.
    pub fn append(&mut self, now: Moment, pieces: impl IntoIterator<Item = (Piece, Place)>, written: u64) {
        for (piece, place) in pieces {
            self.events_held = self.events_held.saturating_add(piece.events);
            self.events_offered = self.events_offered.saturating_add(piece.events);
            match self.parcels.back_mut().filter(|back| back.seq == piece.seq) {
                Some(open) => open.append(&piece, place, written),
                None => {
                    debug_assert_eq!(piece.seq, self.last.next(), "a piece was not planned on what is here");
                    self.close_last();
                    self.last = piece.seq;
                    self.parcels.push_back(Parcel::begin(now, piece, place, written));
                }
            }
        }
        self.audit();
    }

    fn close_last(&mut self) {
        if let Some(last) = self.parcels.back_mut() {
            last.close();
        }
    }

    /// Forgets the content of all Batches that the Spool can give back, but for the one in flight.
    pub fn put_away(&mut self) {
        if !self.bounds.spool_keeps_content {
            return;
        }
        let in_flight = self.flight.and_then(|_| self.index(self.cursor));
        for (index, parcel) in self.parcels.iter_mut().enumerate() {
            if Some(index) != in_flight {
                parcel.put_away();
            }
        }
    }

    /// What [`send`](Self::send) would send now; `None` when a message is in flight or there is nothing to say.
    pub fn next(&self) -> Option<Next> {
        if self.flight.is_some() {
            return None;
        }
        if self.must_probe {
            return Some(Next::Probe);
        }
        self.index(self.cursor).map(|index| Next::Batch(HEAD_BYTES_MAX + self.parcels[index].bytes()))
    }

    /// Since when the oldest of what was never sent has been waiting; `None` when there is none, or something else is
    /// to be said first.
    pub fn waiting_since(&self) -> Option<Duration> {
        if self.must_probe || self.cursor <= self.sent_through {
            return None;
        }
        self.index(self.cursor).map(|index| Duration::from_micros(self.parcels[index].born.max(0) as u64))
    }

    /// Closes the Batch at the cursor, and says whether it is in the Spool for good: up to `durable`.
    pub fn make_ready(&mut self, durable: u64) -> bool {
        if self.must_probe {
            return true;
        }
        match self.index(self.cursor) {
            None => true,
            Some(index) => {
                self.parcels[index].close();
                self.parcels[index].written <= durable
            }
        }
    }

    /// What there is to say; it is in flight from here until it is acknowledged or given back. `None` when something is
    /// in flight already, or there is nothing to say.
    ///
    /// # Errors
    /// [`ReadError::Disk`] when the Spool does not give the Batch back: try again later. What is damaged becomes a note
    /// of how much is lost, and `lost` is raised by that.
    pub fn send(
        &mut self,
        now: Moment,
        spool: &dyn Spool,
        lost: &mut u64,
    ) -> Result<Option<Message>, ReadError> {
        if self.flight.is_some() {
            return Ok(None);
        }
        let message = if self.must_probe {
            let (base, events_before) = (self.base(), self.events_before_base());
            Message::Probe(Probe { stream: self.key.stream, vbucket: self.key.vbucket, base, events_before })
        } else {
            let Some(index) = self.index(self.cursor) else { return Ok(None) };
            let base = self.base();
            let (key, parcel) = (self.key, &mut self.parcels[index]);
            let bytes = match parcel.content(spool) {
                Err(ReadError::Damaged { .. }) => {
                    let note = damage_note(key.stream, now.time, parcel.weight.events);
                    let events = parcel.damaged(&note);
                    *lost += events;
                    self.events_held -= events;
                    parcel.content(spool)?
                }
                read => read?,
            };
            let (seq, events_before, blocks) = (parcel.seq, parcel.events_before, parcel.blocks);
            self.sent_through = self.sent_through.max(seq);
            Message::Batch(Outgoing { lane: key, seq, base, events_before, blocks, bytes })
        };
        self.flight = Some(Flight { sent_at: now.uptime, is_probe: self.must_probe });
        Ok(Some(message))
    }

    /// What the Server said about the message in flight, and what can be let go for that.
    pub fn acknowledge(&mut self, now: Duration, ack: &Ack) -> (Progress, Released) {
        debug_assert!(self.flight.is_some(), "an answer without a question");
        let Some(flight) = self.flight.take() else { return (Progress::Absurd, Released::default()) };
        let sent = self.cursor;
        let beyond = if self.is_recovered { ack.applied.min(self.last) } else { ack.applied };
        let ack = &Ack { applied: beyond, stable: ack.stable.min(beyond), ..ack.clone() };
        let progress = match ack.answer {
            Answer::Unavailable | Answer::Busy => Progress::Later,
            // A mark above everything we ever sent is not about our Lane.
            _ if ack.applied > self.sent_through => Progress::Absurd,
            Answer::Applied if flight.is_probe => self.probed(now, ack.applied),
            _ if flight.is_probe => Progress::Absurd,
            Answer::Applied | Answer::Duplicate if ack.applied >= sent => self.applied(now, ack.applied),
            Answer::Applied | Answer::Duplicate => Progress::Absurd,
            // The store may have gone back to any earlier mark, also below what we still have. Then we go on from
            // what we have, and the Server, seeing the base, counts the gap.
            Answer::Nak => {
                self.rewind(ack.applied);
                if self.cursor == sent { Progress::Later } else { Progress::Rewound }
            }
        };
        if progress == Progress::Later {
            self.put_away_next();
        }
        let mut released = Released::default();
        if ack.answer == Answer::Applied && matches!(progress, Progress::Applied(_) | Progress::Rewound) {
            self.stable = self.stable.max(ack.stable.min(ack.applied));
            let through = if is_off(CONFIRM) { ack.applied } else { ack.applied.min(ack.stable) };
            self.confirm(through, flight.sent_at, &mut released);
            self.confirm_loss(now, ack, flight.sent_at);
            self.probe_not_before = now + self.bounds.probe_interval;
        }
        self.audit();
        (progress, released)
    }

    /// The store has heard of the loss; once that is confirmed, nothing is left to tell.
    fn confirm_loss(&mut self, now: Duration, ack: &Ack, sent_at: Duration) {
        let Some(loss) = self.loss.as_mut().filter(|loss| loss.through <= ack.applied) else { return };
        match loss.acked_at {
            None => loss.acked_at = Some(now),
            Some(acked) if acked + self.bounds.confirm_after <= sent_at && loss.through <= ack.stable => {
                self.loss = None;
            }
            Some(_) => {}
        }
    }

    fn applied(&mut self, now: Duration, through: SeqNo) -> Progress {
        for parcel in self.parcels.iter_mut().take_while(|parcel| parcel.seq <= through) {
            if parcel.acked_at.is_none() {
                parcel.acked_at = Some(now);
            }
            if self.bounds.spool_keeps_content && parcel.seq >= self.cursor {
                parcel.put_away();
            }
        }
        self.cursor = self.cursor.max(through.next());
        Progress::Applied(through)
    }

    fn probed(&mut self, now: Duration, applied: SeqNo) -> Progress {
        self.must_probe = false;
        if applied.next() < self.cursor {
            let before = self.cursor;
            self.rewind(applied);
            if self.cursor < before {
                return Progress::Rewound;
            }
        }
        self.applied(now, applied)
    }

    fn rewind(&mut self, applied: SeqNo) {
        self.cursor = applied.next().clamp(self.base(), self.cursor);
        self.stable = SeqNo::NONE;
        if let Some(loss) = self.loss.as_mut().filter(|loss| loss.through > applied) {
            loss.acked_at = None;
        }
        for parcel in self.parcels.iter_mut().rev().take_while(|parcel| parcel.seq > applied) {
            parcel.acked_at = None;
        }
    }

    /// Lets go of what an answer to a message sent then confirms: what was acknowledged long enough before.
    fn confirm(&mut self, through: SeqNo, sent_at: Duration, released: &mut Released) {
        while let Some(oldest) = self.parcels.front() {
            let is_confirmed =
                oldest.acked_at.is_some_and(|acked| acked + self.bounds.confirm_after <= sent_at)
                    || is_off(CONFIRM);
            if oldest.seq > through || oldest.seq >= self.cursor || !is_confirmed {
                break;
            }
            self.pop(released);
        }
    }

    fn pop(&mut self, released: &mut Released) {
        let Some(parcel) = self.parcels.pop_front() else { return };
        self.events_held -= parcel.weight.events;
        released.events += parcel.weight.events;
        released.batches += 1;
        released.places.extend(parcel.places);
    }

    /// The request was not answered: the Batch may or may not have been stored, and is to be sent again as it is.
    pub fn give_back(&mut self) {
        debug_assert!(self.flight.is_some(), "nothing was taken");
        self.flight = None;
        self.put_away_next();
    }

    /// What has to be sent again is read again: many Lanes may wait for one Server to come back.
    fn put_away_next(&mut self) {
        let next = self.index(self.cursor).filter(|_| self.bounds.spool_keeps_content);
        if let Some(index) = next.filter(|index| self.parcels[*index].is_closed) {
            self.parcels[index].put_away();
        }
    }

    /// When a Lane that has nothing to send wants to ask whether what it keeps may go; `None` when it keeps nothing, or
    /// has something to say anyway.
    pub fn probe_at(&self) -> Option<Duration> {
        if self.flight.is_some() || self.next().is_some() {
            return None;
        }
        let kept = self.parcels.back().map(|parcel| parcel.acked_at);
        let told = self.loss.map(|loss| loss.acked_at);
        // What is kept and not acknowledged is sent, and what is lost and not heard of is told first.
        let newest = kept.into_iter().chain(told).max()??;
        Some((newest + self.bounds.confirm_after).max(self.probe_not_before))
    }

    /// It is time to ask.
    pub fn probe(&mut self) {
        self.must_probe = true;
    }

    /// Lets go of Batches that are too old to be sent, unless they are in flight. Those that had not been acknowledged
    /// are lost: the Server counts them, unless it has them, when the next message tells it the new base.
    pub fn expire(&mut self, now: Duration) -> Released {
        let mut released = Released::default();
        let age = |parcel: &Parcel| now.as_micros() as i64 - parcel.born;
        while let Some(oldest) =
            self.parcels.front().filter(|old| age(old) > BATCH_AGE_MAX.as_micros() as i64)
        {
            let (seq, is_lost) = (oldest.seq, oldest.seq >= self.cursor);
            let is_tellable = age(oldest) <= LOSS_AGE_MAX.as_micros() as i64;
            if self.flight.is_some() && is_lost {
                break;
            }
            self.pop(&mut released);
            if is_lost {
                self.loss = Some(Loss { through: seq, acked_at: None }).filter(|_| is_tellable);
            }
        }
        if released.batches > 0 && self.parcels.is_empty() {
            // With nothing to send and nothing to tell, there is nothing to ask either.
            self.must_probe = self.loss.is_some_and(|loss| loss.acked_at.is_none());
        }
        self.cursor = self.cursor.max(self.base());
        self.audit();
        released
    }

    /// Lets go of Batches that stand in this segment, if the store is known to have them for good: room is needed. Were
    /// the store to go back all the same, they are counted as a gap.
    pub fn release_stable(&mut self, segment: SegmentId) -> Released {
        let mut released = Released::default();
        let stands = |parcel: &Parcel| parcel.places.iter().any(|place| place.segment == segment);
        let last = self.parcels.iter().filter(|parcel| stands(parcel)).map(|parcel| parcel.seq).max();
        let through = last.unwrap_or_default().min(self.stable);
        while self.parcels.front().is_some_and(|oldest| oldest.seq <= through && oldest.seq < self.cursor) {
            self.pop(&mut released);
        }
        self.audit();
        released
    }

    /// The Batches that stand in this segment, each whole: to be written again elsewhere.
    ///
    /// # Errors
    /// [`ReadError`] when the Spool cannot give one back.
    pub fn copies(
        &mut self,
        segment: SegmentId,
        spool: &dyn Spool,
    ) -> Result<Vec<(Timestamp, Piece)>, ReadError> {
        let mut copies = Vec::new();
        for parcel in &mut self.parcels {
            if parcel.places.iter().all(|place| place.segment != segment) {
                continue;
            }
            parcel.close();
            let piece = Piece {
                vbucket: self.key.vbucket,
                seq: parcel.seq,
                events_before: parcel.events_before,
                blocks_before: 0,
                blocks: parcel.blocks_written(),
                events: parcel.weight.events,
                bytes: parcel.pieces(spool)?.to_vec(),
            };
            copies.push((parcel.taken_at, piece));
        }
        Ok(copies)
    }

    /// A Batch stands elsewhere now; gives where it stood.
    pub fn moved(&mut self, seq: SeqNo, place: Place, written: u64) -> Vec<Place> {
        let Some(index) = self.index(seq) else { return vec![place] };
        self.parcels[index].move_to(place, written)
    }

    /// Whether merging what was never sent is worth its while: it has waited since before `since`, and has doubled since
    /// it was last merged, beyond `bytes_min`.
    pub fn wants_merge(&self, since: Duration, bytes_min: u64) -> bool {
        let Some(first) = self.index(self.first_unsent()) else { return false };
        let unsent = self.parcels.range(first..);
        self.parcels[first].born <= since.as_micros() as i64
            && unsent.map(|parcel| parcel.weight.bytes).sum::<u64>() > self.merge_at.max(bytes_min)
    }

    /// Merging was tried and not worth its while: not again until there is twice as much.
    pub fn skip_merge(&mut self) {
        let first = self.index(self.first_unsent()).unwrap_or(self.parcels.len());
        self.merge_at = 2 * self.parcels.range(first..).map(|parcel| parcel.weight.bytes).sum::<u64>();
    }

    /// The Blocks that were never sent.
    ///
    /// # Errors
    /// [`ReadError`] when the Spool cannot give them back.
    ///
    /// # Panics
    /// Never: what a Lane holds are Blocks that it encoded.
    pub fn unsent(&self, spool: &dyn Spool) -> Result<Vec<Block>, ReadError> {
        let mut blocks = Vec::new();
        let Some(first) = self.index(self.first_unsent()) else { return Ok(blocks) };
        for parcel in self.parcels.range(first..) {
            blocks.extend(decode(&parcel.pieces(spool)?).expect("what a lane holds are blocks"));
        }
        Ok(blocks)
    }

    /// How these Blocks, which say the same as those that were never sent, would be cut into Batches.
    pub fn plan_unsent(&self, blocks: &[Block]) -> (Timestamp, Vec<Piece>) {
        let Some(first) = self.index(self.first_unsent()) else { return Default::default() };
        let parcel = &self.parcels[first];
        (parcel.taken_at, self.cut(None, parcel.seq, parcel.events_before, blocks))
    }

    /// Puts what was [planned](Self::plan_unsent) in the place of all that was never sent; gives where that stood.
    pub fn replace_unsent(
        &mut self,
        pieces: impl IntoIterator<Item = (Piece, Place)>,
        written: u64,
    ) -> Vec<Place> {
        let seq = self.first_unsent();
        let Some(first) = self.index(seq) else { return Vec::new() };
        let (taken_at, born) = (self.parcels[first].taken_at, self.parcels[first].born);
        let before: u64 = self.parcels.range(first..).map(|parcel| parcel.weight.events).sum();
        let places = self.parcels.drain(first..).flat_map(|parcel| parcel.places).collect();
        self.last = SeqNo(seq.0 - 1);
        self.events_held -= before;
        self.events_offered -= before;
        let now = Moment { time: taken_at, ..Moment::default() };
        self.append(now, pieces, written);
        let mut bytes = 0;
        for parcel in self.parcels.range_mut(first..) {
            parcel.born = born;
            bytes += parcel.weight.bytes;
        }
        self.merge_at = 2 * bytes;
        places
    }

    /// The first Batch that was certainly never sent, whether it is there or not.
    fn first_unsent(&self) -> SeqNo {
        self.sent_through.next().max(self.base())
    }

    /// Whether everything that is here is contained in the store.
    pub fn is_applied(&self) -> bool {
        self.cursor > self.last && !self.must_probe && self.flight.is_none()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty() && self.loss.is_none() && !self.must_probe && self.flight.is_none()
    }

    /// Events of everything that is here.
    pub const fn events_held(&self) -> u64 {
        self.events_held
    }

    /// Events and bytes of what is not known to be contained in the store.
    pub fn unapplied(&self) -> crate::spool::Weight {
        let first = self.index(self.cursor).unwrap_or(self.parcels.len());
        self.parcels.range(first..).map(|parcel| parcel.weight).sum()
    }

    /// Whether what it would send has been sent before, or may have been.
    pub fn is_replaying(&self) -> bool {
        self.cursor <= self.sent_through
    }

    /// Where it stands, to be written down.
    pub fn floor(&self) -> Floor {
        Floor { lane: self.key, base: self.base(), applied: SeqNo(self.cursor.0 - 1) }
    }

    /// The oldest Batch that is retained; one above the last when none is.
    pub fn base(&self) -> SeqNo {
        self.parcels.front().map_or(self.last.next(), |oldest| oldest.seq)
    }

    fn events_before_base(&self) -> u64 {
        self.parcels.front().map_or(self.events_offered, |oldest| oldest.events_before)
    }

    fn index(&self, seq: SeqNo) -> Option<usize> {
        let index = seq.0.checked_sub(self.base().0)? as usize;
        (index < self.parcels.len()).then_some(index)
    }

    fn audit(&self) {
        debug_assert!(
            self.base() <= self.cursor && self.cursor <= self.last.next(),
            "the cursor is off: {self:?}"
        );
        debug_assert_eq!(
            self.last.next().0 - self.base().0,
            self.parcels.len() as u64,
            "there is a gap: {self:?}"
        );
        debug_assert_eq!(
            self.parcels.iter().map(|parcel| parcel.weight.events).sum::<u64>(),
            self.events_held,
            "the lane lost count"
        );
    }
}

/// Reads Blocks that stand one behind the other.
fn decode(bytes: &Bytes) -> Result<Vec<Block>, WireError> {
    let mut reader = Reader::new(bytes);
    let mut blocks = Vec::new();
    while reader.remaining() > 0 {
        blocks.push(Block::decode(&mut reader, bytes)?);
    }
    Ok(blocks)
}

/// The Ledger's note about events of a stream that were written down and cannot be read any more.
fn damage_note(stream: StreamId, now: Timestamp, events: u64) -> Block {
    let tab = ledger::dropped_tab(Where::Agent, Why::Damaged);
    let client =
        ClientId::new(&format!("taba.stream/{stream}")).expect("hexadecimal digits are name characters");
    let (times, values) = ([now], [events as f64]);
    let note = Events::new(&times, &values);
    Block::of_events(tab, client, ledger::tab_type(), note).expect("there is one event")
}

impl Outgoing {
    /// Appends the Batch: the layout of [`LaneBatch`](taba_core::wire::LaneBatch).
    ///
    /// ```text
    /// | stream u64 | vbucket u16 | seq | base | events_before | n | n Blocks |
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lane.stream.0.to_le_bytes());
        out.extend_from_slice(&self.lane.vbucket.to_le_bytes());
        put_u64(self.seq.0, out);
        put_u64(self.base.0, out);
        put_u64(self.events_before, out);
        put_u64(self.blocks, out);
        out.extend_from_slice(&self.bytes);
    }

    /// How many bytes [`encode`](Self::encode) appends, at most.
    pub fn bytes(&self) -> usize {
        HEAD_BYTES_MAX + self.bytes.len()
    }
}

#[cfg(test)]
mod tests;
