//! A real Redis Cluster as the engine underneath: its slots are moved, and its nodes killed, while it is written to.

mod failover;
mod laws;
mod load;
mod refused;
mod slots;

use std::thread::Builder;

use taba_shard::keys::slot_of;
use taba_shard::{ShardUrl, ShardedRedis};
use taba_tests::redis::RedisCluster;

use crate::kit::{self, vbucket};

/// Long enough that no node of a busy machine is taken for dead.
const CALM: u32 = 10_000;

fn urls(cluster: &RedisCluster) -> Vec<ShardUrl> {
    vec![ShardUrl::new(&cluster.url()).unwrap()]
}

async fn store(cluster: &RedisCluster) -> ShardedRedis {
    ShardedRedis::connect(urls(cluster), kit::options()).await.unwrap()
}

/// Of a VBucket: its slot, the node that has it, and another node.
fn place(cluster: &RedisCluster, index: u16) -> (u16, usize, usize) {
    let slot = slot_of(vbucket(index));
    let from = cluster.owner(slot);
    (slot, from, (from + 1) % 3)
}

/// Runs each of them in a thread of its own, at the same time: they mostly wait for nodes that agree. The thread that
/// fails has its name.
macro_rules! at_once {
    ($($module:ident :: $scenario:ident)*) => {
        std::thread::scope(|scope| {$(
            let run = || {
                let mut runtime = tokio::runtime::Builder::new_multi_thread();
                runtime.worker_threads(2).enable_all().build().unwrap().block_on($module::$scenario());
            };
            Builder::new().name(stringify!($scenario).to_owned()).spawn_scoped(scope, run).unwrap();
        )*})
    };
}

#[test]
fn a_cluster_is_a_store() {
    at_once! {
        laws::every_law_of_a_store_holds
        load::slots_move_under_load_and_every_commit_is_done_at_its_first_try
        slots::of_a_slot_that_is_half_moved_all_or_nothing_is_done_and_the_rest_is_waited_for
        slots::what_is_stable_on_one_node_is_not_taken_for_stable_on_another
        failover::a_killed_primary_is_replaced_and_nothing_stable_is_lost
        failover::a_vbucket_that_its_node_has_lost_is_named_and_never_made_by_itself
        refused::what_is_no_cluster_or_no_whole_one_is_refused_and_says_why
    }
}
