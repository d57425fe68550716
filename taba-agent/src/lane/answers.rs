//! The effect of answers on a Lane.

use std::time::Duration;

use taba_core::SeqNo;
use taba_core::wire::{Ack, Answer};

use super::{Lane, Progress, ReleasedBatches};
use crate::sabotage::{CONFIRM, is_off};

impl Lane {
    /// Applies the answer to the message in flight; returns the released Batches.
    pub fn acknowledge(&mut self, now: Duration, ack: &Ack) -> (Progress, ReleasedBatches) {
        debug_assert!(self.in_flight.is_some(), "an answer without a question");
        let Some(in_flight) = self.in_flight.take() else {
            return (Progress::ProtocolViolation, ReleasedBatches::default());
        };
        let sent = self.cursor;
        let beyond = if self.is_recovered { ack.applied.min(self.last) } else { ack.applied };
        let mut ack = ack.clone();
        (ack.applied, ack.stable) = (beyond, ack.stable.min(beyond));
        let ack = &ack;
        let progress = match ack.answer {
            Answer::Unavailable | Answer::Busy | Answer::Misplaced | Answer::Misdated => Progress::Later,
            // A mark above everything sent is not of this Lane.
            _ if ack.applied > self.sent_through => Progress::ProtocolViolation,
            Answer::Applied if in_flight.is_probe => self.probed(now, ack.applied),
            _ if in_flight.is_probe => Progress::ProtocolViolation,
            Answer::Applied | Answer::Duplicate if ack.applied >= sent => self.applied(now, ack.applied),
            Answer::Applied | Answer::Duplicate => Progress::ProtocolViolation,
            // The store may have gone back to any earlier mark, also below the base. Then sending continues at the
            // base, and the Server counts the gap.
            Answer::Nak => {
                self.rewind(ack.applied);
                if self.cursor == sent { Progress::Later } else { Progress::Rewound }
            }
        };
        if progress == Progress::Later {
            self.put_away_next();
        }
        let mut released = ReleasedBatches::default();
        if ack.answer == Answer::Applied && matches!(progress, Progress::Applied(_) | Progress::Rewound) {
            self.stable = self.stable.max(ack.stable.min(ack.applied));
            let through = if is_off(CONFIRM) { ack.applied } else { ack.applied.min(ack.stable) };
            self.confirm(through, in_flight.sent_at, &mut released);
            self.confirm_loss(now, ack, in_flight.sent_at);
            self.probe_not_before = now + self.bounds.probe_interval;
        }
        self.audit();
        (progress, released)
    }

    fn applied(&mut self, now: Duration, through: SeqNo) -> Progress {
        for entry in self.entries.iter_mut().take_while(|entry| entry.seq <= through) {
            if entry.acked_at.is_none() {
                entry.acked_at = Some(now);
            }
            if entry.seq >= self.cursor {
                entry.put_away();
            }
        }
        self.cursor = self.cursor.max(through.next());
        Progress::Applied(through)
    }

    fn probed(&mut self, now: Duration, applied: SeqNo) -> Progress {
        self.must_probe = false;
        if applied.next() < self.cursor {
            let before = self.cursor;
            self.rewind(applied);
            if self.cursor < before {
                return Progress::Rewound;
            }
        }
        self.applied(now, applied)
    }

    fn rewind(&mut self, applied: SeqNo) {
        self.cursor = applied.next().clamp(self.base(), self.cursor);
        self.stable = SeqNo::NONE;
        if let Some(loss) = self.loss.as_mut().filter(|loss| loss.through > applied) {
            loss.acked_at = None;
        }
        for entry in self.entries.iter_mut().rev().take_while(|entry| entry.seq > applied) {
            entry.acked_at = None;
        }
    }

    /// The request failed: the Batch may or may not have been stored, and is sent again unchanged.
    pub fn give_back(&mut self) {
        debug_assert!(self.in_flight.is_some(), "nothing was taken");
        self.in_flight = None;
        self.put_away_next();
    }

    /// The request was rejected before any of it was processed: what was in flight counts as not sent.
    pub fn turned_away(&mut self) {
        debug_assert!(self.in_flight.is_some(), "nothing was taken");
        if let Some(in_flight) = self.in_flight.take() {
            (self.sent_through, self.begun) = (in_flight.sent_before, in_flight.begun_before);
        }
    }

    /// Drops content that was read back for sending: many Lanes may wait for one Server. Content kept since it came
    /// stays, as long as there is room.
    fn put_away_next(&mut self) {
        let next = self.index(self.cursor);
        if let Some(index) = next.filter(|index| self.entries[*index].is_fetched) {
            self.entries[index].put_away();
        }
    }
}
