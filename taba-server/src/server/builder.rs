//! [`ServerBuilder`]: the settings of a Server, and its start.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use taba_core::guard::quiet_guarded_panics;
use taba_core::limits::FUTURE_MICROS_MAX;
use taba_core::{DroppedLogLines, LogThrottle, Registry, Store};
use tokio::runtime::Handle;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

use super::{Inner, Server};
use crate::clock::{Clock, system_clock};
use crate::driver::{Condition, OpenRequests, Shared, Worker, supervise};
use crate::query::{Limits, QueryState};
use crate::status::Status;
use crate::version::Versions;

/// How often a VBucket is committed, unless told otherwise.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes of requests that may be in hand, unless told otherwise.
pub const HELD_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes that the caches of decoded States may take, unless told otherwise.
pub const CACHE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Loads and commits of one worker that may be under way, unless told otherwise.
pub const COMMITS_IN_FLIGHT_MAX: usize = 256;

/// Why a Server cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerBuildError {
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

fn random() -> Result<u64, ServerBuildError> {
    getrandom::u64().map_err(|error| ServerBuildError::NoChance(std::io::Error::other(error)))
}

/// The settings of a [`Server`] that is not started yet.
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
    log_lines_dropped: DroppedLogLines,
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("handlers", &self.handlers).finish_non_exhaustive()
    }
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
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
            log_lines_dropped: DroppedLogLines::default(),
        }
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
        self.log_lines_dropped = DroppedLogLines::of(count);
        self
    }

    /// Starts it. Must be called inside a tokio runtime, on which the workers then run.
    ///
    /// From here on the process's panic hook says nothing of panics of Handlers, which this Server counts and logs.
    ///
    /// # Errors
    /// [`ServerBuildError`] when something is missing.
    pub fn build(self) -> Result<Server, ServerBuildError> {
        let store = self.store.ok_or(ServerBuildError::NoStore)?;
        quiet_guarded_panics();
        let runtime = Handle::try_current()?;
        let count =
            self.workers.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let status = Arc::new(Status::new(self.log_lines_dropped));
        let log = Arc::new(LogThrottle::new(crate::clock::log_clock));
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
