//! [`AllTime`]: a part that says when it does not know what it said at an earlier time.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use taba_core::{Caveats, Event, Events, Format, Handler, StateError, Timestamp, decode_state};

use crate::heap::HeapBytes;
use crate::unknown::{LATER, nulls};

/// `H` over all events, and the time of the latest of them.
///
/// A total of all time cannot be taken back to an earlier time: it holds what came later. As of a time before its
/// latest event it is therefore unknown, and rendered as `H` renders it with `null` in the place of every value.
/// Somebody who asks for now gets it in any case ([`Handler::project_now`]).
///
/// # Laws
/// The latest time of two States is the greater, so an aggregate is unknown when one of its Projections is.
///
/// # Cost
/// 16 bytes in memory and 9 encoded, beside `H`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllTime<H>(H);

impl<H> AllTime<H> {
    /// `inner`, over all time.
    pub const fn new(inner: H) -> Self {
        Self(inner)
    }
}

/// The State of an [`AllTime`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Whole<S> {
    /// When its latest event was; `None` without events, and in what was written before this was.
    pub(crate) latest: Option<Timestamp>,
    pub(crate) state: S,
}

impl<S> Whole<S> {
    /// What `H` holds.
    pub const fn state(&self) -> &S {
        &self.state
    }
}

/// The Projection of an [`AllTime`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WholeView<P> {
    /// Whether it holds events later than the reader's time.
    is_later: bool,
    said: P,
}

impl<S: HeapBytes> HeapBytes for Whole<S> {
    fn heap_bytes(&self) -> usize {
        self.state.heap_bytes()
    }
}

impl<H: Handler> Handler for AllTime<H> {
    type Value = H::Value;
    type State = Whole<H::State>;
    type Projection = WholeView<H::Projection>;
    const VERSION: u16 = H::VERSION + 1;

    fn fold(&self, state: &mut Self::State, event: Event<&H::Value>) {
        state.latest = state.latest.max(Some(event.time));
        self.0.fold(&mut state.state, event);
    }

    fn merge(&self, into: &mut Self::State, other: &Self::State) {
        into.latest = into.latest.max(other.latest);
        self.0.merge(&mut into.state, &other.state);
    }

    fn project(&self, state: &Self::State, at: Timestamp) -> Self::Projection {
        WholeView { is_later: state.latest > Some(at), said: self.0.project(&state.state, at) }
    }

    fn project_now(&self, state: &Self::State, now: Timestamp) -> Self::Projection {
        WholeView { is_later: false, said: self.0.project_now(&state.state, now) }
    }

    fn aggregate(&self, into: &mut Self::Projection, other: &Self::Projection) {
        into.is_later |= other.is_later;
        self.0.aggregate(&mut into.said, &other.said);
    }

    fn encoded_bytes_max(&self) -> usize {
        11 + self.0.encoded_bytes_max()
    }

    fn heap_bytes(&self, state: &Self::State) -> Option<usize> {
        self.0.heap_bytes(&state.state)
    }

    fn fit(&self, state: &mut Self::State) {
        self.0.fit(&mut state.state);
    }

    fn fold_all(&self, state: &mut Self::State, events: Events<'_, H::Value>) {
        state.latest = state.latest.max(events.times().iter().max().copied());
        self.0.fold_all(&mut state.state, events);
    }

    fn render(&self, projection: &Self::Projection, format: Format) -> Value {
        let said = self.0.render(&projection.said, format);
        if projection.is_later { nulls(said) } else { said }
    }

    /// Reads what `H` alone wrote. When its latest event was is not known then, so it counts as known at any time.
    fn upgrade(&self, version: u16, bytes: &[u8]) -> Result<Self::State, StateError> {
        let unknown = StateError::UnknownVersion { found: version, known: Self::VERSION };
        match decode_state(&self.0, version, bytes) {
            Ok(state) => Ok(Whole { latest: None, state }),
            Err(StateError::UnknownVersion { .. }) => Err(unknown),
            Err(error) => Err(error),
        }
    }

    fn should_prune(&self, state: &Self::State, at: Timestamp) -> bool {
        state.latest <= Some(at) && self.0.should_prune(&state.state, at)
    }

    fn compact(&self, state: &mut Self::State, at: Timestamp) {
        self.0.compact(&mut state.state, at);
    }

    fn clamp(&self, state: &mut Self::State, latest: Timestamp) {
        state.latest = state.latest.min(Some(latest));
        self.0.clamp(&mut state.state, latest);
    }

    fn tallies(&self) -> bool {
        self.0.tallies()
    }

    fn tally(&self, projection: &Self::Projection) -> Option<String> {
        if projection.is_later { None } else { self.0.tally(&projection.said) }
    }

    fn error_bound(&self, projection: &Self::Projection) -> Option<f64> {
        if projection.is_later { None } else { self.0.error_bound(&projection.said) }
    }

    fn caveats(&self, projection: &Self::Projection) -> Caveats {
        if projection.is_later { Caveats::unknown(LATER) } else { self.0.caveats(&projection.said) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sum;

    #[test]
    fn what_holds_later_events_is_unknown_and_not_zero() {
        let handler = AllTime::new(Sum);
        let mut state = Whole::default();
        handler.fold(&mut state, Event::new(Timestamp::from_secs(100), &2.0));
        let said = |at| handler.render(&handler.project(&state, Timestamp::from_secs(at)), Format::Summary);
        assert_eq!(said(100).to_string(), r#"{"count":1,"total":2.0,"average":2.0}"#);
        assert_eq!(said(99).to_string(), r#"{"count":null,"total":null,"average":null}"#);
        let now = handler.project_now(&state, Timestamp::from_secs(99));
        assert_eq!(handler.render(&now, Format::Summary)["count"], 1);
    }
}
