//! What States take, in memory and encoded. `cargo test -p taba-handlers --test sizes -- --nocapture` prints it.

use taba_core::{
    Envelope, Event, Events, Expiring, Handler, Keyed, Reading, TabType, Timestamp, Value, encode_state,
};
use taba_handlers::*;

/// Numbers from a seed (SplitMix64), the same in every run.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to 1, all 53 bits.
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

fn stored_bytes<H: Handler>(handler: &H, name: &str, state: &H::State, events: u64) -> usize {
    let encoded = encode_state(state);
    assert!(encoded.len() <= handler.encoded_bytes_max(), "{name}: {} bytes", encoded.len());
    let tab_type = TabType::new(name).expect("a plain word");
    Envelope::new(tab_type, H::VERSION, events, encoded.into()).encode().len()
}

/// Folds one value a second for a day, in the batches of a flush each 250 ms, and gives encoded bytes and memory.
fn a_day<H: Handler<Value = f64>>(handler: &H, name: &str, mut value: impl FnMut() -> f64) -> (usize, usize)
where
    H::State: HeapBytes,
{
    let mut state = H::State::default();
    for second in 0..86_400 {
        let time = Timestamp::from_micros(1_795_371_115_250_000 + second * 1_000_000);
        handler.fold_all(&mut state, Events::new(&[time], &[value()]));
    }
    let memory = size_of::<H::State>() + state.heap_bytes();
    stored_bytes(handler, name, &state, 86_400);
    (encode_state(&state).len(), memory)
}

#[test]
fn a_counter_group_hit_every_second_for_a_day() {
    let handler = CounterGroup::new();
    let mut random = Random(1);
    let mut day =
        |what: &str, encoded_max: usize, memory_max: usize, value: &mut dyn FnMut(&mut Random) -> f64| {
            let (encoded, memory) = a_day(&handler, "CounterGroup", || value(&mut random));
            println!("CounterGroup, a day of {what}: {encoded} bytes encoded, {memory} in memory");
            assert!(
                encoded <= encoded_max && memory <= memory_max,
                "{what}: {encoded} encoded, {memory} in memory"
            );
        };
    const KIB: usize = 1024;
    day("ones", 5 * KIB / 2, 16 * KIB, &mut |_| 1.0);
    day("integers up to 1000", 5 * KIB / 2, 16 * KIB, &mut |random| (random.bits() % 1000) as f64);
    day("integers up to a million", 5 * KIB / 2, 16 * KIB, &mut |random| (random.bits() % 1_000_000) as f64);
    day("uniform doubles", 6 * KIB, 16 * KIB, &mut |random| random.unit());
    day("uniform doubles of both signs", 6 * KIB, 17 * KIB, &mut |random| random.unit() * 2e6 - 1e6);
    day("lognormal doubles, sigma 1", 6 * KIB, 16 * KIB, &mut |random| random.normal().exp());
    day("lognormal doubles, sigma 1.5", 6 * KIB, 17 * KIB, &mut |random| (1.5 * random.normal()).exp());
}

#[test]
fn a_percentile_group_hit_every_second_for_a_day() {
    let mut random = Random(2);
    let (encoded, memory) =
        a_day(&PercentileGroup::new(), "PercentileGroup", || (0.5 * random.normal()).exp() * 80.0);
    println!("PercentileGroup, a day of latencies: {encoded} bytes encoded, {memory} in memory");
    assert!(encoded <= 6 * 1024 && memory <= 24 * 1024, "{encoded} encoded, {memory} in memory");
}

#[test]
fn a_percentile_group_that_is_busy_all_day() {
    let (handler, mut random) = (PercentileGroup::new(), Random(4));
    let mut state = Default::default();
    for ten_seconds in 0..8640 {
        let time = Timestamp::from_secs(1_795_371_115 + ten_seconds * 10);
        let values: Vec<f64> = (0..50).map(|_| (0.5 * random.normal()).exp() * 80.0).collect();
        handler.fold_all(&mut state, Events::new(&[time; 50], &values));
    }
    let (encoded, memory) = (encode_state(&state).len(), size_of_val(&state) + state.heap_bytes());
    println!(
        "PercentileGroup, a day of 50 latencies every 10 s: {encoded} bytes encoded, {memory} in memory"
    );
    assert!(encoded <= 7 * 1024 && memory <= 32 * 1024, "{encoded} encoded, {memory} in memory");
}

fn one_event<H: Handler>(handler: &H, name: &str, value: &H::Value) -> usize {
    let mut state = H::State::default();
    handler.fold(&mut state, Event::new(Timestamp::from_micros(1_795_371_115_123_456), value));
    stored_bytes(handler, name, &state, 1)
}

#[test]
fn after_one_event() {
    let expiring = Expiring { expires: Timestamp::from_secs(1_795_371_200), reading: Reading::Number(0.1) };
    let sizes = [
        ("TotalsCounter", one_event(&TotalsCounter::new(), "TotalsCounter", &0.1), 66),
        ("PercentileCounter", one_event(&PercentileCounter::new(), "PercentileCounter", &0.1), 76),
        ("CounterGroup", one_event(&CounterGroup::new(), "CounterGroup", &0.1), 138),
        ("PercentileGroup", one_event(&PercentileGroup::new(), "PercentileGroup", &0.1), 160),
        ("Gauge", one_event(&Gauge::new(), "Gauge", &Reading::Number(0.1)), 42),
        ("ExpiryGauge", one_event(&ExpiryGauge, "ExpiryGauge", &expiring), 56),
        ("Buffer", one_event(&AllTime::new(Buffer), "Buffer", &expiring), 60),
        ("Distinct", one_event(&AllTime::new(Distinct), "Distinct", &"somebody".to_owned()), 40),
    ];
    for (name, bytes, bytes_max) in sizes {
        println!("{name}, one event: {bytes} bytes with its envelope");
        assert!(bytes <= bytes_max, "{name}: {bytes}");
    }
}

fn folded<H: Handler>(handler: &H, events: impl Iterator<Item = (i64, H::Value)>) -> usize {
    let mut state = H::State::default();
    let (times, values): (Vec<_>, Vec<_>) =
        events.map(|(secs, value)| (Timestamp::from_secs(secs), value)).unzip();
    assert!(values.iter().all(Value::is_valid));
    handler.fold_all(&mut state, Events::new(&times, &values));
    encode_state(&state).len()
}

/// The stated bound holds for what is made to be large.
#[test]
fn the_worst_there_is() {
    let mut random = Random(3);
    let mut anything = || loop {
        let value = f64::from_bits(random.bits());
        if value.is_finite() {
            return value;
        }
    };
    let worst: Vec<(i64, f64)> = (0..100_000).map(|i| (i, anything())).collect();
    let check = |name: &str, bytes: usize, bytes_max: usize| {
        println!("{name}, at worst: {bytes} bytes encoded of {bytes_max} stated");
        assert!(bytes <= bytes_max, "{name}: {bytes} of {bytes_max}");
    };
    let totals = TotalsCounter::new();
    check("TotalsCounter", folded(&totals, worst.iter().copied()), totals.encoded_bytes_max());
    let group = CounterGroup::new();
    check("CounterGroup", folded(&group, worst.iter().copied()), group.encoded_bytes_max());
    let group = PercentileGroup::new();
    check("PercentileGroup", folded(&group, worst.iter().copied()), group.encoded_bytes_max());
    assert!(group.encoded_bytes_max() < taba_core::limits::BLOCK_BYTES_MAX, "a State must fit a Block");

    let long = |i: i64| Reading::Text(format!("{i:04080}"));
    let expiring = |class: i64, i: i64| {
        (
            i,
            Expiring {
                expires: Timestamp::from_micros(
                    i * 1_000_000 + (1_i64 << class) + if i % 2 == 0 { 0 } else { (1 << class) / 2 },
                ),
                reading: long(i),
            },
        )
    };
    // Of each class one that lives longer, then a newer one that expires before it, where a second leaves room.
    let gauges = (0..62).flat_map(|class| [(0, class), (1, class)]).map(|(secs, class)| {
        let lifetime = (1_i64 << class) + if secs == 0 { (1_i64 << class) / 2 } else { 0 };
        (secs, Expiring { expires: Timestamp::from_micros(secs * 1_000_000 + lifetime), reading: long(secs) })
    });
    check("ExpiryGauge", folded(&ExpiryGauge, gauges), ExpiryGauge.encoded_bytes_max());
    check("Buffer", folded(&Buffer, (0..2000).map(|i| expiring(20, i))), Buffer.encoded_bytes_max());
    check("Gauge", folded(&Gauge::new(), [(0, long(1))].into_iter()), Gauge::new().encoded_bytes_max());
    let texts = (0..200_000).map(|i| (0, i.to_string()));
    check("Distinct", folded(&Distinct, texts), Distinct.encoded_bytes_max());
    let keyed = worst
        .iter()
        .enumerate()
        .map(|(i, &(secs, value))| (secs, Keyed { key: format!("{:0256}", i % 200), value }));
    let common = CommonPrefixCounterGroup::new();
    check("CommonPrefixCounterGroup", folded(&common, keyed), common.encoded_bytes_max());
}
