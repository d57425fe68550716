//! [`ClientTask`]: the background task of one Client: drain the rings, seal a Batch, deliver it, repeat.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::Duration;
use std::{io, mem};

use taba_core::wire::Receipt;
use taba_core::{Backoff, Noise, Remedy};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::delivery::{Delivery, DeliveryEvent};
use super::reporter::Reporter;
use super::ring_readers::{Drained, RingReaders};
use super::threads::{self, Registration};
use crate::buffer::{EventBuffer, EventCounts, FlushPoint, SealedBatch};
use crate::clock::Stopwatch;
use crate::config::Verified;
use crate::fault::panic_message;
use crate::lock::lock;
use crate::recorder::Recorder;
use crate::sink::{Sink, SinkError};
use crate::stats::{ClientStats, FlushReport};

/// Panics in a row, without a Batch that was delivered between them, after which a task is not started again.
const PANICS_MAX: u32 = 10;
/// After how long without events a task flushes less often: by then, unused rings are freed.
const IDLE_AFTER: Duration = Duration::from_secs(2);
/// Flushes without events after which the memory for more is given back.
const ROOM_FLUSHES: u32 = 2;
/// How often it flushes then. The next event wakes it at once; this is for log lines that were held back.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);
/// The longest wait that an Agent can ask for.
const ASKED_MAX: Duration = Duration::from_secs(60);
/// How long the loop waits when no flush was asked for.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// A random number that no other run has.
///
/// # Errors
/// When the system has no random numbers.
pub(crate) fn incarnation() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

/// The application asks a Client to send everything.
pub(crate) struct FlushRequest {
    /// Whether the Client ends then.
    pub(crate) close: bool,
    pub(crate) deadline: Duration,
    pub(crate) reply: FlushReply,
}

pub(crate) type FlushReply = Box<dyn FnOnce(FlushReport) + Send>;

/// A [`FlushRequest`] that has not been answered.
struct OpenFlush {
    command: FlushRequest,
    since: Stopwatch,
    point: FlushPoint,
    before: EventCounts,
}

/// The background task of one Client.
pub(crate) struct ClientTask {
    parts: TaskParts,
    backoff: Backoff,
    /// Deliveries that failed in a row.
    failures: u32,
    delivery: Delivery,
    /// Whether to seal the next Batch as soon as none is in flight.
    due: bool,
    flushes: Vec<OpenFlush>,
    /// Answers to requests to close, sent when the task has ended.
    last_answers: Vec<(FlushReply, FlushReport)>,
    /// Whether the buffer is being changed: after a panic it may then be inconsistent.
    changing: bool,
    panics: u32,
    /// Events recorded until the last flush that came by itself.
    recorded_before: u64,
    /// How many of these in a row found nothing new.
    idle_flushes: u32,
    reporter: Reporter,
}

/// The inputs of a [`ClientTask`].
pub(crate) struct TaskParts {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) readers: RingReaders,
    pub(crate) buffer: EventBuffer,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) config: Verified,
    pub(crate) commands: UnboundedReceiver<FlushRequest>,
    pub(crate) stats: Arc<Mutex<ClientStats>>,
    /// Rung when the rings should be drained before it is time.
    pub(crate) wake: Arc<Notify>,
    /// Where the rings go when the task ends: a thread may put something there at the last moment.
    pub(crate) leftover: Arc<Mutex<Option<RingReaders>>>,
    /// Set when the task gives up.
    pub(crate) gone: Arc<OnceLock<Arc<str>>>,
    /// Makes the random part of waits.
    pub(crate) seed: u64,
}

impl ClientTask {
    pub(crate) fn new(parts: TaskParts) -> Self {
        let backoff = Backoff::new(parts.config.backoff_min, parts.config.backoff_max, parts.seed);
        let reporter = Reporter::new(parts.recorder.client().clone());
        let (delivery, flushes, last_answers) = (Delivery::Idle, Vec::new(), Vec::new());
        let (due, changing, panics, recorded_before, idle_flushes) = (false, false, 0, 0, 0);
        Self {
            parts,
            backoff,
            failures: 0,
            delivery,
            due,
            flushes,
            last_answers,
            changing,
            panics,
            recorded_before,
            idle_flushes,
            reporter,
        }
    }

    /// Gives the task to the background thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(self) -> io::Result<()> {
        let recorder = Arc::clone(&self.parts.recorder);
        threads::register(&recorder, |registration| Box::pin(self.run(registration)))
    }

    /// Runs until the Client ends. After a panic it starts again with the parts that are known to be consistent.
    async fn run(mut self, _registration: Registration) {
        loop {
            let served = {
                let mut serving = Box::pin(self.serve());
                std::future::poll_fn(move |context| {
                    let polled = catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(context)));
                    match polled {
                        Ok(Poll::Pending) => Poll::Pending,
                        Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
                        Err(panic) => Poll::Ready(Err(panic_message(panic.as_ref()))),
                    }
                })
                .await
            };
            let ends = match served {
                Ok(()) => true,
                Err(message) => !self.recover(&message),
            };
            if ends {
                self.parts.recorder.close();
                if let Some(mut leftover) = lock(&self.parts.leftover) {
                    *leftover = Some(self.parts.readers);
                }
                self.last_answers.into_iter().for_each(|(reply, report)| reply(report));
                return;
            }
            // A panic that repeats at once does not use a whole processor.
            sleep(self.parts.config.flush_interval).await;
        }
    }

    /// After a panic: `false` when it is one too many.
    fn recover(&mut self, message: &str) -> bool {
        if mem::take(&mut self.changing) {
            self.parts.buffer.salvage();
        }
        self.panics += 1;
        // The panic may come from the application's logger.
        let told = catch_unwind(AssertUnwindSafe(|| {
            self.reporter.restarted(message);
            self.publish();
        }));
        let again = self.panics < PANICS_MAX;
        if !again {
            let _ = self.parts.gone.set(format!("its background task has ended: it {message}").into());
        }
        drop(told);
        again
    }

    async fn serve(&mut self) {
        // Many Clients that start together should not flush together.
        let stagger = self.parts.config.flush_interval.mul_f64(Noise::new(self.parts.seed).fraction());
        let mut flush = Box::pin(sleep(stagger));
        loop {
            let (patience, is_waited_for) = (self.patience(), !self.flushes.is_empty());
            tokio::select! {
                () = &mut flush => {
                    self.drain_in_time();
                    flush.set(sleep(self.interval()));
                }
                () = self.parts.wake.notified() => {
                    self.drain(Drained::Rings);
                    let is_first = self.parts.recorder.take_first();
                    if is_first || mem::take(&mut self.idle_flushes) > 0 {
                        flush.set(sleep(self.parts.config.flush_interval));
                    }
                    // The first event after a pause need not wait; nothing was sent in the interval before.
                    self.due |= is_first;
                }
                event = self.delivery.next_event() => {
                    if self.receive(event) && mem::take(&mut self.idle_flushes) > 0 {
                        // Frees unused Tabs and rings soon.
                        flush.set(sleep(self.parts.config.flush_interval));
                    }
                }
                command = self.parts.commands.recv() => match command {
                    Some(command) => self.begin_flush(command),
                    // The Client was dropped without a request to close.
                    None => return self.publish(),
                },
                () = sleep(patience), if is_waited_for => {}
            }
            if matches!(self.delivery, Delivery::Idle) && mem::take(&mut self.due) {
                self.dispatch();
            }
            self.publish();
            if self.answer_flushes() {
                return;
            }
        }
    }

    /// Until the next flush.
    fn interval(&self) -> Duration {
        let interval = self.parts.config.flush_interval;
        let is_idle = interval.saturating_mul(self.idle_flushes) >= IDLE_AFTER;
        if is_idle { interval.max(IDLE_INTERVAL) } else { interval }
    }

    /// The time until the next deadline of an open flush.
    fn patience(&self) -> Duration {
        let left = |flush: &OpenFlush| flush.command.deadline.saturating_sub(flush.since.elapsed());
        self.flushes.iter().map(left).min().unwrap_or(FOREVER)
    }

    fn begin_flush(&mut self, command: FlushRequest) {
        if command.close {
            self.parts.recorder.close();
        }
        let before = self.parts.buffer.counts();
        self.drain(Drained::All);
        let (since, point) = (Stopwatch::start(), self.parts.buffer.flush_point());
        self.flushes.push(OpenFlush { command, since, point, before });
        self.due = true;
        if let Delivery::Waiting(sealed, _) = &self.delivery {
            self.send(Arc::clone(sealed));
        }
    }

    /// Answers flushes that are complete or whose deadline has passed. `true` when the Client ends.
    fn answer_flushes(&mut self) -> bool {
        let (buffer, recorder) = (&self.parts.buffer, &self.parts.recorder);
        let counts = buffer.counts();
        // A close also waits for events that were recorded after it was asked for.
        let is_sent = |flush: &OpenFlush| {
            let all = counts.pending + counts.sealed == 0;
            buffer.is_settled(flush.point) && (all || !flush.command.close)
        };
        let is_over = |flush: &OpenFlush| is_sent(flush) || flush.since.elapsed() >= flush.command.deadline;
        // One by one: a logger that panics leaves the others to be answered.
        while let Some(over) = self.flushes.iter().position(is_over) {
            let flush = self.flushes.remove(over);
            let left = if is_sent(&flush) { 0 } else { counts.pending + counts.sealed };
            let OpenFlush { command, before, .. } = flush;
            let dropped = counts.dropped.total() - before.dropped.total();
            let report = FlushReport { flushed: counts.acked - before.acked, left, dropped };
            if left > 0 && command.close {
                tracing::error!(client = %recorder.client(), events = left, "events were left unsent at shutdown");
            } else if left > 0 {
                tracing::warn!(client = %recorder.client(), events = left, "events were left unsent by a flush");
            }
            let FlushRequest { close, reply, .. } = command;
            if close {
                self.last_answers.push((reply, report));
            } else {
                reply(report);
            }
        }
        !self.last_answers.is_empty()
    }

    /// Does something with the buffer; a panic meanwhile is known by it.
    fn change<T>(&mut self, change: impl FnOnce(&mut TaskParts) -> T) -> T {
        self.changing = true;
        let changed = change(&mut self.parts);
        self.changing = false;
        changed
    }

    /// `false` when some of it was left for the next time.
    fn drain(&mut self, drained: Drained) -> bool {
        self.change(|parts| parts.readers.drain(&parts.recorder, &mut parts.buffer, drained))
    }

    /// Once a flush interval.
    fn drain_in_time(&mut self) {
        let is_complete = self.drain(Drained::Overflow);
        self.change(|parts| parts.readers.shrink(&parts.recorder, &mut parts.buffer));
        self.due = true;
        // An idle task still delivers: the backoff repeats the Batch in flight, and its success sends the rest.
        let recorded = self.parts.buffer.counts().recorded;
        if mem::replace(&mut self.recorded_before, recorded) == recorded && is_complete {
            self.parts.recorder.note_idle();
            self.idle_flushes = self.idle_flushes.saturating_add(1);
            if self.idle_flushes == ROOM_FLUSHES {
                self.change(|parts| {
                    parts.buffer.release_room();
                    parts.readers.release_room();
                });
            }
        } else {
            self.idle_flushes = 0;
        }
    }

    /// Seals pending events into a Batch, and sends it.
    fn dispatch(&mut self) {
        let now = self.parts.recorder.clock().now();
        if let Some(sealed) = self.change(|parts| parts.buffer.seal(now)) {
            self.send(sealed);
        }
    }

    fn send(&mut self, sealed: Arc<SealedBatch>) {
        self.delivery = Delivery::send(&self.parts.sink, sealed);
    }

    /// A delivery has ended, or its wait is over. `true` when the Batch was delivered.
    fn receive(&mut self, event: DeliveryEvent) -> bool {
        self.delivery = Delivery::Idle;
        let is_delivered = matches!(event, DeliveryEvent::Answered(_, Ok(_)));
        match event {
            DeliveryEvent::WaitOver(sealed) => self.send(sealed),
            DeliveryEvent::Answered(sealed, Ok(receipt)) => self.delivered(&sealed, &receipt),
            DeliveryEvent::Answered(sealed, Err(error)) => self.failed(&sealed, &error),
        }
        // Events that did not fit in the last Batch are sent at once.
        self.due |= self.parts.buffer.left_behind() || !self.flushes.is_empty();
        is_delivered
    }

    fn delivered(&mut self, sealed: &SealedBatch, receipt: &Receipt) {
        let ours = self.change(|parts| parts.buffer.acknowledge(sealed.seq()));
        debug_assert!(ours, "only the batch in flight is sent");
        let failures = mem::take(&mut self.failures);
        self.panics = 0;
        self.reporter.delivered(sealed, receipt, failures);
    }

    fn failed(&mut self, sealed: &Arc<SealedBatch>, error: &SinkError) {
        match error.remedy() {
            Remedy::GiveUp | Remedy::Split => {
                self.failures = 0;
                self.change(|parts| parts.buffer.give_up(sealed.seq(), error.why()));
                self.reporter.undeliverable(sealed, error);
            }
            remedy => {
                let failures = self.failures;
                self.failures = failures.saturating_add(1);
                let mut wait = wait(&mut self.backoff, self.failures, &remedy);
                if !self.flushes.is_empty() {
                    // A caller waits for this flush, up to its deadline.
                    wait = wait.min(self.parts.config.backoff_min);
                }
                self.delivery = Delivery::wait(Arc::clone(sealed), wait);
                self.reporter.failed(sealed, error, failures);
            }
        }
    }

    /// Shows the application where things stand.
    fn publish(&mut self) {
        let fault = self.parts.buffer.take_fault();
        let (buffer, readers) = (&self.parts.buffer, &self.parts.readers);
        let stats = self.reporter.stats(buffer, readers.rings(), fault);
        if let Some(mut shown) = lock(&self.parts.stats) {
            *shown = stats;
        }
    }
}

/// How long to wait after this many failures: at least what the Agent asks for, up to [`ASKED_MAX`].
fn wait(backoff: &mut Backoff, failures: u32, remedy: &Remedy) -> Duration {
    let asked = if let Remedy::Wait(asked) = remedy { *asked } else { Duration::ZERO };
    backoff.after(failures).max(asked.min(ASKED_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_asks_for_is_honoured_within_reason() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 7);
        let mut asked = |seconds| wait(&mut backoff, 1, &Remedy::Wait(Duration::from_secs(seconds)));
        assert_eq!([asked(3), asked(86_400)], [Duration::from_secs(3), ASKED_MAX]);
        assert!(asked(0) <= Duration::from_millis(100));
    }
}
