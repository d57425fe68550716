//! [`Pair`]: a Redis with a replica, which Redis Sentinel monitors.

use crate::link::Link;
use crate::load::Load;
use crate::redis::{Options, Redis, Sentinel};
use crate::{Agent, Server, wait_until};

/// A primary, a replica, and the way of the replica to it.
#[derive(Debug)]
pub struct Pair {
    /// Who is the primary at first.
    pub primary: Redis,
    /// Who follows.
    pub replica: Redis,
    /// Stalled, the replica lags and nobody is told; cut then, what waited is lost.
    pub link: Link,
}

impl Pair {
    /// Starts as many, and waits until each replica follows.
    ///
    /// # Panics
    /// When one does not.
    pub fn start_many(count: usize) -> Vec<Self> {
        let pairs: Vec<Self> = (0..count).map(|_| Self::start()).collect();
        for pair in &pairs {
            pair.replica.wait_for_primary(&pair.primary);
        }
        pairs
    }

    fn start() -> Self {
        let primary = Redis::start(Options::durable());
        let link = Link::start(primary.port(), 1);
        let replica = Redis::start(Options { replica_of: Some(link.port()), ..Options::durable() });
        Self { primary, replica, link }
    }

    /// Waits until the replica has what the primary has now.
    ///
    /// # Panics
    /// When it does not get it.
    pub fn catch_up(&self) {
        self.replica.catch_up(&self.primary);
    }

    /// What the replica does not have yet, it never gets.
    pub fn kill_primary(&mut self) {
        self.primary.kill();
        self.link.cut();
    }

    /// Waits until the replica is the primary, for the Sentinel and for itself.
    ///
    /// # Panics
    /// When it is not.
    pub fn wait_for_failover(&self, sentinel: &Sentinel, master: &str) {
        sentinel.wait_for(master, &self.replica);
        wait_until("it is a primary", || self.replica.info("replication", "role") == "master");
        // Nothing fails over again, however slow this machine is.
        sentinel.command(&["SENTINEL", "SET", master, "down-after-milliseconds", "60000"]);
    }
}

/// What Sentinels call the pair of this place in the list.
pub fn master(n: usize) -> String {
    format!("m{n}")
}

/// The address of a shard that is this pair.
pub fn sentinel_url(sentinel: &Sentinel, n: usize) -> String {
    format!("redis+sentinel://{}/{}", sentinel.address(), master(n))
}

/// Starts two Servers on the first so many of these pairs, an Agent for them, and a load that it takes.
///
/// # Panics
/// When one does not start.
pub fn serve(sentinel: &Sentinel, pairs: usize) -> ([Server; 2], Agent, Load) {
    let redis: Vec<String> = (0..pairs).map(|n| sentinel_url(sentinel, n)).collect();
    let servers = [0; 2].map(|_| Server::on_redis(&redis.join(","), &["--redis-replicas=1"]));
    let urls = servers.each_ref().map(Server::url);
    let agent = Agent::of(&urls.join(","), &[]);
    let load = Load::start(&agent.url(), &urls);
    (servers, agent, load)
}

/// Starts a Sentinel for these pairs.
///
/// # Panics
/// When it does not start.
pub fn monitor(pairs: &[Pair]) -> Sentinel {
    let names: Vec<String> = (0..pairs.len()).map(master).collect();
    let masters: Vec<(&str, &Redis)> =
        names.iter().zip(pairs).map(|(name, pair)| (&**name, &pair.primary)).collect();
    let sentinel = Sentinel::start(&masters);
    for name in &names {
        // It would take the replica away from its link.
        sentinel.command(&["SENTINEL", "SET", name, "failover-timeout", "60000"]);
    }
    sentinel
}
