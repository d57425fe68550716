//! Waits until commits are safe: the driver of [`StabilityWait`].

use std::time::Duration;

use taba_core::{StoreError, VBucket};

use super::ShardedRedis;
use super::read::unavailable;
use crate::redis::monotonic;
use crate::stability::{StabilityLost, StabilityVerdict, StabilityWait};

/// Waits for this process's last commit: each commit follows on the one before, so the last proves all. Where that
/// chain may be broken (see `commit::done`), one wait fails, because it may be about a lost commit.
pub(super) async fn stable(store: &ShardedRedis, vbucket: VBucket) -> Result<(), StoreError> {
    let begun = monotonic();
    let options = store.shards.options();
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
    let mut wait = StabilityWait::new(begun, epoch, options.stability);
    let mut since = begun;
    loop {
        let poll = link.poll(since).await.map_err(unavailable)?;
        since = poll.started + Duration::from_nanos(1);
        match wait.handle(&poll) {
            StabilityVerdict::Stable => return Ok(()),
            StabilityVerdict::Lost(why) => return Err(lost(why)),
            StabilityVerdict::Pending => {}
        }
        if let StabilityVerdict::Lost(why) = wait.expire(monotonic(), options.stable_wait_max) {
            return Err(lost(why));
        }
    }
}

fn lost(why: StabilityLost) -> StoreError {
    StoreError::Unavailable { retry_after: Duration::from_millis(100), source: Box::new(why) }
}
