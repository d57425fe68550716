//! A slot that is half moved, and what is stable when one has moved.

use std::time::Duration;

use taba_core::{Committed, Remedy, Store, causes};
use taba_shard::keys::slot_of;
use taba_tests::redis::RedisCluster;
use taba_tests::wait_until;

use super::{CALM, place, store};
use crate::kit::{self, commit, loaded, vbucket};

/// Whether it is still waiting after a while.
async fn waits(future: impl Future + Unpin) -> bool {
    tokio::time::timeout(Duration::from_millis(500), future).await.is_err()
}

pub(super) async fn of_a_slot_that_is_half_moved_all_or_nothing_is_done_and_the_rest_is_waited_for() {
    let cluster = RedisCluster::start(3, 0, CALM);
    let store = store(&cluster).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    let (slot, from, to) = place(&cluster, 1);
    cluster.begin_move(slot, from, to);
    // Nothing has left yet: what is there is answered there, and what needs an index that is not there waits.
    kit::done(&store, vbucket(1), commit(1, 2, &["a"])).await;
    cluster.move_key("{vb0001}", from, to);
    kit::done(&store, vbucket(1), commit(2, 3, &["a"])).await;
    let left = cluster.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "10"]);
    assert!(!left.lines().any(|key| key == "{vb0001}") && left.contains(".streams"), "{left}");
    // A commit of a new Tab needs its indexes, which are neither here nor there.
    let mut indexed = Box::pin(store.commit(vbucket(1), commit(3, 4, &["a", "b"])));
    let mut loading = Box::pin(kit::load(&store, vbucket(1), &["a"]));
    assert!(waits(&mut indexed).await && waits(&mut loading).await);
    // What was committed after `ASKING` is nowhere called stable before the slot has arrived.
    assert!(store.stable(vbucket(1)).await.is_err());
    cluster.end_move(slot, from, to);
    assert_eq!(indexed.await.unwrap(), Committed::Done);
    loading.await;
    assert_eq!(kit::load(&store, vbucket(1), &["a", "b"]).await, loaded(4, &["a", "b"]));
    kit::done(&store, vbucket(1), commit(4, 5, &["a", "b"])).await;
    store.stable(vbucket(1)).await.unwrap();
    // Not for ever: after its time is over it is refused, and nothing is done.
    cluster.begin_move(slot, to, from);
    cluster.move_key("{vb0001}.streams", to, from);
    let error = kit::try_load(&store, vbucket(1), &["a"]).await.unwrap_err();
    assert!(matches!(error.remedy(), Remedy::Wait(_)) && causes(&error).contains("TRYAGAIN"), "{error:?}");
    cluster.end_move(slot, to, from);
    assert_eq!(kit::load(&store, vbucket(1), &["a", "b"]).await, loaded(5, &["a", "b"]));
}

pub(super) async fn what_is_stable_on_one_node_is_not_taken_for_stable_on_another() {
    let cluster = RedisCluster::start(3, 1, CALM);
    let (store, replica) = (store(&cluster).await, &cluster.nodes[3]);
    let on_first = (0..64).find(|index| cluster.owner(slot_of(vbucket(*index))) == 0).unwrap();
    let vbucket = vbucket(on_first);
    let slot = slot_of(vbucket);
    let go = |from, to| {
        cluster.begin_move(slot, from, to);
        cluster.end_move(slot, from, to);
    };
    kit::done(&store, vbucket, commit(0, 1, &["a"])).await;
    store.stable(vbucket).await.unwrap();
    let replica_has_all = || {
        let offset = cluster.nodes[0].info("replication", "master_repl_offset");
        wait_until("the replica has it", || {
            cluster.nodes[0].info("replication", "slave0").contains(&format!("offset={offset}"))
        });
    };
    // It leaves while somebody waits.
    kit::done(&store, vbucket, commit(1, 2, &["a"])).await;
    replica.pause();
    let mut waiting = store.stable(vbucket);
    assert!(waits(&mut waiting).await);
    go(0, 1);
    replica.resume();
    let error = waiting.await.unwrap_err();
    assert!(causes(&error).contains("slot has moved"), "{}", causes(&error));
    assert!(store.stable(vbucket).await.is_err(), "the new node has not been asked");
    kit::done(&store, vbucket, commit(2, 3, &["a"])).await;
    store.stable(vbucket).await.unwrap();
    // It leaves and comes back: what the replica has had before says nothing.
    go(1, 0);
    kit::done(&store, vbucket, commit(3, 4, &["a"])).await;
    replica_has_all();
    replica.pause();
    let mut waiting = store.stable(vbucket);
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.is_err());
    go(0, 1);
    go(1, 0);
    assert!(waits(&mut waiting).await);
    replica.resume();
    waiting.await.unwrap();
}
