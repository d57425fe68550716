//! [`Status`]: the state of an Agent, as JSON at `/status` and for Prometheus at `/metrics`.
//!
//! Counters come in pairs of in and out, so that two reads show work in progress, and each balance can be checked
//! from outside.

mod metrics;

use std::collections::BTreeMap;

use serde::Serialize;
use taba_core::SpreadRules;
use taba_core::ledger::Why;

use crate::discovery::DiscoveryStatus;
use crate::dispatcher::{self, ANSWERS, ServerStatus};
use crate::{relay, spool};

/// The state of an Agent. All counts are since its start.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The name of this run's stream, 16 hexadecimal digits.
    pub stream: String,
    /// `serving` or `draining`.
    pub phase: &'static str,
    /// Since the start, in seconds.
    pub uptime_secs: f64,
    /// The number of VBuckets, as set here.
    pub vbuckets: u16,
    /// The number of VBuckets that a Server last reported, if any. If different: set `--vbuckets` to this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vbuckets_of_servers: Option<u16>,
    /// The Tabs that this Agent splits over several VBuckets by Client, as Servers say; absent where there are none.
    #[serde(skip_serializing_if = "is_unspread")]
    pub spread: SpreadRules,
    /// The store that this Agent delivers to, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    /// Servers with another store: nothing is sent to them. Change `--servers`, or accept the store with
    /// `--store-id`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other_stores: BTreeMap<String, String>,
    /// Lanes in use.
    pub lanes: usize,
    /// Incarnations of Clients in memory.
    pub clients: usize,
    /// The Spool and its balance.
    pub spool: SpoolStatus,
    /// Damage of the Spool.
    pub damage: DamageStatus,
    /// Merges of unsent Blocks.
    pub merges: MergeStatus,
    /// Batches of Clients.
    pub batches: BatchStatus,
    /// Batches of Lanes.
    pub lane_batches: LaneBatchStatus,
    /// Events refused here and counted as dropped, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Events that Servers refused and counted as dropped, by reason.
    pub refused_by_servers: BTreeMap<&'static str, u64>,
    /// Events that an earlier run had cut for another number of VBuckets, and that were cut again.
    pub events_cut_anew: u64,
    /// Blocks that no Server accepted, and that were removed from their Batch.
    pub set_aside: SetAsideStatus,
    /// Requests refused because a web page may have sent them, by reason.
    pub requests_refused: BTreeMap<&'static str, u64>,
    /// Log lines of the process that were dropped, because its reader is stalled or its disk is full.
    pub log_lines_dropped: u64,
    /// Where the Servers come from; absent where all are addresses, and no others are looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery: Option<DiscoveryStatus>,
    /// Each Server.
    pub servers: Vec<ServerStatus>,
}

fn is_unspread(rules: &SpreadRules) -> bool {
    rules.iter().next().is_none()
}

/// The Spool, in events: offered + recovered = released + expired + damaged + turned away + held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SpoolStatus {
    /// Its maximum bytes.
    pub bytes_max: u64,
    /// Its bytes, with dead ones not yet removed.
    pub bytes: u64,
    /// Live bytes.
    pub bytes_held: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Events offered by Clients, with repetitions of rejected Batches.
    pub events_offered: u64,
    /// Events recovered from an earlier run.
    pub events_recovered: u64,
    /// Events stored for good and released.
    pub events_released: u64,
    /// Events that became too old to be sent. Servers count those not stored as a gap.
    pub events_expired: u64,
    /// Events rejected for lack of room; their Clients kept them.
    pub events_turned_away: u64,
    /// Events held.
    pub events_held: u64,
    /// Events held that are not known to be stored.
    pub events_unapplied: u64,
    /// The fault of the disk, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Blocks that no Server accepted, and that were removed from their Batch: counted as dropped
/// (`where=agent;why=poison`) by the Server that stores the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SetAsideStatus {
    /// Batches with Blocks set aside.
    pub batches: u64,
    /// Blocks.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastSetAside>,
}

/// The last Block that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LastSetAside {
    /// Its Tab.
    pub tab: String,
    /// Its Client.
    pub client: String,
    /// The last error of Servers or proxies.
    pub why: String,
}

/// Damage of the Spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DamageStatus {
    /// Ranges of bytes that were no records when the log was opened, with a torn tail.
    pub stretches: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Lost events in them, as far as known; those that Servers had stored are not lost.
    pub events: u64,
    /// The same by Client, as far as known.
    pub clients: BTreeMap<String, u64>,
    /// Whether an unknown number of further events was lost.
    pub events_unknown: bool,
    /// Missing segments.
    pub segments_missing: u64,
    /// Files with the number of another segment, or duplicates.
    pub segments_misnamed: u64,
    /// Events found damaged when read back for sending.
    pub events_read_back: u64,
}

/// Merges of unsent Blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MergeStatus {
    /// Merges of a Lane.
    pub count: u64,
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes after.
    pub bytes_after: u64,
    /// Panics of Handlers during merges; those Blocks stay unmerged.
    pub panicked: u64,
}

/// Batches of Clients: in = taken + repeated + turned away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BatchStatus {
    /// Readable Batches that came.
    pub r#in: u64,
    /// Taken.
    pub taken: u64,
    /// Repetitions of taken ones.
    pub repeated: u64,
    /// Answered with 503.
    pub turned_away: u64,
}

/// Batches and Probes of Lanes: sent = answered (all kinds) + unanswered + in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LaneBatchStatus {
    /// Sent, with repetitions.
    pub sent: u64,
    /// Probes among them.
    pub probes: u64,
    /// Checks among them: Blocks that a Server only tries to fold, to find a poison Block.
    pub checks: u64,
    /// Batches among them that were, or may have been, sent before.
    pub replayed: u64,
    /// Rewinds: a Lane learnt that the store holds less than before.
    pub rewinds: u64,
    /// Answered, by answer.
    pub answered: BTreeMap<&'static str, u64>,
    /// Not answered: the request failed.
    pub unanswered: u64,
    /// Answers that violate the protocol.
    pub protocol_violations: u64,
}

impl SpoolStatus {
    pub(crate) fn of(
        room: &spool::SpoolUsage,
        counts: &spool::SpoolCounts,
        held: u64,
        unapplied: u64,
    ) -> Self {
        Self {
            bytes_max: room.bytes_max,
            bytes: room.bytes,
            bytes_held: room.live_bytes,
            segments: room.segments,
            events_offered: counts.offered,
            events_recovered: counts.recovered,
            events_released: counts.released,
            events_expired: counts.expired,
            events_turned_away: counts.refused,
            events_held: held,
            events_unapplied: unapplied,
            error: room.error.clone(),
        }
    }
}

impl DamageStatus {
    pub(crate) fn of(found: &spool::recovery::Damage, events_read_back: u64) -> Self {
        Self {
            stretches: found.stretches,
            bytes: found.bytes,
            events: found.events,
            clients: found.clients.iter().map(|(client, events)| (client.to_string(), *events)).collect(),
            events_unknown: found.has_unknown,
            segments_missing: found.segments_missing,
            segments_misnamed: found.segments_misnamed,
            events_read_back,
        }
    }
}

impl SetAsideStatus {
    pub(crate) fn of(counts: &relay::SetAsideCounts) -> Self {
        let relay::SetAsideCounts { batches, blocks, events, last } = counts.clone();
        let last = last.map(|(tab, client, why)| LastSetAside {
            tab: tab.to_string(),
            client: client.to_string(),
            why,
        });
        Self { batches, blocks, events, last }
    }
}

impl MergeStatus {
    pub(crate) fn of(merges: &relay::MergeCounts) -> Self {
        let relay::MergeCounts { count, bytes_before, bytes_after, panicked } = *merges;
        Self { count, bytes_before, bytes_after, panicked }
    }
}

impl BatchStatus {
    pub(crate) fn of(counts: &relay::IntakeCounts) -> Self {
        Self {
            r#in: counts.batches_in,
            taken: counts.batches_taken,
            repeated: counts.batches_repeated,
            turned_away: counts.batches_turned_away,
        }
    }
}

impl LaneBatchStatus {
    pub(crate) fn of(counts: &dispatcher::DispatchCounts) -> Self {
        let answered =
            ANSWERS.iter().map(|(answer, word)| (*word, counts.batches_answered[*answer as usize]));
        Self {
            sent: counts.batches_sent,
            probes: counts.probes_sent,
            checks: counts.checks_sent,
            replayed: counts.batches_replayed,
            rewinds: counts.rewinds,
            answered: answered.collect(),
            unanswered: counts.batches_unanswered,
            protocol_violations: counts.protocol_violations,
        }
    }
}

pub(crate) fn by_word(events: &BTreeMap<Why, u64>) -> BTreeMap<&'static str, u64> {
    events.iter().map(|(why, events)| (why.as_str(), *events)).collect()
}
