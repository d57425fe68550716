//! What a Client's memory is bounded by, and that it comes back. Alone in its binary: it counts every allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use taba_client::{Client, Config, Counter, SealedBatch, Sink, SinkError};
use taba_core::Timestamp;
use taba_core::wire::Receipt;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

fn add(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(live, Ordering::Relaxed);
}

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait; this one only counts")]
// SAFETY: every method hands its arguments to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        add(bytes);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An Agent that takes everything, and keeps nothing.
struct Anywhere;

#[async_trait]
impl Sink for Anywhere {
    async fn deliver(&self, batch: Arc<SealedBatch>) -> Result<Receipt, SinkError> {
        Ok(Receipt::new(batch.seq(), Timestamp::from_secs(0), Vec::new()))
    }
}

#[test]
fn memory_stays_within_its_bound_and_comes_back() {
    const TABS: usize = 8000;
    /// What a Tab takes that is known: a handle, and its entries in two tables.
    const TAB_BYTES: usize = 1024;
    let mut config = Config::default();
    (config.rings_bytes_max, config.pending_bytes_max) = (8 << 20, 8 << 20);
    (config.opaque_bytes_max, config.batch_bytes_max) = (1 << 20, 2 << 20);
    (config.ring_events_max, config.flush_interval) = (4096, Duration::from_millis(50));
    let bytes_max = config.bytes_max();
    let handlers = taba_handlers::standard().build().unwrap();
    let client = Client::builder("web-01").sink(Anywhere).handlers(handlers).config(config).build().unwrap();
    let tabs: Vec<Counter> = (0..TABS).map(|n| client.counter(format!("hits;n={n}")).unwrap()).collect();
    let before = LIVE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    // Without pause: the thread takes its events out itself, again and again while the last of that is being merged.
    for n in 0..60 {
        tabs.iter().for_each(|tab| tab.add(n));
    }
    assert_eq!(client.flush(Duration::from_secs(60)).left, 0);
    let most = MOST.load(Ordering::Relaxed) - before;
    assert!(most <= bytes_max + TABS * TAB_BYTES, "{most} bytes, and {bytes_max} were promised");
    let stats = client.stats();
    assert_eq!((stats.recorded, stats.pending), (60 * TABS as u64, 0));
    let left = || LIVE.load(Ordering::Relaxed).saturating_sub(before);
    let is_back = (0..2000).any(|_| {
        std::thread::park_timeout(Duration::from_millis(5));
        left() <= TABS * TAB_BYTES + (64 << 10) && client.stats().pending_bytes == 0
    });
    assert!(is_back, "{} bytes are kept, {:?}", left(), client.stats());
}
