//! Moving a VBucket from one shard to another while Servers write to it: which step comes next, and nothing else.
//!
//! ```text
//! source (own 1)                         destination
//! ─ Fence    moved = "2:D": takes nothing more, and says where it goes
//!            … the fence has reached the replicas of the source
//! ─ Copy     ──────────────── copied ──────────────► staged under another name, compared
//!                                                    own = 2 and in place, in one script: the switch
//!            … what the destination holds is stable
//! ─ Retire   only a tombstone is left: own 1, moved "2:D"
//! ```
//! Nothing is remembered between steps: [`next`] decides from the heads of both copies as they are now. So any step may
//! be killed, done again, or done by two at once, by the same or another operator.
//!
//! Until the switch a move can be rolled back ([`Goal::Back`]): *Bar* writes a tombstone with the fence's epoch at the
//! destination, so that no switch can come after it, then *Unfence* gives the source a higher one. After the switch it is
//! moved back like any other VBucket.
//!
//! Why no count is lost: a copy takes commits only while it is not fenced, and of all copies that are not, the one with
//! the highest epoch owns. A copy gets a higher epoch only from a fenced one whose fence all replicas have, by a script
//! that looks whether the destination has seen that epoch before. So there is one history of contents, whoever asks.

pub mod lost;
pub mod pace;
pub mod survey;

use std::fmt;

use taba_core::VBucket;

use crate::map::ShardName;

/// What one shard holds of a VBucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The epoch of its ownership.
    pub epoch: u64,
    /// Under which epoch it goes, or went, and where to.
    pub moved: Option<(u64, ShardName)>,
    /// Whether it holds more than its head.
    pub has_content: bool,
    /// Whether it was written by [`MoveStep::Bar`]: it never held anything.
    pub is_bar: bool,
}

/// One VBucket that changes its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Move {
    /// Which.
    pub vbucket: VBucket,
    /// From where.
    pub from: ShardName,
    /// Where to.
    pub to: ShardName,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.vbucket, self.from, self.to)
    }
}

/// What a move is to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The destination owns the VBucket.
    Forward,
    /// The source owns it again, if the switch has not come.
    Back,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveStep {
    /// At the source: if it has the epoch `own`, mark it as moving under the epoch `fence`.
    Fence {
        /// The epoch that it has.
        own: u64,
        /// The epoch that the destination will have.
        fence: u64,
    },
    /// See that the replicas of the source have the fence; copy, compare, and switch under this epoch.
    Copy {
        /// The epoch of the source.
        own: u64,
        /// The epoch that the destination will have.
        fence: u64,
    },
    /// The destination owns it. Once what it holds is stable, leave a tombstone at the source.
    Retire {
        /// The epoch of the source.
        own: u64,
        /// What its mark of moving says.
        moved: (u64, ShardName),
    },
    /// At the destination: a tombstone with the epoch `fence` that points back, so that no switch under it can come.
    Bar {
        /// The epoch of the source.
        own: u64,
        /// Whether the destination still holds an older copy: it may go only once the replicas of the source have the
        /// fence, and with it all that it holds.
        is_over_copy: bool,
        /// The epoch that the destination would have had.
        fence: u64,
    },
    /// The destination is barred. At the source: if it is as it was found, it owns the VBucket under `epoch`.
    Unfence {
        /// The epoch that it has.
        own: u64,
        /// What its mark of moving says. `None`, or an older one, after a failover.
        moved: Option<(u64, ShardName)>,
        /// The epoch that it gets.
        epoch: u64,
    },
    /// Nothing: it is where it is to be.
    Done,
}

/// Why a move cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// Neither shard holds the VBucket.
    #[error("{vbucket} is on neither shard")]
    Missing {
        /// Which.
        vbucket: VBucket,
    },
    /// It goes, or went, to another shard.
    #[error("{vbucket} goes to shard {to} under epoch {epoch}: resume or abort that move first")]
    Elsewhere {
        /// Which.
        vbucket: VBucket,
        /// Where to.
        to: ShardName,
        /// Under which epoch.
        epoch: u64,
    },
    /// The switch has come: the destination owns it, and may have taken commits.
    #[error("{vbucket} is owned by shard {owner} already: reverse moves it back")]
    Switched {
        /// Which.
        vbucket: VBucket,
        /// The destination.
        owner: ShardName,
    },
    /// Both shards own it under one epoch.
    #[error("{vbucket} is owned by two shards under epoch {epoch}: leave out the one that is an old copy")]
    Ambiguous {
        /// Which.
        vbucket: VBucket,
        /// Which epoch.
        epoch: u64,
    },
}

/// What to do next, from what both shards hold now.
///
/// # Errors
/// [`MoveError`] when the move cannot come to its goal.
pub fn next(
    goal: Goal,
    this: Move,
    source: Option<Head>,
    destination: Option<Head>,
) -> Result<MoveStep, MoveError> {
    let Move { vbucket, from, to } = this;
    let elsewhere = |(epoch, to)| MoveError::Elsewhere { vbucket, to, epoch };
    let Some(source) = source else {
        return match destination {
            Some(Head { moved: None, .. }) if goal == Goal::Forward => Ok(MoveStep::Done),
            Some(Head { moved: None, .. }) => Err(MoveError::Switched { vbucket, owner: to }),
            Some(Head { moved: Some(moved), .. }) => Err(elsewhere(moved)),
            None => Err(MoveError::Missing { vbucket }),
        };
    };
    // What the destination has seen; a VBucket that it never held begins below every epoch.
    let seen = destination.map_or(0, |head| head.epoch);
    if source.is_bar {
        return Err(source.moved.map_or(MoveError::Missing { vbucket }, elsewhere));
    }
    // No switch under the epoch of a bar, or a lower one, has come or can come. So the source holds everything, however
    // far a failover took it back, and is gone on with whatever the goal.
    if let Some(Head { moved: Some((back, home)), is_bar: true, .. }) = destination
        && home == from
        && back == seen + 1
        && source.epoch < back
        && source.moved.is_none_or(|(fence, towards)| towards == to && fence <= seen)
    {
        return Ok(MoveStep::Unfence { own: source.epoch, moved: source.moved, epoch: back });
    }
    match (source.moved, destination.and_then(|head| head.moved)) {
        // The destination owns it.
        (moved, None) if seen > source.epoch => match (goal, moved) {
            (Goal::Back, _) => Err(MoveError::Switched { vbucket, owner: to }),
            // It went back to before the fence, in a failover: a copy that must take nothing.
            (Goal::Forward, None) => Ok(MoveStep::Fence { own: source.epoch, fence: seen }),
            (Goal::Forward, Some(moved)) if source.has_content => {
                Ok(MoveStep::Retire { own: source.epoch, moved })
            }
            (Goal::Forward, Some(_)) => Ok(MoveStep::Done),
        },
        (None, None) if seen == source.epoch => Err(MoveError::Ambiguous { vbucket, epoch: source.epoch }),
        // The destination went back to before the switch, or the switch has not come; a tombstone there is an older one.
        (Some((fence, towards)), _) if towards == to && seen < fence => Ok(match goal {
            Goal::Forward => MoveStep::Copy { own: source.epoch, fence },
            Goal::Back => {
                let is_over_copy = destination.is_some_and(|head| head.has_content);
                MoveStep::Bar { own: source.epoch, is_over_copy, fence }
            }
        }),
        (Some(_), Some(onward)) if seen > source.epoch => Err(elsewhere(onward)),
        (Some(moved), _) => Err(elsewhere(moved)),
        // The source owns it; what the destination has is a tombstone of an older move, or nothing.
        (None, _) if seen < source.epoch => Ok(match goal {
            Goal::Forward => MoveStep::Fence { own: source.epoch, fence: source.epoch + 1 },
            Goal::Back => MoveStep::Done,
        }),
        (None, Some(moved)) => Err(elsewhere(moved)),
        // Ambiguous and owned by the destination were both told above.
        (None, None) => Err(MoveError::Ambiguous { vbucket, epoch: source.epoch }),
    }
}

/// Where commits go while a VBucket moves, from what both shards hold now; `None` while it is fenced and not yet switched.
pub fn owner_of(source: Option<Head>, destination: Option<Head>) -> Option<(MoveEnd, u64)> {
    let open = |end: MoveEnd, head: Option<Head>| {
        head.filter(|head| head.moved.is_none()).map(|head| (end, head.epoch))
    };
    let highest = |head: Option<Head>| head.map_or(0, |head| head.epoch);
    let found = [open(MoveEnd::Source, source), open(MoveEnd::Destination, destination)];
    let (end, epoch) = found.into_iter().flatten().max_by_key(|(_, epoch)| *epoch)?;
    // A copy that is fenced under a higher epoch is newer than one that is not.
    (epoch >= highest(source).max(highest(destination))).then_some((end, epoch))
}

/// One end of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveEnd {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

#[cfg(test)]
mod tests;
