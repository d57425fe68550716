//! What goes into the Dispatcher and what comes out: [`Input`], [`Action`].

use std::time::Duration;

use taba_core::Timestamp;
use taba_core::wire::Ack;

use super::request::{Request, RequestId};
use crate::lane::{LaneKey, OutgoingBatch, ReleasedBatches};
use crate::spool::Fetch;

/// What the Dispatcher is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A Server process answers that was not seen before: the store may hold less than it did. What Lanes keep in case of
    /// that is asked after at once.
    NewServer,
    /// A request was answered, with one acknowledgement for each of its Lanes, in any order.
    Answered {
        /// Which request.
        request: RequestId,
        /// What the Server said.
        acks: Vec<Ack>,
        /// What time the Server has, if it said so.
        server_time: Option<Timestamp>,
    },
    /// A request was not answered, or not in a way that says anything about its Batches.
    Failed {
        /// Which request.
        request: RequestId,
        /// What that says about its Batches.
        cause: FailureCause,
        /// What happened, for people.
        why: String,
        /// How long the Server asks to be left alone, at least.
        retry_after: Option<Duration>,
    },
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCause {
    /// The Server is away, full, or slow: nothing is said about the request.
    Away,
    /// No connection was made: nothing of the request has left this machine.
    Unreached,
    /// The connection broke while the Server had the request: it may be what the Server failed on.
    Broken,
    /// The Server, or a proxy before it, turned the request away for what it is. Nothing of it was taken.
    Refused,
    /// The Server, or a proxy before it, says that the request is too large. Nothing of it was taken.
    TooLarge,
}

/// Blocks that no Server takes, to be taken out of their Batch.
#[derive(Clone, Debug)]
pub struct PoisonBlocks {
    /// The Batch, whole.
    pub batch: OutgoingBatch,
    /// Places of the Blocks in it, ascending.
    pub blocks: Vec<usize>,
    /// What Servers, or proxies, said or did last, for people.
    pub why: String,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send this.
    Send(Request),
    /// This is stored for good, and no longer needed here.
    Release(ReleasedBatches),
    /// This is too old to be sent. If it was not stored, the Server counts it as lost.
    Expire(ReleasedBatches),
    /// Set these Blocks aside, and put the rest of the Batch in its place.
    SetAside(PoisonBlocks),
    /// Cut what of this Lane was never sent into Batches of at most so many bytes.
    Recut(LaneKey, usize),
    /// Read back the content of this Batch, and give it to [`Dispatcher::fetched`](super::Dispatcher::fetched).
    Fetch(Fetch),
    /// A Server says that this Lane is not meant for its deployment.
    Misplaced(LaneKey),
}
