//! [`Recorder`]: the hot path. Never waits, never fails loudly.
//!
//! Each thread has a ring of its own for each Client, found by the Client's place in a table of the thread's own:
//! ```text
//! thread A: [ place 0: ring | place 1: - ]        thread B: [ place 0: ring | place 1: ring ]
//!                       │                                        │               │
//!            Client at place 0 drains ◄──────────────────────────┘      Client at place 1
//! ```
//! A ring is a bounded single-producer, single-consumer queue (rtrb), so recording shares nothing with other threads
//! but, now and then, with the one that drains. Rings start small and grow when they overflow; the old ring is drained
//! and freed like that of a thread that has ended.

use std::any::Any;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rtrb::{Producer, PushError, RingBuffer};
use taba_core::ledger::Why;
use taba_core::{ClientId, Registry, Timestamp, Value};
use tokio::sync::Notify;

use crate::buffer::Datum;
use crate::config::{SLOT_BYTES, Verified};
use crate::driver::{Clock, Ring};
use crate::tabs::Tabs;

/// How much larger a ring is that takes the place of one that overflowed.
const GROWTH: usize = 8;
/// How often, in the time that a ring takes to fill, its thread looks how full it is.
const LOOKS: usize = 8;

/// One event in a ring.
// PERF: recording costs what moving the ring's memory between two processors costs, so a number takes three words.
pub(crate) enum Slot {
    Number { tab: u32, time: Timestamp, number: f64 },
    Opaque { tab: u32, event: Box<Opaque> },
}

/// An event whose value is not a number.
pub(crate) struct Opaque {
    pub(crate) time: Timestamp,
    pub(crate) value: Box<dyn Any + Send>,
    /// What it takes beside the slot.
    pub(crate) bytes: usize,
}

const _: () = assert!(size_of::<Slot>() == SLOT_BYTES, "the bounds of rings count on this");

thread_local! {
    /// This thread's rings, by the place of their Client.
    static CHUNKS: RefCell<Vec<Option<Chunk>>> = const { RefCell::new(Vec::new()) };
}

/// The writing end of one thread's ring.
struct Chunk {
    /// The Client: a place can be taken again, a number cannot.
    recorder: u64,
    /// Events until the next look at how full the ring is.
    until_look: usize,
    ring: Producer<Slot>,
    overflowed: Arc<AtomicU64>,
    can_grow: bool,
}

/// Where the handles of one Client record.
pub(crate) struct Recorder {
    number: u64,
    place: usize,
    closed: AtomicBool,
    clock: Clock,
    client: ClientId,
    config: Verified,
    tabs: Tabs,
    rings: Sender<Ring>,
    // PERF: behind a pointer, so that writing here does not take what stands above out of other threads' caches.
    shared: Box<Shared>,
}

#[derive(Default)]
struct Shared {
    hurry: AtomicBool,
    wake: Notify,
    rings_bytes: AtomicUsize,
    opaque_bytes: AtomicUsize,
    refused: [AtomicU64; Why::ALL.len()],
}

impl Recorder {
    /// A recorder, and where the rings of its threads arrive.
    pub(crate) fn new(
        client: ClientId,
        clock: Clock,
        handlers: Registry,
        config: Verified,
    ) -> (Arc<Self>, Receiver<Ring>) {
        let (rings, arrivals) = mpsc::channel();
        let (number, place) = places().take();
        let tabs = Tabs::new(handlers, config.tabs_max);
        let (closed, shared) = (AtomicBool::new(false), Box::default());
        (Arc::new(Self { number, place, closed, clock, client, config, tabs, rings, shared }), arrivals)
    }

    /// Records a value now.
    #[inline]
    pub(crate) fn record<V: Value>(&self, tab: u32, value: V) {
        self.record_at(tab, self.clock.now(), value);
    }

    /// Records a value.
    #[inline]
    pub(crate) fn record_at<V: Value>(&self, tab: u32, time: Timestamp, value: V) {
        if !value.is_valid() {
            return self.refuse(Why::BadValue);
        }
        let bytes = size_of::<V>() + size_of::<Opaque>() + value.heap_bytes();
        match Datum::of(value) {
            Datum::Number(number) => self.push(Slot::Number { tab, time, number }, 0),
            Datum::Opaque(value)
                if reserve(&self.shared.opaque_bytes, bytes, self.config.opaque_bytes_max) =>
            {
                self.push(Slot::Opaque { tab, event: Box::new(Opaque { time, value, bytes }) }, bytes);
            }
            Datum::Opaque(_) => self.refuse(Why::Full),
        }
    }

    #[inline]
    fn push(&self, slot: Slot, bytes: usize) {
        if self.closed.load(Ordering::Relaxed) {
            return self.refuse_bytes(Why::Shutdown, bytes);
        }
        let pushed = CHUNKS.try_with(move |chunks| {
            // A value that records while it is dropped, or an allocator that records: not while we are at it.
            let mut chunks = chunks.try_borrow_mut().map_err(|_| Why::Full)?;
            match chunks.get_mut(self.place) {
                Some(Some(chunk)) if chunk.recorder == self.number => chunk.push(slot, self),
                Some(_) | None => self.push_first(&mut chunks, slot),
            }
        });
        match pushed {
            Ok(Ok(())) => {}
            Ok(Err(why)) => self.refuse_bytes(why, bytes),
            // The thread is so far in its end that it has no more rings.
            Err(_) => self.refuse_bytes(Why::Shutdown, bytes),
        }
    }

    /// The first event of this thread for this Client.
    #[cold]
    #[inline(never)]
    fn push_first(&self, chunks: &mut Vec<Option<Chunk>>, slot: Slot) -> Result<(), Why> {
        // Rings of Clients that are gone go when there is something to do anyway.
        chunks.iter_mut().for_each(|chunk| drop(chunk.take_if(|chunk| chunk.ring.is_abandoned())));
        let mut chunk = self.chunk(self.config.ring_events_min).ok_or(Why::Full)?;
        let pushed = chunk.push(slot, self);
        if chunks.len() <= self.place {
            chunks.resize_with(self.place + 1, || None);
        }
        chunks[self.place] = Some(chunk);
        pushed
    }

    /// A new ring for this thread, if the bounds allow one.
    fn chunk(&self, events: usize) -> Option<Chunk> {
        let bytes = events * SLOT_BYTES;
        if !reserve(&self.shared.rings_bytes, bytes, self.config.rings_bytes_max) {
            return None;
        }
        let (ring, consumer) = RingBuffer::new(events);
        let overflowed = Arc::new(AtomicU64::new(0));
        let reading = Ring { consumer, overflowed: Arc::clone(&overflowed), overflowed_noted: 0 };
        self.rings.send(reading).ok()?;
        let can_grow = events < self.config.ring_events_max;
        Some(Chunk { recorder: self.number, until_look: events / LOOKS, ring, overflowed, can_grow })
    }

    /// The driver has freed a ring.
    pub(crate) fn free_ring(&self, events: usize) {
        self.shared.rings_bytes.fetch_sub(events * SLOT_BYTES, Ordering::Relaxed);
    }

    /// Values that are not numbers have left the rings.
    pub(crate) fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.shared.opaque_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    #[cold]
    #[inline(never)]
    fn refuse_bytes(&self, why: Why, bytes: usize) {
        self.give_back(bytes);
        self.refuse(why);
    }

    #[cold]
    #[inline(never)]
    fn refuse(&self, why: Why) {
        self.shared.refused[why as usize - 1].fetch_add(1, Ordering::Relaxed);
    }

    /// What was refused since this was last taken.
    pub(crate) fn take_refused(&self) -> impl Iterator<Item = (Why, u64)> + '_ {
        self.refused_by(|events| events.swap(0, Ordering::Relaxed))
    }

    /// What was refused and not taken yet.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (Why, u64)> + '_ {
        self.refused_by(|events| events.load(Ordering::Relaxed))
    }

    fn refused_by<'a>(
        &'a self,
        read: impl Fn(&AtomicU64) -> u64 + 'a,
    ) -> impl Iterator<Item = (Why, u64)> + 'a {
        let each = Why::ALL.into_iter().map(move |why| (why, read(&self.shared.refused[why as usize - 1])));
        each.filter(|(_, events)| *events > 0)
    }

    /// From now on everything that is recorded is dropped.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Asks for the rings to be drained before it is time.
    fn ask_to_hurry(&self) {
        if !self.shared.hurry.load(Ordering::Relaxed) {
            self.shared.hurry.store(true, Ordering::Relaxed);
        }
    }

    /// Wakes the driver if a recording thread asked; the clock's thread does this, so that recording makes no system
    /// call.
    pub(crate) fn wake_if_asked(&self) {
        if self.shared.hurry.load(Ordering::Relaxed) && self.shared.hurry.swap(false, Ordering::Relaxed) {
            self.shared.wake.notify_one();
        }
    }

    /// Ends when the rings should be drained before it is time.
    ///
    /// # Cancel safety
    /// Safe: a wake-up that nobody waited for is kept.
    pub(crate) async fn woken(&self) {
        self.shared.wake.notified().await;
    }

    pub(crate) fn client(&self) -> &ClientId {
        &self.client
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn tabs(&self) -> &Tabs {
        &self.tabs
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // No handle is left, so nobody will look for rings at this place.
        places().give_back(self.place);
    }
}

impl Chunk {
    #[inline]
    fn push(&mut self, slot: Slot, recorder: &Recorder) -> Result<(), Why> {
        self.until_look -= 1;
        if self.until_look == 0 {
            self.look(recorder);
        }
        match self.ring.push(slot) {
            Ok(()) => Ok(()),
            Err(PushError::Full(slot)) => self.overflow(slot, recorder),
        }
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self, recorder: &Recorder) {
        let events = self.ring.buffer().capacity();
        self.until_look = events / LOOKS;
        if self.ring.slots() < events / 2 {
            recorder.ask_to_hurry();
        }
    }

    #[cold]
    #[inline(never)]
    fn overflow(&mut self, slot: Slot, recorder: &Recorder) -> Result<(), Why> {
        recorder.ask_to_hurry();
        if self.can_grow {
            let events =
                self.ring.buffer().capacity().saturating_mul(GROWTH).min(recorder.config.ring_events_max);
            if let Some(larger) = recorder.chunk(events) {
                *self = larger;
                return self.ring.push(slot).map_err(|_| Why::Full);
            }
            self.can_grow = false;
        }
        if let Slot::Opaque { event, .. } = slot {
            recorder.give_back(event.bytes);
        }
        // Only this thread writes here, so that a full ring costs no more than an empty one.
        self.overflowed.store(self.overflowed.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Ok(())
    }
}

/// Takes `bytes` under the bound, if they fit.
fn reserve(held: &AtomicUsize, bytes: usize, bytes_max: usize) -> bool {
    let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= bytes_max);
    held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

/// Which places are taken. There are as many as Clients live at the same time.
struct Places {
    next_number: u64,
    free: Vec<usize>,
    taken: usize,
}

static PLACES: Mutex<Places> = Mutex::new(Places { next_number: 0, free: Vec::new(), taken: 0 });

fn places() -> MutexGuard<'static, Places> {
    PLACES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    fn take(&mut self) -> (u64, usize) {
        self.next_number += 1;
        // Every place up to `taken + free` has been given out once.
        let place = self.free.pop().unwrap_or(self.taken);
        self.taken += 1;
        (self.next_number, place)
    }

    fn give_back(&mut self, place: usize) {
        self.taken -= 1;
        self.free.push(place);
    }
}
