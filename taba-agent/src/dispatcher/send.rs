//! Putting requests together: what of the lines goes to which Server now.

use std::collections::VecDeque;
use std::time::Duration;

use taba_core::wire::Lanes;

use super::isolation::IsolationStep;
use super::request::{Draft, RequestId};
use super::{Action, Dispatcher, InFlightRequest, LaneState, PoisonBlocks};
use crate::lane::{LaneKey, NextMessage, OutgoingMessage};
use crate::spool::Fetch;
use crate::units::ClockReading;

/// What is read back of the Spool before it is sent, in requests of the largest size, at most.
const FETCHED_REQUESTS: usize = 2;

impl Dispatcher {
    /// Sends what can be sent of the lines; the rest keeps its order.
    pub(super) fn dispatch(&mut self, now: ClockReading, durable: u64, actions: &mut Vec<Action>) {
        self.checked_at = Some(now.uptime);
        self.queue_bytes = 0;
        self.unwritten_probe_at = None;
        self.clocks.is_holding = false;
        let in_flight = self.in_flight.values().map(|sent_request| sent_request.bytes).sum();
        self.bytes_left = self.options.bytes_in_flight_max.saturating_sub(in_flight);
        let slots = self.options.requests_per_server_max;
        let mut drafts: Vec<Option<Draft>> = self.servers.iter().map(|_| None).collect();
        let closed = self.dispatch_isolated(now, durable, actions);
        let queue = std::mem::take(&mut self.queue);
        self.queue = self.dispatch_queue(now, queue, (slots, &closed), &mut drafts, durable, actions);
        let replay_queue = std::mem::take(&mut self.replay_queue);
        let slots = (slots - 1).max(1);
        self.replay_queue =
            self.dispatch_queue(now, replay_queue, (slots, &closed), &mut drafts, durable, actions);
        for (place, draft) in drafts.into_iter().enumerate() {
            self.send(now, place, draft, actions);
        }
        if self.queue.is_empty() && self.replay_queue.is_empty() {
            self.flush_at = None;
        }
    }

    /// Sends what suspects have to say, each alone, to a Server that has nothing else from this Agent. Answers which
    /// Servers are kept for them.
    fn dispatch_isolated(&mut self, now: ClockReading, durable: u64, actions: &mut Vec<Action>) -> Vec<bool> {
        let mut closed = vec![false; self.servers.len()];
        self.in_flight
            .values()
            .filter(|sent_request| sent_request.is_alone)
            .for_each(|sent_request| closed[sent_request.server] = true);
        let is_alone =
            |key: &LaneKey| self.lanes.get(key).is_some_and(|scheduled| scheduled.isolation.is_alone());
        let isolated: Vec<LaneKey> =
            self.queue.iter().chain(&self.replay_queue).filter(|key| is_alone(key)).copied().collect();
        let loads = self.server_loads(now.uptime);
        for key in isolated {
            if !self.expire(now.uptime, key, durable, actions) {
                continue;
            }
            let scheduled = self.lanes.get_mut(&key).expect("a Lane in queue is not removed");
            let Some(next) = scheduled.lane.next() else {
                self.dequeue(key);
                self.settle(now.uptime, key);
                continue;
            };
            let bytes = if let NextMessage::Batch(bytes) = next { bytes } else { Lanes::PROBE_BYTES_MAX };
            let is_open =
                |place: usize| !closed[place] && self.servers[place].is_open(now.uptime, true, None);
            let Some(place) = self.choose(now.uptime, key, bytes, &loads, is_open) else { continue };
            let scheduled = self.scheduled(key);
            if !scheduled.lane.make_ready(durable) {
                continue;
            }
            if let Some(fetch) = self.away(key) {
                if self.may_fetch(&fetch) {
                    self.dequeue(key);
                    actions.push(Action::Fetch(fetch));
                }
                continue;
            }
            closed[place] = true;
            // Where something is under way, it waits, and nobody else comes in between.
            if self.servers[place].in_flight() > 0 || !self.servers[place].take_slot(now.uptime, 1) {
                continue;
            }
            self.dequeue(key);
            let mut draft = Draft::alone();
            if self.add_isolated(now, key, place, &mut draft, actions) {
                self.send(now, place, Some(draft), actions);
            } else {
                self.servers[place].give_slot_back();
                self.rest(now.uptime, key);
            }
        }
        closed
    }

    fn dequeue(&mut self, key: LaneKey) {
        self.queue.retain(|other| *other != key);
        self.replay_queue.retain(|other| *other != key);
    }

    /// Takes what a suspect has to say into a request of its own: its message, or a check of some of its Blocks. False
    /// when there is nothing to be sent now: Blocks of it are to be set aside.
    fn add_isolated(
        &mut self,
        now: ClockReading,
        key: LaneKey,
        server: usize,
        draft: &mut Draft,
        actions: &mut Vec<Action>,
    ) -> bool {
        self.add_message(now, key, draft);
        let Some(batch) = draft.batches_mut().pop() else { return true };
        let bytes_max = self.servers[server].bytes_max();
        let scheduled = self.lanes.get_mut(&key).expect("a Lane on its way is not removed");
        let blocks = match scheduled.isolation.turn(batch.blocks() as usize) {
            IsolationStep::Send => {
                draft.batches_mut().push(batch);
                return true;
            }
            IsolationStep::Check(range) => {
                self.counts.checks_sent += 1;
                *draft = Draft::alone();
                draft.check(batch.only(range));
                return true;
            }
            IsolationStep::SetAside(blocks) => blocks,
            IsolationStep::SetLargestAside => batch.largest(bytes_max),
        };
        scheduled.lane.give_back();
        let why = scheduled.isolation.why().to_owned();
        self.counts.batches_sent -= 1;
        actions.push(Action::SetAside(PoisonBlocks { batch, blocks, why }));
        false
    }

    /// Sends what can be sent of one line, in at most so many requests a Server; gives back what could not.
    fn dispatch_queue(
        &mut self,
        now: ClockReading,
        mut queue: VecDeque<LaneKey>,
        (slots, closed): (usize, &[bool]),
        drafts: &mut [Option<Draft>],
        durable: u64,
        actions: &mut Vec<Action>,
    ) -> VecDeque<LaneKey> {
        let is_any_up = self.is_any_up(now.uptime);
        let loads = self.server_loads(now.uptime);
        let mut left = VecDeque::new();
        while let Some(key) = queue.pop_front() {
            if !self.expire(now.uptime, key, durable, actions) {
                left.push_back(key);
                continue;
            }
            let scheduled = self.lanes.get_mut(&key).expect("a Lane in queue is not removed");
            let bytes = match scheduled.lane.next() {
                Some(NextMessage::Batch(bytes)) => bytes,
                Some(NextMessage::Probe) => Lanes::PROBE_BYTES_MAX,
                // All that it had to say was too old.
                None => {
                    self.settle(now.uptime, key);
                    continue;
                }
            };
            if scheduled.isolation.is_alone() {
                left.push_back(key);
                continue;
            }
            let lanes_max = scheduled.isolation.lanes_max();
            let is_open = |place: usize| {
                !closed[place] && self.servers[place].is_open(now.uptime, is_any_up, drafts[place].as_ref())
            };
            let home = self.choose(now.uptime, key, bytes, &loads, is_open);
            // What is not in the Spool for good waits for the next sync, which is a few milliseconds away.
            let ready =
                home.and_then(|place| Some((place, self.ready_bytes(now.uptime, key, bytes, durable)?)));
            let Some((place, bytes)) = ready else {
                left.push_back(key);
                continue;
            };
            if let Some(fetch) = self.away(key) {
                if self.may_fetch(&fetch) {
                    actions.push(Action::Fetch(fetch));
                } else {
                    left.push_back(key);
                }
                continue;
            }
            let bytes_max = self.options.request_bytes_max.min(self.servers[place].bytes_max());
            let draft = &mut drafts[place];
            if draft.as_ref().is_some_and(|draft| !draft.has_room(bytes, lanes_max, bytes_max)) {
                self.send(now, place, draft.take(), actions);
            }
            if bytes > self.bytes_left
                || (draft.is_none() && !self.servers[place].take_slot(now.uptime, slots))
            {
                left.push_back(key);
                continue;
            }
            self.bytes_left -= bytes;
            let draft = draft.get_or_insert_default();
            draft.bound(lanes_max);
            self.add_message(now, key, draft);
        }
        left
    }

    /// Bytes of what a Lane says now, if that can be sent: a Batch of so many `bytes` that is in the Spool for good, or
    /// a Probe. `None` when it waits for the Spool.
    fn ready_bytes(&mut self, now: Duration, key: LaneKey, bytes: usize, durable: u64) -> Option<usize> {
        let lane = &mut self.scheduled(key).lane;
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

    /// What has to be read back before this Lane can send.
    fn away(&self, key: LaneKey) -> Option<Fetch> {
        self.lanes.get(&key).and_then(|scheduled| scheduled.lane.away())
    }

    /// Whether a Batch may be read back now: not too much is, or waits to be sent after it was. Then its Lane waits for it.
    fn may_fetch(&mut self, fetch: &Fetch) -> bool {
        self.fetched.remove(&fetch.lane);
        let fetched: usize = self.fetched.values().sum();
        let bytes = fetch.bytes();
        let may = fetched == 0 || fetched + bytes <= FETCHED_REQUESTS * self.options.request_bytes_max;
        if may {
            self.fetched.insert(fetch.lane, bytes);
            self.scheduled(fetch.lane).place = LaneState::Fetching;
        }
        may
    }

    /// Takes a Lane's message into a request.
    fn add_message(&mut self, now: ClockReading, key: LaneKey, draft: &mut Draft) {
        let scheduled = self.lanes.get_mut(&key).expect("a Lane in queue is not removed");
        let is_replay = scheduled.lane.is_replaying();
        let message = scheduled.lane.send(now).expect("a Lane in queue has something to say, and it is here");
        scheduled.place = LaneState::InFlight;
        self.fetched.remove(&key);
        self.counts.batches_sent += 1;
        match &message {
            OutgoingMessage::Probe(_) => self.counts.probes_sent += 1,
            OutgoingMessage::Batch(_) => self.counts.batches_replayed += u64::from(is_replay),
        }
        draft.push(message);
    }

    pub(super) fn send(
        &mut self,
        now: ClockReading,
        server: usize,
        draft: Option<Draft>,
        actions: &mut Vec<Action>,
    ) {
        let Some(draft) = draft else { return };
        self.requests += 1;
        let (bytes, is_check, is_alone) = (draft.bytes(), draft.is_check(), draft.is_alone);
        let request = draft.finish(RequestId(self.requests), (server, self.servers[server].url()), now.time);
        let lanes = request.lanes().collect();
        let sent_at = now.uptime;
        let sent_request = InFlightRequest { server, sent_at, lanes, bytes, is_check, is_alone };
        self.in_flight.insert(request.id, sent_request);
        actions.push(Action::Send(request));
    }
}
