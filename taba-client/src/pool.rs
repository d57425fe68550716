//! [`Pool`]: rings that no thread writes to at the moment.
//!
//! A thread holds one small ring. When that is full it is put here, and the thread takes another; so is the ring of a
//! thread that ends. The background thread reads all rings, wherever their writing ends are. What was here unused for a
//! while is freed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use rtrb::Producer;

use crate::driver::lock;
use crate::recorder::Slot;

/// Flushes that a ring stays here unused before it is freed.
const IDLE_FLUSHES: u64 = 4;

/// The writing end of a ring.
pub(crate) struct Writer {
    pub(crate) ring: Producer<Slot>,
    /// Events that did not fit, since the start; written by the thread that holds the ring only.
    pub(crate) overflowed: Arc<AtomicU64>,
}

/// Rings that no thread writes to at the moment, the longest unused first.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Rings>);

#[derive(Default)]
struct Rings {
    idle: VecDeque<(Writer, u64)>,
    flushes: u64,
}

impl Pool {
    /// Puts a ring here. What is in it stays to be read.
    pub(crate) fn give(&self, writer: Writer) {
        if !writer.ring.is_abandoned()
            && let Some(mut rings) = lock(&self.0)
        {
            let flushes = rings.flushes;
            rings.idle.push_back((writer, flushes));
        }
    }

    /// Takes a ring that is at most half full.
    pub(crate) fn take(&self) -> Option<Writer> {
        let mut rings = lock(&self.0)?;
        let room = |(writer, _): &(Writer, u64)| writer.ring.slots() * 2 >= writer.ring.buffer().capacity();
        // All were read at the same time, so if the oldest are full then all are, or nearly.
        let place = rings.idle.iter().take(4).position(room)?;
        rings.idle.remove(place).map(|(writer, _)| writer)
    }

    /// Once a flush: frees rings that nobody needed for a while.
    pub(crate) fn shrink(&self) {
        let Some(mut rings) = lock(&self.0) else { return };
        rings.flushes += 1;
        let flushes = rings.flushes;
        while rings.idle.front().is_some_and(|(_, since)| since + IDLE_FLUSHES <= flushes) {
            rings.idle.pop_front();
        }
        if rings.idle.is_empty() {
            rings.idle.shrink_to_fit();
        }
    }
}
