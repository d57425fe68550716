//! [`Agenda`]: what happens when, on a clock that jumps from one event to the next.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

/// The events to come. Those of one moment happen in the order in which they were put down.
pub(super) struct Agenda<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    now: Duration,
    count: u64,
}

struct Entry<E> {
    at: Duration,
    number: u64,
    event: E,
}

impl<E> Agenda<E> {
    pub(super) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), now: Duration::ZERO, count: 0 }
    }

    /// The time since the start.
    pub(super) const fn now(&self) -> Duration {
        self.now
    }

    /// How many events were put down so far.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Puts an event down; one that lies in the past happens now.
    pub(super) fn at(&mut self, at: Duration, event: E) {
        self.count += 1;
        self.heap.push(Reverse(Entry { at: at.max(self.now), number: self.count, event }));
    }

    /// The next event that happens no later than `until`; the clock is moved to it.
    pub(super) fn next(&mut self, until: Duration) -> Option<E> {
        if self.heap.peek().is_none_or(|Reverse(entry)| entry.at > until) {
            self.now = self.now.max(until);
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for Entry<E> {}
