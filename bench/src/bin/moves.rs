//! How long the writes of a VBucket are held while it moves from one Redis to another, how fast States are copied, and what
//! is left of the throughput meanwhile: VBuckets of 500 States, written to all the time.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use taba_bench::load::{commit, content, states};
use taba_bench::{now, print_machine};
use taba_core::{Committed, Store, VBucket, VBuckets};
use taba_shard::mover::{MoveEvent, MoveReport, Mover, MoverOptions};
use taba_shard::shard_map::ShardMap;
use taba_shard::{Bootstrap, ShardName, ShardUrl, ShardedRedis, Shards, ShardsOptions};
use taba_tests::redis::{Aof, Options, Redis};

const VBUCKETS: u32 = 512;
const STATES: usize = 500;
const CLIENTS: usize = 10;
/// Of a counter that is little used, and of a busy `CounterGroup`.
const STATE_BYTES: [usize; 2] = [200, 2000];
/// States in one commit of the load.
const COMMIT_STATES: usize = 20;
/// How often everything moves there and back.
const ROUNDS: usize = 5;

/// Writes to all VBuckets, one commit after another in each, with a pause between.
async fn write(store: Arc<ShardedRedis>, contents: Vec<Bytes>, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    let vbuckets = store.shards().vbuckets();
    join_all(vbuckets.iter().map(async |vbucket| {
        let states = states(vbucket, STATES, CLIENTS);
        // The first commit has made them.
        let mut count = 1;
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            let some = (count as usize * COMMIT_STATES) % STATES;
            let change = commit(&states[some..some + COMMIT_STATES], &contents, 1, count);
            assert_eq!(store.commit(vbucket, change).await.expect("no commit fails"), Committed::Done);
            done.fetch_add(COMMIT_STATES as u64, Ordering::Relaxed);
            // 3,200 commits of 20 States a second: a busy deployment, and not a saturated Redis.
            tokio::time::sleep(Duration::from_millis(160)).await;
        }
    }))
    .await;
}

#[tokio::main]
async fn main() {
    print_machine();
    let redis = Redis::start_many(2, &Options { aof: Aof::EverySecond, ..Options::default() });
    let url = vec![ShardUrl::new(&redis[0].url()).expect("a url")];
    let vbuckets = VBuckets::new(VBUCKETS).expect("a power of two");
    let mut options = ShardsOptions::default();
    options.vbuckets = vbuckets;
    options.bootstrap = Bootstrap::IfEmpty;
    let store = Arc::new(ShardedRedis::connect(url.clone(), options.clone()).await.expect("a deployment"));
    let contents: Vec<Bytes> = (0..64).map(|n| content(n, STATE_BYTES)).collect();
    join_all(vbuckets.iter().map(async |vbucket| {
        let done = store.commit(vbucket, commit(&states(vbucket, STATES, CLIENTS), &contents, 1, 1)).await;
        assert_eq!(done.expect("a Redis of our own answers"), Committed::Done);
    }))
    .await;
    let shards = Shards::connect(url, options).await.expect("a deployment");
    shards.add_shard(&format!("127.0.0.1:{}", redis[1].port())).await.expect("an empty Redis");
    let names: Vec<ShardName> =
        redis.iter().map(|redis| redis.command(&["GET", "taba:shard"]).parse().expect("a name")).collect();

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing = tokio::spawn(write(Arc::clone(&store), contents, Arc::clone(&stop), Arc::clone(&done)));
    let rate = |seconds: f64, before: u64| (done.load(Ordering::Relaxed) - before) as f64 / seconds;
    let mover = Mover::new(shards.clone(), MoverOptions::by("bench"));
    let (mut pauses, mut shares, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let to = names[(round + 1) % 2];
        let (start, before) = (now(), done.load(Ordering::Relaxed));
        // What the throughput while moving is compared with.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let quiet = rate(start.elapsed().as_secs_f64(), before);
        let (start, before) = (now(), done.load(Ordering::Relaxed));
        let all: Vec<(VBucket, ShardName)> = vbuckets.iter().map(|vbucket| (vbucket, to)).collect();
        shards.change_map(|map: &ShardMap| map.with_owners(all.clone())).await.expect("a map");
        let switched = Mutex::new(start);
        let report = mover
            .settle(|event| {
                if let MoveEvent::Switched { .. } = event {
                    *switched.lock().expect("nobody panics") = now();
                }
            })
            .await
            .expect("all shards answer");
        assert_eq!((report.failed, report.pauses.len()), (0, VBUCKETS as usize));
        let moving = rate(start.elapsed().as_secs_f64(), before);
        shares.push(100.0 * moving / quiet);
        let taken = *switched.lock().expect("nobody panics") - start;
        copied.push(report.bytes as f64 / 1e6 / taken.as_secs_f64());
        pauses.extend(report.pauses);
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.expect("no commit fails");
    pauses.sort_unstable();
    shares.sort_by(f64::total_cmp);
    copied.sort_by(f64::total_cmp);
    let mut report = MoveReport::default();
    report.pauses = pauses;
    let millis = |per_mille: usize| report.pause(per_mille).as_secs_f64() * 1000.0;
    println!(
        "{} moves of {STATES} States of {STATE_BYTES} bytes, under load, 0 commits failed",
        report.pauses.len()
    );
    println!("writes held, ms: p50 {:.1}, p99 {:.1}, max {:.1}", millis(500), millis(990), millis(1000));
    println!("throughput while moving, of before: {:.0} % (median of {ROUNDS} rounds)", shares[ROUNDS / 2]);
    println!(
        "copied from one Redis to the other, four moves at a time, from the first fence to the last switch: {:.0} MB/s (median of {ROUNDS} rounds)",
        copied[ROUNDS / 2]
    );
}
