//! What goes into a [`Planner`](super::Planner) and what comes out: [`Env`], [`PlannerInput`], [`PlannerAction`].

use std::time::Duration;

use taba_core::ledger::Why;
use taba_core::wire::Ack;
use taba_core::{
    ClientId, Commit, Committed, Loaded, Registry, TabName, TabType, Timestamp, Version, Wanted,
};

use super::cache::UnreadableState;
use super::marks::StoreFailed;
use super::message::IncomingMessage;
use super::newer::NewerState;
use crate::panics::HandlerPanic;
use crate::status::Status;
use crate::version::Versions;

/// The environment of a [`Planner`](super::Planner), given with each input.
pub struct Env<'a> {
    /// The Tab types that are understood.
    pub handlers: &'a Registry,
    /// Where versions come from.
    pub versions: &'a Versions,
    /// What is counted.
    pub status: &'a Status,
    /// The time.
    pub now: Timestamp,
    /// How far after its arrival an event may lie before it is clamped.
    pub future_max: Duration,
}

/// An input of a [`Planner`](super::Planner).
#[derive(Debug)]
pub enum PlannerInput<T> {
    /// A Batch or a Probe has come for this VBucket. It waits for [`PlannerInput::Due`].
    Message {
        /// Comes back with the answer.
        ticket: T,
        /// The message.
        message: IncomingMessage,
        /// When it came, by the Server's clock.
        arrived: Timestamp,
        /// When it was sent, by the sender's clock.
        sent_at: Timestamp,
    },
    /// It is time to commit what waits. Ignored while a commit is under way.
    Due,
    /// The answer to [`PlannerAction::Load`].
    Loaded(Result<Loaded, StoreFailed>),
    /// The answer to [`PlannerAction::Commit`].
    Committed(Result<Committed, StoreFailed>),
    /// The answer to the [`PlannerAction::Stabilise`] of that version. It may come at any time, also when the wait is no longer
    /// needed.
    Stabilised(Version, Result<(), StoreFailed>),
}

/// A Block that was refused, for the log: the first of each reason in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedBlock {
    /// Its Tab.
    pub tab: TabName,
    /// Whose it is.
    pub client: ClientId,
    /// The type that it came with.
    pub tab_type: TabType,
    /// Why.
    pub why: Why,
    /// How many events it held.
    pub events: u64,
}

/// An action that a [`Planner`](super::Planner) asks for.
#[derive(Debug)]
pub enum PlannerAction<T> {
    /// Load this, then give [`PlannerInput::Loaded`].
    Load(Wanted),
    /// Commit this, then give [`PlannerInput::Committed`].
    Commit(Commit),
    /// Wait until the commit of this version, which is done, is stable; then give [`PlannerInput::Stabilised`]. Nothing waits
    /// for it: loads and commits go on. It takes the place of the wait that was under way, if there was one.
    Stabilise(Version),
    /// Answer a Batch or a Probe.
    Answer(T, Ack),
    /// Say that a stored State cannot be read; Blocks for it are refused.
    Report(UnreadableState),
    /// Say that a Block was refused; its events are counted as dropped.
    Refused(RefusedBlock),
    /// Say that this build is too old for a State; Batches wait for a Server that is not.
    Newer(NewerState),
    /// Say that a Handler panicked; what it panicked at is refused.
    Panicked(HandlerPanic),
}

/// The actions of one input.
pub(super) type Actions<T> = Vec<PlannerAction<T>>;
