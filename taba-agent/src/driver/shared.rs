//! [`Shared`]: the Relay, and what its listener, its pump and its disk threads share.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use taba_core::{DroppedLogLines, LogThrottle, Registry, RequestGuard, ServerUrl, SpreadRules, Throttle};
use taba_listen::Connections;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::StartError;
use super::body_room::BodyRoom;
use super::clock::{Clock, random};
use super::disk::FileDisk;
use super::failure::{AgentFailure, Poisoned};
use super::log_notices::tell;
use super::open::open;
use super::options::AgentOptions;
use super::sender::VBucketsSeen;
use super::set_aside::{self, SetAsideFiles};
use super::stores::Stores;
use crate::discovery::{Discovery, DiscoveryJob, ListedServer};
use crate::dispatcher::{Input, Request};
use crate::relay::{ClockReading, Relay, RelayStart, SetAsideBlocks, Status};
use crate::spool::recovery::Recovered;
use crate::spool::{Disk, DiskFault, DiskJob, JobResult, MemorySpool, Spool, SyncPolicy, Weight};

/// What goes on is said again after this.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What became of a [`DiscoveryJob`].
pub(super) enum Finding {
    Resolved(usize, Result<Vec<IpAddr>, String>),
    Told(ServerUrl, Result<Vec<ListedServer>, String>),
    Reached(ServerUrl, Result<(), String>),
}

pub(super) struct Shared {
    pub(super) options: AgentOptions,
    /// Which times front-ends have given away, in microseconds.
    pub(super) record_clock: AtomicI64,
    /// Tab types whose values front-ends can read.
    pub(super) handlers: Registry,
    pub(super) clock: Clock,
    /// What requests are refused before they are read.
    pub(super) guard: RequestGuard,
    /// Bytes of bodies that may still be received at the same time.
    pub(super) bodies: BodyRoom,
    pub(super) connections: Arc<Connections>,
    /// Tells the pump that there may be something to do.
    pub(super) wake: Notify,
    /// Tells the disk thread the same. One is enough: it looks for everything.
    disk_wake: SyncSender<()>,
    /// How many VBuckets Servers have.
    pub(super) vbuckets: Arc<VBucketsSeen>,
    /// Which store is delivered to.
    pub(super) stores: Arc<Stores>,
    relay: Mutex<Relay<Box<dyn Spool>>>,
    /// Which Servers there are; locked behind the Relay.
    discovery: Mutex<Discovery>,
    pub(super) safety: watch::Sender<SpoolProgress>,
    said: Mutex<Throttle<&'static str>>,
    pub(super) lines: Arc<LogThrottle>,
    pub(super) log_lines_dropped: DroppedLogLines,
    /// From here on tasks may end.
    is_stopping: AtomicBool,
    /// From here on the disk is released.
    pub(super) is_closing: AtomicBool,
    is_disk_closed: watch::Sender<bool>,
    pub(super) failure: watch::Sender<Option<AgentFailure>>,
}

/// How far the Spool is safe.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SpoolProgress {
    /// Up to where it outlives the process.
    pub(super) written: u64,
    /// Up to where it outlives a power failure.
    pub(super) durable: u64,
    /// How often the disk did not take what was to be written.
    pub(super) failures: u64,
    /// The disk is given up.
    pub(super) is_broken: bool,
}

/// What the disk thread does next.
pub(super) enum DiskStep {
    /// This.
    Do(DiskJob),
    /// Waits until it is woken, or for so long.
    Wait(Option<Duration>),
    /// Releases the disk.
    Close,
}

/// The Relay, held. A panic meanwhile is the end of the Agent, and is told at once.
struct RelayGuard<'a> {
    relay: MutexGuard<'a, Relay<Box<dyn Spool>>>,
    shared: &'a Shared,
}

impl Deref for RelayGuard<'_> {
    type Target = Relay<Box<dyn Spool>>;

    fn deref(&self) -> &Self::Target {
        &self.relay
    }
}

impl DerefMut for RelayGuard<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.relay
    }
}

impl Drop for RelayGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why =
                "it panicked while it changed the agent's state; see the panic's own message".to_owned();
            self.shared.fail(AgentFailure { part: "a task", why });
        }
    }
}

impl Shared {
    /// Opens the Spool: on this disk, or on what the configuration says. Gives the disk, if there is one, and what wakes
    /// the thread that owns it.
    #[expect(clippy::type_complexity, reason = "three things that are told apart at once")]
    pub(super) fn new(
        options: AgentOptions,
        handlers: Registry,
        disk: Option<Box<dyn Disk>>,
    ) -> Result<(Self, Option<Box<dyn Disk>>, Receiver<()>), StartError> {
        let mut disk = match (disk, &options.spool_dir) {
            (None, Some(directory)) => Some(Box::new(FileDisk::open(directory)?) as Box<dyn Disk>),
            (disk, _) => disk,
        };
        let (spool, recovered): (Box<dyn Spool>, _) = match &mut disk {
            None => (Box::new(MemorySpool::new(options.log.bytes_max)), Recovered::default()),
            Some(disk) => {
                let (spool, recovered) = open(&options, &mut **disk)?;
                (Box::new(spool), recovered)
            }
        };
        let stores = Stores::open(&options, !recovered.lanes.is_empty());
        let stores = stores.map_err(|source| StartError::Spool { path: options.path(), source })?;
        let clock = Clock::start();
        let seed = random().map_err(StartError::Random)?;
        let discovery = Discovery::new(options.discovery.clone(), seed);
        let origin = RelayStart { now: clock.now(), seed, recovered, handlers: handlers.clone() };
        let relay = Relay::new(options.relay.clone(), spool, origin);
        let bodies = BodyRoom::new(options.bodies_bytes_max);
        let connections = Connections::new(options.connections);
        let guard = RequestGuard::new(options.host_names.clone());
        let (disk_wake, woken) = sync_channel(1);
        let shared = Self {
            options,
            record_clock: AtomicI64::new(i64::MIN),
            handlers,
            clock,
            guard,
            bodies,
            connections,
            wake: Notify::new(),
            disk_wake,
            vbuckets: Arc::default(),
            stores: Arc::new(stores),
            relay: Mutex::new(relay),
            discovery: Mutex::new(discovery),
            safety: watch::Sender::new(SpoolProgress::default()),
            said: Mutex::new(Throttle::new(SAY_AGAIN, 2)),
            lines: Arc::new(LogThrottle::new(super::clock::monotonic)),
            log_lines_dropped: DroppedLogLines::default(),
            is_stopping: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            is_disk_closed: watch::Sender::new(disk.is_none()),
            failure: watch::Sender::new(None),
        };
        Ok((shared, disk, woken))
    }

    /// Whether it holds any events.
    pub(super) fn holds_events(&self) -> bool {
        self.with(|relay, _| relay.holds_events()).unwrap_or_default()
    }

    /// A Server has said which Tabs are spread.
    pub(super) fn set_spread(&self, rules: &SpreadRules) {
        let is_news = self.with(|relay, _| relay.set_spread(rules)).unwrap_or_default();
        if is_news {
            tracing::info!(
                rules = serde_json::to_string(rules).unwrap_or_default(),
                "other tabs are spread over several vbuckets now, or wider or less wide"
            );
        }
    }

    /// The Servers that there are now.
    pub(super) fn servers(&self) -> Vec<ServerUrl> {
        self.with(|relay, _| relay.servers()).unwrap_or_default()
    }

    /// What is to be done to know which Servers there are, and when to ask again.
    pub(super) fn discover(&self) -> Result<(Vec<DiscoveryJob>, Option<tokio::time::Instant>), Poisoned> {
        self.with(|relay, now| {
            let mut discovery = self.discovery();
            if !discovery.is_dynamic() {
                return (Vec::new(), None);
            }
            let jobs = discovery.poll(now.uptime, |url| relay.is_up(now.uptime, url));
            if relay.set_servers(now.uptime, discovery.servers()) {
                self.stores.retain(|url| discovery.knows(url));
                let servers: Vec<_> = discovery.servers().iter().map(ToString::to_string).collect();
                tracing::info!(?servers, "the servers are others now");
            }
            (jobs, discovery.next_wake().map(|at| self.clock.at(at)))
        })
    }

    /// What became of such a job.
    pub(super) fn found(&self, finding: Finding) {
        let now = self.clock.now().uptime;
        let mut discovery = self.discovery();
        match finding {
            Finding::Resolved(seed, outcome) => discovery.resolved(now, seed, outcome),
            Finding::Told(by, outcome) => discovery.told(now, &by, outcome),
            Finding::Reached(server, outcome) => discovery.reached(now, &server, outcome),
        }
    }

    fn discovery(&self) -> MutexGuard<'_, Discovery> {
        // Should somebody have panicked over it, what it says is asked again.
        self.discovery.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the disk thread does next.
    pub(super) fn next_job(&self) -> DiskStep {
        if self.is_closing.load(Ordering::Acquire) {
            return DiskStep::Close;
        }
        let turn = self.with(|relay, now| match relay.disk_job(now) {
            Some(job) => DiskStep::Do(job),
            None => DiskStep::Wait(relay.disk_wakes_at().map(|at| at.saturating_sub(now.uptime))),
        });
        turn.unwrap_or(DiskStep::Close)
    }

    /// How a job of the disk thread went.
    pub(super) fn disk_done(&self, done: JobResult) {
        let after = self.with(|relay, now| {
            relay.disk_done(now, done);
            let (spool, room) = (relay.spool(), relay.spool().usage());
            let is_broken = room.fault == Some(DiskFault::Broken);
            let (written, durable) = (spool.written(), spool.durable());
            SpoolProgress { written, durable, failures: room.failures, is_broken }
        });
        if let Ok(after) = after {
            self.safety.send_modify(|safety| *safety = after.later(safety));
            self.hint();
        }
    }

    /// The disk thread has released the disk.
    pub(super) fn disk_is_closed(&self) {
        self.is_disk_closed.send_replace(true);
    }

    /// Hands one input to the Relay; when it wants to be woken, and whether it is done, is told back.
    pub(super) fn handle(
        self: &Arc<Self>,
        input: Input,
        requests: &mut Vec<Request>,
    ) -> Result<PumpStep, Poisoned> {
        let (next, aside) = self.with(|relay, _| {
            self.follow_clock(relay);
            let now = self.clock.now();
            relay.handle(now, input, requests);
            self.say(now, relay);
            let next = match relay.next_wake() {
                _ if relay.is_done() => PumpStep::Done,
                Some(uptime) => PumpStep::At(self.clock.at(uptime)),
                None => PumpStep::Wait,
            };
            (next, relay.take_set_aside())
        })?;
        for aside in aside {
            // Nobody waits for it: the Lane does not send the Batch meanwhile, and what is left undone when the process ends
            // is looked at by the next run.
            drop(tokio::spawn(Arc::clone(self).set_aside(aside)));
        }
        // It may want to read, or to write something again.
        let _ = self.disk_wake.try_send(());
        Ok(next)
    }

    /// Keeps Blocks where they outlive the process, then takes them out of their Batch.
    ///
    /// # Cancel safety
    /// Safe: a file that is pending then is decided about at the next start.
    async fn set_aside(self: Arc<Self>, aside: SetAsideBlocks) {
        let files = self.options.spool_dir.as_deref().map(SetAsideFiles::of);
        let names = match (&files, aside.events()) {
            // There is nothing to be kept, or no place for it.
            (None, _) | (_, 0) => None,
            (Some(files), _) => {
                let (files, kept) = (files.clone(), aside.clone());
                match tokio::task::spawn_blocking(move || files.keep(&kept)).await {
                    Ok(Ok(names)) => names,
                    Ok(Err(error)) => return self.not_kept(&aside, &error),
                    Err(error) => return self.not_kept(&aside, &std::io::Error::other(error)),
                }
            }
        };
        let Ok(Some(position)) = self.with(|relay, _| relay.kept(&aside)) else { return };
        set_aside::tell(&aside, names.is_some());
        self.hint();
        let (Some(files), Some(names)) = (files, names) else { return };
        let is_never = self.options.log.sync == SyncPolicy::Never;
        let is_safe =
            |safety: &SpoolProgress| (if is_never { safety.written } else { safety.durable }) >= position;
        // The sender is in here; it cannot be gone.
        let _ = self.safety.subscribe().wait_for(is_safe).await;
        let directory = files.directory().to_owned();
        let finished = tokio::task::spawn_blocking(move || files.finish(&names)).await;
        if let Err(error) = finished.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            tracing::error!(path = %directory.display(), %error, "a file of what was set aside stays pending until the next start");
        }
    }

    fn not_kept(&self, aside: &SetAsideBlocks, error: &std::io::Error) {
        // If the state is not believed any more, it is not sent either.
        let _ = self.with(|relay, _| relay.not_kept(aside));
        if let Some(suppressed) = self.lines.admit("set aside", &error.to_string()) {
            tracing::error!(
                spool_dir = %self.options.path().display(), lane = %aside.lane, seq = aside.seq, %error, suppressed,
                "a block that is to be set aside cannot be kept in the directory set-aside of the spool; its lane waits until it can"
            );
        }
    }

    /// Goes by the machine's clock again when it was set, unless Servers agree with the time as it is.
    fn follow_clock(&self, relay: &mut Relay<Box<dyn Spool>>) {
        let Some(step) = self.clock.step() else { return };
        let step_s = step / 1_000_000;
        if relay.follows_clock(step) {
            self.clock.set(step);
            relay.set_clock(self.clock.now(), step);
            tracing::warn!(step_s, "the machine's clock was set, and this agent goes by it");
        } else if self.may_say("kept").is_some() {
            tracing::warn!(
                step_s,
                "the machine's clock was set; this agent keeps the time that servers agree with"
            );
        }
    }

    /// Says what waits.
    fn say(&self, now: ClockReading, relay: &Relay<Box<dyn Spool>>) {
        if let Some(wait) = relay.clock_wait(now)
            && let Some(suppressed) = self.may_say("clocks")
        {
            let waits_for = wait.words();
            tracing::warn!(
                waits_for,
                lanes = wait.lanes,
                suppressed,
                "events wait until the clocks of this agent and its servers agree: set right the one that is wrong"
            );
        }
    }

    /// Whether something is said again; how often it was not, since it was said last.
    fn may_say(&self, cause: &'static str) -> Option<u64> {
        let now = self.clock.at(self.clock.now().uptime).into_std();
        self.said.lock().unwrap_or_else(PoisonError::into_inner).admit(cause, now)
    }

    /// Takes nothing any more.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        // If the state is not believed any more, nothing is taken either.
        let _ = self.with(Relay::stop);
        self.hint();
    }

    /// Tasks may end from here on.
    pub(super) fn is_stopping_now(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Whether tasks may end.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Writes down where things stand, and waits until everything is on the disk, for at most so long; then releases
    /// the disk. Where the disk hangs, or the state is not believed any more, what was written is what there is.
    pub(super) async fn close(&self, limit: Duration) {
        let position = self.with(|relay, _| {
            relay.conclude();
            relay.spool().position()
        });
        self.hint();
        let mut safety = self.safety.subscribe();
        let finish = async {
            if let (Ok(position), false) = (position, self.is_memory()) {
                let is_never = self.options.log.sync == SyncPolicy::Never;
                let is_safe = |safety: &SpoolProgress| {
                    (if is_never { safety.written } else { safety.durable }) >= position || safety.is_broken
                };
                // The sender is in here; it cannot be gone.
                let _ = safety.wait_for(is_safe).await;
            }
            self.release_disk();
            let _ = self.is_disk_closed.subscribe().wait_for(|is_closed| *is_closed).await;
        };
        let _ = timeout(limit, finish).await;
        self.release_disk();
    }

    /// The disk thread ends with the job that it is at.
    pub(super) fn release_disk(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.is_closing.store(true, Ordering::Release);
        let _ = self.disk_wake.try_send(());
    }

    pub(super) fn status(&self) -> Result<Status, Poisoned> {
        let status = self.with(|relay, now| relay.status(now))?;
        let status = Status { log_lines_dropped: self.log_lines_dropped.count(), ..status };
        let status = Status { requests_refused: self.guard.refused().collect(), ..status };
        let status = Status { vbuckets_of_servers: self.vbuckets.get(), ..status };
        let store_id = self.stores.chosen().map(|store| store.to_string());
        let status = Status { store_id, other_stores: self.stores.others(), ..status };
        let discovery = self.discovery();
        let of_discovery = discovery.is_dynamic().then(|| discovery.status(self.clock.now().uptime));
        drop(discovery);
        let status = Status { discovery: of_discovery, ..status };
        let has_failed = self.failure.borrow().is_some();
        Ok(if has_failed { Status { phase: "failed", ..status } } else { status })
    }

    pub(super) fn unapplied(&self) -> Result<Weight, Poisoned> {
        self.with(|relay, _| relay.unapplied())
    }

    /// Nothing is taken any more. The first failure is the one that counts.
    pub(super) fn fail(&self, failure: AgentFailure) {
        self.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                tracing::error!(
                    part = failure.part,
                    why = failure.why,
                    "a part of the agent failed; it takes nothing any more, and ends"
                );
                *first = Some(failure);
            }
            is_first
        });
    }

    pub(super) fn fail_unless_stopping(&self, failure: AgentFailure) {
        if !self.is_stopping() {
            self.fail(failure);
        }
    }

    /// The failure, once there is one.
    pub(super) async fn failed(&self) -> AgentFailure {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            // Its sender is in here, so it cannot be gone.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    pub(super) fn is_memory(&self) -> bool {
        // Where there is no disk from the start.
        self.options.spool_dir.is_none()
    }

    /// There may be something to do for the pump and for the disk thread.
    pub(super) fn hint(&self) {
        self.wake.notify_one();
        // If it is full, the thread is about to look anyway.
        let _ = self.disk_wake.try_send(());
    }

    /// Has a look at the Relay, or changes it. The clock is read under the lock, so that the Relay never sees it go back.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&mut Relay<Box<dyn Spool>>, crate::relay::ClockReading) -> T,
    ) -> Result<T, Poisoned> {
        let relay = self.relay.lock().map_err(|_: PoisonError<_>| Poisoned)?;
        let mut held = RelayGuard { relay, shared: self };
        let now = self.clock.now();
        let done = work(&mut held, now);
        let notices = held.take_notices(now.uptime);
        drop(held);
        notices.into_iter().for_each(tell);
        Ok(done)
    }
}

impl SpoolProgress {
    /// This, or what was told before, if that was more: two threads may tell in the other order.
    fn later(self, before: &Self) -> Self {
        Self {
            written: self.written.max(before.written),
            durable: self.durable.max(before.durable),
            failures: self.failures.max(before.failures),
            is_broken: self.is_broken || before.is_broken,
        }
    }
}

/// What the Relay waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum PumpStep {
    /// This moment, or anything else before.
    At(tokio::time::Instant),
    /// An answer, or a client Batch.
    Wait,
    /// Nothing: it was stopped, and all is stored.
    Done,
}
