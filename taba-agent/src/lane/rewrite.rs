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

/// A Batch that is to be written again: when the first of it was taken, and all of it as one fragment.
pub type BatchCopy = (Timestamp, Fragment);

impl Lane {
    /// Forgets the content of all Batches that the Spool can give back, as it says of the ends of their records; but not
    /// of the one in flight.
    pub fn put_away(&mut self, is_readable: impl Fn(u64) -> bool) {
        if !self.bounds.spool_keeps_content {
            return;
        }
        let in_flight = self.in_flight.and_then(|_| self.index(self.cursor));
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if Some(index) != in_flight {
                entry.is_filed |= is_readable(entry.written);
                entry.put_away();
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
        let is_old =
            |entry: &&mut LaneEntry| entry.locations.iter().any(|location| location.segment <= through);
        let entry = self.entries.range_mut(first..).find(is_old)?;
        entry.close();
        let copy = match entry.fragments() {
            Some(bytes) => Ok(entry.copy(key.vbucket, bytes)),
            None => {
                let (seq, locations) = (entry.seq, entry.locations.clone());
                Err(Fetch { lane: key, seq, locations, purpose: Purpose::Copy })
            }
        };
        Some((entry.seq, copy))
    }

    /// A Batch stands elsewhere now; gives where it stood.
    pub fn moved(&mut self, seq: SeqNo, location: FragmentLocation, written: u64) -> Vec<FragmentLocation> {
        let Some(index) = self.index(seq) else { return vec![location] };
        self.entries[index].move_to(location, written)
    }

    /// Whether merging what was never sent is worth its while: it has waited since before `since`, and has doubled since
    /// it was last merged, beyond `bytes_min`.
    pub fn wants_merge(&self, since: Duration, bytes_min: u64) -> bool {
        let Some(first) = self.index(self.first_unsent()) else { return false };
        let unsent = self.entries.range(first..);
        self.entries[first].born <= since.as_micros() as i64
            && !unsent.clone().any(LaneEntry::has_note)
            && unsent.map(|entry| entry.weight.bytes).sum::<u64>() > self.merge_at.max(bytes_min)
    }

    /// Merging was tried and not worth its while: not again until there is twice as much.
    pub fn skip_merge(&mut self) {
        let first = self.index(self.first_unsent()).unwrap_or(self.entries.len());
        self.merge_at = 2 * self.entries.range(first..).map(|entry| entry.weight.bytes).sum::<u64>();
    }

    /// What has to be read back before [`unsent`](Self::unsent) has all of them.
    pub fn unsent_away(&self, purpose: Purpose) -> Vec<Fetch> {
        let Some(first) = self.index(self.first_unsent()) else { return Vec::new() };
        let away = self.entries.range(first..).filter(|entry| entry.is_away());
        away.map(|entry| self.fetch(entry, purpose)).collect()
    }

    /// The Blocks that were never sent; `None` while some of them are away.
    ///
    /// # Panics
    /// Never: what a Lane holds are Blocks that it encoded.
    pub fn unsent(&self) -> Option<Vec<Block>> {
        let mut blocks = Vec::new();
        let Some(first) = self.index(self.first_unsent()) else { return Some(blocks) };
        for entry in self.entries.range(first..) {
            blocks.extend(decode(&entry.fragments()?).expect("what a lane holds are blocks"));
        }
        Some(blocks)
    }

    /// How these Blocks, which say the same as those that were never sent, would be cut into Batches.
    pub fn plan_unsent(&self, blocks: &[Block]) -> (Timestamp, Vec<Fragment>) {
        let Some(first) = self.index(self.first_unsent()) else { return Default::default() };
        let entry = &self.entries[first];
        (entry.taken_at, self.cut(None, entry.seq, entry.events_before, blocks))
    }

    /// Puts what was [planned](Self::plan_unsent) in the place of all that was never sent; gives where that stood.
    pub fn replace_unsent(
        &mut self,
        fragments: impl IntoIterator<Item = (Fragment, FragmentLocation)>,
        written: u64,
    ) -> Vec<FragmentLocation> {
        let seq = self.first_unsent();
        let Some(first) = self.index(seq) else { return Vec::new() };
        let (taken_at, born) = (self.entries[first].taken_at, self.entries[first].born);
        let before: u64 = self.entries.range(first..).map(|entry| entry.weight.events).sum();
        let locations = self.entries.drain(first..).flat_map(|entry| entry.locations).collect();
        self.last = SeqNo(seq.0 - 1);
        self.events_held -= before;
        self.events_offered -= before;
        let now = ClockReading { time: taken_at, ..ClockReading::default() };
        self.append(now, fragments, written);
        let mut bytes = 0;
        for entry in self.entries.range_mut(first..) {
            entry.born = born;
            bytes += entry.weight.bytes;
        }
        self.merge_at = 2 * bytes;
        locations
    }

    /// Whether what it is to send next was certainly never sent, and has several Blocks: it can be cut anew.
    pub fn can_recut(&self) -> bool {
        let next = self.index(self.cursor).filter(|_| self.cursor == self.first_unsent());
        next.is_some_and(|index| self.entries[index].blocks > 1)
    }

    /// From here on Batches are closed at so many bytes.
    pub fn bound_batches(&mut self, bytes: usize) {
        self.bounds.batch_bytes_max = bytes;
    }

    /// The Batch of this number, which is held, with these Blocks in place of its own: as many, and as many events. To be
    /// written to the Spool; then [`replace`](Self::replace) it.
    pub fn plan_replacement(&self, seq: SeqNo, bytes: Vec<u8>) -> Option<(Timestamp, Fragment)> {
        let entry = &self.entries[self.index(seq)?];
        let fragment = Fragment {
            vbucket: self.key.vbucket,
            seq,
            events_before: entry.events_before,
            batch_events_before: 0,
            blocks_before: 0,
            blocks: entry.blocks_written(),
            events: entry.weight.events,
            bytes,
        };
        Some((entry.taken_at, fragment))
    }

    /// Puts what was [planned](Self::plan_replacement) in the place of the Batch; gives where that stood.
    pub fn replace(
        &mut self,
        fragment: Fragment,
        location: FragmentLocation,
        written: u64,
    ) -> Vec<FragmentLocation> {
        match self.index(fragment.seq) {
            Some(index) => self.entries[index].replace(fragment, location, written),
            None => vec![location],
        }
    }

    /// What has to be read back before [`rest`](Self::rest) has all of it from this number on.
    pub fn rest_away(&self, from: SeqNo, purpose: Purpose) -> Vec<Fetch> {
        let first = self.index(from).unwrap_or(self.entries.len());
        let away = self.entries.range(first..).filter(|entry| entry.is_away());
        away.map(|entry| self.fetch(entry, purpose)).collect()
    }

    /// All Blocks from this number on, notes of damage included; `None` while something is in flight, or some of them are
    /// away.
    pub fn rest(&mut self, from: SeqNo) -> Option<Vec<Block>> {
        if self.in_flight.is_some() {
            return None;
        }
        let (first, mut blocks) = (self.index(from).unwrap_or(self.entries.len()), Vec::new());
        for entry in self.entries.range_mut(first..) {
            blocks.extend(decode(&entry.content()?).expect("what a lane holds are blocks"));
        }
        Some(blocks)
    }

    /// Gives up the [rest](Self::rest), which no Server has taken or will take, and was added to other Lanes. Nothing may be
    /// in flight, and nothing is added to this Lane any more.
    pub fn give_up_rest(&mut self, from: SeqNo) -> ReleasedBatches {
        debug_assert!(self.in_flight.is_none() && from >= self.cursor, "what was stored cannot be given up");
        let mut released = ReleasedBatches::default();
        let first = self.index(from).unwrap_or(self.entries.len());
        for entry in self.entries.drain(first..) {
            self.events_held -= entry.weight.events;
            released.events += entry.weight.events;
            released.batches += 1;
            released.locations.extend(entry.locations);
        }
        self.last = SeqNo(from.0 - 1);
        self.sent_through = self.sent_through.min(self.last);
        self.events_offered = self.entries.back().map_or(0, |last| last.events_before + last.weight.events);
        if self.entries.is_empty() {
            (self.must_probe, self.loss) = (false, None);
        }
        self.audit();
        released
    }

    /// How many of the Blocks of this Batch stand in the Spool.
    pub fn blocks_written(&self, seq: SeqNo) -> usize {
        self.index(seq).map_or(0, |index| self.entries[index].blocks_written() as usize)
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
