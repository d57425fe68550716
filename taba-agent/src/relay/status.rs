//! [`Status`]: what an Agent tells about itself, at `/status` as JSON and at `/metrics` for Prometheus.
//!
//! Counters come in pairs, in and out, so that work between two looks still shows, and each balance can be checked from
//! outside.

mod metrics;

use std::collections::BTreeMap;

use serde::Serialize;
use taba_core::ledger::Why;

use crate::dispatcher::{self, ANSWERS, ServerStatus};
use crate::{relay, spool};

/// What an Agent tells about itself. All counts are since its start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The name of this run's stream, 16 hexadecimal digits.
    pub stream: String,
    /// `serving` or `draining`.
    pub phase: &'static str,
    /// Since the start, in seconds.
    pub uptime_secs: f64,
    /// How many VBuckets the deployment has, as this Agent is set.
    pub vbuckets: u16,
    /// How many it has as a Server said last; absent before any did. Not equal: set `--vbuckets` to this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vbuckets_of_servers: Option<u16>,
    /// The store that this Agent delivers to; absent before it met one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    /// Servers that have another store, and which: nothing is sent to them. Point `--servers` elsewhere, or accept the store
    /// with `--store-id`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other_stores: BTreeMap<String, String>,
    /// Lanes in use.
    pub lanes: usize,
    /// Incarnations of Clients that are remembered.
    pub clients: usize,
    /// The Spool and its balance.
    pub spool: SpoolStatus,
    /// What of it could not be read any more.
    pub damage: DamageStatus,
    /// What merging did to what could not be sent.
    pub merges: MergeStatus,
    /// Batches of Clients.
    pub batches: BatchStatus,
    /// Batches of Lanes.
    pub lane_batches: LaneBatchStatus,
    /// Events refused here and counted as dropped, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Events that Servers refused and counted as dropped, by reason.
    pub refused_by_servers: BTreeMap<&'static str, u64>,
    /// Events that an earlier run had cut for another number of VBuckets than Servers have, and that were cut anew.
    pub events_cut_anew: u64,
    /// What no Server took, and was taken out of its Batch so that the rest goes on.
    pub set_aside: SetAsideStatus,
    /// Lines of the process's log that were dropped: nobody reads it, or its disk is full.
    pub log_lines_dropped: u64,
    /// Each Server.
    pub servers: Vec<ServerStatus>,
}

/// The Spool, in events: offered + recovered = released + expired + damaged + turned away + held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpoolStatus {
    /// Bytes that it takes at most.
    pub bytes_max: u64,
    /// Bytes that it takes, what is dead and not yet removed included.
    pub bytes: u64,
    /// Bytes of what is held.
    pub bytes_held: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Events that Clients offered, every repetition of a Batch that was turned away included.
    pub events_offered: u64,
    /// Events that an earlier run had left.
    pub events_recovered: u64,
    /// Events that are stored for good, and were released.
    pub events_released: u64,
    /// Events that became too old to be sent. Servers count those that were not stored, as a gap.
    pub events_expired: u64,
    /// Events for which there was no room; their Clients kept them.
    pub events_turned_away: u64,
    /// Events that are here.
    pub events_held: u64,
    /// Events among them that are not known to be stored.
    pub events_unapplied: u64,
    /// What is wrong with the disk, if something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What no Server took, and was taken out of its Batch: counted as dropped (`where=agent;why=poison`) by the Server that
/// takes the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SetAsideStatus {
    /// Batches of which something was set aside.
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
pub struct LastSetAside {
    /// Its Tab.
    pub tab: String,
    /// Its Client.
    pub client: String,
    /// What Servers, or proxies, said or did.
    pub why: String,
}

/// What of the Spool could not be read any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DamageStatus {
    /// Stretches of bytes that were no records when the log was opened: a torn tail is one.
    pub stretches: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Events in them, as far as that is known; those that Servers had stored before are not lost.
    pub events: u64,
    /// The same by Client, as far as that is known.
    pub clients: BTreeMap<String, u64>,
    /// Whether more events were lost than `events`, and nobody knows how many.
    pub events_unknown: bool,
    /// Segments that were not there at all.
    pub segments_missing: u64,
    /// Files that stood under the number of another segment, or twice.
    pub segments_misnamed: u64,
    /// Events that were found damaged when they were to be sent.
    pub events_read_back: u64,
}

/// What merging did to what could not be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MergeStatus {
    /// How often a Lane was merged.
    pub count: u64,
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes after.
    pub bytes_after: u64,
    /// How often a Handler panicked over it; then the Blocks stay as they are.
    pub panicked: u64,
}

/// Batches of Clients: in = taken + repeated + turned away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BatchStatus {
    /// All that came and could be read.
    pub r#in: u64,
    /// Taken.
    pub taken: u64,
    /// Recognised as taken before.
    pub repeated: u64,
    /// Answered with 503.
    pub turned_away: u64,
}

/// Batches and Probes of Lanes: sent = answered (all kinds) + unanswered + in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneBatchStatus {
    /// Sent, every repetition included.
    pub sent: u64,
    /// Probes among them.
    pub probes: u64,
    /// Checks among them: Blocks that a Server only tries to fold, to find what it fails on.
    pub checks: u64,
    /// Batches among them that had been sent before, or may have been by an earlier run.
    pub replayed: u64,
    /// How often a Lane learnt that the store holds less than it did.
    pub rewinds: u64,
    /// Answered, by answer.
    pub answered: BTreeMap<&'static str, u64>,
    /// Not answered: the request failed.
    pub unanswered: u64,
    /// Answers that violate the protocol: no correct Server gives them.
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
