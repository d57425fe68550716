//! What can go wrong between here and a Redis: [`LinkError`], [`RedisRefusal`], [`ConnectError`].

use std::time::Duration;

use taba_core::{Remedy, VBucket};

use super::topology::TopologyError;
use crate::adoption::AdoptionError;
use crate::census::CensusError;
use crate::limits::{BACKOFF_MAX, SHARDS_MAX};
use crate::map::{MapError, ShardId};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a shard did not answer, or not as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nobody knows where it is.
    #[error(transparent)]
    Address(TopologyError),
    /// It cannot be connected to.
    #[error("cannot connect to {shard}")]
    Connect {
        /// Which.
        shard: ShardId,
        /// Why not.
        source: Cause,
    },
    /// It has not answered since this process began, so it is unknown which VBuckets it holds.
    #[error(
        "{shards} has not answered since this process began, and no other shard holds the vbucket: {cause}"
    )]
    Unanswered {
        /// Which, by name; several with commas between.
        shards: String,
        /// What the last try came to.
        cause: String,
    },
    /// Connecting failed a moment ago, and is not tried again yet.
    #[error("{shard} could not be connected to; the next try is in {} ms: {cause}", pause.as_millis())]
    Paused {
        /// Which.
        shard: ShardId,
        /// When the next try is made.
        pause: Duration,
        /// Why the last one failed.
        cause: String,
    },
    /// No answer came in time. Whether the request was done, or will be, is unknown.
    #[error("{shard} did not answer within {after:?}")]
    TimedOut {
        /// Which.
        shard: ShardId,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke before the answer came. Whether the request was done is unknown.
    #[error("the connection to {shard} broke")]
    Broken {
        /// Which.
        shard: ShardId,
        /// How.
        source: Cause,
    },
    /// As many requests are under way as may be, and none ended in time. Nothing was sent.
    #[error("{in_flight_max} requests to {shard} are under way, and none ended in time")]
    Busy {
        /// Which.
        shard: ShardId,
        /// The bound.
        in_flight_max: usize,
    },
    /// It is a replica: the primary is elsewhere.
    #[error("{shard} is a replica; the topology has to name its primary")]
    Replica {
        /// Which.
        shard: ShardId,
    },
    /// It evicts keys when its memory is full.
    #[error(
        "{shard} has maxmemory-policy {policy}, under which it throws data away when it is full; \
         set it to noeviction"
    )]
    Evicts {
        /// Which.
        shard: ShardId,
        /// How it is set.
        policy: String,
    },
    /// It has begun another history of writes behind our back; the connection is replaced.
    #[error("{shard} has begun another history of writes")]
    Rewritten {
        /// Which.
        shard: ShardId,
    },
    /// It refused the request.
    #[error("{shard} refused")]
    Refused {
        /// Which.
        shard: ShardId,
        /// What it said.
        source: RedisRefusal,
    },
    /// Its answer is of another kind than the request has.
    #[error("{shard} answered something else than was asked for")]
    Answer {
        /// Which.
        shard: ShardId,
    },
}

impl LinkError {
    /// What to do next.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Paused { pause, .. } => Remedy::Wait(*pause),
            Self::Address(_) | Self::Connect { .. } | Self::Unanswered { .. } | Self::Replica { .. } => {
                Remedy::Wait(BACKOFF_MAX)
            }
            Self::TimedOut { .. } | Self::Broken { .. } | Self::Busy { .. } | Self::Rewritten { .. } => {
                Remedy::Wait(Duration::from_millis(100))
            }
            Self::Refused { source, .. } => source.remedy(),
            Self::Answer { .. } | Self::Evicts { .. } => Remedy::GiveUp,
        }
    }

    /// Whether the request may have been done all the same.
    pub const fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Broken { .. } | Self::Answer { .. })
    }
}

/// A Redis said no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} {detail}")]
pub struct RedisRefusal {
    /// Its first word: `OOM`, `WRONGTYPE`, `READONLY`, …
    pub code: String,
    /// The rest.
    pub detail: String,
}

impl RedisRefusal {
    /// What to do next.
    pub fn remedy(&self) -> Remedy {
        match self.code.as_str() {
            // Full, without disk, starting, in a script of another program, without enough replicas, or just demoted.
            "ERR" if self.detail.contains("max number of clients") => Remedy::Wait(Duration::from_secs(1)),
            "OOM" | "MISCONF" | "LOADING" | "BUSY" | "NOREPLICAS" | "READONLY" | "MASTERDOWN"
            | "TRYAGAIN" | "CLUSTERDOWN" | "NOSCRIPT" => Remedy::Wait(Duration::from_secs(1)),
            "MOVED" | "ASK" => Remedy::Reroute,
            _ => Remedy::GiveUp,
        }
    }
}

/// Why a deployment cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There are no shards, or too many of them.
    #[error("{shards} shards: there may be 1 to {SHARDS_MAX}")]
    Shards {
        /// How many there are.
        shards: usize,
    },
    /// A shard cannot be used.
    #[error("a shard cannot be used")]
    Link(#[from] LinkError),
    /// The shards cannot become one deployment.
    #[error("the shards cannot become one deployment")]
    Adoption(#[from] AdoptionError),
    /// The shards do not hold one deployment.
    #[error("the shards do not hold one deployment")]
    Census(#[from] CensusError),
    /// VBuckets cannot be spread over this number of shards.
    #[error("the vbuckets cannot be spread")]
    Map(#[from] MapError),
    /// There is no deployment, or its bootstrap has not ended.
    #[error("the shards are empty, or their bootstrap has not ended; bootstrap them once")]
    Empty,
    /// One Redis is in the list twice.
    #[error("{first} and {second} are one and the same redis under two addresses: name each redis once")]
    Same {
        /// The first of them.
        first: ShardId,
        /// The other.
        second: ShardId,
    },
    /// A bootstrap of other shards has begun, and has not ended.
    #[error(
        "{keeper} takes part in a bootstrap of other shards than these; name the same redis primaries to every server, \
         or, if that bootstrap was given up, run taba-server adopt"
    )]
    OtherPlan {
        /// Which shard keeps its plan.
        keeper: ShardId,
    },
    /// The shards hold another deployment than they did.
    #[error(
        "the shards hold deployment {found:016x} now, not {expected:016x} as before: they were made anew, or are others"
    )]
    Replaced {
        /// What they hold.
        found: u64,
        /// What they held.
        expected: u64,
    },
    /// A VBucket is not what a store writes.
    #[error("{vbucket} of {shard} is damaged, or of somebody else")]
    Damaged {
        /// Where.
        shard: ShardId,
        /// Which one.
        vbucket: VBucket,
    },
}

impl ConnectError {
    /// What to do next.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Link(source) => source.remedy(),
            Self::Census(CensusError::Incomplete { .. }) => Remedy::Wait(BACKOFF_MAX),
            Self::Shards { .. }
            | Self::Census(_)
            | Self::Map(_)
            | Self::Empty
            | Self::Replaced { .. }
            | Self::Same { .. }
            | Self::Adoption(_)
            | Self::OtherPlan { .. }
            | Self::Damaged { .. } => Remedy::GiveUp,
        }
    }
}
