//! The rings between recording threads and the background thread: what is in them, and both ends of one.

mod overflow;

use std::any::Any;
use std::sync::{Arc, Mutex, Weak};

use rtrb::{Consumer, Producer, RingBuffer};
use taba_core::Timestamp;

use crate::buffer::{ByTab, EventBuffer};
use crate::column::Datum;
use crate::config::RING_EVENT_BYTES;

pub(crate) use overflow::Overflow;

/// One event in a ring.
// PERF: recording costs what moving the ring's memory between two processors costs, so a number takes three words.
pub(crate) enum RingEvent {
    Number {
        tab: u32,
        time: Timestamp,
        number: f64,
    },
    /// A [`Reading`](taba_core::Reading) that is a number.
    Reading {
        tab: u32,
        time: Timestamp,
        number: f64,
    },
    Opaque {
        tab: u32,
        event: Box<BoxedEvent>,
    },
}

/// An event whose value is not a number.
pub(crate) struct BoxedEvent {
    pub(crate) time: Timestamp,
    pub(crate) value: Box<dyn Any + Send>,
    /// Bytes that it takes in addition to its place in the ring.
    pub(crate) bytes: usize,
}

const _: () = assert!(size_of::<RingEvent>() == RING_EVENT_BYTES, "the bounds of rings count on this");

impl RingEvent {
    #[inline]
    pub(crate) fn tab(&self) -> u32 {
        match self {
            Self::Number { tab, .. } | Self::Reading { tab, .. } | Self::Opaque { tab, .. } => *tab,
        }
    }

    /// Gives it to a buffer, where its Tab has the number `tab_of`; numbers by way of `by_tab`. How many bytes it took in addition to its
    /// place in the ring.
    #[inline]
    pub(crate) fn offer_to(
        self,
        buffer: &mut EventBuffer,
        by_tab: &mut ByTab,
        tab_of: impl Fn(u32) -> u32,
    ) -> usize {
        let tab = tab_of(self.tab());
        match self {
            Self::Number { time, number, .. } => by_tab.push(tab, time, number, buffer),
            Self::Reading { time, number, .. } => buffer.offer(tab, time, Datum::Reading(number)),
            Self::Opaque { event, .. } => {
                let BoxedEvent { time, value, bytes } = *event;
                buffer.offer(tab, time, Datum::Opaque(value));
                return bytes;
            }
        }
        0
    }
}

/// The writing end of a ring.
pub(crate) struct RingWriter {
    pub(crate) ring: Producer<RingEvent>,
    /// The reading end, for a thread that finds the ring full.
    pub(crate) content: Weak<Mutex<RingContent>>,
}

/// The reading end of a ring. The background thread owns it; each of the two threads reads while it holds the lock.
pub(crate) struct RingContent {
    pub(crate) consumer: Consumer<RingEvent>,
    /// What the recording thread has taken out of the full ring. It is older than what is in the ring.
    pub(crate) overflow: Option<Box<Overflow>>,
}

/// Both ends of a new ring for this many events.
pub(crate) fn new_ring(events: usize) -> (RingWriter, Arc<Mutex<RingContent>>) {
    let (ring, consumer) = RingBuffer::new(events);
    let content = Arc::new(Mutex::new(RingContent { consumer, overflow: None }));
    (RingWriter { ring, content: Arc::downgrade(&content) }, content)
}
