//! [`StabilityWait`]: have the replicas received a commit? Decided from polls of `INFO replication`.
//!
//! A fixed delay proves nothing: a stalled replica still answers pings. `WAIT` would block all other requests on a
//! shared connection.
//!
//! A commit is safe when every replica of the deployment has had it for longer than its disk lags behind: a replica
//! that is promoted and then restarted must still have it. Without replicas, the primary's own disk counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::limits::{DISK_LAG, REPLICA_EXPECTED};

/// The state of a primary's append-only log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendLog {
    /// Switched off.
    Off,
    /// The last write succeeded.
    Fine,
    /// The last write failed.
    Failing,
    /// Written; synced when the operating system decides.
    Lazy,
}

impl AppendLog {
    /// The ranks of log states, to detect that a log has become weaker.
    const fn strength(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Lazy => 1,
            Self::Fine | Self::Failing => 2,
        }
    }
}

/// The result of one poll.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Poll {
    /// When it was sent.
    pub started: Instant,
    /// The number of the connection; another number may be another process.
    pub epoch: u64,
    /// Whether the process is a primary.
    pub is_primary: bool,
    /// The replication ID; it changes with a failover.
    pub history: String,
    /// The replication offset, in bytes.
    pub offset: u64,
    /// The offset that each connected replica has acknowledged.
    pub replicas: Vec<u64>,
    /// The append-only log.
    pub log: AppendLog,
    /// The expected number of replicas: see [`ReplicaHistory`].
    pub replicas_expected: usize,
    /// Whether the log was stronger before: it was switched off, or is no longer synced.
    pub has_weaker_log: bool,
    /// Whether it evicts keys when its memory is full.
    pub evicts: bool,
}

/// The state of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StabilityVerdict {
    /// Not decided yet.
    Pending,
    /// Everything committed before the wait began is safe.
    Stable,
    /// It can no longer be decided whether earlier commits are safe.
    Lost(StabilityLost),
}

/// Why stability cannot be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StabilityLost {
    /// The connection of the commit is gone: the process behind the new one may have another history.
    #[error("the connection that the last commit went over is gone")]
    Reconnected,
    /// The process is a replica now.
    #[error("the process is no longer a primary")]
    Demoted,
    /// Not every shard has answered since the connection was made, or another one owns the VBucket.
    #[error("another shard may own the vbucket: since this connection was made, not all have answered")]
    Unasked,
    /// The replication ID has changed.
    #[error("the primary has begun another history of writes")]
    Rewritten,
    /// Redis Cluster has moved its slot to another node, or is about to.
    #[error("its slot has moved to another node, or moves")]
    SlotMoved,
    /// The deadline of the wait has passed.
    #[error("the replicas did not catch up in time")]
    TimedOut,
    /// Its `maxmemory-policy` was changed to one that evicts keys.
    #[error(
        "maxmemory-policy was changed, and redis now evicts data when its memory is full: set it to noeviction"
    )]
    Evicts,
    /// There is no replica, and the append-only log is weaker than before.
    #[error(
        "there is no replica, and the log of writes was switched off or is no longer synced: \
         set appendonly yes, and appendfsync everysec"
    )]
    LogWeaker,
    /// There is no replica, and the append-only log fails.
    #[error("there is no replica, and the log of writes fails")]
    LogFails,
}

/// When a commit counts as safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StabilityRules {
    /// Replicas that each primary is deployed with; while fewer are connected, nothing is safe, because a missing one
    /// may be promoted. 0: as many as were seen recently.
    pub replicas: usize,
    /// For how long each of them must have had the commit: more than a disk lags behind.
    pub disk_lag: Duration,
    /// For how long a replica that was seen, here or on the primary before a failover, is expected to return.
    pub replica_expected: Duration,
}

impl Default for StabilityRules {
    fn default() -> Self {
        Self { replicas: 0, disk_lag: DISK_LAG, replica_expected: REPLICA_EXPECTED }
    }
}

/// The numbers of replicas seen with their times, and the strongest log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaHistory(BTreeMap<usize, Instant>, u8);

impl ReplicaHistory {
    /// Records the log; returns whether it was stronger before.
    pub fn saw_log(&mut self, log: AppendLog) -> bool {
        self.1 = self.1.max(log.strength());
        log.strength() < self.1
    }

    /// Records the connected replicas; returns the expected number: the maximum seen within `lately`.
    pub fn saw(&mut self, replicas: usize, now: Instant, lately: Duration) -> usize {
        self.0.retain(|_, seen| now.saturating_duration_since(*seen) < lately);
        // A smaller number seen no later adds nothing, so there are never more entries than replicas.
        self.0.retain(|count, _| *count > replicas);
        self.0.insert(replicas, now);
        self.0.keys().next_back().copied().unwrap_or(0)
    }
}

/// One wait for stability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StabilityWait {
    begun: Instant,
    /// The connection of the commit.
    epoch: u64,
    rules: StabilityRules,
    phase: WaitPhase,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum WaitPhase {
    /// No poll has started since the wait began.
    Begun,
    /// The commit is within the first `offset` bytes of `history`.
    Known { history: String, offset: u64 },
    /// Every replica has had it since `since`.
    Copied { history: String, offset: u64, since: Instant },
}

impl StabilityWait {
    /// A wait from now, for commits made over the connection `epoch`.
    pub const fn new(now: Instant, epoch: u64, rules: StabilityRules) -> Self {
        Self { begun: now, epoch, rules, phase: WaitPhase::Begun }
    }

    /// Applies one poll.
    pub fn handle(&mut self, poll: &Poll) -> StabilityVerdict {
        if poll.epoch != self.epoch {
            return StabilityVerdict::Lost(StabilityLost::Reconnected);
        }
        if !poll.is_primary {
            return StabilityVerdict::Lost(StabilityLost::Demoted);
        }
        if poll.evicts {
            return StabilityVerdict::Lost(StabilityLost::Evicts);
        }
        if poll.started < self.begun {
            // Its offset may be older than the commit.
            return StabilityVerdict::Pending;
        }
        let (history, offset, since) = match std::mem::replace(&mut self.phase, WaitPhase::Begun) {
            // This poll's offset covers the commit.
            WaitPhase::Begun => (poll.history.clone(), poll.offset, None),
            WaitPhase::Known { history, offset } => (history, offset, None),
            WaitPhase::Copied { history, offset, since } => (history, offset, Some(since)),
        };
        if history != poll.history {
            return StabilityVerdict::Lost(StabilityLost::Rewritten);
        }
        let expected = self.rules.replicas.max(poll.replicas_expected);
        let have_it = poll.replicas.iter().all(|replica| *replica >= offset);
        if poll.replicas.len() < expected || !have_it {
            // Begun | Known | Copied => Known. A missing replica that had it may return from its disk without it.
            self.phase = WaitPhase::Known { history, offset };
            return StabilityVerdict::Pending;
        }
        if expected == 0 && poll.log == AppendLog::Failing {
            return StabilityVerdict::Lost(StabilityLost::LogFails);
        }
        if expected == 0 && poll.has_weaker_log {
            return StabilityVerdict::Lost(StabilityLost::LogWeaker);
        }
        // Begun | Known => Copied.
        let since = since.unwrap_or(poll.started);
        self.phase = WaitPhase::Copied { history, offset, since };
        let is_on_disk = poll.started.saturating_duration_since(since) >= self.rules.disk_lag;
        if is_on_disk { StabilityVerdict::Stable } else { StabilityVerdict::Pending }
    }

    /// Ends a wait that took longer than `longest`.
    pub fn expire(&self, now: Instant, longest: Duration) -> StabilityVerdict {
        let expired = now.saturating_duration_since(self.begun) >= longest;
        if expired { StabilityVerdict::Lost(StabilityLost::TimedOut) } else { StabilityVerdict::Pending }
    }
}

/// Parses `INFO`, and `appendfsync` if it may be read. `None` when the text is no INFO of a Redis.
pub fn read_info(info: &str, appendfsync: Option<&str>, started: Instant, epoch: u64) -> Option<Poll> {
    let is_lazy = appendfsync == Some("no");
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let replica = |line: &str| {
        // slave0:ip=127.0.0.1,port=6380,state=online,offset=42,lag=0
        let (name, value) = line.split_once(':')?;
        let digits = name.strip_prefix("slave").or_else(|| name.strip_prefix("replica"))?;
        if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let offset = value.split(',').find_map(|pair| pair.trim_end().strip_prefix("offset="));
        // A replica without an offset counts as 0.
        Some(offset.and_then(number).unwrap_or(0))
    };
    let mut replicas: Vec<u64> = info.lines().filter_map(replica).collect();
    // A connected replica that is not listed counts as 0.
    let connected = field("connected_slaves").and_then(number)?;
    replicas.resize((replicas.len() as u64).max(connected) as usize, 0);
    let log = match (field("aof_enabled"), field("aof_last_write_status")) {
        (Some("1"), Some("ok")) if is_lazy => AppendLog::Lazy,
        (Some("1"), Some("ok")) => AppendLog::Fine,
        (Some("1"), _) => AppendLog::Failing,
        _ => AppendLog::Off,
    };
    Some(Poll {
        started,
        epoch,
        is_primary: field("role")? == "master",
        history: field("master_replid")?.to_owned(),
        offset: field("master_repl_offset").and_then(number)?,
        replicas_expected: replicas.len(),
        replicas,
        log,
        has_weaker_log: false,
        evicts: field("maxmemory_policy").is_some_and(|policy| policy != "noeviction"),
    })
}

#[cfg(test)]
#[path = "stability/tests.rs"]
mod tests;
