//! [`ByKey`]: one State of a part for each key.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use taba_core::{Caveats, Event, Events, Format, Handler, Keyed, Timestamp};
use xxhash_rust::xxh64::xxh64;

use crate::decode::Announced;
use crate::heap::HeapBytes;

/// What `H` makes of each of several series of values that share a Tab, told apart by a key.
///
/// At most [`keys_max`](Self::with_keys_max) keys are kept apart, 1,000 unless said otherwise. When there are more,
/// the keys with the smallest XXH64 (seed 0; of equal ones, the smaller key) keep their own State, and all others
/// share one, `other`. Nothing is lost: the keys and `other` together hold every event.
///
/// Rendered as `{"keys": {key: what H says, …}, "other": what H says}`, keys sorted, `other` once every
/// place is taken. About how many keys share `other` is told with the answer ([`Caveats::left_out`]): the hashes of the
/// keys that are kept are the smallest of all, so how close together they lie says how many there are in all.
///
/// # Laws
/// Which keys are kept is a property of the set of keys, not of their order. A key that is among the smallest `n` of
/// all keys is among the smallest `n` of every part that has it, so its State was kept apart everywhere, and is
/// complete. A key that is not among them shares `other` in the whole, and whether its events went there early or
/// late makes no difference, because `H` merges. Once out it stays out: the `n` keys that pushed it out are never
/// removed. That is also why a key cannot be pruned before the whole State is.
///
/// # Cost
/// A hash and a search in a tree for each row of events with one key. Encoded, `H`'s State and the key for each.
#[derive(Clone, Debug)]
pub struct ByKey<H> {
    inner: H,
    keys_max: usize,
}

/// Keys of a [`ByKey`] unless said otherwise.
pub const KEYS_MAX: usize = 1000;

/// The order in which keys are kept: by hash, then by key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    hash: u64,
    key: String,
}

impl Rank {
    fn new(key: &str) -> Self {
        Self { hash: xxh64(key.as_bytes(), 0), key: key.to_owned() }
    }
}

/// A key that is kept apart, and what is held of it.
#[derive(Clone, Debug, PartialEq)]
struct KeyEntry<S> {
    rank: Rank,
    state: S,
}

/// The State of a [`ByKey`]; also what its Projection holds, of `H`'s Projections.
///
/// ```text
/// n varint | n keys, each with its State, by hash | the State of all other keys
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyedStates<S> {
    /// In the order of ranks. A sorted list and not a tree: a node of a tree has room for eleven States from its first on.
    keys: Vec<KeyEntry<S>>,
    other: S,
}

/// The Projection of a [`ByKey`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KeyedView<P> {
    said: KeyedStates<P>,
    /// Whether there were more keys than are kept apart.
    is_over: bool,
}

impl<S> KeyedStates<S> {
    /// How many keys are kept apart.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key is.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What is held of one key; `None` when it never came, or shares [`other`](Self::other).
    pub fn get(&self, key: &str) -> Option<&S> {
        self.place(&Rank::new(key)).ok().map(|place| &self.keys[place].state)
    }

    /// What is held of all keys that are not kept apart.
    pub fn other(&self) -> &S {
        &self.other
    }

    /// Where a key is, or where it would be.
    fn place(&self, rank: &Rank) -> Result<usize, usize> {
        self.keys.binary_search_by(|entry| entry.rank.cmp(rank))
    }

    /// Makes room for so many more keys, and a quarter of those that are there.
    fn grow(&mut self, more: usize) {
        let len = self.keys.len();
        if len + more > self.keys.capacity() {
            self.keys.reserve_exact(more.max(len / 4));
        }
    }

    /// What each key and `other` hold.
    fn states(&self) -> impl Iterator<Item = &S> {
        self.keys.iter().map(|entry| &entry.state).chain([&self.other])
    }

    /// What each key and `other` hold, to change.
    fn states_mut(&mut self) -> impl Iterator<Item = &mut S> {
        self.keys.iter_mut().map(|entry| &mut entry.state).chain([&mut self.other])
    }

    /// Bytes on the heap for the keys, without what their States own there.
    fn keys_bytes(&self) -> usize {
        let texts: usize = self.keys.iter().map(|entry| entry.rank.key.capacity()).sum();
        self.keys.capacity() * size_of::<KeyEntry<S>>() + texts
    }

    /// Moves the keys beyond the first `keys_max` to `other`, and says whether there were any.
    fn fit(&mut self, keys_max: usize, merge: impl Fn(&mut S, &S)) -> bool {
        let is_over = self.keys.len() > keys_max;
        while self.keys.len() > keys_max {
            if let Some(last) = self.keys.pop() {
                merge(&mut self.other, &last.state);
            }
        }
        is_over
    }

    /// About how many keys share `other`, if any do: `n` hashes of which the greatest is the fraction `f` of the whole
    /// range are the smallest of about `(n - 1) / f` (Bar-Yossef et al., *Counting distinct elements in a data stream*,
    /// 2002). The standard error is about `1 / sqrt(n)`.
    fn keys_beyond(&self) -> u64 {
        let Some(greatest) = self.keys.last() else { return 1 };
        let fraction = (greatest.rank.hash as f64 + 1.0) / 2_f64.powi(64);
        let kept = self.keys.len() as f64;
        ((kept - 1.0) / fraction - kept).round().max(1.0) as u64
    }

    fn merge(&mut self, other: &Self, keys_max: usize, merge: impl Fn(&mut S, &S)) -> bool
    where
        S: Clone,
    {
        let mut new = Vec::new();
        for entry in &other.keys {
            match self.place(&entry.rank) {
                Ok(place) => merge(&mut self.keys[place].state, &entry.state),
                Err(_) => new.push(entry),
            }
        }
        if !new.is_empty() {
            self.grow(new.len());
            self.keys.extend(new.into_iter().cloned());
            // Two sorted rows: that takes one pass.
            self.keys.sort_by(|a, b| a.rank.cmp(&b.rank));
        }
        merge(&mut self.other, &other.other);
        self.fit(keys_max, merge)
    }
}

impl<H: Handler> ByKey<H> {
    /// One State of `inner` for each of at most [`KEYS_MAX`] keys.
    pub const fn new(inner: H) -> Self {
        Self { inner, keys_max: KEYS_MAX }
    }

    /// At most `keys_max` keys instead. To lower it later is safe: States that hold more lose their last keys to
    /// `other` when they are next touched. To raise it is not: keys that were pushed out come back without
    /// their past.
    #[must_use]
    pub fn with_keys_max(self, keys_max: usize) -> Self {
        Self { keys_max, ..self }
    }

    fn view(
        &self,
        state: &KeyedStates<H::State>,
        project: impl Fn(&H::State) -> H::Projection,
    ) -> KeyedView<H::Projection> {
        let said_of =
            |KeyEntry { rank, state }: &KeyEntry<_>| KeyEntry { rank: rank.clone(), state: project(state) };
        let keys = state.keys.iter().map(said_of).collect();
        let said = KeyedStates { keys, other: project(&state.other) };
        KeyedView { said, is_over: state.other != H::State::default() }
    }

    /// The State that events of this key belong to: its own, or `other` when there is no room.
    fn slot<'a>(&self, state: &'a mut KeyedStates<H::State>, key: &str) -> &'a mut H::State {
        let rank = Rank::new(key);
        let full = state.keys.len() >= self.keys_max;
        if full && state.keys.last().is_none_or(|last| last.rank < rank) {
            return &mut state.other;
        }
        let place = match state.place(&rank) {
            Ok(place) => place,
            Err(place) => {
                state.grow(1);
                state.keys.insert(place, KeyEntry { rank, state: H::State::default() });
                place
            }
        };
        &mut state.keys[place].state
    }
}

impl<H: Handler> Handler for ByKey<H> {
    type Value = Keyed<H::Value>;
    type State = KeyedStates<H::State>;
    type Projection = KeyedView<H::Projection>;
    const VERSION: u16 = H::VERSION;

    fn fold(&self, state: &mut Self::State, event: Event<&Keyed<H::Value>>) {
        self.inner.fold(self.slot(state, &event.value.key), Event::new(event.time, &event.value.value));
        let _ = state.fit(self.keys_max, |a, b| self.inner.merge(a, b));
    }

    fn merge(&self, into: &mut Self::State, other: &Self::State) {
        let _ = into.merge(other, self.keys_max, |a, b| self.inner.merge(a, b));
    }

    fn project(&self, state: &Self::State, at: Timestamp) -> Self::Projection {
        self.view(state, |state| self.inner.project(state, at))
    }

    fn project_now(&self, state: &Self::State, now: Timestamp) -> Self::Projection {
        self.view(state, |state| self.inner.project_now(state, now))
    }

    fn aggregate(&self, into: &mut Self::Projection, other: &Self::Projection) {
        let is_over = into.said.merge(&other.said, self.keys_max, |a, b| self.inner.aggregate(a, b));
        into.is_over |= is_over || other.is_over;
    }

    fn tallies(&self) -> bool {
        false
    }

    fn encoded_bytes_max(&self) -> usize {
        10 + self.keys_max * (2 + Keyed::KEY_BYTES_MAX) + (self.keys_max + 1) * self.inner.encoded_bytes_max()
    }

    fn heap_bytes(&self, state: &Self::State) -> Option<usize> {
        state.states().try_fold(state.keys_bytes(), |sum, held| Some(sum + self.inner.heap_bytes(held)?))
    }

    fn fit(&self, state: &mut Self::State) {
        state.states_mut().for_each(|held| self.inner.fit(held));
        let _ = state.fit(self.keys_max, |a, b| self.inner.merge(a, b));
    }

    fn fold_all(&self, state: &mut Self::State, events: Events<'_, Keyed<H::Value>>) {
        let mut order: Vec<usize> = (0..events.len()).collect();
        order.sort_by(|&a, &b| events.values()[a].key.cmp(&events.values()[b].key));
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for row in order.chunk_by(|&a, &b| events.values()[a].key == events.values()[b].key) {
            times.clear();
            values.clear();
            times.extend(row.iter().map(|&i| events.times()[i]));
            values.extend(row.iter().map(|&i| events.values()[i].value.clone()));
            let slot = self.slot(state, &events.values()[row[0]].key);
            self.inner.fold_all(slot, Events::new(&times, &values));
            let _ = state.fit(self.keys_max, |a, b| self.inner.merge(a, b));
        }
    }

    fn render(&self, projection: &Self::Projection, format: Format) -> Value {
        let projection = &projection.said;
        let mut sorted: Vec<_> = projection.keys.iter().map(|said| (&said.rank.key, &said.state)).collect();
        sorted.sort_by_key(|(key, _)| *key);
        let keys: Map<_, _> =
            sorted.into_iter().map(|(k, said)| (k.clone(), self.inner.render(said, format))).collect();
        let mut map = json!({ "keys": keys });
        // Keys are pushed out only by others that stay.
        if projection.keys.len() >= self.keys_max {
            map["other"] = self.inner.render(&projection.other, format);
        }
        map
    }

    fn should_prune(&self, state: &Self::State, at: Timestamp) -> bool {
        // That there were other keys stays known.
        state.keys.is_empty()
            && state.other == H::State::default()
            && self.inner.should_prune(&state.other, at)
    }

    fn compact(&self, state: &mut Self::State, at: Timestamp) {
        state.keys.iter_mut().for_each(|entry| self.inner.compact(&mut entry.state, at));
        // That there were other keys stays known.
        let mut other = state.other.clone();
        self.inner.compact(&mut other, at);
        if other != H::State::default() {
            state.other = other;
        }
    }

    fn clamp(&self, state: &mut Self::State, latest: Timestamp) {
        state.states_mut().for_each(|state| self.inner.clamp(state, latest));
    }

    fn error_bound(&self, projection: &Self::Projection) -> Option<f64> {
        projection.said.states().filter_map(|said| self.inner.error_bound(said)).reduce(f64::max)
    }

    /// What is not known of some keys; which, their values show.
    fn caveats(&self, projection: &Self::Projection) -> Caveats {
        let of_parts = projection
            .said
            .states()
            .map(|said| self.inner.caveats(said))
            .fold(Caveats::default(), Caveats::and);
        if !projection.is_over {
            return of_parts;
        }
        let beyond = projection.said.keys_beyond();
        of_parts.and(Caveats::left_out("keys", format!("about {beyond} that share `other`")))
    }
}

impl<S: HeapBytes> HeapBytes for KeyedStates<S> {
    fn heap_bytes(&self) -> usize {
        self.keys_bytes() + self.states().map(HeapBytes::heap_bytes).sum::<usize>()
    }
}

impl<S: Serialize> Serialize for KeyEntry<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        (&self.rank.key, &self.state).serialize(serializer)
    }
}

impl<'de, S: Deserialize<'de>> Deserialize<'de> for KeyEntry<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (key, state): (String, S) = Deserialize::deserialize(deserializer)?;
        if !(1..=Keyed::KEY_BYTES_MAX).contains(&key.len()) {
            return Err(D::Error::custom("not a key"));
        }
        Ok(Self { rank: Rank { hash: xxh64(key.as_bytes(), 0), key }, state })
    }
}

impl<S: Serialize> Serialize for KeyedStates<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        (&self.keys, &self.other).serialize(serializer)
    }
}

impl<'de, S: Deserialize<'de>> Deserialize<'de> for KeyedStates<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (Announced(keys), other): (Announced<KeyEntry<S>>, S) = Deserialize::deserialize(deserializer)?;
        if !keys.is_sorted_by(|a, b| a.rank < b.rank) {
            return Err(D::Error::custom("not keys in their order"));
        }
        Ok(Self { keys, other })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sum, SumState};

    fn fold(handler: &ByKey<Sum>, events: &[(&str, f64)]) -> KeyedStates<SumState> {
        let mut state = KeyedStates::default();
        for &(key, value) in events {
            handler.fold(&mut state, Event::new(Timestamp::default(), &Keyed { key: key.to_owned(), value }));
        }
        state
    }

    #[test]
    fn keys_beyond_the_bound_share_one_state() {
        let handler = ByKey::new(Sum).with_keys_max(2);
        let events = [("a", 1.0), ("b", 2.0), ("c", 4.0), ("d", 8.0), ("a", 16.0)];
        let state = fold(&handler, &events);
        assert_eq!(state.len(), 2);
        let apart: f64 =
            ["a", "b", "c", "d"].iter().filter_map(|key| state.get(key)).map(SumState::total).sum();
        assert_eq!(apart + state.other().total(), 31.0);
        let mut backwards = events;
        backwards.reverse();
        assert_eq!(state, fold(&handler, &backwards));
    }

    #[test]
    fn about_how_many_keys_share_one_state_is_told() {
        let handler = ByKey::new(Sum).with_keys_max(128);
        let left_out = |keys: usize| {
            let names: Vec<_> = (0..keys).map(|i| format!("key {i}")).collect();
            let events: Vec<_> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
            let projection = handler.project(&fold(&handler, &events), Timestamp::default());
            handler.caveats(&projection).left_out.remove("keys")
        };
        assert_eq!(left_out(128), None);
        let told = left_out(1128).expect("there are a thousand more");
        let number: f64 = told.split(' ').nth(1).unwrap().parse().unwrap();
        assert!((700.0..1300.0).contains(&number), "{told}");
    }

    #[test]
    fn rendering_is_sorted_by_key() {
        let handler = ByKey::new(Sum);
        let state = fold(&handler, &[("b", 2.0), ("a", 1.0)]);
        let said = handler.render(&handler.project(&state, Timestamp::default()), Format::Summary);
        let expected = r#"{"keys":{"a":{"count":1,"total":1.0,"average":1.0},"b":{"count":1,"total":2.0,"average":2.0}}}"#;
        assert_eq!(said.to_string(), expected);
    }
}
