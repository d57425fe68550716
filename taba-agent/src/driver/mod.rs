//! The driver: an [`Agent`] runs a [`Relay`](crate::Relay) with sockets and time.

mod body;
mod body_room;
mod clock;
mod disk;
mod disk_thread;
mod failure;
mod file;
mod handle;
mod intake;
mod listener;
mod log_notices;
mod open;
mod options;
mod pump;
mod record;
mod refusal;
mod sender;
mod set_aside;
mod shared;
mod stores;
mod supervise;
#[cfg(unix)]
mod unix;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use taba_core::guard::quiet_guarded_panics;
use taba_core::{DroppedLogLines, HostPort, Registry};
use taba_listen::Accept;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::disk::{DiskError, FileDisk};
pub use self::failure::AgentFailure;
pub use self::handle::{AcceptError, AgentHandle};
pub use self::options::AgentOptions;
pub use self::set_aside::{SetAsideFile, SetAsideFiles};
use self::shared::Shared;
use self::supervise::supervise;
use crate::relay::Status;
use crate::spool::{Disk, Weight};

/// How long connections may finish their request when an Agent stops.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long the disk may finish writes when an Agent ends.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// An Agent, ready to start.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use taba_agent::Agent;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = tempfile::tempdir()?;
/// let builder = Agent::builder().listen("127.0.0.1:0".parse()?).servers(["http://127.0.0.1:8300".parse()?]);
/// let agent = builder.spool_dir(directory.path()).build()?;
/// let running = agent.start().await?;
/// println!("clients send to http://{}/v2/events", running.addr());
/// let left = running.shutdown(Duration::from_secs(1)).await;
/// assert!(left.is_nothing());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Agent {
    options: AgentOptions,
    handlers: Registry,
    log_lines_dropped: DroppedLogLines,
}

/// Why an Agent did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}; --listen names another address")]
    Listen {
        /// The address.
        addr: HostPort,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The Unix socket cannot be listened on.
    #[error("cannot listen on {}; --unix names another path", .path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The directory of the Spool cannot be used.
    #[error("cannot open the spool (--spool-dir)")]
    SpoolDir(#[from] DiskError),
    /// The Spool cannot be read.
    #[error("cannot read the spool in {} (--spool-dir)", .path.display())]
    Spool {
        /// The directory.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The operating system gave no random number to name the stream with.
    #[error("there are no random numbers")]
    Random(#[source] io::Error),
    /// The operating system gave no thread for the disk.
    #[error("cannot start a thread for the spool")]
    Thread(#[source] io::Error),
}

/// Why an Agent did not run [until its signal](Agent::run_until).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It did not start.
    #[error("the agent did not start")]
    Start(#[from] StartError),
    /// A part of it failed while it ran.
    #[error("the agent failed")]
    Failed(#[from] AgentFailure),
}

/// What a stopped Agent had not delivered to a Server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "events that are left in memory are lost with the process"]
#[non_exhaustive]
pub struct Left {
    /// Whether it is in a Spool on a disk: then the next run with the same directory delivers it.
    pub is_kept: bool,
    /// Events, acknowledged to their Clients and not known to be stored.
    pub events: u64,
    /// Bytes of the Blocks that hold them, and of the Ledger's.
    pub bytes: u64,
}

/// A running Agent. Stop it with [`RunningAgent::shutdown`]; dropped, it stops at once, and loses what is only in
/// memory.
pub struct RunningAgent {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped to stop.
    stop: watch::Sender<()>,
    listeners: JoinSet<()>,
    pump: JoinSet<()>,
    /// Releases the disk when dropped.
    _disk: DiskHandle,
    #[cfg(unix)]
    socket: Option<unix::Socket>,
}

/// Ends the disk thread when dropped.
struct DiskHandle(Arc<Shared>);

impl Drop for DiskHandle {
    fn drop(&mut self) {
        self.0.release_disk();
    }
}

impl Agent {
    /// An Agent with this configuration, which is [`Verified`](crate::Verified).
    pub fn new(config: impl Into<AgentOptions>) -> Self {
        let (handlers, log_lines_dropped) = (Registry::default(), DroppedLogLines::default());
        Self { options: config.into(), handlers, log_lines_dropped }
    }

    /// Merges the unsent Blocks of these Tab types while Servers are unavailable, so that a long outage takes space
    /// by Tabs, not by time. Other types are kept as they came.
    #[must_use]
    pub fn with_handlers(self, handlers: Registry) -> Self {
        Self { handlers, ..self }
    }

    /// The count of dropped log lines of the process, for `/status` and `/metrics`; by default 0.
    #[must_use]
    pub fn with_log_lines_dropped(self, count: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { log_lines_dropped: DroppedLogLines::of(count), ..self }
    }

    /// Starts listening and sending, on the current tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when a socket or the Spool cannot be opened.
    pub async fn start(self) -> Result<RunningAgent, StartError> {
        self.begin(None).await
    }

    /// [Starts](Self::start) with its Spool on the given disk instead of the directory: for tests with one that hangs
    /// or fails.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on(self, disk: impl Disk) -> Result<RunningAgent, StartError> {
        self.begin(Some(Box::new(disk))).await
    }

    async fn begin(self, disk: Option<Box<dyn Disk>>) -> Result<RunningAgent, StartError> {
        // A panic of a Handler during a merge is logged with a limit, not each time.
        quiet_guarded_panics();
        let listen = &self.options.listen;
        let listen_error = |source| StartError::Listen { addr: listen.clone(), source };
        // A name may have several addresses; the first usable one is taken.
        let tcp = TcpListener::bind((listen.host(), listen.port())).await.map_err(listen_error)?;
        let addr = tcp.local_addr().map_err(listen_error)?;
        let (mut shared, disk, woken) = Shared::new(self.options, self.handlers, disk)?;
        shared.log_lines_dropped = self.log_lines_dropped;
        let shared = Arc::new(shared);
        let handle = DiskHandle(Arc::clone(&shared));
        let (stop, stopped) = watch::channel(());
        let mut listeners = JoinSet::new();
        #[cfg(unix)]
        let socket = match &shared.options.unix {
            None => None,
            Some(path) => {
                let opened =
                    unix::open(path).map_err(|source| StartError::Unix { path: path.clone(), source })?;
                serve(&mut listeners, opened.listener, &shared, &stopped);
                Some(opened.socket)
            }
        };
        serve(&mut listeners, tcp, &shared, &stopped);
        let mut pump = JoinSet::new();
        pump.spawn(supervise("the pump", Arc::clone(&shared), pump::pump(Arc::clone(&shared))));
        if let Some(disk) = disk {
            disk_thread::start(&shared, disk, woken).map_err(StartError::Thread)?;
        }
        Ok(RunningAgent {
            addr,
            shared,
            stop,
            listeners,
            pump,
            _disk: handle,
            #[cfg(unix)]
            socket,
        })
    }

    /// Starts, waits for `signal`, and stops within the configuration's `shutdown_timeout`.
    ///
    /// # Errors
    /// [`RunError`] when it does not start, or a part of it [failed](RunningAgent::failed); what it held was
    /// [saved](RunningAgent::abandon) as far as that went.
    pub async fn run_until(self, signal: impl Future<Output = ()>) -> Result<Left, RunError> {
        let deadline = self.options.shutdown_timeout;
        let running = self.start().await?;
        let failure = tokio::select! {
            () = signal => return Ok(running.shutdown(deadline).await),
            failure = running.failed() => failure,
        };
        running.abandon().await;
        Err(failure.into())
    }
}

fn serve(
    listeners: &mut JoinSet<()>,
    listener: impl Accept,
    shared: &Arc<Shared>,
    stopped: &watch::Receiver<()>,
) {
    let router = listener::router(Arc::clone(shared));
    let serving = taba_listen::serve(listener, router, Arc::clone(&shared.connections), stopped.clone());
    listeners.spawn(supervise("the listener", Arc::clone(shared), serving));
}

impl RunningAgent {
    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A handle for front-ends in this process; it may outlive this.
    pub fn handle(&self) -> AgentHandle {
        AgentHandle::of(Arc::clone(&self.shared))
    }

    /// The content of `/status`; `None` after a [failure](Self::failed) that left the state inconsistent.
    pub fn status(&self) -> Option<Status> {
        self.shared.status().ok()
    }

    /// Waits for a failure: a task or thread panicked or ended early. Then nothing more is accepted;
    /// [abandon](Self::abandon) the Agent, and end the process with an error.
    ///
    /// # Cancel safety
    /// Safe: a failure is kept.
    pub async fn failed(&self) -> AgentFailure {
        self.shared.failed().await
    }

    /// Ends it after a [failure](Self::failed): writes and syncs its Spool, for at most 5 s. Nothing more is
    /// delivered; the next run with the same directory does.
    pub async fn abandon(self) {
        drop((self.stop, self.listeners, self.pump));
        self.shared.close(CLOSE_LIMIT).await;
    }

    /// Stops: accepts nothing more, and delivers what is held to the Servers, for at most `deadline`. Returns what
    /// was left.
    ///
    /// # Cancel safety
    /// When dropped, it stops at once; what is only in memory is lost.
    pub async fn shutdown(mut self, deadline: Duration) -> Left {
        // Tasks may end from here on.
        self.shared.is_stopping_now();
        drop(self.stop);
        let finish = async {
            let goodbye = async { while self.listeners.join_next().await.is_some() {} };
            // Slower requests are refused from here on.
            let _ = timeout(GOODBYE, goodbye).await;
            self.shared.stop();
            self.pump.join_next().await
        };
        // What is left shows whether it finished.
        let _ = timeout(deadline, finish).await;
        self.shared.stop();
        #[cfg(unix)]
        drop(self.socket);
        self.shared.close(CLOSE_LIMIT).await;
        // An inconsistent state has no count: what was acknowledged is in the Spool.
        let left = self.shared.unapplied().unwrap_or_default();
        let is_kept = left != Weight::default() && !self.shared.is_memory();
        Left { is_kept, events: left.events, bytes: left.bytes }
    }
}

impl fmt::Debug for RunningAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningAgent").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Left {
    /// Whether everything was stored.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}
