//! [`Report`]: what a whole run came to.

use std::fmt;

use serde::Serialize;

use super::measures::PhaseReport;

/// What a whole run came to.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Report {
    /// How many Agents there were.
    pub agents: usize,
    /// How many Servers.
    pub servers: usize,
    /// How many shards at the beginning.
    pub shards: u16,
    /// How many VBuckets.
    pub vbuckets: u16,
    /// The phases, in order.
    pub phases: Vec<PhaseReport>,
    /// Events that Clients recorded.
    pub events_recorded: u64,
    /// Events in stored States at the end: the same number, or the run fails.
    pub events_stored: u64,
    /// States at the end.
    pub states: usize,
    /// Marks at the end.
    pub marks: usize,
    /// Seconds from the last event until no Agent kept anything any more.
    pub drain_seconds: f64,
    /// Seconds of simulated time.
    pub seconds: f64,
    /// What happened, in steps of the simulation.
    pub steps: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agents, servers, shards, vbuckets, seconds, steps, .. } = self;
        writeln!(
            f,
            "{agents} agents, {servers} servers, {shards} shards, {vbuckets} vbuckets; {seconds:.0} s in {steps} steps"
        )?;
        for phase in &self.phases {
            write_phase(f, phase)?;
        }
        writeln!(
            f,
            "exact: {} events recorded, {} stored, each once, in {} States with {} marks; all let go {:.0} s after the last",
            self.events_recorded, self.events_stored, self.states, self.marks, self.drain_seconds
        )
    }
}

fn write_phase(f: &mut fmt::Formatter<'_>, phase: &PhaseReport) -> fmt::Result {
    let p = phase;
    writeln!(f, "{} ({:.0} s)", p.name, p.seconds)?;
    writeln!(
        f,
        "  {:.0} commits/s of {:.1} States and {:.1} lanes; {:.2} M events/s",
        p.commits_per_second,
        p.states_per_commit,
        p.lanes_per_commit,
        p.events_per_second / 1e6
    )?;
    writeln!(
        f,
        "  conflicts {} ({:.3} % of commits); {} duplicates, {} store errors, {} requests failed",
        p.conflicts,
        p.conflict_share * 100.0,
        p.duplicates,
        p.store_errors,
        p.failed_requests
    )?;
    writeln!(
        f,
        "  a commit: {:.0} bytes to its shard in {:.3} round trips ({:.3} of them loads); {:.2} requests of agents, {:.0} bytes",
        p.store_bytes_per_commit,
        p.store_round_trips_per_commit,
        p.loads_per_commit,
        p.requests_per_commit,
        p.agent_bytes_per_commit
    )?;
    write!(
        f,
        "  from agent to store: median {}, p99 {}, max {} ms",
        p.fresh_ms_median, p.fresh_ms_p99, p.fresh_ms_max
    )?;
    match p.fresh_ms_p99_elsewhere {
        Some(elsewhere) => writeln!(f, "; p99 of what the fault did not touch {elsewhere} ms")?,
        None => writeln!(f)?,
    }
    if p.commits_taken_back > 0 {
        writeln!(f, "  {} commits taken back by the failover, and sent again", p.commits_taken_back)?;
    }
    if let Some(moves) = &p.moves {
        let took = moves.seconds.map_or("not over".to_owned(), |seconds| format!("{seconds:.2} s"));
        writeln!(
            f,
            "  re-sharding: {} vbuckets, {:.1} MB, {took}; writes paused {:.1} ms in the median, p99 {:.1}, max {:.1} ms",
            moves.vbuckets,
            moves.bytes as f64 / 1e6,
            moves.pause_ms_median,
            moves.pause_ms_p99,
            moves.pause_ms_max
        )?;
    }
    match p.recovery_seconds {
        Some(seconds) if seconds > 0.0 => {
            writeln!(f, "  nothing late (over 1 s) any more after {seconds:.2} s")
        }
        Some(_) => writeln!(f, "  nothing was late (over 1 s)"),
        None => writeln!(f, "  still late at the end"),
    }
}
