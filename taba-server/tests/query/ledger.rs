//! The Ledger: its identity, and what it says about what cannot be read.

use serde_json::{Value, json};
use taba_core::VBuckets;

use crate::kit::Kit;

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
