//! [`LaneMessage`]: what a sender says about one Lane, a Batch or a Probe.

use taba_core::wire::{Ack, Answer, Block, LaneBatch, Probe};
use taba_core::{SeqNo, StreamId, Timestamp};

use super::marks::hour_of;

/// What a message takes beside its Blocks, about, in bytes.
const MESSAGE_BYTES: usize = 64;

/// A Batch or a Probe.
#[derive(Clone, Debug, PartialEq)]
pub enum LaneMessage {
    /// The next Batch of the Lane.
    Batch(LaneBatch),
    /// A question after the Lane.
    Probe(Probe),
}

impl LaneMessage {
    /// Which sender incarnation.
    pub const fn stream(&self) -> StreamId {
        match self {
            Self::Batch(batch) => batch.stream,
            Self::Probe(probe) => probe.stream,
        }
    }

    /// Which VBucket.
    pub const fn vbucket(&self) -> u16 {
        match self {
            Self::Batch(batch) => batch.vbucket,
            Self::Probe(probe) => probe.vbucket,
        }
    }

    /// What there is to fold; nothing in a Probe.
    pub fn blocks(&self) -> &[Block] {
        match self {
            Self::Batch(batch) => &batch.blocks,
            Self::Probe(_) => &[],
        }
    }

    /// How many bytes it holds, about.
    pub fn bytes(&self) -> usize {
        MESSAGE_BYTES + self.blocks().iter().map(Block::encoded_bytes).sum::<usize>()
    }

    /// The answer when nothing is known: `applied` is what the sender itself must believe applied or lost, at least.
    pub fn unanswered(&self, answer: Answer) -> Ack {
        let before = match self {
            Self::Batch(batch) => batch.seq,
            Self::Probe(probe) => probe.base,
        };
        self.ack(SeqNo(before.0.saturating_sub(1)), answer)
    }

    pub(super) fn ack(&self, applied: SeqNo, answer: Answer) -> Ack {
        let (stream, vbucket) = (self.stream(), self.vbucket());
        Ack { stream, vbucket, applied, stable: SeqNo::NONE, answer, refused: Vec::new() }
    }
}

/// A message that waits for its answer.
pub(super) struct Held<T> {
    pub(super) ticket: T,
    pub(super) message: LaneMessage,
    pub(super) arrived: Timestamp,
    pub(super) sent_at: Timestamp,
}

impl<T> Held<T> {
    /// The hour in which it was sent, by the sender's clock.
    pub(super) fn sent_hour(&self) -> u32 {
        hour_of(self.sent_at)
    }
}
