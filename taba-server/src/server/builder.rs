//! [`ServerBuilder`]: the settings of a Server, and its start.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use taba_core::guard::quiet_guarded_panics;
use taba_core::limits::FUTURE_MICROS_MAX;
use taba_core::{DroppedLogLines, HostName, LogThrottle, Registry, Store};
use taba_listen::{BodyPace, Connections};
use tokio::runtime::Handle;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

use super::{Inner, Server};
use crate::clock::{Clock, system_clock};
use crate::driver::{Condition, OpenRequests, Shared, Worker, supervise};
use crate::query::{Limits, QueryState};
use crate::status::Status;
use crate::version::Versions;

/// The default interval between commits of a VBucket.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(200);
/// How fast the body of a request has to arrive, by default: in 30 s, and at 1 KiB a second.
pub const BODY_PACE: BodyPace = BodyPace { timeout: Duration::from_secs(30), rate_min: 1024 };
/// The default limit of bytes in open requests.
pub const HELD_BYTES_MAX: usize = 128 * 1024 * 1024;
/// The default limit of bytes in caches.
pub const CACHE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// The default limit of loads and commits in flight per worker.
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
    /// The operating system has no random numbers, so versions would not be unique.
    #[error("the operating system has no random numbers for versions")]
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
    body_pace: BodyPace,
    connections: Option<Arc<Connections>>,
    log_lines_dropped: DroppedLogLines,
    host_names: Vec<HostName>,
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
            body_pace: BODY_PACE,
            connections: None,
            log_lines_dropped: DroppedLogLines::default(),
            host_names: Vec::new(),
        }
    }
}

impl ServerBuilder {
    /// The store.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// A store that others use too.
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Names under which its routes are asked, besides `localhost` and addresses: requests for other hosts are refused. `*` stands
    /// for every name.
    pub fn host_names(mut self, names: Vec<HostName>) -> Self {
        self.host_names = names;
        self
    }

    /// The Handlers of the Tab types.
    pub fn handlers(mut self, handlers: Registry) -> Self {
        self.handlers = handlers;
        self
    }

    /// The clock; by default the machine's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The number of tasks that fold, each for its own VBuckets; by default one per processor.
    pub fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// The least time between two commits of one VBucket; by default [`COMMIT_INTERVAL`]. The first Batch after a
    /// pause is committed at once. Longer saves writes and delays answers; 0 commits continuously.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.commit_interval = interval;
        self
    }

    /// How far an event's time may be after its arrival; later times are set back and counted. By default 10 s.
    pub fn future_max(mut self, future_max: Duration) -> Self {
        self.future_max = future_max;
        self
    }

    /// Bytes in open requests; further requests are rejected. By default [`HELD_BYTES_MAX`].
    pub fn held_bytes_max(mut self, bytes: usize) -> Self {
        self.held_bytes_max = bytes;
        self
    }

    /// Approximate bytes of the caches of decoded States. By default [`CACHE_BYTES_MAX`].
    pub fn cache_bytes_max(mut self, bytes: usize) -> Self {
        self.cache_bytes_max = bytes;
        self
    }

    /// Loads and commits in flight per worker, at least 1. By default [`COMMITS_IN_FLIGHT_MAX`].
    pub fn commits_in_flight_max(mut self, commits: usize) -> Self {
        self.commits_in_flight_max = commits.max(1);
        self
    }

    /// The bounds of queries.
    pub fn query_limits(mut self, limits: Limits) -> Self {
        self.query_limits = limits;
        self
    }

    /// How fast the bodies of Agents have to arrive; by default [`BODY_PACE`].
    pub fn body_pace(mut self, pace: BodyPace) -> Self {
        self.body_pace = pace;
        self
    }

    /// The connections that it is served on, for `/metrics`; by default it knows none.
    pub fn connections(mut self, connections: Arc<Connections>) -> Self {
        self.connections = Some(connections);
        self
    }

    /// The count of dropped log lines of the process, for `/v2/status` and `/metrics`; by default 0.
    pub fn log_lines_dropped(mut self, count: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.log_lines_dropped = DroppedLogLines::of(count);
        self
    }

    /// Starts the Server. Requires a tokio runtime, on which the workers run.
    ///
    /// From then on the process's panic hook is silent about panics of Handlers, which this Server counts and logs.
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
        let mut query = QueryState::with_limits(store, self.handlers, self.clock, status, self.query_limits)
            .with_host_names(self.host_names);
        query.connections = self.connections;
        let body_pace = self.body_pace;
        let registration = OnceLock::new();
        Ok(Server {
            inner: Arc::new(Inner { process: random()?, shared, query, workers, registration, body_pace }),
        })
    }
}
