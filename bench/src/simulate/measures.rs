//! [`Measures`]: what is counted during one phase, and [`PhaseReport`]: what is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::server::ServerCounts;

/// How long events may take from an Agent to the store before that counts as late.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// How often what took how many milliseconds.
#[derive(Debug, Default)]
pub(super) struct Histogram(BTreeMap<u64, u64>);

impl Histogram {
    pub(super) fn add(&mut self, time: Duration) {
        *self.0.entry(time.as_millis() as u64).or_default() += 1;
    }

    /// The time in milliseconds that this share of all stays within; 0 when there is none.
    pub(super) fn within(&self, share: f64) -> u64 {
        let all: u64 = self.0.values().sum();
        let rank = (all as f64 * share).ceil() as u64;
        let mut seen = 0;
        let at = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        at.map_or(0, |(time, _)| *time)
    }
}

/// What is counted during one phase.
#[derive(Debug, Default)]
pub(super) struct Measures {
    /// From an Agent to the store.
    pub(super) fresh: Histogram,
    /// The same for VBuckets that the fault did not touch.
    pub(super) fresh_elsewhere: Histogram,
    /// The VBuckets that it did touch.
    pub(super) touched: BTreeSet<u16>,
    pub(super) states: u64,
    pub(super) marks: u64,
    pub(super) folded_events: u64,
    pub(super) commit_bytes: u64,
    /// Commits and loads that were sent to shards, the second time to where a VBucket had moved included.
    pub(super) calls: u64,
    pub(super) loads: u64,
    pub(super) requests: u64,
    pub(super) request_bytes: u64,
    pub(super) answer_bytes: u64,
    pub(super) batches: u64,
    pub(super) failed_requests: u64,
    /// When something was committed last that was late.
    pub(super) late_until: Option<Duration>,
    pub(super) lost_commits: usize,
    /// When all was there again that a failover had taken back.
    pub(super) replayed_at: Option<Duration>,
}

/// What one phase came to. Bytes are before compression.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct PhaseReport {
    /// What happened in it.
    pub name: &'static str,
    /// How long it was, in seconds of simulated time.
    pub seconds: f64,
    /// Commits that were done, per second.
    pub commits_per_second: f64,
    /// Events committed for the first time or again, per second.
    pub events_per_second: f64,
    /// States in a commit.
    pub states_per_commit: f64,
    /// Lanes that a commit moved.
    pub lanes_per_commit: f64,
    /// Loads and commits that found another version than the cached one.
    pub conflicts: u64,
    /// Conflicts, of all commits that were tried.
    pub conflict_share: f64,
    /// Batches that came again after they had been committed.
    pub duplicates: u64,
    /// Loads and commits that shards failed.
    pub store_errors: u64,
    /// Requests of Agents that were not answered.
    pub failed_requests: u64,
    /// Bytes of commits on their way to shards, per commit.
    pub store_bytes_per_commit: f64,
    /// Loads and commits on their way to shards, per commit.
    pub store_round_trips_per_commit: f64,
    /// Loads, per commit.
    pub loads_per_commit: f64,
    /// Requests of Agents, per commit.
    pub requests_per_commit: f64,
    /// Bytes of requests and answers between Agents and Servers, per commit.
    pub agent_bytes_per_commit: f64,
    /// Milliseconds from an Agent to the store: the median.
    pub fresh_ms_median: u64,
    /// The 99th of 100.
    pub fresh_ms_p99: u64,
    /// The longest.
    pub fresh_ms_max: u64,
    /// The 99th of 100 where the fault did not reach; `None` when it reached all alike.
    pub fresh_ms_p99_elsewhere: Option<u64>,
    /// Commits that a failover took back.
    pub commits_taken_back: usize,
    /// Seconds from the fault until nothing was late any more, and all that was taken back was there again; `None` when that was not
    /// within the phase. 0 when nothing was ever late.
    pub recovery_seconds: Option<f64>,
    /// What moved.
    pub moves: Option<MovesReport>,
}

/// What a re-sharding came to.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct MovesReport {
    /// VBuckets that moved.
    pub vbuckets: usize,
    /// What they held, in bytes.
    pub bytes: usize,
    /// From the first fence to the last switch; `None` when it was not over at the end of the phase.
    pub seconds: Option<f64>,
    /// How long writes of a VBucket were turned away, in milliseconds: the median.
    pub pause_ms_median: f64,
    /// The 99th of 100.
    pub pause_ms_p99: f64,
    /// The longest.
    pub pause_ms_max: f64,
}

impl Measures {
    /// What was taken by an Agent then is committed now.
    pub(super) fn fresh(&mut self, vbucket: u16, taken: Duration, done: Duration) {
        let took = done.saturating_sub(taken);
        self.fresh.add(took);
        if !self.touched.contains(&vbucket) {
            self.fresh_elsewhere.add(took);
        }
        if took > FRESH {
            self.late_until = Some(done);
        }
    }

    /// The report of a phase that began at `begun` with a fault, or none.
    pub(super) fn report(
        &self,
        name: &'static str,
        (begun, now): (Duration, Duration),
        counts: ServerCounts,
        is_over: bool,
    ) -> PhaseReport {
        let seconds = (now - begun).as_secs_f64();
        let each = |count: u64| count as f64 / counts.commits.max(1) as f64;
        let recovered =
            self.late_until.max(self.replayed_at).map_or(0.0, |at| at.saturating_sub(begun).as_secs_f64());
        PhaseReport {
            name,
            seconds,
            commits_per_second: counts.commits as f64 / seconds,
            events_per_second: self.folded_events as f64 / seconds,
            states_per_commit: each(self.states),
            lanes_per_commit: each(self.marks),
            conflicts: counts.conflicts,
            conflict_share: counts.conflicts as f64 / (counts.conflicts + counts.commits).max(1) as f64,
            duplicates: counts.duplicates,
            store_errors: counts.store_errors,
            failed_requests: self.failed_requests,
            store_bytes_per_commit: each(self.commit_bytes),
            store_round_trips_per_commit: each(self.calls),
            loads_per_commit: each(self.loads),
            requests_per_commit: each(self.requests),
            agent_bytes_per_commit: each(self.request_bytes + self.answer_bytes),
            fresh_ms_median: self.fresh.within(0.5),
            fresh_ms_p99: self.fresh.within(0.99),
            fresh_ms_max: self.fresh.within(1.0),
            fresh_ms_p99_elsewhere: (!self.touched.is_empty()).then(|| self.fresh_elsewhere.within(0.99)),
            commits_taken_back: self.lost_commits,
            recovery_seconds: is_over.then_some(recovered),
            moves: None,
        }
    }
}
