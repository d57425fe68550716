//! Deleting and pruning keep the Ledger's identity.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use taba_core::{
    Commit, Committed, MemoryStore, Store, StoreError, TabName, VBucket, VBuckets, Version, Wanted,
};
use taba_server::query::Limits;

use crate::kit::{Intruded, Intruder, Kit, NOW, StoreCall};

#[tokio::test]
async fn deleting_moves_events_to_the_ledger() {
    let kit = Kit::new();
    for client in ["a", "b"] {
        kit.count("x", client, &[1.0, 2.0]).await;
        kit.count("y", client, &[1.0]).await;
        kit.count("taba.recorded", client, &[3.0]).await;
    }
    let removed = kit.ask("DELETE", "/v2/tabs?name=x&client=a", "*/*").await.json();
    assert_eq!(removed["removed"], json!({ "tabs": 0, "states": 1, "events": 2, "damaged": 0 }));
    assert_eq!(kit.names("/v2/names").await, ["x", "y"]);
    let removed = kit.ask("DELETE", "/v2/tabs?re=true&name=.*", "*/*").await.json();
    assert_eq!(removed["removed"], json!({ "tabs": 2, "states": 3, "events": 4, "damaged": 0 }));
    assert!(kit.names("/v2/names").await.is_empty());
    let totals = &kit.get("/v2/ledger").await.json()["totals"];
    assert_eq!(
        *totals,
        json!({ "recorded": 6, "folded": 6, "deleted": 6, "clamped": 0, "dropped": [], "in_flight": 0 })
    );
    let again = kit.ask("DELETE", "/v2/tabs?name=x", "*/*").await.json();
    assert_eq!(again["removed"]["states"], 0);
    // Nothing but the Ledger is left in the store.
    assert_eq!(kit.names("/v2/names?reserved=true").await, ["taba.deleted", "taba.recorded"]);
}

#[tokio::test]
async fn more_states_than_fit_one_commit_are_deleted() {
    let kit = Kit::new();
    for i in 0..2500 {
        kit.count("x", &format!("client{i}"), &[1.0]).await;
    }
    let removed = kit.ask("DELETE", "/v2/tabs?name=x", "*/*").await.json();
    assert_eq!(removed["removed"], json!({ "tabs": 1, "states": 2500, "events": 2500, "damaged": 0 }));
    assert_eq!(kit.get("/v2/ledger").await.json()["totals"]["deleted"], 2500);
}

#[tokio::test]
async fn pruning_takes_only_what_says_nothing() {
    let kit = Kit::new();
    kit.recent("old", "a", &[(NOW - 7200, 1.0), (NOW - 7300, 1.0)]).await;
    kit.recent("half", "a", &[(NOW - 7200, 1.0)]).await;
    kit.recent("half", "b", &[(NOW - 60, 1.0)]).await;
    kit.count("forever", "a", &[1.0]).await;
    let home = VBuckets::default().of(&TabName::new("alien").unwrap());
    kit.put(home, "alien", "Alien", "a", crate::kit::envelope("Alien", 3, vec![1])).await;
    let removed = kit.ask("POST", "/v2/prune?name=half", "*/*").await.json();
    assert_eq!(removed["removed"], json!({ "tabs": 0, "states": 1, "events": 1, "damaged": 0 }));
    let removed = kit.ask("POST", "/v2/prune", "*/*").await.json();
    assert_eq!(removed["removed"], json!({ "tabs": 1, "states": 1, "events": 2, "damaged": 0 }));
    assert_eq!(kit.names("/v2/names").await, ["alien", "forever", "half"]);
    assert_eq!(kit.get("/v2/ledger?client=a").await.json()["totals"]["deleted"], 3);
    assert_eq!(kit.state.report().states_removed, 2);
}

#[tokio::test]
async fn a_damaged_state_can_be_deleted_but_is_not_pruned() {
    let kit = Kit::new();
    let home = VBuckets::default().of(&TabName::new("x").unwrap());
    kit.put(home, "x", "Recent", "a", bytes::Bytes::from_static(b"garbage")).await;
    assert_eq!(kit.ask("POST", "/v2/prune", "*/*").await.json()["removed"]["states"], 0);
    let removed = kit.ask("DELETE", "/v2/tabs?name=x", "*/*").await.json();
    assert_eq!(removed["removed"], json!({ "tabs": 1, "states": 1, "events": 0, "damaged": 1 }));
}

/// Somebody else commits before each of the first commits.
struct Crowd {
    store: Arc<MemoryStore>,
    intruders: AtomicUsize,
}

#[async_trait]
impl Intruder for Crowd {
    async fn before(&self, call: StoreCall<'_>, vbucket: VBucket) -> Result<(), StoreError> {
        let left = self.intruders.load(Ordering::SeqCst);
        if matches!(call, StoreCall::Commit) && left > 0 {
            self.intruders.store(left - 1, Ordering::SeqCst);
            let expect = self.store.load(vbucket, &Wanted::default()).await?.version;
            let next = Version { writer: 9, count: left as u64 };
            assert_eq!(self.store.commit(vbucket, Commit::new(expect, next)).await?, Committed::Done);
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_conflict_is_tried_again_and_counts_once() {
    let store = Arc::new(MemoryStore::default());
    let crowded = Arc::new(Intruded {
        store: store.clone(),
        intruder: Crowd { store: store.clone(), intruders: AtomicUsize::new(0) },
    });
    let kit = Kit::over(store, crowded.clone(), Limits::default());
    kit.settle_spread().await;
    crowded.intruder.intruders.store(3, Ordering::SeqCst);
    kit.count("x", "a", &[1.0, 1.0]).await;
    let removed = kit.ask("DELETE", "/v2/tabs?name=x", "*/*").await.json();
    assert_eq!(removed["removed"], json!({ "tabs": 1, "states": 1, "events": 2, "damaged": 0 }));
    assert_eq!(kit.state.report().conflicts, 3);
    assert_eq!(kit.get("/v2/ledger").await.json()["totals"]["deleted"], 2);
}

/// A store that answers so many calls and then no more.
struct Tiring {
    calls_left: AtomicUsize,
    calls: AtomicUsize,
}

#[async_trait]
impl Intruder for Tiring {
    async fn before(&self, _: StoreCall<'_>, _: VBucket) -> Result<(), StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let left = self.calls_left.load(Ordering::SeqCst);
        if left == 0 {
            std::future::pending::<()>().await;
        }
        self.calls_left.store(left - 1, Ordering::SeqCst);
        Ok(())
    }
}

fn tiring(query_time: Duration) -> (Kit, Arc<Intruded<Tiring>>) {
    let store = Arc::new(MemoryStore::default());
    let intruder = Tiring { calls_left: AtomicUsize::new(usize::MAX), calls: AtomicUsize::new(0) };
    let tiring = Arc::new(Intruded { store: store.clone(), intruder });
    let mut limits = Limits::default();
    (limits.query_time, limits.late_records) = (query_time, Duration::ZERO);
    (Kit::over(store, tiring.clone(), limits), tiring)
}

#[tokio::test(start_paused = true)]
async fn deleting_that_runs_out_of_time_says_how_far_it_is_and_goes_on_there() {
    let (kit, store) = tiring(Duration::from_secs(1));
    kit.settle_spread().await;
    // Two VBuckets with more Tabs than one step takes, and Tabs in many.
    for n in 0..600 {
        let home = kit.store.vbuckets().get(if n % 2 == 0 { 3 } else { 1000 }).unwrap();
        kit.count_in(home, &format!("t{n:03}"), "a", &[1.0]).await;
        kit.count(&format!("u{n}"), "b", &[1.0]).await;
    }
    let (mut states, mut events, mut calls, mut from) = (0, 0, 0, String::new());
    loop {
        store.intruder.calls_left.store(1500, Ordering::SeqCst);
        let path = format!("/v2/tabs?re=true&name=.*{from}");
        let removed = kit.ask("DELETE", &path, "*/*").await.json()["removed"].clone();
        states += removed["states"].as_u64().unwrap();
        events += removed["events"].as_u64().unwrap();
        calls += 1;
        let Some(next) = removed["next"].as_str() else { break };
        assert_eq!((&removed["is_cut_short"], &removed["vbuckets"]), (&json!(true), &json!(1024)));
        assert!(removed["vbuckets_done"].as_u64().unwrap() < 1024 && calls < 20, "{removed}");
        from = format!("&from={}", next.replace(' ', "%20"));
    }
    assert!(calls > 2, "the test must not fit one call");
    assert_eq!((states, events), (1200, 1200));
    store.intruder.calls_left.store(usize::MAX, Ordering::SeqCst);
    assert!(kit.names("/v2/names").await.is_empty(), "no Tab is left in an index");
    assert_eq!(kit.get("/v2/ledger").await.json()["totals"]["deleted"], 1200);
    // Where nothing is done in time, that is an error: nobody asks for ever.
    kit.count("x", "a", &[1.0]).await;
    store.intruder.calls_left.store(4, Ordering::SeqCst);
    let mut answer = kit.ask("DELETE", "/v2/tabs?name=x", "*/*").await;
    if let Some(next) = answer.json()["removed"]["next"].as_str() {
        store.intruder.calls_left.store(4, Ordering::SeqCst);
        answer =
            kit.ask("DELETE", &format!("/v2/tabs?name=x&from={}", next.replace(' ', "%20")), "*/*").await;
    }
    assert_eq!((answer.status.as_u16(), &answer.json()["reason"]), (503, &json!("timeout")));
    let answer = kit.ask("DELETE", "/v2/tabs?name=x&from=there", "*/*").await;
    assert_eq!(answer.json()["reason"], "bad_parameter");
}

#[tokio::test]
async fn a_removal_that_nobody_waits_for_ends() {
    let (kit, store) = tiring(Duration::from_secs(60));
    for n in 0..50 {
        kit.count(&format!("t{n}"), "a", &[1.0]).await;
    }
    kit.settle_spread().await;
    store.intruder.calls.store(0, Ordering::SeqCst);
    store.intruder.calls_left.store(100, Ordering::SeqCst);
    let mut removal = Box::pin(kit.ask("DELETE", "/v2/tabs?re=true&name=.*", "*/*"));
    let is_tired = async {
        while store.intruder.calls.load(Ordering::SeqCst) <= 100 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { _ = &mut removal => panic!("it waits"), () = is_tired => {} }
    drop(removal);
    let calls = store.intruder.calls.load(Ordering::SeqCst);
    store.intruder.calls_left.store(usize::MAX, Ordering::SeqCst);
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.intruder.calls.load(Ordering::SeqCst), calls);
}
