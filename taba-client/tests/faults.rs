//! What goes wrong inside the background thread: a logger, a Sink or a value of the application that panics.
//!
//! Alone in its binary: the logger that panics is the one of the whole process.

#![expect(clippy::unwrap_used, reason = "what the tests share is a test too")]

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taba_client::{Client, Config, SealedBatch, Sink, SinkError, TabError};
use taba_core::ledger::Why;
use taba_core::wire::Receipt;
use taba_core::{Timestamp, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const SECOND: Duration = Duration::from_secs(1);

/// A logger that keeps its lines, and panics when one says the word that it has been told.
struct Logger;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

static PANICS_AT_LOUD: AtomicBool = AtomicBool::new(false);

/// The fields of a line.
#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl Subscriber for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let is_loud = fields.0.contains("loud");
        LINES.lock().unwrap().push(format!("{} {}", event.metadata().level(), fields.0));
        assert!(!is_loud || !PANICS_AT_LOUD.swap(false, Ordering::Relaxed), "a bug of the logger's");
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// A Sink that fails as told, each time once, and counts what it has taken.
#[derive(Clone, Default)]
struct Moody {
    panics: Arc<AtomicU64>,
    errors: Arc<AtomicU64>,
    taken: Arc<AtomicU64>,
}

#[async_trait]
impl Sink for Moody {
    async fn deliver(&self, batch: Arc<SealedBatch>) -> Result<Receipt, SinkError> {
        let one_less = |count: &AtomicU64| {
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok()
        };
        assert!(!one_less(&self.panics), "a bug of the sink's");
        if one_less(&self.errors) {
            return Err(SinkError::Unreachable("nobody is there".into()));
        }
        self.taken.fetch_add(batch.events(), Ordering::Relaxed);
        Ok(Receipt::new(batch.seq(), Timestamp::from_secs(0), Vec::new()))
    }
}

fn client(id: &str, sink: &Moody) -> Client {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Logger).unwrap());
    let mut config = Config::default();
    config.flush_interval = Duration::from_millis(5);
    config.backoff_min = Duration::from_millis(1);
    config.backoff_max = Duration::from_millis(5);
    Client::builder(id).sink(sink.clone()).config(config).build().unwrap()
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
fn a_logger_that_panics_costs_a_restart_and_no_event() {
    let sink = Moody::default();
    let client = client("loud", &sink);
    let hits = client.counter("hits").unwrap();
    PANICS_AT_LOUD.store(true, Ordering::Relaxed);
    sink.errors.store(3, Ordering::Relaxed);
    (0..100).for_each(|_| hits.increment());
    until("the task has panicked and is there again", || {
        client.stats().restarts == 1 && client.stats().acked == 100
    });
    (0..100).for_each(|_| hits.increment());
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    let stats = client.stats();
    assert_eq!((stats.acked, stats.dropped.total(), sink.taken.load(Ordering::Relaxed)), (200, 0, 200));
}

#[test]
fn what_is_unsent_when_a_client_is_dropped_is_logged_as_an_error_with_its_count() {
    let sink = Moody::default();
    sink.errors.store(u64::MAX, Ordering::Relaxed);
    let mut config = Config::default();
    config.drop_deadline = Duration::from_millis(20);
    drop(client("logger", &Moody::default()));
    let client = Client::builder("dropped").sink(sink).config(config).build().unwrap();
    (0..3).for_each(|_| client.counter("hits").unwrap().increment());
    drop(client);
    let is_it = |line: &String| {
        line.starts_with("ERROR")
            && ["left unsent", "client=dropped", "events=3 "].iter().all(|part| line.contains(part))
    };
    assert!(LINES.lock().unwrap().iter().any(is_it), "{:?}", LINES.lock().unwrap());
}

#[test]
fn a_sink_that_panics_is_tried_again() {
    let sink = Moody::default();
    sink.panics.store(2, Ordering::Relaxed);
    let client = client("quiet", &sink);
    (0..100).for_each(|_| client.counter("hits").unwrap().increment());
    until("the batch is taken", || client.stats().acked == 100);
    let stats = client.stats();
    assert_eq!((stats.failures, stats.restarts, stats.dropped.total()), (2, 0, 0));
    assert!(stats.last_error.unwrap().contains("a bug of the sink's"));
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
}

/// A value that panics when the background thread drops it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Bomb;

fn in_the_background() -> bool {
    std::thread::current().name() == Some("taba-client")
}

impl Value for Bomb {
    fn is_valid(&self) -> bool {
        !in_the_background()
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!in_the_background(), "a bomb");
    }
}

#[test]
fn a_panic_while_events_are_taken_costs_those_that_waited_and_is_counted() {
    let sink = Moody::default();
    let client = client("quiet", &sink);
    let (bombs, hits) = (client.tab::<Bomb>("bombs", "Bombs").unwrap(), client.counter("hits").unwrap());
    bombs.record(Bomb);
    until("the task is there again", || client.stats().restarts == 1);
    (0..100).for_each(|_| hits.increment());
    assert_eq!(client.shutdown(10 * SECOND).left, 0);
    let stats = client.stats();
    assert_eq!((stats.recorded, stats.acked, stats.dropped.get(Why::Damaged)), (101, 100, 1));
}

#[test]
fn a_task_that_panics_again_and_again_says_that_it_is_gone() {
    let sink = Moody::default();
    sink.errors.store(u64::MAX, Ordering::Relaxed);
    let client = client("quiet", &sink);
    let bombs = client.tab::<Bomb>("bombs", "Bombs").unwrap();
    let mut error = None;
    until("the client says so where a handle is made", || {
        bombs.record(Bomb);
        error = client.counter("hits").err();
        error.is_some()
    });
    assert!(matches!(&error, Some(TabError::ClientGone { .. })), "{error:?}");
    assert!(client.stats().last_error.unwrap().contains("a bomb"));
    until("its task has ended", || {
        bombs.record(Bomb);
        client.stats().dropped.get(Why::Shutdown) > 0
    });
    let stats = client.stats();
    assert_eq!(stats.restarts, 10);
    assert_eq!(stats.recorded, stats.sealed + stats.pending + stats.dropped.total(), "{stats:?}");
    assert_eq!(client.flush(SECOND).left, stats.sealed + stats.pending);
}
