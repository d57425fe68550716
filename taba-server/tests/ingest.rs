//! Ingest over HTTP, in one process: answers, errors, bounds, the end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lanes;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use lanes::{acks, batch, block, frame, tab_in};
use taba_core::ledger::Why;
use taba_core::limits::{BLOCK_EVENTS_MAX, FRAME_BYTES_MAX};
use taba_core::wire::{Answer, Compression, Frame, Kind, LaneBatch, Probe};
use taba_core::{
    ClientId, Commit, Committed, Loaded, MemoryStore, Part, Scan, Scanned, SeqNo, StateKey, Store,
    StoreError, StreamId, TabName, TabType, VBucket, VBuckets, Version, Wanted,
};
use taba_server::{Misdirected, Server, ServerBuilder};
use tokio::sync::{Notify, Semaphore};
use tower::ServiceExt;

fn builder() -> ServerBuilder {
    let handlers = taba_handlers::standard().build().unwrap();
    let workers = NonZeroUsize::new(2).unwrap();
    Server::builder()
        .store(MemoryStore::default())
        .handlers(handlers)
        .workers(workers)
        .commit_interval(Duration::ZERO)
}

fn first_batch(stream: u64, values: &[f64]) -> LaneBatch {
    let home = VBuckets::default().of(&TabName::new("requests").unwrap()).index();
    batch(stream, home, 1, 0, vec![block("requests", "web-1", values)])
}

async fn ask(server: &Server, mut request: Request<Body>) -> (StatusCode, axum::http::HeaderMap, Vec<u8>) {
    let headers = request.headers_mut();
    headers.insert("host", "localhost".parse().unwrap());
    headers.insert("taba-request", "1".parse().unwrap());
    headers.entry("content-type").or_insert("application/x-taba".parse().unwrap());
    let response = server.router().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

async fn post(server: &Server, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
    let request = Request::post("/v2/lanes")
        .header("content-type", "application/x-taba")
        .body(Body::from(body))
        .unwrap();
    let (status, _, body) = ask(server, request).await;
    (status, body)
}

fn reason(body: &[u8]) -> String {
    let error: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert!(!error["message"].as_str().unwrap().is_empty());
    error["reason"].as_str().unwrap().to_owned()
}

/// Agents compare clocks by it: what `Date` says may be the time of a load balancer, or of hours ago.
#[tokio::test]
async fn an_answer_says_what_time_the_server_has() {
    let clock: taba_server::Clock = std::sync::Arc::new(|| taba_core::Timestamp::from_micros(-5));
    let server = builder().clock(clock).build().unwrap();
    for path in ["/v2/lanes", "/v2/check"] {
        let request = Request::post(path).body(Body::from(frame(&[]))).unwrap();
        let (status, headers, _) = ask(&server, request).await;
        assert_eq!((status, headers["taba-time"].to_str().unwrap()), (StatusCode::OK, "-5"));
        assert!(headers.contains_key("taba-vbuckets"));
    }
}

/// What takes long to fold is taken a part at a time; the rest is to be sent again, and then it is taken.
#[tokio::test]
async fn a_request_of_few_bytes_is_not_much_work() {
    let server = builder().build().unwrap();
    let full = vec![1.0; BLOCK_EVENTS_MAX];
    let mut batches: Vec<_> = (1..=20).map(|stream| first_batch(stream, &full)).collect();
    batches.iter_mut().for_each(|batch| batch.blocks = vec![batch.blocks[0].clone(); 4]);
    let mut rounds = Vec::new();
    while !batches.is_empty() {
        let body = frame(&batches);
        assert!(body.len() < 8 * 1024, "{} bytes", body.len());
        let acks = acks(post(&server, body).await.1);
        batches
            .retain(|batch| acks.iter().any(|ack| ack.stream == batch.stream && ack.answer == Answer::Busy));
        let taken = acks.iter().filter(|ack| ack.answer == Answer::Applied).count();
        rounds.push((taken, batches.len()));
    }
    assert_eq!(rounds, [(16, 4), (4, 0)]);
    let status = server.status().report();
    assert_eq!((status.batches_busy, status.events_folded), (4, 20 * 4 * BLOCK_EVENTS_MAX as u64));
}

#[tokio::test]
async fn what_is_acknowledged_can_be_queried_at_once() {
    let server = builder().build().unwrap();
    let (status, body) = post(&server, frame(&[first_batch(1, &[1.5, 2.5]), first_batch(2, &[4.0])])).await;
    assert_eq!(status, StatusCode::OK);
    let answers: Vec<_> = acks(body).iter().map(|ack| (ack.stream.0, ack.answer, ack.applied.0)).collect();
    assert_eq!(answers, [(1, Answer::Applied, 1), (2, Answer::Applied, 1)]);
    let (_, body) = post(&server, frame(&[first_batch(1, &[1.5, 2.5])])).await;
    assert_eq!(acks(body)[0].answer, Answer::Duplicate);
    let request = Request::get("/v2/tabs?name=requests")
        .header("accept", "application/json")
        .body(Body::empty())
        .unwrap();
    let (status, _, body) = ask(&server, request).await;
    assert_eq!(status, StatusCode::OK);
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains("requests") && text.contains('8'), "{text}");
    let report = server.status().report();
    assert_eq!((report.events_in, report.events_folded, report.batches_duplicate), (3, 3, 1));
    assert_eq!(server.shutdown(Duration::from_secs(10)).await.requests_unanswered, 0);
}

#[tokio::test]
async fn many_lanes_in_one_request_are_answered_in_order() {
    let server = builder().build().unwrap();
    let vbuckets = VBuckets::default();
    let batches: Vec<_> = vbuckets
        .iter()
        .map(|home| {
            let tab = tab_in(vbuckets, home.index(), "t");
            batch(9, home.index(), 1, 0, vec![block(&tab, "c", &[1.0])])
        })
        .collect();
    let answers = server.ingest(lanes::lanes(batches)).await;
    assert_eq!(answers.len(), 1024);
    assert!(answers.iter().zip(0..).all(|(ack, n)| ack.vbucket == n && ack.answer == Answer::Applied));
    assert_eq!(server.ingest(lanes::lanes(Vec::new())).await, []);
}

#[tokio::test]
async fn bad_bodies_are_answered_with_a_reason_and_change_nothing() {
    let server = builder().build().unwrap();
    let good = frame(&[first_batch(1, &[1.0])]);
    let (mut flipped, mut version, mut huge) = (good.clone(), good.clone(), good.clone());
    *flipped.last_mut().unwrap() ^= 1;
    version[4] = 99;
    huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let cases = [
        (Vec::new(), 400, "truncated"),
        (good[..good.len() - 1].to_vec(), 400, "truncated"),
        (b"GET / HTTP/1.1 or what?".to_vec(), 400, "not_a_frame"),
        (flipped, 400, "checksum"),
        (version, 400, "unknown_version"),
        (Frame::encode(Kind::Acks, &[0], Compression::None), 400, "unexpected_kind"),
        (Frame::encode(Kind::Lanes, &[1, 2, 3], Compression::None), 400, "truncated"),
        (huge, 413, "too_large"),
        (vec![0; FRAME_BYTES_MAX + 100], 413, "too_large"),
    ];
    for (body, status, word) in cases {
        let (found, body) = post(&server, body).await;
        assert_eq!((found.as_u16(), reason(&body).as_str()), (status, word));
    }
    for end in 0..good.len() {
        assert_eq!(post(&server, good[..end].to_vec()).await.0, StatusCode::BAD_REQUEST, "cut at {end}");
    }
    assert_eq!(server.status().report().batches_in, 0);
    assert_eq!(post(&server, good).await.0, StatusCode::OK);
}

/// Whatever is wrong with one Block or one Batch, the frame being sound, is answered there; all else is stored.
#[tokio::test]
async fn what_is_wrong_with_a_block_or_a_batch_costs_no_other() {
    let server = builder().build().unwrap();
    let home = |tab: &str| VBuckets::default().of(&TabName::new(tab).unwrap()).index();
    let of = |stream, tab: &str| batch(stream, home(tab), 1, 0, vec![block(tab, "web", &[1.0, 2.0])]);
    // Two good Blocks around the one that is spoilt, which has three events; each in a Lane of its own.
    let spoilt = |stream, tab: &str| {
        let mut batch = of(stream, tab);
        batch.blocks.push(block(tab, "web", &[1.0, 2.0, 3.0]));
        batch.blocks.push(block(tab, "web", &[4.0]));
        batch
    };
    let names = ["bad-name", "bad-client", "bad-type", "no-text", "unknown-kind", "no-events", "no-head"];
    let mut elsewhere = of(21, "elsewhere");
    elsewhere.vbucket ^= 1;
    let mut nowhere = of(22, "nowhere");
    nowhere.vbucket = 5000;
    let mut batches: Vec<_> = (1..).zip(names).map(|(stream, tab)| spoilt(stream, tab)).collect();
    batches.extend([elsewhere, nowhere, of(23, "good")]);
    let mut message = lanes::lanes(batches.clone());
    message.probes = vec![Probe::new(StreamId(24), 5000, SeqNo(1), 0)];
    let mut bytes = message.encode();
    for (name, batch) in names.iter().zip(&batches) {
        let mut whole = Vec::new();
        batch.blocks[1].encode(&mut whole);
        let at = bytes.windows(whole.len()).position(|window| window == whole).unwrap();
        let block = &mut bytes[at..at + whole.len()];
        let find =
            |word: &str| block.windows(word.len()).position(|window| window == word.as_bytes()).unwrap();
        let kind = find("TotalsCounter") + "TotalsCounter".len();
        let (at, byte) = match *name {
            "bad-name" => (find(name), b' '),
            "bad-client" => (find("web"), b' '),
            "bad-type" => (kind - 1, b'!'),
            "no-text" => (find(name), 0xff),
            "unknown-kind" => (kind, 9),
            "no-events" => (kind + 1, 0),
            // The name claims to be longer than the Block.
            _ => (find(name) - 1, 0x7f),
        };
        block[at] = byte;
    }
    let (status, body) = post(&server, Frame::encode(Kind::Lanes, &bytes, Compression::None)).await;
    assert_eq!(status, StatusCode::OK);
    let acks = acks(body);
    for (name, ack) in names.iter().zip(&acks) {
        assert_eq!((ack.answer, ack.applied), (Answer::Applied, SeqNo(1)), "{name}");
        let refusal = (ack.refused[0].block, ack.refused[0].why, ack.refused[0].events);
        let expected = match *name {
            "bad-name" | "bad-client" | "bad-type" => (1, Why::BadName, 3),
            "no-text" | "unknown-kind" => (1, Why::Undecodable, 3),
            _ => (1, Why::Undecodable, 0),
        };
        assert_eq!((ack.refused.len(), refusal), (1, expected), "{name}");
    }
    let rest: Vec<_> = acks[names.len()..].iter().map(|ack| ack.answer).collect();
    use Answer::{Applied, Misplaced};
    assert_eq!(rest, [Misplaced, Misplaced, Applied, Misplaced]);
    let report = server.status().report();
    assert_eq!((report.events_folded, report.events_refused), (7 * 3 + 2, 5 * 3));
    assert_eq!((report.messages_misplaced, report.batches_committed), (3, 8));
    let ledger = get(&server, "/v2/ledger").await;
    let dropped: u64 = ledger["totals"]["dropped"].as_array().unwrap().iter().map(events).sum();
    assert_eq!(dropped, 5 * 3, "{ledger}");
    // The same again is known.
    let body = Frame::encode(Kind::Lanes, &lanes::lanes(batches[..1].to_vec()).encode(), Compression::None);
    assert_eq!(self::acks(post(&server, body).await.1)[0].answer, Answer::Duplicate);
}

fn events(lost: &serde_json::Value) -> u64 {
    lost["events"].as_u64().unwrap()
}

async fn get(server: &Server, path: &str) -> serde_json::Value {
    let request = Request::get(path).header("accept", "application/json").body(Body::empty()).unwrap();
    serde_json::from_slice(&ask(server, request).await.2).unwrap()
}

#[tokio::test]
async fn what_is_no_lanes_request_is_turned_away() {
    let server = builder().build().unwrap();
    let request =
        Request::post("/v2/lanes").header("content-type", "text/plain").body(Body::from("x")).unwrap();
    let (status, _, body) = ask(&server, request).await;
    assert_eq!((status.as_u16(), reason(&body).as_str()), (415, "content_type"));
    let (status, headers, body) = ask(&server, Request::get("/v2/lanes").body(Body::empty()).unwrap()).await;
    assert_eq!((status.as_u16(), reason(&body).as_str()), (405, "method_not_allowed"));
    assert_eq!(headers["allow"], "POST");
    let (status, _, body) = ask(&server, Request::get("/nothing/here").body(Body::empty()).unwrap()).await;
    assert_eq!((status.as_u16(), reason(&body).as_str()), (404, "unknown_path"));
    // Of a body of unknown length no more than the bound is read.
    let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 1 << 20]));
    let (status, _, body) =
        ask(&server, Request::post("/v2/lanes").body(Body::from_stream(chunks)).unwrap()).await;
    assert_eq!((status.as_u16(), reason(&body).as_str()), (413, "too_large"));
}

#[tokio::test]
async fn misdirected_batches_are_named_without_http_too() {
    let server = builder().build().unwrap();
    let mut elsewhere = first_batch(1, &[1.0]);
    let home = elsewhere.vbucket;
    elsewhere.vbucket ^= 1;
    let expected = Misdirected::WrongVBucket { vbucket: home ^ 1, found: home };
    assert_eq!(server.check(&lanes::lanes(vec![elsewhere.clone()])), Err(expected));
    let answers = server.ingest(lanes::lanes(vec![elsewhere, first_batch(1, &[1.0])])).await;
    assert_eq!(answers[0].answer, Answer::Misplaced);
    assert_eq!(answers[1].answer, Answer::Applied);
}

/// A `MemoryStore` whose commits wait for a word, or fail.
#[derive(Default)]
struct Gate {
    inner: MemoryStore,
    is_shut: AtomicBool,
    is_broken: AtomicBool,
    is_misplaced: AtomicBool,
    opened: Notify,
    /// Commits that become stable, one for each permit.
    stable: Option<Semaphore>,
    /// Commits under way, and how many there were at most.
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

#[async_trait]
impl Store for Gate {
    fn vbuckets(&self) -> VBuckets {
        self.inner.vbuckets()
    }
    async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError> {
        self.inner.load(vbucket, wanted).await
    }
    async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError> {
        if self.is_shut.load(Ordering::SeqCst) {
            self.opened.notified().await;
        }
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable {
                retry_after: Duration::ZERO,
                source: "the disk is gone".into(),
            });
        }
        if self.is_misplaced.load(Ordering::SeqCst) {
            return Err(StoreError::Misplaced { vbucket, source: "it was moved".into() });
        }
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.inner.commit(vbucket, commit).await
    }
    async fn stable(&self, vbucket: VBucket) -> Result<(), StoreError> {
        if let Some(stable) = &self.stable {
            stable.acquire().await.unwrap().forget();
        }
        self.inner.stable(vbucket).await
    }
    async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
        self.inner.tabs(vbucket).await
    }
    async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError> {
        self.inner.scan(vbucket, scan).await
    }
}

#[tokio::test]
async fn over_the_bound_senders_are_told_to_wait() {
    let gate = Arc::new(Gate { is_shut: AtomicBool::new(true), ..Gate::default() });
    let server =
        builder().shared_store(Arc::clone(&gate) as Arc<dyn Store>).held_bytes_max(1).build().unwrap();
    let (first, server_too) = (first_batch(1, &[1.5; 4]), server.clone());
    let waiting = tokio::spawn(async move { server_too.ingest(lanes::lanes(vec![first])).await });
    while server.status().report().batches_in == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.ingest(lanes::lanes(vec![first_batch(2, &[1.5; 4])])).await[0].answer, Answer::Busy);
    let request = Request::post("/v2/lanes").body(Body::from(frame(&[first_batch(2, &[1.5; 4])]))).unwrap();
    let (status, headers, body) = ask(&server, request).await;
    assert_eq!((status.as_u16(), reason(&body).as_str()), (503, "full"));
    assert_eq!(headers["retry-after"], "1");
    // What is not committed is not in the answers yet, and the watermark says so.
    let now = (server.clock())();
    assert!(server.status().as_of(now) < now);
    gate.is_shut.store(false, Ordering::SeqCst);
    gate.opened.notify_one();
    assert_eq!(waiting.await.unwrap()[0].answer, Answer::Applied);
    assert_eq!(server.ingest(lanes::lanes(vec![first_batch(2, &[1.5; 4])])).await[0].answer, Answer::Applied);
    assert_eq!(server.status().as_of(now), now);
}

#[tokio::test]
async fn a_store_that_fails_is_never_acknowledged() {
    let gate = Arc::new(Gate { is_broken: AtomicBool::new(true), ..Gate::default() });
    let server = builder().shared_store(Arc::clone(&gate) as Arc<dyn Store>).build().unwrap();
    for _ in 0..3 {
        let ack = server.ingest(lanes::lanes(vec![first_batch(1, &[1.0])])).await.remove(0);
        assert_eq!((ack.answer, ack.applied.0), (Answer::Unavailable, 0));
    }
    gate.is_broken.store(false, Ordering::SeqCst);
    assert_eq!(server.ingest(lanes::lanes(vec![first_batch(1, &[1.0])])).await[0].answer, Answer::Applied);
    assert_eq!((server.status().report().store_errors, server.status().report().events_folded), (3, 1));
}

#[tokio::test]
async fn a_vbucket_that_is_kept_elsewhere_is_never_acknowledged_here() {
    let gate = Arc::new(Gate { is_misplaced: AtomicBool::new(true), ..Gate::default() });
    let server = builder().shared_store(Arc::clone(&gate) as Arc<dyn Store>).build().unwrap();
    let request = || lanes::lanes(vec![first_batch(1, &[1.0])]).with_probes(vec![probe(2, 1, 0)]);
    let answers: Vec<_> =
        server.ingest(request()).await.iter().map(|ack| (ack.answer, ack.applied.0)).collect();
    assert_eq!(answers, [(Answer::Unavailable, 0), (Answer::Unavailable, 0)]);
    gate.is_misplaced.store(false, Ordering::SeqCst);
    assert!(server.ingest(request()).await.iter().all(|ack| ack.answer == Answer::Applied));
    let report = server.status().report();
    assert_eq!((report.probes_in, report.probes_answered, report.batches_in), (2, 1, 2));
}

/// Counts the log lines with one message.
#[derive(Clone)]
struct LineCounter {
    message: &'static str,
    count: Arc<AtomicUsize>,
}

impl tracing::field::Visit for LineCounter {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" && format!("{value:?}") == self.message {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl tracing::Subscriber for LineCounter {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn many_states_that_cannot_be_read_for_one_reason_are_one_line_of_the_log() {
    let count = Arc::new(AtomicUsize::new(0));
    let message = "a stored state cannot be read; events for it are refused";
    let _guard = tracing::subscriber::set_default(LineCounter { message, count: Arc::clone(&count) });
    let store = MemoryStore::default();
    let tab = TabName::new("requests").unwrap();
    let home = VBuckets::default().of(&tab);
    let clients = ["web-1", "web-2", "web-3"];
    let state = |client: &&str| {
        let key = StateKey { tab: tab.clone(), client: ClientId::new(client).unwrap() };
        (key, Part::WHOLE, Some("no envelope".into()))
    };
    let commit = Commit::new(Version::NEVER, Version { writer: 7, count: 1 })
        .with_states(clients.iter().map(state).collect());
    assert_eq!(store.commit(home, commit).await.unwrap(), Committed::Done);
    let server = builder().store(store).build().unwrap();
    let blocks = clients.iter().map(|client| block("requests", client, &[1.0])).collect();
    let (status, body) = post(&server, frame(&[batch(1, home.index(), 1, 0, blocks)])).await;
    let refused: Vec<_> = acks(body)[0].refused.iter().map(|refusal| refusal.why).collect();
    assert_eq!((status, refused), (StatusCode::OK, vec![Why::Undecodable; 3]));
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

fn probe(stream: u64, base: u64, events_before: u64) -> Probe {
    let vbucket = first_batch(stream, &[1.0]).vbucket;
    Probe::new(StreamId(stream), vbucket, SeqNo(base), events_before)
}

#[tokio::test]
async fn probes_are_answered_behind_the_batches_of_their_request() {
    let server = builder().build().unwrap();
    let request = lanes::lanes(vec![first_batch(1, &[1.0]), first_batch(2, &[1.0; 4])]).with_probes(vec![
        probe(3, 1, 0),
        probe(1, 1, 0),
        probe(2, 4, 30),
    ]);
    let body = Frame::encode(Kind::Lanes, &request.encode(), Compression::None);
    let (status, body) = post(&server, body).await;
    assert_eq!(status, StatusCode::OK);
    let answers: Vec<_> = acks(body).iter().map(|ack| (ack.stream.0, ack.answer, ack.applied.0)).collect();
    let applied = Answer::Applied;
    assert_eq!(
        answers,
        [(1, applied, 1), (2, applied, 1), (3, applied, 0), (1, applied, 1), (2, applied, 3)]
    );
    let report = server.status().report();
    assert_eq!((report.probes_in, report.probes_answered, report.gaps, report.events_gap), (3, 3, 1, 26));

    let mut nowhere = probe(1, 1, 0);
    nowhere.vbucket = 5000;
    let request = lanes::lanes(Vec::new()).with_probes(vec![nowhere, probe(1, 1, 0)]);
    let body = Frame::encode(Kind::Lanes, &request.encode(), Compression::None);
    let over_http = acks(post(&server, body).await.1);
    for answers in [over_http, server.ingest(request).await] {
        assert_eq!([answers[0].answer, answers[1].answer], [Answer::Misplaced, applied]);
    }
}

#[tokio::test]
async fn what_is_stable_is_told_when_the_store_says_so_and_waited_for_by_nobody() {
    let gate = Arc::new(Gate { stable: Some(Semaphore::new(0)), ..Gate::default() });
    let server = builder()
        .shared_store(Arc::clone(&gate) as Arc<dyn Store>)
        // A wait that took the only slot would stop everything.
        .commits_in_flight_max(1)
        .build()
        .unwrap();
    let stable = async |server: &Server| {
        let request = lanes::lanes(Vec::new()).with_probes(vec![probe(1, 1, 0)]);
        let ack = server.ingest(request).await.remove(0);
        assert_eq!((ack.answer, ack.applied), (Answer::Applied, SeqNo(1)));
        ack.stable.0
    };
    assert_eq!(server.ingest(lanes::lanes(vec![first_batch(1, &[1.0])])).await[0].stable, SeqNo::NONE);
    for _ in 0..5 {
        assert_eq!(stable(&server).await, 0);
    }
    assert_eq!(server.status().report().stable_begun, 1, "one wait for one vbucket");
    gate.stable.as_ref().unwrap().add_permits(1);
    while server.status().report().stable_done == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stable(&server).await, 1);
    assert_eq!(server.status().report().stable_begun, 2, "and the next for all that came meanwhile");
    assert_eq!(server.shutdown(Duration::from_secs(30)).await.requests_unanswered, 0);
}

#[tokio::test]
async fn stopping_commits_what_is_held_and_takes_no_more() {
    let gate = Arc::new(Gate { is_shut: AtomicBool::new(true), ..Gate::default() });
    let server = builder().shared_store(Arc::clone(&gate) as Arc<dyn Store>);
    // An interval that would never pass: stopping does not wait for it.
    let server = server.commit_interval(Duration::from_secs(1_000_000)).build().unwrap();
    let send = |seq: u64, before: u64| {
        let (server, mut batch) = (server.clone(), first_batch(1, &[1.0]));
        (batch.seq, batch.events_before) = (taba_core::SeqNo(seq), before);
        tokio::spawn(async move { server.ingest(lanes::lanes(vec![batch])).await.remove(0).answer })
    };
    let first = send(1, 0);
    while server.status().report().batches_in < 1 {
        tokio::task::yield_now().await;
    }
    let second = send(2, 1);
    while server.status().report().batches_in < 2 {
        tokio::task::yield_now().await;
    }
    let left = server.shutdown(Duration::from_millis(1)).await;
    assert_eq!(left.requests_unanswered, 2, "the store has not answered yet");
    assert_eq!(send(3, 2).await.unwrap(), Answer::Unavailable);
    let (status, body) = post(&server, frame(&[first_batch(1, &[1.0])])).await;
    assert_eq!((status.as_u16(), reason(&body).as_str()), (503, "stopping"));
    gate.is_shut.store(false, Ordering::SeqCst);
    gate.opened.notify_one();
    drop((first, second));
}

#[tokio::test]
async fn stopping_waits_for_what_is_held() {
    let server = builder().commit_interval(Duration::from_secs(1_000_000)).build().unwrap();
    assert_eq!(server.ingest(lanes::lanes(vec![first_batch(1, &[1.0])])).await[0].answer, Answer::Applied);
    let (server_too, mut second) = (server.clone(), first_batch(1, &[1.0]));
    (second.seq, second.events_before) = (taba_core::SeqNo(2), 1);
    let second =
        tokio::spawn(async move { server_too.ingest(lanes::lanes(vec![second])).await.remove(0).answer });
    while server.status().report().batches_in < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.shutdown(Duration::from_secs(30)).await.requests_unanswered, 0);
    assert_eq!(
        second.await.unwrap(),
        Answer::Applied,
        "it was held back by the interval, and committed to stop"
    );
}

/// Memory: a worker begins no other commit while what it has decoded is over the bound; and always one.
#[tokio::test]
async fn a_worker_over_its_bound_of_memory_commits_one_vbucket_at_a_time() {
    for (cache_bytes_max, is_one) in [(1, true), (1 << 30, false)] {
        let gate = Arc::new(Gate::default());
        let server = builder()
            .shared_store(Arc::clone(&gate) as Arc<dyn Store>)
            .workers(NonZeroUsize::MIN)
            .cache_bytes_max(cache_bytes_max)
            .build()
            .unwrap();
        for seq in 1..=3 {
            let batches = (0..20).map(|vbucket| {
                let tab = tab_in(VBuckets::default(), vbucket, "t");
                batch(
                    1 + u64::from(vbucket),
                    vbucket,
                    seq,
                    2 * (seq - 1),
                    vec![block(&tab, "c", &[1.0, 2.0])],
                )
            });
            let acks = server.ingest(lanes::lanes(batches.collect())).await;
            assert!(acks.iter().all(|ack| (ack.answer, ack.applied) == (Answer::Applied, SeqNo(seq))));
        }
        assert_eq!(gate.most_under_way.load(Ordering::SeqCst) == 1, is_one, "bound: {cache_bytes_max}");
    }
}
