//! The rings of one thread, and how an event comes into one.
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

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use rtrb::PushError;
use taba_core::ledger::Why;

use super::Recorder;
use crate::pool::Pool;
use crate::ring::{Slot, Writer};

/// Fill-level checks per ring capacity.
const LOOKS: usize = 8;

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

/// Puts an event into this thread's ring. `None` when the thread is so far in its end that it has no more rings.
#[inline]
pub(super) fn push(recorder: &Recorder, slot: Slot) -> Option<Result<(), Why>> {
    let pushed = CHUNKS.try_with(move |chunks| {
        // A value that records while it is dropped, or an allocator that records: not while we are at it.
        let mut chunks = chunks.try_borrow_mut().map_err(|_| Why::Full)?;
        match chunks.0.get_mut(recorder.place) {
            Some(Some(chunk)) if chunk.key == recorder.key() => chunk.push(slot, recorder),
            Some(_) | None => push_first(&mut chunks.0, recorder, slot),
        }
    });
    pushed.ok()
}

/// The first event of this thread for this Client in this process.
#[cold]
#[inline(never)]
fn push_first(chunks: &mut Vec<Option<Chunk>>, recorder: &Recorder, slot: Slot) -> Result<(), Why> {
    // Rings of Clients that are gone go when there is something to do anyway.
    chunks.iter_mut().for_each(|chunk| drop(chunk.take_if(|chunk| chunk.writer.ring.is_abandoned())));
    let owner = recorder.owner.get().and_then(Weak::upgrade).ok_or(Why::Shutdown)?;
    let pool = owner.pool().ok_or(Why::Shutdown)?;
    let Some(writer) = recorder.pooled_or_new(pool, recorder.config.rings_bytes_max) else {
        recorder.ask_to_hurry();
        return Err(Why::Full);
    };
    // Threads that record little and end never look how full their ring is.
    if writer.ring.slots() < writer.ring.buffer().capacity() / 4 * 3 {
        recorder.ask_to_hurry();
    }
    let mut chunk = Chunk {
        key: recorder.key(),
        until_look: writer.ring.buffer().capacity() / LOOKS,
        writer,
        pool: Arc::clone(pool),
        drains: recorder.shared.drains.load(Ordering::Relaxed),
        filled: 0,
        refused: false,
    };
    let pushed = chunk.push(slot, recorder);
    if chunks.len() <= recorder.place {
        chunks.resize_with(recorder.place + 1, || None);
    }
    chunks[recorder.place] = Some(chunk);
    pushed
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
