//! Columns, Blocks, Batches and frames.

use bytes::Bytes;
use taba_core::wire::{
    Ack, Answer, ClientBatch, Compression, Content, Frame, Kind, LaneBatch, Lanes, Reader, column,
    decode_acks, encode_acks,
};
use taba_core::{SeqNo, StreamId, Timestamp};

use super::{START, block, client_id, double, integer, tab, times};
use crate::measure::operation;

pub(super) fn all() {
    columns();
    batch();
    lanes();
}

fn columns() {
    const EVENTS: usize = 1_000;
    let times = times(START, EVENTS, 250);
    let encoded = |values: &[f64]| {
        let mut bytes = Vec::new();
        column::put_times(&times, &mut bytes);
        column::put_numbers(values, &mut bytes);
        bytes
    };
    for (name, value) in [("integers", integer as fn(usize) -> f64), ("doubles", double)] {
        let values: Vec<_> = (0..EVENTS).map(value).collect();
        let bytes = encoded(&values);
        operation(&format!("wire/columns/{name}/encode_1000"), || (), |()| encoded(&values));
        operation(
            &format!("wire/columns/{name}/decode_1000"),
            || (),
            |()| {
                let mut reader = Reader::new(&bytes);
                let times = column::times(&mut reader, EVENTS).expect("they are times");
                (times, column::numbers(&mut reader, EVENTS).expect("they are numbers"))
            },
        );
    }
}

/// What a Client sends: 100 Blocks of 10 events.
fn batch() {
    let blocks = (0..100).map(|n| block(tab(n), client_id(0), "CounterGroup", START, 10)).collect();
    let batch = ClientBatch::new(client_id(0), 7, SeqNo(1), Timestamp::from_secs(START), blocks);
    let message = Bytes::from(batch.encode());
    let frame = Bytes::from(Frame::encode(Kind::ClientBatch, &message, Compression::Lz4));
    operation("wire/client_batch/encode_100_blocks", || (), |()| batch.encode());
    operation(
        "wire/client_batch/decode_100_blocks",
        || (),
        |()| ClientBatch::decode(&message).expect("a batch"),
    );
    operation(
        "wire/frame/encode_lz4",
        || (),
        |()| Frame::encode(Kind::ClientBatch, &message, Compression::Lz4),
    );
    operation(
        "wire/frame/decode_lz4",
        || (),
        |()| Frame::decode(&frame, Kind::ClientBatch).expect("a frame"),
    );
}

/// What an Agent sends: 32 Lanes of 8 Blocks, each a State; and what it is answered.
fn lanes() {
    let state = Bytes::from(vec![7; 108]);
    let batches = (0..32_u16).map(|lane| {
        let blocks = (0..8).map(|n| {
            let block = block(tab(usize::from(lane) * 8 + n), client_id(n), "CounterGroup", START, 10);
            block.with_content(Content::State { version: 1, bytes: state.clone() })
        });
        LaneBatch::new(StreamId(7), lane, SeqNo(9), 640, blocks.collect())
    });
    let lanes = Lanes::new(Timestamp::from_secs(START), batches.collect());
    let message = Bytes::from(lanes.encode());
    operation("wire/lanes/encode_256_states", || (), |()| lanes.encode());
    operation("wire/lanes/decode_256_states", || (), |()| Lanes::decode(&message).expect("lanes"));
    let acks: Vec<_> = (0..32).map(|lane| Ack::new(StreamId(7), lane, SeqNo(9), Answer::Applied)).collect();
    let message = encode_acks(&acks);
    operation("wire/acks/encode_32", || (), |()| encode_acks(&acks));
    operation("wire/acks/decode_32", || (), |()| decode_acks(&message).expect("acks"));
}
