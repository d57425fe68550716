//! What queries cost of many Tabs: over a store that is filled directly, through the router of a Server, without a network.
//!
//! `queries --help` tells the sizes. The size of the first Taba, 300 Clients × 20,000 Tabs, needs 3 GB in Redis and some minutes.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use futures::stream::{self, StreamExt};
use taba_bench::{Figure, cpu_seconds, noise, now, print_machine, resident_bytes};
use taba_core::limits::COMMIT_PAIRS_MAX;
use taba_core::{
    ClientId, Commit, Committed, Envelope, Event, Handler, MemoryStore, Part, StateKey, Store, TabName,
    TabType, Timestamp, VBucket, VBuckets, Version, Wanted, encode_state,
};
use taba_handlers::CounterGroup;
use taba_server::Status;
use taba_server::embedded::{EmbeddedOptions, EmbeddedStore};
use taba_server::query::{QueryState, router, upkeep};
use taba_shard::{Bootstrap, ShardUrl, ShardedRedis, ShardsOptions};
use taba_tests::redis::{Options, Redis};
use tower::ServiceExt;

const TYPE: &str = "CounterGroup";
const NOW: i64 = 1_700_000_000;

/// What queries cost of many Tabs.
#[derive(Parser)]
struct Cli {
    /// Clients; each has a State in each Tab
    #[arg(long, default_value_t = 50)]
    clients: usize,
    /// Tabs
    #[arg(long, default_value_t = 20_000)]
    tabs: usize,
    /// Where the States are
    #[arg(long, value_enum, default_value_t = StoreKind::Redis)]
    store: StoreKind,
    /// Threads of the Server
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    Memory,
    Embedded,
    /// Two processes.
    Redis,
}

fn name(n: usize) -> TabName {
    TabName::new(&format!("tab-{n:07};host=h{}", n % 97)).expect("a tab name")
}

fn state(n: usize) -> Bytes {
    let (handler, mut state) = (CounterGroup::new(), Default::default());
    let at = Timestamp::from_secs(NOW - (noise(n) * 3600.0) as i64);
    handler.fold(&mut state, Event::new(at, &(noise(n + 1) * 100.0)));
    let tab_type = TabType::new(TYPE).expect("a type name");
    Envelope::new(tab_type, CounterGroup::VERSION, 1, encode_state(&state).into()).encode()
}

struct Bench {
    store: Arc<dyn Store>,
    router: Router,
    versions: AtomicU64,
}

impl Bench {
    fn next_version(&self) -> Version {
        Version { writer: 7, count: self.versions.fetch_add(1, Ordering::Relaxed) }
    }

    async fn commit(
        &self,
        vbucket: VBucket,
        tabs: Vec<TabName>,
        states: Vec<(StateKey, Part, Option<Bytes>)>,
    ) {
        let expect = self.store.load(vbucket, &Wanted::default()).await.expect("it is there").version;
        let tab_type = TabType::new(TYPE).expect("a type name");
        let tabs = tabs.into_iter().map(|tab| (tab, Some(tab_type.clone()))).collect();
        let commit = Commit::new(expect, self.next_version()).with_tabs(tabs).with_states(states);
        assert_eq!(self.store.commit(vbucket, commit).await.expect("it is there"), Committed::Done);
    }

    async fn fill_one(&self, vbucket: VBucket, tabs: &[TabName], clients: &[(ClientId, Bytes)]) {
        let pairs = tabs.iter().flat_map(|tab| clients.iter().map(move |client| (tab, client)));
        let states: Vec<_> = pairs
            .map(|(tab, (client, bytes))| {
                (StateKey { tab: tab.clone(), client: client.clone() }, Part::WHOLE, Some(bytes.clone()))
            })
            .collect();
        for some in tabs.chunks(COMMIT_PAIRS_MAX - 1) {
            self.commit(vbucket, some.to_vec(), Vec::new()).await;
        }
        for some in states.chunks(COMMIT_PAIRS_MAX - 1) {
            self.commit(vbucket, Vec::new(), some.to_vec()).await;
        }
    }

    async fn fill(&self, cli: &Cli) {
        let client = |n: usize| ClientId::new(&format!("client-{n:03}")).expect("an id");
        let clients: Vec<_> = (0..cli.clients).map(|n| (client(n), state(n))).collect();
        let vbuckets = self.store.vbuckets();
        let mut homes = vec![Vec::new(); usize::from(vbuckets.count())];
        for n in 0..cli.tabs {
            homes[usize::from(vbuckets.of(&name(n)).index())].push(name(n));
        }
        let fills = vbuckets.iter().zip(&homes).map(|(vbucket, tabs)| self.fill_one(vbucket, tabs, &clients));
        stream::iter(fills).buffer_unordered(32).collect::<Vec<_>>().await;
    }

    /// Milliseconds of a query, and the bytes of its answer.
    async fn ask(&self, path: &str) -> (f64, usize) {
        let begin = now();
        let request = Request::get(path).header("host", "localhost").header("accept", "application/x-ndjson");
        let request = request.body(Body::empty());
        let response = self.router.clone().oneshot(request.expect("a path")).await.expect("it answers");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        let (mut bytes, mut body) = (0, response.into_body().into_data_stream());
        while let Some(chunk) = body.next().await {
            bytes += chunk.expect("the body is whole").len();
        }
        (begin.elapsed().as_secs_f64() * 1e3, bytes)
    }

    async fn print(&self, what: &str, paths: impl Iterator<Item = String>) {
        let (mut millis, mut bytes, cpu) = (Vec::new(), 0, cpu_seconds());
        for path in paths {
            let (took, found) = self.ask(&path).await;
            millis.push(took);
            bytes = found;
        }
        let first = millis[0];
        millis.sort_by(f64::total_cmp);
        let p99 = millis[(millis.len() - 1) * 99 / 100];
        let cpu = (cpu_seconds() - cpu) * 1e3 / millis.len() as f64;
        let figure = Figure::of(millis);
        println!("{what}: first {first:.1} ms; {figure} ms; p99 {p99:.1} ms; {cpu:.1} ms CPU; {bytes} bytes");
    }
}

async fn run(cli: &Cli, store: Arc<dyn Store>) {
    let begin = now();
    let clock: taba_server::Clock =
        Arc::new(move || Timestamp::from_micros(NOW * 1_000_000 + begin.elapsed().as_micros() as i64));
    let handlers = taba_handlers::standard().build().expect("the standard types");
    let state_of = QueryState::new(Arc::clone(&store), handlers, clock, Arc::new(Status::default()));
    let bench = Bench { store, router: router(state_of.clone()), versions: AtomicU64::new(1) };
    let begin = now();
    bench.fill(cli).await;
    let states = cli.clients * cli.tabs;
    println!("{states} States stored in {:.1} s", begin.elapsed().as_secs_f64());
    // What commits of a Server would have written beside them.
    let begin = now();
    upkeep(&state_of).await.expect("it is there");
    println!("accounts of them written in {:.1} s", begin.elapsed().as_secs_f64());
    let again = |path: &str, times: usize| std::iter::repeat_n(path.to_owned(), times);
    bench.print("/metrics", again("/metrics", 50)).await;
    bench.print("totals", again("/v2/ledger?totals=true", 50)).await;
    bench.print("/v2/clients", again("/v2/clients", 20)).await;
    bench.print("one account", again("/v2/ledger?client=client-007", 20)).await;
    bench.print("the whole table", again("/v2/ledger", 20)).await;
    bench.print("an expression for 100 Tabs", again("/v2/names?re=true&name=tab-00017..;.*", 20)).await;
    bench.print("one without a beginning", again("/v2/names?re=true&name=.*-00017..;.*", 20)).await;
    bench
        .print(
            "100 Tabs by a label and an expression",
            again("/v2/names?label.host=h5&re=true&name=tab-.*", 20),
        )
        .await;
    let tab = |n: usize| format!("/v2/tabs?name={}", name((noise(n) * cli.tabs as f64) as usize));
    bench.print("one Tab", (0..200).map(tab)).await;
    let mut after = Vec::new();
    for n in 0..200 {
        let (tab, client) = (name(n % cli.tabs), ClientId::new("client-000").expect("an id"));
        let vbucket = bench.store.vbuckets().of(&tab);
        let path = format!("/v2/tabs?name={tab}");
        bench.commit(vbucket, vec![], vec![(StateKey { tab, client }, Part::WHOLE, Some(state(n)))]).await;
        after.push(bench.ask(&path).await.0);
    }
    after.sort_by(f64::total_cmp);
    println!("one Tab after a commit to it: {} ms; p99 {:.1} ms", Figure::of(after.clone()), after[198]);
    let before = resident_bytes(std::process::id());
    for what in ["all aggregates", "the same again", "the same again"] {
        let cpu = cpu_seconds();
        let (millis, bytes) = bench.ask("/v2/tabs").await;
        let cpu = (cpu_seconds() - cpu) * 1e9 / states as f64;
        let grown = resident_bytes(std::process::id()).saturating_sub(before) >> 20;
        let each = millis * 1e6 / states as f64;
        println!(
            "{what}: {millis:.0} ms, {each:.0} ns and {cpu:.0} ns CPU a State, {bytes} bytes, {grown} MiB more resident"
        );
    }
}

fn main() {
    print_machine();
    let cli = Cli::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(cli.threads).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let directory = tempfile::tempdir_in(".").expect("room");
    match cli.store {
        StoreKind::Memory => runtime.block_on(run(&cli, Arc::new(MemoryStore::default()))),
        StoreKind::Embedded => {
            let options = EmbeddedOptions::new(VBuckets::default());
            let store = EmbeddedStore::open(directory.path(), options).expect("it opens");
            runtime.block_on(run(&cli, Arc::new(store)));
        }
        StoreKind::Redis => {
            let redis = Redis::start_many(2, &Options::default());
            let urls =
                redis.iter().map(|redis| redis.url().parse::<ShardUrl>().expect("an address")).collect();
            runtime.block_on(async {
                let mut options = ShardsOptions::default();
                options.bootstrap = Bootstrap::IfEmpty;
                let store = ShardedRedis::connect(urls, options).await.expect("they are there");
                run(&cli, Arc::new(store)).await;
            });
        }
    }
}
