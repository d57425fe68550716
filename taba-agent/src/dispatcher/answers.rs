//! What follows from the answer to a request, or from its failure.

use std::collections::BTreeMap;
use std::time::Duration;

use taba_core::wire::{Ack, Answer};

use super::isolation::Isolation;
use super::{Action, Dispatcher, FailureCause, InFlightRequest, LaneState, RETRY_AFTER_MAX, RequestId};
use crate::lane::{LaneKey, NextMessage, Progress, ReleasedBatches};

/// A Lane that has waited in vain for a Server keeps to those that are known to answer for so many times as long: so it
/// spends no more than a fifth of its time on waiting in vain.
const WARY_FACTOR: u32 = 4;

impl Dispatcher {
    pub(super) fn answered(
        &mut self,
        now: Duration,
        request: RequestId,
        acks: Vec<Ack>,
        actions: &mut Vec<Action>,
    ) {
        let Some(sent_request) = self.in_flight.remove(&request) else { return };
        let slow_after = self.slow_after();
        self.servers[sent_request.server].answered(now, sent_request.sent_at, slow_after);
        let name = |ack: &Ack| LaneKey { stream: ack.stream, vbucket: ack.vbucket };
        let mut acks: BTreeMap<LaneKey, Ack> = acks.into_iter().map(|ack| (name(&ack), ack)).collect();
        if sent_request.is_check {
            return sent_request.lanes.into_iter().for_each(|key| self.checked(now, key, acks.get(&key)));
        }
        let mut released = ReleasedBatches::default();
        for key in sent_request.lanes {
            let ack = acks.remove(&key);
            let of_lane = self.acknowledge(now, sent_request.server, key, ack.as_ref());
            if ack.is_some_and(|ack| ack.answer == Answer::Misplaced) {
                actions.push(Action::Misplaced(key));
            }
            released.add(of_lane);
        }
        self.events_held -= released.events;
        if released.batches > 0 {
            actions.push(Action::Release(released));
        }
    }

    pub(super) fn failed(
        &mut self,
        now: Duration,
        request: RequestId,
        cause: FailureCause,
        (why, retry_after): (String, Option<Duration>),
        actions: &mut Vec<Action>,
    ) {
        let Some(sent_request) = self.in_flight.remove(&request) else { return };
        let server = &mut self.servers[sent_request.server];
        if cause == FailureCause::TooLarge {
            self.counts.requests_too_large += 1;
            server.too_large(sent_request.sent_at, sent_request.bytes, why.clone());
        } else {
            let wait = self.backoff.after(server.health().failures().saturating_add(1));
            let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
            server.failed(now, sent_request.sent_at, now + wait.max(asked), why.clone());
        }
        if sent_request.lanes.is_empty() {
            self.ask_again(now);
        }
        self.counts.batches_unanswered += sent_request.lanes.len() as u64;
        // Back to the front, in their order: they have waited longest.
        for key in sent_request.lanes.iter().rev() {
            self.isolate(now, *key, (cause, &why), &sent_request, actions);
            let scheduled = self.scheduled(*key);
            scheduled.wary_until = now + WARY_FACTOR * now.saturating_sub(sent_request.sent_at);
            if matches!(scheduled.place, LaneState::BackingOff(_)) {
                continue;
            }
            scheduled.place = LaneState::Ready;
            let is_replay = scheduled.lane.next() == Some(NextMessage::Probe);
            let queue = if is_replay { &mut self.replay_queue } else { &mut self.queue };
            queue.push_front(*key);
        }
        if !(self.queue.is_empty() && self.replay_queue.is_empty()) {
            (self.flush_at, self.checked_at) = (Some(now), None);
        }
    }

    /// One Lane's share of an answer; `None` when the answer does not mention it.
    fn acknowledge(
        &mut self,
        now: Duration,
        server: usize,
        key: LaneKey,
        ack: Option<&Ack>,
    ) -> ReleasedBatches {
        self.compare_clocks(now, server, key, ack);
        let scheduled = self.lanes.get_mut(&key).expect("a Lane on its way is not removed");
        let is_batch = scheduled.lane.has_batch_in_flight();
        let (progress, released) = match ack {
            Some(ack) => {
                self.counts.batches_answered[ack.answer as usize] += 1;
                if is_batch {
                    scheduled.order.answered(now, server, ack);
                }
                scheduled.lane.acknowledge(now, ack)
            }
            None => {
                self.counts.batches_unanswered += 1;
                scheduled.lane.give_back();
                (Progress::Later, ReleasedBatches::default())
            }
        };
        match progress {
            Progress::Applied(_) => {
                scheduled.failures = 0;
                if is_batch {
                    scheduled.isolation = Isolation::default();
                }
                for refusal in ack.into_iter().flat_map(|ack| &ack.refused) {
                    let events = self.counts.refused.entry(refusal.why).or_default();
                    *events = events.saturating_add(refusal.events);
                }
                self.settle(now, key);
            }
            Progress::Rewound => {
                self.counts.rewinds += 1;
                self.enqueue(now, key);
            }
            Progress::Later => self.rest(now, key),
            Progress::ProtocolViolation => {
                self.counts.protocol_violations += 1;
                self.rest(now, key);
            }
        }
        released
    }

    /// Gives a Lane's message back, and draws what conclusions there are from the failure of its request.
    fn isolate(
        &mut self,
        now: Duration,
        key: LaneKey,
        (cause, why): (FailureCause, &str),
        sent_request: &InFlightRequest,
        actions: &mut Vec<Action>,
    ) {
        let bytes_max = self.servers[sent_request.server].bytes_max();
        let scheduled = self.lanes.get_mut(&key).expect("a Lane on its way is not removed");
        let (is_batch, lanes) = (scheduled.lane.has_batch_in_flight(), sent_request.lanes.len());
        if matches!(cause, FailureCause::TooLarge | FailureCause::Unreached) {
            scheduled.lane.turned_away();
        } else {
            scheduled.lane.give_back();
        }
        match cause {
            FailureCause::Away | FailureCause::Unreached => return,
            // Smaller requests are made of what remains; nobody is to blame.
            FailureCause::TooLarge if lanes > 1 => return,
            FailureCause::TooLarge if !is_batch => return scheduled.isolation.halve(lanes),
            FailureCause::Broken | FailureCause::Refused if !(sent_request.is_alone && is_batch) => {
                return scheduled.isolation.halve(lanes);
            }
            FailureCause::Broken | FailureCause::Refused | FailureCause::TooLarge
                if sent_request.is_check =>
            {
                scheduled.isolation.failed_check(why);
            }
            FailureCause::Broken | FailureCause::Refused => scheduled.isolation.failed_alone(why),
            FailureCause::TooLarge if scheduled.lane.can_recut() => {
                scheduled.isolation.changed();
                actions.push(Action::Recut(key, bytes_max));
            }
            FailureCause::TooLarge => scheduled.isolation.too_large(why),
        }
        // Whether the Server answers anything else, and whether it has the Batch after all.
        scheduled.lane.probe();
        self.rest(now, key);
    }

    /// A check was answered: the Server could fold that.
    fn checked(&mut self, now: Duration, key: LaneKey, ack: Option<&Ack>) {
        let scheduled = self.lanes.get_mut(&key).expect("a Lane on its way is not removed");
        scheduled.lane.give_back();
        let Some(ack) = ack else {
            self.counts.batches_unanswered += 1;
            return self.rest(now, key);
        };
        self.counts.batches_answered[ack.answer as usize] += 1;
        if ack.answer == Answer::Applied {
            scheduled.isolation.passed();
            self.enqueue(now, key);
        } else {
            self.rest(now, key);
        }
    }
}
