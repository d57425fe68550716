//! [`LaneEntry`]: one Batch of a Lane, until it is released.

use std::time::Duration;

use bytes::Bytes;
use taba_core::wire::Block;
use taba_core::{SeqNo, Timestamp};

use crate::clock::StreamClock;
use crate::spool::record::Fragment;
use crate::spool::{FragmentLocation, Weight};
use crate::units::ClockReading;

#[derive(Debug)]
pub(super) struct LaneEntry {
    pub(super) seq: SeqNo,
    pub(super) events_before: u64,
    pub(super) blocks: u64,
    pub(super) weight: Weight,
    /// Events that a Server has to fold one by one, as far as fragments were added in this run.
    pub(super) unfolded: u64,
    /// The arrival of its first Block, by the clock of its stream.
    pub(super) taken_at: Timestamp,
    /// The same in microseconds since the start of this run; negative for Batches of an earlier run, and in the
    /// future if the clock says so.
    pub(super) born: i64,
    /// Whether it is closed.
    pub(super) is_closed: bool,
    /// The end of its last fragment in the Spool.
    pub(super) written: u64,
    /// Whether all fragments can be read back from the Spool.
    pub(super) is_filed: bool,
    /// Whether its content was read back.
    pub(super) is_fetched: bool,
    /// The locations of its fragments in the Spool.
    pub(super) locations: Vec<FragmentLocation>,
    /// Its first acknowledgement since the store last went back before it.
    pub(super) acked_at: Option<Duration>,
    content: EntryContent,
    /// Blocks after all fragments that are not in the Spool: notes of damage.
    note: Bytes,
    /// The number of those Blocks.
    notes: u64,
}

/// The Blocks of a LaneEntry, encoded.
#[derive(Debug)]
enum EntryContent {
    Filling(Vec<u8>),
    Here(Bytes),
    /// In the Spool.
    Away,
}

impl LaneEntry {
    /// A Batch that begins with this fragment.
    pub(super) fn begin(
        now: ClockReading,
        fragment: Fragment,
        location: FragmentLocation,
        written: u64,
    ) -> Self {
        Self {
            seq: fragment.seq,
            events_before: fragment.events_before,
            blocks: fragment.blocks,
            weight: Weight { events: fragment.events, bytes: fragment.bytes.len() as u64 },
            unfolded: fragment.unfolded,
            taken_at: now.time,
            born: now.uptime.as_micros() as i64,
            is_closed: false,
            written,
            is_filed: false,
            is_fetched: false,
            locations: vec![location],
            acked_at: None,
            content: EntryContent::Filling(fragment.bytes),
            note: Bytes::new(),
            notes: 0,
        }
    }

    /// A Batch of an earlier run, with notes of damage.
    pub(super) fn recovered(
        found: crate::spool::recovery::RecoveredBatch,
        clock: StreamClock,
        now: ClockReading,
        notes: &[Block],
    ) -> Self {
        let mut bytes = Vec::new();
        notes.iter().for_each(|note| note.encode(&mut bytes));
        let fragment_bytes: u64 = found.locations.iter().map(|location| u64::from(location.bytes)).sum();
        Self {
            seq: found.seq,
            events_before: found.events_before,
            blocks: found.blocks + notes.len() as u64,
            weight: Weight { events: found.events, bytes: fragment_bytes },
            unfolded: 0,
            taken_at: found.taken_at,
            born: born(found.taken_at, clock, now),
            is_closed: true,
            written: 0,
            is_filed: true,
            is_fetched: false,
            locations: found.locations,
            acked_at: None,
            content: EntryContent::Away,
            note: bytes.into(),
            notes: notes.len() as u64,
        }
    }

    /// The wall clock was set.
    pub(super) fn recompute_ages(&mut self, clock: StreamClock, now: ClockReading) {
        self.born = born(self.taken_at, clock, now);
    }

    /// Adds the next fragment.
    pub(super) fn append(&mut self, fragment: &Fragment, location: FragmentLocation, written: u64) {
        debug_assert!(!self.is_closed && fragment.seq == self.seq && fragment.blocks_before == self.blocks);
        let EntryContent::Filling(bytes) = &mut self.content else {
            unreachable!("only a closed entry is put away")
        };
        bytes.extend_from_slice(&fragment.bytes);
        self.blocks += fragment.blocks;
        self.unfolded += fragment.unfolded;
        self.weight =
            self.weight.plus(Weight { events: fragment.events, bytes: fragment.bytes.len() as u64 });
        (self.written, self.is_filed) = (written, false);
        self.locations.push(location);
    }

    /// From here on its content never changes.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        if let EntryContent::Filling(bytes) = &mut self.content {
            self.content = EntryContent::Here(std::mem::take(bytes).into_boxed_slice().into());
        }
    }

    /// Drops the content if the Spool can return it.
    pub(super) fn put_away(&mut self) {
        self.close();
        if self.is_filed {
            (self.content, self.is_fetched) = (EntryContent::Away, false);
        }
    }

    /// Whether its content must be read back first.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.content, EntryContent::Away) && !self.locations.is_empty()
    }

    /// Stores content that was read back.
    pub(super) fn put_here(&mut self, bytes: Bytes) {
        if self.is_away() {
            (self.content, self.is_fetched) = (EntryContent::Here(bytes), true);
        }
    }

    /// Moves it to one new fragment; returns the old locations. Its content stays in memory until it can be read back
    /// from there.
    pub(super) fn move_to(&mut self, location: FragmentLocation, written: u64) -> Vec<FragmentLocation> {
        debug_assert!(!self.is_away(), "what is away was not written again");
        (self.written, self.is_filed) = (written, false);
        std::mem::replace(&mut self.locations, vec![location])
    }

    /// Replaces its Blocks; returns the old locations.
    pub(super) fn replace(
        &mut self,
        fragment: Fragment,
        location: FragmentLocation,
        written: u64,
    ) -> Vec<FragmentLocation> {
        debug_assert!(self.is_closed && fragment.blocks == self.blocks_written(), "as many as before");
        self.weight.bytes = fragment.bytes.len() as u64;
        self.content = EntryContent::Here(fragment.bytes.into());
        self.move_to(location, written)
    }

    /// The Batch as one fragment with this content, to write again.
    pub(super) fn copy(&self, vbucket: u16, bytes: Bytes) -> (Timestamp, Fragment) {
        let fragment = Fragment {
            vbucket,
            seq: self.seq,
            events_before: self.events_before,
            batch_events_before: 0,
            blocks_before: 0,
            blocks: self.blocks_written(),
            events: self.weight.events,
            unfolded: self.unfolded,
            bytes: bytes.into(),
        };
        (self.taken_at, fragment)
    }

    /// All its encoded Blocks without notes; `None` while they are away.
    pub(super) fn fragments(&self) -> Option<Bytes> {
        match &self.content {
            EntryContent::Filling(bytes) => Some(Bytes::copy_from_slice(bytes)),
            EntryContent::Here(bytes) => Some(bytes.clone()),
            EntryContent::Away if self.locations.is_empty() => Some(Bytes::new()),
            EntryContent::Away => None,
        }
    }

    /// All its encoded Blocks, unchanged once it is closed; `None` while they are away.
    pub(super) fn content(&mut self) -> Option<Bytes> {
        self.close();
        let fragments = self.fragments()?;
        Some(if self.note.is_empty() { fragments } else { [fragments, self.note.clone()].concat().into() })
    }

    /// Blocks in its fragments, without notes.
    pub(super) fn blocks_written(&self) -> u64 {
        self.blocks - self.notes
    }

    /// Bytes to send.
    pub(super) fn bytes(&self) -> usize {
        self.weight.bytes as usize + self.note.len()
    }

    /// Some fragments turned out to be damaged: keeps these Blocks only. Returns the lost events and the locations.
    pub(super) fn damaged(
        &mut self,
        intact: &[Block],
        damaged: &[FragmentLocation],
    ) -> (u64, Vec<FragmentLocation>) {
        let weight: Weight = intact.iter().map(Weight::of).sum();
        let lost = self.weight.events.saturating_sub(weight.events);
        self.weight.events -= lost;
        self.weight.bytes = self.fragments().map_or(0, |bytes| bytes.len() as u64);
        self.blocks = intact.len() as u64 + self.notes;
        self.locations.retain(|location| !damaged.contains(location));
        (lost, damaged.to_vec())
    }

    /// Adds a note, which is not in the Spool.
    pub(super) fn add_note(&mut self, note: &Block) {
        let mut bytes = self.note.to_vec();
        note.encode(&mut bytes);
        self.note = bytes.into();
        (self.notes, self.blocks) = (self.notes + 1, self.blocks + 1);
    }

    /// Whether it has notes of damage.
    pub(super) fn has_note(&self) -> bool {
        self.notes > 0
    }
}

/// Its arrival in an earlier run, relative to the start of this one.
pub(super) fn born(taken_at: Timestamp, clock: StreamClock, now: ClockReading) -> i64 {
    (now.uptime.as_micros() as i64).saturating_sub(clock.age(taken_at, now.time))
}
