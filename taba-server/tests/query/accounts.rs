//! The accounts that Servers keep say what the States say, through folding, refusing, deleting and damage; and are all that is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use serde_json::{Value, json};
use taba_core::wire::{Answer, Block, LaneBatch, Lanes};
use taba_core::{
    ClientId, Commit, Committed, Events, MemoryStore, Part, Scan, ScanWhat, Scanned, SeqNo, StateKey, Store,
    StreamId, TabName, TabType, Timestamp, VBucket, VBuckets, Version, Wanted,
};
use taba_server::Server;
use taba_server::query::{Limits, upkeep};

use crate::kit::{Intruded, Intruder, Kit, NOW};

fn block(tab: &str, client: &str, values: &[f64]) -> Block {
    let times = vec![Timestamp::from_secs(NOW); values.len()];
    let (tab, client) = (TabName::new(tab).unwrap(), ClientId::new(client).unwrap());
    Block::of_events(tab, client, TabType::new("TotalsCounter").unwrap(), Events::new(&times, values))
        .unwrap()
}

/// Has a Server fold these, each in the VBucket of its Tab.
async fn fold(store: &Arc<MemoryStore>, stream: u64, blocks: Vec<Block>) {
    let server =
        Server::builder().shared_store(store.clone()).handlers(crate::kit::handlers()).build().unwrap();
    let mut batches = std::collections::BTreeMap::<u16, Vec<Block>>::new();
    for block in blocks {
        let vbucket = VBuckets::default().of(&block.tab);
        batches.entry(vbucket.index()).or_default().push(block);
    }
    let batch = |(vbucket, blocks)| LaneBatch::new(StreamId(stream), vbucket, SeqNo::FIRST, 0, blocks);
    let acks = server.ingest(Lanes::new((server.clock())(), batches.into_iter().map(batch).collect())).await;
    assert!(acks.iter().all(|ack| ack.answer == Answer::Applied), "{acks:?}");
}

/// Clients with States in many VBuckets, some of whose events are refused.
async fn filled() -> (Arc<MemoryStore>, Kit) {
    let store = Arc::new(MemoryStore::default());
    for round in 0..3_u64 {
        let mut blocks = Vec::new();
        for client in 0..60 {
            let client = format!("web-{client}");
            for tab in 0..5 {
                blocks.push(block(&format!("hits{tab}"), &client, &[1.0; 4]));
            }
            blocks.push(block(&format!("bad{}", round % 2), &client, &[1.0, f64::NAN]));
            blocks.push(block("taba.recorded", &client, &[23.0]));
        }
        fold(&store, round, blocks).await;
    }
    let kit = Kit::over(store.clone(), store.clone(), Limits::default());
    (store, kit)
}

/// What people ask that the accounts answer.
async fn answers(kit: &Kit) -> Vec<Value> {
    let mut answers = Vec::new();
    for path in [
        "/v2/ledger",
        "/v2/ledger?totals=true",
        "/v2/ledger?client=web-7,web-31",
        "/v2/ledger?re=true&client=web-1.",
        "/v2/clients",
        "/v2/clients?client=web-3",
        "/v2/tabs?name=hits1",
    ] {
        let mut answer = kit.get(path).await.json();
        assert_eq!(answer["complete"], true, "{answer}");
        answer.as_object_mut().unwrap().retain(|key, _| !["at", "as_of"].contains(&key.as_str()));
        answers.push(answer);
    }
    let metrics = kit.get("/metrics").await.text;
    answers.push(metrics.lines().filter(|line| line.starts_with("taba_ledger")).collect());
    answers
}

/// Changes what is stored of accounts, in every VBucket that has some.
async fn damage(store: &MemoryStore, of: impl Fn(usize) -> Option<bytes::Bytes>) {
    for (place, vbucket) in store.vbuckets().iter().enumerate() {
        let accounts = Scan::default().with_tab(TabName::new("taba.accounts").unwrap()).with_limit(1);
        let found: Vec<StateKey> =
            store.scan(vbucket, &accounts).await.unwrap().into_iter().map(|found| found.key).collect();
        let Some(head) = found.first().cloned() else { continue };
        let expect = store.load(vbucket, &Wanted::default()).await.unwrap().version;
        let commit = Commit::new(expect, Version { writer: 9, count: expect.count + 1 }).with_states(vec![(
            head,
            Part::WHOLE,
            of(place),
        )]);
        assert_eq!(store.commit(vbucket, commit).await.unwrap(), Committed::Done);
    }
}

#[tokio::test]
async fn with_and_without_accounts_answers_are_the_same() {
    let (store, kit) = filled().await;
    let kept = answers(&kit).await;
    assert_eq!(kept[0]["totals"]["recorded"], 3 * 60 * 23);
    assert_eq!(kept[0]["totals"]["in_flight"], 3 * 60);
    assert_eq!((&kept[1]["results"], &kept[1]["totals"]), (&json!([]), &kept[0]["totals"]));
    assert_eq!(kept[2]["results"].as_array().unwrap().len(), 2);
    assert_eq!(kept[4]["results"].as_array().unwrap().len(), 60);
    assert_eq!(kept[5]["results"], json!([{ "client": "web-3", "tabs": 7 }]));
    assert_eq!(kept[6]["results"][0]["lost"], 3 * 60);
    // Some are gone, some are damaged: then the States are read.
    damage(&store, |place| (place % 2 == 0).then(|| bytes::Bytes::from_static(b"?"))).await;
    assert_eq!(answers(&kit).await, kept);
    // Events are folded all the same.
    fold(&store, 7, vec![block("hits1", "web-3", &[1.0]), block("taba.recorded", "web-3", &[1.0])]).await;
    let without = answers(&kit).await;
    assert_eq!(without[0]["totals"]["folded"], kept[0]["totals"]["folded"].as_u64().unwrap() + 1);
    // Upkeep writes them anew, once.
    assert_eq!(
        [
            upkeep(&kit.state).await.unwrap().accounts_renewed > 0,
            upkeep(&kit.state).await.unwrap().accounts_renewed > 0
        ],
        [true, false]
    );
    assert_eq!(answers(&kit).await, without);
    fold(&store, 8, vec![block("hits1", "web-3", &[1.0]), block("taba.recorded", "web-3", &[1.0])]).await;
    let renewed = answers(&kit).await;
    assert_eq!(renewed[0]["totals"]["folded"], without[0]["totals"]["folded"].as_u64().unwrap() + 1);
    damage(&store, |_| None).await;
    assert_eq!(answers(&kit).await, renewed);
}

/// They may have been written first by what is no folding.
#[tokio::test]
async fn a_vbucket_whose_first_commit_is_a_copy_of_the_spread_has_accounts() {
    let store = Arc::new(MemoryStore::default());
    let kit = Kit::over(store.clone(), store.clone(), Limits::default());
    kit.settle_spread().await;
    fold(&store, 1, vec![block("hits1", "web-3", &[1.0])]).await;
    assert_eq!(upkeep(&kit.state).await.unwrap().accounts_renewed, 0, "all have some");
}

/// A State that cannot be read is one, whether the accounts say so or it is found.
#[tokio::test]
async fn a_client_of_unreadable_states_is_listed() {
    let (store, kit) = filled().await;
    let home = VBuckets::default().of(&TabName::new("hits1").unwrap());
    let garbage = bytes::Bytes::from_static(b"garbage");
    kit.put(home, "hits1", "TotalsCounter", "web-3", garbage).await;
    let expected = json!([{ "client": "web-3", "tabs": 7 }]);
    assert_eq!(kit.get("/v2/clients?client=web-3").await.json()["results"], expected);
    damage(&store, |_| None).await;
    assert_eq!(kit.get("/v2/clients?client=web-3").await.json()["results"], expected);
}

#[tokio::test]
async fn what_is_deleted_stays_in_the_accounts() {
    let (store, kit) = filled().await;
    let before = answers(&kit).await;
    let removed = kit.ask("DELETE", "/v2/tabs?name=hits1", "*/*").await.json();
    assert_eq!(
        (&removed["removed"]["states"], &removed["removed"]["events"]),
        (&json!(60), &json!(3 * 60 * 4))
    );
    let after = answers(&kit).await;
    let totals = |answers: &[Value]| answers[1]["totals"].clone();
    assert_eq!(totals(&after)["folded"], totals(&before)["folded"]);
    assert_eq!(totals(&after)["deleted"], 3 * 60 * 4);
    assert_eq!(after[5]["results"], json!([{ "client": "web-3", "tabs": 6 }]));
    damage(&store, |_| None).await;
    assert_eq!(answers(&kit).await, after);
}

/// A damaged group, and a head that says something else than the groups.
#[tokio::test]
async fn accounts_that_do_not_add_up_are_not_believed() {
    let (store, kit) = filled().await;
    let kept = answers(&kit).await;
    let vbucket = VBuckets::default().of(&TabName::new("hits1").unwrap());
    let accounts = Scan::default().with_tab(TabName::new("taba.accounts").unwrap());
    let found = store.scan(vbucket, &accounts).await.unwrap();
    assert!(found.len() > 2, "a head and several groups");
    for (wrong, bytes) in [(1, None), (2, Some(bytes::Bytes::from_static(b"?")))] {
        let expect = store.load(vbucket, &Wanted::default()).await.unwrap().version;
        let next = Version { writer: 9, count: expect.count + 1 };
        let states = vec![(found[wrong].key.clone(), Part::WHOLE, bytes)];
        let commit = Commit::new(expect, next).with_states(states);
        assert_eq!(store.commit(vbucket, commit).await.unwrap(), Committed::Done);
        assert_eq!(kit.get("/v2/ledger").await.json()["totals"], kept[0]["totals"]);
    }
}

/// Counts States that are read, but for those of accounts.
struct Counter(AtomicUsize);

#[async_trait]
impl Intruder for Counter {
    async fn scanned(&self, found: &[Scanned]) {
        let states = found.iter().filter(|state| !state.key.tab.as_str().starts_with("taba.")).count();
        self.0.fetch_add(states, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_ledger_reads_no_state() {
    let (store, _) = filled().await;
    let asked = Arc::new(Intruded { store: store.clone(), intruder: Counter(AtomicUsize::new(0)) });
    let kit = Kit::over(store, asked.clone(), Limits::default());
    for path in ["/v2/ledger", "/v2/ledger?totals=true", "/v2/ledger?client=web-7", "/v2/clients", "/metrics"]
    {
        assert_eq!(kit.get(path).await.status, 200);
        assert_eq!(asked.intruder.0.load(Ordering::Relaxed), 0, "{path}");
    }
    kit.get("/v2/tabs?name=hits1").await;
    assert_eq!(asked.intruder.0.load(Ordering::Relaxed), 60, "only those that it shows");
}

#[tokio::test]
async fn totals_have_no_rows_to_choose() {
    let kit = Kit::new();
    let answer = kit.get("/v2/ledger?totals=true&client=web").await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("totals are of all clients"), "{}", answer.text);
    assert_eq!(kit.get("/v2/ledger?totals=false&client=web").await.status, 200);
}

#[tokio::test]
async fn the_accounts_are_no_tab() {
    let (store, kit) = filled().await;
    let names = kit.names("/v2/names?reserved=true").await;
    assert!(names.iter().all(|name| name != "taba.accounts"), "{names:?}");
    assert!(kit.names("/v2/tabs?name=taba.accounts").await.is_empty());
    let keys = Scan::default().with_what(ScanWhat::Keys).with_tab(TabName::new("taba.accounts").unwrap());
    let has_some = async |vbucket: VBucket| !store.scan(vbucket, &keys).await.unwrap().is_empty();
    assert!(has_some(VBuckets::default().of(&TabName::new("hits1").unwrap())).await);
}

/// The answers, without the times and without one Client.
async fn without_accounts(store: &Arc<MemoryStore>, kit: &Kit) -> (Vec<Value>, Vec<Value>) {
    let with = answers(kit).await;
    damage(store, |_| None).await;
    (with, answers(&Kit::over(store.clone(), store.clone(), Limits::default())).await)
}

#[tokio::test]
async fn a_client_that_is_forgotten_is_in_no_account_and_counts_anew() {
    let (store, kit) = filled().await;
    let before = kit.get("/v2/ledger").await.json()["totals"].clone();
    let number = |totals: &Value, field: &str| totals[field].as_u64().unwrap();
    let account = kit.get("/v2/ledger?client=web-7").await.json()["results"][0].clone();
    let removed = kit.ask("DELETE", "/v2/clients?client=web-7", "*/*").await.json()["removed"].clone();
    assert_eq!(removed["events"], account["folded"], "{removed}");
    let after = kit.get("/v2/ledger").await.json();
    for field in ["recorded", "folded"] {
        assert_eq!(
            number(&after["totals"], field),
            number(&before, field) - number(&account, field),
            "{field}"
        );
    }
    let rows = after["results"].as_array().unwrap();
    assert!(rows.len() == 59 && rows.iter().all(|row| row["client"] != "web-7"), "{after}");
    let reserved = kit.get("/v2/projections?client=web-7&reserved=true").await.json();
    assert_eq!(reserved["results"], json!([]), "nothing of it is left");
    // A Server that had it in its caches, and all later commits, agree.
    fold(&store, 77, vec![block("hits1", "web-7", &[1.0]), block("taba.recorded", "web-7", &[1.0])]).await;
    let again = kit.get("/v2/ledger?client=web-7").await.json();
    assert_eq!((&again["results"][0]["recorded"], &again["results"][0]["folded"]), (&json!(1), &json!(1)));
    let (with, without) = without_accounts(&store, &kit).await;
    assert_eq!(with, without);
    for wrong in ["", "?client=", "?client=a%20b", "?client=a&client=b", "?client=a&re=true"] {
        let answer = kit.ask("DELETE", &format!("/v2/clients{wrong}"), "*/*").await;
        assert_eq!(answer.status.as_u16(), 400, "{wrong} {}", answer.text);
    }
}

#[tokio::test]
async fn what_a_server_writes_alone_is_refused_from_others_and_what_was_there_can_be_deleted() {
    let (store, kit) = filled().await;
    let before = kit.get("/v2/ledger").await.json();
    let foreign = [
        "taba.deleted",
        "taba.clamped",
        "taba.x",
        "taba.dropped;where=server;why=full",
        "taba.dropped;where=client;why=whim",
    ];
    let mut blocks: Vec<_> = foreign.iter().map(|tab| block(tab, "web-1", &[1e9])).collect();
    blocks.push(block("taba.recorded", "taba.stream/x", &[1e9]));
    fold(&store, 78, blocks).await;
    let after = kit.get("/v2/ledger").await.json();
    assert_eq!((&after["totals"], &after["results"]), (&before["totals"], &before["results"]));
    let named = kit.names("/v2/names?reserved=true").await;
    assert!(
        !named.iter().any(|name| foreign.contains(&name.as_str()) && name != "taba.deleted"),
        "{named:?}"
    );
    // An event of a Client that cannot be is counted as lost by its sender.
    fold(&store, 79, vec![block("hits1", "taba.web", &[1.0, 2.0])]).await;
    let streams = kit.get("/v2/ledger?re=true&client=taba.*").await.json();
    assert_eq!(streams["results"][0]["client"], "taba.stream/000000000000004f", "{streams}");
    assert_eq!(
        streams["results"][0]["dropped"],
        json!([{"where": "server", "why": "bad_name", "events": 2}])
    );
    // What somebody wrote before there was this rule.
    for tab in ["taba.x;k=1", "taba.x;k=2", "taba.dropped;where=client;why=whim"] {
        kit.count(tab, "web-1", &[5.0]).await;
    }
    let removed = kit
        .ask("DELETE", "/v2/tabs?re=true&name=taba.x.*%7Ctaba.dropped;.*whim", "*/*")
        .await
        .json()["removed"]
        .clone();
    assert_eq!((&removed["states"], &removed["events"]), (&json!(3), &json!(0)), "{removed}");
    let named = kit.names("/v2/names?reserved=true").await;
    assert!(
        named.contains(&"taba.recorded".to_owned()) && !named.iter().any(|name| name.starts_with("taba.x"))
    );
    let refused = kit.ask("DELETE", "/v2/tabs?name=taba.recorded", "*/*").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["reason"]), (400, &json!("reserved")));
}

/// A note of more than any number of events is not exact any more; whose it is, and nobody else, has an unknown loss.
#[tokio::test]
async fn what_one_client_says_of_its_losses_makes_nobody_elses_unknown() {
    let (store, kit) = filled().await;
    let note = |client| block("taba.dropped;where=client;why=full", client, &[1e300]);
    fold(&store, 80, vec![note("web-7"), block("taba.recorded", "web-7", &[1e300])]).await;
    let answer = kit.get("/v2/projections?name=hits1&client=web-7&client=web-8").await.json();
    let lost: Vec<_> =
        answer["results"].as_array().unwrap().iter().map(|row| (&row["client"], &row["lost"])).collect();
    assert_eq!(lost, [(&json!("web-7"), &Value::Null), (&json!("web-8"), &json!(3))], "{answer}");
    let one =
        async |client| kit.results(&format!("/v2/tabs?name=hits1&client={client}")).await[0]["lost"].clone();
    assert_eq!((one("web-7").await, one("web-8").await), (Value::Null, json!(3)));
    let rows = kit.get("/v2/ledger?client=web-7").await.json()["results"].clone();
    assert_eq!(rows[0]["in_flight"], Value::Null, "{rows}");
}
