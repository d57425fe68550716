//! A Handler that panics breaks the law of totality. Whichever of its methods it is, the panic costs what it panicked
//! at and nothing else: it is refused or left out, counted in the same commit or told in the answer; the Lane goes on,
//! and so does every other State of the VBucket.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

mod lanes;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use lanes::{acks, batch, frame, tab_in};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use taba_core::ledger::Why;
use taba_core::wire::{Answer, Block, Content, LaneBatch};
use taba_core::{
    ClientId, Event, Events, Format, Handler, MemoryStore, SeqNo, StateError, Store, TabName, TabType,
    Timestamp, VBuckets,
};
use taba_server::Server;
use tower::ServiceExt;

/// Where the Handler panics: at a State that has seen this value.
const FOLD: u64 = 101;
const MERGE: u64 = 102;
const ENCODE: u64 = 103;
const DECODE: u64 = 104;
const UPGRADE: u64 = 105;
const CLAMP: u64 = 106;
const PROJECT: u64 = 107;
const RENDER: u64 = 108;
const TALLY: u64 = 109;
const PRUNE: u64 = 110;
const AGGREGATE: u64 = 111;
const BOUND: u64 = 112;
const CLONE: u64 = 113;

/// Counts, and panics where it is told to.
struct Fragile;

#[derive(Debug, Default, PartialEq)]
struct Count {
    n: u64,
    mark: u64,
}

fn panic_at(mark: u64, method: u64) {
    assert_ne!(mark, method, "the deliberate fault");
}

impl Clone for Count {
    fn clone(&self) -> Self {
        panic_at(self.mark, CLONE);
        Self { n: self.n, mark: self.mark }
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        panic_at(self.mark, ENCODE);
        (self.n, self.mark).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (n, mark) = <(u64, u64)>::deserialize(deserializer)?;
        panic_at(mark, DECODE);
        Ok(Self { n, mark })
    }
}

/// What a `Count` says. Apart from it, so that projecting is no cloning.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Said {
    n: u64,
    mark: u64,
}

impl Handler for Fragile {
    type Value = f64;
    type State = Count;
    type Projection = Said;
    const VERSION: u16 = 2;

    fn fold(&self, state: &mut Count, event: Event<&f64>) {
        // Half a change, then the panic.
        state.n += 1;
        panic_at(*event.value as u64, FOLD);
        if *event.value > 100.0 {
            state.mark = *event.value as u64;
        }
    }
    fn merge(&self, into: &mut Count, other: &Count) {
        into.n += other.n;
        panic_at(other.mark, MERGE);
        into.mark = into.mark.max(other.mark);
    }
    fn project(&self, state: &Count, _: Timestamp) -> Said {
        panic_at(state.mark, PROJECT);
        Said { n: state.n, mark: state.mark }
    }
    fn aggregate(&self, into: &mut Said, other: &Said) {
        into.n += other.n;
        panic_at(other.mark, AGGREGATE);
        into.mark = into.mark.max(other.mark);
    }
    fn encoded_bytes_max(&self) -> usize {
        20
    }
    fn render(&self, said: &Said, _: Format) -> Value {
        panic_at(said.mark, RENDER);
        serde_json::json!({ "n": said.n })
    }
    fn upgrade(&self, version: u16, _: &[u8]) -> Result<Count, StateError> {
        assert_ne!(version, 1, "the deliberate fault");
        Err(StateError::UnknownVersion { found: version, known: 2 })
    }
    fn should_prune(&self, state: &Count, _: Timestamp) -> bool {
        panic_at(state.mark, PRUNE);
        false
    }
    fn clamp(&self, state: &mut Count, _: Timestamp) {
        panic_at(state.mark, CLAMP);
    }
    fn tally(&self, said: &Said) -> Option<String> {
        panic_at(said.mark, TALLY);
        None
    }
    fn error_bound(&self, said: &Said) -> Option<f64> {
        panic_at(said.mark, BOUND);
        None
    }
}

const HOME: u16 = 5;

fn tab(name: &str) -> String {
    tab_in(VBuckets::default(), HOME, name)
}

fn block(tab: &str, tab_type: &str, values: &[f64]) -> Block {
    let times = vec![Timestamp::from_secs(1_795_371_115); values.len()];
    let (tab, client) = (TabName::new(tab).unwrap(), ClientId::new("web").unwrap());
    Block::of_events(tab, client, TabType::new(tab_type).unwrap(), Events::new(&times, values)).unwrap()
}

/// Three events that the method panics at.
fn bad_block(method: u64) -> Block {
    let raw = block(&tab("bad"), "Fragile", &[1.0, method as f64, 2.0]);
    let state = |version: u16, mark: u64| {
        let bytes = taba_core::encode_state(&Count { n: 3, mark }).into();
        raw.clone().with_content(Content::State { version, bytes })
    };
    match method {
        MERGE => state(2, MERGE),
        UPGRADE => state(1, 0),
        CLAMP => {
            let mut block = state(2, CLAMP);
            block.latest = Timestamp::MAX;
            block
        }
        _ => raw,
    }
}

fn round(seq: u64, middle: Block) -> LaneBatch {
    let healthy = lanes::block(&tab("healthy"), "web", &[1.0, 2.0]);
    let same_type = block(&tab("good"), "Fragile", &[1.0; 4]);
    batch(1, HOME, seq, (seq - 1) * 9, vec![healthy, middle, same_type]).with_base(SeqNo(seq))
}

async fn ask(server: &Server, mut request: Request<Body>) -> Vec<u8> {
    let headers = request.headers_mut();
    headers.insert("host", "localhost".parse().unwrap());
    headers.insert("taba-request", "1".parse().unwrap());
    headers.entry("content-type").or_insert("application/x-taba".parse().unwrap());
    let response = server.router().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

async fn get(server: &Server, path: &str) -> Value {
    let request = Request::get(path).header("accept", "application/json").body(Body::empty()).unwrap();
    serde_json::from_slice(&ask(server, request).await).unwrap()
}

fn server_on(store: &Arc<dyn Store>) -> Server {
    let handlers = taba_handlers::standard().with("Fragile", Fragile).build().unwrap();
    let server = Server::builder().shared_store(Arc::clone(store)).handlers(handlers);
    server.commit_interval(Duration::ZERO).build().unwrap()
}

/// How many of the nine events of the bad Tab are folded at the end. The second Batch comes to the same Server, the
/// third to one that has to read what is stored.
const CASES: [(u64, &str, u64); 13] = [
    (FOLD, "fold", 6),
    (MERGE, "merge", 6),
    (ENCODE, "encode", 6),
    // It is stored, and cannot be read any more by the next Server.
    (DECODE, "decode", 6),
    (UPGRADE, "upgrade", 6),
    (CLAMP, "clamp", 6),
    (PROJECT, "project", 9),
    (RENDER, "render", 9),
    (TALLY, "tally", 9),
    (PRUNE, "should_prune", 9),
    (AGGREGATE, "aggregate", 9),
    (BOUND, "error_bound", 9),
    // Nobody copies a State where nothing panics.
    (CLONE, "clone", 9),
];

#[tokio::test]
async fn whichever_method_panics_costs_what_it_panicked_at_and_nothing_else() {
    for (method, name, folded) in CASES {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let (first, second) = (server_on(&store), server_on(&store));
        let good = || block(&tab("bad"), "Fragile", &[1.0; 3]);
        let rounds = [(&first, bad_block(method)), (&first, good()), (&second, good())];
        for (seq, (server, middle)) in (1..).zip(rounds) {
            let body = frame(&[round(seq, middle)]);
            let acks = acks(ask(server, Request::post("/v2/lanes").body(Body::from(body)).unwrap()).await);
            assert_eq!((acks[0].answer, acks[0].applied), (Answer::Applied, SeqNo(seq)), "{name} {seq}");
            for refusal in &acks[0].refused {
                assert_eq!((refusal.block, refusal.why, refusal.events), (1, Why::HandlerPanicked, 3));
            }
        }
        let ledger = get(&second, "/v2/ledger?client=web").await;
        let account = &ledger["results"][0];
        assert_eq!(account["folded"], 2 * 3 + 4 * 3 + folded, "{name}: {account}");
        let dropped: u64 =
            account["dropped"].as_array().unwrap().iter().map(|lost| lost["events"].as_u64().unwrap()).sum();
        assert_eq!(dropped, 9 - folded, "{name}: {account}");
        check_queries(&second, method, name).await;
        let panics = [&first, &second].map(|server| server.status().report().handler_panics);
        assert!(method == CLONE || panics.iter().sum::<u64>() > 0, "{name}: nothing panicked");
        for server in [first, second] {
            assert_eq!(server.shutdown(Duration::from_secs(5)).await.requests_unanswered, 0);
        }
    }
}

async fn check_queries(server: &Server, method: u64, name: &str) {
    for path in ["/v2/tabs", "/v2/projections"] {
        let answer = get(server, path).await;
        let rows = answer["results"].as_array().unwrap();
        let value = |tab: &str| rows.iter().find(|row| row["name"] == tab).map(|row| row["value"].clone());
        assert_eq!(value(&tab("healthy")).unwrap()["total"], 9.0, "{name} {path}");
        assert_eq!(value(&tab("good")).unwrap()["n"], 12, "{name} {path}");
        let is_of_aggregates = matches!(method, TALLY | AGGREGATE);
        let is_unanswered =
            matches!(method, DECODE | PROJECT | RENDER | BOUND) || (is_of_aggregates && path == "/v2/tabs");
        assert_eq!(value(&tab("bad")).is_none(), is_unanswered, "{name} {path}: {answer}");
        let faults = answer["errors"].as_array().cloned().unwrap_or_default();
        let told: Vec<_> =
            faults.iter().map(|fault| (fault["name"].clone(), fault["reason"].clone())).collect();
        let expected = is_unanswered.then(|| (Value::from(tab("bad")), Value::from("handler_panicked")));
        assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{name} {path}");
    }
    let pruned = ask(server, Request::post("/v2/prune").body(Body::empty()).unwrap()).await;
    assert!(String::from_utf8(pruned).unwrap().contains("states"), "{name}: pruning goes on");
}

/// Many Blocks that panic in one Batch cost one more attempt, not one for each.
#[tokio::test]
async fn a_batch_of_panics_is_over_at_once() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let server = server_on(&store);
    let blocks = (0..200).map(|n| {
        let value = if n % 2 == 0 { FOLD as f64 } else { 1.0 };
        block(&tab(&format!("tab{n}")), "Fragile", &[value])
    });
    let body = frame(&[batch(1, HOME, 1, 0, blocks.collect())]);
    let acks = acks(ask(&server, Request::post("/v2/lanes").body(Body::from(body)).unwrap()).await);
    assert_eq!((acks[0].answer, acks[0].refused.len()), (Answer::Applied, 100));
    let report = server.status().report();
    assert_eq!((report.commits, report.events_folded, report.events_refused), (1, 100, 100));
    assert_eq!(report.handler_panics, 100, "each is counted once");
}
