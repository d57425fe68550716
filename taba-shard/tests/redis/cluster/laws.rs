//! A cluster keeps every law of a store.

use async_trait::async_trait;
use taba_core::laws::store::{self as laws, Fixture};
use taba_shard::ShardedRedis;
use taba_tests::redis::RedisCluster;

use super::{CALM, store};

/// A cluster that is emptied for each law; one node is killed and started again whenever the store is opened again.
struct Nodes {
    cluster: RedisCluster,
    is_open: bool,
}

#[async_trait]
impl Fixture for Nodes {
    type Store = ShardedRedis;
    const DURABLE: bool = true;

    async fn open(&mut self) -> ShardedRedis {
        if std::mem::replace(&mut self.is_open, true) {
            self.cluster.nodes[0].restart();
        }
        store(&self.cluster).await
    }
}

pub(super) async fn every_law_of_a_store_holds() {
    let mut nodes = Nodes { cluster: RedisCluster::start(3, 0, CALM), is_open: false };
    macro_rules! each {
        ($($law:ident)*) => {$(
            for node in &nodes.cluster.nodes {
                assert_eq!(node.command(&["FLUSHALL"]), "OK");
            }
            nodes.is_open = false;
            if let Err(broken) = laws::$law(&mut nodes).await {
                panic!("{broken}");
            }
        )*};
    }
    each!(starts_empty atomic conditional racing durable stable consistent complete ordered paged);
    each!(isolated removing bounded listing upkeep peeked);
}
