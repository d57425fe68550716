//! What is compared: each [`Subject`] starts a [`Recording`].

use std::cell::RefCell;
use std::hint::black_box;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use cadence::{BufferedUdpMetricSink, Counted, Gauged, MetricSink, QueuingMetricSink, StatsdClient};
use metrics::{Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::registry::{AtomicStorage, Registry};
use taba_bench::pause;
use taba_client::{Client, SealedBatch, Sink, SinkError};
use taba_core::Timestamp;
use taba_core::wire::Receipt;

/// One row.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) start: fn() -> Box<dyn Recording>,
}

/// What is being recorded with.
pub(crate) trait Recording: Sync {
    /// Records so many times.
    fn call(&self, times: u64);

    /// Waits until all of it has arrived.
    fn settle(&self) {}

    /// How many are lost of those that were recorded.
    fn lost(&self, _recorded: u64) -> u64 {
        0
    }
}

pub(crate) const SUBJECTS: [Subject; 11] = [
    Subject { name: "push to a thread's own vector", start: || Box::new(Ground(push)) },
    Subject { name: "add to one atomic", start: || Box::new(Ground(add)) },
    Subject { name: "taba, held counter", start: || taba(|client| client.counter("hits").map(counter)) },
    Subject { name: "taba, client.counter(name)", start: || taba(|client| Ok(named(client, None))) },
    Subject {
        name: "the same, held elsewhere too",
        start: || taba(|client| client.counter("hits").map(|held| named(client, Some(held)))),
    },
    Subject { name: "taba, held gauge", start: || taba(|client| client.gauge("depth").map(gauge)) },
    Subject { name: "metrics, held counter", start: held_metrics_counter },
    Subject {
        name: "metrics, counter!(name)",
        start: || metrics(|_| metrics::counter!("hits").increment(1)),
    },
    Subject { name: "metrics, held gauge", start: held_metrics_gauge },
    Subject { name: "cadence, counter", start: || statsd(|client, _| client.count("hits", 1).is_ok()) },
    Subject { name: "cadence, gauge", start: || statsd(|client, n| client.gauge("depth", n as f64).is_ok()) },
];

/// The ground to stand on.
struct Ground(fn(u64));

fn push(n: u64) {
    thread_local! {
        static OWN: RefCell<Vec<(u64, f64)>> = const { RefCell::new(Vec::new()) };
    }
    OWN.with_borrow_mut(|own| {
        if own.len() == 4_096 {
            own.clear();
        }
        own.push(black_box((n, n as f64)));
    });
}

fn add(n: u64) {
    static SHARED: AtomicU64 = AtomicU64::new(0);
    SHARED.fetch_add(black_box(n), Ordering::Relaxed);
}

impl Recording for Ground {
    fn call(&self, times: u64) {
        (0..times).for_each(self.0);
    }
}

/// Takes everything and does nothing with it: the Agent's cost is not what is measured.
struct Nowhere;

#[async_trait]
impl Sink for Nowhere {
    async fn deliver(&self, batch: Arc<SealedBatch>) -> Result<Receipt, SinkError> {
        Ok(Receipt::new(batch.seq(), Timestamp::default(), Vec::new()))
    }
}

struct Taba {
    client: Client,
    record: Record,
}

/// Records so many times.
type Record = Box<dyn Fn(u64) + Sync>;

fn counter(counter: taba_client::Counter) -> Record {
    Box::new(move |times| (0..times).for_each(|n| counter.add(black_box(n as f64))))
}

fn gauge(gauge: taba_client::Gauge) -> Record {
    Box::new(move |times| (0..times).for_each(|n| gauge.set(black_box(n as f64))))
}

fn named(client: &Client, held: Option<taba_client::Counter>) -> Record {
    let client = client.clone();
    Box::new(move |times| {
        let _held = &held;
        (0..times).for_each(|n| client.counter("hits").expect("a tab name").add(black_box(n as f64)));
    })
}

/// With the settings that a Client has by itself, and with Handlers.
fn taba(record: fn(&Client) -> Result<Record, taba_client::TabError>) -> Box<dyn Recording> {
    let handlers = taba_handlers::standard().build().expect("the standard types have different names");
    let client = Client::builder("bench").sink(Nowhere).handlers(handlers).build();
    let client = client.expect("the configuration is in its bounds");
    let record = record(&client).expect("a tab name");
    Box::new(Taba { client, record })
}

impl Recording for Taba {
    fn call(&self, times: u64) {
        (self.record)(times);
    }

    fn settle(&self) {
        let _ = self.client.flush(Duration::from_secs(30));
    }

    fn lost(&self, recorded: u64) -> u64 {
        let stats = self.client.stats();
        assert_eq!((stats.recorded, stats.acked + stats.dropped.total()), (recorded, recorded), "{stats:?}");
        stats.dropped.total()
    }
}

/// A recorder as exporters have it: the registry of `metrics-util`, in which each metric is one atomic.
#[derive(Clone)]
struct Registered(Arc<Registry<Key, AtomicStorage>>);

impl Recorder for Registered {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> metrics::Counter {
        self.0.get_or_create_counter(key, |counter| counter.clone().into())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> metrics::Gauge {
        self.0.get_or_create_gauge(key, |gauge| gauge.clone().into())
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        self.0.get_or_create_histogram(key, |histogram| histogram.clone().into())
    }
}

struct Metrics<F> {
    registered: Registered,
    record: F,
}

/// The recorder is of the whole process, so this can be done once.
fn installed() -> Registered {
    let registered = Registered(Arc::new(Registry::atomic()));
    metrics::set_global_recorder(registered.clone()).expect("it is the only one");
    registered
}

fn metrics(record: fn(u64)) -> Box<dyn Recording> {
    let registered = installed();
    Box::new(Metrics { registered, record })
}

fn held_metrics_counter() -> Box<dyn Recording> {
    let (registered, counter) = (installed(), metrics::counter!("hits"));
    Box::new(Metrics { registered, record: move |_| counter.increment(black_box(1)) })
}

fn held_metrics_gauge() -> Box<dyn Recording> {
    let (registered, gauge) = (installed(), metrics::gauge!("depth"));
    Box::new(Metrics { registered, record: move |n| gauge.set(black_box(n as f64)) })
}

impl<F: Fn(u64) + Sync> Recording for Metrics<F> {
    fn call(&self, times: u64) {
        (0..times).for_each(&self.record);
    }

    fn lost(&self, recorded: u64) -> u64 {
        let mut counted = None;
        self.registered.0.visit_counters(|_, counter| counted = Some(counter.load(Ordering::Relaxed)));
        // A gauge only has the last.
        counted.map_or(0, |counted| recorded - counted)
    }
}

/// As its documentation advises for speed: a queue, a thread, a buffer of 512 bytes, UDP. A thread of this process counts the lines that
/// arrive, and is in what the whole process takes.
struct Statsd {
    client: StatsdClient,
    queue: QueuingMetricSink,
    record: fn(&StatsdClient, u64) -> bool,
    arrived: Arc<AtomicU64>,
}

fn statsd(record: fn(&StatsdClient, u64) -> bool) -> Box<dyn Recording> {
    let socket = || UdpSocket::bind("127.0.0.1:0").expect("there are free ports");
    let (from, to, arrived) = (socket(), socket(), Arc::new(AtomicU64::new(0)));
    let address = to.local_addr().expect("a bound socket has an address");
    let sink = BufferedUdpMetricSink::from(address, from).expect("an address");
    let queue = QueuingMetricSink::with_capacity(sink, 512 * 1024);
    let client = StatsdClient::from_sink("bench", queue.clone());
    let counting = arrived.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(bytes) = to.recv(&mut buffer) {
            let lines = buffer[..bytes].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            counting.fetch_add(lines.count() as u64, Ordering::Relaxed);
        }
    });
    Box::new(Statsd { client, queue, record, arrived })
}

impl Recording for Statsd {
    fn call(&self, times: u64) {
        for n in 0..times {
            black_box((self.record)(&self.client, n));
        }
    }

    fn settle(&self) {
        while self.queue.queued() > 0 {
            pause(Duration::from_millis(1));
        }
        self.queue.flush().expect("the socket is open");
        // What the kernel has is with the reader soon.
        pause(Duration::from_millis(100));
    }

    fn lost(&self, recorded: u64) -> u64 {
        recorded - self.arrived.load(Ordering::Relaxed)
    }
}
