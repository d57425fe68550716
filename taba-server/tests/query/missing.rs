//! A store of which a part is away, or damaged: what does not rest on it is answered, and each answer says what it lacks.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use taba_core::{
    Commit, Committed, Loaded, MemoryStore, Scan, Scanned, Store, StoreError, TabName, TabType, Tidied,
    VBucket, VBuckets, Wanted,
};
use taba_server::query::{Limits, Selection, prune, upkeep};

use crate::kit::{Kit, NOW};

/// Two shards, each with half of the VBuckets; the second can go away.
struct Halved {
    store: Arc<MemoryStore>,
    is_away: AtomicBool,
    is_damaged: AtomicBool,
    asked: AtomicUsize,
    tidied: Mutex<BTreeSet<VBucket>>,
}

impl Halved {
    fn is_second(&self, vbucket: VBucket) -> bool {
        vbucket.index() >= self.store.vbuckets().count() / 2
    }

    fn check(&self, vbucket: VBucket) -> Result<(), StoreError> {
        if !self.is_second(vbucket) {
            return Ok(());
        }
        if self.is_away.load(Ordering::Relaxed) {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let retry_after = Duration::from_secs(1);
            return Err(StoreError::Unavailable { retry_after, source: "connection refused".into() });
        }
        let is_damaged = self.is_damaged.load(Ordering::Relaxed);
        if is_damaged { Err(StoreError::Damaged { vbucket, what: "state" }) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Halved {
    fn vbuckets(&self) -> VBuckets {
        self.store.vbuckets()
    }
    fn place(&self, vbucket: VBucket) -> Option<String> {
        Some(if self.is_second(vbucket) { "redis:2" } else { "redis:1" }.to_owned())
    }
    async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError> {
        self.check(vbucket)?;
        self.store.load(vbucket, wanted).await
    }
    async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError> {
        self.check(vbucket)?;
        self.store.commit(vbucket, commit).await
    }
    async fn stable(&self, vbucket: VBucket) -> Result<(), StoreError> {
        self.store.stable(vbucket).await
    }
    async fn tidy(&self, vbucket: VBucket) -> Result<Tidied, StoreError> {
        self.check(vbucket)?;
        self.tidied.lock().unwrap().insert(vbucket);
        Ok(Tidied::new(1, 0))
    }
    async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
        if self.is_away.load(Ordering::Relaxed) {
            self.check(vbucket)?;
        }
        self.store.tabs(vbucket).await
    }
    async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError> {
        self.check(vbucket)?;
        self.store.scan(vbucket, scan).await
    }
}

/// A Tab in each half, a note of the Ledger in each half, and both halves there.
struct Setup {
    kit: Kit,
    store: Arc<Halved>,
    /// A Tab on the shard that stays, and one on the shard that goes.
    here: String,
    there: String,
}

async fn setup() -> Setup {
    let memory = Arc::new(MemoryStore::default());
    let store = Arc::new(Halved {
        store: memory.clone(),
        is_away: AtomicBool::new(false),
        is_damaged: AtomicBool::new(false),
        asked: AtomicUsize::new(0),
        tidied: Mutex::default(),
    });
    let mut limits = Limits::default();
    limits.lost_age_max = Duration::ZERO;
    let kit = Kit::over(memory.clone(), store.clone(), limits);
    let name = |wanted: bool| {
        let mut names = (0..).map(|n| format!("t{n}"));
        let home = |name: &String| memory.vbuckets().of(&TabName::new(name).unwrap());
        names.find(|name| store.is_second(home(name)) == wanted).unwrap()
    };
    let (here, there) = (name(false), name(true));
    kit.count(&here, "web", &[1.0, 2.0]).await;
    kit.count(&there, "web", &[5.0]).await;
    for index in [0, memory.vbuckets().count() - 1] {
        let home = memory.vbuckets().get(index).unwrap();
        kit.count_in(home, "taba.dropped;where=agent;why=gap", "web", &[3.0]).await;
        kit.count_in(home, "taba.recorded", "web", &[4.5]).await;
    }
    Setup { kit, store, here, there }
}

fn missing(json: &Value, affects: &str) {
    let missing = &json["missing"];
    assert_eq!((&missing["vbuckets"], &missing["shards"]), (&json!(512), &json!(["redis:2"])), "{json}");
    assert_eq!(missing["why"], json!(["the store is unavailable: connection refused"]));
    assert_eq!(missing["affects"], affects);
}

#[tokio::test]
async fn what_rests_on_the_shards_that_are_there_is_answered_and_lost_is_unknown() {
    let Setup { kit, store, here, there } = setup().await;
    let whole = kit.get(&format!("/v2/tabs?name={here}")).await.json();
    assert_eq!((&whole["missing"], &whole["results"][0]["lost"]), (&Value::Null, &json!(6)));
    store.is_away.store(true, Ordering::Relaxed);
    for path in [format!("/v2/tabs?name={here}"), format!("/v2/projections?name={here}")] {
        let json = kit.get(&path).await.json();
        assert_eq!((&json["complete"], &json["results"][0]["events"]), (&json!(true), &json!(2)), "{json}");
        assert_eq!(json["results"][0]["lost"], Value::Null);
        missing(&json, "lost");
    }
    let row = kit.get(&format!("/v2/tabs?name={here}")).await.json()["results"][0].clone();
    assert_eq!((&row["lost_unattributed"], row.get("partial")), (&Value::Null, None), "{row}");
    // Nothing of what was asked for can be read.
    let answer = kit.get(&format!("/v2/tabs?name={there}")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["reason"]), (503, &json!("store_unavailable")));
    store.is_away.store(false, Ordering::Relaxed);
    assert_eq!(kit.get(&format!("/v2/tabs?name={here}")).await.json(), whole);
}

#[tokio::test]
async fn aggregates_over_many_tabs_are_of_what_is_there_and_say_so() {
    let Setup { kit, store, here, there } = setup().await;
    store.is_away.store(true, Ordering::Relaxed);
    for path in ["/v2/tabs".to_owned(), format!("/v2/tabs?name={here},{there}")] {
        let json = kit.get(&path).await.json();
        assert_eq!(
            (json["results"].as_array().unwrap().len(), &json["complete"]),
            (1, &json!(false)),
            "{json}"
        );
        assert_eq!(
            (&json["results"][0]["name"], &json["missing"]["affects"]),
            (&json!(here), &json!("results"))
        );
    }
    let json = kit.get("/v2/super?type=TotalsCounter").await.json();
    assert_eq!(
        (&json["results"][0]["value"]["total"], &json["results"][0]["partial"]),
        (&json!(3.0), &json!(true))
    );
    missing(&json, "results");
    let groups = kit.get("/v2/tabs?by=x").await.json();
    assert_eq!(groups["results"][0]["partial"], true, "{groups}");
    for path in ["/v2/names", "/v2/types", "/v2/clients"] {
        let json = kit.get(path).await.json();
        assert_eq!(
            (json["results"].as_array().unwrap().is_empty(), &json["complete"]),
            (false, &json!(false))
        );
        missing(&json, "results");
    }
    let ledger = kit.get("/v2/ledger").await.json();
    assert_eq!(
        (&ledger["totals"]["folded"], &ledger["totals"]["in_flight"]),
        (&json!(2), &Value::Null),
        "{ledger}"
    );
    missing(&ledger, "results");
    // A shard that is away is asked a bounded number of times in one query.
    store.asked.store(0, Ordering::Relaxed);
    kit.get("/v2/names").await;
    assert!((1..=kit.state.limits.vbuckets_at_once).contains(&store.asked.load(Ordering::Relaxed)));
    assert!(kit.state.report().partial > 0);
    let text = kit.ask("GET", "/v2/super?type=TotalsCounter", "text/plain").await.text;
    assert!(text.contains("PARTIAL") && text.contains("on redis:2 could not be read"), "{text}");
}

#[tokio::test]
async fn metrics_are_always_answered() {
    let Setup { kit, store, there, .. } = setup().await;
    let whole = kit.get("/metrics").await.text;
    assert!(
        whole.contains("taba_ledger_unread_vbuckets 0\n")
            && whole.contains("taba_ledger_folded_events_total 3\n")
    );
    kit.settle_spread().await;
    store.is_away.store(true, Ordering::Relaxed);
    let answer = kit.get("/metrics?re=true&name=t.*").await;
    let text = answer.text;
    assert_eq!(answer.status, 200);
    for line in ["taba_ledger_unread_vbuckets 512", "taba_tab_unread_vbuckets 512", "taba_tab_total{tab="] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.contains("taba_server_requests_total"), "{text}");
    assert!(!text.contains("taba_ledger_folded"), "a counter must not go back: {text}");
    let answer = kit.get(&format!("/metrics?name={there}")).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.text.contains("taba_metrics_error{part=\"tabs\",reason=\"store_unavailable\"} 1"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_damaged_page_is_missing_and_not_the_end_of_the_answer() {
    let Setup { kit, store, here, there } = setup().await;
    // Indexes can be read, States of the second half cannot: the notes of the Ledger neither.
    store.is_damaged.store(true, Ordering::Relaxed);
    let json = kit.get(&format!("/v2/tabs?name={here},{there}")).await.json();
    assert_eq!(
        (&json["results"][0]["events"], &json["results"][0]["lost"]),
        (&json!(2), &Value::Null),
        "{json}"
    );
    assert!(json["missing"]["why"][0].as_str().unwrap().contains("damaged state"), "{json}");
    let answer = kit.get(&format!("/v2/tabs?name={there}")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["reason"]), (500, &json!("store_damaged")));
}

#[tokio::test]
async fn upkeep_and_deleting_reach_the_end_whatever_is_away() {
    let Setup { kit, store, here, there } = setup().await;
    let old = |tab: String| {
        let kit = &kit;
        async move { kit.recent(&format!("{tab};old=1"), "web", &[(NOW - 7200, 1.0)]).await }
    };
    // Labels are part of the name, so these live anywhere.
    for n in 0..40 {
        old(format!("{here}{n}")).await;
    }
    store.is_away.store(true, Ordering::Relaxed);
    let first = upkeep(&kit.state).await.unwrap();
    assert_eq!(first.missing.as_ref().unwrap().vbuckets.len(), 512);
    assert!((1..40).contains(&first.pruned.states), "{first:?}");
    assert_eq!((store.tidied.lock().unwrap().len(), first.entries_tidied), (512, 512));
    store.is_away.store(false, Ordering::Relaxed);
    let second = upkeep(&kit.state).await.unwrap();
    assert_eq!((first.pruned.states + second.pruned.states, second.missing), (40, None));
    assert_eq!(store.tidied.lock().unwrap().len(), 1024);
    store.is_away.store(true, Ordering::Relaxed);
    let removed = kit.ask("DELETE", &format!("/v2/tabs?name={here},{there}"), "*/*").await.json();
    assert_eq!(removed["removed"]["states"], 1);
    assert_eq!(removed["removed"]["missing"]["shards"], json!(["redis:2"]), "{removed}");
}

/// A store that answers so many scans and then no more, as one does that is slower than a query may take.
struct Slow(Arc<MemoryStore>, AtomicUsize);

#[async_trait]
impl Store for Slow {
    fn vbuckets(&self) -> VBuckets {
        self.0.vbuckets()
    }
    async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError> {
        self.0.load(vbucket, wanted).await
    }
    async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError> {
        self.0.commit(vbucket, commit).await
    }
    async fn stable(&self, vbucket: VBucket) -> Result<(), StoreError> {
        self.0.stable(vbucket).await
    }
    async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
        self.0.tabs(vbucket).await
    }
    async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError> {
        if self.1.fetch_sub(1, Ordering::Relaxed) == 0 {
            std::future::pending::<()>().await;
        }
        self.0.scan(vbucket, scan).await
    }
}

#[tokio::test]
async fn pruning_that_runs_out_of_time_goes_on_where_it_ended() {
    let memory = Arc::new(MemoryStore::default());
    let slow = Arc::new(Slow(memory.clone(), AtomicUsize::new(0)));
    let mut limits = Limits::default();
    limits.query_time = Duration::from_millis(100);
    let kit = Kit::over(memory, slow.clone(), limits);
    for n in 0..100 {
        // Most stay; the last ones are reached only by a run that does not begin anew each time.
        let age = if n % 10 == 0 { 7200 } else { 0 };
        kit.recent(&format!("r{n}"), "web", &[(NOW - age, 1.0)]).await;
    }
    let (mut states, mut calls, mut from, mut done) = (0, 0, None, 0);
    loop {
        slow.1.store(40, Ordering::Relaxed);
        let removed = prune(&kit.state, &Selection::default(), from.as_ref()).await.unwrap();
        (states, calls) = (states + removed.states, calls + 1);
        let Some(rest) = removed.rest else { break };
        assert!(removed.is_cut_short && rest.vbuckets == 1024 && rest.vbuckets_done > done, "{rest:?}");
        (done, from) = (rest.vbuckets_done, Some(rest.next.to_string().parse().unwrap()));
        assert!(calls < 10, "it never reaches the end");
    }
    assert_eq!(states, 10);
    assert!(calls > 2, "the test must not fit one call");
    // Upkeep has no such bound.
    kit.recent("last", "web", &[(NOW - 7200, 1.0)]).await;
    slow.1.store(usize::MAX, Ordering::Relaxed);
    assert_eq!(upkeep(&kit.state).await.unwrap().pruned.states, 1);
}

#[tokio::test]
async fn what_is_kept_of_a_tab_that_may_have_more_elsewhere_is_partial() {
    let Setup { kit, store, here, .. } = setup().await;
    let home = kit.store.vbuckets().of(&TabName::new(&here).unwrap());
    let name = "taba.dropped;where=agent;why=gap";
    kit.count_in(home, name, "web", &[1.0]).await;
    let path = format!("/v2/tabs?name={name}");
    assert_eq!(kit.get(&path).await.json()["results"][0]["partial"], json!(null));
    store.is_away.store(true, Ordering::Relaxed);
    let json = kit.get(&path).await.json();
    assert_eq!((&json["results"][0]["partial"], &json["complete"]), (&json!(true), &json!(false)), "{json}");
}
