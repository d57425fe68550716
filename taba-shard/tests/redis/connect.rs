//! Which deployments are connected to, and which are refused.

use taba_core::{Remedy, Store, StoreError, VBuckets, Wanted};
use taba_shard::census::CensusError;
use taba_shard::{Bootstrap, ConnectError, LinkError, ShardUrl, ShardedRedis, Shards, ShardsOptions};
use taba_tests::redis::{Options, Redis, Reply};

use crate::kit::{self, commit, loaded, vbucket};

async fn refused(redis: &[Redis], options: ShardsOptions) -> ConnectError {
    Shards::connect(kit::urls(redis), options).await.unwrap_err()
}

#[tokio::test]
async fn an_empty_deployment_is_made_only_when_asked_for_and_only_once() {
    let redis = Redis::start_many(2, &Options::durable());
    let mut careful = kit::options();
    careful.bootstrap = Bootstrap::Refuse;
    assert!(matches!(refused(&redis, careful.clone()).await, ConnectError::Empty));
    assert_eq!(redis[0].command(&["DBSIZE"]), "0", "a refusal leaves nothing");
    // Several at once make one deployment.
    let all =
        futures::future::join_all((0..4).map(|_| Shards::bootstrap(kit::urls(&redis), careful.clone())))
            .await;
    let ids: Vec<_> = all.into_iter().map(|shards| shards.unwrap().view().deployment()).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && !id.is_new), "{ids:?}");
    for redis in &redis {
        assert_eq!(redis.command(&["DBSIZE"]), "34", "half of the VBuckets, its own name, and the shard map");
    }
    assert_eq!(redis[1].command(&["HMGET", "{vb0063}", "ver", "own"]), "0000000000000000-0\n1");
    Shards::connect(kit::urls(&redis), careful).await.unwrap();
}

#[tokio::test]
async fn a_bootstrap_that_was_cut_off_is_gone_on_with() {
    let redis = Redis::start_many(2, &Options::durable());
    let id = kit::shards(&redis).await.view().deployment().id;
    for (shard, range) in [(0, 0..32), (1, 32..64)] {
        for n in range {
            let name = format!("{{vb{n:04}}}");
            if n % 3 == 0 {
                redis[shard].command(&["DEL", &name]);
            } else {
                redis[shard].command(&["HSET", &name, "of", &format!("64 {id:016x} new")]);
            }
        }
    }
    let mut careful = kit::options();
    careful.bootstrap = Bootstrap::Refuse;
    assert!(matches!(refused(&redis, careful).await, ConnectError::Empty));
    assert_eq!(kit::shards(&redis).await.view().deployment().id, id);
    assert_eq!(redis[0].command(&["HGET", "{vb0000}", "of"]), format!("64 {id:016x}"));
}

#[tokio::test]
async fn what_does_not_belong_together_is_refused() {
    let mut redis = Redis::start_many(2, &Options::durable());
    drop(kit::shards(&redis).await);
    let mut other = kit::options();
    other.vbuckets = VBuckets::new(128).unwrap();
    let error = refused(&redis, other).await;
    let found = matches!(error, ConnectError::Census(CensusError::VBuckets { found: 64, expected: 128, .. }));
    assert!(found, "{error:?}");
    // The order of the list does not matter, nor is one that is not in it missed: the shard map names it.
    redis.reverse();
    let shards = kit::shards(&redis).await;
    assert_eq!(shards.view().owner(vbucket(0)).unwrap().shard.0, 1);
    let shards = kit::shards(&redis[..1]).await;
    assert_eq!((shards.count(), shards.view().silent().len()), (2, 0));
    // One that holds nothing is no shard, and may be one that has lost its data.
    let empty = [Redis::start(Options::durable())];
    let list = [kit::urls(&redis), kit::urls(&empty)].concat();
    let error = Shards::connect(list, kit::options()).await.unwrap_err();
    let words = taba_core::causes(&error);
    assert!(matches!(error, ConnectError::NoShard { .. }) && words.contains("taba-shard add"), "{words}");
    let foreign = Redis::start_many(2, &Options::durable());
    drop(kit::shards(&foreign).await);
    let mixed = [kit::urls(&redis)[0].clone(), kit::urls(&foreign)[1].clone()].to_vec();
    let error = Shards::connect(mixed, kit::options()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Deployments { .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::GiveUp);
}

#[tokio::test]
async fn a_redis_that_evicts_or_follows_is_refused() {
    let evicts = Options { memory_policy: Some("allkeys-lru"), ..Options::durable() };
    let error = refused(&[Redis::start(evicts)], kit::options()).await;
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        matches!(&error, ConnectError::Link(link) if matches!(&**link, LinkError::Evicts { policy, .. } if policy == "allkeys-lru"))
    );
    assert!(text.contains("set it to noeviction"), "{text}");
    let primary = Redis::start(Options::default());
    let replica = Redis::start(Options { replica_of: Some(primary.port()), ..Options::default() });
    let error = refused(&[replica], kit::options()).await;
    assert!(
        matches!(&error, ConnectError::Link(link) if matches!(**link, LinkError::Replica { .. })),
        "{error:?}"
    );
    let nobody = ShardUrl::new(&format!("redis://127.0.0.1:{}", taba_tests::free_port())).unwrap();
    let error = Shards::connect(vec![nobody], kit::options()).await.unwrap_err();
    assert!(matches!(error.remedy(), Remedy::Wait(_)), "{error:?}");
    assert!(matches!(Shards::connect(vec![], kit::options()).await, Err(ConnectError::Shards { shards: 0 })));
}

#[tokio::test]
async fn a_user_without_rights_to_config_and_info_is_enough() {
    let redis = [Redis::start(Options::durable())];
    let rights = ["ACL", "SETUSER", "taba", "on", ">secret", "~*", "+@all", "-config", "-info"];
    assert_eq!(redis[0].command(&rights), "OK");
    let url = ShardUrl::new(&format!("redis://taba:secret@127.0.0.1:{}", redis[0].port())).unwrap();
    let store = ShardedRedis::connect(vec![url], kit::options()).await.unwrap();
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    assert_eq!(kit::load(&store, vbucket(1), &["a"]).await, loaded(1, &["a"]));
    // How far replicas are cannot be known so, and is not claimed.
    assert!(matches!(store.stable(vbucket(1)).await, Err(StoreError::Unavailable { .. })));
    let wrong = ShardUrl::new(&format!("redis://taba:hunter2@127.0.0.1:{}", redis[0].port())).unwrap();
    let error = Shards::connect(vec![wrong], kit::options()).await.unwrap_err();
    let mut words = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        words += &error.to_string();
        cause = error.source();
    }
    assert!(words.contains("WRONGPASS") || words.contains("uthentication"), "{words}");
    assert!(!words.contains("hunter2") && !format!("{:?}", store.shards()).contains("secret"), "{words}");
}

#[tokio::test]
async fn a_vbucket_that_is_elsewhere_is_followed_after_a_census_of_all() {
    let redis = Redis::start_many(2, &Options::durable());
    let store = kit::store(&redis).await;
    kit::done(&store, vbucket(3), commit(0, 1, &["a"])).await;
    // What moving does: the copy there has the higher epoch, the one here says where it went.
    let there = redis[1].command(&["GET", "taba:shard"]);
    let dump = redis[0].try_command(&[b"DUMP", b"{vb0003}"]).unwrap();
    let Reply::Bulk(Some(dump)) = dump else { panic!("{dump:?}") };
    redis[0].command(&["HSET", "{vb0003}", "moved", &format!("2:{there}")]);
    let moving = store.load(vbucket(3), &Wanted::default()).await.unwrap_err();
    assert!(matches!(moving, StoreError::Misplaced { .. }), "{moving:?}");
    assert_eq!(moving.remedy(), Remedy::Reroute);
    let error = store.commit(vbucket(3), commit(1, 2, &["a"])).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains(&format!("moving from shard 0 to shard {there} under epoch 2")), "{source}");
    redis[1].try_command(&[b"RESTORE", b"{vb0003}", b"0", &dump]).unwrap();
    redis[1].command(&["HSET", "{vb0003}", "own", "2"]);
    for index in ["streams", "tabs", "clients.a"] {
        let (from, to) = (format!("{{vb0003}}.{index}"), redis[1].port().to_string());
        redis[0].command(&["MIGRATE", "127.0.0.1", &to, &from, "0", "5000", "COPY"]);
    }
    assert_eq!(kit::load(&store, vbucket(3), &["a"]).await, loaded(1, &["a"]));
    assert_eq!(store.shards().view().owner(vbucket(3)).unwrap().epoch, 2);
    kit::done(&store, vbucket(3), commit(1, 2, &["a", "b"])).await;
    // It came back under a higher epoch: that is followed.
    redis[1].command(&["HSET", "{vb0003}", "own", "7"]);
    kit::done(&store, vbucket(3), commit(2, 3, &["a"])).await;
    assert_eq!(store.shards().view().owner(vbucket(3)).unwrap().epoch, 7);
}

#[tokio::test]
async fn the_old_view_stays_while_a_shard_is_silent() {
    let mut redis = Redis::start_many(2, &Options::durable());
    let store = kit::store(&redis).await;
    let before = store.shards().view();
    redis[1].kill();
    assert!(matches!(store.shards().census().await, Err(ConnectError::Link(_))));
    assert_eq!(store.shards().view(), before);
    kit::done(&store, vbucket(0), commit(0, 1, &["a"])).await;
    let error = store.commit(vbucket(63), commit(0, 1, &["a"])).await.unwrap_err();
    assert!(matches!(error.remedy(), Remedy::Wait(_)), "{error:?}");
}

#[tokio::test]
async fn servers_that_start_at_once_with_lists_in_other_orders_make_one_deployment() {
    for _ in 0..4 {
        let redis = Redis::start_many(3, &Options::default());
        let urls = kit::urls(&redis);
        let order = |order: [usize; 3]| order.map(|n| urls[n].clone()).to_vec();
        let orders = [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1]];
        let all = orders.map(|places| Shards::connect(order(places), kit::options()));
        let all: Vec<_> =
            futures::future::join_all(all).await.into_iter().map(|shards| shards.unwrap()).collect();
        let id = all[0].view().deployment().id;
        assert!(
            all.iter()
                .all(|shards| shards.view().deployment().id == id && !shards.view().deployment().is_new)
        );
        for vbucket in all[0].vbuckets().iter() {
            let port = |(shards, order): (&Shards, [usize; 3])| {
                redis[order[usize::from(shards.view().owner(vbucket).unwrap().shard.0)]].port()
            };
            let ports: Vec<u16> = all.iter().zip(orders).map(port).collect();
            assert!(ports.iter().all(|port| *port == ports[0]), "{vbucket}: {ports:?}");
        }
    }
    // One Redis under two names is no second shard.
    let redis = Redis::start(Options::default());
    let twice =
        [redis.url(), redis.url().replace("127.0.0.1", "localhost")].map(|url| ShardUrl::new(&url).unwrap());
    let error = Shards::connect(twice.to_vec(), kit::options()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Same { .. }), "{error:?}");
    assert_eq!(redis.command(&["DBSIZE"]), "1", "nothing was made but a name");
    // A bootstrap of other shards that did not end.
    let pair = Redis::start_many(2, &Options::default());
    pair[0].command(&["SET", "taba:shard", "0000000000000001"]);
    pair[0].command(&["SET", "taba:plan", "0000000000000001 00000000000000ff"]);
    let error = refused(&pair, kit::options()).await;
    assert!(matches!(error, ConnectError::OtherPlan { .. }), "{error:?}");
}

#[tokio::test]
async fn a_password_that_is_wrong_or_missing_is_not_waited_for() {
    let redis = [Redis::start(Options::durable())];
    redis[0].command(&["CONFIG", "SET", "requirepass", "right"]);
    for user in ["", ":wrong@", "nobody:wrong@"] {
        let url = ShardUrl::new(&format!("redis://{user}127.0.0.1:{}", redis[0].port())).unwrap();
        let error = Shards::connect(vec![url], kit::options()).await.unwrap_err();
        assert_eq!(error.remedy(), Remedy::GiveUp, "{error:?}");
        assert!(!taba_core::causes(&error).contains("wrong"), "{error:?}");
    }
    let right = ShardUrl::new(&format!("redis://:right@127.0.0.1:{}", redis[0].port())).unwrap();
    Shards::connect(vec![right], kit::options()).await.unwrap();
}
