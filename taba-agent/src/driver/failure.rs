//! [`Failure`]: why an Agent ended that was not told to; [`supervise`] watches over its tasks.

use std::any::Any;
use std::sync::Arc;

use taba_core::guard::panic_message;
use tokio::task::JoinSet;

use super::shared::Shared;

/// Why an Agent ended that was not told to. It takes nothing any more; what it had told Clients is in its Spool, and
/// Clients keep the rest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} of the agent failed: {why}")]
#[non_exhaustive]
pub struct Failure {
    /// What failed: `the pump`, `the listener`, `the disk thread`, `a request`.
    pub part: &'static str,
    /// What it said.
    pub why: String,
}

impl Failure {
    pub(super) fn ended(part: &'static str) -> Self {
        Self { part, why: "it ended, and nobody had told it to".to_owned() }
    }

    pub(super) fn panicked(part: &'static str, panic: &(dyn Any + Send)) -> Self {
        Self { part, why: format!("it panicked: {}", panic_message(panic)) }
    }
}

/// Runs a task that is to run as long as the Agent does: if it panics or ends before that, the Agent has failed.
///
/// # Cancel safety
/// Dropped, it aborts the task.
pub(super) async fn supervise(
    part: &'static str,
    shared: Arc<Shared>,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    match tasks.join_next().await {
        Some(Err(error)) if error.is_panic() => {
            shared.fail(Failure::panicked(part, &*error.into_panic()));
        }
        _ => shared.fail_unless_stopping(Failure::ended(part)),
    }
}
