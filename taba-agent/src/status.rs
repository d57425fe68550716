//! [`Status`]: what an Agent tells about itself, at `/status` as JSON and at `/metrics` for Prometheus.
//!
//! Counters come in pairs, in and out, so that work between two looks still shows, and each balance can be checked from
//! outside.

mod metrics;

use std::collections::BTreeMap;

use serde::Serialize;
use taba_core::ledger::Why;

use crate::dispatcher::{self, ANSWERS, ServerStatus};
use crate::relay;

/// What an Agent tells about itself. All counts are since its start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The name of this run's stream, 16 hexadecimal digits.
    pub stream: String,
    /// `serving` or `draining`.
    pub phase: &'static str,
    /// Since the start, in seconds.
    pub uptime_secs: f64,
    /// How many VBuckets the deployment has.
    pub vbuckets: u16,
    /// Lanes in use.
    pub lanes: usize,
    /// Incarnations of Clients that are remembered.
    pub clients: usize,
    /// The Spool and its balance.
    pub spool: Spool,
    /// Batches of Clients.
    pub batches: Batches,
    /// Batches of Lanes.
    pub lane_batches: LaneBatches,
    /// Events refused here and counted as dropped, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Events that Servers refused and counted as dropped, by reason.
    pub refused_by_servers: BTreeMap<&'static str, u64>,
    /// Each Server.
    pub servers: Vec<ServerStatus>,
}

/// The Spool: offered = acked + held + turned away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spool {
    /// Bytes that it holds at most.
    pub bytes_max: u64,
    /// Bytes that it holds.
    pub bytes_held: u64,
    /// Events that Clients offered, every repetition of a Batch that was turned away included.
    pub events_offered: u64,
    /// Events that Servers have stored.
    pub events_acked: u64,
    /// Events that are here.
    pub events_held: u64,
    /// Events for which there was no room; their Clients kept them.
    pub events_turned_away: u64,
}

/// Batches of Clients: in = taken + repeated + turned away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Batches {
    /// All that came and could be read.
    pub r#in: u64,
    /// Taken.
    pub taken: u64,
    /// Recognised as taken before.
    pub repeated: u64,
    /// Answered with 503.
    pub turned_away: u64,
}

/// Batches of Lanes: sent = answered (all kinds) + unanswered + in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneBatches {
    /// Sent, every repetition included.
    pub sent: u64,
    /// Answered, by answer.
    pub answered: BTreeMap<&'static str, u64>,
    /// Not answered: the request failed.
    pub unanswered: u64,
    /// Answered in a way that no honest Server answers.
    pub absurd: u64,
}

impl Batches {
    pub(crate) fn of(tally: &relay::Tally) -> Self {
        Self {
            r#in: tally.batches_in,
            taken: tally.batches_taken,
            repeated: tally.batches_repeated,
            turned_away: tally.batches_turned_away,
        }
    }
}

impl LaneBatches {
    pub(crate) fn of(tally: &dispatcher::Tally) -> Self {
        let answered = ANSWERS.iter().map(|(answer, word)| (*word, tally.batches_answered[*answer as usize]));
        Self {
            sent: tally.batches_sent,
            answered: answered.collect(),
            unanswered: tally.batches_unanswered,
            absurd: tally.answers_absurd,
        }
    }
}

pub(crate) fn by_word(events: &BTreeMap<Why, u64>) -> BTreeMap<&'static str, u64> {
    events.iter().map(|(why, events)| (why.as_str(), *events)).collect()
}
