//! [`StateFault`]: a State that could not be read. It is reported and counted; all others are answered.

use std::collections::BTreeSet;

use serde::Serialize;
use taba_core::{ClientId, HandlerError, Panicked, StateError, TabName, TabType};

use super::missing::MissingPart;

/// An item of a streamed answer.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryItem<T> {
    /// A result.
    Row(T),
    /// States that could not be read.
    Fault(StateFault),
    /// The unreadable part of the store; comes last.
    Missing(MissingPart),
}

/// Unreadable States of a Tab, which are in no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StateFault {
    /// The Tab.
    pub name: TabName,
    /// The first of their Clients.
    pub client: ClientId,
    /// The code: `unknown_type`, `unknown_version`, `type_conflict`, `damaged` or `handler_panicked`.
    pub reason: &'static str,
    /// The reason, for people.
    pub message: String,
    /// The number of States of the Tab with this fault.
    pub states: u64,
    /// Their Clients.
    #[serde(skip)]
    pub clients: BTreeSet<ClientId>,
}

/// Why a State cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("no handler is registered for the type {0}")]
    UnknownType(TabType),
    #[error("the state is of type {found}, but the tab is a {known}")]
    TypeConflict { found: TabType, known: TabType },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
    #[error("the stored state is damaged")]
    Envelope,
}

impl Unreadable {
    pub(super) fn fault(&self, name: TabName, client: ClientId) -> StateFault {
        let reason = match self {
            Self::UnknownType(_) => "unknown_type",
            Self::TypeConflict { .. } => "type_conflict",
            Self::State(StateError::UnknownVersion { .. }) => "unknown_version",
            Self::State(_) | Self::Envelope => "damaged",
            Self::Panicked(_) => "handler_panicked",
        };
        let clients = [client.clone()].into();
        StateFault { name, client, reason, message: self.to_string(), states: 1, clients }
    }
}

impl From<HandlerError> for Unreadable {
    fn from(error: HandlerError) -> Self {
        match error {
            HandlerError::Panicked(panicked) => Self::Panicked(panicked),
            HandlerError::State(error) => Self::State(error),
            _ => Self::Envelope,
        }
    }
}

/// Merges a fault into those of the same Tab: one line for 10,000 States of an unknown type.
pub(super) fn add(faults: &mut Vec<StateFault>, fault: StateFault) {
    match faults.iter_mut().find(|known| known.reason == fault.reason && known.name == fault.name) {
        Some(known) => {
            known.states += fault.states;
            known.clients.extend(fault.clients);
        }
        None => faults.push(fault),
    }
}
