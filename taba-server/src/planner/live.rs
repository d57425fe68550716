//! [`DecodedState`]: a State in the cache, and how it is stored: in one part, or as a base and what is new since. While it is not
//! used it is [`Packed`].
//!
//! A busy State is large, and each commit changes little of it. So once it is large its bytes are written as a [base](Part::BASE), and
//! from then on events are folded twice: into the State, and into a State of what is new, which is small. A commit writes the new one
//! only. That one grows with every commit; when it is time for the next base, [`NewEvents::is_base_due`] says.
//!
//! A merge of the two is the State, by the laws of every Handler.

mod packed;

use bytes::Bytes;
use taba_core::ledger::Why;
use taba_core::wire::WireError;
use taba_core::{
    AnyState, AnyValues, Arrival, BaseId, Envelope, Folded, Guarded, HandlerError, Panicked, Part, Registry,
    StateError, StateKey, TabType, Timestamp,
};

pub(super) use self::packed::Packed;
use crate::panics::HandlerPanic;

/// A State of fewer bytes is written whole: to divide it saves little, and a second part costs a field and an index entry.
const DIVIDED_BYTES_MIN: usize = 1024;

/// The estimated size of a decoded State relative to its encoding, if its Handler does not say it.
const WEIGHT_PER_BYTE: usize = 3;

/// A cached State.
pub(super) enum CachedSlot {
    /// Not loaded yet.
    Unknown,
    /// Not in the store.
    Absent,
    /// Decoded.
    Live(Box<DecodedState>),
    /// Encoded, as it is stored: it was not used for a while.
    Packed(Packed),
    /// In the store, but unreadable here: it must not be overwritten.
    Unreadable(Why),
    /// In the store, written by a newer build: it must not be overwritten, and Blocks for it wait.
    Newer {
        /// The version of the State.
        found: u16,
        /// The version that this build reads.
        known: u16,
    },
}

/// A decoded State.
pub(super) struct DecodedState {
    pub(super) tab_type: TabType,
    pub(super) handler: Guarded,
    pub(super) events: u64,
    /// Events in it as it is stored; `None`: it is not.
    pub(super) stored_events: Option<u64>,
    /// Whether it changed since the last commit.
    pub(super) is_changed: bool,
    /// Whether a State from outside was merged into it since the last commit.
    pub(super) is_merged: bool,
    state: AnyState,
    stored: StoredForm,
    encoded_bytes: usize,
    /// Bytes of memory that it [took](Self::weigh) when it was last weighed.
    weight: usize,
}

/// How a State is stored now.
enum StoredForm {
    /// In one part, or not at all.
    Whole,
    /// With a base that is of no use here: an older version wrote it.
    OldBase,
    /// With a base.
    Divided(Box<NewEvents>),
}

/// What was folded into a State since its base.
struct NewEvents {
    state: AnyState,
    base: BaseId,
    /// Bytes that were written since the base, as far as is known.
    spent_bytes: usize,
}

/// What to write of a State.
pub(super) struct StateChanges {
    pub(super) whole: Bytes,
    pub(super) base: BaseChange,
    /// The same State packed, if that was wanted and costs no more than a copy.
    pub(super) packed: Option<Packed>,
}

/// What becomes of the stored base.
pub(super) enum BaseChange {
    None,
    Set(Bytes),
    Remove,
}

impl DecodedState {
    /// The State of no events.
    pub(super) fn empty(tab_type: TabType, handler: Guarded) -> Result<Self, Panicked> {
        let state = handler.empty_state()?;
        Ok(Self::new((tab_type, handler), (0, None), state, StoredForm::Whole, 0))
    }

    /// A State of so many events, and how many of them are stored.
    fn new(
        (tab_type, handler): (TabType, Guarded),
        (events, stored_events): (u64, Option<u64>),
        state: AnyState,
        stored: StoredForm,
        encoded_bytes: usize,
    ) -> Self {
        let (is_changed, is_merged, weight) = (false, false, 0);
        Self {
            tab_type,
            handler,
            events,
            stored_events,
            is_changed,
            is_merged,
            state,
            stored,
            encoded_bytes,
            weight,
        }
    }

    /// The State itself.
    pub(super) const fn state(&self) -> &AnyState {
        &self.state
    }

    /// Another one that says the same.
    pub(super) fn copy(&self) -> Result<Self, Panicked> {
        let copied = |state| self.handler.clone_state(state);
        let stored = match &self.stored {
            StoredForm::Whole => StoredForm::Whole,
            StoredForm::OldBase => StoredForm::OldBase,
            StoredForm::Divided(new) => {
                StoredForm::Divided(Box::new(NewEvents { state: copied(&new.state)?, ..**new }))
            }
        };
        let (tab_type, handler) = (self.tab_type.clone(), self.handler.clone());
        Ok(Self { tab_type, handler, state: copied(&self.state)?, stored, ..*self })
    }

    /// Does it to the State, and to what is new in it.
    fn each<T, E>(&mut self, change: impl Fn(&Guarded, &mut AnyState) -> Result<T, E>) -> Result<T, E> {
        if let StoredForm::Divided(new) = &mut self.stored {
            change(&self.handler, &mut new.state)?;
        }
        change(&self.handler, &mut self.state)
    }

    /// [`Guarded::fold_columns`].
    pub(super) fn fold_columns(
        &mut self,
        columns: &Bytes,
        count: usize,
        arrival: Arrival,
    ) -> Result<Folded, HandlerError> {
        self.each(|handler, state| handler.fold_columns(state, columns, count, arrival))
    }

    /// [`Guarded::fold_values`].
    pub(super) fn fold_values(
        &mut self,
        times: &[Timestamp],
        values: &dyn AnyValues,
    ) -> Result<(), HandlerError> {
        self.each(|handler, state| handler.fold_values(state, times, values))
    }

    /// [`Guarded::merge`].
    pub(super) fn merge(&mut self, other: &AnyState) -> Result<(), Panicked> {
        self.each(|handler, state| handler.merge(state, other))
    }

    /// Whether it can be stored, and read again.
    pub(super) fn check(&self) -> Result<(), HandlerError> {
        if let StoredForm::Divided(new) = &self.stored {
            self.handler.encode_readable(&new.state)?;
        }
        self.handler.encode_readable(&self.state).map(drop)
    }

    /// What to write so that the store holds this State. `has_room`: for two pairs; else it is one. `is_to_pack`: the State is not
    /// needed decoded. If it is not committed then, the State is to be loaded again.
    pub(super) fn write(&mut self, has_room: bool, is_to_pack: bool) -> Result<StateChanges, HandlerError> {
        let is_merged = self.is_merged;
        if is_merged {
            // What is stored must be readable, or every later event for it would be refused.
            self.handler.check_readable(&self.state)?;
        }
        if let StoredForm::Divided(new) = &mut self.stored {
            if is_merged {
                self.handler.check_readable(&new.state)?;
            }
            let bytes = self.handler.encode(&new.state)?;
            if !(new.is_base_due(bytes.len()) && has_room) {
                let base = new.base;
                self.encoded_bytes = base.bytes() + bytes.len();
                return Ok(StateChanges {
                    whole: self.envelope(bytes).encode_since(base),
                    base: BaseChange::None,
                    packed: None,
                });
            }
        }
        let bytes = self.handler.encode(&self.state)?;
        self.encoded_bytes = bytes.len();
        if has_room && bytes.len() >= DIVIDED_BYTES_MIN {
            let (base, state) = (BaseId::of(&bytes), self.handler.empty_state()?);
            let whole = self.envelope(self.handler.encode(&state)?).encode_since(base);
            self.stored = StoredForm::Divided(Box::new(NewEvents { state, base, spent_bytes: 0 }));
            // In a box: a store in memory keeps it, without what a `Vec` has to spare.
            let base = BaseChange::Set(bytes.into_boxed_slice().into());
            return Ok(StateChanges { whole, base, packed: None });
        }
        let base = if has_room && !matches!(self.stored, StoredForm::Whole) {
            self.stored = StoredForm::Whole;
            BaseChange::Remove
        } else {
            BaseChange::None
        };
        let is_whole = matches!(self.stored, StoredForm::Whole);
        let can_pack = || is_merged || self.handler.is_readable(&bytes);
        let packed = (is_to_pack && is_whole && can_pack()).then(|| Packed::whole(self.events, &bytes));
        Ok(StateChanges { whole: self.envelope(bytes).encode(), base, packed })
    }

    /// Bytes of memory that it took when it was last weighed.
    pub(super) const fn weight(&self) -> usize {
        self.weight
    }

    /// Weighs it. What its Handler does not tell is estimated by the encoded bytes.
    pub(super) fn weigh(&mut self) {
        let of_state = self.memory_bytes().unwrap_or(WEIGHT_PER_BYTE * self.encoded_bytes);
        self.weight = size_of::<Self>() + of_state;
    }

    /// Bytes of memory that its States take, as far as their Handler knows.
    fn memory_bytes(&self) -> Option<usize> {
        let of = |state| self.handler.memory_bytes(state).ok().flatten();
        let of_new = match &self.stored {
            StoredForm::Divided(new) => size_of::<NewEvents>() + of(&new.state)?,
            StoredForm::Whole | StoredForm::OldBase => 0,
        };
        Some(of(&self.state)? + of_new)
    }

    fn envelope(&self, state: Vec<u8>) -> Envelope {
        Envelope::new(self.tab_type.clone(), self.handler.version(), self.events, state.into())
    }
}

impl NewEvents {
    /// Takes note that this many bytes of it are to be written, and says whether the next base is due. A base for every two times its
    /// bytes is about where bases and what is written between them together are least, whatever the pace: with `n` bytes of a base
    /// and `s` more with every commit that is after `sqrt(2 n / s)` of them, and what is new begins with about as much as it grows by.
    /// After half a base it is due anyhow: for States that come in large pieces, and for Servers that take turns and remember nothing.
    fn is_base_due(&mut self, bytes: usize) -> bool {
        self.spent_bytes += bytes;
        self.spent_bytes >= 2 * self.base.bytes() || 2 * bytes >= self.base.bytes()
    }
}

/// Reads a State from all its parts.
pub(super) fn decode(
    parts: &[(StateKey, Part, Bytes)],
    handlers: &Registry,
    panics: &mut Vec<HandlerPanic>,
) -> CachedSlot {
    let find = |number| parts.iter().find(|(_, part, _)| *part == number).map(|(.., bytes)| bytes);
    if let Some((_, part, _)) = parts.iter().find(|(_, part, _)| *part > Part::BASE) {
        // Only a newer build has such parts.
        return CachedSlot::Newer { found: part.0, known: Part::BASE.0 };
    }
    let Some(whole) = find(Part::WHOLE) else { return CachedSlot::Unreadable(Why::Undecodable) };
    let envelope = match Envelope::read(whole, find(Part::BASE)) {
        Ok(envelope) => envelope,
        Err(WireError::UnknownVersion { found, known }) if found > known => {
            return CachedSlot::Newer { found: found.into(), known: known.into() };
        }
        Err(_) => return CachedSlot::Unreadable(Why::Undecodable),
    };
    let tab_type = envelope.tab_type.clone();
    let Some(handler) = handlers.guarded(tab_type.as_str()) else {
        return CachedSlot::Unreadable(Why::UnknownType);
    };
    let known = handler.version();
    if envelope.version > known {
        return CachedSlot::Newer { found: envelope.version, known };
    }
    match handler.decode_stored(&envelope) {
        Ok((state, new)) => {
            let stored = match (new, envelope.states()) {
                (Some(state), (Some(base), _)) if envelope.version == known => {
                    let new = NewEvents { state, base: BaseId::of(base), spent_bytes: 0 };
                    StoredForm::Divided(Box::new(new))
                }
                _ if parts.len() > 1 => StoredForm::OldBase,
                _ => StoredForm::Whole,
            };
            let encoded_bytes = parts.iter().map(|(.., bytes)| bytes.len()).sum();
            let events = (envelope.events, Some(envelope.events));
            let live = DecodedState::new((tab_type, handler), events, state, stored, encoded_bytes);
            CachedSlot::Live(Box::new(live))
        }
        Err(HandlerError::Panicked(panicked)) => {
            panics.push(HandlerPanic { tab_type, panicked });
            CachedSlot::Unreadable(Why::HandlerPanicked)
        }
        Err(HandlerError::State(StateError::UnknownVersion { .. })) => {
            CachedSlot::Unreadable(Why::UnknownVersion)
        }
        Err(_) => CachedSlot::Unreadable(Why::Undecodable),
    }
}
