//! [`ServerSlot`]: the place of one Server: its ways to Redis, and its process over its runs.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use super::plan::Plan;
use super::supervised::{Counters, Supervised};
use crate::link::Link;

const COUNTERS: &Counters = &[
    ("/ingest/batches_duplicate", "batches_duplicate"),
    ("/ingest/commits", "commits"),
    ("/ingest/conflicts", "conflicts"),
    ("/ingest/store_errors", "store_errors"),
    ("/ingest/log_lines_dropped", "log_lines_dropped"),
];

/// The place of one Server.
#[derive(Debug)]
pub struct ServerSlot {
    /// Its own way to the primary of each shard, in order.
    pub links: Vec<Link>,
    process: Supervised,
}

impl ServerSlot {
    /// A place without a process.
    pub(super) fn new(n: usize, plan: &Plan, primaries: &[u16], directory: &Path) -> Self {
        let name = format!("server-{n}");
        let data = directory.join(format!("{name}.data"));
        let mut process = Supervised::new(plan, directory, ("taba-server", name), n + 2, COUNTERS);
        let seed = |shard: usize| crate::dice::chance(plan.seed, (1000 + n * 100 + shard) as u64);
        let links: Vec<_> =
            primaries.iter().enumerate().map(|(n, port)| Link::start(*port, seed(n))).collect();
        let redis: Vec<_> = links.iter().map(|link| format!("redis://127.0.0.1:{}", link.port())).collect();
        let command = &mut process.command;
        command.args(["--commit-interval", "50ms", "--prune-interval", "0", "--vbuckets"]);
        command.arg(plan.vbuckets.to_string());
        if redis.is_empty() {
            command.args(["--store", "embedded", "--data-dir"]).arg(data);
        } else {
            command.args(["--store", "redis", "--redis"]).arg(redis.join(","));
            command.args(["--redis-replicas", if plan.has_replicas { "1" } else { "0" }]);
        }
        Self { links, process }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Deref for ServerSlot {
    type Target = Supervised;

    fn deref(&self) -> &Supervised {
        &self.process
    }
}

impl DerefMut for ServerSlot {
    fn deref_mut(&mut self) -> &mut Supervised {
        &mut self.process
    }
}
