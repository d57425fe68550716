//! Primaries that are killed, and VBuckets that are lost.

#![expect(clippy::print_stdout, reason = "how much was taken back is printed")]

use std::time::Duration;

use taba_core::{Committed, Store, StoreError, causes};
use taba_shard::census::CensusError;
use taba_shard::keys::slot_of;
use taba_shard::{Adoption, ConnectError, Misplaced, ShardedRedis, Shards};
use taba_tests::redis::RedisCluster;
use taba_tests::{PATIENCE, wait_until};

use super::{store, urls};
use crate::kit::{self, commit, loaded, vbucket};

/// Commits to some VBuckets one after another, as Servers and Agents do: what has no answer is sent again, and what a
/// failover has taken back as well, but for what was stable.
struct Writer {
    store: ShardedRedis,
    counts: Vec<u64>,
    stable: Vec<u64>,
    taken_back: u64,
}

impl Writer {
    async fn round(&mut self) {
        for index in 0..64 {
            let (place, vbucket) = (usize::from(index), vbucket(index));
            let n = self.counts[place];
            let settled = async {
                loop {
                    match self.store.commit(vbucket, commit(n, n + 1, &["a"])).await {
                        Ok(Committed::Done) => return n + 1,
                        Ok(Committed::Conflict { found }) => return found.count,
                        Err(StoreError::Misplaced { .. }) => panic!("{vbucket} is lost"),
                        _ => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            };
            let now = tokio::time::timeout(PATIENCE, settled).await.unwrap();
            assert!(
                now >= self.stable[place],
                "{vbucket} is at {now}, and {} was stable",
                self.stable[place]
            );
            self.taken_back += n.saturating_sub(now);
            self.counts[place] = now;
        }
    }

    async fn prove(&mut self) {
        let all = futures::future::join_all((0..64).map(|index| self.store.stable(vbucket(index)))).await;
        for (place, outcome) in all.into_iter().enumerate() {
            if outcome.is_ok() {
                self.stable[place] = self.counts[place];
            }
        }
    }
}

pub(super) async fn a_killed_primary_is_replaced_and_nothing_stable_is_lost() {
    let mut cluster = RedisCluster::start(3, 1, 2000);
    let mut options = kit::options();
    options.response_timeout = Duration::from_secs(1);
    let store_of = ShardedRedis::connect(urls(&cluster), options).await.unwrap();
    let mut writer = Writer { store: store_of, counts: vec![0; 64], stable: vec![0; 64], taken_back: 0 };
    writer.round().await;
    writer.prove().await;
    assert!(writer.stable.iter().all(|count| *count == 1), "{:?}", writer.stable);
    for _ in 0..10 {
        writer.round().await;
    }
    cluster.nodes[0].kill();
    for _ in 0..10 {
        writer.round().await;
    }
    assert_eq!(cluster.nodes[3].info("replication", "role"), "master");
    println!("{} commits were taken back", writer.taken_back);
    writer.prove().await;
    // It comes back as a replica.
    cluster.nodes[0].restart();
    wait_until("it follows", || cluster.nodes[0].info("replication", "master_link_status") == "up");
    writer.round().await;
    writer.round().await;
    writer.prove().await;
    assert_eq!(writer.stable, writer.counts, "with its replica each is stable again");
    // One that hangs is replaced too, and is left although its connection stands; when it goes on it knows nothing of that.
    cluster.nodes[3].pause();
    writer.round().await;
    assert_eq!(cluster.nodes[0].info("replication", "role"), "master");
    cluster.nodes[3].resume();
    writer.round().await;
    println!("{} commits were taken back", writer.taken_back);
    let fresh = store(&cluster).await;
    for index in 0..64 {
        let n = writer.counts[usize::from(index)];
        assert_eq!(kit::load(&fresh, vbucket(index), &["a"]).await, loaded(n, &["a"]));
    }
}

pub(super) async fn a_vbucket_that_its_node_has_lost_is_named_and_never_made_by_itself() {
    let mut cluster = RedisCluster::start(3, 1, 2000);
    let store = store(&cluster).await;
    let deployment = store.shards().view().deployment();
    let on = |node: usize| {
        let has = |index: &u16| cluster.owner(slot_of(vbucket(*index))) == node;
        vbucket((0..64).find(has).expect("a vbucket of each node"))
    };
    let (gone, other) = (on(1), on(2));
    let (slot, hash) = (slot_of(gone), format!("{{{gone}}}"));
    kit::done(&store, gone, commit(0, 1, &["a"])).await;
    kit::done(&store, other, commit(0, 1, &["a"])).await;
    // All else is on the replica.
    cluster.nodes[3].catch_up(&cluster.nodes[0]);
    // It moves to a node whose replica lags, and the node dies: Redis has deleted it at its source, and nobody has it.
    assert_eq!(cluster.nodes[3].command(&["CONFIG", "SET", "masterauth", "wrong"]), "OK");
    cluster.nodes[0].command(&["CLIENT", "KILL", "TYPE", "replica"]);
    wait_until("the replica is cut off", || {
        cluster.nodes[3].info("replication", "master_link_status") == "down"
    });
    cluster.begin_move(slot, 1, 0);
    cluster.end_move(slot, 1, 0);
    cluster.agree();
    cluster.nodes[0].kill();
    wait_until("the replica is promoted", || cluster.nodes[3].info("replication", "role") == "master");
    let is_missing = |error: &StoreError| match error {
        StoreError::Misplaced { source, .. } => {
            matches!(source.downcast_ref(), Some(Misplaced::Missing { .. }))
        }
        _ => false,
    };
    let refused = async {
        loop {
            match store.commit(gone, commit(1, 2, &["a"])).await {
                Err(error) if is_missing(&error) => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(outcome) => panic!("{outcome:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert!(is_missing(&kit::try_load(&store, gone, &["a"]).await.unwrap_err()));
    assert_eq!(cluster.nodes[3].command(&["EXISTS", &hash]), "0");
    kit::done(&store, other, commit(1, 2, &["a"])).await;
    cluster.nodes[0].restart();
    cluster.nodes[0].wait_for_link();
    cluster.agree();
    let refused = Shards::connect(urls(&cluster), kit::options()).await.unwrap_err();
    let words = causes(&refused);
    assert!(matches!(refused, ConnectError::Census(CensusError::Missing { others: 0, .. })), "{refused:?}");
    assert!(words.contains(&gone.to_string()) && words.contains("taba-server adopt"), "{words}");
    // An operator makes it anew, at the node that has the slot then.
    cluster.begin_move(slot, 3, 1);
    cluster.end_move(slot, 3, 1);
    let plan = Adoption::plan(urls(&cluster), kit::options()).await.unwrap();
    let steps = plan.steps().join("\n");
    let there = format!("redis://127.0.0.1:{}: create empty", cluster.nodes[1].port());
    assert!(steps.contains(&there) && steps.contains(&format!("1 from {gone}")), "{steps}");
    plan.run().await.unwrap();
    assert_eq!(cluster.nodes[1].command(&["HGET", &hash, "ver"]), "0000000000000000-0");
    let again = self::store(&cluster).await;
    assert_eq!(again.shards().view().deployment(), deployment);
    kit::done(&again, gone, commit(0, 1, &["a"])).await;
    assert_eq!(kit::load(&again, other, &["a"]).await, loaded(2, &["a"]));
}
