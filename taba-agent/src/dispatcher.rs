//! [`Dispatcher`]: which Lane's Batch goes to which Server, in which request, and when.
//!
//! ```text
//!            a Block came                     its turn, and its ServerState has a free slot
//!   Idle ─────────────────► Ready (in queue) ───────────────────────────────────────────► InFlight
//!                            │ ▲ its Batch is read back: Fetching
//!                            └─┘
//!    ▲ │ keeps what it sent   ▲   ▲    time is over                                         │
//!    │ └──► AwaitingProbe ─────────┘   └──────────────── BackingOff ◄── Unavailable, Busy ──────────┤
//!    │      time to ask         └────────────── request failed; Nak; stored, and more ──────┤
//!    └───────────────────────────────────────────────────── stored, and nothing more ───────┘
//! ```
//! A Lane is in exactly one of these places. Lanes in line wait for a short while (`linger`), so that what many
//! Clients bring in that time travels together; then each goes to the first Server in its rendezvous order that is in
//! health. When that one has all its requests in flight, the Lane waits: another Server would only meet it in the same
//! commits. When it fails, its Lanes go to the next in their order at once, and come back when it answers again. When its
//! build is too old for what a Lane holds, that Lane alone goes to the next for a while: see `order.rs`.
//!
//! There are two lines: Lanes that repeat what was sent before, or ask, stand in one of their own. They travel with the
//! others as far as there is room, but never take the last free request of a Server that has more than one, so that a
//! long replay does not starve what is fresh.

mod counts;
mod input;
mod isolation;
mod misdated;
mod order;
mod request;
mod send;
mod server;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::time::Duration;

use taba_core::wire::{Ack, Answer};
use taba_core::{Backoff, StreamId, VBuckets};

pub use self::counts::{ANSWERS, DispatchCounts};
pub use self::input::{Action, FailureCause, Input, PoisonBlocks};
use self::isolation::Isolation;
use self::misdated::ClockAgreement;
use self::order::ServerOrder;
pub use self::request::{Request, RequestId};
pub use self::server::{ServerState, ServerStatus};
use crate::lane::{Lane, LaneBounds, LaneKey, NextMessage, Progress, ReleasedBatches};
use crate::rendezvous;
use crate::server_url::ServerUrl;
use crate::spool::record::Fragment;
use crate::spool::recovery::RecoveredLane;
use crate::spool::{Fetch, FetchedContent, FragmentLocation, Purpose, Weight};
use crate::units::ClockReading;

/// A Server that asks to be left alone is left alone for no longer than this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// All Lanes, those of earlier runs included, and the Servers.
///
/// # Cost
/// A Block is appended to its Lane in O(log lanes). A dispatch looks at each Lane in line once.
#[derive(Debug)]
pub struct Dispatcher {
    /// The stream that is appended to.
    stream: StreamId,
    vbuckets: VBuckets,
    options: DispatcherOptions,
    backoff: Backoff,
    servers: Vec<ServerState>,
    lanes: BTreeMap<LaneKey, ScheduledLane>,
    /// Lanes in `LaneState::Ready`, those that came first in front: with what was never sent, and the others.
    queue: VecDeque<LaneKey>,
    replay_queue: VecDeque<LaneKey>,
    /// Bytes that came into Lanes in line since the last dispatch.
    queue_bytes: usize,
    /// When to dispatch; `None` when nobody is in line.
    flush_at: Option<Duration>,
    /// Lanes in `LaneState::BackingOff` and `LaneState::AwaitingProbe`, by when that is over.
    timers: BTreeSet<(Duration, LaneKey)>,
    in_flight: BTreeMap<RequestId, InFlightRequest>,
    /// Lanes whose Batch is being read back, or was and waits to be sent, and its bytes.
    fetched: BTreeMap<LaneKey, usize>,
    requests: u64,
    /// When the line as it is now was last looked through; `None` when somebody joined it since.
    checked_at: Option<Duration>,
    /// When a Lane in line, whose Batch waits for the Spool, is to ask instead.
    unwritten_probe_at: Option<Duration>,
    events_held: u64,
    clocks: ClockAgreement,
    counts: DispatchCounts,
}

/// The options of a [`Dispatcher`].
#[derive(Clone, Debug, PartialEq)]
pub struct DispatcherOptions {
    /// The Servers, at least one.
    pub servers: Vec<ServerUrl>,
    /// How long a Block waits for others to travel with.
    pub linger: Duration,
    /// Bytes of one request, at most.
    pub request_bytes_max: usize,
    /// Requests in flight to one Server, at most; at least 1.
    pub requests_per_server_max: usize,
    /// The first waiting time after a failure; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest waiting time.
    pub backoff_max: Duration,
    /// The bounds of each Lane.
    pub lane: LaneBounds,
}

/// A Lane, and where it stands.
#[derive(Debug)]
struct ScheduledLane {
    lane: Lane,
    order: ServerOrder,
    place: LaneState,
    failures: u32,
    isolation: Isolation,
    /// Its last answer was that the clocks do not agree.
    is_misdated: bool,
}

impl ScheduledLane {
    fn new(lane: Lane, order: Box<[u16]>) -> Self {
        let isolation = Isolation::default();
        let order = ServerOrder::new(order);
        Self { lane, order, place: LaneState::Idle, failures: 0, isolation, is_misdated: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneState {
    Idle,
    AwaitingProbe(Duration),
    Ready,
    BackingOff(Duration),
    /// Its Batch is being read back.
    Fetching,
    InFlight,
}

#[derive(Debug)]
struct InFlightRequest {
    server: usize,
    lanes: Vec<LaneKey>,
    bytes: usize,
    is_check: bool,
    /// Whether it is all that its Server has.
    is_alone: bool,
}

impl Dispatcher {
    /// No Lanes yet; all Servers are taken to be up. `seed` varies the waiting times.
    pub fn new(options: DispatcherOptions, vbuckets: VBuckets, stream: StreamId, seed: u64) -> Self {
        Self {
            stream,
            vbuckets,
            backoff: Backoff::new(options.backoff_min, options.backoff_max, seed),
            servers: options.servers.iter().cloned().map(ServerState::new).collect(),
            options,
            lanes: BTreeMap::new(),
            queue: VecDeque::new(),
            replay_queue: VecDeque::new(),
            queue_bytes: 0,
            flush_at: None,
            timers: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            fetched: BTreeMap::new(),
            requests: 0,
            checked_at: None,
            unwritten_probe_at: None,
            events_held: 0,
            clocks: ClockAgreement::default(),
            counts: DispatchCounts::default(),
        }
    }

    /// Adds a Lane of an earlier run; it is drained, and nothing is appended to it.
    pub fn recover(&mut self, now: ClockReading, key: LaneKey, found: RecoveredLane) {
        let lane = Lane::recovered(key, self.options.lane, found, now);
        self.events_held += lane.events_held();
        let order = self.order(key.vbucket);
        let before = self.lanes.insert(key, ScheduledLane::new(lane, order));
        debug_assert!(before.is_none(), "a lane is recovered once, before anything else");
        self.enqueue(now.uptime, key);
    }

    /// From here on new Blocks go to Lanes of this stream; the others are drained.
    pub fn set_stream(&mut self, stream: StreamId) {
        let before = std::mem::replace(&mut self.stream, stream);
        let of_before = |key: &LaneKey| key.stream == before;
        self.lanes.retain(|key, scheduled| {
            !(of_before(key) && scheduled.place == LaneState::Idle && scheduled.lane.is_empty())
        });
    }

    /// The Lane to which Blocks of this VBucket go.
    pub fn lane(&mut self, vbucket: u16) -> &mut Lane {
        let key = LaneKey { stream: self.stream, vbucket };
        if !self.lanes.contains_key(&key) {
            let order = self.order(vbucket);
            let lane = Lane::new(key, self.options.lane);
            self.lanes.insert(key, ScheduledLane::new(lane, order));
        }
        &mut self.scheduled(key).lane
    }

    fn order(&self, vbucket: u16) -> Box<[u16]> {
        // A Lane of an earlier run may be of a VBucket that this configuration does not have; any Server may say so.
        let vbucket =
            self.vbuckets.get(vbucket % self.vbuckets.count()).expect("a remainder is below the count");
        rendezvous::order(self.servers.iter().map(ServerState::url), vbucket)
    }

    /// Takes fragments that the Lane has planned and that are in the Spool now. They go out with a later
    /// [`Dispatcher::handle`].
    pub fn append(
        &mut self,
        now: ClockReading,
        vbucket: u16,
        fragments: Vec<(Fragment, FragmentLocation)>,
        written: u64,
    ) {
        let key = LaneKey { stream: self.stream, vbucket };
        let (bytes, events) = fragments.iter().fold((0, 0), |(bytes, events), (fragment, _)| {
            (bytes + fragment.bytes.len(), events + fragment.events)
        });
        let scheduled = self.scheduled(key);
        scheduled.lane.append(now, fragments, written);
        match scheduled.place {
            LaneState::Idle => self.enqueue(now.uptime, key),
            LaneState::AwaitingProbe(until) => {
                self.timers.remove(&(until, key));
                self.enqueue(now.uptime, key);
            }
            LaneState::Ready | LaneState::BackingOff(_) | LaneState::Fetching | LaneState::InFlight => {}
        }
        self.events_held += events;
        self.queue_bytes += bytes;
        if self.queue_bytes >= self.options.request_bytes_max && self.flush_at.is_some() {
            self.flush_at = Some(now.uptime);
        }
    }

    /// From now on nothing lingers: the Agent is stopping.
    pub fn hurry(&mut self, now: Duration) {
        self.options.linger = Duration::ZERO;
        self.flush_at = self.flush_at.map(|at| at.min(now));
    }

    /// What waited for the Spool may be there for good now.
    pub fn synced(&mut self, now: Duration) {
        if let Some(at) = &mut self.flush_at
            && *at <= now
        {
            (*at, self.checked_at) = (now, None);
        }
    }

    /// Takes an input, then sends whatever is due. `now` counts from the start of the Agent and never goes back.
    /// What the Spool holds may be sent up to `durable`.
    pub fn handle(&mut self, now: ClockReading, input: Input, durable: u64, actions: &mut Vec<Action>) {
        self.apply(now, input, actions);
        self.send_due(now, durable, actions);
    }

    /// Takes an input, and sends nothing yet: [`Dispatcher::go_on`] does.
    pub fn apply(&mut self, now: ClockReading, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Tick => {}
            Input::NewServer => self.ask_now(now.uptime),
            Input::Answered { request, acks, .. } => self.answered(now.uptime, request, acks, actions),
            Input::Failed { request, cause, why, retry_after } => {
                self.failed(now.uptime, request, cause, (why, retry_after), actions);
            }
        }
    }

    /// Sends whatever is due.
    pub fn send_due(&mut self, now: ClockReading, durable: u64, actions: &mut Vec<Action>) {
        self.wake_timers(now.uptime);
        self.check_spool(now.uptime, durable);
        if self.flush_at.is_some_and(|at| at <= now.uptime) {
            self.dispatch(now, durable, actions);
        }
        self.ask_time(now, actions);
        self.audit();
    }

    /// The content of a Batch that a Lane wants to send was read back, or could not be read now. Gives what of it is lost.
    pub fn fetched(
        &mut self,
        now: ClockReading,
        fetch: &Fetch,
        outcome: io::Result<FetchedContent>,
    ) -> ReleasedBatches {
        let mut lost = ReleasedBatches::default();
        let Some(scheduled) = self.lanes.get_mut(&fetch.lane) else { return lost };
        let is_awaited = fetch.purpose == Purpose::Send && scheduled.place == LaneState::Fetching;
        let is_read = outcome.is_ok();
        if let Ok(content) = outcome {
            lost = scheduled.lane.fetched(now.time, fetch, content);
            self.events_held -= lost.events;
        }
        match (is_awaited, is_read) {
            (false, _) => {}
            (true, false) => {
                self.fetched.remove(&fetch.lane);
                self.rest(now.uptime, fetch.lane);
            }
            // It has waited for its turn already.
            (true, true) => {
                scheduled.place = LaneState::Ready;
                let queue =
                    if scheduled.lane.is_replaying() { &mut self.replay_queue } else { &mut self.queue };
                queue.push_front(fetch.lane);
                (self.flush_at, self.checked_at) = (Some(now.uptime), None);
            }
        }
        lost
    }

    /// When [`Dispatcher::handle`] wants to be called at the latest, unless something else happens before.
    pub fn next_wake(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(until, _)| *until);
        let is_news = |at: &Duration| self.checked_at.is_none_or(|looked| *at > looked);
        let flush = self.flush_at.filter(is_news);
        let spool = self.withheld_until();
        // Lanes that are overdue wait for a slot, which an answer frees, for a sync, or for a Server's rest to be over.
        // Servers whose rest was over when the line was last looked through were considered then.
        let blocked = if self.flush_at.is_some() && flush.is_none() {
            self.servers.iter().filter_map(ServerState::rests_until).filter(is_news).min()
        } else {
            None
        };
        let ask = self.unwritten_probe_at.filter(|_| self.flush_at.is_some());
        [timer, flush, spool, blocked, ask, self.ask_time_at()].into_iter().flatten().min()
    }

    /// How many Lanes there are.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// All Lanes, by name.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.values_mut().map(|scheduled| &mut scheduled.lane)
    }

    /// The Lane of this name, if there is one.
    pub fn get(&mut self, key: LaneKey) -> Option<&mut Lane> {
        self.lanes.get_mut(&key).map(|scheduled| &mut scheduled.lane)
    }

    /// Some Lanes have let go of this outside of [`Dispatcher::handle`].
    pub fn released_elsewhere(&mut self, now: Duration, released: &ReleasedBatches) {
        self.events_held -= released.events;
        // Those that kept nothing else need not ask any more.
        let (timers, lanes) = (&mut self.timers, &mut self.lanes);
        for (key, scheduled) in lanes {
            if let LaneState::AwaitingProbe(until) = scheduled.place {
                let probe_at = scheduled.lane.probe_at();
                if probe_at != Some(until) {
                    timers.remove(&(until, *key));
                    scheduled.place =
                        probe_at.map_or(LaneState::Idle, |at| LaneState::AwaitingProbe(at.max(now)));
                    timers.extend(probe_at.map(|at| (at.max(now), *key)));
                }
            }
        }
    }

    /// Whether everything is contained in the store, as far as is known.
    pub fn is_drained(&self) -> bool {
        self.in_flight.is_empty() && self.lanes.values().all(|scheduled| scheduled.lane.is_applied())
    }

    /// The Servers, in the order of the configuration.
    pub fn servers(&self) -> &[ServerState] {
        &self.servers
    }

    /// Lanes for which the Server at this place was too old, and that no other has taken.
    pub fn lanes_too_new_for(&self, place: usize) -> usize {
        self.lanes.values().filter(|scheduled| scheduled.order.too_old() == Some(place)).count()
    }

    /// What became of Batches and requests.
    pub fn counts(&self) -> &DispatchCounts {
        &self.counts
    }

    /// Events that all Lanes hold.
    pub const fn events_held(&self) -> u64 {
        self.events_held
    }

    /// What is not known to be contained in the store.
    pub fn unapplied(&self) -> Weight {
        self.lanes.values().map(|scheduled| scheduled.lane.unapplied()).sum()
    }

    fn scheduled(&mut self, key: LaneKey) -> &mut ScheduledLane {
        self.lanes.get_mut(&key).expect("a Lane that is in queue or on its way is not removed")
    }

    fn answered(&mut self, now: Duration, request: RequestId, acks: Vec<Ack>, actions: &mut Vec<Action>) {
        let Some(sent_request) = self.in_flight.remove(&request) else { return };
        self.servers[sent_request.server].answered();
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

    /// What a Lane does that has nothing in flight: go on, wait until it is to ask, or nothing. One of an earlier stream
    /// that holds nothing any more is gone.
    fn settle(&mut self, now: Duration, key: LaneKey) {
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

    fn failed(
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
            server.too_large(sent_request.bytes, why.clone());
        } else {
            let wait = self.backoff.after(server.health().failures().saturating_add(1));
            let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
            server.failed(now + wait.max(asked), why.clone());
        }
        if sent_request.lanes.is_empty() {
            self.ask_again(now);
        }
        self.counts.batches_unanswered += sent_request.lanes.len() as u64;
        // Back to the front, in their order: they have waited longest.
        for key in sent_request.lanes.iter().rev() {
            self.isolate(now, *key, (cause, &why), &sent_request, actions);
            let scheduled = self.scheduled(*key);
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

    /// A Lane gave up so many events, which are in other Lanes now.
    pub const fn moved_away(&mut self, events: u64) {
        self.events_held -= events;
    }

    /// Some Blocks of the Batch that this Lane is at are set aside, or it was cut anew: it is to be tried again.
    pub fn changed(&mut self, key: LaneKey) {
        if let Some(scheduled) = self.lanes.get_mut(&key) {
            scheduled.isolation.changed();
        }
    }

    /// Puts a Lane that has something to say at the end of its line.
    fn enqueue(&mut self, now: Duration, key: LaneKey) {
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

    fn rest(&mut self, now: Duration, key: LaneKey) {
        self.fetched.remove(&key);
        let scheduled = self.lanes.get_mut(&key).expect("a Lane on its way is not removed");
        scheduled.failures = scheduled.failures.saturating_add(1);
        let until = now + self.backoff.after(scheduled.failures);
        scheduled.place = LaneState::BackingOff(until);
        self.timers.insert((until, key));
    }

    /// Lanes that wait until it is time to ask how far the store goes ask now.
    fn ask_now(&mut self, now: Duration) {
        for (until, key) in std::mem::take(&mut self.timers) {
            let scheduled = self.scheduled(key);
            let at = match &mut scheduled.place {
                LaneState::AwaitingProbe(at) => {
                    *at = now;
                    now
                }
                _ => until,
            };
            self.timers.insert((at, key));
        }
    }

    fn wake_timers(&mut self, now: Duration) {
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

    fn audit(&self) {
        if cfg!(debug_assertions) {
            let count = |is: fn(&LaneState) -> bool| {
                self.lanes.values().filter(|scheduled| is(&scheduled.place)).count()
            };
            let in_flight_lanes: usize =
                self.in_flight.values().map(|sent_request| sent_request.lanes.len()).sum();
            let queued = self.queue.len() + self.replay_queue.len();
            assert_eq!(count(|place| *place == LaneState::Ready), queued, "a Lane is lost");
            assert_eq!(
                count(|place| matches!(place, LaneState::BackingOff(_) | LaneState::AwaitingProbe(_))),
                self.timers.len(),
                "a Lane is lost"
            );
            assert_eq!(count(|place| *place == LaneState::InFlight), in_flight_lanes, "a Lane is lost");
            let is_fetching = |scheduled: &ScheduledLane| scheduled.place == LaneState::Fetching;
            let known = |(key, scheduled): (&LaneKey, &ScheduledLane)| {
                !is_fetching(scheduled) || self.fetched.contains_key(key)
            };
            assert!(self.lanes.iter().all(known), "a Lane is lost");
            let idle = self.lanes.values().filter(|scheduled| scheduled.place == LaneState::Idle);
            assert!(
                idle.into_iter().all(|scheduled| scheduled.lane.next().is_none()),
                "a Lane was forgotten"
            );
            assert_eq!(queued == 0, self.flush_at.is_none(), "the queue would not be served");
            let answered: u64 = self.counts.batches_answered.iter().sum();
            let balance = answered + self.counts.batches_unanswered + in_flight_lanes as u64;
            assert_eq!(self.counts.batches_sent, balance, "Batches lost count");
            let held: u64 = self.lanes.values().map(|scheduled| scheduled.lane.events_held()).sum();
            assert_eq!(held, self.events_held, "events lost count");
        }
    }
}

#[cfg(test)]
mod tests;
