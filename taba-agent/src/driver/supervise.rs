//! [`supervise`] watches over the tasks of an Agent.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::failure::AgentFailure;
use super::shared::Shared;

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
            shared.fail(AgentFailure::panicked(part, &*error.into_panic()));
        }
        _ => shared.fail_unless_stopping(AgentFailure::ended(part)),
    }
}
