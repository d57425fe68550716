//! [`Report`]: what happened in a run, or in many.

use std::collections::BTreeMap;
use std::fmt;

use super::agent::AgentSlot;
use super::takeover::Lost;
use super::world::{Outcome, World};
use crate::link::Break;
use crate::proxy::Fault;

/// What happened in a run, or in many.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Runs that ended.
    pub runs: u64,
    /// Events that were recorded.
    pub events: u64,
    /// How often each kind of fault happened.
    pub faults: BTreeMap<String, u64>,
    /// Batches that Agents sent again, or that an earlier run of them may have sent.
    pub replayed: u64,
    /// How often a Lane learnt that the store holds less than it did.
    pub rewinds: u64,
    /// Events that Agents let go, because they were stored for good.
    pub released: u64,
    /// Batches that Agents knew again.
    pub repeated: u64,
    /// Batches of Clients that Agents had no room for.
    pub turned_away: u64,
    /// How often an Agent was found to say that its disk does not take what is to be written.
    pub disk_errors: u64,
    /// Loads and commits that Redis failed.
    pub store_errors: u64,
    /// Batches that Servers knew again.
    pub duplicates: u64,
    /// Commits that met another one.
    pub conflicts: u64,
    /// What promoted replicas did not have.
    pub lost: Lost,
    /// POSTs that an nginx gave to a further Server.
    pub repeated_posts: u64,
    /// Index keys of Redis that were deleted.
    pub index_keys_lost: u64,
    /// Calls to disks that took longer or failed.
    pub disk_calls: u64,
    /// Lines of logs that were dropped, because a standard error took nothing.
    pub log_lines_dropped: u64,
    /// How often an Agent or a Server ended by itself.
    pub ended: u64,
    /// Batches that a former primary took after it had been replaced.
    pub strays: u64,
}

impl Report {
    /// What happened in this World.
    pub fn of(world: &World, outcome: &Outcome) -> Self {
        let agents = |name: &str| world.agents.iter().map(|agent| agent.count(name)).sum::<u64>();
        let servers = |name: &str| world.servers.iter().map(|server| server.count(name)).sum::<u64>();
        let mut faults: BTreeMap<_, _> =
            world.faults.iter().map(|(kind, times)| ((*kind).to_owned(), *times)).collect();
        for fault in Fault::ALL {
            let times = world.proxies().map(|proxy| proxy.count(fault)).sum();
            faults.insert(format!("http: {fault:?}"), times);
        }
        for what in Break::ALL {
            let times = world.links().map(|link| link.count(what)).sum();
            faults.insert(format!("redis: {what:?}"), times);
        }
        Self {
            runs: 1,
            events: outcome.expected.events(),
            faults,
            replayed: agents("replayed"),
            rewinds: agents("rewinds"),
            released: agents("released"),
            repeated: agents("repeated"),
            turned_away: agents("turned_away"),
            disk_errors: world.agents.iter().map(|agent| agent.disk_errors).sum(),
            store_errors: servers("store_errors"),
            duplicates: servers("batches_duplicate"),
            conflicts: servers("conflicts"),
            lost: world.lost,
            repeated_posts: world.repeated_posts(),
            index_keys_lost: world.index_keys_lost,
            disk_calls: world.agents.iter().map(AgentSlot::disk_calls).sum(),
            log_lines_dropped: agents("log_lines_dropped") + servers("log_lines_dropped"),
            ended: world.agents.iter().map(|agent| agent.ended).sum::<u64>()
                + world.servers.iter().map(|server| server.ended).sum::<u64>(),
            strays: world.strays,
        }
    }

    /// Adds what happened in other runs.
    pub fn join(&mut self, other: &Self) {
        self.runs += other.runs;
        self.events += other.events;
        for (fault, times) in &other.faults {
            *self.faults.entry(fault.clone()).or_default() += times;
        }
        self.replayed += other.replayed;
        self.rewinds += other.rewinds;
        self.released += other.released;
        self.repeated += other.repeated;
        self.turned_away += other.turned_away;
        self.disk_errors += other.disk_errors;
        self.store_errors += other.store_errors;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.lost.join(other.lost);
        self.repeated_posts += other.repeated_posts;
        self.index_keys_lost += other.index_keys_lost;
        self.disk_calls += other.disk_calls;
        self.log_lines_dropped += other.log_lines_dropped;
        self.ended += other.ended;
        self.strays += other.strays;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, count: u64| writeln!(f, "{what:<58} {count:>14}");
        line("runs, each ending in a comparison of every total", self.runs)?;
        line("events recorded", self.events)?;
        line("events released by agents: stored for good", self.released)?;
        line("batches replayed by agents", self.replayed)?;
        line("lanes rewound, because the store held less", self.rewinds)?;
        line("client batches recognised by agents", self.repeated)?;
        line("lane batches recognised by servers", self.duplicates)?;
        line("client batches that agents had no room for", self.turned_away)?;
        line("times that an agent was found to have a full disk", self.disk_errors)?;
        line("loads and commits that redis failed", self.store_errors)?;
        line("commits that met another one, and were tried again", self.conflicts)?;
        line("acknowledged batches missing at promoted replicas", self.lost.batches)?;
        line("  with so many events", self.lost.events)?;
        line("  in so many vbuckets, summed up over takeovers", self.lost.vbuckets)?;
        line("requests that nginx gave to a further server", self.repeated_posts)?;
        line("index keys deleted from redis", self.index_keys_lost)?;
        line("calls to disks that took longer or failed", self.disk_calls)?;
        line("log lines dropped, because nobody took them", self.log_lines_dropped)?;
        line("processes that ended by themselves", self.ended)?;
        line("batches taken by a primary that had been replaced", self.strays)?;
        for (fault, times) in self.faults.iter().filter(|(_, times)| **times > 0) {
            line(&format!("fault: {fault}"), *times)?;
        }
        Ok(())
    }
}
