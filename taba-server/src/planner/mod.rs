//! [`Planner`]: the commit loop of one VBucket, as a pure state machine: inputs in, actions out.
//!
//! ```text
//!            Due                     Loaded                     Loaded
//!   Idle ──────────► Loading ─────────────────► Noting ─────────────────► Committing ──► Idle, answers go out
//!    ▲  takes messages   ▲ │    admit, fold       (only if the Ledger      │
//!    │                   │ └► Checking             needs States not here)  │
//!    │                   │     (only if there is nothing to commit)        │
//!    │                   └── conflict: invalidate                          │
//!    └────────── failed: reset all, answer Unavailable ◄──────────────────┘
//! ```
//! **No answer from a stale cache.** The condition of an attempt's commit proves that the cache matched the store. An
//! attempt without a commit (only Duplicates, Naks, misdated messages) first reads the store's version; if it
//! differs, everything is loaded and admitted again. Otherwise two Servers behind a load balancer would answer one
//! Lane Nak and Duplicate in turns, each from its own cache, and the Lane would go back and forth forever.
//!
//! Batches are kept until their commit succeeds, and nothing is acknowledged before, so dropping the cache never
//! loses data. What is refused is counted in the Ledger by the commit that moves the mark past it: both exist, or
//! neither.
//!
//! **Fresh** is an answer that states what the store holds: [`Answer::Applied`], for a commit made after the message
//! arrived. A commit succeeds only at the version of the cache, so it proves the cache correct at that moment. A
//! Duplicate or a Nak states what was read, perhaps from a demoted primary, and a sender must release nothing because
//! of it. So a Probe always causes a commit, if need be of a new version only.
//!
//! **Careful.** When a Handler panics, the attempt is dropped: its messages are processed again, each on copies of
//! the States. What the Handler panics at is refused, and everything else is committed: see `fold.rs`.
//!
//! **Newer.** A Batch for which this build is too old is answered *unavailable* before any of it is folded; its
//! sender keeps it and tries another Server: see `newer.rs`. The attempt's other messages are processed.
//!
//! **Stable** is what the store would still hold after a failover. Beside this loop, without blocking it, runs one
//! wait at a time for the last commit: see `marks.rs`.

mod account;
mod cache;
mod exchange;
mod fold;
mod live;
mod marks;
mod message;
mod newer;
mod plan;
mod rehearsal;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use taba_core::limits::{BATCH_DECODED_BYTES_MAX, BATCH_EVENTS_MAX, COMMIT_PAIRS_MAX};
use taba_core::wire::{Answer, Block, Content};
use taba_core::{Commit, Committed, Loaded, Version, Wanted};

use self::cache::Cache;
pub use self::cache::UnreadableState;
use self::exchange::Actions;
pub use self::exchange::{Env, PlannerAction, PlannerInput, RefusedBlock};
use self::fold::decoded_bytes_max;
use self::marks::{Hours, WaitOutcome, hour_of};
pub use self::marks::{MARK_HOURS, StoreFailed};
use self::message::PendingMessage;
pub use self::message::{CLOCKS_APART_MAX, IncomingMessage};
pub use self::newer::NewerState;
use self::plan::{CommitPlan, LEDGER_PAIRS};
pub use self::rehearsal::{check, wanted_of};
use crate::accounts::{self, ACCOUNT_PAIRS};
use crate::sabotage::{CHECKED, COMMITTED, UNIQUE, is_off};

/// Conflicts in a row after which the messages are returned unprocessed.
const CONFLICTS_MAX: u32 = 16;
/// The number of careful commits after a panic of a Handler: more panics may follow.
const CAREFUL_COMMITS: u32 = 64;

/// The commit loop of one VBucket. At most one load or commit is in flight.
pub struct Planner<T> {
    cache: Cache,
    waiting: VecDeque<PendingMessage<T>>,
    phase: PlannerPhase<T>,
    conflicts: u32,
    /// The number of careful commits still to make.
    careful: u32,
}

/// Events that one commit may fold one by one: other VBuckets of the same worker wait for as long as that takes.
const EVENTS_MAX: u64 = 4 * BATCH_EVENTS_MAX;

/// One attempt to commit: its messages, the pairs that their States, Tabs and marks may need, and the memory that their States
/// may take when they are decoded.
struct Attempt<T> {
    messages: Vec<PendingMessage<T>>,
    pairs: usize,
    bytes: usize,
}

/// When the cache was last compared with the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// In this attempt, after the messages arrived.
    Loaded,
    /// Earlier.
    Cached,
}

enum PlannerPhase<T> {
    Idle,
    Loading {
        attempt: Attempt<T>,
        wanted: Wanted,
    },
    /// Nothing to commit: the answers wait for the store's version.
    Checking {
        attempt: Attempt<T>,
        plan: CommitPlan,
    },
    Noting {
        attempt: Attempt<T>,
        plan: CommitPlan,
        wanted: Wanted,
    },
    Committing {
        attempt: Attempt<T>,
        plan: CommitPlan,
        next: Version,
    },
}

impl<T> Default for Planner<T> {
    fn default() -> Self {
        Self {
            cache: Cache::default(),
            waiting: VecDeque::new(),
            phase: PlannerPhase::Idle,
            conflicts: 0,
            careful: 0,
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
    /// Whether no load and no commit is in flight. A stability wait does not count.
    pub const fn is_idle(&self) -> bool {
        matches!(self.phase, PlannerPhase::Idle)
    }

    /// Whether messages wait for [`PlannerInput::Due`].
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The estimated size of the cache in bytes, with what is set aside for States that are to be decoded.
    pub fn cache_bytes(&self) -> usize {
        let to_decode = match &self.phase {
            PlannerPhase::Loading { attempt, .. }
            | PlannerPhase::Checking { attempt, .. }
            | PlannerPhase::Noting { attempt, .. } => attempt.bytes,
            // What was decoded is in the cache, as changed States or as parts of them.
            PlannerPhase::Idle | PlannerPhase::Committing { .. } => 0,
        };
        self.cache.weight() + to_decode
    }

    /// Drops the least recently used half of the cache; does nothing during a commit.
    pub fn shrink(&mut self) {
        if self.is_idle() {
            self.cache.halve();
        }
    }

    /// Takes one input; adds the actions to `actions`.
    ///
    /// # Panics
    /// On the outcome of an action that it did not request. Then the planner must be discarded; nothing
    /// unacknowledged is stored, and another may replace it.
    pub fn handle(&mut self, input: PlannerInput<T>, env: &Env<'_>, actions: &mut Vec<PlannerAction<T>>) {
        self.step(input, env, actions);
        actions.extend(self.cache.panics.drain(..).map(PlannerAction::Panicked));
    }

    fn step(&mut self, input: PlannerInput<T>, env: &Env<'_>, actions: &mut Actions<T>) {
        match (std::mem::replace(&mut self.phase, PlannerPhase::Idle), input) {
            (phase, PlannerInput::Message { ticket, message, arrived, sent_at }) => {
                self.waiting.push_back(PendingMessage { ticket, message, arrived, sent_at });
                self.phase = phase;
            }
            (phase, PlannerInput::Stabilised(version, result)) => {
                self.phase = phase;
                self.stabilised(version, result, env, actions);
            }
            (PlannerPhase::Idle, PlannerInput::Due) => {
                if let Some(messages) = self.take() {
                    self.attempt(messages, env, actions);
                }
            }
            (phase, PlannerInput::Due) => self.phase = phase,
            (PlannerPhase::Loading { attempt, wanted }, PlannerInput::Loaded(Ok(loaded))) => {
                self.loaded(attempt, &wanted, &loaded, env, actions);
            }
            (PlannerPhase::Checking { attempt, plan }, PlannerInput::Loaded(Ok(loaded))) => {
                if self.cache.is_at(loaded.version) {
                    self.answer(attempt, plan, env, actions);
                } else {
                    self.conflict(attempt.messages, env, actions);
                }
            }
            (PlannerPhase::Noting { attempt, plan, wanted }, PlannerInput::Loaded(Ok(loaded))) => {
                if self.cache.is_at(loaded.version) {
                    self.take_in(&wanted, &loaded, env, actions);
                    self.commit(attempt, plan, env, actions);
                } else {
                    self.conflict(attempt.messages, env, actions);
                }
            }
            (PlannerPhase::Committing { attempt, plan, next }, PlannerInput::Committed(Ok(committed))) => {
                match committed {
                    Committed::Done => self.committed(attempt, plan, next, env, actions),
                    // A store may commit without confirming it, and be asked again by its client library.
                    Committed::Conflict { found } if found == next => {
                        self.committed(attempt, plan, next, env, actions);
                    }
                    _ => self.conflict(attempt.messages, env, actions),
                }
            }
            (PlannerPhase::Committing { attempt, plan, next }, PlannerInput::Committed(Err(StoreFailed)))
                if is_off(COMMITTED) =>
            {
                self.committed(attempt, plan, next, env, actions);
            }
            (
                PlannerPhase::Loading { attempt, .. }
                | PlannerPhase::Checking { attempt, .. }
                | PlannerPhase::Noting { attempt, .. },
                PlannerInput::Loaded(Err(StoreFailed)),
            )
            | (PlannerPhase::Committing { attempt, .. }, PlannerInput::Committed(Err(StoreFailed))) => {
                env.status.store_errors.fetch_add(1, Ordering::Relaxed);
                self.give_back(attempt.messages, actions);
            }
            (_, PlannerInput::Loaded(_) | PlannerInput::Committed(_)) => {
                panic!("an outcome that was not requested")
            }
        }
    }

    /// Takes all waiting messages for an attempt; those that do not fit wait again.
    fn take(&mut self) -> Option<Vec<PendingMessage<T>>> {
        (!self.waiting.is_empty()).then(|| self.waiting.drain(..).collect())
    }

    /// Begins a commit of as many of these messages as fit; the others wait again, before later ones.
    fn attempt(&mut self, mut messages: Vec<PendingMessage<T>>, env: &Env<'_>, actions: &mut Actions<T>) {
        self.cache.begin(self.careful > 0, env.now);
        let mut wanted = self.cache.wanted();
        self.cache.book.touch_head(&mut wanted);
        // The version, a signature, and the Tab of the accounts.
        let mut pairs = 3 + ACCOUNT_PAIRS;
        let (mut states, groups) = (0, self.cache.book.groups());
        let (mut fitting, mut bytes, mut events) = (0, 0_usize, 0);
        for pending in &messages {
            let blocks = || pending.message.blocks().iter().filter(|block| !is_withheld(block));
            let to_decode = blocks().map(|block| decoded_bytes_max(env.handlers, block));
            // One Batch alone may need no more: what is beyond is refused.
            let to_decode = to_decode.fold(0, usize::saturating_add).min(BATCH_DECODED_BYTES_MAX);
            events += blocks().map(Block::unfolded_events).sum::<u64>();
            if fitting > 0 && (bytes + to_decode > BATCH_DECODED_BYTES_MAX || events > EVENTS_MAX) {
                break;
            }
            let of_accounts = |states: usize| states.min(groups);
            let more_states = blocks().count();
            let more = 1 + of_accounts(states + more_states) - of_accounts(states)
                + blocks()
                    .map(|block| self.cache.touch(&block.tab, &block.client, &mut wanted))
                    .sum::<usize>();
            if fitting > 0 && pairs + more + LEDGER_PAIRS > COMMIT_PAIRS_MAX {
                break;
            }
            states += more_states;
            pairs += more;
            bytes += to_decode;
            fitting += 1;
        }
        for pending in messages.drain(fitting..).rev() {
            self.waiting.push_front(pending);
        }
        let attempt = Attempt { messages, pairs, bytes };
        if self.cache.version.is_none() || !wanted.tabs.is_empty() || !wanted.states.is_empty() {
            actions.push(PlannerAction::Load(wanted.clone()));
            self.phase = PlannerPhase::Loading { attempt, wanted };
        } else {
            self.fold(attempt, Freshness::Cached, env, actions);
        }
    }

    fn loaded(
        &mut self,
        attempt: Attempt<T>,
        wanted: &Wanted,
        loaded: &Loaded,
        env: &Env<'_>,
        actions: &mut Actions<T>,
    ) {
        if self.cache.version.is_none() || self.cache.is_at(loaded.version) {
            self.take_in(wanted, loaded, env, actions);
            self.fold(attempt, Freshness::Loaded, env, actions);
        } else {
            // Another Server committed between two loads.
            self.conflict(attempt.messages, env, actions);
        }
    }

    fn take_in(&mut self, wanted: &Wanted, loaded: &Loaded, env: &Env<'_>, actions: &mut Actions<T>) {
        let unreadable = self.cache.load(wanted, loaded, env.handlers);
        actions.extend(unreadable.into_iter().map(PlannerAction::Report));
    }

    /// Folds the messages; everything they need is loaded.
    fn fold(&mut self, attempt: Attempt<T>, known: Freshness, env: &Env<'_>, actions: &mut Actions<T>) {
        let mut plan = CommitPlan::default();
        for pending in &attempt.messages {
            plan.add(&mut self.cache, pending, attempt.pairs, env);
        }
        if self.cache.is_poisoned {
            return self.again_carefully(attempt.messages, env, actions);
        }
        plan.audit();
        if !plan.is_for_commit() {
            if known == Freshness::Loaded || is_off(CHECKED) {
                return self.answer(attempt, plan, env, actions);
            }
            actions.push(PlannerAction::Load(self.cache.wanted()));
            self.phase = PlannerPhase::Checking { attempt, plan };
            return;
        }
        let mut wanted = plan.touch_notes(&mut self.cache);
        account::touch(&self.cache, &plan, &mut wanted);
        if wanted.tabs.is_empty() && wanted.states.is_empty() {
            self.commit(attempt, plan, env, actions);
        } else {
            actions.push(PlannerAction::Load(wanted.clone()));
            self.phase = PlannerPhase::Noting { attempt, plan, wanted };
        }
    }

    fn commit(&mut self, attempt: Attempt<T>, plan: CommitPlan, env: &Env<'_>, actions: &mut Actions<T>) {
        if let Some(newer) = plan.newer_note(&mut self.cache, env) {
            actions.push(PlannerAction::Newer(newer));
            return self.give_back(attempt.messages, actions);
        }
        let without_note = plan.apply_notes(&mut self.cache, env);
        let expect = self.cache.version.expect("the VBucket was loaded before anything was folded");
        let counted = Version { writer: 1, count: expect.count + 1 };
        let next = if is_off(UNIQUE) { counted } else { env.versions.next() };
        account::apply(&mut self.cache, next, env.now);
        let spare = COMMIT_PAIRS_MAX.saturating_sub(attempt.pairs + LEDGER_PAIRS + plan.notes.len());
        let mut states = match self.cache.encode_changed(spare) {
            Ok(states) if !self.cache.is_poisoned => states,
            Ok(_) => return self.again_carefully(attempt.messages, env, actions),
            Err(_) if !self.cache.is_careful => return self.again_carefully(attempt.messages, env, actions),
            Err(panic) => {
                // Each State was encoded on its copy, and read: this Handler fails only sometimes.
                self.cache.panics.extend(panic);
                return self.give_back(attempt.messages, actions);
            }
        };
        env.status.events_without_note.fetch_add(without_note, Ordering::Relaxed);
        states.extend(self.cache.book.write());
        let mut tabs = self.cache.new_tabs();
        if expect == Version::NEVER {
            tabs.push(accounts::index_entry());
        }
        let sender = attempt.messages.iter().map(PendingMessage::sent_hour).min().unwrap_or(0);
        let hours = Hours { server: hour_of(env.now), sender };
        self.cache.marks.sign(next, hours.later());
        let mut commit = Commit::new(expect, next)
            .with_marks(self.cache.marks.moved())
            .with_tabs(tabs)
            .with_states(states);
        let room = COMMIT_PAIRS_MAX.saturating_sub(commit.pairs());
        let old = self.cache.marks.sweep(hours, room);
        commit.marks.extend(old.into_iter().map(|stream| (stream, None)));
        debug_assert!(commit.pairs() <= COMMIT_PAIRS_MAX, "a commit of {} pairs", commit.pairs());
        actions.push(PlannerAction::Commit(commit));
        self.phase = PlannerPhase::Committing { attempt, plan, next };
    }

    fn committed(
        &mut self,
        attempt: Attempt<T>,
        plan: CommitPlan,
        next: Version,
        env: &Env<'_>,
        actions: &mut Actions<T>,
    ) {
        let is_to_wait = self.cache.committed(next);
        env.status.commits.fetch_add(1, Ordering::Relaxed);
        self.answer(attempt, plan, env, actions);
        if is_to_wait {
            wait(next, env, actions);
        }
    }

    fn stabilised(
        &mut self,
        version: Version,
        result: Result<(), StoreFailed>,
        env: &Env<'_>,
        actions: &mut Actions<T>,
    ) {
        let (waited, next) = self.cache.marks.stabilised(version, result);
        let counter = match waited {
            WaitOutcome::Done => &env.status.stable_done,
            WaitOutcome::Failed => &env.status.stable_failed,
            WaitOutcome::Void => &env.status.stable_void,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(next) = next {
            wait(next, env, actions);
        }
    }

    fn answer(&mut self, attempt: Attempt<T>, plan: CommitPlan, env: &Env<'_>, actions: &mut Actions<T>) {
        (self.conflicts, self.careful) = (0, self.careful.saturating_sub(1));
        plan.counts.add_to(env.status);
        actions.extend(plan.refused_blocks(&attempt.messages).map(PlannerAction::Refused));
        actions.extend(plan.newer.iter().cloned().map(PlannerAction::Newer));
        let answers = plan.answers(&self.cache, attempt.messages);
        actions.extend(answers.map(|(ticket, ack)| PlannerAction::Answer(ticket, ack)));
    }

    /// The cache differs from the store: repeats the attempt with the same messages.
    fn conflict(&mut self, messages: Vec<PendingMessage<T>>, env: &Env<'_>, actions: &mut Actions<T>) {
        env.status.conflicts.fetch_add(1, Ordering::Relaxed);
        self.conflicts += 1;
        if self.conflicts > CONFLICTS_MAX {
            return self.give_back(messages, actions);
        }
        self.cache.invalidate();
        self.attempt(messages, env, actions);
    }

    /// A Handler panicked, and cached States may be inconsistent: repeats the attempt carefully.
    fn again_carefully(&mut self, messages: Vec<PendingMessage<T>>, env: &Env<'_>, actions: &mut Actions<T>) {
        self.careful = CAREFUL_COMMITS;
        self.cache.invalidate();
        self.attempt(messages, env, actions);
    }

    /// No change is confirmed: the senders keep their Batches.
    fn give_back(&mut self, messages: Vec<PendingMessage<T>>, actions: &mut Actions<T>) {
        self.conflicts = 0;
        self.cache.reset();
        actions.extend(messages.into_iter().map(|pending| {
            let ack = pending.message.unanswered(Answer::Unavailable);
            PlannerAction::Answer(pending.ticket, ack)
        }));
    }
}

fn is_withheld(block: &Block) -> bool {
    matches!(block.content, Content::Withheld { .. })
}

fn wait<T>(version: Version, env: &Env<'_>, actions: &mut Actions<T>) {
    env.status.stable_begun.fetch_add(1, Ordering::Relaxed);
    actions.push(PlannerAction::Stabilise(version));
}
