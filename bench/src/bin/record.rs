//! What recording an event costs the thread that records it.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use taba_bench::{CountingAllocator, Figure, ROUNDS, allocations, nanos_each, now, print_machine};
use taba_client::{Client, Config, Counter, SealedBatch, Sink, SinkError};
use taba_core::Timestamp;
use taba_core::wire::Receipt;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Events recorded without a pause: less than half of a ring, so that none finds it full.
const BURST: u64 = 4_096;
const BURSTS: usize = 200;

/// Takes everything and does nothing with it: the Agent's cost is not what is measured.
struct Nowhere;

#[async_trait]
impl Sink for Nowhere {
    async fn deliver(&self, batch: Arc<SealedBatch>) -> Result<Receipt, SinkError> {
        Ok(Receipt::new(batch.seq(), Timestamp::default(), Vec::new()))
    }
}

fn client() -> Client {
    let mut config = Config::default();
    config.flush_interval = Duration::from_millis(2);
    config.ring_events_min = 16 * 1024;
    config.ring_events_max = 16 * 1024;
    let handlers = taba_handlers::standard().build().expect("the standard types have different names");
    let builder = Client::builder("bench").sink(Nowhere).handlers(handlers).config(config);
    builder.build().expect("the configuration is in its bounds")
}

/// Waits until the client has drained so many events.
fn wait_until_drained(client: &Client, recorded: u64) {
    while client.stats().recorded < recorded {
        #[expect(clippy::disallowed_methods, reason = "between the bursts, not in them")]
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// One burst of a thread: nanoseconds an event, and allocations of the whole process meanwhile.
fn burst(counter: &Counter) -> (f64, u64) {
    let (before, start) = (allocations(), now());
    for n in 0..BURST {
        counter.add(black_box(n as f64));
    }
    (nanos_each(start.elapsed(), BURST), allocations() - before)
}

/// So many threads record the same Tab at the same time; each waits for the others before each burst.
fn threads(count: usize) -> (Figure, u64) {
    let client = client();
    let barrier = Arc::new(Barrier::new(count + 1));
    let figures = Arc::new(Mutex::new(Vec::new()));
    let handles: Vec<_> = (0..count)
        .map(|_| {
            let (counter, barrier, figures) =
                (client.counter("hits").expect("a tab name"), barrier.clone(), figures.clone());
            std::thread::spawn(move || {
                let mut mine = Vec::with_capacity(BURSTS);
                for _ in 0..BURSTS {
                    barrier.wait();
                    mine.push(burst(&counter));
                    barrier.wait();
                }
                figures.lock().expect("nobody panics").extend(mine.into_iter().skip(BURSTS / 10));
            })
        })
        .collect();
    for n in 1..=BURSTS as u64 {
        barrier.wait();
        barrier.wait();
        wait_until_drained(&client, n * BURST * count as u64);
    }
    handles.into_iter().for_each(|handle| handle.join().expect("a bench thread ends"));
    let stats = client.stats();
    assert_eq!(stats.dropped.total(), 0, "the bursts are to fit the rings");
    let figures = figures.lock().expect("nobody panics");
    // The background thread may allocate for its own purposes in the middle of a burst: the least is what recording does.
    let least = figures.iter().map(|(_, allocations)| *allocations).min().unwrap_or(0);
    (Figure::of(figures.iter().map(|(nanos, _)| *nanos).collect()), least)
}

/// The ground to stand on: what it costs to push (u64, f64) to a thread's own vector, and to add to a shared atomic.
fn ground() {
    thread_local! {
        static OWN: RefCell<Vec<(u64, f64)>> = const { RefCell::new(Vec::new()) };
    }
    static SHARED: AtomicU64 = AtomicU64::new(0);
    OWN.with_borrow_mut(|own| own.reserve(BURST as usize));
    let measure = |each: &dyn Fn(u64)| {
        let rounds = (0..ROUNDS * 20).map(|_| {
            OWN.with_borrow_mut(Vec::clear);
            let start = now();
            (0..BURST).for_each(each);
            nanos_each(start.elapsed(), BURST)
        });
        Figure::of(rounds.collect())
    };
    println!(
        "ground: push to a thread's own vector {} ns",
        measure(&|n| OWN.with_borrow_mut(|own| own.push(black_box((n, n as f64)))))
    );
    println!(
        "ground: add to an atomic that nobody else has {} ns",
        measure(&|n| _ = black_box(SHARED.fetch_add(n, Ordering::Relaxed)))
    );
}

fn main() {
    print_machine();
    ground();
    println!("bursts of {BURST} events on one held handle, {BURSTS} bursts, drained in between");
    let (one, allocated) = threads(1);
    println!("record, one thread: {one} ns; {allocated} allocations in {BURST} events");
    let (two, allocated) = threads(2);
    println!(
        "record, each of two threads on the same tab: {two} ns; {allocated} allocations; ratio of the medians {:.2}",
        two.median / one.median
    );
}
