//! The bytes of States are a promise: what each version wrote is here, and still means the same; what the last one
//! wrote is still what is written.
//!
//! When bytes change on purpose, the version of the Tab type rises, its `upgrade` reads these files, and new ones are
//! written beside them with `TABA_WRITE_GOLDEN=1 cargo test -p taba-handlers --test golden`.

use std::path::Path;

use taba_core::{Event, Expiring, Format, Handler, Keyed, Reading, Timestamp, decode_state, encode_state};
use taba_handlers::*;

/// 40 events, some of them late, over a little more than a minute.
fn times() -> impl Iterator<Item = Timestamp> {
    (0..40_i64).map(|i| Timestamp::from_micros(1_795_371_115_123_456 + (i * 7 % 40) * 1_700_000))
}

fn numbers() -> impl Iterator<Item = f64> {
    const KINDS: [f64; 8] = [1.0, -3.5, 0.0, 1e300, 0.1, 12_345.0, -1e-300, 5e-324];
    (0..40).map(|i| KINDS[i % 8] * if i < 24 { 1.0 } else { 3.0 })
}

fn readings() -> impl Iterator<Item = Reading> {
    (0..40).map(|i| if i % 3 == 0 { Reading::Number(f64::from(i)) } else { Reading::Text(format!("v{i}")) })
}

fn check<H: Handler>(name: &str, handler: &H, values: impl Iterator<Item = H::Value>) {
    let mut state = H::State::default();
    for (time, value) in times().zip(values) {
        handler.fold(&mut state, Event::new(time, &value));
    }
    let bytes = encode_state(&state);
    let file = format!("{name}.v{}.bin", H::VERSION);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(&file);
    if std::env::var_os("TABA_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &bytes).expect("the folder is writable");
    }
    let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert!(bytes == golden, "{file}: what is written has changed");
    let read = decode_state(handler, H::VERSION, &golden).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(read, state, "{file}: what was written means something else now");
}

/// What an older version wrote of the same events says the same to a reader of now.
fn check_older<H: Handler>(name: &str, version: u16, handler: &H, values: impl Iterator<Item = H::Value>) {
    let mut state = H::State::default();
    for (time, value) in times().zip(values) {
        handler.fold(&mut state, Event::new(time, &value));
    }
    let file = format!("{name}.v{version}.bin");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(&file);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let read = decode_state(handler, version, &bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
    let last = times().max().expect("there are forty");
    let said = |state: &H::State, format| handler.render(&handler.project_now(state, last), format);
    for format in [Format::Summary, Format::Detail] {
        assert_eq!(said(&read, format), said(&state, format), "{file}: it means something else now");
    }
    assert!(decode_state(handler, version, &bytes[..bytes.len() - 1]).is_err(), "{file}: cut short");
}

fn expiring() -> impl Iterator<Item = Expiring> {
    let expires = (0..).map(|i| Timestamp::from_secs(1_795_371_200 + i * i % 97));
    readings().zip(expires).map(|(reading, expires)| Expiring { expires, reading })
}

fn keyed() -> impl Iterator<Item = Keyed> {
    numbers().enumerate().map(|(i, value)| Keyed { key: format!("k{}", i % 3), value })
}

#[test]
fn states_of_today() {
    check("TotalsCounter", &TotalsCounter::new(), numbers());
    check("PercentileCounter", &PercentileCounter::new(), numbers());
    check("CounterGroup", &CounterGroup::new(), numbers());
    check("PercentileGroup", &PercentileGroup::new(), numbers());
    check("Gauge", &Gauge::new(), readings());
    check("ExpiryGauge", &ExpiryGauge, expiring());
    check("Buffer", &AllTime::new(Buffer), expiring());
    check("CommonPrefixCounterGroup", &CommonPrefixCounterGroup::new(), keyed());
    check("Distinct", &AllTime::new(Distinct), (0..40).map(|i| format!("visitor {}", i % 30)));
    // Past 1,024 registers the form is another.
    check("Distinct-dense", &DistinctOfMany, (0..40).map(|i| format!("{i}")));
}

#[test]
fn states_of_version_1() {
    check_older("TotalsCounter", 1, &TotalsCounter::new(), numbers());
    check_older("Gauge", 1, &Gauge::new(), readings());
    check_older("ExpiryGauge", 1, &ExpiryGauge, expiring());
    check_older("Buffer", 1, &AllTime::new(Buffer), expiring());
    check_older("Distinct", 1, &AllTime::new(Distinct), (0..40).map(|i| format!("visitor {}", i % 30)));
}

#[test]
fn states_of_version_2() {
    check_older("ExpiryGauge", 2, &ExpiryGauge, expiring());
}

/// A [`Distinct`] that takes each text for a hundred, to reach the dense form with forty events.
struct DistinctOfMany;

impl Handler for DistinctOfMany {
    type Value = String;
    type State = Registers;
    type Projection = Registers;
    const VERSION: u16 = Distinct::VERSION;

    fn fold(&self, state: &mut Registers, event: Event<&String>) {
        for i in 0..100 {
            Distinct.fold(state, Event::new(event.time, &format!("{} {i}", event.value)));
        }
    }

    fn merge(&self, into: &mut Registers, other: &Registers) {
        Distinct.merge(into, other);
    }

    fn project(&self, state: &Registers, at: Timestamp) -> Registers {
        Distinct.project(state, at)
    }

    fn aggregate(&self, into: &mut Registers, other: &Registers) {
        Distinct.aggregate(into, other);
    }

    fn encoded_bytes_max(&self) -> usize {
        Distinct.encoded_bytes_max()
    }
}
