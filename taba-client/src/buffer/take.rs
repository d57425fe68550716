//! How a [`EventBuffer`] takes an event: its bounds, what it does when memory is short, and what it does when the
//! application's own code fails.

use taba_core::Timestamp;
use taba_core::ledger::Why;

use super::EventBuffer;
use super::pending::{HandlerFailure, PendingEvents};
use crate::column::{Datum, Unsendable};
use crate::fault::ApplicationFault;

impl EventBuffer {
    #[inline]
    pub(super) fn take(&mut self, tab: u32, time: Timestamp, datum: Datum) -> Result<(), Why> {
        let bytes_max = self.bytes_max(tab).ok_or(Why::TooManyTabs)?;
        if self.bytes >= bytes_max {
            self.make_room();
            // Making room may have given it a State.
            if self.bytes >= self.bytes_max(tab).unwrap_or(0) {
                return Err(Why::Full);
            }
        }
        let pending = self.tabs[tab as usize].as_mut().expect("it has a bound, so it is known");
        let is_late = time > self.believed;
        if !pending.has_room(self.config.tab_events_max, is_late) {
            return Err(Why::Full);
        }
        let was_empty = pending.is_empty();
        match pending.push(time, datum, is_late) {
            Ok(bytes) => self.bytes += bytes,
            Err(unsendable) => {
                self.note_unsendable(tab, unsendable);
                return Err(Why::BadValue);
            }
        }
        if was_empty {
            self.waiting.push_back(tab);
        }
        if pending.is_ripe(&self.config) {
            self.change(tab, PendingEvents::fold);
        }
        Ok(())
    }

    /// Takes the first of these events of a Tab, as many as come to no bound; says how many.
    #[cfg(any(test, feature = "driver"))]
    pub(super) fn take_run(&mut self, tab: u32, times: &[Timestamp], numbers: &[f64]) -> usize {
        let Some(bytes_max) = self.bytes_max(tab).filter(|max| self.bytes < *max) else { return 0 };
        let Some(pending) = self.tabs[tab as usize].as_mut() else { return 0 };
        let (before, was_empty) = (pending.bytes(), pending.is_empty());
        let taken = pending.push_run(times, numbers, self.believed, &self.config, bytes_max - self.bytes);
        self.bytes = self.bytes + pending.bytes() - before;
        if was_empty && taken > 0 {
            self.waiting.push_back(tab);
        }
        if pending.is_ripe(&self.config) {
            self.change(tab, PendingEvents::fold);
        }
        taken
    }

    /// Bytes that may wait before an event of this Tab is taken: the last quarter is for the growth of States that are
    /// there. `None` for a Tab that is not known.
    #[inline]
    pub(super) fn bytes_max(&self, tab: u32) -> Option<usize> {
        let pending = self.tabs.get(tab as usize)?.as_ref()?;
        let max = self.bytes_max;
        Some(if pending.has_state() { max } else { max / 4 * 3 })
    }

    /// Makes what waits take less memory, one Tab after the other, until there is some room.
    #[cold]
    #[inline(never)]
    pub(super) fn make_room(&mut self) {
        if self.bytes < self.compact_from {
            return;
        }
        let wanted = self.bytes_max / 8 * 5;
        for _ in 0..self.tabs.len() {
            if self.bytes <= wanted {
                return;
            }
            let tab = self.compact_next % self.tabs.len();
            self.compact_next = tab + 1;
            #[cfg(test)]
            (self.compactions += 1);
            self.change(tab as u32, PendingEvents::compact);
        }
        self.compact_from = self.bytes + self.bytes_max / 16;
    }

    /// Does something with a Tab's pending events that runs its Handler.
    pub(super) fn change(
        &mut self,
        tab: u32,
        change: impl FnOnce(&mut PendingEvents) -> Result<(), HandlerFailure>,
    ) {
        let Some(pending) = self.tabs[tab as usize].as_mut() else { return };
        let before = pending.bytes();
        let changed = change(pending);
        self.bytes = self.bytes + pending.bytes() - before;
        if let Err(failed) = changed {
            self.note_failed(tab, failed);
        }
    }

    /// A Handler failed: the events in its State are dropped.
    pub(super) fn note_failed(&mut self, tab: u32, failed: HandlerFailure) {
        let HandlerFailure { events, message } = failed;
        self.counts.pending -= events;
        self.counts.dropped.add(Why::Undecodable, events);
        self.note_fault(tab, Why::Undecodable, events, message);
    }

    /// A value cannot be sent: its event is dropped. The first of a Tab that has no encoding is a fault to be told.
    #[cold]
    fn note_unsendable(&mut self, tab: u32, unsendable: Unsendable) {
        if let Unsendable::Unencodable(message) = unsendable {
            let Some(pending) = self.tabs[tab as usize].as_mut() else { return };
            pending.unencodable += 1;
            let events = pending.unencodable;
            if events == 1 || self.fault.is_none() {
                self.note_fault(tab, Why::BadValue, events, message);
            }
        }
    }

    fn note_fault(&mut self, tab: u32, why: Why, events: u64, message: String) {
        let Some(spec) = self.tabs[tab as usize].as_ref().map(PendingEvents::spec) else { return };
        let fault = ApplicationFault {
            tab: spec.name().clone(),
            tab_type: spec.tab_type().clone(),
            why,
            events,
            message,
        };
        let times = self.fault.take().map_or(0, |(_, times)| times);
        self.fault = Some((fault, times + 1));
    }
}
