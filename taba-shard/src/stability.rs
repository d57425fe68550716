//! [`Wait`]: has what was committed reached the replicas? Decided from what `INFO replication` says, poll by poll.
//!
//! A fixed delay is no proof: a replica that is stalled still answers pings. `WAIT` would hold up everything else that
//! goes over a shared connection.

use std::time::{Duration, Instant};

use crate::limits::{REPLICA_EXPECTED, STABLE_WITHOUT_REPLICA};

/// What a primary says about its log of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// It has none.
    Off,
    /// Its last write went well.
    Fine,
    /// Its last write failed.
    Failing,
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
    pub log: Log,
    /// When a replica was last seen, in this poll or before.
    pub replica_seen: Option<Instant>,
}

/// What a wait has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet.
    Pending,
    /// Everything that was done before the wait began is safe.
    Stable,
    /// Nothing can be said any more about what was done before.
    Lost(Lost),
}

/// Why nothing can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The connection over which the commit was made is gone: the process behind the new one may have another history.
    #[error("the connection that the last commit went over is gone")]
    Reconnected,
    /// It is a replica now.
    #[error("the process is no primary any more")]
    Demoted,
    /// It has begun another history.
    #[error("the primary has begun another history of writes")]
    Rewritten,
    /// It took longer than it may.
    #[error("the replicas did not catch up in time")]
    TimedOut,
    /// There is no replica, and the log of writes fails.
    #[error("there is no replica, and the log of writes fails")]
    LogFails,
}

/// What counts as safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Replicas that must have it, however few are connected.
    pub replicas_min: usize,
    /// How long it takes where there is no replica and none is expected.
    pub without_replica: Duration,
    /// How long a replica that was seen, here or on the primary before a failover, is expected back. Until then, what no
    /// replica has is not safe.
    pub replica_expected: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { replicas_min: 0, without_replica: STABLE_WITHOUT_REPLICA, replica_expected: REPLICA_EXPECTED }
    }
}

/// One wait for stability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    begun: Instant,
    /// The connection that what is waited for was done over.
    epoch: u64,
    rules: Rules,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// No poll has started since the wait began.
    Begun,
    /// What was done lies in the first `offset` bytes of `history`, and was all there at `known`.
    Known { history: String, offset: u64, known: Instant },
}

impl Wait {
    /// A wait that begins now, for what was done over the connection with this number.
    pub const fn new(now: Instant, epoch: u64, rules: Rules) -> Self {
        Self { begun: now, epoch, rules, phase: Phase::Begun }
    }

    /// Takes in one poll.
    pub fn handle(&mut self, poll: &Poll) -> Verdict {
        if poll.epoch != self.epoch {
            return Verdict::Lost(Lost::Reconnected);
        }
        if !poll.is_primary {
            return Verdict::Lost(Lost::Demoted);
        }
        if poll.started < self.begun {
            // What it says about offsets may be older than what is waited for.
            return Verdict::Pending;
        }
        // Begun => Known: this poll has seen everything that is waited for.
        if self.phase == Phase::Begun {
            let (history, offset, known) = (poll.history.clone(), poll.offset, poll.started);
            self.phase = Phase::Known { history, offset, known };
        }
        let Phase::Known { history, offset, known } = &self.phase else { return Verdict::Pending };
        if *history != poll.history {
            return Verdict::Lost(Lost::Rewritten);
        }
        let replicas_have_it = poll.replicas.iter().all(|replica| replica >= offset);
        if !poll.replicas.is_empty() {
            let enough = poll.replicas.len() >= self.rules.replicas_min;
            return if enough && replicas_have_it { Verdict::Stable } else { Verdict::Pending };
        }
        Self::without_replica(self.rules, *known, poll)
    }

    fn without_replica(rules: Rules, known: Instant, poll: &Poll) -> Verdict {
        let since = |at: Instant| poll.started.saturating_duration_since(at);
        let expected = poll.replica_seen.is_some_and(|seen| since(seen) < rules.replica_expected);
        if rules.replicas_min > 0 || expected {
            return Verdict::Pending;
        }
        match poll.log {
            Log::Failing => Verdict::Lost(Lost::LogFails),
            Log::Fine | Log::Off if since(known) >= rules.without_replica => Verdict::Stable,
            Log::Fine | Log::Off => Verdict::Pending,
        }
    }

    /// Ends a wait that took too long.
    pub fn expire(&self, now: Instant, longest: Duration) -> Verdict {
        let expired = now.saturating_duration_since(self.begun) >= longest;
        if expired { Verdict::Lost(Lost::TimedOut) } else { Verdict::Pending }
    }
}

/// The fields of `INFO` that matter here. `None` when it is not the INFO of a Redis.
pub fn read_info(info: &str, started: Instant, epoch: u64) -> Option<Poll> {
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
        (Some("1"), Some("ok")) => Log::Fine,
        (Some("1"), _) => Log::Failing,
        _ => Log::Off,
    };
    Some(Poll {
        started,
        epoch,
        is_primary: field("role")? == "master",
        history: field("master_replid")?.to_owned(),
        offset: field("master_repl_offset").and_then(number)?,
        replica_seen: (!replicas.is_empty()).then_some(started),
        replicas,
        log,
    })
}

#[cfg(test)]
#[path = "stability/tests.rs"]
mod tests;
