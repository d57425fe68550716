//! Errors of connections and deployments: [`LinkError`], [`RedisRefusal`], [`ConnectError`].

use std::sync::Arc;
use std::time::Duration;

use taba_core::{Remedy, VBucket};

use super::topology::TopologyError;
use super::url_error::UrlError;
use crate::adoption::AdoptionError;
use crate::census::CensusError;
use crate::limits::{BACKOFF_MAX, MOVE_POLL_MAX, SHARDS_MAX};
use crate::map::{MapError, ShardId, ShardName};
use crate::shard_map::ShardMapError;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a request to a shard failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Its address is not known.
    #[error(transparent)]
    Address(TopologyError),
    /// It cannot be connected to.
    #[error("cannot connect to {shard}")]
    Connect {
        /// The shard.
        shard: ShardId,
        /// The reason.
        source: Cause,
    },
    /// No shard that holds the VBucket has answered since this process began.
    #[error(
        "{shards} has not answered since this process began, and no other shard holds the vbucket: {cause}"
    )]
    Unanswered {
        /// Their names, separated by commas.
        shards: String,
        /// The error of the last try.
        cause: String,
    },
    /// Connecting failed recently, and is paused.
    // The pause is not said: what is said of one cause is the same each time, so that it is one line of a log.
    #[error("{shard} could not be connected to: {cause}")]
    Paused {
        /// The shard.
        shard: ShardId,
        /// Time until the next try.
        pause: Duration,
        /// The last error.
        cause: String,
    },
    /// No answer came in time. The outcome of the request is unknown.
    #[error("{shard} did not answer within {after:?}")]
    TimedOut {
        /// The shard.
        shard: ShardId,
        /// The timeout.
        after: Duration,
    },
    /// The connection broke before the answer came. The outcome of the request is unknown.
    #[error("the connection to {shard} broke")]
    Broken {
        /// The shard.
        shard: ShardId,
        /// The reason.
        source: Cause,
    },
    /// The limit of in-flight requests is reached, and none ended in time. Nothing was sent.
    #[error("{in_flight_max} requests to {shard} are in flight, and none ended in time")]
    Busy {
        /// The shard.
        shard: ShardId,
        /// The limit.
        in_flight_max: usize,
    },
    /// The Redis is a replica, not a primary.
    #[error("{shard} is a replica; the topology has to name its primary")]
    Replica {
        /// The shard.
        shard: ShardId,
    },
    /// The Redis is a node of a Redis Cluster, and was not named as one.
    #[error("{shard} is a node of a redis cluster: name the cluster, as redis+cluster://HOST:PORT")]
    ClusterNode {
        /// The shard.
        shard: ShardId,
    },
    /// The Redis is no node of a Redis Cluster, and was named as one.
    #[error("{shard} is no node of a redis cluster (cluster-enabled no): name it as redis://HOST:PORT")]
    NoClusterNode {
        /// The shard.
        shard: ShardId,
    },
    /// No node of the Redis Cluster has the slot of a VBucket.
    #[error("no node of the redis cluster has slot {slot}, of {vbucket}: see redis-cli --cluster check")]
    Uncovered {
        /// The VBucket.
        vbucket: VBucket,
        /// Its slot.
        slot: u16,
    },
    /// The Redis evicts keys when its memory is full.
    #[error(
        "{shard} has maxmemory-policy {policy}, which evicts data when memory is full; \
         set it to noeviction"
    )]
    Evicts {
        /// The shard.
        shard: ShardId,
        /// The policy.
        policy: String,
    },
    /// Another Redis answers at its address, or it is empty.
    #[error(
        "{shard} ({label}) was shard {expected} and has lost its data, or another redis answers in its place, {}: \
         bring its data back, or name the redis that has it; taba-server adopt, with this one in --redis, makes it that shard \
         again, and what it held anew, empty",
        found.map_or_else(|| "one without a name".to_owned(), |name| format!("shard {name}"))
    )]
    Stranger {
        /// Which.
        shard: ShardId,
        /// What an operator calls it.
        label: String,
        /// Its name.
        expected: ShardName,
        /// The name of the one that answers.
        found: Option<ShardName>,
    },
    /// It was connected to anew since it was last asked what it holds, and may hold something else. Nothing was sent.
    #[error("{shard} was connected to anew; it is asked what it holds first")]
    Reconnected {
        /// Which.
        shard: ShardId,
    },
    /// Its replication ID has changed; the connection is replaced.
    #[error("{shard} has begun another history of writes")]
    Rewritten {
        /// The shard.
        shard: ShardId,
    },
    /// Sentinels name another primary now; the connection is replaced.
    #[error("{shard} has failed over: its sentinels name another primary")]
    Deposed {
        /// The shard.
        shard: ShardId,
    },
    /// The Redis refused the request.
    #[error("{shard} refused")]
    Refused {
        /// The shard.
        shard: ShardId,
        /// Its error.
        source: RedisRefusal,
    },
    /// The reply has another type than the request expects.
    #[error("{shard} sent a reply of an unexpected type")]
    Answer {
        /// The shard.
        shard: ShardId,
    },
}

impl LinkError {
    /// What the caller should do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Paused { pause, .. } => Remedy::Wait(*pause),
            Self::Address(_)
            | Self::Connect { .. }
            | Self::Unanswered { .. }
            | Self::Replica { .. }
            | Self::Uncovered { .. }
            | Self::Stranger { .. } => Remedy::Wait(BACKOFF_MAX),
            Self::TimedOut { .. }
            | Self::Broken { .. }
            | Self::Busy { .. }
            | Self::Reconnected { .. }
            | Self::Rewritten { .. }
            | Self::Deposed { .. } => Remedy::Wait(Duration::from_millis(100)),
            Self::Refused { source, .. } => source.remedy(),
            Self::Answer { .. }
            | Self::Evicts { .. }
            | Self::ClusterNode { .. }
            | Self::NoClusterNode { .. } => Remedy::GiveUp,
        }
    }

    /// Whether the request may have been executed.
    pub const fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Broken { .. } | Self::Answer { .. })
    }
}

/// An error reply of Redis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} {detail}")]
#[non_exhaustive]
pub struct RedisRefusal {
    /// The code: `OOM`, `WRONGTYPE`, `READONLY`, …
    pub code: String,
    /// The text.
    pub detail: String,
}

impl RedisRefusal {
    /// What the caller should do.
    pub fn remedy(&self) -> Remedy {
        match self.code.as_str() {
            // Memory is full, the disk is full, it is loading, busy with a script, short of replicas, or was just
            // demoted.
            "ERR" if self.detail.contains("max number of clients") => Remedy::Wait(Duration::from_secs(1)),
            "OOM" | "MISCONF" | "LOADING" | "BUSY" | "NOREPLICAS" | "READONLY" | "MASTERDOWN"
            | "CLUSTERDOWN" | "NOSCRIPT" => Remedy::Wait(Duration::from_secs(1)),
            // The slot is moving.
            "TRYAGAIN" => Remedy::Wait(MOVE_POLL_MAX),
            "MOVED" | "ASK" => Remedy::Reroute,
            _ => Remedy::GiveUp,
        }
    }
}

/// Why a deployment cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There are no shards, or too many.
    #[error("{shards} shards: there may be 1 to {SHARDS_MAX}")]
    Shards {
        /// The number of shards.
        shards: usize,
    },
    /// A shard cannot be used.
    #[error("a shard cannot be used")]
    Link(#[from] Arc<LinkError>),
    /// A Redis Cluster is one of several URLs.
    #[error(
        "a redis cluster is all shards of a deployment, and its URL the only one: of the {shards} URLs keep \
         redis+cluster://HOST:PORT+HOST:PORT"
    )]
    ClusterAmong {
        /// The number of URLs.
        shards: usize,
    },
    /// The nodes of a Redis Cluster do not say which has which slot.
    #[error(
        "no node of {url} says which slots the nodes have: {causes}; redis+cluster://HOST:PORT+HOST:PORT names nodes of one \
         cluster, redis://HOST:PORT a redis that is none"
    )]
    Cluster {
        /// The URL without secrets.
        url: String,
        /// What each of them said.
        causes: String,
        /// Whether an operator has to mend it: a wrong password, a Redis that is no node.
        is_lasting: bool,
    },
    /// No node of the Redis Cluster has the slots of some VBuckets.
    #[error(
        "no node of the redis cluster has slot {slot}, of {vbucket}, nor those of {others} other vbuckets: \
         see redis-cli --cluster check"
    )]
    Uncovered {
        /// The first of them.
        vbucket: VBucket,
        /// Its slot.
        slot: u16,
        /// How many more.
        others: usize,
    },
    /// What was asked for is done by the Redis Cluster itself.
    #[error(
        "this deployment is in a redis cluster, which moves its slots itself: see redis-cli --cluster with \
         check, reshard, rebalance, add-node and del-node"
    )]
    ClusterMoves,
    /// The shards cannot become one deployment.
    #[error("the shards cannot become one deployment")]
    Adoption(#[from] AdoptionError),
    /// The shards do not hold one deployment.
    #[error("the shards do not hold one deployment")]
    Census(#[from] CensusError),
    /// The VBuckets cannot be spread over this number of shards.
    #[error("the vbuckets cannot be spread")]
    Map(#[from] MapError),
    /// There is no deployment, or its bootstrap has not ended.
    #[error("the shards are empty, or their bootstrap has not ended; bootstrap them once")]
    Empty,
    /// One Redis is in the list twice.
    #[error("{first} and {second} are the same redis under two addresses: name each redis once")]
    Same {
        /// The first.
        first: ShardId,
        /// The second.
        second: ShardId,
    },
    /// The shard map cannot be used.
    #[error("the shard map of {label} cannot be used")]
    ShardMap {
        /// What an operator calls the shard that has it.
        label: String,
        /// Why not.
        source: ShardMapError,
    },
    /// Another operator changes the shard map.
    #[error("another operator changes the shard map; the lock runs out in {left:?} at the latest")]
    MapHeld {
        /// How long, at most.
        left: Duration,
    },
    /// Another operator has changed the shard map in the meantime.
    #[error("another operator has changed the shard map in the meantime; look at it, and try again")]
    MapChanged,
    /// Two shards of the list are of different deployments.
    #[error("{first} and {second} are shards of different deployments: name those of one of them")]
    Deployments {
        /// What an operator calls the one.
        first: String,
        /// The other.
        second: String,
    },
    /// The shard that keeps the shard map does not answer, so the map cannot be changed.
    #[error(
        "{label}, which keeps the shard map, does not answer: bring it back; if it is lost for good, taba-shard forget {label}"
    )]
    KeeperSilent {
        /// What an operator calls it.
        label: String,
        /// Why not.
        source: Arc<LinkError>,
    },
    /// A shard that is needed does not answer.
    #[error(
        "{label} does not answer, and may hold what is needed: bring it back; if it is lost for good, name it to taba-shard \
         forget"
    )]
    Silent {
        /// What an operator calls it.
        label: String,
    },
    /// A shard that is to be forgotten answers.
    #[error("{label} answers, so it is not lost: taba-shard drain --remove moves away what it has")]
    Answers {
        /// What an operator calls it.
        label: String,
    },
    /// VBuckets would be lost that are on no other shard.
    #[error(
        "{vbuckets} vbuckets are on no other shard: bring the lost one's data back; --recreate-empty makes them anew, empty, \
         and what Agents do not keep any more is lost"
    )]
    OnlyCopies {
        /// How many.
        vbuckets: usize,
    },
    /// An address is none.
    #[error("{text:?} is no address of a Redis: it looks like 127.0.0.1:6379")]
    Address {
        /// What was given.
        text: String,
        /// Why not.
        source: UrlError,
    },
    /// A Redis that is to become a shard holds something else.
    #[error("{label} holds vbuckets of another deployment, or damaged ones: a new shard has to be empty")]
    Occupied {
        /// What an operator calls it.
        label: String,
    },
    /// A shard that is to go holds something that is not elsewhere.
    #[error("shard {name} still holds {vbuckets} vbuckets: drain it, and wait until that has ended")]
    StillHolds {
        /// Which.
        name: ShardName,
        /// How many.
        vbuckets: usize,
    },
    /// A Redis of the list is no shard of the deployment.
    #[error(
        "{label} holds nothing and is no shard of this deployment, whose shards are {shards}: if it took the place of one of them, \
         bring that one's data back; else leave it out, or add it with taba-shard add"
    )]
    NoShard {
        /// What an operator calls it.
        label: String,
        /// The shards of the deployment.
        shards: String,
    },
    /// An unfinished bootstrap of other shards.
    #[error(
        "{keeper} takes part in a bootstrap of other shards; name the same redis primaries to every server, \
         or, if that bootstrap was given up, run taba-server adopt"
    )]
    OtherPlan {
        /// The shard that stores its plan.
        keeper: ShardId,
    },
    /// The shards hold another deployment than before.
    #[error(
        "the shards hold deployment {found:016x} now, not {expected:016x} as before: they were recreated, or are other shards"
    )]
    Replaced {
        /// The deployment now.
        found: u64,
        /// The deployment before.
        expected: u64,
    },
    /// No store writes a VBucket like this one.
    #[error("{vbucket} of {shard} is damaged, or was not written by taba")]
    Damaged {
        /// The shard.
        shard: ShardId,
        /// The VBucket.
        vbucket: VBucket,
    },
}

impl From<LinkError> for ConnectError {
    fn from(error: LinkError) -> Self {
        Self::Link(Arc::new(error))
    }
}

impl ConnectError {
    /// What the caller should do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Link(source) => source.remedy(),
            Self::Census(CensusError::Incomplete { .. })
            | Self::Uncovered { .. }
            | Self::KeeperSilent { .. }
            | Self::Silent { .. }
            | Self::Cluster { is_lasting: false, .. } => Remedy::Wait(BACKOFF_MAX),
            Self::MapHeld { left } => Remedy::Wait(*left),
            Self::Shards { .. }
            | Self::Census(_)
            | Self::Map(_)
            | Self::Empty
            | Self::Replaced { .. }
            | Self::Same { .. }
            | Self::ShardMap { .. }
            | Self::MapChanged
            | Self::Deployments { .. }
            | Self::Address { .. }
            | Self::Occupied { .. }
            | Self::StillHolds { .. }
            | Self::NoShard { .. }
            | Self::Answers { .. }
            | Self::OnlyCopies { .. }
            | Self::Adoption(_)
            | Self::OtherPlan { .. }
            | Self::Cluster { .. }
            | Self::ClusterAmong { .. }
            | Self::ClusterMoves
            | Self::Damaged { .. } => Remedy::GiveUp,
        }
    }
}
