//! [`Pool`]: rings that no thread writes to at the moment, and where new ones go.
//!
//! A thread holds one small ring. When that is full it is put here, and the thread takes another; so is the ring of a
//! thread that ends. The background thread reads all rings, wherever their writing ends are. What was here unused for a
//! while is freed.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::lock::lock;
use crate::ring::{RingContent, RingWriter};

/// How long a ring stays here unused before it is freed.
const IDLE: Duration = Duration::from_secs(1);

/// Rings of one Client in one process that no thread writes to at the moment, the longest unused first.
pub(crate) struct Pool {
    rings: Mutex<IdleRings>,
    /// To the background thread, which reads them all.
    new: Sender<Arc<Mutex<RingContent>>>,
    /// [`IDLE`] in flushes.
    idle_flushes: u64,
}

/// Gives the [`Pool`] of this process: a forked child has another than its parent.
pub(crate) trait PoolSource: Send + Sync {
    /// `None` when nothing can be recorded.
    fn pool(&self) -> Option<&Arc<Pool>>;
    /// Wakes the background task of this process, if there is one.
    fn wake(&self);
}

#[derive(Default)]
struct IdleRings {
    idle: VecDeque<(RingWriter, u64)>,
    flushes: u64,
}

impl Pool {
    /// An empty pool of a Client that flushes at this interval. New rings are sent to their reader through `new`.
    pub(crate) fn new(flush_interval: Duration, new: Sender<Arc<Mutex<RingContent>>>) -> Self {
        let idle_flushes = IDLE.as_millis().div_ceil(flush_interval.as_millis().max(1));
        Self { rings: Mutex::default(), new, idle_flushes: idle_flushes as u64 }
    }

    /// Hands a new ring to the background thread. `false` when that has ended.
    pub(crate) fn add(&self, ring: Arc<Mutex<RingContent>>) -> bool {
        self.new.send(ring).is_ok()
    }

    /// Puts a ring back. Events in it are still read.
    pub(crate) fn give(&self, writer: RingWriter) {
        if writer.ring.is_abandoned() {
            return;
        }
        if let Some(mut rings) = lock(&self.rings) {
            let flushes = rings.flushes;
            rings.idle.push_back((writer, flushes));
        }
    }

    /// Takes a ring with room for this many events.
    pub(crate) fn take(&self, events: usize) -> Option<RingWriter> {
        let mut rings = lock(&self.rings)?;
        let room = |(writer, _): &(RingWriter, u64)| writer.ring.slots() >= events;
        // All are read at the same time and taken in turn, so if the oldest have no room then hardly any has.
        let place = rings.idle.iter().take(4).position(room)?;
        rings.idle.remove(place).map(|(writer, _)| writer)
    }

    /// Once a flush: frees rings that were unused for a while.
    pub(crate) fn shrink(&self) {
        let Some(mut rings) = lock(&self.rings) else { return };
        rings.flushes += 1;
        let flushes = rings.flushes;
        while rings.idle.front().is_some_and(|(_, since)| since + self.idle_flushes < flushes) {
            rings.idle.pop_front();
        }
        if rings.idle.is_empty() {
            rings.idle.shrink_to_fit();
        }
    }
}
