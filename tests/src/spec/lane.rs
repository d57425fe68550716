//! [`Lane`]: the Batches of one Stream that its Agent still has, and what answers make of them; [`Agent`]: its Spool of
//! Lanes, of which it appends to the newest only.
//!
//! ```text
//!    let go  │ base …           cursor …      last │ blocks: not sealed yet
//!  ──────────┼──── answered ──────┼─── to send ────┼────────────────────────
//!            │  since: answered_at│
//! ```

use super::rules::{Rule, Rules};
use super::server::{Answer, Kind, Request};
use super::store::{Events, Seq, Time};
use super::world::Times;

/// How many events a Batch takes.
const BATCH_EVENTS_MAX: u8 = 2;

/// A Batch under its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sealed {
    /// Its place in the Lane.
    pub seq: Seq,
    /// Its content.
    pub events: Events,
    /// Events in all Batches before.
    pub events_before: u8,
    /// When it was sealed, by the Agent's clock.
    pub sealed_at: Time,
    /// The same by a clock that only goes on.
    pub sealed_truly_at: Time,
    /// Since when it is answered for: the first answer that said "applied", unless the Lane went back over it.
    pub answered_at: Option<Time>,
}

/// The message that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    /// Which request.
    pub request: u16,
    /// When it was sent, by a clock that only goes on.
    pub sent: Time,
}

/// One Stream's Lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    /// Which Stream.
    pub stream: usize,
    /// When the Stream began, by the Agent's clock.
    pub began_at: Time,
    /// What it still has, in order.
    pub retained: Vec<Sealed>,
    /// The newest number.
    pub last: Seq,
    /// The next to send: from the base to one above the last.
    pub cursor: Seq,
    /// One at a time.
    pub in_flight: Option<Flight>,
    /// Events in all sealed Batches.
    pub events_sealed: u8,
    /// Whether it takes new events.
    pub is_open: bool,
    /// Whether an earlier run began it.
    pub is_recovered: bool,
    /// What lies before the base was lost here, and that is not yet told for good; since when it is answered for.
    pub loss: Option<Option<Time>>,
}

/// One Agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Agent {
    /// Its Lanes, oldest Stream first.
    pub lanes: Vec<Lane>,
    /// Events that are in the Spool and not yet sealed.
    pub blocks: Events,
    /// How far the clock of this run is off. It may be set while it runs.
    pub clock_off: Time,
    /// All events that it ever took.
    pub taken: Events,
    /// Events that it threw away: expired, or pushed out. They may have been folded before.
    pub lost: Events,
    /// Those of them of which the Servers may never hear: their Stream is too old.
    pub given_up: Events,
    /// Those of them that the same run had taken, and that were not too old: what must never be.
    pub lost_young: Events,
    /// Events that it let go because they are safe.
    pub released: Events,
}

impl Lane {
    /// An empty Lane that takes events.
    pub const fn new(stream: usize, began_at: Time) -> Self {
        Self {
            stream,
            began_at,
            retained: Vec::new(),
            last: 0,
            cursor: 1,
            in_flight: None,
            events_sealed: 0,
            is_open: true,
            is_recovered: false,
            loss: None,
        }
    }

    /// The oldest that is retained; one above the last when none is.
    pub fn base(&self) -> Seq {
        self.retained.first().map_or(self.last + 1, |oldest| oldest.seq)
    }

    /// The Batch at the cursor.
    pub fn next(&self) -> Option<Sealed> {
        self.retained.iter().find(|sealed| sealed.seq == self.cursor).copied()
    }

    /// Whether nothing has to be sent any more, neither Batches nor Probes.
    pub const fn is_done(&self) -> bool {
        self.retained.is_empty() && self.loss.is_none()
    }

    fn is_of_the_past(&self, clock: Time, times: &Times, rules: Rules) -> bool {
        self.began_at - clock <= times.clocks_apart || !rules.has(Rule::YoungOnly)
    }

    /// Counts as taken so much earlier.
    fn date_back(&mut self, by: Time) {
        self.began_at -= by;
        self.retained.iter_mut().for_each(|sealed| sealed.sealed_at -= by);
    }

    fn events_before_base(&self) -> u8 {
        self.retained.first().map_or(self.events_sealed, |oldest| oldest.events_before)
    }

    fn seal(&mut self, events: Events, sealed_at: Time, sealed_truly_at: Time) {
        self.last += 1;
        let (seq, events_before) = (self.last, self.events_sealed);
        self.retained.push(Sealed {
            seq,
            events,
            events_before,
            sealed_at,
            sealed_truly_at,
            answered_at: None,
        });
        self.events_sealed += events.len();
    }

    /// The message at the cursor, or a Probe.
    fn request(&mut self, id: u16, agent: usize, sent_at: Time, probe: bool, rules: Rules) -> Request {
        let next = if probe { None } else { self.next() };
        Request {
            id,
            agent,
            stream: self.stream,
            base: if rules.has(Rule::BaseTold) { self.base() } else { 1 },
            events_before: next.map_or(self.events_before_base(), |next| next.events_before),
            sent_at,
            batch: next.map(|next| (next.seq, next.events)),
        }
    }

    /// Throws away the oldest Batch.
    fn lose(&mut self) -> Events {
        let lost = self.retained.remove(0);
        self.cursor = self.cursor.max(self.base());
        self.loss = Some(None);
        lost.events
    }

    /// What an answer changes; returns what is let go.
    fn hear(&mut self, answer: &Answer, now: Time, times: &Times, rules: Rules) -> Events {
        let Some(flight) = self.in_flight else { return Events::default() };
        if rules.has(Rule::AnswersMatch) && flight.request != answer.request {
            return Events::default();
        }
        self.in_flight = None;
        let cursor = (answer.applied + 1).clamp(self.base(), self.last + 1);
        let is_back = cursor < self.cursor;
        if !is_back || rules.has(Rule::RewindOnLowerAnswer) {
            self.cursor = cursor;
        }
        if is_back && rules.has(Rule::RewindForgetsAnswers) {
            let above = self.retained.iter_mut().filter(|sealed| sealed.seq > answer.applied);
            above.for_each(|sealed| sealed.answered_at = None);
            self.loss = self.loss.map(|since| since.filter(|_| answer.applied + 1 >= self.base()));
        }
        for sealed in self.retained.iter_mut().filter(|sealed| sealed.seq <= answer.applied) {
            sealed.answered_at.get_or_insert(now);
        }
        let base = self.base();
        if let Some(since) = self.loss.as_mut().filter(|_| answer.applied + 1 >= base) {
            since.get_or_insert(now);
        }
        self.release(answer, flight.sent, now, times, rules)
    }

    fn release(&mut self, answer: &Answer, sent: Time, now: Time, times: &Times, rules: Rules) -> Events {
        if answer.kind != Kind::Applied && rules.has(Rule::FreshOnlyFromCommits) {
            return Events::default();
        }
        if !rules.has(Rule::LossIsConfirmed) && answer.applied + 1 >= self.base() {
            self.loss = None;
        }
        let through = if rules.has(Rule::StableBeforeRelease) {
            answer.stable.min(answer.applied)
        } else {
            answer.applied
        };
        let until = if rules.has(Rule::ConfirmFromSent) { sent } else { now };
        let is_confirmed = |since: Option<Time>| {
            since.is_some_and(|since| since + times.confirm_after <= until || !rules.has(Rule::ConfirmAfterT))
        };
        if through + 1 >= self.base() && self.loss.is_some_and(is_confirmed) {
            self.loss = None;
        }
        let safe = |sealed: &&Sealed| sealed.seq <= through && is_confirmed(sealed.answered_at);
        let safe = self.retained.iter().take_while(safe).count();
        self.retained.drain(..safe).fold(Events::default(), |all, sealed| all.and(sealed.events))
    }
}

impl Agent {
    /// Seals if there is nothing else to send, and sends the Batch at the cursor. `stream` is a free number.
    pub fn send(
        &mut self,
        (me, lane): (usize, usize),
        (id, stream): (u16, usize),
        now: Time,
        times: &Times,
        rules: Rules,
    ) -> Option<Request> {
        let clock = now + self.clock_off;
        let has_ended = |lane: &Lane| clock - lane.began_at >= times.stream_appends;
        if rules.has(Rule::StreamsEnd) {
            self.lanes.iter_mut().filter(|lane| has_ended(lane)).for_each(|lane| lane.is_open = false);
        }
        if lane == self.lanes.len() && !self.lanes.iter().any(|lane| lane.is_open) && !self.blocks.is_empty()
        {
            self.lanes.push(Lane::new(stream, clock));
        }
        self.expire(clock, times, rules);
        let may_send = |lane: &Lane| lane.in_flight.is_none() && lane.is_of_the_past(clock, times, rules);
        let lane = self.lanes.get_mut(lane).filter(|lane| may_send(lane))?;
        if lane.is_open && lane.cursor > lane.last && !self.blocks.is_empty() {
            lane.seal(take(&mut self.blocks), clock, now);
        } else if !rules.has(Rule::ImmutableContent) && lane.is_open && lane.cursor == lane.last {
            let more = take(&mut self.blocks);
            lane.events_sealed += more.len();
            if let Some(last) = lane.retained.last_mut() {
                last.events = last.events.and(more);
            }
        }
        lane.next()?;
        lane.in_flight = Some(Flight { request: id, sent: now });
        Some(lane.request(id, me, clock, false, rules))
    }

    /// Asks after a Lane that has anything at all.
    pub fn probe(
        &mut self,
        (me, lane): (usize, usize),
        id: u16,
        now: Time,
        times: &Times,
        rules: Rules,
    ) -> Option<Request> {
        let clock = now + self.clock_off;
        self.expire(clock, times, rules);
        let may_ask = |lane: &Lane| {
            lane.in_flight.is_none() && !lane.is_done() && lane.is_of_the_past(clock, times, rules)
        };
        let lane = self.lanes.get_mut(lane).filter(|lane| may_ask(lane))?;
        lane.in_flight = Some(Flight { request: id, sent: now });
        Some(lane.request(id, me, clock, true, rules))
    }

    /// Throws away what is too old to be sent; gives up Streams that are too old to be told of.
    fn expire(&mut self, clock: Time, times: &Times, rules: Rules) {
        if !rules.has(Rule::YoungOnly) {
            return;
        }
        for lane in &mut self.lanes {
            while lane.retained.first().is_some_and(|oldest| clock - oldest.sealed_at > times.batch_sent) {
                let now = clock - self.clock_off;
                let is_young = now - lane.retained[0].sealed_truly_at <= times.batch_sent;
                let lost = lane.lose();
                self.lost = self.lost.and(lost);
                if is_young && !lane.is_recovered {
                    self.lost_young = self.lost_young.and(lost);
                }
            }
            if lane.loss.is_some() && clock - lane.began_at > times.stream_sends {
                lane.loss = None;
                self.given_up = self.lost;
            }
        }
    }

    /// Throws away the oldest Batch of a Lane; false when there is none.
    pub fn lose(&mut self, lane: usize) -> bool {
        let Some(lane) = self.lanes.get_mut(lane).filter(|lane| !lane.retained.is_empty()) else {
            return false;
        };
        self.lost = self.lost.and(lane.lose());
        true
    }

    /// Hears an answer; false when it changes nothing.
    pub fn hear(&mut self, answer: &Answer, now: Time, times: &Times, rules: Rules) -> bool {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.stream == answer.stream) else {
            return false;
        };
        let was_in_flight = lane.in_flight;
        let clock = now + self.clock_off;
        self.released = self.released.and(lane.hear(answer, now, times, rules));
        let is_answer = was_in_flight != lane.in_flight;
        if is_answer && (answer.clock - clock).abs() <= times.clocks_apart {
            self.date_back(clock, times);
        }
        is_answer
    }

    /// A Server agrees with this clock: what an earlier run has left and is from the future counts as taken now.
    fn date_back(&mut self, clock: Time, times: &Times) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_recovered) {
            let newest = lane.retained.last().map_or(lane.began_at, |last| last.sealed_at.max(lane.began_at));
            if newest - clock > times.clocks_apart {
                lane.date_back(newest - clock);
            }
        }
    }

    /// The clock of the day is set while it runs; false when it was so already.
    pub fn set_clock(&mut self, clock_off: Time, rules: Rules) -> bool {
        let step = clock_off - std::mem::replace(&mut self.clock_off, clock_off);
        if rules.has(Rule::AgesByUptime) {
            // What this run has taken is no older for it.
            self.lanes.iter_mut().filter(|lane| !lane.is_recovered).for_each(|lane| lane.date_back(-step));
        }
        step != 0
    }

    /// Ends, and begins again from the Spool; whatever was not in it is gone.
    pub fn crash(&mut self, clock_off: Time, rules: Rules) {
        self.clock_off = clock_off;
        for lane in &mut self.lanes {
            if !rules.has(Rule::SealedBeforeSent) {
                // That they were sealed was to be written down with their answer: they are Blocks again.
                let is_written = |sealed: &&Sealed| sealed.answered_at.is_some();
                let written = lane.retained.iter().take_while(is_written).count();
                let unsealed = lane.retained.split_off(written);
                self.blocks = unsealed.iter().fold(self.blocks, |blocks, sealed| blocks.and(sealed.events));
                lane.last -= unsealed.len() as Seq;
                lane.events_sealed -= unsealed.iter().map(|sealed| sealed.events.len()).sum::<u8>();
            }
            if !rules.has(Rule::NewStreamAfterRestart) && lane.retained.is_empty() {
                // All that it knows of its Stream is what it still has.
                (lane.last, lane.events_sealed) = (0, 0);
            }
            lane.retained.iter_mut().for_each(|sealed| sealed.answered_at = None);
            lane.loss = lane.loss.map(|_| None);
            lane.in_flight = None;
            lane.is_recovered = true;
            lane.cursor = lane.base();
            lane.is_open &= !rules.has(Rule::NewStreamAfterRestart);
        }
        self.forget_done_lanes();
    }

    /// Drops Lanes that will never be used again.
    pub fn forget_done_lanes(&mut self) {
        self.lanes.retain(|lane| lane.is_open || !lane.is_done() || lane.in_flight.is_some());
    }

    /// Events that are here: sealed or not.
    pub fn held(&self) -> Events {
        let sealed = self.lanes.iter().flat_map(|lane| &lane.retained);
        sealed.fold(self.blocks, |all, sealed| all.and(sealed.events))
    }
}

/// Takes as many as fit a Batch, the first ones first.
fn take(blocks: &mut Events) -> Events {
    let mut taken = Events::default();
    while taken.len() < BATCH_EVENTS_MAX && !blocks.is_empty() {
        let first = 1 << blocks.0.trailing_zeros();
        taken.0 |= first;
        blocks.0 &= !first;
    }
    taken
}
