//! The lost events of each Lane, and their Clients.
//!
//! What is missing between two recovered Batches, or after the last one, is certainly lost: Batches are released from
//! the front. What is missing before the first one was lost, or released after the last checkpoint. The Server knows:
//! a Batch that it has is never folded again, so the notes are sent in any case. They are reported as lost if records
//! of Clients or whole segments are missing that can have held them.
//!
//! The number of lost events of a Lane follows from the counts in its readable records. Their Clients follow from the
//! counts of the Clients: if the Lanes together lack as many events as the Clients' records, or if only one Client
//! lost any, the events are theirs; otherwise (some were stored and released before, or lost events had been merged)
//! they are noted under the stream, without a Client.

use std::collections::BTreeMap;

use taba_core::{ClientId, SeqNo};

use super::replay::{Replay, ReplayedBatch, ReplayedLane};
use super::{LostEvents, Recovered, RecoveredBatch, RecoveredLane};
use crate::units::LaneKey;

/// A Batch, and whether its Lane lacks events before its first recovered one.
type Closed = (RecoveredBatch, bool);

/// Evaluates the replayed records.
pub(super) fn finish(mut replay: Replay) -> Recovered {
    let is_damaged = replay.damage.stretches > 0;
    let mut lanes: BTreeMap<LaneKey, Vec<Closed>> = BTreeMap::new();
    for (key, lane) in std::mem::take(&mut replay.lanes) {
        let batches = close(lane, is_damaged);
        if !batches.is_empty() {
            lanes.insert(key, batches);
        }
    }
    let applied = |key: &LaneKey| replay.applied.get(key).copied().unwrap_or_default();
    // Acknowledged Batches are stored.
    let open = |key: &LaneKey, batch: &RecoveredBatch| batch.seq > applied(key);
    let lost = |is_front: bool| -> u64 {
        let all = lanes.iter().flat_map(|(key, batches)| batches.iter().map(move |batch| (key, batch)));
        let counted = all.filter(|(key, (batch, front))| *front == is_front && open(key, batch));
        counted.map(|(_, (batch, _))| batch.events_lost()).sum()
    };
    let (certain, front) = (lost(false), lost(true));
    let clients_lack: u64 = replay.clients_lost.values().sum();
    let nameless: u64 =
        lanes.values().flatten().filter_map(|(batch, _)| batch.lost.get(&None)).map(|loss| loss.events).sum();
    let counts_front = replay.damage.segments_missing > 0 || (nameless > 0 && clients_lack > certain);
    replay.damage.events = if counts_front { certain + front } else { certain };
    let counted = lanes.iter_mut().flat_map(|(key, batches)| {
        let applied = replay.applied.get(key).copied().unwrap_or_default();
        batches.iter_mut().filter(move |(batch, is_front)| batch.seq > applied && (counts_front || !is_front))
    });
    replay.damage.clients = attribute(counted.map(|(batch, _)| batch).collect(), replay.clients_lost);
    let mut incarnations: Vec<_> = replay.incarnations.into_values().collect();
    incarnations.sort_by_key(|(used, _)| *used);
    let found = |(key, batches): (LaneKey, Vec<Closed>)| {
        let applied = replay.applied.get(&key).copied().unwrap_or_default();
        let clock = replay.clocks.get(&key.stream).copied().unwrap_or_default();
        let sending = replay.sendings.get(&key.stream).copied().unwrap_or_default();
        let batches = batches.into_iter().map(|(batch, _)| batch).collect();
        (key, RecoveredLane { applied, batches, clock, sending })
    };
    Recovered {
        lanes: lanes.into_iter().map(found).collect(),
        incarnations: incarnations.into_iter().map(|(_, taken)| taken).collect(),
        damage: replay.damage,
        ..Recovered::default()
    }
}

/// The Batches of a Lane without gaps, each with its lost events.
fn close(lane: ReplayedLane, is_damaged: bool) -> Vec<Closed> {
    let ReplayedLane { batches: found, start, end } = lane;
    let mut batches: Vec<Closed> = Vec::new();
    // The next number, and the events before it. Batches that were live at the last checkpoint and are missing were
    // released since, unless something is damaged: then the Server is asked.
    let mut next = start.filter(|_| is_damaged);
    for (seq, batch) in found {
        // Its first fragment was in a removed segment, and a segment is only removed without live content.
        if batches.is_empty() && batch.is_holed && !is_damaged {
            continue;
        }
        let (expected, events) = next.unwrap_or((seq, batch.events_before));
        fill(&mut batches, (expected, events), (seq, batch.events_before), batch.taken_at);
        let end = batch.events_before.saturating_add(batch.events).saturating_add(batch.events_lost());
        next = Some((seq + 1, end.max(events)));
        batches.push((whole(seq, batch), false));
    }
    if let Some((expected, events)) = next.filter(|_| is_damaged)
        && end.1 > events
    {
        let taken_at = batches.last().map(|(last, _)| last.taken_at).unwrap_or_default();
        fill(&mut batches, (expected, events), (end.0 + 1, end.1), taken_at);
    }
    batches
}

/// Fills the gap between these numbers, each with the events before it: by empty Batches, the first of which lacks
/// all the events; or by extending the Batch before.
fn fill(batches: &mut Vec<Closed>, from: (u64, u64), to: (u64, u64), taken_at: taba_core::Timestamp) {
    let lost = to.1.saturating_sub(from.1);
    if from.0 >= to.0 {
        if let Some((last, _)) = batches.last_mut().filter(|_| lost > 0) {
            last.lost.entry(None).or_default().events += lost;
        }
        return;
    }
    let is_front = batches.is_empty();
    for seq in from.0..to.0 {
        let is_first = seq == from.0;
        let missing = RecoveredBatch {
            seq: SeqNo(seq),
            events_before: if is_first { to.1 - lost } else { to.1 },
            blocks: 0,
            events: 0,
            lost: if is_first && lost > 0 {
                BTreeMap::from([(None, LostEvents { events: lost, unrecorded: 0 })])
            } else {
                BTreeMap::new()
            },
            taken_at,
            locations: Vec::new(),
        };
        batches.push((missing, is_front));
    }
}

fn whole(seq: u64, batch: ReplayedBatch) -> RecoveredBatch {
    RecoveredBatch {
        seq: SeqNo(seq),
        events_before: batch.events_before,
        blocks: batch.blocks,
        events: batch.events,
        lost: batch.lost,
        taken_at: batch.taken_at,
        locations: batch.locations,
    }
}

/// Attributes lost events to Clients; returns each Client's loss, as far as known.
fn attribute(batches: Vec<&mut RecoveredBatch>, clients: BTreeMap<ClientId, u64>) -> BTreeMap<ClientId, u64> {
    let lanes_lack: u64 =
        batches.iter().filter_map(|batch| batch.lost.get(&None)).map(|loss| loss.events).sum();
    let clients_lack: u64 = clients.values().sum();
    let is_known = lanes_lack == clients_lack || (clients.len() == 1 && lanes_lack < clients_lack);
    let mut lacking = clients.into_iter().filter(|_| is_known).peekable();
    let mut lost = BTreeMap::new();
    for batch in batches {
        let mut left = batch.lost.remove(&None).unwrap_or_default().events;
        while left > 0
            && let Some((client, lacks)) = lacking.peek_mut()
        {
            let events = left.min(*lacks);
            // With the record of a Client's Batch, the Client's own notes are lost.
            let loss = batch.lost.entry(Some(client.clone())).or_default();
            (loss.events, loss.unrecorded) = (loss.events + events, loss.unrecorded + events);
            (left, *lacks) = (left - events, *lacks - events);
            if *lacks == 0 {
                lacking.next();
            }
        }
        if left > 0 {
            batch.lost.insert(None, LostEvents { events: left, unrecorded: 0 });
        }
        for (client, loss) in &batch.lost {
            if let Some(client) = client.as_ref().filter(|_| loss.events > 0) {
                *lost.entry(client.clone()).or_default() += loss.events;
            }
        }
    }
    lost
}
