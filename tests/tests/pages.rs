//! A web page is not a Client: what a page can make a browser send is refused by every route of every listener, also of those that
//! are composed of single routers, and counted.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use taba_tests::{Agent, PATIENCE, Process, Server, binary, free_port, wait_until};

const AGENT: &[&str] = &[
    "POST /v2/events",
    "POST /v2/record",
    "GET /status",
    "GET /v2/status",
    "GET /metrics",
    "GET /none",
    "POST /none",
];
const INGEST: &[&str] = &["POST /v2/lanes", "POST /v2/check", "GET /v2/store", "GET /v2/servers"];
const QUERIES: &[&str] = &[
    "GET /v2/tabs",
    "GET /v2/projections",
    "GET /v2/super",
    "GET /v2/clients",
    "GET /v2/names",
    "GET /v2/types",
    "GET /v2/ledger",
    "GET /v2/spread",
    "GET /v2/status",
    "GET /v2/watch",
];
const ADMIN: &[&str] = &["DELETE /v2/tabs?name=a", "POST /v2/prune", "POST /v2/spread?name=a&spread=2"];
const OF_BINARY: &[&str] = &["GET /v2/backup", "GET /none", "POST /none"];

/// Headers with which pages, and names that were pointed here, ask; and how that is counted. Whatever else a request has.
const FOREIGN: &[(&str, &str)] = &[
    ("host: evil.example\r\n", "host"),
    ("host: localhost.evil.example:80\r\n", "host"),
    ("", "host"),
    ("host: localhost\r\nhost: evil.example\r\n", "host"),
    ("host: localhost\r\norigin: http://evil.example\r\n", "browser"),
    ("host: localhost\r\norigin: http://localhost:3000\r\n", "browser"),
    ("host: localhost\r\norigin: null\r\n", "browser"),
    ("host: localhost\r\nsec-fetch-site: cross-site\r\n", "browser"),
    ("host: 127.0.0.1\r\nsec-fetch-site: same-site\r\n", "browser"),
];

fn ask(port: u16, head: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (answer[9..12].parse().unwrap(), answer)
}

/// Every route refuses every foreign request, and all of them are counted.
fn refuses_pages(port: u16, prefix: &str, routes: &[&str]) {
    let counted = || {
        let (_, metrics) = ask(port, &format!("GET {prefix}/metrics HTTP/1.1\r\nhost: localhost\r\n"));
        let count = |reason| {
            let label = format!("_requests_refused_total{{reason=\"{reason}\"}} ");
            let at = metrics.find(&label).unwrap_or_else(|| panic!("{metrics}")) + label.len();
            metrics[at..].lines().next().unwrap().trim().parse::<u64>().unwrap()
        };
        ["host", "browser", "content_type", "request_header"].map(count)
    };
    let (before, mut expected) = (counted(), [0; 4]);
    for route in routes {
        let (method, path) = route.split_once(' ').unwrap();
        let mut refused = |headers: &str, words: &[&str]| {
            let (status, answer) = ask(port, &format!("{method} {prefix}{path} HTTP/1.1\r\n{headers}"));
            let word = words.iter().find(|word| answer.contains(&format!("\"reason\":\"{word}\"")));
            assert!((400..500).contains(&status) && word.is_some(), "{route} {headers:?}: {answer}");
            let at = ["host", "browser", "content_type", "request_header"]
                .iter()
                .position(|at| at == word.unwrap());
            expected[at.unwrap()] += 1;
        };
        let ours = "taba-request: 1\r\n";
        for (headers, word) in FOREIGN {
            refused(&format!("{headers}{ours}"), &[word]);
        }
        if method == "GET" {
            continue;
        }
        refused("host: localhost\r\n", &["request_header"]);
        for of_forms in [
            "",
            "content-type: text/plain\r\n",
            "content-type: multipart/form-data; boundary=x\r\n",
            "content-type: application/x-www-form-urlencoded\r\n",
        ] {
            let body = format!("host: localhost\r\n{ours}{of_forms}content-length: 3\r\n");
            refused(&body, &["content_type"]);
        }
    }
    let after = counted();
    for at in 0..4 {
        assert_eq!(after[at] - before[at], expected[at], "{after:?}");
    }
}

fn agent(server: &str, more: &[&str]) -> (Agent, tempfile::TempDir) {
    let (port, spool) = (free_port(), tempfile::tempdir().unwrap());
    let mut command = Command::new(binary("taba-agent"));
    command.arg("--listen").arg(format!("127.0.0.1:{port}")).args(["--servers", server]).args(more);
    command.arg("--spool-dir").arg(spool.path());
    let agent = Agent { process: Process::start("taba-agent", &mut command), port };
    wait_until("the agent answers", || ureq::get(&format!("{}/v2/status", agent.url())).call().is_ok());
    (agent, spool)
}

#[test]
fn every_route_of_both_programs_refuses_what_a_page_can_send() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), free_port());
    refuses_pages(server.port, "", &[INGEST, QUERIES, ADMIN, OF_BINARY, &["GET /metrics"]].concat());
    let (agent, _spool) = agent(&server.url(), &[]);
    refuses_pages(agent.port, "", AGENT);
}

#[test]
fn a_configured_name_is_answered() {
    let server = "http://127.0.0.1:1";
    let (agent, _spool) = agent(server, &["--host-names", "taba.example,other.example"]);
    let get = |host| ask(agent.port, &format!("GET /v2/status HTTP/1.1\r\nhost: {host}\r\n")).0;
    assert_eq!(["TABA.example:8279", "other.example", "evil.example"].map(get), [200, 200, 421]);
}

#[test]
fn what_is_composed_of_single_routers_refuses_it_too() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let taba = taba_server::Server::builder()
        .store(taba_core::MemoryStore::default())
        .handlers(taba_handlers::standard().build().unwrap())
        .build()
        .unwrap();
    let state = taba.query_state().clone();
    let own = axum::Router::new().route("/own", axum::routing::post(|| async { "done" }));
    let composed = axum::Router::new()
        .nest("/a", taba.ingest_router().merge(taba.query_router()).merge(taba.metrics_router()))
        .nest("/b", taba.admin_router().merge(taba.metrics_router()).merge(taba.guarded(own)))
        .nest("/c", taba_server::query::router(state));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(async { axum::serve(listener, composed).await });
    refuses_pages(port, "/a", &[INGEST, QUERIES, &["GET /metrics"]].concat());
    refuses_pages(port, "/b", &[ADMIN, &["POST /own"]].concat());
    refuses_pages(port, "/c", &[QUERIES, ADMIN].concat());
    runtime.shutdown_timeout(Duration::ZERO);
}
