//! [`QueryState`]: the context of all queries, with their [`Limits`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use taba_core::{
    ClientId, Guarded, LogThrottle, Panicked, Registry, RequestGuard, Store, TabName, TabType, Timestamp,
    Version,
};
use taba_listen::Connections;
use tokio::sync::{Semaphore, watch};

use super::excess::BelievedExcess;
use super::fault::{StateFault, Unreadable};
use super::head_cache::HeadCache;
use super::loss_cache::LossCache;
use super::spread_cache::SpreadCache;
use super::tab_cache::TabCache;
use super::tab_index::TabIndex;
use crate::clock::Clock;
use crate::panics::HandlerPanic;
use crate::status::Status;
use crate::version::Versions;

/// The bounds of queries. An answer says when one was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Results in one answer, at least 1; if there are more, the answer is `truncated`.
    pub results_max: usize,
    /// The time of one query, with the reading of its answer; then it ends with the error `timeout`.
    pub query_time: Duration,
    /// States read from the store at once: 1 to 100,000. Larger pages cost memory, smaller ones round trips.
    pub page_states: usize,
    /// VBuckets read at the same time, at least 1.
    pub vbuckets_at_once: usize,
    /// Tabs that one query may select; more are refused. Each costs about 100 bytes.
    pub tabs_max: usize,
    /// Bytes of the names of Tabs that are kept between queries, about 90 a Tab; what does not fit is read for each query.
    pub tab_index_bytes_max: usize,
    /// Tabs that are read ahead of what is being answered, over all queries; each holds a page of States. 0: each query reads one
    /// after the other, on one core.
    pub tabs_ahead: usize,
    /// Bytes of what was read of Tabs that are kept between queries, for those of VBuckets that do not change; 0 keeps nothing.
    pub tab_cache_bytes_max: usize,
    /// Bytes of one compiled regular expression.
    pub regex_bytes_max: usize,
    /// Distinct words in `clients_by_value`; the rest counts as `other`.
    pub tally_words_max: usize,
    /// Faults listed in an answer; the rest is counted.
    pub faults_max: usize,
    /// The maximum age of the Ledger's counts of dropped events beside an aggregate; 0 reads them for each query.
    /// Queries that come more often than that do not wait for them.
    pub lost_age_max: Duration,
    /// How long the Ledger's answer waits for the record of events that are folded already. 0 does not wait.
    pub late_records: Duration,
    /// Queries that are answered at a time, deletions among them; the next is refused with 503. Not counted: `/v2/status`,
    /// `/metrics` and watches.
    pub queries_max: usize,
    /// Open watches; the next is refused with 503.
    pub watches_max: usize,
    /// Aggregates in one watch; a larger selection is refused.
    pub watch_tabs_max: usize,
    /// Tabs in one answer of `/metrics`; a larger selection is refused.
    pub metrics_tabs_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            results_max: 1_000_000,
            query_time: Duration::from_secs(60),
            page_states: 500,
            vbuckets_at_once: 16,
            tabs_max: 5_000_000,
            tab_index_bytes_max: 128 * 1024 * 1024,
            tabs_ahead: 32,
            tab_cache_bytes_max: 64 * 1024 * 1024,
            regex_bytes_max: 1024 * 1024,
            tally_words_max: 1000,
            faults_max: 100,
            lost_age_max: Duration::from_secs(1),
            late_records: Duration::from_secs(1),
            queries_max: 64,
            watches_max: 64,
            watch_tabs_max: 100,
            metrics_tabs_max: 20_000,
        }
    }
}

/// The context of all queries. Cheap to clone: clones share it.
#[derive(Clone)]
pub struct QueryState {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The Handlers of the Tab types.
    pub handlers: Registry,
    /// The clock.
    pub clock: Clock,
    /// The Server's counters.
    pub status: Arc<Status>,
    /// The bounds.
    pub limits: Limits,
    /// What is in front of all routes.
    pub guard: Arc<RequestGuard>,
    /// The connections that it is served on, for `/metrics`.
    pub connections: Option<Arc<Connections>>,
    pub(super) shared: Arc<Shared>,
}

/// The state shared by the clones of one [`QueryState`].
pub(super) struct Shared {
    pub(super) counters: Counters,
    pub(super) log: LogThrottle,
    pub(super) heads: HeadCache,
    pub(super) losses: LossCache,
    pub(super) excess: BelievedExcess,
    /// The same of all Clients together.
    pub(super) fleet_excess: BelievedExcess,
    pub(super) spread: SpreadCache,
    pub(super) tab_index: TabIndex,
    pub(super) tab_cache: TabCache,
    /// Room for Tabs that are read ahead.
    pub(super) ahead: Arc<Semaphore>,
    pub(super) queries: Arc<Semaphore>,
    pub(super) watches: Arc<Semaphore>,
    pub(super) closing: watch::Sender<bool>,
    versions: Versions,
}

/// Counters of the query surface.
#[derive(Debug, Default)]
pub(super) struct Counters {
    queries: AtomicU64,
    failed: AtomicU64,
    faults: AtomicU64,
    partial: AtomicU64,
    removed: AtomicU64,
    conflicts: AtomicU64,
}

/// Counters of the query surface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueryReport {
    /// Queries that arrived.
    pub queries: u64,
    /// Queries answered with an error, or whose answer ended with one.
    pub failed: u64,
    /// Unreadable States, each time one is met.
    pub faults: u64,
    /// Answers that lack something because VBuckets could not be read.
    pub partial: u64,
    /// States that were deleted or pruned.
    pub states_removed: u64,
    /// Conflicts of deletions, each retried.
    pub conflicts: u64,
}

impl fmt::Debug for QueryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryState").field("handlers", &self.handlers).field("limits", &self.limits).finish()
    }
}

impl QueryState {
    /// Queries over this store, within the default [`Limits`].
    ///
    /// # Panics
    /// When the operating system has no random numbers: versions would not be unique.
    pub fn new(store: Arc<dyn Store>, handlers: Registry, clock: Clock, status: Arc<Status>) -> Self {
        Self::with_limits(store, handlers, clock, status, Limits::default())
    }

    /// Queries over this store.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn with_limits(
        store: Arc<dyn Store>,
        handlers: Registry,
        clock: Clock,
        status: Arc<Status>,
        limits: Limits,
    ) -> Self {
        let shared = Shared {
            counters: Counters::default(),
            log: LogThrottle::new(crate::clock::log_clock),
            heads: HeadCache::default(),
            losses: LossCache::default(),
            excess: BelievedExcess::default(),
            fleet_excess: BelievedExcess::default(),
            spread: SpreadCache::default(),
            tab_index: TabIndex::default(),
            tab_cache: TabCache::default(),
            ahead: Arc::new(Semaphore::new(limits.tabs_ahead)),
            queries: Arc::new(Semaphore::new(limits.queries_max)),
            watches: Arc::new(Semaphore::new(limits.watches_max)),
            closing: watch::Sender::new(false),
            versions: Versions::new(getrandom::u64().expect("without random numbers no version is unique")),
        };
        let (guard, connections) = (Arc::default(), None);
        Self { store, handlers, clock, status, limits, guard, connections, shared: Arc::new(shared) }
    }

    /// Ends all watches and refuses new ones, for the shutdown of a server; irreversible.
    pub fn close(&self) {
        self.shared.closing.send_replace(true);
    }

    /// All counters at one moment.
    pub fn report(&self) -> QueryReport {
        let counters = &self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueryReport {
            queries: get(&counters.queries),
            failed: get(&counters.failed),
            faults: get(&counters.faults),
            partial: get(&counters.partial),
            states_removed: get(&counters.removed),
            conflicts: get(&counters.conflicts),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The Handler of a type, if it has no word for each Client: then States of several Clients may be merged.
    pub(super) fn merging(&self, tab_type: &TabType) -> Option<Guarded> {
        let handler = self.handlers.guarded(tab_type.as_str())?;
        handler.tallies().is_ok_and(|tallies| !tallies).then_some(handler)
    }

    /// Counts an unreadable State, and logs the panic of a Handler if that is the reason.
    pub(super) fn fault(
        &self,
        why: &Unreadable,
        tab_type: &TabType,
        name: TabName,
        client: ClientId,
    ) -> StateFault {
        self.shared.counters.fault();
        if let Unreadable::Panicked(panicked) = why {
            self.panicked(tab_type, panicked);
        }
        why.fault(name, client)
    }

    /// Counts and logs the panic of a Handler.
    pub(super) fn panicked(&self, tab_type: &TabType, panicked: &Panicked) {
        let panic = HandlerPanic { tab_type: tab_type.clone(), panicked: panicked.clone() };
        self.status.panics.tell(&panic);
    }

    /// A new unique version.
    pub(super) fn next_version(&self) -> Version {
        self.shared.versions.next()
    }
}

impl Counters {
    pub(super) fn query(&self) {
        self.queries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn partial(&self) {
        self.partial.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn removal(&self, states: u64) {
        self.removed.fetch_add(states, Ordering::Relaxed);
    }

    pub(super) fn conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }
}
