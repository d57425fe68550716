//! [`Overflow`]: what a recording thread has taken out of its own full ring.
//!
//! A thread that records faster than its rings are drained does the work of the background thread itself, for its own events: it moves
//! them into an [`EventBuffer`] of the ring, where they fold. Once a flush the background thread takes that whole, and
//! merges it into the Client's. So nothing is dropped because a thread is fast, and a thread that is fast pays for it itself.

use std::mem;

use rtrb::Consumer;

use crate::buffer::{EventBuffer, PENDING_TAB_BYTES, SenderIdentity};
use crate::recorder::Recorder;
use crate::ring::RingEvent;

/// In the table of numbers: the Tab is not known here.
const UNKNOWN: u32 = u32::MAX;

/// Events that a recording thread has taken out of its own full ring.
pub(crate) struct Overflow {
    buffer: EventBuffer,
    /// The number that a Tab of the Client has in `buffer`, or [`UNKNOWN`].
    places: Vec<u32>,
    /// The Client's numbers of the Tabs in `buffer`.
    numbers: Vec<u32>,
    /// Bytes by which this counts towards the bound of all rings.
    charged: usize,
}

impl Overflow {
    pub(crate) fn new(recorder: &Recorder) -> Self {
        let identity = SenderIdentity::new(recorder.client().clone(), 0);
        let handlers = recorder.tabs().handlers().clone();
        let buffer = EventBuffer::new(identity, handlers, recorder.config().clone());
        Self { buffer, places: Vec::new(), numbers: Vec::new(), charged: 0 }
    }

    /// Moves what is in the ring here. `false` when nothing could be moved: a Tab is new, and another thread makes a handle.
    pub(crate) fn take(&mut self, ring: &mut Consumer<RingEvent>, recorder: &Recorder) -> bool {
        self.buffer.set_now(recorder.clock().now());
        self.buffer.set_bytes_max(self.charged + recorder.rings_room());
        let Ok(slots) = ring.read_chunk(ring.slots()) else { return false };
        let (first, second) = slots.as_slices();
        let known = first.iter().chain(second).take_while(|event| self.learn(event.tab(), recorder)).count();
        let mut opaque_bytes = 0;
        for event in ring.read_chunk(known).into_iter().flatten() {
            let place = self.places[event.tab() as usize];
            let (time, datum, bytes) = event.into_parts();
            opaque_bytes += bytes;
            self.buffer.offer(place, time, datum);
        }
        recorder.give_back(opaque_bytes);
        let bytes = self.buffer.pending_bytes()
            + self.places.capacity() * size_of::<u32>()
            + self.numbers.len() * PENDING_TAB_BYTES;
        recorder.recharge(mem::replace(&mut self.charged, bytes), bytes);
        known > 0
    }

    /// Whether the Tab is known here from now on.
    #[inline]
    fn learn(&mut self, number: u32, recorder: &Recorder) -> bool {
        match self.places.get(number as usize) {
            Some(&place) if place != UNKNOWN => true,
            Some(_) | None => self.declare(number, recorder),
        }
    }

    #[cold]
    fn declare(&mut self, number: u32, recorder: &Recorder) -> bool {
        let Some(spec) = recorder.tabs().try_spec(number) else { return false };
        if self.places.len() <= number as usize {
            self.places.resize(number as usize + 1, UNKNOWN);
        }
        self.places[number as usize] = self.buffer.declare(spec);
        self.numbers.push(number);
        true
    }

    /// Moves what is here into the Client's buffer.
    pub(crate) fn empty_into(self, buffer: &mut EventBuffer, recorder: &Recorder) {
        buffer.absorb(self.buffer, &self.numbers);
        recorder.recharge(self.charged, 0);
    }

    /// Everything that was recorded into it.
    pub(crate) fn recorded(&self) -> u64 {
        self.buffer.counts().recorded
    }
}
