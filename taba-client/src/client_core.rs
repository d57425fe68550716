//! [`ClientCore`]: what a Client and its handles share; [`TaskLink`]: how they reach the background task of their process.
//!
//! ```text
//! Client, handles ──► ClientCore ──► TaskLink of this process ──► task in the thread "taba-client"
//!                              └─ after a fork, in the child: another TaskLink, another task, another incarnation
//! ```

use std::io;
use std::panic::RefUnwindSafe;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use taba_core::ledger::Why;
use taba_core::{ClientId, NameError, OutOfRange, Registry, RequestHeaderError};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::buffer::{EventBuffer, SenderIdentity};
use crate::config::Verified;
use crate::driver::{
    self, AgentAddress, AgentAddressError, ClientTask, FlushRequest, HttpSink, RingReaders, TaskParts,
};
use crate::lock::lock;
use crate::pool::{Pool, PoolSource};
use crate::process::{self, generation};
use crate::recorder::Recorder;
use crate::sink::Sink;
use crate::stats::{ClientStats, FlushReport};

/// Where an Agent listens unless told otherwise.
pub(crate) const AGENT: &str = "http://127.0.0.1:8279";

/// How long past a deadline the background task may take to answer.
const GRACE: Duration = Duration::from_millis(500);

/// All Clients of the process, for its end.
static LIVE: Mutex<Vec<Weak<ClientCore>>> = Mutex::new(Vec::new());

/// What a Client and its handles share. The last of them to go flushes.
pub(crate) struct ClientCore {
    pub(crate) recorder: Arc<Recorder>,
    id: ClientId,
    handlers: Registry,
    config: Verified,
    destination: BatchDestination,
    /// `None` for the Client that records nothing.
    link: Option<TaskLink>,
    /// Why nothing is counted any more, if so.
    gone: Arc<OnceLock<Arc<str>>>,
}

/// Where Batches go.
#[derive(Clone)]
pub(crate) enum BatchDestination {
    /// To an Agent. A forked child opens a connection of its own.
    Agent(AgentAddress),
    /// To whatever the application has.
    Custom(Arc<dyn Sink>),
}

/// How a Client reaches its background task, in one process.
pub(crate) struct TaskLink {
    generation: u64,
    pool: Arc<Pool>,
    /// Rung when the rings should be drained before it is time.
    wake: Arc<Notify>,
    commands: UnboundedSender<FlushRequest>,
    stats: Arc<Mutex<ClientStats>>,
    /// The rings, when the task has ended.
    leftover: Arc<Mutex<Option<RingReaders>>>,
    /// The same in a forked child; `None` when none could be made.
    child: OnceLock<Option<Box<TaskLink>>>,
}

/// Why there is no Client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The Client id breaks the rules.
    #[error("the client has no proper name")]
    Name(#[from] NameError),
    /// The address is none of an Agent.
    #[error("the client has no agent")]
    Agent(#[from] AgentAddressError),
    /// A header cannot go with requests.
    #[error("the client cannot send a header")]
    Header(#[from] RequestHeaderError),
    /// A bound or an interval cannot work.
    #[error("the configuration does not work")]
    Config(#[from] OutOfRange),
    /// The system gives no random number for the incarnation.
    #[error("the system has no random numbers")]
    Random(#[source] io::Error),
    /// The system gives no thread, or the thread no runtime.
    #[error("the background thread could not be started")]
    Thread(#[from] io::Error),
}

// As for the Recorder.
impl RefUnwindSafe for ClientCore {}

impl ClientCore {
    /// Starts a Client.
    ///
    /// # Errors
    /// [`BuildError`] when the system gives no thread or no random numbers.
    pub(crate) fn start(
        recorder: Recorder,
        handlers: Registry,
        config: Verified,
        destination: BatchDestination,
    ) -> Result<Arc<Self>, BuildError> {
        let (id, recorder, gone) = (recorder.client().clone(), Arc::new(recorder), Arc::default());
        let link = TaskLink::start(&recorder, &id, &handlers, &config, &destination, &gone)?;
        let core = Arc::new(Self { recorder, id, handlers, config, destination, link: Some(link), gone });
        let owner: Weak<Self> = Arc::downgrade(&core);
        core.recorder.belongs_to(owner);
        process::watch(flush_all);
        if let Some(mut live) = lock(&LIVE) {
            live.retain(|core| core.strong_count() > 0);
            live.push(Arc::downgrade(&core));
        }
        Ok(core)
    }

    /// The disabled Client: no thread, no connection.
    pub(crate) fn disabled() -> Arc<Self> {
        let id = ClientId::new("disabled").expect("eight letters are a name");
        let recorder = Arc::new(Recorder::disabled(id.clone()));
        let destination = BatchDestination::Agent(AGENT.parse().expect("the default is an address"));
        let (handlers, config) = (Registry::default(), Verified::default());
        Arc::new(Self { recorder, id, handlers, config, destination, link: None, gone: Arc::default() })
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.link.is_none()
    }

    /// The link of this process, made if need be: in a forked child, at the first event.
    fn link(&self) -> Option<&TaskLink> {
        let mut link = self.link.as_ref()?;
        while link.generation != generation() {
            link = link.child.get_or_init(|| self.start_in_child().map(Box::new)).as_deref()?;
        }
        Some(link)
    }

    /// The link of this process, if there is one.
    fn link_if_any(&self) -> Option<&TaskLink> {
        let mut link = self.link.as_ref()?;
        while link.generation != generation() {
            link = link.child.get()?.as_deref()?;
        }
        Some(link)
    }

    fn start_in_child(&self) -> Option<TaskLink> {
        self.recorder.begin_again();
        let started = match self.recorder.tabs().begin_again() {
            false => Err("another thread was making a handle while the process forked".to_owned()),
            true => TaskLink::start(
                &self.recorder,
                &self.id,
                &self.handlers,
                &self.config,
                &self.destination,
                &self.gone,
            )
            .map_err(|error| error.to_string()),
        };
        match started {
            Ok(link) => {
                tracing::warn!(client = %self.id, "a forked child records: it is an incarnation of its own from here on");
                Some(link)
            }
            Err(error) => {
                tracing::error!(client = %self.id, error, "a forked child records, and nothing of that is counted");
                let _ = self.gone.set(format!("in a forked child: {error}").into());
                None
            }
        }
    }

    /// Why nothing is counted any more, if so.
    pub(crate) fn gone(&self) -> Option<&Arc<str>> {
        self.gone.get()
    }

    pub(crate) fn stats(&self) -> ClientStats {
        let link = self.link_if_any();
        if let Some(mut leftover) = link.and_then(|link| lock(&link.leftover)) {
            let events = leftover.as_mut().map_or(0, RingReaders::discard);
            self.recorder.note_refused(Why::Shutdown, events);
        }
        let stats = link.and_then(|link| lock(&link.stats).map(|stats| stats.clone()));
        let mut stats = stats.unwrap_or_default();
        for (why, events) in self.recorder.refused() {
            stats.recorded += events;
            stats.dropped.add(why, events);
        }
        if let Some(reason) = self.gone() {
            stats.last_error = Some(Arc::clone(reason));
        }
        stats
    }

    /// Sends a flush request to the background task. `false` when there is none: the Client has ended, or this process has recorded nothing.
    pub(crate) fn ask(
        &self,
        close: bool,
        deadline: Duration,
        reply: impl FnOnce(FlushReport) + Send + 'static,
    ) -> bool {
        if close {
            self.recorder.close();
        }
        let command = FlushRequest { close, deadline, reply: Box::new(reply) };
        self.link_if_any().is_some_and(|link| link.commands.send(command).is_ok())
    }

    /// Asks, and waits for the answer, a little longer than the deadline.
    pub(crate) fn ask_and_wait(&self, close: bool, deadline: Duration) -> FlushReport {
        let (reply, report) = mpsc::channel();
        if !self.ask(close, deadline, move |report| _ = reply.send(report)) || driver::is_background() {
            return self.report();
        }
        report.recv_timeout(deadline.saturating_add(GRACE)).unwrap_or_else(|_| {
            let report = self.report();
            let events = report.left;
            tracing::error!(client = %self.id, events, "the background task did not answer in time; events may be left unsent");
            report
        })
    }

    /// What is known of a Client that does not answer.
    pub(crate) fn report(&self) -> FlushReport {
        let stats = self.stats();
        FlushReport { flushed: 0, left: stats.pending + stats.sealed, dropped: 0 }
    }
}

impl PoolSource for ClientCore {
    fn pool(&self) -> Option<&Arc<Pool>> {
        self.link().map(|link| &link.pool)
    }

    fn wake(&self) {
        if let Some(link) = self.link_if_any() {
            link.wake.notify_one();
        }
    }
}

impl Drop for ClientCore {
    fn drop(&mut self) {
        // A drop has no caller to return the report to: the task, or `ask_and_wait` in its place, has logged it.
        let _ = self.ask_and_wait(true, self.config.drop_deadline);
    }
}

impl TaskLink {
    fn start(
        recorder: &Arc<Recorder>,
        id: &ClientId,
        handlers: &Registry,
        config: &Verified,
        destination: &BatchDestination,
        gone: &Arc<OnceLock<Arc<str>>>,
    ) -> Result<Self, BuildError> {
        let incarnation = driver::incarnation()?;
        let sink: Arc<dyn Sink> = match destination {
            BatchDestination::Agent(address) => {
                Arc::new(HttpSink::new(address.clone(), config.request_timeout))
            }
            BatchDestination::Custom(sink) => Arc::clone(sink),
        };
        let (rings, arrivals) = mpsc::channel();
        let (commands, commands_due) = unbounded_channel();
        let (stats, leftover, wake) = (Arc::default(), Arc::default(), Arc::new(Notify::new()));
        let pool = Arc::new(Pool::new(config.flush_interval, rings));
        let identity = SenderIdentity { client: id.clone(), incarnation };
        ClientTask::new(TaskParts {
            recorder: Arc::clone(recorder),
            readers: RingReaders::new(arrivals, Arc::clone(&pool)),
            buffer: EventBuffer::new(identity, handlers.clone(), config.clone()),
            sink,
            config: config.clone(),
            commands: commands_due,
            stats: Arc::clone(&stats),
            wake: Arc::clone(&wake),
            leftover: Arc::clone(&leftover),
            gone: Arc::clone(gone),
            seed: incarnation,
        })
        .start()?;
        let (generation, child) = (generation(), OnceLock::new());
        Ok(Self { generation, pool, wake, commands, stats, leftover, child })
    }
}

/// The process ends: sends what is unsent of every Client that is still there, all at the same time, each for at most
/// as long as its `exit_deadline`.
fn flush_all() {
    let live = lock(&LIVE).map(|live| live.iter().filter_map(Weak::upgrade).collect::<Vec<_>>());
    let answered = Arc::new((Mutex::new(0_usize), Condvar::new()));
    let (mut asked, mut longest) = (0, Duration::ZERO);
    for core in live.iter().flatten() {
        let (deadline, answer) = (core.config.exit_deadline, Arc::clone(&answered));
        let reply = move |_| {
            *answer.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            answer.1.notify_all();
        };
        if !deadline.is_zero() && core.ask(false, deadline, reply) {
            (asked, longest) = (asked + 1, longest.max(deadline));
        }
    }
    if asked > 0 && !driver::is_background() {
        let count = answered.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What the tasks could not send in time, they have logged.
        drop(answered.1.wait_timeout_while(count, longest.saturating_add(GRACE), |count| *count < asked));
    }
    // Dropping the last of a Client here would wait for it once more.
    live.into_iter().flatten().for_each(std::mem::forget);
}
