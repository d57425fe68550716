//! The laws again, with thousands of events over two days: rings that turn, sketches that grow, keys that do not fit.
//! The samples of `laws.rs` are small, so that a failure there can be read.

use taba_core::{Event, Events, Expiring, Handler, Keyed, Reading, Timestamp, decode_state, encode_state};
use taba_handlers::*;

/// Numbers from a seed (SplitMix64), the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn number(&mut self) -> f64 {
        let (digits, scale) = (self.below(1 << 53) as f64, self.below(40) as i32 - 60);
        digits * 2_f64.powi(scale) * if self.below(3) == 0 { -1.0 } else { 1.0 }
    }
}

/// Folded one by one in order, and folded in batches elsewhere, stored, merged in another order: the same bytes.
fn grouping_does_not_show<H: Handler>(handler: &H, mut value: impl FnMut(&mut Random) -> H::Value) {
    const EVENTS: usize = 5000;
    let mut random = Random(7);
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for i in 0..EVENTS as u64 {
        // Two days, mostly in order, some of it late by up to an hour, and bursts that share a second.
        let micros = (i / 3 * 103_000_000) as i64 - (random.below(2) * random.below(3_600_000_000)) as i64;
        times.push(Timestamp::from_micros(1_795_371_115_000_000 + micros));
        values.push(value(&mut random));
    }
    let mut whole = H::State::default();
    for (&time, value) in times.iter().zip(&values) {
        handler.fold(&mut whole, Event::new(time, value));
    }

    let mut parts = Vec::new();
    let mut from = 0;
    while from < EVENTS {
        let to = (from + 1 + random.below(600) as usize).min(EVENTS);
        let mut part = H::State::default();
        handler.fold_all(&mut part, Events::new(&times, &values).slice(from..to));
        parts.push(decode_state(handler, H::VERSION, &encode_state(&part)).expect("it was just written"));
        from = to;
    }
    while parts.len() > 1 {
        let other = parts.swap_remove(random.below(parts.len() as u64) as usize);
        let into = random.below(parts.len() as u64) as usize;
        handler.merge(&mut parts[into], &other);
    }
    assert!(parts[0] == whole && encode_state(&parts[0]) == encode_state(&whole));

    let last = times.iter().max().copied().unwrap_or_default();
    for back in [0, 1, 59, 600, 86_400] {
        let at = Timestamp::from_micros(last.as_micros() - back * 1_000_000);
        let mut compacted = whole.clone();
        handler.compact(&mut compacted, at);
        assert!(handler.project(&compacted, at) == handler.project(&whole, at));
    }
}

#[test]
fn numbers() {
    grouping_does_not_show(&PercentileCounter::new(), Random::number);
    grouping_does_not_show(&CounterGroup::new(), Random::number);
    grouping_does_not_show(&PercentileGroup::new(), Random::number);
}

#[test]
fn keys() {
    let keyed =
        |random: &mut Random| Keyed { key: format!("key {}", random.below(300)), value: random.number() };
    grouping_does_not_show(&CommonPrefixCounterGroup::new(), keyed);
}

#[test]
fn readings() {
    let reading = |random: &mut Random| Reading::Text(format!("v{}", random.below(1000)));
    let expiring = |random: &mut Random| Expiring {
        expires: Timestamp::from_micros(1_795_371_115_000_000 + random.below(200_000_000_000) as i64),
        reading: reading(random),
    };
    grouping_does_not_show(&Gauge::new(), reading);
    grouping_does_not_show(&ExpiryGauge, expiring);
    grouping_does_not_show(&AllTime::new(Buffer), expiring);
}

#[test]
fn texts() {
    grouping_does_not_show(&AllTime::new(Distinct), |random| random.below(4000).to_string());
}
