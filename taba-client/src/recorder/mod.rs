//! [`Recorder`]: the hot path. Never waits, never fails.

mod indexes;
mod thread_rings;

use std::panic::RefUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{OnceLock, Weak};

use taba_core::ledger::Why;
use taba_core::{ClientId, Registry, Timestamp, Value};

use crate::clock::Clock;
use crate::column::Datum;
use crate::config::{RING_EVENT_BYTES, Verified};
use crate::pool::{Pool, PoolSource};
use crate::process::generation;
use crate::ring::{BoxedEvent, Overflow, RingEvent, RingWriter, new_ring};
use crate::tabs::{ReleasedTab, TabOwner, Tabs};

/// Events are recorded.
const OPEN: u8 = 0;
/// As [`OPEN`], but nothing was recorded for a while.
const IDLE: u8 = 1;
/// Events are dropped, and counted.
const CLOSED: u8 = 2;
/// Events are ignored: the recorder of the disabled Client.
const DISABLED: u8 = 3;

/// Where the handles of one Client record.
pub(crate) struct Recorder {
    number: u64,
    index: usize,
    /// One of [`OPEN`], [`IDLE`], [`CLOSED`], [`DISABLED`].
    phase: AtomicU8,
    clock: Clock,
    client: ClientId,
    config: Verified,
    tabs: Tabs,
    owner: OnceLock<Weak<dyn PoolSource>>,
    // PERF: behind a pointer, so that writes here do not evict the fields above from the caches of other threads.
    shared: Box<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Whether the background task was woken to drain the rings, and has not begun.
    hurry: AtomicBool,
    /// Whether the first event after a pause was recorded.
    first: AtomicBool,
    rings_bytes: AtomicUsize,
    opaque_bytes: AtomicUsize,
    /// How often all rings were drained.
    drains: AtomicU64,
    refused: [AtomicU64; Why::ALL.len()],
}

// Handles are used inside `catch_unwind` by applications. Only their own code can panic, the Handlers, under no lock.
impl RefUnwindSafe for Recorder {}

impl Recorder {
    pub(crate) fn new(client: ClientId, clock: Clock, handlers: Registry, config: Verified) -> Self {
        let (number, index) = indexes::take();
        let tabs = Tabs::new(handlers, config.tabs_max);
        let (phase, owner, shared) = (AtomicU8::new(OPEN), OnceLock::new(), Box::default());
        Self { number, index, phase, clock, client, config, tabs, owner, shared }
    }

    /// A recorder that records nothing, and counts nothing.
    pub(crate) fn disabled(client: ClientId) -> Self {
        let recorder = Self::new(client, Clock::system(), Registry::default(), Verified::default());
        recorder.phase.store(DISABLED, Ordering::Relaxed);
        recorder
    }

    /// Sets the Client that owns this recorder; called once.
    pub(crate) fn belongs_to(&self, owner: Weak<dyn PoolSource>) {
        let _ = self.owner.set(owner);
    }

    /// Where a thread puts what it takes out of its own full ring.
    fn new_overflow(&self) -> Overflow {
        Overflow::new(self.client.clone(), self.tabs.handlers().clone(), self.config.clone())
    }

    /// A number that differs between Clients, and between a process and its forked child.
    #[inline]
    fn key(&self) -> u64 {
        self.number.wrapping_add(generation())
    }

    /// In a forked child: resets the counts of what the parent's threads hold.
    pub(crate) fn begin_again(&self) {
        let Shared { hurry, first: _, rings_bytes, opaque_bytes, drains: _, refused } = &*self.shared;
        hurry.store(false, Ordering::Relaxed);
        rings_bytes.store(0, Ordering::Relaxed);
        opaque_bytes.store(0, Ordering::Relaxed);
        refused.iter().for_each(|events| events.store(0, Ordering::Relaxed));
    }

    /// Records a value now.
    #[inline]
    pub(crate) fn record<V: Value>(&self, tab: u32, value: V) {
        self.record_at(tab, self.clock.now(), value);
    }

    /// Records a value.
    #[inline]
    pub(crate) fn record_at<V: Value>(&self, tab: u32, time: Timestamp, value: V) {
        if !value.is_valid() {
            return self.refuse(Why::BadValue);
        }
        let bytes = size_of::<V>() + size_of::<BoxedEvent>() + value.heap_bytes();
        match Datum::of(value) {
            Datum::Number(number) => self.push(RingEvent::Number { tab, time, number }, 0),
            Datum::Reading(number) => self.push(RingEvent::Reading { tab, time, number }, 0),
            Datum::Opaque(value)
                if reserve(&self.shared.opaque_bytes, bytes, self.config.opaque_bytes_max) =>
            {
                self.push(
                    RingEvent::Opaque { tab, event: Box::new(BoxedEvent { time, value, bytes }) },
                    bytes,
                );
            }
            Datum::Opaque(_) => self.refuse(Why::Full),
        }
    }

    #[inline]
    fn push(&self, slot: RingEvent, bytes: usize) {
        match self.phase.load(Ordering::Relaxed) {
            OPEN => {}
            IDLE => self.begin_after_pause(),
            _ => return self.refuse_bytes(Why::Shutdown, bytes),
        }
        match thread_rings::push(self, slot) {
            Some(Ok(())) => {}
            Some(Err(why)) => self.refuse_bytes(why, bytes),
            None => self.refuse_bytes(Why::Shutdown, bytes),
        }
    }

    /// A new ring, if this bound of all rings allows one.
    fn ring(&self, pool: &Pool, bytes_max: usize) -> Option<RingWriter> {
        let events = self.config.ring_events_min;
        if !reserve(&self.shared.rings_bytes, events * RING_EVENT_BYTES, bytes_max) {
            return None;
        }
        if self.is_tight() {
            self.ask_to_hurry();
        }
        let (writer, reading) = new_ring(events);
        pool.add(reading).then_some(writer)
    }

    /// Bytes that rings, and what threads have taken out of theirs, may still take.
    pub(crate) fn rings_room(&self) -> usize {
        self.config.rings_bytes_max.saturating_sub(self.shared.rings_bytes.load(Ordering::Relaxed))
    }

    /// Whether rings take more than half of what they may.
    pub(crate) fn is_tight(&self) -> bool {
        self.rings_room() < self.config.rings_bytes_max / 2
    }

    /// What counts towards the bound of all rings takes `after` bytes instead of `before`.
    pub(crate) fn recharge(&self, before: usize, after: usize) {
        let rings_bytes = &self.shared.rings_bytes;
        if after >= before {
            rings_bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            rings_bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Another ring for a thread whose own is full.
    fn another_ring(&self) -> Option<RingWriter> {
        let owner = self.owner.get()?.upgrade()?;
        // The last quarter is for threads that have no ring at all.
        self.pooled_or_new(owner.pool()?, self.config.rings_bytes_max / 4 * 3)
    }

    /// A pooled ring that is at least half empty, else a new one, else a pooled one with some room.
    fn pooled_or_new(&self, pool: &Pool, bytes_max: usize) -> Option<RingWriter> {
        let events = self.config.ring_events_min;
        let new = || self.ring(pool, bytes_max);
        pool.take(events / 2).or_else(new).or_else(|| pool.take(events / 8))
    }

    /// All rings were drained.
    pub(crate) fn note_drained(&self) {
        self.shared.drains.fetch_add(1, Ordering::Relaxed);
    }

    /// The driver has freed a ring.
    pub(crate) fn free_ring(&self, events: usize) {
        self.shared.rings_bytes.fetch_sub(events * RING_EVENT_BYTES, Ordering::Relaxed);
    }

    /// Values that are not numbers have left the rings.
    pub(crate) fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.shared.opaque_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    #[cold]
    #[inline(never)]
    fn refuse_bytes(&self, why: Why, bytes: usize) {
        self.give_back(bytes);
        self.refuse(why);
    }

    #[cold]
    #[inline(never)]
    fn refuse(&self, why: Why) {
        self.note_refused(why, 1);
    }

    /// Counts events that were dropped before they came to the buffer.
    pub(crate) fn note_refused(&self, why: Why, events: u64) {
        if self.phase.load(Ordering::Relaxed) == DISABLED {
            return;
        }
        self.rouse();
        self.shared.refused[why as usize - 1].fetch_add(events, Ordering::Relaxed);
    }

    /// Refused events since the last call, by reason.
    pub(crate) fn take_refused(&self) -> impl Iterator<Item = (Why, u64)> + '_ {
        self.refused_by(|events| events.swap(0, Ordering::Relaxed))
    }

    /// Refused events that were not taken yet, by reason.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (Why, u64)> + '_ {
        self.refused_by(|events| events.load(Ordering::Relaxed))
    }

    fn refused_by<'a>(
        &'a self,
        read: impl Fn(&AtomicU64) -> u64 + 'a,
    ) -> impl Iterator<Item = (Why, u64)> + 'a {
        let each = Why::ALL.into_iter().map(move |why| (why, read(&self.shared.refused[why as usize - 1])));
        each.filter(|(_, events)| *events > 0)
    }

    /// From now on everything that is recorded is dropped.
    pub(crate) fn close(&self) {
        let closes = |phase| (phase != DISABLED).then_some(CLOSED);
        let _ = self.phase.fetch_update(Ordering::Relaxed, Ordering::Relaxed, closes);
    }

    /// Nothing was recorded for a while: the next event is worth a flush of its own.
    pub(crate) fn note_idle(&self) {
        // Fails when it is closed, and stays so.
        let _ = self.phase.compare_exchange(OPEN, IDLE, Ordering::Relaxed, Ordering::Relaxed);
    }

    #[cold]
    #[inline(never)]
    fn begin_after_pause(&self) {
        if self.phase.compare_exchange(IDLE, OPEN, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.shared.first.store(true, Ordering::Relaxed);
            self.ask_to_hurry();
        }
    }

    /// Something happened that the background task should see, though nothing was recorded.
    pub(crate) fn rouse(&self) {
        if self.phase.load(Ordering::Relaxed) == IDLE {
            self.begin_after_pause();
        }
    }

    /// Whether the first event after a pause was recorded, since this was last asked.
    pub(crate) fn take_first(&self) -> bool {
        self.shared.first.swap(false, Ordering::Relaxed)
    }

    /// Wakes the background task to drain the rings, unless it has been woken.
    fn ask_to_hurry(&self) {
        let hurry = &self.shared.hurry;
        if !hurry.load(Ordering::Relaxed) && !hurry.swap(true, Ordering::Relaxed) {
            if let Some(owner) = self.owner.get().and_then(Weak::upgrade) {
                owner.wake();
            }
        }
    }

    /// The rings are about to be drained: from now on the task is to be woken again. Whether it had been.
    pub(crate) fn begin_drain(&self) -> bool {
        self.shared.hurry.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn client(&self) -> &ClientId {
        &self.client
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn tabs(&self) -> &Tabs {
        &self.tabs
    }
}

impl TabOwner for Recorder {
    fn release(&self, tab: ReleasedTab) {
        if self.phase.load(Ordering::Relaxed) != DISABLED {
            self.tabs.release(tab);
            self.rouse();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // No handle is left, so no thread looks for a ring at this index again.
        indexes::give_back(self.index);
    }
}

/// Takes `bytes` under the bound, if they fit.
fn reserve(held: &AtomicUsize, bytes: usize, bytes_max: usize) -> bool {
    let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= bytes_max);
    held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Verified;

    #[test]
    fn the_first_event_after_a_pause_asks_for_a_flush_and_no_other_does() {
        let id = ClientId::new("web-01").unwrap();
        let recorder = Recorder::new(id, Clock::system(), Registry::default(), Verified::default());
        let asked = || (recorder.begin_drain(), recorder.take_first());
        recorder.record(0, 1.0);
        asked();
        recorder.note_idle();
        assert_eq!(asked(), (false, false));
        recorder.record(0, 1.0);
        assert_eq!(asked(), (true, true));
        recorder.record(0, 1.0);
        assert!(!asked().1);
        recorder.close();
        recorder.note_idle();
        recorder.record(0, 1.0);
        assert!(!asked().1);
        assert!(recorder.refused().any(|refused| refused == (Why::Shutdown, 4)), "it has no Client");
    }
}
