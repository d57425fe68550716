//! Packets that are lost between real processes, each in a network namespace of its own: no connection breaks, nobody is told.
//! Whatever is cut off from what, recording goes on, and once it heals every event is counted once.

use std::process::Stdio;

use taba_tests::load::Load;
use taba_tests::network::{Machine, Network, is_inside};
use taba_tests::redis::{Options, Redis};
use taba_tests::{Process, Tool, binary, get, wait_until};

const PORT: u16 = 8300;
const SHARDS: [usize; 2] = [0, 1];
const SERVERS: [usize; 2] = [2, 3];
const AGENT: usize = 4;
const TOOL: usize = 5;

/// Starts it, and waits until it answers there.
fn start(machine: &Machine, name: &str, words: &[&str]) -> (Process, String) {
    let mut command = machine.command(binary(name));
    command.arg(format!("--listen={}:{PORT}", machine.address)).args(["--vbuckets=64"]).args(words);
    let (process, url) = (Process::start(name, &mut command), format!("http://{}:{PORT}", machine.address));
    wait_until("it answers", || get(&url, "/v2/status").is_some());
    (process, url)
}

#[test]
#[ignore = "needs root, for network namespaces"]
fn whatever_is_cut_off_loses_and_doubles_nothing() {
    if !is_inside("partitions::whatever_is_cut_off_loses_and_doubles_nothing") {
        return;
    }
    let network = Network::start(6);
    let redis = SHARDS
        .map(|n| Redis::start(Options { machine: Some(network.machine(n).clone()), ..Options::durable() }));
    let words = ["--store=redis", "--redis", &redis[0].url(), "--workers=2"];
    let (servers, urls): (Vec<_>, Vec<_>) =
        SERVERS.iter().map(|n| start(network.machine(*n), "taba-server", &words)).unzip();
    let words = ["--servers", &urls.join(","), "--spool=memory"];
    let agent = start(network.machine(AGENT), "taba-agent", &words);
    let mut tool = Tool::of(redis[0].url());
    tool.machine = Some(network.machine(TOOL).clone());
    tool.json(&["add", &redis[1].address()]);
    let load = Load::start(&agent.1, &urls);

    for (machine, who) in [(AGENT, "the agent"), (SERVERS[0], "a server")] {
        let asks_peers = || {
            let mut sockets = network.machine(machine).command("ss");
            let sockets =
                sockets.args(["-Htno", "state", "established", "sport", "=", &PORT.to_string()]).output();
            let sockets = String::from_utf8(sockets.unwrap().stdout).unwrap();
            !sockets.is_empty() && sockets.lines().all(|socket| socket.contains("timer:(keepalive"))
        };
        wait_until(&format!("{who} notices peers that vanish without a word"), asks_peers);
    }

    network.cut(&[AGENT], &SERVERS, true);
    load.records(10_000);
    let waiting = get(&agent.1, "/v2/status").unwrap()["spool"]["events_unapplied"].as_u64();
    assert!(waiting > Some(8_000), "it was cut off: {waiting:?}");
    network.cut(&[AGENT], &SERVERS, false);
    load.becomes_fresh("the agent reaches its servers again");
    load.goes_on();

    network.cut(&SERVERS, &SHARDS[1..], true);
    let (_, partial) = load.queried();
    wait_until("an answer names the shard that is away", || load.queried().1 > partial);
    load.records(5000);
    network.cut(&SERVERS, &SHARDS[1..], false);
    load.becomes_fresh("the servers reach the shard again");
    load.goes_on();

    tool.json(&["throttle", "--moves", "8"]);
    let mut command = tool.command(&["drain", &redis[1].address()]);
    let mut run = Process::start("taba-shard", command.stderr(Stdio::null()));
    let moved = || redis[0].command(&["XLEN", "taba:moves"]).parse::<u64>().unwrap_or(0);
    wait_until("some have moved", || moved() > 3);
    network.cut(&[TOOL], &SHARDS, true);
    let before = moved();
    load.records(10_000);
    // Those that were under way.
    assert!(moved() <= before + 4, "it was cut off");
    network.cut(&[TOOL], &SHARDS, false);
    tool.json(&["throttle", "--moves", "0"]);
    wait_until("the run ends", || !run.is_running());
    wait_until("all is where it is to be", || tool.run("", &["resume"]).status.success());
    load.becomes_fresh("the tool reaches the shards again");
    tool.json(&["verify"]);
    load.note_moves(&tool.log());
    load.end("partitions");
    drop((agent, servers));
}
