//! [`supervise`]: reports when a task of an Agent ends early.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::failure::AgentFailure;
use super::shared::Shared;

/// Runs a task of an Agent: if it panics or ends before the Agent stops, the Agent has failed.
///
/// # Cancel safety
/// When dropped, it aborts the task.
pub(super) async fn supervise(
    part: &'static str,
    shared: Arc<Shared>,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    match tasks.join_next().await {
        Some(Err(error)) if error.is_panic() => {
            shared.fail(AgentFailure::panicked(part, &*error.into_panic()));
        }
        _ => shared.fail_unless_stopping(AgentFailure::ended(part)),
    }
}
