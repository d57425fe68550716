//! Writing records.

use taba_core::wire::{put_bytes, put_i64, put_u64};

use super::{
    AcceptedBatch, CHECKPOINT, COPY, Checkpoint, Fragment, FragmentSpan, MERGE, MOVE, RECORD_HEAD_BYTES,
    Record, TAKE, checksum,
};

impl Record<'_> {
    /// Appends its bytes; returns the spans of its fragments.
    ///
    /// # Cost
    /// One copy of the fragments, and one pass of CRC-32 over them.
    pub fn encode(&self, out: &mut Vec<u8>) -> Vec<FragmentSpan> {
        let start = begin(out);
        let crcs: Vec<u32> = self.fragments().map(|fragment| crc32fast::hash(&fragment.bytes)).collect();
        match self {
            Self::Take { taken, stream, fragments } => {
                out.push(TAKE);
                out.extend_from_slice(&stream.0.to_le_bytes());
                put_taken(taken, out);
                put_i64(taken.taken_at.as_micros(), out);
                put_fragments(fragments, &crcs, out);
            }
            Self::Copy { stream, taken_at, fragment } => {
                out.push(COPY);
                out.extend_from_slice(&stream.0.to_le_bytes());
                put_i64(taken_at.as_micros(), out);
                put_fragment(fragment, crcs[0], out);
            }
            Self::Move { from, seq, stream, taken_at, fragments } => {
                out.push(MOVE);
                out.extend_from_slice(&from.stream.0.to_le_bytes());
                out.extend_from_slice(&from.vbucket.to_le_bytes());
                put_u64(seq.0, out);
                out.extend_from_slice(&stream.0.to_le_bytes());
                put_i64(taken_at.as_micros(), out);
                put_fragments(fragments, &crcs, out);
            }
            Self::Merge { stream, taken_at, fragments } => {
                out.push(MERGE);
                out.extend_from_slice(&stream.0.to_le_bytes());
                put_i64(taken_at.as_micros(), out);
                put_fragments(fragments, &crcs, out);
            }
        }
        let data: usize = self.fragments().map(|fragment| fragment.bytes.len()).sum();
        finish(&mut out[start..], data);
        let mut spans = Vec::with_capacity(crcs.len());
        for (fragment, crc) in self.fragments().zip(crcs) {
            spans.push((out.len() - start, fragment.bytes.len(), crc));
            out.extend_from_slice(&fragment.bytes);
        }
        spans
    }
}

impl Checkpoint {
    /// Appends its record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin(out);
        out.push(CHECKPOINT);
        out.extend_from_slice(&self.segment.0.to_le_bytes());
        out.push(self.role as u8);
        put_u64(self.lanes.len() as u64, out);
        for lane_checkpoint in &self.lanes {
            out.extend_from_slice(&lane_checkpoint.lane.stream.0.to_le_bytes());
            out.extend_from_slice(&lane_checkpoint.lane.vbucket.to_le_bytes());
            put_u64(lane_checkpoint.base.0, out);
            for number in [
                lane_checkpoint.applied.0,
                lane_checkpoint.events_before,
                lane_checkpoint.last.0,
                lane_checkpoint.events_end,
            ] {
                put_u64(number, out);
            }
        }
        put_u64(self.incarnations.len() as u64, out);
        self.incarnations.iter().for_each(|taken| put_taken(taken, out));
        if !(self.clocks.is_empty() && self.sendings.is_empty()) {
            put_u64(self.clocks.len() as u64, out);
        }
        for (stream, clock) in &self.clocks {
            out.extend_from_slice(&stream.0.to_le_bytes());
            put_i64(clock.measured, out);
            put_i64(clock.told, out);
        }
        if !self.sendings.is_empty() {
            put_u64(self.sendings.len() as u64, out);
        }
        for (stream, since) in &self.sendings {
            out.extend_from_slice(&stream.0.to_le_bytes());
            put_u64(u64::from(since.is_some()), out);
            since.iter().for_each(|since| put_i64(since.as_micros(), out));
        }
        finish(&mut out[start..], 0);
    }
}

fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 12]);
    start
}

/// Writes the lengths and checksum of a record whose head ends here, with this many bytes of data.
fn finish(record: &mut [u8], data: usize) {
    let head = (record.len() - RECORD_HEAD_BYTES) as u32;
    record[..4].copy_from_slice(&head.to_le_bytes());
    record[4..8].copy_from_slice(&(data as u32).to_le_bytes());
    let crc = checksum(record);
    record[8..12].copy_from_slice(&crc.to_le_bytes());
}

fn put_fragments(fragments: &[Fragment], crcs: &[u32], out: &mut Vec<u8>) {
    put_u64(fragments.len() as u64, out);
    fragments.iter().zip(crcs).for_each(|(fragment, crc)| put_fragment(fragment, *crc, out));
}

fn put_fragment(fragment: &Fragment, crc: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&fragment.vbucket.to_le_bytes());
    put_u64(fragment.seq.0, out);
    put_u64(fragment.events_before, out);
    put_u64(fragment.batch_events_before, out);
    put_u64(fragment.blocks_before, out);
    put_u64(fragment.blocks, out);
    put_u64(fragment.events, out);
    put_u64(fragment.bytes.len() as u64, out);
    out.extend_from_slice(&crc.to_le_bytes());
}

fn put_taken(taken: &AcceptedBatch, out: &mut Vec<u8>) {
    put_bytes(taken.client.as_str().as_bytes(), out);
    out.extend_from_slice(&taken.incarnation.to_le_bytes());
    put_u64(taken.seq.0, out);
    put_u64(taken.events_total, out);
    put_u64(taken.refused.len() as u64, out);
    for refusal in &taken.refused {
        put_u64(u64::from(refusal.block), out);
        out.push(refusal.why as u8);
        put_u64(refusal.events, out);
    }
}
