//! The inputs and actions of a [`Planner`](super::Planner): [`Env`], [`PlannerInput`], [`PlannerAction`].

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
#[non_exhaustive]
pub struct Env<'a> {
    /// The registered Handlers.
    pub handlers: &'a Registry,
    /// The source of versions.
    pub versions: &'a Versions,
    /// The counters.
    pub status: &'a Status,
    /// The current time.
    pub now: Timestamp,
    /// How far an event's time may be after its arrival before it is clamped.
    pub future_max: Duration,
}

impl<'a> Env<'a> {
    /// What each input of a Planner is handled with.
    pub const fn new(
        handlers: &'a Registry,
        versions: &'a Versions,
        status: &'a Status,
        now: Timestamp,
        future_max: Duration,
    ) -> Self {
        Self { handlers, versions, status, now, future_max }
    }
}

/// An input of a [`Planner`](super::Planner).
#[derive(Debug)]
pub enum PlannerInput<T> {
    /// A Batch or a Probe for this VBucket. It waits for [`PlannerInput::Due`].
    Message {
        /// Returned with the answer.
        ticket: T,
        /// The message.
        message: IncomingMessage,
        /// Its arrival, by the Server's clock.
        arrived: Timestamp,
        /// Its sending, by the sender's clock.
        sent_at: Timestamp,
    },
    /// Time to commit the waiting messages. Ignored during a commit.
    Due,
    /// The answer to [`PlannerAction::Load`].
    Loaded(Result<Loaded, StoreFailed>),
    /// The answer to [`PlannerAction::Commit`].
    Committed(Result<Committed, StoreFailed>),
    /// The answer to the [`PlannerAction::Stabilise`] of that version. It may come at any time, even when it is no
    /// longer needed.
    Stabilised(Version, Result<(), StoreFailed>),
}

/// A refused Block, for the log: the first of several in a row with one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedBlock {
    /// Its Tab.
    pub tab: TabName,
    /// Its Client.
    pub client: ClientId,
    /// The type it was sent with.
    pub tab_type: TabType,
    /// The reason.
    pub why: Why,
    /// Its number of events.
    pub events: u64,
}

/// An action that a [`Planner`](super::Planner) asks for.
#[derive(Debug)]
pub enum PlannerAction<T> {
    /// Load this, then send [`PlannerInput::Loaded`].
    Load(Wanted),
    /// Commit this, then send [`PlannerInput::Committed`].
    Commit(Commit),
    /// Wait until the finished commit of this version is stable; then send [`PlannerInput::Stabilised`]. Loads and
    /// commits continue meanwhile. Replaces the previous wait, if one is running.
    Stabilise(Version),
    /// Answer a Batch or a Probe.
    Answer(T, Ack),
    /// Report that a stored State cannot be read; Blocks for it are refused.
    Report(UnreadableState),
    /// Report that a Block was refused; its events are counted as dropped.
    Refused(RefusedBlock),
    /// Report that this build is too old for a State; Batches wait for a newer Server.
    Newer(NewerState),
    /// Report that a Handler panicked; the Block is refused.
    Panicked(HandlerPanic),
}

/// The actions of one input.
pub(super) type Actions<T> = Vec<PlannerAction<T>>;
