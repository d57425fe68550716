//! [`IncomingMessage`]: a message about one Lane: a Batch or a Probe.

use std::time::Duration;

use taba_core::wire::{Ack, Answer, Block, LaneBatch, Probe};
use taba_core::{SeqNo, StreamId, Timestamp};

use super::marks::hour_of;

/// The maximum difference between the clocks of sender and Server for a Lane to begin.
///
/// A Lane without a mark is new, or so old that its mark expired; then its Batches may have been folded before.
/// Senders send nothing older than 24 h, but a sender whose clock went back while it was down, or a Server that was
/// suspended with the message, breaks that rule unknowingly. 12 h of appending to a Stream, 24 h, and twice this are
/// less than the 48 h for which marks are kept.
pub const CLOCKS_APART_MAX: Duration = Duration::from_secs(5 * 3600);

/// The estimated size of a message without its Blocks, in bytes.
const MESSAGE_BYTES: usize = 64;

/// A Batch or a Probe.
#[derive(Clone, Debug, PartialEq)]
pub enum IncomingMessage {
    /// The next Batch of the Lane.
    Batch(LaneBatch),
    /// A query of the Lane's state.
    Probe(Probe),
}

impl IncomingMessage {
    /// The sender's incarnation.
    pub const fn stream(&self) -> StreamId {
        match self {
            Self::Batch(batch) => batch.stream,
            Self::Probe(probe) => probe.stream,
        }
    }

    /// The VBucket.
    pub const fn vbucket(&self) -> u16 {
        match self {
            Self::Batch(batch) => batch.vbucket,
            Self::Probe(probe) => probe.vbucket,
        }
    }

    /// The Blocks to fold; none in a Probe.
    pub fn blocks(&self) -> &[Block] {
        match self {
            Self::Batch(batch) => &batch.blocks,
            Self::Probe(_) => &[],
        }
    }

    /// Its estimated size in bytes.
    pub fn bytes(&self) -> usize {
        MESSAGE_BYTES + self.blocks().iter().map(Block::encoded_bytes).sum::<usize>()
    }

    /// The answer when nothing is known: `applied` is the highest number that the sender counts as applied or lost.
    pub fn unanswered(&self, answer: Answer) -> Ack {
        let before = match self {
            Self::Batch(batch) => batch.seq,
            Self::Probe(probe) => probe.base,
        };
        self.ack(SeqNo(before.0.saturating_sub(1)), answer)
    }

    pub(super) fn ack(&self, applied: SeqNo, answer: Answer) -> Ack {
        let (stream, vbucket) = (self.stream(), self.vbucket());
        Ack::new(stream, vbucket, applied, answer)
    }
}

/// A message without an answer yet.
pub(super) struct PendingMessage<T> {
    pub(super) ticket: T,
    pub(super) message: IncomingMessage,
    pub(super) arrived: Timestamp,
    pub(super) sent_at: Timestamp,
}

impl<T> PendingMessage<T> {
    /// The hour of sending, by the sender's clock.
    pub(super) fn sent_hour(&self) -> u32 {
        hour_of(self.sent_at)
    }

    /// Whether its time of sending is too far from now.
    pub(super) fn is_misdated(&self, now: Timestamp) -> bool {
        now.since(self.sent_at).max(self.sent_at.since(now)) > CLOCKS_APART_MAX
    }
}
