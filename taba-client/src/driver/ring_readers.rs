//! [`RingReaders`]: the reading ends of all rings of a Client.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use taba_core::ledger::Why;

use crate::buffer::EventBuffer;
use crate::column::Datum;
use crate::pool::Pool;
use crate::recorder::Recorder;
use crate::ring::{RingEvent, RingReader};
use crate::tabs::ReleasedTab;

/// Events that are read from a ring before their places are given back to the thread that writes.
const READ_EVENTS: usize = 1024;

/// The reading ends of all rings of a Client.
pub(crate) struct RingReaders {
    arrivals: Receiver<RingReader>,
    rings: Vec<RingReader>,
    pool: Arc<Pool>,
    /// Tabs without a handle, whose events have left the rings.
    released: Vec<ReleasedTab>,
}

impl RingReaders {
    pub(crate) fn new(arrivals: Receiver<RingReader>, pool: Arc<Pool>) -> Self {
        Self { arrivals, rings: Vec::new(), pool, released: Vec::new() }
    }

    /// Rings that are read.
    pub(crate) fn rings(&self) -> usize {
        self.rings.len()
    }

    /// Moves what was recorded so far into the buffer, and frees the rings of threads that have ended.
    pub(crate) fn drain(&mut self, recorder: &Recorder, buffer: &mut EventBuffer) {
        // Asked before reading: what was recorded under a handle that is gone is in the rings by now.
        let released = recorder.tabs().take_released();
        buffer.set_now(recorder.clock().now());
        self.rings.extend(self.arrivals.try_iter());
        self.rings.retain_mut(|ring| {
            // Asked before reading: a ring that nobody writes to any more is empty for ever once it has been read.
            let abandoned = ring.consumer.is_abandoned();
            read(ring, recorder, buffer);
            if abandoned {
                recorder.free_ring(ring.consumer.buffer().capacity());
            }
            !abandoned
        });
        self.released.extend(released);
        for (why, events) in recorder.take_refused() {
            buffer.note_dropped(why, events);
        }
        recorder.note_drained();
    }

    /// Discards the events in the rings; returns how many. For a Client that has ended, in whose rings a thread
    /// may have recorded after the last drain.
    pub(crate) fn discard(&mut self) -> u64 {
        self.rings.extend(self.arrivals.try_iter());
        let discard = |ring: &mut RingReader| {
            let slots = ring.consumer.slots();
            ring.consumer.read_chunk(slots).map_or(0, |chunk| chunk.into_iter().count() as u64)
                + ring.take_overflowed()
        };
        self.rings.iter_mut().map(discard).sum()
    }

    /// Once a flush: forgets unused Tabs, and frees rings that were unused for a while.
    pub(crate) fn shrink(&mut self, recorder: &Recorder, buffer: &mut EventBuffer) {
        self.pool.shrink();
        self.released.retain(|released| {
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

/// Moves what is in a ring into the buffer.
fn read(ring: &mut RingReader, recorder: &Recorder, buffer: &mut EventBuffer) {
    // Later events are left for the next drain; otherwise a fast thread could keep this loop running.
    let mut left = ring.consumer.slots();
    let mut opaque_bytes = 0;
    while left > 0 {
        let Ok(slots) = ring.consumer.read_chunk(left.min(READ_EVENTS)) else { break };
        left -= slots.len();
        for slot in slots {
            let (tab, time, datum) = match slot {
                RingEvent::Number { tab, time, number } => (tab, time, Datum::Number(number)),
                RingEvent::Opaque { tab, event } => {
                    opaque_bytes += event.bytes;
                    (tab, event.time, Datum::Opaque(event.value))
                }
            };
            if !buffer.knows(tab) {
                for (number, spec) in recorder.tabs().take_new() {
                    buffer.declare_as(number, spec);
                }
            }
            buffer.offer(tab, time, datum);
        }
    }
    recorder.give_back(opaque_bytes);
    let overflowed = ring.take_overflowed();
    if overflowed > 0 {
        buffer.note_dropped(Why::Full, overflowed);
    }
}
