//! Every part and every standard Tab type, against every law of `Handler`. Equality is of bytes, floats included.

use std::time::Duration;

use proptest::prelude::*;
use taba_core::laws::samples::{NOW_SECS, numbers, texts, times};
use taba_core::{Expiring, Keyed, Reading, Timestamp, handler_laws};
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

handler_laws!(totals_counter, TotalsCounter::new(), nasty());
handler_laws!(percentile_counter, PercentileCounter::new(), nasty());
handler_laws!(counter_group, CounterGroup::new(), nasty());
handler_laws!(percentile_group, PercentileGroup::new(), nasty());
handler_laws!(gauge, Gauge::new(), readings());
handler_laws!(expiry_gauge, ExpiryGauge, expiring());
handler_laws!(buffer, Buffer, expiring());
handler_laws!(common_prefix_counter_group, CommonPrefixCounterGroup::new(), keyed());
handler_laws!(distinct, Distinct, texts());
