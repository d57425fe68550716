//! The data types of users.

use std::time::Duration;

use bytes::Bytes;
use taba_core::Remedy;
use taba_shard::command::{self, SetCondition};
use taba_shard::limits::{REQUEST_COMMANDS_MAX, TRANSACTION_COMMANDS_MAX};
use taba_shard::{Data, DataError, Swap};
use taba_tests::redis::{Aof, Options, Redis};
use taba_tests::wait_until;

use crate::kit;

async fn data(redis: &[Redis]) -> Data {
    kit::shards(redis).await.data("test").unwrap()
}

fn some(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

#[tokio::test]
async fn strings_and_counters() {
    let redis = Redis::start_many(3, &Options::default());
    let data = data(&redis).await;
    assert_eq!(data.get("a").await.unwrap(), None);
    data.set("a", b"\0\xff").await.unwrap();
    assert_eq!(data.get("a").await.unwrap(), Some(Bytes::from_static(b"\0\xff")));
    assert!(!data.set_new("a", "2").await.unwrap());
    assert!(data.set_new("b", "2").await.unwrap());
    let only = |over| data.run(command::set_with("c", "3", over, Some(Duration::from_millis(50))));
    assert!(!only(SetCondition::IfPresent).await.unwrap());
    assert!(only(SetCondition::IfAbsent).await.unwrap());
    assert_eq!(data.get("c").await.unwrap(), some("3"));
    let shards = |key: &str| redis.iter().map(|redis| redis.command(&["EXISTS", key])).collect::<String>();
    let c = format!("{{{}}}:test:c", taba_shard::vbucket_of(kit::options().vbuckets, b"c").unwrap());
    wait_until("it goes by itself", || shards(&c) == "000");
    assert_eq!(data.get_delete("b").await.unwrap(), some("2"));
    assert_eq!(data.get_delete("b").await.unwrap(), None);
    assert!(data.delete("a").await.unwrap() && !data.delete("a").await.unwrap());
    assert_eq!(data.increment("n", i64::MAX - 1).await.unwrap(), i64::MAX - 1);
    assert_eq!(data.increment("n", 1).await.unwrap(), i64::MAX);
    let error = data.increment("n", 1).await.unwrap_err();
    assert!(matches!(&error, DataError::Refused { .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::GiveUp);
    assert_eq!(data.run(command::counter("n")).await.unwrap(), Some(i64::MAX));
    assert!(data.run(command::exists("n")).await.unwrap());
    assert!(data.run(command::expire("n", Duration::from_secs(9))).await.unwrap());
    assert!(matches!(data.get("").await, Err(DataError::Key(_))));
    let large = command::hash_get_many("h", (0..100_001).map(|n: u32| n.to_string()));
    let error = data.run(large).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Split, "{error:?}");
}

#[tokio::test]
async fn hashes_and_sets() {
    let redis = Redis::start_many(2, &Options::default());
    let data = data(&redis).await;
    assert_eq!(data.run(command::hash_set("h", [("a", "1"), ("b", "2")])).await.unwrap(), 2);
    assert_eq!(data.run(command::hash_get("h", "a")).await.unwrap(), some("1"));
    let many = data.run(command::hash_get_many("h", ["b", "x", "a"])).await.unwrap();
    assert_eq!(many, [some("2"), None, some("1")]);
    assert_eq!(data.run(command::hash_increment("h", "a", -3)).await.unwrap(), -2);
    let mut all = data.run(command::hash_all("h")).await.unwrap();
    all.sort();
    assert_eq!(all, [("a".into(), "-2".into()), ("b".into(), "2".into())]);
    assert_eq!(data.run(command::hash_remove("h", ["a", "x"])).await.unwrap(), 1);
    assert_eq!(data.run(command::hash_len("h")).await.unwrap(), 1);
    assert_eq!(data.run(command::set_add("s", ["a", "b", "a"])).await.unwrap(), 2);
    assert!(data.run(command::set_contains("s", "a")).await.unwrap());
    assert_eq!(data.run(command::set_remove("s", ["a", "x"])).await.unwrap(), 1);
    assert_eq!(data.run(command::set_members("s")).await.unwrap(), [Bytes::from("b")]);
    assert_eq!(data.run(command::set_len("s")).await.unwrap(), 1);
    assert_eq!(data.run(command::set_members("none")).await.unwrap(), Vec::<Bytes>::new());
    let error = data.run(command::get("s")).await.unwrap_err();
    let DataError::Refused { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.code, "WRONGTYPE");
}

#[tokio::test]
async fn many_keys_take_one_request_to_each_shard() {
    let redis = Redis::start_many(4, &Options::default());
    let data = data(&redis).await;
    let keys: Vec<String> = (0..300).map(|n| format!("k{n}")).collect();
    let set = data.set_many(keys.iter().map(|key| (key, format!("of {key}")))).await;
    assert!(set.into_iter().all(|outcome| outcome.is_ok()));
    let packets = |redis: &Redis| redis.info("stats", "total_reads_processed").parse::<u64>().unwrap();
    let before: Vec<_> = redis.iter().map(packets).collect();
    let got = data.get_many(&keys).await.unwrap();
    let after: Vec<_> = redis.iter().map(packets).collect();
    assert_eq!(got, keys.iter().map(|key| some(&format!("of {key}"))).collect::<Vec<_>>());
    for (before, after) in before.iter().zip(after) {
        // One for the request, one for the question of this test.
        assert!(after - before <= 3, "{} reads", after - before);
    }
    assert!(redis.iter().all(|redis| redis.calls("get") > 0), "every shard has some");
    let sums = data.increment_many([("x", 1), ("y", 2), ("x", 3)]).await;
    assert_eq!(sums.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 2, 4], "in their order");
    // More than fit one request, of several kinds of refusal, each in its place.
    let count = 4 * REQUEST_COMMANDS_MAX + 3;
    data.run(command::set_add("k7", ["x"])).await.unwrap_err();
    data.delete("k7").await.unwrap();
    data.run(command::set_add("k7", ["x"])).await.unwrap();
    let keys = (0..count).map(|n| if n % 100 == 50 { String::new() } else { format!("k{}", n % 300) });
    let answers = data.run_all(keys.map(command::get)).await;
    assert_eq!(answers.len(), count);
    for (n, answer) in answers.into_iter().enumerate() {
        match answer {
            Err(DataError::Key(_)) => assert_eq!(n % 100, 50),
            Err(DataError::Refused { .. }) => assert_eq!(n % 300, 7),
            other => assert_eq!(other.unwrap(), some(&format!("of k{}", n % 300))),
        }
    }
}

#[tokio::test]
async fn one_shard_that_is_away_costs_its_own_keys_only() {
    // Written before each answer, also while a slow disk syncs.
    let mut redis = Redis::start_many(2, &Options { aof: Aof::No, ..Options::default() });
    let data = data(&redis).await;
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    assert!(data.set_many(keys.iter().map(|key| (key, key))).await.iter().all(Result::is_ok));
    redis[1].kill();
    let answers = data.run_all(keys.iter().map(command::get)).await;
    let (here, away): (Vec<_>, Vec<_>) = answers.iter().zip(&keys).partition(|(answer, _)| answer.is_ok());
    assert!(!here.is_empty() && !away.is_empty());
    assert!(here.iter().all(|(answer, key)| *answer.as_ref().unwrap() == some(key)));
    for (answer, _) in &away {
        assert!(matches!(answer.as_ref().unwrap_err().remedy(), Remedy::Wait(_)));
    }
    redis[1].restart();
    let mut got = data.get_many(&keys).await;
    while got.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        got = data.get_many(&keys).await;
    }
    assert_eq!(got.unwrap(), keys.iter().map(|key| some(key)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_transaction_is_seen_whole_or_not_at_all() {
    let redis = Redis::start_many(2, &Options::default());
    let data = data(&redis).await;
    let write = async {
        for _ in 0..200 {
            let mut transaction = data.transaction();
            let a = transaction.add(command::increment("{t}:a", 1)).unwrap();
            let b = transaction.add(command::increment("{t}:b", 1)).unwrap();
            let mut answers = transaction.run().await.unwrap();
            assert_eq!(answers.take(a).unwrap(), answers.take(b).unwrap());
        }
    };
    let read = async {
        for _ in 0..200 {
            let mut transaction = data.transaction();
            let a = transaction.add(command::counter("{t}:a")).unwrap();
            let b = transaction.add(command::counter("{t}:b")).unwrap();
            let mut answers = transaction.run().await.unwrap();
            assert_eq!(answers.take(a).unwrap(), answers.take(b).unwrap());
        }
    };
    let others = async {
        for _ in 0..400 {
            data.increment("{t}:c", 1).await.unwrap();
        }
    };
    futures::join!(write, read, others);
    assert_eq!(data.run(command::counter("{t}:c")).await.unwrap(), Some(400));
    let mut transaction = data.transaction();
    let set = transaction.add(command::set_add("{t}:a", ["x"])).unwrap();
    let sum = transaction.add(command::increment("{t}:b", 1)).unwrap();
    assert!(matches!(transaction.add(command::get("elsewhere")), Err(DataError::Apart)));
    let mut answers = transaction.run().await.unwrap();
    assert!(matches!(answers.take(set), Err(DataError::Refused { .. })), "it holds a string");
    assert_eq!(answers.take(sum).unwrap(), 201, "the others were done");
    let mut transaction = data.transaction();
    for _ in 0..TRANSACTION_COMMANDS_MAX {
        transaction.add(command::get("a")).unwrap();
    }
    assert_eq!(transaction.add(command::get("a")).unwrap_err().remedy(), Remedy::Split);
    assert!(transaction.run().await.is_ok());
    data.transaction().run().await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_finds_no_room_is_not_done_at_all() {
    let redis = [Redis::start(Options::default())];
    let data = data(&redis).await;
    data.set("{t}:n", "1").await.unwrap();
    redis[0].command(&["CONFIG", "SET", "maxmemory", "100000"]);
    let mut transaction = data.transaction();
    transaction.add(command::delete("{t}:n")).unwrap();
    transaction.add(command::set("{t}:m", "2")).unwrap();
    let error = transaction.run().await.unwrap_err();
    let DataError::Refused { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.code, "OOM");
    assert!(matches!(error.remedy(), Remedy::Wait(_)));
    assert_eq!(data.get("{t}:n").await.unwrap(), some("1"));
}

#[tokio::test]
async fn compare_and_set_lets_one_of_many_through() {
    let redis = Redis::start_many(2, &Options::default());
    let data = data(&redis).await;
    assert_eq!(data.compare_and_set("a", Some(b"1"), Some(b"2")).await.unwrap(), Swap::Found(None));
    assert_eq!(data.compare_and_set("a", None, Some(b"0")).await.unwrap(), Swap::Done);
    assert_eq!(data.compare_and_set("a", None, Some(b"1")).await.unwrap(), Swap::Found(some("0")));
    let add = || async {
        for _ in 0..50 {
            loop {
                let seen = data.get("a").await.unwrap().unwrap();
                let next = std::str::from_utf8(&seen).unwrap().parse::<u32>().unwrap() + 1;
                let next = next.to_string();
                let swap = data.compare_and_set("a", Some(&seen), Some(next.as_bytes()));
                if swap.await.unwrap() == Swap::Done {
                    break;
                }
            }
        }
    };
    futures::join!(add(), add(), add());
    assert_eq!(data.get("a").await.unwrap(), some("150"));
    assert_eq!(data.compare_and_set("a", Some(b"150"), None).await.unwrap(), Swap::Done);
    assert!(!data.run(command::exists("a")).await.unwrap());
    // An empty string is something.
    data.set("e", "").await.unwrap();
    assert_eq!(data.compare_and_set("e", None, Some(b"x")).await.unwrap(), Swap::Found(some("")));
    assert_eq!(data.compare_and_set("e", Some(b""), Some(b"x")).await.unwrap(), Swap::Done);
}
