//! Waits until commits are safe.

use std::time::Duration;

use taba_core::{StoreError, VBucket};

use super::ShardedRedis;
use super::read::unavailable;
use crate::stability::StabilityLost;

/// Waits for this process's last commit: each commit follows on the one before, so the last proves all. Where that
/// chain may be broken (see `commit::done`), one wait fails, because it may be about a lost commit.
pub(super) async fn stable(store: &ShardedRedis, vbucket: VBucket) -> Result<(), StoreError> {
    let link = store.shards.link(store.owner(vbucket).await?.shard);
    let last = {
        let mut memory = store.memory(vbucket);
        if std::mem::take(&mut memory.is_broken) {
            return Err(lost(StabilityLost::Rewritten));
        }
        memory.last
    };
    let epoch = match last {
        Some((_, epoch)) => epoch,
        None => link.epoch().await.map_err(unavailable)?,
    };
    link.stable(epoch, store.shards.options()).await.map_err(unavailable)?.map_err(lost)
}

fn lost(why: StabilityLost) -> StoreError {
    StoreError::Unavailable { retry_after: Duration::from_millis(100), source: Box::new(why) }
}
