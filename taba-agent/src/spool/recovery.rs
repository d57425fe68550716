//! Recovers the content of a log.
//!
//! Intact records are used, whatever is between them; unreadable bytes are reported and kept in a file. The number of
//! lost events follows from the readable records: every fragment has the number of earlier events of its Lane, a
//! checkpoint the end of each Lane, and every record of a Client's Batch the number of earlier events of that Client.
//! A Batch of a Lane that lacks events carries notes for the Ledger instead (`taba.dropped;where=agent;why=damaged`).
//! If the whole Batch had been stored before the damage, the Server knows its number, and never folds the notes.
//!
//! | file | content |
//! |---|---|
//! | `arrange.rs` | assigns files to segments, and finds missing ones |
//! | `replay.rs` | replays the records of all segments, in order |
//! | `loss.rs` | the lost events of each Lane, and their Clients |

mod arrange;
mod loss;
mod replay;

use std::collections::BTreeMap;
use std::io;

use taba_core::{ClientId, SeqNo, Timestamp};

use self::replay::Replay;
use super::record::{
    AcceptedBatch, DecodedRecord, MAGIC, ParsedRecord, SEGMENT_HEAD_BYTES, SegmentRole, VERSION, next,
};
use super::{Disk, Extent, FragmentLocation, SegmentId};
use crate::clock::StreamClock;
use crate::units::LaneKey;

/// The recovered content of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Lanes of earlier runs with Batches that may still be needed.
    pub lanes: BTreeMap<LaneKey, RecoveredLane>,
    /// The last Batch of each Client incarnation, the most recently used last.
    pub incarnations: Vec<AcceptedBatch>,
    /// The damage.
    pub damage: Damage,
    /// The existing segments, oldest first, with their lengths in bytes.
    pub segments: Vec<(SegmentId, u64)>,
    /// The highest number ever used: no segment up to it may be begun.
    pub last: SegmentId,
    /// Segments that are unreadable after this many bytes.
    pub torn: Vec<(SegmentId, u64)>,
    /// The ranges of unreadable bytes.
    pub unreadable: Vec<ByteRange>,
    /// Segments of an incomplete rewrite, which do not count. They must be removed before any older one, or they
    /// would be the only ones, and count.
    pub void: Vec<SegmentId>,
}

/// A range of bytes in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ByteRange {
    /// The segment.
    pub segment: SegmentId,
    /// The first byte.
    pub offset: u64,
    /// The number of bytes.
    pub bytes: u64,
}

/// A recovered Lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveredLane {
    /// The last Batch known to be acknowledged; later ones may be, too.
    pub applied: SeqNo,
    /// At least one, in order, without gaps.
    pub batches: Vec<RecoveredBatch>,
    /// The clock error of its stream.
    pub clock: StreamClock,
    /// Since when its stream may have been sent.
    pub sending: Sending,
}

/// Since when a stream may have been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sending {
    /// Unknown; so since its Batches arrived.
    #[default]
    Unknown,
    /// Never.
    Never,
    /// Since then, by the clock of the stream.
    Since(Timestamp),
}

/// A recovered Batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveredBatch {
    /// Its number in the Lane.
    pub seq: SeqNo,
    /// Events in all Batches of the Lane before it.
    pub events_before: u64,
    /// Recovered Blocks.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// Known lost events by Client; `None` if the Client is unknown.
    pub lost: BTreeMap<Option<ClientId>, LostEvents>,
    /// Its first arrival, by the clock of its stream.
    pub taken_at: Timestamp,
    /// The locations of its fragments, in order.
    pub locations: Vec<FragmentLocation>,
}

/// The lost events of a Batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostEvents {
    /// Events.
    pub events: u64,
    /// Events whose Client's own note of recording them (`taba.recorded`) is lost, too.
    pub unrecorded: u64,
}

/// The damage of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Ranges of bytes that are no records or are missing, with missing segments and a torn tail.
    pub stretches: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Lost events in them, as far as known; Servers may have stored some of them before.
    pub events: u64,
    /// The same by Client, as far as known.
    pub clients: BTreeMap<ClientId, u64>,
    /// Whether an unknown number of further events was lost.
    pub has_unknown: bool,
    /// Missing segments.
    pub segments_missing: u64,
    /// Files with the number of another segment, or duplicates.
    pub segments_misnamed: u64,
}

/// Missing segments, and all missing bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MissingBytes {
    segments: u64,
    bytes: u64,
}

impl Recovered {
    /// The locations of all live fragments.
    pub fn locations(&self) -> impl Iterator<Item = &FragmentLocation> {
        self.lanes.values().flat_map(|lane| &lane.batches).flat_map(|batch| &batch.locations)
    }
}

impl RecoveredBatch {
    /// Events known to be lost.
    pub fn events_lost(&self) -> u64 {
        self.lost.values().map(|loss| loss.events).sum()
    }
}

/// Recovers a whole log, which must contain this range. Files with a wrong number are renamed.
///
/// # Errors
/// The disk's error when it cannot read or rename; a log of another version.
pub fn recover(disk: &mut dyn Disk, extent: Option<Extent>) -> io::Result<Recovered> {
    let files = disk.segments()?;
    // Whether bytes are missing at either end.
    let is_end_unknown = extent.is_none() && !files.is_empty();
    for &(file, _) in &files {
        let head = disk.read(file, 0, SEGMENT_HEAD_BYTES)?;
        if let Some(version) = other_version(&head) {
            let words = format!(
                "segment {file} is of version {version}, and this build reads version {VERSION}: \
                 let the build that wrote it deliver what is in it, or move the directory away"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
    }
    let mut replay = Replay::new(extent);
    let segments = arrange::arrange(disk, files, &mut replay)?;
    replay.are_there(segments.iter().map(|(segment, _)| *segment));
    let missing = arrange::missing(disk, &segments, extent)?;
    // Segments of a rewrite that is not known to be complete.
    let mut unsealed: Vec<(SegmentId, Vec<u8>)> = Vec::new();
    let (mut is_first, mut void) = (true, Vec::new());
    // What is missing before a rewrite; nothing, once that is complete.
    let mut before_renewal = None;
    for &(segment, bytes) in &segments {
        let missing_here = missing.before.get(&segment).copied();
        let bytes = disk.read(segment, 0, bytes as usize)?;
        match role(&bytes) {
            SegmentRole::Renews if is_first => before_renewal = missing_here,
            SegmentRole::Seals => {
                before_renewal = None;
                replay.missing(missing_here);
            }
            SegmentRole::Renews | SegmentRole::Follows => replay.missing(missing_here),
        }
        match role(&bytes) {
            // Beside its source, a copy would count twice, or half of it.
            SegmentRole::Renews if !is_first => {
                unsealed.push((segment, bytes));
                continue;
            }
            SegmentRole::Seals => {
                unsealed.drain(..).for_each(|(segment, bytes)| replay.segment(segment, &bytes));
            }
            SegmentRole::Renews => {}
            // The run that wrote it ended before it was complete.
            SegmentRole::Follows => void.extend(unsealed.drain(..).map(|(segment, _)| segment)),
        }
        replay.segment(segment, &bytes);
        is_first = false;
    }
    void.extend(unsealed.into_iter().map(|(segment, _)| segment));
    replay.missing(before_renewal);
    replay.missing_at_end(missing.at_end, segments.last().map(|last| last.0));
    if is_end_unknown {
        replay.damage.has_unknown = true;
        replay.sendings.clear();
    }
    let last = segments.last().map_or(SegmentId(0), |last| last.0);
    let last = last.max(extent.map_or(SegmentId(0), |extent| extent.last));
    let unreadable = std::mem::take(&mut replay.unreadable);
    let torn = std::mem::take(&mut replay.torn);
    Ok(Recovered { segments, last, torn, unreadable, void, ..loss::finish(replay) })
}

/// The version of a segment's head from another build; `None` for the current one, also when damaged.
fn other_version(head: &[u8]) -> Option<u8> {
    let version = *head.get(MAGIC.len())?;
    // Version 1 had neither `before` nor `before_bytes`.
    let end = if version == 1 { 17 } else { SEGMENT_HEAD_BYTES - 4 };
    let is_whole = head.get(end..end + 4)? == crc32fast::hash(&head[..end]).to_le_bytes();
    (head.starts_with(&MAGIC) && version != VERSION && is_whole).then_some(version)
}

/// The relation of a segment to earlier ones, from its first record.
fn role(segment: &[u8]) -> SegmentRole {
    match segment.get(SEGMENT_HEAD_BYTES..).map(next) {
        Some(ParsedRecord::Record(found, _)) => match *found {
            DecodedRecord::Checkpoint(checkpoint) => checkpoint.role,
            _ => SegmentRole::Follows,
        },
        _ => SegmentRole::Follows,
    }
}
