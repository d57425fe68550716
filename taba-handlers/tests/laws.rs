//! Every part and every standard Tab type, against every law of `Handler`. Equality is of bytes, floats included.

use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use taba_core::laws::samples::{NOW_SECS, numbers, texts, times};
use taba_core::{Event, Expiring, Format, Handler, Keyed, Reading, Timestamp, Value, handler_laws, laws};
use taba_handlers::*;

/// Numbers that break sums and sketches that are not exact: every scale at once, subnormals, both zeros.
fn nasty() -> impl Strategy<Value = f64> + Clone {
    let awkward =
        vec![1e300, -1e300, 1e-300, 1.0, -1.0, 0.0, -0.0, 5e-324, -5e-324, 2e-310, f64::MAX, f64::MIN];
    prop_oneof![
        numbers(),
        prop::sample::select(awkward),
        any::<f64>().prop_filter("finite", |v| v.is_finite())
    ]
}

fn readings() -> impl Strategy<Value = Reading> + Clone {
    prop_oneof![nasty().prop_map(Reading::Number), texts().prop_map(Reading::Text)]
}

/// Expiries near the times of events, so that some have expired and some have not; and the ends of the range.
fn expiring() -> impl Strategy<Value = Expiring> + Clone {
    let near = NOW_SECS * 1_000_000;
    let expires = prop_oneof![
        3 => (-20_i64..200).prop_map(move |s| Timestamp::from_micros(near + s * 1_000_000)),
        2 => times(),
    ];
    (expires, readings()).prop_map(|(expires, reading)| Expiring { expires, reading })
}

fn keyed() -> impl Strategy<Value = Keyed> + Clone {
    ("[a-h]", nasty()).prop_map(|(key, value)| Keyed { key, value })
}

/// A value of two things that are counted in two ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Both {
    number: f64,
    text: String,
}

impl Value for Both {}

fn seconds(window: u64, width: u64) -> (Duration, Duration) {
    (Duration::from_secs(window), Duration::from_secs(width))
}

fn windowed<H: taba_core::Handler>(inner: H, (window, width): (Duration, Duration)) -> Windowed<H> {
    Windowed::new(inner, window, width)
}

handler_laws!(sum, Sum, nasty());
handler_laws!(totals, Totals, nasty());
handler_laws!(sketch, Sketch, nasty());
handler_laws!(latest, Latest::new(), readings());
handler_laws!(latest_living, Latest::living(Duration::from_secs(90)), readings());
handler_laws!(windowed_sum, windowed(Sum, seconds(60, 1)), nasty());
handler_laws!(windowed_narrow, windowed(Sum, seconds(2, 1)), nasty());
handler_laws!(
    windowed_by_microseconds,
    Windowed::new(Sum, Duration::from_micros(3_000_000), Duration::from_micros(9375)),
    nasty()
);
handler_laws!(windowed_sketch, windowed(Sketch, seconds(120, 20)), nasty());
handler_laws!(
    windowed_latest,
    windowed(Latest::living(Duration::from_secs(30)), seconds(120, 20)),
    readings()
);
handler_laws!(windowed_buffer, windowed(Buffer, seconds(120, 20)), expiring());
handler_laws!(windowed_keys, windowed(ByKey::new(Totals).with_keys_max(2), seconds(120, 20)), keyed());
handler_laws!(group_of_two, Group::new(["a", "b"], (Sum, Sketch)), nasty());
handler_laws!(
    group_of_six,
    Group::new(
        ["", "b", "c", "d", "e", "f"],
        (Totals, Sum, Sketch, windowed(Totals, seconds(5, 1)), windowed(Sum, seconds(50, 10)), Sum)
    ),
    nasty()
);
handler_laws!(by_key, ByKey::new(Totals), keyed());
handler_laws!(by_few_keys, ByKey::new(windowed(Sum, seconds(60, 1))).with_keys_max(3), keyed());
handler_laws!(by_no_key, ByKey::new(Sum).with_keys_max(0), keyed());

handler_laws!(on_a_part_of_a_value, On::new(|keyed: &Keyed| keyed.value, Totals), keyed());
handler_laws!(
    on_two_parts_by_key,
    ByKey::new(Group::new(
        ["number", "text"],
        (On::new(|both: &Both| both.number, Totals), On::new(|both: &Both| both.text.clone(), Distinct))
    ))
    .with_keys_max(3),
    (keyed(), texts())
        .prop_map(|(Keyed { key, value }, text)| Keyed { key, value: Both { number: value, text } })
);

handler_laws!(totals_counter, TotalsCounter::new(), nasty());
handler_laws!(percentile_counter, PercentileCounter::new(), nasty());
handler_laws!(counter_group, CounterGroup::new(), nasty());
handler_laws!(percentile_group, PercentileGroup::new(), nasty());
handler_laws!(gauge, Gauge::new(), readings());
handler_laws!(expiry_gauge, ExpiryGauge, expiring());
handler_laws!(buffer, Buffer, expiring());
handler_laws!(all_time, AllTime::new(Sum), nasty());
handler_laws!(all_time_buffer, AllTime::new(Buffer), expiring());
handler_laws!(all_time_within_a_window, windowed(AllTime::new(Totals), seconds(60, 10)), nasty());
handler_laws!(common_prefix_counter_group, CommonPrefixCounterGroup::new(), keyed());
handler_laws!(distinct, Distinct, texts());
handler_laws!(all_time_distinct, AllTime::new(Distinct), texts());

/// Late events in the order in which they were: for all but `ExpiryGauge`, of which a clamp changes the classes.
#[test]
fn clamping_in_order() {
    fn check<H: taba_core::Handler>(handler: &H, values: impl Strategy<Value = H::Value> + Clone + 'static) {
        if let Err(broken) = laws::check(handler, values, laws::handler::clamping_in_order) {
            panic!("{broken}");
        }
    }
    check(&Gauge::new(), readings());
    check(&windowed(Latest::new(), seconds(120, 20)), readings());
    check(&AllTime::new(Buffer), expiring());
    check(&TotalsCounter::new(), nasty());
    check(&PercentileCounter::new(), nasty());
    check(&CounterGroup::new(), nasty());
    check(&PercentileGroup::new(), nasty());
    check(&CommonPrefixCounterGroup::new(), keyed());
    check(&AllTime::new(Distinct), texts());
}

/// A window named W as of `at` holds every event with a time in `(at - W, at]`, and at most one bucket's width more.
#[test]
fn a_window_never_covers_less_than_its_name() {
    let group = CounterGroup::new();
    let percentiles = PercentileGroup::new();
    let widths =
        [("1m", 60, 1, 10), ("10m", 600, 10, 120), ("1h", 3600, 30, 600), ("1d", 86_400, 900, 10_800)];
    for offset in [0, 1, 37, 599, 3599, 10_799] {
        let at = Timestamp::from_micros((NOW_SECS + offset) * 1_000_000 + offset % 7 * 111_111);
        for (name, window, narrow, wide) in widths {
            let held = |age_micros: i64| {
                let time = Timestamp::from_micros(at.as_micros() - age_micros);
                let count = |said: serde_json::Value| said[name]["count"].as_u64().unwrap() == 1;
                (count(said(&group, time, at)), count(said(&percentiles, time, at)))
            };
            assert_eq!(held(0), (true, true));
            assert_eq!(held(window * 1_000_000 - 1), (true, true), "{name}, {offset}");
            assert!(!held((window + narrow) * 1_000_000).0, "{name}, {offset}");
            assert!(!held((window + wide) * 1_000_000).1, "{name}, {offset}");
        }
    }
    fn said<H: taba_core::Handler<Value = f64>>(
        handler: &H,
        time: Timestamp,
        at: Timestamp,
    ) -> serde_json::Value {
        let mut state = H::State::default();
        handler.fold(&mut state, Event::new(time, &1.0));
        handler.render(&handler.project(&state, at), Format::Summary)
    }
}

/// Case 07: minutes that had events, asked for after others came, are not known; they are not zero.
#[test]
fn what_is_no_longer_kept_is_unknown_and_never_zero() {
    let handler = CounterGroup::new();
    let then = Timestamp::from_secs(NOW_SECS - 7200);
    let fold = |events: &[(i64, usize)]| {
        let mut state = Default::default();
        for &(secs, count) in events {
            let time = Timestamp::from_secs(NOW_SECS + secs);
            (0..count).for_each(|_| handler.fold(&mut state, Event::new(time, &1.0)));
        }
        state
    };
    let counts = |state: &_, at| {
        let said = handler.render(&handler.project(state, at), Format::Summary);
        ["1m", "10m", "1h", "1d", "pct"].map(|part| said[part]["count"].as_u64())
    };
    let (old, new) = (fold(&[(-7210, 100)]), fold(&[(0, 7)]));
    assert_eq!(counts(&old, then), [Some(100); 5]);
    let both = fold(&[(-7210, 100), (0, 7)]);
    assert_eq!(counts(&both, then), [None; 5]);
    let caveats = handler.caveats(&handler.project(&both, then));
    let unknown: Vec<_> = caveats.unknown.keys().map(String::as_str).collect();
    assert_eq!(unknown, ["10m", "1d", "1h", "1m", "pct"]);
    // An aggregate never says less than one of its projections.
    let mut aggregate = handler.project(&old, then);
    handler.aggregate(&mut aggregate, &handler.project(&new, then));
    assert!(aggregate == handler.project(&both, then));
    // A clock that was an hour ahead: known again as soon as the window begins after what is kept.
    let ahead = fold(&[(0, 3), (3600, 1)]);
    let at = |secs: i64| Timestamp::from_secs(NOW_SECS + secs);
    assert_eq!(counts(&ahead, at(0))[..4], [None; 4]);
    assert_eq!(counts(&ahead, at(3600 - 11))[0], None);
    assert_eq!(counts(&ahead, at(3600 - 10))[0], Some(0));
    assert_eq!(counts(&ahead, at(3600))[..4], [Some(1), Some(1), Some(4), Some(4)]);
}

fn decoded<H: Handler>(handler: &H, fields: &impl Serialize) -> Option<H::State> {
    let bytes = postcard::to_stdvec(fields).expect("plain data");
    taba_core::decode_state(handler, H::VERSION, &bytes).ok()
}

/// Bytes that nobody wrote: what merging could not keep is not read, or only what a merge would keep of it.
#[test]
fn states_from_elsewhere_stay_readable() {
    let closed = |handler: &Sum, fields: &(u64, u16, Vec<u8>)| {
        let bytes = postcard::to_stdvec(fields).expect("plain data");
        laws::handler::check_closed(handler, &vec![bytes; 3], Timestamp::MAX)
    };
    // 1 + 2^1099, as the sum of one value and of more values than are counted.
    let wide = [vec![1], vec![0; 136], vec![0x20]].concat();
    let wide = |count: u64| (count << 2 | 2, 134_u16, wide.clone());
    assert!(decoded(&Sum, &wide(1)).is_none());
    assert!(decoded(&Sum, &wide(u64::MAX >> 2)).is_some());
    assert_eq!(closed(&Sum, &wide(u64::MAX >> 2)), Ok(()));

    // 4,096 buckets for a window of 61 and ten more.
    let minute = windowed(Sum, seconds(60, 1));
    let ring = (NOW_SECS, vec![(0_u32, vec![(1_u64 << 2, 1_i64); RING_BUCKETS_MAX])]);
    let state = decoded(&minute, &ring).expect("what is kept of it");
    assert!(taba_core::encode_state(&state).len() < 71 * 3 + 10);
    let before_time = (i64::MIN, vec![(0_u32, vec![(1_u64 << 2, 1_i64); 2])]);
    assert!(decoded(&minute, &before_time).is_none());

    let reading = |reading: Reading| Some((0_i64, 0_u64, reading));
    assert!(decoded(&Gauge::new(), &reading("x".repeat(4080).into())).is_some());
    assert!(decoded(&Gauge::new(), &reading("x".repeat(4081).into())).is_none());
    assert!(decoded(&Gauge::new(), &reading(f64::NAN.into())).is_none());
    let buffer = |count: usize, bytes: usize| {
        (vec![(0_i64, 0_i64, 0_u64, Reading::from("x".repeat(bytes))); count], None::<i64>)
    };
    assert!(decoded(&Buffer, &buffer(1000, 100)).is_some() && decoded(&Buffer, &buffer(1001, 100)).is_none());
    assert!(decoded(&Buffer, &buffer(65, 4080)).is_some() && decoded(&Buffer, &buffer(66, 4080)).is_none());
    let keys = (0..9).map(|i| Keyed { key: i.to_string(), value: 1.0 }).fold(
        Default::default(),
        |mut state, value| {
            ByKey::new(Sum).fold(&mut state, Event::new(Timestamp::default(), &value));
            state
        },
    );
    let few =
        decoded(&ByKey::new(Sum).with_keys_max(4), &keys).expect("keys beyond the fourth share one State");
    assert_eq!((few.len(), few.other().count()), (4, 5));
}

/// An expired reading is forgotten; one that expired before it, and comes later, changes nothing.
#[test]
fn an_expiry_gauge_that_was_compacted_merges_with_one_that_was_not() {
    let at = Timestamp::from_secs;
    let state = |events: &[(i64, i64)], compacted: Option<i64>| {
        let mut state = Default::default();
        for &(time, expires) in events {
            let value = Expiring { expires: at(expires), reading: "x".into() };
            ExpiryGauge.fold(&mut state, Event::new(at(time), &value));
        }
        compacted.inspect(|&secs| ExpiryGauge.compact(&mut state, at(secs)));
        taba_core::encode_state(&state)
    };
    let older =
        [state(&[(1, 9)], None), state(&[(2, 9)], None), state(&[(1, 12)], None), state(&[(3, 14)], None)];
    for compacted in
        [state(&[(3, 11)], Some(11)), state(&[(2, 13), (4, 12)], Some(12)), state(&[(3, 11)], Some(13))]
    {
        for older in &older {
            for states in [[&compacted, older, &compacted], [older, &compacted, older]] {
                let states = states.map(Clone::clone);
                for secs in [13, 14, 100] {
                    assert_eq!(laws::handler::check_closed(&ExpiryGauge, &states, at(secs)), Ok(()));
                }
            }
        }
    }
}
