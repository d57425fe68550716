//! The store beyond its laws: what is in Redis, what is refused, what it costs.

use std::collections::BTreeSet;

use taba_core::limits::COMMIT_PAIRS_MAX;
use taba_core::{
    ClientId, Commit, Committed, Part, Peek, Scan, ScanWhat, StateKey, Store, StoreError, StreamId, Version,
};
use taba_tests::redis::{Options, Redis};

use crate::kit::{self, commit, content, key, loaded, mark, tab, vbucket, version};

fn everything(limit: usize) -> Scan {
    Scan::default().with_limit(limit)
}

#[tokio::test]
async fn what_is_stored_is_what_the_layout_says_and_legal_on_a_cluster() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    let mut change = commit(0, 1, &["a;k=v"]);
    change.states.push((key("a;k=v"), Part(7), Some(content("part", 7))));
    kit::done(&store, vbucket(17), change).await;
    let get = |field: &str| redis[0].command(&["HGET", "{vb0017}", field]);
    assert_eq!(get("ver"), "000000000000004d-1");
    assert_eq!(get("t:a;k=v"), "Count");
    assert_eq!(get("s:a;k=v web"), "a;k=v as of 1");
    assert_eq!(get("s:a;k=v web 00007"), "part as of 7");
    assert_eq!(redis[0].command(&["HSTRLEN", "{vb0017}", "a:0000000000000005"]), "20");
    let index = |name: &str| redis[0].command(&["ZRANGE", &format!("{{vb0017}}.{name}"), "0", "-1"]);
    assert_eq!(index("streams"), "0000000000000005");
    assert_eq!(index("tabs"), "a;k=v");
    assert_eq!(index("clients.a;k=v"), "web");
    assert_eq!(index("parts.a;k=v"), "web 00007");
    let keys = redis[0].command(&["KEYS", "*"]);
    assert!(
        keys.lines().all(|key| key.starts_with("{vb") || ["taba:shard", "taba:map"].contains(&key)),
        "{keys}"
    );
    let ours: Vec<_> = keys.lines().filter(|key| key.starts_with("{vb0017}")).collect();
    let slots: BTreeSet<_> = ours.iter().map(|key| redis[0].command(&["CLUSTER", "KEYSLOT", key])).collect();
    // A Redis without cluster mode refuses the question, with the same words each time; `keys` has its own test.
    assert!(ours.len() == 5 && slots.len() == 1, "{ours:?} {slots:?}");
}

#[tokio::test]
async fn in_the_steady_state_a_commit_is_one_command_and_no_read() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    let tabs = ["a", "b", "c"];
    kit::done(&store, vbucket(1), commit(0, 1, &tabs)).await;
    redis[0].command(&["CONFIG", "RESETSTAT"]);
    for n in 2..102 {
        kit::done(&store, vbucket(1), commit(n - 1, n, &tabs)).await;
    }
    let calls = |name| redis[0].calls(name);
    assert_eq!((calls("evalsha"), calls("hset")), (100, 100));
    // Inside the script, to look at version and owner; nothing is read over the network.
    assert_eq!(calls("hmget"), 100);
    let all = redis[0].command(&["INFO", "commandstats"]);
    let names: BTreeSet<_> =
        all.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next()).collect();
    let ours = ["config|resetstat", "evalsha", "hmget", "hset", "info"];
    assert!(names.iter().all(|name| ours.contains(name)), "{names:?}");
}

#[tokio::test]
async fn a_look_at_all_vbuckets_is_one_plain_command_for_each_and_a_shard_that_is_away_takes_only_its_own() {
    let redis = Redis::start_many(2, &Options::durable());
    let store = kit::store(&redis).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a", "b"])).await;
    let peeks: Vec<_> = (0..64).map(|index| Peek::new(vbucket(index), vec![key("b")])).collect();
    for redis in &redis {
        redis.command(&["CONFIG", "RESETSTAT"]);
    }
    let answers = store.peek(&peeks).await;
    assert_eq!(answers[1].as_ref().unwrap().states, [Some(content("b", 1))]);
    assert_eq!(answers[1].as_ref().unwrap().tabs_since, Some(version(1)));
    assert!(answers.iter().all(Result::is_ok));
    let calls = |name| redis.iter().map(|redis| redis.calls(name)).sum::<u64>();
    assert_eq!((calls("hmget"), calls("evalsha")), (64, 0));
    // Somebody has deleted one.
    let lost = redis.iter().position(|redis| redis.command(&["EXISTS", "{vb0001}"]) == "1").unwrap();
    redis[lost].command(&["DEL", "{vb0001}"]);
    let answers = store.peek(&peeks).await;
    let errors: Vec<_> = (0..64).zip(&answers).filter(|(_, answer)| answer.is_err()).collect();
    assert!(matches!(errors[..], [(1, Err(StoreError::Misplaced { .. }))]), "{errors:?}");
    redis[1 - lost].pause();
    let answers = store.peek(&peeks).await;
    redis[1 - lost].resume();
    let away = answers.iter().filter(|answer| matches!(answer, Err(StoreError::Unavailable { .. }))).count();
    assert_eq!((away, answers.iter().filter(|answer| answer.is_ok()).count()), (32, 31));
}

#[tokio::test]
async fn a_commit_of_3900_pairs_is_one_script_whether_new_or_known() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    let names: Vec<String> = (0..COMMIT_PAIRS_MAX - 1).map(|n| format!("t{n}")).collect();
    for n in 1..3 {
        let mut change = Commit::new(Version::NEVER, version(n));
        change.expect = if n == 1 { Version::NEVER } else { version(n - 1) };
        change.states = names.iter().map(|name| (key(name), Part::WHOLE, Some(content(name, n)))).collect();
        assert_eq!(change.pairs(), COMMIT_PAIRS_MAX);
        assert_eq!(store.commit(vbucket(1), change.clone()).await.unwrap(), Committed::Done);
        change.marks.push((StreamId(1), None));
        assert!(matches!(store.commit(vbucket(1), change).await, Err(StoreError::TooLarge { .. })));
        let found = store.scan(vbucket(1), &everything(10_000)).await.unwrap();
        assert_eq!(found.len(), names.len());
        assert!(found.iter().all(|state| state.parts[0].1 == content(state.key.tab.as_str(), n)));
    }
    assert_eq!(store.tabs(vbucket(1)).await.unwrap(), [], "States without a type are found, but are no Tabs");
}

#[tokio::test]
async fn parts_are_loaded_scanned_and_removed_like_wholes() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    let client = |name: &str| StateKey { tab: tab("a"), client: ClientId::new(name).unwrap() };
    let mut change = Commit::new(Version::NEVER, version(1));
    // Clients whose names begin alike, one with parts only.
    for (name, parts) in [("web", vec![0, 3, 12]), ("web!", vec![1]), ("web-1", vec![0]), ("a", vec![65535])]
    {
        for part in parts {
            change.states.push((client(name), Part(part), Some(content(name, part.into()))));
        }
    }
    kit::done(&store, vbucket(1), change).await;
    let parts = |name: &str, parts: &[u16]| {
        let all = parts.iter().map(|part| (client(name), Part(*part), content(name, u64::from(*part))));
        all.collect::<Vec<_>>()
    };
    let wanted = taba_core::Wanted::default()
        .with_states(["web-1", "nobody", "web", "a", "web!"].map(client).to_vec());
    let found = store.load(vbucket(1), &wanted).await.unwrap().states;
    let all = [parts("web-1", &[0]), parts("web", &[0, 3, 12]), parts("a", &[65535]), parts("web!", &[1])];
    assert_eq!(found, all.concat());
    for what in [ScanWhat::States, ScanWhat::Keys] {
        let found = store.scan(vbucket(1), &everything(10).with_what(what)).await.unwrap();
        assert_eq!(
            found.iter().map(|state| &state.key).collect::<Vec<_>>(),
            ["a", "web", "web!", "web-1"].map(client).iter().collect::<Vec<_>>()
        );
        let expected = if what == ScanWhat::Keys { 0 } else { 3 };
        assert_eq!(found[1].parts.len(), expected);
    }
    let remove = |n, name: &str, part| {
        Commit::new(version(n - 1), version(n)).with_states(vec![(client(name), Part(part), None)])
    };
    for (n, name, part) in [(2, "a", 65535), (3, "web", 3), (4, "web", 0), (5, "web!", 1)] {
        kit::done(&store, vbucket(1), remove(n, name, part)).await;
    }
    let found = store.load(vbucket(1), &wanted).await.unwrap().states;
    assert_eq!(found, [parts("web-1", &[0]), parts("web", &[12])].concat());
    let found = store.scan(vbucket(1), &everything(10).with_what(ScanWhat::Keys)).await.unwrap();
    assert_eq!(found.iter().map(|state| state.key.client.as_str()).collect::<Vec<_>>(), ["web", "web-1"]);
    let index = |name: &str| redis[0].command(&["ZRANGE", &format!("{{vb0001}}.{name}"), "0", "-1"]);
    assert_eq!((index("clients.a"), index("parts.a")), ("web\nweb-1".into(), "web 00012".into()), "swept");
}

#[tokio::test]
async fn what_was_removed_is_swept_also_when_it_was_left() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a", "b"])).await;
    let removal = Commit::new(version(1), version(2))
        .with_marks(vec![(StreamId(5), None)])
        .with_tabs(vec![(tab("a"), None)])
        .with_states(vec![(key("a"), Part::WHOLE, None)]);
    kit::done(&store, vbucket(1), removal).await;
    let len = || redis[0].command(&["HLEN", "{vb0001}"]);
    // ver, tabs, own, of, the type and State of b, and how many Tabs there are and Clients of b.
    assert_eq!(len(), "8");
    assert_eq!(redis[0].command(&["ZRANGE", "{vb0001}.tabs", "0", "-1"]), "b");
    assert_eq!(redis[0].command(&["EXISTS", "{vb0001}.streams", "{vb0001}.clients.a"]), "0");
    // As a process that ended between commit and sweep leaves it: tombstones, and entries that nothing needs.
    redis[0].command(&["HSET", "{vb0001}", "t:b", "", "s:b web", "", "a:0000000000000009", ""]);
    redis[0].command(&["ZADD", "{vb0001}.streams", "0", "0000000000000009", "0", "000000000000000a"]);
    redis[0].command(&["ZADD", "{vb0001}.clients.b", "0", "never-came"]);
    redis[0].command(&["ZADD", "{vb0001}.parts.b", "0", "web 00003"]);
    assert_eq!(kit::load(&store, vbucket(1), &["b"]).await.states, []);
    assert_eq!(store.tabs(vbucket(1)).await.unwrap(), []);
    assert_eq!(store.scan(vbucket(1), &everything(10)).await.unwrap(), []);
    let swept = store.sweep(vbucket(1)).await.unwrap();
    assert_eq!((swept.fields, swept.entries), (3, 6));
    assert_eq!(len(), "4");
    assert_eq!(redis[0].command(&["KEYS", "{vb0001}*"]), "{vb0001}");
    assert_eq!(store.sweep(vbucket(1)).await.unwrap(), taba_shard::Swept::default());
}

#[tokio::test]
async fn a_state_that_comes_back_after_a_sweep_by_others_is_found_again() {
    let redis = [Redis::start(Options::durable())];
    let (store, other) = (kit::store(&redis).await, kit::store(&redis).await);
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    let removal = Commit::new(version(1), version(2))
        .with_marks(vec![(StreamId(5), None)])
        .with_tabs(vec![(tab("a"), None)])
        .with_states(vec![(key("a"), Part::WHOLE, None)]);
    kit::done(&store, vbucket(1), removal).await;
    other.sweep(vbucket(1)).await.unwrap();
    kit::done(&store, vbucket(1), commit(2, 3, &["a"])).await;
    assert_eq!(kit::load(&store, vbucket(1), &["a"]).await, loaded(3, &["a"]));
    assert_eq!(store.scan(vbucket(1), &everything(10)).await.unwrap().len(), 1);
    // Entries that are taken away by hand are noticed by the script itself, not assumed.
    redis[0].command(&["DEL", "{vb0001}.tabs", "{vb0001}.streams"]);
    let third = kit::store(&redis).await;
    kit::done(&third, vbucket(1), commit(3, 4, &["a", "b"])).await;
    assert_eq!(store.scan(vbucket(1), &everything(10)).await.unwrap().len(), 2);
}

#[tokio::test]
async fn two_stores_that_write_the_same_vbucket_take_turns() {
    let redis = Redis::start_many(2, &Options::durable());
    let stores = [kit::store(&redis).await, kit::store(&redis).await];
    let write = |store| async move {
        let store: &taba_shard::ShardedRedis = store;
        let (mut done, mut conflicts) = (0, 0);
        while done < 100 {
            let seen = store.load(vbucket(9), &kit::wanted(&["a"])).await.unwrap();
            let n = seen.version.count + 1;
            // Versions are unique only if a writer's number is in them.
            let writer = std::ptr::from_ref(store) as u64;
            let events = seen.marks.first().map_or(0, |(_, mark)| mark.events);
            let mut mark = mark(n);
            mark.events = events + 1;
            let change = commit(0, n, &["a"])
                .with_expect(seen.version)
                .with_next(Version { writer, count: n })
                .with_marks(vec![(StreamId(5), Some(mark))]);
            match store.commit(vbucket(9), change).await.unwrap() {
                Committed::Done => done += 1,
                Committed::Conflict { .. } => conflicts += 1,
                other => panic!("{other:?}"),
            }
        }
        conflicts
    };
    let conflicts = futures::join!(write(&stores[0]), write(&stores[1]));
    let end = kit::load(&stores[0], vbucket(9), &["a"]).await;
    assert_eq!((end.version.count, end.marks[0].1.events), (200, 200), "each commit counted once");
    assert!(conflicts.0 + conflicts.1 > 0, "they never met");
}

/// In the steady state, too: a commit whose entries are all known goes by a script of its own.
#[tokio::test]
async fn a_commit_on_what_another_store_has_replaced_is_turned_away() {
    let redis = [Redis::start(Options::durable())];
    let (store, other) = (kit::store(&redis).await, kit::store(&redis).await);
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    kit::done(&store, vbucket(1), commit(1, 2, &["a"])).await;
    kit::done(&other, vbucket(1), commit(2, 3, &["a"])).await;
    let outcome = store.commit(vbucket(1), commit(2, 4, &["a"])).await.unwrap();
    assert_eq!(outcome, Committed::Conflict { found: version(3) });
    assert_eq!(kit::load(&store, vbucket(1), &["a"]).await, loaded(3, &["a"]));
}

#[tokio::test]
async fn what_cannot_be_indexed_is_not_written() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    kit::done(&store, vbucket(1), commit(0, 1, &["a"])).await;
    redis[0].command(&["ACL", "SETUSER", "default", "-zadd"]);
    let error = store.commit(vbucket(1), commit(1, 2, &["a", "new"])).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert_eq!(kit::load(&store, vbucket(1), &["a", "new"]).await, loaded(1, &["a"]));
    redis[0].command(&["ACL", "SETUSER", "default", "+zadd"]);
    kit::done(&store, vbucket(1), commit(1, 2, &["a", "new"])).await;
    assert_eq!(store.scan(vbucket(1), &everything(10)).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_tab_of_more_clients_than_one_script_brings_is_scanned_whole() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    let mut keys = Vec::new();
    for (name, clients) in [("a", 3), ("b", 1500), ("c", 5), ("d", 600)] {
        let client = |n| StateKey { tab: tab(name), client: ClientId::new(&format!("c{n:04}")).unwrap() };
        keys.extend((0..clients).map(client));
    }
    let states = keys.iter().map(|key| (key.clone(), Part::WHOLE, Some(content(key.client.as_str(), 1))));
    let change = Commit::new(Version::NEVER, version(1)).with_states(states.collect());
    kit::done(&store, vbucket(1), change).await;
    for limit in [10_000, 1_700, 513, 100] {
        let mut found = Vec::new();
        loop {
            let after = found.last().cloned();
            let page = store.scan(vbucket(1), &everything(limit).with_after(after)).await.unwrap();
            let is_last = page.len() < limit;
            found.extend(page.into_iter().map(|state| state.key));
            if is_last {
                break;
            }
        }
        assert_eq!(found, keys, "in pages of {limit}");
    }
    let of = everything(10_000).with_tab(tab("b"));
    let of = store.scan(vbucket(1), &of).await.unwrap();
    assert_eq!(of.into_iter().map(|state| state.key).collect::<Vec<_>>(), keys[3..1503]);
}

#[tokio::test]
async fn what_no_store_writes_is_called_damaged() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    let damaged = |error: StoreError, what: &str| {
        assert!(matches!(&error, StoreError::Damaged { what: found, .. } if *found == what), "{error:?}");
    };
    let mut n = 10;
    let mut fresh = || {
        n += 1;
        (vbucket(n), format!("{{vb{n:04}}}"))
    };
    for (field, value, what) in [("ver", "nonsense", "version"), ("a:0000000000000005", "short", "mark")] {
        let (vbucket, hash) = fresh();
        kit::done(&store, vbucket, commit(0, 1, &["a"])).await;
        redis[0].command(&["HSET", &hash, field, value]);
        damaged(store.load(vbucket, &kit::wanted(&["a"])).await.unwrap_err(), what);
        if what == "version" {
            damaged(store.commit(vbucket, commit(1, 2, &["a"])).await.unwrap_err(), what);
        }
    }
    for (field, value, what) in [("own", "x", "epoch"), ("moved", "x", "mark of moving")] {
        let (vbucket, hash) = fresh();
        redis[0].command(&["HSET", &hash, field, value]);
        damaged(store.commit(vbucket, commit(0, 1, &["a"])).await.unwrap_err(), what);
    }
    let (vbucket, hash) = fresh();
    redis[0].command(&["DEL", &hash]);
    redis[0].command(&["SET", &hash, "x"]);
    damaged(store.load(vbucket, &kit::wanted(&["a"])).await.unwrap_err(), "key");
    damaged(store.commit(vbucket, commit(0, 1, &["a"])).await.unwrap_err(), "key");
    damaged(store.scan(vbucket, &everything(1)).await.unwrap_err(), "key");
    // Any bytes may be a State: what they mean is the Handler's business.
    let odd =
        commit(0, 1, &[]).with_states(vec![(key("a"), Part::WHOLE, Some(b"\0\xff\r\n$5".as_slice().into()))]);
    kit::done(&store, crate::kit::vbucket(1), odd).await;
    assert_eq!(
        kit::load(&store, crate::kit::vbucket(1), &["a"]).await.states[0].2,
        b"\0\xff\r\n$5".as_slice()
    );
}
