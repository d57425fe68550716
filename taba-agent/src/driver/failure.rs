//! [`AgentFailure`]: why an Agent ended that was not told to.

use std::any::Any;

use taba_core::guard::panic_message;

/// Why an Agent ended without being asked to. It takes nothing any more; what it had told Clients is in its Spool, and
/// Clients keep the rest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} of the agent failed: {why}")]
#[non_exhaustive]
pub struct AgentFailure {
    /// What failed: `the pump`, `the listener`, `the disk thread`, `a request`.
    pub part: &'static str,
    /// What it said.
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

/// A thread panicked while it held the Relay, which may be half changed: it is not used again.
#[derive(Debug)]
pub(super) struct Poisoned;
