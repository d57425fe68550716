//! Following a VBucket that moves: who meets the fence waits until one of the two shards owns it, and goes on there.

use std::time::Instant;

use taba_core::{StoreError, VBucket};

use super::ShardedRedis;
use super::read::Misplaced;
use crate::census::Owner;
use crate::limits::{MOVE_POLL_MAX, MOVE_POLL_MIN, MOVE_WAIT_MAX};
use crate::map::{ShardId, ShardName};
use crate::migration::{MoveEnd, owner_of};
use crate::redis::{FoundHead, LinkError, monotonic, read_head};

/// How often an operation is begun again because a shard was connected to anew.
const RECONNECTS_MAX: usize = 3;

/// Why an operation was refused, where it may be done elsewhere.
enum Reroute {
    Moved {
        shard: ShardId,
        epoch: u64,
        to: ShardName,
    },
    /// The same shard, a higher epoch: it went away and came back.
    Renewed(Owner),
    Reconnected,
}

impl ShardedRedis {
    /// Runs it; where the VBucket turns out to be moving, waits for the switch and runs it again. What was refused has
    /// changed nothing.
    pub(super) async fn settled<T, F>(&self, vbucket: VBucket, run: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let until = monotonic() + MOVE_WAIT_MAX;
        let mut reconnects = 0;
        loop {
            let error = match self.relisting(vbucket, &run).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            match reroute(&error) {
                Some(Reroute::Moved { shard, epoch, to }) => {
                    if !self.await_switch(vbucket, shard, epoch, to, until).await? {
                        return Err(error);
                    }
                }
                Some(Reroute::Renewed(owner)) if monotonic() < until => {
                    self.shards.found_owner(vbucket, owner);
                }
                Some(Reroute::Reconnected) if reconnects < RECONNECTS_MAX => reconnects += 1,
                _ => return Err(error),
            }
        }
    }

    /// Waits until the source or the destination of a move owns the VBucket; `false` when neither does in time.
    async fn await_switch(
        &self,
        vbucket: VBucket,
        mut from: ShardId,
        mut fence: u64,
        mut to: ShardName,
        until: Instant,
    ) -> Result<bool, StoreError> {
        let mut pause = MOVE_POLL_MIN;
        loop {
            if self.shards.id_of(to).is_none() {
                self.shards.refresh_map().await.map_err(|error| StoreError::Unavailable {
                    retry_after: MOVE_POLL_MAX,
                    source: Box::new(error),
                })?;
            }
            let destination = self.shards.id_of(to);
            let at = |shard: ShardId| {
                let link = self.shards.link(shard);
                async move { read_head(&link, vbucket).await }
            };
            // A shard that does not answer has nothing to say; the other one may.
            let source = at(from).await.ok();
            let there = match destination {
                Some(shard) => at(shard).await.ok(),
                None => None,
            };
            let head = |found: &Option<FoundHead>| found.as_ref().and_then(|found| found.head);
            if let Some((end, epoch)) =
                owner_of(head(&source), head(&there)).filter(|(_, epoch)| *epoch >= fence)
            {
                let (shard, found) = match (end, destination) {
                    (MoveEnd::Destination, Some(shard)) => (shard, there),
                    _ => (from, source),
                };
                if let Some(found) = found {
                    self.shards.link(shard).answered_head(found.connection);
                    let mut memory = self.memory(vbucket);
                    // What this process committed last is there, so what comes next follows on it.
                    if let Some((version, connection)) = &mut memory.last
                        && Some(*version) == found.version
                    {
                        *connection = found.connection;
                    }
                }
                self.shards.found_owner(vbucket, Owner { shard, epoch });
                return Ok(true);
            }
            // It went on from there before this was looked at.
            if let (Some(shard), Some((epoch, onward))) =
                (destination, head(&there).and_then(|head| head.moved))
                && epoch > fence
            {
                (from, fence, to) = (shard, epoch, onward);
                continue;
            }
            if monotonic() >= until {
                return Ok(false);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(MOVE_POLL_MAX);
        }
    }
}

/// Where an operation that was refused may be done.
fn reroute(error: &StoreError) -> Option<Reroute> {
    match error {
        StoreError::Misplaced { source, .. } => match source.downcast_ref()? {
            Misplaced::Moved { shard, epoch, to } => {
                Some(Reroute::Moved { shard: *shard, epoch: *epoch, to: *to })
            }
            Misplaced::NotOwner { shard, found, expected } if found > expected => {
                Some(Reroute::Renewed(Owner { shard: *shard, epoch: *found }))
            }
            _ => None,
        },
        StoreError::Unavailable { source, .. } => {
            matches!(source.downcast_ref(), Some(LinkError::Reconnected { .. }))
                .then_some(Reroute::Reconnected)
        }
        _ => None,
    }
}
