//! The inputs and actions of the Dispatcher: [`Input`], [`Action`].

use std::time::Duration;

use taba_core::Timestamp;
use taba_core::wire::Ack;

use super::request::{Request, RequestId};
use crate::lane::{LaneKey, OutgoingBatch, ReleasedBatches};
use crate::spool::Fetch;

/// An input of the Dispatcher.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A new Server process was seen: the store may hold less than before, so what Lanes keep is probed at once.
    NewServer,
    /// A request was answered, with one acknowledgement for each of its Lanes, in any order.
    Answered {
        /// The request.
        request: RequestId,
        /// The acknowledgements.
        acks: Vec<Ack>,
        /// The Server's time, if it was in the answer.
        server_time: Option<Timestamp>,
    },
    /// A request failed: no answer, or one that says nothing about its Batches.
    Failed {
        /// The request.
        request: RequestId,
        /// The class of the failure.
        cause: FailureCause,
        /// The failure, for people.
        why: String,
        /// The least time until the Server may be asked again.
        retry_after: Option<Duration>,
    },
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCause {
    /// The Server is unavailable, full, or slow: nothing is known about the request.
    Away,
    /// No connection was made: nothing of the request was sent.
    Unreached,
    /// The connection broke while the Server had the request, which may be the cause.
    Broken,
    /// The Server, or a proxy, rejected the request. Nothing of it was processed.
    Refused,
    /// The Server, or a proxy, says that the request is too large. Nothing of it was processed.
    TooLarge,
}

/// Blocks to remove from their Batch, because no Server accepts them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoisonBlocks {
    /// The whole Batch.
    pub batch: OutgoingBatch,
    /// Indices of the Blocks in it, ascending.
    pub blocks: Vec<usize>,
    /// The last error of Servers or proxies, for people.
    pub why: String,
}

/// An action of the Dispatcher.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send this.
    Send(Request),
    /// These are stored for good: release them.
    Release(ReleasedBatches),
    /// These are too old to be sent. Servers count what was not stored as lost.
    Expire(ReleasedBatches),
    /// Set these Blocks aside, and replace the Batch by the rest.
    SetAside(PoisonBlocks),
    /// Cut the unsent part of this Lane into Batches of at most this many bytes.
    Recut(LaneKey, usize),
    /// Read back the content of this Batch, and pass it to [`Dispatcher::fetched`](super::Dispatcher::fetched).
    Fetch(Fetch),
    /// A Server says that this Lane is not for its deployment.
    Misplaced(LaneKey),
}
