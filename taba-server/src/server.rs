//! [`Server`]: all parts together, to embed in a program or nest in its routes.

mod builder;
mod spread;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use taba_core::limits::REQUEST_EVENTS_MAX;
use taba_core::wire::{Ack, Answer, Block, Lanes};
use taba_core::{ServerUrl, Store, Timestamp};
use taba_listen::BodyPace;
use tokio::sync::mpsc::UnboundedSender;

pub use self::builder::{
    BODY_PACE, CACHE_BYTES_MAX, COMMIT_INTERVAL, COMMITS_IN_FLIGHT_MAX, HELD_BYTES_MAX, ServerBuildError,
    ServerBuilder,
};
use crate::clock::Clock;
use crate::direction::{Misdirected, check};
use crate::driver::{
    ArrivedMessage, ByteReservation, OverCapacity, ServerFailure, ServerRegistration, Shared, WorkerMessage,
};
use crate::planner::{self, CLOCKS_APART_MAX, IncomingMessage};
use crate::query::QueryState;
use crate::server_list::LiveServer;
use crate::status::Status;

/// A running Server. Clones are handles to the same Server.
///
/// # Examples
/// ```
/// use taba_core::MemoryStore;
/// use taba_server::Server;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let handlers = taba_handlers::standard().build()?;
/// let server = Server::builder().store(MemoryStore::default()).handlers(handlers).build()?;
/// let app: axum::Router = axum::Router::new().nest("/taba", server.router());
/// # drop(app);
/// # server.shutdown(std::time::Duration::from_secs(1)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    /// A random number.
    process: u64,
    shared: Arc<Shared>,
    query: QueryState,
    workers: Vec<UnboundedSender<WorkerMessage>>,
    registration: OnceLock<Arc<ServerRegistration>>,
    body_pace: BodyPace,
}

/// What was left when a Server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it tells whether all was committed"]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Requests not answered before the deadline. Nothing is lost: their senders still have the Batches.
    pub requests_unanswered: usize,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("workers", &self.inner.workers.len()).finish_non_exhaustive()
    }
}

impl Server {
    /// A new builder.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// The context of queries, to run them without HTTP.
    pub fn query_state(&self) -> &QueryState {
        &self.inner.query
    }

    /// Its counters.
    pub fn status(&self) -> &Arc<Status> {
        &self.inner.shared.status
    }

    /// Its store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.shared.store
    }

    /// A random number that identifies this process to Agents.
    pub(crate) fn process(&self) -> u64 {
        self.inner.process
    }

    /// Says in the store, every `interval`, that this Server is there, and reads who else is: `GET /v2/servers` answers
    /// with all of them, and Agents that look for Servers find it at `url`. Only the first call counts. It must be made inside
    /// a tokio runtime.
    ///
    /// # Cost
    /// A write and a read of the store for each interval; see [`Store::register`].
    pub fn advertise(&self, url: ServerUrl, interval: Duration) {
        let Inner { registration, shared, process, .. } = &*self.inner;
        registration.get_or_init(|| ServerRegistration::begin(Arc::clone(shared), *process, url, interval));
    }

    /// The Servers of its store that are alive; none where it is not [advertised](Self::advertise).
    pub fn servers(&self) -> Vec<LiveServer> {
        self.inner.registration.get().map(|registration| registration.live()).unwrap_or_default()
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.inner.shared.clock
    }

    /// Processes Batches and Probes, without HTTP: the answers to Batches, then those to Probes, each in order, once
    /// all are committed or failed.
    ///
    /// Messages that are not for this deployment are answered [`Answer::Misplaced`]; [`check`](Self::check) gives the
    /// reason.
    ///
    /// # Cancel safety
    /// When dropped, the Batches may or may not be committed; sending them again is safe.
    pub async fn ingest(&self, lanes: Lanes) -> Vec<Ack> {
        let request = Request::from(lanes);
        let room = self.reserve(request.messages.iter().map(IncomingMessage::bytes).sum());
        match room {
            Ok(room) => self.take(request, Some(room)).await,
            Err(OverCapacity) => request.unanswered(Answer::Busy),
        }
    }

    /// Checks that the Batches and Probes are for this Server.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn check(&self, lanes: &Lanes) -> Result<(), Misdirected> {
        let vbuckets = self.inner.shared.store.vbuckets();
        lanes
            .batches
            .iter()
            .try_for_each(|batch| check(vbuckets, batch.vbucket, &batch.blocks).map(|_| ()))?;
        lanes.probes.iter().try_for_each(|probe| check(vbuckets, probe.vbucket, &[]).map(|_| ()))
    }

    /// Checks whether the Batches could be folded: does everything that a commit would do, and discards it. Batches
    /// whose States the store does not return are answered [`Answer::Unavailable`].
    pub(crate) async fn check_lanes(&self, lanes: &Lanes) -> Vec<Ack> {
        let shared = &self.inner.shared;
        let (mut acks, mut budget) = (Vec::with_capacity(lanes.batches.len()), FoldBudget::default());
        for batch in &lanes.batches {
            shared.status.checks.fetch_add(1, Ordering::Relaxed);
            let unanswered = |answer| IncomingMessage::Batch(batch.clone()).unanswered(answer);
            let vbuckets = shared.store.vbuckets();
            let Ok(vbucket) = check(vbuckets, batch.vbucket, &batch.blocks) else {
                acks.push(unanswered(Answer::Misplaced));
                continue;
            };
            if !budget.takes(&batch.blocks) {
                acks.push(unanswered(Answer::Busy));
                continue;
            }
            let wanted = planner::wanted_of(&batch.blocks);
            acks.push(match shared.store.load(vbucket, &wanted).await {
                Ok(loaded) => planner::check(&shared.handlers, batch, (&wanted, &loaded), (shared.clock)()),
                Err(_) => unanswered(Answer::Unavailable),
            });
        }
        acks
    }

    /// Stops: announces it in the store, accepts no more Batches, commits the waiting ones, ends its workers, and removes itself
    /// from the list in the store. Does not wait for stability.
    ///
    /// # Cancel safety
    /// When dropped, the Server continues to stop without a deadline: no commit is aborted.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let registration = self.inner.registration.get();
        if let Some(registration) = registration {
            registration.drain().await;
        }
        self.inner.shared.condition.stop();
        self.inner.query.close();
        for worker in &self.inner.workers {
            // A worker that has ended has nothing to drain.
            let _ = worker.send(WorkerMessage::Drain);
        }
        let Shared { open_requests, condition, .. } = &*self.inner.shared;
        let stopped = async {
            open_requests.until_empty().await;
            condition.until_over().await;
        };
        let _ = tokio::time::timeout(deadline, stopped).await;
        if let Some(registration) = registration {
            registration.leave().await;
        }
        ShutdownReport { requests_unanswered: open_requests.open_count() }
    }

    /// Waits until the Server fails: a worker or the store panicked. It then accepts nothing more; call
    /// [`shutdown`](Self::shutdown), which commits what it still can, and end the process with an error. Senders keep
    /// what was not acknowledged. Never returns for a Server that does not fail.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn failed(&self) -> ServerFailure {
        self.inner.shared.condition.failed().await
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.inner.shared.condition.is_stopping()
    }

    pub(crate) fn reserve(&self, bytes: usize) -> Result<ByteReservation, OverCapacity> {
        self.inner.shared.open_requests.reserve(bytes)
    }

    pub(crate) fn body_pace(&self) -> BodyPace {
        self.inner.body_pace
    }

    /// Logs when the clock of a sender differs so much that it begins no Lane.
    fn compare_clocks(&self, here: Timestamp, there: Timestamp) {
        let apart = here.since(there).max(there.since(here));
        if apart <= CLOCKS_APART_MAX {
            return;
        }
        let is_sender_ahead = there > here;
        let cause = if is_sender_ahead { "sender ahead" } else { "sender behind" };
        if let Some(suppressed) = self.inner.shared.log.admit("clocks", cause) {
            tracing::warn!(
                apart_s = apart.as_secs(),
                is_sender_ahead,
                suppressed,
                "the clocks of an agent and of this server are too far apart; its new lanes wait until they agree: \
                 set right the one that is wrong"
            );
        }
    }

    /// Logs that messages are not for this deployment.
    fn say_misplaced(&self, why: Misdirected) {
        if let Some(suppressed) = self.inner.shared.log.admit("misplaced", why.code()) {
            tracing::error!(error = %why, suppressed, "an agent sends messages for another deployment");
        }
    }

    /// Logs that a request was rejected, and why.
    pub(crate) fn tell_rejection(&self, reason: &'static str, rejection: &dyn std::error::Error) {
        if let Some(suppressed) = self.inner.shared.log.admit("rejected", reason) {
            let error = taba_core::causes(rejection);
            tracing::warn!(reason, error, suppressed, "a request was rejected; its sender keeps the batches");
        }
    }

    /// Processes an admitted request.
    pub(crate) async fn take(&self, mut request: Request, room: Option<ByteReservation>) -> Vec<Ack> {
        if request.messages.is_empty() || self.is_stopping() {
            return request.unanswered(Answer::Unavailable);
        }
        let shared = &self.inner.shared;
        let vbuckets = shared.store.vbuckets();
        shared.status.requests.fetch_add(1, Ordering::Relaxed);
        let arrived = (shared.clock)();
        self.compare_clocks(arrived, request.sent_at);
        let (tickets, answers) = shared.open_requests.open(arrived, &request.messages, room);
        let held_back = self.prepare_spread(&mut request.messages).await;
        let mut budget = FoldBudget::default();
        let mut by_worker: Vec<Vec<ArrivedMessage>> = self.inner.workers.iter().map(|_| Vec::new()).collect();
        for (place, (message, ticket)) in request.messages.into_iter().zip(tickets).enumerate() {
            let counter = match message {
                IncomingMessage::Batch(_) => &shared.status.batches_in,
                IncomingMessage::Probe(_) => &shared.status.probes_in,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            let vbucket = match check(vbuckets, message.vbucket(), message.blocks()) {
                Ok(vbucket) => vbucket,
                Err(why) => {
                    shared.status.messages_misplaced.fetch_add(1, Ordering::Relaxed);
                    self.say_misplaced(why);
                    ticket.answer(message.unanswered(Answer::Misplaced));
                    continue;
                }
            };
            if !budget.takes(message.blocks()) {
                shared.status.batches_busy.fetch_add(1, Ordering::Relaxed);
                ticket.answer(message.unanswered(Answer::Busy));
                continue;
            }
            if held_back.contains(&place) {
                ticket.answer(message.unanswered(Answer::Unavailable));
                continue;
            }
            let arrival = ArrivedMessage { vbucket, ticket, message, arrived, sent_at: request.sent_at };
            by_worker[usize::from(vbucket.index()) % self.inner.workers.len()].push(arrival);
        }
        for (worker, arrivals) in self.inner.workers.iter().zip(by_worker) {
            if !arrivals.is_empty() {
                // A worker that has ended drops the tickets, which answers them.
                let _ = worker.send(WorkerMessage::Arrivals(arrivals));
            }
        }
        answers.await.expect("a request outlives its tickets, and each of them answers")
    }
}

/// How much of one request's events is to be folded so far, one by one: equal events take few bytes and as much work as others.
#[derive(Default)]
struct FoldBudget(u64);

impl FoldBudget {
    /// Whether these Blocks are within [`REQUEST_EVENTS_MAX`] with those before.
    fn takes(&mut self, blocks: &[Block]) -> bool {
        let events = blocks.iter().map(Block::unfolded_events).fold(self.0, u64::saturating_add);
        let fits = events <= REQUEST_EVENTS_MAX;
        self.0 = if fits { events } else { self.0 };
        fits
    }
}

/// The Batches and Probes of one request.
pub(crate) struct Request {
    sent_at: Timestamp,
    messages: Vec<IncomingMessage>,
}

impl From<Lanes> for Request {
    fn from(lanes: Lanes) -> Self {
        let Lanes { sent_at, batches, probes, .. } = lanes;
        let batches = batches.into_iter().map(IncomingMessage::Batch);
        Self { sent_at, messages: batches.chain(probes.into_iter().map(IncomingMessage::Probe)).collect() }
    }
}

impl Request {
    fn unanswered(&self, answer: Answer) -> Vec<Ack> {
        self.messages.iter().map(|message| message.unanswered(answer)).collect()
    }
}
