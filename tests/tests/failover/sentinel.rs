//! Primaries that are killed, and whose replicas Redis Sentinel promotes; also while VBuckets move.

use std::collections::BTreeSet;
use std::fs;

use taba_core::{TabName, VBucket, VBuckets};
use taba_shard::{ShardName, ShardUrl, Shards, ShardsOptions};
use taba_tests::load::{Load, TABS};
use taba_tests::pair::{Pair, master, monitor, sentinel_url, serve};
use taba_tests::redis::Sentinel;
use taba_tests::{Agent, Process, Server, Tool, wait_until};
use tempfile::TempDir;

#[test]
fn a_primary_that_is_killed_stops_no_recording_and_its_replica_has_everything_soon() {
    let mut pairs = Pair::start_many(2);
    let sentinel = monitor(&pairs);
    let (_servers, _agent, load) = serve(&sentinel, 2);
    for (n, lag) in [(0, ""), (1, " that lags")] {
        let pair = &mut pairs[n];
        // A replica that does not even have the name of its shard would be refused.
        pair.catch_up();
        if !lag.is_empty() {
            pair.link.stall();
            load.records(2000);
            // Lanes that have nothing to send afterwards have to learn of it, too.
            load.record_others(400);
            load.becomes_fresh("a replica lags");
        }
        pair.kill_primary();
        load.records(500);
        pair.wait_for_failover(&sentinel, &master(n));
        load.becomes_fresh(&format!("a replica{lag} is promoted"));
    }
    load.end("primaries are killed under sentinels");
}

/// A move that is held, and which shard of it is killed then.
struct Held {
    moment: &'static str,
    vbucket: VBucket,
    to: ShardName,
}

/// A deployment of one shard that stays and several that are killed, each with one VBucket, which is written to.
struct Deployment {
    pairs: Vec<Pair>,
    sentinel: Sentinel,
    load: Load,
    _agent: Agent,
    _servers: [Server; 2],
    tool: Tool,
    shards: Shards,
    /// Of all that are written to, those at the shard that stays.
    free: Vec<VBucket>,
    /// The VBucket that each shard has.
    own: Vec<VBucket>,
    names: Vec<ShardName>,
}

impl Deployment {
    /// With the shard that stays: the first.
    async fn start(count: usize) -> Self {
        let pairs = Pair::start_many(count);
        let sentinel = monitor(&pairs);
        let replicas = "--redis-replicas=1";
        let (servers, agent, load) = serve(&sentinel, 1);
        let tool = Tool::of(sentinel_url(&sentinel, 0));
        for n in 1..count {
            tool.json(&[replicas, "add", &sentinel_url(&sentinel, n), "--no-rebalance"]);
        }
        let mut options = ShardsOptions::default();
        options.vbuckets = VBuckets::new(64).unwrap();
        let vbuckets = options.vbuckets;
        let url = ShardUrl::new(&sentinel_url(&sentinel, 0)).unwrap();
        let shards = Shards::connect(vec![url], options).await.unwrap();
        let of = |n: usize| vbuckets.of(&TabName::new(&format!("load;tab={n}")).unwrap());
        let mut free: Vec<VBucket> = (0..TABS).map(of).collect::<BTreeSet<_>>().into_iter().collect();
        let map = shards.map().unwrap();
        let own: Vec<VBucket> = free.split_off(free.len() - (count - 1));
        let names = pairs.iter().map(|pair| pair.primary.command(&["GET", "taba:shard"]).parse().unwrap());
        let names: Vec<ShardName> = names.collect();
        assert_eq!(map.shards().len(), count);
        let owners: Vec<_> = own.iter().copied().zip(names[1..].iter().copied()).collect();
        shards.change_map(|map| map.with_owners(owners)).await.unwrap();
        tool.json(&[replicas, "resume"]);
        Self { pairs, sentinel, load, _agent: agent, _servers: servers, tool, shards, free, own, names }
    }

    /// Has a tool begin all of these moves and hold each at its moment, and kills it when all are.
    async fn hold(&self, moves: &[Held]) {
        let owners: Vec<_> = moves.iter().map(|this| (this.vbucket, this.to)).collect();
        self.shards.change_map(|map| map.with_owners(owners)).await.unwrap();
        let rule = |this: &Held| format!("hold-{}-{}", this.moment, this.vbucket.index());
        let rules = moves.iter().map(rule).collect::<Vec<_>>().join(",");
        let directory = TempDir::new().unwrap();
        let log = directory.path().join("log");
        let words = ["--redis-replicas=1", "--parallel=64", "--pause-max=3s", "resume"];
        let mut command = Tool::sabotaged(&self.tool.redis).command(&words);
        let mut tool = Process::start_logged("taba-shard", command.env("TABA_SABOTAGE", rules), &log);
        wait_until("all moves are held", || {
            let log = fs::read_to_string(&log).unwrap();
            assert!(tool.is_running(), "the tool has ended: {log}");
            log.matches("a move is held").count() == moves.len()
        });
        tool.kill();
    }

    /// Moves to and from each of these shards, one of each for the moment of that place.
    fn at_each_moment(&mut self, moments: &[&'static str]) -> Vec<Held> {
        let mut moves = Vec::new();
        for (n, moment) in moments.iter().enumerate() {
            moves.push(Held { moment, vbucket: self.own[n], to: self.names[0] });
            moves.push(Held { moment, vbucket: self.free.pop().unwrap(), to: self.names[n + 1] });
        }
        moves
    }

    /// Kills all shards but the first, starts them again, and takes back what was held.
    fn restart(mut self, test: &str) {
        for (n, pair) in self.pairs.iter_mut().enumerate().skip(1) {
            self.sentinel.command(&["SENTINEL", "SET", &master(n), "down-after-milliseconds", "60000"]);
            pair.primary.kill();
        }
        self.load.records(1000);
        for pair in &mut self.pairs[1..] {
            pair.primary.restart();
        }
        self.tool.json(&["--redis-replicas=1", "abort"]);
        self.end(test);
    }

    /// Kills the primaries of all shards but the first, and goes on with what was held, once their replicas are promoted.
    fn fail_over(mut self, test: &str) {
        self.load.records(1000);
        for pair in &mut self.pairs[1..] {
            pair.kill_primary();
        }
        for (n, pair) in self.pairs.iter_mut().enumerate().skip(1) {
            pair.wait_for_failover(&self.sentinel, &master(n));
        }
        for pair in &mut self.pairs[1..] {
            pair.primary.restart_as_replica_of(&pair.replica);
        }
        self.tool.json(&["--redis-replicas=1", "resume"]);
        self.end(test);
    }

    fn end(self, test: &str) {
        self.load.becomes_fresh("nothing is held any more");
        self.tool.json(&["verify"]);
        self.load.note_moves(&self.tool.log());
        self.load.end(test);
    }
}

const MOMENTS: [&str; 7] = ["fenced", "confirmed", "copied", "compared", "switched", "stable", "retired"];

/// For each step: the source of a move is killed there, the destination of another one, with a replica that has everything,
/// and with one that lags.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs scripts/sabotage"]
async fn a_shard_fails_over_while_its_vbuckets_are_at_each_step_of_a_move() {
    let mut world = Deployment::start(1 + 2 * MOMENTS.len()).await;
    let moves = world.at_each_moment(&[MOMENTS, MOMENTS].concat());
    world.hold(&moves).await;
    for pair in &world.pairs[1 + MOMENTS.len()..] {
        pair.link.stall();
    }
    world.fail_over("sources and destinations fail over at each step");
}

/// For each step: the source of a move is killed there with the tool, and the destination of another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs scripts/sabotage"]
async fn a_shard_is_killed_and_comes_back_while_its_vbuckets_are_at_each_step_of_a_move() {
    let mut world = Deployment::start(1 + MOMENTS.len()).await;
    let moves = world.at_each_moment(&MOMENTS);
    world.hold(&moves).await;
    world.restart("sources and destinations are killed at each step");
}

/// The replica has not even what the step has written.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs scripts/sabotage"]
async fn a_shard_fails_over_to_before_the_step_that_its_vbuckets_are_at() {
    let mut world = Deployment::start(4).await;
    let moves = ["fenced", "compared", "switched"].iter().zip(&world.names[1..]);
    let mut moves: Vec<Held> =
        moves.map(|(moment, to)| Held { moment, vbucket: world.free.pop().unwrap(), to: *to }).collect();
    moves.push(Held { moment: "fenced", vbucket: world.own[0], to: world.names[0] });
    for pair in &world.pairs[1..] {
        pair.link.stall();
    }
    world.hold(&moves).await;
    world.fail_over("sources and destinations fail over to before a step");
}
