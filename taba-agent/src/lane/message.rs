//! [`OutgoingMessage`]: a message of a Lane: its next Batch, or a Probe.

use std::ops::Range;

use bytes::Bytes;
use taba_core::SeqNo;
use taba_core::wire::{Probe, Reader, put_u64};

use super::{HEAD_BYTES_MAX, LaneKey};

/// A Batch to send; shares its bytes with the Lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingBatch {
    /// The Lane.
    pub lane: LaneKey,
    /// The place in the Lane.
    pub seq: SeqNo,
    /// The oldest retained Batch.
    pub base: SeqNo,
    pub(super) events_before: u64,
    pub(super) blocks: u64,
    pub(super) bytes: Bytes,
}

/// A message of a Lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutgoingMessage {
    /// Its next Batch.
    Batch(OutgoingBatch),
    /// A Probe.
    Probe(Probe),
}

/// The next message and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextMessage {
    /// A Batch of at most this many bytes.
    Batch(usize),
    /// A Probe.
    Probe,
}

impl OutgoingBatch {
    /// Appends the Batch: the layout of [`LaneBatch`](taba_core::wire::LaneBatch).
    ///
    /// ```text
    /// | stream u64 | vbucket u16 | seq | base | events_before | n | n Blocks |
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lane.stream.0.to_le_bytes());
        out.extend_from_slice(&self.lane.vbucket.to_le_bytes());
        put_u64(self.seq.0, out);
        put_u64(self.base.0, out);
        put_u64(self.events_before, out);
        put_u64(self.blocks, out);
        out.extend_from_slice(&self.bytes);
    }

    /// The number of its Blocks.
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Each of its Blocks, encoded.
    ///
    /// # Panics
    /// Never: the Lane encoded these Blocks.
    pub fn each(&self) -> Vec<Bytes> {
        let mut reader = Reader::new(&self.bytes);
        let mut blocks = Vec::with_capacity(self.blocks as usize);
        while reader.remaining() > 0 {
            let start = reader.position();
            reader.bytes(self.bytes.len(), "a block").expect("a batch is made of blocks");
            blocks.push(self.bytes.slice(start..reader.position()));
        }
        blocks
    }

    /// The same Batch with only these Blocks.
    pub(crate) fn only(&self, blocks: Range<usize>) -> Self {
        let bytes = self.each().get(blocks.clone()).unwrap_or_default().concat().into();
        Self { blocks: blocks.len() as u64, bytes, ..self.clone() }
    }

    /// The indices of its largest Blocks, such that the rest has at most `bytes_max` bytes.
    pub(crate) fn largest(&self, bytes_max: usize) -> Vec<usize> {
        let sizes: Vec<usize> = self.each().iter().map(Bytes::len).collect();
        let mut left = self.bytes();
        let mut locations: Vec<usize> = (0..sizes.len()).collect();
        locations.sort_by_key(|location| std::cmp::Reverse(sizes[*location]));
        let is_over = |location: &usize| {
            let is_over = left > bytes_max;
            left -= if is_over { sizes[*location] } else { 0 };
            is_over
        };
        let mut largest: Vec<usize> = locations.into_iter().take_while(is_over).collect();
        largest.sort_unstable();
        largest
    }

    /// Maximum bytes that [`encode`](Self::encode) appends.
    pub fn bytes(&self) -> usize {
        HEAD_BYTES_MAX + self.bytes.len()
    }
}
