//! The Ledger: its identity, and what it says about what cannot be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use taba_core::wire::{Answer, Block, LaneBatch, Lanes, Probe};
use taba_core::{
    ClientId, Events, MemoryStore, Scanned, SeqNo, StreamId, TabName, TabType, Timestamp, VBuckets,
};
use taba_server::Server;
use taba_server::query::{Limits, Selection, ledger};

use crate::kit::{Intruded, Intruder, Kit};

#[tokio::test]
async fn recorded_is_folded_and_dropped_and_in_flight() {
    let kit = Kit::new();
    kit.count("a", "web", &[1.0, 1.0]).await;
    kit.count("b", "web", &[1.0]).await;
    kit.count("b", "db", &[1.0]).await;
    for (home, tab, client, events) in [
        (5, "taba.recorded", "web", 6.0),
        (9, "taba.recorded", "web", 4.0),
        (9, "taba.recorded", "db", 1.0),
        (5, "taba.dropped;where=client;why=full", "web", 2.0),
        (6, "taba.dropped;where=client;why=full", "web", 1.0),
        (6, "taba.dropped;where=server;why=bad_value", "web", 1.0),
        (6, "taba.deleted", "web", 2.0),
        (6, "taba.clamped", "web", 1.0),
    ] {
        kit.count_in(VBuckets::default().get(home).unwrap(), tab, client, &[events]).await;
    }
    let answer = kit.get("/v2/ledger").await;
    let web = json!({
        "client": "web", "recorded": 10, "folded": 5, "deleted": 2, "clamped": 1,
        "dropped": [
            { "where": "client", "why": "full", "events": 3 },
            { "where": "server", "why": "bad_value", "events": 1 },
        ],
        "in_flight": 1,
    });
    let db = json!({
        "client": "db", "recorded": 1, "folded": 1, "deleted": 0, "clamped": 0, "dropped": [], "in_flight": 0,
    });
    assert_eq!(Value::from(answer.results()), json!([db, web]));
    let totals = &answer.json()["totals"];
    assert_eq!(
        (&totals["recorded"], &totals["folded"], &totals["in_flight"]),
        (&json!(11), &json!(6), &json!(1))
    );
    assert_eq!(totals["dropped"], web["dropped"]);
    assert_eq!(kit.results("/v2/ledger?client=db").await.len(), 1);
    assert_eq!(kit.results("/v2/ledger?re=true&client=w.*").await, [web]);
    let text = kit.ask("GET", "/v2/ledger?client=web", "text/plain").await.text;
    assert!(
        text.contains("total  recorded 10 = folded 5 + dropped 4 + in flight 1  (deleted since 2)"),
        "{text}"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_breaks_nothing_else() {
    let kit = Kit::new();
    let home = |tab: &str| VBuckets::default().of(&taba_core::TabName::new(tab).unwrap());
    kit.count("good", "a", &[1.0]).await;
    kit.count("mixed", "a", &[1.0]).await;
    kit.put(home("mixed"), "mixed", "TotalsCounter", "b", bytes::Bytes::from_static(b"garbage")).await;
    for client in ["a", "b", "c"] {
        kit.put(home("alien"), "alien", "Alien", client, crate::kit::envelope("Alien", 3, vec![1])).await;
    }
    let other = crate::kit::envelope("Recent", 3, vec![0]);
    kit.put(home("mixed"), "mixed", "TotalsCounter", "c", other).await;
    let mut newer =
        taba_core::Envelope::decode(&crate::kit::envelope("TotalsCounter", 1, vec![0; 9])).unwrap();
    newer.version = 9;
    kit.put(home("newer"), "newer", "TotalsCounter", "a", newer.encode()).await;

    let answer = kit.get("/v2/tabs").await;
    let names: Vec<_> = answer.results().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(Value::from(names), json!(["good", "mixed"]));
    let errors = answer.json()["errors"].clone();
    let errors: Vec<_> =
        errors.as_array().unwrap().iter().map(|e| json!([e["name"], e["reason"], e["states"]])).collect();
    assert_eq!(
        Value::from(errors),
        json!([
            ["alien", "unknown_type", 3],
            ["mixed", "damaged", 1],
            ["mixed", "type_conflict", 1],
            ["newer", "unknown_version", 1],
        ])
    );
    assert_eq!(kit.state.report().faults, 6);
    let lines = kit.ask("GET", "/v2/projections", "application/x-ndjson").await.text;
    assert_eq!(lines.lines().filter(|line| line.starts_with("{\"error\"")).count(), 4);
    let text = kit.ask("GET", "/v2/tabs", "text/plain").await.text;
    assert!(text.contains("# not included: 3 states of alien"), "{text}");
    // The ledger only needs envelopes: the damaged one is the only fault.
    let ledger = kit.get("/v2/ledger").await.json();
    assert_eq!((&ledger["totals"]["folded"], ledger["errors"].as_array().unwrap().len()), (&json!(15), 1));
    // A note that cannot be read makes the losses unknown, not zero.
    let note = VBuckets::default().get(1).unwrap();
    kit.put(note, "taba.dropped;where=agent;why=full", "TotalsCounter", "a", bytes::Bytes::from_static(b"x"))
        .await;
    assert_eq!(kit.results("/v2/tabs?name=good").await[0]["lost"], Value::Null);
}

#[tokio::test]
async fn what_is_in_a_state_or_a_note_that_cannot_be_read_is_not_called_in_flight() {
    for (tab, is_note) in [("broken", false), ("taba.dropped;where=agent;why=full", true)] {
        let kit = Kit::new();
        for client in ["a", "b", "c"] {
            kit.count("good", client, &[1.0]).await;
            kit.count("taba.recorded", client, &[6.0]).await;
        }
        let home = VBuckets::default().of(&TabName::new(tab).unwrap());
        for client in ["b", "c"] {
            kit.put(home, tab, "TotalsCounter", client, bytes::Bytes::from_static(b"garbage")).await;
        }
        let answer = kit.get("/v2/ledger").await;
        let in_flight = |client: &str| {
            let rows = answer.results();
            rows.into_iter().find(|row| row["client"] == client).unwrap()["in_flight"].clone()
        };
        assert_eq!(["a", "b", "c"].map(in_flight), [json!(5), Value::Null, Value::Null], "{is_note}");
        assert_eq!(answer.json()["totals"]["in_flight"], Value::Null);
        assert_eq!(answer.json()["complete"], false);
    }
}

/// Events of which their Client told that it recorded them, and which the Agent lost on the way: a Probe finds the gap.
#[tokio::test]
async fn a_gap_that_a_probe_finds_is_no_longer_in_flight() {
    let server =
        Server::builder().store(MemoryStore::default()).handlers(crate::kit::handlers()).build().unwrap();
    let block = |tab: &str, values: &[f64]| {
        let times = vec![Timestamp::from_secs(crate::kit::NOW); values.len()];
        let (tab, client) = (TabName::new(tab).unwrap(), ClientId::new("web").unwrap());
        let tab_type = TabType::new("TotalsCounter").unwrap();
        Block::of_events(tab, client, tab_type, Events::new(&times, values)).unwrap()
    };
    let vbucket = VBuckets::default().of(&TabName::new("hits").unwrap()).index();
    let (stream, seq) = (StreamId(7), SeqNo::FIRST);
    let blocks = vec![block("hits", &[1.0; 3]), block("taba.recorded", &[8.0])];
    let batch = LaneBatch::new(stream, vbucket, seq, 0, blocks);
    let totals = async || ledger(server.query_state(), &Selection::default()).await.unwrap().totals;
    server.ingest(Lanes::new((server.clock())(), vec![batch])).await;
    assert_eq!((totals().await.folded, totals().await.in_flight), (3, Some(5)));
    let probes = vec![Probe::new(stream, vbucket, SeqNo(4), 8)];
    for _ in 0..2 {
        let acks =
            server.ingest(Lanes::new((server.clock())(), Vec::new()).with_probes(probes.clone())).await;
        assert_eq!((acks[0].answer, acks[0].applied), (Answer::Applied, SeqNo(3)));
    }
    let totals = totals().await;
    assert_eq!((totals.recorded, totals.folded, totals.in_flight), (8, 3, Some(0)));
    let lost: Vec<_> = totals.dropped.iter().map(|lost| (&*lost.place, &*lost.why, lost.events)).collect();
    assert_eq!(lost, [("agent", "gap", 5)]);
}

/// The head of an answer, in which the totals are, may be larger than a chunk of it.
#[tokio::test]
async fn a_large_head_is_written_once() {
    let kit = Kit::new();
    for reason in 0..600 {
        let tab = format!("taba.dropped;where=client;why=some_reason_of_somebody_{reason}");
        kit.count_in(VBuckets::default().get(5).unwrap(), &tab, "web", &[1.0]).await;
    }
    for path in ["/v2/ledger", "/v2/ledger?client=nobody", "/v2/ledger?totals=true"] {
        let answer = kit.get(path).await;
        assert!(answer.text.len() < 200_000, "{path}: {} bytes", answer.text.len());
        assert_eq!(answer.text.matches("\"totals\"").count(), 1, "{path}");
        let rows = answer.results().len();
        assert_eq!(rows, usize::from(path == "/v2/ledger"), "{path}");
    }
}

#[tokio::test]
async fn what_the_store_forgot_is_never_a_negative_count() {
    let kit = Kit::new();
    // Of `web`, the VBucket that said what was recorded went back; `db` has three events on the way.
    kit.count("a", "web", &[1.0; 9]).await;
    kit.count("taba.recorded", "web", &[4.0]).await;
    kit.count("a", "db", &[1.0]).await;
    kit.count("taba.recorded", "db", &[4.0]).await;
    let answer = kit.get("/v2/ledger").await;
    let account = |client: &str| answer.results().into_iter().find(|row| row["client"] == client).unwrap();
    assert_eq!((&account("web")["in_flight"], &account("web")["excess"]), (&Value::Null, &json!(5)));
    assert_eq!((&account("db")["in_flight"], account("db").get("excess")), (&json!(3), None));
    assert_eq!(answer.json()["totals"]["in_flight"], Value::Null, "three and an unknown number");
    let text = kit.ask("GET", "/v2/ledger?client=web", "text/plain").await.text;
    assert!(text.contains("in flight unknown  (excess 5)"), "{text}");

    // The gap of a stream is a loss by name, of Clients that are known: it is on the way no more.
    let kit = Kit::new();
    kit.count("taba.recorded", "web", &[4.0]).await;
    kit.count("taba.dropped;where=agent;why=gap", "taba.stream/00ff", &[3.0]).await;
    assert_eq!(kit.get("/v2/ledger").await.json()["totals"]["in_flight"], 1);
}

/// The record of events is a note in a VBucket of its own, which may be committed after that of their Tab.
#[tokio::test(start_paused = true)]
async fn a_record_that_comes_late_is_waited_for() {
    let kit = Kit::with_limits(Limits::default());
    kit.count("a", "web", &[1.0; 9]).await;
    let late = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        kit.count("taba.recorded", "web", &[11.0]).await;
    };
    let (answer, ()) = tokio::join!(kit.get("/v2/ledger"), late);
    let account = &answer.results()[0];
    assert_eq!(
        (&account["folded"], &account["in_flight"], account.get("excess")),
        (&json!(9), &json!(2), None)
    );
}

/// An excess that is real is waited for once, and one that has grown since is waited for again.
#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "the clock of the runtime is paused")]
async fn what_was_waited_for_in_vain_is_not_waited_for_again() {
    let kit = Kit::with_limits(Limits::default());
    kit.count("a", "web", &[1.0; 9]).await;
    for (more, seconds) in [(0, 1), (0, 0), (2, 1), (0, 0)] {
        if more > 0 {
            kit.count("b", "web", &[1.0; 2]).await;
        }
        let begin = tokio::time::Instant::now();
        assert!(kit.get("/v2/ledger").await.results()[0]["excess"].is_u64());
        assert_eq!(begin.elapsed().as_secs(), seconds);
        // What is believed of Clients and of all together are two things.
        let begin = tokio::time::Instant::now();
        assert!(kit.get("/v2/ledger?totals=true").await.json()["totals"]["excess"].is_u64());
        assert_eq!(begin.elapsed().as_secs(), seconds, "totals");
    }
}

/// Adds events to a Tab, and to their record, as soon as the record was read.
struct Recorder {
    kit: Kit,
    tab: String,
    events: AtomicUsize,
}

#[async_trait]
impl Intruder for Recorder {
    async fn scanned(&self, found: &[Scanned]) {
        if found.iter().any(|state| state.key.tab.as_str() == "taba.recorded") {
            let events = self.events.fetch_add(3, Ordering::Relaxed) + 3;
            self.kit.count(&self.tab, "web", &vec![1.0; events]).await;
            self.kit.count("taba.recorded", "web", &[events as f64]).await;
        }
    }
}

/// While events come in all the time, what was recorded is read before some of what was folded.
#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "the clock of the runtime is paused")]
async fn events_that_come_in_while_the_ledger_is_read_are_no_excess() {
    let store = Arc::new(MemoryStore::default());
    let home = |name: &str| VBuckets::default().of(&TabName::new(name).unwrap()).index();
    let tab = (0..).map(|n| format!("a{n}")).find(|tab| home(tab) > home("taba.recorded")).unwrap();
    let kit = Kit::over(store.clone(), store.clone(), Limits::default());
    kit.count("taba.recorded", "web", &[3.0]).await;
    kit.count(&tab, "web", &[1.0; 3]).await;
    let intruder = Recorder { kit, tab, events: AtomicUsize::new(3) };
    let mut limits = Limits::default();
    limits.vbuckets_at_once = 1;
    let asked = Arc::new(Intruded { store: store.clone(), intruder });
    let kit = Kit::over(store, asked.clone(), limits);
    let begin = tokio::time::Instant::now();
    let account = &kit.get("/v2/ledger").await.results()[0];
    assert_eq!((account["folded"].as_u64(), account.get("excess")), (Some(6), None), "{account}");
    assert!(
        begin.elapsed() < Duration::from_millis(100),
        "{:?}: as if it were waited for in vain",
        begin.elapsed()
    );
}

/// Deletes the Tab `a` as soon as its States were read.
struct Deleter {
    kit: Kit,
    is_armed: AtomicBool,
}

#[async_trait]
impl Intruder for Deleter {
    async fn scanned(&self, found: &[Scanned]) {
        let is_it = found.iter().any(|state| state.key.tab.as_str() == "a");
        if is_it && self.is_armed.swap(false, Ordering::Relaxed) {
            let removed = self.kit.ask("DELETE", "/v2/tabs?name=a", "*/*").await.json();
            assert_eq!(removed["removed"]["events"], 9);
        }
    }
}

#[tokio::test]
async fn what_is_deleted_while_it_is_counted_counts_once() {
    let store = Arc::new(MemoryStore::default());
    let deleter = Deleter {
        kit: Kit::over(store.clone(), store.clone(), Limits::default()),
        is_armed: AtomicBool::new(false),
    };
    let asked = Arc::new(Intruded { store: store.clone(), intruder: deleter });
    let kit = Kit::over(store, asked.clone(), Limits::default());
    kit.count("a", "web", &[1.0; 9]).await;
    kit.count("taba.recorded", "web", &[9.0]).await;
    kit.settle_spread().await;
    asked.intruder.is_armed.store(true, Ordering::Relaxed);
    for deleted in [0, 9] {
        let account = &kit.get("/v2/ledger").await.results()[0];
        assert_eq!((&account["folded"], &account["deleted"]), (&json!(9), &json!(deleted)), "{account}");
        assert_eq!((&account["in_flight"], account.get("excess")), (&json!(0), None), "{account}");
    }
}
