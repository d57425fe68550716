//! Slots that move while States and keys of users are written.

#![expect(clippy::print_stdout, reason = "how long it took is printed")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use taba_shard::keys::slot_of;
use taba_shard::{Data, Fenced, Shards, command};
use taba_tests::redis::RedisCluster;

use super::{CALM, urls};
use crate::kit::{self, vbucket};
use crate::moves::Load;

pub(super) async fn slots_move_under_load_and_every_commit_is_done_at_its_first_try() {
    let mut cluster = RedisCluster::start(3, 0, CALM);
    let load = Load::start(urls(&cluster)).await;
    let counters = Counters::start(&cluster).await;
    load.goes_on(3).await;
    println!("before: {}", load.took());
    let held = |cluster: &RedisCluster| -> Vec<usize> {
        let owners: Vec<usize> = (0..64).map(|index| cluster.owner(slot_of(vbucket(index)))).collect();
        (0..cluster.nodes.len()).map(|node| owners.iter().filter(|owner| **owner == node).count()).collect()
    };
    let before = held(&cluster);
    // To a node that comes while it runs, and from there on.
    cluster.add();
    for (from, to) in [(0, 3), (3, 1), (2, 3)] {
        let cluster = &cluster;
        std::thread::scope(|scope| scope.spawn(|| cluster.reshard(from, to, 500)).join()).unwrap();
        println!("slots from node {from} to node {to}: {}", load.took());
    }
    let after = held(&cluster);
    println!("vbuckets of each node: {before:?}, then {after:?}");
    assert_ne!(before, after[..3], "some have moved");
    load.end(urls(&cluster)).await;
    counters.end().await;
}

/// Adds to keys of users until it is told to stop; each command has to be done once, at its first try.
struct Counters {
    data: Data,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<i64>,
}

impl Counters {
    async fn start(cluster: &RedisCluster) -> Self {
        let shards = Shards::connect(urls(cluster), kit::options()).await.unwrap();
        let (data, stop) = (shards.data("test").unwrap(), Arc::<AtomicBool>::default());
        let (to, stopped) = (data.clone(), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut rounds = 0;
            while !stopped.load(Ordering::Relaxed) {
                rounds += 1;
                // Twice each: the order of one key's commands is kept.
                let adds = Self::names().chain(Self::names()).map(|name| (name, 1));
                for (place, sum) in to.increment_many(adds).await.into_iter().enumerate() {
                    assert_eq!(sum.unwrap(), 2 * rounds - i64::from(place < 100));
                }
                let mut transaction = to.transaction();
                let slots = ["{t}a", "{t}b"].map(|key| transaction.add(command::increment(key, 1)).unwrap());
                let mut sums = transaction.run().await.unwrap();
                assert!(slots.into_iter().all(|slot| sums.take(slot).unwrap() == rounds));
            }
            rounds
        });
        Self { data, stop, task }
    }

    fn names() -> impl Iterator<Item = String> {
        (0..100).map(|n| format!("n{n}"))
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let rounds = self.task.await.unwrap();
        let (mut keys, mut cursor) = (BTreeSet::new(), None);
        loop {
            let page = self.data.scan(cursor, 30).await.unwrap();
            keys.extend(page.keys);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(keys.len(), 102, "{keys:?}");
        for sum in self.data.run_all(Self::names().map(command::counter)).await {
            assert_eq!(sum.unwrap(), Some(2 * rounds));
        }
        let lease = self.data.lock("l", Duration::from_secs(9)).await.unwrap();
        assert_eq!(self.data.fenced_set("f", lease.token(), "v").await.unwrap(), Fenced::Done);
        self.data.unlock(lease).await.unwrap();
    }
}
