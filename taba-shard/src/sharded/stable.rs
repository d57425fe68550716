//! Waits until commits are safe.

use std::time::Duration;

use redis::Pipeline;
use taba_core::{StoreError, VBucket};

use super::ShardedRedis;
use super::read::unavailable;
use crate::census::Owner;
use crate::command::Reply;
use crate::limits::CLUSTER_STABLE_INTERVAL;
use crate::redis::{ShardLink, accepted};
use crate::stability::StabilityLost;
use crate::{keys, layout};

/// Waits for this process's last commit: each commit follows on the one before, so the last proves all. Where that
/// chain may be broken (see `commit::done`), one wait fails, because it may be about a lost commit.
pub(super) async fn stable(store: &ShardedRedis, vbucket: VBucket) -> Result<(), StoreError> {
    if let Some(cluster) = store.shards.cluster() {
        cluster.try_refresh(CLUSTER_STABLE_INTERVAL).await;
    }
    let owner = store.owner(vbucket).await?;
    let link = store.shards.link(owner.shard);
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
    if !store.shards.is_cluster() {
        link.stable(epoch, store.shards.options()).await.map_err(unavailable)?.map_err(lost)?;
        return owned(store, vbucket, owner, epoch).await;
    }
    // A slot that left this node meanwhile, or left and came back, is on the replicas of this node as it was before, or not
    // at all. Whoever imports a slot gets a new configuration epoch.
    let mut before = holding(&link, vbucket, epoch).await?;
    loop {
        link.stable(epoch, store.shards.options()).await.map_err(unavailable)?.map_err(lost)?;
        let after = holding(&link, vbucket, epoch).await?;
        if before == after {
            return Ok(());
        }
        before = after;
    }
}

/// Whether what is stable on the shard that owned it, over this connection, is so on the one that owns it.
async fn owned(store: &ShardedRedis, vbucket: VBucket, owner: Owner, epoch: u64) -> Result<(), StoreError> {
    if store.shards.count() == 1 || store.shards.link(owner.shard).is_settled(epoch) {
        return Ok(());
    }
    let is_known = store.shards.ask_again(owner.shard, epoch).await;
    if is_known && store.owner(vbucket).await? == owner { Ok(()) } else { Err(lost(StabilityLost::Unasked)) }
}

/// The configuration epoch of a Cluster node that has a VBucket.
///
/// # Errors
/// When it has it no more, or is another process than the one of this connection.
async fn holding(link: &ShardLink, vbucket: VBucket, epoch: u64) -> Result<String, StoreError> {
    let mut questions = Pipeline::with_capacity(2);
    questions.cmd("HGET").arg(keys::hash(vbucket)).arg(layout::VERSION);
    questions.cmd("CLUSTER").arg("INFO");
    let mut replies = link.send(&questions, Some(epoch)).await.map_err(unavailable)?.replies.into_iter();
    match (replies.next(), replies.next()) {
        (Some(Reply::Bytes(_)), Some(Reply::Bytes(info))) => {
            let info = String::from_utf8_lossy(&info).into_owned();
            let epoch = info.lines().find_map(|line| line.strip_prefix("cluster_my_epoch:"));
            epoch.map(str::to_owned).ok_or_else(|| lost(StabilityLost::SlotMoved))
        }
        (Some(Reply::Bytes(_)), Some(refused @ Reply::Refused { .. })) => {
            accepted(link.shard(), refused).map(|_| String::new()).map_err(unavailable)
        }
        _ => Err(lost(StabilityLost::SlotMoved)),
    }
}

fn lost(why: StabilityLost) -> StoreError {
    StoreError::Unavailable { retry_after: Duration::from_millis(100), source: Box::new(why) }
}
