//! [`Relay`]: everything an Agent decides, as one plain value.
//!
//! Client Batches come in through [`Relay::accept`], answers of Servers through [`Relay::handle`]; what comes out are
//! requests to send. Whoever drives it brings the sockets and the time.

use std::collections::BTreeMap;
use std::time::Duration;

use taba_core::ledger::Why;
use taba_core::wire::{BadBlock, ClientBatch, Receipt};
use taba_core::{StreamId, Timestamp, VBuckets};

use crate::config::{Config, Verified};
use crate::dedup::{Dedup, Seen};
use crate::dispatcher::{Action, Dispatcher, Input, Request};
use crate::intake::{Intake, sort_out};
use crate::spool::{MemorySpool, Offer, Spool};
use crate::status::{self, Status};

/// How long a Client is asked to wait when the Spool is full, or the Agent is stopping.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Since the start of the Agent; never goes back.
    pub uptime: Duration,
    /// The time of day.
    pub time: Timestamp,
}

/// What became of a client Batch.
#[must_use = "the Client waits for the answer"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is here; or it was here before, and this is the same answer again.
    Taken(Receipt),
    /// The Spool has no room for it. The Client keeps it, and sends it again after [`RETRY_AFTER`].
    Full {
        /// Bytes of room that are missing.
        bytes_short: u64,
    },
    /// The Agent takes nothing any more. The Client keeps it, and sends it again after [`RETRY_AFTER`].
    Stopping,
}

/// What came in from Clients since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Batches that came, readable ones; came = taken + repeated + turned away.
    pub batches_in: u64,
    /// Taken, perhaps without some of their Blocks.
    pub batches_taken: u64,
    /// Answered as before: they had been taken.
    pub batches_repeated: u64,
    /// Turned away because the Spool was full or the Agent was stopping.
    pub batches_turned_away: u64,
    /// Events in Blocks that were refused and counted as dropped, by reason.
    pub refused: BTreeMap<Why, u64>,
}

/// Everything an Agent decides.
///
/// # Examples
/// ```
/// use taba_agent::{Config, MemorySpool, Moment, Relay, Verdict};
/// use taba_agent::dispatcher::Input;
/// use taba_core::wire::ClientBatch;
/// use taba_core::{ClientId, SeqNo, StreamId, Timestamp};
///
/// let config = Config::default().verify()?;
/// let mut relay = Relay::new(&config, MemorySpool::new(config.spool_bytes_max), StreamId(1), 1);
/// let (client, sent_at) = (ClientId::new("web-1")?, Timestamp::from_secs(0));
/// let batch = ClientBatch { client, incarnation: 1, seq: SeqNo(1), sent_at, blocks: Vec::new() };
/// assert!(matches!(relay.accept(Moment::default(), &batch, &[]), Verdict::Taken(_)));
///
/// let mut requests = Vec::new();
/// relay.handle(Moment::default(), Input::Tick, &mut requests);
/// assert!(requests.is_empty(), "there was nothing in the Batch");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Relay<S: Spool = MemorySpool> {
    stream: StreamId,
    vbuckets: VBuckets,
    phase: Phase,
    dedup: Dedup,
    spool: S,
    dispatcher: Dispatcher,
    tally: Tally,
    actions: Vec<Action>,
}

/// Whether Batches are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Yes.
    Serving,
    /// No; what is held is brought to the Servers without lingering.
    Draining,
}

impl Phase {
    /// The word in `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

impl<S: Spool> Relay<S> {
    /// A Relay that holds nothing. `stream` must be new with every run; `seed` is where the chance in waiting times
    /// comes from.
    pub fn new(config: &Verified<Config>, spool: S, stream: StreamId, seed: u64) -> Self {
        Self {
            stream,
            vbuckets: config.vbuckets(),
            phase: Phase::Serving,
            dedup: Dedup::new(config.incarnations_max),
            spool,
            dispatcher: Dispatcher::new(config, stream, seed),
            tally: Tally::default(),
            actions: Vec::new(),
        }
    }

    /// Takes a client Batch, recognises it as a repetition, or turns it away whole. `bad` are the Blocks that its
    /// decoder refused. Call [`Relay::handle`] afterwards, so that what is due goes out.
    ///
    /// # Cost
    /// One pass over the Blocks and one copy of their bytes.
    pub fn accept(&mut self, now: Moment, batch: &ClientBatch, bad: &[BadBlock]) -> Verdict {
        self.tally.batches_in += 1;
        let receipt = |refused| Verdict::Taken(Receipt { seq: batch.seq, now: now.time, refused });
        // A repetition is answered also while stopping: its Client can forget it.
        let before = match self.dedup.seen(batch) {
            Seen::New => None,
            Seen::Again(refused) => Some(refused),
            Seen::Older => Some(Vec::new()),
        };
        if let Some(refused) = before {
            self.tally.batches_repeated += 1;
            return receipt(refused);
        }
        if self.phase == Phase::Draining {
            self.tally.batches_turned_away += 1;
            return Verdict::Stopping;
        }
        let Intake { blocks, refused } = sort_out(self.vbuckets, now.time, batch, bad);
        match self.spool.offer(&blocks) {
            Offer::Refused { bytes_short } => {
                self.tally.batches_turned_away += 1;
                return Verdict::Full { bytes_short };
            }
            Offer::Kept => {}
        }
        for (vbucket, block) in &blocks {
            self.dispatcher.offer(now.uptime, *vbucket, block);
        }
        for refusal in &refused {
            let events = self.tally.refused.entry(refusal.why).or_default();
            *events = events.saturating_add(refusal.events);
        }
        self.tally.batches_taken += 1;
        self.dedup.remember(batch, &refused);
        self.audit();
        receipt(refused)
    }

    /// Takes an input, and appends the requests that are to be sent now.
    pub fn handle(&mut self, now: Moment, input: Input, requests: &mut Vec<Request>) {
        self.dispatcher.handle(now.uptime, input, &mut self.actions);
        for action in self.actions.drain(..) {
            match action {
                Action::Send(request) => requests.push(request),
                Action::Release(weight) => self.spool.release(weight),
            }
        }
        self.audit();
    }

    /// When [`Relay::handle`] wants to be called at the latest, in time since the start of the Agent.
    pub fn next_wake(&self) -> Option<Duration> {
        self.dispatcher.next_wake()
    }

    /// From now on nothing is taken, and what is held goes out without lingering.
    pub fn stop(&mut self, now: Moment) {
        self.phase = Phase::Draining;
        self.dispatcher.hurry(now.uptime);
    }

    /// Whether it was stopped, and everything that was taken is safely stored.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Draining && self.dispatcher.is_drained()
    }

    /// The Spool.
    pub fn spool(&self) -> &S {
        &self.spool
    }

    /// What there is to say about it all.
    pub fn status(&self, now: Moment) -> Status {
        let tally = self.spool.tally();
        Status {
            stream: self.stream.to_string(),
            phase: self.phase.as_str(),
            uptime_secs: now.uptime.as_secs_f64(),
            vbuckets: self.vbuckets.count(),
            lanes: self.dispatcher.lanes(),
            clients: self.dedup.len(),
            spool: status::Spool {
                bytes_max: self.spool.bytes_max(),
                bytes_held: tally.held.bytes,
                events_offered: tally.offered.events,
                events_acked: tally.acked.events,
                events_held: tally.held.events,
                events_turned_away: tally.refused.events,
            },
            batches: status::Batches::of(&self.tally),
            lane_batches: status::LaneBatches::of(self.dispatcher.tally()),
            refused: status::by_word(&self.tally.refused),
            refused_by_servers: status::by_word(&self.dispatcher.tally().refused),
            servers: self.dispatcher.servers().iter().map(|server| server.status(now.uptime)).collect(),
        }
    }

    /// What the Spool granted is what the Lanes hold, and every Batch that came is accounted for.
    fn audit(&self) {
        if cfg!(debug_assertions) {
            let n = &self.tally;
            let accounted = n.batches_taken + n.batches_repeated + n.batches_turned_away;
            assert_eq!(n.batches_in, accounted, "the relay lost count: {n:?}");
            assert_eq!(self.spool.tally().held, self.dispatcher.held(), "spool and lanes disagree");
            self.spool.tally().audit();
        }
    }
}

#[cfg(test)]
mod tests;
