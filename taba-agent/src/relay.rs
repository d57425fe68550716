//! [`Relay`]: all decisions of an Agent, as one pure state machine.
//!
//! Client Batches come in through [`Relay::accept`], answers of Servers through [`Relay::handle`]; its outputs are
//! requests to send. The driver provides sockets, disk and time.

mod notices;
mod record;
mod rewriting;
mod room;
mod sending;
mod set_aside;
pub mod status;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use taba_core::ledger::Why;
use taba_core::wire::{BadBlock, Block, ClientBatch, Receipt};
use taba_core::{Noise, Registry, ServerUrl, SpreadRules, StreamId, VBuckets};

pub use self::notices::Notice;
use self::notices::Notices;
use self::record::FrontEnd;
pub use self::record::RecordOutcome;
use self::rewriting::Copying;
pub use self::rewriting::HELD_HERE_BYTES_MAX;
use self::room::ROOM_PAUSE;
pub use self::set_aside::{SetAsideBlocks, SetAsideCounts};
pub use self::status::Status;
pub use self::time::ClockWait;
use crate::clock::RunClock;
use crate::dedup::{Dedup, Repetition};
use crate::dispatcher::{Action, Dispatcher, DispatcherOptions, Input, Request};
use crate::intake::{BlockPlaces, Intake, sort_out};
use crate::lane::LaneKey;
use crate::sabotage::{TAKING, panic_in};
use crate::spool::record::{AcceptedBatch, Fragment, Record};
use crate::spool::recovery::{Damage, Recovered, Sending};
use crate::spool::{DiskJob, JobResult, MemorySpool, Spool, SpoolCounts, SpoolError, Weight};
pub use crate::units::ClockReading;

/// The retry delay for a Client when the Spool is full, or the Agent is stopping.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long one stream is appended to; then a new one begins, and the old one is drained. A mark expires after 48 h
/// without a Batch, and a Batch is never sent after 24 h: so no stream misses its marks.
pub const STREAM_AGE_MAX: Duration = Duration::from_secs(12 * 3600);

/// The outcome of a client Batch.
#[must_use = "the Client waits for the answer"]
#[derive(Debug)]
pub enum AcceptOutcome {
    /// It was accepted, now or before; the answer is the same.
    Taken {
        /// The answer.
        receipt: Receipt,
        /// Its end in the Spool: the answer is sent once that is [written](Spool::written), or, if power failures
        /// must be survived, [durable](Spool::durable).
        position: u64,
    },
    /// The Spool is full. The Client keeps it, and sends it again after [`RETRY_AFTER`].
    Refused(SpoolError),
    /// The Agent is stopping. The Client keeps it, and sends it again after [`RETRY_AFTER`].
    Stopping,
}

/// Counters of client Batches since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IntakeCounts {
    /// Readable Batches that came; in = taken + repeated + turned away.
    pub batches_in: u64,
    /// Taken, perhaps without some of their Blocks.
    pub batches_taken: u64,
    /// Repetitions of taken ones.
    pub batches_repeated: u64,
    /// Rejected because the Spool was full or the Agent was stopping.
    pub batches_turned_away: u64,
    /// Events in Blocks that were refused and counted as dropped, by reason.
    pub refused: BTreeMap<Why, u64>,
    /// Merges of unsent Blocks.
    pub merges: MergeCounts,
}

/// Counters of merges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MergeCounts {
    /// How often the unsent Blocks of a Lane were merged.
    pub count: u64,
    /// Their bytes before.
    pub bytes_before: u64,
    /// Their bytes after.
    pub bytes_after: u64,
    /// Panics of Handlers during merges; those Blocks stay unmerged.
    pub panicked: u64,
}

/// All decisions of an Agent.
///
/// # Examples
/// ```
/// use taba_agent::{Config, MemorySpool, ClockReading, RelayStart, Relay, AcceptOutcome};
/// use taba_agent::dispatcher::Input;
/// use taba_core::wire::ClientBatch;
/// use taba_core::{ClientId, SeqNo, Timestamp};
///
/// let config = Config::default().verify()?;
/// let spool = MemorySpool::new(config.spool_bytes_max);
/// let mut start = RelayStart::default();
/// start.seed = 1;
/// let mut relay = Relay::new(config.relay_options(), spool, start);
/// let (client, sent_at) = (ClientId::new("web-1")?, Timestamp::from_secs(0));
/// let batch = ClientBatch::new(client, 1, SeqNo(1), sent_at, Vec::new());
/// assert!(matches!(relay.accept(ClockReading::default(), &batch, &[]), AcceptOutcome::Taken { .. }));
///
/// let mut requests = Vec::new();
/// relay.handle(ClockReading::default(), Input::Tick, &mut requests);
/// assert!(requests.is_empty(), "there was nothing in the Batch");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Relay<S: Spool = MemorySpool> {
    stream: StreamId,
    /// When the stream began, since the start.
    stream_began: Duration,
    streams: Noise,
    places: BlockPlaces,
    handlers: Registry,
    merge_after: Duration,
    phase: RelayPhase,
    dedup: Dedup,
    front: FrontEnd,
    spool: S,
    dispatcher: Dispatcher,
    clock: RunClock,
    /// Since when each stream with Lanes may have been sent.
    sendings: BTreeMap<StreamId, Sending>,
    /// The last answer of a Server, or the start of this run.
    answered: Duration,
    /// Whether a request failed, and none was answered recently.
    failed: bool,
    counts: IntakeCounts,
    spool_counts: SpoolCounts,
    damage: Damage,
    /// The last failed attempt to make room.
    room_tried: Option<Duration>,
    /// Bytes that the Lanes keep in memory besides the log, since they last dropped them.
    bytes_here: u64,
    /// The copy to the end of the log in progress.
    copying: Option<Copying>,
    /// The VBucket of the current stream whose unsent Batches are being read back for a merge, and how many are
    /// pending.
    merging: Option<(u16, usize)>,
    actions: Vec<Action>,
    /// Blocks to set aside that were not yet handed out.
    aside: Vec<SetAsideBlocks>,
    /// Lanes with Blocks that are being stored before they are removed.
    keeping: BTreeSet<LaneKey>,
    set_aside_counts: SetAsideCounts,
    notices: Notices,
    /// Events cut again for the current number of VBuckets.
    cut_anew: u64,
    /// Lanes to cut again once they are read back.
    misplaced: BTreeSet<LaneKey>,
}

/// The options of a [`Relay`]; `Verified<Config>::relay_options` makes them from an Agent's settings.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RelayOptions {
    /// How many VBuckets the deployment has.
    pub vbuckets: VBuckets,
    /// How long Blocks wait for a Server before those of one Client and Tab are merged.
    pub merge_after: Duration,
    /// Maximum number of incarnations of Clients whose last Batch is remembered; at least 1.
    pub incarnations_max: usize,
    /// The options of its Dispatcher; the Relay sets what its Spool keeps.
    pub dispatcher: DispatcherOptions,
}

/// The initial state of a Relay.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RelayStart {
    /// The start.
    pub now: ClockReading,
    /// A random seed for streams' names and delays, new with every run.
    pub seed: u64,
    /// The recovered content of the Spool.
    pub recovered: Recovered,
    /// The Tab types whose unsent Blocks may be merged.
    pub handlers: Registry,
}

/// Whether Batches are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayPhase {
    /// Yes.
    Serving,
    /// No; the held Batches are sent without lingering.
    Draining,
}

impl RelayPhase {
    /// The word in `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

impl<S: Spool> Relay<S> {
    /// A Relay with a new stream, which also drains recovered Lanes.
    pub fn new(options: RelayOptions, spool: S, start: RelayStart) -> Self {
        let RelayStart { now, seed, recovered, handlers } = start;
        let mut streams = Noise::new(seed);
        let (stream, vbuckets) = (StreamId(streams.number()), options.vbuckets);
        let mut of_dispatcher = options.dispatcher;
        of_dispatcher.lane.spool_keeps_content = spool.keeps_content();
        let dispatcher = Dispatcher::new(of_dispatcher, vbuckets, stream, streams.number());
        let mut relay = Self {
            stream,
            stream_began: now.uptime,
            streams,
            places: BlockPlaces::new(vbuckets, SpreadRules::default()),
            handlers,
            merge_after: options.merge_after,
            phase: RelayPhase::Serving,
            dedup: Dedup::new(options.incarnations_max),
            front: FrontEnd::new(seed),
            spool,
            dispatcher,
            clock: RunClock::default(),
            sendings: BTreeMap::new(),
            answered: now.uptime,
            failed: false,
            counts: IntakeCounts::default(),
            spool_counts: SpoolCounts::default(),
            damage: recovered.damage.clone(),
            room_tried: None,
            bytes_here: 0,
            copying: None,
            merging: None,
            actions: Vec::new(),
            aside: Vec::new(),
            keeping: BTreeSet::new(),
            set_aside_counts: SetAsideCounts::default(),
            notices: Notices::default(),
            cut_anew: 0,
            misplaced: BTreeSet::new(),
        };
        relay.sends_nothing();
        relay.recover_sendings(&recovered);
        recovered.incarnations.iter().for_each(|taken| relay.memory_mut(taken.seq).restore(taken));
        for (key, lane) in recovered.lanes {
            relay.dispatcher.recover(now, key, lane);
        }
        relay.spool_counts.recovered = relay.dispatcher.events_held();
        // On failure, the first Batch tries again, and is refused until that succeeds.
        relay.room_tried = relay.begin_segment().err().map(|_| now.uptime);
        relay.audit();
        relay
    }

    /// Accepts a client Batch, recognises it as a repetition, or rejects it as a whole. `bad` are its malformed
    /// Blocks. Call [`Relay::handle`] afterwards, to send what is due.
    ///
    /// # Cost
    /// One pass over the Blocks, two copies of their bytes, and one write to the Spool.
    pub fn accept(&mut self, now: ClockReading, batch: &ClientBatch, bad: &[BadBlock]) -> AcceptOutcome {
        self.counts.batches_in += 1;
        let receipt = |refused| Receipt::new(batch.seq, now.time, refused);
        // A repetition is answered also while stopping, so that its Client can drop it.
        let before = match self.memory(batch.seq).seen(batch) {
            Repetition::New => None,
            Repetition::Again { refused, position } => Some((refused, position)),
            // Its Client has sent a later one, and so has the answer.
            Repetition::Older => Some((Vec::new(), 0)),
        };
        if let Some((refused, position)) = before {
            self.counts.batches_repeated += 1;
            return AcceptOutcome::Taken { receipt: receipt(refused), position };
        }
        if self.phase == RelayPhase::Draining {
            self.counts.batches_turned_away += 1;
            return AcceptOutcome::Stopping;
        }
        let Intake { blocks, refused } = sort_out(&self.places, now.time, batch, bad);
        let events: u64 = blocks.iter().map(|(_, block)| Weight::of(block).events).sum();
        self.spool_counts.offered += events;
        let taken = AcceptedBatch {
            client: batch.client.clone(),
            incarnation: batch.incarnation,
            seq: batch.seq,
            taken_at: self.clock.as_written(now).time,
            events_total: self.memory(batch.seq).events_total(batch).saturating_add(events),
            refused,
        };
        if blocks.is_empty() {
            // Nothing of it can count twice, so nothing of it is remembered.
            self.counted(&taken);
            return AcceptOutcome::Taken { receipt: receipt(taken.refused), position: 0 };
        }
        let verdict = match self.take(now, &taken, &blocks) {
            Ok(position) => AcceptOutcome::Taken { receipt: receipt(taken.refused), position },
            Err(error) => {
                if matches!(error, SpoolError::Full { .. }) {
                    self.notices.full(now.uptime, &self.spool.usage(), self.spool_counts.refused);
                }
                self.counts.batches_turned_away += 1;
                self.spool_counts.refused += events;
                AcceptOutcome::Refused(error)
            }
        };
        self.audit();
        verdict
    }

    fn counted(&mut self, taken: &AcceptedBatch) {
        self.counts.batches_taken += 1;
        for refusal in &taken.refused {
            let events = self.counts.refused.entry(refusal.why).or_default();
            *events = events.saturating_add(refusal.events);
        }
    }

    /// Writes the Blocks to the Spool and adds them to their Lanes, all or nothing.
    fn take(
        &mut self,
        now: ClockReading,
        taken: &AcceptedBatch,
        blocks: &[(taba_core::VBucket, Block)],
    ) -> Result<u64, SpoolError> {
        let mut by_lane: BTreeMap<u16, Vec<&Block>> = BTreeMap::new();
        for (vbucket, block) in blocks {
            by_lane.entry(vbucket.index()).or_default().push(block);
        }
        // Make room first: that may close Batches or renumber unsent ones, and invalidate the plan.
        let bytes: usize = blocks.iter().map(|(_, block)| block.encoded_bytes()).sum();
        self.prepare(now, bytes)?;
        let mut fragments = Vec::new();
        for (vbucket, blocks) in by_lane {
            fragments.extend(self.dispatcher.lane(vbucket).plan(blocks));
        }
        let written =
            self.spool.append(&Record::Take { taken, stream: self.stream, fragments: &fragments })?;
        // In one step with the record: after a later failure, the Batch is known when its Client repeats it.
        self.memory_mut(taken.seq).remember(taken, written.position);
        self.counted(taken);
        panic_in(TAKING);
        let mut touched: BTreeMap<u16, Vec<(Fragment, crate::spool::FragmentLocation)>> = BTreeMap::new();
        for (fragment, place) in fragments.into_iter().zip(written.locations) {
            touched.entry(fragment.vbucket).or_default().push((fragment, place));
        }
        for (vbucket, fragments) in touched {
            self.dispatcher.append(self.clock.as_written(now), vbucket, fragments, written.position);
            self.merge_if_due(now, vbucket);
        }
        self.holds_here(bytes);
        Ok(written.position)
    }

    /// Applies an input, and appends the requests to send now.
    pub fn handle(&mut self, now: ClockReading, input: Input, requests: &mut Vec<Request>) {
        if now.uptime.saturating_sub(self.stream_began) >= STREAM_AGE_MAX {
            self.begin_stream(now.uptime);
        }
        self.hear_time(now, &input);
        self.note_sending(now, &input);
        self.dispatcher.apply(now, input, &mut self.actions);
        self.leave_begun_stream(now);
        self.dispatcher.send_due(now, self.spool.durable(), &mut self.actions);
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send(request) => requests.push(request),
                Action::Release(released) => {
                    self.spool_counts.released += released.events;
                    self.spool.release(&released.locations);
                }
                Action::Expire(expired) => {
                    self.spool_counts.expired += expired.events;
                    self.spool.release(&expired.locations);
                }
                Action::SetAside(poison) => self.set_aside(now, poison),
                Action::Recut(key, bytes) => self.recut(key, bytes),
                Action::Fetch(fetch) => self.spool.fetch(fetch),
                Action::Misplaced(key) => self.misplaced(now, key, true),
            }
        }
        self.write_clock(now.uptime);
        self.maintain(now);
        self.audit();
    }

    /// The latest time of the next call of [`Relay::handle`], since the start of the Agent.
    pub fn next_wake(&self) -> Option<Duration> {
        let for_room = self.room_tried.filter(|_| self.spool.must_roll(0)).map(|tried| tried + ROOM_PAUSE);
        let for_copy = self.copying.as_ref().and_then(Copying::wakes_at);
        self.dispatcher.next_wake().into_iter().chain(for_room).chain(for_copy).min()
    }

    /// Records what is known to be stored for the next run: the last call. If that fails, the next run probes.
    pub fn conclude(&mut self) {
        let _ = self.begin_segment();
    }

    /// The next job for the disk's owner; report its result with [`Relay::disk_done`]. One job at a time.
    pub fn disk_job(&mut self, now: ClockReading) -> Option<DiskJob> {
        self.maintain(now);
        self.spool.next_job(now.uptime)
    }

    /// When to call [`Relay::disk_job`] again, if nothing else happens.
    pub fn disk_wakes_at(&self) -> Option<Duration> {
        self.spool.wake_at()
    }

    /// The result of a [job](Self::disk_job). Call [`Relay::handle`] afterwards.
    pub fn disk_done(&mut self, now: ClockReading, done: JobResult) {
        if let Some((fetch, outcome)) = self.spool.done(now.uptime, done) {
            self.fetched(now, &fetch, outcome);
        }
        self.dispatcher.synced(now.uptime);
        self.maintain(now);
        self.audit();
    }

    /// Stops accepting, and sends what is held without lingering.
    pub fn stop(&mut self, now: ClockReading) {
        self.phase = RelayPhase::Draining;
        self.dispatcher.hurry(now.uptime);
    }

    /// Whether it was stopped, and everything accepted is known to be stored.
    pub fn is_done(&self) -> bool {
        self.phase == RelayPhase::Draining && self.dispatcher.is_drained()
    }

    /// From here on these are the Servers; an empty list changes nothing. Gives whether they were others. Call [`Relay::handle`]
    /// afterwards.
    pub fn set_servers(&mut self, now: Duration, servers: &[ServerUrl]) -> bool {
        self.dispatcher.set_servers(now, servers)
    }

    /// The Servers that there are now.
    pub fn servers(&self) -> Vec<ServerUrl> {
        let listed = self.dispatcher.servers().iter().filter(|server| server.is_listed());
        listed.map(|server| server.url().clone()).collect()
    }

    /// Whether the Server with this URL is one of them, in health, and does not hang.
    pub fn is_up(&self, now: Duration, url: &str) -> bool {
        self.dispatcher.is_up(now, url)
    }

    /// Whether it holds events that are not, or not known to be, stored for good.
    pub const fn holds_events(&self) -> bool {
        self.dispatcher.events_held() > 0
    }

    /// Events and bytes not known to be stored.
    pub fn unapplied(&self) -> Weight {
        self.dispatcher.unapplied()
    }

    /// From now on Tabs are spread so, as a Server has said; whether that is news. What was accepted before stays in its Lane.
    pub fn set_spread(&mut self, rules: &SpreadRules) -> bool {
        let is_news = self.places.spread != *rules;
        self.places.spread.clone_from(rules);
        is_news
    }

    /// The Spool.
    pub fn spool(&self) -> &S {
        &self.spool
    }

    /// The current status.
    pub fn status(&self, now: ClockReading) -> Status {
        Status {
            stream: self.stream.to_string(),
            phase: self.phase.as_str(),
            uptime_secs: now.uptime.as_secs_f64(),
            vbuckets: self.places.vbuckets.count(),
            spread: self.places.spread.clone(),
            vbuckets_of_servers: None,
            store_id: None,
            other_stores: BTreeMap::new(),
            lanes: self.dispatcher.lanes(),
            clients: self.dedup.len(),
            spool: status::SpoolStatus::of(
                &self.spool.usage(),
                &self.spool_counts,
                self.dispatcher.events_held(),
                self.dispatcher.unapplied().events,
            ),
            damage: status::DamageStatus::of(&self.damage, self.spool_counts.damaged),
            merges: status::MergeStatus::of(&self.counts.merges),
            batches: status::BatchStatus::of(&self.counts),
            lane_batches: status::LaneBatchStatus::of(self.dispatcher.counts()),
            refused: status::by_word(&self.counts.refused),
            refused_by_servers: status::by_word(&self.dispatcher.counts().refused),
            events_cut_anew: self.cut_anew,
            set_aside: status::SetAsideStatus::of(&self.set_aside_counts),
            // Set by the driver.
            requests_refused: BTreeMap::new(),
            log_lines_dropped: 0,
            discovery: None,
            servers: self.server_status(now),
        }
    }

    /// Checks that every Batch is accounted for.
    fn audit(&self) {
        if cfg!(debug_assertions) {
            let n = &self.counts;
            let accounted = n.batches_taken + n.batches_repeated + n.batches_turned_away;
            assert_eq!(n.batches_in, accounted, "the relay lost count: {n:?}");
            self.spool_counts.audit(self.dispatcher.events_held());
        }
    }
}

#[cfg(test)]
mod tests;
