//! What States take in memory: decoding is bounded by the bytes that are decoded, and `heap_bytes` says what is there.

use std::fmt::Debug;
use std::time::Duration;

use proptest::prelude::*;
use serde::Serialize;
use taba_core::laws::samples::{numbers, texts, times};
use taba_core::laws::{Metered, check_decode_bounded, check_decoding};
use taba_core::{Expiring, Handler, Keyed, Reading, encode_state};
use taba_handlers::*;

fn meter(run: &mut dyn FnMut()) -> Metered {
    let info = allocation_counter::measure(run);
    Metered::new(info.bytes_max as usize, info.bytes_current as usize)
}

fn readings() -> impl Strategy<Value = Reading> + Clone {
    prop_oneof![numbers().prop_map(Reading::Number), texts().prop_map(Reading::Text)]
}

fn expiring() -> impl Strategy<Value = Expiring> + Clone {
    (times(), readings()).prop_map(|(expires, reading)| Expiring { expires, reading })
}

fn keyed() -> impl Strategy<Value = Keyed> + Clone {
    ("[a-z]{1,2}", numbers()).prop_map(|(key, value)| Keyed { key, value })
}

fn check<H: Handler>(handler: &H, values: impl Strategy<Value = H::Value> + Clone + 'static) {
    if let Err(broken) = check_decode_bounded(handler, values, meter) {
        panic!("{}: {broken}", std::any::type_name::<H>());
    }
}

#[test]
fn decode_bounded() {
    check(&Sum, numbers());
    check(&Totals, numbers());
    check(&Sketch, numbers());
    check(&TotalsCounter::new(), numbers());
    check(&PercentileCounter::new(), numbers());
    check(&CounterGroup::new(), numbers());
    check(&PercentileGroup::new(), numbers());
    check(&Gauge::new(), readings());
    check(&ExpiryGauge, expiring());
    check(&AllTime::new(Buffer), expiring());
    check(&CommonPrefixCounterGroup::new(), keyed());
    check(&AllTime::new(Distinct), texts());
    check(&ByKey::new(On::new(|value: &f64| value.to_string(), Distinct)), keyed());
    check(&Windowed::new(Buffer, Duration::from_secs(60), Duration::from_secs(1)), expiring());
}

/// As many parts as there can be in so many bytes, each as short as one can be.
fn dense<H: Handler>(handler: &H, fields: &(impl Serialize + Debug)) {
    let bytes = postcard::to_stdvec(fields).expect("plain data");
    let state = match check_decoding(handler, &bytes, meter) {
        Ok(is_state) => is_state,
        Err(broken) => panic!("{}: {broken}", std::any::type_name::<H>()),
    };
    assert!(state, "{}: the bytes are no state", std::any::type_name::<H>());
    // Cut short anywhere, and with a length that is not there.
    for end in [bytes.len() / 2, bytes.len() - 1] {
        assert_eq!(check_decoding(handler, &bytes[..end], meter), Ok(false));
    }
}

fn keys<S: Default + Clone>(count: usize) -> Vec<(String, S)> {
    let mut keys: Vec<String> = (0..count).map(|i| format!("{i:x}")).collect();
    keys.sort_by_key(|key| xxhash_rust::xxh64::xxh64(key.as_bytes(), 0));
    keys.into_iter().map(|key| (key, S::default())).collect()
}

#[test]
fn decode_bounded_with_many_small_parts() {
    type StateOf<H> = <H as Handler>::State;
    let ring = |count: usize| (5000_i64, vec![(0_u32, vec![(1_u64 << 2, 0_i64); count])]);
    let sparse: Vec<_> = (0..36).map(|i| (u32::from(i > 0), vec![(1_u64 << 2, 0_i64)])).collect();
    let minute = Windowed::new(Sum, Duration::from_secs(60), Duration::from_secs(1));
    dense(&minute, &ring(71));
    dense(&minute, &ring(RING_BUCKETS_MAX));
    dense(&minute, &(5000_i64, sparse));
    let texts: Vec<_> = (0..1000).map(|_| (0_i64, 0_i64, 0_u64, Reading::from(""))).collect();
    dense(&Buffer, &(texts, None::<i64>));
    for count in [1, 128, 5000] {
        let group = CommonPrefixCounterGroup::new();
        dense(&group, &(keys::<StateOf<CounterGroup>>(count), StateOf::<CounterGroup>::default()));
        dense(&ByKey::new(Distinct), &(keys::<Registers>(count), Registers::default()));
        dense(&ByKey::new(Sum), &(keys::<SumState>(count), SumState::default()));
    }
    let registers = (0..4096_u64).fold(Registers::default(), |mut registers, i| {
        let value = i.to_string();
        Distinct.fold(&mut registers, taba_core::Event::new(taba_core::Timestamp::default(), &value));
        registers
    });
    assert!(encode_state(&registers).len() > 3000);
    let sketches = vec![(0_u32, vec![registers; 60])];
    dense(&Windowed::new(Distinct, Duration::from_secs(60), Duration::from_secs(1)), &(5000_i64, sketches));
}
