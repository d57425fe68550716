//! [`RingReaders`]: the reading ends of all rings of a Client.

use std::mem;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use crate::buffer::{ByTab, EventBuffer};
use crate::lock::lock;
use crate::pool::Pool;
use crate::recorder::Recorder;
use crate::ring::RingContent;
use crate::tabs::ReleasedTab;

/// Events that are read from a ring before their places are given back to the thread that writes.
const READ_EVENTS: usize = 1024;

/// How much [`RingReaders::drain`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// What is in the rings, to make room.
    Rings,
    /// Also what threads have taken out of theirs. A ring that its thread empties at this moment is left for the next time,
    /// once: the thread may have stopped, as others use its processor.
    Overflow,
    /// Everything that was recorded before.
    All,
}

/// The reading ends of all rings of a Client.
pub(crate) struct RingReaders {
    arrivals: Receiver<Arc<Mutex<RingContent>>>,
    rings: Vec<RingReader>,
    /// What the buffer has not taken yet of what was read: nothing between two drains.
    by_tab: ByTab,
    pool: Arc<Pool>,
    /// Tabs without a handle, whose events may still be in the rings.
    released: Vec<ReleasedTab>,
    /// Tabs without a handle, whose events have left the rings.
    drained: Vec<ReleasedTab>,
}

/// The reading end of one ring.
struct RingReader {
    content: Arc<Mutex<RingContent>>,
    /// Whether it was left for the next time.
    was_left: bool,
}

impl RingReaders {
    pub(crate) fn new(arrivals: Receiver<Arc<Mutex<RingContent>>>, pool: Arc<Pool>) -> Self {
        let (rings, by_tab) = (Vec::new(), ByTab::default());
        Self { arrivals, rings, by_tab, pool, released: Vec::new(), drained: Vec::new() }
    }

    /// Rings that are read.
    pub(crate) fn rings(&self) -> usize {
        self.rings.len()
    }

    fn arrive(&mut self) {
        let arrived = self.arrivals.try_iter();
        self.rings.extend(arrived.map(|content| RingReader { content, was_left: false }));
    }

    /// Moves what was recorded so far into the buffer, and frees the rings of threads that have ended. `false` when some of
    /// it was left.
    pub(crate) fn drain(&mut self, recorder: &Recorder, buffer: &mut EventBuffer, drained: Drained) -> bool {
        recorder.begin_drain();
        // Asked before reading: what was recorded under a handle that is gone is in the rings by now.
        self.released.extend(recorder.tabs().take_released());
        buffer.set_now(recorder.clock().now());
        let drained =
            if drained == Drained::Rings && recorder.is_tight() { Drained::Overflow } else { drained };
        self.arrive();
        let mut is_complete = drained != Drained::Rings;
        self.rings.retain_mut(|ring| match ring.drain(recorder, buffer, &mut self.by_tab, drained) {
            Some(abandoned) => !abandoned,
            None => {
                is_complete = false;
                true
            }
        });
        self.by_tab.empty_into(buffer);
        if is_complete {
            self.drained.append(&mut self.released);
        }
        for (why, events) in recorder.take_refused() {
            buffer.note_dropped(why, events);
        }
        recorder.note_drained();
        is_complete
    }

    /// Gives back memory that is kept for more events. For a Client that records nothing at the moment.
    pub(crate) fn release_room(&mut self) {
        self.by_tab = ByTab::default();
    }

    /// Discards the events in the rings; returns how many. For a Client that has ended, in whose rings a thread
    /// may have recorded after the last drain.
    pub(crate) fn discard(&mut self) -> u64 {
        self.arrive();
        let discard = |ring: &RingReader| {
            let Some(mut content) = lock(&ring.content) else { return 0 };
            let overflow = content.overflow.take().map_or(0, |overflow| overflow.recorded());
            let slots = content.consumer.slots();
            overflow + content.consumer.read_chunk(slots).map_or(0, |chunk| chunk.into_iter().count() as u64)
        };
        self.rings.iter().map(discard).sum()
    }

    /// Once a flush: forgets unused Tabs, and frees rings that were unused for a while.
    pub(crate) fn shrink(&mut self, recorder: &Recorder, buffer: &mut EventBuffer) {
        self.pool.shrink();
        self.drained.retain(|released| {
            if buffer.is_waiting(released.number) {
                return true;
            }
            if recorder.tabs().forget(*released) {
                buffer.forget(released.number);
            }
            false
        });
    }
}

impl RingReader {
    /// Moves what is in the ring into the buffer. Whether no thread will write to it again; `None` when it was left.
    fn drain(
        &mut self,
        recorder: &Recorder,
        buffer: &mut EventBuffer,
        by_tab: &mut ByTab,
        drained: Drained,
    ) -> Option<bool> {
        let mut content = self.lock(drained)?;
        // Asked before reading: a ring that nobody writes to any more is empty for ever once it has been read.
        let abandoned = content.consumer.is_abandoned();
        if abandoned {
            recorder.free_ring(content.consumer.buffer().capacity());
        }
        read(&mut content, recorder, buffer, by_tab);
        let overflow = if abandoned || drained != Drained::Rings { content.overflow.take() } else { None };
        // Merging takes longer, and the thread should find the lock free.
        drop(content);
        if let Some(overflow) = overflow {
            // Until all of it is in the buffer it takes memory here: what the thread takes out meanwhile comes on top.
            let bytes = overflow.bytes();
            overflow.empty_into(buffer);
            recorder.recharge(bytes, 0);
        }
        Some(abandoned)
    }

    /// `None` when the thread empties it at this moment, and it is to be left.
    fn lock(&mut self, drained: Drained) -> Option<MutexGuard<'_, RingContent>> {
        let is_left = |ring: &mut bool| drained != Drained::All && !mem::replace(ring, true);
        match self.content.try_lock() {
            Ok(content) => {
                self.was_left = false;
                Some(content)
            }
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if is_left(&mut self.was_left) => None,
            Err(TryLockError::WouldBlock) => {
                self.was_left = false;
                lock(&self.content)
            }
        }
    }
}

/// Moves what is in a ring into the buffer.
fn read(ring: &mut RingContent, recorder: &Recorder, buffer: &mut EventBuffer, by_tab: &mut ByTab) {
    // Later events are left for the next drain; otherwise a fast thread could keep this loop running.
    let mut left = ring.consumer.slots();
    let mut opaque_bytes = 0;
    while left > 0 {
        let Ok(slots) = ring.consumer.read_chunk(left.min(READ_EVENTS)) else { break };
        left -= slots.len();
        for slot in slots {
            let tab = slot.tab();
            if !buffer.knows(tab) {
                for (number, spec) in recorder.tabs().take_new() {
                    buffer.declare_as(number, spec);
                }
            }
            opaque_bytes += slot.offer_to(buffer, by_tab, |tab| tab);
        }
    }
    recorder.give_back(opaque_bytes);
}
