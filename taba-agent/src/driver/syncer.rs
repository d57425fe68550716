//! The loops that make the Spool safe: one write for all that came since the last, one sync for all that was written.

use std::io;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::shared::Shared;
use crate::spool::SyncPolicy;

/// Hands to the disk whatever was taken, for as long as the Agent runs. What comes while it does so goes together.
pub(super) async fn flush(shared: Arc<Shared>) {
    loop {
        shared.taken.notified().await;
        shared.flush();
    }
}

/// Syncs the Spool as often as its policy wants, for as long as the Agent runs.
///
/// # Cancel safety
/// Safe: a sync under way comes to its end, and nobody hears of it; what it made durable is synced again.
pub(super) async fn sync(shared: Arc<Shared>) {
    loop {
        shared.written.notified().await;
        if shared.config.spool_sync == SyncPolicy::Interval {
            sleep(shared.config.spool_sync_interval).await;
        }
        sync_once(&shared).await;
    }
}

/// Syncs what was written so far.
pub(super) async fn sync_once(shared: &Arc<Shared>) {
    let Some(job) = shared.sync_job() else { return };
    let outcome = spawn_blocking(job.run).await.unwrap_or_else(|stopped| Err(io::Error::other(stopped)));
    if let Err(error) = &outcome {
        tracing::error!(%error, "the spool could not be synced; the agent takes nothing more and has to be started anew");
    }
    shared.synced(job.position, outcome);
}
