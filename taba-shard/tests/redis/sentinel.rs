//! Shards that real Sentinels name: failovers to replicas that have everything, lag, or have nothing.

use std::time::Duration;

use taba_core::{Commit, Committed, Store, StoreError, Version, causes};
use taba_shard::{ShardUrl, ShardedRedis, Shards, ShardsOptions};
use taba_tests::redis::{Options, Redis, Sentinel};
use taba_tests::{PATIENCE, free_port, wait_until};

use crate::kit::{self, commit, loaded, vbucket, version};

fn replica_of(primary: &Redis) -> Redis {
    let replica = Redis::start(Options { replica_of: Some(primary.port()), ..Options::durable() });
    replica.wait_for_primary(primary);
    replica
}

/// Of three Sentinels one is there: the others refuse connections.
fn url(sentinel: &Sentinel, master: &str) -> ShardUrl {
    let (gone, also) = (free_port(), free_port());
    let url = format!("redis+sentinel://127.0.0.1:{gone}+{}+127.0.0.1:{also}/{master}", sentinel.address());
    ShardUrl::new(&url).unwrap()
}

async fn connect(sentinel: &Sentinel, options: ShardsOptions) -> ShardedRedis {
    ShardedRedis::connect(vec![url(sentinel, "m")], options).await.unwrap()
}

/// What a commit comes to once its shard answers. It is sent again until then, as it is.
async fn settled(store: &ShardedRedis, commit: &Commit) -> Committed {
    let answered = async {
        loop {
            match store.commit(vbucket(1), commit.clone()).await {
                // An earlier try was done, and its answer lost.
                Ok(Committed::Conflict { found }) if found == commit.next => return Committed::Done,
                Ok(outcome) => return outcome,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.unwrap()
}

/// The replica copies nothing more, while it is still a replica for the Sentinels.
fn stop_copying(primary: &Redis, replica: &Redis) {
    assert_eq!(replica.command(&["CONFIG", "SET", "masterauth", "wrong"]), "OK");
    primary.command(&["CLIENT", "KILL", "TYPE", "replica"]);
    wait_until("the replica is cut off", || replica.info("replication", "master_link_status") == "down");
}

#[tokio::test]
async fn commits_go_on_at_the_promoted_replica_and_nothing_stable_is_lost() {
    let mut primary = Redis::start(Options::durable());
    let replica = replica_of(&primary);
    let sentinel = Sentinel::start(&[("m", &primary)]);
    let store = connect(&sentinel, kit::options()).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    store.stable(vbucket(1)).await.unwrap();
    primary.kill();
    assert_eq!(settled(&store, &commit(1, 2, &["a"])).await, Committed::Done);
    assert_eq!(kit::load(&store, vbucket(1), &["a"]).await, loaded(2, &["a"]));
    assert!(replica.command(&["HGET", "{vb0001}", "ver"]).ends_with("-2"));
    sentinel.wait_for("m", &replica);
}

#[tokio::test]
async fn a_failover_to_a_replica_that_lags_is_a_conflict_and_was_never_stable() {
    let mut primary = Redis::start(Options::durable());
    let replica = replica_of(&primary);
    let sentinel = Sentinel::start(&[("m", &primary)]);
    let store = connect(&sentinel, kit::options()).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    store.stable(vbucket(1)).await.unwrap();
    stop_copying(&primary, &replica);
    kit::done(&store, vbucket(1), commit(1, 2, &["a"])).await;
    let waiting = store.stable(vbucket(1));
    primary.kill();
    assert!(waiting.await.is_err(), "it is lost");
    assert_eq!(settled(&store, &commit(2, 3, &["a"])).await, Committed::Conflict { found: version(1) });
    assert!(store.stable(vbucket(1)).await.is_err(), "it stays lost");
    let next = Version { writer: 78, count: 1 };
    assert_eq!(settled(&store, &commit(1, 2, &["a"]).with_next(next)).await, Committed::Done);
    let expect = next;
    assert_eq!(settled(&store, &commit(1, 3, &["a"]).with_expect(expect)).await, Committed::Done);
    assert_eq!(kit::load(&store, vbucket(1), &["a"]).await, loaded(3, &["a"]));
}

#[tokio::test]
async fn a_replica_that_never_copied_its_primary_is_not_taken_for_the_shard() {
    // It waits for another replica before it sends either of them anything.
    let late = ["--repl-diskless-sync-delay", "3600"].map(str::to_owned).to_vec();
    let mut primary = Redis::start(Options { extra: late, ..Options::durable() });
    let replica = Redis::start(Options { replica_of: Some(primary.port()), ..Options::durable() });
    wait_until("the replica asks for a copy", || {
        primary.info("replication", "slave0").contains("state=wait_bgsave")
    });
    let sentinel = Sentinel::start(&[("m", &primary)]);
    let mut options = kit::options();
    options.response_timeout = Duration::from_secs(1);
    let store = connect(&sentinel, options.clone()).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    primary.kill();
    sentinel.wait_for("m", &replica);
    let refused = kit::refused_as_lost(&store, || commit(1, 2, &["a"])).await;
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    assert!(kit::try_load(&store, vbucket(1), &["a"]).await.is_err(), "it is not empty, but away");
    assert_eq!(replica.command(&["DBSIZE"]), "0", "nothing is made in it");
}

#[tokio::test]
async fn a_deposed_primary_that_does_not_know_it_is_left() {
    // No Sentinel can make a replica of it, as if it were cut off from all of them.
    let deaf = ["--rename-command", "SLAVEOF", "", "--rename-command", "REPLICAOF", ""];
    let extra = deaf.map(str::to_owned).to_vec();
    let primary = Redis::start(Options { extra, ..Options::durable() });
    let replica = replica_of(&primary);
    let sentinel = Sentinel::start(&[("m", &primary)]);
    let store = connect(&sentinel, kit::options()).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    store.stable(vbucket(1)).await.unwrap();
    wait_until("a failover begins", || sentinel.command(&["SENTINEL", "FAILOVER", "m"]) == "OK");
    sentinel.wait_for("m", &replica);
    // It still writes, and what it writes never becomes stable. Who waits for that finds out.
    assert_eq!(primary.info("replication", "role"), "master");
    kit::done(&store, vbucket(1), commit(1, 2, &["a"])).await;
    let error = store.stable(vbucket(1)).await.unwrap_err();
    assert!(causes(&error).contains("its sentinels name another primary"), "{}", causes(&error));
    assert_eq!(settled(&store, &commit(2, 3, &["a"])).await, Committed::Conflict { found: version(1) });
    assert!(replica.command(&["HGET", "{vb0001}", "ver"]).ends_with("-1"));
}

#[tokio::test]
async fn a_shard_that_is_added_by_its_sentinels_is_found_by_those_who_only_know_another() {
    let redis = Redis::start_many(2, &Options::durable());
    let sentinel = Sentinel::start(&[("m", &redis[1])]);
    let first = vec![ShardUrl::new(&redis[0].url()).unwrap()];
    let shards = Shards::connect(first.clone(), kit::options()).await.unwrap();
    let named = url(&sentinel, "m").to_string();
    let (name, map) = shards.add_shard(&named.replace("://", "://:hunter2@")).await.unwrap();
    assert_eq!(
        map.shard(name).unwrap().address,
        named,
        "the map says which sentinels to ask, and no password"
    );
    let other = Shards::connect(first, kit::options()).await.unwrap();
    assert!(other.map_epochs().await.unwrap().iter().any(|(label, _)| *label == named), "it answers");
}

#[tokio::test]
async fn a_master_that_no_sentinel_monitors_and_sentinels_that_are_away_are_named() {
    let redis = Redis::start(Options::durable());
    let sentinel = Sentinel::start(&[("m", &redis)]);
    let error = Shards::connect(vec![url(&sentinel, "other")], kit::options()).await.unwrap_err();
    let words = format!("the sentinels {} monitor no master named \"other\"", sentinel.address());
    assert!(causes(&error).contains(&words), "{}", causes(&error));
    let nobody = format!("127.0.0.1:{}", free_port());
    let url = ShardUrl::new(&format!("redis+sentinel://{nobody}/m")).unwrap();
    let error = Shards::connect(vec![url], kit::options()).await.unwrap_err();
    assert!(
        causes(&error).contains(&format!("names the primary of \"m\": {nobody}: ")),
        "{}",
        causes(&error)
    );
    let url = ShardUrl::new(&format!("redis+sentinel://127.0.0.1:{}/m", redis.port())).unwrap();
    let error = Shards::connect(vec![url], kit::options()).await.unwrap_err();
    assert!(causes(&error).contains("unknown command"), "a redis is no sentinel: {}", causes(&error));
}
