//! An event recorded in a program is queried a moment later, exactly, through the real binaries; and what happens when
//! one of them is killed, or told nonsense.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use taba_client::{Client, Config};
use taba_core::Timestamp;
use taba_tests::{Account, Agent, Server, free_port, wait_until};

fn client(id: &str, agent: &Agent) -> Client {
    let handlers = taba_handlers::standard().build().unwrap();
    Client::builder(id).agent(agent.url()).handlers(handlers).build().unwrap()
}

fn stack(directory: &std::path::Path) -> (Server, Agent) {
    let server = Server::start(directory, free_port());
    let agent = Agent::start(free_port(), &[server.url()]);
    (server, agent)
}

#[expect(clippy::disallowed_methods, reason = "the real processes have real clocks")]
fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_micros(since_epoch.as_micros() as i64)
}

/// (count, total) of a `TotalsCounter` over all Clients.
fn totals(server: &Server, tab: &str) -> (i64, f64) {
    let answer = server.get(&format!("/v2/tabs?name={tab}"));
    let value = &answer["results"][0]["value"];
    (value["count"].as_i64().unwrap_or(0), value["total"].as_f64().unwrap_or(0.0))
}

#[test]
fn what_is_recorded_is_queried_and_the_ledger_balances() {
    let directory = tempfile::tempdir().unwrap();
    let (server, agent) = stack(directory.path());
    let web = client("web-01", &agent);
    let bids = web.totals("bids_won").unwrap();
    bids.add(1.0);
    bids.add(0.1);
    bids.add(f64::NAN);
    wait_until("the events are visible", || totals(&server, "bids_won") == (2, 1.1));
    let expected = Account { recorded: 3, folded: 2, dropped: 1, in_flight: 0 };
    wait_until("the ledger balances", || server.account("web-01") == expected);
}

#[test]
fn a_server_killed_under_load_loses_nothing_and_doubles_nothing() {
    const ROUNDS: u64 = 4;
    const EVENTS: u64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let (mut server, agent) = stack(directory.path());
    let clients: Vec<_> = (0..3).map(|n| client(&format!("web-{n}"), &agent)).collect();
    let port = server.port;
    let mut recorded = 0;
    for round in 0..ROUNDS {
        for client in &clients {
            let tabs: Vec<_> = (0..40).map(|n| client.totals(format!("load-{n}")).unwrap()).collect();
            for n in 0..EVENTS {
                tabs[(n % 40) as usize].add(1.0);
                // Room for the flush to keep up: the bound on a thread's ring is not what is tested here.
                if n % 5_000 == 4_999 {
                    wait_until("the rings are drained", || client.stats().recorded == round * EVENTS + n + 1);
                }
            }
            recorded += EVENTS;
        }
        // Killed in the middle of whatever it is doing: a different moment in each round.
        wait_until("something is stored", || {
            server.get("/v2/status")["ingest"]["events_folded"].as_u64() >= Some(1 + round)
        });
        server.process.kill();
        server = Server::start(directory.path(), port);
    }
    let sum = || (0..40).map(|n| totals(&server, &format!("load-{n}")).0 as u64).sum::<u64>();
    wait_until("everything has arrived", || sum() >= recorded);
    assert_eq!(sum(), recorded);
    for n in 0..3 {
        let each = (ROUNDS * EVENTS) as i64;
        let expected = Account { recorded: each, folded: each, dropped: 0, in_flight: 0 };
        wait_until("the ledger balances", || server.account(&format!("web-{n}")) == expected);
    }
}

#[test]
fn what_is_recorded_while_no_server_is_there_arrives_later() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let agent = Agent::start(free_port(), &[format!("http://127.0.0.1:{port}")]);
    let web = client("web-01", &agent);
    let counter = web.totals("early").unwrap();
    (0..1_000).for_each(|_| counter.add(2.0));
    wait_until("the agent has them", || web.stats().acked >= 1_000);
    let server = Server::start(directory.path(), port);
    wait_until("they have arrived", || totals(&server, "early") == (1_000, 2_000.0));
}

#[test]
fn an_agent_that_is_asked_to_stop_drains_first() {
    let directory = tempfile::tempdir().unwrap();
    let (server, mut agent) = stack(directory.path());
    let web = client("web-01", &agent);
    let counter = web.totals("drained").unwrap();
    (0..500).for_each(|_| counter.add(1.0));
    let report = web.shutdown(Duration::from_secs(5));
    assert_eq!(report.left, 0);
    assert!(agent.process.terminate(), "it says that nothing is left");
    assert_eq!(totals(&server, "drained"), (500, 500.0));
}

#[test]
fn a_clock_an_hour_ahead_spoils_nobodys_windows() {
    let directory = tempfile::tempdir().unwrap();
    let (server, agent) = stack(directory.path());
    let (good, ahead) = (client("good", &agent), client("ahead", &agent));
    good.counter("hits").unwrap().add(1.0);
    wait_until("the first is visible", || server.account("good").folded == 1);
    let counter = ahead.counter("hits").unwrap();
    let in_an_hour = now().saturating_add(Duration::from_secs(3600));
    (0..100).for_each(|_| counter.add_at(in_an_hour, 1.0));
    wait_until("the others are visible", || server.account("ahead").folded == 100);
    let answer = server.get("/v2/tabs?name=hits");
    for window in ["1m", "10m", "1h", "1d"] {
        assert_eq!(answer["results"][0]["value"][window]["count"], 101, "{window}");
    }
    let clamped = server.get("/v2/tabs?name=taba.clamped");
    assert_eq!(clamped["results"][0]["value"]["total"].as_f64(), Some(100.0));
}

#[test]
fn a_tab_of_two_types_and_a_type_nobody_knows_are_refused_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (server, agent) = stack(directory.path());
    let (first, second) = (client("first", &agent), client("second", &agent));
    first.totals("contested").unwrap().add(1.0);
    wait_until("the first type is known", || server.account("first").folded == 1);
    second.counter("contested").unwrap().add(1.0);
    second.tab::<f64>("strange", "NobodyKnows").unwrap().record(1.0);
    second.totals("fine").unwrap().add(1.0);
    let expected = Account { recorded: 3, folded: 1, dropped: 2, in_flight: 0 };
    wait_until("both are counted", || server.account("second") == expected);
    let dropped = server.get("/v2/ledger?client=second")["results"][0]["dropped"].clone();
    let mut whys: Vec<_> =
        dropped.as_array().unwrap().iter().map(|drop| drop["why"].as_str().unwrap()).collect();
    whys.sort_unstable();
    assert_eq!(whys, ["type_conflict", "unknown_type"]);
    assert_eq!(totals(&server, "contested"), (1, 1.0));
}

#[test]
fn nonsense_is_answered_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let (server, agent) = stack(directory.path());
    let paths = [format!("{}/v2/events", agent.url()), format!("{}/v2/lanes", server.url())];
    for path in &paths {
        let post = |body: &[u8]| {
            let config = ureq::Agent::config_builder().http_status_as_error(false).build();
            let agent = ureq::Agent::new_with_config(config);
            let mut answer =
                agent.post(path).header("content-type", "application/x-taba").send(body).unwrap();
            let json: serde_json::Value = answer.body_mut().read_json().unwrap();
            (answer.status().as_u16(), json["reason"].as_str().unwrap_or_default().to_owned())
        };
        assert_eq!(post(b""), (400, "truncated".to_owned()));
        assert_eq!(post(b"this is no frame at all"), (400, "not_a_frame".to_owned()));
        assert_eq!(post(b"TABA\x09\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), (400, "unknown_version".to_owned()));
        assert!(status_of_announced(path, 9 * 1024 * 1024).contains(" 413 "));
    }
}

/// The status line that answers a request which announces so many bytes, before any of them is sent.
fn status_of_announced(url: &str, bytes: usize) -> String {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut socket = TcpStream::connect(host).unwrap();
    let head = format!("POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-taba\r\n");
    socket.write_all(format!("{head}content-length: {bytes}\r\n\r\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).unwrap();
    line
}

/// Case 01, and one time of tomorrow among events that the Client folds.
#[test]
fn the_last_set_is_shown_and_a_time_of_tomorrow_touches_no_other_event() {
    let directory = tempfile::tempdir().unwrap();
    let (server, agent) = stack(directory.path());
    let web = client("web-01", &agent);
    let (queue, state) = (web.gauge("queue_length").unwrap(), web.gauge("state").unwrap());
    queue.set(5.0);
    queue.set(3.0);
    state.set("starting");
    state.set("running");
    let lease = web.expiry_gauge("lease").unwrap();
    lease.set_for("held", Duration::from_secs(600));
    lease.set_for("free", Duration::from_secs(600));
    let steps = web.buffer("steps").unwrap();
    ["step 3", "step 1", "step 2"].into_iter().for_each(|step| steps.push(step, Duration::from_secs(600)));
    // Set by a clock that is a day ahead: the Server moves both to one moment, and knows which was the last.
    let ahead = web.gauge("ahead").unwrap();
    let tomorrow = now().saturating_add(Duration::from_secs(86_400));
    ahead.set_at(tomorrow, "starting");
    ahead.set_at(tomorrow.saturating_add(Duration::from_micros(1)), "running");
    let bids = web.counter("bids").unwrap();
    (0..40).for_each(|_| bids.increment());
    bids.add_at(tomorrow, 1.0);
    assert_eq!(web.shutdown(Duration::from_secs(10)).left, 0);

    let value = |tab: &str| server.get(&format!("/v2/tabs?name={tab}"))["results"][0]["value"].clone();
    wait_until("all is counted", || value("bids")["pct"]["count"] == 41);
    let counts = ["1m", "10m", "1h", "1d"].map(|window| value("bids")[window]["count"].as_u64());
    assert_eq!(counts, [Some(41); 4]);
    wait_until("three were set back", || value("taba.clamped")["total"] == 3.0);
    wait_until("the gauges are there", || value("steps").as_array().is_some_and(|steps| steps.len() == 3));
    for (tab, shown) in [("state", "running"), ("lease", "free"), ("ahead", "running")] {
        wait_until("the last set is shown", || value(tab)["value"] == shown);
    }
    assert_eq!(value("queue_length")["value"], 3.0);
    let steps: Vec<_> = value("steps").as_array().unwrap().iter().map(|step| step[0].clone()).collect();
    assert_eq!(steps, ["step 2", "step 1", "step 3"]);
}

#[test]
fn a_client_that_dies_with_a_backlog_leaves_nothing_in_flight() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), free_port());
    let port = free_port();
    // Small Batches, so that many are between the first and the last.
    let handlers = taba_handlers::standard().build().unwrap();
    let mut config = Config::default();
    config.batch_blocks_max = 20;
    config.drop_deadline = Duration::ZERO;
    let agent_url = format!("http://127.0.0.1:{port}");
    let client =
        Client::builder("web-01").agent(agent_url).handlers(handlers).config(config).build().unwrap();
    let tabs: Vec<_> = (0..20_000).map(|n| client.totals(format!("backlog;n={n}")).unwrap()).collect();
    for tabs in tabs.chunks(5_000) {
        let before = client.stats().recorded;
        tabs.iter().for_each(|tab| tab.add(1.0));
        wait_until("the rings are drained", || client.stats().recorded == before + 5_000);
    }
    let _agent = Agent::start(port, &[server.url()]);
    wait_until("some of it is on its way", || client.stats().acked > 100);
    drop((client, tabs));
    wait_until("the agent has drained", || {
        let account = server.account("web-01");
        account.in_flight == 0 && account.recorded > 100
    });
    let account = server.account("web-01");
    assert_eq!((account.folded, account.dropped), (account.recorded, 0));
    assert!(account.recorded < 20_000, "it died in the middle: {account:?}");
}
