//! [`ByTab`]: numbers of many Tabs, put together by Tab before an [`EventBuffer`] takes them.
//!
//! One event after the other, each of another Tab, is a cache miss or four for each; a run of events of one Tab is taken at once.

use std::mem;

use taba_core::Timestamp;

use super::EventBuffer;

/// Numbers of many Tabs, each with its Tab's number in the buffer.
///
/// # Cost
/// A counting sort: two passes over the events. 40 bytes an event, and 4 for each Tab.
#[derive(Default)]
pub(crate) struct ByTab {
    events: Vec<(u32, Timestamp, f64)>,
    /// By Tab: how many of its events there are, and while they are sorted, where the next one goes. 0 in between.
    places: Vec<usize>,
    /// The Tabs that have events, in the order of their first.
    tabs: Vec<u32>,
    times: Vec<Timestamp>,
    numbers: Vec<f64>,
}

impl ByTab {
    /// So many events are worth sorting, and no more: their columns fit a second-level cache.
    const EVENTS_MAX: usize = 16 * 1024;

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.events.capacity() * size_of::<(u32, Timestamp, f64)>()
            + self.places.capacity() * size_of::<usize>()
            + self.tabs.capacity() * size_of::<u32>()
            + self.times.capacity() * size_of::<Timestamp>()
            + self.numbers.capacity() * size_of::<f64>()
    }

    /// Adds an event; when there are many, `buffer` takes them all.
    #[inline]
    pub(crate) fn push(&mut self, tab: u32, time: Timestamp, number: f64, buffer: &mut EventBuffer) {
        self.events.push((tab, time, number));
        if self.events.len() >= Self::EVENTS_MAX {
            self.empty_into(buffer);
        }
    }

    /// `buffer` takes all events: those of one Tab one after the other, in their order.
    pub(crate) fn empty_into(&mut self, buffer: &mut EventBuffer) {
        for &(tab, ..) in &self.events {
            let place = tab as usize;
            if self.places.len() <= place {
                self.places.resize(place + 1, 0);
            }
            if self.places[place] == 0 {
                self.tabs.push(tab);
            }
            self.places[place] += 1;
        }
        let mut from = 0;
        for &tab in &self.tabs {
            let events = mem::replace(&mut self.places[tab as usize], from);
            from += events;
        }
        self.times.resize(self.events.len(), Timestamp::MIN);
        self.numbers.resize(self.events.len(), 0.0);
        for (tab, time, number) in self.events.drain(..) {
            let place = &mut self.places[tab as usize];
            (self.times[*place], self.numbers[*place]) = (time, number);
            *place += 1;
        }
        let mut from = 0;
        for tab in self.tabs.drain(..) {
            let to = mem::take(&mut self.places[tab as usize]);
            buffer.offer_numbers(tab, &self.times[from..to], &self.numbers[from..to]);
            from = to;
        }
    }
}
