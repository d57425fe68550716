//! [`ShardSlot`]: one shard: the Redis that is its primary now, perhaps a replica, and the way of the replica to it.

use std::path::Path;

use super::plan::Plan;
use super::redis::Redis;
use crate::dice::chance;
use crate::link::Link;
use crate::wait_until;

/// One shard.
#[derive(Debug)]
pub struct ShardSlot {
    /// Who owns the VBuckets now.
    pub primary: Redis,
    /// Who follows, if anybody does.
    pub replica: Option<Replica>,
}

/// A Redis that follows another.
#[derive(Debug)]
pub struct Replica {
    /// The process.
    pub redis: Redis,
    /// Its way to its primary. Stalled, it lags without anybody noticing; cut then, what waited is lost.
    pub link: Link,
}

impl ShardSlot {
    /// Starts it, and waits until the replica follows.
    pub(super) fn start(n: usize, plan: &Plan, directory: &Path) -> Self {
        let mut primary = Redis::new(format!("redis-{n}a"), plan.append_fsync, directory);
        primary.start(None);
        let mut shard = Self { primary, replica: None };
        if plan.has_replicas {
            let redis = Redis::new(format!("redis-{n}b"), plan.append_fsync, directory);
            shard.follow(redis, chance(plan.seed, 3000 + n as u64));
        }
        shard
    }

    /// Makes this Redis, whatever it held, a replica of the primary, and waits until it follows.
    pub fn follow(&mut self, mut redis: Redis, seed: u64) {
        let link = Link::start(self.primary.port, seed);
        if redis.is_up() {
            redis.must(&["REPLICAOF", "127.0.0.1", &link.port().to_string()]);
        } else {
            redis.start(Some(link.port()));
        }
        wait_until(&format!("{} follows", redis.name), || {
            redis.info("replication", "master_link_status").is_some_and(|status| status == "up")
        });
        self.replica = Some(Replica { redis, link });
    }

    /// Makes the replica the primary, as it stands; returns the former primary. Nobody is told.
    ///
    /// # Panics
    /// When there is no replica.
    pub fn promote(&mut self) -> Redis {
        let Replica { redis, link } = self.replica.take().expect("there is a replica");
        // First the way: what waits there must not arrive any more.
        drop(link);
        redis.must(&["REPLICAOF", "NO", "ONE"]);
        std::mem::replace(&mut self.primary, redis)
    }
}
