//! [`Worker`]: a task that owns some VBuckets: it drives their planners and runs their actions.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{AbortHandle, BoxFuture, FutureExt, abortable};
use futures::stream::FuturesUnordered;
use taba_core::{LogThrottle, Registry, Remedy, Store, StoreError, Timestamp, VBucket, Version, Wanted};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::condition::Condition;
use super::open_requests::{OpenRequests, Ticket};
use crate::clock::{Clock, monotonic};
use crate::planner::{
    Env, IncomingMessage, NewerState, Planner, PlannerAction, PlannerInput, RefusedBlock, StoreFailed,
    UnreadableState,
};
use crate::sabotage::{WORKERS, is_off};
use crate::status::Status;
use crate::version::Versions;

/// The state shared by all workers of a Server.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) handlers: Registry,
    pub(crate) clock: Clock,
    pub(crate) status: Arc<Status>,
    pub(crate) open_requests: Arc<OpenRequests>,
    pub(crate) condition: Condition,
    pub(crate) log: Arc<LogThrottle>,
    pub(crate) versions: Versions,
    pub(crate) commit_interval: Duration,
    pub(crate) future_max: Duration,
    /// Loads and commits in flight per worker.
    pub(crate) commits_in_flight_max: usize,
    /// Bytes of caches per worker.
    pub(crate) cache_bytes_max: usize,
}

/// A Batch or a Probe for a VBucket.
pub(crate) struct ArrivedMessage {
    pub(crate) vbucket: VBucket,
    pub(crate) ticket: Ticket,
    pub(crate) message: IncomingMessage,
    pub(crate) arrived: Timestamp,
    pub(crate) sent_at: Timestamp,
}

/// A message to a worker.
pub(crate) enum WorkerMessage {
    /// Batches and Probes for its VBuckets.
    Arrivals(Vec<ArrivedMessage>),
    /// Commit everything that waits, regardless of the interval, then end.
    Drain,
}

/// The planner of one VBucket, with its scheduling and cache use.
struct PlannerSlot {
    planner: Planner<Ticket>,
    /// Start of its last commit.
    begun: Option<Instant>,
    /// Whether it is in `due` or `ready`.
    is_scheduled: bool,
    /// Whether its last commit had no room for all waiting messages.
    is_behind: bool,
    /// Its last use, as the worker's count of inputs.
    used: u64,
    cache_bytes: usize,
    /// Aborts the current stability wait: see [`Worker::waits`].
    wait: Option<AbortHandle>,
}

type Done = BoxFuture<'static, (VBucket, PlannerInput<Ticket>)>;

/// One task that owns some VBuckets.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    messages: mpsc::UnboundedReceiver<WorkerMessage>,
    slots: HashMap<VBucket, PlannerSlot>,
    /// VBuckets to commit later, by time.
    due: BinaryHeap<Reverse<(Instant, VBucket)>>,
    /// VBuckets to commit now.
    ready: VecDeque<VBucket>,
    in_flight: FuturesUnordered<Done>,
    /// Stability waits, at most one for each VBucket. Separate from loads and commits, because they may take long and
    /// nothing depends on them; they end with the worker.
    waits: FuturesUnordered<Done>,
    cache_bytes: usize,
    inputs: u64,
    is_draining: bool,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, messages: mpsc::UnboundedReceiver<WorkerMessage>) -> Self {
        Self {
            shared,
            messages,
            slots: HashMap::new(),
            due: BinaryHeap::new(),
            ready: VecDeque::new(),
            in_flight: FuturesUnordered::new(),
            waits: FuturesUnordered::new(),
            cache_bytes: 0,
            inputs: 0,
            is_draining: false,
        }
    }

    /// Runs until it is drained or all senders are dropped.
    pub(crate) async fn run(mut self) {
        loop {
            while self.in_flight.len() < self.shared.commits_in_flight_max && self.has_room() {
                let Some(vbucket) = self.ready.pop_front() else { break };
                self.begin(vbucket);
            }
            if self.is_draining && self.in_flight.is_empty() && self.ready.is_empty() {
                return;
            }
            let next_due = self.due.peek().map(|Reverse((at, _))| *at);
            tokio::select! {
                message = self.messages.recv(), if !self.is_draining => match message {
                    Some(WorkerMessage::Arrivals(arrivals)) => self.take(arrivals),
                    Some(WorkerMessage::Drain) | None => self.drain(),
                },
                Some((vbucket, input)) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.feed(vbucket, input);
                    // A store that answers at once would otherwise block this thread's other tasks.
                    tokio::task::yield_now().await;
                }
                Some((vbucket, input)) = self.waits.next(), if !self.waits.is_empty() => self.feed(vbucket, input),
                () = sleep_until(next_due), if next_due.is_some() => self.wake(),
            }
        }
    }

    /// Whether the caches are within their bound, with what commits under way have set aside. One commit always goes on.
    fn has_room(&self) -> bool {
        self.cache_bytes <= self.shared.cache_bytes_max || self.in_flight.is_empty()
    }

    fn take(&mut self, arrivals: Vec<ArrivedMessage>) {
        assert!(!is_off(WORKERS), "a worker was told to panic");
        for ArrivedMessage { vbucket, ticket, message, arrived, sent_at } in arrivals {
            self.feed(vbucket, PlannerInput::Message { ticket, message, arrived, sent_at });
        }
    }

    fn drain(&mut self) {
        // Messages sent before `Drain` are still processed.
        while let Ok(message) = self.messages.try_recv() {
            if let WorkerMessage::Arrivals(arrivals) = message {
                self.take(arrivals);
            }
        }
        self.is_draining = true;
        self.messages.close();
        self.ready.extend(self.due.drain().map(|Reverse((_, vbucket))| vbucket));
    }

    fn wake(&mut self) {
        let now = monotonic();
        while let Some(Reverse((at, vbucket))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            self.ready.push_back(vbucket);
        }
    }

    fn begin(&mut self, vbucket: VBucket) {
        let slot = self.slot(vbucket);
        slot.is_scheduled = false;
        slot.begun = Some(monotonic());
        self.feed(vbucket, PlannerInput::Due);
        let slot = self.slot(vbucket);
        slot.is_behind = slot.planner.is_waiting();
    }

    fn slot(&mut self, vbucket: VBucket) -> &mut PlannerSlot {
        self.slots.entry(vbucket).or_insert_with(|| PlannerSlot {
            planner: Planner::default(),
            begun: None,
            is_scheduled: false,
            is_behind: false,
            used: 0,
            cache_bytes: 0,
            wait: None,
        })
    }

    /// Gives a planner one input and runs its actions.
    fn feed(&mut self, vbucket: VBucket, input: PlannerInput<Ticket>) {
        let shared = Arc::clone(&self.shared);
        let env = Env {
            handlers: &shared.handlers,
            versions: &shared.versions,
            status: &shared.status,
            now: (shared.clock)(),
            future_max: shared.future_max,
        };
        let mut actions = Vec::new();
        self.inputs += 1;
        let inputs = self.inputs;
        let slot = self.slot(vbucket);
        slot.used = inputs;
        let handled =
            catch_unwind(AssertUnwindSafe(|| slot.planner.handle(input, &env, &mut actions))).is_ok();
        if !handled {
            // Dropping its tickets answers the Batches as not stored.
            slot.planner = Planner::default();
            actions.clear();
            if let Some(suppressed) = shared.log.admit("planner", "panic") {
                tracing::error!(
                    vbucket = vbucket.index(),
                    suppressed,
                    "a planner panicked, which is a bug; the senders keep their batches"
                );
            }
        }
        for action in actions {
            match action {
                PlannerAction::Load(wanted) => {
                    self.in_flight.push(load(Arc::clone(&shared), vbucket, wanted));
                }
                PlannerAction::Commit(commit) => {
                    self.in_flight.push(self::commit(Arc::clone(&shared), vbucket, commit));
                }
                PlannerAction::Stabilise(version) => self.stabilise(vbucket, version),
                PlannerAction::Answer(ticket, ack) => ticket.answer(ack),
                PlannerAction::Panicked(panic) => shared.status.panics.tell(&panic),
                PlannerAction::Refused(block) => tell_refused(&shared, &block),
                PlannerAction::Newer(newer) => tell_newer(&shared, &newer),
                PlannerAction::Report(unreadable) => tell_unreadable(&shared, vbucket, &unreadable),
            }
        }
        self.schedule(vbucket);
        self.bound_caches(vbucket);
    }

    /// Starts a stability wait, and aborts the previous one. So a store that never answers holds one future per
    /// VBucket.
    fn stabilise(&mut self, vbucket: VBucket, version: Version) {
        let (wait, handle) = abortable(stabilise(Arc::clone(&self.shared), vbucket));
        let before = self.slot(vbucket).wait.replace(handle);
        before.inspect(AbortHandle::abort);
        let wait = wait
            .map(move |done| (vbucket, PlannerInput::Stabilised(version, done.unwrap_or(Err(StoreFailed)))));
        self.waits.push(wait.boxed());
    }

    /// The first Batch after a quiet interval is committed at once, later ones after the interval.
    fn schedule(&mut self, vbucket: VBucket) {
        let (is_draining, interval) = (self.is_draining, self.shared.commit_interval);
        let slot = self.slot(vbucket);
        if slot.is_scheduled || !slot.planner.is_idle() || !slot.planner.is_waiting() {
            return;
        }
        slot.is_scheduled = true;
        let due = slot.begun.map(|begun| begun + interval).filter(|due| *due > monotonic());
        match due {
            Some(due) if !is_draining && !slot.is_behind => self.due.push(Reverse((due, vbucket))),
            _ => self.ready.push_back(vbucket),
        }
    }

    /// Keeps the caches within their bound: the least recently used VBuckets drop half of their States.
    fn bound_caches(&mut self, vbucket: VBucket) {
        let slot = self.slot(vbucket);
        let (before, after) = (slot.cache_bytes, slot.planner.cache_bytes());
        slot.cache_bytes = after;
        self.cache_bytes = self.cache_bytes + after - before;
        while self.cache_bytes > self.shared.cache_bytes_max {
            let idle = self.slots.values_mut().filter(|slot| slot.cache_bytes > 0 && slot.planner.is_idle());
            // All others are busy: this runs again when they are done.
            let Some(slot) = idle.min_by_key(|slot| slot.used) else { break };
            slot.planner.shrink();
            let after = slot.planner.cache_bytes();
            self.cache_bytes -= slot.cache_bytes - after;
            slot.cache_bytes = after;
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn load(shared: Arc<Shared>, vbucket: VBucket, wanted: Wanted) -> Done {
    Box::pin(async move {
        let loaded =
            ask(&shared, vbucket, shared.store.load(vbucket, &wanted), "a vbucket could not be loaded").await;
        (vbucket, PlannerInput::Loaded(loaded))
    })
}

fn commit(shared: Arc<Shared>, vbucket: VBucket, commit: taba_core::Commit) -> Done {
    Box::pin(async move {
        let committed = ask(&shared, vbucket, shared.store.commit(vbucket, commit), "a commit failed").await;
        (vbucket, PlannerInput::Committed(committed))
    })
}

async fn stabilise(shared: Arc<Shared>, vbucket: VBucket) -> Result<(), StoreFailed> {
    ask(&shared, vbucket, shared.store.stable(vbucket), "a commit is not known to be stable").await
}

/// Asks the store. A panic of the store ends the Server, but not the worker: its other commits complete.
async fn ask<T>(
    shared: &Shared,
    vbucket: VBucket,
    answer: impl Future<Output = Result<T, StoreError>>,
    what: &'static str,
) -> Result<T, StoreFailed> {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(answer) => answer.map_err(|error| failed(shared, vbucket, &error, what)),
        Err(panic) => {
            shared.condition.fail("the store", &*panic);
            Err(StoreFailed)
        }
    }
}

fn tell_refused(shared: &Shared, block: &RefusedBlock) {
    if let Some(suppressed) = shared.log.admit("refused", block.why.as_str()) {
        tracing::warn!(
            tab = %block.tab, tab_type = %block.tab_type, client = %block.client, why = block.why.as_str(),
            events = block.events, suppressed, "a block was refused; its events are counted as dropped"
        );
    }
}

fn tell_unreadable(shared: &Shared, vbucket: VBucket, unreadable: &UnreadableState) {
    if let Some(suppressed) = shared.log.admit("unreadable", unreadable.why.as_str()) {
        tracing::error!(
            vbucket = vbucket.index(), tab = %unreadable.key.tab, client = %unreadable.key.client,
            why = %unreadable.why, suppressed, "a stored state cannot be read; events for it are refused"
        );
    }
}

fn tell_newer(shared: &Shared, newer: &NewerState) {
    let cause = format!("{} {} {}", newer.tab_type, newer.found, newer.is_stored);
    if let Some(suppressed) = shared.log.admit("newer", &cause) {
        tracing::warn!(
            tab_type = %newer.tab_type, client = %newer.client, tab = %newer.tab, version = newer.found,
            version_here = newer.known, is_stored = newer.is_stored, suppressed,
            "a state is of a newer version than this server reads: nothing is dropped, its agents keep the batches and \
             try other servers; upgrade this server"
        );
    }
}

fn failed(shared: &Shared, vbucket: VBucket, error: &StoreError, what: &'static str) -> StoreFailed {
    let vbucket = vbucket.index();
    // With the store's own error: `MISCONF …`, `LOADING …`.
    let cause = std::error::Error::source(error).map(taba_core::causes).unwrap_or_default();
    // All VBuckets of an unavailable store fail for one reason.
    let Some(suppressed) = shared.log.admit(what, &error.reason()) else { return StoreFailed };
    match error.remedy() {
        Remedy::Wait(_) | Remedy::Reroute => {
            tracing::warn!(vbucket, %error, cause, suppressed, "{what}; senders keep their batches");
        }
        _ => tracing::error!(vbucket, %error, cause, suppressed, "{what}; an operator has to fix the store"),
    }
    StoreFailed
}

/// Joins the workers, and reports a panic of one. It owns them, so dropping a caller that waits for it aborts no
/// commit.
pub(crate) async fn supervise(mut workers: JoinSet<()>, shared: Arc<Shared>) {
    while let Some(ended) = workers.join_next().await {
        // Only the runtime aborts a worker, when it ends.
        if let Err(Ok(panic)) = ended.map_err(tokio::task::JoinError::try_into_panic) {
            shared.condition.fail("a worker", &*panic);
        }
    }
    shared.condition.end();
}
