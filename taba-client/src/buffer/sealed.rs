//! [`SealedBatch`]: a Batch that will not change any more, and what it says about the accounts.

use std::sync::OnceLock;

use bytes::Bytes;
use taba_core::ledger::{self, Where};
use taba_core::wire::{Block, ClientBatch, Compression, Frame, Kind};
use taba_core::{ClientId, SeqNo, Timestamp};

use crate::drops::Drops;

/// A Batch that will not change any more.
///
/// # Laws
/// **Immutable.** Under one (incarnation, seq), [`batch`](Self::batch) and [`frame`](Self::frame) are the same for ever;
/// break this and a repeated Batch, which the Agent recognises by those two, loses events. Nothing here can be changed.
#[derive(Debug)]
pub struct SealedBatch {
    batch: ClientBatch,
    events: u64,
    pub(super) dropped: Drops,
    frame: OnceLock<Bytes>,
}

/// The Blocks of the Ledger in a Batch with `events` of its own, which tells of `dropped`: what is recorded travels with
/// the events that it counts, so that the Ledger balances whichever Batch turns out to be the last.
pub(super) fn notes(
    client: &ClientId,
    now: Timestamp,
    events: u64,
    dropped: Drops,
) -> impl Iterator<Item = Block> {
    let recorded = events + dropped.total();
    let recorded = (recorded > 0).then(|| (ledger::tab(ledger::RECORDED), recorded));
    let dropped = dropped.iter().map(|(why, events)| (ledger::dropped_tab(Where::Client, why), events));
    let dropped: Vec<_> = dropped.collect();
    let client = client.clone();
    recorded
        .into_iter()
        .chain(dropped)
        .map(move |(tab, events)| Block::note(tab, client.clone(), now, events))
}

impl SealedBatch {
    pub(super) fn new(batch: ClientBatch, events: u64, dropped: Drops) -> Self {
        Self { batch, events, dropped, frame: OnceLock::new() }
    }

    /// The Batch.
    pub fn batch(&self) -> &ClientBatch {
        &self.batch
    }

    /// Its place in the incarnation.
    pub fn seq(&self) -> SeqNo {
        self.batch.seq
    }

    /// Events in it, the Ledger's own not counted.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The Batch as one frame, ready to be sent; encoded when first asked for, then kept.
    pub fn frame(&self) -> Bytes {
        let encode = || Frame::encode(Kind::ClientBatch, &self.batch.encode(), Compression::Lz4).into();
        self.frame.get_or_init(encode).clone()
    }
}
