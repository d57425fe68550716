//! VBuckets that move between real Redis processes, by the real tool, under real Servers and a real Agent: every event
//! counted once, every query answered.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests may unwrap, and print what they measure"
)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;
use taba_tests::redis::{Aof, Options, Redis};
use taba_tests::{Account, Agent, Process, Server, binary, free_port, sabotaged, wait_until};

/// Tabs that are written to: enough that most of 64 VBuckets have some.
const TABS: usize = 100;

/// A deployment of one Redis, two Servers and an Agent, which is written to and asked all the time.
struct World {
    servers: Vec<Server>,
    _agent: Agent,
    stop: Arc<AtomicBool>,
    recorded: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

fn redis() -> Redis {
    // Written before each answer: what was answered survives a kill.
    Redis::start(Options { aof: Aof::No, ..Options::default() })
}

fn server(url: &str) -> Server {
    let port = free_port();
    let mut command = Command::new(binary("taba-server"));
    command.arg(format!("--listen=127.0.0.1:{port}")).args(["--store=redis", "--vbuckets=64"]);
    command.args(["--commit-interval=10ms", "--workers=2"]).arg(format!("--redis={url}"));
    let server = Server { process: Process::start("taba-server", &mut command), port };
    wait_until("the server answers", || ureq::get(&format!("{}/v2/status", server.url())).call().is_ok());
    server
}

fn agent(servers: &[String]) -> Agent {
    let port = free_port();
    let mut command = Command::new(binary("taba-agent"));
    command.arg(format!("--listen=127.0.0.1:{port}")).arg(format!("--servers={}", servers.join(",")));
    command.args(["--vbuckets=64", "--spool=memory", "--backoff-max=200ms"]);
    let agent = Agent { process: Process::start("taba-agent", &mut command), port };
    wait_until("the agent answers", || ureq::get(&format!("{}/v2/status", agent.url())).call().is_ok());
    agent
}

impl World {
    fn start(first: &Redis) -> Self {
        let servers = vec![server(&first.url()), server(&first.url())];
        let urls: Vec<String> = servers.iter().map(Server::url).collect();
        let agent = agent(&urls);
        let (stop, recorded, asked) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let mut threads = Vec::new();
        let lines: String = (0..TABS).map(|n| format!("{{\"tab\":\"tab{n}\",\"value\":1}}\n")).collect();
        let (url, stopped, count) = (agent.url(), Arc::clone(&stop), Arc::clone(&recorded));
        threads.push(std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let answer = ureq::post(&format!("{url}/v2/record?client=web")).send(&lines);
                let taken: Value = answer.expect("the agent takes events").body_mut().read_json().unwrap();
                assert_eq!(taken["recorded"], TABS, "{taken}");
                count.fetch_add(TABS as u64, Ordering::Relaxed);
            }
        }));
        for url in urls {
            let (stopped, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            threads.push(std::thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let answer = ureq::get(&format!("{url}/v2/tabs?limit=20")).call();
                    let answer: Value = answer.expect("no query fails").body_mut().read_json().unwrap();
                    assert!(answer["results"].is_array(), "{answer}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        let world = Self { servers, _agent: agent, stop, recorded, asked, threads };
        world.goes_on();
        world
    }

    /// Waits until more was recorded and asked.
    fn goes_on(&self) {
        let before = (self.recorded.load(Ordering::Relaxed), self.asked.load(Ordering::Relaxed));
        wait_until("events and queries go on", || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a thread has failed; see above");
            self.recorded.load(Ordering::Relaxed) > before.0 + 500
                && self.asked.load(Ordering::Relaxed) > before.1 + 4
        });
    }

    /// Stops, and sees that everything is counted once.
    fn end(self) {
        self.goes_on();
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let recorded = self.recorded.load(Ordering::Relaxed) as i64;
        let whole = Account { recorded, folded: recorded, dropped: 0, in_flight: 0 };
        wait_until("all is folded", || self.servers[0].account("web").folded >= recorded);
        for server in &self.servers {
            assert_eq!(server.account("web"), whole);
            let sum: Value = server.get("/v2/super?name=tab.*&re=true");
            assert_eq!(sum["results"][0]["events"], recorded, "{sum}");
        }
        eprintln!("{recorded} events, {} queries, none failed", self.asked.load(Ordering::Relaxed));
    }
}

fn run(program: &Path, first: &Redis, die: &str, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.arg("--redis").arg(first.url()).arg("--json").args(words);
    command.env("TABA_SABOTAGE", die);
    command.output().unwrap()
}

fn tool(first: &Redis, words: &[&str]) -> Value {
    let done = run(&binary("taba-shard"), first, "", words);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{words:?}: {said} {}", String::from_utf8_lossy(&done.stdout));
    serde_json::from_slice(&done.stdout).unwrap_or_default()
}

fn address(redis: &Redis) -> String {
    format!("127.0.0.1:{}", redis.port())
}

#[test]
fn shards_come_and_go_and_nobody_notices() {
    let redis = [redis(), redis(), redis()];
    let world = World::start(&redis[0]);
    let plan = tool(&redis[0], &["add", &address(&redis[1]), "--dry-run"]);
    assert_eq!(plan["moves"].as_array().map(Vec::len), Some(32), "{plan}");
    for redis_more in &redis[1..] {
        let moved = tool(&redis[0], &["add", &address(redis_more)]);
        eprintln!("{moved}");
        world.goes_on();
    }
    let status = tool(&redis[1], &["status"]);
    let owned: Vec<_> =
        status["shards"].as_array().unwrap().iter().map(|shard| shard["vbuckets"].clone()).collect();
    assert_eq!(owned, [22, 21, 21], "{status}");
    tool(&redis[1], &["reverse"]);
    assert_eq!(tool(&redis[1], &["status"])["shards"][2]["vbuckets"], 0);
    tool(&redis[1], &["drain", &address(&redis[0]), "--remove"]);
    tool(&redis[1], &["verify"]);
    world.goes_on();
    // A Server that starts with the old list finds the others.
    let late = server(&redis[0].url());
    assert!(late.account("web").folded > 0);
    let log = tool(&redis[1], &["log", "-n", "1000"]);
    assert!(log["moves"].as_array().is_some_and(|moves| moves.len() > 60));
    world.end();
}

#[test]
fn what_is_unsafe_is_refused_and_says_why() {
    let redis = [redis(), redis()];
    let first = |words: &[&str]| run(&binary("taba-shard"), &redis[0], "", words);
    let refused = |words: &[&str], why: &str| {
        let done = first(words);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains(why), "{words:?}: {said}");
    };
    refused(&["status"], "bootstrap");
    assert_eq!(redis[0].command(&["DBSIZE"]), "0");
    refused(&["init", "--vbuckets", "65"], "power of two");
    assert!(first(&["init", "--vbuckets", "64"]).status.success());
    refused(&["init", "--vbuckets", "64"], "already");
    refused(&["drain", &address(&redis[0])], "no shard is left");
    refused(&["remove", &address(&redis[0])], "still holds 64 vbuckets");
    refused(&["move", "64", "--to", &address(&redis[0])], "no vbucket 64");
    refused(&["move", "1", "--to", &address(&redis[1])], "no shard");
    refused(&["reverse"], "nothing to reverse");
    redis[1].command(&["HSET", "{vb0003}", "ver", "x"]);
    refused(&["add", &address(&redis[1])], "has to be empty");
    redis[1].command(&["FLUSHALL"]);
    redis[1].command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    refused(&["add", &address(&redis[1])], "noeviction");
    redis[1].command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis[0].command(&["SET", "{vb0003}:shop:apples", "3"]);
    refused(&["add", &address(&redis[1])], "do not move");
    redis[0].command(&["DEL", "{vb0003}:shop:apples"]);
    // A dry run leaves nothing, not even a name.
    redis[1].command(&["FLUSHALL"]);
    assert!(first(&["add", &address(&redis[1]), "--dry-run"]).status.success());
    assert_eq!(redis[1].command(&["DBSIZE"]), "0");
    let nobody = format!("127.0.0.1:{}", free_port());
    refused(&["add", &nobody], "cannot connect");
    assert!(first(&["verify"]).status.success());
}

/// Every moment at which the tool can be killed, one after another.
#[test]
#[ignore = "needs scripts/sabotage"]
fn a_killed_tool_is_gone_on_with_or_taken_back() {
    let tools = sabotaged("taba-shard");
    let redis = [redis(), redis()];
    let world = World::start(&redis[0]);
    let add = run(&tools, &redis[0], "", &["add", &address(&redis[1]), "--no-rebalance"]);
    assert!(add.status.success(), "{add:?}");
    let (here, there) = (address(&redis[0]), address(&redis[1]));
    let moments = ["fenced", "confirmed", "copied", "compared", "switched", "stable", "retired"];
    let numbers = |moment: usize| -> Vec<String> { (0..3).map(|n| (3 * moment + n).to_string()).collect() };
    let go = |die: &str, numbers: &[String], to: &str| {
        let words: Vec<&str> = ["move"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
        run(&tools, &redis[0], die, &[&words[..], &["--to", to]].concat())
    };
    let (go, numbers, there) = (&go, &numbers, &there);
    // Before the switch `abort` takes back all of it; after that it brings to an end what is switched.
    for (after, moments, expected) in
        [("resume", &moments[..], 21..=21), ("abort", &moments[..4], 0..=0), ("abort", &moments[4..], 1..=9)]
    {
        // One tool for each moment, with VBuckets of its own, at the same time: waiting until things are stable is what
        // takes long.
        std::thread::scope(|scope| {
            for (place, moment) in moments.iter().enumerate() {
                scope.spawn(move || {
                    let mut killed = go(&format!("die-{moment}"), &numbers(place), there);
                    // Another of them may be changing the map.
                    while String::from_utf8_lossy(&killed.stderr).contains("another operator") {
                        killed = go(&format!("die-{moment}"), &numbers(place), there);
                    }
                    assert_eq!(killed.status.code(), None, "{moment}: it was not killed: {killed:?}");
                });
            }
        });
        tool(&redis[0], &[after]);
        tool(&redis[0], &["verify"]);
        let moved = tool(&redis[0], &["status"])["shards"][1]["vbuckets"].as_u64().unwrap();
        assert!(expected.contains(&moved), "{after}: {moved}");
        world.goes_on();
        let all: Vec<String> = (0..21).map(|n| n.to_string()).collect();
        assert!(go("", &all, &here).status.success());
    }
    // The rollback itself is killed.
    go("die-copied", &numbers(0), there);
    for moment in ["barred", "unfenced"] {
        let killed = run(&tools, &redis[0], &format!("die-{moment}"), &["abort"]);
        assert_eq!(killed.status.code(), None, "{moment}: it was not killed: {killed:?}");
    }
    tool(&redis[0], &["abort"]);
    tool(&redis[0], &["verify"]);
    world.end();
}

/// A Redis is killed at any moment of a run, and started again; the run goes on.
#[test]
fn a_redis_that_is_killed_under_a_run_costs_time_and_no_event() {
    for victim in [0, 1] {
        let mut redis = [redis(), redis()];
        let first = [server(&redis[0].url())];
        let agent = agent(&[first[0].url()]);
        let lines: String = (0..TABS).map(|n| format!("{{\"tab\":\"tab{n}\",\"value\":1}}\n")).collect();
        let mut recorded = 0;
        let mut record = |times: usize| {
            for _ in 0..times {
                ureq::post(&format!("{}/v2/record?client=web", agent.url())).send(&lines).unwrap();
                recorded += TABS as i64;
            }
            recorded
        };
        record(5);
        let mut command = Command::new(binary("taba-shard"));
        command.arg("--redis").arg(redis[0].url()).args(["add", &address(&redis[1]), "--parallel", "1"]);
        let mut run = Process::start("taba-shard", &mut command);
        wait_until("some have moved", || {
            redis[1].command(&["XLEN", "taba:moves"]).parse::<u64>().unwrap_or(0) > 3
        });
        redis[victim].kill();
        record(5);
        redis[victim].restart();
        wait_until("the run ends", || !run.is_running());
        // What could not be done in time is gone on with.
        wait_until("all is where it is to be", || {
            let resumed = self::run(&binary("taba-shard"), &redis[0], "", &["resume"]);
            resumed.status.success()
        });
        tool(&redis[0], &["verify"]);
        let all = record(5);
        wait_until("all is folded", || first[0].account("web").folded >= all);
        assert_eq!(first[0].account("web"), Account { recorded: all, folded: all, dropped: 0, in_flight: 0 });
    }
}
