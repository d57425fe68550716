//! [`Request`]: the messages of many Lanes to one Server.

use std::fmt;

use taba_core::limits::{FRAME_BYTES_MAX, REQUEST_BATCHES_MAX};
use taba_core::wire::{Lanes, Probe};
use taba_core::{ServerUrl, Timestamp};

use crate::lane::{LaneKey, OutgoingBatch, OutgoingMessage};

/// The number of a request, unique in one Agent run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The messages of many Lanes to one Server. The bytes of Batches are shared with the Lanes, not copied.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// Its number.
    pub id: RequestId,
    /// The Server's index in [`Dispatcher::servers`](super::Dispatcher::servers).
    pub server: usize,
    /// The Server's URL.
    pub url: ServerUrl,
    /// Whether the Server only checks whether it could fold this, and stores nothing.
    pub is_check: bool,
    /// The time of its composition, by the wall clock.
    pub sent_at: Timestamp,
    /// Batches and Probes together name each Lane at most once.
    pub batches: Vec<OutgoingBatch>,
    /// Probes of Lanes.
    pub probes: Vec<Probe>,
}

impl Request {
    /// Bytes of the longest message that answers it.
    pub fn acks_bytes_max(&self) -> usize {
        // A stream, a VBucket, three numbers and a word for each Lane; two numbers and a word for each Block.
        let lanes = self.batches.len() + self.probes.len();
        let blocks: usize = self.batches.iter().map(|batch| batch.blocks() as usize).sum();
        16 + 48 * lanes + 24 * blocks
    }

    /// The message for a frame of the kind `Lanes`, as [`Lanes::decode`] reads it.
    ///
    /// # Cost
    /// One allocation, and one copy of all bytes.
    pub fn message(&self) -> Vec<u8> {
        let bytes: usize = self.batches.iter().map(OutgoingBatch::bytes).sum();
        let probes = self.probes.len() * Lanes::PROBE_BYTES_MAX;
        let mut out = Vec::with_capacity(Lanes::HEAD_BYTES_MAX + bytes + probes);
        let put_batches = |out: &mut Vec<u8>| self.batches.iter().for_each(|batch| batch.encode(out));
        Lanes::encode_parts(self.sent_at, self.batches.len(), put_batches, &self.probes, &mut out);
        debug_assert!(
            out.len() <= FRAME_BYTES_MAX,
            "the bounds of requests are checked with the configuration"
        );
        out
    }
}

/// A request being composed.
#[derive(Debug)]
pub(super) struct Draft {
    batches: Vec<OutgoingBatch>,
    probes: Vec<Probe>,
    bytes: usize,
    /// Maximum number of Lanes.
    lanes_max: usize,
    is_check: bool,
    /// Whether it must be its Server's only request.
    pub(super) is_alone: bool,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            batches: Vec::new(),
            probes: Vec::new(),
            bytes: 0,
            lanes_max: REQUEST_BATCHES_MAX,
            is_check: false,
            is_alone: false,
        }
    }
}

impl Draft {
    /// Whether a message of `bytes` fits, whose Lane may be in a request of at most `lanes_max` Lanes. One always
    /// fits into an empty draft.
    pub(super) fn has_room(&self, bytes: usize, lanes_max: usize, bytes_max: usize) -> bool {
        self.len() < self.lanes_max.min(lanes_max) && Lanes::HEAD_BYTES_MAX + self.bytes + bytes <= bytes_max
    }

    /// Lowers the maximum number of Lanes.
    pub(super) fn bound(&mut self, lanes_max: usize) {
        self.lanes_max = self.lanes_max.min(lanes_max);
    }

    /// Makes it a check of these Blocks.
    pub(super) fn check(&mut self, batch: OutgoingBatch) {
        self.is_check = true;
        self.push(OutgoingMessage::Batch(batch));
    }

    /// A draft that must be its Server's only request.
    pub(super) fn alone() -> Self {
        Self { is_alone: true, ..Self::default() }
    }

    pub(super) fn batches_mut(&mut self) -> &mut Vec<OutgoingBatch> {
        &mut self.batches
    }

    /// Approximate bytes of the request.
    pub(super) fn bytes(&self) -> usize {
        Lanes::HEAD_BYTES_MAX + self.bytes
    }

    pub(super) fn is_check(&self) -> bool {
        self.is_check
    }

    pub(super) fn push(&mut self, message: OutgoingMessage) {
        match message {
            OutgoingMessage::Batch(batch) => {
                self.bytes += batch.bytes();
                self.batches.push(batch);
            }
            OutgoingMessage::Probe(probe) => {
                self.bytes += Lanes::PROBE_BYTES_MAX;
                self.probes.push(probe);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len() + self.probes.len()
    }

    pub(super) fn finish(
        self,
        id: RequestId,
        (server, url): (usize, &ServerUrl),
        sent_at: Timestamp,
    ) -> Request {
        let url = url.clone();
        Request {
            id,
            server,
            url,
            is_check: self.is_check,
            sent_at,
            batches: self.batches,
            probes: self.probes,
        }
    }
}

impl Request {
    /// Its Lanes, those of Batches first.
    pub fn lanes(&self) -> impl Iterator<Item = LaneKey> {
        let of_probe = |probe: &Probe| LaneKey { stream: probe.stream, vbucket: probe.vbucket };
        self.batches.iter().map(|batch| batch.lane).chain(self.probes.iter().map(of_probe))
    }
}
