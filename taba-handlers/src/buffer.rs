//! [`Buffer`]: the readings themselves, until they expire.

use std::cmp::Reverse;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use taba_core::limits::VALUE_BYTES_MAX;
use taba_core::{Caveats, Event, Events, Expiring, Format, Handler, Reading, StateError, Timestamp};

use crate::decode::Announced;
use crate::heap::HeapBytes;
use crate::latest::{reading_json, seconds_json, valid_reading};
use crate::old::unless_unknown;
use crate::stamp::Stamp;

/// The readings that expire last, at most 1,000 of them, until they expire.
///
/// Readings are ordered by expiry, time and value, the latest first, and equal ones are all kept. The first 1,000 are
/// kept, or fewer when they are long: a reading is kept only while those before it take less than 256 KiB of text.
/// Rendered as `[[value, time in seconds], …]` in that order. That some were left out is told
/// ([`Caveats::left_out`]), until all of those have expired too.
///
/// # Laws
/// What is kept of a multiset depends, for each reading, only on those before it in the order; so to choose from
/// parts and then from what was chosen is to choose from the whole. That is why the bound is in bytes *before* a
/// reading, its own not counted: were the one that first passes the bound left out, a shorter one behind it could
/// slip in after a merge.
///
/// # Cost
/// One event is a binary search and a move of at most 40 KB; a batch is one sort. At most 306 KB encoded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buffer;

/// Readings in one [`Buffer`].
pub const BUFFER_READINGS_MAX: usize = 1000;
/// A reading is kept only while those before it take less than this many bytes of text.
pub const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// The State of a [`Buffer`], and its Projection too.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BufferState {
    /// Descending.
    items: Vec<BufferedReading>,
    /// When the last of the readings that were left out expires.
    left_out_until: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct BufferedReading {
    expires: Timestamp,
    time: Stamp,
    #[serde(deserialize_with = "valid_reading")]
    reading: Reading,
}

impl BufferedReading {
    fn new(event: Event<&Expiring>) -> Self {
        Self { expires: event.value.expires, time: event.time.into(), reading: event.value.reading.clone() }
    }

    fn text_bytes(&self) -> usize {
        taba_core::Value::heap_bytes(&self.reading)
    }
}

/// How many of these readings, in their order, are kept.
fn kept(items: &[BufferedReading]) -> usize {
    let mut bytes = 0;
    let kept = items.iter().take(BUFFER_READINGS_MAX).take_while(|item| {
        let before = bytes;
        bytes += item.text_bytes();
        before < BUFFER_BYTES_MAX
    });
    kept.count()
}

impl BufferState {
    /// These readings, if events could have led to them.
    fn sound(items: Vec<BufferedReading>, left_out_until: Option<Timestamp>) -> Option<Self> {
        let is_sound = kept(&items) == items.len() && items.is_sorted_by_key(Reverse);
        is_sound.then_some(Self { items, left_out_until })
    }

    /// Restores the order, then the bounds.
    fn settle(&mut self) {
        self.items.sort_unstable_by(|a, b| b.cmp(a));
        self.cut();
    }

    fn cut(&mut self) {
        let kept = kept(&self.items);
        self.left_out_until = self.left_out_until.max(self.items.get(kept).map(|item| item.expires));
        self.items.truncate(kept);
    }

    fn expire(&mut self, at: Timestamp) {
        let valid = self.items.partition_point(|item| item.expires > at);
        self.items.truncate(valid);
        self.left_out_until = self.left_out_until.filter(|until| *until > at);
    }

    /// How many readings are kept.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl HeapBytes for BufferState {
    fn heap_bytes(&self) -> usize {
        self.items.capacity() * size_of::<BufferedReading>()
            + self.items.iter().map(BufferedReading::text_bytes).sum::<usize>()
    }
}

impl<'de> Deserialize<'de> for BufferState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (Announced(items), left_out_until) = Deserialize::deserialize(deserializer)?;
        Self::sound(items, left_out_until).ok_or_else(|| D::Error::custom("not the readings of a buffer"))
    }
}

impl Handler for Buffer {
    type Value = Expiring;
    type State = BufferState;
    type Projection = BufferState;
    const VERSION: u16 = 2;

    fn fold(&self, state: &mut BufferState, event: Event<&Expiring>) {
        let item = BufferedReading::new(event);
        let place = state.items.partition_point(|held| *held > item);
        if place < BUFFER_READINGS_MAX {
            state.items.insert(place, item);
            state.cut();
        } else {
            state.left_out_until = state.left_out_until.max(Some(item.expires));
        }
    }

    fn merge(&self, into: &mut BufferState, other: &BufferState) {
        into.left_out_until = into.left_out_until.max(other.left_out_until);
        if !other.items.is_empty() {
            into.items.extend_from_slice(&other.items);
            into.settle();
        }
    }

    fn project(&self, state: &BufferState, at: Timestamp) -> BufferState {
        let mut valid = state.clone();
        valid.expire(at);
        valid
    }

    fn aggregate(&self, into: &mut BufferState, other: &BufferState) {
        self.merge(into, other);
    }

    fn tallies(&self) -> bool {
        false
    }

    fn encoded_bytes_max(&self) -> usize {
        // Times, tag and length of each reading, or a number; the text; the one that passes the bound.
        let each = 10 + Stamp::ENCODED_BYTES_MAX + 1 + 8;
        2 + BUFFER_READINGS_MAX * each + BUFFER_BYTES_MAX + VALUE_BYTES_MAX + 11
    }

    fn fold_all(&self, state: &mut BufferState, events: Events<'_, Expiring>) {
        // In parts, so that a long column does not double the memory.
        for from in (0..events.len()).step_by(BUFFER_READINGS_MAX) {
            let part = events.slice(from..events.len().min(from + BUFFER_READINGS_MAX));
            state.items.extend(part.iter().map(BufferedReading::new));
            state.settle();
        }
    }

    fn heap_bytes(&self, state: &BufferState) -> Option<usize> {
        Some(state.heap_bytes())
    }

    fn render(&self, projection: &BufferState, _format: Format) -> Value {
        let shown = projection
            .items
            .iter()
            .map(|item| json!([reading_json(&item.reading), seconds_json(item.time.time())]));
        Value::Array(shown.collect())
    }

    fn upgrade(&self, version: u16, bytes: &[u8]) -> Result<BufferState, StateError> {
        let old: Vec<(Timestamp, Timestamp, Reading)> = unless_unknown::<Self, _>(1, version, bytes)?;
        let item = |(expires, time, reading): (Timestamp, Timestamp, Reading)| BufferedReading {
            expires,
            time: time.into(),
            reading,
        };
        BufferState::sound(old.into_iter().map(item).collect(), None).ok_or(StateError::Malformed { version })
    }

    fn should_prune(&self, state: &BufferState, at: Timestamp) -> bool {
        // What was left out expires before what was kept.
        state.items.first().is_none_or(|item| item.expires <= at) && state.left_out_until <= Some(at)
    }

    fn compact(&self, state: &mut BufferState, at: Timestamp) {
        state.expire(at);
        state.items.shrink_to_fit();
    }

    fn clamp(&self, state: &mut BufferState, latest: Timestamp) {
        state.items.iter_mut().for_each(|item| item.time.set_back_to(latest));
        state.settle();
    }

    fn caveats(&self, projection: &BufferState) -> Caveats {
        match projection.left_out_until {
            Some(until) => Caveats::left_out(
                "readings",
                format!(
                    "those beyond the {} kept, valid until {} s at most",
                    projection.len(),
                    until.as_secs_f64()
                ),
            ),
            None => Caveats::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use taba_core::encode_state;

    use super::*;

    fn fold(events: &[(i64, i64, usize)]) -> BufferState {
        let mut state = BufferState::default();
        for &(time, expires, bytes) in events {
            let value = Expiring {
                expires: Timestamp::from_secs(expires),
                reading: Reading::Text("x".repeat(bytes)),
            };
            Buffer.fold(&mut state, Event::new(Timestamp::from_secs(time), &value));
        }
        state
    }

    #[test]
    fn newest_expiry_first_and_never_the_expired() {
        let state = fold(&[(1, 10, 1), (2, 30, 2), (3, 20, 3), (3, 20, 3)]);
        let said = |secs| Buffer.render(&Buffer.project(&state, Timestamp::from_secs(secs)), Format::Summary);
        assert_eq!(said(10).to_string(), r#"[["xx",2.0],["xxx",3.0],["xxx",3.0]]"#);
        assert_eq!(said(30).to_string(), "[]");
        assert!(Buffer.should_prune(&state, Timestamp::from_secs(30)));
    }

    #[test]
    fn the_thousand_that_expire_last_are_kept() {
        let events: Vec<_> = (0..3000).map(|i| (i, i * 7919 % 3001, 4)).collect();
        let state = fold(&events);
        assert_eq!(state.len(), BUFFER_READINGS_MAX);
        let mut expiries: Vec<_> = events.iter().map(|event| event.1).collect();
        expiries.sort_unstable_by_key(|&expires| Reverse(expires));
        let kept: Vec<_> = state.items.iter().map(|item| item.expires.as_micros() / 1_000_000).collect();
        assert_eq!(kept, expiries[..BUFFER_READINGS_MAX]);
        let left_out = |secs| Buffer.caveats(&Buffer.project(&state, Timestamp::from_secs(secs))).left_out;
        assert_eq!(left_out(expiries[BUFFER_READINGS_MAX] - 1).len(), 1, "one that is valid is not shown");
        assert!(left_out(expiries[BUFFER_READINGS_MAX]).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Long readings reach the bound in bytes, which the laws' samples do not.
        #[test]
        fn the_bound_in_bytes_keeps_the_laws(
            events in prop::collection::vec((0_i64..50, 0_i64..50, 0_usize..4000), 100..300), cut in 0_usize..300
        ) {
            let whole = fold(&events);
            let (a, b) = events.split_at(cut.min(events.len()));
            let mut left = fold(a);
            Buffer.merge(&mut left, &fold(b));
            let mut right = fold(b);
            Buffer.merge(&mut right, &fold(a));
            prop_assert!(left == whole && right == whole);
            prop_assert!(encode_state(&whole).len() <= Buffer.encoded_bytes_max());
        }
    }
}
