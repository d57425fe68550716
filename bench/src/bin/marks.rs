//! What marks take: one for each Stream of an Agent in each VBucket that the Stream had something for. In the store, in the cache of a Server, in
//! the load of a VBucket, and in a commit.
//!
//! `marks --help` tells the sizes. The full size, 10,000 Agents × 1,024 VBuckets, needs 4 GB and two minutes.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench prints its figures, and how far it is"
)]

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use taba_bench::{CountingAllocator, Figure, allocated_bytes, noise, now, print_machine};
use taba_core::limits::COMMIT_PAIRS_MAX;
use taba_core::wire::Probe;
use taba_core::{
    ClientId, Commit, Committed, Mark, MemoryStore, Part, Registry, SeqNo, StateKey, Store, StreamId,
    TabName, TabType, Timestamp, VBucket, VBuckets, Version, Wanted,
};
use taba_server::planner::{Env, IncomingMessage, Planner, PlannerAction, PlannerInput, StoreFailed};
use taba_server::{Status, Versions};
use taba_shard::{Bootstrap, ShardUrl, ShardedRedis, ShardsOptions};
use taba_tests::redis::{Options, Redis};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Writers of the bench; the first fills, the second commits.
const FILLER: u64 = 1;
const ROUNDS: usize = 15;

/// What marks take in the store, in a Server's cache, in a load, and in a commit.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  marks --vbuckets 16            some seconds, 300 MB\n  marks --streams 5 --vbuckets 16  what stays of five Streams of each Agent, as after 60 h"
)]
struct Cli {
    /// Agents that had something for each of the VBuckets
    #[arg(long, default_value_t = 10_000)]
    agents: u64,
    /// VBuckets that are filled, at most 1,024
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..=1024))]
    vbuckets: u16,
    /// Streams of each Agent: one begins every 12 h and with each start, and its marks stay for 48 h after its last Batch
    #[arg(long, default_value_t = 1)]
    streams: u64,
    /// Which store; both if none is named
    #[arg(long)]
    store: Option<StoreKind>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    Memory,
    Redis,
}

/// What a store can tell about itself.
struct Probes<'a> {
    /// Bytes that it holds.
    held: &'a dyn Fn() -> u64,
    /// Bytes that it was sent, and bytes that it sent; none in memory.
    traffic: Option<&'a dyn Fn() -> (u64, u64)>,
}

fn stream(vbucket: VBucket, n: u64) -> StreamId {
    StreamId((noise(usize::from(vbucket.index()) << 32 | n as usize) * 2_f64.powi(53)) as u64 ^ n << 53)
}

fn mark(seq: u64) -> Mark {
    Mark::new(SeqNo(seq), seq * 1_000, 500_000)
}

fn commit(vbucket: VBucket, count: u64, streams: std::ops::Range<u64>) -> Commit {
    let version = |count| if count == 0 { Version::NEVER } else { Version { writer: FILLER, count } };
    let marks = streams.map(|n| (stream(vbucket, n), Some(mark(count + 1))));
    Commit::new(version(count), version(count + 1)).with_marks(marks.collect())
}

async fn run(store: &dyn Store, vbucket: VBucket, commit: Commit) -> Result<(), Box<dyn Error>> {
    match store.commit(vbucket, commit).await? {
        Committed::Done => Ok(()),
        other => Err(format!("nobody else writes here: {other:?}").into()),
    }
}

/// Commits all marks of all VBuckets; answers how many commits each VBucket has.
async fn fill(store: &dyn Store, size: &Cli) -> Result<u64, Box<dyn Error>> {
    let (marks, step) = (size.agents * size.streams, COMMIT_PAIRS_MAX as u64 - 1);
    for vbucket in store.vbuckets().iter().take(size.vbuckets.into()) {
        for (count, from) in (0..marks).step_by(step as usize).enumerate() {
            run(store, vbucket, commit(vbucket, count as u64, from..marks.min(from + step))).await?;
        }
        if (vbucket.index() + 1) % 64 == 0 {
            eprintln!("  {} of {} vbuckets filled", vbucket.index() + 1, size.vbuckets);
        }
    }
    Ok(marks.div_ceil(step))
}

async fn measure(
    name: &str,
    store: &dyn Store,
    size: &Cli,
    probes: &Probes<'_>,
) -> Result<(), Box<dyn Error>> {
    let marks = size.agents * size.streams;
    let all = marks * u64::from(size.vbuckets);
    println!("{name}: {marks} marks in each of {} vbuckets", size.vbuckets);
    let (start, before) = (now(), (probes.held)());
    let mut count = fill(store, size).await?;
    let bytes = (probes.held)().saturating_sub(before);
    println!(
        "  in the store: {:.0} bytes a mark, {:.2} GB in all; {:.2} µs a mark to write them for the first time",
        bytes as f64 / all as f64,
        bytes as f64 / 1e9,
        start.elapsed().as_secs_f64() * 1e6 / all as f64
    );
    let vbuckets: Vec<_> = store.vbuckets().iter().take(size.vbuckets.into()).collect();
    let traffic = || probes.traffic.map_or((0, 0), |traffic| traffic());
    for is_known in [false, true] {
        let (mut loads, mut sent) = (Vec::new(), 0);
        for round in 0..ROUNDS {
            let vbucket = vbuckets[round * 7 % vbuckets.len()];
            let known = is_known.then_some(Version { writer: FILLER, count });
            let (start, before) = (now(), traffic());
            let loaded = store.load(vbucket, &Wanted::default().with_known(known)).await?;
            assert_eq!(loaded.marks.len() as u64, if is_known { 0 } else { marks }, "all marks, or none");
            loads.push(start.elapsed().as_secs_f64() * 1e3);
            sent = traffic().1 - before.1;
        }
        let what = if is_known {
            "the same at a version that is known"
        } else {
            "load of a vbucket with all its marks"
        };
        println!("  {what}: {} ms, {sent} bytes", Figure::of(loads));
    }
    commits(store, vbuckets[0], &mut count, &traffic).await?;
    cache(store, &vbuckets, marks).await
}

/// What one State and marks cost in a commit.
async fn commits(
    store: &dyn Store,
    vbucket: VBucket,
    count: &mut u64,
    traffic: &dyn Fn() -> (u64, u64),
) -> Result<(), Box<dyn Error>> {
    let key = StateKey { tab: TabName::new("bids_won")?, client: ClientId::new("web-1")? };
    let state: Bytes = (0..264).map(|n| (noise(n) * 256.0) as u8).collect::<Vec<_>>().into();
    let mut received = [0; 2];
    for (place, marks) in [1, 101].into_iter().enumerate() {
        let mut times = Vec::new();
        // The first makes the State and its entries in the indexes.
        for round in 0..=ROUNDS {
            let mut commit = commit(vbucket, *count, 0..marks);
            commit.states = vec![(key.clone(), Part::WHOLE, Some(state.clone()))];
            if round == 0 {
                commit.tabs = vec![(key.tab.clone(), Some(TabType::new("CounterGroup")?))];
            }
            *count += 1;
            let (start, before) = (now(), traffic());
            run(store, vbucket, commit).await?;
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
                received[place] = traffic().0 - before.0;
            }
        }
        let bytes = received[place];
        println!(
            "  commit of a State of 264 bytes and {marks} marks: {} ms, {bytes} bytes",
            Figure::of(times)
        );
    }
    if received[1] > 0 {
        println!("  each mark more in a commit: {:.0} bytes", (received[1] - received[0]) as f64 / 100.0);
    }
    Ok(())
}

/// What the marks take in the memory of a Server, and the time that its planner needs with them.
async fn cache(store: &dyn Store, vbuckets: &[VBucket], marks: u64) -> Result<(), Box<dyn Error>> {
    let (handlers, versions, status) = (Registry::default(), Versions::new(77), Status::default());
    let env = Env::new(
        &handlers,
        &versions,
        &status,
        Timestamp::from_secs(500_000 * 3600),
        Duration::from_secs(10),
    );
    let mut planners = Vec::new();
    let (mut bytes, mut first, mut later) = (0, Vec::new(), Vec::new());
    for vbucket in vbuckets.iter().take(ROUNDS) {
        let (mut planner, before) = (Planner::default(), allocated_bytes());
        let mut rest = Vec::new();
        for round in 0..3 {
            let spent = probe(&mut planner, store, *vbucket, &env).await?;
            if round == 0 { first.push(spent * 1e3) } else { rest.push(spent * 1e6) }
        }
        later.extend(rest.pop());
        bytes += allocated_bytes().saturating_sub(before);
        planners.push(planner);
    }
    println!(
        "  in the cache of a Server: {:.0} bytes a mark; planner with marks to take in {} ms, with them at hand {} µs",
        bytes as f64 / (planners.len() as u64 * marks) as f64,
        Figure::of(first),
        Figure::of(later)
    );
    Ok(())
}

/// Gives a planner a Probe and runs its actions; answers the seconds that the planner itself took.
async fn probe(
    planner: &mut Planner<()>,
    store: &dyn Store,
    vbucket: VBucket,
    env: &Env<'_>,
) -> Result<f64, Box<dyn Error>> {
    let probe = Probe::new(stream(vbucket, 0), vbucket.index(), SeqNo(1), 0);
    let message = IncomingMessage::Probe(probe);
    let message = PlannerInput::Message { ticket: (), message, arrived: env.now, sent_at: env.now };
    let (mut inputs, mut spent, mut actions) = (vec![PlannerInput::Due, message], 0.0, Vec::new());
    while let Some(input) = inputs.pop() {
        let start = now();
        planner.handle(input, env, &mut actions);
        spent += start.elapsed().as_secs_f64();
        for action in actions.drain(..) {
            match action {
                PlannerAction::Load(wanted) => {
                    let loaded = store.load(vbucket, &wanted).await;
                    inputs.push(PlannerInput::Loaded(loaded.map_err(|_| StoreFailed)));
                }
                PlannerAction::Commit(commit) => {
                    let committed = store.commit(vbucket, commit).await;
                    inputs.push(PlannerInput::Committed(committed.map_err(|_| StoreFailed)));
                }
                PlannerAction::Stabilise(version) => inputs.push(PlannerInput::Stabilised(version, Ok(()))),
                PlannerAction::Answer((), ack) => {
                    assert!(ack.applied > SeqNo::NONE, "its mark is there: {ack:?}");
                }
                other => return Err(format!("nothing is wrong here: {other:?}").into()),
            }
        }
    }
    Ok(spent)
}

async fn measure_redis(size: &Cli) -> Result<(), Box<dyn Error>> {
    let redis = Redis::start(Options::default());
    let mut options = ShardsOptions::default();
    options.bootstrap = Bootstrap::IfEmpty;
    let store = ShardedRedis::connect(vec![ShardUrl::new(&redis.url())?], options).await?;
    let number = |section, name| redis.info(section, name).parse::<u64>().unwrap_or(0);
    let held = || number("memory", "used_memory");
    // The question itself is a part of it.
    let traffic = || (number("stats", "total_net_input_bytes"), number("stats", "total_net_output_bytes"));
    measure("ShardedRedis, one process", &store, size, &Probes { held: &held, traffic: Some(&traffic) }).await
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Box<dyn Error>> {
    let size = Cli::parse();
    print_machine();
    if size.store != Some(StoreKind::Redis) {
        let store = MemoryStore::new(VBuckets::default());
        measure("MemoryStore", &store, &size, &Probes { held: &allocated_bytes, traffic: None }).await?;
    }
    if size.store != Some(StoreKind::Memory) {
        measure_redis(&size).await?;
    }
    Ok(())
}
