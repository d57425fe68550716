//! [`Recorder`]: the hot path. Never waits, never fails loudly.
//!
//! Each thread has a ring of its own for each Client, found by the Client's place in a table of the thread's own:
//! ```text
//! thread A: [ place 0: ring | place 1: - ]        thread B: [ place 0: ring | place 1: ring ]
//!                       │                                        │               │
//!            Client at place 0 drains ◄──────────────────────────┘      Client at place 1
//! ```
//! A ring is a bounded single-producer, single-consumer queue (rtrb), so recording shares nothing with other threads
//! but, now and then, with the one that drains. Rings are small. A thread whose ring is full takes another from the
//! Client's pool and leaves the full one there; so does a thread that ends. So a thread that is idle holds one small
//! ring, whatever it did before.

use std::any::Any;
use std::cell::RefCell;
use std::panic::RefUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use rtrb::{PushError, RingBuffer};
use taba_core::ledger::Why;
use taba_core::{ClientId, Registry, Timestamp, Value};

use crate::buffer::Datum;
use crate::config::{SLOT_BYTES, Verified};
use crate::driver::{Clock, Ring, generation, lock, wind_up};
use crate::link::{Core, Link};
use crate::pool::{Pool, Writer};
use crate::tabs::Tabs;

/// Events are recorded.
const OPEN: u8 = 0;
/// As [`OPEN`], but nothing was recorded for a while.
const IDLE: u8 = 1;
/// Whatever is recorded is dropped, and counted.
const CLOSED: u8 = 2;
/// Nothing is recorded: this is no Client's.
const DISABLED: u8 = 3;

/// Fill-level checks per ring capacity.
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
    static CHUNKS: RefCell<Chunks> = const { RefCell::new(Chunks(Vec::new())) };
}

struct Chunks(Vec<Option<Chunk>>);

/// The ring that a thread writes to.
struct Chunk {
    /// The Client and the process: a place can be taken again, a number cannot, and a fork changes the process.
    key: u64,
    /// Events until the next look at how full the ring is.
    until_look: usize,
    writer: Writer,
    pool: Arc<Pool>,
    /// Drains that there had been when the thread last took a ring.
    drains: u64,
    /// Events in the rings that it has filled since.
    filled: usize,
    /// Whether it got no ring since.
    refused: bool,
}

/// Where the handles of one Client record.
pub(crate) struct Recorder {
    number: u64,
    place: usize,
    /// One of [`OPEN`], [`IDLE`], [`CLOSED`], [`DISABLED`].
    phase: AtomicU8,
    clock: Clock,
    client: ClientId,
    config: Verified,
    tabs: Tabs,
    core: OnceLock<Weak<Core>>,
    // PERF: behind a pointer, so that writing here does not take what stands above out of other threads' caches.
    shared: Box<Shared>,
}

#[derive(Default)]
struct Shared {
    hurry: AtomicBool,
    /// Whether the first event after a pause was recorded.
    first: AtomicBool,
    rings_bytes: AtomicUsize,
    opaque_bytes: AtomicUsize,
    /// How often all rings were drained.
    drains: AtomicU64,
    refused: [AtomicU64; Why::ALL.len()],
}

// Handles go wherever an application catches panics. What can panic is its own code, the Handlers, under no lock.
impl RefUnwindSafe for Recorder {}

impl Recorder {
    pub(crate) fn new(client: ClientId, clock: Clock, handlers: Registry, config: Verified) -> Self {
        let (number, place) = lock(&PLACES).map_or((0, 0), |mut places| places.take());
        let tabs = Tabs::new(handlers, config.tabs_max);
        let (phase, core, shared) = (AtomicU8::new(OPEN), OnceLock::new(), Box::default());
        Self { number, place, phase, clock, client, config, tabs, core, shared }
    }

    /// A recorder that records nothing, and counts nothing.
    pub(crate) fn disabled(client: ClientId) -> Self {
        let recorder = Self::new(client, Clock::system(), Registry::default(), Verified::default());
        recorder.phase.store(DISABLED, Ordering::Relaxed);
        recorder
    }

    /// Whose recorder it is; said once.
    pub(crate) fn belongs_to(&self, core: &Arc<Core>) {
        let _ = self.core.set(Arc::downgrade(core));
    }

    /// What differs between Clients, and between a process and its forked child.
    #[inline]
    fn key(&self) -> u64 {
        self.number.wrapping_add(generation())
    }

    /// In a forked child: what the parent's threads hold is not this process's.
    pub(crate) fn begin_again(&self) {
        let Shared { hurry, first: _, rings_bytes, opaque_bytes, drains: _, refused } = &*self.shared;
        hurry.store(false, Ordering::Relaxed);
        rings_bytes.store(0, Ordering::Relaxed);
        opaque_bytes.store(0, Ordering::Relaxed);
        refused.iter().for_each(|events| events.store(0, Ordering::Relaxed));
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
        match self.phase.load(Ordering::Relaxed) {
            OPEN => {}
            IDLE => self.begin_after_pause(),
            _ => return self.refuse_bytes(Why::Shutdown, bytes),
        }
        let pushed = CHUNKS.try_with(move |chunks| {
            // A value that records while it is dropped, or an allocator that records: not while we are at it.
            let mut chunks = chunks.try_borrow_mut().map_err(|_| Why::Full)?;
            match chunks.0.get_mut(self.place) {
                Some(Some(chunk)) if chunk.key == self.key() => chunk.push(slot, self),
                Some(_) | None => self.push_first(&mut chunks.0, slot),
            }
        });
        match pushed {
            Ok(Ok(())) => {}
            Ok(Err(why)) => self.refuse_bytes(why, bytes),
            // The thread is so far in its end that it has no more rings.
            Err(_) => self.refuse_bytes(Why::Shutdown, bytes),
        }
    }

    /// The first event of this thread for this Client in this process.
    #[cold]
    #[inline(never)]
    fn push_first(&self, chunks: &mut Vec<Option<Chunk>>, slot: Slot) -> Result<(), Why> {
        // Rings of Clients that are gone go when there is something to do anyway.
        chunks.iter_mut().for_each(|chunk| drop(chunk.take_if(|chunk| chunk.writer.ring.is_abandoned())));
        let core = self.core.get().and_then(Weak::upgrade).ok_or(Why::Shutdown)?;
        let link = core.link().ok_or(Why::Shutdown)?;
        let Some(writer) = self.pooled_or_new(link, self.config.rings_bytes_max) else {
            self.ask_to_hurry();
            return Err(Why::Full);
        };
        // Threads that record little and end never look how full their ring is.
        if writer.ring.slots() < writer.ring.buffer().capacity() / 4 * 3 {
            self.ask_to_hurry();
        }
        let mut chunk = Chunk {
            key: self.key(),
            until_look: writer.ring.buffer().capacity() / LOOKS,
            writer,
            pool: Arc::clone(&link.pool),
            drains: self.shared.drains.load(Ordering::Relaxed),
            filled: 0,
            refused: false,
        };
        let pushed = chunk.push(slot, self);
        if chunks.len() <= self.place {
            chunks.resize_with(self.place + 1, || None);
        }
        chunks[self.place] = Some(chunk);
        pushed
    }

    /// A new ring, if this bound of all rings allows one.
    fn ring(&self, link: &Link, bytes_max: usize) -> Option<Writer> {
        let events = self.config.ring_events_min;
        if !reserve(&self.shared.rings_bytes, events * SLOT_BYTES, bytes_max) {
            return None;
        }
        if self.shared.rings_bytes.load(Ordering::Relaxed) > self.config.rings_bytes_max / 2 {
            self.ask_to_hurry();
        }
        let (ring, consumer) = RingBuffer::new(events);
        let overflowed = Arc::new(AtomicU64::new(0));
        let reading = Ring { consumer, overflowed: Arc::clone(&overflowed), overflowed_noted: 0 };
        link.rings.send(reading).ok()?;
        Some(Writer { ring, overflowed })
    }

    /// Another ring for a thread whose own is full.
    fn another_ring(&self) -> Option<Writer> {
        let core = self.core.get()?.upgrade()?;
        let link = core.link()?;
        // The last quarter is for threads that have no ring at all.
        self.pooled_or_new(link, self.config.rings_bytes_max / 4 * 3)
    }

    /// A ring that is at least half empty, a new one, or if there can be none, one that has some room.
    fn pooled_or_new(&self, link: &Link, bytes_max: usize) -> Option<Writer> {
        let events = self.config.ring_events_min;
        let new = || self.ring(link, bytes_max);
        link.pool.take(events / 2).or_else(new).or_else(|| link.pool.take(events / 8))
    }

    /// All rings were drained.
    pub(crate) fn note_drained(&self) {
        self.shared.drains.fetch_add(1, Ordering::Relaxed);
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
        self.note_refused(why, 1);
    }

    /// Counts events that were dropped before they came to the buffer.
    pub(crate) fn note_refused(&self, why: Why, events: u64) {
        if self.phase.load(Ordering::Relaxed) == DISABLED {
            return;
        }
        self.rouse();
        self.shared.refused[why as usize - 1].fetch_add(events, Ordering::Relaxed);
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
        let closes = |phase| (phase != DISABLED).then_some(CLOSED);
        let _ = self.phase.fetch_update(Ordering::Relaxed, Ordering::Relaxed, closes);
    }

    /// Nothing was recorded for a while: the next event is worth a flush of its own.
    pub(crate) fn note_idle(&self) {
        // Fails when it is closed, and stays so.
        let _ = self.phase.compare_exchange(OPEN, IDLE, Ordering::Relaxed, Ordering::Relaxed);
    }

    #[cold]
    #[inline(never)]
    fn begin_after_pause(&self) {
        if self.phase.compare_exchange(IDLE, OPEN, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.shared.first.store(true, Ordering::Relaxed);
            self.ask_to_hurry();
            wind_up();
        }
    }

    /// Whether nothing was recorded for a while, or never will be again.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase.load(Ordering::Relaxed) != OPEN
    }

    /// Something happened that the background task should see, though nothing was recorded.
    pub(crate) fn rouse(&self) {
        if self.phase.load(Ordering::Relaxed) == IDLE {
            self.begin_after_pause();
        }
    }

    /// Whether the first event after a pause was recorded, since this was last asked.
    pub(crate) fn take_first(&self) -> bool {
        self.shared.first.swap(false, Ordering::Relaxed)
    }

    /// Asks for the rings to be drained before it is time.
    fn ask_to_hurry(&self) {
        if !self.shared.hurry.load(Ordering::Relaxed) {
            self.shared.hurry.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a recording thread asked for the rings to be drained, since this was last asked. The clock's thread
    /// asks, so that recording makes no system call.
    pub(crate) fn is_hurried(&self) -> bool {
        self.shared.hurry.load(Ordering::Relaxed) && self.shared.hurry.swap(false, Ordering::Relaxed)
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
        if let Some(mut places) = lock(&PLACES) {
            places.give_back(self.place);
        }
    }
}

impl Chunk {
    #[inline]
    fn push(&mut self, slot: Slot, recorder: &Recorder) -> Result<(), Why> {
        self.until_look -= 1;
        if self.until_look == 0 {
            self.look(recorder);
        }
        match self.writer.ring.push(slot) {
            Ok(()) => Ok(()),
            Err(PushError::Full(slot)) => self.overflow(slot, recorder),
        }
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self, recorder: &Recorder) {
        let events = self.writer.ring.buffer().capacity();
        self.until_look = events / LOOKS;
        if self.writer.ring.slots() < events / 2 {
            recorder.ask_to_hurry();
        }
    }

    #[cold]
    #[inline(never)]
    fn overflow(&mut self, slot: Slot, recorder: &Recorder) -> Result<(), Why> {
        recorder.ask_to_hurry();
        let drains = recorder.shared.drains.load(Ordering::Relaxed);
        if drains != self.drains {
            (self.drains, self.filled, self.refused) = (drains, 0, false);
        }
        // A ring that was refused is not asked for again before the next drain: until then nothing changes.
        if !self.refused {
            self.filled += self.writer.ring.buffer().capacity();
            let room = self.filled < recorder.config.ring_events_max;
            if let Some(writer) = if room { recorder.another_ring() } else { None } {
                self.pool.give(std::mem::replace(&mut self.writer, writer));
                return self.writer.ring.push(slot).map_err(|_| Why::Full);
            }
            self.refused = true;
        }
        if let Slot::Opaque { event, .. } = slot {
            recorder.give_back(event.bytes);
        }
        // Only this thread writes here, so that a full ring costs no more than an empty one.
        let overflowed = &self.writer.overflowed;
        overflowed.store(overflowed.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        // The thread ends. After a fork, a pool can be the parent's; what goes there is not seen by anybody.
        for Chunk { writer, pool, .. } in self.0.drain(..).flatten() {
            pool.give(writer);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Verified;

    #[test]
    fn the_first_event_after_a_pause_asks_for_a_flush_and_no_other_does() {
        let id = ClientId::new("web-01").unwrap();
        let recorder = Recorder::new(id, Clock::system(), Registry::default(), Verified::default());
        let asked = || (recorder.is_hurried(), recorder.take_first());
        recorder.record(0, 1.0);
        asked();
        recorder.note_idle();
        assert_eq!(asked(), (false, false));
        recorder.record(0, 1.0);
        assert!(asked().1);
        recorder.record(0, 1.0);
        assert!(!asked().1);
        recorder.close();
        recorder.note_idle();
        recorder.record(0, 1.0);
        assert!(!asked().1);
        assert!(recorder.refused().any(|refused| refused == (Why::Shutdown, 4)), "it has no Client");
    }
}
