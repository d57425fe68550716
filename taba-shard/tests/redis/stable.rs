//! What `stable` says is true: it waits for replicas, and claims nothing about what a failover may have taken back.

use std::time::Duration;

use taba_core::{Store, StoreError, Version};
use taba_shard::{ShardedRedis, Shards};
use taba_tests::redis::{Options, Redis};
use taba_tests::wait_until;

use crate::kit::{self, commit, vbucket};

async fn pair() -> (Redis, Redis) {
    let primary = Redis::start(Options::durable());
    let replica = Redis::start(Options { replica_of: Some(primary.port()), ..Options::durable() });
    replica.wait_for_primary(&primary);
    (primary, replica)
}

/// Whether it is still waiting after a while.
async fn waits(future: impl Future<Output = Result<(), StoreError>> + Unpin) -> bool {
    tokio::time::timeout(Duration::from_millis(700), future).await.is_err()
}

#[tokio::test]
async fn it_waits_until_the_replica_has_it_and_then_the_replica_has_it() {
    let (primary, replica) = pair().await;
    let redis = [primary];
    let store = kit::store(&redis).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    store.stable(vbucket(1)).await.unwrap();
    assert!(replica.command(&["HGET", "{vb0001}", "ver"]).ends_with("-1"));
    replica.pause();
    kit::done(&store, vbucket(1), commit(1, 2, &["a"])).await;
    let mut waiting = store.stable(vbucket(1));
    assert!(waits(&mut waiting).await, "a replica that is stalled has nothing new");
    replica.resume();
    waiting.await.unwrap();
    assert!(replica.command(&["HGET", "{vb0001}", "ver"]).ends_with("-2"));
}

#[tokio::test]
async fn many_that_wait_share_the_polls() {
    let (primary, replica) = pair().await;
    let redis = [primary];
    let store = kit::store(&redis).await;
    replica.pause();
    for n in 0..64 {
        kit::done(&store, vbucket(n), commit(0, 1, &["a"])).await;
    }
    redis[0].command(&["CONFIG", "RESETSTAT"]);
    let all = futures::future::join_all((0..64).map(|n| store.stable(vbucket(n))));
    let resume = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        replica.resume();
    };
    let (all, ()) = futures::join!(all, resume);
    assert!(all.into_iter().all(|outcome| outcome.is_ok()));
    let polls = redis[0].calls("info");
    assert!(polls < 64, "{polls} commands for 64 that wait");
    let before = redis[0].calls("info");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(redis[0].calls("info"), before + 1, "nobody waits, nobody asks, but for this test itself");
}

#[tokio::test]
async fn a_failover_ends_the_wait_and_says_nothing_about_before() {
    let (mut primary, replica) = pair().await;
    let addresses = kit::Switch::new(&primary);
    let store = ShardedRedis::new(Shards::connect_to(addresses.clone(), kit::options()).await.unwrap());
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    store.stable(vbucket(1)).await.unwrap();
    replica.cut_off();
    kit::done(&store, vbucket(1), commit(1, 2, &["a"])).await;
    let mut waiting = store.stable(vbucket(1));
    assert!(waits(&mut waiting).await);
    primary.kill();
    replica.promote();
    addresses.switch_to(&replica);
    assert!(waiting.await.is_err());
    let third = Redis::start(Options { replica_of: Some(replica.port()), ..Options::durable() });
    third.wait_for_link();
    // The commit is lost, and asking once more does not make it stable, however healthy the new primary is.
    for _ in 0..5 {
        assert!(store.stable(vbucket(1)).await.is_err(), "{}", replica.command(&["HGET", "{vb0001}", "ver"]));
    }
    assert!(replica.command(&["HGET", "{vb0001}", "ver"]).ends_with("-1"));
    // A commit on what is there now. Whoever asks first may mean what was lost; then it is known again.
    let next = Version { writer: 78, count: 1 };
    kit::done(&store, vbucket(1), commit(1, 2, &["a"]).with_next(next)).await;
    assert!(store.stable(vbucket(1)).await.is_err());
    let expect = next;
    kit::done(&store, vbucket(1), commit(1, 3, &["a"]).with_expect(expect)).await;
    store.stable(vbucket(1)).await.unwrap();
}

#[tokio::test]
async fn a_new_connection_to_the_same_redis_is_stable_with_the_next_commit() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    redis[0].command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(store.stable(vbucket(1)).await.is_err());
    kit::done(&store, vbucket(1), commit(1, 2, &["a"])).await;
    store.stable(vbucket(1)).await.unwrap();
}

#[tokio::test]
async fn without_a_replica_it_takes_a_while_and_where_one_is_asked_for_for_ever() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    store.stable(vbucket(1)).await.unwrap();
    let mut options = kit::options();
    options.stability.replicas = 1;
    options.stable_wait_max = Duration::from_millis(900);
    let store = ShardedRedis::connect(kit::urls(&redis), options).await.unwrap();
    kit::done(&store, vbucket(1), commit(1, 2, &["a"])).await;
    let mut waiting = store.stable(vbucket(1));
    assert!(waits(&mut waiting).await);
    let error = waiting.await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("in time"), "{error:?}");
    let replica = Redis::start(Options { replica_of: Some(redis[0].port()), ..Options::durable() });
    replica.wait_for_link();
    // With its first replica a primary begins a history of its own name; what is committed from then on can be asked
    // after.
    let mut outcome = store.stable(vbucket(1)).await;
    for n in 3..13 {
        if outcome.is_ok() {
            break;
        }
        kit::done(&store, vbucket(1), commit(n - 1, n, &["a"])).await;
        outcome = store.stable(vbucket(1)).await;
    }
    outcome.unwrap();
    let version = replica.command(&["HGET", "{vb0001}", "ver"]);
    assert_eq!(version, kit::load(&store, vbucket(1), &[]).await.version.to_string());
}

#[tokio::test]
async fn a_replica_that_goes_away_is_waited_for() {
    let (primary, mut replica) = pair().await;
    let redis = [primary];
    let store = kit::store(&redis).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    store.stable(vbucket(1)).await.unwrap();
    replica.kill();
    wait_until("the primary misses it", || redis[0].info("replication", "connected_slaves") == "0");
    kit::done(&store, vbucket(1), commit(1, 2, &["a"])).await;
    let mut waiting = store.stable(vbucket(1));
    assert!(waits(&mut waiting).await, "a primary that is cut off must not take itself for a lone one");
    replica.restart();
    waiting.await.unwrap();
    assert!(replica.command(&["HGET", "{vb0001}", "ver"]).ends_with("-2"));
}

#[tokio::test]
async fn settings_that_become_unsafe_while_it_runs_end_what_is_stable_and_come_back() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    for (setting, unsafe_value, safe_value, words) in [
        ("maxmemory-policy", "allkeys-lru", "noeviction", "set it to noeviction"),
        ("appendfsync", "no", "everysec", "set appendonly yes, and appendfsync everysec"),
        ("appendonly", "no", "yes", "set appendonly yes, and appendfsync everysec"),
    ] {
        store.stable(vbucket(1)).await.unwrap();
        assert_eq!(redis[0].command(&["CONFIG", "SET", setting, unsafe_value]), "OK");
        let error = store.stable(vbucket(1)).await.unwrap_err();
        assert!(taba_core::causes(&error).contains(words), "{setting}: {}", taba_core::causes(&error));
        assert_eq!(redis[0].command(&["CONFIG", "SET", setting, safe_value]), "OK");
    }
    wait_until("the log is written again", || redis[0].info("persistence", "aof_rewrite_in_progress") == "0");
    store.stable(vbucket(1)).await.unwrap();
}

/// When it was asked, the Redis had forgotten that the VBucket moves away; then the other one was switched.
#[tokio::test]
async fn what_another_shard_owns_by_now_is_not_stable() {
    let redis = Redis::start_many(2, &Options::durable());
    let store = kit::store(&redis).await;
    let view = store.shards().view();
    let is_first = |index: &u16| view.owner(vbucket(*index)).unwrap().shard.0 == 0;
    let index = (0..64).find(is_first).unwrap();
    kit::done(&store, vbucket(index), commit(0, 1, &["a"])).await;
    let hash = taba_shard::keys::hash(vbucket(index));
    let field = |name| redis[0].command(&["HGET", &hash, name]);
    redis[1].command(&["HSET", &hash, "ver", &field("ver"), "own", "2", "of", &field("of")]);
    let error = store.stable(vbucket(index)).await.unwrap_err();
    assert!(taba_core::causes(&error).contains("another shard may own the vbucket"), "{error:?}");
    // By now it knows where it is owned.
    kit::done(&store, vbucket(index), commit(1, 2, &["a"])).await;
    assert!(redis[1].command(&["HGET", &hash, "ver"]).ends_with("-2"));
}
