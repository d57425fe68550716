//! Decodes records; damaged and foreign bytes are expected.

use taba_core::ledger::Why;
use taba_core::limits::{BATCH_BLOCKS_MAX, CLIENT_ID_BYTES_MAX};
use taba_core::wire::{Reader, Refusal, WireError};
use taba_core::{ClientId, SeqNo, StreamId, Timestamp};

use super::{
    AcceptedBatch, CHECKPOINT, CHECKPOINT_MAX, COPY, Checkpoint, DecodedFragment, DecodedRecord,
    FRAGMENTS_MAX, LaneCheckpoint, MERGE, MOVE, ParsedRecord, RECORD_BYTES_MAX, RECORD_HEAD_BYTES,
    SegmentRole, TAKE, checksum,
};
use crate::clock::StreamClock;
use crate::spool::SegmentId;
use crate::units::LaneKey;

/// Decodes the record at the start of these bytes. If its head is intact, damaged fragments are marked
/// ([`DecodedFragment::is_damaged`]).
pub fn next(bytes: &[u8]) -> ParsedRecord {
    let mut reader = Reader::new(bytes);
    if bytes.is_empty() {
        return ParsedRecord::End;
    }
    let mut length = || reader.array("a record").map(|bytes| u32::from_le_bytes(bytes) as usize);
    let (Ok(head), Ok(data), Ok(crc)) = (length(), length(), length()) else { return ParsedRecord::Lost };
    let head_end = RECORD_HEAD_BYTES.saturating_add(head);
    let end = head_end.saturating_add(data);
    if head > RECORD_BYTES_MAX || data > RECORD_BYTES_MAX || bytes.len() < end {
        return ParsedRecord::Lost;
    }
    if checksum(&bytes[..head_end]) as usize != crc {
        return ParsedRecord::Broken(end);
    }
    let Some(mut found) = read(&bytes[12..head_end], head_end) else { return ParsedRecord::Broken(end) };
    let fragments = found.fragments_mut();
    if fragments.last().is_some_and(|last| last.offset + last.bytes != end) {
        return ParsedRecord::Broken(end);
    }
    for fragment in fragments {
        fragment.is_damaged =
            crc32fast::hash(&bytes[fragment.offset..fragment.offset + fragment.bytes]) != fragment.crc;
    }
    ParsedRecord::Record(Box::new(found), end)
}

/// Decodes kind and head of a record, whose data begins at `data`. `None` when it is no record.
pub(super) fn read(record: &[u8], data: usize) -> Option<DecodedRecord> {
    let mut reader = Reader::new(record);
    let found = read_from(&mut reader, data).ok()?;
    reader.finish("bytes behind a head").ok()?;
    Some(found)
}

fn read_from(reader: &mut Reader<'_>, mut data: usize) -> Result<DecodedRecord, WireError> {
    let data = &mut data;
    match reader.u8("the kind of a record")? {
        TAKE => {
            let stream = stream(reader)?;
            let mut taken = taken(reader)?;
            taken.taken_at = time(reader)?;
            Ok(DecodedRecord::Take(taken, stream, fragments(reader, data)?))
        }
        COPY => Ok(DecodedRecord::Copy(stream(reader)?, time(reader)?, fragment(reader, data)?)),
        MERGE => Ok(DecodedRecord::Merge(stream(reader)?, time(reader)?, fragments(reader, data)?)),
        MOVE => {
            let (lane, vbucket) = (stream(reader)?, reader.array("a vbucket")?);
            let from = LaneKey { stream: lane, vbucket: u16::from_le_bytes(vbucket) };
            let seq = SeqNo(reader.u64("a sequence number")?);
            Ok(DecodedRecord::Move(from, seq, (stream(reader)?, time(reader)?), fragments(reader, data)?))
        }
        CHECKPOINT => Ok(DecodedRecord::Checkpoint(checkpoint(reader)?)),
        _ => Err(WireError::Malformed { what: "the kind of a record" }),
    }
}

fn checkpoint(reader: &mut Reader<'_>) -> Result<Checkpoint, WireError> {
    let segment = SegmentId(u64::from_le_bytes(reader.array("the number of a segment")?));
    let role = match reader.u8("a role")? {
        0 => SegmentRole::Follows,
        1 => SegmentRole::Renews,
        2 => SegmentRole::Seals,
        _ => return Err(WireError::Malformed { what: "a role" }),
    };
    let mut found = Checkpoint { segment, role, ..Checkpoint::default() };
    for _ in 0..reader.count(CHECKPOINT_MAX, "lanes")? {
        let lane =
            LaneKey { stream: stream(reader)?, vbucket: u16::from_le_bytes(reader.array("a vbucket")?) };
        let (base, applied) = (SeqNo(reader.u64("a base")?), SeqNo(reader.u64("a mark")?));
        let events_before = reader.u64("a number of events")?;
        let last = SeqNo(reader.u64("a sequence number")?);
        let events_end = reader.u64("a number of events")?;
        found.lanes.push(LaneCheckpoint { lane, base, applied, events_before, last, events_end });
    }
    for _ in 0..reader.count(CHECKPOINT_MAX, "incarnations")? {
        found.incarnations.push(taken(reader)?);
    }
    let clocks = if reader.remaining() == 0 { 0 } else { reader.count(CHECKPOINT_MAX, "clocks")? };
    for _ in 0..clocks {
        let stream = stream(reader)?;
        let clock = StreamClock { measured: reader.i64("a clock")?, told: reader.i64("a clock")? };
        found.clocks.push((stream, clock));
    }
    let sendings = if reader.remaining() == 0 { 0 } else { reader.count(CHECKPOINT_MAX, "sendings")? };
    for _ in 0..sendings {
        let stream = stream(reader)?;
        let since = if reader.count(1, "times")? == 0 { None } else { Some(time(reader)?) };
        found.sendings.push((stream, since));
    }
    Ok(found)
}

fn stream(reader: &mut Reader<'_>) -> Result<StreamId, WireError> {
    Ok(StreamId(u64::from_le_bytes(reader.array("a stream")?)))
}

fn time(reader: &mut Reader<'_>) -> Result<Timestamp, WireError> {
    Ok(Timestamp::from_micros(reader.i64("a time")?))
}

fn taken(reader: &mut Reader<'_>) -> Result<AcceptedBatch, WireError> {
    let client = ClientId::new(reader.text(CLIENT_ID_BYTES_MAX, "a client id")?)?;
    let incarnation = u64::from_le_bytes(reader.array("an incarnation")?);
    let seq = SeqNo(reader.u64("a sequence number")?);
    let events_total = reader.u64("a number of events")?;
    let mut refused = Vec::new();
    for _ in 0..reader.count(BATCH_BLOCKS_MAX, "refusals")? {
        let block = reader.count(BATCH_BLOCKS_MAX, "the place of a block")? as u32;
        let why = Why::from_code(reader.u8("a reason")?).ok_or(WireError::Malformed { what: "a reason" })?;
        refused.push(Refusal::new(block, why, reader.u64("a number of events")?));
    }
    Ok(AcceptedBatch { client, incarnation, seq, taken_at: Timestamp::default(), events_total, refused })
}

fn fragments(reader: &mut Reader<'_>, data: &mut usize) -> Result<Vec<DecodedFragment>, WireError> {
    let count = reader.count(FRAGMENTS_MAX, "fragments")?;
    (0..count).map(|_| fragment(reader, data)).collect()
}

/// Decodes one fragment, whose bytes begin at `data`, and advances `data`.
fn fragment(reader: &mut Reader<'_>, data: &mut usize) -> Result<DecodedFragment, WireError> {
    let vbucket = u16::from_le_bytes(reader.array("a vbucket")?);
    let seq = SeqNo(reader.u64("a sequence number")?);
    let events_before = reader.u64("a number of events")?;
    let batch_events_before = reader.u64("a number of events")?;
    let blocks_before = reader.u64("a number of blocks")?;
    let blocks = reader.u64("a number of blocks")?;
    let events = reader.u64("a number of events")?;
    let bytes = reader.count(RECORD_BYTES_MAX, "a fragment")?;
    let crc = u32::from_le_bytes(reader.array("a checksum")?);
    let blocks_end = blocks_before.saturating_add(blocks);
    if seq == SeqNo::NONE
        || seq.0 == u64::MAX
        || blocks == 0
        || bytes == 0
        || blocks_end > BATCH_BLOCKS_MAX as u64
    {
        return Err(WireError::Malformed { what: "a fragment" });
    }
    let offset = *data;
    *data = offset.saturating_add(bytes);
    let is_damaged = false;
    Ok(DecodedFragment {
        vbucket,
        seq,
        events_before,
        batch_events_before,
        blocks_before,
        blocks,
        events,
        offset,
        bytes,
        crc,
        is_damaged,
    })
}
