//! [`Request`]: the Batches of many Lanes, on their way to one Server.

use std::fmt;

use taba_core::Timestamp;
use taba_core::limits::{FRAME_BYTES_MAX, REQUEST_BATCHES_MAX};
use taba_core::wire::Lanes;

use crate::lane::Outgoing;

/// Bytes before the first Batch, at most.
const COUNT_BYTES_MAX: usize = Lanes::HEAD_BYTES_MAX;

/// The number of a request, to match its answer; unique in one Agent run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The Batches of many Lanes, on their way to one Server. Their bytes are shared with the Lanes, not copied.
#[derive(Clone, Debug)]
pub struct Request {
    /// To match the answer.
    pub id: RequestId,
    /// The Server's place in the configuration, from 0.
    pub server: usize,
    /// At most one of each Lane.
    pub batches: Vec<Outgoing>,
}

impl Request {
    /// The message, to be put in a frame of the kind `Lanes`: what
    /// [`Lanes::decode`] reads.
    ///
    /// # Cost
    /// One allocation, and one copy of all bytes.
    pub fn message(&self) -> Vec<u8> {
        let bytes: usize = self.batches.iter().map(Outgoing::bytes).sum();
        let mut out = Vec::with_capacity(COUNT_BYTES_MAX + bytes);
        let put_batches = |out: &mut Vec<u8>| self.batches.iter().for_each(|batch| batch.encode(out));
        Lanes::encode_parts(Timestamp::default(), self.batches.len(), put_batches, &[], &mut out);
        debug_assert!(
            out.len() <= FRAME_BYTES_MAX,
            "the bounds of requests are checked with the configuration"
        );
        out
    }
}

/// A request that still has room.
#[derive(Debug, Default)]
pub(super) struct Draft {
    batches: Vec<Outgoing>,
    bytes: usize,
}

impl Draft {
    /// Whether a Batch of `bytes` still fits. One always fits into an empty draft.
    pub(super) fn has_room(&self, bytes: usize, bytes_max: usize) -> bool {
        self.batches.len() < REQUEST_BATCHES_MAX && COUNT_BYTES_MAX + self.bytes + bytes <= bytes_max
    }

    pub(super) fn push(&mut self, batch: Outgoing) {
        self.bytes += batch.bytes();
        self.batches.push(batch);
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn finish(self, id: RequestId, server: usize) -> Request {
        Request { id, server, batches: self.batches }
    }
}
