//! The whole path on one machine: raw `CounterGroup` events from client threads, over real sockets through an agent with
//! a Spool on the disk and a server, into a store; how many a second, and how long until a query shows one.
//!
//! `path [redis|embedded|memory] [RATE]`: which store, and how many events a second are recorded; `redis` is one
//! `redis-server` process with `appendfsync everysec`.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use taba_agent::{Agent, RunningAgent};
use taba_bench::{cpu_seconds, now, pause, percentile, print_machine, redis_cpu_seconds};
use taba_client::{Client, Config};
use taba_core::{MemoryStore, Store};
use taba_examples::verify::get;
use taba_server::{EmbeddedOptions, EmbeddedStore, Server};
use taba_shard::{Bootstrap, ShardedRedis, Shards, ShardsOptions};
use taba_tests::redis::{Options, Redis};
use tokio::runtime::Runtime;

const CLIENTS: usize = 2;
const THREADS: usize = 2;
const TABS: usize = 50;
/// Events that each thread records in one go.
const BURST: u64 = 1_000;
/// Events a second, over all threads, that are recorded if nothing else is said.
const RATE: f64 = 600_000.0;
const SECONDS: f64 = 15.0;

/// Client threads that record at a steady pace, spread over the second.
fn record(client: &Client, thread: usize, rate: f64) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let tabs: Vec<_> = (0..TABS).map(|n| client.counter(format!("load-{n}"))).collect::<Result<_, _>>()?;
    let start = now();
    let bursts = (rate / (CLIENTS * THREADS) as f64 * SECONDS / BURST as f64) as u64;
    for burst in 0..bursts {
        for n in 0..BURST {
            tabs[((burst + n) % TABS as u64) as usize].add((n % 100 + thread as u64) as f64);
        }
        let due = Duration::from_secs_f64((burst + 1) as f64 * SECONDS / bursts as f64);
        pause(due.saturating_sub(start.elapsed()));
    }
    Ok(bursts * BURST)
}

/// What answers, and stops.
struct Stack {
    runtime: Runtime,
    server: Server,
    agent: RunningAgent,
    url: String,
}

impl Stack {
    fn start(runtime: Runtime, store: Arc<dyn Store>, directory: &Path) -> Result<Self, Box<dyn Error>> {
        let (server, agent, url) = runtime.block_on(async {
            let handlers = taba_handlers::standard().build()?;
            let server = Server::builder().shared_store(store).handlers(handlers.clone()).build()?;
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let url = format!("http://{}", listener.local_addr()?);
            tokio::spawn(axum::serve(listener, server.router()).into_future());
            let builder = Agent::builder().listen((Ipv4Addr::LOCALHOST, 0).into()).servers([url.parse()?]);
            let builder = builder.spool_dir(directory.join("spool")).handlers(handlers);
            let agent = builder.configure(|config| config.spool_bytes_max = 1 << 30).build()?.start().await?;
            Ok::<_, Box<dyn Error>>((server, agent, url))
        })?;
        Ok(Self { runtime, server, agent, url })
    }

    fn client(&self, id: &str) -> Result<Client, Box<dyn Error>> {
        // No Handlers: everything travels raw.
        let agent = format!("http://{}", self.agent.addr());
        Ok(Client::builder(id).agent(agent).config(Config::default()).build()?)
    }

    fn value(&self, tab: &str) -> Result<Value, Box<dyn Error>> {
        Ok(get(&format!("{}/v2/tabs?name={tab}", self.url))?["results"][0]["value"].clone())
    }
}

/// Milliseconds from `record` until a query shows the event, one event after the other, as long as there is load.
fn watch(stack: &Stack, client: &Client, is_over: &AtomicBool) -> Result<Vec<f64>, Box<dyn Error>> {
    let counter = client.totals("canary")?;
    let mut millis = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        pause(Duration::from_millis(37 * (millis.len() as u64 % 7)));
        let start = now();
        counter.increment();
        while stack.value("canary")?["count"].as_u64() != Some(millis.len() as u64 + 1) {
            pause(Duration::from_millis(10));
        }
        millis.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(millis)
}

fn store(
    kind: &str,
    runtime: &Runtime,
    redis: Option<&Redis>,
    directory: &Path,
) -> Result<Arc<dyn Store>, Box<dyn Error>> {
    match (kind, redis) {
        ("memory", _) => Ok(Arc::new(MemoryStore::default())),
        ("embedded", _) => {
            Ok(Arc::new(EmbeddedStore::open(directory.join("store"), EmbeddedOptions::default())?))
        }
        ("redis", Some(redis)) => {
            let url = format!("redis://127.0.0.1:{}", redis.port()).parse()?;
            let mut options = ShardsOptions::default();
            options.bootstrap = Bootstrap::IfEmpty;
            let shards = runtime.block_on(Shards::connect(vec![url], options))?;
            Ok(Arc::new(ShardedRedis::new(shards)))
        }
        (other, _) => Err(format!("{other} is no store; there are redis, embedded and memory").into()),
    }
}

/// How often each command was called, those that were called more than once in a while.
fn commands(redis: &Redis) -> String {
    let stats = redis.command(&["INFO", "commandstats"]);
    let calls = stats.lines().filter_map(|line| {
        let (name, rest) = line.trim().strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls: u64 = rest.split(',').next()?.parse().ok()?;
        (calls > 100).then(|| format!("{name} {calls}"))
    });
    calls.collect::<Vec<_>>().join(", ")
}

fn main() -> Result<(), Box<dyn Error>> {
    print_machine();
    let kind = std::env::args().nth(1).unwrap_or_else(|| "redis".to_owned());
    let target = std::env::current_exe()?;
    // Beside the build, where there is a disk: a temporary directory may be memory.
    let directory = tempfile::tempdir_in(target.parent().ok_or("a binary is in a directory")?)?;
    let rate = std::env::args().nth(2).map_or(Ok(RATE), |rate| rate.parse())?;
    let runtime = Runtime::new()?;
    let redis = (kind == "redis").then(|| Redis::start(Options::durable()));
    let store = store(&kind, &runtime, redis.as_ref(), directory.path())?;
    let stack = Stack::start(runtime, store, directory.path())?;
    let clients = (0..CLIENTS).map(|n| stack.client(&format!("web-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let canary = stack.client("canary")?;
    let (is_over, start, cpu) = (AtomicBool::new(false), now(), cpu_seconds());
    let (recorded, mut millis) = thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        let watching = scope.spawn(|| watch(&stack, &canary, &is_over).map_err(|error| error.to_string()));
        let recording: Vec<_> = clients
            .iter()
            .flat_map(|client| (0..THREADS).map(move |thread| (client, thread)))
            .map(|(client, thread)| scope.spawn(move || record(client, thread, rate)))
            .collect();
        let mut recorded = 0;
        for thread in recording {
            recorded += thread
                .join()
                .map_err(|_| "a recording thread panicked")?
                .map_err(|error| error.to_string())?;
        }
        is_over.store(true, Ordering::Relaxed);
        let millis = watching.join().map_err(|_| "the watching thread panicked")??;
        Ok((recorded, millis))
    })?;
    let counted = || -> Result<u64, Box<dyn Error>> {
        let counts =
            (0..TABS).map(|n| Ok(stack.value(&format!("load-{n}"))?["1d"]["count"].as_u64().unwrap_or(0)));
        counts.sum()
    };
    while counted()? < recorded {
        pause(Duration::from_millis(20));
    }
    let (elapsed, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    assert_eq!(counted()?, recorded, "every event is counted once");
    println!(
        "{kind}: {recorded} raw CounterGroup events of {CLIENTS} clients * {THREADS} threads, {TABS} tabs, all counted: \
         {:.0} events/s (wanted: 500000 or more), {:.2} CPU s per million in this process",
        recorded as f64 / elapsed,
        cpu / recorded as f64 * 1e6
    );
    if let Some(redis) = &redis {
        println!(
            "redis: {:.2} CPU s per million in redis-server",
            redis_cpu_seconds(redis) / recorded as f64 * 1e6
        );
        println!("redis: its commands: {}", commands(redis));
    }
    println!(
        "{kind}: record to visible under that load, {} events: p50 {:.0} ms, p99 {:.0} ms (wanted: 1000 ms or less), max {:.0} ms",
        millis.len(),
        percentile(&mut millis, 0.5),
        percentile(&mut millis, 0.99),
        percentile(&mut millis, 1.0)
    );
    let Stack { runtime, server, agent, .. } = stack;
    drop((clients, canary));
    runtime.block_on(async {
        let left = agent.shutdown(Duration::from_secs(10)).await;
        let report = server.shutdown(Duration::from_secs(10)).await;
        assert!(left.is_nothing() && report.requests_unanswered == 0, "{left:?}, {report:?}");
    });
    Ok(())
}
