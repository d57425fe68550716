//! [`Latest`]: the last reading, and nothing else.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use taba_core::limits::VALUE_BYTES_MAX;
use taba_core::{Caveats, Event, Format, Handler, Reading, StateError, Timestamp};

use crate::heap::HeapBytes;
use crate::old::unless_unknown;
use crate::stamp::Stamp;
use crate::unknown::LATER;

/// The reading with the latest time; of two with one time, the greater.
///
/// The Projection is that reading, and Projections aggregate to the latest of all. How many Clients hold which
/// reading is for queries to count, by [`tally`](Handler::tally). Rendered as `{"value": …, "time": seconds}`, or
/// `{}` when there is none.
///
/// A reading may have a lifetime; it is not shown once its time is that long ago. Only the latest is known: as of a
/// time before it, value and time are `null`. Somebody who asks for [now](Handler::project_now) is shown a reading that
/// is later, for clocks differ.
///
/// # Cost
/// At most 4,117 bytes encoded, about 20 for a number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latest {
    lifetime: Option<Duration>,
}

/// A reading and its time; ordered by time, then by reading.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dated {
    /// When it was read.
    pub time: Stamp,
    /// What was read.
    #[serde(deserialize_with = "valid_reading")]
    pub reading: Reading,
}

/// The Projection of a [`Latest`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LatestView {
    /// Whether the reading is later than the reader's time.
    is_later: bool,
    dated: Option<Dated>,
}

impl LatestView {
    /// The reading; `None` when there is none, or it is not known.
    pub fn reading(&self) -> Option<&Dated> {
        self.dated.as_ref().filter(|_| !self.is_later)
    }
}

/// A reading that an event could have had.
pub(crate) fn valid_reading<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reading, D::Error> {
    let reading = Reading::deserialize(deserializer)?;
    if taba_core::Value::is_valid(&reading) {
        Ok(reading)
    } else {
        Err(D::Error::custom("not the reading of an event"))
    }
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

/// One word for a reading, to count Clients by: the two zeros are one number, and a text that could be read as a number,
/// or as a text in quotes, is put in quotes, so that different readings are different words.
pub(crate) fn word(reading: &Reading) -> String {
    match reading {
        Reading::Number(number) => Reading::Number(number + 0.0).to_string(),
        Reading::Text(text) if reads_as_number(text) || text.starts_with('"') => format!("\"{text}\""),
        Reading::Text(text) => text.clone(),
    }
}

/// Whether a text could be a number of a reading, which is finite.
fn reads_as_number(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite)
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
        let time = dated.time.time();
        self.lifetime.is_some_and(|lifetime| at > time && at.since(time) >= lifetime)
    }
}

impl Handler for Latest {
    type Value = Reading;
    type State = Option<Dated>;
    type Projection = LatestView;
    const VERSION: u16 = 2;

    fn fold(&self, state: &mut Option<Dated>, event: Event<&Reading>) {
        let time = Stamp::from(event.time);
        let newer = |held: &Dated| (held.time, &held.reading) < (time, event.value);
        if state.as_ref().is_none_or(newer) {
            *state = Some(Dated { time, reading: event.value.clone() });
        }
    }

    fn merge(&self, into: &mut Option<Dated>, other: &Option<Dated>) {
        if *into < *other {
            into.clone_from(other);
        }
    }

    fn project(&self, state: &Option<Dated>, at: Timestamp) -> LatestView {
        let is_later = state.as_ref().is_some_and(|dated| dated.time.time() > at);
        LatestView { is_later, ..self.project_now(state, at) }
    }

    fn project_now(&self, state: &Option<Dated>, now: Timestamp) -> LatestView {
        let dated = state.clone().filter(|dated| !self.is_dead(dated, now));
        LatestView { is_later: false, dated }
    }

    fn aggregate(&self, into: &mut LatestView, other: &LatestView) {
        into.is_later |= other.is_later;
        self.merge(&mut into.dated, &other.dated);
    }

    fn encoded_bytes_max(&self) -> usize {
        1 + Stamp::ENCODED_BYTES_MAX + VALUE_BYTES_MAX
    }

    fn heap_bytes(&self, state: &Option<Dated>) -> Option<usize> {
        Some(state.heap_bytes())
    }

    fn render(&self, projection: &LatestView, _format: Format) -> Value {
        match &projection.dated {
            Some(_) if projection.is_later => json!({ "value": null, "time": null }),
            Some(dated) => json!({
                "value": reading_json(&dated.reading),
                "time": seconds_json(dated.time.time()),
            }),
            None => json!({}),
        }
    }

    fn upgrade(&self, version: u16, bytes: &[u8]) -> Result<Option<Dated>, StateError> {
        let old: Option<(Timestamp, Reading)> = unless_unknown::<Self, _>(1, version, bytes)?;
        Ok(old.map(|(time, reading)| Dated { time: time.into(), reading }))
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
            dated.time.set_back_to(latest);
        }
    }

    fn tally(&self, projection: &LatestView) -> Option<String> {
        projection.reading().map(|dated| word(&dated.reading))
    }

    fn caveats(&self, projection: &LatestView) -> Caveats {
        if projection.is_later { Caveats::unknown(LATER) } else { Caveats::default() }
    }
}

const _: () = assert!(size_of::<Option<Dated>>() <= 48, "the table in lib.rs says so");

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
        assert_eq!(said(6), r#"{"value":null,"time":null}"#);
        assert_eq!(gauge.caveats(&gauge.project(&state, at(6))), Caveats::unknown(LATER));
        let now = gauge.render(&gauge.project_now(&state, at(6)), Format::Summary);
        assert_eq!(now.to_string(), r#"{"value":"c","time":7.0}"#);
        assert_eq!(said(7), r#"{"value":"c","time":7.0}"#);
        assert_eq!(said(16), r#"{"value":"c","time":7.0}"#);
        assert_eq!(said(17), "{}");
        assert!(!gauge.should_prune(&state, at(16)) && gauge.should_prune(&state, at(17)));
        assert_eq!(gauge.tally(&gauge.project(&state, at(7))), Some("c".to_owned()));
        assert_eq!(gauge.tally(&gauge.project(&state, at(6))), None);
    }

    #[test]
    fn different_readings_are_different_words() {
        let words = |reading: Reading| word(&reading);
        assert_eq!(words((-0.0).into()), words(0.0.into()));
        assert_eq!((words(3.5.into()).as_str(), words("3.5".into()).as_str()), ("3.5", "\"3.5\""));
        assert_eq!(words("\"3.5\"".into()), "\"\"3.5\"\"");
        assert_eq!(words("running".into()), "running");
        assert_eq!(words("NaN".into()), "NaN");
        assert_eq!(words(f64::MAX.into()), "1.7976931348623157e308");
    }
}
