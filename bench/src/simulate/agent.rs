//! [`SimulatedAgent`]: an Agent as it is, driven by a simulated clock, with one Client that brings a State for each of its Tabs at
//! every flush.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use taba_agent::dispatcher::{Input, Request};
use taba_agent::{AcceptOutcome, ClockReading, Config, MemorySpool, Relay, RelayStart, Verified};
use taba_core::wire::{Block, ClientBatch, Content};
use taba_core::{ClientId, Events, Noise, Registry, SeqNo, TabName, TabType, Timestamp, ledger};

use super::{Options, time};

/// What a Client brings of one Tab at each flush.
#[derive(Clone, Debug)]
pub(super) struct TabState {
    pub(super) tab: TabName,
    pub(super) tab_type: TabType,
    pub(super) version: u16,
    pub(super) bytes: bytes::Bytes,
}

/// What an Agent has taken for one VBucket, in events since its start, and what of it is not known to be committed.
#[derive(Debug, Default)]
pub(super) struct Offered {
    events: u64,
    committed: u64,
    open: VecDeque<(u64, Duration)>,
}

impl Offered {
    fn offer(&mut self, now: Duration, events: u64) {
        self.events += events;
        self.open.push_back((self.events, now));
    }

    /// The Lane is contained up to so many events; calls back with each part, and when it was taken.
    pub(super) fn committed(&mut self, events: u64, mut part: impl FnMut(u64, Duration)) {
        while let Some((upto, at)) = self.open.front()
            && *upto <= events
        {
            part(upto - self.committed, *at);
            self.committed = *upto;
            self.open.pop_front();
        }
    }

    /// Since when something waits.
    pub(super) fn waits_since(&self) -> Option<Duration> {
        self.open.front().map(|(_, at)| *at)
    }
}

/// An Agent, and its Client.
pub(super) struct SimulatedAgent {
    pub(super) relay: Relay,
    pub(super) client: ClientId,
    tabs: Vec<TabState>,
    flushes: u64,
    pub(super) offered: BTreeMap<u16, Offered>,
    /// Notes of the Ledger: one for each flush.
    pub(super) notes: Offered,
    /// When it wants to be woken.
    pub(super) wakes_at: Option<Duration>,
    /// The Server processes that have answered.
    pub(super) processes: BTreeSet<u64>,
    /// Servers to which a connection is known to be gone.
    pub(super) lost: BTreeSet<usize>,
}

pub(super) const fn reading(now: Duration) -> ClockReading {
    ClockReading { uptime: now, time: time(now) }
}

impl SimulatedAgent {
    pub(super) fn new(
        number: usize,
        config: &Verified<Config>,
        handlers: &Registry,
        options: &Options,
        noise: &mut Noise,
    ) -> Self {
        let spool = MemorySpool::new(config.spool_bytes_max);
        let mut start = RelayStart::default();
        (start.now, start.seed) = (reading(Duration::ZERO), noise.number());
        start.handlers = handlers.clone();
        let relay = Relay::new(config.relay_options(), spool, start);
        let mut chosen = BTreeSet::new();
        while chosen.len() < options.tabs_per_agent.min(options.tabs) {
            chosen.insert(noise.number() as usize % options.tabs);
        }
        let tabs = chosen.into_iter().map(|tab| tab_state(tab, handlers, options)).collect();
        Self {
            relay,
            client: ClientId::new(&format!("host-{number:05}")).expect("name characters"),
            tabs,
            flushes: 0,
            offered: BTreeMap::new(),
            notes: Offered::default(),
            wakes_at: None,
            processes: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    /// Its Client flushes: a State of each Tab, and how many events were recorded.
    pub(super) fn flush(&mut self, now: Duration, config: &Verified<Config>, options: &Options) -> u64 {
        self.flushes += 1;
        let moment = time(now);
        let events = options.events_per_state;
        let state = |tab: &TabState| {
            let content = Content::State { version: tab.version, bytes: tab.bytes.clone() };
            let (name, client) = (tab.tab.clone(), self.client.clone());
            Block::new(name, client, tab.tab_type.clone(), events, moment..=moment, content)
        };
        let mut blocks: Vec<Block> = self.tabs.iter().map(state).collect();
        for block in &blocks {
            let vbucket = config.vbuckets().of(&block.tab).index();
            self.offered.entry(vbucket).or_default().offer(now, block.events);
        }
        let recorded = events * blocks.len() as u64;
        let note = ([moment], [recorded as f64]);
        let note = Events::new(&note.0, &note.1);
        let note =
            Block::of_events(ledger::tab(ledger::RECORDED), self.client.clone(), ledger::tab_type(), note);
        blocks.extend(note);
        self.notes.offer(now, 1);
        let client = self.client.clone();
        let batch = ClientBatch::new(client, 1, SeqNo(self.flushes), moment, blocks);
        match self.relay.accept(reading(now), &batch, &[]) {
            AcceptOutcome::Taken { .. } => recorded,
            other => panic!(
                "the Spool of an Agent is full, or it refuses: {other:?}; use fewer Tabs or shorter outages"
            ),
        }
    }

    /// All that it has taken.
    pub(super) fn all_offered(&self) -> impl Iterator<Item = &Offered> {
        self.offered.values().chain([&self.notes])
    }

    /// Gives the Agent an input; answers what it sends.
    pub(super) fn handle(&mut self, now: Duration, input: Input) -> Vec<Request> {
        let mut requests = Vec::new();
        self.relay.handle(reading(now), input, &mut requests);
        requests
    }

    /// How many events of each of its Tabs should be stored.
    pub(super) fn expected(&self, options: &Options) -> impl Iterator<Item = ((TabName, ClientId), u64)> {
        let events = self.flushes * options.events_per_state;
        let tabs = self.tabs.iter().map(move |tab| ((tab.tab.clone(), self.client.clone()), events));
        tabs.chain([((ledger::tab(ledger::RECORDED), self.client.clone()), self.flushes)])
    }
}

fn tab_state(number: usize, handlers: &Registry, options: &Options) -> TabState {
    let tab = TabName::new(&format!("requests;route=r{number:05}")).expect("a tab name");
    let tab_type = TabType::new(&options.tab_type).expect("it was looked up before");
    let handler = handlers.get(tab_type.as_str()).expect("it was looked up before");
    let mut state = handler.empty_state();
    let times =
        vec![Timestamp::from_micros(time(Duration::ZERO).as_micros() + 1); options.events_per_state as usize];
    let values: Vec<f64> = (0..times.len()).map(|n| (crate::noise(n + number) * 1_000.0).floor()).collect();
    handler.fold_values(&mut state, &times, &values).expect("a Tab type of numbers");
    TabState { tab, tab_type, version: handler.version(), bytes: handler.encode(&state).into() }
}
