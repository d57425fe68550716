//! [`DispatchCounts`]: counters of Batches and requests.

use std::collections::BTreeMap;

use taba_core::ledger::Why;
use taba_core::wire::Answer;

/// Counters of Batches and requests since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DispatchCounts {
    /// Batches and Probes sent, with repetitions.
    pub batches_sent: u64,
    /// Checks among them: Batches, or Blocks of them, that a Server only tries to fold.
    pub checks_sent: u64,
    /// Probes among them.
    pub probes_sent: u64,
    /// Batches among them that were, or may have been, sent before.
    pub batches_replayed: u64,
    /// Rewinds: a Lane learnt that the store holds less than before.
    pub rewinds: u64,
    /// Batches acknowledged, by answer, in the order of [`Answer`]'s numbers.
    pub batches_answered: [u64; 7],
    /// Batches whose request failed, or that the answer did not mention; sent = answered + unanswered + in flight.
    pub batches_unanswered: u64,
    /// Answers that violate the protocol; they are among the answered, and the Batch was sent again.
    pub protocol_violations: u64,
    /// Requests that were too large for a Server or a proxy.
    pub requests_too_large: u64,
    /// Events that Servers refused and counted as dropped, by reason.
    pub refused: BTreeMap<Why, u64>,
}

/// The index of an answer in [`DispatchCounts::batches_answered`], and its word.
pub const ANSWERS: [(Answer, &str); 7] = [
    (Answer::Applied, "applied"),
    (Answer::Duplicate, "duplicate"),
    (Answer::Nak, "nak"),
    (Answer::Unavailable, "unavailable"),
    (Answer::Busy, "busy"),
    (Answer::Misplaced, "misplaced"),
    (Answer::Misdated, "misdated"),
];
