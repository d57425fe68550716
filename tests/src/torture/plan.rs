//! [`Plan`]: how large a [`World`](super::World) is, and how it is set up.

use std::time::Duration;

use crate::redis::Aof;

/// How large a World is, and how it is set up.
///
/// Retention is short, so that Batches are really let go during a run: an Agent keeps a Batch for `confirm_after` (the
/// default of the binary is 60 s) and asks after idle Lanes every `probe_interval` (default 5 s).
#[derive(Clone, Debug)]
pub struct Plan {
    /// From which all chance comes.
    pub seed: u64,
    /// Redis processes that own VBuckets; 0 for one Server with an embedded store.
    pub shards: usize,
    /// Whether each has a replica.
    pub has_replicas: bool,
    /// Servers.
    pub servers: usize,
    /// Agents.
    pub agents: usize,
    /// Clients of each Agent.
    pub clients_per_agent: usize,
    /// Whether all Clients have one id, so that all Agents bring Blocks for the same States.
    pub has_one_client: bool,
    /// VBuckets of the deployment.
    pub vbuckets: u32,
    /// `--confirm-after` of the Agents.
    pub confirm_after: Duration,
    /// `--probe-interval` of the Agents.
    pub probe_interval: Duration,
    /// The append-only file of Redis.
    pub aof: Aof,
    /// Gives the Spool of each Agent a disk of its own, of so many bytes, which can be full.
    pub spool_disk_bytes: Option<u64>,
    /// Whether calls to the disk under the Spool of each Agent can fail, hang or take their time.
    pub has_bad_disks: bool,
    /// Whether what Agents and Servers say on their standard error goes nowhere, in another way with each start.
    pub has_bad_stderr: bool,
    /// Whether there is an nginx between Agents and Servers, which gives each request to the next of them.
    pub has_nginx: bool,
    /// Whether the clocks of Agents and Servers can be stepped.
    pub has_clocks: bool,
    /// Which rule the binaries break on purpose, by its name in `sabotage.rs` of taba-agent, taba-server or taba-shard;
    /// `None` for none. `memory-spool` is a setting that anybody can choose: Agents forget what they hold when they are
    /// killed.
    pub sabotage: Option<&'static str>,
}

impl Plan {
    /// One shard without a replica, two Servers, two Agents with one Client each.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            shards: 1,
            has_replicas: false,
            servers: 2,
            agents: 2,
            clients_per_agent: 1,
            has_one_client: false,
            vbuckets: 64,
            confirm_after: Duration::from_secs(2),
            probe_interval: Duration::from_millis(500),
            aof: Aof::EverySecond,
            spool_disk_bytes: None,
            has_bad_disks: false,
            has_bad_stderr: false,
            has_nginx: false,
            has_clocks: false,
            sabotage: None,
        }
    }
}
