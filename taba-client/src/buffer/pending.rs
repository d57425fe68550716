//! [`PendingEvents`]: the pending events of one Tab: raw events, and a State into which others were folded.

mod counted;
#[cfg(any(test, feature = "driver"))]
mod merge;
mod partial;

use std::sync::Arc;

use taba_core::limits::{BLOCK_BYTES_MAX, BLOCK_EVENTS_MAX};
use taba_core::wire::{Block, Content, column};
use taba_core::{AnyHandler, ClientId, Registry, Timestamp};

use crate::column::{Column, Datum, Unsendable};
use crate::config::Config;
use crate::fault::guarded;
use crate::tab::TabSpec;

use partial::{PartialForm, PartialState};

/// Events collected before they are folded into an existing State: a column of this many fits the first-level cache,
/// and is long enough for the Handler's full speed.
const FOLD_EVENTS: usize = 128;
/// Maximum bytes of a Block's payload: its bound without the longest names and all numbers.
const PAYLOAD_BYTES_MAX: usize = BLOCK_BYTES_MAX - 2048;

/// Unfolded events that are worth looking for equal ones.
const COUNT_FROM: usize = 1024;
/// Bytes of unfolded events that are worth a State when memory is short.
const FOLD_BYTES: usize = 4 * 1024;

/// The pending events of one Tab.
pub(super) struct PendingEvents {
    spec: TabSpec,
    /// The Handler that folds it; `None` when events are sent unfolded.
    handler: Option<Arc<dyn AnyHandler>>,
    times: Vec<Timestamp>,
    values: Column,
    /// How many events each of the first times and values stands for; each of the others stands for one. Only without a Handler.
    counts: Vec<u64>,
    /// How many times and values there are when equal ones are counted again.
    count_at: usize,
    /// Heap bytes of the values.
    heap_bytes: usize,
    partial: Option<PartialState>,
    /// Events whose values could not be encoded.
    pub(super) unencodable: u64,
    /// Events too far in the future to be folded with others: a Server changes their time, one by one.
    late: Option<Box<PendingEvents>>,
}

/// The result of one cut of [`PendingEvents`].
pub(super) enum TabCut {
    /// No events.
    Nothing,
    /// A Block to send.
    Block(Block),
    /// Events whose State exceeds its Handler's limit and that of a Block.
    Oversized(u64),
}

/// A Handler failed. Its Tab's events are sent unfolded from now on.
#[derive(Debug)]
pub(super) struct HandlerFailure {
    /// Events in its State, which are lost.
    pub(super) events: u64,
    /// The message.
    pub(super) message: String,
}

impl PendingEvents {
    pub(super) fn new(spec: TabSpec, handlers: &Registry) -> Self {
        let fits = |handler: &&Arc<dyn AnyHandler>| {
            let small = || handler.encoded_bytes_max() <= PAYLOAD_BYTES_MAX;
            guarded(|| spec.fits(handler.as_ref()).is_ok() && small()).unwrap_or(false)
        };
        let handler = handlers.get(spec.tab_type().as_str()).filter(fits).cloned();
        let values = spec.column();
        let (times, counts, count_at) = (Vec::new(), Vec::new(), COUNT_FROM);
        let (heap_bytes, partial, unencodable, late) = (0, None, 0, None);
        Self { spec, handler, times, values, counts, count_at, heap_bytes, partial, unencodable, late }
    }

    pub(super) fn spec(&self) -> &TabSpec {
        &self.spec
    }

    /// Events that wait.
    #[cfg(any(test, feature = "driver"))]
    pub(super) fn events(&self) -> u64 {
        let late = self.late.as_ref().map_or(0, |late| late.events());
        self.unfolded() + self.partial.as_ref().map_or(0, |partial| partial.events) + late
    }

    /// Bytes that they take, and the room for more that is kept, about.
    pub(super) fn bytes(&self) -> usize {
        let partial = self.partial.as_ref().map_or(0, |partial| partial.bytes);
        let late = self.late.as_ref().map_or(0, |late| late.bytes());
        self.column_bytes() + self.heap_bytes + partial + late
    }

    fn column_bytes(&self) -> usize {
        self.times.capacity() * size_of::<Timestamp>()
            + self.values.allocated()
            + self.counts.capacity() * size_of::<u64>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.has_nothing_near() && self.late.is_none()
    }

    fn has_nothing_near(&self) -> bool {
        self.times.is_empty() && self.partial.is_none()
    }

    /// Whether more events need no more memory than a State's growth.
    pub(super) fn has_state(&self) -> bool {
        self.partial.is_some()
    }

    /// Whether there is room for one more event under this bound of unfolded ones. What is late is never folded.
    pub(super) fn has_room(&self, unfolded_max: usize, is_late: bool) -> bool {
        match &self.late {
            Some(late) if is_late => late.times.len() < unfolded_max,
            Some(_) | None => self.handler.is_some() || self.times.len() < unfolded_max,
        }
    }

    /// Takes one event; gives how many bytes more that takes.
    ///
    /// # Errors
    /// [`Unsendable`], and the event is dropped.
    #[inline]
    pub(super) fn push(&mut self, time: Timestamp, datum: Datum, is_late: bool) -> Result<usize, Unsendable> {
        if is_late && self.handler.is_some() {
            return self.push_late(time, datum);
        }
        let full = self.times.len() == self.times.capacity();
        let before = if full { self.column_bytes() } else { 0 };
        let heap = self.values.push(datum)?;
        self.heap_bytes += heap;
        self.times.push(time);
        // Both columns have had the same events, so they grow at the same time.
        Ok(heap + if full { self.column_bytes() - before } else { 0 })
    }

    /// Takes the first of these numbers, as far as they are ordinary, and not later than `believed`: until there are enough to fold, or
    /// no room is left; says how many.
    #[cfg(any(test, feature = "driver"))]
    pub(super) fn push_run(
        &mut self,
        times: &[Timestamp],
        numbers: &[f64],
        believed: Timestamp,
        config: &Config,
        bytes_max: usize,
    ) -> usize {
        let unfolded_max = self.unfolded_max(config);
        let Column::Numbers(column) = &mut self.values else { return 0 };
        let places = (unfolded_max + 1).saturating_sub(self.times.len());
        let most = places.min(bytes_max.div_ceil(2 * size_of::<f64>()));
        let events = times.iter().zip(numbers).take(most);
        let taken = events.take_while(|(time, number)| **time <= believed && number.is_finite()).count();
        self.times.extend_from_slice(&times[..taken]);
        column.extend_from_slice(&numbers[..taken]);
        taken
    }

    #[cold]
    fn push_late(&mut self, time: Timestamp, datum: Datum) -> Result<usize, Unsendable> {
        let mut late =
            self.late.take().unwrap_or_else(|| Box::new(Self::new(self.spec.clone(), &Registry::default())));
        let bytes = late.push(time, datum, false);
        self.late = Some(late).filter(|late| !late.is_empty());
        bytes
    }

    /// Whether enough events have gathered to fold them, or where they cannot be, to count equal ones.
    #[inline]
    pub(super) fn is_ripe(&self, config: &Config) -> bool {
        self.times.len() > self.unfolded_max(config)
    }

    /// How many events may wait unfolded.
    #[inline]
    fn unfolded_max(&self, config: &Config) -> usize {
        match &self.handler {
            Some(_) if self.partial.is_some() => FOLD_EVENTS - 1,
            Some(_) => config.raw_events_max,
            None => self.count_at.min(config.tab_events_max) - 1,
        }
    }

    /// Folds the events that have gathered; where they cannot be, counts equal ones as one.
    ///
    /// # Errors
    /// [`HandlerFailure`] when the Handler panics, or does not read what it has written. The events that were to be folded are
    /// still there.
    pub(super) fn fold(&mut self) -> Result<(), HandlerFailure> {
        let Some(handler) = self.handler.clone() else {
            self.count_equal_now();
            return Ok(());
        };
        let (Some(&earliest), Some(&latest)) = (self.times.iter().min(), self.times.iter().max()) else {
            return Ok(());
        };
        let partial = self.partial.take().unwrap_or_else(|| PartialState::empty(earliest));
        let events = partial.events;
        let (times, values, unfolded) = (&self.times, &self.values, self.times.len() as u64);
        let folded = guarded(|| {
            let mut state = partial.form.into_state(events, handler.as_ref())?;
            handler.fold_values(&mut state, times, values.values()).map_err(|error| error.to_string())?;
            let mut partial = PartialState { form: PartialForm::Live(state), ..partial };
            partial.events += unfolded;
            partial.earliest = partial.earliest.min(earliest);
            partial.latest = partial.latest.max(latest);
            partial.measure(handler.as_ref());
            Ok(partial)
        });
        match folded.and_then(|folded| folded) {
            Ok(partial) => self.partial = Some(partial),
            Err(message) => return Err(self.failed(events, message)),
        }
        self.forget(self.times.len());
        Ok(())
    }

    /// Takes less memory: folds what has gathered, encodes the State, keeps no room.
    ///
    /// # Errors
    /// As [`fold`](Self::fold).
    pub(super) fn compact(&mut self) -> Result<(), HandlerFailure> {
        if self.handler.is_some() && (self.has_state() || self.column_bytes() + self.heap_bytes > FOLD_BYTES)
        {
            self.fold()?;
        }
        if let (Some(partial), Some(handler)) = (self.partial.take(), &self.handler) {
            let events = partial.events;
            match guarded(|| partial.pack(handler.as_ref())) {
                Ok(partial) => self.partial = Some(partial),
                Err(message) => return Err(self.failed(events, message)),
            }
        }
        self.release_room();
        Ok(())
    }

    fn failed(&mut self, events: u64, message: String) -> HandlerFailure {
        self.handler = None;
        HandlerFailure { events, message }
    }

    /// Takes out one Block's worth.
    ///
    /// # Errors
    /// As [`fold`](Self::fold); what has not been lost can be cut again.
    pub(super) fn cut(&mut self, client: &ClientId, raw_events_max: usize) -> Result<TabCut, HandlerFailure> {
        if self.has_nothing_near() {
            let Some(late) = &mut self.late else { return Ok(TabCut::Nothing) };
            let cut = late.cut_raw(client);
            self.late.take_if(|late| late.is_empty());
            return cut;
        }
        if self.handler.is_some() && (self.partial.is_some() || self.times.len() > raw_events_max) {
            self.fold()?;
        }
        let (Some(partial), Some(handler)) = (self.partial.take(), &self.handler) else {
            return self.cut_raw(client);
        };
        let PartialState { events, earliest, latest, form, .. } = partial;
        let encoded = guarded(|| match form {
            PartialForm::Live(state) => handler.encode(&state),
            PartialForm::Packed(bytes) => bytes,
        });
        let bytes = match encoded {
            Ok(bytes) => bytes,
            Err(message) => return Err(self.failed(events, message)),
        };
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Ok(TabCut::Oversized(events));
        }
        let content = Content::State { version: handler.version(), bytes: bytes.into() };
        let block = self.block(client, events, (earliest, latest), content);
        self.release();
        Ok(TabCut::Block(block))
    }

    /// Takes out as many unfolded events as fit one Block.
    fn cut_raw(&mut self, client: &ClientId) -> Result<TabCut, HandlerFailure> {
        if !self.counts.is_empty() {
            return self.cut_counted(client);
        }
        let mut count = self.times.len().min(BLOCK_EVENTS_MAX);
        let mut payload = Vec::new();
        loop {
            let times = &self.times[..count];
            let (Some(&earliest), Some(&latest)) = (times.iter().min(), times.iter().max()) else {
                return Ok(TabCut::Nothing);
            };
            payload.clear();
            column::put_times(times, &mut payload);
            if let Err(message) = guarded(|| self.values.encode(0..count, &mut payload)) {
                // Each was encoded when it came, so its code does not do the same twice.
                self.forget(count);
                return Err(HandlerFailure { events: count as u64, message });
            }
            // One value was measured when it came, so one always fits.
            if payload.len() <= PAYLOAD_BYTES_MAX || count == 1 {
                let content = Content::Events(payload.into());
                let block = self.block(client, count as u64, (earliest, latest), content);
                self.forget(count);
                self.release();
                return Ok(TabCut::Block(block));
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
        Block::new(
            self.spec.name().clone(),
            client.clone(),
            self.spec.tab_type().clone(),
            events,
            times.0..=times.1,
            content,
        )
    }

    /// Forgets the first `count` unfolded events.
    fn forget(&mut self, count: usize) {
        // What is left is charged in proportion: exact when nothing is left, as it nearly always is.
        let left = self.times.len() - count;
        self.heap_bytes = (self.heap_bytes as u128 * left as u128 / self.times.len().max(1) as u128) as usize;
        self.times.drain(..count);
        self.counts.drain(..count.min(self.counts.len()));
        self.values.forget(count);
    }

    /// Gives back the memory of a column that had grown large; most Tabs need theirs again at once.
    fn release(&mut self) {
        if self.times.is_empty() && self.times.capacity() > 2 * FOLD_EVENTS {
            self.release_room();
        }
    }

    /// Gives back the memory that the columns hold for more events.
    pub(super) fn release_room(&mut self) {
        self.times.shrink_to_fit();
        self.values.release();
        self.counts.shrink_to_fit();
    }
}
