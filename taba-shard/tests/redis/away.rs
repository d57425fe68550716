//! Shards that are away, not ready or damaged in part: the rest is used, and nothing is made in the place of what is
//! out of reach.

use std::net::TcpStream;

use taba_core::{Remedy, ServerEntry, Store, StoreError, causes};
use taba_shard::{Adoption, ConnectError, ShardedRedis, Shards};
use taba_tests::redis::{Aof, Options, Redis};
use taba_tests::wait_until;

use crate::kit::{self, commit, loaded, vbucket};

/// A log that is written before each answer, also while a slow disk syncs: what was answered survives a kill.
fn survives() -> Options {
    Options { aof: Aof::No, ..Options::default() }
}

/// Loads until the shard answers.
async fn found_again(store: &ShardedRedis, index: u16) -> taba_core::Loaded {
    for _ in 0..1000 {
        match kit::try_load(store, vbucket(index), &["a"]).await {
            Ok(loaded) => return loaded,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
    panic!("it never answered again");
}

#[tokio::test]
async fn the_list_of_servers_outlives_any_shard_but_the_last() {
    let mut redis = Redis::start_many(3, &survives());
    let store = kit::store(&redis).await;
    let entry = |process: u64, beat: u64| {
        let mut entry = ServerEntry::new(process, "http://10.0.0.1:8300".parse().unwrap(), "1", 2_000);
        entry.beat = beat;
        entry
    };
    for (process, beat) in [(1, 1), (2, 1), (1, 2)] {
        store.register(process, Some(&entry(process, beat))).await.unwrap();
    }
    // Another Server names the shards in another order.
    redis.rotate_left(1);
    let other = kit::store(&redis).await;
    assert_eq!(other.servers().await.unwrap(), [entry(1, 2), entry(2, 1)]);
    for (beat, away) in (3..).zip(redis.iter_mut().take(2)) {
        away.kill();
        store.register(1, Some(&entry(1, beat))).await.unwrap();
        assert_eq!(other.servers().await.unwrap(), [entry(1, beat), entry(2, 1)]);
    }
    // A hash with the tag of a VBucket.
    let key = redis[2].command(&["KEYS", "*.servers"]);
    assert!(key.contains("{vb"), "{key}");
    store.register(2, None).await.unwrap();
    assert_eq!(other.servers().await.unwrap(), [entry(1, 4)]);
    redis[2].kill();
    assert!(matches!(other.servers().await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.register(1, None).await, Err(StoreError::Unavailable { .. })));
}

#[tokio::test]
async fn what_the_other_shards_hold_is_used_from_the_start() {
    let mut redis = Redis::start_many(2, &survives());
    let store = kit::store(&redis).await;
    for index in [1, 40] {
        kit::done(&store, vbucket(index), commit(0, 1, &["a"])).await;
    }
    drop(store);
    redis[1].kill();
    let store = kit::store(&redis).await;
    assert_eq!(kit::load(&store, vbucket(1), &["a"]).await, loaded(1, &["a"]));
    kit::done(&store, vbucket(1), commit(1, 2, &["a", "b"])).await;
    let away = format!("redis://127.0.0.1:{}", redis[1].port());
    let error = kit::try_load(&store, vbucket(40), &["a"]).await.unwrap_err();
    assert!(matches!(error.remedy(), Remedy::Wait(_)), "{error:?}");
    let words = causes(&error);
    assert!(words.contains(&away) && words.contains("refused"), "{words}");
    assert_eq!(store.place(vbucket(40)), Some(away));
    assert!(matches!(
        store.commit(vbucket(40), commit(0, 1, &["a"])).await,
        Err(StoreError::Unavailable { .. })
    ));
    let data = store.shards().data("shop").unwrap();
    let answers = data.get_many((0..64).map(|n| format!("k{n}"))).await;
    let words = causes(&answers.unwrap_err());
    assert!(words.contains("has not answered"), "{words}");
    redis[1].restart();
    assert_eq!(found_again(&store, 40).await, loaded(1, &["a"]));
    assert!(store.shards().view().silent().is_empty());
    kit::done(&store, vbucket(40), commit(1, 2, &["a"])).await;
}

#[tokio::test]
async fn a_deployment_is_made_only_when_all_shards_are_there() {
    let mut redis = Redis::start_many(2, &survives());
    redis[1].kill();
    let error = Shards::connect(kit::urls(&redis), kit::options()).await.unwrap_err();
    assert!(matches!(error.remedy(), Remedy::Wait(_)), "{error:?}");
    assert!(causes(&error).contains("cannot connect to shard 1"), "{}", causes(&error));
    assert_eq!(redis[0].command(&["DBSIZE"]), "0", "nothing is made");
    redis[1].restart();
    kit::shards(&redis).await;
}

#[tokio::test]
async fn a_shard_that_was_away_and_turns_out_empty_is_not_filled() {
    let mut redis = Redis::start_many(2, &survives());
    drop(kit::store(&redis).await);
    redis[1].kill();
    let store = kit::store(&redis).await;
    redis[1].restart_empty();
    let lost = |error: &StoreError| causes(error).contains("has lost its data");
    let mut error = kit::try_load(&store, vbucket(40), &[]).await.unwrap_err();
    for _ in 0..500 {
        if lost(&error) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        error = kit::try_load(&store, vbucket(40), &[]).await.unwrap_err();
    }
    assert!(lost(&error), "{}", causes(&error));
    assert_eq!(redis[1].command(&["DBSIZE"]), "0");
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
}

/// What it held is made anew, and it is the shard that it was.
#[tokio::test]
async fn an_emptied_shard_that_is_adopted_is_used_again() {
    let mut redis = Redis::start_many(2, &survives());
    let store = kit::store(&redis).await;
    for index in [1, 40] {
        kit::done(&store, vbucket(index), commit(0, 1, &["a"])).await;
    }
    drop(store);
    let before = redis[1].command(&["GET", "taba:shard"]);
    redis[1].restart_empty();
    let error = Shards::connect(kit::urls(&redis), kit::options()).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoShard { .. }), "{error:?}");
    Adoption::plan(kit::urls(&redis), kit::options()).await.unwrap().run().await.unwrap();
    assert_eq!(redis[1].command(&["GET", "taba:shard"]), before);
    assert_eq!(
        redis[1].command(&["HGET", "taba:map", "map"]),
        redis[0].command(&["HGET", "taba:map", "map"])
    );
    let store = kit::store(&redis).await;
    assert_eq!(kit::load(&store, vbucket(1), &["a"]).await, loaded(1, &["a"]));
    kit::done(&store, vbucket(40), commit(0, 1, &["a"])).await;
    // And over another connection.
    redis[1].command(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert_eq!(found_again(&store, 40).await, loaded(1, &["a"]));
}

/// What a shard that is not named may have is made a second time only when that is asked for, and under an epoch above its own.
#[tokio::test]
async fn what_may_be_on_a_shard_that_is_not_named_is_not_made_a_second_time() {
    let redis = Redis::start_many(2, &survives());
    let store = kit::store(&redis).await;
    for index in [1, 40] {
        kit::done(&store, vbucket(index), commit(0, 1, &["a"])).await;
    }
    drop(store);
    let first = || Adoption::plan(kit::urls(&redis[..1]), kit::options());
    for (has_map, why) in [(true, redis[1].address()), (false, "has a shard map".to_owned())] {
        if !has_map {
            redis[0].command(&["DEL", "taba:map"]);
        }
        let error = first().await.unwrap().run().await.unwrap_err();
        assert!(causes(&error).contains(&why), "{}", causes(&error));
        assert_eq!(redis[0].command(&["EXISTS", "{vb0040}"]), "0");
    }
    first().await.unwrap().recreating_empty().run().await.unwrap();
    // The other one is back: it has older copies, and all else goes on.
    let store = kit::store(&redis).await;
    assert_eq!(kit::load(&store, vbucket(1), &["a"]).await, loaded(1, &["a"]));
    kit::done(&store, vbucket(40), commit(0, 1, &["a"])).await;
    let ver = redis[0].command(&["HGET", "{vb0040}", "ver"]);
    assert_ne!(ver, "0000000000000000-0", "the first one owns it, and took the commit");
    assert_eq!(redis[1].command(&["HGET", "{vb0040}", "own"]), "1");
}

#[tokio::test]
async fn a_damaged_vbucket_is_a_fault_of_its_own() {
    let redis = [Redis::start(survives())];
    let store = kit::store(&redis).await;
    for index in 0..64 {
        kit::done(&store, vbucket(index), commit(0, 1, &["a"])).await;
    }
    drop(store);
    let sound = redis[0].command(&["HGET", "{vb0009}", "of"]);
    redis[0].command(&["HSET", "{vb0003}", "own", "many"]);
    redis[0].command(&["HDEL", "{vb0005}", "ver"]);
    redis[0].command(&["DEL", "{vb0007}"]);
    redis[0].command(&["SET", "{vb0007}", "x"]);
    redis[0].command(&["HSET", "{vb0009}", "of", "64 00000000000000ff"]);
    redis[0].command(&["HSET", "{vb0011}", "ver", "1"]);
    let store = kit::store(&redis).await;
    for index in 0..64 {
        let found = kit::try_load(&store, vbucket(index), &["a"]).await;
        if [3, 5, 7, 9, 11].contains(&index) {
            assert!(matches!(found, Err(StoreError::Damaged { .. })), "{index}: {found:?}");
            assert!(store.tabs(vbucket(index)).await.is_err());
        } else {
            assert_eq!(found.unwrap(), loaded(1, &["a"]));
            kit::done(&store, vbucket(index), commit(1, 2, &["a"])).await;
        }
    }
    // Mended while the store runs.
    redis[0].command(&["HSET", "{vb0009}", "of", &sound]);
    assert_eq!(found_again(&store, 9).await, loaded(1, &["a"]));
}

#[tokio::test]
async fn a_redis_without_info_is_used_and_nothing_is_called_stable() {
    let extra = ["--rename-command", "INFO", ""].map(str::to_owned).to_vec();
    let redis = [Redis::start(Options { extra, ..survives() })];
    let store = kit::store(&redis).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    assert!(matches!(store.stable(vbucket(1)).await, Err(StoreError::Unavailable { .. })));
}

#[tokio::test]
async fn a_redis_that_takes_no_more_connections_is_told_by_its_own_words() {
    let redis = [Redis::start(survives())];
    drop(kit::store(&redis).await);
    redis[0].command(&["CONFIG", "SET", "maxclients", "1"]);
    let guest = TcpStream::connect(("127.0.0.1", redis[0].port())).unwrap();
    // Connections that were closed may take a moment to be gone, so the guest may be turned away too.
    let mut all = Vec::new();
    let (mut words, mut last) = (Vec::new(), None);
    while last.is_none() && words.len() < 100 {
        match Shards::connect(kit::urls(&redis), kit::options()).await {
            Err(error) => {
                words.push(causes(&error));
                last = Some(error).filter(|error| causes(error).contains("max number of clients reached"));
            }
            Ok(shards) => all.push(shards),
        }
    }
    let error = last.unwrap_or_else(|| panic!("it is not told: {words:?}"));
    assert!(matches!(error.remedy(), Remedy::Wait(_)), "{error:?}");
    drop(guest);
}

#[tokio::test]
async fn a_redis_that_loads_its_data_is_waited_for() {
    let mut redis = [Redis::start(survives())];
    let store = kit::store(&redis).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    let fill = "for i = 1, 20000 do redis.call('set', 'pad' .. i, 'x') end";
    redis[0].command(&["EVAL", fill, "0"]);
    drop(store);
    redis[0].restart_slowly();
    let error = Shards::connect(kit::urls(&redis), kit::options()).await.unwrap_err();
    assert!(causes(&error).contains("LOADING"), "{}", causes(&error));
    assert!(matches!(error, ConnectError::Link(_)) && matches!(error.remedy(), Remedy::Wait(_)));
    redis[0].command(&["CONFIG", "SET", "key-load-delay", "0"]);
    wait_until("it is loaded", || redis[0].info("persistence", "loading") == "0");
    assert_eq!(kit::load(&kit::store(&redis).await, vbucket(1), &["a"]).await, loaded(1, &["a"]));
}
