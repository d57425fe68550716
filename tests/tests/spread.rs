//! A hot Tab is split over several VBuckets by Client, while a fleet writes it, over real Redis processes, Servers and an
//! Agent: every answer is that of a Tab beside it that is not split, and every event counts once.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use taba_tests::redis::{Aof, Options, Redis};
use taba_tests::{Agent, Process, Server, binary, free_port, wait_until};

const CLIENTS: u64 = 40;

fn start_server(redis: &[Redis]) -> Server {
    let port = free_port();
    let urls: Vec<String> = redis.iter().map(Redis::url).collect();
    let mut command = Command::new(binary("taba-server"));
    command.arg(format!("--listen=127.0.0.1:{port}")).args(["--store=redis", "--vbuckets=64", "--workers=2"]);
    command.args(["--commit-interval=10ms"]).arg(format!("--redis={}", urls.join(",")));
    let server = Server { process: Process::start("taba-server", &mut command), port };
    wait_until("the server answers", || ureq::get(&format!("{}/v2/status", server.url())).call().is_ok());
    server
}

fn start_agent(servers: &[Server]) -> Agent {
    let port = free_port();
    let servers: Vec<String> = servers.iter().map(Server::url).collect();
    let mut command = Command::new(binary("taba-agent"));
    command.arg(format!("--listen=127.0.0.1:{port}")).arg(format!("--servers={}", servers.join(",")));
    command.args(["--vbuckets=64", "--spool=memory", "--probe-interval=200ms", "--confirm-after=500ms"]);
    let agent = Agent { process: Process::start("taba-agent", &mut command), port };
    wait_until("the agent answers", || ureq::get(&format!("{}/v2/status", agent.url())).call().is_ok());
    agent
}

/// What a program says, or why it failed.
fn run(program: &str, words: &[&str]) -> Result<String, String> {
    let done = Command::new(binary(program)).args(words).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let failed = || format!("{words:?}: {said} {}", String::from_utf8_lossy(&done.stderr));
    if done.status.success() { Ok(said) } else { Err(failed()) }
}

/// Every Client records the same in both Tabs, and a reading.
fn record(agent: &Agent, round: u64) {
    for client in 0..CLIENTS {
        let lines: String = ["hot", "flat"]
            .iter()
            .flat_map(|tab| {
                let value = client * 10 + round;
                [
                    format!("{{\"tab\":\"{tab}\",\"value\":{value}}}\n"),
                    format!("{{\"tab\":\"{tab}.level;k=v\",\"type\":\"Gauge\",\"value\":\"{value}\"}}\n"),
                ]
            })
            .collect();
        let url = format!("{}/v2/record?client=host-{client:02}", agent.url());
        let post = ureq::post(&url).header("content-type", "application/x-ndjson");
        let taken: Value = post.send(&lines).unwrap().body_mut().read_json().unwrap();
        assert_eq!(taken["recorded"], 4, "{taken}");
    }
}

/// The VBuckets with States of a Tab, by shard.
fn places(redis: &[Redis], tab: &str) -> Vec<BTreeSet<String>> {
    let of = |redis: &Redis| {
        let keys = redis.command(&["KEYS", &format!("{{vb*}}.clients.{tab}")]);
        keys.split_whitespace().map(str::to_owned).collect()
    };
    redis.iter().map(of).collect()
}

/// What a Server answers for a Tab, without the Tab's name and the time of asking.
fn answers(server: &Server, tab: &str) -> Vec<String> {
    let paths = [
        "tabs?name=TAB&at=4000000000",
        "tabs?name=TAB.level%3Bk=v",
        "tabs?base=TAB.level&by=k",
        "super?name=TAB&at=4000000000",
        "projections?name=TAB&at=4000000000",
        "projections?name=TAB.level%3Bk=v&client=host-07",
        "clients?re=true&name=TAB.*",
        "names?re=true&name=TAB.*",
        "types?name=TAB,TAB.level%3Bk=v",
    ];
    let answer = |path: &&str| {
        let answer = server.get(&format!("/v2/{}", path.replace("TAB", tab)));
        assert_eq!(answer["complete"], true, "{answer}");
        let mut rows = answer["results"].clone();
        for row in rows.as_array_mut().unwrap() {
            for field in ["as_of", "name"] {
                row.as_object_mut().unwrap().remove(field);
            }
            // Readings are of the moment at which each line was read.
            if row["value"]["time"].is_number() {
                row["value"]["time"] = Value::Null;
            }
        }
        format!("{path}: {rows}")
    };
    paths.iter().map(answer).collect()
}

fn all_is_folded(servers: &[Server], rounds: u64) {
    let events = 4 * CLIENTS * rounds;
    for server in servers {
        wait_until("all is folded", || server.get("/v2/ledger")["totals"]["folded"] == events);
        let totals = server.get("/v2/ledger")["totals"].clone();
        assert_eq!((&totals["recorded"], &totals["in_flight"]), (&events.into(), &0.into()), "{totals}");
    }
}

#[test]
fn a_hot_tab_is_spread_while_a_fleet_writes_it_and_stays_one_tab() {
    let redis: Vec<Redis> =
        (0..2).map(|_| Redis::start(Options { aof: Aof::No, ..Options::default() })).collect();
    let servers = vec![start_server(&redis), start_server(&redis)];
    let agent = start_agent(&servers);
    let mut rounds = 0;
    let mut write = |count: u64| {
        for _ in 0..count {
            record(&agent, rounds);
            rounds += 1;
        }
        rounds
    };
    all_is_folded(&servers, write(1));
    let before = places(&redis, "hot");
    assert_eq!(before.iter().map(BTreeSet::len).sum::<usize>(), 1, "{before:?}");
    let cli = |words: &[&str]| run("taba", &[&["--server", &servers[1].url(), "--json"], words].concat());
    // Meanwhile the VBuckets with the rules move to one shard.
    let shards = [redis[0].url(), format!("127.0.0.1:{}", redis[1].port())];
    let moving = std::thread::spawn(move || {
        run("taba-shard", &["--redis", &shards[0], "move", "0", "17", "34", "51", "--to", &shards[1]])
    });
    let mut rules = Value::Null;
    wait_until("the spread is raised", || {
        let said = cli(&["spread", "--prefix", "hot", "8"]);
        rules = said.as_ref().map_or(Value::Null, |said| serde_json::from_str(said).unwrap());
        said.is_ok()
    });
    assert_eq!(rules["rules"][0]["widest"], 8);
    // A Server tells Agents what the store said up to a second ago: until both say so, the Agent may hear either.
    for server in &servers {
        wait_until("the server tells of it", || server.get("/v2/store")["spread"][0]["spread"] == 8);
    }
    // Written all the while: the Agent hears of it while it holds something.
    wait_until("the agent spreads it", || {
        write(1);
        let status = ureq::get(&format!("{}/v2/status", agent.url())).call().unwrap().body_mut().read_json();
        let status: Value = status.unwrap();
        status["spread"][0]["spread"] == 8
    });
    all_is_folded(&servers, write(2));
    let (hot, flat) = (places(&redis, "hot"), places(&redis, "flat"));
    assert!(hot.iter().all(|of_shard| of_shard.len() >= 2), "both shards have their part: {hot:?}");
    assert!(hot.iter().map(BTreeSet::len).sum::<usize>() >= 6, "{hot:?}");
    assert_eq!(flat.iter().map(BTreeSet::len).sum::<usize>(), 1, "{flat:?}");
    for server in &servers {
        assert_eq!(answers(server, "hot"), answers(server, "flat"));
    }
    // No wider any more: what is there stays, and is found.
    cli(&["spread", "--prefix", "hot", "1"]).unwrap();
    write(1);
    moving.join().unwrap().unwrap();
    all_is_folded(&servers, write(1));
    for server in &servers {
        assert_eq!(answers(server, "hot"), answers(server, "flat"));
        let rules = server.get("/v2/spread")["rules"].clone();
        assert_eq!((&rules[0]["spread"], &rules[0]["widest"]), (&1.into(), &8.into()), "{rules}");
    }
    let removed: Value = serde_json::from_str(&cli(&["delete", "hot"]).unwrap()).unwrap();
    assert_eq!(removed["removed"]["tabs"], 1, "{removed}");
    let left = places(&redis, "hot");
    assert!(left.iter().all(BTreeSet::is_empty), "{left:?}");
    assert_eq!(servers[0].get("/v2/tabs?name=hot")["results"], Value::Array(Vec::new()));
    let totals = servers[0].get("/v2/ledger")["totals"].clone();
    assert_eq!(
        (&totals["deleted"], &totals["in_flight"]),
        (&(CLIENTS * write(0)).into(), &0.into()),
        "{totals}"
    );
}
