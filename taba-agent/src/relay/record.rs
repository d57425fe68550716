//! Events from front-ends: assigns numbers to their Batches, and recognises repeated requests by key.

use taba_core::wire::{Block, ClientBatch};
use taba_core::{Noise, SeqNo};
use xxhash_rust::xxh64::xxh64;

use super::{AcceptOutcome, ClockReading, Relay, RelayPhase};
use crate::dedup::{Dedup, KEYS_MAX};
use crate::frontend::FrontBatch;
use crate::spool::{Spool, SpoolError};

/// The first number of Batches with a key, which no Client ever reaches: it identifies them in the log.
const KEYED: u64 = 1 << 63;
/// Approximate bytes of a Batch in the Spool besides its Blocks.
const HEAD_BYTES: usize = 4 << 10;

/// The Relay's state of front-ends.
#[derive(Debug)]
pub(super) struct FrontEnd {
    /// For each Client and key, the last part accepted. Separate from incarnations, so that keys never displace a
    /// Client.
    pub(super) keys: Dedup,
    /// The incarnation of requests without a key: one per run.
    incarnation: u64,
    /// The last number under it.
    seq: u64,
}

/// The outcome of one request.
#[must_use = "the sender waits for the answer"]
#[derive(Debug)]
pub enum RecordOutcome {
    /// All are accepted, now or before.
    Taken {
        /// As in [`AcceptOutcome::Taken`], of the last of them.
        position: u64,
        /// Whether all had been accepted before, under the same key.
        is_repeated: bool,
    },
    /// Not all were accepted; with a key, a repetition of the request adds the rest. None was, unless the Spool
    /// failed in between.
    Refused(SpoolError),
    /// The Agent is stopping.
    Stopping,
}

impl FrontEnd {
    pub(super) fn new(seed: u64) -> Self {
        Self { keys: Dedup::new(KEYS_MAX), incarnation: Noise::new(!seed).number(), seq: 0 }
    }
}

impl<S: Spool> Relay<S> {
    /// Accepts the Batches of one request, as [`accept`](Self::accept) does. A `key` makes a repeated request count
    /// once, also after a restart, while it is among the last [`KEYS_MAX`] of all Clients. Without one, each request
    /// is new.
    ///
    /// The content under one key never changes: other Batches under the same key count as repetitions.
    ///
    /// # Cost
    /// As [`accept`](Self::accept), for each Batch.
    pub fn record(
        &mut self,
        now: ClockReading,
        batches: Vec<FrontBatch>,
        key: Option<&str>,
    ) -> RecordOutcome {
        if let Some(error) = self.lacks_room(now, &batches) {
            self.counts.batches_in += batches.len() as u64;
            self.counts.batches_turned_away += batches.len() as u64;
            return RecordOutcome::Refused(error);
        }
        let repeated_before = self.counts.batches_repeated;
        let (mut last, count) = (0, batches.len() as u64);
        let incarnation = key.map(|key| xxh64(key.as_bytes(), 0));
        for batch in batches {
            let seq = match incarnation {
                Some(_) => KEYED + batch.part,
                None => {
                    self.front.seq += 1;
                    self.front.seq
                }
            };
            let incarnation = incarnation.unwrap_or(self.front.incarnation);
            let FrontBatch { client, blocks, .. } = batch;
            let batch = ClientBatch::new(client, incarnation, SeqNo(seq), now.time, blocks);
            match self.accept(now, &batch, &[]) {
                AcceptOutcome::Taken { position, .. } => last = last.max(position),
                AcceptOutcome::Refused(error) => return RecordOutcome::Refused(error),
                AcceptOutcome::Stopping => return RecordOutcome::Stopping,
            }
        }
        let is_repeated = self.counts.batches_repeated - repeated_before == count;
        RecordOutcome::Taken { position: last, is_repeated }
    }

    /// Why several Batches cannot be accepted together. A single one is atomic anyway.
    fn lacks_room(&mut self, now: ClockReading, batches: &[FrontBatch]) -> Option<SpoolError> {
        if batches.len() < 2 || self.phase == RelayPhase::Draining {
            return None;
        }
        let blocks = batches.iter().flat_map(|batch| &batch.blocks);
        let bytes: usize = blocks.map(Block::encoded_bytes).sum::<usize>() + batches.len() * HEAD_BYTES;
        if let Err(error) = self.prepare(now, bytes) {
            return Some(error);
        }
        let room = self.spool.usage();
        let bytes_short = (room.bytes + bytes as u64 + room.bytes_max / 8).saturating_sub(room.bytes_max);
        if bytes_short == 0 {
            return None;
        }
        self.notices.full(now.uptime, &room, self.spool_counts.refused);
        Some(SpoolError::Full { bytes_short })
    }

    /// The memory that keeps these Batches' numbers.
    pub(super) fn memory(&self, seq: SeqNo) -> &Dedup {
        if seq.0 < KEYED { &self.dedup } else { &self.front.keys }
    }

    pub(super) fn memory_mut(&mut self, seq: SeqNo) -> &mut Dedup {
        if seq.0 < KEYED { &mut self.dedup } else { &mut self.front.keys }
    }
}
