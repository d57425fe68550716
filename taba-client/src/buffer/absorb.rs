//! How an [`EventBuffer`] takes everything that another holds.

use std::mem;

use taba_core::ledger::Why;

use super::EventBuffer;
use super::pending::PendingEvents;

/// Bytes of a Tab that is known, beside its events: its entry, and a share of the table.
pub(crate) const PENDING_TAB_BYTES: usize = 2 * size_of::<Option<PendingEvents>>();

impl EventBuffer {
    /// Sets the bound of [`pending_bytes`](Self::pending_bytes), in place of [`Config::pending_bytes_max`](crate::Config::pending_bytes_max).
    pub(crate) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Takes everything that waits in `other`, which never sealed a Batch, and its counts. `numbers` are the numbers here of its
    /// Tabs 0, 1, 2, … What does not fit is dropped and counted.
    pub(crate) fn absorb(&mut self, mut other: Self, numbers: &[u32]) {
        debug_assert!(other.sealed.is_none(), "a batch in flight stays with its buffer");
        for (why, events) in other.counts.dropped.iter() {
            self.note_dropped(why, events);
        }
        for (pending, &number) in mem::take(&mut other.tabs).into_iter().flatten().zip(numbers) {
            self.declare_as(number, pending.spec().clone());
            let events = pending.events();
            self.counts.recorded += events;
            self.counts.pending += events;
            if !pending.is_empty() {
                self.absorb_tab(number, pending);
            }
            self.audit();
        }
        if let Some((fault, times)) = other.fault.take() {
            let before = self.fault.take().map_or(0, |(_, times)| times);
            self.fault = Some((fault, before + times));
        }
    }

    fn absorb_tab(&mut self, tab: u32, mut other: PendingEvents) {
        let bytes_max = |buffer: &Self| buffer.bytes_max(tab).unwrap_or(0);
        if self.bytes + other.bytes() > bytes_max(self) {
            self.make_room();
            if let Err(failed) = other.compact() {
                self.note_failed(tab, failed);
            }
            if self.bytes >= bytes_max(self) {
                return self.drop_pending(other.events());
            }
        }
        let unfolded_max = self.config.tab_events_max;
        self.change(tab, |pending| {
            if pending.room(unfolded_max) < other.unfolded_places() {
                pending.count_equal_now();
                other.count_equal_now();
            }
            Ok(())
        });
        let Some(pending) = self.tabs[tab as usize].as_mut() else { return };
        let excess = other.forget_excess(pending.room(unfolded_max));
        let was_empty = pending.is_empty();
        self.drop_pending(excess);
        self.change(tab, |pending| pending.absorb(other));
        let Some(pending) = self.tabs[tab as usize].as_ref() else { return };
        if was_empty && !pending.is_empty() {
            self.waiting.push_back(tab);
        }
        if pending.is_ripe(&self.config) {
            self.change(tab, PendingEvents::fold);
        }
    }

    fn drop_pending(&mut self, events: u64) {
        self.counts.pending -= events;
        self.counts.dropped.add(Why::Full, events);
    }
}
