//! [`Replay`]: replays the records of all segments, in order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, hash_map};

use taba_core::{ClientId, SeqNo, StreamId, Timestamp};

use super::{ByteRange, Damage, LostEvents, MissingBytes, Sending};
use crate::clock::StreamClock;
use crate::spool::record::{
    AcceptedBatch, Checkpoint, DecodedFragment, DecodedRecord, ParsedRecord, RECORD_HEAD_BYTES,
    SEGMENT_HEAD_BYTES, SegmentHead, SegmentRole, next,
};
use crate::spool::{Extent, FragmentLocation, SegmentId};
use crate::units::LaneKey;

/// Maximum bytes of heads that are checked in search of the next record.
const RESYNC_BYTES_MAX: usize = 256 << 20;

/// The replayed records of all segments.
#[derive(Debug, Default)]
pub(super) struct Replay {
    extent: Option<Extent>,
    /// Segments with a file of their own.
    segments: BTreeSet<SegmentId>,
    pub(super) lanes: BTreeMap<LaneKey, ReplayedLane>,
    pub(super) applied: HashMap<LaneKey, SeqNo>,
    pub(super) clocks: HashMap<StreamId, StreamClock>,
    /// From the last segment. If that is unreadable, it is unknown: streams may have been sent since.
    pub(super) sendings: HashMap<StreamId, Sending>,
    pub(super) incarnations: HashMap<(ClientId, u64), (u64, AcceptedBatch)>,
    uses: u64,
    /// Accepted events of each Client whose record was not read.
    pub(super) clients_lost: BTreeMap<ClientId, u64>,
    pub(super) damage: Damage,
    pub(super) torn: Vec<(SegmentId, u64)>,
    pub(super) unreadable: Vec<ByteRange>,
}

/// A replayed Lane.
#[derive(Debug, Default)]
pub(super) struct ReplayedLane {
    pub(super) batches: BTreeMap<u64, ReplayedBatch>,
    /// The first Batch that was live at the last checkpoint, and the number of earlier events.
    pub(super) start: Option<(u64, u64)>,
    /// The last Batch, and the number of events up to its end, as far as any readable record says.
    pub(super) end: (u64, u64),
}

/// A replayed Batch.
#[derive(Debug)]
pub(super) struct ReplayedBatch {
    pub(super) events_before: u64,
    blocks_end: u64,
    pub(super) blocks: u64,
    pub(super) events: u64,
    pub(super) lost: BTreeMap<Option<ClientId>, LostEvents>,
    pub(super) is_holed: bool,
    pub(super) taken_at: Timestamp,
    pub(super) locations: Vec<FragmentLocation>,
}

/// The location of a record, and the common properties of its fragments.
#[derive(Clone, Copy)]
struct RecordOrigin<'a> {
    stream: StreamId,
    taken_at: Timestamp,
    segment: SegmentId,
    at: usize,
    /// The Client, and the number of events of its Batch.
    client: Option<(&'a ClientId, u64)>,
}

/// How to treat a record.
enum ReplayStep {
    Now,
    /// It was read before.
    Past,
    /// Its segment has a file of its own, which is read later.
    Later,
    /// It is of a segment that should have been read earlier.
    Never,
}

impl ReplayedBatch {
    pub(super) fn events_lost(&self) -> u64 {
        self.lost.values().map(|loss| loss.events).sum()
    }

    fn lose(&mut self, client: Option<&ClientId>, events: u64) {
        if events > 0 {
            self.lost.entry(client.cloned()).or_default().events += events;
        }
    }
}

impl ReplayedLane {
    fn ends_at(&mut self, seq: u64, events: u64) {
        self.end = (self.end.0.max(seq), self.end.1.max(events));
    }

    /// Whether this fragment is the whole of a known Batch.
    fn has(&self, fragment: &DecodedFragment) -> bool {
        let is_it = |batch: &ReplayedBatch| matches!(&batch.locations[..], [location] if location.crc == fragment.crc);
        self.batches.get(&fragment.seq.0).is_some_and(is_it)
    }

    /// Whether a fragment that is not its Batch's first was read before, or was released.
    fn has_had(&self, fragment: &DecodedFragment) -> bool {
        self.start.is_some_and(|(base, _)| fragment.seq.0 < base)
            || self
                .batches
                .get(&fragment.seq.0)
                .is_some_and(|batch| fragment.blocks_before < batch.blocks_end)
    }

    /// Removes its Batches from this number on.
    fn cut(&mut self, seq: u64, events_before: u64) {
        self.batches.split_off(&seq);
        self.end = (seq.saturating_sub(1), events_before);
    }
}

impl Replay {
    pub(super) fn new(extent: Option<Extent>) -> Self {
        Self { extent, ..Self::default() }
    }

    /// These segments exist, each in a file of its own.
    pub(super) fn are_there(&mut self, segments: impl Iterator<Item = SegmentId>) {
        self.segments.extend(segments);
    }

    /// Bytes are missing here.
    pub(super) fn missing(&mut self, missing: Option<MissingBytes>) {
        if let Some(MissingBytes { segments, bytes }) = missing {
            self.damage.stretches += 1;
            self.damage.bytes += bytes;
            self.damage.segments_missing += segments;
            self.damage.has_unknown = true;
            self.sendings.clear();
        }
    }

    /// Bytes are missing at the end. If the last segment ends in half a record, that is the same range.
    pub(super) fn missing_at_end(&mut self, missing: Option<MissingBytes>, last: Option<SegmentId>) {
        let is_torn = self.torn.last().is_some_and(|(torn, _)| Some(*torn) == last);
        self.damage.stretches -= u64::from(is_torn && missing.is_some_and(|missing| missing.segments == 0));
        self.missing(missing);
    }

    pub(super) fn segment(&mut self, id: SegmentId, bytes: &[u8]) {
        self.sendings.clear();
        let has_head = SegmentHead::decode(bytes).is_some();
        let mut at = if has_head { SEGMENT_HEAD_BYTES } else { 0 };
        if !has_head {
            // Later records may be intact. A file that a crash left empty holds nothing acknowledged.
            at = resynchronise(bytes, None).unwrap_or(bytes.len());
            self.unreadable(id, 0, at);
        }
        let mut has_begun = false;
        loop {
            match next(&bytes[at..]) {
                ParsedRecord::End => return,
                ParsedRecord::Record(found, end) if self.is_believed(&found, id, at + end) => {
                    match self.turn(&found, id, &mut has_begun) {
                        ReplayStep::Now => self.record(*found, id, at),
                        ReplayStep::Past => self.damage.segments_misnamed += 1,
                        ReplayStep::Later => {
                            self.damage.segments_misnamed += 1;
                            return;
                        }
                        ReplayStep::Never => return self.unreadable(id, at, bytes.len()),
                    }
                    at += end;
                }
                // Its lengths may be damaged.
                ParsedRecord::Record(_, end) | ParsedRecord::Broken(end) => {
                    let next = resynchronise(bytes, Some(at)).unwrap_or(at + end);
                    self.unreadable(id, at, next);
                    at = next;
                }
                ParsedRecord::Lost => match resynchronise(bytes, Some(at)) {
                    Some(next) => {
                        self.unreadable(id, at, next);
                        at = next;
                    }
                    None => {
                        self.torn.push((id, at as u64));
                        return self.unreadable(id, at, bytes.len());
                    }
                },
            }
        }
    }

    /// A checkpoint begins a segment. One in the middle of a file means that another segment follows, or this one
    /// again. Fragments that were read before are recognised by their position in their Batch.
    fn turn(&self, found: &DecodedRecord, id: SegmentId, has_begun: &mut bool) -> ReplayStep {
        let DecodedRecord::Checkpoint(Checkpoint { segment, .. }) = found else { return ReplayStep::Now };
        let is_first = !std::mem::replace(has_begun, true);
        let is_there = self.segments.contains(segment);
        match segment.cmp(&id) {
            Ordering::Equal if is_first => ReplayStep::Now,
            Ordering::Equal => ReplayStep::Past,
            Ordering::Less if is_there => ReplayStep::Past,
            Ordering::Less => ReplayStep::Never,
            Ordering::Greater if is_there => ReplayStep::Later,
            Ordering::Greater => ReplayStep::Now,
        }
    }

    /// What was synced was written completely: its intact parts count. Of the rest a power failure may have left some
    /// parts: a Client's Batch counts as a whole or not at all.
    fn is_believed(&self, found: &DecodedRecord, segment: SegmentId, end: usize) -> bool {
        let is_synced = self.extent.is_some_and(|extent| extent.holds(segment, end as u64));
        is_synced || !found.fragments().iter().any(|fragment| fragment.is_damaged)
    }

    fn unreadable(&mut self, segment: SegmentId, from: usize, to: usize) {
        let (offset, bytes) = (from as u64, (to - from) as u64);
        if bytes > 0 {
            self.damage.stretches += 1;
            self.damage.bytes += bytes;
            self.unreadable.push(ByteRange { segment, offset, bytes });
            // Unsynced bytes at the end are of a killed run, and no damage.
            let was_synced = self.extent.is_none_or(|extent| extent.holds(segment, offset + 1));
            self.damage.has_unknown |= was_synced;
        }
    }

    fn record(&mut self, found: DecodedRecord, segment: SegmentId, at: usize) {
        for fragment in found.fragments().iter().filter(|fragment| fragment.is_damaged) {
            let (offset, bytes) = ((at + fragment.offset) as u64, fragment.bytes as u64);
            self.damage.stretches += 1;
            self.damage.bytes += bytes;
            self.unreadable.push(ByteRange { segment, offset, bytes });
        }
        let origin = |stream, taken_at| RecordOrigin { stream, taken_at, segment, at, client: None };
        match found {
            DecodedRecord::Take(taken, stream, fragments) => {
                let events = fragments.iter().map(|fragment| fragment.events).sum();
                let origin =
                    RecordOrigin { client: Some((&taken.client, events)), ..origin(stream, taken.taken_at) };
                fragments.iter().for_each(|fragment| self.fragment(origin, fragment));
                self.taken(taken, Some(events));
            }
            DecodedRecord::Copy(stream, taken_at, fragment) => {
                let lane = self.lane(stream, fragment.vbucket);
                // The source of the copy may still exist.
                if !fragment.is_damaged || !lane.batches.contains_key(&fragment.seq.0) {
                    lane.batches.remove(&fragment.seq.0);
                    self.fragment(origin(stream, taken_at), &fragment);
                }
            }
            DecodedRecord::Merge(stream, taken_at, fragments) => {
                let Some(first) = fragments.first() else { return };
                let lane = self.lane(stream, first.vbucket);
                // Replayed a second time, it would remove what was added since.
                if !fragments.iter().all(|fragment| lane.has(fragment)) {
                    lane.cut(first.seq.0, first.events_before);
                    fragments.iter().for_each(|fragment| self.fragment(origin(stream, taken_at), fragment));
                }
            }
            DecodedRecord::Move(from, seq, (stream, taken_at), fragments) => {
                if let Some(lane) = self.lanes.get_mut(&from)
                    && let Some((_, first)) = lane.batches.range(seq.0..).next()
                {
                    lane.cut(seq.0, first.events_before);
                }
                fragments.iter().for_each(|fragment| self.fragment(origin(stream, taken_at), fragment));
            }
            DecodedRecord::Checkpoint(checkpoint) => self.checkpoint(checkpoint),
        }
    }

    fn lane(&mut self, stream: StreamId, vbucket: u16) -> &mut ReplayedLane {
        self.lanes.entry(LaneKey { stream, vbucket }).or_default()
    }

    fn fragment(&mut self, origin: RecordOrigin<'_>, fragment: &DecodedFragment) {
        let RecordOrigin { stream, taken_at, segment, at, client } = origin;
        let location = FragmentLocation {
            segment,
            offset: (at + fragment.offset) as u32,
            bytes: fragment.bytes as u32,
            crc: fragment.crc,
        };
        let lane = self.lane(stream, fragment.vbucket);
        if lane.has_had(fragment) {
            return;
        }
        let batch = lane.batches.entry(fragment.seq.0).or_insert_with(|| ReplayedBatch {
            events_before: fragment.events_before,
            blocks_end: 0,
            blocks: 0,
            events: 0,
            lost: BTreeMap::new(),
            is_holed: false,
            taken_at,
            locations: Vec::new(),
        });
        batch.is_holed |= fragment.blocks_before != batch.blocks_end;
        batch.blocks_end = fragment.blocks_before + fragment.blocks;
        let known = batch.events.saturating_add(batch.events_lost());
        batch.lose(None, fragment.batch_events_before.saturating_sub(known));
        if fragment.is_damaged {
            batch.lose(client.map(|(client, _)| client), fragment.events);
            // A fragment without events holds the notes of its Client about the others.
            if let (0, Some((client, events))) = (fragment.events, client) {
                batch.lost.entry(Some(client.clone())).or_default().unrecorded += events;
            }
        } else {
            batch.blocks += fragment.blocks;
            batch.events = batch.events.saturating_add(fragment.events);
            batch.locations.push(location);
        }
        let events = [fragment.events_before, fragment.batch_events_before, fragment.events];
        lane.ends_at(fragment.seq.0, events.into_iter().fold(0, u64::saturating_add));
    }

    /// Records an accepted Batch of a Client with this many events; a checkpoint does not have the number.
    fn taken(&mut self, taken: AcceptedBatch, events: Option<u64>) {
        self.uses += 1;
        // From the first segment on, a Client has no earlier events.
        let is_from_start = self.extent.is_some_and(|extent| extent.oldest == SegmentId(1));
        let before = taken.events_total.saturating_sub(events.unwrap_or(0));
        let lost = |known: u64| before.saturating_sub(known);
        let mut missing = 0;
        match self.incarnations.entry((taken.client.clone(), taken.incarnation)) {
            hash_map::Entry::Occupied(mut known) => {
                if known.get().1.seq <= taken.seq {
                    if known.get().1.seq < taken.seq {
                        missing = lost(known.get().1.events_total);
                    }
                    known.insert((self.uses, taken.clone()));
                }
            }
            hash_map::Entry::Vacant(place) => {
                missing = if is_from_start { lost(0) } else { 0 };
                place.insert((self.uses, taken.clone()));
            }
        }
        if missing > 0 {
            *self.clients_lost.entry(taken.client).or_default() += missing;
        }
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint) {
        for lane_checkpoint in checkpoint.lanes {
            self.applied.insert(lane_checkpoint.lane, lane_checkpoint.applied);
            let is_held = lane_checkpoint.base <= lane_checkpoint.last;
            if !is_held && !self.lanes.contains_key(&lane_checkpoint.lane) {
                continue;
            }
            let lane = self.lanes.entry(lane_checkpoint.lane).or_default();
            lane.batches = lane.batches.split_off(&lane_checkpoint.base.0);
            lane.start = Some((lane_checkpoint.base.0, lane_checkpoint.events_before));
            lane.ends_at(lane_checkpoint.last.0, lane_checkpoint.events_end);
        }
        self.clocks.extend(checkpoint.clocks);
        let sending = |since: Option<Timestamp>| since.map_or(Sending::Never, Sending::Since);
        self.sendings =
            checkpoint.sendings.into_iter().map(|(stream, since)| (stream, sending(since))).collect();
        checkpoint.incarnations.into_iter().for_each(|taken| self.taken(taken, None));
        if checkpoint.role != SegmentRole::Renews {
            // It has the end of every Lane: all earlier losses are known.
            self.damage.has_unknown = false;
        }
    }
}

/// The number of readable bytes of a segment.
pub(super) fn readable_bytes(bytes: &[u8]) -> usize {
    let mut at = SEGMENT_HEAD_BYTES.min(bytes.len());
    let mut readable = 0;
    loop {
        match next(&bytes[at..]) {
            ParsedRecord::End => return readable,
            ParsedRecord::Record(found, end) => {
                let damaged: usize = found
                    .fragments()
                    .iter()
                    .filter(|fragment| fragment.is_damaged)
                    .map(|fragment| fragment.bytes)
                    .sum();
                readable += end - damaged;
                at += end;
            }
            ParsedRecord::Broken(_) | ParsedRecord::Lost => match resynchronise(bytes, Some(at)) {
                Some(next) => at = next,
                None => return readable,
            },
        }
    }
}

/// The offset of the next record after a damaged place, or from the start.
///
/// # Cost
/// A few comparisons for each byte, and checksums over at most [`RESYNC_BYTES_MAX`] bytes of apparent heads; after
/// that the rest of the segment is given up.
fn resynchronise(bytes: &[u8], behind: Option<usize>) -> Option<usize> {
    let mut left = RESYNC_BYTES_MAX;
    for start in behind.map_or(0, |at| at + 1)..bytes.len().saturating_sub(RECORD_HEAD_BYTES) {
        let rest = &bytes[start..];
        let length = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let (head, data) = (length(0) as usize, length(4) as usize);
        let is_kind = (1..=5).contains(&rest[RECORD_HEAD_BYTES - 1]);
        if !is_kind || head.saturating_add(data) > rest.len() {
            continue;
        }
        left = left.checked_sub(head)?;
        if matches!(next(rest), ParsedRecord::Record(..)) {
            return Some(start);
        }
    }
    None
}
