//! Many Tabs of many Clients, as the first Taba had them: every pair is a State, and then events come in on random pairs. Real
//! Agents with Spools, two real Servers, two Redis with AOF everysec or the embedded store of one Server; all on this machine.
//!
//! Prints, by process, CPU and memory; how long until an event is visible, and how long queries take meanwhile. Ends with an error
//! unless the Ledger is exact.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde_json::Value;
use taba_bench::processes::{Processes, UsageSince};
use taba_bench::{Figure, noise, now, pause, percentile, print_machine};
use taba_core::limits::BATCH_BLOCKS_MAX;
use taba_core::wire::{self, Block, ClientBatch, Compression, Content, Frame, Kind};
use taba_core::{ClientId, Events, SeqNo, TabName, TabType, Timestamp, ledger};
use taba_tests::get;

/// Blocks of one Batch while the States are made.
const FILL_BLOCKS: usize = BATCH_BLOCKS_MAX - 1;
/// How often each Client sends.
const FLUSH: Duration = Duration::from_millis(250);

/// The first Taba's load.
#[derive(Debug, Parser)]
#[command(about)]
struct Load {
    /// Clients; one Agent for each 100
    #[arg(long, default_value_t = 300)]
    clients: usize,
    /// Tabs of each
    #[arg(long, default_value_t = 20_000)]
    tabs: usize,
    /// Events a second on random pairs, over all Clients
    #[arg(long, default_value_t = 167_000)]
    rate: usize,
    /// Seconds of that
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Events of each State update, folded by the Client; 1: they travel as they are
    #[arg(long, default_value_t = 1)]
    folded: usize,
    /// Where the States are
    #[arg(long, value_enum, default_value_t = StoreKind::Redis)]
    store: StoreKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// Two Redis processes, two Servers.
    Redis,
    /// One Server.
    Embedded,
}

fn time() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "a bench stands where programs do")]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_micros(since.expect("the clock is past 1970").as_micros() as i64)
}

/// One of the Clients, without the library: its memory for so many Tabs is not what is measured.
struct Sender {
    id: ClientId,
    agent: String,
    /// Events of each Block.
    folded: usize,
    seq: u64,
    recorded: u64,
}

impl Sender {
    fn new(id: &str, agent: &str, folded: usize) -> Self {
        let id = ClientId::new(id).expect("a word is an id");
        Self { id, agent: format!("{agent}/v2/events"), folded, seq: 0, recorded: 0 }
    }

    /// Events for each of these Tabs, sent until the Agent has taken them.
    fn send(&mut self, http: &ureq::Agent, tab_type: &str, tabs: impl Iterator<Item = TabName>) {
        let (tab_type, at) = (TabType::new(tab_type).expect("a type name"), time());
        let (times, values) =
            (vec![at; self.folded], vec![(noise((self.seq as usize) << 8) * 100.0).floor(); self.folded]);
        let events = Events::new(&times, &values);
        let folded = (self.folded > 1).then(|| folded(&tab_type, events));
        let block = |tab| {
            let block = Block::of_events(tab, self.id.clone(), tab_type.clone(), events)?;
            Some(match &folded {
                Some(state) => block.with_content(state.clone()),
                None => block,
            })
        };
        let mut blocks: Vec<Block> = tabs.filter_map(block).collect();
        let events = (blocks.len() * self.folded) as u64;
        blocks.push(Block::note(ledger::tab(ledger::RECORDED), self.id.clone(), at, events));
        self.seq += 1;
        let batch = ClientBatch::new(self.id.clone(), 1, SeqNo(self.seq), at, blocks);
        let frame = Frame::encode(Kind::ClientBatch, &batch.encode(), Compression::Lz4);
        let post = || http.post(&self.agent).header("content-type", wire::CONTENT_TYPE).send(&frame[..]);
        while let Err(error) = post() {
            assert!(
                !matches!(error, ureq::Error::StatusCode(400..=428)),
                "the Agent refuses a Batch: {error}"
            );
            pause(Duration::from_millis(50));
        }
        self.recorded += events;
    }
}

/// The partial State of these events.
fn folded(tab_type: &TabType, events: Events<'_, f64>) -> Content {
    let handlers = taba_handlers::standard().build().expect("the standard types have different names");
    let handler = handlers.get(tab_type.as_str()).expect("a standard type");
    let mut state = handler.empty_state();
    handler.fold_values(&mut state, events.times(), &events.values().to_vec()).expect("a type of numbers");
    Content::State { version: handler.version(), bytes: handler.encode(&state).into() }
}

/// Every pair becomes a State.
fn fill(load: &Load, processes: &Processes, senders: &mut [Sender], names: &[TabName]) {
    let (begin, done) = (now(), AtomicU64::new(0));
    thread::scope(|scope| {
        for some in senders.chunks_mut(100) {
            scope.spawn(|| {
                let http = ureq::Agent::new_with_defaults();
                for tabs in names.chunks(FILL_BLOCKS) {
                    for sender in &mut *some {
                        sender.send(&http, "CounterGroup", tabs.iter().cloned());
                        done.fetch_add(tabs.len() as u64, Ordering::Relaxed);
                    }
                }
            });
        }
        let all = (load.clients * load.tabs) as u64;
        while done.load(Ordering::Relaxed) < all {
            pause(Duration::from_secs(1));
            let done = done.load(Ordering::Relaxed);
            if begin.elapsed().as_secs() % 10 == 0 {
                println!(
                    "  {done} of {all} States sent, {:.0} a second",
                    done as f64 / begin.elapsed().as_secs_f64()
                );
            }
        }
    });
    processes.drain();
    let states = load.clients * load.tabs;
    let rate = states as f64 / begin.elapsed().as_secs_f64();
    println!("{states} States made in {:.0} s, {rate:.0} a second", begin.elapsed().as_secs_f64());
}

/// Events on random pairs, as many as are due; answers how many.
fn run(load: &Load, senders: &mut [Sender], names: &[TabName]) -> u64 {
    let begin = now();
    let each = (load.rate as f64 / load.folded as f64 / load.clients as f64 * FLUSH.as_secs_f64())
        .round()
        .max(1.0) as usize;
    let before: u64 = senders.iter().map(|sender| sender.recorded).sum();
    thread::scope(|scope| {
        for some in senders.chunks_mut(100) {
            scope.spawn(move || {
                let http = ureq::Agent::new_with_defaults();
                let ticks = (load.seconds as f64 / FLUSH.as_secs_f64()) as u32;
                for tick in 0..ticks {
                    for sender in &mut *some {
                        let first = sender.seq as usize * 1_009 + sender.id.as_str().len() * 7_919;
                        let tabs = (0..each).map(|n| (noise(first + n) * names.len() as f64) as usize);
                        sender.send(&http, "CounterGroup", tabs.map(|tab| names[tab].clone()));
                    }
                    pause((FLUSH * (tick + 1)).saturating_sub(begin.elapsed()));
                }
            });
        }
    });
    let after: u64 = senders.iter().map(|sender| sender.recorded).sum();
    println!(
        "{} events sent in {:.0} s, {:.0} a second of {} wanted",
        after - before,
        begin.elapsed().as_secs_f64(),
        (after - before) as f64 / begin.elapsed().as_secs_f64(),
        load.rate
    );
    after - before
}

/// Milliseconds until an event is visible at a Server, one event after the other.
fn watch(processes: &Processes, canary: &mut Sender, is_over: &AtomicBool) -> Vec<f64> {
    let (http, mut millis) = (ureq::Agent::new_with_defaults(), Vec::new());
    let tab = TabName::new("canary").expect("a tab name");
    while !is_over.load(Ordering::Relaxed) {
        let begin = now();
        canary.send(&http, "TotalsCounter", std::iter::once(tab.clone()));
        let seen = || get(processes.server(millis.len()), "/v2/tabs?name=canary");
        while seen().is_none_or(|answer| answer["results"][0]["events"] != canary.recorded) {
            pause(Duration::from_millis(10));
        }
        millis.push(begin.elapsed().as_secs_f64() * 1e3);
        pause(Duration::from_millis(100));
    }
    millis
}

/// Milliseconds of each query, again and again.
fn ask(processes: &Processes, is_over: &AtomicBool) -> BTreeMap<&'static str, Vec<f64>> {
    let queries = [
        ("one tab", "/v2/tabs?name=tab-00017"),
        ("an expression for 100 tabs", "/v2/tabs?re=true&name=tab-001..&limit=100"),
        ("clients", "/v2/clients"),
        ("one account", "/v2/ledger?client=client-017"),
        ("totals", "/v2/ledger?totals=true"),
        ("the whole table", "/v2/ledger"),
        ("metrics", "/metrics"),
    ];
    let http: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(90))).build().into();
    let mut millis: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    while !is_over.load(Ordering::Relaxed) {
        for (n, (name, path)) in queries.iter().enumerate() {
            let begin = now();
            let answer = http.get(format!("{}{path}", processes.server(n))).call();
            let is_whole = answer.and_then(|mut answer| answer.body_mut().read_to_string()).is_ok();
            let took = begin.elapsed().as_secs_f64() * 1e3;
            millis.entry(*name).or_default().push(if is_whole { took } else { f64::INFINITY });
        }
        pause(Duration::from_secs(1));
    }
    millis
}

/// How long a Server that starts on all these States takes until it answers right.
fn restart(processes: &mut Processes) {
    let path = "/v2/tabs?name=tab-00000";
    let events = |answer: &Value| answer["results"][0]["events"].clone();
    let before = get(processes.server(0), path).map(|answer| events(&answer)).expect("it is answered");
    let took = processes.restart_server(0, path, |answer| events(answer) == before);
    println!("start of a Server to its first right answer: {} ms (wanted: 500 ms or less)", took.as_millis());
}

fn main() {
    print_machine();
    let load = Load::parse();
    let redis = if load.store == StoreKind::Redis { 2 } else { 0 };
    let mut processes = Processes::start(redis, 2, load.clients.div_ceil(100));
    let names: Vec<TabName> =
        (0..load.tabs).map(|n| TabName::new(&format!("tab-{n:05}")).expect("a tab name")).collect();
    let sender = |n: usize| Sender::new(&format!("client-{n:03}"), processes.agent(n / 100), load.folded);
    let mut senders: Vec<Sender> = (0..load.clients).map(sender).collect();
    let mut canary = Sender::new("canary", processes.agent(0), 1);
    fill(&load, &processes, &mut senders, &names);
    let (usage, sent, is_over) =
        (UsageSince::start(&processes), processes.sent_to_redis(), AtomicBool::new(false));
    let (events, mut visible, queries) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&processes, &mut canary, &is_over));
        let asking = scope.spawn(|| ask(&processes, &is_over));
        let events = run(&load, &mut senders, &names);
        is_over.store(true, Ordering::Relaxed);
        (events, watching.join().expect("it does not panic"), asking.join().expect("it does not panic"))
    });
    let lag = now();
    processes.drain();
    println!("all of it with servers {:.1} s after the last was sent", lag.elapsed().as_secs_f64());
    print!("{}", usage.until_now(&processes));
    if let (Some(before), Some(after), true) = (sent, processes.sent_to_redis(), events > 0) {
        println!("redis: {:.0} bytes sent to it an event", (after - before) as f64 / events as f64);
    }
    println!(
        "visible, {} events: p50 {:.0} ms, p99 {:.0} ms (wanted: 1000 ms or less)",
        visible.len(),
        percentile(&mut visible, 0.5),
        percentile(&mut visible, 0.99)
    );
    for (name, mut millis) in queries {
        let p99 = percentile(&mut millis, 0.99);
        println!("{name}: {} ms, p99 {p99:.1} ms, {} times", Figure::of(millis.clone()), millis.len());
    }
    restart(&mut processes);
    let recorded: u64 = senders.iter().chain([&canary]).map(|sender| sender.recorded).sum();
    processes.assert_exact(recorded);
    println!("the ledger is exact: {recorded} events recorded and folded");
}
