//! [`World`]: a whole deployment of real processes under faults, which ends in a [`Outcome`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::agent::AgentSlot;
use super::expected::Expected;
use super::load::Load;
use super::plan::Plan;
use super::server::ServerSlot;
use super::shard::ShardSlot;
use super::takeover::Lost;
use super::verdict;
use crate::dice::chance;
use crate::link::Link;
use crate::nginx::Nginx;
use crate::proxy::Proxy;
use crate::redis::Redis;

/// When nothing moves for so long, nothing will.
const STILL: Duration = Duration::from_secs(20);
/// The same, when it is to end wrong.
const STILL_WHEN_WRONG: Duration = Duration::from_secs(6);
/// A run is given up after so long, even if something still moves.
const END_MAX: Duration = Duration::from_secs(120);

/// So nginx gives what a Server that is paused has in its hands to another one, while its Agent still waits.
const IMPATIENT: (&str, &str) = ("proxy_read_timeout 4s;", "proxy_read_timeout 500ms;");

/// A whole deployment of real processes.
#[derive(Debug)]
pub struct World {
    /// How it is set up.
    pub plan: Plan,
    /// The shards, in order.
    pub shards: Vec<ShardSlot>,
    /// The Servers.
    pub servers: Vec<ServerSlot>,
    /// What gives each request of an Agent to the next Server, if anything does.
    pub nginx: Option<Nginx>,
    /// The Agents.
    pub agents: Vec<AgentSlot>,
    /// Those who record.
    pub load: Load,
    /// Where logs, Spools and append-only files are.
    pub directory: TempDir,
    /// How often each kind of fault happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// What promoted replicas did not have.
    pub lost: Lost,
    /// Batches that a former primary took after it had been replaced.
    pub strays: u64,
    /// Index keys that were deleted.
    pub index_keys_lost: u64,
    links_made: u64,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What was recorded.
    pub expected: Expected,
    /// In what the answers differ from it; empty when all are exact.
    pub differences: Vec<String>,
    /// From what the run can be repeated.
    pub seed: u64,
    /// Where the logs are, as long as the World is there, or when something differs.
    pub directory: PathBuf,
}

impl World {
    /// Starts everything, and begins to record.
    ///
    /// # Panics
    /// When a process does not come up.
    pub fn start(plan: Plan) -> Self {
        let directory =
            tempfile::Builder::new().prefix("taba-torture-").tempdir().expect("a directory can be made");
        let path = directory.path();
        let shards: Vec<_> = (0..plan.shards).map(|n| ShardSlot::start(n, &plan, path)).collect();
        let primaries: Vec<_> = shards.iter().map(|shard| shard.primary.port()).collect();
        let mut servers: Vec<_> =
            (0..plan.servers).map(|n| ServerSlot::new(n, &plan, &primaries, path)).collect();
        for server in &mut servers {
            server.start();
            server.wait();
        }
        let ports: Vec<_> = servers.iter().map(|server| server.port).collect();
        let nginx = plan.has_nginx.then(|| Nginx::start(&ports, &[IMPATIENT]));
        let ports = nginx.as_ref().map_or(ports, |nginx| vec![nginx.port()]);
        let mut agents: Vec<_> = (0..plan.agents).map(|n| AgentSlot::new(n, &plan, &ports, path)).collect();
        agents.iter_mut().for_each(|slot| slot.start());
        agents.iter_mut().for_each(|slot| slot.wait());
        let addresses: Vec<_> =
            agents.iter().flat_map(|agent| vec![agent.from_clients.url(); plan.clients_per_agent]).collect();
        let load = Load::start(&addresses, &plan);
        Self {
            plan,
            shards,
            servers,
            nginx,
            agents,
            load,
            directory,
            faults: BTreeMap::new(),
            lost: Lost::default(),
            strays: 0,
            index_keys_lost: 0,
            links_made: 0,
        }
    }

    /// Waits until so many more events are recorded: the only clock of a schedule.
    pub fn advance(&self, events: u64) {
        let then = self.load.recorded() + events;
        crate::wait_until("events are recorded", || self.load.recorded() >= then);
    }

    /// All ways of Servers to Redis.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.servers.iter().flat_map(|server| &server.links)
    }

    /// All ways of Clients to Agents and of Agents to Servers.
    pub fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.agents.iter().flat_map(AgentSlot::proxies)
    }

    /// POSTs that the nginx gave to a further Server.
    pub fn repeated_posts(&self) -> u64 {
        self.nginx.as_ref().map_or(0, Nginx::repeated_posts)
    }

    /// Makes the replica of a shard the primary, as it stands, and leads all Servers there but `kept`. Returns the
    /// former primary.
    pub fn promote(&mut self, shard: usize, kept: Option<usize>) -> Redis {
        let former = self.shards[shard].promote();
        let port = self.shards[shard].primary.port();
        for (n, server) in self.servers.iter().enumerate() {
            if Some(n) != kept {
                server.links[shard].switch(port);
            }
        }
        former
    }

    /// Makes a former primary a replica of the present one.
    pub fn follow(&mut self, shard: usize, former: Redis) {
        self.links_made += 1;
        let seed = chance(self.plan.seed, 4000 + self.links_made);
        self.shards[shard].follow(former, seed);
    }

    /// Looks at the counters of all processes that answer, and starts those again that have ended by themselves.
    pub fn look(&mut self) {
        self.servers.iter_mut().for_each(|slot| slot.tend());
        self.agents.iter_mut().for_each(|slot| slot.tend());
        self.servers.iter_mut().for_each(|server| drop(server.look()));
        self.agents.iter_mut().for_each(AgentSlot::look);
    }

    /// Ends all faults of networks and starts what is down; then ends the recording, waits until all has arrived, and
    /// compares.
    pub fn finish(&mut self) -> Outcome {
        self.heal();
        let expected = self.load.end();
        self.settle(&expected);
        self.look();
        let mut differences: Vec<_> =
            self.servers.iter().flat_map(|server| verdict::differences(server, &expected)).collect();
        // Recorded by threads that have ended: a Client has drained them before it has nothing left.
        if let Some(held) = self.held().filter(|held| *held > 0) {
            differences.push(format!("clients and agents still hold {held} events"));
        }
        // What was to end wrong needs no explanation.
        if !differences.is_empty() && self.plan.sabotage.is_none() {
            self.directory.disable_cleanup(true);
        }
        let directory = self.directory.path().to_owned();
        Outcome { expected, differences, seed: self.plan.seed, directory }
    }

    /// Ends all faults of networks, and starts what is down.
    pub fn heal(&mut self) {
        self.proxies().for_each(Proxy::calm);
        self.agents.iter().filter_map(|agent| agent.bad_disk.as_ref()).for_each(|disk| disk.set(None));
        for link in self.links() {
            link.rage(0);
            link.go_on();
        }
        self.servers.iter_mut().for_each(|slot| slot.wait());
        self.agents.iter_mut().for_each(|slot| slot.wait());
    }

    /// Waits until all that was recorded has arrived and no Agent holds any of it any more; or nothing moves any more.
    #[expect(
        clippy::disallowed_methods,
        reason = "whether real processes still move is a matter of real time"
    )]
    fn settle(&self, expected: &Expected) {
        let start = Instant::now();
        let (mut seen, mut since) = (Vec::new(), start);
        let still = if self.plan.sabotage.is_some() { STILL_WHEN_WRONG } else { STILL };
        while since.elapsed() < still && start.elapsed() < END_MAX {
            let held = self.held();
            if held == Some(0) || verdict::has_too_much(&self.servers[0], expected) {
                return;
            }
            let now = (held, verdict::ledger_differences(&self.servers[0], expected));
            if seen.last() != Some(&now) {
                (seen, since) = (vec![now], Instant::now());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Events that Clients and Agents still hold, if all Agents answer. What nobody holds is stored, or lost.
    fn held(&self) -> Option<u64> {
        let clients: u64 = self.load.stats().iter().map(|stats| stats.pending + stats.sealed).sum();
        let agents = self.agents.iter().map(|agent| agent.status()?.pointer("/spool/events_held")?.as_u64());
        Some(clients + agents.sum::<Option<u64>>()?)
    }
}

impl Drop for World {
    #[expect(clippy::print_stderr, reason = "who panics cannot know where the logs are")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            eprintln!("seed {}: logs are in {}", self.plan.seed, self.directory.path().display());
        }
    }
}

impl Outcome {
    /// Whether every answer is exact.
    pub fn is_exact(&self) -> bool {
        self.differences.is_empty()
    }

    /// Fails unless every answer is exact.
    ///
    /// # Panics
    /// When something differs; it tells the seed, and where the logs are.
    pub fn assert_exact(&self) {
        assert!(
            self.differences.is_empty(),
            "seed {}: not exact; logs are in {}\n{}",
            self.seed,
            self.directory.display(),
            self.differences.join("\n")
        );
    }
}
