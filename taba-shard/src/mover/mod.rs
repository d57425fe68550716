//! [`Mover`]: carries VBuckets from shard to shard while Servers write to them: the shell of
//! [`migration`](crate::migration), which decides every step.

mod carry;
mod copy;
mod gate;
mod log;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{OnceCell, Semaphore};

pub use self::log::MoveRecord;

use self::gate::Gate;
use crate::limits::{MOVE_LAG_MAX, MOVE_PAUSE_MAX, MOVE_RETRY_MAX, MOVES_PER_SHARD, MOVES_WAITING_MAX};
use crate::map::{ShardId, ShardName};
use crate::migration::pace::Rates;
use crate::migration::{Goal, Move, MoveError};
use crate::redis::{ConnectError, LinkError, ShardLink, Shards};

/// How VBuckets are moved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MoverOptions {
    /// Who moves them, for the log of moves.
    pub by: String,
    /// VBuckets that move from or to one shard at a time, at least 1. Default [`MOVES_PER_SHARD`].
    pub parallel: usize,
    /// How fast. Default: as fast as can be.
    pub rates: Rates,
    /// Bytes that a replica may be behind while a move begins. Default [`MOVE_LAG_MAX`].
    pub lag_max: u64,
    /// How long the writes of a VBucket may be held: a move that takes longer is rolled back. At most [`MOVE_PAUSE_MAX`],
    /// the default; more counts as that.
    pub pause_max: Duration,
    /// How long a move is tried again while a shard does not answer. Default [`MOVE_RETRY_MAX`].
    pub retry_max: Duration,
    /// Shards that do not answer and take no part: nobody waits until the map is safe on them.
    pub silent: Vec<ShardName>,
}

impl Default for MoverOptions {
    fn default() -> Self {
        Self {
            by: String::new(),
            parallel: MOVES_PER_SHARD,
            rates: Rates::default(),
            lag_max: MOVE_LAG_MAX,
            pause_max: MOVE_PAUSE_MAX,
            retry_max: MOVE_RETRY_MAX,
            silent: Vec::new(),
        }
    }
}

impl MoverOptions {
    /// The defaults, for this operator.
    pub fn by(by: impl Into<String>) -> Self {
        Self { by: by.into(), ..Self::default() }
    }
}

/// What a mover has to tell while it works.
#[derive(Debug)]
#[non_exhaustive]
pub enum MoveEvent {
    /// No move is begun for now.
    Waiting {
        /// Why.
        why: Waiting,
    },
    /// The destination owns the VBucket.
    Switched {
        /// Which move.
        this: Move,
        /// How long its writes were held; `None` when another operator had fenced it.
        pause: Option<Duration>,
        /// Bytes that were copied.
        bytes: u64,
    },
    /// The source owns it again.
    RolledBack {
        /// Which move.
        this: Move,
    },
    /// The move is done: where it came from, a tombstone is left.
    Ended {
        /// Which move.
        this: Move,
    },
    /// The move was not begun, because the mover was told to stop.
    Left {
        /// Which move.
        this: Move,
    },
    /// The move could not go on. Others do.
    Failed {
        /// Which move.
        this: Move,
        /// Why not.
        error: MoverError,
    },
}

/// Why no move is begun for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The rates are used up.
    Rate,
    /// The replicas of a shard are too far behind, or missing.
    Lag {
        /// What an operator calls the shard.
        shard: String,
        /// Bytes; `None` when replicas are missing.
        bytes: Option<u64>,
    },
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate => f.write_str("throttled"),
            Self::Lag { shard, bytes: Some(bytes) } => {
                write!(f, "a replica of {shard} is {bytes} bytes behind")
            }
            Self::Lag { shard, bytes: None } => write!(f, "{shard} lacks replicas"),
        }
    }
}

/// Why a VBucket could not be moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoverError {
    /// The move cannot come to its goal.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// A shard does not answer, or refuses.
    #[error("a shard cannot be used")]
    Link(#[from] LinkError),
    /// The shards cannot be used.
    #[error("the shards cannot be used")]
    Connect(#[from] ConnectError),
    /// A shard is not connected to.
    #[error(
        "shard {name} is not in the shard map; if it is lost for good, taba-shard forget {name} frees what goes to it"
    )]
    Shard {
        /// Which.
        name: ShardName,
    },
    /// What arrived is not what was sent.
    #[error("the copy differs from its source: it was not put in place")]
    Differs,
    /// Under the name of an index there is something else.
    #[error(
        "{key} is no sorted set, so another program has put it there: rename or delete it; the move is rolled back"
    )]
    Foreign {
        /// Its name.
        key: String,
    },
    /// The replicas have not got the fence in time.
    #[error(
        "{found} of {needed} replicas have the fence: writes were held for {held:?}, and the move is rolled back"
    )]
    Unconfirmed {
        /// How many have it.
        found: u64,
        /// How many have to.
        needed: u64,
        /// For how long it was waited.
        held: Duration,
    },
    /// The copy was not in place in time.
    #[error("it was not copied within {limit:?}, for which writes may be held: the move is rolled back")]
    Late {
        /// For how long writes may be held.
        limit: Duration,
    },
    /// It was tried again and again, while something else changed each time.
    #[error("another operator works on the same vbucket; look at taba-shard status")]
    Contended,
}

/// What a run has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MoveReport {
    /// Moves that are done.
    pub ended: usize,
    /// Moves that were rolled back.
    pub rolled_back: usize,
    /// Moves that could not go on.
    pub failed: usize,
    /// Moves that were not begun, because the mover was told to stop.
    pub left: usize,
    /// How long writes were held, for each VBucket that was switched, sorted.
    pub pauses: Vec<Duration>,
    /// Bytes that were copied.
    pub bytes: u64,
}

impl MoveReport {
    /// This and another run as one.
    pub fn add(&mut self, other: Self) {
        self.ended += other.ended;
        self.rolled_back += other.rolled_back;
        self.failed += other.failed;
        self.left += other.left;
        self.bytes += other.bytes;
        self.pauses.extend(other.pauses);
        self.pauses.sort_unstable();
    }

    /// The pause that this share of all moves stayed within, in per mille: 500 is the median.
    pub fn pause(&self, per_mille: usize) -> Duration {
        let last = self.pauses.len().saturating_sub(1);
        let place = (self.pauses.len() * per_mille).div_ceil(1000).saturating_sub(1).min(last);
        self.pauses.get(place).copied().unwrap_or_default()
    }
}

/// Carries VBuckets from shard to shard.
///
/// Any number of movers may work at once, also on the same VBucket; each may be killed at any moment. What it leaves is
/// gone on with by [`run`](Self::run) with the same moves.
pub struct Mover {
    shards: Shards,
    options: MoverOptions,
    /// Moves from or to a shard at a time.
    permits: Mutex<BTreeMap<ShardId, Arc<Semaphore>>>,
    /// Connections that no move uses now. A move has its own: waiting for replicas holds up everything else on it.
    free: Mutex<BTreeMap<ShardId, Vec<Arc<ShardLink>>>>,
    gate: Gate,
    map_is_stable: OnceCell<()>,
    is_stopping: AtomicBool,
}

impl Mover {
    /// A mover on shards that are connected.
    pub fn new(shards: Shards, options: MoverOptions) -> Self {
        Self {
            gate: Gate::new(options.rates),
            shards,
            options: MoverOptions { pause_max: options.pause_max.min(MOVE_PAUSE_MAX), ..options },
            permits: Mutex::default(),
            free: Mutex::default(),
            map_is_stable: OnceCell::new(),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// The shards under it.
    pub const fn shards(&self) -> &Shards {
        &self.shards
    }

    /// Brings moves to their goal, several at a time. What is there already is done at once, so the same moves may be
    /// given again and again.
    ///
    /// # Cancel safety
    /// Any move may be left where it is; a VBucket that is fenced takes nothing until somebody goes on with it.
    pub async fn run(&self, goal: Goal, moves: &[Move], tell: impl Fn(MoveEvent) + Sync) -> MoveReport {
        let report = Mutex::new(MoveReport::default());
        let tell = |event: MoveEvent| {
            let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
            match &event {
                MoveEvent::Switched { pause, bytes, .. } => {
                    report.pauses.extend(*pause);
                    report.bytes += bytes;
                }
                MoveEvent::RolledBack { .. } => report.rolled_back += 1,
                MoveEvent::Ended { .. } => report.ended += 1,
                MoveEvent::Failed { .. } => report.failed += 1,
                MoveEvent::Left { .. } => report.left += 1,
                MoveEvent::Waiting { .. } => {}
            }
            drop(report);
            tell(event);
        };
        let tell = &tell;
        // Many more than move at a time: those that are switched wait until they are stable.
        futures::stream::iter(moves)
            .for_each_concurrent(MOVES_WAITING_MAX, |this| async move {
                if let Err(error) = self.carry(goal, *this, tell).await {
                    tell(MoveEvent::Failed { this: *this, error });
                }
            })
            .await;
        let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.pauses.sort_unstable();
        report
    }

    /// Moves whatever is not where the shard map wants it, the unfinished first, until nothing is, or something could not go
    /// on.
    ///
    /// # Errors
    /// [`ConnectError`] when a shard does not answer.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn settle(&self, tell: impl Fn(MoveEvent) + Sync) -> Result<MoveReport, ConnectError> {
        let mut all = MoveReport::default();
        loop {
            let survey = self.shards.survey().await?;
            if let Some(silent) = survey.silent.first() {
                return Err(ConnectError::Silent { label: silent.label.clone() });
            }
            let moves = survey.moves(self.shards.map().as_deref());
            if moves.is_empty() || all.failed + all.left > 0 {
                return Ok(all);
            }
            all.add(self.run(Goal::Forward, &moves, &tell).await);
        }
    }

    /// Begins no more moves; what is under way comes to its end.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    fn shard(&self, name: ShardName) -> Result<ShardId, MoverError> {
        self.shards.id_of(name).ok_or(MoverError::Shard { name })
    }

    fn permits(&self, shard: ShardId) -> Arc<Semaphore> {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        let parallel = self.options.parallel.max(1);
        Arc::clone(permits.entry(shard).or_insert_with(|| Arc::new(Semaphore::new(parallel))))
    }

    /// A connection of one move's own; it comes back when the move has ended well.
    fn take_link(&self, shard: ShardId) -> Arc<ShardLink> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.entry(shard).or_default().pop().unwrap_or_else(|| self.shards.new_link(shard))
    }

    fn give_back(&self, link: Arc<ShardLink>) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).entry(link.shard()).or_default().push(link);
    }
}

impl fmt::Debug for Mover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mover").field("options", &self.options).finish_non_exhaustive()
    }
}
