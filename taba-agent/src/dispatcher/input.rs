//! What goes into the Dispatcher and what comes out: [`Input`], [`Action`].

use std::time::Duration;

use taba_core::wire::Ack;

use super::request::{Request, RequestId};
use crate::lane::Released;

/// What the Dispatcher is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A request was answered, with one acknowledgement for each of its Lanes, in any order.
    Answered {
        /// Which request.
        request: RequestId,
        /// What the Server said.
        acks: Vec<Ack>,
    },
    /// A request was not answered, or not in a way that says anything about its Batches.
    Failed {
        /// Which request.
        request: RequestId,
        /// What happened, for people.
        why: String,
        /// How long the Server asks to be left alone, at least.
        retry_after: Option<Duration>,
    },
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send this.
    Send(Request),
    /// This is stored for good, and no longer needed here.
    Release(Released),
    /// This is too old to be sent. If it was not stored, the Server counts it as lost.
    Expire(Released),
    /// So many events were found damaged when they were read back; the Ledger is told in their place.
    Damaged(u64),
}
