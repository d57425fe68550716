//! [`LaneEntry`]: one Batch of a Lane, from its first Block until it is released.

use std::time::Duration;

use bytes::Bytes;
use taba_core::wire::Block;
use taba_core::{SeqNo, Timestamp};

use crate::clock::StreamClock;
use crate::spool::record::Fragment;
use crate::spool::{FragmentLocation, Weight};
use crate::units::ClockReading;

/// One Batch of a Lane.
#[derive(Debug)]
pub(super) struct LaneEntry {
    pub(super) seq: SeqNo,
    pub(super) events_before: u64,
    pub(super) blocks: u64,
    pub(super) weight: Weight,
    /// When its first Block came, on the clock of its stream.
    pub(super) taken_at: Timestamp,
    /// The same in microseconds since the start of this run; below zero for what an earlier one has taken, and later
    /// than now for what the clock says is still to come.
    pub(super) born: i64,
    /// Nothing is added to it any more.
    pub(super) is_closed: bool,
    /// The end of its last fragment in the Spool.
    pub(super) written: u64,
    /// Whether it is known that all fragments can be read back from the Spool.
    pub(super) is_filed: bool,
    /// Whether its content was read back, rather than kept since it came.
    pub(super) is_fetched: bool,
    /// Where its fragments stand in the Spool.
    pub(super) locations: Vec<FragmentLocation>,
    /// When it was first acknowledged, since the store was last seen to go back behind it.
    pub(super) acked_at: Option<Duration>,
    content: EntryContent,
    /// Blocks behind all fragments, which are not in the Spool: what of the Batch was found damaged.
    note: Bytes,
    /// How many Blocks that are.
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
    /// The Batch that begins with this fragment.
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

    /// A Batch that an earlier run has taken, with notes of what of it is damaged.
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

    /// The time of day was set.
    pub(super) fn recompute_ages(&mut self, clock: StreamClock, now: ClockReading) {
        self.born = born(self.taken_at, clock, now);
    }

    /// Adds a fragment that follows on what is here.
    pub(super) fn append(&mut self, fragment: &Fragment, location: FragmentLocation, written: u64) {
        debug_assert!(!self.is_closed && fragment.seq == self.seq && fragment.blocks_before == self.blocks);
        let EntryContent::Filling(bytes) = &mut self.content else {
            unreachable!("only a closed entry is put away")
        };
        bytes.extend_from_slice(&fragment.bytes);
        self.blocks += fragment.blocks;
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

    /// Forgets the content if the Spool can give it back.
    pub(super) fn put_away(&mut self) {
        self.close();
        if self.is_filed {
            (self.content, self.is_fetched) = (EntryContent::Away, false);
        }
    }

    /// Whether its content has to be read back before it can be used.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.content, EntryContent::Away) && !self.locations.is_empty()
    }

    /// Its content was read back.
    pub(super) fn put_here(&mut self, bytes: Bytes) {
        if self.is_away() {
            (self.content, self.is_fetched) = (EntryContent::Here(bytes), true);
        }
    }

    /// It stands elsewhere now, as one fragment; gives where it stood. Its content stays in memory until the Spool can give it
    /// back from there.
    pub(super) fn move_to(&mut self, location: FragmentLocation, written: u64) -> Vec<FragmentLocation> {
        debug_assert!(!self.is_away(), "what is away was not written again");
        (self.written, self.is_filed) = (written, false);
        std::mem::replace(&mut self.locations, vec![location])
    }

    /// These Blocks take the place of its own; gives where those stood.
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

    /// It as one fragment with this content, to be written again.
    pub(super) fn copy(&self, vbucket: u16, bytes: Bytes) -> (Timestamp, Fragment) {
        let fragment = Fragment {
            vbucket,
            seq: self.seq,
            events_before: self.events_before,
            batch_events_before: 0,
            blocks_before: 0,
            blocks: self.blocks_written(),
            events: self.weight.events,
            bytes: bytes.into(),
        };
        (self.taken_at, fragment)
    }

    /// All its Blocks, encoded, without the note; `None` while they are away.
    pub(super) fn fragments(&self) -> Option<Bytes> {
        match &self.content {
            EntryContent::Filling(bytes) => Some(Bytes::copy_from_slice(bytes)),
            EntryContent::Here(bytes) => Some(bytes.clone()),
            EntryContent::Away if self.locations.is_empty() => Some(Bytes::new()),
            EntryContent::Away => None,
        }
    }

    /// All its Blocks, encoded; the same each time once it is closed. `None` while they are away.
    pub(super) fn content(&mut self) -> Option<Bytes> {
        self.close();
        let fragments = self.fragments()?;
        Some(if self.note.is_empty() { fragments } else { [fragments, self.note.clone()].concat().into() })
    }

    /// Blocks in its fragments: without the note, which stands in no log.
    pub(super) fn blocks_written(&self) -> u64 {
        self.blocks - self.notes
    }

    /// Bytes that sending it takes.
    pub(super) fn bytes(&self) -> usize {
        self.weight.bytes as usize + self.note.len()
    }

    /// Some of its fragments were found damaged only now: these Blocks, which are here, are all that is left. Gives how many
    /// events are lost, and where they stood.
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

    /// Adds a Block that is in no log.
    pub(super) fn add_note(&mut self, note: &Block) {
        let mut bytes = self.note.to_vec();
        note.encode(&mut bytes);
        self.note = bytes.into();
        (self.notes, self.blocks) = (self.notes + 1, self.blocks + 1);
    }

    /// Whether some of it was found damaged.
    pub(super) fn has_note(&self) -> bool {
        self.notes > 0
    }
}

/// When an earlier run has taken it, in time since the start of this one.
pub(super) fn born(taken_at: Timestamp, clock: StreamClock, now: ClockReading) -> i64 {
    (now.uptime.as_micros() as i64).saturating_sub(clock.age(taken_at, now.time))
}
