//! Threads, Clients and values of all kinds, with a sink that keeps what it is given.

#![expect(clippy::unwrap_used, reason = "what the tests share is a test too")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taba_client::{Client, Config, Counter, ManualClock, SealedBatch, Sink, SinkError, TabError};
use taba_core::ledger::{self, Where, Why};
use taba_core::wire::{Block, ClientBatch, Content, Receipt};
use taba_core::{Arrival, Event, Format, Handler, NameError, Reading, Registry, Timestamp, Value};

const SECOND: Duration = Duration::from_secs(1);

/// Keeps every Batch.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<Arc<SealedBatch>>>>);

#[async_trait]
impl Sink for Memory {
    async fn deliver(&self, batch: Arc<SealedBatch>) -> Result<Receipt, SinkError> {
        let receipt = Receipt::new(batch.seq(), Timestamp::from_secs(0), Vec::new());
        self.0.lock().unwrap().push(batch);
        Ok(receipt)
    }
}

impl Memory {
    fn batches(&self) -> Vec<ClientBatch> {
        self.0.lock().unwrap().iter().map(|sealed| sealed.batch().clone()).collect()
    }

    /// Events by Tab; for Tabs of the Ledger, the blocks.
    fn events(&self) -> BTreeMap<String, u64> {
        let mut events = BTreeMap::new();
        for block in self.batches().into_iter().flat_map(|batch| batch.blocks) {
            *events.entry(block.tab.to_string()).or_default() += block.events;
        }
        events
    }
}

/// The sum of all that a `TotalsCounter` has in these Batches.
fn total(memory: &Memory, tab: &str) -> f64 {
    let handlers = taba_handlers::standard().build().unwrap();
    let handler = handlers.get("TotalsCounter").unwrap();
    let mut state = handler.empty_state();
    for block in memory.batches().iter().flat_map(|batch| &batch.blocks).filter(|b| b.tab.as_str() == tab) {
        match &block.content {
            Content::Events(columns) => {
                handler.fold_columns(&mut state, columns, block.events as usize, Arrival::ANY).unwrap();
            }
            Content::State { version, bytes } => {
                handler.merge(&mut state, &handler.decode(*version, bytes).unwrap());
            }
            Content::Withheld { .. } => panic!("nothing is withheld"),
        }
    }
    let projection = handler.project(&state, Timestamp::MAX);
    handler.render(&projection, Format::Summary)["total"].as_f64().unwrap()
}

fn client(config: Config) -> (Client, Memory) {
    let memory = Memory::default();
    let client = Client::builder("web-01").sink(memory.clone()).config(config).build().unwrap();
    (client, memory)
}

/// Polls for what another thread will do.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let soon = (0..2000).any(|_| {
        std::thread::park_timeout(Duration::from_millis(5));
        done()
    });
    assert!(soon, "{what}: not within ten seconds");
}

#[test]
fn threads_that_end_leave_nothing_behind() {
    let (client, memory) = client(Config::default());
    let bids = client.counter("bids").unwrap();
    let threads: Vec<_> = (0..16)
        .map(|_| bids.clone())
        .map(|bids| std::thread::spawn(move || (0..1000).for_each(|n| bids.add(f64::from(n)))))
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    until("their rings are freed", || client.stats().rings == 0 && client.stats().recorded == 16_000);
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    assert_eq!(memory.events()["bids"], 16_000);
    assert_eq!(client.stats().dropped.total(), 0);
}

#[test]
fn no_number_is_dropped_because_a_thread_is_fast() {
    // Rings for a hundred events, and a flush interval that never ends: what does not fit, the threads take out themselves.
    for handlers in [taba_handlers::standard().build().unwrap(), Registry::default()] {
        let mut config = Config::default();
        (config.ring_events_min, config.ring_events_max) = (16, 64);
        config.flush_interval = 3000 * SECOND;
        let memory = Memory::default();
        let client = Client::builder("web-01").sink(memory.clone()).handlers(handlers).config(config);
        let client = client.build().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let own = client.counter(format!("own;thread={thread}").as_str()).unwrap();
                let (shared, names) = (client.totals("shared").unwrap(), client.distinct("names").unwrap());
                scope.spawn(move || {
                    for n in 0..10_000 {
                        own.increment();
                        shared.add(n);
                        if n % 100 == 0 {
                            names.observe(format!("{thread}.{n}"));
                        }
                    }
                });
            }
        });
        assert_eq!(client.shutdown(10 * SECOND).left, 0);
        let (stats, events) = (client.stats(), memory.events());
        assert_eq!((stats.recorded, stats.dropped.total()), (80_400, 0), "{stats:?}");
        assert_eq!((events["shared"], events["names"]), (40_000, 400));
        assert!((0..4).all(|thread| events[&format!("own;thread={thread}")] == 10_000));
        assert_eq!(total(&memory, "shared"), 4.0 * f64::from((0..10_000).sum::<i32>()));
    }
}

#[test]
fn rings_stay_below_their_bound() {
    let mut config = Config::default();
    config.ring_events_min = 16;
    config.rings_bytes_max = 16 * 24;
    let (client, _memory) = client(config);
    let bids = client.counter("bids").unwrap();
    bids.increment();
    let other = bids.clone();
    std::thread::spawn(move || other.increment()).join().unwrap();
    until("both are seen", || client.stats().recorded == 2);
    assert_eq!(client.stats().dropped.get(Why::Full), 1, "there was no second ring");
}

#[test]
fn hundreds_of_clients_share_the_threads() {
    let memory = Memory::default();
    let clients: Vec<Client> =
        (0..229).map(|n| Client::builder(format!("c{n}")).sink(memory.clone()).build().unwrap()).collect();
    for (n, client) in clients.iter().enumerate() {
        let flights = client.counter("flights").unwrap();
        (0..n).for_each(|_| flights.increment());
    }
    for client in &clients {
        assert_eq!(client.shutdown(10 * SECOND).left, 0);
    }
    let mut by_client = BTreeMap::new();
    for block in memory.batches().into_iter().flat_map(|batch| batch.blocks).filter(|b| !b.tab.is_reserved())
    {
        *by_client.entry(block.client.to_string()).or_insert(0) += block.events;
    }
    assert!((1..229).all(|n| by_client[&format!("c{n}")] == n));
    drop(clients);
    // Places are used again by Clients that come later, in threads that know the old ones.
    let (client, memory) = self::client(Config::default());
    client.counter("later").unwrap().increment();
    assert_eq!(client.shutdown(10 * SECOND).flushed, 1);
    assert_eq!(memory.events()["later"], 1);
}

#[test]
fn what_is_recorded_after_the_end_is_counted() {
    let (client, memory) = client(Config::default());
    let bids = client.counter("bids").unwrap();
    bids.increment();
    assert_eq!(client.shutdown(10 * SECOND).flushed, 1);
    bids.increment();
    assert_eq!((client.stats().recorded, client.stats().dropped.get(Why::Shutdown)), (2, 1));
    assert_eq!(client.shutdown(10 * SECOND), Default::default());
    assert_eq!(memory.events()["bids"], 1);
}

#[test]
fn what_is_recorded_in_the_moment_of_the_end_is_counted() {
    for _ in 0..50 {
        let (client, memory) = client(Config::default());
        let recorded = std::thread::scope(|scope| {
            let threads = [(); 2].map(|()| {
                let (bids, client) = (client.counter("bids").unwrap(), &client);
                scope.spawn(move || {
                    let mut recorded = 0;
                    while client.stats().dropped.get(Why::Shutdown) == 0 {
                        (0..10).for_each(|_| bids.increment());
                        recorded += 10;
                    }
                    recorded
                })
            });
            assert_eq!(client.shutdown(10 * SECOND).left, 0);
            threads.map(|thread| thread.join().unwrap()).iter().sum::<u64>()
        });
        let stats = client.stats();
        assert_eq!(stats.recorded, recorded, "{stats:?}");
        assert_eq!(stats.acked + stats.dropped.total(), recorded, "{stats:?}");
        assert_eq!(memory.events().get("bids").copied().unwrap_or(0), stats.acked);
    }
}

#[test]
fn bad_numbers_are_dropped_and_told() {
    let (client, memory) = client(Config::default());
    let bids = client.counter("bids").unwrap();
    [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0].into_iter().for_each(|v| bids.add(v));
    client.gauge("load").unwrap().set(f64::NAN);
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    assert_eq!(client.stats().dropped.get(Why::BadValue), 4);
    let events = memory.events();
    assert_eq!(events["bids"], 1);
    assert_eq!(events[ledger::dropped_tab(Where::Client, Why::BadValue).as_str()], 1);
    assert!(!events.contains_key("load"));
}

#[test]
fn bad_names_are_errors() {
    let (client, _) = client(Config::default());
    assert!(matches!(client.counter("bids won"), Err(TabError::Name(NameError::Character { at: 4, .. }))));
    assert!(matches!(client.counter(""), Err(TabError::Name(NameError::Empty { .. }))));
    assert!(matches!(client.tab::<f64>("a", "b/c"), Err(TabError::Name(_))));
    assert!(matches!(client.counter("taba.recorded"), Err(TabError::Reserved { .. })));
    client.counter("delay;to=MEM;from=ATL").unwrap();
    client.counter("delay;from=ATL;to=MEM").unwrap();
    assert!(matches!(client.gauge("delay;to=MEM;from=ATL"), Err(TabError::TypeConflict { .. })));
    client.tab::<f64>("mine", "Mine").unwrap();
    assert!(matches!(
        client.tab::<String>("mine", "Mine"),
        Err(TabError::ValueConflict { source: None, .. })
    ));
    assert!(Client::builder("web 01").build().is_err());
    assert!(Client::builder("web-01").agent("ftp://x").build().is_err());
}

#[test]
fn one_tab_too_many_is_an_error_until_one_is_no_longer_used() {
    let mut config = Config::default();
    config.tabs_max = 2;
    config.flush_interval = Duration::from_millis(5);
    let (client, memory) = client(config);
    let [a, b] = ["a", "b"].map(|name| client.counter(name).unwrap());
    let error = client.counter("c").unwrap_err();
    assert!(
        matches!(error, TabError::TooManyTabs { tabs_max: 2, .. }) && error.to_string().contains("tabs_max")
    );
    [&a, &b, &client.counter("a").unwrap()].into_iter().for_each(Counter::increment);
    drop(a);
    let mut c = None;
    until("the tab that nobody uses is forgotten", || {
        c = client.counter("c").ok();
        c.is_some()
    });
    c.unwrap().increment();
    b.increment();
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    let events = memory.events();
    assert_eq!(["a", "b", "c"].map(|tab| events[tab]), [2, 2, 1]);
    assert_eq!(client.stats().dropped.total(), 0);
}

#[test]
fn names_that_always_change_are_forgotten_and_never_mixed_up() {
    let mut config = Config::default();
    config.tabs_max = 64;
    config.flush_interval = Duration::from_millis(1);
    let (client, memory) = client(config);
    let record = |thread: u64| {
        for n in 0..1000_u64 {
            // Half of the names come again, so that numbers are taken up while they are being given up.
            let name = format!("request;n={};thread={thread}", n % 2 * n);
            let mut counter = client.counter(&name).ok();
            if counter.is_none() {
                until("there is room", || {
                    counter = client.counter(&name).ok();
                    counter.is_some()
                });
            }
            (0..n % 3 + 1).for_each(|_| counter.as_ref().unwrap().add(1.0));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| record(0));
        scope.spawn(|| record(1));
    });
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    let (events, stats) = (memory.events(), client.stats());
    assert_eq!(stats.dropped.total(), 0, "{stats:?}");
    for thread in 0..2 {
        let mut expected = BTreeMap::<u64, u64>::new();
        (0..1000).for_each(|n| *expected.entry(n % 2 * n).or_default() += n % 3 + 1);
        for (n, times) in expected {
            assert_eq!(events[&format!("request;n={n};thread={thread}")], times, "n {n}");
        }
    }
    assert!(stats.tabs <= 64, "{stats:?}");
}

#[test]
fn threads_that_come_and_go_lose_nothing() {
    // Of 10,000 threads of 10 events, 45 % were lost when each had a ring of its own until the next flush. Here the bound
    // is room for all events, and for a fifteenth of the threads; and all may wait unfolded on a slow machine.
    let mut config = Config::default();
    config.rings_bytes_max = 4 << 20;
    config.flush_interval = SECOND / 20;
    config.tab_events_max = 100_000;
    let (client, memory) = client(config);
    let hits = client.counter("hits").unwrap();
    for _ in 0..2500 {
        std::thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(|| (0..10).for_each(|_| hits.increment()))));
        });
    }
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    assert_eq!((memory.events()["hits"], client.stats().dropped.total()), (100_000, 0));
}

#[test]
fn threads_that_were_busy_once_hold_one_small_ring_each() {
    let mut config = Config::default();
    config.flush_interval = Duration::from_millis(5);
    config.rings_bytes_max = 2 << 20;
    config.ring_events_max = 20_000;
    let (client, _memory) = client(config);
    let (go, wait) = (Arc::new(std::sync::Barrier::new(9)), Arc::new(std::sync::Barrier::new(9)));
    let threads: Vec<_> = (0..8)
        .map(|_| (client.counter("hits").unwrap(), Arc::clone(&go), Arc::clone(&wait)))
        .map(|(hits, go, wait)| {
            std::thread::spawn(move || {
                // More than a few rings at once; some may find no room, for all do it at the same time.
                (0..5000).for_each(|_| hits.increment());
                wait.wait();
                go.wait();
                hits.increment();
            })
        })
        .collect();
    wait.wait();
    until("the rings that they had filled are freed", || client.stats().rings <= 8);
    let before = client.stats();
    go.wait();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    assert_eq!(client.stats().recorded, 8 * 5001);
    assert_eq!(client.stats().dropped.total(), before.dropped.total(), "each still had a ring");
}

#[test]
fn every_kind_of_tab_has_its_type_and_the_clocks_time() {
    let hands = ManualClock::new(Timestamp::from_secs(1000));
    let memory = Memory::default();
    let client = Client::builder("web-01").sink(memory.clone()).clock(hands.clock()).build().unwrap();
    client.counter("counter").unwrap().increment();
    client.totals("totals").unwrap().add(2.0);
    client.percentile("percentile").unwrap().record(12.5);
    client.percentile_totals("percentile_totals").unwrap().record(12.5);
    client.timer("timer").unwrap().start().discard();
    client.timer("timer").unwrap().record(SECOND);
    client.gauge("gauge").unwrap().set("v1.2");
    client.gauge("gauge").unwrap().set(3.5);
    client.expiry_gauge("expiry").unwrap().set_for("up", SECOND);
    client.buffer("errors").unwrap().push("boom", SECOND);
    client.keyed("keyed").unwrap().add("ATL", 1.0);
    client.distinct("distinct").unwrap().observe("somebody");
    client.tab::<Reading>("custom", "Mine").unwrap().record(Reading::Number(1.0));
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    let blocks: Vec<_> =
        memory.batches().into_iter().flat_map(|b| b.blocks).filter(|b| !b.tab.is_reserved()).collect();
    // What has an order among itself is a microsecond apart.
    let order = |block: &Block| block.earliest.since(Timestamp::from_secs(1000)).as_micros();
    assert!(blocks.iter().all(|block| block.earliest >= Timestamp::from_secs(1000) && order(block) < 4));
    assert!(blocks.iter().all(|block| order(block) == 0 || block.tab.as_str() != "counter"));
    let types: BTreeMap<_, _> =
        blocks.iter().map(|b| (b.tab.as_str(), (b.tab_type.as_str(), b.events))).collect();
    let expected = [
        ("counter", ("CounterGroup", 1)),
        ("totals", ("TotalsCounter", 1)),
        ("percentile", ("PercentileGroup", 1)),
        ("percentile_totals", ("PercentileCounter", 1)),
        ("timer", ("PercentileGroup", 1)),
        ("gauge", ("Gauge", 2)),
        ("expiry", ("ExpiryGauge", 1)),
        ("errors", ("Buffer", 1)),
        ("keyed", ("CommonPrefixCounterGroup", 1)),
        ("distinct", ("Distinct", 1)),
        ("custom", ("Mine", 1)),
    ];
    assert_eq!(types, BTreeMap::from(expected));
}

#[test]
fn values_that_are_no_numbers_stay_below_their_bound() {
    let mut config = Config::default();
    config.opaque_bytes_max = 4000;
    config.flush_interval = 3000 * SECOND;
    let (client, memory) = client(config);
    let names = client.distinct("names").unwrap();
    (0..100).for_each(|_| names.observe("x".repeat(400)));
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    let stats = client.stats();
    assert_eq!(stats.recorded, 100);
    assert!((91..=95).contains(&stats.dropped.get(Why::Full)), "{stats:?}");
    assert_eq!(memory.events()["names"], stats.acked);
}

/// Records when its thread ends.
struct AtExit(Option<Counter>);

impl Drop for AtExit {
    fn drop(&mut self) {
        if let Some(counter) = &self.0 {
            counter.increment();
        }
    }
}

thread_local! {
    static AT_EXIT: std::cell::RefCell<AtExit> = const { std::cell::RefCell::new(AtExit(None)) };
}

#[test]
fn recording_while_a_thread_ends_does_not_panic_and_is_counted() {
    let (client, _) = client(Config::default());
    for record_first in [false, true] {
        let counter = client.counter("exits").unwrap();
        let thread = std::thread::spawn(move || {
            if record_first {
                counter.increment();
            }
            AT_EXIT.with_borrow_mut(|exit| exit.0 = Some(counter.clone()));
            if !record_first {
                counter.increment();
            }
        });
        thread.join().unwrap();
    }
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    assert_eq!(client.stats().recorded, 4);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Chatty;

impl Value for Chatty {}

/// A Handler with a bug.
struct Bug;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Nothing {}

impl Handler for Bug {
    type Value = f64;
    type State = Nothing;
    type Projection = Nothing;
    const VERSION: u16 = 1;

    fn fold(&self, _: &mut Nothing, _: Event<&f64>) {
        panic!("a bug of the application's");
    }
    fn merge(&self, _: &mut Nothing, _: &Nothing) {}
    fn project(&self, _: &Nothing, _: Timestamp) -> Nothing {
        Nothing {}
    }
    fn aggregate(&self, _: &mut Nothing, _: &Nothing) {}
    fn encoded_bytes_max(&self) -> usize {
        0
    }
}

#[test]
fn a_handler_that_panics_and_a_value_without_an_encoding_cost_no_other_tab_anything() {
    let handlers = Registry::builder().with("Bug", Bug).build().unwrap();
    let memory = Memory::default();
    let client = Client::builder("web-01").sink(memory.clone()).handlers(handlers).build().unwrap();
    let (bug, flat) = (client.tab::<f64>("bug", "Bug").unwrap(), client.tab::<Flat>("flat", "Flat").unwrap());
    let sound = client.counter("sound").unwrap();
    assert!(client.tab::<Chatty>("other", "Bug").is_err(), "the handler folds other values");
    for _ in 0..300 {
        bug.record(1.0);
        flat.record(Flat { rest: BTreeMap::new() });
        sound.increment();
    }
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    let (stats, events) = (client.stats(), memory.events());
    assert_eq!((events["sound"], events["bug"]), (300, 300), "the bug's events travel as they were recorded");
    assert_eq!((stats.dropped.get(Why::BadValue), stats.dropped.total()), (300, 300));
    assert!(stats.last_error.is_some_and(|error| error.contains("bug") || error.contains("flat")));
}

/// A value of a shape that postcard does not write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

impl Value for Flat {}
