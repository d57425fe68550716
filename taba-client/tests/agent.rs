//! A Client and an Agent over real sockets; the Agent misbehaves on cue.

#![expect(clippy::unwrap_used, reason = "what the tests share is a test too")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use taba_client::{Client, ClientBuilder, Config, Counter, FlushReport};
use taba_core::ledger::{self, Where, Why};
use taba_core::wire::{ClientBatch, Compression, Content, Frame, Kind, Receipt, Refusal};
use taba_core::{Event, Handler, Registry, Timestamp};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

const SECOND: Duration = Duration::from_secs(1);

/// How an Agent meets one request.
enum Mood {
    /// Takes the Batch, but the answer is lost.
    Silent,
    /// Does not take it, and says so.
    Status(StatusCode, &'static str, Option<&'static str>),
    /// Takes it, but for its first Block.
    Picky,
    /// Takes it, and answers with something else.
    Mumbling,
}

#[derive(Default)]
struct Desk {
    moods: VecDeque<Mood>,
    /// What the last request said of who sends it.
    token: Option<String>,
    /// Every frame that was taken, repeated ones too.
    frames: Vec<Bytes>,
    seen: BTreeSet<(u64, u64)>,
    batches: Vec<ClientBatch>,
}

/// An Agent: it recognises repeated Batches, and is otherwise as its mood is.
#[derive(Clone, Default)]
struct Agent(Arc<Mutex<Desk>>);

async fn events(State(agent): State<Agent>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers["content-type"], "application/x-taba");
    let frame = Frame::decode(&body, Kind::ClientBatch).unwrap();
    let (batch, bad) = ClientBatch::decode(&frame.message).unwrap();
    assert!(bad.is_empty());
    let mood = agent.0.lock().unwrap().moods.pop_front();
    if let Some(Mood::Status(status, body, retry_after)) = mood {
        let retry_after = retry_after.map(|seconds| [("retry-after", seconds)]);
        return (status, retry_after.into_iter().flatten().collect::<HeaderMapOf>().0, body).into_response();
    }
    let seq = batch.seq;
    let refused = match &mood {
        Some(Mood::Picky) => {
            vec![Refusal::new(0, Why::TypeConflict, batch.blocks[0].events)]
        }
        _ => Vec::new(),
    };
    {
        let mut desk = agent.0.lock().unwrap();
        desk.token = headers.get("authorization").map(|token| token.to_str().unwrap().to_owned());
        desk.frames.push(body);
        if desk.seen.insert((batch.incarnation, seq.0)) {
            desk.batches.push(batch);
        }
    }
    match mood {
        Some(Mood::Silent) => pending().await,
        Some(Mood::Mumbling) => return "pardon?".into_response(),
        _ => {}
    }
    let receipt = Receipt::new(seq, Timestamp::from_secs(1), refused);
    Frame::encode(Kind::Receipt, &receipt.encode(), Compression::None).into_response()
}

/// Headers from pairs.
struct HeaderMapOf(HeaderMap);

impl FromIterator<(&'static str, &'static str)> for HeaderMapOf {
    fn from_iter<I: IntoIterator<Item = (&'static str, &'static str)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect())
    }
}

/// An Agent's door: it closes when dropped.
struct Door {
    address: SocketAddr,
    _open: oneshot::Sender<()>,
}

impl Door {
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Agent {
    fn in_mood(moods: impl IntoIterator<Item = Mood>) -> Self {
        let agent = Self::default();
        agent.0.lock().unwrap().moods.extend(moods);
        agent
    }

    fn router(&self) -> Router {
        Router::new().route("/v2/events", post(events)).with_state(self.clone())
    }

    /// Listens in a thread of its own; the test may be a program without tokio.
    fn open_at(&self, address: &str) -> Door {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.router();
        let (open, closed) = oneshot::channel::<()>();
        in_a_thread(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            tokio::select! {
                served = axum::serve(listener, router).into_future() => served.unwrap(),
                _ = closed => {}
            }
        });
        Door { address, _open: open }
    }

    fn open(&self) -> Door {
        self.open_at("127.0.0.1:0")
    }

    /// Events and total by Tab, over all Batches.
    fn books(&self) -> BTreeMap<String, (u64, f64)> {
        let mut books = BTreeMap::new();
        for block in self.0.lock().unwrap().batches.iter().flat_map(|batch| &batch.blocks) {
            let state = match &block.content {
                Content::State { bytes, .. } => taba_core::decode_state(&Adder, 1, bytes).unwrap(),
                Content::Withheld { .. } => panic!("a client withholds nothing"),
                Content::Events(columns) => {
                    let handler: &dyn taba_core::AnyHandler = &Adder;
                    let mut state = handler.empty_state();
                    handler
                        .fold_columns(&mut state, columns, block.events as usize, taba_core::Arrival::ANY)
                        .unwrap();
                    taba_core::decode_state(&Adder, 1, &handler.encode(&state)).unwrap()
                }
            };
            let entry = books.entry(block.tab.to_string()).or_insert((0, 0.0));
            *entry = (entry.0 + block.events, entry.1 + state.total);
        }
        books
    }

    fn frames(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().frames.clone()
    }

    /// The accounts as the Ledger has them: recorded, and dropped by the Client for this reason.
    fn ledger(&self, why: Why) -> (f64, f64) {
        let books = self.books();
        let total = |tab: &str| books.get(tab).map_or(0.0, |(_, total)| *total);
        (total(ledger::RECORDED), total(ledger::dropped_tab(Where::Client, why).as_str()))
    }
}

fn in_a_thread(work: impl Future<Output = ()> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime.block_on(work));
}

/// Adds up.
struct Adder;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Total {
    total: f64,
}

impl Handler for Adder {
    type Value = f64;
    type State = Total;
    type Projection = Total;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Total, event: Event<&f64>) {
        state.total += event.value;
    }
    fn merge(&self, into: &mut Total, other: &Total) {
        into.total += other.total;
    }
    fn project(&self, state: &Total, _: Timestamp) -> Total {
        state.clone()
    }
    fn aggregate(&self, into: &mut Total, other: &Total) {
        into.total += other.total;
    }
    fn encoded_bytes_max(&self) -> usize {
        8
    }
}

fn builder(url: impl Into<String>) -> ClientBuilder {
    let handlers = Registry::builder().with("CounterGroup", Adder).build().unwrap();
    let mut config = Config::default();
    config.flush_interval = Duration::from_millis(5);
    config.request_timeout = Duration::from_millis(200);
    config.backoff_min = Duration::from_millis(1);
    config.backoff_max = Duration::from_millis(20);
    Client::builder("web-01").agent(url).handlers(handlers).config(config)
}

/// Polls for what another thread will do.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let soon = (0..2000).any(|_| {
        std::thread::park_timeout(Duration::from_millis(5));
        done()
    });
    assert!(soon, "{what}: not within ten seconds");
}

/// Records 1 under `bids` that many times, each of which is taken before the next can overflow a ring.
fn record(client: &Client, times: u64) {
    let bids = client.counter("bids").unwrap();
    let before = client.stats().recorded;
    (0..times).for_each(|_| bids.add(1.0));
    until("the rings are drained", || client.stats().recorded >= before + times);
}

#[test]
fn events_arrive_without_a_runtime_and_the_accounts_balance() {
    let agent = Agent::default();
    let door = agent.open();
    let client = builder(door.url()).build().unwrap();
    record(&client, 1000);
    client.percentile("latency;page=home").unwrap().record(0.5);
    let report = client.shutdown(10 * SECOND);
    assert_eq!(report.left, 0);
    let books = agent.books();
    assert_eq!(books["bids"], (1000, 1000.0));
    assert_eq!(books["latency;page=home"], (1, 0.5));
    assert_eq!(agent.ledger(Why::Full), (1001.0, 0.0));
    let stats = client.stats();
    assert_eq!((stats.recorded, stats.acked, stats.failures), (1001, 1001, 0));
}

#[test]
fn a_batch_whose_answer_is_lost_comes_again_with_the_same_bytes() {
    let agent = Agent::in_mood([Mood::Silent, Mood::Mumbling]);
    let door = agent.open();
    let client = builder(door.url()).build().unwrap();
    record(&client, 10);
    until("the first attempt is made", || !agent.frames().is_empty());
    record(&client, 10);
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    let frames = agent.frames();
    assert!(frames.len() >= 4, "three attempts for the first, then the rest");
    assert!(frames[0] == frames[1] && frames[1] == frames[2] && frames[2] != frames[3]);
    assert_eq!(agent.books()["bids"], (20, 20.0));
    assert_eq!(agent.ledger(Why::Full), (20.0, 0.0));
    assert_eq!(client.stats().failures, 2);
}

#[test]
fn an_outage_costs_memory_by_tabs_and_loses_nothing() {
    let agent = Agent::default();
    let door = agent.open();
    let (address, url) = (door.address.to_string(), door.url());
    drop(door);
    let client = builder(url).build().unwrap();
    for _ in 0..100 {
        record(&client, 1000);
    }
    let stats = client.stats();
    assert!(stats.failures > 0 && stats.acked == 0, "{stats:?}");
    assert!(stats.pending_bytes < 16 * 1024, "{stats:?}");
    let mut door = None;
    until("the address is free again", || {
        door = std::panic::catch_unwind(|| agent.open_at(&address)).ok();
        door.is_some()
    });
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    assert_eq!(agent.books()["bids"], (100_000, 100_000.0));
    assert_eq!(agent.ledger(Why::Full), (100_000.0, 0.0));
    drop(door);
}

#[test]
fn an_agent_that_is_busy_or_no_agent_is_asked_again() {
    let busy = |status, after| Mood::Status(status, r#"{"reason":"full"}"#, after);
    let agent = Agent::in_mood([
        busy(StatusCode::SERVICE_UNAVAILABLE, Some("0")),
        busy(StatusCode::TOO_MANY_REQUESTS, None),
        busy(StatusCode::REQUEST_TIMEOUT, None),
        Mood::Status(StatusCode::NOT_FOUND, "who?", None),
        Mood::Status(StatusCode::BAD_REQUEST, "<html>a proxy</html>", None),
    ]);
    let door = agent.open();
    let client = builder(door.url()).build().unwrap();
    record(&client, 10);
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    assert_eq!(client.stats().failures, 5);
    assert_eq!(agent.books()["bids"], (10, 10.0));
}

#[test]
fn a_batch_that_broke_on_its_way_is_sent_again() {
    // An earlier try of the same Batch may have arrived whole: given up, its events would be counted twice.
    let agent = Agent::in_mood([
        Mood::Status(StatusCode::BAD_REQUEST, r#"{"reason":"unreadable","message":"it ended early"}"#, None),
        Mood::Status(StatusCode::BAD_REQUEST, r#"{"reason":"checksum","message":"other bytes"}"#, None),
    ]);
    let door = agent.open();
    let client = builder(door.url()).build().unwrap();
    record(&client, 10);
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    assert_eq!((client.stats().failures, client.stats().dropped.total()), (2, 0));
    assert_eq!(agent.books()["bids"], (10, 10.0));
}

#[test]
fn a_batch_that_is_refused_for_good_is_counted_and_told() {
    let agent = Agent::in_mood([
        Mood::Status(StatusCode::BAD_REQUEST, r#"{"reason":"malformed","message":"no"}"#, None),
        Mood::Status(StatusCode::PAYLOAD_TOO_LARGE, r#"{"reason":"too_large"}"#, None),
    ]);
    let door = agent.open();
    let client = builder(door.url()).build().unwrap();
    record(&client, 10);
    until("it is given up", || client.stats().dropped.get(Why::Undecodable) == 10);
    record(&client, 20);
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    // The second refusal met the first's report, or that and some of the twenty.
    let full = client.stats().dropped.get(Why::Full);
    let arrived = agent.books().get("bids").map_or(0, |(events, _)| *events);
    assert_eq!(arrived + full, 20);
    assert_eq!(agent.ledger(Why::Undecodable), (30.0, 10.0));
    assert_eq!(agent.ledger(Why::Full), (30.0, full as f64));
}

#[test]
fn blocks_that_the_agent_refused_are_shown() {
    let agent = Agent::in_mood([Mood::Picky]);
    let door = agent.open();
    let client = builder(door.url()).flush_interval(60 * SECOND).build().unwrap();
    client.counter("bids").unwrap().add(1.0);
    assert_eq!(client.shutdown(10 * SECOND).flushed, 1);
    assert_eq!((client.stats().refused, client.stats().acked), (1, 1));
}

#[test]
fn dropping_the_last_client_or_handle_flushes() {
    let agent = Agent::default();
    let door = agent.open();
    let client = builder(door.url()).flush_interval(60 * SECOND).build().unwrap();
    let bids = client.counter("bids").unwrap();
    let other = client.clone();
    bids.add(2.0);
    drop((client, other));
    bids.add(2.0);
    assert!(agent.books().is_empty(), "a handle keeps its client");
    let again = bids.clone();
    drop(bids);
    assert!(agent.books().is_empty(), "one of two handles is no end");
    drop(again);
    assert_eq!(agent.books()["bids"], (2, 4.0));
}

#[test]
fn a_flush_sends_what_was_recorded_and_ends_nothing() {
    let agent = Agent::default();
    let door = agent.open();
    let client = builder(door.url()).flush_interval(60 * SECOND).build().unwrap();
    let tabs: Vec<_> = (0..4000).map(|n| client.counter(format!("tab;n={n}")).unwrap()).collect();
    for round in 1..4 {
        tabs.iter().for_each(|tab| tab.add(1.0));
        client.counter("bids").unwrap().add(f64::NAN);
        let report = client.flush(10 * SECOND);
        assert_eq!((report.flushed, report.left), (4000, 0));
        let books = agent.books();
        assert!(tabs.len() == books.keys().filter(|tab| tab.starts_with("tab;")).count());
        assert!(books.values().filter(|(events, _)| *events == round).count() >= 4000);
        assert_eq!(
            agent.ledger(Why::BadValue),
            (4001.0 * round as f64, round as f64),
            "drops are told as well"
        );
    }
    assert_eq!(client.flush(10 * SECOND), FlushReport::default(), "there is nothing to send");
}

#[test]
fn a_flush_without_an_agent_says_what_is_left() {
    let agent = Agent::in_mood((0..1000).map(|_| Mood::Silent));
    let door = agent.open();
    let mut config = Config::default();
    config.request_timeout = 3000 * SECOND;
    let client = builder(door.url()).config(config);
    let client = client.build().unwrap();
    client.counter("bids").unwrap().add(1.0);
    let report = client.flush(Duration::from_millis(50));
    assert_eq!((report.flushed, report.left), (0, 1));
    let _ = client.shutdown(Duration::ZERO);
}

#[tokio::test]
async fn a_flush_in_a_runtime_does_not_block_it() {
    let agent = Agent::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(axum::serve(listener, agent.router()).into_future());
    let client = builder(url).flush_interval(60 * SECOND).build().unwrap();
    client.counter("bids").unwrap().add(1.0);
    assert_eq!(client.flush_async(10 * SECOND).await.flushed, 1);
    client.counter("bids").unwrap().add(1.0);
    assert_eq!(client.close(10 * SECOND).await.flushed, 1);
    served.abort();
}

#[test]
fn a_client_that_is_lost_with_a_backlog_leaves_nothing_in_flight() {
    // The Agent is away while 4,000 Tabs record; then it takes one Batch of several, and the Client is killed: what it
    // had told until then is exactly what arrived.
    let agent = Agent::in_mood((0..1).map(|_| Mood::Status(StatusCode::SERVICE_UNAVAILABLE, "", Some("0"))));
    let door = agent.open();
    let client = builder(door.url()).build().unwrap();
    let tabs: Vec<_> = (0..4000).map(|n| client.counter(format!("tab;n={n}")).unwrap()).collect();
    tabs.iter().for_each(|tab| tab.add(1.0));
    tabs[0].add(f64::NAN);
    until("a batch is taken", || !agent.frames().is_empty());
    let taken: Vec<ClientBatch> = agent.0.lock().unwrap().batches.clone();
    let (mut recorded, mut events) = (0.0, 0);
    for batch in &taken {
        recorded += one(batch, ledger::RECORDED).expect("it tells what it holds");
        events += batch.blocks.iter().filter(|b| !b.tab.is_reserved()).map(|b| b.events).sum::<u64>();
        let dropped = one(batch, ledger::dropped_tab(Where::Client, Why::BadValue).as_str()).unwrap_or(0.0);
        recorded -= dropped;
        assert_eq!(recorded, events as f64, "after each batch");
    }
    let _ = client.shutdown(10 * SECOND);
}

/// The value of a Batch's one event of this Tab.
fn one(batch: &ClientBatch, tab: &str) -> Option<f64> {
    let block = batch.blocks.iter().find(|block| block.tab.as_str() == tab)?;
    let Content::Events(columns) = &block.content else { panic!("the ledger is told by events") };
    let handler: &dyn taba_core::AnyHandler = &Adder;
    let mut state = handler.empty_state();
    handler.fold_columns(&mut state, columns, 1, taba_core::Arrival::ANY).unwrap();
    Some(taba_core::decode_state(&Adder, 1, &handler.encode(&state)).unwrap().total)
}

#[test]
fn a_deadline_is_kept_when_the_agent_is_not_there() {
    let agent = Agent::in_mood((0..1000).map(|_| Mood::Silent));
    let door = agent.open();
    let mut config = Config::default();
    config.request_timeout = 3000 * SECOND;
    let client = builder(door.url()).config(config).build().unwrap();
    client.counter("bids").unwrap().add(1.0);
    let (done, report) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(client.shutdown(Duration::from_millis(50))));
    let report = report.recv_timeout(20 * SECOND).expect("the deadline has long passed");
    assert_eq!((report.flushed, report.left), (0, 1));
}

#[tokio::test]
async fn inside_a_runtime_close_does_not_block_it() {
    let agent = Agent::default();
    // The Agent runs in this very runtime, which has one thread: were that blocked, it could not answer.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(axum::serve(listener, agent.router()).into_future());
    let client = builder(url).flush_interval(60 * SECOND).build().unwrap();
    client.counter("bids").unwrap().add(1.0);
    let report = client.close(10 * SECOND).await;
    assert_eq!((report.flushed, report.left), (1, 0));
    assert_eq!(client.close(10 * SECOND).await.flushed, 0);
    served.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_be_dropped_inside_a_runtime() {
    let agent = Agent::default();
    let door = agent.open();
    let client = builder(door.url()).flush_interval(60 * SECOND).build().unwrap();
    client.counter("bids").unwrap().add(1.0);
    tokio::spawn(async move { drop(client) }).await.unwrap();
    assert_eq!(agent.books()["bids"], (1, 1.0));
}

#[test]
fn a_unix_socket_does_as_well() {
    let agent = Agent::default();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    serve_unix(&agent, &path);
    let client = builder(format!("unix:{}", path.display())).build().unwrap();
    record(&client, 100);
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    assert_eq!(agent.books()["bids"], (100, 100.0));
}

fn serve_unix(agent: &Agent, path: &Path) {
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let router = agent.router();
    in_a_thread(async move { axum::serve(UnixListener::from_std(listener).unwrap(), router).await.unwrap() });
}

#[test]
fn more_tabs_than_fit_one_batch_go_in_several_at_once() {
    let agent = Agent::default();
    let door = agent.open();
    let client = builder(door.url()).flush_interval(60 * SECOND).build().unwrap();
    let tabs: Vec<_> = (0..5000).map(|n| client.counter(format!("tab;n={n}")).unwrap()).collect();
    tabs.iter().for_each(|tab| tab.add(1.0));
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    let stats = client.stats();
    assert_eq!(agent.books().keys().filter(|tab| tab.starts_with("tab;")).count() as u64, stats.acked);
    assert!(stats.batches >= 3, "{stats:?}");
    assert_eq!((stats.acked, stats.dropped.total()), (5000, 0));
}

/// How the program of [`program`] ends; told by a variable of its environment, and the address of the Agent by another.
const ENDING: &str = "TABA_TEST_ENDING";
const AGENT: &str = "TABA_TEST_AGENT";

/// Nothing flushes by the clock in these programs.
fn program_client(id: &str) -> Client {
    let mut config = Config::default();
    config.flush_interval = 3000 * SECOND;
    config.exit_deadline = 10 * SECOND;
    let handlers = Registry::builder().with("CounterGroup", Adder).build().unwrap();
    let client = Client::builder(id).agent(std::env::var(AGENT).unwrap()).handlers(handlers);
    client.config(config).build().unwrap()
}

static STATIC: LazyLock<Client> = LazyLock::new(|| program_client("static"));

fn thousand(counter: &Counter) {
    (0..1000).for_each(|_| counter.increment());
}

/// A program of its own, when a test of this file runs it; otherwise nothing.
#[test]
fn program() {
    let Ok(ending) = std::env::var(ENDING) else { return };
    match ending.as_str() {
        "static" => thousand(&STATIC.counter("bids").unwrap()),
        "exit" => {
            let client = program_client("exit");
            thousand(&client.counter("bids").unwrap());
            std::process::exit(0);
        }
        "handle" => {
            let counter = program_client("handle").counter("bids").unwrap();
            thousand(&counter);
        }
        "frozen" => {
            let client = program_client("frozen");
            thousand(&client.counter("bids").unwrap());
            assert_eq!(client.flush(10 * SECOND).left, 0);
            std::process::abort();
        }
        "fork" | "fork and exit" => forking(ending == "fork"),
        other => panic!("{other}"),
    }
}

/// The parent records ten before and a hundred after the fork, the child a thousand.
#[expect(unsafe_code, reason = "the standard library does not fork")]
fn forking(child_shuts_down: bool) {
    let client = program_client("fork");
    let counter = client.counter("bids").unwrap();
    (0..10).for_each(|_| counter.increment());
    // SAFETY: the child uses nothing that another thread of the parent may have locked, but for what is tested here.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        assert_eq!(client.stats().recorded, 0, "what the parent recorded is the parent's");
        thousand(&counter);
        let later = client.counter("bids;made=later").unwrap();
        later.increment();
        if !child_shuts_down {
            std::process::exit(0);
        }
        let report = client.shutdown(10 * SECOND);
        let code = i32::from((report.flushed, report.left, client.stats().recorded) != (1001, 0, 1001));
        // SAFETY: nothing is to be done any more.
        unsafe { libc::_exit(code) };
    }
    let mut status = -1;
    // SAFETY: `status` lives for as long as the call.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "the child was content");
    (0..100).for_each(|_| counter.increment());
    let report = client.shutdown(10 * SECOND);
    assert_eq!((report.flushed, report.left), (110, 0));
}

/// Runs [`program`]: what the Agent has then.
fn run_program(ending: &str, succeeds: bool) -> Agent {
    let agent = Agent::default();
    let door = agent.open();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "program", "--nocapture"]).env(ENDING, ending).env(AGENT, door.url());
    let output = command.output().unwrap();
    assert_eq!(output.status.success(), succeeds, "{ending}: {output:?}");
    agent
}

#[test]
fn a_client_in_a_static_is_flushed_when_main_returns() {
    assert_eq!(run_program("static", true).books()["bids"], (1000, 1000.0));
}

#[test]
fn a_client_is_flushed_by_process_exit() {
    assert_eq!(run_program("exit", true).books()["bids"], (1000, 1000.0));
}

#[test]
fn a_handle_that_outlives_its_client_counts() {
    assert_eq!(run_program("handle", true).books()["bids"], (1000, 1000.0));
}

#[test]
fn what_was_flushed_survives_the_death_of_the_process() {
    assert_eq!(run_program("frozen", false).books()["bids"], (1000, 1000.0));
}

#[test]
fn a_forked_child_counts_what_it_records_and_nothing_else() {
    for ending in ["fork", "fork and exit"] {
        let agent = run_program(ending, true);
        let books = agent.books();
        assert_eq!((books["bids"], books["bids;made=later"]), ((1110, 1110.0), (1, 1.0)), "{ending}");
        assert_eq!(agent.ledger(Why::Full), (1111.0, 0.0), "{ending}");
        let batches = &agent.0.lock().unwrap().batches;
        let incarnations: BTreeSet<u64> = batches.iter().map(|batch| batch.incarnation).collect();
        assert_eq!(incarnations.len(), 2, "{ending}");
    }
}

#[test]
fn a_header_goes_with_each_request() {
    let agent = Agent::default();
    let door = agent.open();
    let client =
        Client::builder("web").agent(door.url()).header("Authorization", "Bearer t0k3n").build().unwrap();
    for total in 1..=2 {
        client.totals("bids").unwrap().add(1.0);
        assert_eq!(client.flush(20 * SECOND).left, 0);
        assert_eq!(agent.books()["bids"].0, total);
        let token = agent.0.lock().unwrap().token.take();
        assert_eq!(token.as_deref(), Some("Bearer t0k3n"));
    }
    let error = Client::builder("web").header("Host", "t0k3n").build().unwrap_err();
    assert!(!taba_core::causes(&error).contains("t0k3n"), "{error}");
}
