//! The rings between recording threads and the background thread: what is in them, and both ends of one.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};
use taba_core::Timestamp;

use crate::config::RING_EVENT_BYTES;

/// One event in a ring.
// PERF: recording costs what moving the ring's memory between two processors costs, so a number takes three words.
pub(crate) enum RingEvent {
    Number { tab: u32, time: Timestamp, number: f64 },
    Opaque { tab: u32, event: Box<BoxedEvent> },
}

/// An event whose value is not a number.
pub(crate) struct BoxedEvent {
    pub(crate) time: Timestamp,
    pub(crate) value: Box<dyn Any + Send>,
    /// Bytes that it takes in addition to its place in the ring.
    pub(crate) bytes: usize,
}

const _: () = assert!(size_of::<RingEvent>() == RING_EVENT_BYTES, "the bounds of rings count on this");

/// The writing end of a ring.
pub(crate) struct RingWriter {
    pub(crate) ring: Producer<RingEvent>,
    /// Events that did not fit, since the start; written by the thread that holds the ring only.
    pub(crate) overflowed: Arc<AtomicU64>,
}

/// The reading end of one thread's ring.
pub(crate) struct RingReader {
    pub(crate) consumer: Consumer<RingEvent>,
    /// Events that did not fit, since the start; written by the recording thread only.
    overflowed: Arc<AtomicU64>,
    overflowed_noted: u64,
}

/// Both ends of a new ring for this many events.
pub(crate) fn new_ring(events: usize) -> (RingWriter, RingReader) {
    let (ring, consumer) = RingBuffer::new(events);
    let overflowed = Arc::new(AtomicU64::new(0));
    let reading = RingReader { consumer, overflowed: Arc::clone(&overflowed), overflowed_noted: 0 };
    (RingWriter { ring, overflowed }, reading)
}

impl RingReader {
    /// Events that did not fit, since this was last asked.
    pub(crate) fn take_overflowed(&mut self) -> u64 {
        let overflowed = self.overflowed.load(Ordering::Relaxed);
        overflowed - std::mem::replace(&mut self.overflowed_noted, overflowed)
    }
}
