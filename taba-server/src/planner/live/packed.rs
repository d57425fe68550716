//! [`Packed`]: a State that was not used for a while, in about as many bytes as it takes in a store.

use taba_core::{BaseId, Guarded, HandlerError, TabType};

use super::{DecodedState, NewEvents, StoredForm};

/// Bytes before the encoded State: how many events it holds.
const EVENTS_BYTES: usize = 8;

/// A committed State, encoded by the Handler that decodes it again: it never leaves this process. Its Tab knows its type.
pub(in crate::planner) enum Packed {
    /// The number of its events, and the State.
    Whole(Box<[u8]>),
    /// It is stored with a base.
    Divided(Box<PackedParts>),
}

/// A State that is stored with a base.
pub(in crate::planner) struct PackedParts {
    whole: Box<[u8]>,
    /// What was folded into it since its base.
    new: Box<[u8]>,
    base: BaseId,
    spent_bytes: usize,
}

impl Packed {
    /// The State of so many events, of which these are the bytes.
    pub(super) fn whole(events: u64, state: &[u8]) -> Self {
        Self::Whole(with_events(events, state))
    }

    /// Bytes of memory that it takes.
    pub(in crate::planner) const fn weight(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Divided(parts) => size_of::<PackedParts>() + parts.whole.len() + parts.new.len(),
        }
    }

    /// The State, which is stored as it is.
    pub(in crate::planner) fn unpack(
        &self,
        tab_type: TabType,
        handler: Guarded,
    ) -> Result<DecodedState, HandlerError> {
        let decode = |bytes| handler.decode(handler.version(), bytes);
        let (whole, stored, bytes) = match self {
            Self::Whole(whole) => (whole, StoredForm::Whole, whole.len()),
            Self::Divided(parts) => {
                let PackedParts { base, spent_bytes, .. } = **parts;
                let new = NewEvents { state: decode(&parts.new)?, base, spent_bytes };
                (&parts.whole, StoredForm::Divided(Box::new(new)), base.bytes() + parts.new.len())
            }
        };
        let (events, state) = whole.split_first_chunk::<EVENTS_BYTES>().expect("it was packed here");
        let (events, state) = (u64::from_le_bytes(*events), decode(state)?);
        Ok(DecodedState::new((tab_type, handler), (events, Some(events)), state, stored, bytes))
    }
}

impl DecodedState {
    /// Packs a State that is stored as it is; `None`: it is to stay as it is.
    pub(in crate::planner) fn pack(&self) -> Result<Option<Packed>, HandlerError> {
        let encoded = |state| {
            let bytes = self.handler.encode(state)?;
            Ok::<_, HandlerError>(self.handler.is_readable(&bytes).then_some(bytes))
        };
        let Some(whole) = encoded(&self.state)? else { return Ok(None) };
        let whole = with_events(self.events, &whole);
        match &self.stored {
            StoredForm::OldBase => Ok(None),
            StoredForm::Whole => Ok(Some(Packed::Whole(whole))),
            StoredForm::Divided(new) => Ok(encoded(&new.state)?.map(|bytes| {
                let NewEvents { base, spent_bytes, .. } = **new;
                Packed::Divided(Box::new(PackedParts { whole, new: bytes.into(), base, spent_bytes }))
            })),
        }
    }
}

fn with_events(events: u64, state: &[u8]) -> Box<[u8]> {
    [&events.to_le_bytes(), state].concat().into()
}
