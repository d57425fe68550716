//! [`Guarded`]: a Handler whose panics are errors.
//!
//! A Handler is somebody else's code. One that panics breaks the law of totality, but it must cost no more than what it
//! panicked at: whoever calls Handlers on behalf of many Tabs calls them through here.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Once};

use bytes::Bytes;

use crate::erased::{AnyHandler, AnyProjection, AnyState, AnyValues, Arrival, Folded, ValueMismatch};
use crate::handler::{Caveats, Format, StateError};
use crate::state::Envelope;
use crate::time::Timestamp;
use crate::wire::WireError;

/// A Handler panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the handler panicked in {method}: {message}")]
#[non_exhaustive]
pub struct Panicked {
    /// In which of its methods: one of a fixed list of names.
    pub method: &'static str,
    /// What it said.
    pub message: String,
}

/// Why a Handler did not give what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// It panicked. A State that it was to change may be half changed: use it no more.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The bytes of a State were none.
    #[error(transparent)]
    State(#[from] StateError),
    /// The columns of a Block were none.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The values were of another type.
    #[error(transparent)]
    Values(#[from] ValueMismatch),
}

/// A Handler whose panics are errors. Cloning is cheap.
///
/// The methods are those of [`AnyHandler`]. After an error of one that changes a State or Projection, that may be half
/// changed, and is to be dropped.
#[derive(Clone)]
pub struct Guarded {
    handler: Arc<dyn AnyHandler>,
    /// Whether its States are known to be closed under merging.
    is_closed: bool,
}

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guarded")
    }
}

type Guard<T> = Result<T, Panicked>;

#[expect(missing_docs, clippy::missing_errors_doc, reason = "as in `AnyHandler`; the errors are its panics")]
impl Guarded {
    pub fn new(handler: Arc<dyn AnyHandler>) -> Self {
        Self::registered(handler, false)
    }

    pub(crate) fn registered(handler: Arc<dyn AnyHandler>, is_closed: bool) -> Self {
        Self { handler, is_closed }
    }

    pub fn version(&self) -> u16 {
        // A constant.
        self.handler.version()
    }

    pub fn encoded_bytes_max(&self) -> Guard<usize> {
        guard("encoded_bytes_max", || self.handler.encoded_bytes_max())
    }

    pub fn decoded_bytes_max(&self, encoded_bytes: usize) -> Guard<usize> {
        guard("decoded_bytes_max", || self.handler.decoded_bytes_max(encoded_bytes))
    }

    pub fn memory_bytes(&self, state: &AnyState) -> Guard<Option<usize>> {
        guard("heap_bytes", || self.handler.memory_bytes(state))
    }

    pub fn empty_state(&self) -> Guard<AnyState> {
        guard("default", || self.handler.empty_state())
    }

    pub fn empty_projection(&self) -> Guard<AnyProjection> {
        guard("default", || self.handler.empty_projection())
    }

    pub fn clone_state(&self, state: &AnyState) -> Guard<AnyState> {
        guard("clone", || self.handler.clone_state(state))
    }

    pub fn decode(&self, version: u16, bytes: &[u8]) -> Result<AnyState, HandlerError> {
        let method = if version == self.handler.version() { "decode" } else { "upgrade" };
        Ok(guard(method, || self.handler.decode(version, bytes))??)
    }

    /// A stored State; and if it is [divided](Envelope), that of the events since its base.
    pub fn decode_stored(&self, stored: &Envelope) -> Result<(AnyState, Option<AnyState>), HandlerError> {
        let (base, rest) = stored.states();
        let rest = self.decode(stored.version, rest)?;
        let Some(base) = base else { return Ok((rest, None)) };
        let mut state = self.decode(stored.version, base)?;
        self.merge(&mut state, &rest)?;
        Ok((state, Some(rest)))
    }

    pub fn encode(&self, state: &AnyState) -> Guard<Vec<u8>> {
        guard("encode", || self.handler.encode(state))
    }

    /// Encodes a State, and reads it back: whatever is kept can be read again. A Handler that was registered as
    /// [closed](crate::RegistryBuilder::with_closed) is believed, but in debug builds.
    pub fn encode_readable(&self, state: &AnyState) -> Result<Vec<u8>, HandlerError> {
        let bytes = self.encode(state)?;
        if self.is_read_back() {
            self.decode(self.version(), &bytes)?;
        }
        Ok(bytes)
    }

    /// The same of a State that is not written itself.
    pub fn check_readable(&self, state: &AnyState) -> Result<(), HandlerError> {
        if self.is_read_back() { self.encode_readable(state).map(drop) } else { Ok(()) }
    }

    /// Whether a State that was encoded like this can be read again. A Handler that was registered as closed is believed, but in
    /// debug builds.
    pub fn is_readable(&self, bytes: &[u8]) -> bool {
        !self.is_read_back() || self.decode(self.version(), bytes).is_ok()
    }

    fn is_read_back(&self) -> bool {
        !self.is_closed || cfg!(debug_assertions)
    }

    pub fn fold_columns(
        &self,
        state: &mut AnyState,
        columns: &Bytes,
        count: usize,
        arrival: Arrival,
    ) -> Result<Folded, HandlerError> {
        Ok(guard("fold", || self.handler.fold_columns(state, columns, count, arrival))??)
    }

    pub fn fold_values(
        &self,
        state: &mut AnyState,
        times: &[Timestamp],
        values: &dyn AnyValues,
    ) -> Result<(), HandlerError> {
        Ok(guard("fold", || self.handler.fold_values(state, times, values))??)
    }

    pub fn merge(&self, into: &mut AnyState, other: &AnyState) -> Guard<()> {
        guard("merge", || self.handler.merge(into, other))
    }

    pub fn project(&self, state: &AnyState, at: Timestamp) -> Guard<AnyProjection> {
        guard("project", || self.handler.project(state, at))
    }

    pub fn project_now(&self, state: &AnyState, now: Timestamp) -> Guard<AnyProjection> {
        guard("project_now", || self.handler.project_now(state, now))
    }

    pub fn aggregate(&self, into: &mut AnyProjection, other: &AnyProjection) -> Guard<()> {
        guard("aggregate", || self.handler.aggregate(into, other))
    }

    pub fn render(&self, projection: &AnyProjection, format: Format) -> Guard<serde_json::Value> {
        guard("render", || self.handler.render(projection, format))
    }

    pub fn should_prune(&self, state: &AnyState, at: Timestamp) -> Guard<bool> {
        guard("should_prune", || self.handler.should_prune(state, at))
    }

    pub fn compact(&self, state: &mut AnyState, at: Timestamp) -> Guard<()> {
        guard("compact", || self.handler.compact(state, at))
    }

    pub fn clamp(&self, state: &mut AnyState, latest: Timestamp) -> Guard<()> {
        guard("clamp", || self.handler.clamp(state, latest))
    }

    pub fn tally(&self, projection: &AnyProjection) -> Guard<Option<String>> {
        guard("tally", || self.handler.tally(projection))
    }

    /// [`Handler::tallies`](crate::Handler::tallies).
    pub fn tallies(&self) -> Guard<bool> {
        guard("tallies", || self.handler.tallies())
    }

    pub fn error_bound(&self, projection: &AnyProjection) -> Guard<Option<f64>> {
        guard("error_bound", || self.handler.error_bound(projection))
    }

    pub fn caveats(&self, projection: &AnyProjection) -> Guard<Caveats> {
        guard("caveats", || self.handler.caveats(projection))
    }
}

thread_local! {
    /// Whether this thread is in a call that answers panics as errors.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls it; a panic becomes an error. `method` names what is called.
///
/// # Errors
/// [`Panicked`].
pub fn guard<T>(method: &'static str, call: impl FnOnce() -> T) -> Guard<T> {
    let before = IS_GUARDED.replace(true);
    // What a panic leaves half done is the State or Projection that the caller then drops.
    let outcome = catch_unwind(AssertUnwindSafe(call));
    IS_GUARDED.set(before);
    outcome.map_err(|panic| Panicked { method, message: panic_message(panic.as_ref()) })
}

/// From now on the process's panic hook says nothing of panics that [`guard`] answers: whoever called says it, not
/// once for each. Other panics reach the hook that is there now. Calling it again does nothing.
pub fn quiet_guarded_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                hook(panic);
            }
        }));
    });
}

/// What a panic said: at most 300 characters, in one line. `panic` is what `catch_unwind` or a joined task gives.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    const CHARS_MAX: usize = 300;
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_says_where_and_what() {
        quiet_guarded_panics();
        assert_eq!(guard("fold", || 3), Ok(3));
        let lines = guard("render", || -> u8 { panic!("the deliberate\nfault {}", 1) });
        let expected = Panicked { method: "render", message: "the deliberatefault 1".to_owned() };
        assert_eq!(lines, Err(expected));
        let nothing = guard("merge", || std::panic::panic_any(7_u8)).unwrap_err();
        assert_eq!(nothing.to_string(), "the handler panicked in merge: no message");
        // One within another does not end the outer one's silence.
        let outer = guard("fold", || {
            let _ = guard("merge", || panic!("inner"));
            IS_GUARDED.get()
        });
        assert_eq!((outer, IS_GUARDED.get()), (Ok(true), false));
    }
}
