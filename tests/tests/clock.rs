//! An Agent whose clock is wrong: it delivers once the clock is right, says meanwhile what it waits for, and throws away
//! nothing.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use taba_client::Client;
use taba_tests::torture::clock::WrongClock;
use taba_tests::{Process, Server, binary, free_port, wait_until};
use tempfile::TempDir;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const EVENTS: u64 = 20;

/// A Server, which may not be there yet, and an Agent with a Spool and a clock of its own.
struct Bench {
    directory: TempDir,
    port: u16,
    server: Option<Server>,
    agent: Option<(Process, u16)>,
    clock: WrongClock,
    recorded: u64,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = WrongClock::new(directory.path(), "agent");
        Self { directory, port: free_port(), server: None, agent: None, clock, recorded: 0 }
    }

    fn start_server(&mut self) {
        self.server = Some(Server::start(&self.directory.path().join("store"), self.port));
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("agent.log")
    }

    /// Starts an Agent whose clock is ahead by so many seconds.
    fn start_agent(&mut self, ahead: i64) {
        self.clock.set(ahead);
        let port = free_port();
        let mut command = Command::new(binary("taba-agent"));
        command
            .arg(format!("--listen=127.0.0.1:{port}"))
            .arg(format!("--servers=http://127.0.0.1:{}", self.port));
        command.arg(format!("--spool-dir={}", self.directory.path().join("spool").display()));
        command.args(["--confirm-after=300ms", "--probe-interval=100ms", "--backoff-max=500ms"]);
        self.clock.wear(&mut command);
        let process = Process::start_logged("taba-agent", &mut command, &self.log());
        wait_until("the agent answers", || status(port).is_some());
        self.agent = Some((process, port));
    }

    fn kill_agent(&mut self) {
        let (mut process, _) = self.agent.take().unwrap();
        process.kill();
    }

    /// A Client records some events, and the Agent has them.
    fn record(&mut self) {
        let (_, port) = self.agent.as_ref().unwrap();
        let handlers = taba_handlers::standard().build().unwrap();
        let builder =
            Client::builder(format!("web-{}", self.recorded)).agent(format!("http://127.0.0.1:{port}"));
        let client = builder.handlers(handlers).build().unwrap();
        let counter = client.totals("boots").unwrap();
        (0..EVENTS).for_each(|_| counter.add(1.0));
        self.recorded += EVENTS;
        assert_eq!(client.shutdown(Duration::from_secs(20)).left, 0);
    }

    fn status(&self) -> Value {
        status(self.agent.as_ref().unwrap().1).unwrap()
    }

    fn waits_for(&self) -> String {
        self.status()["servers"][0]["waits_for"].as_str().unwrap_or_default().to_owned()
    }

    /// The Agent says what it waits for, in its status and in its log.
    fn assert_waits(&self, words: &str) {
        wait_until("the agent says what it waits for", || self.waits_for().contains(words));
        wait_until("it says so in its log", || std::fs::read_to_string(self.log()).unwrap().contains(words));
        assert_eq!(stored(self.server.as_ref().unwrap()), 0, "a wrong clock begins no lane");
    }

    fn assert_all_arrive(&self) {
        let server = self.server.as_ref().unwrap();
        wait_until("everything arrives", || stored(server) == self.recorded);
        wait_until("everything is let go", || self.status()["spool"]["events_held"] == 0);
        let status = self.status();
        assert_eq!(status["spool"]["events_expired"], 0, "{status}");
        assert_eq!(self.waits_for(), "");
        assert_eq!(stored(server), self.recorded);
    }
}

fn status(port: u16) -> Option<Value> {
    ureq::get(&format!("http://127.0.0.1:{port}/status")).call().ok()?.body_mut().read_json().ok()
}

fn stored(server: &Server) -> u64 {
    server.get("/v2/tabs?name=boots")["results"][0]["value"]["count"].as_u64().unwrap_or(0)
}

#[test]
fn an_agent_whose_clock_is_set_right_delivers_what_it_took_before() {
    for (ahead, words) in [
        (-3 * DAY, "this agent is 3d behind the server"),
        (-6 * HOUR, "this agent is 6h behind the server"),
        (3 * DAY, "this agent is 3d ahead of the server"),
    ] {
        let mut bench = Bench::new();
        bench.start_server();
        bench.start_agent(ahead);
        bench.record();
        bench.assert_waits(words);
        bench.clock.set(0);
        bench.record();
        bench.assert_all_arrive();
    }
}

/// No Server was there to say anything: the machine's clock itself shows how wrong the times are.
#[test]
fn an_agent_whose_clock_is_set_while_servers_are_away_loses_nothing_at_its_restart() {
    for ahead in [-3 * DAY, 3 * DAY] {
        let mut bench = Bench::new();
        bench.start_agent(ahead);
        bench.record();
        bench.clock.set(0);
        let says = |bench: &Bench| std::fs::read_to_string(bench.log()).unwrap().contains("clock was set");
        wait_until("the agent notices", || says(&bench));
        bench.record();
        bench.kill_agent();
        bench.start_agent(0);
        bench.start_server();
        bench.assert_all_arrive();
    }
}

/// A Server has said how wrong the clock was, and it was never set.
#[test]
fn an_agent_that_is_killed_while_its_clock_is_wrong_delivers_after_its_restart() {
    for ahead in [-3 * DAY, 3 * DAY] {
        let mut bench = Bench::new();
        bench.start_server();
        bench.start_agent(ahead);
        bench.record();
        bench.assert_waits("clock: this agent is");
        bench.kill_agent();
        bench.start_agent(0);
        bench.record();
        bench.assert_all_arrive();
    }
}

/// What a run with a right clock has left seems days old, or from the future, to one with a wrong clock.
#[test]
fn what_an_earlier_run_has_left_is_held_back_until_a_server_agrees_with_the_clock() {
    for ahead in [-3 * DAY, 3 * DAY] {
        let mut bench = Bench::new();
        bench.start_agent(0);
        bench.record();
        bench.kill_agent();
        bench.start_server();
        bench.start_agent(ahead);
        bench.assert_waits("clock: this agent is 3d");
        bench.clock.set(0);
        bench.assert_all_arrive();
    }
}

/// Nobody could say how wrong its clock was: no Server was ever there.
#[test]
fn an_agent_that_is_killed_with_a_wrong_clock_before_any_server_was_there_delivers_after_its_restart() {
    for ahead in [-3 * DAY, 3 * DAY] {
        let mut bench = Bench::new();
        bench.start_agent(ahead);
        bench.record();
        bench.kill_agent();
        bench.start_agent(0);
        bench.record();
        bench.start_server();
        bench.assert_all_arrive();
    }
}
