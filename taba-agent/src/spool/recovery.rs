//! What a log says when it is opened again.
//!
//! The good records live, whatever stands between them; what cannot be read is reported. How many events were in it
//! can be told where something later in the same Lane was read, since every piece says how many events of its Lane came
//! before: then the Batch that lacks them carries a note for the Ledger instead (`taba.dropped;where=agent;why=damaged`).
//! If that Batch had been stored whole before the damage, its number is known to the Server, and the note is never
//! folded.

use std::collections::{BTreeMap, HashMap, btree_map, hash_map};
use std::io;

use taba_core::{ClientId, SeqNo, StreamId, Timestamp};

use super::record::{
    Checkpoint, Floor, Found, FoundPiece, MAGIC, Next, RECORD_HEAD_BYTES, SEGMENT_HEAD_BYTES, SegmentHead,
    Standing, Taken, VERSION, next,
};
use super::{Disk, Place, SegmentId};
use crate::clock::StreamClock;
use crate::lane::LaneKey;

/// What was found in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The Lanes of earlier runs of which something may still be needed.
    pub lanes: BTreeMap<LaneKey, FoundLane>,
    /// The last Batch of each Client incarnation, those used last behind.
    pub incarnations: Vec<Taken>,
    /// What could not be read.
    pub damage: Damage,
    /// Segments of which nothing behind so many bytes can be read.
    pub torn: Vec<(SegmentId, u64)>,
    /// Segments of a log that was being written again and is not whole: nothing of them counts. They have to be gone before
    /// an older one is removed, or they would be all there is, and count.
    pub void: Vec<SegmentId>,
}

/// A Lane that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundLane {
    /// The last Batch that is known to have been acknowledged; what follows it may have been.
    pub applied: SeqNo,
    /// At least one, in order, without gaps.
    pub batches: Vec<FoundBatch>,
    /// By how much the times of its stream are off.
    pub clock: StreamClock,
    /// Since when something of its stream may have been sent.
    pub sending: Sending,
}

/// Since when something of a stream may have been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sending {
    /// Nobody knows; so as soon as it was taken.
    #[default]
    Unknown,
    /// Nothing was sent.
    Never,
    /// Since then, on the clock of the stream.
    Since(Timestamp),
}

/// A Batch that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBatch {
    /// Its place in the Lane.
    pub seq: SeqNo,
    /// Events in all Batches of the Lane before it.
    pub events_before: u64,
    /// Blocks that were found.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// Events that are known to be missing.
    pub events_lost: u64,
    /// When the first of it was taken, on the clock of its stream.
    pub taken_at: Timestamp,
    /// Where its pieces are, in order.
    pub places: Vec<Place>,
}

/// What could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Stretches of bytes that are no records: a torn tail is one.
    pub stretches: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Events in them, as far as that is known.
    pub events: u64,
}

impl Recovered {
    /// Where everything is that is held.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.lanes.values().flat_map(|lane| &lane.batches).flat_map(|batch| &batch.places)
    }
}

/// Reads a whole log.
///
/// # Errors
/// What the disk says when it does not give the bytes.
pub fn recover(disk: &dyn Disk, segments: &[(SegmentId, u64)]) -> io::Result<Recovered> {
    let mut replay = Replay::default();
    for &(segment, _) in segments {
        let head = disk.read(segment, 0, OLD_HEAD_BYTES)?;
        if is_old(&head) {
            let words = format!(
                "segment {segment} is of version {}, and this build reads version {VERSION}: \
                 let the build that wrote it deliver what is in it, or move the directory away",
                head[MAGIC.len()]
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
    }
    // Segments are removed from the oldest on, and the next only once that is durable. So one that is missing between
    // others, or shorter than the next one says, is lost or damaged.
    for pair in segments.windows(2) {
        let ((before, bytes), (segment, _)) = (pair[0], pair[1]);
        let head = disk.read(segment, 0, SEGMENT_HEAD_BYTES)?;
        let Some(head) = SegmentHead::decode(&head) else { continue };
        if head.before != before || head.before_bytes > bytes {
            replay.damage.stretches += 1;
            let is_shorter = head.before == before;
            replay.damage.bytes += if is_shorter { head.before_bytes - bytes } else { head.before_bytes };
        }
    }
    // Segments of a log that was being written again, and is not known to be whole.
    let mut unsealed: Vec<(SegmentId, Vec<u8>)> = Vec::new();
    let (mut is_first, mut void) = (true, Vec::new());
    for &(segment, bytes) in segments {
        let bytes = disk.read(segment, 0, bytes as usize)?;
        match standing(&bytes) {
            // With what it was copied from, it would say twice what it says, or half of it.
            Standing::Renews if !is_first => {
                unsealed.push((segment, bytes));
                continue;
            }
            Standing::Seals => {
                unsealed.drain(..).for_each(|(segment, bytes)| replay.segment(segment, &bytes));
            }
            Standing::Renews => {}
            // The run that wrote it ended before it was whole.
            Standing::Follows => void.extend(unsealed.drain(..).map(|(segment, _)| segment)),
        }
        replay.segment(segment, &bytes);
        is_first = false;
    }
    void.extend(unsealed.into_iter().map(|(segment, _)| segment));
    Ok(Recovered { void, ..replay.finish() })
}

/// Bytes of heads that are checked in search of the next record, at most.
const RESYNC_BYTES_MAX: usize = 256 << 20;
/// Bytes of the head of a segment of version 1: magic, version, number, checksum.
const OLD_HEAD_BYTES: usize = 21;

/// Whether this is the head of a segment of version 1, and not a damaged one of today's.
fn is_old(head: &[u8]) -> bool {
    head.len() == OLD_HEAD_BYTES
        && head.starts_with(&MAGIC)
        && head[MAGIC.len()] < VERSION
        && head[17..] == crc32fast::hash(&head[..17]).to_le_bytes()
}

/// Where the next record begins behind a place whose bytes do not tell.
///
/// # Cost
/// A few comparisons for each byte, and checksums over at most [`RESYNC_BYTES_MAX`] bytes of what looks like the head of a
/// record; behind that, the rest of the segment is given up.
fn resynchronise(bytes: &[u8], at: usize) -> Option<usize> {
    let mut left = RESYNC_BYTES_MAX;
    for start in at + 1..bytes.len().saturating_sub(RECORD_HEAD_BYTES) {
        let rest = &bytes[start..];
        let length = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let (head, data) = (length(0) as usize, length(4) as usize);
        let is_kind = (1..=4).contains(&rest[RECORD_HEAD_BYTES - 1]);
        if !is_kind || head.saturating_add(data) > rest.len() {
            continue;
        }
        left = left.checked_sub(head)?;
        if matches!(next(rest), Next::Record(..)) {
            return Some(start);
        }
    }
    None
}

/// What a segment is to those before it, as its first record says.
fn standing(segment: &[u8]) -> Standing {
    match segment.get(SEGMENT_HEAD_BYTES..).map(next) {
        Some(Next::Record(found, _)) => match *found {
            Found::Checkpoint(checkpoint) => checkpoint.standing,
            _ => Standing::Follows,
        },
        _ => Standing::Follows,
    }
}

#[derive(Default)]
struct Replay {
    lanes: BTreeMap<LaneKey, BTreeMap<u64, Building>>,
    applied: HashMap<LaneKey, SeqNo>,
    clocks: HashMap<StreamId, StreamClock>,
    /// As the last segment says. When it cannot be read, nobody knows: what it would have said may have been sent since.
    sendings: HashMap<StreamId, Sending>,
    incarnations: HashMap<(ClientId, u64), (u64, Taken)>,
    uses: u64,
    damage: Damage,
    torn: Vec<(SegmentId, u64)>,
}

/// A Batch as far as it was read.
struct Building {
    events_before: u64,
    blocks_end: u64,
    blocks: u64,
    events: u64,
    is_holed: bool,
    taken_at: Timestamp,
    places: Vec<Place>,
}

impl Replay {
    fn segment(&mut self, id: SegmentId, bytes: &[u8]) {
        self.sendings.clear();
        if SegmentHead::decode(bytes).is_none_or(|head| head.id != id) {
            // A file that a crash left without its head holds nothing that was ever acknowledged, if it is empty.
            return self.damaged(bytes.len());
        }
        let mut at = SEGMENT_HEAD_BYTES;
        loop {
            match next(&bytes[at..]) {
                Next::End => return,
                Next::Record(found, end) => {
                    self.record(*found, id, at);
                    at += end;
                }
                // Its lengths may be what is wrong.
                Next::Broken(end) => {
                    let next = resynchronise(bytes, at).unwrap_or(at + end);
                    self.damaged(next - at);
                    at = next;
                }
                Next::Lost => match resynchronise(bytes, at) {
                    Some(next) => {
                        self.damaged(next - at);
                        at = next;
                    }
                    None => {
                        self.torn.push((id, at as u64));
                        return self.damaged(bytes.len() - at);
                    }
                },
            }
        }
    }

    fn damaged(&mut self, bytes: usize) {
        if bytes > 0 {
            self.damage.stretches += 1;
            self.damage.bytes += bytes as u64;
        }
    }

    fn record(&mut self, found: Found, segment: SegmentId, at: usize) {
        match found {
            Found::Take(taken, stream, pieces) => {
                pieces.iter().for_each(|piece| self.piece(stream, taken.taken_at, piece, segment, at));
                self.taken(taken);
            }
            Found::Copy(stream, taken_at, piece) => {
                self.lane(stream, &piece).remove(&piece.seq.0);
                self.piece(stream, taken_at, &piece, segment, at);
            }
            Found::Merge(stream, taken_at, pieces) => {
                if let Some(first) = pieces.first() {
                    self.lane(stream, first).split_off(&first.seq.0);
                }
                pieces.iter().for_each(|piece| self.piece(stream, taken_at, piece, segment, at));
            }
            Found::Move(from, seq, (stream, taken_at), pieces) => {
                if let Some(batches) = self.lanes.get_mut(&from) {
                    batches.split_off(&seq.0);
                }
                pieces.iter().for_each(|piece| self.piece(stream, taken_at, piece, segment, at));
            }
            Found::Checkpoint(checkpoint) => self.checkpoint(checkpoint),
        }
    }

    fn lane(&mut self, stream: StreamId, piece: &FoundPiece) -> &mut BTreeMap<u64, Building> {
        self.lanes.entry(LaneKey { stream, vbucket: piece.vbucket }).or_default()
    }

    fn piece(
        &mut self,
        stream: StreamId,
        taken_at: Timestamp,
        piece: &FoundPiece,
        segment: SegmentId,
        at: usize,
    ) {
        let place =
            Place { segment, offset: (at + piece.offset) as u32, bytes: piece.bytes as u32, crc: piece.crc };
        let batch = self.lane(stream, piece).entry(piece.seq.0).or_insert_with(|| Building {
            events_before: piece.events_before,
            blocks_end: 0,
            blocks: 0,
            events: 0,
            is_holed: false,
            taken_at,
            places: Vec::new(),
        });
        batch.is_holed |= piece.blocks_before != batch.blocks_end;
        batch.blocks_end = piece.blocks_before + piece.blocks;
        batch.blocks += piece.blocks;
        batch.events = batch.events.saturating_add(piece.events);
        batch.places.push(place);
    }

    fn taken(&mut self, taken: Taken) {
        self.uses += 1;
        match self.incarnations.entry((taken.client.clone(), taken.incarnation)) {
            hash_map::Entry::Occupied(mut known) => {
                if known.get().1.seq <= taken.seq {
                    known.insert((self.uses, taken));
                }
            }
            hash_map::Entry::Vacant(place) => {
                place.insert((self.uses, taken));
            }
        }
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint) {
        for Floor { lane, base, applied } in checkpoint.floors {
            self.applied.insert(lane, applied);
            if let btree_map::Entry::Occupied(mut found) = self.lanes.entry(lane) {
                *found.get_mut() = found.get_mut().split_off(&base.0);
            }
        }
        self.clocks.extend(checkpoint.clocks);
        let sending = |since: Option<Timestamp>| since.map_or(Sending::Never, Sending::Since);
        self.sendings =
            checkpoint.sendings.into_iter().map(|(stream, since)| (stream, sending(since))).collect();
        checkpoint.incarnations.into_iter().for_each(|taken| self.taken(taken));
    }

    fn finish(mut self) -> Recovered {
        let is_damaged = self.damage != Damage::default();
        let mut lanes = BTreeMap::new();
        for (key, batches) in std::mem::take(&mut self.lanes) {
            let batches = close(batches, is_damaged);
            self.damage.events += batches.iter().map(|batch| batch.events_lost).sum::<u64>();
            if !batches.is_empty() {
                let applied = self.applied.get(&key).copied().unwrap_or_default();
                let clock = self.clocks.get(&key.stream).copied().unwrap_or_default();
                let sending = self.sendings.get(&key.stream).copied().unwrap_or_default();
                lanes.insert(key, FoundLane { applied, batches, clock, sending });
            }
        }
        let mut incarnations: Vec<_> = self.incarnations.into_values().collect();
        incarnations.sort_by_key(|(used, _)| *used);
        let incarnations = incarnations.into_iter().map(|(_, taken)| taken).collect();
        Recovered { lanes, incarnations, damage: self.damage, torn: self.torn, void: Vec::new() }
    }
}

/// The Batches of a Lane without gaps, and what each lacks.
fn close(found: BTreeMap<u64, Building>, is_damaged: bool) -> Vec<FoundBatch> {
    let mut batches: Vec<FoundBatch> = Vec::new();
    for (seq, batch) in found {
        // Its first piece stood in a segment that is gone, and a segment only goes when nothing in it is held.
        if batches.is_empty() && batch.is_holed && !is_damaged {
            continue;
        }
        if let Some(before) = batches.last_mut() {
            let lost = batch.events_before.saturating_sub(before.events_before.saturating_add(before.events));
            let (first, events_before) = (before.seq.0 + 1, batch.events_before);
            let taken_at = before.taken_at;
            if first == seq {
                before.events_lost = lost;
            }
            // Numbers that were not found at all: empty Batches, so that the Lane stays without gaps.
            for missing in first..seq {
                let (events_lost, events_before) =
                    if missing == first { (lost, events_before - lost) } else { (0, events_before) };
                let seq = SeqNo(missing);
                let (blocks, events, places) = (0, 0, Vec::new());
                batches.push(FoundBatch {
                    seq,
                    events_before,
                    blocks,
                    events,
                    events_lost,
                    taken_at,
                    places,
                });
            }
        }
        batches.push(FoundBatch {
            seq: SeqNo(seq),
            events_before: batch.events_before,
            blocks: batch.blocks,
            events: batch.events,
            events_lost: 0,
            taken_at: batch.taken_at,
            places: batch.places,
        });
    }
    batches
}
