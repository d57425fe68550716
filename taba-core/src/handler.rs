//! [`Handler`]: the rules of a Tab type, and their laws.

use std::collections::BTreeMap;
use std::fmt::Debug;

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{Event, Events};
use crate::time::Timestamp;
use crate::wire::Value;

/// The folded events of one (Client, Tab). `Default` is the State of no events.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the State of a Handler yet",
    label = "not a State",
    note = "derive `Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize` for `{Self}`"
)]
pub trait State:
    Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<T: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static> State
    for T
{
}

/// The readable result of States; serialises as a map. `Default` is the result of no States.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the Projection of a Handler yet",
    label = "not a Projection",
    note = "derive `Clone, Debug, Default, PartialEq, serde::Serialize` for `{Self}`"
)]
pub trait Projection: Clone + Debug + Default + PartialEq + Serialize + Send + Sync + 'static {}

impl<T: Clone + Debug + Default + PartialEq + Serialize + Send + Sync + 'static> Projection for T {}

/// The detail of a rendered Projection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// The main values.
    #[default]
    Summary,
    /// Also the underlying data, such as the buckets of a window: enough for a plot.
    Detail,
}

/// Limitations of a Projection's value: unknown parts, left-out data, and the error of estimates.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Caveats {
    /// The unknown parts of the value (they are `null`), and why. `*` is the whole value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown: BTreeMap<String, String>,
    /// Observed data that a bound kept out of the value, and how much.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, String>,
    /// The largest relative standard error of the estimates that have one: 0.0163 for 1.63 %. About one estimate in
    /// three is further off, three in a thousand by more than three times as much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
}

impl Caveats {
    /// The whole value is unknown, for this reason.
    pub fn unknown(why: &str) -> Self {
        Self { unknown: BTreeMap::from([("*".to_owned(), why.to_owned())]), ..Self::default() }
    }

    /// Something was left out.
    pub fn left_out(what: &str, how_much: String) -> Self {
        Self { left_out: BTreeMap::from([(what.to_owned(), how_much)]), ..Self::default() }
    }

    /// These caveats for the part of the value under `name`; an empty name changes nothing.
    #[must_use]
    pub fn under(self, name: &str) -> Self {
        if name.is_empty() {
            return self;
        }
        let rename = |all: BTreeMap<String, String>| {
            all.into_iter()
                .map(|(what, why)| {
                    (if what == "*" { name.to_owned() } else { format!("{name}.{what}") }, why)
                })
                .collect()
        };
        Self { unknown: rename(self.unknown), left_out: rename(self.left_out), ..self }
    }

    /// These caveats and those of another part.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.unknown.extend(other.unknown);
        self.left_out.extend(other.left_out);
        let errors = [self.standard_error, other.standard_error];
        self.standard_error = errors.into_iter().flatten().reduce(f64::max);
        self
    }
}

/// Why bytes cannot be decoded as a State.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The Handler does not know this version.
    #[error("version {found} of the state is unknown; this build reads up to {known}")]
    UnknownVersion {
        /// The version of the bytes.
        found: u16,
        /// [`Handler::VERSION`].
        known: u16,
    },
    /// The bytes are no State of this version.
    #[error("the bytes are no state of version {version}")]
    Malformed {
        /// The version that they were decoded as.
        version: u16,
    },
}

/// The rules of a Tab type: how Events fold into States, States merge, and Projections aggregate.
///
/// A State is a commutative monoid: its `Default` is the identity, [`merge`](Self::merge) combines two, and folding
/// is a homomorphism onto it. Batching, edge folding, retries, re-sharding and caching are allowed *because* of that.
///
/// # Examples
/// ```
/// use serde::{Deserialize, Serialize};
/// use taba_core::{Event, Handler, Timestamp};
///
/// /// The hottest reading.
/// struct Hottest;
///
/// #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
/// struct Peak { celsius: Option<f64> }
///
/// impl Handler for Hottest {
///     type Value = f64;
///     type State = Peak;
///     type Projection = Peak;
///     const VERSION: u16 = 1;
///
///     fn fold(&self, state: &mut Peak, event: Event<&f64>) {
///         self.merge(state, &Peak { celsius: Some(*event.value) });
///     }
///     fn merge(&self, into: &mut Peak, other: &Peak) {
///         // Adding 0.0 turns -0.0 into 0.0: two spellings of one number must not survive.
///         let reading = [into.celsius, other.celsius].into_iter().flatten().map(|c| c + 0.0);
///         into.celsius = reading.reduce(f64::max);
///     }
///     fn project(&self, state: &Peak, _at: Timestamp) -> Peak {
///         state.clone()
///     }
///     fn aggregate(&self, into: &mut Peak, other: &Peak) {
///         self.merge(into, other);
///     }
///     fn encoded_bytes_max(&self) -> usize {
///         9
///     }
/// }
/// ```
///
/// # Laws
/// `∅` is `Default`, `~` permutes, `≡` is equality of encoded bytes. Each is a function in `taba_core::laws` (feature
/// `laws`), and `handler_laws!` makes one test of each.
///
/// | law | equation | break it, and |
/// |---|---|---|
/// | `splitting` | `merge(fold(∅, a), fold(∅, b)) ≡ fold(∅, a ++ b)` | a value depends on where batches were cut |
/// | `order` | `fold(∅, ~a) ≡ fold(∅, a)` | a value depends on the network |
/// | `merge_associates` | `merge(merge(s, t), u) ≡ merge(s, merge(t, u))` | a value depends on which server merged first |
/// | `merge_commutes` | `merge(s, t) ≡ merge(t, s)` | the same |
/// | `merge_is_neutral` | `merge(s, ∅) ≡ merge(∅, s) ≡ s` | the same |
/// | `projecting` | `aggregate(project(s), project(t)) = project(merge(s, t))` | the whole disagrees with its parts |
/// | `aggregate_associates` | `aggregate(aggregate(p, q), r) = aggregate(p, aggregate(q, r))` | a total depends on the order of clients |
/// | `aggregate_commutes` | `aggregate(p, q) = aggregate(q, p)` | the same |
/// | `aggregate_is_neutral` | `aggregate(p, ∅) = aggregate(∅, p) = p` | the same |
/// | `values` | `decode(encode(v)) = v` | events are lost on the way |
/// | `round_trip` | `decode(encode(s)) ≡ s` | a restart changes a value |
/// | `parts` | `merge(decode(encode(s)), decode(encode(t))) ≡ merge(s, t)`, stored in parts and joined | what is stored in parts comes back changed |
/// | `unknown_versions` | `decode(encode(s)) under a version that nobody wrote is an error` | a roll-back misreads what is stored |
/// | `upgrading` | `upgrade(∅) ≡ ∅, upgrade(merge(s, t)) ≡ merge(upgrade(s), upgrade(t))` | a deployment changes a value |
/// | `pruning` | `should_prune(s, t) ⇒ project(s, u) = project(∅, u) for u ≥ t` | something that was visible vanishes |
/// | `compacting` | `project(compact(s, t), u) = project(s, u) for u ≥ t` | cleaning up changes a value |
/// | `clamping` | `clamp(fold(∅, e), t) says what fold(∅, e at min(time, t)) says, from t on` | a wrong clock reaches into the future |
/// | `clamping_many` | `clamp(fold(∅, a), t) says what merge(clamp(fold(∅, a₁), t), …) says, from t on` | one late event takes others with it |
/// | `clamping_in_order` | `project(clamp(fold(∅, a), t), u) = project(merge(clamp(fold(∅, a₁), t), …), u) for u ≥ t` | the same, of the order of late events; for gauges |
/// | `totality` | no input panics, any bytes decode to a State or an error | one bad batch stops a server |
/// | `bounded` | `bytes of encode(s) ≤ encoded_bytes_max`, and they stop growing | one Tab eats the store |
/// | `closed` | any two States that decode merge into one that decodes and keeps the laws | one bad sender makes a stored State unreadable |
/// | `decode_bounded` | `bytes that decode(b) allocates ≤ decoded_bytes_max(bytes of b)` | few bytes eat the memory |
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a Handler",
    label = "the rules of a Tab type are missing",
    note = "implement `taba_core::Handler` for it: `fold`, `merge`, `project`, `aggregate`, `encoded_bytes_max`"
)]
pub trait Handler: Send + Sync + 'static {
    /// The value of one event.
    type Value: Value;
    /// The folded events of one (Client, Tab).
    type State: State;
    /// The readable result of a State.
    type Projection: Projection;
    /// The version of the State's encoding; increase it with each change, and write [`upgrade`](Self::upgrade).
    const VERSION: u16;

    /// Folds one event into the State.
    fn fold(&self, state: &mut Self::State, event: Event<&Self::Value>);

    /// Merges `other` into `into`.
    fn merge(&self, into: &mut Self::State, other: &Self::State);

    /// The result of the State as of `at`.
    fn project(&self, state: &Self::State, at: Timestamp) -> Self::Projection;

    /// The result as of `now`: as [`project`](Self::project), but events a little later than `now` make nothing
    /// unknown, since clocks differ. Override it if `project` returns less because of later events, and forward it in
    /// Handlers made of others. The laws are the same.
    fn project_now(&self, state: &Self::State, now: Timestamp) -> Self::Projection {
        self.project(state, now)
    }

    /// Aggregates `other` into `into`. Both were projected as of the same time, by the same method.
    fn aggregate(&self, into: &mut Self::Projection, other: &Self::Projection);

    /// The maximum bytes of an encoded State, for any events.
    fn encoded_bytes_max(&self) -> usize;

    /// The maximum bytes of memory that decoding `encoded_bytes` bytes takes, whatever they are, its State included.
    /// Servers and Agents set this much aside before they decode a State. The default is enough for a State whose
    /// parts are no more than 64 times as large in memory as encoded. The law `decode_bounded` measures it.
    fn decoded_bytes_max(&self, encoded_bytes: usize) -> usize {
        size_of::<Self::State>() + 4096 + encoded_bytes.saturating_mul(64)
    }

    /// Bytes on the heap that the State owns, unused capacity included; `None` when that is not known. Whoever keeps
    /// many States adds this up, and estimates it by the encoded bytes where it is not known.
    fn heap_bytes(&self, state: &Self::State) -> Option<usize> {
        let _ = state;
        None
    }

    /// Brings a decoded State within the bounds of this Handler's settings, which its type does not know, as a merge
    /// does: drops the buckets that a window does not keep. [`decode_state`] calls it. A State that no events lead to
    /// under any settings is not decoded at all: that is for its `Deserialize`.
    fn fit(&self, state: &mut Self::State) {
        let _ = state;
    }

    /// Folds many events into the State. Override it only for speed.
    fn fold_all(&self, state: &mut Self::State, events: Events<'_, Self::Value>) {
        for event in events.iter() {
            self.fold(state, event);
        }
    }

    /// The JSON of a Projection.
    fn render(&self, projection: &Self::Projection, format: Format) -> serde_json::Value {
        let _ = format;
        serde_json::to_value(projection).unwrap_or(serde_json::Value::Null)
    }

    /// Decodes a State of an older version.
    ///
    /// # Errors
    /// [`StateError`] when the version is unknown or the bytes are no State of it.
    fn upgrade(&self, version: u16, bytes: &[u8]) -> Result<Self::State, StateError> {
        let _ = bytes;
        Err(StateError::UnknownVersion { found: version, known: Self::VERSION })
    }

    /// Whether the State holds no information as of `at`, and never will again without new events.
    fn should_prune(&self, state: &Self::State, at: Timestamp) -> bool {
        let _ = (state, at);
        false
    }

    /// Removes data that affects no Projection as of `at` or later.
    fn compact(&self, state: &mut Self::State, at: Timestamp) {
        let _ = (state, at);
    }

    /// Moves events after `latest` to `latest`, in their order, so that a sender with a wrong clock does not reach
    /// into future windows. A Handler that ignores times has nothing to do.
    ///
    /// Events further ahead than [`FUTURE_MICROS_MAX`](crate::limits::FUTURE_MICROS_MAX) are clamped alone, before
    /// they are merged: the folding code leaves them out, so a State need not be able to undo the effect of such a
    /// time on its windows.
    fn clamp(&self, state: &mut Self::State, latest: Timestamp) {
        let _ = (state, latest);
    }

    /// A word for a Client's Projection, if Clients can usefully be counted by it, as by the value of a gauge.
    /// Queries count the words over Clients.
    fn tally(&self, projection: &Self::Projection) -> Option<String> {
        let _ = projection;
        None
    }

    /// Whether [`tally`](Self::tally) ever gives a word. Where it never does, and this says so, queries merge the States of a Tab
    /// and project them once, by the law of `projecting`, and keep what they merged.
    fn tallies(&self) -> bool {
        true
    }

    /// The largest relative error of the estimates in a Projection, if any: 0.01 for one per cent. Estimates without
    /// such a bound have a [standard error](Caveats::standard_error).
    fn error_bound(&self, projection: &Self::Projection) -> Option<f64> {
        let _ = projection;
        None
    }

    /// The caveats of the Projection. Handlers made of others combine theirs.
    fn caveats(&self, projection: &Self::Projection) -> Caveats {
        let _ = projection;
        Caveats::default()
    }
}

/// Encodes a State: postcard of its serde form.
pub fn encode_state<S: State>(state: &S) -> Vec<u8> {
    postcard::serialize_with_flavor(state, StateWriter(Vec::with_capacity(ENCODED_BYTES)))
        .expect("plain data encodes into memory")
}

/// Room for a State with little in it, so that encoding it allocates once.
const ENCODED_BYTES: usize = 64;

/// Bytes that postcard writes.
struct StateWriter(Vec<u8>);

impl Flavor for StateWriter {
    type Output = Vec<u8>;

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Decodes a State that `version` of the Handler wrote.
///
/// # Errors
/// [`StateError`] when the version is unknown or the bytes are no State of it.
pub fn decode_state<H: Handler>(handler: &H, version: u16, bytes: &[u8]) -> Result<H::State, StateError> {
    let mut state = if version == H::VERSION {
        match postcard::take_from_bytes(bytes) {
            Ok((state, [])) => state,
            Ok(_) | Err(_) => return Err(StateError::Malformed { version }),
        }
    } else {
        // What was upgraded passes the same checks.
        let upgraded = encode_state(&handler.upgrade(version, bytes)?);
        postcard::from_bytes(&upgraded).map_err(|_| StateError::Malformed { version })?
    };
    handler.fit(&mut state);
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caveats_of_parts_stand_under_their_names() {
        let all =
            Caveats::unknown("a gap").under("east").and(Caveats::left_out("keys", "3".into()).under("west"));
        assert_eq!(all.unknown, BTreeMap::from([("east".to_owned(), "a gap".to_owned())]));
        assert_eq!(all.left_out, BTreeMap::from([("west.keys".to_owned(), "3".to_owned())]));
        assert_eq!(all.clone().under(""), all);
        let error = |standard_error| Caveats { standard_error, ..Caveats::default() };
        assert_eq!(error(Some(0.01)).and(error(Some(0.02))), error(Some(0.02)));
        assert_eq!(error(Some(0.02)).and(error(None)).under("a"), error(Some(0.02)));
    }
}
