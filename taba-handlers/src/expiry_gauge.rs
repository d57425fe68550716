//! [`ExpiryGauge`]: the last reading that is still valid.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use taba_core::limits::VALUE_BYTES_MAX;
use taba_core::{Caveats, Event, Expiring, Format, Handler, Reading, StateError, Timestamp};

use crate::decode::Announced;
use crate::heap::HeapBytes;
use crate::latest::{reading_json, seconds_json, valid_reading, word};
use crate::old::unless_unknown;
use crate::stamp::Stamp;
use crate::unknown::LATER;

/// The newest reading that has not expired.
///
/// Which readings may be needed later cannot be told from the newest alone: when it expires, an older one may still
/// be valid. To keep every reading that might matter has no bound, so readings are kept by *class*: class `k` holds
/// those that are valid for `2^k` to `2^(k+1)` µs after their time, and of each class the newest is kept and the one
/// that expires last. That is at most 2 × 64 readings, usually one.
///
/// What is shown, as of a time `at`:
/// - **Something, exactly when any reading is valid at `at`.** The one of its class that expires last is kept.
/// - **The newest valid reading**, whenever all readings have one and the same lifetime, or differ in lifetime by a
///   factor of two or more; in general, whenever the newest of its class has not expired.
/// - Otherwise (two lifetimes of one class are mixed and the newest has expired, but an older one that was to live
///   longer has not) the valid reading of that class that expires last.
///
/// Rendered as `{"value": …, "time": seconds, "expires": seconds}`, or `{}` when nothing is valid. As of a time before
/// the newest reading it is not known what was shown then, and all three are `null`; somebody who asks for
/// [now](Handler::project_now) is shown a reading that is later, for clocks differ.
///
/// # Laws
/// A newest reading can hide an older one of its class even after it has expired, so Projections keep it until every
/// reading that it could hide has expired too: `2^(k+1)` µs after its time. States are pruned then, not earlier.
///
/// Of a class whose readings have all expired it is kept until when that is known. A reading that comes later and expired
/// by then is expired too; so what was compacted merges with what was not, in any order.
///
/// # Cost
/// 25 bytes encoded for a number of one class; with texts of 4 KiB in all 64 classes, half a megabyte at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpiryGauge;

/// The State of an [`ExpiryGauge`]: what is kept of each class, by class.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ExpiryState {
    classes: Vec<LifetimeClass>,
}

/// The Projection of an [`ExpiryGauge`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ExpiryView {
    at: Timestamp,
    /// Whether a reading is later than that.
    is_later: bool,
    state: ExpiryState,
}

/// Ordered by time first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct ExpiringReading {
    time: Stamp,
    expires: Timestamp,
    #[serde(deserialize_with = "valid_reading")]
    reading: Reading,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LifetimeClass {
    /// The binary logarithm of the lifetimes in it.
    class: u8,
    newest: ExpiringReading,
    last: LastToExpire,
}

/// The reading of a class that expires last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum LastToExpire {
    /// It has expired, as all of the class have that expire up to this time.
    Expired(Timestamp),
    /// It is the newest.
    Newest,
    /// It is older than the newest.
    Older(ExpiringReading),
}

/// When the last of a class expires, whether all up to then have expired, and else which it is: merging takes the maximum.
type ExpiryRank<'a> = (Timestamp, bool, Option<&'a ExpiringReading>);

const CLASSES: usize = 64;
const ENTRY_BYTES_MAX: usize = Stamp::ENCODED_BYTES_MAX + 10 + VALUE_BYTES_MAX;

impl ExpiringReading {
    fn class(&self) -> u8 {
        let lifetime = i128::from(self.expires.as_micros()) - i128::from(self.time.time().as_micros());
        // What was never valid is kept with the shortest: a clamp may yet give it an earlier time.
        lifetime.max(1).ilog2() as u8
    }

    fn expires_before(&self, other: &Self) -> bool {
        (self.expires, self) < (other.expires, other)
    }
}

impl LifetimeClass {
    fn of(entry: ExpiringReading) -> Self {
        Self { class: entry.class(), newest: entry, last: LastToExpire::Newest }
    }

    fn last(&self) -> Option<&ExpiringReading> {
        match &self.last {
            LastToExpire::Expired(_) => None,
            LastToExpire::Newest => Some(&self.newest),
            LastToExpire::Older(entry) => Some(entry),
        }
    }

    fn rank(&self) -> ExpiryRank<'_> {
        match (&self.last, self.last()) {
            (LastToExpire::Expired(until), _) => (*until, true, None),
            (_, last) => (last.map_or(Timestamp::MIN, |last| last.expires), false, last),
        }
    }

    fn merge(&mut self, other: &Self) {
        let last = match self.rank().max(other.rank()) {
            (until, _, None) => Err(until),
            (_, _, Some(last)) => Ok(last.clone()),
        };
        if self.newest < other.newest {
            self.newest = other.newest.clone();
        }
        self.last = match last {
            Err(until) => LastToExpire::Expired(until),
            Ok(last) if last == self.newest => LastToExpire::Newest,
            Ok(last) => LastToExpire::Older(last),
        };
    }

    /// Whether events could have led here.
    fn is_sound(&self) -> bool {
        self.newest.class() == self.class
            && match &self.last {
                LastToExpire::Newest => true,
                LastToExpire::Older(entry) => {
                    entry.class() == self.class && *entry < self.newest && self.newest.expires_before(entry)
                }
                LastToExpire::Expired(until) => self.newest.expires <= *until && !self.is_over(*until),
            }
    }

    /// Whether neither the newest nor anything that it could hide is valid.
    fn is_over(&self, at: Timestamp) -> bool {
        let lifetime_end = 1_i128 << (u32::from(self.class) + 1);
        i128::from(self.newest.time.time().as_micros()) + lifetime_end <= i128::from(at.as_micros())
    }
}

/// What versions 1 and 2 wrote: it was not known when the last had expired, and in version 1 (`T` is a [`Timestamp`]) not how
/// far ahead times were.
#[derive(Deserialize)]
struct OldClass<T> {
    class: u8,
    newest: OldReading<T>,
    last: OldLast<T>,
}

#[derive(Deserialize)]
struct OldReading<T> {
    time: T,
    expires: Timestamp,
    #[serde(deserialize_with = "valid_reading")]
    reading: Reading,
}

#[derive(Deserialize)]
enum OldLast<T> {
    Expired,
    Newest,
    Older(OldReading<T>),
}

impl<T: Into<Stamp>> From<OldReading<T>> for ExpiringReading {
    fn from(OldReading { time, expires, reading }: OldReading<T>) -> Self {
        Self { time: time.into(), expires, reading }
    }
}

impl<T: Into<Stamp>> From<OldClass<T>> for LifetimeClass {
    fn from(old: OldClass<T>) -> Self {
        let newest = ExpiringReading::from(old.newest);
        let last = match old.last {
            OldLast::Expired => LastToExpire::Expired(newest.expires),
            OldLast::Newest => LastToExpire::Newest,
            OldLast::Older(entry) => LastToExpire::Older(entry.into()),
        };
        Self { class: old.class, newest, last }
    }
}

impl ExpiryState {
    /// These classes, if events could have led to them.
    fn sound(classes: Vec<LifetimeClass>) -> Option<Self> {
        let is_sound =
            classes.iter().all(LifetimeClass::is_sound) && classes.is_sorted_by(|a, b| a.class < b.class);
        is_sound.then_some(Self { classes })
    }

    fn put(&mut self, class: &LifetimeClass) {
        match self.classes.binary_search_by_key(&class.class, |held| held.class) {
            Ok(place) => self.classes[place].merge(class),
            Err(place) => self.classes.insert(place, class.clone()),
        }
    }

    /// Forgets what can neither be shown nor hide anything.
    fn forget(&mut self, at: Timestamp) {
        self.classes.retain(|class| !class.is_over(at));
        for class in &mut self.classes {
            if class.rank().0 <= at {
                class.last = LastToExpire::Expired(at);
            }
        }
    }
}

impl ExpiryView {
    /// What is shown, if that is known.
    fn shown(&self) -> Option<&ExpiringReading> {
        if self.is_later {
            return None;
        }
        let all = self.state.classes.iter().flat_map(|class| [Some(&class.newest), class.last()]);
        all.flatten().filter(|entry| entry.expires > self.at).max()
    }
}

impl<'de> Deserialize<'de> for ExpiryState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::sound(Announced::deserialize(deserializer)?.0)
            .ok_or_else(|| D::Error::custom("not the readings of an expiry gauge"))
    }
}

impl HeapBytes for ExpiryState {
    fn heap_bytes(&self) -> usize {
        let text = |entry: &ExpiringReading| taba_core::Value::heap_bytes(&entry.reading);
        let texts = self.classes.iter().map(|class| {
            text(&class.newest) + if let LastToExpire::Older(entry) = &class.last { text(entry) } else { 0 }
        });
        self.classes.capacity() * size_of::<LifetimeClass>() + texts.sum::<usize>()
    }
}

impl Handler for ExpiryGauge {
    type Value = Expiring;
    type State = ExpiryState;
    type Projection = ExpiryView;
    const VERSION: u16 = 3;

    fn fold(&self, state: &mut ExpiryState, event: Event<&Expiring>) {
        let Expiring { expires, reading } = event.value;
        state.put(&LifetimeClass::of(ExpiringReading {
            time: event.time.into(),
            expires: *expires,
            reading: reading.clone(),
        }));
    }

    fn merge(&self, into: &mut ExpiryState, other: &ExpiryState) {
        other.classes.iter().for_each(|class| into.put(class));
    }

    fn project(&self, state: &ExpiryState, at: Timestamp) -> ExpiryView {
        let is_later = state.classes.iter().any(|class| class.newest.time.time() > at);
        ExpiryView { is_later, ..self.project_now(state, at) }
    }

    fn project_now(&self, state: &ExpiryState, now: Timestamp) -> ExpiryView {
        let mut state = state.clone();
        state.forget(now);
        ExpiryView { at: now, is_later: false, state }
    }

    fn aggregate(&self, into: &mut ExpiryView, other: &ExpiryView) {
        if *other == ExpiryView::default() {
            return;
        }
        if *into == ExpiryView::default() {
            into.clone_from(other);
            return;
        }
        into.at = into.at.max(other.at);
        into.is_later |= other.is_later;
        self.merge(&mut into.state, &other.state);
        into.state.forget(into.at);
    }

    fn encoded_bytes_max(&self) -> usize {
        1 + CLASSES * (1 + ENTRY_BYTES_MAX + 1 + ENTRY_BYTES_MAX)
    }

    fn heap_bytes(&self, state: &ExpiryState) -> Option<usize> {
        Some(state.heap_bytes())
    }

    fn render(&self, projection: &ExpiryView, _format: Format) -> Value {
        match projection.shown() {
            Some(entry) => json!({
                "value": reading_json(&entry.reading),
                "time": seconds_json(entry.time.time()),
                "expires": seconds_json(entry.expires),
            }),
            None if projection.is_later => json!({ "value": null, "time": null, "expires": null }),
            None => json!({}),
        }
    }

    fn upgrade(&self, version: u16, bytes: &[u8]) -> Result<ExpiryState, StateError> {
        let classes: Vec<LifetimeClass> = if version == 2 {
            let old: Vec<OldClass<Stamp>> = unless_unknown::<Self, _>(2, version, bytes)?;
            old.into_iter().map(Into::into).collect()
        } else {
            let old: Vec<OldClass<Timestamp>> = unless_unknown::<Self, _>(1, version, bytes)?;
            old.into_iter().map(Into::into).collect()
        };
        ExpiryState::sound(classes).ok_or(StateError::Malformed { version })
    }

    fn should_prune(&self, state: &ExpiryState, at: Timestamp) -> bool {
        state.classes.iter().all(|class| class.is_over(at))
    }

    fn compact(&self, state: &mut ExpiryState, at: Timestamp) {
        state.forget(at);
    }

    fn clamp(&self, state: &mut ExpiryState, latest: Timestamp) {
        if state.classes.iter().all(|class| class.newest.time.time() <= latest) {
            return;
        }
        for class in std::mem::take(state).classes {
            let older = if let LastToExpire::Older(entry) = class.last { Some(entry) } else { None };
            for mut entry in [Some(class.newest), older].into_iter().flatten() {
                entry.time.set_back_to(latest);
                state.put(&LifetimeClass::of(entry));
            }
        }
    }

    fn tally(&self, projection: &ExpiryView) -> Option<String> {
        projection.shown().map(|entry| word(&entry.reading))
    }

    fn caveats(&self, projection: &ExpiryView) -> Caveats {
        if projection.is_later { Caveats::unknown(LATER) } else { Caveats::default() }
    }
}

#[cfg(test)]
mod tests {
    use taba_core::encode_state;

    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    /// Events as (time, expiry, reading), in seconds.
    fn state(events: &[(i64, i64, &str)]) -> ExpiryState {
        let mut state = ExpiryState::default();
        for &(time, expires, reading) in events {
            let value = Expiring { expires: at(expires), reading: reading.into() };
            ExpiryGauge.fold(&mut state, Event::new(at(time), &value));
        }
        state
    }

    fn shown(state: &ExpiryState, secs: i64) -> String {
        ExpiryGauge.tally(&ExpiryGauge.project_now(state, at(secs))).unwrap_or_default()
    }

    #[test]
    fn before_the_newest_reading_it_is_not_known_what_was_shown() {
        let state = state(&[(0, 1000, "older"), (10, 2000, "newer")]);
        let projection = ExpiryGauge.project(&state, at(9));
        let said = ExpiryGauge.render(&projection, Format::Summary);
        assert_eq!(said.to_string(), r#"{"value":null,"time":null,"expires":null}"#);
        assert_eq!(
            (ExpiryGauge.tally(&projection), ExpiryGauge.caveats(&projection).unknown.len()),
            (None, 1)
        );
        assert_eq!(ExpiryGauge.tally(&ExpiryGauge.project(&state, at(10))), Some("newer".to_owned()));
    }

    #[test]
    fn an_expired_newest_reading_does_not_hide_a_valid_older_one() {
        let state = state(&[(0, 1000, "for long"), (10, 20, "for a moment")]);
        assert_eq!(shown(&state, 15), "for a moment");
        assert_eq!(shown(&state, 20), "for long");
        assert_eq!(shown(&state, 1000), "");
    }

    #[test]
    fn not_even_one_of_the_same_class() {
        let state = state(&[(0, 100, "older"), (1, 80, "newer")]);
        assert_eq!(shown(&state, 79), "newer");
        assert_eq!(shown(&state, 80), "older");
    }

    #[test]
    fn with_one_lifetime_one_reading_is_kept() {
        let events: Vec<_> = (0..100).map(|t| (t, t + 60, "x")).collect();
        let state = state(&events);
        assert_eq!(encode_state(&state), encode_state(&self::state(&[(99, 159, "x")])));
        assert_eq!(state.classes.len(), 1);
    }

    #[test]
    fn pruned_when_nothing_hidden_is_left() {
        let state = state(&[(0, 10, "a")]);
        assert!(
            !ExpiryGauge.should_prune(&state, at(10)),
            "another State may hold an older one of the class"
        );
        assert!(ExpiryGauge.should_prune(&state, at(17)), "2^24 µs after its time");
    }

    /// Against the definition, over all short histories of a few lifetimes.
    #[test]
    fn something_is_shown_exactly_when_something_is_valid() {
        let lifetimes = [1, 3, 4, 5, 7, 30];
        for code in 0..lifetimes.len().pow(4) {
            let pick = |i: usize| lifetimes[code / lifetimes.len().pow(i as u32) % lifetimes.len()];
            let events: Vec<_> = (0..4).map(|i| (i as i64, i as i64 + pick(i), "x")).collect();
            let state = state(&events);
            for secs in 0..40 {
                let valid = events.iter().any(|event| event.1 > secs);
                assert_eq!(shown(&state, secs) == "x", valid, "{events:?} at {secs}");
            }
        }
    }
}
