//! [`Overflow`]: what a recording thread has taken out of its own full ring.
//!
//! A thread that records faster than its rings are drained does the work of the background thread itself, for its own events: it moves
//! them into an [`EventBuffer`] of the ring, where they fold. Once a flush the background thread takes that whole, and
//! merges it into the Client's. So nothing is dropped because a thread is fast, and a thread that is fast pays for it itself.

use rtrb::Consumer;
use taba_core::{ClientId, Registry, Timestamp};

use super::RingEvent;
use crate::buffer::{ByTab, EventBuffer, PENDING_TAB_BYTES, SenderIdentity};
use crate::config::Verified;
use crate::tabs::Tabs;

/// In the table of numbers: the Tab is not known here.
const UNKNOWN: u32 = u32::MAX;

/// Events that a recording thread has taken out of its own full ring.
pub(crate) struct Overflow {
    buffer: EventBuffer,
    /// What `buffer` has not taken yet.
    by_tab: ByTab,
    /// The number that a Tab of the Client has in `buffer`, or [`UNKNOWN`].
    places: Vec<u32>,
    /// The Client's numbers of the Tabs in `buffer`.
    numbers: Vec<u32>,
}

/// What [`Overflow::take`] has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenOut {
    pub(crate) events: usize,
    /// Bytes that they took in addition to their places in the ring.
    pub(crate) opaque_bytes: usize,
}

impl Overflow {
    pub(crate) fn new(client: ClientId, handlers: Registry, config: Verified) -> Self {
        let buffer = EventBuffer::new(SenderIdentity::new(client, 0), handlers, config);
        Self { buffer, by_tab: ByTab::default(), places: Vec::new(), numbers: Vec::new() }
    }

    /// Bytes that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.pending_bytes()
            + self.by_tab.bytes()
            + self.places.capacity() * size_of::<u32>()
            + self.numbers.len() * PENDING_TAB_BYTES
    }

    /// Moves what is in the ring here; `room` is how many more bytes that may take. It ends early at a Tab that is new here, if
    /// another thread makes a handle at this moment.
    pub(crate) fn take(
        &mut self,
        ring: &mut Consumer<RingEvent>,
        tabs: &Tabs,
        now: Timestamp,
        room: usize,
    ) -> TakenOut {
        self.buffer.set_now(now);
        self.buffer.set_bytes_max(self.bytes() + room);
        let Ok(slots) = ring.read_chunk(ring.slots()) else { return TakenOut::default() };
        let (first, second) = slots.as_slices();
        let events = first.iter().chain(second).take_while(|event| self.learn(event.tab(), tabs)).count();
        let mut opaque_bytes = 0;
        for event in ring.read_chunk(events).into_iter().flatten() {
            opaque_bytes +=
                event.offer_to(&mut self.buffer, &mut self.by_tab, |tab| self.places[tab as usize]);
        }
        TakenOut { events, opaque_bytes }
    }

    /// Whether the Tab is known here from now on.
    #[inline]
    fn learn(&mut self, number: u32, tabs: &Tabs) -> bool {
        match self.places.get(number as usize) {
            Some(&place) if place != UNKNOWN => true,
            Some(_) | None => self.declare(number, tabs),
        }
    }

    #[cold]
    fn declare(&mut self, number: u32, tabs: &Tabs) -> bool {
        let Some(spec) = tabs.try_spec(number) else { return false };
        if self.places.len() <= number as usize {
            self.places.resize(number as usize + 1, UNKNOWN);
        }
        self.places[number as usize] = self.buffer.declare(spec);
        self.numbers.push(number);
        true
    }

    /// Moves what is here into the Client's buffer.
    pub(crate) fn empty_into(mut self, buffer: &mut EventBuffer) {
        self.by_tab.empty_into(&mut self.buffer);
        buffer.absorb(self.buffer, &self.numbers);
    }

    /// Everything that was recorded into it.
    pub(crate) fn recorded(&self) -> u64 {
        self.buffer.counts().recorded + self.by_tab.len() as u64
    }
}
