//! [`Dispatcher`]: which Lane's Batch goes to which Server, in which request, and when.
//!
//! ```text
//!            a Block came                     its turn, and its Server has a free slot
//!   Idle ─────────────────► Ready (queued) ────────────────────────────────────────────► InFlight
//!                            │ ▲ its Batch is read back: Fetching                          │
//!                            └─┘                                                           │
//!    ▲ │ keeps what it sent   ▲   ▲    time is over                                        │
//!    │ └─► AwaitingProbe ─────┘   └──────────────── BackingOff ◄── Unavailable, Busy ──────┤
//!    │     time to ask        └────────────── request failed; Nak; stored, and more ───────┤
//!    └───────────────────────────────────────────────────── stored, and nothing more ──────┘
//! ```
//! A Lane is in exactly one of these places. Lanes in line wait for a short while (`linger`), so that what many
//! Clients bring in that time travels together; then each goes to the first Server in its rendezvous order that is in
//! health. When that one has all its requests in flight, the Lane waits: another Server would only meet it in the same
//! commits. When it fails, or does not answer for much longer than usual, its Lanes go to the next in their order at once.
//! They come back little by little once it answers again: see `share.rs`. When its build is too old for what a Lane holds,
//! that Lane alone goes to the next for a while: see `order.rs`. The Servers may change at any time: see `servers.rs`.
//!
//! There are two lines: Lanes that repeat what was sent before, or ask, stand in one of their own. They travel with the
//! others as far as there is room, but never take the last free request of a Server that has more than one, so that a
//! long replay does not starve what is fresh.

mod answers;
mod counts;
mod input;
mod isolation;
mod misdated;
mod news;
mod order;
mod queues;
mod request;
mod send;
mod server;
mod servers;
mod share;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::time::Duration;

use taba_core::{Backoff, StreamId, VBuckets};

pub use self::counts::{ANSWERS, DispatchCounts};
pub use self::input::{Action, FailureCause, Input, PoisonBlocks};
use self::misdated::ClockAgreement;
use self::news::ServerNews;
use self::queues::{LaneState, ScheduledLane};
pub use self::request::{Request, RequestId};
pub use self::server::{ServerState, ServerStatus};
pub use self::share::RETURN_TIME_MAX;
use crate::lane::{Lane, LaneBounds, LaneKey, ReleasedBatches};
use crate::rendezvous;
use crate::spool::record::Fragment;
use crate::spool::recovery::RecoveredLane;
use crate::spool::{Fetch, FetchedContent, FragmentLocation, Purpose, Weight};
use crate::units::ClockReading;
use taba_core::ServerUrl;

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
    /// Bytes that may still be sent in this dispatch.
    bytes_left: usize,
    /// Bytes that came into Lanes in line since the last dispatch.
    queue_bytes: usize,
    /// When to dispatch; `None` when no Lane is queued.
    flush_at: Option<Duration>,
    /// Lanes in `LaneState::BackingOff` and `LaneState::AwaitingProbe`, by when that is over.
    timers: BTreeSet<(Duration, LaneKey)>,
    in_flight: BTreeMap<RequestId, InFlightRequest>,
    /// Lanes whose Batch is being read back, or was and waits to be sent, and its bytes.
    fetched: BTreeMap<LaneKey, usize>,
    requests: u64,
    /// When the line as it is now was last looked through; `None` when a Lane joined it since.
    checked_at: Option<Duration>,
    /// When a Lane in line, whose Batch waits for the Spool, is to ask instead.
    unwritten_probe_at: Option<Duration>,
    news: ServerNews,
    events_held: u64,
    clocks: ClockAgreement,
    counts: DispatchCounts,
}

/// The options of a [`Dispatcher`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DispatcherOptions {
    /// The Servers; without any, all Lanes wait until [`Dispatcher::set_servers`] brings some.
    pub servers: Vec<ServerUrl>,
    /// How long a Block waits for others to travel with.
    pub linger: Duration,
    /// Bytes of one request, at most.
    pub request_bytes_max: usize,
    /// Requests in flight to one Server, at most; at least 1.
    pub requests_per_server_max: usize,
    /// Bytes of all requests in flight, at most; at least those of one request.
    pub bytes_in_flight_max: usize,
    /// The first waiting time after a failure; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest waiting time.
    pub backoff_max: Duration,
    /// The bounds of each Lane.
    pub lane: LaneBounds,
}

#[derive(Debug)]
struct InFlightRequest {
    server: usize,
    sent_at: Duration,
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
            bytes_left: 0,
            queue_bytes: 0,
            flush_at: None,
            timers: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            fetched: BTreeMap::new(),
            requests: 0,
            checked_at: None,
            unwritten_probe_at: None,
            news: ServerNews::default(),
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
        let listed = (0..).zip(&self.servers).filter(|(_, server)| server.is_listed());
        rendezvous::order(listed.map(|(place, server)| (place, server.url())), vbucket)
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

    /// From now on nothing waits for `linger`: the Agent is stopping.
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

    /// Takes an input, and sends nothing yet: [`Dispatcher::send_due`] does.
    pub fn apply(&mut self, now: ClockReading, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Tick => {}
            Input::NewServer => self.news.came(),
            Input::Answered { request, acks, .. } => self.answered(now.uptime, request, acks, actions),
            Input::Failed { request, cause, why, retry_after } => {
                self.failed(now.uptime, request, cause, (why, retry_after), actions);
            }
        }
    }

    /// Sends whatever is due.
    pub fn send_due(&mut self, now: ClockReading, durable: u64, actions: &mut Vec<Action>) {
        if self.news.take(now.uptime) {
            self.ask_now(now.uptime);
        }
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
        let hangs =
            if self.flush_at.is_some() && flush.is_none() { self.hangs_at().find(is_news) } else { None };
        [timer, flush, spool, blocked, hangs, ask, self.ask_time_at(), self.news.due_at()]
            .into_iter()
            .flatten()
            .min()
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

    /// Some Lanes have released this outside of [`Dispatcher::handle`].
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

    /// The Servers, each at its place: first those of the configuration, in its order. One that
    /// [is not listed](ServerState::is_listed) any more only answers what it was sent.
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
