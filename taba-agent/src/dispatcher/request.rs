//! [`Request`]: the Batches of many Lanes, on their way to one Server.

use std::fmt;

use taba_core::Timestamp;
use taba_core::limits::{FRAME_BYTES_MAX, REQUEST_BATCHES_MAX};
use taba_core::wire::{Lanes, Probe};

use crate::lane::{LaneKey, OutgoingBatch, OutgoingMessage};

/// The number of a request, to match its answer; unique in one Agent run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The messages of many Lanes, on their way to one Server. The bytes of Batches are shared with the Lanes, not copied.
#[derive(Clone, Debug)]
pub struct Request {
    /// To match the answer.
    pub id: RequestId,
    /// The Server's place in the configuration, from 0.
    pub server: usize,
    /// Whether the Server is only to find out whether it could fold this: it stores nothing of it.
    pub is_check: bool,
    /// When it was put together, on the clock of the day.
    pub sent_at: Timestamp,
    /// Batches and Probes together name each Lane at most once.
    pub batches: Vec<OutgoingBatch>,
    /// Questions after Lanes.
    pub probes: Vec<Probe>,
}

impl Request {
    /// The message, to be put in a frame of the kind `Lanes`: what
    /// [`Lanes::decode`] reads.
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

/// A request that still has room.
#[derive(Debug)]
pub(super) struct Draft {
    batches: Vec<OutgoingBatch>,
    probes: Vec<Probe>,
    bytes: usize,
    /// Lanes that may be in it, at most.
    lanes_max: usize,
    is_check: bool,
    /// Whether it is to be all that its Server has.
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
    /// Whether a message of `bytes` still fits, whose Lane may be in a request with so many others. One always fits into
    /// an empty draft.
    pub(super) fn has_room(&self, bytes: usize, lanes_max: usize, bytes_max: usize) -> bool {
        self.len() < self.lanes_max.min(lanes_max) && Lanes::HEAD_BYTES_MAX + self.bytes + bytes <= bytes_max
    }

    /// A message comes whose Lane may be in a request with so many others.
    pub(super) fn bound(&mut self, lanes_max: usize) {
        self.lanes_max = self.lanes_max.min(lanes_max);
    }

    /// A check of these Blocks.
    pub(super) fn check(&mut self, batch: OutgoingBatch) {
        self.is_check = true;
        self.push(OutgoingMessage::Batch(batch));
    }

    /// One that is to be all that its Server has.
    pub(super) fn alone() -> Self {
        Self { is_alone: true, ..Self::default() }
    }

    pub(super) fn batches_mut(&mut self) -> &mut Vec<OutgoingBatch> {
        &mut self.batches
    }

    /// Bytes of the request, about.
    pub(super) fn bytes(&self) -> usize {
        Lanes::HEAD_BYTES_MAX + self.bytes
    }

    /// Whether it is a check.
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

    pub(super) fn finish(self, id: RequestId, server: usize, sent_at: Timestamp) -> Request {
        Request { id, server, is_check: self.is_check, sent_at, batches: self.batches, probes: self.probes }
    }
}

impl Request {
    /// The Lanes that it speaks for, Batches first.
    pub fn lanes(&self) -> impl Iterator<Item = LaneKey> {
        let of_probe = |probe: &Probe| LaneKey { stream: probe.stream, vbucket: probe.vbucket };
        self.batches.iter().map(|batch| batch.lane).chain(self.probes.iter().map(of_probe))
    }
}
