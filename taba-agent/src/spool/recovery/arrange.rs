//! Assigns files to segments, and finds missing ones.
//!
//! A segment has its own number in its head and in the checkpoint after it, so a renamed file is recognised; if both
//! are damaged, its name counts. If a segment exists twice, the more readable file counts.

use std::collections::BTreeMap;
use std::io;

use super::MissingBytes;
use super::replay::{Replay, readable_bytes};
use crate::spool::record::{DecodedRecord, ParsedRecord, SEGMENT_HEAD_BYTES, SegmentHead, next};
use crate::spool::{Disk, Extent, SegmentId};

/// Missing bytes and their place.
#[derive(Debug, Default)]
pub(super) struct MissingSegments {
    /// Before these segments.
    pub(super) before: BTreeMap<SegmentId, MissingBytes>,
    /// After the last one.
    pub(super) at_end: Option<MissingBytes>,
}

/// Renames every file to its right number, and removes duplicates. Returns the segments in order.
pub(super) fn arrange(
    disk: &mut dyn Disk,
    files: Vec<(SegmentId, u64)>,
    replay: &mut Replay,
) -> io::Result<Vec<(SegmentId, u64)>> {
    let mut by_number: BTreeMap<SegmentId, Vec<(SegmentId, u64)>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for (file, bytes) in files {
        match number_of(disk, file, bytes)? {
            Some(number) => by_number.entry(number).or_default().push((file, bytes)),
            None => unknown.push((file, bytes)),
        }
    }
    for (file, bytes) in unknown {
        // Its name may be the number of another one: then it gets a free number.
        let free = (1..).map(SegmentId).find(|number| !by_number.contains_key(number)).unwrap_or(file);
        let number = if by_number.contains_key(&file) { free } else { file };
        by_number.entry(number).or_default().push((file, bytes));
    }
    let mut chosen = Vec::new();
    for (number, files) in by_number {
        let (file, bytes) = choose(disk, number, &files)?;
        chosen.push((number, file, bytes));
        for (other, bytes) in files.into_iter().filter(|(other, _)| *other != file) {
            replay.damage.segments_misnamed += 1;
            put_away(disk, (other, bytes), (file, number))?;
        }
    }
    rename(disk, &chosen, replay)?;
    Ok(chosen.into_iter().map(|(number, _, bytes)| (number, bytes)).collect())
}

/// The number in the segment itself.
fn number_of(disk: &dyn Disk, file: SegmentId, bytes: u64) -> io::Result<Option<SegmentId>> {
    if let Some(head) = SegmentHead::decode(&disk.read(file, 0, SEGMENT_HEAD_BYTES)?) {
        return Ok(Some(head.id));
    }
    let bytes = disk.read(file, SEGMENT_HEAD_BYTES as u64, bytes as usize)?;
    Ok(match next(&bytes) {
        ParsedRecord::Record(found, _) => match *found {
            DecodedRecord::Checkpoint(checkpoint) => Some(checkpoint.segment),
            _ => None,
        },
        ParsedRecord::Broken(_) | ParsedRecord::Lost | ParsedRecord::End => None,
    })
}

/// The file of a segment: the most readable one, or of equal ones the one with its number.
fn choose(disk: &dyn Disk, number: SegmentId, files: &[(SegmentId, u64)]) -> io::Result<(SegmentId, u64)> {
    let mut best = (files[0], (0, false));
    if files.len() > 1 {
        for &(file, bytes) in files {
            let rank = (readable_bytes(&disk.read(file, 0, bytes as usize)?), file == number);
            if rank > best.1 || file == best.0.0 {
                best = ((file, bytes), rank);
            }
        }
    }
    Ok(best.0)
}

/// Removes a file whose segment is in another one as well; keeps a copy if the two differ.
fn put_away(
    disk: &mut dyn Disk,
    (file, bytes): (SegmentId, u64),
    (chosen, number): (SegmentId, SegmentId),
) -> io::Result<()> {
    let content = disk.read(file, 0, bytes as usize)?;
    let is_copy = content == disk.read(chosen, 0, content.len())?;
    if !is_copy && !disk.keep_damaged(file, 0, &content)? {
        let words = format!(
            "segment {file} is another version of segment {number}, and there is no room to keep a copy of it: move it, or \
             *.damaged files, out of the directory"
        );
        return Err(io::Error::other(words));
    }
    disk.remove(file)
}

/// Renames files to free numbers one after the other; a cycle is broken by a temporary number.
fn rename(
    disk: &mut dyn Disk,
    chosen: &[(SegmentId, SegmentId, u64)],
    replay: &mut Replay,
) -> io::Result<()> {
    let mut taken: BTreeMap<SegmentId, SegmentId> =
        chosen.iter().map(|&(number, file, _)| (file, number)).collect();
    while let Some((&file, &number)) = taken.iter().find(|(file, number)| file != number) {
        let free = taken.iter().find(|(file, number)| file != number && !taken.contains_key(*number));
        let (from, to, number) = match free {
            Some((&from, &to)) => (from, to, to),
            None => (file, SegmentId(taken.keys().next_back().map_or(0, |last| last.0) + 1), number),
        };
        disk.rename(from, to)?;
        taken.remove(&from);
        taken.insert(to, number);
        replay.damage.segments_misnamed += u64::from(to == number);
    }
    Ok(())
}

/// The segments that are missing or too short: each has the number and length of the one before, and the disk knows
/// which ones were removed on purpose and what was synced last.
pub(super) fn missing(
    disk: &dyn Disk,
    segments: &[(SegmentId, u64)],
    extent: Option<Extent>,
) -> io::Result<MissingSegments> {
    let mut missing = MissingSegments::default();
    let known = extent.unwrap_or_default();
    let present: BTreeMap<SegmentId, u64> = segments.iter().copied().collect();
    let mut first_kept = None;
    for &(segment, _) in segments {
        let Some(head) = SegmentHead::decode(&disk.read(segment, 0, SEGMENT_HEAD_BYTES)?) else { continue };
        let is_first = first_kept.replace(segment).is_none();
        let lost = match present.get(&head.before) {
            Some(bytes) if *bytes < head.before_bytes => Some((0, head.before_bytes - bytes)),
            Some(_) => None,
            None if head.before == SegmentId(0) || head.before < known.oldest => None,
            // It is unknown whether segments before the first one were removed on purpose.
            None if is_first && extent.is_none() => None,
            None => Some((1, head.before_bytes)),
        };
        if let Some((segments, bytes)) = lost {
            missing.before.insert(segment, MissingBytes { segments, bytes });
        }
    }
    let last = segments.last().map_or(SegmentId(0), |last| last.0);
    missing.at_end = match present.get(&known.last) {
        Some(bytes) if *bytes < known.last_bytes => {
            Some(MissingBytes { segments: 0, bytes: known.last_bytes - bytes })
        }
        None if known.last > last => Some(MissingBytes { segments: 1, bytes: known.last_bytes }),
        Some(_) | None => None,
    };
    if missing.at_end.is_some_and(|lost| lost.segments == 0) && known.last < last {
        // The segment after it has it.
        missing.at_end = None;
    }
    Ok(missing)
}
