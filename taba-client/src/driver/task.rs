//! [`Task`]: what the background thread does for one Client: drain, seal, deliver, again.

use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, mem};

use taba_core::Remedy;
use taba_core::wire::Receipt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Sleep, sleep};

use super::hub::{self, Enlisted};
use super::intake::Intake;
use super::log_limit::LogLimit;
use crate::backoff::Backoff;
use crate::buffer::{Buffer, Fault, Sealed};
use crate::client::ShutdownReport;
use crate::config::Verified;
use crate::recorder::Recorder;
use crate::sink::{Sink, SinkError};
use crate::stats::ClientStats;

/// A random number that no other run has.
///
/// # Errors
/// When the system has no random numbers.
pub(crate) fn incarnation() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}

/// Somebody asks a Client to end.
pub(crate) struct Close {
    pub(crate) deadline: Duration,
    pub(crate) reply: Box<dyn FnOnce(ShutdownReport) + Send>,
}

/// What the background thread does for one Client.
pub(crate) struct Task {
    parts: Parts,
    backoff: Backoff,
    courier: Courier,
    /// Whether what waits should be sealed as soon as the courier is free.
    due: bool,
    counts: Counts,
    logs: Logs,
    last_error: Option<Arc<str>>,
}

/// When each kind of line may be logged again.
#[derive(Debug, Default)]
struct Logs {
    dropped: LogLimit,
    refused: LogLimit,
    faults: LogLimit,
    undeliverable: LogLimit,
}

/// What a task is made of.
pub(crate) struct Parts {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) intake: Intake,
    pub(crate) buffer: Buffer,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) config: Verified,
    pub(crate) closes: UnboundedReceiver<Close>,
    pub(crate) stats: Arc<Mutex<ClientStats>>,
    /// Makes the random part of waits.
    pub(crate) seed: u64,
}

/// What the buffer does not count.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    batches: u64,
    failures: u64,
    refused: u64,
    dropped_seen: u64,
}

type Delivery = Pin<Box<dyn Future<Output = Result<Receipt, SinkError>> + Send>>;

/// Who carries the Batch in flight.
enum Courier {
    /// There is none.
    Idle,
    /// It is on its way.
    Sending(Arc<Sealed>, Delivery),
    /// It failed, and goes again when this ends.
    Waiting(Arc<Sealed>, Pin<Box<Sleep>>),
}

enum Returned {
    Delivered(Arc<Sealed>, Result<Receipt, SinkError>),
    Rested(Arc<Sealed>),
}

impl Courier {
    /// What became of the journey.
    ///
    /// # Cancel safety
    /// Safe: the journey goes on when it is asked again.
    async fn returned(&mut self) -> Returned {
        match self {
            Self::Idle => pending().await,
            Self::Sending(sealed, delivery) => Returned::Delivered(Arc::clone(sealed), delivery.await),
            Self::Waiting(sealed, rest) => {
                rest.await;
                Returned::Rested(Arc::clone(sealed))
            }
        }
    }
}

impl Task {
    pub(crate) fn new(parts: Parts) -> Self {
        let backoff = Backoff::new(parts.config.backoff_min, parts.config.backoff_max, parts.seed);
        let (counts, logs) = (Counts::default(), Logs::default());
        Self { parts, backoff, courier: Courier::Idle, due: false, counts, logs, last_error: None }
    }

    /// Gives the task to the background thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(self) -> io::Result<()> {
        let recorder = Arc::clone(&self.parts.recorder);
        hub::enlist(&recorder, |enlisted| Box::pin(self.run(enlisted)))
    }

    async fn run(mut self, _enlisted: Enlisted) {
        // Many Clients that start together should not flush together.
        let stagger = self.parts.config.flush_interval.mul_f64(self.backoff.fraction());
        let mut flush = Box::pin(sleep(stagger));
        let close = loop {
            tokio::select! {
                () = &mut flush => {
                    flush.set(sleep(self.parts.config.flush_interval));
                    self.drain();
                    self.due = true;
                }
                () = self.parts.recorder.woken() => self.drain(),
                returned = self.courier.returned() => self.receive(returned),
                close = self.parts.closes.recv() => break close,
            }
            if matches!(self.courier, Courier::Idle) && mem::take(&mut self.due) {
                self.dispatch();
            }
            self.publish();
        };
        self.finish(close).await;
    }

    /// Sends what is held, until there is nothing, or the deadline passes.
    async fn finish(mut self, close: Option<Close>) {
        self.parts.recorder.close();
        let deadline = close.as_ref().map_or(self.parts.config.drop_deadline, |close| close.deadline);
        let acked_before = self.parts.buffer.tally().acked;
        self.backoff.hurry();
        if let Courier::Waiting(sealed, _) = &self.courier {
            self.send(Arc::clone(sealed));
        }
        let mut deadline = Box::pin(sleep(deadline));
        loop {
            self.drain();
            if matches!(self.courier, Courier::Idle) {
                self.dispatch();
            }
            if matches!(self.courier, Courier::Idle) {
                break;
            }
            tokio::select! {
                biased;
                returned = self.courier.returned() => self.receive(returned),
                () = &mut deadline => break,
            }
        }
        self.drain();
        self.publish();
        let tally = self.parts.buffer.tally();
        let report =
            ShutdownReport { flushed: tally.acked - acked_before, left: tally.pending + tally.sealed };
        if report.left > 0 {
            tracing::error!(client = %self.parts.recorder.client(), events = report.left, "events were left unsent at shutdown");
        }
        if let Some(close) = close {
            (close.reply)(report);
        }
    }

    fn drain(&mut self) {
        self.parts.intake.drain(&self.parts.recorder, &mut self.parts.buffer);
    }

    /// Seals what waits, and sends it.
    fn dispatch(&mut self) {
        if let Some(sealed) = self.parts.buffer.seal(self.parts.recorder.clock().now()) {
            self.send(sealed);
        }
    }

    fn send(&mut self, sealed: Arc<Sealed>) {
        let (sink, batch) = (Arc::clone(&self.parts.sink), Arc::clone(&sealed));
        self.courier = Courier::Sending(sealed, Box::pin(async move { sink.deliver(batch).await }));
    }

    /// The courier is back, one way or the other.
    fn receive(&mut self, returned: Returned) {
        self.courier = Courier::Idle;
        match returned {
            Returned::Rested(sealed) => self.send(sealed),
            Returned::Delivered(sealed, Ok(receipt)) => self.delivered(&sealed, &receipt),
            Returned::Delivered(sealed, Err(error)) => self.failed(sealed, &error),
        }
        // What was beyond the bounds of one Batch need not wait for the clock.
        self.due |= self.parts.buffer.left_behind();
    }

    fn delivered(&mut self, sealed: &Sealed, receipt: &Receipt) {
        if self.backoff.failures() > 0 {
            tracing::info!(client = %self.parts.recorder.client(), seq = sealed.seq().0, "the agent takes batches again");
        }
        self.backoff.worked();
        self.counts.batches += 1;
        let refused: u64 = receipt.refused.iter().map(|refusal| refusal.events).sum();
        if refused > 0 {
            self.counts.refused += refused;
            self.note_error(format!("the agent refused {refused} events"));
            if let Some(events) = self.logs.refused.happened(refused) {
                let why = receipt.refused.first().map(|refusal| refusal.why.as_str());
                tracing::error!(client = %self.parts.recorder.client(), events, why, "the agent refused events");
            }
        }
        let ours = self.parts.buffer.acknowledge(sealed.seq());
        debug_assert!(ours, "only the batch in flight is sent");
    }

    fn failed(&mut self, sealed: Arc<Sealed>, error: &SinkError) {
        self.counts.failures += 1;
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        self.note_error(format!("{error}{cause}"));
        let seq = sealed.seq().0;
        match error.remedy() {
            Remedy::GiveUp | Remedy::Split => {
                let events = sealed.events();
                if let Some(events) = self.logs.undeliverable.happened(events) {
                    tracing::error!(client = %self.parts.recorder.client(), seq, events, %error, "a batch cannot be delivered; its events are dropped");
                }
                self.backoff.worked();
                self.parts.buffer.give_up(sealed.seq(), error.why());
            }
            remedy => {
                if self.backoff.failures() == 0 {
                    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(client = %self.parts.recorder.client(), seq, %error, cause, "the agent does not take batches; events are kept");
                }
                let asked = if let Remedy::Wait(asked) = remedy { Some(asked) } else { None };
                let wait = self.backoff.failed(asked);
                self.courier = Courier::Waiting(sealed, Box::pin(sleep(wait)));
            }
        }
    }

    /// Shows the application where things stand.
    fn publish(&mut self) {
        let tally = self.parts.buffer.tally();
        let dropped = tally.dropped.total();
        let more = dropped - mem::replace(&mut self.counts.dropped_seen, dropped);
        if more > 0 {
            self.note_error(format!("{more} events were dropped: {:?} since the start", tally.dropped));
        }
        if let Some(events) = self.logs.dropped.happened(more) {
            let (dropped, client) = (&tally.dropped, self.parts.recorder.client());
            tracing::error!(%client, events, since_start = ?dropped, "events were dropped");
        }
        self.publish_fault();
        *self.parts.stats.lock().unwrap_or_else(PoisonError::into_inner) = ClientStats {
            recorded: tally.recorded,
            acked: tally.acked,
            sealed: tally.sealed,
            pending: tally.pending,
            pending_bytes: self.parts.buffer.pending_bytes(),
            dropped: tally.dropped,
            refused: self.counts.refused,
            batches: self.counts.batches,
            failures: self.counts.failures,
            last_error: self.last_error.clone(),
            tabs: self.parts.buffer.tabs(),
            rings: self.parts.intake.rings(),
        };
    }

    /// Tells of a Handler or a value whose own code has failed.
    fn publish_fault(&mut self) {
        let (fault, times) = match self.parts.buffer.take_fault() {
            Some((fault, times)) => (Some(fault), times),
            None => (None, 0),
        };
        if let Some(Fault { tab, tab_type, why, message, .. }) = &fault {
            self.note_error(format!("tab {tab} of type {tab_type}: {message} ({why})"));
        }
        if let Some(times) = self.logs.faults.happened(times) {
            let client = self.parts.recorder.client();
            let last = fault.map(|fault| (fault.tab.to_string(), fault.message)).unwrap_or_default();
            let (tab, message) = last;
            tracing::error!(%client, tab, message, times, "a handler or a value of the application failed");
        }
    }

    fn note_error(&mut self, what: String) {
        self.last_error = Some(what.into());
    }
}
