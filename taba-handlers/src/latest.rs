//! [`Latest`]: the last reading, and nothing else.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use taba_core::limits::VALUE_BYTES_MAX;
use taba_core::{Event, Format, Handler, Reading, Timestamp};

use crate::heap::HeapBytes;

/// The reading with the latest time; of two with one time, the greater.
///
/// The Projection is that reading, and Projections aggregate to the latest of all. How many Clients hold which
/// reading is for queries to count, by [`tally`](Handler::tally). Rendered as `{"value": …, "time": seconds}`, or
/// `{}` when there is none.
///
/// A reading may have a lifetime; it is not shown once its time is that long ago. A reading that is later than the
/// reader's time is shown: only the latest is known, and clocks differ.
///
/// # Cost
/// At most 4,107 bytes encoded, about 20 for a number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latest {
    lifetime: Option<Duration>,
}

/// A reading and its time; ordered by time, then by reading.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dated {
    /// When it was read.
    pub time: Timestamp,
    /// What was read.
    pub reading: Reading,
}

impl HeapBytes for Dated {
    fn heap_bytes(&self) -> usize {
        taba_core::Value::heap_bytes(&self.reading)
    }
}

impl HeapBytes for Option<Dated> {
    fn heap_bytes(&self) -> usize {
        self.as_ref().map_or(0, HeapBytes::heap_bytes)
    }
}

/// A reading as JSON: a number or a text.
pub(crate) fn reading_json(reading: &Reading) -> Value {
    match reading {
        Reading::Number(number) => json!(number),
        Reading::Text(text) => json!(text),
    }
}

/// A time as JSON: seconds since the Unix epoch.
pub(crate) fn seconds_json(time: Timestamp) -> Value {
    json!(time.as_secs_f64())
}

impl Latest {
    /// Readings that live for ever.
    pub const fn new() -> Self {
        Self { lifetime: None }
    }

    /// Readings that live for `lifetime` after their time.
    pub const fn living(lifetime: Duration) -> Self {
        Self { lifetime: Some(lifetime) }
    }

    /// The latest dies last, so once it is dead there is none to take its place.
    fn is_dead(&self, dated: &Dated, at: Timestamp) -> bool {
        self.lifetime.is_some_and(|lifetime| at > dated.time && at.since(dated.time) >= lifetime)
    }
}

impl Handler for Latest {
    type Value = Reading;
    type State = Option<Dated>;
    type Projection = Option<Dated>;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Option<Dated>, event: Event<&Reading>) {
        let newer = |held: &Dated| (held.time, &held.reading) < (event.time, event.value);
        if state.as_ref().is_none_or(newer) {
            *state = Some(Dated { time: event.time, reading: event.value.clone() });
        }
    }

    fn merge(&self, into: &mut Option<Dated>, other: &Option<Dated>) {
        if *into < *other {
            into.clone_from(other);
        }
    }

    fn project(&self, state: &Option<Dated>, at: Timestamp) -> Option<Dated> {
        state.clone().filter(|dated| !self.is_dead(dated, at))
    }

    fn aggregate(&self, into: &mut Option<Dated>, other: &Option<Dated>) {
        self.merge(into, other);
    }

    fn encoded_bytes_max(&self) -> usize {
        1 + 10 + VALUE_BYTES_MAX
    }

    fn render(&self, projection: &Option<Dated>, _format: Format) -> Value {
        match projection {
            Some(dated) => json!({ "value": reading_json(&dated.reading), "time": seconds_json(dated.time) }),
            None => json!({}),
        }
    }

    fn should_prune(&self, state: &Option<Dated>, at: Timestamp) -> bool {
        state.as_ref().is_none_or(|dated| self.is_dead(dated, at))
    }

    fn compact(&self, state: &mut Option<Dated>, at: Timestamp) {
        if self.should_prune(state, at) {
            *state = None;
        }
    }

    fn clamp(&self, state: &mut Option<Dated>, latest: Timestamp) {
        if let Some(dated) = state {
            dated.time = dated.time.min(latest);
        }
    }

    fn tally(&self, projection: &Option<Dated>) -> Option<String> {
        projection.as_ref().map(|dated| dated.reading.to_string())
    }
}

const _: () = assert!(size_of::<Option<Dated>>() <= 40, "the table in lib.rs says so");

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn the_latest_wins_and_dies_on_time() {
        let gauge = Latest::living(Duration::from_secs(10));
        let mut state = None;
        for (time, reading) in [(5, "b"), (7, "c"), (6, "d"), (7, "a")] {
            gauge.fold(&mut state, Event::new(at(time), &reading.into()));
        }
        let said = |secs| gauge.render(&gauge.project(&state, at(secs)), Format::Summary).to_string();
        assert_eq!(said(0), r#"{"value":"c","time":7.0}"#);
        assert_eq!(said(16), r#"{"value":"c","time":7.0}"#);
        assert_eq!(said(17), "{}");
        assert!(!gauge.should_prune(&state, at(16)) && gauge.should_prune(&state, at(17)));
        assert_eq!(gauge.tally(&state), Some("c".to_owned()));
    }
}
