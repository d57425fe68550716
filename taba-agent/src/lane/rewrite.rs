//! Writing again what a Lane holds: elsewhere in the Spool, or merged, or only there and no longer in memory.

use std::time::Duration;

use bytes::Bytes;
use taba_core::wire::{Block, Reader, WireError};
use taba_core::{SeqNo, Timestamp};

use super::entry::LaneEntry;
use super::{Lane, ReleasedBatches};
use crate::spool::record::Fragment;
use crate::spool::{Fetch, FragmentLocation, Purpose, SegmentId};
use crate::units::ClockReading;

/// A Batch that is to be written again: when the first of it was taken, and all of it as one piece.
pub type BatchCopy = (Timestamp, Fragment);

impl Lane {
    /// Forgets the content of all Batches that the Spool can give back, as it says of the ends of their records; but not
    /// of the one in flight.
    pub fn put_away(&mut self, is_readable: impl Fn(u64) -> bool) {
        if !self.bounds.spool_keeps_content {
            return;
        }
        let in_flight = self.flight.and_then(|_| self.index(self.cursor));
        for (index, parcel) in self.parcels.iter_mut().enumerate() {
            if Some(index) != in_flight {
                parcel.is_filed |= is_readable(parcel.written);
                parcel.put_away();
            }
        }
    }

    /// The first Batch from this number on that stands in this segment or an earlier one: to be written again elsewhere. One
    /// whose content is away has to be read back first.
    pub fn next_copy(
        &mut self,
        from: SeqNo,
        through: SegmentId,
    ) -> Option<(SeqNo, Result<BatchCopy, Fetch>)> {
        let (key, first) = (self.key, self.index(from.max(self.base()))?);
        let is_old = |parcel: &&mut LaneEntry| parcel.places.iter().any(|place| place.segment <= through);
        let parcel = self.parcels.range_mut(first..).find(is_old)?;
        parcel.close();
        let copy = match parcel.pieces() {
            Some(bytes) => Ok(parcel.copy(key.vbucket, bytes)),
            None => {
                let (seq, places) = (parcel.seq, parcel.places.clone());
                Err(Fetch { lane: key, seq, places, purpose: Purpose::Copy })
            }
        };
        Some((parcel.seq, copy))
    }

    /// A Batch stands elsewhere now; gives where it stood.
    pub fn moved(&mut self, seq: SeqNo, place: FragmentLocation, written: u64) -> Vec<FragmentLocation> {
        let Some(index) = self.index(seq) else { return vec![place] };
        self.parcels[index].move_to(place, written)
    }

    /// Whether merging what was never sent is worth its while: it has waited since before `since`, and has doubled since
    /// it was last merged, beyond `bytes_min`.
    pub fn wants_merge(&self, since: Duration, bytes_min: u64) -> bool {
        let Some(first) = self.index(self.first_unsent()) else { return false };
        let unsent = self.parcels.range(first..);
        self.parcels[first].born <= since.as_micros() as i64
            && !unsent.clone().any(LaneEntry::has_note)
            && unsent.map(|parcel| parcel.weight.bytes).sum::<u64>() > self.merge_at.max(bytes_min)
    }

    /// Merging was tried and not worth its while: not again until there is twice as much.
    pub fn skip_merge(&mut self) {
        let first = self.index(self.first_unsent()).unwrap_or(self.parcels.len());
        self.merge_at = 2 * self.parcels.range(first..).map(|parcel| parcel.weight.bytes).sum::<u64>();
    }

    /// What has to be read back before [`unsent`](Self::unsent) has all of them.
    pub fn unsent_away(&self, purpose: Purpose) -> Vec<Fetch> {
        let Some(first) = self.index(self.first_unsent()) else { return Vec::new() };
        let away = self.parcels.range(first..).filter(|parcel| parcel.is_away());
        away.map(|parcel| self.fetch(parcel, purpose)).collect()
    }

    /// The Blocks that were never sent; `None` while some of them are away.
    ///
    /// # Panics
    /// Never: what a Lane holds are Blocks that it encoded.
    pub fn unsent(&self) -> Option<Vec<Block>> {
        let mut blocks = Vec::new();
        let Some(first) = self.index(self.first_unsent()) else { return Some(blocks) };
        for parcel in self.parcels.range(first..) {
            blocks.extend(decode(&parcel.pieces()?).expect("what a lane holds are blocks"));
        }
        Some(blocks)
    }

    /// How these Blocks, which say the same as those that were never sent, would be cut into Batches.
    pub fn plan_unsent(&self, blocks: &[Block]) -> (Timestamp, Vec<Fragment>) {
        let Some(first) = self.index(self.first_unsent()) else { return Default::default() };
        let parcel = &self.parcels[first];
        (parcel.taken_at, self.cut(None, parcel.seq, parcel.events_before, blocks))
    }

    /// Puts what was [planned](Self::plan_unsent) in the place of all that was never sent; gives where that stood.
    pub fn replace_unsent(
        &mut self,
        pieces: impl IntoIterator<Item = (Fragment, FragmentLocation)>,
        written: u64,
    ) -> Vec<FragmentLocation> {
        let seq = self.first_unsent();
        let Some(first) = self.index(seq) else { return Vec::new() };
        let (taken_at, born) = (self.parcels[first].taken_at, self.parcels[first].born);
        let before: u64 = self.parcels.range(first..).map(|parcel| parcel.weight.events).sum();
        let places = self.parcels.drain(first..).flat_map(|parcel| parcel.places).collect();
        self.last = SeqNo(seq.0 - 1);
        self.events_held -= before;
        self.events_offered -= before;
        let now = ClockReading { time: taken_at, ..ClockReading::default() };
        self.append(now, pieces, written);
        let mut bytes = 0;
        for parcel in self.parcels.range_mut(first..) {
            parcel.born = born;
            bytes += parcel.weight.bytes;
        }
        self.merge_at = 2 * bytes;
        places
    }

    /// Whether what it is to send next was certainly never sent, and has several Blocks: it can be cut anew.
    pub fn can_recut(&self) -> bool {
        let next = self.index(self.cursor).filter(|_| self.cursor == self.first_unsent());
        next.is_some_and(|index| self.parcels[index].blocks > 1)
    }

    /// From here on Batches are closed at so many bytes.
    pub fn bound_batches(&mut self, bytes: usize) {
        self.bounds.batch_bytes_max = bytes;
    }

    /// The Batch of this number, which is held, with these Blocks in place of its own: as many, and as many events. To be
    /// written to the Spool; then [`replace`](Self::replace) it.
    pub fn plan_replacement(&self, seq: SeqNo, bytes: Vec<u8>) -> Option<(Timestamp, Fragment)> {
        let parcel = &self.parcels[self.index(seq)?];
        let piece = Fragment {
            vbucket: self.key.vbucket,
            seq,
            events_before: parcel.events_before,
            batch_events_before: 0,
            blocks_before: 0,
            blocks: parcel.blocks_written(),
            events: parcel.weight.events,
            bytes,
        };
        Some((parcel.taken_at, piece))
    }

    /// Puts what was [planned](Self::plan_replacement) in the place of the Batch; gives where that stood.
    pub fn replace(
        &mut self,
        piece: Fragment,
        place: FragmentLocation,
        written: u64,
    ) -> Vec<FragmentLocation> {
        match self.index(piece.seq) {
            Some(index) => self.parcels[index].replace(piece, place, written),
            None => vec![place],
        }
    }

    /// What has to be read back before [`rest`](Self::rest) has all of it from this number on.
    pub fn rest_away(&self, from: SeqNo, purpose: Purpose) -> Vec<Fetch> {
        let first = self.index(from).unwrap_or(self.parcels.len());
        let away = self.parcels.range(first..).filter(|parcel| parcel.is_away());
        away.map(|parcel| self.fetch(parcel, purpose)).collect()
    }

    /// All Blocks from this number on, notes of damage included; `None` while something is in flight, or some of them are
    /// away.
    pub fn rest(&mut self, from: SeqNo) -> Option<Vec<Block>> {
        if self.flight.is_some() {
            return None;
        }
        let (first, mut blocks) = (self.index(from).unwrap_or(self.parcels.len()), Vec::new());
        for parcel in self.parcels.range_mut(first..) {
            blocks.extend(decode(&parcel.content()?).expect("what a lane holds are blocks"));
        }
        Some(blocks)
    }

    /// Gives up the [rest](Self::rest), which no Server has taken or will take, and was added to other Lanes. Nothing may be
    /// in flight, and nothing is added to this Lane any more.
    pub fn give_up_rest(&mut self, from: SeqNo) -> ReleasedBatches {
        debug_assert!(self.flight.is_none() && from >= self.cursor, "what was stored cannot be given up");
        let mut released = ReleasedBatches::default();
        let first = self.index(from).unwrap_or(self.parcels.len());
        for parcel in self.parcels.drain(first..) {
            self.events_held -= parcel.weight.events;
            released.events += parcel.weight.events;
            released.batches += 1;
            released.places.extend(parcel.places);
        }
        self.last = SeqNo(from.0 - 1);
        self.sent_through = self.sent_through.min(self.last);
        self.events_offered = self.parcels.back().map_or(0, |last| last.events_before + last.weight.events);
        if self.parcels.is_empty() {
            (self.must_probe, self.loss) = (false, None);
        }
        self.audit();
        released
    }

    /// How many of the Blocks of this Batch stand in the Spool.
    pub fn blocks_written(&self, seq: SeqNo) -> usize {
        self.index(seq).map_or(0, |index| self.parcels[index].blocks_written() as usize)
    }

    /// The first Batch that was certainly never sent, whether it is there or not.
    pub fn first_unsent(&self) -> SeqNo {
        self.sent_through.next().max(self.base())
    }
}

/// Reads Blocks that stand one behind the other.
pub(super) fn decode(bytes: &Bytes) -> Result<Vec<Block>, WireError> {
    let mut reader = Reader::new(bytes);
    let mut blocks = Vec::new();
    while reader.remaining() > 0 {
        blocks.push(Block::decode(&mut reader, bytes)?);
    }
    Ok(blocks)
}
