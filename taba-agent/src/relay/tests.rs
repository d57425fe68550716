// long: outages of days, wrong clocks, and Servers that forget marks.
mod damaged_files;
mod long;
mod record;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use taba_core::wire::{Ack, Answer, Block, LaneBatch, Lanes, Probe};
use taba_core::{ClientId, Events, NameError, SeqNo, TabName, TabType, Timestamp};

use super::*;
use crate::config::{Config, Verified};
use crate::dispatcher::FailureCause;
use crate::spool::crash::CrashDisk;
use crate::spool::{Disk, DiskFault, JobRun, LogOptions, LogSpool, SyncJob, SyncPolicy};

const CLIENTS: usize = 3;

fn moment(uptime: Duration) -> ClockReading {
    ClockReading { uptime, time: Timestamp::from_secs(1).saturating_add(uptime) }
}

fn config(change: impl FnOnce(&mut Config)) -> Verified<Config> {
    let servers = (0..3).map(|n| format!("http://server{n}:1").parse().unwrap()).collect();
    let mut config = Config {
        servers,
        vbuckets: 64,
        batch_bytes_max: 300,
        linger: Duration::from_millis(20),
        ..Config::default()
    };
    change(&mut config);
    config.verify().unwrap()
}

fn relay_with(config: &Verified<Config>, bytes_max: u64) -> Relay {
    Relay::new(
        config.relay_options(),
        MemorySpool::new(bytes_max),
        RelayStart { seed: 1, ..RelayStart::default() },
    )
}

fn relay(config: &Verified<Config>) -> Relay {
    relay_with(config, config.spool_bytes_max)
}

fn taken(verdict: AcceptOutcome) -> Receipt {
    match verdict {
        AcceptOutcome::Taken { receipt, .. } => receipt,
        other => panic!("not taken: {other:?}"),
    }
}

/// A Block whose Tab says which one it is; Blocks of 40 numbers in a row lie in as many VBuckets as chance has it.
fn block(client: usize, number: usize) -> Block {
    let tab = TabName::new(&format!("tab{number}")).unwrap();
    let client = ClientId::new(&format!("client{client}")).unwrap();
    let times = vec![Timestamp::from_secs(1); 1 + number % 3];
    let tab_type = TabType::new("TotalsCounter").unwrap();
    Block::of_events(tab, client, tab_type, Events::new(&times, &vec![1.0; times.len()])).unwrap()
}

fn batch(client: usize, seq: u64, blocks: Vec<Block>) -> ClientBatch {
    let client = ClientId::new(&format!("client{client}")).unwrap();
    ClientBatch::new(client, 1, SeqNo(seq), Timestamp::default(), blocks)
}

#[test]
fn a_repeated_batch_gets_the_same_answer_and_is_not_taken_twice() {
    let config = config(|_| {});
    let mut relay = relay(&config);
    let first = batch(0, 1, vec![block(0, 1), block(1, 2)]);
    let bad = [BadBlock::new(1, 5, NameError::Empty { what: "tab name" }.into())];
    let receipt = taken(relay.accept(moment(Duration::ZERO), &first, &bad));
    assert_eq!(receipt.refused.iter().map(|refusal| refusal.block).collect::<Vec<_>>(), [1, 2]);
    let held = relay.unapplied();
    assert_eq!(held.events, 2);
    assert_eq!(taken(relay.accept(moment(Duration::ZERO), &first, &bad)), receipt);
    assert_eq!(relay.unapplied(), held);
    let status = relay.status(moment(Duration::ZERO));
    assert_eq!((status.batches.taken, status.batches.repeated), (1, 1));
    assert_eq!(status.refused["bad_name"], 8);
}

#[test]
fn an_empty_batch_is_not_remembered() {
    let mut relay = relay(&config(|config| config.incarnations_max = 100));
    let (now, honest) = (moment(Duration::ZERO), batch(0, 1, vec![block(0, 3)]));
    taken(relay.accept(now, &honest, &[]));
    for number in 0..10_001 {
        let client = ClientId::new(&format!("many{}", number % 200)).unwrap();
        let empty = ClientBatch::new(client, number, SeqNo(1), Timestamp::default(), Vec::new());
        taken(relay.accept(now, &empty, &[]));
    }
    // Nobody has such a name, so nothing of it is left either.
    let reserved = ClientId::new("taba.web").unwrap();
    let mut of_nobody = block(0, 1);
    of_nobody.client = reserved.clone();
    let of_nobody = ClientBatch::new(reserved, 1, SeqNo(1), Timestamp::default(), vec![of_nobody]);
    assert_eq!(taken(relay.accept(now, &of_nobody, &[])).refused[0].why, Why::BadName);
    taken(relay.accept(now, &honest, &[]));
    let status = relay.status(now);
    assert_eq!((relay.unapplied().events, status.clients, status.batches.repeated), (1, 1, 1));
    assert_eq!(status.batches.r#in, status.batches.taken + status.batches.repeated);
}

#[test]
fn a_full_spool_turns_a_batch_away_and_takes_it_later() {
    let config = config(|config| config.confirm_after = Duration::ZERO);
    let blocks: Vec<_> = (0..10).map(|number| block(0, number)).collect();
    let bytes: usize = blocks.iter().map(Block::encoded_bytes).sum();
    let mut relay = relay_with(&config, bytes as u64);
    taken(relay.accept(moment(Duration::ZERO), &batch(0, 1, blocks.clone()), &[]));
    let more: Vec<_> = (10..60).map(|number| block(0, number)).collect();
    let refused = relay.accept(moment(Duration::ZERO), &batch(0, 2, more), &[]);
    assert!(matches!(refused, AcceptOutcome::Refused(SpoolError::Full { .. })), "{refused:?}");
    let mut store = SimulatedStore::default();
    let mut requests = Vec::new();
    for millis in [20, 10_000] {
        let now = moment(Duration::from_millis(millis));
        relay.handle(now, Input::Tick, &mut requests);
        for request in std::mem::take(&mut requests) {
            let acks = store.take_all(&request, u64::MAX);
            relay.handle(
                now,
                Input::Answered { request: request.id, acks, server_time: None },
                &mut requests,
            );
        }
    }
    let now = moment(Duration::from_secs(10));
    taken(relay.accept(now, &batch(0, 2, vec![block(0, 1)]), &[]));
    let spool = relay.status(now).spool;
    let out = spool.events_released + spool.events_turned_away;
    assert_eq!(spool.events_offered, out + spool.events_held);
    assert_eq!((spool.events_held, spool.events_released), (2, 19));
}

#[test]
fn a_stopping_relay_takes_nothing_new_and_answers_repetitions() {
    let config = config(|_| {});
    let mut relay = relay(&config);
    let first = batch(0, 1, vec![block(0, 1)]);
    let now = moment(Duration::ZERO);
    taken(relay.accept(now, &first, &[]));
    relay.stop(now);
    taken(relay.accept(now, &first, &[]));
    assert!(matches!(relay.accept(now, &batch(0, 2, vec![block(0, 2)]), &[]), AcceptOutcome::Stopping));
    let mut requests = Vec::new();
    relay.handle(now, Input::Tick, &mut requests);
    assert_eq!(requests.len(), 1, "nothing lingers");
    assert!(!relay.is_done());
    let acks = SimulatedStore::default().take_all(&requests[0], 0);
    relay.handle(now, Input::Answered { request: requests[0].id, acks, server_time: None }, &mut requests);
    assert!(relay.is_done(), "stored is enough to go; that it is confirmed is for the next run to see");
}

#[test]
fn after_half_a_day_a_new_stream_begins_and_the_old_one_is_drained() {
    let config = config(|_| {});
    let mut relay = relay(&config);
    let mut requests = Vec::new();
    taken(relay.accept(moment(Duration::ZERO), &batch(0, 1, vec![block(0, 1)]), &[]));
    let later = moment(STREAM_AGE_MAX);
    relay.handle(later, Input::Tick, &mut requests);
    taken(relay.accept(later, &batch(0, 2, vec![block(0, 1)]), &[]));
    relay.handle(moment(STREAM_AGE_MAX + Duration::from_secs(1)), Input::Tick, &mut requests);
    let streams: Vec<_> = requests.iter().flat_map(Request::lanes).map(|lane| lane.stream).collect();
    assert_eq!(streams.len(), 2);
    assert!(streams[0] != streams[1]);
    assert!(requests.iter().flat_map(|request| &request.batches).all(|batch| batch.seq == SeqNo(1)));
}

/// What is said of a VBucket may leave a mark there, which stays for 48 h.
#[test]
fn where_it_has_nothing_an_agent_says_nothing() {
    let config = config(|config| config.confirm_after = Duration::ZERO);
    let (mut relay, mut store, mut requests) = (relay(&config), SimulatedStore::default(), Vec::new());
    taken(relay.accept(moment(Duration::ZERO), &batch(0, 1, vec![block(0, 1), block(0, 2)]), &[]));
    taken(relay.accept(moment(Duration::ZERO), &batch(1, 1, Vec::new()), &[]));
    let mut said = std::collections::BTreeSet::new();
    // A store that calls nothing stable is asked again and again; meanwhile half a day passes, and a Server begins anew.
    for second in 0..60 {
        let now = moment(Duration::from_secs(second) + STREAM_AGE_MAX * u32::from(second >= 30));
        let input = if second == 40 { Input::NewServer } else { Input::Tick };
        relay.handle(now, input, &mut requests);
        while let Some(request) = requests.pop() {
            said.extend(request.lanes().map(|lane| lane.vbucket));
            let acks = store.take_all(&request, if second < 50 { 0 } else { u64::MAX });
            let input = Input::Answered { request: request.id, acks, server_time: None };
            relay.handle(now, input, &mut requests);
        }
    }
    let used = [1, 2].map(|number| config.vbuckets().of(&block(0, number).tab).index());
    assert_eq!(said.into_iter().collect::<Vec<_>>(), {
        let mut used = used;
        used.sort_unstable();
        used
    });
    assert!(!relay.holds_events(), "it asked until all was confirmed");
    assert_eq!(store.marks.len(), 2);
}

#[test]
fn an_hour_without_servers_costs_room_by_tabs() {
    let config = config(|config| config.batch_bytes_max = 100_000);
    let handlers = taba_handlers::standard().build().unwrap();
    let origin = || RelayStart { seed: 1, handlers: handlers.clone(), ..RelayStart::default() };
    let run = |minutes: u64| {
        let options = LogOptions {
            bytes_max: 1 << 30,
            segment_bytes: 1 << 20,
            sync: SyncPolicy::Never,
            sync_interval: Duration::ZERO,
        };
        let mut disk = CrashDisk::default();
        let (spool, _) = LogSpool::open(&mut disk, options).unwrap();
        let mut relay = Relay::new(config.relay_options(), spool, origin());
        for second in 0..minutes * 60 {
            let now = moment(Duration::from_secs(second));
            let blocks = (0..50).map(|number| busy(number, now.time)).collect();
            taken(relay.accept(now, &batch(0, second + 1, blocks), &[]));
            relay.handle(now, Input::Tick, &mut Vec::new());
            while let Some(job) = relay.disk_job(now) {
                let JobRun::Done(done) = job.run(&mut disk) else { panic!("it is never synced") };
                relay.disk_done(now, done);
            }
        }
        relay.status(moment(Duration::from_secs(minutes * 60)))
    };
    let (ten, sixty) = (run(10), run(60));
    assert!(ten.merges.count > 0);
    assert_eq!(sixty.spool.events_held, 60 * 60 * 50 * 20, "nothing is lost by it");
    let (ten, sixty) = (ten.spool.bytes_held, sixty.spool.bytes_held);
    assert!(sixty < 2 * ten && sixty < 2_000_000, "{ten} bytes after ten minutes, {sixty} after an hour");
}

/// Twenty events of one of fifty busy Tabs.
fn busy(number: usize, now: Timestamp) -> Block {
    let tab = TabName::new(&format!("tab{number}")).unwrap();
    let client = ClientId::new("client0").unwrap();
    let times: Vec<_> = (0..20).map(|n| now.saturating_add(Duration::from_millis(n))).collect();
    let tab_type = TabType::new("CounterGroup").unwrap();
    Block::of_events(tab, client, tab_type, Events::new(&times, &[1.0; 20])).unwrap()
}

#[test]
fn the_metrics_are_what_prometheus_reads() {
    let config = config(|_| {});
    let mut relay = relay(&config);
    let _ = relay.accept(moment(Duration::ZERO), &batch(0, 1, vec![block(0, 1), block(1, 3)]), &[]);
    let text = relay.status(moment(Duration::from_secs(2))).metrics();
    for line in [
        "taba_agent_uptime_seconds 2",
        "taba_agent_spool_events_held 2",
        "taba_agent_events_refused_total{why=\"bad_name\"} 1",
        "taba_agent_server_up{server=\"http://server1:1\"} 1",
        "# TYPE taba_agent_lane_batches_answered_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
}

/// What happens to a request on its way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// Lost, or the Server is away.
    Lost,
    /// Stored, but the answer is lost.
    Unheard,
    /// Every n-th message is answered so, and not stored.
    Some(Answer, usize),
    /// Every n-th message is missing in the answer, though it is stored.
    Unmentioned(usize),
}

#[derive(Clone, Copy, Debug)]
enum WorldStep {
    Accept {
        client: usize,
        blocks: usize,
    },
    Repeat {
        client: usize,
    },
    Pass(u64),
    Deliver(usize, Fate),
    /// A copy of any request ever sent arrives late.
    Late(usize),
    /// All that was committed reaches the replica.
    Replicate,
    /// The replica takes over.
    FailOver,
    Sync,
    /// The disk does so many jobs; a sync among them ends later.
    Jobs(usize),
    /// A sync that is under way ends.
    SyncEnds,
    /// So many of the next syncs fail.
    FailSyncs(u32),
    /// Somebody removes all files of the Spool.
    Remove,
    /// The Agent is killed and started again.
    Kill,
    /// The power fails; of what was not synced, so much is there.
    PowerFails(u8),
    /// The disk has room for so many bytes more.
    Full(usize),
    /// The same, and what does not fit leaves the beginning of it behind.
    Torn(usize),
    HasRoom,
}

fn fate() -> impl Strategy<Value = Fate> {
    let answer = prop_oneof![Just(Answer::Unavailable), Just(Answer::Busy)];
    prop_oneof![
        4 => Just(Fate::Answered),
        2 => Just(Fate::Lost),
        2 => Just(Fate::Unheard),
        1 => (answer, 1_usize..4).prop_map(|(answer, n)| Fate::Some(answer, n)),
        1 => (1_usize..4).prop_map(Fate::Unmentioned),
    ]
}

fn step() -> impl Strategy<Value = WorldStep> {
    prop_oneof![
        8 => (0..CLIENTS, 0_usize..20).prop_map(|(client, blocks)| WorldStep::Accept { client, blocks }),
        2 => (0..CLIENTS).prop_map(|client| WorldStep::Repeat { client }),
        6 => (0_u64..30_000).prop_map(WorldStep::Pass),
        12 => (any::<usize>(), fate()).prop_map(|(which, fate)| WorldStep::Deliver(which, fate)),
        2 => any::<usize>().prop_map(WorldStep::Late),
        4 => Just(WorldStep::Replicate),
        1 => Just(WorldStep::FailOver),
        6 => Just(WorldStep::Sync),
        4 => (1_usize..4).prop_map(WorldStep::Jobs),
        2 => Just(WorldStep::SyncEnds),
        1 => (1_u32..3).prop_map(WorldStep::FailSyncs),
        1 => Just(WorldStep::Remove),
        1 => Just(WorldStep::Kill),
        1 => any::<u8>().prop_map(WorldStep::PowerFails),
        1 => (0_usize..3_000).prop_map(WorldStep::Full),
        1 => (0_usize..3_000).prop_map(WorldStep::Torn),
        2 => Just(WorldStep::HasRoom),
    ]
}

/// The store behind all Servers, with the rule of Lanes.
#[derive(Clone, Debug, Default)]
struct SimulatedStore {
    /// Of each Lane: the mark, and the sender's count of events at it.
    marks: BTreeMap<(StreamId, u16), (u64, u64)>,
    /// How many events of each Tab were folded.
    folded: BTreeMap<String, u64>,
    /// The same by Client.
    clients: BTreeMap<String, u64>,
    /// What notes about damage say, by Client.
    damaged: BTreeMap<String, u64>,
    lost: u64,
}

/// The number in a note of the Ledger.
fn noted(block: &Block) -> u64 {
    let taba_core::wire::Content::Events(bytes) = &block.content else { panic!("a note is an event") };
    let mut reader = taba_core::wire::Reader::new(bytes);
    taba_core::wire::column::times(&mut reader, 1).unwrap();
    taba_core::wire::column::numbers(&mut reader, 1).unwrap()[0] as u64
}

impl SimulatedStore {
    fn take(&mut self, batch: &LaneBatch) -> (u64, Answer) {
        let (mark, events) = self.marks.entry((batch.stream, batch.vbucket)).or_default();
        if batch.seq.0 <= *mark {
            return (*mark, Answer::Duplicate);
        }
        if batch.seq.0 > *mark + 1 && batch.seq != batch.base {
            return (*mark, Answer::Nak);
        }
        if batch.seq.0 > *mark + 1 {
            self.lost += batch.events_before - *events;
        }
        (*mark, *events) = (batch.seq.0, batch.events_before + batch.events());
        for block in &batch.blocks {
            *self.folded.entry(block.tab.to_string()).or_default() += block.events;
            if block.tab.as_str() == "taba.dropped;where=agent;why=damaged" {
                *self.damaged.entry(block.client.to_string()).or_default() += noted(block);
            } else if !block.tab.is_reserved() {
                *self.clients.entry(block.client.to_string()).or_default() += block.events;
            }
        }
        (batch.seq.0, Answer::Applied)
    }

    fn probed(&mut self, probe: &Probe) -> (u64, Answer) {
        let (mark, events) = self.marks.entry((probe.stream, probe.vbucket)).or_default();
        if probe.base.0 > *mark + 1 {
            self.lost += probe.events_before - *events;
            (*mark, *events) = (probe.base.0 - 1, probe.events_before);
        }
        (*mark, Answer::Applied)
    }

    /// The answers to a whole request; what is stable is at most `stable`.
    fn take_all(&mut self, request: &Request, stable: u64) -> Vec<Ack> {
        let lanes = Lanes::decode(&Bytes::from(request.message())).unwrap();
        let ack = |stream, vbucket, (applied, answer): (u64, Answer)| {
            Ack::new(stream, vbucket, SeqNo(applied), answer).with_stable(SeqNo(applied.min(stable)))
        };
        let batches = lanes.batches.iter().map(|batch| (batch.stream, batch.vbucket, Ok(batch)));
        let probes = lanes.probes.iter().map(|probe| (probe.stream, probe.vbucket, Err(probe)));
        let taken = batches.chain(probes).map(|(stream, vbucket, message)| {
            let answer = match message {
                Ok(batch) => self.take(batch),
                Err(probe) => self.probed(probe),
            };
            ack(stream, vbucket, answer)
        });
        taken.collect()
    }
}

struct World {
    config: Verified<Config>,
    disk: CrashDisk,
    relay: Relay<LogSpool>,
    /// A sync that is under way.
    syncing: Option<SyncJob>,
    /// Whether files were removed: until they are all there again, a crash loses what was in them.
    is_removed: bool,
    runs: u64,
    now: Duration,
    /// When this run began.
    began: Duration,
    store: SimulatedStore,
    replica: SimulatedStore,
    flying: Vec<Request>,
    sent: Vec<Request>,
    /// Of each Client: its last Batch, and from when on its receipt would be there; `None` when it has it.
    clients: Vec<(ClientBatch, Option<Option<u64>>)>,
    blocks: usize,
    expected: BTreeMap<String, u64>,
    /// By how many seconds the clock of this run is ahead.
    ahead: i64,
    /// The same of the Servers.
    servers_ahead: i64,
    /// The same by Client.
    recorded: BTreeMap<String, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let config = config(|config| {
            (config.requests_per_server_max, config.spool_sync) = (2, SyncPolicy::Always);
            config.merge_after = Duration::from_secs(1);
        });
        let disk = CrashDisk::default();
        let (relay, _) = Self::open(&config, &disk, seed, moment(Duration::ZERO));
        let clients = (0..CLIENTS).map(|client| (batch(client, 0, Vec::new()), None)).collect();
        Self {
            config,
            disk,
            relay,
            syncing: None,
            is_removed: false,
            runs: seed,
            now: Duration::ZERO,
            began: Duration::ZERO,
            store: SimulatedStore::default(),
            replica: SimulatedStore::default(),
            flying: Vec::new(),
            sent: Vec::new(),
            clients,
            blocks: 0,
            expected: BTreeMap::new(),
            ahead: 0,
            servers_ahead: 0,
            recorded: BTreeMap::new(),
        }
    }

    fn open(
        config: &Verified<Config>,
        disk: &CrashDisk,
        seed: u64,
        now: ClockReading,
    ) -> (Relay<LogSpool>, Damage) {
        let options = LogOptions {
            bytes_max: 1 << 20,
            segment_bytes: 3_000,
            sync: config.spool_sync,
            sync_interval: Duration::ZERO,
        };
        let (spool, recovered) = LogSpool::open(&mut disk.clone(), options).unwrap();
        let damage = recovered.damage.clone();
        let handlers = taba_handlers::standard().build().unwrap();
        (Relay::new(config.relay_options(), spool, RelayStart { now, seed, recovered, handlers }), damage)
    }

    fn server_time(&self) -> Timestamp {
        let right = moment(self.now).time.as_micros();
        Timestamp::from_micros(right + self.servers_ahead * 1_000_000)
    }

    fn moment(&self) -> ClockReading {
        let right = moment(self.now).time.as_micros();
        let time = Timestamp::from_micros(right + self.ahead * 1_000_000);
        ClockReading { uptime: self.now - self.began, time }
    }

    fn handle(&mut self, input: Input) {
        let mut requests = Vec::new();
        self.relay.handle(self.moment(), input, &mut requests);
        self.sent.extend(requests.iter().cloned());
        self.flying.extend(requests);
    }

    fn restart(&mut self) {
        let damage = self.restart_damaged();
        assert_eq!(damage.events, 0, "what was lost with the power had not been acknowledged");
    }

    fn restart_damaged(&mut self) -> Damage {
        self.runs += 1;
        self.began = self.now;
        self.syncing = None;
        self.disk.fail_syncs(0);
        self.flying.clear();
        let damage;
        (self.relay, damage) = Self::open(&self.config, &self.disk, self.runs, self.moment());
        for (_, waiting) in &mut self.clients {
            // Nobody answers any more: the Client sends its Batch again.
            *waiting = waiting.map(|_| None);
        }
        self.handle(Input::Tick);
        damage
    }

    /// A Client sends its Batch, for the first time or again.
    fn send(&mut self, client: usize) {
        let (batch, _) = self.clients[client].clone();
        let verdict = self.relay.accept(self.moment(), &batch, &[]);
        self.clients[client].1 = Some(match verdict {
            AcceptOutcome::Taken { position, .. } => Some(position),
            AcceptOutcome::Refused(_) => None,
            AcceptOutcome::Stopping => panic!("it was not stopped"),
        });
        self.handle(Input::Tick);
    }

    fn accept(&mut self, client: usize, blocks: usize) {
        if self.clients[client].1.is_some() {
            return self.send(client);
        }
        // Few Tabs, so that there is something to merge.
        let blocks: Vec<_> =
            (self.blocks..self.blocks + blocks).map(|number| block(client, number % 7)).collect();
        self.blocks += blocks.len();
        for block in &blocks {
            *self.expected.entry(block.tab.to_string()).or_default() += block.events;
            *self.recorded.entry(block.client.to_string()).or_default() += block.events;
        }
        let seq = self.clients[client].0.seq.0 + 1;
        self.clients[client] = (batch(client, seq, blocks), Some(None));
        self.send(client);
    }

    /// The disk does so many jobs, or all there are.
    fn disk(&mut self, jobs: usize) {
        for _ in 0..jobs {
            let Some(job) = self.relay.disk_job(self.moment()) else { return };
            match job.run(&mut self.disk) {
                JobRun::Done(done) => self.relay.disk_done(self.moment(), done),
                JobRun::Sync(sync) => {
                    self.relay.disk_done(self.moment(), JobResult::Prepared { position: sync.position });
                    self.syncing = Some(sync);
                }
            }
            self.handle(Input::Tick);
            self.hears();
        }
    }

    fn sync_ends(&mut self) {
        if let Some(sync) = self.syncing.take() {
            self.relay.disk_done(self.moment(), sync.run());
            self.handle(Input::Tick);
            self.hears();
        }
    }

    /// Receipts arrive.
    fn hears(&mut self) {
        let durable = self.relay.spool().durable();
        for (_, waiting) in &mut self.clients {
            if matches!(waiting, Some(Some(position)) if *position <= durable) {
                *waiting = None;
            }
        }
        self.is_removed &= self.disk.is_gone() || self.relay.spool().usage().fault.is_some();
    }

    fn sync(&mut self) {
        // What a full disk does not take is tried again later.
        for _ in 0..100 {
            self.disk(100);
            if self.syncing.is_none() {
                return self.hears();
            }
            self.sync_ends();
        }
        panic!("the disk is never done: {:?}", self.relay);
    }

    fn deliver(&mut self, which: usize, fate: Fate) {
        if self.flying.is_empty() {
            return;
        }
        let request = self.flying.swap_remove(which % self.flying.len());
        let failed = Input::Failed {
            request: request.id,
            why: "lost".into(),
            cause: FailureCause::Away,
            retry_after: None,
        };
        let (before, server_time) = (self.store.clone(), Some(self.server_time()));
        let acks = self.store.take_all(&request, 0).into_iter().map(|ack| {
            let lane = (ack.stream, ack.vbucket);
            let stable = self.replica.marks.get(&lane).map_or(0, |(mark, _)| *mark);
            let applied = ack.applied.0;
            ack.with_stable(SeqNo(stable.min(applied)))
        });
        let acks: Vec<_> = acks.collect();
        let input = match fate {
            Fate::Lost => {
                self.store = before;
                failed
            }
            Fate::Unheard => failed,
            Fate::Answered => Input::Answered { request: request.id, acks, server_time },
            Fate::Unmentioned(n) => {
                let acks = acks.into_iter().enumerate().filter(|(place, _)| place % n != 0);
                Input::Answered { request: request.id, acks: acks.map(|(_, ack)| ack).collect(), server_time }
            }
            Fate::Some(answer, n) => {
                // Whether such a message was stored is as unknown as its answer says.
                let turned = |(place, mut ack): (usize, Ack)| {
                    if place % n == 0 {
                        (ack.answer, ack.applied) = (answer, SeqNo(0));
                    }
                    ack
                };
                let acks = acks.into_iter().enumerate().map(turned).collect();
                Input::Answered { request: request.id, acks, server_time }
            }
        };
        self.handle(input);
    }

    fn take(&mut self, step: WorldStep) {
        match step {
            WorldStep::Accept { client, blocks } => self.accept(client, blocks),
            WorldStep::Repeat { client } => {
                if self.clients[client].0.seq > SeqNo::NONE {
                    let waiting = self.clients[client].1;
                    self.send(client);
                    if waiting.is_none() {
                        self.clients[client].1 = None;
                    }
                }
            }
            WorldStep::Pass(millis) => {
                self.now += Duration::from_millis(millis);
                self.handle(Input::Tick);
            }
            WorldStep::Deliver(which, fate) => self.deliver(which, fate),
            WorldStep::Late(which) => {
                if !self.sent.is_empty() {
                    let request = self.sent[which % self.sent.len()].clone();
                    self.store.take_all(&request, 0);
                }
            }
            WorldStep::Replicate => self.replica = self.store.clone(),
            WorldStep::FailOver => {
                self.store = self.replica.clone();
                // Sometimes a process is new there, too.
                if self.blocks.is_multiple_of(2) {
                    self.handle(Input::NewServer);
                }
            }
            WorldStep::Sync => self.sync(),
            WorldStep::Jobs(jobs) => self.disk(jobs),
            WorldStep::SyncEnds => self.sync_ends(),
            WorldStep::FailSyncs(count) => {
                if !self.is_removed {
                    self.disk.fail_syncs(count);
                }
            }
            WorldStep::Remove => {
                // One trouble at a time.
                if !self.is_removed && self.relay.spool().usage().fault.is_none() {
                    self.disk.fail_syncs(0);
                    self.disk.lose_files();
                    self.is_removed = true;
                    // A Client may hear once more of what was written before anybody could know.
                    self.sync();
                }
            }
            // What is in files that somebody removed is gone with the process.
            WorldStep::Kill | WorldStep::PowerFails(_) if self.is_removed => {}
            WorldStep::Kill => self.restart(),
            WorldStep::PowerFails(keep) => {
                self.disk.lose_power(keep);
                self.restart();
            }
            WorldStep::Full(room) => self.disk.set_room(Some(room)),
            WorldStep::Torn(room) => {
                self.disk.set_tearing(true);
                self.disk.set_room(Some(room));
            }
            WorldStep::HasRoom => self.has_room(),
        }
        assert_eq!(self.store.lost, 0, "nothing is lost that was acknowledged");
    }

    fn is_at_rest(&self) -> bool {
        let is_heard = self.clients.iter().all(|(_, waiting)| waiting.is_none());
        // How much room a small disk has is looked at now and then, as long as it says so.
        let disk_rests = self.relay.disk_wakes_at().is_none() || self.disk.free().is_some();
        let nothing_waits = self.relay.next_wake().is_none() && disk_rests;
        is_heard && nothing_waits && self.relay.dispatcher.events_held() == 0
    }

    fn has_room(&mut self) {
        self.disk.set_tearing(false);
        self.disk.set_room(None);
    }

    /// No more faults: everything must come to rest, soon.
    fn heal(&mut self) {
        self.has_room();
        self.disk.fail_syncs(0);
        self.drain();
    }

    /// Clients send again, Servers answer, time passes, until nothing is held any more.
    fn drain(&mut self) {
        for _ in 0..20_000 {
            for client in 0..CLIENTS {
                if matches!(self.clients[client].1, Some(None)) {
                    self.send(client);
                }
            }
            self.sync();
            if self.relay.spool().usage().fault == Some(DiskFault::Broken) {
                self.restart();
            }
            self.replica = self.store.clone();
            if !self.flying.is_empty() {
                self.deliver(0, Fate::Answered);
            } else if self.is_at_rest() {
                return;
            } else {
                let wakes = self.relay.next_wake().into_iter().chain(self.relay.disk_wakes_at());
                if let Some(wake) = wakes.min() {
                    self.now = self.now.max(self.began + wake);
                    self.handle(Input::Tick);
                }
            }
        }
        panic!(
            "does not drain: {:?}, at {:?}, wakes {:?} {:?}, {:?} {:?}",
            self.relay.spool(),
            self.moment(),
            self.relay.next_wake(),
            self.relay.disk_wakes_at(),
            self.relay.copying,
            self.clients
        );
    }
}

#[test]
fn a_disk_smaller_than_the_bound_drains_as_soon_as_what_it_holds_is_confirmed() {
    let mut world = World::new(1);
    world.disk.set_room(Some(12_000));
    let mut was_full = false;
    for _ in 0..40 {
        (0..CLIENTS).for_each(|client| world.accept(client, 20));
        world.sync();
        was_full |= world.relay.spool().usage().error.is_some();
        world.replica = world.store.clone();
        world.take(WorldStep::Pass(100));
        while !world.flying.is_empty() {
            world.deliver(0, Fate::Answered);
        }
    }
    assert!(was_full, "the disk was large enough for all of it");
    world.drain();
    let folded: u64 = world.store.folded.values().sum();
    assert_eq!((folded, world.store.lost), (world.expected.values().sum(), 0));
    assert_eq!(world.relay.spool().usage().error, None);
}

#[test]
fn a_renewal_for_which_there_is_no_room_goes_on_as_what_the_log_holds_is_confirmed() {
    for (fill, is_restarted) in
        [4_000, 7_000, 9_000, 11_500].into_iter().flat_map(|fill| [(fill, false), (fill, true)])
    {
        let mut world = World::new(1);
        world.disk.tells_its_room();
        world.disk.set_room(Some(12_000));
        // Servers are away, and more is held than there is room to write again.
        while world.disk.bytes() < fill {
            let before = world.disk.bytes();
            (0..CLIENTS).for_each(|client| world.accept(client, 20));
            world.sync();
            if world.disk.bytes() == before {
                break;
            }
        }
        if is_restarted {
            world.take(WorldStep::Kill);
            world.sync();
        }
        world.disk.fail_syncs(1);
        (0..CLIENTS).for_each(|client| world.accept(client, 30));
        world.sync();
        world.drain();
        assert_eq!((world.store.folded, world.store.lost), (world.expected, 0), "{fill} {is_restarted}");
        assert_eq!(world.relay.spool().usage().error, None);
    }
}

/// The copies of a renewal without an end outlived the older segments that stood beside them, and counted as the whole log.
#[test]
fn a_renewal_that_was_cut_off_counts_nothing_when_older_segments_are_gone() {
    let mut world = World::new(0);
    for step in [
        WorldStep::Accept { client: 0, blocks: 2 },
        WorldStep::SyncEnds,
        WorldStep::Accept { client: 0, blocks: 0 },
        WorldStep::Jobs(1),
        WorldStep::Jobs(1),
        WorldStep::FailSyncs(2),
        WorldStep::Sync,
        WorldStep::PowerFails(159),
        WorldStep::Sync,
        WorldStep::PowerFails(30),
    ] {
        world.take(step);
    }
    world.heal();
    assert_eq!((world.store.folded, world.store.lost), (world.expected, 0));
}

/// `TABA_MODEL_CASES` runs more.
fn cases(default: u32) -> u32 {
    std::env::var("TABA_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(300)))]

    /// Lost, repeated, late and half-answered requests, stores that go back to what their replica has, agents that are
    /// killed, power that fails, disks that run full: every event is stored exactly once, and nothing is left behind.
    #[test]
    fn every_event_is_stored_once(seed in any::<u64>(), steps in prop::collection::vec(step(), 0..150)) {
        let mut world = World::new(seed);
        steps.into_iter().for_each(|step| world.take(step));
        world.heal();
        prop_assert_eq!(world.store.lost, 0);
        let folded: BTreeMap<_, _> = world.store.folded.into_iter().filter(|(_, events)| *events > 0).collect();
        prop_assert_eq!(folded, world.expected);
        let room = world.relay.spool().usage();
        prop_assert_eq!((room.live_bytes, room.error), (0, None));
    }
}
