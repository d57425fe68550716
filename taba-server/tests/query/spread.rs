//! A Tab whose States lie in several VBuckets by Client is one Tab in every answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use taba_core::{
    ClientId, Expiring, Handler, Keyed, MemoryStore, Noise, Reading, Scan, Spread, Store, StoreError,
    TabName, Timestamp, VBucket, VBuckets,
};
use taba_handlers::*;
use taba_server::query::Limits;

use crate::kit::{Intruded, Intruder, Kit, NOW, StoreCall};

fn standard(page_states: usize) -> Kit {
    let store = Arc::new(MemoryStore::default());
    over(store.clone(), store, page_states)
}

fn over(memory: Arc<MemoryStore>, asked: Arc<dyn Store>, page_states: usize) -> Kit {
    let mut limits = Limits::default();
    (limits.page_states, limits.lost_age_max) = (page_states, Duration::ZERO);
    Kit::with_handlers(memory, asked, limits, taba_handlers::standard().build().unwrap())
}

async fn set_spread(kit: &Kit, query: &str) -> Value {
    let answer = kit.ask("POST", &format!("/v2/spread?{query}"), "*/*").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// Stores the same events in a Tab of `flat…`, and in one of `hot…` in the places that they have under any spread so far.
async fn record<H: Handler>(
    kit: &Kit,
    dice: &mut Noise,
    (label, client): (&str, &str),
    (tab_type, handler): (&str, impl Fn() -> H),
    events: &[(i64, H::Value)],
    widest: Spread,
) {
    let (flat, hot) = (format!("flat{label}"), format!("hot{label}"));
    kit.fold((&flat, client), (tab_type, handler()), events).await;
    let (name, id) = (TabName::new(&hot).unwrap(), ClientId::new(client).unwrap());
    let spreads: Vec<_> = Spread::all().filter(|spread| *spread <= widest).collect();
    let mut by_place: BTreeMap<VBucket, Vec<(i64, H::Value)>> = BTreeMap::new();
    for event in events {
        let spread = spreads[(dice.fraction() * spreads.len() as f64) as usize];
        by_place.entry(kit.store.vbuckets().place(&name, &id, spread)).or_default().push(event.clone());
    }
    for (place, events) in by_place {
        kit.fold_in(place, (&hot, client), (tab_type, handler()), &events).await;
    }
}

/// The rows without what tells the two Tabs apart.
async fn rows(kit: &Kit, path: &str, tab: &str) -> Vec<Value> {
    let answer = kit.get(&path.replace("TAB", tab)).await;
    let text = answer.text.replace(&format!("\"{tab}"), "\"TAB");
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    assert_eq!((&json["complete"], &json["truncated"]), (&json!(true), &json!(false)), "{text}");
    json["results"].as_array().unwrap().clone()
}

/// Whatever spreads a Tab has had, and however Agents have chosen among its places: answers are those of a Tab that was never
/// spread, for each standard type, and for each size of the pages in which it is read.
#[tokio::test]
async fn every_answer_is_that_of_a_tab_that_was_never_spread() {
    for (seed, page_states) in [(1, 1), (2, 3), (3, 7), (4, 500)] {
        let kit = standard(page_states);
        let mut dice = Noise::new(seed);
        let widest = Spread::new(1 << (2 * seed - 2)).unwrap();
        set_spread(&kit, &format!("prefix=hot&spread={widest}")).await;
        set_spread(&kit, "prefix=hot&spread=1").await;
        let lease = |n: i64| Expiring {
            expires: Timestamp::from_secs(NOW + 60),
            reading: format!("r{n}").as_str().into(),
        };
        for n in 0..40 {
            let client = format!("host-{n}");
            let times: Vec<i64> = (0..=n % 5).map(|i| 1 + 3 * i + n).collect();
            macro_rules! record {
                ($label:expr, $tab_type:expr, $handler:expr, $value:expr) => {
                    let events: Vec<_> = times.iter().map(|ago| (*ago, $value(*ago))).collect();
                    record(&kit, &mut dice, ($label, &client), ($tab_type, || $handler), &events, widest)
                        .await;
                };
            }
            record!(".sum", "TotalsCounter", TotalsCounter::new(), |ago| 0.1 * ago as f64);
            record!(".group;k=a", "CounterGroup", CounterGroup::new(), |ago| ago as f64);
            record!(".group;k=b", "CounterGroup", CounterGroup::new(), |ago| 2.0 * ago as f64);
            record!(".gauge", "Gauge", Gauge::new(), |ago: i64| Reading::from(
                format!("v{}", ago % 3).as_str()
            ));
            record!(".lease", "ExpiryGauge", ExpiryGauge, lease);
            record!(".steps", "Buffer", AllTime::new(Buffer), lease);
            record!(".users", "Distinct", AllTime::new(Distinct), |ago: i64| format!("user {ago}"));
            let keyed = |ago: i64| Keyed { key: format!("key {}", ago % 7), value: 1.0 };
            record!(".by-key", "CommonPrefixCounterGroup", CommonPrefixCounterGroup::new(), keyed);
        }
        let names = ["sum", "group;k=a", "group;k=b", "gauge", "lease", "steps", "users", "by-key"];
        let exact: Vec<_> = names.iter().map(|name| format!("TAB.{name}")).collect();
        let mut paths = vec![
            "/v2/names?re=true&name=TAB.*".to_owned(),
            "/v2/types?re=true&name=TAB.*".to_owned(),
            "/v2/tabs?re=true&name=TAB.*".to_owned(),
            "/v2/tabs?base=TAB.group&by=k".to_owned(),
            "/v2/tabs?base=TAB.group&by=other".to_owned(),
            "/v2/super?base=TAB.group".to_owned(),
            "/v2/projections?base=TAB.group&client=host-3,host-17".to_owned(),
            "/v2/projections?name=TAB.sum&from=TAB.sum%20host-25".to_owned(),
            "/v2/names?re=true&name=TAB.*&client=host-4".to_owned(),
            "/v2/clients?re=true&name=TAB.*".to_owned(),
            format!("/v2/clients?name={}", exact.join(",")),
            format!("/v2/names?name={}", exact.join(",")),
        ];
        for name in &exact {
            paths.extend(["tabs", "projections", "super"].map(|of| format!("/v2/{of}?name={name}")));
            paths.push(format!("/v2/tabs?name={name}&at={}", NOW - 20));
        }
        for path in paths {
            let (hot, flat) = (rows(&kit, &path, "hot").await, rows(&kit, &path, "flat").await);
            assert!(!flat.is_empty(), "{path}");
            assert_eq!(hot, flat, "{path}, pages of {page_states}, up to {widest} VBuckets");
        }
        // Page by page, where each row is one Client of one Tab.
        let mut from = String::new();
        let mut paged = Vec::new();
        loop {
            let path = format!("/v2/projections?name=hot.sum&limit=7{from}");
            let page = kit.get(&path).await.json();
            paged.extend(page["results"].as_array().unwrap().clone());
            let Some(next) = page["next"].as_str() else { break };
            from = format!("&from={}", next.replace(' ', "%20"));
        }
        assert_eq!(paged, kit.results("/v2/projections?name=hot.sum").await);
        let accounts = kit.get("/v2/ledger").await.json();
        assert_eq!(accounts["results"].as_array().unwrap().len(), 40, "each Client once");
    }
}

#[tokio::test]
async fn a_tab_that_is_spread_is_removed_from_everywhere() {
    let kit = standard(3);
    let widest = Spread::new(8).unwrap();
    set_spread(&kit, "name=hot&spread=8").await;
    let mut dice = Noise::new(1);
    let totals = ("TotalsCounter", TotalsCounter::new);
    for n in 0..20 {
        let events: Vec<_> = (0..10).map(|ago| (ago, 1.0)).collect();
        record(&kit, &mut dice, ("", &format!("c{n:02}")), totals, &events, widest).await;
    }
    let delete = async |query: &str| {
        kit.ask("DELETE", &format!("/v2/tabs?{query}"), "*/*").await.json()["removed"].clone()
    };
    let removed = delete("name=hot&client=c03").await;
    assert_eq!((&removed["tabs"], &removed["events"]), (&json!(0), &json!(10)), "{removed}");
    assert_eq!(kit.results("/v2/clients?name=hot").await.len(), 19);
    let removed = delete("name=hot").await;
    assert_eq!((&removed["tabs"], &removed["events"]), (&json!(1), &json!(190)), "one Tab: {removed}");
    assert_eq!(kit.names("/v2/names").await, ["flat"]);
    for vbucket in kit.store.vbuckets().iter() {
        let tabs = kit.store.tabs(vbucket).await.unwrap();
        assert!(tabs.iter().all(|(name, _)| name.as_str() != "hot"), "{vbucket}");
    }
    let totals = kit.get("/v2/ledger").await.json()["totals"].clone();
    assert_eq!((&totals["folded"], &totals["deleted"]), (&json!(400), &json!(200)));
    assert_eq!(delete("name=hot").await["tabs"], 0);
}

/// A part of a Client that says nothing more is pruned, and no value changes by that.
#[tokio::test]
async fn pruning_a_part_of_a_client_changes_no_value() {
    let kit = standard(500);
    set_spread(&kit, "name=hot&spread=64").await;
    let (name, client) = (TabName::new("hot").unwrap(), ClientId::new("web").unwrap());
    let vbuckets = kit.store.vbuckets();
    let home = vbuckets.of(&name);
    let is_beside = |place: &VBucket| *place != home && vbuckets.spread_at(&name, &client, *place).is_some();
    let beside = vbuckets.iter().find(is_beside).unwrap();
    let lease = |until: i64, reading: &str| Expiring {
        expires: Timestamp::from_secs(NOW + until),
        reading: reading.into(),
    };
    kit.fold_in(home, ("hot", "web"), ("ExpiryGauge", ExpiryGauge), &[(900, lease(-600, "over"))]).await;
    kit.fold_in(beside, ("hot", "web"), ("ExpiryGauge", ExpiryGauge), &[(9, lease(60, "held"))]).await;
    let value = async || kit.results("/v2/tabs?name=hot").await[0]["value"].clone();
    let before = value().await;
    let removed = kit.ask("POST", "/v2/prune?name=hot", "*/*").await.json()["removed"].clone();
    assert_eq!((&removed["states"], &removed["tabs"]), (&json!(1), &json!(0)), "{removed}");
    assert_eq!(value().await, before);
}

/// Some VBuckets cannot be read.
struct Blindness {
    blind: Vec<VBucket>,
    is_blind: AtomicBool,
}

#[async_trait]
impl Intruder for Blindness {
    async fn before(&self, _: StoreCall<'_>, vbucket: VBucket) -> Result<(), StoreError> {
        let retry_after = Duration::from_secs(1);
        if self.is_blind.load(Ordering::Relaxed) && self.blind.contains(&vbucket) {
            return Err(StoreError::Unavailable { retry_after, source: "gone".into() });
        }
        Ok(())
    }
}

async fn blind(blind: impl Fn(VBuckets) -> Vec<VBucket>) -> (Kit, Arc<Intruded<Blindness>>) {
    let memory = Arc::new(MemoryStore::default());
    let intruder = Blindness { blind: blind(memory.vbuckets()), is_blind: AtomicBool::new(false) };
    let store = Arc::new(Intruded { store: memory.clone(), intruder });
    let kit = over(memory, store.clone(), 500);
    set_spread(&kit, "name=hot&spread=8").await;
    let mut dice = Noise::new(3);
    for n in 0..40 {
        let totals = ("TotalsCounter", TotalsCounter::new);
        record(&kit, &mut dice, ("", &format!("c{n}")), totals, &[(1, 1.0)], Spread::new(8).unwrap()).await;
    }
    (kit, store)
}

#[tokio::test]
async fn what_may_lack_a_part_says_so_and_all_else_does_not() {
    let hot = TabName::new("hot").unwrap();
    let place =
        |vbuckets: VBuckets| vbuckets.places(&hot, Spread::new(8).unwrap()).into_iter().nth(5).unwrap();
    let (kit, store) = blind(|vbuckets| vec![place(vbuckets)]).await;
    store.intruder.is_blind.store(true, Ordering::Relaxed);
    for path in ["/v2/tabs?name=NAME", "/v2/tabs?re=true&name=NAME.*", "/v2/projections?name=NAME"] {
        let of = async |name: &str| kit.get(&path.replace("NAME", name)).await.json();
        let (hot, flat) = (of("hot").await, of("flat").await);
        let partial = |json: &Value| {
            json["results"].as_array().unwrap().iter().filter(|row| row["partial"] == true).count()
        };
        let rows = hot["results"].as_array().unwrap().len();
        assert_eq!((partial(&hot), partial(&flat)), (rows, 0), "{path}: {hot}");
        assert!(rows > 0 && hot["complete"] == false && hot["missing"].is_object(), "{hot}");
        assert_eq!(
            flat["complete"],
            path.starts_with("/v2/tabs?name") || path.contains("projections"),
            "{flat}"
        );
    }
    // Whether a Tab is gone from where nobody can look, nobody knows.
    let removed = kit.ask("DELETE", "/v2/tabs?name=hot", "*/*").await.json()["removed"].clone();
    assert_eq!((&removed["tabs"], removed["missing"].is_object()), (&json!(0), true), "{removed}");
}

#[tokio::test]
async fn one_copy_of_the_rules_is_enough_and_without_any_queries_look_everywhere() {
    let copies = |vbuckets: VBuckets| (0..4).map(|n| vbuckets.get(n * 257).unwrap()).collect::<Vec<_>>();
    for blinded in [3, 4] {
        let (kit, store) = blind(|vbuckets| copies(vbuckets).split_off(4 - blinded)).await;
        store.intruder.is_blind.store(true, Ordering::Relaxed);
        let answer = kit.get("/v2/tabs?name=hot").await.json();
        assert_eq!(answer["results"][0]["events"], 40, "{answer}");
        let change = kit.ask("POST", "/v2/spread?name=hot&spread=16", "*/*").await;
        assert_eq!(change.status, 503, "a change needs all copies: {}", change.text);
        let list = kit.get("/v2/spread").await;
        assert_eq!(list.status, if blinded == 4 { 503 } else { 200 }, "{}", list.text);
        store.intruder.is_blind.store(false, Ordering::Relaxed);
        let rules = set_spread(&kit, "name=hot&spread=16").await;
        assert_eq!(rules["rules"], json!([{ "name": "hot", "spread": 16, "widest": 16, "change": 2 }]));
        assert_eq!(kit.get("/v2/spread").await.json(), rules);
    }
}

/// Whatever is done to the copies of the rules by hand, no answer lacks a part without saying so, and Servers write them anew. The
/// one thing that nobody can notice is that all of them went back to before the Tab was spread.
#[tokio::test(start_paused = true)]
async fn copies_of_the_rules_that_are_deleted_or_damaged_hide_nothing_and_are_mended() {
    let kit = standard(500);
    let widest = Spread::new(16).unwrap();
    let read = async || {
        let mut copies = Vec::new();
        for n in 0..4 {
            let vbucket = kit.store.vbuckets().get(n * 257).unwrap();
            let scan = Scan::default().with_tab(TabName::new("taba.spread").unwrap());
            let found = kit.store.scan(vbucket, &scan).await.unwrap();
            copies.push((vbucket, found.first().map(|state| state.parts[0].1.clone())));
        }
        copies
    };
    let write = async |vbucket: VBucket, bytes: Option<bytes::Bytes>| match bytes {
        Some(bytes) => kit.put(vbucket, "taba.spread", "taba.SpreadRules", "rules", bytes).await,
        None => kit.remove(vbucket, "taba.spread", "rules").await,
    };
    set_spread(&kit, "name=other&spread=2").await;
    let older = read().await;
    set_spread(&kit, "name=hot&spread=16").await;
    let whole = read().await;
    let mut dice = Noise::new(3);
    for n in 0..40 {
        let totals = ("TotalsCounter", TotalsCounter::new);
        record(&kit, &mut dice, ("", &format!("c{n}")), totals, &[(1, 1.0)], widest).await;
    }
    for faults in 0..4_u32.pow(4) {
        let of = |copy: u32| faults / 4_u32.pow(copy) % 4;
        // Which copy it is makes no difference.
        if !(0..3).all(|copy| of(copy) <= of(copy + 1)) || of(0) == 3 {
            continue;
        }
        for copy in 0..4_u32 {
            let (vbucket, bytes) = whole[copy as usize].clone();
            let bytes = match of(copy) {
                0 => bytes,
                1 => None,
                2 => Some(bytes::Bytes::from_static(b"damaged")),
                _ => older[copy as usize].1.clone(),
            };
            write(vbucket, bytes).await;
        }
        for path in ["/v2/tabs?name=hot", "/v2/tabs?base=hot", "/v2/super?name=hot"] {
            let answer = kit.get(path).await.json();
            let found = (&answer["results"][0]["events"], &answer["complete"]);
            assert_eq!(found, (&json!(40), &json!(true)), "{faults}: {answer}");
        }
        // The next query that finds one damaged has them written anew, once a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        kit.get("/v2/tabs?name=hot").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        for (copy, (_, bytes)) in read().await.into_iter().enumerate() {
            let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
            let is_whole = text.contains(r#""name":"hot""#) && text.contains(r#""widest":16"#);
            assert_eq!(is_whole, of(copy as u32) != 3, "{faults}: {text}");
        }
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let kit = standard(500);
    for (query, status, word) in [
        ("name=hot&spread=3", 400, "power of two"),
        ("name=hot", 400, "power of two"),
        ("name=hot&spread=128", 400, "power of two"),
        ("spread=8", 400, "one of name= and prefix="),
        ("name=a&prefix=b&spread=8", 400, "one of name= and prefix="),
        ("prefix=&spread=8", 400, "beginning of the names"),
        ("prefix=a%20b&spread=8", 400, "beginning of the names"),
        ("name=taba.recorded&spread=8", 400, "belongs to the ledger"),
        ("prefix=taba.&spread=8", 400, "belongs to the ledger"),
        ("base=hot&spread=8", 400, "unknown parameter"),
    ] {
        let answer = kit.ask("POST", &format!("/v2/spread?{query}"), "*/*").await;
        assert_eq!(answer.status, status, "{query}: {}", answer.text);
        assert!(answer.text.contains(word), "{query}: {}", answer.text);
    }
    assert_eq!(kit.get("/v2/spread").await.json(), json!({ "rules": [] }));
    for prefix in ["delay;", "delay;to", "delay;to=", "delay;to=A"] {
        set_spread(&kit, &format!("prefix={prefix}&spread=2")).await;
    }
    for path in [
        "names?reserved=true",
        "tabs?reserved=true",
        "types",
        "clients?reserved=true",
        "names?name=taba.spread",
    ] {
        let answer = kit.get(&format!("/v2/{path}")).await;
        assert!(
            !answer.text.contains("spread") && !answer.text.contains("Spread"),
            "{path}: {}",
            answer.text
        );
        assert_eq!(answer.json()["complete"], true);
    }
    assert_eq!(kit.get("/v2/ledger").await.json()["results"], json!([]));
}
