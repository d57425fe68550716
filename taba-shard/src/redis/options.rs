//! [`ShardsOptions`]: how to use a deployment.

use std::time::Duration;

use taba_core::VBuckets;

use crate::limits;
use crate::stability::StabilityRules;

/// What to do when there is no deployment yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bootstrap {
    /// Refuse to connect.
    #[default]
    Refuse,
    /// Make one, if no shard holds anything of any; or go on with a bootstrap that did not end.
    ///
    /// Never replaces what was lost: a shard that is empty while others are not is refused.
    IfEmpty,
}

/// How to use a deployment. Plain data; the defaults suit a Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardsOptions {
    /// How many VBuckets: those that the deployment was made for. Default 1,024.
    pub vbuckets: VBuckets,
    /// What to do when there is no deployment yet. Default: refuse.
    pub bootstrap: Bootstrap,
    /// Requests under way to one shard, at least 1. Default [`limits::IN_FLIGHT_MAX`]; more helps only where the way
    /// to Redis is long.
    pub in_flight_max: usize,
    /// How long connecting may take. Default [`limits::CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// How long an answer may take. Default [`limits::RESPONSE_TIMEOUT`]. Whoever gets none does not know whether the
    /// request was done, so it should be longer than Redis is ever busy.
    pub response_timeout: Duration,
    /// When a commit is safe from the loss of a machine. Default: when as many replicas as were seen lately have had
    /// it for [`limits::DISK_LAG`]. A deployment that has replicas should say how many ([`StabilityRules::replicas`]), so that
    /// a Server that starts while a primary is cut off from them does not take it for one that has none.
    pub stability: StabilityRules,
    /// How long waiting for stability may take. Default [`limits::STABLE_WAIT_MAX`].
    pub stable_wait_max: Duration,
    /// Index entries to remember as written. Default [`limits::KNOWN_ENTRIES_MAX`], up to 128 MiB; fewer save memory
    /// and cost a command with each commit of what is not remembered.
    pub index_entries_max: usize,
}

impl Default for ShardsOptions {
    fn default() -> Self {
        Self {
            vbuckets: VBuckets::default(),
            bootstrap: Bootstrap::Refuse,
            in_flight_max: limits::IN_FLIGHT_MAX,
            connect_timeout: limits::CONNECT_TIMEOUT,
            response_timeout: limits::RESPONSE_TIMEOUT,
            stability: StabilityRules::default(),
            stable_wait_max: limits::STABLE_WAIT_MAX,
            index_entries_max: limits::KNOWN_ENTRIES_MAX,
        }
    }
}
