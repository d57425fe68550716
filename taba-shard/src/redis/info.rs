//! [`RedisInfo`]: the settings of a Redis at connect, and whether they keep data safe.
//!
//! Read from `INFO`, so no permission for `CONFIG` is needed. Without permission for `INFO`, the checks are skipped
//! with a warning.

use crate::map::ShardId;

use super::error::LinkError;
use crate::stability::{AppendLog, Poll};

/// The settings of a Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RedisInfo {
    /// Its run ID; empty if unknown.
    pub(super) run: String,
    /// Its replication ID; empty if unknown.
    pub(super) history: String,
    role: String,
    policy: String,
    /// Whether it has an append-only log.
    pub(super) has_log: bool,
    replicas: u64,
    /// Whether it is a node of a Redis Cluster; `None` if unknown.
    is_node: Option<bool>,
}

impl RedisInfo {
    pub(super) fn read(info: &str) -> Self {
        let field = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().trim_end().to_owned()
        };
        Self {
            run: field("run_id"),
            history: field("master_replid"),
            role: field("role"),
            policy: field("maxmemory_policy"),
            has_log: field("aof_enabled") == "1",
            replicas: field("connected_slaves").parse().unwrap_or(0),
            is_node: Some(field("cluster_enabled")).filter(|word| !word.is_empty()).map(|word| word == "1"),
        }
    }

    /// Refuses settings that lose data, and a node of a Cluster where none is expected, or the other way round.
    pub(super) fn check(&self, shard: ShardId, is_node: bool) -> Result<(), LinkError> {
        match self.is_node {
            Some(true) if !is_node => return Err(LinkError::ClusterNode { shard }),
            Some(false) if is_node => return Err(LinkError::NoClusterNode { shard }),
            _ => {}
        }
        if self.role == "slave" || self.role == "replica" {
            return Err(LinkError::Replica { shard });
        }
        if !self.policy.is_empty() && self.policy != "noeviction" {
            return Err(LinkError::Evicts { shard, policy: self.policy.clone() });
        }
        Ok(())
    }

    /// Logs risky settings.
    pub(super) fn warn(&self, shard: ShardId) {
        let shard = shard.0;
        if self.policy.is_empty() {
            tracing::warn!(
                shard,
                "cannot read the settings of this redis (INFO); whether it evicts is unknown"
            );
        }
        if !self.role.is_empty() && !self.has_log && self.replicas == 0 {
            tracing::warn!(
                shard,
                "this redis has neither a log (appendonly) nor a replica: its data is lost when it ends"
            );
        }
    }
}

/// Risks to stored data as of one poll: settings may change while a Redis runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hazards {
    evicts: bool,
    has_weaker_log: bool,
    log_fails: bool,
    /// The number of replicas and the required number, if there are too few.
    lacks_replicas: Option<(usize, usize)>,
}

impl Hazards {
    /// `deployed`: the required number of replicas.
    pub(super) fn of(poll: &Poll, deployed: usize) -> Self {
        let (found, expected) = (poll.replicas.len(), deployed.max(poll.replicas_expected));
        Self {
            evicts: poll.evicts,
            has_weaker_log: poll.has_weaker_log,
            log_fails: poll.log == AppendLog::Failing,
            lacks_replicas: (found < expected).then_some((found, expected)),
        }
    }

    /// Logs each risk once when it appears, and once when all are gone.
    pub(super) fn log_changes(&self, before: &Self, shard: &str) {
        if self.evicts && !before.evicts {
            tracing::error!(
                shard,
                "maxmemory-policy was changed: this redis evicts data when its memory is full, and nothing in it is safe; \
                 set it to noeviction"
            );
        }
        if self.has_weaker_log && !before.has_weaker_log {
            tracing::error!(
                shard,
                "the append-only log of this redis was switched off or is no longer synced; \
                 set appendonly yes, and appendfsync everysec"
            );
        }
        if self.log_fails && !before.log_fails {
            tracing::error!(shard, "this redis cannot write its append-only log: look at its disk");
        }
        if let (Some((found, expected)), true) =
            (self.lacks_replicas, self.lacks_replicas != before.lacks_replicas)
        {
            tracing::warn!(
                shard,
                found,
                expected,
                "this redis lacks replicas: no new data in it is safe until they are back"
            );
        }
        if *self == Self::default() && *before != Self::default() {
            tracing::info!(shard, "the risks of this redis are gone: its data is safe again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_evicts_or_follows_is_refused() {
        let text =
            "run_id:r\r\nrole:master\r\nmaster_replid:h\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";
        let info = RedisInfo::read(text);
        assert_eq!((info.run.as_str(), info.history.as_str(), info.has_log), ("r", "h", true));
        assert!(info.check(ShardId(0), false).is_ok());
        let evicts =
            RedisInfo::read(&text.replace("noeviction", "allkeys-lru")).check(ShardId(3), false).unwrap_err();
        assert!(matches!(&evicts, LinkError::Evicts { policy, .. } if policy == "allkeys-lru"), "{evicts}");
        let replica = RedisInfo::read(&text.replace("master\r", "slave\r")).check(ShardId(3), false);
        assert!(matches!(replica, Err(LinkError::Replica { .. })));
        assert!(RedisInfo::read("").check(ShardId(0), false).is_ok(), "what is not said is not refused");
        let node = RedisInfo::read(&format!("{text}cluster_enabled:1\r\n"));
        assert!(matches!(node.check(ShardId(3), false), Err(LinkError::ClusterNode { .. })));
        assert!(node.check(ShardId(3), true).is_ok());
        let alone = RedisInfo::read(&format!("{text}cluster_enabled:0\r\n"));
        assert!(matches!(alone.check(ShardId(3), true), Err(LinkError::NoClusterNode { .. })));
    }
}
