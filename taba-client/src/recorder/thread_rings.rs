//! The rings of one thread, and how an event comes into one.
//!
//! Each thread has a ring of its own for each Client, found by the Client's index in a table of the thread's own:
//! ```text
//! thread A: [ index 0: ring | index 1: - ]        thread B: [ index 0: ring | index 1: ring ]
//!                       │                                        │               │
//!            Client at index 0 drains ◄──────────────────────────┘      Client at index 1
//! ```
//! A ring is a bounded single-producer, single-consumer queue (rtrb), so recording shares nothing with other threads
//! but, now and then, with the one that drains. Rings are small. A thread whose ring is full takes another from the
//! Client's pool and leaves the full one there; so does a thread that ends. So a thread that is idle holds one small
//! ring, whatever it did before. A thread that has filled as many as it may between two drains empties its ring itself
//! ([`Overflow`](crate::ring::Overflow)).

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, TryLockError, Weak};

use rtrb::PushError;
use taba_core::ledger::Why;

use super::Recorder;
use crate::pool::Pool;
use crate::ring::{RingContent, RingEvent, RingWriter};

thread_local! {
    /// This thread's rings, by the index of their Client.
    static THREAD_RINGS: RefCell<ThreadRings> = const { RefCell::new(ThreadRings(Vec::new())) };
}

struct ThreadRings(Vec<Option<ThreadRing>>);

/// The ring that a thread writes to.
struct ThreadRing {
    /// The Client and the process: an index can be taken again, a number cannot, and a fork changes the process.
    key: u64,
    writer: RingWriter,
    pool: Arc<Pool>,
    /// The number of drains when the thread last took a ring.
    drains: u64,
    /// Events in the rings that it has filled since.
    filled: usize,
}

/// Puts an event into this thread's ring. `None` when the thread is ending and its rings are already gone.
#[inline]
pub(super) fn push(recorder: &Recorder, slot: RingEvent) -> Option<Result<(), Why>> {
    let pushed = THREAD_RINGS.try_with(move |rings| {
        // A value that records while it is dropped, or an allocator that records, must not re-enter.
        let mut rings = rings.try_borrow_mut().map_err(|_| Why::Full)?;
        match rings.0.get_mut(recorder.index) {
            Some(Some(ring)) if ring.key == recorder.key() => ring.push(slot, recorder),
            Some(_) | None => push_first(&mut rings.0, recorder, slot),
        }
    });
    pushed.ok()
}

/// The first event of this thread for this Client in this process.
#[cold]
#[inline(never)]
fn push_first(rings: &mut Vec<Option<ThreadRing>>, recorder: &Recorder, slot: RingEvent) -> Result<(), Why> {
    // This cold path also drops rings of Clients that have ended.
    rings.iter_mut().for_each(|ring| drop(ring.take_if(|ring| ring.writer.ring.is_abandoned())));
    let owner = recorder.owner.get().and_then(Weak::upgrade).ok_or(Why::Shutdown)?;
    let pool = owner.pool().ok_or(Why::Shutdown)?;
    let Some(writer) = recorder.pooled_or_new(pool, recorder.config.rings_bytes_max) else {
        recorder.ask_to_hurry();
        return Err(Why::Full);
    };
    // Threads that record little and end never fill one.
    if writer.ring.slots() < writer.ring.buffer().capacity() / 4 * 3 {
        recorder.ask_to_hurry();
    }
    let mut ring = ThreadRing {
        key: recorder.key(),
        writer,
        pool: Arc::clone(pool),
        drains: recorder.shared.drains.load(Ordering::Relaxed),
        filled: 0,
    };
    let pushed = ring.push(slot, recorder);
    if rings.len() <= recorder.index {
        rings.resize_with(recorder.index + 1, || None);
    }
    rings[recorder.index] = Some(ring);
    pushed
}

impl ThreadRing {
    #[inline]
    fn push(&mut self, slot: RingEvent, recorder: &Recorder) -> Result<(), Why> {
        match self.writer.ring.push(slot) {
            Ok(()) => Ok(()),
            Err(PushError::Full(slot)) => self.push_to_full(slot, recorder),
        }
    }

    /// The ring is full: takes another, or makes room in this.
    #[cold]
    #[inline(never)]
    fn push_to_full(&mut self, slot: RingEvent, recorder: &Recorder) -> Result<(), Why> {
        let drains = recorder.shared.drains.load(Ordering::Relaxed);
        if drains != self.drains {
            (self.drains, self.filled) = (drains, 0);
        }
        self.filled += self.writer.ring.buffer().capacity();
        let filled_max = recorder.config.ring_events_max;
        if self.filled > filled_max / 2 {
            recorder.ask_to_hurry();
        }
        // The last is for the background thread that has stopped while it reads this one, as others use its processor.
        let _ = self.filled < filled_max && self.take_another(recorder)
            || self.make_room(recorder)
            || self.take_another(recorder);
        self.writer.ring.push(slot).map_err(|_| Why::Full)
    }

    /// Takes another ring. `false` when there is none.
    fn take_another(&mut self, recorder: &Recorder) -> bool {
        let Some(writer) = recorder.another_ring() else { return false };
        self.pool.give(std::mem::replace(&mut self.writer, writer));
        true
    }

    /// Takes what is in the ring out of it. `false` when another thread reads it.
    fn make_room(&mut self, recorder: &Recorder) -> bool {
        let Some(content) = self.writer.content.upgrade() else { return false };
        let mut content = match content.try_lock() {
            Ok(content) => content,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let RingContent { consumer, overflow } = &mut *content;
        let overflow = overflow.get_or_insert_with(|| Box::new(recorder.new_overflow()));
        let before = overflow.bytes();
        let (now, room) = (recorder.clock.now(), recorder.rings_room());
        let taken = overflow.take(consumer, &recorder.tabs, now, room);
        recorder.recharge(before, overflow.bytes());
        recorder.give_back(taken.opaque_bytes);
        if recorder.is_tight() {
            recorder.ask_to_hurry();
        }
        taken.events > 0
    }
}

impl Drop for ThreadRings {
    fn drop(&mut self) {
        // The thread ends. After a fork, a pool can be the parent's, which this process never reads.
        for ThreadRing { writer, pool, .. } in self.0.drain(..).flatten() {
            pool.give(writer);
        }
    }
}
