//! VBuckets that move between real Redis processes, by the real tool, under real Servers and a real Agent: every event
//! counted once, every query answered.

use std::process::Output;

use taba_tests::load::Load;
use taba_tests::redis::{Aof, Options, Redis};
use taba_tests::{Agent, Process, Server, Tool, free_port, wait_until};

/// A deployment of one Redis, two Servers and an Agent, which is written to and asked all the time.
struct World {
    load: Load,
    _agent: Agent,
    _servers: [Server; 2],
}

fn redis() -> Redis {
    // Written before each answer: what was answered survives a kill.
    Redis::start(Options { aof: Aof::No, ..Options::default() })
}

fn server(url: &str) -> Server {
    Server::on_redis(url, &["--commit-interval=10ms"])
}

fn agent(servers: &str) -> Agent {
    Agent::of(servers, &["--backoff-max=200ms"])
}

impl World {
    fn start(first: &Redis) -> Self {
        let servers = [server(&first.url()), server(&first.url())];
        let urls = servers.each_ref().map(Server::url);
        let agent = agent(&urls.join(","));
        Self { load: Load::start(&agent.url(), &urls), _agent: agent, _servers: servers }
    }
}

fn address(redis: &Redis) -> String {
    format!("127.0.0.1:{}", redis.port())
}

#[test]
fn shards_come_and_go_and_nobody_notices() {
    let redis: Vec<Redis> = (0..8).map(|_| redis()).collect();
    let world = World::start(&redis[0]);
    // Also known by the last one, which stays when all others go.
    let tool = Tool::of(format!("{},{}", redis[0].url(), redis[7].url()));
    let owned = |tool: &Tool| -> Vec<u64> {
        let status = tool.json(&["status"]);
        status["shards"].as_array().unwrap().iter().map(|shard| shard["vbuckets"].as_u64().unwrap()).collect()
    };
    let first = Tool::of(redis[0].url());
    let plan = first.json(&["add", &address(&redis[1]), "--dry-run"]);
    assert_eq!(plan["moves"].as_array().map(Vec::len), Some(32), "{plan}");
    for count in [2, 4, 8] {
        let new = &redis[count / 2..count];
        for redis in new {
            first.json(&["add", &address(redis), "--no-rebalance"]);
        }
        first.json(&["rebalance"]);
        assert_eq!(owned(&first), vec![64 / count as u64; count]);
        world.load.goes_on();
    }
    // Back to four, of which each takes back what it gave.
    tool.json(&["reverse"]);
    assert_eq!(owned(&tool), [16, 16, 16, 16, 0, 0, 0, 0]);
    tool.json(&["verify"]);
    // A Server that starts with the old list finds the others.
    let late = server(&redis[0].url());
    assert!(late.account("web").folded > 0);
    for gone in [&redis[4..7], &redis[2..4], &redis[..2]] {
        let addresses: Vec<String> = gone.iter().map(address).collect();
        let words: Vec<&str> =
            ["drain", "--remove"].into_iter().chain(addresses.iter().map(|a| &**a)).collect();
        tool.json(&words);
        world.load.note_moves(&tool.log());
        world.load.goes_on();
    }
    assert_eq!(owned(&tool), [64]);
    tool.json(&["verify"]);
    world.load.end("1, 2, 4, 8 shards and back");
}

#[test]
fn what_is_unsafe_is_refused_and_says_why() {
    let redis = [redis(), redis()];
    let tool = Tool::of(redis[0].url());
    let first = |words: &[&str]| tool.run("", words);
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
    assert!(first(&["add", &address(&redis[1])]).status.success());
    assert!(first(&["drain", &address(&redis[1])]).status.success());
    refused(&["move", "1", "--to", &address(&redis[1])], "is draining");
    assert!(first(&["add", &address(&redis[1])]).status.success());
    let cluster = Tool::of(format!("redis+cluster://{0},redis://{0}", address(&redis[0])));
    assert_eq!(cluster.run("", &["status"]).status.code(), Some(2));
    assert!(first(&["verify"]).status.success());
}

/// Every moment at which the tool can be killed, one after another.
#[test]
#[ignore = "needs scripts/sabotage"]
fn a_killed_tool_is_gone_on_with_or_taken_back() {
    let redis = [redis(), redis()];
    let world = World::start(&redis[0]);
    let (tool, killed) = (Tool::of(redis[0].url()), Tool::sabotaged(redis[0].url()));
    tool.json(&["add", &address(&redis[1]), "--no-rebalance"]);
    let (here, there) = (address(&redis[0]), address(&redis[1]));
    let moments = ["fenced", "confirmed", "copied", "compared", "switched", "stable", "retired"];
    let numbers = |moment: usize| -> Vec<String> { (0..3).map(|n| (3 * moment + n).to_string()).collect() };
    let go = |die: &str, numbers: &[String], to: &str| {
        let words: Vec<&str> = ["move"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
        killed.run(die, &[&words[..], &["--to", to]].concat())
    };
    let (go, numbers, here, there) = (&go, &numbers, &here, &there);
    // Before the switch `abort` takes back all of it; after that it brings to an end what is switched.
    for (after, moments, expected) in
        [("resume", &moments[..], 21..=21), ("abort", &moments[..4], 0..=0), ("abort", &moments[4..], 1..=9)]
    {
        // One tool for each moment, with VBuckets of its own, at the same time: waiting until things are stable is what
        // takes long.
        std::thread::scope(|scope| {
            for (place, moment) in moments.iter().enumerate() {
                scope.spawn(move || {
                    // Another of them may be changing the map. It may also go on with what this one has begun, and leave it
                    // nothing to be killed at: then that is taken back, and begun again.
                    let mut was_refused = false;
                    let run = loop {
                        let run = go(&format!("die-{moment}"), &numbers(place), there);
                        if is_refused(&run) {
                            was_refused = true;
                        } else if was_refused && run.status.success() {
                            while is_refused(&go("", &numbers(place), here)) {}
                            was_refused = false;
                        } else {
                            break run;
                        }
                    };
                    assert_was_killed(moment, &run);
                });
            }
        });
        tool.json(&[after]);
        tool.json(&["verify"]);
        let moved = tool.json(&["status"])["shards"][1]["vbuckets"].as_u64().unwrap();
        assert!(expected.contains(&moved), "{after}: {moved}");
        world.load.goes_on();
        let all: Vec<String> = (0..21).map(|n| n.to_string()).collect();
        assert!(go("", &all, here).status.success());
    }
    // The rollback itself is killed.
    go("die-copied", &numbers(0), there);
    for moment in ["barred", "unfenced"] {
        assert_was_killed(moment, &killed.run(&format!("die-{moment}"), &["abort"]));
    }
    tool.json(&["abort"]);
    tool.json(&["verify"]);
    world.load.note_moves(&tool.log());
    world.load.end("the tool is killed at each step");
}

fn is_refused(run: &Output) -> bool {
    String::from_utf8_lossy(&run.stderr).contains("another operator")
}

fn assert_was_killed(moment: &str, run: &Output) {
    assert_eq!(run.status.code(), None, "{moment}: it was not killed: {run:?}");
}

/// A Redis is killed at any moment of a run, and started again; the run goes on.
#[test]
fn a_redis_that_is_killed_under_a_run_costs_time_and_no_event() {
    for (victim, name) in [(0, "the source"), (1, "the destination")] {
        let mut redis = [redis(), redis()];
        let world = World::start(&redis[0]);
        let tool = Tool::of(redis[0].url());
        tool.run("", &["throttle", "--moves", "40"]);
        let mut command = tool.command(&["add", &address(&redis[1]), "--parallel", "1"]);
        let mut run = Process::start("taba-shard", &mut command);
        wait_until("some have moved", || {
            redis[1].command(&["XLEN", "taba:moves"]).parse::<u64>().unwrap_or(0) > 3
        });
        // Both Servers have met both shards: one that knows only the dead one has nothing to answer.
        world.load.goes_on();
        redis[victim].kill();
        world.load.records(500);
        redis[victim].restart();
        wait_until("the run ends", || !run.is_running());
        // What could not be done in time is gone on with.
        wait_until("all is where it is to be", || tool.run("", &["resume"]).status.success());
        tool.json(&["verify"]);
        world.load.note_moves(&tool.log());
        world.load.end(&format!("{name} is killed under a run"));
    }
}

/// Whoever is full takes no events, but what a move, its rollback and the shard map need is written all the same.
#[test]
fn a_full_redis_takes_fences_bars_and_maps() {
    let redis = [redis(), redis()];
    let world = World::start(&redis[0]);
    let tool = Tool::of(redis[0].url());
    tool.json(&["add", &address(&redis[1]), "--no-rebalance"]);
    let full = |redis: &Redis, bytes: &str| {
        assert_eq!(redis.command(&["CONFIG", "SET", "maxmemory", bytes]), "OK");
    };
    let fenced = || tool.json(&["status"])["fenced"].as_u64();
    // The destination: nothing can be copied, and nothing stays fenced.
    full(&redis[1], "1");
    let run = tool.run("", &["rebalance"]);
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    assert!(String::from_utf8_lossy(&run.stderr).contains("OOM"), "{run:?}");
    assert_eq!(fenced(), Some(0));
    world.load.goes_on();
    // The source: what is on it can leave it.
    full(&redis[1], "0");
    full(&redis[0], "1");
    tool.json(&["throttle", "--moves", "0"]);
    tool.json(&["drain", &address(&redis[0])]);
    assert_eq!(tool.json(&["status"])["shards"][0]["vbuckets"], 0);
    world.load.goes_on();
    tool.json(&["verify"]);
    full(&redis[0], "0");
    world.load.note_moves(&tool.log());
    world.load.end("a shard is full");
}

/// A shard is lost for good in the middle of a move to it, and comes back when it was given up.
#[test]
fn a_shard_that_is_lost_for_good_is_given_up_and_may_come_back() {
    let mut redis = [redis(), redis(), redis()];
    let world = World::start(&redis[0]);
    let tool = Tool::of(redis[0].url());
    let run = |words: &[&str]| {
        let done = tool.run("", words);
        (
            done.status.code(),
            [done.stdout, done.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat(),
        )
    };
    for redis in &redis[1..] {
        tool.json(&["add", &address(redis), "--no-rebalance"]);
    }
    let (second, third) = (address(&redis[1]), address(&redis[2]));
    let name = redis[2].command(&["GET", "taba:shard"]);
    // As a run leaves it that was killed: some are fenced, some are only in the map.
    let map = redis[0].command(&["HGET", "taba:map", "map"]);
    let map = map.replace("[0,63,", &format!("[0,7,\"{name}\"],[8,63,"));
    for redis in &redis {
        redis.command(&["HSET", "taba:map", "map", &map]);
    }
    let fenced = ["{vb0000}", "{vb0001}", "{vb0002}", "{vb0003}"];
    for vbucket in fenced {
        redis[0].command(&["HSET", vbucket, "moved", &format!("2:{name}")]);
    }
    let before = redis[0].command(&["HGET", "{vb0000}", "moved"]);
    redis[2].kill();
    // What it has no part in goes on, and what was left is said.
    let (code, said) = run(&["status"]);
    assert!(code == Some(1) && said.contains(&name) && said.contains("\"waiting\":8"), "{said}");
    let (code, said) = run(&["verify"]);
    assert!(code == Some(1) && said.contains("waits for shard"), "{said}");
    let (code, said) = run(&["move", "20", "21", "--to", &second]);
    let is_kept = said.contains("keeps the shard map");
    assert!(code == Some(1) && (is_kept || said.contains("\"moved\":2")), "{said}");
    for words in [&["abort"][..], &["resume"], &["log"]] {
        let (code, said) = run(words);
        assert!(code == Some(1) && said.contains("does not answer"), "{words:?}: {said}");
    }
    assert_eq!(redis[0].command(&["HGET", "{vb0000}", "moved"]), before);
    // It is given up.
    let (code, said) = run(&["forget", &second, "--yes"]);
    assert!(code == Some(1) && said.contains("answers, so it is not lost"), "{said}");
    let dry = tool.json(&["forget", &third]);
    assert_eq!(
        (dry["freed"].as_array().map(Vec::len), dry["kept"].as_array().map(Vec::len)),
        (Some(4), Some(4)),
        "{dry}"
    );
    assert_eq!(redis[0].command(&["HGET", "{vb0000}", "moved"]), before, "a dry run changes nothing");
    tool.json(&["forget", &third, "--yes"]);
    world.load.goes_on();
    let verified = tool.json(&["verify"]);
    assert_eq!(verified["wrong"].as_array().map(Vec::len), Some(0));
    // With its own map and a copy of its own, put in place before it was lost: it is refused, and owns nothing.
    redis[2].restart();
    for field in
        [["ver", "0000000000000007-1"], ["own", "2"], ["of", &redis[0].command(&["HGET", "{vb0000}", "of"])]]
    {
        redis[2].command(&["HSET", "{vb0000}", field[0], field[1]]);
    }
    let both = Tool::of(format!("{},{}", redis[2].url(), redis[0].url()));
    for tool in [&tool, &both] {
        let status = tool.json(&["status"]);
        assert_eq!(status["shards"].as_array().map(Vec::len), Some(2), "{status}");
        tool.json(&["verify"]);
    }
    let late = server(&both.redis);
    assert!(late.account("web").folded > 0);
    world.load.goes_on();
    world.load.note_moves(&tool.log());
    world.load.end("a shard is lost for good");
}

/// What only a lost shard had is made anew only when the operator says so, and whatever it brings when it comes back, even as a
/// shard again, is an older copy.
#[test]
fn what_only_a_lost_shard_had_is_made_anew_when_that_is_asked_for() {
    let mut redis = [redis(), redis()];
    let all = format!("{},{}", redis[0].url(), redis[1].url());
    assert!(Tool::of(all.clone()).run("", &["init", "--vbuckets", "64"]).status.success());
    let owner = |redis: &Redis| redis.command(&["HGET", "{vb0063}", "own"]).parse::<u64>().unwrap_or(0);
    redis[1].command(&["HSET", "{vb0063}", "ver", "0000000000000007-1", "x", "y"]);
    redis[1].kill();
    let (tool, gone) = (Tool::of(redis[0].url()), address(&redis[1]));
    assert_eq!(tool.json(&["forget", &gone])["lost"].as_array().map(Vec::len), Some(32));
    let refused = tool.run("", &["forget", &gone, "--yes"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("--recreate-empty"), "{said}");
    assert_eq!(redis[0].command(&["EXISTS", "{vb0063}"]), "0");
    tool.json(&["forget", &gone, "--yes", "--recreate-empty"]);
    tool.json(&["verify"]);
    let log = tool.log()["moves"].as_array().cloned().unwrap_or_default();
    assert_eq!(log.iter().filter(|line| line["outcome"] == "made anew").count(), 32);
    redis[1].restart();
    // Who is told only of the one that was lost finds the others by its old map, and believes theirs.
    for list in [redis[1].url(), all] {
        assert_eq!(Tool::of(list).json(&["status"])["shards"].as_array().map(Vec::len), Some(1));
    }
    tool.json(&["add", &gone, "--no-rebalance"]);
    let older = tool.run("", &["verify"]);
    assert!(String::from_utf8_lossy(&older.stdout).contains("a copy left"), "{older:?}");
    tool.json(&["resume"]);
    tool.json(&["verify"]);
    assert!(owner(&redis[0]) > owner(&redis[1]));
    assert_eq!(redis[1].command(&["HEXISTS", "{vb0063}", "x"]), "0");
}
