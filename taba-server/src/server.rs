//! [`Server`]: everything wired together, to be embedded in a program or nested in its routes.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use taba_core::guard::quiet_guarded_panics;
use taba_core::limits::FUTURE_MICROS_MAX;
use taba_core::wire::{Ack, Answer, Lanes};
use taba_core::{Registry, Store, Timestamp};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::clock::{Clock, system_clock};
use crate::direction::{Misdirected, check};
use crate::driver::{
    ArrivedMessage, ByteReservation, Condition, Failure, OpenRequests, OverCapacity, Shared, Worker,
    WorkerMessage, supervise,
};
use crate::log_throttle::LogThrottle;
use crate::planner::{self, CLOCKS_APART_MAX, LaneMessage};
use crate::query::{Limits, QueryState};
use crate::status::{LinesDropped, Status};
use crate::version::Versions;

/// How often a VBucket is committed, unless told otherwise.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes of requests that may be in hand, unless told otherwise.
pub const HELD_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes that the caches of decoded States may take, unless told otherwise.
pub const CACHE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Loads and commits of one worker that may be under way, unless told otherwise.
pub const COMMITS_IN_FLIGHT_MAX: usize = 256;

/// A running Server. Cloning gives another handle to the same one.
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
    /// Drawn at its start.
    process: u64,
    shared: Arc<Shared>,
    query: QueryState,
    workers: Vec<UnboundedSender<WorkerMessage>>,
}

/// Why a Server cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No store was given.
    #[error("a server needs a store: call `.store(..)`")]
    NoStore,
    /// There is no tokio runtime to start the workers on.
    #[error("a server is built inside a tokio runtime")]
    NoRuntime(#[from] tokio::runtime::TryCurrentError),
    /// The operating system has no random numbers, so no version would be unique.
    #[error("there are no random numbers to name this writer with")]
    NoChance(#[source] std::io::Error),
}

fn random() -> Result<u64, BuildError> {
    getrandom::u64().map_err(|error| BuildError::NoChance(std::io::Error::other(error)))
}

/// What was left when a Server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it tells whether all was committed"]
pub struct ShutdownReport {
    /// Requests whose Batches were not answered before the deadline. Nothing is lost with them: their senders still
    /// have them.
    pub requests_unanswered: usize,
}

/// A [`Server`] in the making.
#[must_use]
pub struct ServerBuilder {
    store: Option<Arc<dyn Store>>,
    handlers: Registry,
    clock: Clock,
    workers: Option<NonZeroUsize>,
    commit_interval: Duration,
    future_max: Duration,
    held_bytes_max: usize,
    cache_bytes_max: usize,
    commits_in_flight_max: usize,
    query_limits: Limits,
    log_lines_dropped: LinesDropped,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("workers", &self.inner.workers.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("handlers", &self.handlers).finish_non_exhaustive()
    }
}

impl Server {
    /// A Server to be configured.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            store: None,
            handlers: Registry::default(),
            clock: system_clock(),
            workers: None,
            commit_interval: COMMIT_INTERVAL,
            future_max: Duration::from_micros(FUTURE_MICROS_MAX as u64),
            held_bytes_max: HELD_BYTES_MAX,
            cache_bytes_max: CACHE_BYTES_MAX,
            commits_in_flight_max: COMMITS_IN_FLIGHT_MAX,
            query_limits: Limits::default(),
            log_lines_dropped: LinesDropped::default(),
        }
    }

    /// What queries work on, to ask them without HTTP.
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

    /// A number drawn at its start, by which Agents tell it from the process that answered there before.
    pub(crate) fn process(&self) -> u64 {
        self.inner.process
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.inner.shared.clock
    }

    /// Takes Batches and Probes, without HTTP: the answers come in the same order, those to the Batches before those to
    /// the Probes, once all are committed or cannot be.
    ///
    /// What is not meant for this deployment is answered [`Answer::Misplaced`]; [`check`](Self::check) tells why.
    ///
    /// # Cancel safety
    /// When dropped, the Batches may or may not be committed; sending them again is safe, as always.
    pub async fn ingest(&self, lanes: Lanes) -> Vec<Ack> {
        let request = Request::from(lanes);
        let room = self.reserve(request.messages.iter().map(LaneMessage::bytes).sum());
        match room {
            Ok(room) => self.take(request, Some(room)).await,
            Err(OverCapacity) => request.unanswered(Answer::Busy),
        }
    }

    /// Whether the Batches and Probes can be meant for this Server.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn check(&self, lanes: &Lanes) -> Result<(), Misdirected> {
        let vbuckets = self.inner.shared.store.vbuckets();
        lanes
            .batches
            .iter()
            .try_for_each(|batch| check(vbuckets, batch.vbucket, &batch.blocks).map(|_| ()))?;
        lanes.probes.iter().try_for_each(|probe| check(vbuckets, probe.vbucket, &[]).map(|_| ()))
    }

    /// Whether the Batches could be folded: does all that a commit would do, and throws it away. What the store does not
    /// give is answered [`Answer::Unavailable`].
    pub(crate) async fn check_lanes(&self, lanes: &Lanes) -> Vec<Ack> {
        let shared = &self.inner.shared;
        let mut acks = Vec::with_capacity(lanes.batches.len());
        for batch in &lanes.batches {
            shared.status.checks.fetch_add(1, Ordering::Relaxed);
            let unanswered = |answer| LaneMessage::Batch(batch.clone()).unanswered(answer);
            let vbuckets = shared.store.vbuckets();
            let Ok(vbucket) = check(vbuckets, batch.vbucket, &batch.blocks) else {
                acks.push(unanswered(Answer::Misplaced));
                continue;
            };
            let wanted = planner::wanted_of(&batch.blocks);
            acks.push(match shared.store.load(vbucket, &wanted).await {
                Ok(loaded) => planner::check(&shared.handlers, batch, (&wanted, &loaded), (shared.clock)()),
                Err(_) => unanswered(Answer::Unavailable),
            });
        }
        acks
    }

    /// Stops: takes no more Batches, commits what it holds, ends its workers. Whether it is stable is not waited for.
    ///
    /// # Cancel safety
    /// When dropped, the Server goes on stopping without a deadline: no commit is aborted.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        self.inner.shared.condition.stop();
        self.inner.query.close();
        for worker in &self.inner.workers {
            // A worker that is gone has nothing left to drain.
            let _ = worker.send(WorkerMessage::Drain);
        }
        let Shared { open_requests, condition, .. } = &*self.inner.shared;
        let stopped = async {
            open_requests.until_empty().await;
            condition.until_over().await;
        };
        let _ = tokio::time::timeout(deadline, stopped).await;
        ShutdownReport { requests_unanswered: open_requests.open_count() }
    }

    /// Waits until the Server fails: a worker panicked, or the store did. It takes nothing more then; call
    /// [`shutdown`](Self::shutdown), which commits what can still be committed, and end the process with an error. What was
    /// not acknowledged is kept by its senders. A Server that does not fail is waited for without end.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn failed(&self) -> Failure {
        self.inner.shared.condition.failed().await
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.inner.shared.condition.is_stopping()
    }

    pub(crate) fn reserve(&self, bytes: usize) -> Result<ByteReservation, OverCapacity> {
        self.inner.shared.open_requests.reserve(bytes)
    }

    /// Says when the clock of a sender is so far from this one that it begins no Lane.
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

    /// Says that something is not meant for this deployment.
    fn say_misplaced(&self, why: Misdirected) {
        if let Some(suppressed) = self.inner.shared.log.admit("misplaced", why.code()) {
            tracing::error!(error = %why, suppressed, "an agent sends what is not meant for this deployment");
        }
    }

    /// Says that a request was turned away, and why.
    pub(crate) fn tell_rejection(&self, reason: &'static str, rejection: &dyn std::error::Error) {
        if let Some(suppressed) = self.inner.shared.log.admit("rejected", reason) {
            tracing::warn!(reason, error = %rejection, suppressed, "a request was turned away; its sender keeps the batches");
        }
    }

    /// Takes what there is room for.
    pub(crate) async fn take(&self, request: Request, room: Option<ByteReservation>) -> Vec<Ack> {
        if request.messages.is_empty() || self.is_stopping() {
            return request.unanswered(Answer::Unavailable);
        }
        let shared = &self.inner.shared;
        let vbuckets = shared.store.vbuckets();
        shared.status.requests.fetch_add(1, Ordering::Relaxed);
        let arrived = (shared.clock)();
        self.compare_clocks(arrived, request.sent_at);
        let (tickets, answers) = shared.open_requests.open(arrived, &request.messages, room);
        let mut by_worker: Vec<Vec<ArrivedMessage>> = self.inner.workers.iter().map(|_| Vec::new()).collect();
        for (message, ticket) in request.messages.into_iter().zip(tickets) {
            let counter = match message {
                LaneMessage::Batch(_) => &shared.status.batches_in,
                LaneMessage::Probe(_) => &shared.status.probes_in,
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
            let arrival = ArrivedMessage { vbucket, ticket, message, arrived, sent_at: request.sent_at };
            by_worker[usize::from(vbucket.index()) % self.inner.workers.len()].push(arrival);
        }
        for (worker, arrivals) in self.inner.workers.iter().zip(by_worker) {
            if !arrivals.is_empty() {
                // A worker that has ended drops the tickets, and that answers them.
                let _ = worker.send(WorkerMessage::Arrivals(arrivals));
            }
        }
        answers.await.expect("a request outlives its tickets, and each of them answers")
    }
}

/// What one sender says about many Lanes at once: its Batches, then its Probes.
pub(crate) struct Request {
    sent_at: Timestamp,
    messages: Vec<LaneMessage>,
}

impl From<Lanes> for Request {
    fn from(Lanes { sent_at, batches, probes }: Lanes) -> Self {
        let batches = batches.into_iter().map(LaneMessage::Batch);
        Self { sent_at, messages: batches.chain(probes.into_iter().map(LaneMessage::Probe)).collect() }
    }
}

impl Request {
    fn unanswered(&self, answer: Answer) -> Vec<Ack> {
        self.messages.iter().map(|message| message.unanswered(answer)).collect()
    }
}

impl ServerBuilder {
    /// Where States are kept.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Where States are kept, when others use the same store.
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// The Tab types that it understands.
    pub fn handlers(mut self, handlers: Registry) -> Self {
        self.handlers = handlers;
        self
    }

    /// The clock; by default the machine's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How many tasks fold, each for its own VBuckets; by default as many as the machine has processors.
    pub fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// At least how long lies between two commits of one VBucket; by default [`COMMIT_INTERVAL`]. The first Batch
    /// after a pause is committed at once. Longer saves writes, and makes answers later; 0 commits without pause.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.commit_interval = interval;
        self
    }

    /// How far after its arrival an event's time may lie; later ones are set back to that, and counted. By default 10 s.
    pub fn future_max(mut self, future_max: Duration) -> Self {
        self.future_max = future_max;
        self
    }

    /// How many bytes of requests may be in hand; beyond, they are turned away. By default [`HELD_BYTES_MAX`].
    pub fn held_bytes_max(mut self, bytes: usize) -> Self {
        self.held_bytes_max = bytes;
        self
    }

    /// How many bytes the caches of decoded States may take, about. By default [`CACHE_BYTES_MAX`].
    pub fn cache_bytes_max(mut self, bytes: usize) -> Self {
        self.cache_bytes_max = bytes;
        self
    }

    /// How many loads and commits each worker may have under way, at least 1. By default [`COMMITS_IN_FLIGHT_MAX`].
    pub fn commits_in_flight_max(mut self, commits: usize) -> Self {
        self.commits_in_flight_max = commits.max(1);
        self
    }

    /// The bounds of queries.
    pub fn query_limits(mut self, limits: Limits) -> Self {
        self.query_limits = limits;
        self
    }

    /// Tells how many lines of the process's log were dropped, for `/v2/status` and `/metrics`; by default none is.
    pub fn log_lines_dropped(mut self, count: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.log_lines_dropped = LinesDropped::of(count);
        self
    }

    /// Starts it. Must be called inside a tokio runtime, on which the workers then run.
    ///
    /// From here on the process's panic hook says nothing of panics of Handlers, which this Server counts and logs.
    ///
    /// # Errors
    /// [`BuildError`] when something is missing.
    pub fn build(self) -> Result<Server, BuildError> {
        let store = self.store.ok_or(BuildError::NoStore)?;
        quiet_guarded_panics();
        let runtime = Handle::try_current()?;
        let count =
            self.workers.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let status = Arc::new(Status::new(self.log_lines_dropped));
        let log = Arc::<LogThrottle>::default();
        let shared = Arc::new(Shared {
            store: Arc::clone(&store),
            handlers: self.handlers.clone(),
            clock: Arc::clone(&self.clock),
            status: Arc::clone(&status),
            open_requests: Arc::new(OpenRequests::new(Arc::clone(&status), self.held_bytes_max)),
            condition: Condition::default(),
            log: Arc::clone(&log),
            versions: Versions::new(random()?),
            commit_interval: self.commit_interval,
            future_max: self.future_max,
            commits_in_flight_max: self.commits_in_flight_max,
            cache_bytes_max: self.cache_bytes_max / count,
        });
        let mut tasks = JoinSet::new();
        let workers = (0..count).map(|_| {
            let (sender, messages) = unbounded_channel();
            tasks.spawn_on(Worker::new(Arc::clone(&shared), messages).run(), &runtime);
            sender
        });
        let workers = workers.collect();
        runtime.spawn(supervise(tasks, Arc::clone(&shared)));
        let query = QueryState::with_limits(store, self.handlers, self.clock, status, self.query_limits);
        Ok(Server { inner: Arc::new(Inner { process: random()?, shared, query, workers }) })
    }
}
