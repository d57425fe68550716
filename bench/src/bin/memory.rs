//! What a State with little in it takes in memory: in a Server's cache, in a `MemoryStore`, in an Agent that cannot reach a Server.
//! Many `CounterGroup`s of one event each, 300 Clients of each Tab. Counted are the bytes that are allocated.
//!
//! Ends with an error when it is more than twice what the State takes encoded, and 64 bytes.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use taba_agent::dispatcher::Input;
use taba_agent::{AcceptOutcome, ClockReading, MemorySpool, Relay, RelayStart};
use taba_bench::{CountingAllocator, allocated_bytes, print_machine};
use taba_core::limits::{BATCH_BLOCKS_MAX, FUTURE_MICROS_MAX};
use taba_core::wire::{Block, ClientBatch, LaneBatch};
use taba_core::{
    ClientId, Events, MemoryStore, Registry, Scan, SeqNo, Store, StreamId, TabName, TabType, Timestamp,
    VBucket,
};
use taba_server::planner::{Env, IncomingMessage, Planner, PlannerAction, PlannerInput};
use taba_server::{Status, Versions};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What is measured.
#[derive(Debug, Parser)]
#[command(about)]
struct Options {
    /// States
    #[arg(long, default_value_t = 1_000_000)]
    states: usize,
    /// Clients of each Tab
    #[arg(long, default_value_t = 300)]
    clients: usize,
}

fn at() -> Timestamp {
    Timestamp::from_secs(1_700_000_000)
}

/// One event. Each Block has names of its own, as when it comes from the network.
fn block(tab: usize, client: usize) -> Block {
    let tab = TabName::new(&format!("tab-{tab:05}")).expect("a tab name");
    let tab_type = TabType::new("CounterGroup").expect("a type name");
    let (times, value) = ([at()], [(client % 100) as f64]);
    Block::of_events(tab, client_id(client), tab_type, Events::new(&times, &value)).expect("one event")
}

fn client_id(client: usize) -> ClientId {
    ClientId::new(&format!("client-{client:03}")).expect("a word is an id")
}

/// A Server's planners, and its store.
struct Server {
    runtime: Runtime,
    store: Arc<MemoryStore>,
    handlers: Registry,
    versions: Versions,
    status: Status,
}

impl Server {
    fn new() -> Self {
        Self {
            runtime: Builder::new_current_thread().build().expect("a runtime without threads"),
            store: Arc::default(),
            handlers: taba_handlers::standard().build().expect("the standard types have different names"),
            versions: Versions::new(7),
            status: Status::default(),
        }
    }

    /// Gives a planner a Batch, and does what it asks for until it has answered.
    fn commit(&self, vbucket: VBucket, planner: &mut Planner<()>, batch: LaneBatch) {
        let future_max = Duration::from_micros(FUTURE_MICROS_MAX as u64);
        let env = Env::new(&self.handlers, &self.versions, &self.status, at(), future_max);
        let message = IncomingMessage::Batch(batch);
        let mut actions = Vec::new();
        let message = PlannerInput::Message { ticket: (), message, arrived: at(), sent_at: at() };
        planner.handle(message, &env, &mut actions);
        planner.handle(PlannerInput::Due, &env, &mut actions);
        while let Some(action) = actions.pop() {
            let input = match action {
                PlannerAction::Load(wanted) => PlannerInput::Loaded(Ok(self
                    .runtime
                    .block_on(self.store.load(vbucket, &wanted))
                    .expect("it is in memory"))),
                PlannerAction::Commit(commit) => PlannerInput::Committed(Ok(self
                    .runtime
                    .block_on(self.store.commit(vbucket, commit))
                    .expect("it is in memory"))),
                PlannerAction::Stabilise(version) => PlannerInput::Stabilised(version, Ok(())),
                _ => continue,
            };
            planner.handle(input, &env, &mut actions);
        }
    }

    /// All States, and their bytes encoded.
    fn read_all(&self) -> (usize, usize) {
        let pages = self
            .store
            .vbuckets()
            .iter()
            .map(|vbucket| self.runtime.block_on(self.store.scan(vbucket, &Scan::default())));
        let (mut states, mut bytes) = (0, 0);
        for state in pages.flat_map(|page| page.expect("it is in memory")) {
            if !state.key.tab.is_reserved() {
                states += 1;
                bytes += state.parts.iter().map(|(_, part)| part.len()).sum::<usize>();
            }
        }
        (states, bytes)
    }
}

/// Prints what a State takes; whether it is no more than wanted.
fn row(name: &str, states: usize, bytes: u64, encoded: usize) -> bool {
    let (each, encoded) = (bytes as f64 / states as f64, encoded as f64 / states as f64);
    let wanted = 2.0 * encoded + 64.0;
    println!("{name}: {each:.0} bytes a State of {encoded:.0} encoded (wanted: {wanted:.0} or less)");
    each <= wanted
}

/// The cache of a Server, and its store.
fn server(options: &Options) -> bool {
    let server = Server::new();
    let mut tabs: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for tab in 0..options.states / options.clients {
        let name = block(tab, 0).tab;
        tabs.entry(server.store.vbuckets().of(&name).index()).or_default().push(tab);
    }
    let before = allocated_bytes();
    let mut planners = Vec::new();
    for (number, tabs) in tabs {
        let vbucket = server.store.vbuckets().get(number).expect("a vbucket of the store");
        let mut planner = Planner::default();
        let pairs: Vec<_> =
            tabs.iter().flat_map(|tab| (0..options.clients).map(move |client| (*tab, client))).collect();
        for (seq, pairs) in (1..).zip(pairs.chunks(500)) {
            let blocks = pairs.iter().map(|(tab, client)| block(*tab, *client)).collect();
            let batch = LaneBatch::new(StreamId(7), number, SeqNo(seq), (seq - 1) * 500, blocks);
            server.commit(vbucket, &mut planner, batch);
        }
        planners.push(planner);
    }
    let all = allocated_bytes() - before;
    let weight: usize = planners.iter().map(Planner::cache_bytes).sum();
    drop(planners);
    let of_store = allocated_bytes() - before;
    let (states, encoded) = server.read_all();
    let is_cache_small = row("cache of a Server", states, all - of_store, encoded);
    println!("  by its own account: {:.0} bytes", weight as f64 / states as f64);
    let is_store_small = row("MemoryStore", states, of_store, encoded);
    is_store_small
        & row("MemoryStore, all read", states, allocated_bytes() - before, encoded)
        & is_cache_small
}

/// An Agent that reaches no Server.
fn agent(options: &Options) -> bool {
    let config = taba_agent::Config::default().verify().expect("the defaults are right");
    let handlers = taba_handlers::standard().build().expect("the standard types have different names");
    let mut start = RelayStart::default();
    (start.seed, start.handlers) = (1, handlers);
    let mut relay = Relay::new(config.relay_options(), MemorySpool::new(u64::MAX / 2), start);
    let tabs: Vec<usize> = (0..options.states / options.clients).collect();
    let before = allocated_bytes();
    let (mut states, mut encoded, mut uptime) = (0, 0, Duration::ZERO);
    for (round, name) in ["Agent, one Batch of each", "Agent, the second came"].iter().enumerate() {
        for (part, tabs) in tabs.chunks(BATCH_BLOCKS_MAX).enumerate() {
            for client in 0..options.clients {
                let blocks: Vec<Block> = tabs.iter().map(|tab| block(*tab, client)).collect();
                if round == 0 {
                    states += blocks.len();
                    encoded += blocks.iter().map(Block::encoded_bytes).sum::<usize>();
                }
                let seq = SeqNo(1 + (round * tabs.len() + part) as u64);
                let batch = ClientBatch::new(client_id(client), 1, seq, at(), blocks);
                let clock = ClockReading { uptime, time: at() };
                let taken = relay.accept(clock, &batch, &[]);
                assert!(matches!(taken, AcceptOutcome::Taken { .. }), "{taken:?}");
            }
        }
        _ = row(name, states, allocated_bytes() - before, encoded);
        for _ in 0..100 {
            uptime += Duration::from_secs(10);
            relay.handle(ClockReading { uptime, time: at() }, Input::Tick, &mut Vec::new());
        }
    }
    row("Agent, merged", states, allocated_bytes() - before, encoded)
}

fn main() {
    print_machine();
    let options = Options::parse();
    let is_small = server(&options) & agent(&options);
    assert!(is_small, "a State takes more memory than wanted");
}
