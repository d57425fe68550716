//! [`Client`]: what an application holds, and [`ClientBuilder`], how it gets it.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use taba_core::ledger::Why;
use taba_core::{ClientId, Registry, RequestHeader};
use tokio::sync::oneshot;

use crate::client_core::{AGENT, BatchDestination, BuildError, ClientCore};
use crate::clock::Clock;
use crate::config::Config;
use crate::driver::AgentAddress;
use crate::recorder::Recorder;
use crate::sink::Sink;
use crate::stats::{ClientStats, FlushReport};

/// A program that records events, as the fleet knows it. Clones are the same Client.
///
/// When the last clone and the last handle are dropped, unsent events are sent; the drop waits for that, at most
/// [`Config::drop_deadline`]. In an async program, `close(..).await` first: a drop blocks its thread. A Client that
/// is never dropped (in a static, or at `std::process::exit`) is flushed at the end of the process, for at most
/// [`Config::exit_deadline`]. In both cases the number of events left at the deadline is logged;
/// [`shutdown`](Self::shutdown) returns it.
#[derive(Clone)]
pub struct Client(Arc<ClientCore>);

/// Builds a [`Client`].
#[must_use]
pub struct ClientBuilder {
    id: String,
    agent: String,
    /// Names and values; the values are secrets.
    headers: Vec<(String, String)>,
    sink: Option<Arc<dyn Sink>>,
    handlers: Registry,
    config: Config,
    clock: Clock,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, agent, handlers, config, .. } = self;
        f.debug_struct("ClientBuilder")
            .field("id", id)
            .field("agent", agent)
            .field("handlers", handlers)
            .field("config", config)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Where the Agent listens: `http://host:port` or `unix:/path`. Default `http://127.0.0.1:8279`.
    pub fn agent(mut self, address: impl Into<String>) -> Self {
        self.agent = address.into();
        self
    }

    /// A header of each request to the Agent, for a proxy before it that asks for a token: `("Authorization", "Bearer …")`.
    /// Its value is in no log and no error. Not for a [`sink`](Self::sink) of your own.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends Batches to this sink instead of an Agent over HTTP.
    pub fn sink(mut self, sink: impl Sink) -> Self {
        self.sink = Some(Arc::new(sink));
        self
    }

    /// Handlers that fold events before they travel. Default none: all events travel as they are recorded. They must
    /// be the same as those of the Servers.
    pub fn handlers(mut self, handlers: Registry) -> Self {
        self.handlers = handlers;
        self
    }

    /// Bounds and intervals.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// How often events are sent; see [`Config::flush_interval`].
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.config.flush_interval = interval;
        self
    }

    /// The clock of the events. Default [`Clock::system`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Starts the Client. It does not wait for the Agent, which may come later.
    ///
    /// # Errors
    /// [`BuildError`]: nothing was started.
    pub fn build(self) -> Result<Client, BuildError> {
        let id = ClientId::new(&self.id)?;
        let config = self.config.verify()?;
        let destination = match self.sink {
            Some(sink) => BatchDestination::Custom(sink),
            None => {
                let mut address: AgentAddress = self.agent.parse()?;
                for (name, value) in &self.headers {
                    address = address.with_header(RequestHeader::new(name, value)?);
                }
                BatchDestination::Agent(address)
            }
        };
        let recorder = Recorder::new(id, self.clock, self.handlers.clone(), config.clone());
        ClientCore::start(recorder, self.handlers, config, destination).map(Client)
    }
}

impl Client {
    /// A Client with this durable id: the same before and after a restart of the program, and no other program's.
    pub fn builder(id: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            id: id.into(),
            agent: AGENT.to_owned(),
            headers: Vec::new(),
            sink: None,
            handlers: Registry::default(),
            config: Config::default(),
            clock: Clock::system(),
        }
    }

    /// The Client of a handle.
    pub(crate) fn of(core: &Arc<ClientCore>) -> Self {
        Self(Arc::clone(core))
    }

    pub(crate) fn core(&self) -> &Arc<ClientCore> {
        &self.0
    }

    /// An event was not recorded, as there is no handle for it.
    pub(crate) fn note_refused(&self, why: Why) {
        self.0.recorder.note_refused(why, 1);
    }

    /// The Client's id.
    pub fn id(&self) -> &ClientId {
        self.0.recorder.client()
    }

    /// A Client without an Agent, which records nothing and has no thread. Its handles check names, and do nothing.
    /// [`current`](crate::current) returns it until there is a default Client.
    ///
    /// # Cost
    /// Recording is one comparison for a number; other values are allocated and dropped.
    pub fn disabled() -> Self {
        static DISABLED: LazyLock<Client> = LazyLock::new(|| Client(ClientCore::disabled()));
        DISABLED.clone()
    }

    /// Whether this is the Client that records nothing.
    pub fn is_disabled(&self) -> bool {
        self.0.is_disabled()
    }

    /// The Client's counters.
    pub fn stats(&self) -> ClientStats {
        self.0.stats()
    }

    /// Sends everything recorded before, for at most `deadline`, and continues. For programs that may be frozen or
    /// killed after some work: a function platform, a job at its end.
    ///
    /// Blocks. In an async program use [`flush_async`](Self::flush_async).
    pub fn flush(&self, deadline: Duration) -> FlushReport {
        self.0.ask_and_wait(false, deadline)
    }

    /// [`flush`](Self::flush) for async programs, of any runtime.
    ///
    /// # Cancel safety
    /// Once polled, it is sent whether this is awaited or not; only the report is lost.
    pub async fn flush_async(&self, deadline: Duration) -> FlushReport {
        self.ask(false, deadline).await
    }

    /// Ends the Client: sends unsent events, for at most `deadline`. Later events are counted as dropped in
    /// [`stats`](Self::stats); so are those that another thread records at this moment.
    ///
    /// Blocks. In an async program use [`close`](Self::close).
    pub fn shutdown(&self, deadline: Duration) -> FlushReport {
        self.0.ask_and_wait(true, deadline)
    }

    /// [`shutdown`](Self::shutdown) for async programs, of any runtime.
    ///
    /// # Cancel safety
    /// Once polled, the Client ends whether this is awaited or not; only the report is lost.
    pub async fn close(&self, deadline: Duration) -> FlushReport {
        self.ask(true, deadline).await
    }

    async fn ask(&self, close: bool, deadline: Duration) -> FlushReport {
        let (reply, report) = oneshot::channel();
        if !self.0.ask(close, deadline, move |report| _ = reply.send(report)) {
            return self.0.report();
        }
        report.await.unwrap_or_else(|_| self.0.report())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", self.id()).field("stats", &self.stats()).finish()
    }
}
