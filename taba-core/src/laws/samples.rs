//! What laws are tried on: [`Sample`], and strategies for values and times that are likely to break something.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::event::Event;
use crate::time::Timestamp;
use crate::wire::Value;

/// What one trial of a law is given; each law uses what it needs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sample<V> {
    /// Some events.
    pub a: Vec<Event<V>>,
    /// Others.
    pub b: Vec<Event<V>>,
    /// Others still.
    pub c: Vec<Event<V>>,
    /// A time to project at.
    pub at: Timestamp,
    /// A time not before `at`.
    pub later: Timestamp,
    /// Where a permutation comes from.
    pub seed: u64,
    /// Bytes that nobody wrote.
    pub bytes: Vec<u8>,
}

/// The time around which most samples lie, in seconds since the Unix epoch.
pub const NOW_SECS: i64 = 1_795_371_115;

/// Times: most within a few hours of each other, many equal, some days apart, a few at the ends of the range.
pub fn times() -> impl Strategy<Value = Timestamp> + Clone {
    let near = NOW_SECS * 1_000_000;
    prop_oneof![
        4 => (0_i64..8).prop_map(move |s| near + s * 1_000_000),
        4 => (-120_000_000_i64..120_000_000).prop_map(move |us| near + us),
        3 => (-7_200_000_000_i64..7_200_000_000).prop_map(move |us| near + us),
        2 => (-260_000_i64..260_000).prop_map(move |s| near + s * 1_000_000),
        1 => any::<i64>(),
        1 => prop::sample::select(vec![i64::MIN, -1, 0, 1, i64::MAX]),
    ]
    .prop_map(Timestamp::from_micros)
}

/// Finite doubles: small integers, fractions, any bits, and the awkward ones.
pub fn numbers() -> impl Strategy<Value = f64> + Clone {
    prop_oneof![
        4 => (-1000_i32..1000).prop_map(f64::from),
        3 => -1e4_f64..1e4,
        2 => any::<f64>().prop_filter("finite", |v| v.is_finite()),
        1 => prop::sample::select(vec![
            0.0, -0.0, 1e300, -1e300, 1e-300, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, 0.1, 1.0 / 3.0,
        ]),
    ]
}

/// Short texts, of few letters so that some are equal, and not only ASCII.
pub fn texts() -> impl Strategy<Value = String> + Clone {
    prop_oneof!["[ab]{0,2}", "[a-zé∑]{0,8}", Just("v1.2".to_owned())]
}

/// Samples whose events carry these values.
pub fn sample<V: Value, S: Strategy<Value = V> + Clone + 'static>(
    values: S,
) -> impl Strategy<Value = Sample<V>> {
    let events = move |most| {
        vec((times(), values.clone()).prop_map(|(time, value)| Event { time, value }), 0..most).boxed()
    };
    let bytes = vec(any::<u8>(), 0..64);
    (events(24), events(12), events(6), times(), times(), any::<u64>(), bytes).prop_map(
        |(a, b, c, at, other, seed, bytes)| {
            let (at, later) = if at <= other { (at, other) } else { (other, at) };
            Sample { a, b, c, at, later, seed, bytes }
        },
    )
}
