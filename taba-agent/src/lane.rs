//! [`Lane`]: one stream's ordered, gap-free sequence of Batches for one VBucket; the unit of exactly-once.
//!
//! ```text
//!   released │ base …          cursor …       last │ parcels: not sealed yet
//!  ──────────┼──── retained ─────┼──── to send ────┼──────────────┬─────────────
//!            │   acknowledged    │ (one in flight) │  full  full  │ filling
//! ```
//! Blocks are encoded as they come, into parcels that are Batches but for their number. Just before it is sent for the
//! first time, a parcel is sealed: it gets the next number, and its content never changes again. The cursor is what
//! the Server's answers move: forward when a Batch is contained in the stored States, back when the store went back in
//! time, but never below `base`, the oldest Batch that is retained. When a Server learns that the base is above its
//! mark, it counts the events between as lost.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use taba_core::limits::BATCH_BLOCKS_MAX;
use taba_core::wire::{Ack, Answer, Block, put_u64};
use taba_core::{SeqNo, StreamId, VBucket};

use crate::spool::Weight;

/// Bytes before the Blocks of a Batch, at most: stream, VBucket, four numbers.
pub const HEAD_BYTES_MAX: usize = 8 + 2 + 4 * 10;

/// One Lane.
#[derive(Debug)]
pub struct Lane {
    stream: StreamId,
    vbucket: VBucket,
    batch_bytes_max: usize,
    parcels: VecDeque<Parcel>,
    /// INVARIANT: without gaps, from `base` to `last`. `seal` and `release` uphold it.
    retained: VecDeque<Sealed>,
    last: SeqNo,
    /// The next to send. INVARIANT: from `base` to `last + 1`.
    cursor: SeqNo,
    in_flight: bool,
    /// Events in all sealed Batches.
    events_sealed: u64,
}

/// Blocks on their way to be a Batch.
#[derive(Debug)]
struct Parcel {
    since: Duration,
    blocks: usize,
    bytes: Vec<u8>,
    weight: Weight,
}

/// A Batch under its number. Its bytes are kept, so that every repetition is the same.
#[derive(Clone, Debug)]
struct Sealed {
    seq: SeqNo,
    events_before: u64,
    blocks: usize,
    bytes: Bytes,
    weight: Weight,
}

/// A Batch to be sent: shares its bytes with the Lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The sender.
    pub stream: StreamId,
    /// With the stream, the name of the Lane.
    pub vbucket: VBucket,
    /// The place in the Lane.
    pub seq: SeqNo,
    /// The oldest Batch that is retained.
    pub base: SeqNo,
    events_before: u64,
    blocks: usize,
    bytes: Bytes,
}

/// What an answer changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything up to this number is contained in the stored States.
    Applied(SeqNo),
    /// The cursor went back; there is something to send at once.
    Rewound,
    /// Nothing moved: send the same again, later.
    Later,
    /// No honest Server answers so; nothing moved.
    Absurd,
}

impl Lane {
    /// An empty Lane, whose Batches are sealed at about `batch_bytes_max` bytes (one large Block may be over it).
    pub fn new(stream: StreamId, vbucket: VBucket, batch_bytes_max: usize) -> Self {
        Self {
            stream,
            vbucket,
            batch_bytes_max,
            parcels: VecDeque::new(),
            retained: VecDeque::new(),
            last: SeqNo::NONE,
            cursor: SeqNo::FIRST,
            in_flight: false,
            events_sealed: 0,
        }
    }

    /// Appends a Block, for which the Spool has granted room.
    pub fn offer(&mut self, now: Duration, block: &Block) {
        let weight = Weight::of(block);
        let room = |parcel: &Parcel| {
            parcel.blocks < BATCH_BLOCKS_MAX
                && parcel.bytes.len() + weight.bytes as usize <= self.batch_bytes_max
        };
        match self.parcels.back_mut() {
            Some(parcel) if room(parcel) => {
                block.encode(&mut parcel.bytes);
                parcel.blocks += 1;
                parcel.weight = parcel.weight.plus(weight);
            }
            full => {
                if let Some(full) = full {
                    full.bytes.shrink_to_fit();
                }
                let mut bytes = Vec::with_capacity(weight.bytes as usize);
                block.encode(&mut bytes);
                self.parcels.push_back(Parcel { since: now, blocks: 1, bytes, weight });
            }
        }
    }

    /// About how many bytes [`send`](Self::send) would send now, never fewer than it does; `None` when it would send
    /// nothing.
    pub fn next_bytes(&self) -> Option<usize> {
        if self.in_flight {
            return None;
        }
        let sealed = self.index(self.cursor).map(|index| self.retained[index].bytes.len());
        sealed
            .or_else(|| self.parcels.front().map(|parcel| parcel.bytes.len()))
            .map(|bytes| HEAD_BYTES_MAX + bytes)
    }

    /// Since when the oldest of what is to be sent has been waiting; `None` when there is nothing to send or that has
    /// been sent before.
    pub fn waiting_since(&self) -> Option<Duration> {
        if self.cursor <= self.last { None } else { self.parcels.front().map(|parcel| parcel.since) }
    }

    /// The Batch at the cursor, sealed now if it was not; it is in flight from here until it is acknowledged or given
    /// back. `None` when one is in flight already, or there is nothing to send.
    pub fn send(&mut self) -> Option<Outgoing> {
        if self.in_flight {
            return None;
        }
        if self.cursor > self.last {
            self.seal()?;
        }
        let index =
            self.index(self.cursor).expect("the cursor is at or below the last sealed Batch, and above base");
        let Sealed { seq, events_before, blocks, ref bytes, .. } = self.retained[index];
        self.in_flight = true;
        let (stream, vbucket, base) = (self.stream, self.vbucket, self.base());
        Some(Outgoing { stream, vbucket, seq, base, events_before, blocks, bytes: bytes.clone() })
    }

    fn seal(&mut self) -> Option<()> {
        let parcel = self.parcels.pop_front()?;
        let (seq, events_before) = (self.last.next(), self.events_sealed);
        self.events_sealed = self.events_sealed.saturating_add(parcel.weight.events);
        self.last = seq;
        let Parcel { blocks, bytes, weight, .. } = parcel;
        self.retained.push_back(Sealed {
            seq,
            events_before,
            blocks,
            bytes: bytes.into_boxed_slice().into(),
            weight,
        });
        Some(())
    }

    /// What the Server said about the Batch in flight.
    pub fn acknowledge(&mut self, ack: &Ack) -> Progress {
        debug_assert!(self.in_flight, "an answer without a question");
        self.in_flight = false;
        let sent = self.cursor;
        let progress = match ack.answer {
            Answer::Unavailable | Answer::Busy => Progress::Later,
            // A mark above everything we ever sealed is not about our Lane.
            _ if ack.applied > self.last => Progress::Absurd,
            Answer::Applied | Answer::Duplicate if ack.applied >= sent => {
                self.cursor = ack.applied.next();
                Progress::Applied(ack.applied)
            }
            Answer::Applied | Answer::Duplicate => Progress::Absurd,
            // The store may have gone back to any earlier mark, also below what we still have. Then we go on from
            // what we have, and the Server, seeing the base, counts the gap.
            Answer::Nak => {
                self.cursor = ack.applied.next().clamp(self.base(), sent);
                if self.cursor == sent { Progress::Later } else { Progress::Rewound }
            }
        };
        self.audit();
        progress
    }

    /// The request was not answered: the Batch may or may not have been stored, and is to be sent again as it is.
    pub fn give_back(&mut self) {
        debug_assert!(self.in_flight, "nothing was taken");
        self.in_flight = false;
    }

    /// Lets go of all Batches up to and with `through`: the store will not go back behind them, or if it does, that is
    /// counted as a gap. Returns what they weighed.
    ///
    /// Nothing at or above the cursor is let go, whatever `through` says.
    pub fn release(&mut self, through: SeqNo) -> Weight {
        let mut released = Weight::default();
        while let Some(oldest) =
            self.retained.front().filter(|old| old.seq <= through && old.seq < self.cursor)
        {
            released = released.plus(oldest.weight);
            self.retained.pop_front();
        }
        self.audit();
        released
    }

    /// What is here, sealed or not.
    pub fn held(&self) -> Weight {
        let sealed = self.retained.iter().map(|sealed| sealed.weight);
        sealed.chain(self.parcels.iter().map(|parcel| parcel.weight)).sum()
    }

    /// The oldest Batch that is retained; one above the last when none is.
    pub fn base(&self) -> SeqNo {
        self.retained.front().map_or(self.last.next(), |oldest| oldest.seq)
    }

    fn index(&self, seq: SeqNo) -> Option<usize> {
        let index = seq.0.checked_sub(self.base().0)? as usize;
        (index < self.retained.len()).then_some(index)
    }

    fn audit(&self) {
        debug_assert!(
            self.base() <= self.cursor && self.cursor <= self.last.next(),
            "the cursor is off: {self:?}"
        );
        debug_assert_eq!(
            self.last.next().0 - self.base().0,
            self.retained.len() as u64,
            "there is a gap: {self:?}"
        );
    }
}

impl Outgoing {
    /// Appends the Batch: the layout of [`LaneBatch`](taba_core::wire::LaneBatch).
    ///
    /// ```text
    /// | stream u64 | vbucket u16 | seq | base | events_before | n | n Blocks |
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stream.0.to_le_bytes());
        out.extend_from_slice(&self.vbucket.index().to_le_bytes());
        put_u64(self.seq.0, out);
        put_u64(self.base.0, out);
        put_u64(self.events_before, out);
        put_u64(self.blocks as u64, out);
        out.extend_from_slice(&self.bytes);
    }

    /// How many bytes [`encode`](Self::encode) appends, at most.
    pub fn bytes(&self) -> usize {
        HEAD_BYTES_MAX + self.bytes.len()
    }
}

#[cfg(test)]
mod tests;
