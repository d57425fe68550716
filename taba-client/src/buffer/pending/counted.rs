//! Equal events that cannot be folded are counted: a thread that counts ones without pause records one value thousands of
//! times within one tick of the clock. Such a column is short in memory and on the wire, and no event is lost for being one of many.

use taba_core::limits::BLOCK_EVENTS_MAX;
use taba_core::wire::{Content, Value, column};
use taba_core::{ClientId, Timestamp};

use super::{COUNT_FROM, HandlerFailure, PAYLOAD_BYTES_MAX, PendingEvents, TabCut};
use crate::column::Column;

impl PendingEvents {
    /// Events that wait unfolded.
    #[cfg(any(test, feature = "driver"))]
    pub(in crate::buffer) fn unfolded(&self) -> u64 {
        (self.times.len() - self.counts.len()) as u64 + self.counts.iter().sum::<u64>()
    }

    /// Sorts the events by time and value, which no Handler minds, and counts equal ones as one. Only numbers: other values have no order.
    #[cold]
    pub(in crate::buffer) fn count_equal_now(&mut self) {
        if let Column::Numbers(numbers) = &mut self.values {
            self.counts.resize(self.times.len(), 1);
            let values = numbers.drain(..).map(f64::to_bits).zip(self.counts.drain(..));
            let mut all: Vec<_> = self.times.drain(..).zip(values).collect();
            // Stable, as that is fast for what is in order already.
            all.sort_by_key(|&(time, (bits, _))| (time, bits));
            all.dedup_by(|next, first| {
                let is_equal = (next.0, next.1.0) == (first.0, first.1.0);
                first.1.1 += if is_equal { next.1.1 } else { 0 };
                is_equal
            });
            for (time, (bits, count)) in all {
                self.times.push(time);
                numbers.push(f64::from_bits(bits));
                self.counts.push(count);
            }
        }
        // Often enough to find them, seldom enough to cost little where none are equal.
        self.count_at = COUNT_FROM.max(2 * self.times.len());
    }

    /// Takes out as many counted events as fit one Block.
    pub(super) fn cut_counted(&mut self, client: &ClientId) -> Result<TabCut, HandlerFailure> {
        let (mut times, mut numbers) = (Vec::<Timestamp>::new(), Vec::<f64>::new());
        if let Column::Numbers(all) = &self.values {
            let counts = self.counts.iter().copied().chain(std::iter::repeat(1));
            for ((&time, &number), count) in self.times.iter().zip(all).zip(counts) {
                let count = count.min((BLOCK_EVENTS_MAX - times.len()) as u64) as usize;
                times.resize(times.len() + count, time);
                numbers.resize(numbers.len() + count, number);
                if times.len() == BLOCK_EVENTS_MAX {
                    break;
                }
            }
        }
        let mut payload = Vec::new();
        loop {
            let (Some(&earliest), Some(&latest)) = (times.iter().min(), times.iter().max()) else {
                return Ok(TabCut::Nothing);
            };
            payload.clear();
            column::put_times(&times, &mut payload);
            f64::encode_column(&numbers, &mut payload);
            if payload.len() <= PAYLOAD_BYTES_MAX {
                let content = Content::Events(payload.into());
                let block = self.block(client, times.len() as u64, (earliest, latest), content);
                self.forget_events(times.len() as u64);
                self.release();
                return Ok(TabCut::Block(block));
            }
            times.truncate(times.len() / 2);
            numbers.truncate(times.len());
        }
    }

    /// Forgets the first `events` unfolded events.
    fn forget_events(&mut self, mut events: u64) {
        let mut places = 0;
        while events > 0 {
            match self.counts.get_mut(places) {
                Some(count) if *count > events => {
                    *count -= events;
                    break;
                }
                Some(count) => events -= *count,
                None => events -= 1,
            }
            places += 1;
        }
        self.forget(places);
    }
}
