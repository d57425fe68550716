//! [`ShardSlot`]: one shard: the Redis that is its primary now, perhaps a replica, and the way of the replica to it.

use std::path::Path;

use super::plan::Plan;
use crate::dice::chance;
use crate::link::Link;
use crate::redis::{Options, Redis, Reply};

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
    ///
    /// `repl-timeout` is 10 s: so long a primary without its replica goes on, and no fault here lasts longer.
    pub(super) fn start(n: usize, plan: &Plan, directory: &Path) -> Self {
        let start = |which: &str| {
            let log = directory.join(format!("redis-{n}{which}.log"));
            let extra = ["--repl-timeout", "10", "--repl-ping-replica-period", "1", "--logfile"];
            let extra = extra.into_iter().map(str::to_owned).chain([log.display().to_string()]);
            Redis::start(Options { aof: plan.aof, extra: extra.collect(), ..Options::default() })
        };
        let mut shard = Self { primary: start("a"), replica: None };
        if plan.has_replicas {
            shard.follow(start("b"), chance(plan.seed, 3000 + n as u64));
        }
        shard
    }

    /// Makes this Redis, whatever it held, a replica of the primary, and waits until it follows.
    pub fn follow(&mut self, redis: Redis, seed: u64) {
        let link = Link::start(self.primary.port(), seed);
        redis.command(&["REPLICAOF", "127.0.0.1", &link.port().to_string()]);
        redis.wait_for_link();
        self.replica = Some(Replica { redis, link });
    }

    /// Allows the primary no more memory, whatever it has.
    pub fn fill_up(&self) {
        self.primary.command(&["CONFIG", "SET", "maxmemory", "1"]);
    }

    /// Allows the primary all the memory that there is.
    pub fn make_room(&self) {
        self.primary.command(&["CONFIG", "SET", "maxmemory", "0"]);
    }

    /// Deletes every index key, as somebody who tidies up might; returns how many there were.
    ///
    /// # Panics
    /// When Redis does not answer.
    pub fn lose_indexes(&self) -> u64 {
        let Ok(Reply::List(Some(keys))) = self.primary.try_command(&[b"KEYS", b"{vb????}.*"]) else {
            panic!("a redis-server does not answer KEYS");
        };
        let names = keys
            .iter()
            .filter_map(|key| if let Reply::Bulk(Some(name)) = key { Some(&name[..]) } else { None });
        let delete: Vec<&[u8]> = [&b"DEL"[..]].into_iter().chain(names).collect();
        if delete.len() == 1 {
            return 0;
        }
        let Ok(Reply::Integer(deleted)) = self.primary.try_command(&delete) else {
            panic!("a redis-server does not delete keys");
        };
        deleted.unsigned_abs()
    }

    /// Makes the replica the primary, as it stands; returns the former primary. Nobody is told.
    ///
    /// # Panics
    /// When there is no replica.
    pub fn promote(&mut self) -> Redis {
        let Replica { redis, link } = self.replica.take().expect("there is a replica");
        // First the way: what waits there must not arrive any more.
        drop(link);
        redis.promote();
        std::mem::replace(&mut self.primary, redis)
    }
}
