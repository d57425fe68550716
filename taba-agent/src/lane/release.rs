//! Releases Batches: confirmed, expired, or to make room.

use std::time::Duration;

use taba_core::SeqNo;
use taba_core::wire::Ack;

use super::entry::LaneEntry;
use super::{LOSS_AGE_MAX, Lane, ReleasedBatches};
use crate::sabotage::{CONFIRM, is_off};
use crate::spool::SegmentId;
use crate::units::BATCH_AGE_MAX;

/// Everything up to `through` is gone here, and some of it may not be stored. Every message says so with its base;
/// and like a Batch this is kept until it is confirmed that the store knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct LostBatches {
    pub(super) through: SeqNo,
    pub(super) acked_at: Option<Duration>,
    /// The earliest time at which a Server may have had the last of it, in microseconds since the start of this run.
    since: i64,
}

impl Lane {
    /// The store knows of the loss; once that is confirmed, nothing is left to report.
    pub(super) fn confirm_loss(&mut self, now: Duration, ack: &Ack, sent_at: Duration) {
        let Some(loss) = self.loss.as_mut().filter(|loss| loss.through <= ack.applied) else { return };
        match loss.acked_at {
            None => loss.acked_at = Some(now),
            Some(acked) if acked + self.bounds.confirm_after <= sent_at && loss.through <= ack.stable => {
                self.loss = None;
            }
            Some(_) => {}
        }
    }

    /// Releases the Batches that an answer to a message sent at `sent_at` confirms.
    pub(super) fn confirm(&mut self, through: SeqNo, sent_at: Duration, released: &mut ReleasedBatches) {
        while let Some(oldest) = self.entries.front() {
            let is_confirmed =
                oldest.acked_at.is_some_and(|acked| acked + self.bounds.confirm_after <= sent_at)
                    || is_off(CONFIRM);
            if oldest.seq > through || oldest.seq >= self.cursor || !is_confirmed {
                break;
            }
            self.pop(released);
        }
    }

    fn pop(&mut self, released: &mut ReleasedBatches) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.events_held -= entry.weight.events;
        released.events += entry.weight.events;
        released.batches += 1;
        released.locations.extend(entry.locations);
    }

    /// When a Lane without anything to send should probe for confirmation; `None` when it keeps nothing, or has
    /// something to send.
    pub fn probe_at(&self) -> Option<Duration> {
        if self.in_flight.is_some() || self.next().is_some() {
            return None;
        }
        let kept = self.entries.back().map(|entry| entry.acked_at);
        let told = self.loss.map(|loss| loss.acked_at);
        // Unacknowledged Batches are sent, and unreported losses are reported, first.
        let newest = kept.into_iter().chain(told).max()??;
        Some((newest + self.bounds.confirm_after).max(self.probe_not_before))
    }

    /// When a Lane whose next Batch waits for the Spool should probe: a full disk may have no room for the Batch
    /// until something is released. `None` when it keeps nothing acknowledged, or probes anyway.
    pub fn probe_before_batch_at(&self) -> Option<Duration> {
        if self.in_flight.is_some() || self.must_probe {
            return None;
        }
        let acked_at = self.entries.front()?.acked_at?;
        Some((acked_at + self.bounds.confirm_after).max(self.probe_not_before))
    }

    /// Sends a Probe next.
    pub fn probe(&mut self) {
        self.must_probe = true;
    }

    /// Whether its oldest Batch is too old to be sent.
    pub(super) fn is_too_old(&self, now: Duration) -> bool {
        self.entries.front().is_some_and(|oldest| self.age(oldest, now) > BATCH_AGE_MAX.as_micros() as i64)
    }

    /// The longest time for which a Server may have had a Batch; 0 if nothing of this Lane was sent.
    fn age(&self, entry: &LaneEntry, now: Duration) -> i64 {
        self.begun.map_or(0, |begun| (now.as_micros() as i64).saturating_sub(entry.born.max(begun)))
    }

    /// Releases Batches that are too old to be sent, unless they are in flight. Those not acknowledged are lost: the
    /// Server counts them, unless it has them, when the next message has the new base.
    pub fn expire(&mut self, now: Duration) -> ReleasedBatches {
        let mut released = ReleasedBatches::default();
        let old = |since: i64| (now.as_micros() as i64).saturating_sub(since);
        let loss_age_max = LOSS_AGE_MAX.as_micros() as i64;
        // Its Lane's mark may be gone.
        let is_given_up = self.loss.take_if(|loss| old(loss.since) > loss_age_max).is_some();
        while let Some(oldest) =
            self.entries.front().filter(|old| self.age(old, now) > BATCH_AGE_MAX.as_micros() as i64)
        {
            let (seq, is_lost) = (oldest.seq, oldest.seq >= self.cursor);
            let since = oldest.born.max(self.begun.unwrap_or(i64::MIN));
            if self.in_flight.is_some() && is_lost {
                break;
            }
            self.pop(&mut released);
            if is_lost {
                let loss = LostBatches { through: seq, acked_at: None, since };
                self.loss = Some(loss).filter(|_| old(since) <= loss_age_max);
                // Reporting it moves the mark as far as sending it would.
                self.sent_through = self.sent_through.max(seq);
            }
        }
        if (released.batches > 0 || is_given_up) && self.entries.is_empty() {
            // With nothing to send or report, there is nothing to probe.
            self.must_probe = self.loss.is_some_and(|loss| loss.acked_at.is_none());
        }
        self.cursor = self.cursor.max(self.base());
        self.audit();
        released
    }

    /// Releases Batches in this segment that are stable, to make room. If the store goes back all the same, they
    /// count as a gap.
    pub fn release_stable(&mut self, segment: SegmentId) -> ReleasedBatches {
        let mut released = ReleasedBatches::default();
        let stands = |entry: &LaneEntry| entry.locations.iter().any(|location| location.segment == segment);
        let last = self.entries.iter().filter(|entry| stands(entry)).map(|entry| entry.seq).max();
        let through = last.unwrap_or_default().min(self.stable);
        while self.entries.front().is_some_and(|oldest| oldest.seq <= through && oldest.seq < self.cursor) {
            self.pop(&mut released);
        }
        self.audit();
        released
    }
}
