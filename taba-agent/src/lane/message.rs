//! [`Message`]: what a Lane says: its next Batch, or a question.

use bytes::Bytes;
use taba_core::SeqNo;
use taba_core::wire::{Probe, put_u64};

use super::{HEAD_BYTES_MAX, LaneKey};

/// A Batch to be sent: shares its bytes with the Lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Which Lane.
    pub lane: LaneKey,
    /// The place in the Lane.
    pub seq: SeqNo,
    /// The oldest Batch that is retained.
    pub base: SeqNo,
    pub(super) events_before: u64,
    pub(super) blocks: u64,
    pub(super) bytes: Bytes,
}

/// What a Lane has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Its next Batch.
    Batch(Outgoing),
    /// A question.
    Probe(Probe),
}

/// What a Lane would say, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A Batch of at most so many bytes.
    Batch(usize),
    /// A question.
    Probe,
}

impl Outgoing {
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

    /// How many bytes [`encode`](Self::encode) appends, at most.
    pub fn bytes(&self) -> usize {
        HEAD_BYTES_MAX + self.bytes.len()
    }
}
