//! A Lane of an earlier run, and its age.

use std::time::Duration;

use taba_core::ledger::{self, Where, Why};
use taba_core::wire::Block;
use taba_core::{ClientId, Timestamp};

use super::Lane;
use super::entry::{LaneEntry, born};
use super::{LaneBounds, LaneKey};
use crate::clock::{CLOCKS_APART_MAX, StreamClock};
use crate::spool::recovery::{RecoveredLane, Sending};
use crate::units::ClockReading;

impl Lane {
    /// A recovered Lane of an earlier run. It first probes how far it is contained in the store.
    pub fn recovered(key: LaneKey, bounds: LaneBounds, found: RecoveredLane, now: ClockReading) -> Self {
        let mut lane = Self { clock: found.clock, ..Self::new(key, bounds) };
        for batch in found.batches {
            let mut notes = Vec::new();
            for (client, loss) in &batch.lost {
                let client = client.clone().unwrap_or_else(|| ledger::stream_client(key.stream));
                if loss.events > 0 {
                    notes.push(damage_note(client.clone(), now.time, loss.events));
                }
                if loss.unrecorded > 0 {
                    notes.push(Block::note(ledger::tab(ledger::RECORDED), client, now.time, loss.unrecorded));
                }
            }
            let mut entry = LaneEntry::recovered(batch, found.clock, now, &notes);
            entry.acked_at = (entry.seq <= found.applied).then_some(now.uptime);
            debug_assert!(lane.entries.is_empty() || entry.seq == lane.last.next(), "there is a gap");
            if lane.entries.is_empty() {
                lane.cursor = entry.seq;
            }
            lane.last = entry.seq;
            lane.events_held += entry.weight.events;
            lane.events_offered = entry.events_before.saturating_add(entry.weight.events);
            lane.entries.push_back(entry);
        }
        lane.begun_before = found.sending;
        lane.begun = lane.found_begun(now);
        lane.sent_through = lane.last;
        lane.cursor = lane.cursor.max(found.applied.min(lane.last).next());
        (lane.must_probe, lane.is_recovered) = (true, true);
        lane
    }

    /// Since when an earlier run may have sent one of its Batches, in microseconds since the start of this one.
    fn found_begun(&self, now: ClockReading) -> Option<i64> {
        match self.begun_before {
            Sending::Unknown => Some(i64::MIN),
            Sending::Never => None,
            Sending::Since(time) => Some(born(time, self.clock, now)),
        }
    }

    /// The clock error of its stream, if that is of an earlier run.
    pub fn found_clock(&self) -> Option<StreamClock> {
        self.is_recovered.then_some(self.clock)
    }

    /// The wall clock was set, or its stream's clock was found to be further ahead: recomputes the ages of an earlier
    /// run's Batches.
    pub fn recompute_ages(&mut self, now: ClockReading, ahead: i64) {
        if self.is_recovered {
            self.clock.measured = self.clock.measured.saturating_sub(ahead);
            self.entries.iter_mut().for_each(|entry| entry.recompute_ages(self.clock, now));
            if self.begun_before != Sending::Never {
                self.begun = self.found_begun(now);
            }
        }
    }

    /// Whether an earlier run began it.
    pub const fn is_recovered(&self) -> bool {
        self.is_recovered
    }

    /// The microseconds by which its newest Batch is in the future, if more than clocks may differ.
    pub fn ahead(&self, now: Duration) -> Option<i64> {
        let ahead = self.entries.back()?.born.saturating_sub(now.as_micros() as i64);
        Some(ahead).filter(|ahead| *ahead > CLOCKS_APART_MAX.as_micros() as i64)
    }

    /// Whether a Batch of an earlier run is too old to be sent, or in the future: one of the two clocks was wrong.
    pub fn is_misdated(&self, now: Duration) -> bool {
        self.is_recovered && (self.is_too_old(now) || self.ahead(now).is_some())
    }
}

/// The Ledger's note of lost events of a Client; of a stream if the Client is unknown.
pub(super) fn damage_note(client: ClientId, now: Timestamp, events: u64) -> Block {
    Block::note(ledger::dropped_tab(Where::Agent, Why::Damaged), client, now, events)
}
