//! [`AnyHandler`]: the object-safe twin of [`Handler`], the one place where bytes become States.

use std::any::Any;
use std::fmt;

use bytes::Bytes;

use crate::event::{Event, Events};
use crate::handler::{Caveats, Format, Handler, StateError, decode_state, encode_state};
use crate::json::{JsonEvents, json_events};
use crate::time::Timestamp;
use crate::wire::Value;
use crate::wire::{Reader, WireError, column};

/// A State whose type only its Handler knows.
pub struct AnyState(Box<dyn Any + Send + Sync>);

/// A Projection whose type only its Handler knows.
pub struct AnyProjection(Box<dyn Any + Send + Sync>);

impl fmt::Debug for AnyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyState")
    }
}

impl fmt::Debug for AnyProjection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyProjection")
    }
}

/// When events arrived, and how late a time they may carry: what lies beyond `latest` counts as of `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The receiver's clock when they came.
    pub at: Timestamp,
    /// The latest time that is believed.
    pub latest: Timestamp,
}

impl Arrival {
    /// Every time is believed.
    pub const ANY: Self = Self { at: Timestamp::MAX, latest: Timestamp::MAX };

    /// The time that counts for an event that says `time`.
    #[must_use]
    pub fn believe(self, time: Timestamp) -> Timestamp {
        if time > self.latest { self.at } else { time }
    }
}

/// What became of a column of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Folded {
    /// Events that are in the State now.
    pub folded: u64,
    /// Events whose value is not [valid](Value::is_valid); they are not in the State.
    pub refused: u64,
    /// Events among the folded whose time was not believed, and was set to that of their arrival.
    pub clamped: u64,
}

/// The values given to [`AnyHandler::fold_values`] are not of the Handler's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("values of type {found} were given to a handler of {expected}")]
#[non_exhaustive]
pub struct ValueMismatch {
    /// The Rust type that was given.
    pub found: &'static str,
    /// The Rust type that the Handler folds.
    pub expected: &'static str,
}

/// [`Handler`] without its types: what a [`Registry`](crate::Registry) holds.
///
/// # Panics
/// Every method panics when a State or Projection comes from another Handler: that is a bug of the caller, who keeps
/// them beside their Tab type.
pub trait AnyHandler: Send + Sync + 'static {
    /// [`Handler::VERSION`].
    fn version(&self) -> u16;
    /// [`Handler::encoded_bytes_max`].
    fn encoded_bytes_max(&self) -> usize;
    /// [`Handler::decoded_bytes_max`].
    fn decoded_bytes_max(&self, encoded_bytes: usize) -> usize;
    /// Bytes of memory that a State takes, its own size included: [`Handler::heap_bytes`], where that is known.
    fn memory_bytes(&self, state: &AnyState) -> Option<usize>;
    /// The State of no events.
    fn empty_state(&self) -> AnyState;
    /// What no States say.
    fn empty_projection(&self) -> AnyProjection;
    /// Another State that says the same.
    fn clone_state(&self, state: &AnyState) -> AnyState;
    /// A State from bytes that `version` of the Handler wrote.
    ///
    /// # Errors
    /// As [`decode_state`].
    fn decode(&self, version: u16, bytes: &[u8]) -> Result<AnyState, StateError>;
    /// A State as bytes.
    fn encode(&self, state: &AnyState) -> Vec<u8>;
    /// Folds a Block's events, each as of the time that is [believed](Arrival::believe): an event that is not is folded
    /// alone, [clamped](Handler::clamp) and merged, so that events keep their order and none touches another. When
    /// there is an error, the State is as it was.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are not columns of `count` events.
    fn fold_columns(
        &self,
        state: &mut AnyState,
        columns: &Bytes,
        count: usize,
        arrival: Arrival,
    ) -> Result<Folded, WireError>;
    /// Folds events whose values are a `&Vec<H::Value>` behind the `Any`; all values must be valid.
    ///
    /// # Errors
    /// [`ValueMismatch`] when they are something else.
    fn fold_values(
        &self,
        state: &mut AnyState,
        times: &[Timestamp],
        values: &dyn AnyValues,
    ) -> Result<(), ValueMismatch>;
    /// No events yet, whose values will be given as JSON.
    fn json_events(&self) -> Box<dyn JsonEvents>;
    /// [`Handler::merge`].
    fn merge(&self, into: &mut AnyState, other: &AnyState);
    /// [`Handler::project`].
    fn project(&self, state: &AnyState, at: Timestamp) -> AnyProjection;
    /// [`Handler::project_now`].
    fn project_now(&self, state: &AnyState, now: Timestamp) -> AnyProjection;
    /// [`Handler::aggregate`].
    fn aggregate(&self, into: &mut AnyProjection, other: &AnyProjection);
    /// [`Handler::render`].
    fn render(&self, projection: &AnyProjection, format: Format) -> serde_json::Value;
    /// [`Handler::should_prune`].
    fn should_prune(&self, state: &AnyState, at: Timestamp) -> bool;
    /// [`Handler::compact`].
    fn compact(&self, state: &mut AnyState, at: Timestamp);
    /// [`Handler::clamp`].
    fn clamp(&self, state: &mut AnyState, latest: Timestamp);
    /// [`Handler::tally`].
    fn tally(&self, projection: &AnyProjection) -> Option<String>;
    /// [`Handler::tallies`].
    fn tallies(&self) -> bool;
    /// [`Handler::error_bound`].
    fn error_bound(&self, projection: &AnyProjection) -> Option<f64>;
    /// [`Handler::caveats`].
    fn caveats(&self, projection: &AnyProjection) -> Caveats;
}

/// A `Vec` of some [`Value`], its type forgotten.
pub trait AnyValues: Send + 'static {
    /// The `Vec`, to be downcast.
    fn as_any(&self) -> &dyn Any;
    /// The Rust type of one value.
    fn type_name(&self) -> &'static str;
}

impl<V: Value> AnyValues for Vec<V> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<V>()
    }
}

fn state_of<H: Handler>(state: &AnyState) -> &H::State {
    state.0.downcast_ref().expect("a state stays with the handler that made it")
}

fn state_mut<H: Handler>(state: &mut AnyState) -> &mut H::State {
    state.0.downcast_mut().expect("a state stays with the handler that made it")
}

fn projection_of<H: Handler>(projection: &AnyProjection) -> &H::Projection {
    projection.0.downcast_ref().expect("a projection stays with the handler that made it")
}

impl<H: Handler> AnyHandler for H {
    fn version(&self) -> u16 {
        H::VERSION
    }

    fn encoded_bytes_max(&self) -> usize {
        Handler::encoded_bytes_max(self)
    }

    fn decoded_bytes_max(&self, encoded_bytes: usize) -> usize {
        Handler::decoded_bytes_max(self, encoded_bytes)
    }

    fn memory_bytes(&self, state: &AnyState) -> Option<usize> {
        Some(size_of::<H::State>() + Handler::heap_bytes(self, state_of::<H>(state))?)
    }

    fn empty_state(&self) -> AnyState {
        AnyState(Box::new(H::State::default()))
    }

    fn empty_projection(&self) -> AnyProjection {
        AnyProjection(Box::new(H::Projection::default()))
    }

    fn clone_state(&self, state: &AnyState) -> AnyState {
        AnyState(Box::new(state_of::<H>(state).clone()))
    }

    fn decode(&self, version: u16, bytes: &[u8]) -> Result<AnyState, StateError> {
        Ok(AnyState(Box::new(decode_state(self, version, bytes)?)))
    }

    fn encode(&self, state: &AnyState) -> Vec<u8> {
        encode_state(state_of::<H>(state))
    }

    fn fold_columns(
        &self,
        state: &mut AnyState,
        columns: &Bytes,
        count: usize,
        arrival: Arrival,
    ) -> Result<Folded, WireError> {
        let mut reader = Reader::new(columns);
        let mut times = column::times(&mut reader, count)?;
        let mut values = H::Value::decode_column(&mut reader, count)?;
        reader.finish("bytes behind a block's columns")?;
        let mut done = Folded::default();
        if !values.iter().all(Value::is_valid) {
            let keep: Vec<bool> = values.iter().map(Value::is_valid).collect();
            done.refused = keep.iter().filter(|keep| !**keep).count() as u64;
            retain(&mut times, &keep);
            retain(&mut values, &keep);
        }
        done.folded = values.len() as u64;
        let state = state_mut::<H>(state);
        let is_believed = |time: &Timestamp| arrival.believe(*time) == *time;
        if !times.iter().all(is_believed) {
            let keep: Vec<bool> = times.iter().map(is_believed).collect();
            for ((time, value), _) in times.iter().zip(&values).zip(&keep).filter(|(_, keep)| !**keep) {
                let mut late = H::State::default();
                self.fold(&mut late, Event::new(*time, value));
                Handler::clamp(self, &mut late, arrival.at);
                Handler::merge(self, state, &late);
                done.clamped += 1;
            }
            retain(&mut times, &keep);
            retain(&mut values, &keep);
        }
        self.fold_all(state, Events::new(&times, &values));
        Ok(done)
    }

    fn fold_values(
        &self,
        state: &mut AnyState,
        times: &[Timestamp],
        values: &dyn AnyValues,
    ) -> Result<(), ValueMismatch> {
        let Some(typed) = values.as_any().downcast_ref::<Vec<H::Value>>() else {
            let expected = std::any::type_name::<H::Value>();
            return Err(ValueMismatch { found: values.type_name(), expected });
        };
        self.fold_all(state_mut::<H>(state), Events::new(times, typed));
        Ok(())
    }

    fn json_events(&self) -> Box<dyn JsonEvents> {
        json_events::<H::Value>()
    }

    fn merge(&self, into: &mut AnyState, other: &AnyState) {
        Handler::merge(self, state_mut::<H>(into), state_of::<H>(other));
    }

    fn project(&self, state: &AnyState, at: Timestamp) -> AnyProjection {
        AnyProjection(Box::new(Handler::project(self, state_of::<H>(state), at)))
    }

    fn project_now(&self, state: &AnyState, now: Timestamp) -> AnyProjection {
        AnyProjection(Box::new(Handler::project_now(self, state_of::<H>(state), now)))
    }

    fn aggregate(&self, into: &mut AnyProjection, other: &AnyProjection) {
        let into = into.0.downcast_mut().expect("a projection stays with the handler that made it");
        Handler::aggregate(self, into, projection_of::<H>(other));
    }

    fn render(&self, projection: &AnyProjection, format: Format) -> serde_json::Value {
        Handler::render(self, projection_of::<H>(projection), format)
    }

    fn should_prune(&self, state: &AnyState, at: Timestamp) -> bool {
        Handler::should_prune(self, state_of::<H>(state), at)
    }

    fn compact(&self, state: &mut AnyState, at: Timestamp) {
        Handler::compact(self, state_mut::<H>(state), at);
    }

    fn clamp(&self, state: &mut AnyState, latest: Timestamp) {
        Handler::clamp(self, state_mut::<H>(state), latest);
    }

    fn tally(&self, projection: &AnyProjection) -> Option<String> {
        Handler::tally(self, projection_of::<H>(projection))
    }

    fn tallies(&self) -> bool {
        Handler::tallies(self)
    }

    fn error_bound(&self, projection: &AnyProjection) -> Option<f64> {
        Handler::error_bound(self, projection_of::<H>(projection))
    }

    fn caveats(&self, projection: &AnyProjection) -> Caveats {
        Handler::caveats(self, projection_of::<H>(projection))
    }
}

/// Keeps the elements whose flag is set.
fn retain<T>(elements: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    elements.retain(|_| keep.next().copied().unwrap_or(true));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_believed_up_to_the_latest_one() {
        let [at, latest, beyond] = [100, 110, 111].map(Timestamp::from_secs);
        let arrival = Arrival { at, latest };
        assert_eq!([at, latest, beyond].map(|time| arrival.believe(time)), [at, latest, at]);
        assert_eq!(Arrival::ANY.believe(Timestamp::MAX), Timestamp::MAX);
    }
}
