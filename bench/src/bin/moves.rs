//! How long the writes of a VBucket are held while it moves from one Redis to another, how fast States are copied, and what
//! is left of the throughput meanwhile: 64 VBuckets of 500 States, written to all the time.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use taba_bench::{noise, now, print_machine};
use taba_core::{
    ClientId, Commit, Committed, Mark, Part, SeqNo, StateKey, Store, StreamId, TabName, VBucket, VBuckets,
    Version,
};
use taba_shard::migration::{Goal, Move};
use taba_shard::mover::{MoveReport, Mover, MoverOptions};
use taba_shard::shard_map::ShardMap;
use taba_shard::{Bootstrap, ShardName, ShardUrl, ShardedRedis, Shards, ShardsOptions};
use taba_tests::redis::{Aof, Options, Redis};

const VBUCKETS: u32 = 64;
const STATES: usize = 500;
const STATE_BYTES: usize = 200;
/// States in one commit of the load.
const COMMIT_STATES: usize = 20;
/// How often everything moves there and back.
const ROUNDS: usize = 5;

fn states(vbucket: VBucket) -> Vec<StateKey> {
    let state = |n: usize| StateKey {
        tab: TabName::new(&format!("bids_won;exchange=x{vbucket};n={:02}", n / 10)).expect("a tab name"),
        client: ClientId::new(&format!("web-{}", n % 10)).expect("a client id"),
    };
    (0..STATES).map(state).collect()
}

fn content(n: usize) -> Bytes {
    let bytes = (0..STATE_BYTES / 8 + 1).flat_map(|k| noise(n * 64 + k).to_bits().to_le_bytes());
    bytes.take(STATE_BYTES).collect::<Vec<u8>>().into()
}

fn commit(states: &[StateKey], count: u64, contents: &[Bytes]) -> Commit {
    let version = |count| if count == 0 { Version::NEVER } else { Version { writer: 1, count } };
    let parts = states.iter().enumerate().map(|(place, key)| {
        (key.clone(), Part::WHOLE, Some(contents[(place + count as usize) % contents.len()].clone()))
    });
    Commit::new(version(count - 1), version(count))
        .with_marks(vec![(StreamId(7), Some(Mark::new(SeqNo(count), count, 500_000)))])
        .with_states(parts.collect())
}

/// Writes to all VBuckets, one commit after another in each, as fast as can be, or with a pause between.
async fn load(store: Arc<ShardedRedis>, stop: Arc<AtomicBool>, done: Arc<AtomicU64>, from: u64) -> u64 {
    let contents: Vec<Bytes> = (0..64).map(content).collect();
    let vbuckets = store.shards().vbuckets();
    let counts = join_all(vbuckets.iter().map(async |vbucket| {
        let states = states(vbucket);
        let mut count = from;
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            let some = (count as usize * COMMIT_STATES) % STATES;
            let change = commit(&states[some..some + COMMIT_STATES], count, &contents);
            assert_eq!(store.commit(vbucket, change).await.expect("no commit fails"), Committed::Done);
            done.fetch_add(COMMIT_STATES as u64, Ordering::Relaxed);
            // Four updates a second and more of each State: a busy deployment, and not a saturated Redis.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        count
    }))
    .await;
    counts.into_iter().max().unwrap_or(from)
}

async fn settle(mover: &Mover) -> MoveReport {
    let mut all = MoveReport::default();
    loop {
        let survey = mover.shards().survey().await.expect("all shards answer");
        let map = mover.shards().map().expect("there is a map");
        let moves: Vec<Move> =
            survey.pending(Some(&map)).filter_map(|(_, pending)| pending.to_move()).collect();
        if moves.is_empty() {
            return all;
        }
        let report = mover.run(Goal::Forward, &moves, |_| {}).await;
        assert_eq!(report.failed, 0);
        all.bytes += report.bytes;
        all.pauses.extend(report.pauses);
    }
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
    let contents: Vec<Bytes> = (0..64).map(content).collect();
    join_all(vbuckets.iter().map(async |vbucket| {
        let done = store.commit(vbucket, commit(&states(vbucket), 1, &contents)).await;
        assert_eq!(done.expect("a Redis of our own answers"), Committed::Done);
    }))
    .await;
    let shards = Shards::connect(url, options).await.expect("a deployment");
    shards.add_shard(&format!("127.0.0.1:{}", redis[1].port())).await.expect("an empty Redis");
    let names: Vec<ShardName> =
        redis.iter().map(|redis| redis.command(&["GET", "taba:shard"]).parse().expect("a name")).collect();

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing = tokio::spawn(load(Arc::clone(&store), Arc::clone(&stop), Arc::clone(&done), 1));
    let rate = |seconds: f64, before: u64| (done.load(Ordering::Relaxed) - before) as f64 / seconds;
    let mover = Mover::new(shards.clone(), MoverOptions::by("bench"));
    let (mut pauses, mut shares, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let to = names[(round + 1) % 2];
        let (start, before) = (now(), done.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let quiet = rate(start.elapsed().as_secs_f64(), before);
        let (start, before) = (now(), done.load(Ordering::Relaxed));
        let all: Vec<(VBucket, ShardName)> = vbuckets.iter().map(|vbucket| (vbucket, to)).collect();
        shards.change_map(|map: &ShardMap| map.with_owners(all.clone())).await.expect("a map");
        let report = settle(&mover).await;
        let moving = rate(start.elapsed().as_secs_f64(), before);
        shares.push(100.0 * moving / quiet);
        copied.push(report.bytes as f64 / 1e6 / report.pauses.iter().sum::<Duration>().as_secs_f64());
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
    println!("copied while held, one move: {:.0} MB/s (median of {ROUNDS} rounds)", copied[ROUNDS / 2]);
}
