//! `ShardedRedis` keeps every law of a store, on 1, 2 and 8 real Redis processes that are killed and started again
//! whenever the store is opened again.

use async_trait::async_trait;
use taba_core::laws::store::Fixture;
use taba_shard::ShardedRedis;
use taba_tests::redis::{Aof, Options, Redis};

use crate::kit;

struct Processes {
    redis: Vec<Redis>,
    is_open: bool,
}

impl Processes {
    fn start(count: usize) -> Self {
        // With a sync every second a Redis may hold back what it has answered while a slow disk syncs, and loses it when it is
        // killed: that is a failover, and not this law.
        let options = Options { aof: Aof::No, ..Options::durable() };
        Self { redis: Redis::start_many(count, &options), is_open: false }
    }
}

#[async_trait]
impl Fixture for Processes {
    type Store = ShardedRedis;
    const DURABLE: bool = true;

    async fn open(&mut self) -> ShardedRedis {
        if std::mem::replace(&mut self.is_open, true) {
            self.redis.iter_mut().for_each(Redis::restart);
        }
        ShardedRedis::connect(kit::urls(&self.redis), kit::options()).await.unwrap()
    }
}

taba_core::store_laws!(one_process, Processes::start(1));
taba_core::store_laws!(two_processes, Processes::start(2));
taba_core::store_laws!(eight_processes, Processes::start(8));
