//! [`On`]: a part that sees something of each value.

use serde_json::Value as Json;
use taba_core::{Caveats, Event, Events, Format, Handler, StateError, Timestamp, Value};

/// What `H` makes of what a function takes from each value. So a Handler of values of your own is an expression of parts
/// that know only numbers, texts or readings.
///
/// A value from which something comes that `H` does not accept ([`Value::is_valid`]: a number that is NaN, say) is left out.
///
/// # Examples
/// ```
/// use serde::{Deserialize, Serialize};
/// use taba_core::{Event, Format, Handler, Timestamp, Value};
/// use taba_handlers::{Distinct, Group, On, Totals};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
/// struct Visit {
///     user: String,
///     seconds: f64,
/// }
/// impl Value for Visit {}
///
/// let visits = Group::new(
///     ["seconds", "users"],
///     (On::new(|visit: &Visit| visit.seconds, Totals), On::new(|visit: &Visit| visit.user.clone(), Distinct)),
/// );
/// let mut state = Default::default();
/// for (user, seconds) in [("ann", 2.0), ("bob", 3.0), ("ann", 4.0)] {
///     let visit = Visit { user: user.to_owned(), seconds };
///     visits.fold(&mut state, Event::new(Timestamp::from_secs(1), &visit));
/// }
/// let said = visits.render(&visits.project(&state, Timestamp::from_secs(2)), Format::Summary);
/// assert_eq!((&said["seconds"]["total"], &said["users"]["distinct"]), (&9.0.into(), &2.into()));
/// ```
///
/// # Laws
/// Those of `H`, as long as the function is one: the same for the same value, everywhere and always. To change it changes what
/// States mean: raise the version of the Handler that it is in, or use another Tab type.
///
/// # Cost
/// That of `H`, and a call of the function for each value.
#[derive(Debug)]
pub struct On<V, H: Handler> {
    take: fn(&V) -> H::Value,
    inner: H,
}

impl<V, H: Handler> On<V, H> {
    /// `inner`, of what `take` takes from each value.
    pub const fn new(take: fn(&V) -> H::Value, inner: H) -> Self {
        Self { take, inner }
    }
}

impl<V, H: Handler + Clone> Clone for On<V, H> {
    fn clone(&self) -> Self {
        Self { take: self.take, inner: self.inner.clone() }
    }
}

impl<V: Value, H: Handler> Handler for On<V, H> {
    type Value = V;
    type State = H::State;
    type Projection = H::Projection;
    const VERSION: u16 = H::VERSION;

    fn fold(&self, state: &mut Self::State, event: Event<&V>) {
        let taken = (self.take)(event.value);
        if taken.is_valid() {
            self.inner.fold(state, Event::new(event.time, &taken));
        }
    }

    fn fold_all(&self, state: &mut Self::State, events: Events<'_, V>) {
        let (mut times, mut values) = (Vec::with_capacity(events.len()), Vec::with_capacity(events.len()));
        for (time, value) in events.times().iter().zip(events.values()) {
            let taken = (self.take)(value);
            if taken.is_valid() {
                times.push(*time);
                values.push(taken);
            }
        }
        self.inner.fold_all(state, Events::new(&times, &values));
    }

    fn merge(&self, into: &mut Self::State, other: &Self::State) {
        self.inner.merge(into, other);
    }

    fn project(&self, state: &Self::State, at: Timestamp) -> Self::Projection {
        self.inner.project(state, at)
    }

    fn project_now(&self, state: &Self::State, now: Timestamp) -> Self::Projection {
        self.inner.project_now(state, now)
    }

    fn aggregate(&self, into: &mut Self::Projection, other: &Self::Projection) {
        self.inner.aggregate(into, other);
    }

    fn encoded_bytes_max(&self) -> usize {
        self.inner.encoded_bytes_max()
    }

    fn heap_bytes(&self, state: &Self::State) -> Option<usize> {
        self.inner.heap_bytes(state)
    }

    fn decoded_bytes_max(&self, encoded_bytes: usize) -> usize {
        self.inner.decoded_bytes_max(encoded_bytes)
    }

    fn fit(&self, state: &mut Self::State) {
        self.inner.fit(state);
    }

    fn render(&self, projection: &Self::Projection, format: Format) -> Json {
        self.inner.render(projection, format)
    }

    fn upgrade(&self, version: u16, bytes: &[u8]) -> Result<Self::State, StateError> {
        self.inner.upgrade(version, bytes)
    }

    fn should_prune(&self, state: &Self::State, at: Timestamp) -> bool {
        self.inner.should_prune(state, at)
    }

    fn compact(&self, state: &mut Self::State, at: Timestamp) {
        self.inner.compact(state, at);
    }

    fn clamp(&self, state: &mut Self::State, latest: Timestamp) {
        self.inner.clamp(state, latest);
    }

    fn tallies(&self) -> bool {
        self.inner.tallies()
    }

    fn tally(&self, projection: &Self::Projection) -> Option<String> {
        self.inner.tally(projection)
    }

    fn error_bound(&self, projection: &Self::Projection) -> Option<f64> {
        self.inner.error_bound(projection)
    }

    fn caveats(&self, projection: &Self::Projection) -> Caveats {
        self.inner.caveats(projection)
    }
}
