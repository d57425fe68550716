//! [`Ring`]: the State of a window: one State for each of its newest buckets.

use std::collections::VecDeque;
use std::ops::Range;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use taba_core::State;

use crate::heap::HeapBytes;

/// The most buckets of any window.
pub const RING_BUCKETS_MAX: usize = 4096;

/// States of consecutive buckets of time, up to the newest that saw an event.
///
/// ```text
/// memory    newest i64 | buckets, oldest first; the last is the newest
/// encoded   newest zigzag | runs, newest first: (empty buckets skipped before it, n, n States), … |
/// ```
/// The newest bucket is always written, so that a ring with an event never looks like one without; any other that
/// is in its default State is skipped. What was skipped at the old end is not written at all.
#[derive(Clone, Debug)]
pub struct Ring<S> {
    newest: i64,
    buckets: VecDeque<S>,
}

impl<S> Default for Ring<S> {
    fn default() -> Self {
        Self { newest: 0, buckets: VecDeque::new() }
    }
}

impl<S: State> Ring<S> {
    /// The newest bucket that saw an event: its time by the width of a bucket, rounded down. `None` without events.
    pub fn newest(&self) -> Option<i64> {
        (!self.buckets.is_empty()).then_some(self.newest)
    }

    /// The State of the bucket that is `back` before the newest, if it is held.
    pub(crate) fn back(&self, back: u64) -> Option<&S> {
        let back = usize::try_from(back).ok()?;
        self.buckets.len().checked_sub(back.checked_add(1)?).and_then(|place| self.buckets.get(place))
    }

    /// How many buckets are held.
    pub(crate) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// The State of a bucket, after making it the newest if it is later than that. `None` when it is not among the
    /// newest `keep`.
    #[inline]
    pub(crate) fn slot(&mut self, index: i64, keep: usize) -> Option<&mut S> {
        if self.buckets.is_empty() || index > self.newest {
            self.advance(index, keep);
        }
        let back = usize::try_from(self.newest.abs_diff(index)).ok().filter(|back| *back < keep)?;
        while self.buckets.len() <= back {
            self.grow(keep);
            self.buckets.push_front(S::default());
        }
        let place = self.buckets.len() - 1 - back;
        self.buckets.get_mut(place)
    }

    fn advance(&mut self, newest: i64, keep: usize) {
        let by = newest.abs_diff(self.newest);
        self.newest = newest;
        if self.buckets.is_empty() || by >= keep as u64 {
            self.buckets.clear();
            self.grow(keep);
            self.buckets.push_back(S::default());
            return;
        }
        for _ in 0..by {
            while self.buckets.len() >= keep {
                self.buckets.pop_front();
            }
            self.grow(keep);
            self.buckets.push_back(S::default());
        }
    }

    /// Makes room for one more, and half as many again, but for no more than are ever kept.
    fn grow(&mut self, keep: usize) {
        let len = self.buckets.len();
        if len == self.buckets.capacity() {
            let more = (len / 2 + 1).min(keep.saturating_sub(len)).max(1);
            self.buckets.reserve_exact(more);
        }
    }

    /// Takes the buckets of another ring into this one.
    pub(crate) fn merge(&mut self, other: &Self, keep: usize, merge: impl Fn(&mut S, &S)) {
        if self.buckets.is_empty() {
            *self = other.clone();
            while self.buckets.len() > keep {
                self.buckets.pop_front();
            }
            return;
        }
        for (back, bucket) in other.buckets.iter().rev().enumerate() {
            let Some(index) = other.newest.checked_sub(back as i64) else { return };
            let Some(slot) = self.slot(index, keep) else { return };
            merge(slot, bucket);
        }
    }

    /// Takes the newest bucket out. The one before becomes the newest.
    pub(crate) fn pop_newest(&mut self) -> Option<S> {
        self.newest = self.newest.saturating_sub(1);
        self.buckets.pop_back()
    }

    /// Drops the buckets up to and including `index`.
    pub(crate) fn drop_through(&mut self, index: i64) {
        if self.newest <= index {
            *self = Self::default();
            return;
        }
        let keep = self.newest.abs_diff(index);
        while self.buckets.len() as u64 > keep {
            self.buckets.pop_front();
        }
        self.buckets.shrink_to_fit();
    }

    /// Whether the bucket that is `back` before the newest is written.
    fn is_written(&self, back: usize) -> bool {
        back == 0 || self.back(back as u64).is_some_and(|bucket| *bucket != S::default())
    }

    /// The rows of buckets that are written: how many are skipped before each, and which it is, counted back from
    /// the newest.
    fn runs(&self) -> Vec<(u32, Range<usize>)> {
        let mut runs: Vec<(u32, Range<usize>)> = Vec::new();
        let mut end = 0;
        for back in (0..self.buckets.len()).filter(|&back| self.is_written(back)) {
            match runs.last_mut() {
                Some((_, run)) if back == end => run.end += 1,
                _ => runs.push(((back - end) as u32, back..back + 1)),
            }
            end = back + 1;
        }
        runs
    }
}

impl<S: State> PartialEq for Ring<S> {
    fn eq(&self, other: &Self) -> bool {
        let (long, short) =
            if self.buckets.len() < other.buckets.len() { (other, self) } else { (self, other) };
        let empty = S::default();
        self.newest() == other.newest()
            && (0..long.buckets.len() as u64)
                .all(|back| long.back(back) == Some(short.back(back).unwrap_or(&empty)))
    }
}

impl<S: HeapBytes> HeapBytes for Ring<S> {
    fn heap_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<S>()
            + self.buckets.iter().map(HeapBytes::heap_bytes).sum::<usize>()
    }
}

/// One row of buckets, newest first.
struct BucketRow<'a, S>(&'a Ring<S>, Range<usize>);

impl<S: State> Serialize for BucketRow<'_, S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let len = self.0.buckets.len();
        serializer.collect_seq(self.0.buckets.range(len - self.1.end..len - self.1.start).rev())
    }
}

impl<S: State> Serialize for Ring<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let newest = self.newest().unwrap_or(0);
        let runs: Vec<_> = self.runs().into_iter().map(|(skip, run)| (skip, BucketRow(self, run))).collect();
        (newest, runs).serialize(serializer)
    }
}

impl<'de, S: State> Deserialize<'de> for Ring<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (newest, runs): (i64, Vec<(u32, Vec<S>)>) = Deserialize::deserialize(deserializer)?;
        let held = runs.iter().map(|(skip, states)| *skip as usize + states.len());
        let len = held.fold(0, usize::saturating_add);
        let plain =
            runs.iter().enumerate().all(|(i, (skip, run))| (*skip == 0) == (i == 0) && !run.is_empty());
        if len > RING_BUCKETS_MAX || !plain || (len == 0 && newest != 0) {
            return Err(D::Error::custom("not the buckets of a window"));
        }
        let mut buckets = VecDeque::with_capacity(len);
        for (skip, states) in runs {
            (0..skip).for_each(|_| buckets.push_front(S::default()));
            states.into_iter().for_each(|state| buckets.push_front(state));
        }
        Ok(Self { newest, buckets })
    }
}

#[cfg(test)]
mod tests {
    use taba_core::encode_state;

    use super::*;

    fn ring(hits: &[i64], keep: usize) -> Ring<u64> {
        let mut ring = Ring::default();
        for &index in hits {
            if let Some(slot) = ring.slot(index, keep) {
                *slot += 1;
            }
        }
        ring
    }

    #[test]
    fn only_the_newest_are_kept() {
        let ring = ring(&[1, 2, 3, 4, 5, 1, 2, 3], 3);
        assert_eq!(ring.buckets, [2, 1, 1]);
        assert_eq!(ring.newest(), Some(5));
    }

    #[test]
    fn capacity_never_passes_what_is_kept() {
        let hits: Vec<i64> = (0..1000).collect();
        let ring = ring(&hits, 70);
        assert_eq!(ring.heap_bytes_of_capacity(), 70 * 8);
    }

    impl Ring<u64> {
        fn heap_bytes_of_capacity(&self) -> usize {
            self.buckets.capacity() * 8
        }
    }

    #[test]
    fn gaps_cost_a_byte_or_two() {
        assert_eq!(encode_state(&ring(&[], 100)).len(), 2);
        assert_eq!(encode_state(&ring(&[50], 100)), [100, 1, 0, 1, 1]);
        assert_eq!(encode_state(&ring(&[50, 10], 100)), [100, 2, 0, 1, 1, 39, 1, 1]);
    }

    #[test]
    fn emptied_ends_do_not_show() {
        let (a, mut b) = (ring(&[50], 100), ring(&[50], 100));
        let _ = b.slot(20, 100);
        assert_eq!(a, b);
        assert_eq!(encode_state(&a), encode_state(&b));
    }

    #[test]
    fn the_ends_of_time_are_far_apart() {
        let ring = ring(&[i64::MIN, i64::MAX, i64::MIN], 10);
        assert_eq!(ring.newest(), Some(i64::MAX));
        assert_eq!(ring.buckets, [1]);
    }
}
