//! Blocks of a Tab that is spread, at Servers that do not know the rule.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lanes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use lanes::{acks, batch, block, frame};
use serde_json::{Value, json};
use taba_core::ledger::Why;
use taba_core::wire::{Ack, Answer, LaneBatch};
use taba_core::{
    ClientId, Commit, Committed, Loaded, MemoryStore, Scan, Scanned, SeqNo, Spread, Store, StoreError,
    StreamId, TabName, TabType, VBucket, VBuckets, Wanted,
};
use taba_server::Server;
use tower::ServiceExt;

/// A store whose replica is away, or slow, for a while: nothing becomes stable.
struct Unstable {
    store: Arc<MemoryStore>,
    is_unstable: AtomicBool,
    /// How long it takes.
    slowness: Duration,
}

#[async_trait]
impl Store for Unstable {
    fn vbuckets(&self) -> VBuckets {
        self.store.vbuckets()
    }
    async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError> {
        self.store.load(vbucket, wanted).await
    }
    async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError> {
        self.store.commit(vbucket, commit).await
    }
    async fn stable(&self, _: VBucket) -> Result<(), StoreError> {
        let retry_after = Duration::from_secs(1);
        tokio::time::sleep(self.slowness).await;
        if self.is_unstable.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { retry_after, source: "a replica is away".into() });
        }
        Ok(())
    }
    async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
        self.store.tabs(vbucket).await
    }
    async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError> {
        self.store.scan(vbucket, scan).await
    }
}

fn store() -> Arc<Unstable> {
    slow_store(Duration::ZERO)
}

fn slow_store(slowness: Duration) -> Arc<Unstable> {
    Arc::new(Unstable { store: Arc::default(), is_unstable: AtomicBool::new(false), slowness })
}

/// One of the Servers of this store.
fn server(store: &Arc<Unstable>) -> Server {
    let handlers = taba_handlers::standard().build().unwrap();
    let builder = Server::builder().shared_store(store.clone()).handlers(handlers);
    builder.commit_interval(Duration::ZERO).build().unwrap()
}

async fn ask(server: &Server, method: &str, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = request.header("taba-request", "1").header("content-type", "application/x-taba");
    let request = request.body(Body::from(body)).unwrap();
    let response = server.router().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn get(server: &Server, path: &str) -> Value {
    let (status, body) = ask(server, "GET", path, Vec::new()).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

async fn send(server: &Server, batch: &LaneBatch) -> Ack {
    let (status, body) = ask(server, "POST", "/v2/lanes", frame(std::slice::from_ref(batch))).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    acks(body).remove(0)
}

/// A Client whose events of `hot` lie beside the Tab's own VBucket under this spread, and a Batch of it.
fn beside(spread: u32) -> (String, LaneBatch) {
    let (vbuckets, hot) = (VBuckets::default(), TabName::new("hot").unwrap());
    let spread = Spread::new(spread).unwrap();
    let clients = (0..).map(|n| format!("host-{n}"));
    let place = |client: &str| vbuckets.place(&hot, &ClientId::new(client).unwrap(), spread);
    let needs =
        |client: &str| vbuckets.spread_at(&hot, &ClientId::new(client).unwrap(), place(client)).unwrap();
    let client = clients.into_iter().find(|client| needs(client) == spread).unwrap();
    let content = block("hot", &client, &[1.0, 2.0]);
    (client.clone(), batch(7, place(&client).index(), 1, 0, vec![content]))
}

fn batch_of_cold(home: u16) -> LaneBatch {
    batch(3, home, 1, 0, vec![block("cold", "web", &[1.0])])
}

/// The same content under another number.
fn with(batch: &LaneBatch, stream: StreamId, seq: u64) -> LaneBatch {
    let mut again = batch.clone();
    (again.stream, again.seq) = (stream, SeqNo(seq));
    again
}

/// The race: an operator raises the spread at one Server, an Agent hears of it there, and sends to another Server, which has
/// not asked yet. It takes the Block, and so do queries at every Server, at once.
#[tokio::test]
async fn a_server_that_does_not_know_the_rule_takes_the_block_and_every_query_finds_it() {
    let store = store();
    let (a, b, c) = (server(&store), server(&store), server(&store));
    assert_eq!(get(&c, "/v2/store").await["spread"], json!([]), "it has asked, and will not soon again");
    assert_eq!(get(&c, "/v2/tabs?name=hot").await["results"], json!([]));
    assert_eq!(ask(&a, "POST", "/v2/spread?name=hot&spread=8", Vec::new()).await.0, 200);
    assert_eq!(get(&a, "/v2/store").await["spread"][0]["spread"], 8, "an Agent is told");
    let (client, batch) = beside(8);
    // Also while no replica follows: that rule was stable before anybody could use it.
    store.is_unstable.store(true, Ordering::Relaxed);
    assert_eq!(send(&b, &batch).await.answer, Answer::Applied);
    for server in [&a, &b, &c] {
        let row = get(server, "/v2/tabs?name=hot").await["results"][0].clone();
        assert_eq!((&row["events"], &row["clients"]), (&json!(2), &json!(1)), "{row}");
        assert_eq!(get(server, "/v2/clients?name=hot").await["results"][0]["client"], client);
    }
    for server in [a, b, c] {
        assert_eq!(server.shutdown(Duration::from_secs(5)).await.requests_unanswered, 0);
    }
}

/// An Agent that spreads by a rule that nobody knows does no harm: queries are told first, for good, or nothing is folded.
#[tokio::test]
async fn what_no_rule_allows_is_found_all_the_same_or_not_folded() {
    let store = store();
    let (a, b) = (server(&store), server(&store));
    let (_, batch) = beside(4);
    store.is_unstable.store(true, Ordering::Relaxed);
    let ack = send(&a, &batch).await;
    assert_eq!((ack.answer, ack.applied.0), (Answer::Unavailable, 0), "a failover could take the rule back");
    assert_eq!(get(&b, "/v2/tabs?re=true&name=.*").await["results"], json!([]), "nothing is folded");
    store.is_unstable.store(false, Ordering::Relaxed);
    assert_eq!(send(&a, &batch).await.answer, Answer::Applied, "the same, sent again");
    assert_eq!(get(&b, "/v2/tabs?name=hot").await["results"][0]["events"], 2);
    let rules = get(&b, "/v2/spread").await["rules"].clone();
    assert_eq!(
        rules,
        json!([{ "name": "hot", "spread": 1, "widest": 4, "change": 0 }]),
        "Agents are told nothing"
    );
    assert_eq!(get(&b, "/v2/store").await["spread"], json!([]));
    assert_eq!(send(&b, &batch).await.answer, Answer::Duplicate, "and it counts once");
}

/// The first event of a Tab decides its type. A Client that got its type wrong does not win one of the VBuckets of a Tab
/// that is spread, so that all others there were refused.
#[tokio::test]
async fn a_tab_that_is_spread_has_one_type() {
    let store = store();
    let server = server(&store);
    let home = VBuckets::default().of(&TabName::new("hot").unwrap()).index();
    assert_eq!(
        send(&server, &batch(1, home, 1, 0, vec![block("hot", "web", &[1.0])])).await.answer,
        Answer::Applied
    );
    let (_, good) = beside(4);
    let mut wrong = good.clone();
    wrong.stream = StreamId(8);
    wrong.blocks[0].tab_type = TabType::new("PercentileCounter").unwrap();
    let ack = send(&server, &wrong).await;
    assert_eq!((ack.answer, ack.refused[0].why), (Answer::Applied, Why::TypeConflict));
    assert_eq!(send(&server, &good).await.refused, []);
    let rows = get(&server, "/v2/tabs?re=true&name=hot.*").await["results"].clone();
    assert_eq!((&rows[0]["events"], &rows[1]), (&json!(3), &Value::Null), "{rows}");
    let totals = get(&server, "/v2/ledger").await["totals"].clone();
    assert_eq!(totals["dropped"], json!([{ "where": "server", "why": "type_conflict", "events": 2 }]));
    // Once the Tab is deleted, it may have another type.
    assert_eq!(ask(&server, "DELETE", "/v2/tabs?name=hot", Vec::new()).await.0, 200);
    let more = |seq| with(&wrong, wrong.stream, seq);
    let mut seq = 1;
    let taken = async {
        loop {
            seq += 1;
            if send(&server, &more(seq)).await.refused.is_empty() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), taken).await.unwrap();
}

/// A disk may lag for longer than a request may wait.
#[tokio::test]
async fn what_takes_longer_than_a_request_may_wait_goes_on_by_itself() {
    let store = slow_store(Duration::from_millis(1_500));
    let server = server(&store);
    let (_, batch) = beside(4);
    // With many of them in one request it waits no longer, and all else is taken.
    let home = VBuckets::default().of(&TabName::new("cold").unwrap()).index();
    let mut all = vec![batch_of_cold(home)];
    for spread in [2, 4, 8, 16, 32, 64] {
        let (_, batch) = beside(spread);
        all.push(with(&batch, StreamId(100 + u64::from(spread)), 1));
    }
    let (_, body) = ask(&server, "POST", "/v2/lanes", frame(&all)).await;
    let answers: Vec<_> = acks(body).iter().map(|ack| ack.answer).collect();
    assert_eq!(
        (answers[0], answers[1..].iter().all(|answer| *answer == Answer::Unavailable)),
        (Answer::Applied, true)
    );
    let sent_again = async { while send(&server, &batch).await.answer != Answer::Applied {} };
    tokio::time::timeout(Duration::from_secs(30), sent_again).await.unwrap();
    assert_eq!(get(&server, "/v2/tabs?name=hot").await["results"][0]["events"], 2);
}

/// What is a place of a Block under no rule is misplaced at every Server, whatever rules there are: *Cut again* rests on it.
#[tokio::test]
async fn what_one_server_calls_misplaced_no_other_one_takes() {
    let store = store();
    let (a, b) = (server(&store), server(&store));
    let (vbuckets, hot) = (VBuckets::default(), TabName::new("hot").unwrap());
    assert_eq!(ask(&a, "POST", "/v2/spread?name=hot&spread=64", Vec::new()).await.0, 200);
    let client = ClientId::new("web").unwrap();
    for vbucket in vbuckets.iter() {
        let batch =
            batch(9 + u64::from(vbucket.index()), vbucket.index(), 1, 0, vec![block("hot", "web", &[1.0])]);
        let is_place = vbuckets.spread_at(&hot, &client, vbucket).is_some();
        let expected = if is_place { Answer::Applied } else { Answer::Misplaced };
        if is_place || vbucket.index() % 16 == 0 {
            for server in [&a, &b] {
                let answer = send(server, &batch).await.answer;
                assert!(
                    answer == expected || (is_place && answer == Answer::Duplicate),
                    "{vbucket}: {answer:?}"
                );
            }
        }
    }
    let places = vbuckets.iter().filter(|place| vbuckets.spread_at(&hot, &client, *place).is_some()).count();
    assert_eq!(get(&b, "/v2/tabs?name=hot").await["results"][0]["events"], places);
}
