//! [`Dispatcher`]: which Lane's Batch goes to which Server, in which request, and when.
//!
//! ```text
//!            a Block came                     its turn, and its Server has a free slot
//!   Idle ─────────────────► Ready (in line) ───────────────────────────────────────────► Flying
//!    ▲                        ▲   ▲    time is over                                         │
//!    │                        │   └──────────────── Resting ◄── Unavailable, Busy ──────────┤
//!    │                        └──────────────── request failed; Nak; stored, and more ──────┤
//!    └───────────────────────────────────────────────────── stored, and nothing more ───────┘
//! ```
//! A Lane is in exactly one of these places. Lanes in line wait for a short while (`linger`), so that what many
//! Clients bring in that time travels together; then each goes to the first Server in its rendezvous order that is in
//! health. When that one has all its requests in flight, the Lane waits: another Server would only meet it in the same
//! commits. When it fails, its Lanes go to the next in their order at once, and come back when it answers again.

mod input;
mod request;
mod server;
mod tally;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use taba_core::wire::{Ack, Block};
use taba_core::{StreamId, VBucket};

pub use self::input::{Action, Input};
use self::request::Draft;
pub use self::request::{Request, RequestId};
pub use self::server::{Server, ServerStatus};
pub use self::tally::{ANSWERS, Tally};
use crate::config::Config;
use crate::health::{Backoff, Health};
use crate::lane::{Lane, Progress};
use crate::rendezvous;
use crate::spool::Weight;

/// A Server that asks to be left alone is left alone for no longer than this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// All Lanes of one Agent run, and the Servers.
///
/// # Cost
/// A Block is appended to its Lane in O(log lanes). A dispatch looks at each Lane in line once.
#[derive(Debug)]
pub struct Dispatcher {
    stream: StreamId,
    bounds: Bounds,
    backoff: Backoff,
    servers: Vec<Server>,
    lanes: BTreeMap<u16, Entry>,
    /// Lanes in `Place::Ready`, those that came first in front.
    line: VecDeque<u16>,
    /// Bytes that came into Lanes in line since the last dispatch.
    line_bytes: usize,
    /// When to dispatch; `None` when nobody is in line.
    flush_at: Option<Duration>,
    /// Lanes in `Place::Resting`, by when their rest is over.
    resting: BTreeSet<(Duration, u16)>,
    flights: BTreeMap<RequestId, Flight>,
    requests: u64,
    /// When the line as it is now was last looked through; `None` when somebody joined it since.
    looked_at: Option<Duration>,
    tally: Tally,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    linger: Duration,
    batch_bytes_max: usize,
    request_bytes_max: usize,
    requests_per_server_max: usize,
}

#[derive(Debug)]
struct Entry {
    lane: Lane,
    /// Places of the Servers, the home in front.
    order: Box<[u16]>,
    place: Place,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Idle,
    Ready,
    Resting(Duration),
    Flying,
}

#[derive(Debug)]
struct Flight {
    server: usize,
    lanes: Vec<u16>,
}

impl Dispatcher {
    /// No Lanes yet; all Servers are taken to be in health. `seed` is where the chance in waiting times comes from.
    pub fn new(config: &Config, stream: StreamId, seed: u64) -> Self {
        let bounds = Bounds {
            linger: config.linger,
            batch_bytes_max: config.batch_bytes_max,
            request_bytes_max: config.request_bytes_max,
            requests_per_server_max: config.requests_per_server_max,
        };
        Self {
            stream,
            bounds,
            backoff: Backoff::new(config.backoff_min, config.backoff_max, seed),
            servers: config.servers.iter().cloned().map(Server::new).collect(),
            lanes: BTreeMap::new(),
            line: VecDeque::new(),
            line_bytes: 0,
            flush_at: None,
            resting: BTreeSet::new(),
            flights: BTreeMap::new(),
            requests: 0,
            looked_at: None,
            tally: Tally::default(),
        }
    }

    /// Takes a Block, for which the Spool has granted room. It goes out with a later [`Dispatcher::handle`].
    pub fn offer(&mut self, now: Duration, vbucket: VBucket, block: &Block) {
        let (servers, stream, bounds) = (&self.servers, self.stream, self.bounds);
        let entry = self.lanes.entry(vbucket.index()).or_insert_with(|| Entry {
            lane: Lane::new(stream, vbucket, bounds.batch_bytes_max),
            order: rendezvous::order(servers.iter().map(Server::url), vbucket),
            place: Place::Idle,
            failures: 0,
        });
        entry.lane.offer(now, block);
        match entry.place {
            Place::Idle => self.stand_in_line(now, vbucket.index()),
            Place::Ready | Place::Resting(_) | Place::Flying => {}
        }
        self.line_bytes += block.encoded_bytes();
        if self.line_bytes >= self.bounds.request_bytes_max && self.flush_at.is_some() {
            self.flush_at = Some(now);
        }
    }

    /// From now on nothing lingers: the Agent is stopping.
    pub fn hurry(&mut self, now: Duration) {
        self.bounds.linger = Duration::ZERO;
        self.flush_at = self.flush_at.map(|at| at.min(now));
    }

    /// Takes an input, then sends whatever is due. `now` counts from the start of the Agent and never goes back.
    pub fn handle(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Tick => {}
            Input::Answered { request, acks } => self.answered(now, request, acks, actions),
            Input::Failed { request, why, retry_after } => self.failed(now, request, why, retry_after),
        }
        self.wake_lanes(now);
        if self.flush_at.is_some_and(|at| at <= now) {
            self.dispatch(now, actions);
        }
        self.audit();
    }

    /// When [`Dispatcher::handle`] wants to be called at the latest, unless something else happens before.
    pub fn next_wake(&self) -> Option<Duration> {
        let rested = self.resting.first().map(|(until, _)| *until);
        let is_news = |at: &Duration| self.looked_at.is_none_or(|looked| *at > looked);
        let flush = self.flush_at.filter(is_news);
        // Lanes that are overdue wait for a slot, which an answer frees, or for a Server's rest to be over. Servers
        // whose rest was over when the line was last looked through were considered then.
        let blocked = if self.flush_at.is_some() && flush.is_none() {
            self.servers.iter().filter_map(Server::rests_until).filter(is_news).min()
        } else {
            None
        };
        [rested, flush, blocked].into_iter().flatten().min()
    }

    /// How many Lanes there are.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Whether no Lane holds anything.
    pub fn is_drained(&self) -> bool {
        self.line.is_empty() && self.resting.is_empty() && self.flights.is_empty()
    }

    /// The Servers, in the order of the configuration.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// What became of Batches and requests.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What all Lanes hold; for audits.
    pub fn held(&self) -> Weight {
        self.lanes.values().map(|entry| entry.lane.held()).sum()
    }

    fn answered(&mut self, now: Duration, request: RequestId, acks: Vec<Ack>, actions: &mut Vec<Action>) {
        let Some(flight) = self.flights.remove(&request) else { return };
        self.servers[flight.server].answered();
        let mut acks: BTreeMap<u16, Ack> =
            acks.into_iter().filter(|ack| ack.stream == self.stream).map(|ack| (ack.vbucket, ack)).collect();
        let mut released = Weight::default();
        for index in flight.lanes {
            released = released.plus(self.acknowledge(now, index, acks.remove(&index).as_ref()));
        }
        if released != Weight::default() {
            actions.push(Action::Release(released));
        }
    }

    /// One Lane's share of an answer; `None` when the answer does not mention it.
    fn acknowledge(&mut self, now: Duration, index: u16, ack: Option<&Ack>) -> Weight {
        let entry = self.lanes.get_mut(&index).expect("a Lane is never removed");
        let progress = match ack {
            Some(ack) => {
                self.tally.batches_answered[ack.answer as usize] += 1;
                entry.lane.acknowledge(ack)
            }
            None => {
                self.tally.batches_unanswered += 1;
                entry.lane.give_back();
                Progress::Later
            }
        };
        match progress {
            Progress::Applied(through) => {
                entry.failures = 0;
                for refusal in ack.into_iter().flat_map(|ack| &ack.refused) {
                    let events = self.tally.refused.entry(refusal.why).or_default();
                    *events = events.saturating_add(refusal.events);
                }
                // What is applied is let go at once. A store that can go back in time (a failover in Redis) needs
                // Batches to be retained until they are stable; the Lane can do that, the policy stands here.
                let released = entry.lane.release(through);
                entry.place = Place::Idle;
                if entry.lane.next_bytes().is_some() {
                    self.stand_in_line(now, index);
                }
                released
            }
            Progress::Rewound => {
                self.stand_in_line(now, index);
                Weight::default()
            }
            Progress::Later => {
                self.rest(now, index);
                Weight::default()
            }
            Progress::Absurd => {
                self.tally.answers_absurd += 1;
                self.rest(now, index);
                Weight::default()
            }
        }
    }

    fn failed(&mut self, now: Duration, request: RequestId, why: String, retry_after: Option<Duration>) {
        let Some(flight) = self.flights.remove(&request) else { return };
        let server = &mut self.servers[flight.server];
        let wait = self.backoff.after(server.health().failures().saturating_add(1));
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        server.failed(now + wait.max(asked), why);
        self.tally.batches_unanswered += flight.lanes.len() as u64;
        // Back to the front, in their order: they have waited longest.
        for index in flight.lanes.into_iter().rev() {
            let entry = self.lanes.get_mut(&index).expect("a Lane is never removed");
            entry.lane.give_back();
            entry.place = Place::Ready;
            self.line.push_front(index);
        }
        self.flush_at = Some(now);
    }

    /// Puts a Lane that has something to send at the end of the line.
    fn stand_in_line(&mut self, now: Duration, index: u16) {
        let entry = self.lanes.get_mut(&index).expect("a Lane is never removed");
        entry.place = Place::Ready;
        self.line.push_back(index);
        self.looked_at = None;
        let due = entry.lane.waiting_since().map_or(now, |since| since + self.bounds.linger).max(now);
        self.flush_at = Some(self.flush_at.map_or(due, |at| at.min(due)));
    }

    fn rest(&mut self, now: Duration, index: u16) {
        let entry = self.lanes.get_mut(&index).expect("a Lane is never removed");
        entry.failures = entry.failures.saturating_add(1);
        let until = now + self.backoff.after(entry.failures);
        entry.place = Place::Resting(until);
        self.resting.insert((until, index));
    }

    fn wake_lanes(&mut self, now: Duration) {
        while self.resting.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, index)) = self.resting.pop_first() else { break };
            self.stand_in_line(now, index);
            self.flush_at = Some(now);
        }
    }

    /// Sends what can be sent of the line; the rest keeps its order.
    fn dispatch(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.looked_at = Some(now);
        self.line_bytes = 0;
        let is_any_up = self.servers.iter().any(|server| server.health() == Health::Up);
        let mut drafts: Vec<Option<Draft>> = self.servers.iter().map(|_| None).collect();
        let mut left = VecDeque::new();
        while let Some(index) = self.line.pop_front() {
            let entry = self.lanes.get_mut(&index).expect("a Lane is never removed");
            let bytes =
                entry.lane.next_bytes().expect("a Lane in line has something to send, and nothing in flight");
            let home = entry
                .order
                .iter()
                .map(|place| usize::from(*place))
                .find(|place| self.servers[*place].is_open(now, is_any_up, drafts[*place].as_ref()));
            let Some(place) = home else {
                left.push_back(index);
                continue;
            };
            let draft = &mut drafts[place];
            if draft.as_ref().is_some_and(|draft| !draft.has_room(bytes, self.bounds.request_bytes_max)) {
                self.send(place, draft.take(), actions);
            }
            let server = &mut self.servers[place];
            if draft.is_none() && !server.take_slot(now, self.bounds.requests_per_server_max) {
                left.push_back(index);
                continue;
            }
            let entry = self.lanes.get_mut(&index).expect("a Lane is never removed");
            entry.place = Place::Flying;
            draft.get_or_insert_default().push(entry.lane.send().expect("it has something to send"));
            self.tally.batches_sent += 1;
        }
        for (place, draft) in drafts.into_iter().enumerate() {
            self.send(place, draft, actions);
        }
        self.line = left;
        if self.line.is_empty() {
            self.flush_at = None;
        }
    }

    fn send(&mut self, server: usize, draft: Option<Draft>, actions: &mut Vec<Action>) {
        let Some(draft) = draft else { return };
        self.requests += 1;
        let request = draft.finish(RequestId(self.requests), server);
        let lanes = request.batches.iter().map(|batch| batch.vbucket.index()).collect();
        self.flights.insert(request.id, Flight { server, lanes });
        actions.push(Action::Send(request));
    }

    fn audit(&self) {
        if cfg!(debug_assertions) {
            let count = |is: fn(&Place) -> bool| self.lanes.values().filter(|entry| is(&entry.place)).count();
            let flying: usize = self.flights.values().map(|flight| flight.lanes.len()).sum();
            assert_eq!(count(|place| *place == Place::Ready), self.line.len(), "a Lane is lost");
            assert_eq!(
                count(|place| matches!(place, Place::Resting(_))),
                self.resting.len(),
                "a Lane is lost"
            );
            assert_eq!(count(|place| *place == Place::Flying), flying, "a Lane is lost");
            let idle = self.lanes.values().filter(|entry| entry.place == Place::Idle);
            assert!(idle.into_iter().all(|entry| entry.lane.next_bytes().is_none()), "a Lane was forgotten");
            assert_eq!(self.line.is_empty(), self.flush_at.is_none(), "the line would not be served");
            let answered: u64 = self.tally.batches_answered.iter().sum();
            let balance = answered + self.tally.batches_unanswered + flying as u64;
            assert_eq!(self.tally.batches_sent, balance, "Batches lost count");
        }
    }
}

#[cfg(test)]
mod tests;
