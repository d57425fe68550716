//! Rewrites the Batches of a Lane: copies, merges, and drops from memory.

use std::time::Duration;

use bytes::Bytes;
use taba_core::wire::{Block, Reader, WireError};
use taba_core::{SeqNo, Timestamp};

use super::entry::LaneEntry;
use super::{Lane, ReleasedBatches};
use crate::spool::record::Fragment;
use crate::spool::{Fetch, FragmentLocation, Purpose, SegmentId};
use crate::units::ClockReading;

/// A Batch to write again: its first arrival, and its content as one fragment.
pub type BatchCopy = (Timestamp, Fragment);

impl Lane {
    /// Drops the content of all Batches that can be read back from the Spool, except the one in flight.
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

    /// The first Batch from this number on in this segment or an earlier one, to be copied. Content that is away must
    /// be read back first.
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

    /// A Batch was copied; returns its old locations.
    pub fn moved(&mut self, seq: SeqNo, location: FragmentLocation, written: u64) -> Vec<FragmentLocation> {
        let Some(index) = self.index(seq) else { return vec![location] };
        self.entries[index].move_to(location, written)
    }

    /// Whether merging the unsent Batches is worthwhile: they have waited since before `since`, and doubled since the
    /// last merge, beyond `bytes_min`.
    pub fn wants_merge(&self, since: Duration, bytes_min: u64) -> bool {
        let Some(first) = self.index(self.first_unsent()) else { return false };
        let unsent = self.entries.range(first..);
        self.entries[first].born <= since.as_micros() as i64
            && !unsent.clone().any(LaneEntry::has_note)
            && unsent.map(|entry| entry.weight.bytes).sum::<u64>() > self.merge_at.max(bytes_min)
    }

    /// Merging did not help: not again until the size has doubled.
    pub fn skip_merge(&mut self) {
        let first = self.index(self.first_unsent()).unwrap_or(self.entries.len());
        self.merge_at = 2 * self.entries.range(first..).map(|entry| entry.weight.bytes).sum::<u64>();
    }

    /// The Batches to read back for [`unsent`](Self::unsent).
    pub fn unsent_away(&self, purpose: Purpose) -> Vec<Fetch> {
        let Some(first) = self.index(self.first_unsent()) else { return Vec::new() };
        let away = self.entries.range(first..).filter(|entry| entry.is_away());
        away.map(|entry| self.fetch(entry, purpose)).collect()
    }

    /// The unsent Blocks; `None` while some are away.
    ///
    /// # Panics
    /// Never: the Lane encoded these Blocks.
    pub fn unsent(&self) -> Option<Vec<Block>> {
        let mut blocks = Vec::new();
        let Some(first) = self.index(self.first_unsent()) else { return Some(blocks) };
        for entry in self.entries.range(first..) {
            blocks.extend(decode(&entry.fragments()?).expect("what a lane holds are blocks"));
        }
        Some(blocks)
    }

    /// Plans Batches of these Blocks, which are equivalent to the unsent ones.
    pub fn plan_unsent(&self, blocks: &[Block]) -> (Timestamp, Vec<Fragment>) {
        let Some(first) = self.index(self.first_unsent()) else { return Default::default() };
        let entry = &self.entries[first];
        (entry.taken_at, self.cut(None, entry.seq, entry.events_before, blocks))
    }

    /// Replaces all unsent Batches by the [planned](Self::plan_unsent) ones; returns the old locations.
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

    /// Whether the next Batch was certainly never sent, and has several Blocks, so that it can be cut again.
    pub fn can_recut(&self) -> bool {
        let next = self.index(self.cursor).filter(|_| self.cursor == self.first_unsent());
        next.is_some_and(|index| self.entries[index].blocks > 1)
    }

    /// Closes Batches at this many bytes from now on.
    pub fn bound_batches(&mut self, bytes: usize) {
        self.bounds.batch_bytes_max = bytes;
    }

    /// The Batch with its Blocks replaced: as many Blocks and events. Write it to the Spool; then
    /// [`replace`](Self::replace) it.
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
            unfolded: entry.unfolded,
            bytes,
        };
        Some((entry.taken_at, fragment))
    }

    /// Replaces the Batch by the [planned](Self::plan_replacement) one; returns the old locations.
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

    /// The Batches to read back for [`rest`](Self::rest).
    pub fn rest_away(&self, from: SeqNo, purpose: Purpose) -> Vec<Fetch> {
        let first = self.index(from).unwrap_or(self.entries.len());
        let away = self.entries.range(first..).filter(|entry| entry.is_away());
        away.map(|entry| self.fetch(entry, purpose)).collect()
    }

    /// All Blocks from this number on, with notes of damage; `None` while one is in flight or away.
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

    /// Drops the [rest](Self::rest), which no Server has accepted or will accept, and which was added to other Lanes.
    /// Nothing may be in flight, and this Lane gets no new Blocks.
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

    /// The number of Blocks of this Batch in the Spool.
    pub fn blocks_written(&self, seq: SeqNo) -> usize {
        self.index(seq).map_or(0, |index| self.entries[index].blocks_written() as usize)
    }

    /// The first Batch that was certainly never sent, which may not exist yet.
    pub fn first_unsent(&self) -> SeqNo {
        self.sent_through.next().max(self.base())
    }
}

/// Decodes consecutive Blocks.
pub(super) fn decode(bytes: &Bytes) -> Result<Vec<Block>, WireError> {
    let mut reader = Reader::new(bytes);
    let mut blocks = Vec::new();
    while reader.remaining() > 0 {
        blocks.push(Block::decode(&mut reader, bytes)?);
    }
    Ok(blocks)
}
