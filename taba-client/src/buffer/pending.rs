//! [`Pending`]: what waits to be sent of one Tab: events as they were recorded, and a State into which others have been
//! folded.

use std::sync::Arc;

use taba_core::limits::{BLOCK_BYTES_MAX, BLOCK_EVENTS_MAX};
use taba_core::wire::{Block, Content, column};
use taba_core::{AnyHandler, AnyState, ClientId, Registry, Timestamp};

use super::column::{Column, Datum};
use crate::tab::TabSpec;

/// Events that are gathered before they are folded into a State that is there already: a column of this many is in
/// the first-level cache, and long enough to be folded at the Handler's full speed.
const FOLD_EVENTS: usize = 256;
/// Bytes of a Block's payload: what its bound leaves beside the longest names and all numbers.
const PAYLOAD_BYTES_MAX: usize = BLOCK_BYTES_MAX - 2048;
/// What a State takes in memory for each byte that it takes encoded, about, from what the standard types measure.
const STATE_BYTES_PER_ENCODED: usize = 4;
/// What a State takes in any case.
const STATE_BYTES_MIN: usize = 256;

/// What waits to be sent of one Tab.
pub(super) struct Pending {
    spec: TabSpec,
    /// Who can fold it; `None` when the events have to travel as they are.
    handler: Option<Arc<dyn AnyHandler>>,
    times: Vec<Timestamp>,
    values: Column,
    values_bytes: usize,
    partial: Option<Partial>,
}

/// A State that holds some of the events.
struct Partial {
    state: AnyState,
    events: u64,
    earliest: Timestamp,
    latest: Timestamp,
    bytes: usize,
    /// How many events it holds when it is measured again.
    measure_at: u64,
}

/// What one cut took out of a [`Pending`].
pub(super) enum Cut {
    /// There was nothing.
    Nothing,
    /// A Block, to be sent.
    Block(Block),
    /// Events whose State is larger than its Handler says and any Block may be.
    Oversized(u64),
}

impl Pending {
    pub(super) fn new(spec: TabSpec, handlers: &Registry) -> Self {
        let handler = handlers.get(spec.tab_type().as_str()).filter(|handler| {
            spec.fits(handler.as_ref()).is_ok() && handler.encoded_bytes_max() <= PAYLOAD_BYTES_MAX
        });
        let (handler, values) = (handler.cloned(), spec.column());
        Self { spec, handler, times: Vec::new(), values, values_bytes: 0, partial: None }
    }

    /// Events that wait, counted again.
    #[cfg(test)]
    pub(super) fn events(&self) -> u64 {
        self.times.len() as u64 + self.partial.as_ref().map_or(0, |partial| partial.events)
    }

    /// Bytes that they take, about.
    pub(super) fn bytes(&self) -> usize {
        let partial = self.partial.as_ref().map_or(0, |partial| partial.bytes);
        self.times.len() * size_of::<Timestamp>() + self.values_bytes + partial
    }

    pub(super) fn is_empty(&self) -> bool {
        self.times.is_empty() && self.partial.is_none()
    }

    /// Whether more events need no more memory than a State's growth.
    pub(super) fn has_state(&self) -> bool {
        self.partial.is_some()
    }

    /// Whether there is room for one more event under this bound of unfolded ones.
    pub(super) fn has_room(&self, unfolded_max: usize) -> bool {
        self.handler.is_some() || self.times.len() < unfolded_max
    }

    /// Takes one event; gives how many bytes it takes, or `None` when its value cannot be sent.
    #[inline]
    pub(super) fn push(&mut self, time: Timestamp, datum: Datum) -> Option<usize> {
        let bytes = self.values.push(datum)?;
        self.values_bytes += bytes;
        self.times.push(time);
        Some(bytes + size_of::<Timestamp>())
    }

    /// Whether so many events have gathered that they should be folded.
    #[inline]
    pub(super) fn is_ripe(&self, raw_events_max: usize) -> bool {
        let unfolded_max = if self.partial.is_some() { FOLD_EVENTS } else { raw_events_max };
        self.times.len() > unfolded_max && self.handler.is_some()
    }

    /// Folds the events that have gathered.
    pub(super) fn fold(&mut self) {
        let Some(handler) = &self.handler else { return };
        let (Some(&earliest), Some(&latest)) = (self.times.iter().min(), self.times.iter().max()) else {
            return;
        };
        let partial = self.partial.get_or_insert_with(|| Partial {
            state: handler.empty_state(),
            events: 0,
            earliest,
            latest,
            bytes: 0,
            measure_at: 0,
        });
        if handler.fold_values(&mut partial.state, &self.times, self.values.values()).is_err() {
            // The constructor has asked, so this Handler changes its mind; the events can still travel as they are.
            self.partial.take_if(|partial| partial.events == 0);
            self.handler.take_if(|_| self.partial.is_none());
            return;
        }
        partial.events += self.times.len() as u64;
        partial.earliest = partial.earliest.min(earliest);
        partial.latest = partial.latest.max(latest);
        if partial.events >= partial.measure_at {
            // A State grows at most with its events, so measuring at every doubling is never off by more than two.
            let encoded = handler.encode(&partial.state).len();
            partial.bytes = STATE_BYTES_MIN + STATE_BYTES_PER_ENCODED * encoded;
            partial.measure_at = partial.events * 2;
        }
        self.forget(self.times.len());
    }

    /// Takes out one Block's worth.
    pub(super) fn cut(&mut self, client: &ClientId, raw_events_max: usize) -> Cut {
        if self.partial.is_some() || self.times.len() > raw_events_max {
            self.fold();
        }
        let (Some(partial), Some(handler)) = (self.partial.take(), &self.handler) else {
            return self.cut_raw(client);
        };
        let bytes = handler.encode(&partial.state);
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Cut::Oversized(partial.events);
        }
        let content = Content::State { version: handler.version(), bytes: bytes.into() };
        let block = self.block(client, partial.events, (partial.earliest, partial.latest), content);
        self.release();
        Cut::Block(block)
    }

    /// Takes out as many unfolded events as fit one Block.
    fn cut_raw(&mut self, client: &ClientId) -> Cut {
        let mut count = self.times.len().min(BLOCK_EVENTS_MAX);
        let mut payload = Vec::new();
        loop {
            let times = &self.times[..count];
            let (Some(&earliest), Some(&latest)) = (times.iter().min(), times.iter().max()) else {
                return Cut::Nothing;
            };
            payload.clear();
            column::put_times(times, &mut payload);
            self.values.encode(0..count, &mut payload);
            // One value was measured when it came, so one always fits.
            if payload.len() <= PAYLOAD_BYTES_MAX || count == 1 {
                let content = Content::Events(payload.into());
                let block = self.block(client, count as u64, (earliest, latest), content);
                self.forget(count);
                self.release();
                return Cut::Block(block);
            }
            count /= 2;
        }
    }

    fn block(
        &self,
        client: &ClientId,
        events: u64,
        times: (Timestamp, Timestamp),
        content: Content,
    ) -> Block {
        Block {
            tab: self.spec.name().clone(),
            client: client.clone(),
            tab_type: self.spec.tab_type().clone(),
            events,
            earliest: times.0,
            latest: times.1,
            content,
        }
    }

    /// Forgets the first `count` unfolded events.
    fn forget(&mut self, count: usize) {
        // What is left is charged in proportion: exact when nothing is left, as it nearly always is.
        let left = self.times.len() - count;
        self.values_bytes =
            (self.values_bytes as u128 * left as u128 / self.times.len().max(1) as u128) as usize;
        self.times.drain(..count);
        self.values.forget(count);
    }

    /// Gives back the memory of a column that had grown large; most Tabs need theirs again at once.
    fn release(&mut self) {
        if self.times.is_empty() && self.times.capacity() > 2 * FOLD_EVENTS {
            self.times.shrink_to_fit();
            self.values.release();
        }
    }
}
