//! Decoding of columns, and bytes per event on the wire.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;

use taba_bench::{nanos_per_operation, noise, print_machine};
use taba_core::wire::{Block, Compression, Content, Frame, Kind, LaneBatch, Lanes, Reader, column};
use taba_core::{ClientId, Events, SeqNo, StreamId, TabName, TabType, Timestamp};

const EVENTS: usize = 10_000;

fn block(times: &[Timestamp], values: &[f64]) -> Block {
    let (tab, client) = (TabName::new("bids_won;exchange=adx"), ClientId::new("web-01.example"));
    let (tab, client) = (tab.expect("a tab name"), client.expect("a client id"));
    let tab_type = TabType::new("CounterGroup").expect("a tab type");
    Block::of_events(tab, client, tab_type, Events::new(times, values)).expect("there are events")
}

fn decode(name: &str, times: &[Timestamp], values: &[f64]) {
    let Content::Events(columns) = block(times, values).content else {
        unreachable!("the block was made of events")
    };
    let rounds = 200;
    let both = nanos_per_operation((EVENTS * rounds) as u64, || {
        for _ in 0..rounds {
            let mut reader = Reader::new(black_box(&columns));
            black_box(column::times(&mut reader, EVENTS).expect("they are times"));
            black_box(column::numbers(&mut reader, EVENTS).expect("they are numbers"));
        }
    });
    let mut reader = Reader::new(&columns);
    column::times(&mut reader, EVENTS).expect("they are times");
    let only_values = &columns[reader.position()..];
    let values = nanos_per_operation((EVENTS * rounds) as u64, || {
        for _ in 0..rounds {
            black_box(
                column::numbers(&mut Reader::new(black_box(only_values)), EVENTS).expect("they are numbers"),
            );
        }
    });
    let bytes = columns.len() as f64 / EVENTS as f64;
    println!(
        "decode, {name}: {:.0} M events/s/core with times, {:.0} M without; {bytes:.2} B/event",
        1e3 / both.median,
        1e3 / values.median
    );
    println!("    ns/event: {both} with times, {values} without");
}

fn size(name: &str, times: &[Timestamp], values: &[f64]) {
    let batch = LaneBatch::new(
        StreamId(0x1234_5678_9abc_def0),
        480,
        SeqNo(77),
        7_700_000,
        vec![block(times, values)],
    );
    let message = Lanes::new(Timestamp::default(), vec![batch]).encode();
    let per_event =
        |compression| Frame::encode(Kind::Lanes, &message, compression).len() as f64 / times.len() as f64;
    let (plain, packed) = (per_event(Compression::None), per_event(Compression::Lz4));
    println!(
        "size, {name}: {packed:.2} B/event in the frame as sent, {plain:.2} before compression ({} events)",
        times.len()
    );
}

fn main() {
    print_machine();
    // A busy counter: 250 ms of events, stamped by a clock of 5 ms, in the order of recording.
    let start = 1_795_371_115_000_000_i64;
    let busy: Vec<_> =
        (0..EVENTS).map(|n| Timestamp::from_micros(start + (n as i64 / 200) * 5_000)).collect();
    let fine: Vec<_> = (0..EVENTS)
        .map(|n| Timestamp::from_micros(start + n as i64 * 25 + (noise(n) * 20.0) as i64))
        .collect();
    let ones = vec![1.0; EVENTS];
    let integral: Vec<_> = (0..EVENTS).map(|n| (noise(n) * 1_000.0).floor()).collect();
    let raw: Vec<_> = (0..EVENTS).map(noise).collect();

    decode("raw f64", &fine, &raw);
    decode("integers 0..1000", &fine, &integral);
    decode("all ones", &busy, &ones);
    size("integers 0..1000, times to 5 ms", &busy, &integral);
    size("integers 0..1000, times to 1 µs", &fine, &integral);
    size("all ones, times to 5 ms", &busy, &ones);
    size("raw f64, times to 1 µs", &fine, &raw);
    size("integers 0..1000, times to 5 ms, 100 events", &busy[..100], &integral[..100]);
}
