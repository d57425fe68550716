//! [`ShardsOptions`]: the settings of a connection to a deployment.

use std::time::Duration;

use taba_core::VBuckets;

use crate::limits;
use crate::stability::StabilityRules;

/// What to do when no deployment exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bootstrap {
    /// Refuse to connect.
    #[default]
    Refuse,
    /// Make one if no shard holds any data, or continue an unfinished bootstrap. An empty shard beside others that
    /// are not is refused, never replaced.
    IfEmpty,
}

/// The settings of a connection to a deployment. The defaults suit a Server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardsOptions {
    /// The number of VBuckets, as the deployment was made with. Default 1,024.
    pub vbuckets: VBuckets,
    /// What to do when no deployment exists. Default: refuse.
    pub bootstrap: Bootstrap,
    /// In-flight requests to one shard, at least 1. Default [`limits::IN_FLIGHT_MAX`]; more helps only with a long
    /// round trip.
    pub in_flight_max: usize,
    /// Timeout of connecting. Default [`limits::CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// Timeout of an answer. Default [`limits::RESPONSE_TIMEOUT`]. After it the outcome is unknown, so it should be
    /// longer than Redis is ever blocked.
    pub response_timeout: Duration,
    /// When a commit survives the loss of a machine. Default: when as many replicas as were seen recently have had it
    /// for [`limits::DISK_LAG`]. A deployment with replicas should set their number ([`StabilityRules::replicas`]),
    /// so that a Server that starts while a primary is cut off from them does not take it for one without.
    pub stability: StabilityRules,
    /// The maximum wait for stability. Default [`limits::STABLE_WAIT_MAX`].
    pub stable_wait_max: Duration,
    /// Index entries to cache. Default [`limits::KNOWN_ENTRIES_MAX`], up to 128 MiB; fewer save memory and cost a
    /// command with each commit that needs others.
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
