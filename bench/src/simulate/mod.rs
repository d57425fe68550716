//! A whole deployment in one thread: 1,000 Agents, 100 Servers and 1,000 shards, on a clock that jumps.
//!
//! What decides is what is shipped: the `Relay` of an Agent (taking, Spool, Lanes, Dispatcher) and the `Planner` of a Server, with
//! their own wire format between them. Simulated are the network, the shards (which keep the laws of a `Store`, with a replica that
//! lags), the time that each takes, and what breaks.
//!
//! ```text
//! Client ─ a State a Tab and flush ─► Relay ─ request, latency ─► Planner ─ call, latency, its turn ─► shard ─ lag ─► replica
//! ```
//! In the end every event must be stored once. The same options bring the same report, whatever the machine.

mod agenda;
mod agent;
mod measures;
mod moves;
mod report;
mod server;
mod shards;
mod world;

use std::time::Duration;

use taba_core::Timestamp;

pub use self::measures::{MovesReport, PhaseReport};
pub use self::report::Report;
use self::world::World;

/// The sizes and times of a run.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Options {
    /// Agents, each with one Client
    #[arg(long, default_value_t = 1_000)]
    pub agents: usize,
    /// Servers
    #[arg(long, default_value_t = 100)]
    pub servers: usize,
    /// Shards, each with a replica
    #[arg(long, default_value_t = 1_000)]
    pub shards: u16,
    /// VBuckets: a power of two from 64 to 16384, and no fewer than shards after re-sharding
    #[arg(long, default_value_t = 2_048)]
    pub vbuckets: u32,
    /// Tabs of the whole fleet
    #[arg(long, default_value_t = 2_048)]
    pub tabs: usize,
    /// Tabs that each Client has, chosen by chance
    #[arg(long, default_value_t = 6)]
    pub tabs_per_agent: usize,
    /// The type of the Tabs: any of numbers
    #[arg(long, default_value = "TotalsCounter")]
    pub tab_type: String,
    /// Events that a Client has folded into the State of a Tab at each flush
    #[arg(long, default_value_t = 1_000)]
    pub events_per_state: u64,
    /// Milliseconds between two flushes of a Client
    #[arg(long, default_value_t = 250)]
    pub flush_ms: u64,
    /// Seconds that are measured before anything breaks
    #[arg(long, default_value_t = 3.0)]
    pub steady_seconds: f64,
    /// Seconds for which what breaks is away
    #[arg(long, default_value_t = 3.0)]
    pub outage_seconds: f64,
    /// Seconds that are given to recover, after it is back
    #[arg(long, default_value_t = 9.0)]
    pub settle_seconds: f64,
    /// The share of Servers, or of shards, that breaks; and that of new shards in the re-sharding
    #[arg(long, default_value_t = 0.1)]
    pub share: f64,
    /// Milliseconds that a message takes between Agent and Server, about
    #[arg(long, default_value_t = 0.5)]
    pub network_ms: f64,
    /// Milliseconds that a message takes between Server and shard, about
    #[arg(long, default_value_t = 0.2)]
    pub store_network_ms: f64,
    /// Milliseconds by which replicas lag
    #[arg(long, default_value_t = 200.0)]
    pub replica_lag_ms: f64,
    /// Answers to Agents that are lost, of 10,000
    #[arg(long, default_value_t = 1)]
    pub lost_answers: u64,
    /// Where chance begins: the same number, the same run
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Options {
    /// A size for tests: it takes no more than seconds, also without optimisation.
    pub fn quick() -> Self {
        Self {
            agents: 8,
            servers: 10,
            shards: 20,
            vbuckets: 64,
            tabs: 64,
            tabs_per_agent: 4,
            tab_type: "TotalsCounter".into(),
            events_per_state: 100,
            flush_ms: 500,
            steady_seconds: 2.0,
            outage_seconds: 2.0,
            settle_seconds: 12.0,
            share: 0.1,
            network_ms: 0.5,
            store_network_ms: 0.2,
            replica_lag_ms: 200.0,
            lost_answers: 100,
            seed: 1,
        }
    }
}

/// What time of day it is, so long after the start.
const fn time(now: Duration) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + now.as_micros() as i64)
}

/// Runs it; `progress` is told now and then how far it is.
///
/// # Errors
/// What is wrong with the options; or what was not stored once.
pub fn run(options: Options, progress: &mut dyn FnMut(&str)) -> Result<Report, String> {
    let (steady, outage, settle) = (
        Duration::from_secs_f64(options.steady_seconds),
        Duration::from_secs_f64(options.outage_seconds),
        Duration::from_secs_f64(options.settle_seconds),
    );
    let mut world = World::new(options)?;
    // The first commits make Lanes and load caches.
    world.phase("warm-up", progress);
    world.run_for(Duration::from_secs(2));
    world.phase("nothing breaks", progress);
    world.run_for(steady);
    for (name, is_vanished) in [
        ("Servers are killed, and back later", false),
        ("machines of Servers vanish, and are back later", true),
    ] {
        world.phase(name, progress);
        world.lose_servers(is_vanished);
        world.run_for(outage);
        world.restart_servers();
        world.run_for(settle);
    }
    for (name, fails_over) in [
        ("a rack of shards is away, and comes back", false),
        ("a rack of shards is gone, its replicas take over", true),
    ] {
        world.phase(name, progress);
        world.lose_shards();
        world.run_for(outage);
        world.return_shards(fails_over);
        world.run_for(settle);
    }
    world.phase("re-sharding onto more shards", progress);
    world.reshard();
    world.run_for(settle);
    world.finish(progress)
}
