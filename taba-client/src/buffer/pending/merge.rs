//! How the pending events of a Tab take those of another thread.

use super::{HandlerFailure, PendingEvents};
use crate::fault::guarded;

impl PendingEvents {
    /// How many more events may wait unfolded under this bound.
    pub(in crate::buffer) fn room(&self, unfolded_max: usize) -> usize {
        if self.handler.is_some() { usize::MAX } else { unfolded_max.saturating_sub(self.times.len()) }
    }

    /// Places that unfolded events take.
    pub(in crate::buffer) fn unfolded_places(&self) -> usize {
        self.times.len()
    }

    /// Forgets so many unfolded events that no more than `room` are left; gives how many.
    pub(in crate::buffer) fn forget_excess(&mut self, room: usize) -> u64 {
        let before = self.unfolded();
        let excess = self.times.len().saturating_sub(room);
        self.forget(excess);
        before - self.unfolded()
    }

    /// Takes everything that waits in another of the same Tab.
    ///
    /// # Errors
    /// [`HandlerFailure`] when the Handler panics, or does not read what it has written.
    pub(in crate::buffer) fn absorb(&mut self, mut other: Self) -> Result<(), HandlerFailure> {
        self.unencodable += other.unencodable;
        self.heap_bytes += other.heap_bytes;
        if !other.counts.is_empty() {
            self.counts.resize(self.times.len(), 1);
            self.counts.append(&mut other.counts);
        }
        self.times.append(&mut other.times);
        self.values.append(other.values);
        match (&mut self.late, other.late) {
            (Some(mine), Some(late)) => mine.absorb(*late)?,
            (mine, late) => *mine = mine.take().or(late),
        }
        let Some(theirs) = other.partial else { return Ok(()) };
        let events = theirs.events + self.partial.as_ref().map_or(0, |mine| mine.events);
        let Some(handler) = self.handler.clone() else {
            return Err(HandlerFailure { events, message: "it has failed in another thread".to_owned() });
        };
        let merged = match self.partial.take() {
            None => Ok(theirs),
            Some(mine) => guarded(|| mine.merge(theirs, handler.as_ref())).and_then(|merged| merged),
        };
        match merged {
            Ok(partial) => self.partial = Some(partial),
            Err(message) => return Err(self.failed(events, message)),
        }
        Ok(())
    }
}
