//! The states of Lanes, and how a Lane gets from one to the next: queued, waiting for a time, idle.

use std::time::Duration;

use super::Dispatcher;
use super::isolation::Isolation;
use super::order::ServerOrder;
use crate::lane::{Lane, LaneKey, NextMessage};

/// A Lane, and its state.
#[derive(Debug)]
pub(super) struct ScheduledLane {
    pub(super) lane: Lane,
    pub(super) order: ServerOrder,
    pub(super) place: LaneState,
    pub(super) failures: u32,
    /// Until then it tries out no Server of which nobody knows whether it answers.
    pub(super) wary_until: Duration,
    pub(super) isolation: Isolation,
    /// Its last answer was that the clocks do not agree.
    pub(super) is_misdated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneState {
    Idle,
    AwaitingProbe(Duration),
    Ready,
    BackingOff(Duration),
    /// Its Batch is being read back.
    Fetching,
    InFlight,
}

impl ScheduledLane {
    pub(super) fn new(lane: Lane, order: Box<[u16]>) -> Self {
        let isolation = Isolation::default();
        let order = ServerOrder::new(order);
        Self {
            lane,
            order,
            place: LaneState::Idle,
            failures: 0,
            wary_until: Duration::ZERO,
            isolation,
            is_misdated: false,
        }
    }
}

impl Dispatcher {
    /// What a Lane does that has nothing in flight: go on, wait until it is to ask, or nothing. One of an earlier stream
    /// that holds nothing any more is gone.
    pub(super) fn settle(&mut self, now: Duration, key: LaneKey) {
        self.fetched.remove(&key);
        let is_current = key.stream == self.stream;
        let scheduled = self.scheduled(key);
        scheduled.place = LaneState::Idle;
        if scheduled.lane.next().is_some() {
            self.enqueue(now, key);
        } else if let Some(at) = scheduled.lane.probe_at() {
            let at = at.max(now);
            scheduled.place = LaneState::AwaitingProbe(at);
            self.timers.insert((at, key));
        } else if scheduled.lane.is_empty() && !is_current {
            self.lanes.remove(&key);
        }
    }

    /// Puts a Lane that has something to say at the end of its line.
    pub(super) fn enqueue(&mut self, now: Duration, key: LaneKey) {
        let linger = self.options.linger;
        let scheduled = self.scheduled(key);
        scheduled.place = LaneState::Ready;
        let is_replay = scheduled.lane.is_replaying() || scheduled.lane.next() == Some(NextMessage::Probe);
        let due = scheduled.lane.waiting_since().map_or(now, |since| since + linger).max(now);
        let queue = if is_replay { &mut self.replay_queue } else { &mut self.queue };
        queue.push_back(key);
        self.checked_at = None;
        self.flush_at = Some(self.flush_at.map_or(due, |at| at.min(due)));
    }

    pub(super) fn rest(&mut self, now: Duration, key: LaneKey) {
        self.fetched.remove(&key);
        let scheduled = self.lanes.get_mut(&key).expect("a Lane on its way is not removed");
        scheduled.failures = scheduled.failures.saturating_add(1);
        let until = now + self.backoff.after(scheduled.failures);
        scheduled.place = LaneState::BackingOff(until);
        self.timers.insert((until, key));
    }

    /// Lanes that wait until it is time to ask how far the store goes ask now, and those that rest try again: what they were
    /// refused by may be there again.
    pub(super) fn ask_now(&mut self, now: Duration) {
        for (until, key) in std::mem::take(&mut self.timers) {
            let scheduled = self.scheduled(key);
            let at = match &mut scheduled.place {
                LaneState::AwaitingProbe(at) => {
                    *at = now;
                    now
                }
                LaneState::BackingOff(at) => {
                    *at = now;
                    scheduled.failures = 0;
                    now
                }
                _ => until,
            };
            self.timers.insert((at, key));
        }
    }

    pub(super) fn wake_timers(&mut self, now: Duration) {
        while self.timers.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, key)) = self.timers.pop_first() else { break };
            let scheduled = self.scheduled(key);
            if matches!(scheduled.place, LaneState::AwaitingProbe(_)) {
                scheduled.lane.probe();
            }
            self.enqueue(now, key);
            self.flush_at = Some(now);
        }
    }
}
