//! Index keys that somebody deletes, empties or replaces: what is in the hash counts all the same.

use std::sync::atomic::{AtomicBool, Ordering};

use taba_core::{
    ClientId, Commit, Committed, Loaded, Part, Scan, Scanned, StateKey, Store, StoreError, StreamId, TabName,
    TabType, Version,
};
use taba_shard::ShardedRedis;
use taba_tests::redis::{Options, Redis};

use crate::kit::{self, commit, content, key, mark, tab, vbucket, version, wanted};

const KINDS: [&str; 4] = ["streams", "tabs", "clients.a", "parts.a"];

fn index(kind: &str) -> String {
    format!("{{vb0001}}.{kind}")
}

/// Three marks, three Tabs, three Clients, and a further part.
async fn full(store: &ShardedRedis) {
    let client = |name: &str| StateKey { client: ClientId::new(name).unwrap(), ..key("a") };
    let mut change = commit(0, 1, &["a", "b", "c"]);
    change.marks.extend([6, 7].map(|stream| (StreamId(stream), Some(mark(stream)))));
    change.states.extend(["db", "x"].map(|name| (client(name), Part::WHOLE, Some(content(name, 1)))));
    change.states.push((client("db"), Part(3), Some(content("part", 1))));
    kit::done(store, vbucket(1), change).await;
}

/// All that can be asked for, sorted.
async fn look(store: &ShardedRedis) -> (Loaded, Vec<(TabName, TabType)>, Vec<Scanned>, Vec<Scanned>) {
    let mut asked = wanted(&["a", "b", "c"]);
    asked.states.push(StateKey { client: ClientId::new("db").unwrap(), ..key("a") });
    let mut loaded = store.load(vbucket(1), &asked).await.unwrap();
    loaded.marks.sort_unstable_by_key(|(stream, _)| *stream);
    let all = Scan::default().with_limit(1000);
    let one = all.clone().with_tab(tab("a"));
    let scans = (store.scan(vbucket(1), &all).await.unwrap(), store.scan(vbucket(1), &one).await.unwrap());
    (loaded, store.tabs(vbucket(1)).await.unwrap(), scans.0, scans.1)
}

#[tokio::test]
async fn whatever_index_key_is_deleted_all_marks_and_states_count() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    full(&store).await;
    let before = look(&store).await;
    assert_eq!((before.0.marks.len(), before.2.len(), before.0.states.len()), (3, 5, 5));
    let entries = |kind: &str| redis[0].command(&["ZRANGE", &index(kind), "0", "-1"]);
    for kind in KINDS {
        let held = entries(kind);
        let first = held.lines().next().unwrap().to_owned();
        let ways: [&[&str]; 3] =
            [&["DEL", &index(kind)], &["ZREM", &index(kind), &first], &["RENAME", &index(kind), "elsewhere"]];
        for way in ways {
            redis[0].command(way);
            // The first question of any kind finds it, in a store that knows everything as in one that knows nothing.
            assert_eq!(look(&store).await, before, "{way:?}");
            redis[0].command(way);
            assert_eq!(look(&kit::store(&redis).await).await, before, "{way:?}");
            assert_eq!(entries(kind), held, "{way:?}: it is whole again");
        }
        redis[0].command(&["DEL", &index(kind)]);
        redis[0].command(&["SET", &index(kind), "somebody else's"]);
        assert_eq!(look(&store).await, before, "{kind} is of another type");
        redis[0].command(&["ZADD", &index(kind), "0", "!! no entry of ours", "0", "\u{e9}"]);
        assert_eq!(look(&store).await, before, "{kind} holds what is no entry");
    }
    let kept = redis[0].command(&["KEYS", "{vb0001}!set-aside:*"]);
    assert_eq!(kept.lines().count(), KINDS.len(), "what was somebody else's is kept: {kept}");
}

#[tokio::test]
async fn an_index_that_was_deleted_and_filled_again_in_part_is_noticed() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    full(&store).await;
    redis[0].command(&["DEL", &index("streams"), &index("tabs"), &index("clients.a"), &index("parts.a")]);
    // New entries come from a writer that takes the old ones for written.
    let client = StateKey { client: ClientId::new("new").unwrap(), ..key("a") };
    let change = Commit::new(version(1), version(2))
        .with_marks(vec![(StreamId(99), Some(mark(99)))])
        .with_tabs(vec![(tab("new"), Some(TabType::new("Count").unwrap()))])
        .with_states(vec![
            (client, Part::WHOLE, Some(content("new", 2))),
            (key("new"), Part::WHOLE, Some(content("new", 2))),
            (StateKey { client: ClientId::new("x").unwrap(), ..key("a") }, Part(9), Some(content("x", 2))),
        ]);
    kit::done(&store, vbucket(1), change).await;
    let (loaded, tabs, all, one) = look(&kit::store(&redis).await).await;
    assert_eq!(loaded.marks.len(), 4, "a mark that is not seen lets a Batch count twice");
    assert_eq!((tabs.len(), all.len(), one.len()), (4, 7, 4));
    let parts: usize = one.iter().map(|state| state.parts.len()).sum();
    assert_eq!(parts, 6);
}

#[tokio::test]
async fn what_is_removed_stays_removed_when_indexes_are_written_again() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    full(&store).await;
    let removal = Commit::new(version(1), version(2))
        .with_marks(vec![(StreamId(6), None)])
        .with_tabs(vec![(tab("b"), None)])
        .with_states(vec![(key("b"), Part::WHOLE, None)]);
    kit::done(&store, vbucket(1), removal).await;
    assert_eq!(redis[0].command(&["HMGET", "{vb0001}", "n.streams", "n.tabs", "n.clients.b"]), "2\n2\n(nil)");
    redis[0].command(&["DEL", &index("streams"), &index("tabs")]);
    let fresh = kit::store(&redis).await;
    let loaded = fresh.load(vbucket(1), &wanted(&["b"])).await.unwrap();
    assert_eq!((loaded.marks.len(), loaded.states.len(), loaded.tabs.len()), (2, 0, 0));
    assert_eq!(fresh.tabs(vbucket(1)).await.unwrap().len(), 2);
    assert_eq!(fresh.tidy(vbucket(1)).await.unwrap().entries, 0);
    assert_eq!(fresh.relist(vbucket(1)).await.unwrap(), 0, "nothing is missing");
}

#[tokio::test]
async fn indexes_are_written_again_while_commits_go_on() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    full(&store).await;
    let is_done = AtomicBool::new(false);
    let writer = async {
        for n in 2..=150 {
            let name = format!("t{n}");
            let mut change = commit(n - 1, n, &["a", &name]);
            change.marks = vec![(StreamId(1000 + n), Some(mark(n)))];
            kit::done(&store, vbucket(1), change).await;
        }
        is_done.store(true, Ordering::Relaxed);
    };
    let spoiler = async {
        let fresh = kit::store(&redis).await;
        while !is_done.load(Ordering::Relaxed) {
            for kind in ["streams", "tabs", "clients.a"] {
                redis[0].command(&["DEL", &index(kind)]);
                match fresh.load(vbucket(1), &wanted(&["a"])).await {
                    // Deleted again while it was written again.
                    Ok(_) | Err(StoreError::Damaged { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
                tokio::task::yield_now().await;
            }
        }
    };
    futures::join!(writer, spoiler);
    let (loaded, tabs, all, _) = look(&kit::store(&redis).await).await;
    assert_eq!((loaded.marks.len(), tabs.len(), all.len()), (3 + 149, 3 + 149, 5 + 149));
}

#[tokio::test]
async fn a_count_of_index_entries_that_is_no_number_hides_nothing_and_stops_nothing() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    full(&store).await;
    let kinds = ["streams", "tabs", "clients.a", "parts.a"];
    let counts = || kinds.map(|kind| redis[0].command(&["HGET", "{vb0001}", &format!("n.{kind}")]));
    let (whole, mut n) = (counts(), 1);
    for garbage in ["x", "", "-1", "nan", "1e300", "99999999999999999999", "9223372036854775807"] {
        for kind in kinds {
            let spoil = || redis[0].command(&["HSET", "{vb0001}", &format!("n.{kind}"), garbage]);
            let removed = (kind, garbage) == ("clients.a", "x");
            spoil();
            if removed {
                redis[0].command(&["DEL", &index(kind)]);
            }
            // Whoever comes first, a commit that lists something new or a reader.
            for is_commit_first in [false, true] {
                spoil();
                n += 1;
                let stream = StreamId(1000 + n);
                let mut change = commit(n - 1, n, &["a", "new"]);
                change.marks = vec![(stream, Some(mark(n)))];
                if is_commit_first {
                    kit::done(&store, vbucket(1), change).await;
                    look(&store).await;
                } else {
                    look(&store).await;
                    kit::done(&store, vbucket(1), change).await;
                }
                let (_, tabs, all, one) = look(&store).await;
                assert!(tabs.iter().any(|(name, _)| *name == tab("new")), "{kind} {garbage}");
                assert_eq!((tabs.len(), all.len(), one.len()), (4, 6, 3), "{kind} {garbage}");
                let drop = Commit::new(version(n), version(n + 1))
                    .with_marks(vec![(stream, None)])
                    .with_tabs(vec![(tab("new"), None)])
                    .with_states(vec![(key("new"), Part::WHOLE, None)]);
                n += 1;
                kit::done(&store, vbucket(1), drop).await;
            }
            look(&kit::store(&redis).await).await;
            store.tidy(vbucket(1)).await.unwrap();
            assert_eq!(counts(), whole, "{kind} {garbage}");
        }
    }
}

#[tokio::test]
async fn a_damaged_type_or_mark_is_a_fault_of_its_own() {
    let redis = [Redis::start(Options::durable())];
    let store = kit::store(&redis).await;
    full(&store).await;
    redis[0].command(&["HSET", "{vb0001}", "t:b", "no/type"]);
    let types = store.tabs(vbucket(1)).await.unwrap();
    let types: Vec<&str> = types.iter().map(|(_, tab_type)| tab_type.as_str()).collect();
    assert_eq!(types, ["Count", "taba.damaged", "Count"]);
    let loaded = store.load(vbucket(1), &wanted(&["a", "b"])).await.unwrap();
    assert_eq!((loaded.tabs.len(), loaded.states.len()), (2, 2));
    // Whether the events of that Lane were counted cannot be known; its VBucket takes no more, and can be read.
    redis[0].command(&["HSET", "{vb0001}", "a:0000000000000006", "x"]);
    let error = store.load(vbucket(1), &wanted(&[])).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { what: "mark", .. }), "{error:?}");
    assert_eq!(store.tabs(vbucket(1)).await.unwrap().len(), 3);
    let next = Commit::new(version(1), Version { writer: 5, count: 1 });
    assert_eq!(store.commit(vbucket(1), next).await.unwrap(), Committed::Done);
}
