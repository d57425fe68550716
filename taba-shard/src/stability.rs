//! [`StabilityWait`]: has what was committed reached the replicas? Decided from what `INFO replication` says, poll by poll.
//!
//! A fixed delay is no proof: a replica that is stalled still answers pings. `WAIT` would hold up everything else
//! that goes over a shared connection.
//!
//! Safe is what every replica of the deployment has, and has had for longer than its disk is behind: a replica that
//! takes over and is then started again must still have it. Where there is no replica, the primary's own disk is what
//! counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::limits::{DISK_LAG, REPLICA_EXPECTED};

/// What a primary says about its log of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendLog {
    /// It has none.
    Off,
    /// Its last write went well.
    Fine,
    /// Its last write failed.
    Failing,
    /// It is written, and synced when the operating system decides.
    Lazy,
}

impl AppendLog {
    /// How much it is worth, to compare what it was with what it is.
    const fn worth(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Lazy => 1,
            Self::Fine | Self::Failing => 2,
        }
    }
}

/// What one poll found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// When it was sent.
    pub started: Instant,
    /// Which connection it came over: another number, another process perhaps.
    pub epoch: u64,
    /// Whether the process is a primary.
    pub is_primary: bool,
    /// The name of its history of writes; another name after a failover.
    pub history: String,
    /// How long its history is, in bytes.
    pub offset: u64,
    /// How much of it each connected replica has acknowledged.
    pub replicas: Vec<u64>,
    /// Its log of writes.
    pub log: AppendLog,
    /// How many replicas there should be: see [`ReplicaHistory`].
    pub replicas_expected: usize,
    /// Whether its log of writes was worth more once: it was switched off, or is not synced any more.
    pub has_weaker_log: bool,
    /// Whether it evicts keys when its memory is full.
    pub evicts: bool,
}

/// What a wait has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StabilityVerdict {
    /// Not known yet.
    Pending,
    /// Everything that was done before the wait began is safe.
    Stable,
    /// Nothing can be said any more about what was done before.
    Lost(StabilityLost),
}

/// Why nothing can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StabilityLost {
    /// The connection over which the commit was made is gone: the process behind the new one may have another
    /// history.
    #[error("the connection that the last commit went over is gone")]
    Reconnected,
    /// It is a replica now.
    #[error("the process is no primary any more")]
    Demoted,
    /// It has begun another history.
    #[error("the primary has begun another history of writes")]
    Rewritten,
    /// The deadline of the wait has passed.
    #[error("the replicas did not catch up in time")]
    TimedOut,
    /// Its `maxmemory-policy` was changed to one that evicts keys.
    #[error("maxmemory-policy was changed, and it throws data away when it is full: set it to noeviction")]
    Evicts,
    /// There is no replica, and the log of writes is not what it was.
    #[error(
        "there is no replica, and the log of writes was switched off or is not synced any more: \
         set appendonly yes, and appendfsync everysec"
    )]
    LogWeaker,
    /// There is no replica, and the log of writes fails.
    #[error("there is no replica, and the log of writes fails")]
    LogFails,
}

/// What counts as safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StabilityRules {
    /// Replicas that each primary is deployed with. While fewer are connected, nothing is safe: the one that is
    /// missing may be the one that takes over. 0: as many as were seen lately.
    pub replicas: usize,
    /// For how long everybody must have had it: more than what a disk is behind.
    pub disk_lag: Duration,
    /// How long as many replicas as were ever seen, here or on the primary before a failover, are expected back.
    pub replica_expected: Duration,
}

impl Default for StabilityRules {
    fn default() -> Self {
        Self { replicas: 0, disk_lag: DISK_LAG, replica_expected: REPLICA_EXPECTED }
    }
}

/// How many replicas were seen and when, and the best log of writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaHistory(BTreeMap<usize, Instant>, u8);

impl ReplicaHistory {
    /// Notes the log as it is now; answers whether it was worth more before.
    pub fn saw_log(&mut self, log: AppendLog) -> bool {
        self.1 = self.1.max(log.worth());
        log.worth() < self.1
    }

    /// Notes the replicas connected now; answers how many are expected: the most that were seen within `lately`.
    pub fn saw(&mut self, replicas: usize, now: Instant, lately: Duration) -> usize {
        self.0.retain(|_, seen| now.saturating_duration_since(*seen) < lately);
        // Where more were seen at the same time or later, fewer say nothing; so there are never more entries than
        // replicas.
        self.0.retain(|count, _| *count > replicas);
        self.0.insert(replicas, now);
        self.0.keys().next_back().copied().unwrap_or(0)
    }
}

/// One wait for stability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StabilityWait {
    begun: Instant,
    /// The connection that what is waited for was done over.
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
    /// And every replica has had it since then.
    Copied { history: String, offset: u64, since: Instant },
}

impl StabilityWait {
    /// A wait that begins now, for what was done over the connection with this number.
    pub const fn new(now: Instant, epoch: u64, rules: StabilityRules) -> Self {
        Self { begun: now, epoch, rules, phase: WaitPhase::Begun }
    }

    /// Takes in one poll.
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
            // What it says about offsets may be older than what is waited for.
            return StabilityVerdict::Pending;
        }
        let (history, offset, since) = match std::mem::replace(&mut self.phase, WaitPhase::Begun) {
            // This poll has seen everything that is waited for.
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
            // Begun | Known | Copied => Known. A replica that had it and is missing may come back from its disk
            // without it.
            self.phase = WaitPhase::Known { history, offset };
            return StabilityVerdict::Pending;
        }
        if expected == 0 && poll.log == AppendLog::Failing {
            return StabilityVerdict::Lost(StabilityLost::LogFails);
        }
        if expected == 0 && poll.has_weaker_log {
            return StabilityVerdict::Lost(StabilityLost::LogWeaker);
        }
        // Begun | Known => Copied, now at the latest.
        let since = since.unwrap_or(poll.started);
        self.phase = WaitPhase::Copied { history, offset, since };
        let is_on_disk = poll.started.saturating_duration_since(since) >= self.rules.disk_lag;
        if is_on_disk { StabilityVerdict::Stable } else { StabilityVerdict::Pending }
    }

    /// Ends a wait that took too long.
    pub fn expire(&self, now: Instant, longest: Duration) -> StabilityVerdict {
        let expired = now.saturating_duration_since(self.begun) >= longest;
        if expired { StabilityVerdict::Lost(StabilityLost::TimedOut) } else { StabilityVerdict::Pending }
    }
}

/// The fields of `INFO` that matter here, and `appendfsync` where it may be asked for. `None` when it is not the INFO of a
/// Redis.
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
        // A replica that does not say how far it is has nothing.
        Some(offset.and_then(number).unwrap_or(0))
    };
    let mut replicas: Vec<u64> = info.lines().filter_map(replica).collect();
    // One that is connected and not listed has nothing yet.
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
