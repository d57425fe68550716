//! [`PartialState`]: a State that holds some of a Tab's pending events.

use taba_core::{AnyHandler, AnyState, Timestamp};

/// Approximate bytes of a State in memory per encoded byte, measured with the standard types.
const STATE_BYTES_PER_ENCODED: usize = 4;
/// The least bytes of a State.
const STATE_BYTES_MIN: usize = 256;
/// Bytes of an encoded State besides its encoding.
const PACKED_BYTES_MIN: usize = 64;

/// A State that holds some of the events.
pub(super) struct PartialState {
    pub(super) form: PartialForm,
    pub(super) events: u64,
    pub(super) earliest: Timestamp,
    pub(super) latest: Timestamp,
    pub(super) bytes: usize,
    /// How many events it holds when it is measured again.
    pub(super) measure_at: u64,
}

/// A State in memory.
pub(super) enum PartialForm {
    /// Ready to be folded into.
    Live(AnyState),
    /// Encoded, which takes a fraction of the memory.
    Packed(Vec<u8>),
}

impl PartialForm {
    /// The State, with this many events.
    pub(super) fn into_state(self, events: u64, handler: &dyn AnyHandler) -> Result<AnyState, String> {
        match self {
            Self::Live(state) => Ok(state),
            Self::Packed(bytes) if bytes.is_empty() && events == 0 => Ok(handler.empty_state()),
            Self::Packed(bytes) => {
                handler.decode(handler.version(), &bytes).map_err(|error| error.to_string())
            }
        }
    }
}

impl PartialState {
    /// No events. The form is the encoding of no State, which costs nothing to make.
    pub(super) fn empty(time: Timestamp) -> Self {
        let form = PartialForm::Packed(Vec::new());
        Self { form, events: 0, earliest: time, latest: time, bytes: 0, measure_at: 0 }
    }

    /// Both as one.
    #[cfg(any(test, feature = "driver"))]
    pub(super) fn merge(self, other: Self, handler: &dyn AnyHandler) -> Result<Self, String> {
        let mut state = self.form.into_state(self.events, handler)?;
        handler.merge(&mut state, &other.form.into_state(other.events, handler)?);
        let mut merged = Self {
            form: PartialForm::Live(state),
            events: self.events + other.events,
            earliest: self.earliest.min(other.earliest),
            latest: self.latest.max(other.latest),
            ..self
        };
        merged.measure(handler);
        Ok(merged)
    }

    /// Finds out how many bytes it takes, now and then.
    pub(super) fn measure(&mut self, handler: &dyn AnyHandler) {
        // A State grows at most with its events, so measuring at every doubling is never off by more than two.
        if self.events < self.measure_at {
            return;
        }
        if let PartialForm::Live(state) = &self.form {
            self.bytes = STATE_BYTES_MIN + STATE_BYTES_PER_ENCODED * handler.encode(state).len();
            self.measure_at = self.events * 2;
        }
    }

    /// The same, encoded.
    pub(super) fn pack(self, handler: &dyn AnyHandler) -> Self {
        let PartialForm::Live(state) = &self.form else { return self };
        let mut packed = handler.encode(state);
        packed.shrink_to_fit();
        let bytes = PACKED_BYTES_MIN + packed.len();
        Self { form: PartialForm::Packed(packed), bytes, measure_at: 0, ..self }
    }
}
