//! How long the writes of a VBucket are held while it moves from one Redis to another, how fast States are copied, and what
//! is left of the throughput meanwhile: VBuckets of 500 States, written to all the time.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use taba_bench::load::{commit, content, states};
use taba_bench::{cpu_seconds, now, print_machine, redis_cpu_seconds};
use taba_core::{Committed, Store, VBucket, VBuckets};
use taba_shard::mover::{MoveEvent, MoveReport, Mover, MoverOptions};
use taba_shard::shard_map::ShardMap;
use taba_shard::{Bootstrap, ShardName, ShardUrl, ShardedRedis, Shards, ShardsOptions};
use taba_tests::redis::{Aof, Options, Redis};

const STATES: usize = 500;
const CLIENTS: usize = 10;
/// How often everything moves there and back.
const ROUNDS: usize = 5;

/// What is moved, and what is written meanwhile: 12.8 MB of States a second, a busy deployment and not a saturated Redis.
struct Case {
    vbuckets: u32,
    state_bytes: usize,
    /// States in one commit of the load.
    commit_states: usize,
    /// Between two commits of a VBucket.
    pause: Duration,
}

const CASES: [Case; 2] = [
    // Counters.
    Case { vbuckets: 512, state_bytes: 200, commit_states: 20, pause: Duration::from_millis(160) },
    // Busy `CounterGroup`s.
    Case { vbuckets: 128, state_bytes: 2000, commit_states: 5, pause: Duration::from_millis(100) },
];

/// What writers have done.
#[derive(Default)]
struct Written {
    stop: AtomicBool,
    states: AtomicU64,
    /// The longest commit since this was last set to zero, in microseconds.
    longest: AtomicU64,
}

/// Writes to all VBuckets, one commit after another in each, with a pause between.
async fn write(store: Arc<ShardedRedis>, contents: Vec<Bytes>, case: &'static Case, written: Arc<Written>) {
    let vbuckets = store.shards().vbuckets();
    join_all(vbuckets.iter().map(async |vbucket| {
        let states = states(vbucket, STATES, CLIENTS);
        // The first commit has made them.
        let mut count = 1;
        while !written.stop.load(Ordering::Relaxed) {
            count += 1;
            let some = (count as usize * case.commit_states) % STATES;
            let change = commit(&states[some..some + case.commit_states], &contents, 1, count);
            let start = now();
            assert_eq!(store.commit(vbucket, change).await.expect("no commit fails"), Committed::Done);
            written.longest.fetch_max(start.elapsed().as_micros() as u64, Ordering::Relaxed);
            written.states.fetch_add(case.commit_states as u64, Ordering::Relaxed);
            tokio::time::sleep(case.pause).await;
        }
    }))
    .await;
}

#[tokio::main]
async fn main() {
    print_machine();
    for case in &CASES {
        measure(case).await;
    }
}

async fn measure(case: &'static Case) {
    let redis = Redis::start_many(2, &Options { aof: Aof::EverySecond, ..Options::default() });
    let url = vec![ShardUrl::new(&redis[0].url()).expect("a url")];
    let vbuckets = VBuckets::new(case.vbuckets).expect("a power of two");
    let mut options = ShardsOptions::default();
    options.vbuckets = vbuckets;
    options.bootstrap = Bootstrap::IfEmpty;
    let store = Arc::new(ShardedRedis::connect(url.clone(), options.clone()).await.expect("a deployment"));
    let contents: Vec<Bytes> = (0..64).map(|n| content(n, case.state_bytes)).collect();
    join_all(vbuckets.iter().map(async |vbucket| {
        let done = store.commit(vbucket, commit(&states(vbucket, STATES, CLIENTS), &contents, 1, 1)).await;
        assert_eq!(done.expect("a Redis of our own answers"), Committed::Done);
    }))
    .await;
    let shards = Shards::connect(url, options).await.expect("a deployment");
    shards.add_shard(&format!("127.0.0.1:{}", redis[1].port())).await.expect("an empty Redis");
    let names: Vec<ShardName> =
        redis.iter().map(|redis| redis.command(&["GET", "taba:shard"]).parse().expect("a name")).collect();

    let written = Arc::new(Written::default());
    let writing = tokio::spawn(write(Arc::clone(&store), contents, case, Arc::clone(&written)));
    let count = || written.states.load(Ordering::Relaxed);
    let mover = Mover::new(shards.clone(), MoverOptions::by("bench"));
    let (mut all, mut shares, mut copied) = (MoveReport::default(), Vec::new(), Vec::new());
    let (mut longest_before, mut longest) = (0, 0);
    // CPU seconds of everything while it moves: source, destination, and this process, the mover and the load.
    let mut spent = [0.0; 3];
    for round in 0..ROUNDS {
        // What the throughput while moving is compared with.
        written.longest.store(0, Ordering::Relaxed);
        let (start, before) = (now(), count());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let quiet = (count() - before) as f64 / start.elapsed().as_secs_f64();
        longest_before = written.longest.swap(0, Ordering::Relaxed).max(longest_before);
        let to = names[(round + 1) % 2];
        let owners: Vec<(VBucket, ShardName)> = vbuckets.iter().map(|vbucket| (vbucket, to)).collect();
        shards.change_map(|map: &ShardMap| map.with_owners(owners.clone())).await.expect("a map");
        let (start, before) = (now(), count());
        let (source, destination) = (&redis[round % 2], &redis[(round + 1) % 2]);
        let cpu = || [redis_cpu_seconds(source), redis_cpu_seconds(destination), cpu_seconds()];
        let cpu_before = cpu();
        // Of the last switch: what comes after it waits for disks, and moves nothing.
        let last = Mutex::new((start, before));
        let tell = |event| {
            if let MoveEvent::Switched { .. } = event {
                *last.lock().expect("nobody panics") = (now(), count());
            }
        };
        let report = mover.settle(tell).await.expect("all shards answer");
        assert_eq!((report.failed, report.pauses.len()), (0, case.vbuckets as usize));
        for (all, (after, before)) in spent.iter_mut().zip(cpu().into_iter().zip(cpu_before)) {
            *all += after - before;
        }
        let (end, after) = *last.lock().expect("nobody panics");
        let seconds = (end - start).as_secs_f64();
        shares.push(100.0 * (after - before) as f64 / seconds / quiet);
        copied.push(report.bytes as f64 / 1e6 / seconds);
        longest = written.longest.load(Ordering::Relaxed).max(longest);
        all.add(report);
    }
    written.stop.store(true, Ordering::Relaxed);
    writing.await.expect("no commit fails");
    shares.sort_by(f64::total_cmp);
    copied.sort_by(f64::total_cmp);
    let millis = |per_mille: usize| all.pause(per_mille).as_secs_f64() * 1000.0;
    println!();
    println!(
        "{} moves of {STATES} States of {} bytes, four at a time, under load; 0 commits failed",
        all.pauses.len(),
        case.state_bytes
    );
    println!("writes held, ms: p50 {:.1}, p99 {:.1}, max {:.1}", millis(500), millis(990), millis(1000));
    println!(
        "the longest of all commits, ms: {:.1} while moving, {:.1} before",
        longest as f64 / 1e3,
        longest_before as f64 / 1e3
    );
    println!("throughput while moving, of before: {:.0} % (median of {ROUNDS} rounds)", shares[ROUNDS / 2]);
    let [source, destination, own] = spent.map(|seconds| seconds * 1e9 / all.bytes as f64);
    println!(
        "CPU ms per MB, with the load and the wait until all is stable: source {source:.1}, destination {destination:.1}, mover and writers {own:.1}"
    );
    println!(
        "from the first fence to the last switch: {:.0} MB/s (median of {ROUNDS} rounds)",
        copied[ROUNDS / 2]
    );
}
