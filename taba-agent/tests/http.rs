//! A real Agent on real sockets, in this process, with one or two Servers of a few lines.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::time::Duration;

use support::*;
use taba_agent::{Agent, AgentBuilder, Left, RunningAgent};
use taba_core::ledger::Why;
use taba_core::limits::FRAME_BYTES_MAX;
use taba_core::wire::{Compression, FRAME_HEADER_BYTES, Frame, Kind, Refusal};
use tokio::runtime::Runtime;

struct Running {
    runtime: Runtime,
    agent: RunningAgent,
    /// The Agent's Spool, unless the test has one of its own.
    _directory: tempfile::TempDir,
}

impl Running {
    fn start(servers: &[String], change: impl FnOnce(AgentBuilder) -> AgentBuilder) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let servers = servers.iter().map(|url| url.parse().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let builder = Agent::builder().listen("127.0.0.1:0".parse().unwrap()).servers(servers);
        let builder = builder.spool_dir(directory.path());
        let agent = change(builder).build().unwrap();
        let agent = runtime.block_on(agent.start()).unwrap();
        Self { runtime, agent, _directory: directory }
    }

    fn send(&self, seq: u64, tab: &str, events: usize) -> Answered {
        post_events(self.agent.addr(), &frame(&batch(seq, vec![block(tab, events)])))
    }

    fn stop(self, deadline: Duration) -> Left {
        self.runtime.block_on(self.agent.shutdown(deadline))
    }
}

fn one_with(server: &Server) -> Running {
    Running::start(&[server.url()], |agent| agent)
}

/// Where nobody listens.
fn nowhere() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", free.local_addr().unwrap())
}

#[test]
fn what_a_client_sends_is_stored_and_counted() {
    let server = Server::start();
    let running = one_with(&server);
    let receipt = running.send(1, "bids", 3).receipt();
    assert_eq!((receipt.seq.0, receipt.refused), (1, Vec::new()));
    let stored = server.next_block();
    assert_eq!(stored, block("bids", 3));
    let addr = running.agent.addr();
    for path in ["/status", "/v2/status"] {
        let status = get(addr, path).json();
        assert_eq!(status["phase"], "serving");
        assert_eq!(status["clients"], 1);
        assert_eq!(status["lanes"], 1);
        assert_eq!(status["spool"]["events_offered"], 3);
        assert_eq!(status["servers"][0]["url"], server.url());
        assert_eq!(status["servers"][0]["health"], "up");
    }
    let metrics = get(addr, "/metrics");
    assert!(metrics.head.to_lowercase().contains("content-type: text/plain; version=0.0.4"));
    assert!(String::from_utf8(metrics.body).unwrap().contains("\ntaba_agent_batches_taken_total 1\n"));
    assert!(running.stop(PATIENCE).is_nothing());
    assert_eq!(server.events()["bids"], 3);
}

#[test]
fn a_repeated_batch_is_stored_once() {
    let server = Server::start();
    let running = one_with(&server);
    running.send(1, "bids", 3).receipt();
    running.send(1, "bids", 3).receipt();
    running.send(2, "bids", 4).receipt();
    running.send(1, "bids", 3).receipt();
    assert!(running.stop(PATIENCE).is_nothing());
    assert_eq!(server.events()["bids"], 7);
}

#[test]
fn a_bad_block_is_refused_alone_and_counted_in_the_ledger() {
    let server = Server::start();
    let running = one_with(&server);
    // The name is spoilt in the bytes: no constructor makes such a Block.
    let mut message = batch(1, vec![block("good", 2), block("BADBADBAD", 5)]).encode();
    let at = message.windows(9).position(|window| window == b"BADBADBAD").unwrap();
    message[at] = b' ';
    let answered =
        post_events(running.agent.addr(), &Frame::encode(Kind::ClientBatch, &message, Compression::None));
    assert_eq!(answered.receipt().refused, [Refusal::new(1, Why::BadName, 5)]);
    assert!(running.stop(PATIENCE).is_nothing());
    let events = server.events();
    assert_eq!(events["good"], 2);
    assert_eq!(events["taba.dropped;where=agent;why=bad_name"], 1, "one note");
    assert_eq!(events.len(), 2);
}

#[test]
fn bad_bodies_are_refused_with_a_reason_and_take_nothing_with_them() {
    let server = Server::start();
    let running = one_with(&server);
    let addr = running.agent.addr();
    let good = frame(&batch(1, vec![block("bids", 3)]));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let last = good.len() - 1;
    let cases = [
        (Vec::new(), 400, "truncated"),
        (good[..10].to_vec(), 400, "truncated"),
        (good[..last].to_vec(), 400, "truncated"),
        ([&good[..], b"x"].concat(), 400, "malformed"),
        (with(0, b'X'), 400, "not_a_frame"),
        (with(4, 99), 400, "unknown_version"),
        (with(5, 3), 400, "unexpected_kind"),
        (with(last, good[last] ^ 1), 400, "checksum"),
        (with(15, 0xff), 413, "too_large"),
        (Frame::encode(Kind::ClientBatch, b"\x05hello", Compression::None), 400, "truncated"),
        (Frame::encode(Kind::ClientBatch, b"\x01;", Compression::None), 400, "bad_name"),
    ];
    for (body, status, reason) in cases {
        let answered = post_events(addr, &body);
        assert_eq!((answered.status, answered.reason().as_str()), (status, reason), "{body:?}");
        assert!(!answered.json()["message"].as_str().unwrap().is_empty());
    }
    let status = get(addr, "/status").json();
    assert_eq!((&status["batches"]["in"], &status["spool"]["events_offered"]), (&0.into(), &0.into()));
    post_events(addr, &good).receipt();
    assert!(running.stop(PATIENCE).is_nothing());
    assert_eq!(server.events()["bids"], 3);
}

#[test]
fn other_mistakes_over_http_are_told_as_json() {
    let server = Server::start();
    let running = one_with(&server);
    let addr = running.agent.addr();
    let ask = |method: &str, path: &str, headers: &str| {
        exchange(connect(addr), &request(method, path, headers, b""))
    };
    for (answered, status, reason) in [
        (ask("GET", "/nothing", ""), 404, "unknown_path"),
        (ask("GET", "/v2/events", ""), 405, "method_not_allowed"),
        (ask("POST", "/status", "taba-request: 1\r\n"), 405, "method_not_allowed"),
        (
            ask("POST", "/v2/events", "taba-request: 1\r\nContent-Type: application/json\r\n"),
            415,
            "content_type",
        ),
        (ask("POST", "/v2/events", "taba-request: 1\r\n"), 415, "content_type"),
    ] {
        assert_eq!((answered.status, answered.reason().as_str()), (status, reason));
    }
    // Refused by its length, before any of it is read.
    let length = FRAME_BYTES_MAX + FRAME_HEADER_BYTES + 1;
    let head = format!(
        "POST /v2/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/x-taba\r\nContent-Length: {length}\r\n\r\n"
    );
    let answered = exchange(connect(addr), head.as_bytes());
    assert_eq!((answered.status, answered.reason().as_str()), (413, "too_large"));
    // The length is not told, so it is found out.
    let head = "POST /v2/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/x-taba\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [format!("{length:x}\r\n").as_bytes(), &vec![0; length], b"\r\n0\r\n\r\n"].concat();
    let answered = exchange(connect(addr), &[head.as_bytes(), &chunk].concat());
    assert_eq!((answered.status, answered.reason().as_str()), (413, "too_large"));
}

#[test]
fn a_body_that_never_comes_is_given_up() {
    let server = Server::start();
    let running = Running::start(&[server.url()], |agent| {
        agent.configure(|config| config.body_timeout = Duration::from_millis(50))
    });
    let head = "POST /v2/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/x-taba\r\nContent-Length: 100\r\n\r\nTABA";
    let answered = exchange(connect(running.agent.addr()), head.as_bytes());
    assert_eq!((answered.status, answered.reason().as_str()), (408, "too_slow"));
}

#[test]
fn a_full_agent_asks_its_client_to_wait_and_loses_nothing() {
    let server = Server::start();
    server.be(Mood::Refusing);
    let running = Running::start(&[server.url()], |agent| {
        agent.configure(|config| {
            config.spool_bytes_max = 2 * FRAME_BYTES_MAX as u64;
            config.backoff_max = Duration::from_millis(100);
            config.confirm_after = Duration::ZERO;
            config.probe_interval = Duration::from_millis(20);
        })
    });
    let addr = running.agent.addr();
    let full = |seq| frame(&batch(seq, (0..7).map(|n| heavy(&format!("tab{n}"), 950_000)).collect()));
    post_events(addr, &full(1)).receipt();
    post_events(addr, &full(2)).receipt();
    let refused = post_events(addr, &full(3));
    assert_eq!((refused.status, refused.reason().as_str()), (503, "full"));
    assert!(refused.head.to_lowercase().contains("retry-after: 1"), "{}", refused.head);
    let status = get(addr, "/status").json();
    assert_eq!(status["spool"]["events_turned_away"], 35);
    assert_eq!(status["spool"]["events_held"], 70);
    post_events(addr, &full(2)).receipt();

    server.be(Mood::Well);
    (0..14).for_each(|_| drop(server.next_block()));
    let mut again = post_events(addr, &full(3));
    // The Server has stored everything; that its answer has arrived is seen by trying.
    for _ in 0..10_000 {
        if again.status == 200 {
            break;
        }
        again = post_events(addr, &full(3));
    }
    again.receipt();
    assert!(running.stop(PATIENCE).is_nothing());
    assert!(server.events().values().all(|events| *events == 15));
}

#[test]
fn when_a_server_fails_the_other_takes_over_and_nothing_is_stored_twice() {
    for mood in [Mood::Refusing, Mood::Babbling] {
        let (bad, good) = (Server::start(), Server::start());
        bad.be(mood);
        let running = Running::start(&[bad.url(), good.url(), nowhere()], |agent| agent);
        for seq in 1..=20 {
            let blocks = (0..20).map(|n| block(&format!("tab{n}"), 1)).collect();
            post_events(running.agent.addr(), &frame(&batch(seq, blocks))).receipt();
        }
        let status = running.agent.status().unwrap();
        assert!(running.stop(PATIENCE).is_nothing());
        assert!(bad.requests() > 0, "it was tried");
        assert_eq!(status.servers[0].url, bad.url());
        // A Server that stores and answers nonsense shares no store with the other one here, so that what it took
        // does not count; what counts is that the other one has all of it, once.
        let events = good.events();
        assert_eq!(events.len(), 20);
        assert!(events.values().all(|events| *events == 20), "{events:?}");
    }
}

#[test]
fn an_answer_that_makes_no_sense_repeats_the_batch_and_the_server_knows_it() {
    let server = Server::start();
    server.be(Mood::Babbling);
    let running = one_with(&server);
    running.send(1, "bids", 3).receipt();
    assert_eq!(server.next_block(), block("bids", 3));
    server.be(Mood::Well);
    running.send(2, "bids", 4).receipt();
    assert!(running.stop(PATIENCE).is_nothing());
    assert_eq!(server.events()["bids"], 7);
}

#[test]
fn what_is_left_after_the_deadline_is_told() {
    let running = Running::start(&[nowhere()], |agent| agent);
    running.send(1, "bids", 3).receipt();
    let left = running.stop(Duration::from_millis(300));
    assert_eq!(left.events, 3);
    assert!(left.bytes > 0);
}

#[test]
fn events_are_stored_well_within_a_second() {
    let server = Server::start();
    let running = one_with(&server);
    // The fake Server commits at once: what is measured is the Agent's own delay, lingering included.
    let mut slowest = Duration::ZERO;
    for seq in 1..=20 {
        let timer = tokio_timer();
        running.send(seq, "bids", 1).receipt();
        server.next_block();
        slowest = slowest.max(timer());
    }
    eprintln!("from a client's batch to the server: at most {slowest:?} in 20 batches");
    assert!(slowest < Duration::from_millis(800), "{slowest:?}");
    drop(running);
}

#[expect(clippy::disallowed_methods, reason = "what is tested here is how much time passes")]
fn tokio_timer() -> impl Fn() -> Duration {
    let start = std::time::Instant::now();
    move || start.elapsed()
}

fn record(running: &Running, path: &str, headers: &str, body: &str) -> Answered {
    let headers = format!("Content-Type: application/json\r\n{headers}");
    exchange(connect(running.agent.addr()), &request("POST", path, &headers, body.as_bytes()))
}

fn with_handlers(server: &Server) -> Running {
    Running::start(&[server.url()], |agent| agent.handlers(taba_handlers::standard().build().unwrap()))
}

#[test]
fn json_lines_are_recorded_and_what_is_wrong_is_told_by_line() {
    let server = Server::start();
    let running = with_handlers(&server);
    let answer = record(&running, "/v2/record", "", "{\"tab\":\"bids\",\"value\":3}\n{\"tab\":\"b ds\"}");
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected = serde_json::json!({"recorded": 1, "refused_lines": 1, "refused": [{"line": 2, "reason": "bad_name",
        "message": "character ' ' at byte 1 is not allowed in a tab name"}]});
    assert_eq!(answer.json(), expected);
    for (path, headers, body, status, reason) in [
        ("/v2/record", "", "hello\nworld", 400, "malformed"),
        ("/v2/record", "", "\n\n", 400, "malformed"),
        ("/v2/record?clinet=a", "", "{\"tab\":\"a\"}", 400, "bad_parameter"),
        ("/v2/record?client=a%20b", "", "{\"tab\":\"a\"}", 400, "bad_parameter"),
        ("/v2/record", "Idempotency-Key: a\r\nIdempotency-Key: b\r\n", "{\"tab\":\"a\"}", 400, "bad_key"),
        ("/v2/record", "Idempotency-Key: \r\n", "{\"tab\":\"a\"}", 400, "bad_key"),
        ("/v2/record", "Origin: http://evil.example\r\n", "{\"tab\":\"a\"}", 403, "browser"),
    ] {
        let answer = record(&running, path, headers, body);
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (status, reason),
            "{path} {headers} {answer:?}"
        );
    }
    let large = "{\"tab\":\"a\"}\n".repeat(10_001);
    for body in [large, "x".repeat((1 << 20) + 1)] {
        let answer = record(&running, "/v2/record", "", &body);
        assert_eq!((answer.status, answer.reason().as_str()), (413, "too_large"));
    }
    assert!(running.stop(PATIENCE).is_nothing());
    assert_eq!(server.events()["bids"], 1);
    assert!(!server.events().contains_key("a"), "what was refused left nothing");
}

#[test]
fn a_handle_takes_batches_and_lines_until_its_agent_has_stopped() {
    let server = Server::start();
    let running = with_handlers(&server);
    let handle = running.agent.handle();
    let first = batch(1, vec![block("bids", 3)]);
    let client = first.client.clone();
    let lines = b"{\"tab\":\"bids\"}\n";
    running.runtime.block_on(async {
        let receipt = handle.accept(&first).await.unwrap();
        assert_eq!(handle.accept(&first).await.unwrap().seq, receipt.seq, "again");
        for key in [Some("k"), Some("k"), None] {
            let record = handle.record(&taba_agent::frontend::JsonLines, lines, client.clone(), key);
            assert_eq!(record.await.unwrap().recorded, 1);
        }
    });
    let runtime = running.runtime;
    assert!(runtime.block_on(running.agent.shutdown(PATIENCE)).is_nothing());
    assert_eq!(server.events()["bids"], 5);
    let error = runtime.block_on(handle.accept(&batch(2, vec![block("bids", 3)]))).unwrap_err();
    assert_eq!(
        (error.reason(), error.remedy()),
        ("stopping", taba_core::Remedy::Wait(Duration::from_secs(1)))
    );
}
