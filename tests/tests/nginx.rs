//! One, two and three real Servers on one Redis behind a real nginx, which sends each request to the next of them: every
//! event is counted once, and everything drains.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use taba_client::Client;
use taba_tests::nginx::Nginx;
use taba_tests::redis::{Options, Redis};
use taba_tests::{Account, Agent, Process, Server, binary, free_port, wait_until};

const TABS: usize = 100;

/// A Redis, some Servers on it, an nginx before them, an Agent that knows nginx only.
struct Stack {
    recorded: u64,
    // Ended in this order: whoever sends before whom it sends to.
    clients: Vec<Client>,
    agent: Agent,
    nginx: Nginx,
    servers: Vec<Server>,
    redis: Redis,
}

impl Stack {
    /// `changes` are made to the example's configuration of nginx.
    fn start(servers: usize, changes: &[(&str, &str)], agent: &[&str]) -> Self {
        let redis = Redis::start(Options::durable());
        // One after the other: the first creates the deployment.
        let servers: Vec<_> = (0..servers).map(|_| start_server(&redis, free_port())).collect();
        let ports: Vec<_> = servers.iter().map(|server| server.port).collect();
        let nginx = Nginx::start(&ports, changes);
        let agent = start_agent(&nginx.url(), agent);
        let client = |n: usize| {
            let handlers = taba_handlers::standard().build().unwrap();
            let builder = Client::builder(format!("web-{n}")).agent(agent.url()).handlers(handlers);
            builder.flush_interval(Duration::from_millis(20)).build().unwrap()
        };
        let clients = (0..2).map(client).collect();
        Self { recorded: 0, clients, agent, nginx, servers, redis }
    }

    /// Each Client records so many events, over all Tabs, in many flushes.
    fn record(&mut self, events: usize) {
        for chunk in 0..events.div_ceil(TABS) {
            for (n, client) in self.clients.iter().enumerate() {
                for tab in 0..TABS.min(events - chunk * TABS) {
                    client.totals(format!("load;tab={tab}")).unwrap().add((n + 1) as f64);
                    self.recorded += 1;
                }
            }
            let sent = self.recorded / self.clients.len() as u64;
            let is_taken = |client: &Client| client.stats().acked >= sent;
            wait_until("the agent has them", || self.clients.iter().all(is_taken));
        }
    }

    fn status(&self) -> Value {
        ureq::get(&format!("{}/v2/status", self.agent.url())).call().unwrap().body_mut().read_json().unwrap()
    }

    /// Events, and the sum of their values, as the first Server says.
    fn sums(&self) -> (u64, f64) {
        let answer = self.servers[0].get("/v2/super?base=load");
        let value = &answer["results"][0]["value"];
        (value["count"].as_u64().unwrap_or(0), value["total"].as_f64().unwrap_or(0.0))
    }

    fn wait_for_all(&self) {
        wait_until("everything has arrived", || self.sums().0 >= self.recorded);
    }

    /// Every event is counted once, and the Agent keeps nothing any more.
    fn assert_exact(&self) {
        self.wait_for_all();
        wait_until("everything is let go", || {
            let spool = &self.status()["spool"];
            (&spool["events_unapplied"], &spool["events_held"]) == (&Value::from(0), &Value::from(0))
        });
        let (server, each) = (&self.servers[0], self.recorded / self.clients.len() as u64);
        assert_eq!(self.sums(), (self.recorded, each as f64 * (1.0 + 2.0)));
        for client in ["web-0", "web-1"] {
            let each = each as i64;
            let expected = Account { recorded: each, folded: each, dropped: 0, in_flight: 0 };
            wait_until("the ledger balances", || server.account(client) == expected);
        }
    }
}

fn start_server(redis: &Redis, port: u16) -> Server {
    let mut command = Command::new(binary("taba-server"));
    command.arg("--listen").arg(format!("127.0.0.1:{port}"));
    command.args(["--store", "redis", "--redis", &redis.url(), "--redis-replicas", "0", "--vbuckets", "64"]);
    command.args(["--commit-interval", "20ms", "--register-interval", "200ms"]);
    let server = Server { process: Process::start("taba-server", &mut command), port };
    let answers = || ureq::get(&format!("{}/v2/status", server.url())).call().is_ok();
    wait_until("the server answers", answers);
    server
}

fn start_agent(server: &str, more: &[&str]) -> Agent {
    let port = free_port();
    let mut command = Command::new(binary("taba-agent"));
    command.arg("--listen").arg(format!("127.0.0.1:{port}")).args(["--servers", server, "--spool=memory"]);
    command.args(["--vbuckets=64", "--confirm-after=500ms", "--probe-interval=200ms"]).args(more);
    let agent = Agent { process: Process::start("taba-agent", &mut command), port };
    wait_until("the agent answers", || ureq::get(&format!("{}/v2/status", agent.url())).call().is_ok());
    agent
}

/// Without any fault half of it never arrived, when there was more than one Server.
fn everything_drains(servers: usize) {
    let mut stack = Stack::start(servers, &[], &[]);
    stack.record(2_000);
    stack.assert_exact();
    for server in &stack.servers {
        let ingest = &server.get("/v2/status")["ingest"];
        assert!(ingest["batches_committed"].as_u64() > Some(0), "it had a share: {ingest}");
    }
}

#[test]
fn everything_drains_with_one_server() {
    everything_drains(1);
}

#[test]
fn everything_drains_with_two_servers() {
    everything_drains(2);
}

#[test]
fn everything_drains_with_three_servers() {
    everything_drains(3);
}

/// nginx gives what it got no answer for to the next Server.
#[test]
fn a_server_that_is_killed_under_load_and_comes_back_costs_nothing() {
    let mut stack = Stack::start(2, &[], &[]);
    for _ in 0..3 {
        stack.record(500);
        let port = stack.servers[1].port;
        stack.servers[1].process.kill();
        stack.record(500);
        stack.servers[1] = start_server(&stack.redis, port);
    }
    stack.record(500);
    stack.assert_exact();
}

/// An Agent that looks for Servers hears of them through nginx, and then needs neither nginx nor the Server that answered.
#[test]
fn an_agent_finds_its_servers_through_nginx_and_goes_on_without_it() {
    let mut stack = Stack::start(2, &[], &["--discover", "--server-list-interval=200ms"]);
    stack.record(500);
    let urls: Vec<Value> = stack.servers.iter().map(|server| server.url().into()).collect();
    wait_until("the agent has found both", || {
        let status = stack.status();
        let used = status["servers"].as_array().unwrap();
        urls.iter().all(|url| used.iter().any(|server| server["url"] == *url))
    });
    stack.nginx.process.kill();
    stack.record(500);
    stack.wait_for_all();
    stack.servers[1].process.kill();
    stack.record(500);
    stack.assert_exact();
}

/// A Server hangs with requests in its hands, nginx repeats them at another, and the first goes on with its copies.
#[test]
fn a_request_that_nginx_repeats_is_counted_once() {
    let mut stack = Stack::start(2, &[("proxy_read_timeout 4s;", "proxy_read_timeout 300ms;")], &[]);
    let duplicates =
        |server: &Server| server.get("/v2/status")["ingest"]["batches_duplicate"].as_u64().unwrap();
    let repeated = |stack: &Stack| stack.servers.iter().map(duplicates).sum::<u64>();
    // Whether the first one goes on with its copies depends on when it notices that nginx has hung up.
    let mut rounds = 0;
    while rounds < 3 || (repeated(&stack) == 0 && rounds < 15) {
        rounds += 1;
        stack.record(300);
        stack.servers[1].process.pause();
        stack.record(300);
        stack.wait_for_all();
        stack.servers[1].process.resume();
    }
    stack.record(300);
    stack.assert_exact();
    assert!(repeated(&stack) > 0, "nothing was repeated");
}

/// nginx takes bodies of 1 MiB, unless it is told otherwise.
#[test]
fn a_request_that_is_too_large_for_nginx_is_split() {
    let default = [("client_max_body_size 9m;", "")];
    let stack = Stack::start(2, &default, &["--compression=none", "--linger=300ms"]);
    let client = &stack.clients[0];
    // Raw Blocks of many Tabs: more than 3 MiB that wait for one request.
    let name = |n: usize| format!("load;tab={n};{}=x", "some-label-that-makes-a-long-name".repeat(4));
    for n in 0..16_000 {
        client.totals(name(n)).unwrap().add(1.0);
    }
    wait_until("the agent has them", || client.stats().acked >= 16_000);
    let request_bytes_max = || stack.status()["servers"][0]["request_bytes_max"].as_u64();
    wait_until("nginx has refused a request", || request_bytes_max().is_some());
    wait_until("everything has arrived", || stack.sums().0 >= 16_000);
    wait_until("everything is let go", || stack.status()["spool"]["events_held"] == 0);
    assert_eq!(stack.sums(), (16_000, 16_000.0));
    assert_eq!(stack.status()["set_aside"]["events"], 0, "{}", stack.status()["set_aside"]);
}
