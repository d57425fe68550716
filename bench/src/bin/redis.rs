//! States committed per second and Redis process, through `ShardedRedis`, beside bare pipelined `HSET`s of the same
//! fields in the same Redis, round by round.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use taba_bench::load::{commit, content, states};
use taba_bench::{Figure, cpu_seconds, now, print_machine, redis_cpu_seconds};
use taba_core::{Committed, Part, StateKey, Store, VBucket, VBuckets};
use taba_shard::{Bootstrap, ShardUrl, ShardedRedis, ShardsOptions, keys, layout};
use taba_tests::redis::{Aof, Options, Redis};

const VBUCKETS: u32 = 64;
const STATES: usize = 100;
const CLIENTS: usize = 2;
const STATE_BYTES: usize = 300;
/// Commits of each VBucket in one round, one after another; the VBuckets go at once.
const COMMITS: u64 = 30;
const ROUNDS: usize = 7;
const STATES_A_ROUND: f64 = VBUCKETS as f64 * COMMITS as f64 * STATES as f64;

/// What one round took.
struct Cost {
    wall: f64,
    redis_cpu: f64,
    own_cpu: f64,
}

async fn measured<F: Future<Output = ()>>(redis: &Redis, round: F) -> Cost {
    let (start, redis_before, own_before) = (now(), redis_cpu_seconds(redis), cpu_seconds());
    round.await;
    Cost {
        wall: start.elapsed().as_secs_f64(),
        redis_cpu: redis_cpu_seconds(redis) - redis_before,
        own_cpu: cpu_seconds() - own_before,
    }
}

/// The commits of one round, from `from` on.
async fn commits(store: &ShardedRedis, all: &[(VBucket, Vec<StateKey>)], contents: &[Bytes], from: u64) {
    join_all(all.iter().map(async |(vbucket, states)| {
        for count in from..from + COMMITS {
            let commit = commit(states, contents, 1, count);
            let done = store.commit(*vbucket, commit).await.expect("a Redis of our own answers");
            assert_eq!(done, Committed::Done);
        }
    }))
    .await;
}

/// The same fields by bare `HSET`s: all 100 of a commit in one (`fields_each` = 100), or each by itself.
async fn hsets(
    connection: &MultiplexedConnection,
    all: &[(VBucket, Vec<StateKey>)],
    contents: &[Bytes],
    fields_each: usize,
) {
    join_all(all.iter().map(async |(vbucket, states)| {
        let mut connection = connection.clone();
        let key = format!("bare{}", keys::hash(*vbucket));
        for count in 0..COMMITS as usize {
            let mut pipeline = redis::pipe();
            for (at, some) in states.chunks(fields_each).enumerate() {
                let command = pipeline.cmd("HSET").arg(&key);
                for (place, state) in some.iter().enumerate() {
                    let content = &contents[(at * fields_each + place + count) % contents.len()];
                    command.arg(layout::state_field(state, Part::WHOLE)).arg(content.as_ref());
                }
                command.ignore();
            }
            let () = pipeline.query_async(&mut connection).await.expect("a Redis of our own answers");
        }
    }))
    .await;
}

/// Commands that the Redis did, by name.
fn calls(redis: &Redis) -> BTreeMap<String, u64> {
    let stats = redis.command(&["INFO", "commandstats"]);
    let read = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    stats.lines().filter_map(read).filter(|(name, _)| name != "info").collect()
}

fn print(name: &str, costs: &[Cost]) -> f64 {
    let figure =
        |of: fn(&Cost) -> f64| Figure::of(costs.iter().map(|cost| STATES_A_ROUND / of(cost) / 1e6).collect());
    let (wall, redis, own) =
        (figure(|cost| cost.wall), figure(|cost| cost.redis_cpu), figure(|cost| cost.own_cpu));
    println!(
        "  {name}: {wall} M states/s; {redis} M per CPU second of Redis; {own} M per CPU second of the client"
    );
    redis.median
}

async fn measure(aof: Aof) {
    let redis = Redis::start(Options { aof, ..Options::default() });
    let vbuckets = VBuckets::new(VBUCKETS).expect("a power of two");
    let url = ShardUrl::new(&redis.url()).expect("a URL");
    let mut options = ShardsOptions::default();
    options.vbuckets = vbuckets;
    options.bootstrap = Bootstrap::IfEmpty;
    let store = ShardedRedis::connect(vec![url], options).await.expect("a Redis of our own");
    let client = redis::Client::open(redis.url()).expect("a URL");
    let connection = client.get_multiplexed_async_connection().await.expect("a Redis of our own");
    let all: Vec<_> = vbuckets.iter().map(|vbucket| (vbucket, states(vbucket, STATES, CLIENTS))).collect();
    let contents: Vec<Bytes> = (0..1009).map(|n| content(n, STATE_BYTES)).collect();
    let (mut committed, mut whole, mut single) = (Vec::new(), Vec::new(), Vec::new());
    let mut next = 1;
    // The first round makes the States, and is not counted.
    for round in 0..=ROUNDS {
        let before = calls(&redis);
        let cost = measured(&redis, commits(&store, &all, &contents, next)).await;
        next += COMMITS;
        if round > 0 {
            committed.push(cost);
        }
        if round == ROUNDS {
            let made = |name: &str, count: u64| count - before.get(name).copied().unwrap_or(0);
            let each = |count: u64| count as f64 / (u64::from(VBUCKETS) * COMMITS) as f64;
            let each: Vec<_> = calls(&redis)
                .iter()
                .map(|(name, count)| (name, made(name, *count)))
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| format!("{name} {}", each(count)))
                .collect();
            println!("  commands a commit (hset and hmget are inside the script): {}", each.join(", "));
        }
        whole.push(measured(&redis, hsets(&connection, &all, &contents, STATES)).await);
        single.push(measured(&redis, hsets(&connection, &all, &contents, 1)).await);
    }
    let commits = print("ShardedRedis::commit, 100 States and a mark each", &committed);
    let whole = print("bare HSET of the same 100 fields", &whole[1..]);
    let single = print("100 bare HSETs of one field each", &single[1..]);
    println!(
        "  commits reach {:.0} % of the one, {:.0} % of the other, by CPU of Redis",
        100.0 * commits / whole,
        100.0 * commits / single
    );
}

#[tokio::main]
async fn main() {
    print_machine();
    println!("{VBUCKETS} vbuckets at once, {STATES} States of {STATE_BYTES} bytes a commit, {ROUNDS} rounds");
    for (name, aof) in [("AOF off", Aof::Off), ("AOF everysec", Aof::EverySecond)] {
        println!("{name}:");
        measure(aof).await;
    }
}
