//! What a sender of Lanes is made of, for tests.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub(crate) mod process;

use taba_core::wire::{Ack, Block, Compression, Frame, Kind, LaneBatch, Lanes, decode_acks};
use taba_core::{ClientId, Events, SeqNo, StreamId, TabName, TabType, Timestamp, VBuckets};

pub(crate) fn block(tab: &str, client: &str, values: &[f64]) -> Block {
    let times: Vec<_> = (0..values.len()).map(|n| Timestamp::from_secs(1_000_000_000 + n as i64)).collect();
    let (tab, client) = (TabName::new(tab).unwrap(), ClientId::new(client).unwrap());
    Block::of_events(tab, client, TabType::new("TotalsCounter").unwrap(), Events::new(&times, values))
        .unwrap()
}

/// A Tab name that lives in this VBucket: `tab` with a number behind it.
pub(crate) fn tab_in(vbuckets: VBuckets, vbucket: u16, tab: &str) -> String {
    let names = (0..).map(|n| format!("{tab}.{n}"));
    names.into_iter().find(|name| vbuckets.of(&TabName::new(name).unwrap()).index() == vbucket).unwrap()
}

pub(crate) fn batch(
    stream: u64,
    vbucket: u16,
    seq: u64,
    events_before: u64,
    blocks: Vec<Block>,
) -> LaneBatch {
    let (stream, seq, base) = (StreamId(stream), SeqNo(seq), SeqNo(1));
    LaneBatch::new(stream, vbucket, seq, events_before, blocks).with_base(base)
}

pub(crate) fn lanes(batches: Vec<LaneBatch>) -> Lanes {
    Lanes::new(taba_server::system_clock()(), batches)
}

pub(crate) fn frame(batches: &[LaneBatch]) -> Vec<u8> {
    Frame::encode(Kind::Lanes, &lanes(batches.to_vec()).encode(), Compression::Lz4)
}

pub(crate) fn acks(body: Vec<u8>) -> Vec<Ack> {
    decode_acks(&Frame::decode(&body.into(), Kind::Acks).unwrap().message).unwrap()
}
