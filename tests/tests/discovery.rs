//! Servers on one Redis come and go under load, and an Agent that was told of one of them finds the others by itself.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use taba_client::Client;
use taba_tests::redis::{Options, Redis};
use taba_tests::{Account, Agent, Process, Server, binary, free_port, wait_until};

const TABS: usize = 64;

fn start_server(redis: &Redis, more: &[&str]) -> Server {
    let port = free_port();
    let mut command = Command::new(binary("taba-server"));
    command.arg("--listen").arg(format!("127.0.0.1:{port}"));
    command.args(["--store", "redis", "--redis", &redis.url(), "--vbuckets", "64"]);
    command.args(["--commit-interval", "20ms", "--register-interval", "200ms"]).args(more);
    let server = Server { process: Process::start("taba-server", &mut command), port };
    wait_until("the server answers", || ureq::get(&format!("{}/v2/status", server.url())).call().is_ok());
    server
}

fn start_agent(servers: &str, more: &[&str]) -> Agent {
    let port = free_port();
    let mut command = Command::new(binary("taba-agent"));
    command.arg("--listen").arg(format!("127.0.0.1:{port}")).args(["--servers", servers, "--spool=memory"]);
    command.args(["--vbuckets=64", "--confirm-after=500ms", "--probe-interval=200ms"]);
    command.args(["--server-list-interval=200ms", "--request-timeout=2s"]).args(more);
    let agent = Agent { process: Process::start("taba-agent", &mut command), port };
    wait_until("the agent answers", || ureq::get(&format!("{}/v2/status", agent.url())).call().is_ok());
    agent
}

fn status(agent: &Agent) -> Value {
    ureq::get(&format!("{}/v2/status", agent.url())).call().unwrap().body_mut().read_json().unwrap()
}

/// The Servers that an Agent uses.
fn used(agent: &Agent) -> Vec<String> {
    let status = status(agent);
    let servers = status["servers"].as_array().unwrap().iter().filter(|server| server["health"] != "leaving");
    let mut urls: Vec<String> = servers.map(|server| server["url"].as_str().unwrap().to_owned()).collect();
    urls.sort();
    urls
}

fn urls<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Vec<String> {
    let mut urls: Vec<String> = servers.into_iter().map(Server::url).collect();
    urls.sort();
    urls
}

/// The Servers that are on the list of a Server.
fn listed(server: &Server) -> Vec<String> {
    let list = server.get("/v2/servers");
    list["servers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|server| server["url"].as_str().unwrap().to_owned())
        .collect()
}

fn committed(server: &Server) -> u64 {
    server.get("/v2/status")["ingest"]["batches_committed"].as_u64().unwrap()
}

fn client(agent: &Agent) -> Client {
    let handlers = taba_handlers::standard().build().unwrap();
    let builder = Client::builder("web").agent(agent.url()).handlers(handlers);
    builder.flush_interval(Duration::from_millis(20)).build().unwrap()
}

/// One event of each Tab; how many are recorded then.
fn record(client: &Client, recorded: &mut u64) {
    for tab in 0..TABS {
        client.totals(format!("load;tab={tab}")).unwrap().add(1.0);
        *recorded += 1;
    }
}

fn assert_exact(server: &Server, agent: &Agent, recorded: u64) {
    let count = || server.get("/v2/super?base=load")["results"][0]["value"]["count"].as_u64();
    wait_until("everything has arrived", || count() >= Some(recorded));
    wait_until("nothing is held", || status(agent)["spool"]["events_held"] == 0);
    let total = server.get("/v2/super?base=load")["results"][0]["value"]["total"].as_f64();
    assert_eq!((count(), total), (Some(recorded), Some(recorded as f64)));
    let recorded = recorded as i64;
    let expected = Account { recorded, folded: recorded, dropped: 0, in_flight: 0 };
    wait_until("the ledger balances", || server.account("web") == expected);
}

#[test]
fn an_agent_that_knows_one_server_follows_the_others_as_they_come_stop_and_are_killed() {
    let redis = Redis::start(Options::durable());
    let mut first = start_server(&redis, &[]);
    let agent = start_agent(&first.url(), &["--discover"]);
    let (client, done) = (client(&agent), AtomicBool::new(false));
    let (last, recorded) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut recorded = 0;
            while !done.load(Ordering::Relaxed) {
                record(&client, &mut recorded);
                let sent = recorded;
                wait_until("the agent has them", || client.stats().acked >= sent);
            }
            recorded
        });
        wait_until("the first server commits", || committed(&first) > 0);
        let mut second = start_server(&redis, &[]);
        let third = start_server(&redis, &[]);
        wait_until("the agent has found all", || used(&agent) == urls([&first, &second, &third]));
        wait_until("all have Lanes", || committed(&second) > 0 && committed(&third) > 0);
        // The only one that it was told of.
        first.process.kill();
        wait_until("the first is off the list", || listed(&third) == urls([&second, &third]));
        wait_until("the agent follows", || used(&agent) == urls([&second, &third]));
        let before = committed(&second);
        wait_until("the second goes on", || committed(&second) > before);
        let fourth = start_server(&redis, &[]);
        wait_until("the fourth has Lanes", || committed(&fourth) > 0);
        // It takes itself off the list before it stops.
        assert!(second.process.terminate());
        wait_until("it is off the list", || listed(&fourth) == urls([&third, &fourth]));
        wait_until("the agent follows", || used(&agent) == urls([&third, &fourth]));
        let before = committed(&third);
        wait_until("the third goes on", || committed(&third) > before);
        done.store(true, Ordering::Relaxed);
        (fourth, load.join().unwrap())
    });
    assert_exact(&last, &agent, recorded);
}

/// A Server whose address only other machines could reach takes no Lane; a name that stands for several addresses is resolved by
/// the system.
#[test]
fn what_does_not_answer_this_agent_takes_no_lane_and_a_name_stands_for_its_addresses() {
    let redis = Redis::start(Options::durable());
    let nowhere = format!("http://127.0.0.1:{};weight=1000", free_port());
    let server = start_server(&redis, &["--advertise", &nowhere]);
    let agent = start_agent(&server.url(), &["--discover"]);
    let name = start_agent(&format!("dns:localhost:{}", server.port), &[]);
    let (one, other) = (client(&agent), client(&name));
    let is_found = || status(&agent)["discovery"]["found"][0]["state"] == "not_reached";
    wait_until("the list was heard", is_found);
    let mut recorded = 0;
    for client in [&one, &other] {
        record(client, &mut recorded);
        wait_until("the agent has them", || client.stats().acked >= TABS as u64);
    }
    assert_eq!(used(&agent), [server.url()]);
    let addresses =
        &status(&name)["discovery"]["names"][format!("dns:localhost:{}", server.port)]["addresses"];
    assert!(addresses.as_array().unwrap().iter().any(|address| address == "127.0.0.1"), "{addresses}");
    wait_until("the name's agent is rid of all", || status(&name)["spool"]["events_held"] == 0);
    assert_exact(&server, &agent, recorded);
}
