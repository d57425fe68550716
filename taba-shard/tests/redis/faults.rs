//! Redis processes that are killed, paused, emptied, filled up and failed over.

use std::time::Duration;

use taba_core::{Committed, Store, StoreError, Version};
use taba_shard::ShardedRedis;
use taba_tests::redis::{Aof, Options, Redis};
use taba_tests::wait_until;

use crate::kit::{self, commit, loaded, vbucket, version};

/// A store that soon gives up on an answer.
async fn impatient(redis: &[Redis]) -> ShardedRedis {
    let response_timeout = Duration::from_millis(300);
    let mut options = kit::options();
    options.response_timeout = response_timeout;
    options.connect_timeout = response_timeout;
    ShardedRedis::connect(kit::urls(redis), options).await.unwrap()
}

/// The first answer that is not "unavailable": connections take a moment to come back.
async fn settled<T, F: Future<Output = Result<T, StoreError>>>(
    mut ask: impl FnMut() -> F,
) -> Result<T, StoreError> {
    for _ in 0..400 {
        match ask().await {
            Err(StoreError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            outcome => return outcome,
        }
    }
    panic!("it never became available again");
}

#[tokio::test]
async fn a_commit_that_is_done_after_its_timeout_is_done_once() {
    let redis = [Redis::start(Options::durable())];
    let store = impatient(&redis).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    redis[0].pause();
    let error = store.commit(vbucket(1), commit(1, 2, &["a"])).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    // Another one, for the same version, over a connection that nobody answers on.
    assert!(store.commit(vbucket(1), commit(1, 3, &["a"])).await.is_err());
    redis[0].resume();
    // The first was in the socket all the time and is done now; whoever tries again learns it from the version.
    let again = settled(|| store.commit(vbucket(1), commit(1, 4, &["a"]))).await.unwrap();
    let Committed::Conflict { found } = again else { panic!("{again:?}") };
    assert_eq!(found, version(2));
    assert_eq!(kit::load(&store, vbucket(1), &["a"]).await, loaded(2, &["a"]));
}

#[tokio::test]
async fn a_late_answer_is_nobody_elses() {
    let redis = [Redis::start(Options::durable())];
    let store = impatient(&redis).await;
    for n in 0..8 {
        kit::done(&store, vbucket(n), commit(0, 1 + u64::from(n), &["a"])).await;
    }
    redis[0].pause();
    let late = futures::future::join_all((0..4).map(|n| kit::try_load(&store, vbucket(n), &["a"]))).await;
    assert!(late.iter().all(Result::is_err));
    redis[0].resume();
    for n in 4..8 {
        let found = settled(|| async { store.load(vbucket(n), &kit::wanted(&["a"])).await }).await.unwrap();
        assert_eq!(found, loaded(1 + u64::from(n), &["a"]));
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill() {
    // With `everysec` Redis may put a write off while the disk syncs, and a kill takes it.
    let mut redis = Redis::start_many(2, &Options { aof: Aof::No, ..Options::durable() });
    let store = kit::store(&redis).await;
    let mut last = [0_u64; 64];
    for round in 0..3 {
        let writes = (0..64_u16).map(|n| {
            let store = &store;
            let from = last[usize::from(n)];
            async move {
                // Until the Redis is gone.
                let mut current = from;
                while current < from + 20 {
                    match store.commit(vbucket(n), commit(current, current + 1, &["a", "b"])).await {
                        Ok(Committed::Done) => current += 1,
                        Ok(Committed::Conflict { found }) => current = found.count,
                        _ => break,
                    }
                }
                current
            }
        });
        let all = async { futures::future::join_all(writes).await };
        let killed = if round < 2 { &mut redis[round] } else { &mut redis[0] };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            killed.kill();
        };
        let (done, ()) = futures::join!(all, kill);
        killed.restart();
        for (n, done) in done.into_iter().enumerate() {
            let found = settled(|| async { store.load(vbucket(n as u16), &kit::wanted(&["a", "b"])).await })
                .await
                .unwrap();
            let count = found.version.count;
            // One more may have been done than was answered, never one less, and never half of it.
            assert!(count == done || count == done + 1, "{count} for {done} answered");
            if count > 0 {
                assert_eq!(found, loaded(count, &["a", "b"]));
            }
            last[n] = count;
        }
    }
    assert!(last.iter().all(|count| *count > 0));
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_not_filled_anew() {
    let mut redis = Redis::start_many(2, &Options::default());
    let store = kit::store(&redis).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    redis[0].restart();
    // It has no name now, so it is no shard: said at once, and nothing is sent to it.
    for expect in [1, 0] {
        let error = kit::refused_as_lost(&store, || commit(expect, expect + 1, &["b"])).await;
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    }
    assert!(store.load(vbucket(2), &kit::wanted(&[])).await.is_err());
    assert_eq!(redis[0].command(&["DBSIZE"]), "0", "nothing is made in its place");
    kit::done(&store, vbucket(63), commit(0, 1, &["a"])).await;
    assert!(ShardedRedis::connect(kit::urls(&redis), kit::options()).await.is_err(), "nor by connecting");
    assert_eq!(redis[0].command(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn scripts_that_are_gone_are_loaded_again() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    for n in 1..6 {
        redis[0].command(&["SCRIPT", "FLUSH"]);
        // Known entries and new ones: one script, and two.
        let tabs = if n % 2 == 0 { &["a"][..] } else { &["a", "b"] };
        kit::done(&store, vbucket(1), commit(n - 1, n, tabs)).await;
        redis[0].command(&["SCRIPT", "FLUSH"]);
        assert_eq!(kit::load(&store, vbucket(1), &["a"]).await, loaded(n, &["a"]));
    }
}

#[tokio::test]
async fn a_full_redis_refuses_whole_commits_and_goes_on_when_there_is_room() {
    let options = Options { memory_max: Some(4_000_000), ..Options::durable() };
    let redis = [Redis::start(options)];
    let store = kit::store(&redis).await;
    let large = |n: u64| {
        let mut change = commit(n - 1, n, &["a"]);
        change.states[0].2 = Some(vec![b'x'; 200_000].into());
        let other = format!("t{n}");
        change.states.extend(commit(0, n, &[&other]).states);
        change.states[1].2 = Some(vec![b'y'; 200_000].into());
        change
    };
    let mut n = 1;
    let refused = loop {
        match store.commit(vbucket(1), large(n)).await {
            Ok(done) => assert_eq!(done, Committed::Done),
            Err(error) => break error,
        }
        n += 1;
        assert!(n < 100, "it was never full");
    };
    assert!(n > 2, "nothing fitted");
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    let cause = std::error::Error::source(&refused).unwrap();
    assert!(std::error::Error::source(cause).unwrap().to_string().starts_with("OOM"), "{cause:?}");
    let found = kit::load(&store, vbucket(1), &["a", &format!("t{n}")]).await;
    assert_eq!((found.version.count, found.states.len()), (n - 1, 1), "nothing of it is there");
    assert!(store.commit(vbucket(1), large(n)).await.is_err(), "still full");
    redis[0].command(&["CONFIG", "SET", "maxmemory", "100000000"]);
    assert_eq!(store.commit(vbucket(1), large(n)).await.unwrap(), Committed::Done);
    let found = kit::load(&store, vbucket(1), &["a", &format!("t{n}")]).await;
    assert_eq!((found.version.count, found.states.len()), (n, 2));
}

/// A primary behind a port that its replica takes over: what Sentinel and a virtual address do.
struct Pair {
    primary: Redis,
    replica: Redis,
    addresses: std::sync::Arc<kit::Switch>,
    store: ShardedRedis,
}

/// A primary whose replica has its first commit too.
async fn pair() -> Pair {
    let primary = Redis::start(Options::durable());
    let replica = Redis::start(Options { replica_of: Some(primary.port()), ..Options::durable() });
    replica.wait_for_link();
    let addresses = kit::Switch::new(&primary);
    let shards = taba_shard::Shards::connect_to(addresses.clone(), kit::options()).await.unwrap();
    let store = ShardedRedis::new(shards);
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    wait_until("the replica has it", || replica.command(&["HGET", "{vb0001}", "ver"]).ends_with("-1"));
    Pair { primary, replica, addresses, store }
}

#[tokio::test]
async fn a_failover_onto_a_replica_that_lags_takes_commits_back_and_nothing_breaks() {
    let Pair { mut primary, replica, addresses, store } = pair().await;
    // From here on the replica hears nothing.
    replica.cut_off();
    kit::done(&store, vbucket(1), commit(1, 2, &["a", "new"])).await;
    kit::done(&store, vbucket(1), commit(2, 3, &["a", "new"])).await;
    primary.kill();
    replica.promote();
    addresses.switch_to(&replica);
    // The version that is expected is gone, so the commit conflicts, and tells what is there.
    let outcome = settled(|| store.commit(vbucket(1), commit(3, 4, &["a", "new"]))).await.unwrap();
    assert_eq!(outcome, Committed::Conflict { found: version(1) });
    assert_eq!(kit::load(&store, vbucket(1), &["a"]).await, loaded(1, &["a"]));
    // What was indexed on the old primary only is indexed again.
    let again = commit(1, 2, &["a", "new"]).with_next(Version { writer: 78, count: 1 });
    assert_eq!(store.commit(vbucket(1), again).await.unwrap(), Committed::Done);
    assert_eq!(replica.command(&["ZRANGE", "{vb0001}.tabs", "0", "-1"]), "a\nnew");
    let names = store.tabs(vbucket(1)).await.unwrap();
    assert_eq!(names.len(), 2);
}

#[tokio::test]
async fn a_primary_that_is_demoted_is_left() {
    let Pair { primary, replica, addresses, store } = pair().await;
    replica.promote();
    primary.command(&["REPLICAOF", "127.0.0.1", &replica.port().to_string()]);
    addresses.switch_to(&replica);
    let refused = store.commit(vbucket(1), commit(1, 2, &["a"])).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert_eq!(settled(|| store.commit(vbucket(1), commit(1, 2, &["a"]))).await.unwrap(), Committed::Done);
    assert!(replica.command(&["HGET", "{vb0001}", "ver"]).ends_with("-2"));
}

#[tokio::test]
async fn more_requests_than_may_be_under_way_wait_their_turn() {
    let redis = [Redis::start(Options::durable())];
    let mut options = kit::options();
    options.in_flight_max = 2;
    let store = ShardedRedis::connect(kit::urls(&redis), options).await.unwrap();
    let all = (0..64).map(|n| store.commit(vbucket(n), commit(0, 1, &["a"])));
    assert!(
        futures::future::join_all(all).await.into_iter().all(|outcome| outcome.unwrap() == Committed::Done)
    );
    let mut options = kit::options();
    options.in_flight_max = 1;
    options.response_timeout = Duration::from_millis(200);
    let store = ShardedRedis::connect(kit::urls(&redis), options).await.unwrap();
    redis[0].pause();
    let all = (0..3).map(|n| store.commit(vbucket(n), commit(1, 2, &["a"])));
    assert!(futures::future::join_all(all).await.iter().all(Result::is_err));
    redis[0].resume();
    assert!(matches!(settled(|| store.commit(vbucket(9), commit(1, 2, &["a"]))).await, Ok(Committed::Done)));
}
