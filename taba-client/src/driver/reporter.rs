//! [`Reporter`]: the log and statistics of one task: log lines, at most one per cause in ten seconds, and
//! [`ClientStats`].

use std::mem;
use std::sync::Arc;

use taba_core::wire::Receipt;
use taba_core::{ClientId, Throttle};

use crate::buffer::{EventBuffer, SealedBatch};
use crate::clock::monotonic;
use crate::fault::ApplicationFault;
use crate::sink::SinkError;
use crate::stats::ClientStats;

/// The log and statistics of one task.
pub(super) struct Reporter {
    client: ClientId,
    batches: u64,
    failures: u64,
    refused: u64,
    restarts: u64,
    dropped_seen: u64,
    last_error: Option<Arc<str>>,
    last_fault: Option<ApplicationFault>,
    throttle: Throttle<&'static str>,
}

impl Reporter {
    pub(super) fn new(client: ClientId) -> Self {
        let (batches, failures, refused, restarts, dropped_seen) = (0, 0, 0, 0, 0);
        let (last_error, last_fault, throttle) = (None, None, Throttle::default());
        Self { client, batches, failures, refused, restarts, dropped_seen, last_error, last_fault, throttle }
    }

    /// Whether a line is due about something that happened `times` more; how often since the last line.
    fn due(&mut self, what: &'static str, times: u64) -> Option<u64> {
        self.throttle.add(what, times, monotonic())
    }

    /// The Agent has taken a Batch, after this many failures.
    pub(super) fn delivered(&mut self, sealed: &SealedBatch, receipt: &Receipt, failures: u32) {
        self.batches += 1;
        let refused: u64 = receipt.refused.iter().map(|refusal| refusal.events).sum();
        if refused > 0 {
            self.refused += refused;
            let first = receipt.refused.first();
            let why = first.map(|refusal| refusal.why.as_str()).unwrap_or_default();
            let tab = first.and_then(|refusal| sealed.batch().blocks.get(refusal.block as usize));
            let tab = tab.map(|block| block.tab.to_string()).unwrap_or_default();
            self.last_error = Some(format!("the agent refused {refused} events: {why}, tab {tab}").into());
            if let Some(events) = self.due("refused", refused) {
                tracing::error!(client = %self.client, events, why, tab, "the agent refused events");
            }
        }
        if failures > 0 {
            tracing::info!(client = %self.client, seq = sealed.seq().0, failures, "the agent takes batches again");
        }
    }

    /// A delivery failed and is tried again; `failures` had failed before it.
    pub(super) fn failed(&mut self, sealed: &SealedBatch, error: &SinkError, failures: u32) {
        self.note_failure(error);
        // A connection that comes and goes is one cause: not a line each time.
        if let Some(times) = self.due("unreachable", u64::from(failures == 0)) {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(client = %self.client, seq = sealed.seq().0, %error, cause, times, "the agent does not take batches; events are kept");
        }
    }

    /// A Batch cannot be delivered and was given up.
    pub(super) fn undeliverable(&mut self, sealed: &SealedBatch, error: &SinkError) {
        self.note_failure(error);
        if let Some(events) = self.due("undeliverable", sealed.events()) {
            tracing::error!(client = %self.client, seq = sealed.seq().0, events, %error, "a batch cannot be delivered; its events are dropped");
        }
    }

    fn note_failure(&mut self, error: &SinkError) {
        self.failures += 1;
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        self.last_error = Some(format!("{error}{cause}").into());
    }

    /// The task panicked, and is started again.
    pub(super) fn restarted(&mut self, message: &str) {
        self.restarts += 1;
        self.last_error = Some(format!("the background task {message}").into());
        if let Some(times) = self.due("restarts", 1) {
            tracing::error!(client = %self.client, message, times, "the background task panicked and is started again");
        }
    }

    /// Where things stand.
    pub(super) fn stats(
        &mut self,
        buffer: &EventBuffer,
        rings: usize,
        fault: Option<(ApplicationFault, u64)>,
    ) -> ClientStats {
        let counts = buffer.counts();
        let dropped = counts.dropped.total();
        let more = dropped.saturating_sub(mem::replace(&mut self.dropped_seen, dropped));
        if more > 0 {
            let text = format!("{more} events were dropped; since the start {:?}", counts.dropped);
            self.last_error = Some(text.into());
        }
        if let Some(events) = self.due("dropped", more) {
            let since_start = counts.dropped;
            tracing::error!(client = %self.client, events, ?since_start, "events were dropped");
        }
        self.tell_fault(fault);
        ClientStats {
            recorded: counts.recorded,
            acked: counts.acked,
            sealed: counts.sealed,
            pending: counts.pending,
            pending_bytes: buffer.pending_bytes(),
            dropped: counts.dropped,
            refused: self.refused,
            batches: self.batches,
            failures: self.failures,
            restarts: self.restarts,
            last_error: self.last_error.clone(),
            tabs: buffer.tabs(),
            rings,
        }
    }

    /// A Handler or a value of the application has failed.
    fn tell_fault(&mut self, fault: Option<(ApplicationFault, u64)>) {
        let mut times = 0;
        if let Some((fault, more)) = fault {
            let ApplicationFault { tab, tab_type, why, message, .. } = &fault;
            self.last_error = Some(format!("tab {tab} of type {tab_type}: {message} ({why})").into());
            (self.last_fault, times) = (Some(fault), more);
        }
        let due = self.due("faults", times);
        if let (Some(fault), Some(times)) = (&self.last_fault, due) {
            let (client, ApplicationFault { tab, tab_type, why, message, .. }) = (&self.client, fault);
            tracing::error!(%client, %tab, %tab_type, %why, message, times, "a handler or a value of the application failed");
        }
    }
}
