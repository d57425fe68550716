//! [`Planner`]: the commit loop of one VBucket, as a machine that decides and does nothing: inputs in, actions out.
//!
//! ```text
//!            Due                     Loaded                     Loaded
//!   Idle ──────────► Loading ─────────────────► Noting ─────────────────► Committing ──► Idle, answers go out
//!    ▲   takes Batches   ▲      admit, fold       (only if the Ledger      │
//!    │                   └── conflict: forget      needs States not here)  │
//!    └────────── failed: forget all, answer Unavailable ◄─────────────────┘
//! ```
//! Batches are kept as they came until the commit that contains them is done, so forgetting the cache never loses
//! anything; nothing is acknowledged before that. What is refused is counted in the Ledger by the same commit that
//! moves the mark past it, so neither can be there without the other.

mod cache;
mod fold;
mod plan;
mod quarantine;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use taba_core::limits::COMMIT_PAIRS_MAX;
use taba_core::wire::{Ack, Answer, LaneBatch};
use taba_core::{Commit, Committed, Loaded, Registry, SeqNo, StreamId, Timestamp, Version, Wanted};

use self::cache::Cache;
pub use self::cache::Unreadable;
pub(crate) use self::plan::hour_of;
use self::plan::{LEDGER_PAIRS, Plan};
pub use self::quarantine::{BlockId, Quarantine};
use crate::admission::believed;
use crate::status::Status;
use crate::version::Versions;

/// After how many hours without a Batch the mark of a Lane is forgotten, unless its Stream is known to live.
pub const MARK_HOURS: u32 = 48;
/// After how many conflicts in a row the Batches are handed back.
const CONFLICTS_MAX: u32 = 16;

/// What a [`Planner`] is told about the world with each input.
pub struct Env<'a> {
    /// The Tab types that are understood.
    pub handlers: &'a Registry,
    /// Where versions come from.
    pub versions: &'a Versions,
    /// What is counted.
    pub status: &'a Status,
    /// Blocks at which a Handler has panicked before.
    pub quarantine: &'a Quarantine,
    /// The time.
    pub now: Timestamp,
    /// How far after its arrival an event may lie before it is clamped.
    pub future_max: Duration,
    /// Whether a Stream is known to send still: then its marks are kept, however old.
    pub is_alive: &'a dyn Fn(StreamId) -> bool,
}

/// The store could not do it. Whether a commit has happened is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// What a [`Planner`] is told.
#[derive(Debug)]
pub enum Input<T> {
    /// A Batch has come for this VBucket. It waits for [`Input::Due`].
    Batch {
        /// Comes back with the answer.
        ticket: T,
        /// The Batch.
        batch: LaneBatch,
        /// When it came.
        arrived: Timestamp,
    },
    /// It is time to commit what waits. Ignored while a commit is under way.
    Due,
    /// The answer to [`Action::Load`].
    Loaded(Result<Loaded, Failed>),
    /// The answer to [`Action::Commit`].
    Committed(Result<Committed, Failed>),
}

/// What a [`Planner`] wants done.
#[derive(Debug)]
pub enum Action<T> {
    /// Load this, then give [`Input::Loaded`].
    Load(Wanted),
    /// Commit this, then give [`Input::Committed`].
    Commit(Commit),
    /// Answer a Batch.
    Answer(T, Ack),
    /// Say that a stored State cannot be read; Blocks for it are refused.
    Report(Unreadable),
}

/// The commit loop of one VBucket. At most one load or commit is under way at any time.
pub struct Planner<T> {
    cache: Cache,
    waiting: VecDeque<Held<T>>,
    phase: Phase<T>,
    conflicts: u32,
    /// The hour in which old marks were last looked for.
    swept_hour: u32,
}

struct Held<T> {
    ticket: T,
    batch: LaneBatch,
    arrived: Timestamp,
}

/// Batches taken for one commit, and the pairs that their States, Tabs and marks may need.
struct Taken<T> {
    batches: Vec<Held<T>>,
    pairs: usize,
}

enum Phase<T> {
    Idle,
    Loading { taken: Taken<T>, wanted: Wanted },
    Noting { taken: Taken<T>, plan: Plan, wanted: Wanted },
    Committing { taken: Taken<T>, plan: Plan, next: Version },
}

impl<T> Default for Planner<T> {
    fn default() -> Self {
        Self {
            cache: Cache::default(),
            waiting: VecDeque::new(),
            phase: Phase::Idle,
            conflicts: 0,
            swept_hour: 0,
        }
    }
}

impl<T> std::fmt::Debug for Planner<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planner")
            .field("waiting", &self.waiting.len())
            .field("idle", &self.is_idle())
            .finish_non_exhaustive()
    }
}

impl<T> Planner<T> {
    /// Whether no load and no commit is under way.
    pub const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Whether Batches wait for [`Input::Due`].
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// About how many bytes the cache takes.
    pub const fn cache_bytes(&self) -> usize {
        self.cache.weight()
    }

    /// Forgets half of the cache, what was least recently used; nothing while a commit is under way.
    pub fn shrink(&mut self) {
        if self.is_idle() {
            self.cache.halve();
        }
    }

    /// Takes one input; what is to be done is added to `actions`.
    ///
    /// # Panics
    /// When it is told the outcome of something that it did not ask for, and when a Handler panics. After that the
    /// planner must not be used any more; nothing it has not acknowledged is stored, and another may take its place.
    pub fn handle(&mut self, input: Input<T>, env: &Env<'_>, actions: &mut Vec<Action<T>>) {
        match (std::mem::replace(&mut self.phase, Phase::Idle), input) {
            (phase, Input::Batch { ticket, batch, arrived }) => {
                self.waiting.push_back(Held { ticket, batch, arrived });
                self.phase = phase;
            }
            (Phase::Idle, Input::Due) => {
                if let Some(batches) = self.take() {
                    self.attempt(batches, env, actions);
                }
            }
            (phase, Input::Due) => self.phase = phase,
            (Phase::Loading { taken, wanted }, Input::Loaded(Ok(loaded))) => {
                self.loaded(taken, &wanted, &loaded, env, actions);
            }
            (Phase::Noting { taken, plan, wanted }, Input::Loaded(Ok(loaded))) => {
                if self.cache.is_at(loaded.version) {
                    self.take_in(&wanted, &loaded, env, actions);
                    self.commit(taken, plan, env, actions);
                } else {
                    self.conflict(taken.batches, env, actions);
                }
            }
            (Phase::Committing { taken, plan, next }, Input::Committed(Ok(committed))) => match committed {
                Committed::Done => self.committed(taken, plan, next, env, actions),
                // A store may do what it could not confirm, and be asked again by a client library underneath.
                Committed::Conflict { found } if found == next => {
                    self.committed(taken, plan, next, env, actions);
                }
                _ => {
                    env.status.conflicts.fetch_add(1, Ordering::Relaxed);
                    self.conflict(taken.batches, env, actions);
                }
            },
            (Phase::Loading { taken, .. } | Phase::Noting { taken, .. }, Input::Loaded(Err(Failed)))
            | (Phase::Committing { taken, .. }, Input::Committed(Err(Failed))) => {
                env.status.store_errors.fetch_add(1, Ordering::Relaxed);
                self.give_back(taken.batches, actions);
            }
            (_, Input::Loaded(_) | Input::Committed(_)) => panic!("an outcome that was not asked for"),
        }
    }

    /// Takes all that waits for an attempt; what does not fit goes back.
    fn take(&mut self) -> Option<Vec<Held<T>>> {
        (!self.waiting.is_empty()).then(|| self.waiting.drain(..).collect())
    }

    /// Begins a commit of as many of these Batches as fit one; the others wait again, before all that came later.
    fn attempt(&mut self, mut batches: Vec<Held<T>>, env: &Env<'_>, actions: &mut Vec<Action<T>>) {
        self.cache.begin();
        let mut wanted = Wanted::default();
        let mut pairs = 1;
        let mut fitting = 0;
        for held in &batches {
            let blocks = held.batch.blocks.iter();
            let more = 1 + blocks
                .map(|block| self.cache.touch(&block.tab, &block.client, &mut wanted))
                .sum::<usize>();
            if fitting > 0 && pairs + more + LEDGER_PAIRS > COMMIT_PAIRS_MAX {
                break;
            }
            pairs += more;
            fitting += 1;
        }
        for held in batches.drain(fitting..).rev() {
            self.waiting.push_front(held);
        }
        let taken = Taken { batches, pairs };
        if self.cache.version.is_none() || !wanted.tabs.is_empty() || !wanted.states.is_empty() {
            actions.push(Action::Load(wanted.clone()));
            self.phase = Phase::Loading { taken, wanted };
        } else {
            self.fold(taken, env, actions);
        }
    }

    fn loaded(
        &mut self,
        taken: Taken<T>,
        wanted: &Wanted,
        loaded: &Loaded,
        env: &Env<'_>,
        actions: &mut Vec<Action<T>>,
    ) {
        if self.cache.version.is_none() || self.cache.is_at(loaded.version) {
            self.take_in(wanted, loaded, env, actions);
            self.fold(taken, env, actions);
        } else {
            // Somebody else has committed: what is cached is of another version than what was loaded.
            self.conflict(taken.batches, env, actions);
        }
    }

    fn take_in(&mut self, wanted: &Wanted, loaded: &Loaded, env: &Env<'_>, actions: &mut Vec<Action<T>>) {
        let unreadable = self.cache.load(wanted, loaded, env.handlers);
        actions.extend(unreadable.into_iter().map(Action::Report));
    }

    /// Everything that the Batches need is here: folds them.
    fn fold(&mut self, taken: Taken<T>, env: &Env<'_>, actions: &mut Vec<Action<T>>) {
        let mut plan = Plan::default();
        for held in &taken.batches {
            plan.add(&mut self.cache, &held.batch, held.arrived, taken.pairs, env);
        }
        plan.audit();
        if plan.marks.is_empty() {
            return self.answer(taken, plan, env, actions);
        }
        let wanted = plan.touch_notes(&mut self.cache);
        if wanted.tabs.is_empty() && wanted.states.is_empty() {
            self.commit(taken, plan, env, actions);
        } else {
            actions.push(Action::Load(wanted.clone()));
            self.phase = Phase::Noting { taken, plan, wanted };
        }
    }

    fn commit(&mut self, taken: Taken<T>, mut plan: Plan, env: &Env<'_>, actions: &mut Vec<Action<T>>) {
        let without_note = plan.apply_notes(&mut self.cache, env);
        env.status.events_without_note.fetch_add(without_note, Ordering::Relaxed);
        let next = env.versions.next();
        let expect = self.cache.version.expect("the VBucket was loaded before anything was folded");
        let (tabs, states) = (self.cache.new_tabs(), self.cache.encode_changed());
        let marks =
            std::mem::take(&mut plan.marks).into_iter().map(|(stream, mark)| (stream, Some(mark))).collect();
        let mut commit = Commit { expect, next, marks, tabs, states };
        self.sweep(&mut commit, env);
        debug_assert!(commit.pairs() <= COMMIT_PAIRS_MAX, "a commit of {} pairs", commit.pairs());
        actions.push(Action::Commit(commit));
        self.phase = Phase::Committing { taken, plan, next };
    }

    /// Forgets the marks of Streams that ended long ago, as many as the commit has room for.
    fn sweep(&mut self, commit: &mut Commit, env: &Env<'_>) {
        let hour = hour_of(env.now);
        if self.swept_hour == hour {
            return;
        }
        let is_old = |mark: &taba_core::Mark| mark.hour.saturating_add(MARK_HOURS) < hour;
        let old = self.cache.marks.iter().filter(|(stream, mark)| is_old(mark) && !(env.is_alive)(**stream));
        let old: Vec<StreamId> = old.map(|(stream, _)| *stream).collect();
        let room = COMMIT_PAIRS_MAX.saturating_sub(commit.pairs());
        if old.len() <= room {
            self.swept_hour = hour;
        }
        for stream in old.into_iter().take(room) {
            self.cache.marks.remove(&stream);
            commit.marks.push((stream, None));
        }
    }

    fn committed(
        &mut self,
        taken: Taken<T>,
        plan: Plan,
        next: Version,
        env: &Env<'_>,
        actions: &mut Vec<Action<T>>,
    ) {
        self.cache.committed(next);
        env.status.commits.fetch_add(1, Ordering::Relaxed);
        self.answer(taken, plan, env, actions);
    }

    fn answer(&mut self, taken: Taken<T>, plan: Plan, env: &Env<'_>, actions: &mut Vec<Action<T>>) {
        self.conflicts = 0;
        let add = |counter: &AtomicU64, by: u64| {
            counter.fetch_add(by, Ordering::Relaxed);
        };
        let (status, tally) = (env.status, plan.tally);
        add(&status.batches_committed, tally.batches);
        add(&status.batches_duplicate, tally.duplicates);
        add(&status.batches_nak, tally.naks);
        add(&status.events_in, tally.events);
        add(&status.events_folded, tally.folded);
        add(&status.events_refused, tally.refused);
        add(&status.events_gap, tally.gap);
        debug_assert_eq!(taken.batches.len(), plan.acks.len(), "each Batch has one answer");
        let answers = taken.batches.into_iter().zip(plan.acks);
        actions.extend(answers.map(|(held, ack)| Action::Answer(held.ticket, ack)));
    }

    /// What is cached is not what is stored: begins anew with the same Batches.
    fn conflict(&mut self, batches: Vec<Held<T>>, env: &Env<'_>, actions: &mut Vec<Action<T>>) {
        self.conflicts += 1;
        if self.conflicts > CONFLICTS_MAX {
            return self.give_back(batches, actions);
        }
        self.cache.reset();
        self.attempt(batches, env, actions);
    }

    /// Nothing is known to have changed: the senders keep their Batches.
    fn give_back(&mut self, batches: Vec<Held<T>>, actions: &mut Vec<Action<T>>) {
        self.conflicts = 0;
        self.cache.reset();
        self.swept_hour = 0;
        actions.extend(batches.into_iter().map(|held| {
            let ack = unanswered(&held.batch, Answer::Unavailable);
            Action::Answer(held.ticket, ack)
        }));
    }
}

/// The answer to a Batch of which nothing is known.
pub fn unanswered(batch: &LaneBatch, answer: Answer) -> Ack {
    Ack {
        stream: batch.stream,
        vbucket: batch.vbucket,
        applied: believed(batch),
        stable: SeqNo::NONE,
        answer,
        refused: Vec::new(),
    }
}
