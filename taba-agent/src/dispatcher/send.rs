//! Putting requests together: what of the lines goes to which Server now.

use std::collections::VecDeque;
use std::time::Duration;

use taba_core::wire::Lanes;

use super::request::{Draft, RequestId};
use super::{Action, Dispatcher, Flight, Place};
use crate::health::Health;
use crate::lane::{LaneKey, Message, Next};
use crate::relay::Moment;
use crate::spool::Spool;

impl Dispatcher {
    /// Sends what can be sent of the lines; the rest keeps its order.
    pub(super) fn dispatch(&mut self, now: Moment, spool: &dyn Spool, actions: &mut Vec<Action>) {
        self.looked_at = Some(now.uptime);
        self.line_bytes = 0;
        self.unwritten_probe_at = None;
        let slots = self.bounds.requests_per_server_max;
        let mut drafts: Vec<Option<Draft>> = self.servers.iter().map(|_| None).collect();
        let line = std::mem::take(&mut self.line);
        self.line = self.dispatch_line(now, line, slots, &mut drafts, spool, actions);
        let replays = std::mem::take(&mut self.replays);
        self.replays = self.dispatch_line(now, replays, (slots - 1).max(1), &mut drafts, spool, actions);
        for (place, draft) in drafts.into_iter().enumerate() {
            self.send(now, place, draft, actions);
        }
        if self.line.is_empty() && self.replays.is_empty() {
            self.flush_at = None;
        }
    }

    /// Sends what can be sent of one line, in at most so many requests a Server; gives back what could not.
    fn dispatch_line(
        &mut self,
        now: Moment,
        mut line: VecDeque<LaneKey>,
        slots: usize,
        drafts: &mut [Option<Draft>],
        spool: &dyn Spool,
        actions: &mut Vec<Action>,
    ) -> VecDeque<LaneKey> {
        let is_any_up = self.servers.iter().any(|server| server.health() == Health::Up);
        let durable = spool.durable();
        let mut left = VecDeque::new();
        while let Some(key) = line.pop_front() {
            let desk = self.lanes.get_mut(&key).expect("a Lane in line is not removed");
            let expired = desk.lane.expire(now.uptime);
            if expired.batches > 0 {
                self.events_held -= expired.events;
                actions.push(Action::Expire(expired));
            }
            let bytes = match desk.lane.next() {
                Some(Next::Batch(bytes)) => bytes,
                Some(Next::Probe) => Lanes::PROBE_BYTES_MAX,
                // All that it had to say was too old.
                None => {
                    self.settle(now.uptime, key);
                    continue;
                }
            };
            let home =
                desk.order.iter().map(|place| usize::from(*place)).find(|place| {
                    self.servers[*place].is_open(now.uptime, is_any_up, drafts[*place].as_ref())
                });
            // What is not in the Spool for good waits for the next sync, which is a few milliseconds away.
            let ready =
                home.and_then(|place| Some((place, self.ready_bytes(now.uptime, key, bytes, durable)?)));
            let Some((place, bytes)) = ready else {
                left.push_back(key);
                continue;
            };
            let draft = &mut drafts[place];
            if draft.as_ref().is_some_and(|draft| !draft.has_room(bytes, self.bounds.request_bytes_max)) {
                self.send(now, place, draft.take(), actions);
            }
            if draft.is_none() && !self.servers[place].take_slot(now.uptime, slots) {
                left.push_back(key);
                continue;
            }
            let draft = draft.get_or_insert_default();
            if !self.draw(now, key, draft, spool, actions) {
                self.rest(now.uptime, key);
            }
        }
        left
    }

    /// Bytes of what a Lane says now, if that can be sent: a Batch of so many `bytes` that is in the Spool for good, or
    /// a Probe. `None` when it waits for the Spool.
    fn ready_bytes(&mut self, now: Duration, key: LaneKey, bytes: usize, durable: u64) -> Option<usize> {
        let lane = &mut self.desk(key).lane;
        if lane.make_ready(durable) {
            return Some(bytes);
        }
        // A disk without room takes the Batch only once something else may go.
        let at = lane.probe_before_batch_at()?;
        if at <= now {
            lane.probe();
            return Some(Lanes::PROBE_BYTES_MAX);
        }
        self.unwritten_probe_at = self.unwritten_probe_at.into_iter().chain([at]).min();
        None
    }

    /// Takes a Lane's message into a request. False when the Spool does not give it back.
    fn draw(
        &mut self,
        now: Moment,
        key: LaneKey,
        draft: &mut Draft,
        spool: &dyn Spool,
        actions: &mut Vec<Action>,
    ) -> bool {
        let desk = self.lanes.get_mut(&key).expect("a Lane in line is not removed");
        let is_replay = desk.lane.is_replaying();
        let mut lost = 0;
        let sent = desk.lane.send(now, spool, &mut lost);
        if lost > 0 {
            self.events_held -= lost;
            actions.push(Action::Damaged(lost));
        }
        let Ok(Some(message)) = sent else { return false };
        desk.place = Place::Flying;
        self.tally.batches_sent += 1;
        match &message {
            Message::Probe(_) => self.tally.probes_sent += 1,
            Message::Batch(_) => self.tally.batches_replayed += u64::from(is_replay),
        }
        draft.push(message);
        true
    }

    fn send(&mut self, now: Moment, server: usize, draft: Option<Draft>, actions: &mut Vec<Action>) {
        let Some(draft) = draft else { return };
        self.requests += 1;
        let request = draft.finish(RequestId(self.requests), server, now.time);
        let lanes = request.lanes().collect();
        self.flights.insert(request.id, Flight { server, lanes });
        actions.push(Action::Send(request));
    }
}
