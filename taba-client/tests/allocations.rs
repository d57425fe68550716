//! Recording numbers allocates nothing once a thread is warm. Alone in its binary: it counts every allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use taba_client::{Client, SealedBatch, Sink, SinkError};
use taba_core::Timestamp;
use taba_core::wire::Receipt;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait; this one only counts")]
// SAFETY: every method hands its arguments to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

/// Counts for the thread that asks, so that the background thread may do as it likes.
fn count() {
    // A thread at its very end has no counter; none of those is measured.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Anywhere;

#[async_trait]
impl Sink for Anywhere {
    async fn deliver(&self, batch: Arc<SealedBatch>) -> Result<Receipt, SinkError> {
        Ok(Receipt::new(batch.seq(), Timestamp::from_secs(0), Vec::new()))
    }
}

#[test]
fn recording_numbers_allocates_nothing_in_the_steady_state() {
    let client =
        Client::builder("web-01").sink(Anywhere).flush_interval(Duration::from_millis(1)).build().unwrap();
    let (bids, latency) = (client.counter("bids").unwrap(), client.percentile("latency").unwrap());
    let threads = client.gauge("threads").unwrap();
    let timer = client.timer("render").unwrap();
    let record = || {
        for n in 0..100 {
            bids.increment();
            bids.add_at(Timestamp::from_secs(n), f64::NAN);
            latency.record(n);
            threads.set(n);
            drop(timer.start());
        }
    };
    let drained = |recorded| {
        (0..2000).any(|_| {
            std::thread::park_timeout(Duration::from_millis(5));
            client.stats().recorded == recorded
        })
    };
    record();
    assert!(drained(500), "{:?}", client.stats());
    let before = ALLOCATIONS.get();
    assert!(before > 0, "the counter counts");
    for round in 2..12 {
        let before = ALLOCATIONS.get();
        record();
        assert_eq!(ALLOCATIONS.get(), before);
        assert!(drained(round * 500), "{:?}", client.stats());
    }
    assert_eq!(client.stats().dropped.total(), 1100, "NaN, and nothing else");
}
