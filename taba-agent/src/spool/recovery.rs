//! What a log says when it is opened again.
//!
//! The good records live, whatever stands between them; what cannot be read is reported and kept in a file of its own.
//! How many events were in it is told by what can be read: every fragment says how many events of its Lane came before, a
//! checkpoint says where each Lane ended, and every record of a Client's Batch says how many events of that Client were
//! taken before. The Batch of a Lane that lacks events carries notes for the Ledger instead
//! (`taba.dropped;where=agent;why=damaged`). If that Batch had been stored whole before the damage, its number is known
//! to the Server, and the notes are never folded.
//!
//! | file | what |
//! |---|---|
//! | `arrange.rs` | which file is which segment, and which segments are missing |
//! | `replay.rs` | the records of all segments, in order |
//! | `loss.rs` | what each Lane lacks, and whose events those were |

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

/// What was found in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The Lanes of earlier runs of which something may still be needed.
    pub lanes: BTreeMap<LaneKey, RecoveredLane>,
    /// The last Batch of each Client incarnation, those used last behind.
    pub incarnations: Vec<AcceptedBatch>,
    /// What could not be read.
    pub damage: Damage,
    /// The segments that are there, oldest first, with their lengths in bytes.
    pub segments: Vec<(SegmentId, u64)>,
    /// No segment up to this number may be begun: it was there once.
    pub last: SegmentId,
    /// Segments of which nothing behind so many bytes can be read.
    pub torn: Vec<(SegmentId, u64)>,
    /// Where bytes stand that no reader understands.
    pub unreadable: Vec<ByteRange>,
    /// Segments of a log that was being written again and is not whole: nothing of them counts. They have to be gone before
    /// an older one is removed, or they would be all there is, and count.
    pub void: Vec<SegmentId>,
}

/// Some bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// In which segment.
    pub segment: SegmentId,
    /// From which byte on.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// A Lane that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredLane {
    /// The last Batch that is known to have been acknowledged; what follows it may have been.
    pub applied: SeqNo,
    /// At least one, in order, without gaps.
    pub batches: Vec<RecoveredBatch>,
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
pub struct RecoveredBatch {
    /// Its place in the Lane.
    pub seq: SeqNo,
    /// Events in all Batches of the Lane before it.
    pub events_before: u64,
    /// Blocks that were found.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// What is known to be missing, by Client; what has none is somebody's.
    pub lost: BTreeMap<Option<ClientId>, LostEvents>,
    /// When the first of it was taken, on the clock of its stream.
    pub taken_at: Timestamp,
    /// Where its fragments are, in order.
    pub locations: Vec<FragmentLocation>,
}

/// What of a Batch is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostEvents {
    /// Events.
    pub events: u64,
    /// Events whose Client's own note that it recorded them (`taba.recorded`) is lost, too.
    pub unrecorded: u64,
}

/// What could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Stretches of bytes that are no records, or are not there: a missing segment is one, a torn tail too.
    pub stretches: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Events in them, as far as that is known; Servers may have stored some of them before.
    pub events: u64,
    /// The same by Client, as far as that is known.
    pub clients: BTreeMap<ClientId, u64>,
    /// Whether more events were lost than `events`, and nobody knows how many.
    pub has_unknown: bool,
    /// Segments that are not there at all.
    pub segments_missing: u64,
    /// Files that stood under the number of another segment, or twice.
    pub segments_misnamed: u64,
}

/// Segments that are not there, and the bytes of those and of others that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MissingBytes {
    segments: u64,
    bytes: u64,
}

impl Recovered {
    /// Where everything is that is held.
    pub fn locations(&self) -> impl Iterator<Item = &FragmentLocation> {
        self.lanes.values().flat_map(|lane| &lane.batches).flat_map(|batch| &batch.locations)
    }
}

impl RecoveredBatch {
    /// Events that are known to be missing.
    pub fn events_lost(&self) -> u64 {
        self.lost.values().map(|loss| loss.events).sum()
    }
}

/// Reads a whole log, of which this stretch must be there. Files that stand under a wrong number are renamed.
///
/// # Errors
/// What the disk says when it does not give the bytes, or does not rename; a log of another version.
pub fn recover(disk: &mut dyn Disk, extent: Option<Extent>) -> io::Result<Recovered> {
    let files = disk.segments()?;
    // Whether something is missing at either end.
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
    // Segments of a log that was being written again, and is not known to be whole.
    let mut unsealed: Vec<(SegmentId, Vec<u8>)> = Vec::new();
    let (mut is_first, mut void) = (true, Vec::new());
    // What is missing before a log that was written again; nothing, once that is whole.
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
            // With what it was copied from, it would say twice what it says, or half of it.
            SegmentRole::Renews if !is_first => {
                unsealed.push((segment, bytes));
                continue;
            }
            SegmentRole::Seals => {
                unsealed.drain(..).for_each(|(segment, bytes)| replay.segment(segment, &bytes));
            }
            SegmentRole::Renews => {}
            // The run that wrote it ended before it was whole.
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

/// The version of a segment's head that another build wrote; `None` for today's, also when it is damaged.
fn other_version(head: &[u8]) -> Option<u8> {
    let version = *head.get(MAGIC.len())?;
    // Version 1 had neither `before` nor `before_bytes`.
    let end = if version == 1 { 17 } else { SEGMENT_HEAD_BYTES - 4 };
    let is_whole = head.get(end..end + 4)? == crc32fast::hash(&head[..end]).to_le_bytes();
    (head.starts_with(&MAGIC) && version != VERSION && is_whole).then_some(version)
}

/// What a segment is to those before it, as its first record says.
fn role(segment: &[u8]) -> SegmentRole {
    match segment.get(SEGMENT_HEAD_BYTES..).map(next) {
        Some(ParsedRecord::Record(found, _)) => match *found {
            DecodedRecord::Checkpoint(checkpoint) => checkpoint.role,
            _ => SegmentRole::Follows,
        },
        _ => SegmentRole::Follows,
    }
}
