//! Folding and merging, in nanoseconds an event, and what States weigh.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;

use taba_bench::{nanos_per_operation, noise, print_machine};
use taba_core::{Events, Handler, Timestamp, encode_state};
use taba_handlers::{CounterGroup, PercentileCounter, PercentileGroup, TotalsCounter};

const START: i64 = 1_795_371_000;
const BATCH: usize = 1_000;

fn integers(n: usize) -> f64 {
    (noise(n) * 1_000.0).floor()
}

/// A State that was hit once a second for a day.
fn full<H: Handler<Value = f64>>(handler: &H, value: fn(usize) -> f64) -> H::State {
    let mut state = H::State::default();
    let times: Vec<_> = (0..86_400).map(|n| Timestamp::from_secs(START + n)).collect();
    let values: Vec<_> = (0..86_400).map(value).collect();
    handler.fold_all(&mut state, Events::new(&times, &values));
    state
}

fn fold<H: Handler<Value = f64>>(name: &str, handler: &H, spread_secs: i64, value: fn(usize) -> f64) {
    let mut state = full(handler, value);
    let step = spread_secs * 1_000_000 / BATCH as i64;
    let begin = (START + 86_400) * 1_000_000;
    let times: Vec<_> = (0..BATCH as i64).map(|n| Timestamp::from_micros(begin + n * step)).collect();
    let values: Vec<_> = (0..BATCH).map(value).collect();
    let rounds = 500;
    let figure = nanos_per_operation((BATCH * rounds) as u64, || {
        for _ in 0..rounds {
            handler.fold_all(&mut state, black_box(Events::new(&times, &values)));
        }
    });
    println!("fold, {name}: {figure} ns/event in batches of {BATCH} over {spread_secs} s");
}

fn merge<H: Handler<Value = f64>>(name: &str, handler: &H) {
    let (mut into, other) = (full(handler, noise), full(handler, integers));
    let figure =
        nanos_per_operation(200, || (0..200).for_each(|_| handler.merge(&mut into, black_box(&other))));
    println!("merge, {name}, both full: {figure} ns");
}

fn weigh<H: Handler<Value = f64>>(name: &str, handler: &H) {
    let bytes = |value| encode_state(&full(handler, value)).len();
    let mut one = H::State::default();
    handler.fold(&mut one, taba_core::Event::new(Timestamp::from_secs(START), &1.0));
    let one = encode_state(&one).len();
    println!(
        "size, {name}: {one} B after one event; after a day at one a second: {} B integers 0..1000, {} B doubles",
        bytes(integers),
        bytes(noise)
    );
}

fn main() {
    print_machine();
    // The ground: what adding a plain double costs, one after the other as a sum has to.
    let values: Vec<_> = (0..BATCH).map(noise).collect();
    let plain = nanos_per_operation((BATCH * 500) as u64, || {
        (0..500).for_each(|_| {
            black_box(black_box(&values).iter().fold(0.0, |sum, value| sum + value));
        });
    });
    println!("ground, plain f64 sum: {plain} ns/event");
    let (totals, group) = (TotalsCounter::default(), CounterGroup::default());
    fold("TotalsCounter, integers", &totals, 1, integers);
    fold("TotalsCounter, doubles", &totals, 1, noise);
    fold("CounterGroup (full), integers", &group, 1, integers);
    fold("CounterGroup (full), doubles", &group, 1, noise);
    fold("CounterGroup (full), doubles", &group, 60, noise);
    fold("PercentileCounter, doubles", &PercentileCounter::default(), 1, noise);
    fold("PercentileGroup, doubles", &PercentileGroup::default(), 1, noise);
    merge("CounterGroup", &group);
    merge("PercentileGroup", &PercentileGroup::default());
    weigh("TotalsCounter", &totals);
    weigh("CounterGroup", &group);
    weigh("PercentileCounter", &PercentileCounter::default());
    weigh("PercentileGroup", &PercentileGroup::default());
}
