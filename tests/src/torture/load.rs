//! [`Load`]: Clients that record from several threads, and know what they recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use taba_client::{Client, ClientStats, Config, Counter, Gauge, Percentile};
use taba_core::Timestamp;

use super::expected::{Expected, halves};
use super::plan::Plan;
use crate::dice::Dice;

/// Tabs of each kind that every thread records into.
const TABS: usize = 24;
/// Events of one burst of one thread.
const BURST: u64 = 400;
/// A Client that has drained so many events less than were recorded is waited for.
const AHEAD_MAX: u64 = 20 * BURST;
/// Threads of each Client.
const THREADS: usize = 2;
/// Between two bursts of one thread.
const PAUSE: Duration = Duration::from_millis(8);
/// The first time of a gauge's event. Long ago, so that no clock of any process finds it in the future.
const GAUGE_START: Timestamp = Timestamp::from_secs(GAUGES_AT_SECS - 3600);
/// When gauges are looked at, in seconds since the Unix epoch: after all their events, and while they live.
pub(super) const GAUGES_AT_SECS: i64 = 1_000_000_000;

/// Clients that record until they are told to end.
#[derive(Debug)]
pub struct Load {
    clients: Vec<Client>,
    threads: Vec<JoinHandle<Expected>>,
    control: Arc<Control>,
}

#[derive(Debug, Default)]
struct Control {
    is_over: AtomicBool,
    is_paused: AtomicBool,
    recorded: AtomicU64,
}

impl Load {
    /// One Client for each address of an Agent; each begins to record.
    ///
    /// # Panics
    /// When a Client cannot be made.
    pub fn start(agents: &[String], plan: &Plan) -> Self {
        let id = |n| format!("app-{}", if plan.has_one_client { 0 } else { n });
        let clients: Vec<_> = agents.iter().enumerate().map(|(n, agent)| client(&id(n), agent)).collect();
        let control = Arc::<Control>::default();
        let mut threads = Vec::new();
        for (n, client) in clients.iter().enumerate() {
            let recorded = Arc::<AtomicU64>::default();
            for thread in 0..THREADS {
                let recorder = Recorder {
                    client: client.clone(),
                    recorded: Arc::clone(&recorded),
                    control: Arc::clone(&control),
                };
                let dice = Dice::of(plan.seed, (n * THREADS + thread) as u64);
                threads.push(thread::spawn(move || recorder.record(thread, dice)));
            }
        }
        Self { clients, threads, control }
    }

    /// Events recorded so far.
    pub fn recorded(&self) -> u64 {
        self.control.recorded.load(Ordering::Relaxed)
    }

    /// Where each Client stands.
    pub fn stats(&self) -> Vec<ClientStats> {
        self.clients.iter().map(Client::stats).collect()
    }

    /// Records nothing until [`Load::go_on`].
    pub fn pause(&self) {
        self.control.is_paused.store(true, Ordering::Relaxed);
    }

    /// Records again.
    pub fn go_on(&self) {
        self.control.is_paused.store(false, Ordering::Relaxed);
    }

    /// Records no more, and returns what was recorded in all; the Clients go on to send what they hold.
    ///
    /// # Panics
    /// When a thread did.
    pub fn end(&mut self) -> Expected {
        self.control.is_over.store(true, Ordering::Relaxed);
        let mut expected = Expected::default();
        for thread in self.threads.drain(..) {
            expected.join(thread.join().expect("no thread that records panics"));
        }
        expected
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.control.is_over.store(true, Ordering::Relaxed);
    }
}

fn client(id: &str, agent: &str) -> Client {
    let mut config = Config::default();
    config.flush_interval = Duration::from_millis(25);
    config.request_timeout = Duration::from_secs(2);
    config.backoff_min = Duration::from_millis(5);
    config.backoff_max = Duration::from_millis(100);
    config.drop_deadline = Duration::ZERO;
    let handlers = taba_handlers::standard().build().expect("the standard types fit together");
    let client = Client::builder(id).agent(agent).handlers(handlers).config(config).build();
    client.expect("an id and an address are all it takes")
}

/// What one thread records into.
struct Tabs {
    totals: Vec<(String, Counter)>,
    counters: Vec<(String, Counter)>,
    percentiles: Vec<(String, Percentile)>,
    gauge: (String, Gauge),
}

impl Tabs {
    fn of(client: &Client, thread: usize) -> Self {
        let named = |kind: &str| -> Vec<_> { (0..TABS).map(|n| format!("{kind}-{n}")).collect() };
        let gauge = format!("gauge;of={};thread={thread}", client.id());
        let fits = "the name fits, and is of no other type";
        let totals = named("total").into_iter().map(|name| (name.clone(), client.totals(&name).expect(fits)));
        let counters =
            named("count").into_iter().map(|name| (name.clone(), client.counter(&name).expect(fits)));
        let percentiles = named("percent")
            .into_iter()
            .map(|name| (name.clone(), client.percentile_totals(&name).expect(fits)));
        Self {
            totals: totals.collect(),
            counters: counters.collect(),
            percentiles: percentiles.collect(),
            gauge: (gauge.clone(), client.gauge(&gauge).expect(fits)),
        }
    }
}

/// One thread that records.
struct Recorder {
    client: Client,
    /// Events of all threads of this Client.
    recorded: Arc<AtomicU64>,
    control: Arc<Control>,
}

impl Recorder {
    /// Records bursts of events until it is told to end.
    fn record(&self, thread: usize, mut dice: Dice) -> Expected {
        let tabs = Tabs::of(&self.client, thread);
        let mut expected = Expected::default();
        let mut bursts = 0;
        while !self.control.is_over.load(Ordering::Relaxed) {
            if !self.control.is_paused.load(Ordering::Relaxed) && !self.is_ahead() {
                bursts += 1;
                burst(&tabs, &mut dice, &mut expected);
                let time = GAUGE_START.saturating_add(Duration::from_micros(bursts));
                tabs.gauge.1.set_at(time, bursts as f64);
                expected.gauges.insert(tabs.gauge.0.clone(), bursts);
                self.recorded.fetch_add(BURST + 1, Ordering::Relaxed);
                self.control.recorded.fetch_add(BURST + 1, Ordering::Relaxed);
            }
            wait(PAUSE);
        }
        expected.clients.insert(self.client.id().as_str().to_owned(), bursts * (BURST + 1));
        expected
    }

    /// Whether the Client's own thread is slow to drain; a full ring is not what is tested here.
    fn is_ahead(&self) -> bool {
        self.recorded.load(Ordering::Relaxed) > self.client.stats().recorded + AHEAD_MAX
    }
}

fn burst(tabs: &Tabs, dice: &mut Dice, expected: &mut Expected) {
    for n in 0..BURST {
        let (which, in_halves) = (dice.below(TABS as u64) as usize, dice.below(200) + 1);
        let value = halves(in_halves);
        let (sums, tab) = match n % 4 {
            0 | 1 => {
                tabs.totals[which].1.add(value);
                (&mut expected.totals, &tabs.totals[which].0)
            }
            2 => {
                tabs.counters[which].1.add(value);
                (&mut expected.counters, &tabs.counters[which].0)
            }
            _ => {
                tabs.percentiles[which].1.record(value);
                (&mut expected.percentiles, &tabs.percentiles[which].0)
            }
        };
        sums.entry(tab.clone()).or_default().add(in_halves);
    }
}

#[expect(clippy::disallowed_methods, reason = "a pace of recording; nothing depends on it")]
fn wait(time: Duration) {
    thread::sleep(time);
}
