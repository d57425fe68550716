//! [`AgentFailure`]: why an Agent ended by itself.

use std::any::Any;

use taba_core::guard::panic_message;

/// Why an Agent ended without being asked to. It accepts nothing more; what it acknowledged is in its Spool, and
/// Clients keep the rest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} of the agent failed: {why}")]
#[non_exhaustive]
pub struct AgentFailure {
    /// The failed part: `the pump`, `the listener`, `the disk thread`, `a request`.
    pub part: &'static str,
    /// The reason.
    pub why: String,
}

impl AgentFailure {
    pub(super) fn ended(part: &'static str) -> Self {
        Self { part, why: "it ended, and nobody had told it to".to_owned() }
    }

    pub(super) fn panicked(part: &'static str, panic: &(dyn Any + Send)) -> Self {
        Self { part, why: format!("it panicked: {}", panic_message(panic)) }
    }
}

/// A thread panicked while it held the Relay, which may be inconsistent and is not used again.
#[derive(Debug)]
pub(super) struct Poisoned;
