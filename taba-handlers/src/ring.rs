//! [`Ring`]: the State of a window: one State for each of its newest buckets.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use taba_core::State;

use crate::decode::{capacity, push};
use crate::heap::HeapBytes;

/// The most buckets of any window.
pub const RING_BUCKETS_MAX: usize = 4096;

/// States of buckets of time, up to the newest that saw an event. A bucket that saw none takes nothing.
///
/// ```text
/// memory    newest i64 | places: u16, the low bits of each bucket's number | States, oldest first; the last is the newest
/// encoded   newest zigzag | runs, newest first: (empty buckets skipped before it, n, n States), … |
/// ```
/// The newest bucket is always written, so that a ring with an event never looks like one without; any other that
/// is in its default State is skipped. What was skipped at the old end is not written at all.
#[derive(Clone, Debug)]
pub struct Ring<S> {
    newest: i64,
    /// Ascending. 16 bits say which bucket it is: all lie within [`RING_BUCKETS_MAX`] of the newest.
    places: VecDeque<u16>,
    /// One for each place.
    states: VecDeque<S>,
}

impl<S> Default for Ring<S> {
    fn default() -> Self {
        Self { newest: 0, places: VecDeque::new(), states: VecDeque::new() }
    }
}

impl<S: State> Ring<S> {
    /// The newest bucket that saw an event: its time by the width of a bucket, rounded down. `None` without events.
    pub fn newest(&self) -> Option<i64> {
        (!self.states.is_empty()).then_some(self.newest)
    }

    /// How far a place is before the newest.
    fn back(&self, place: u16) -> u16 {
        (self.newest as u16).wrapping_sub(place)
    }

    /// The buckets that are held, newest first, by how far they are before the newest.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &S)> + Clone {
        self.places.iter().rev().map(|place| self.back(*place)).zip(self.states.iter().rev())
    }

    /// The State of a bucket, after making it the newest if it is later than that. `None` when it is not among the
    /// newest `keep`.
    #[inline]
    pub(crate) fn slot(&mut self, index: i64, keep: usize) -> Option<&mut S> {
        if self.states.is_empty() || index > self.newest {
            self.advance(index, keep);
        }
        let back = self.newest.abs_diff(index);
        if back == 0 {
            return self.states.back_mut();
        }
        let back = u16::try_from(back).ok().filter(|back| usize::from(*back) < keep)?;
        let newest = self.newest as u16;
        let at = self.places.partition_point(|place| newest.wrapping_sub(*place) > back);
        if self.places.get(at).is_none_or(|place| newest.wrapping_sub(*place) != back) {
            self.grow(keep);
            self.places.insert(at, index as u16);
            self.states.insert(at, S::default());
        }
        self.states.get_mut(at)
    }

    fn advance(&mut self, newest: i64, keep: usize) {
        let by = newest.abs_diff(self.newest);
        self.drop_oldest((keep as u64).saturating_sub(by));
        self.newest = newest;
        self.grow(keep);
        self.places.push_back(newest as u16);
        self.states.push_back(S::default());
    }

    /// The States that are held.
    pub(crate) fn states(&self) -> impl Iterator<Item = &S> {
        self.states.iter()
    }

    /// The States that are held, to change.
    pub(crate) fn states_mut(&mut self) -> impl Iterator<Item = &mut S> {
        self.states.iter_mut()
    }

    /// Bytes on the heap for the buckets, without what their States own there.
    pub(crate) fn slots_bytes(&self) -> usize {
        self.places.capacity() * size_of::<u16>() + self.states.capacity() * size_of::<S>()
    }

    /// Drops what is `keep` or more before the newest.
    pub(crate) fn drop_oldest(&mut self, keep: u64) {
        while self.places.front().is_some_and(|place| u64::from(self.back(*place)) >= keep) {
            self.places.pop_front();
            self.states.pop_front();
        }
    }

    /// Makes room for one more, and half as many again, but for no more than are ever kept.
    fn grow(&mut self, keep: usize) {
        let len = self.states.len();
        if len == self.states.capacity() {
            let more = (len / 2 + 1).min(keep.saturating_sub(len)).max(1);
            self.places.reserve_exact(more);
            self.states.reserve_exact(more);
        }
    }

    /// Takes the buckets of another ring into this one.
    pub(crate) fn merge(&mut self, other: &Self, keep: usize, merge: impl Fn(&mut S, &S)) {
        if self.states.is_empty() {
            *self = other.clone();
            self.drop_oldest(keep as u64);
            return;
        }
        for (back, bucket) in other.iter() {
            let Some(index) = other.newest.checked_sub(i64::from(back)) else { return };
            let Some(slot) = self.slot(index, keep) else { return };
            merge(slot, bucket);
        }
    }

    /// Takes the newest bucket out. The one before that is held becomes the newest.
    pub(crate) fn pop_newest(&mut self) -> Option<S> {
        self.places.pop_back();
        let popped = self.states.pop_back();
        if let Some(place) = self.places.back() {
            self.newest -= i64::from(self.back(*place));
        }
        popped
    }

    /// Drops the buckets up to and including `index`.
    pub(crate) fn drop_through(&mut self, index: i64) {
        if self.newest <= index {
            *self = Self::default();
            return;
        }
        self.drop_oldest(self.newest.abs_diff(index));
        self.places.shrink_to_fit();
        self.states.shrink_to_fit();
    }

    /// The buckets that are written, newest first: the newest, and all that are not in their default State.
    fn written(&self) -> impl Iterator<Item = (u16, &S)> + Clone {
        self.iter().filter(|(back, state)| *back == 0 || **state != S::default())
    }
}

impl<S: State> PartialEq for Ring<S> {
    fn eq(&self, other: &Self) -> bool {
        self.newest() == other.newest() && self.written().eq(other.written())
    }
}

impl<S: State + HeapBytes> HeapBytes for Ring<S> {
    fn heap_bytes(&self) -> usize {
        self.slots_bytes() + self.states.iter().map(HeapBytes::heap_bytes).sum::<usize>()
    }
}

impl<S: State> Serialize for Ring<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        (self.newest().unwrap_or(0), Runs(self)).serialize(serializer)
    }
}

/// The buckets that are written, in runs without a gap: how many are left out before each, and its States.
struct Runs<'a, S>(&'a Ring<S>);

/// The first of these buckets.
struct Run<I> {
    buckets: I,
    len: usize,
}

impl<S: State> Serialize for Runs<'_, S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let is_first = |end: &mut Option<u16>, (back, _): (u16, &S)| {
            Some(u64::from(end.replace(back + 1) != Some(back)))
        };
        let runs: u64 = self.0.written().scan(None, is_first).sum();
        let mut seq = serializer.serialize_seq(Some(runs as usize))?;
        let (mut rest, mut end) = (self.0.written().peekable(), 0);
        while let Some((back, _)) = rest.peek() {
            let (first, left_out) = (*back, *back - end);
            let buckets = rest.clone();
            end = first;
            while rest.next_if(|(back, _)| *back == end).is_some() {
                end += 1;
            }
            let len = usize::from(end - first);
            seq.serialize_element(&(left_out, Run { buckets, len }))?;
        }
        seq.end()
    }
}

impl<'a, S: State, I: Iterator<Item = (u16, &'a S)> + Clone> Serialize for Run<I> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let mut seq = serializer.serialize_seq(Some(self.len))?;
        for (_, state) in self.buckets.clone().take(self.len) {
            seq.serialize_element(state)?;
        }
        seq.end()
    }
}

/// Buckets while they are read, newest first: how far each is before the newest, and its State.
struct ReadBuckets<S> {
    backs: Vec<u16>,
    states: Vec<S>,
    /// How far the next one is before the newest.
    next: usize,
}

/// The part of the encoding that comes next.
enum ReadPart {
    Runs,
    Run { is_first: bool },
    States,
}

struct BucketReader<'a, S>(ReadPart, &'a mut ReadBuckets<S>);

impl<'de, S: State> DeserializeSeed<'de> for BucketReader<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0 {
            ReadPart::Runs | ReadPart::States => deserializer.deserialize_seq(self),
            ReadPart::Run { .. } => deserializer.deserialize_tuple(2, self),
        }
    }
}

impl<'de, S: State> Visitor<'de> for BucketReader<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buckets of a window")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self(part, read) = self;
        match part {
            ReadPart::Runs => {
                let mut is_first = true;
                while seq.next_element_seed(BucketReader(ReadPart::Run { is_first }, read))?.is_some() {
                    is_first = false;
                }
            }
            ReadPart::Run { is_first } => {
                let skip: u32 = seq.next_element()?.ok_or_else(no_buckets)?;
                let before = read.states.len();
                read.next += skip as usize;
                seq.next_element_seed(BucketReader(ReadPart::States, read))?.ok_or_else(no_buckets)?;
                if (skip == 0) != is_first || read.states.len() == before {
                    return Err(no_buckets());
                }
            }
            ReadPart::States => {
                let more = capacity::<S>(seq.size_hint());
                read.backs.reserve_exact(more);
                read.states.reserve_exact(more);
                while let Some(state) = seq.next_element()? {
                    if read.next >= RING_BUCKETS_MAX {
                        return Err(no_buckets());
                    }
                    push(&mut read.backs, read.next as u16);
                    push(&mut read.states, state);
                    read.next += 1;
                }
            }
        }
        Ok(())
    }
}

fn no_buckets<E: Error>() -> E {
    E::custom("not the buckets of a window")
}

struct RingVisitor<S>(PhantomData<S>);

impl<'de, S: State> Visitor<'de> for RingVisitor<S> {
    type Value = Ring<S>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number of a bucket, and the buckets of a window")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ring<S>, A::Error> {
        let newest: i64 = seq.next_element()?.ok_or_else(no_buckets)?;
        let mut read = ReadBuckets { backs: Vec::new(), states: Vec::new(), next: 0 };
        seq.next_element_seed(BucketReader(ReadPart::Runs, &mut read))?.ok_or_else(no_buckets)?;
        let ReadBuckets { backs: mut places, mut states, next } = read;
        let is_in_time = newest.checked_sub_unsigned(next.saturating_sub(1) as u64).is_some();
        if !is_in_time || (states.is_empty() && newest != 0) {
            return Err(no_buckets());
        }
        places.iter_mut().for_each(|back| *back = (newest as u16).wrapping_sub(*back));
        places.reverse();
        states.reverse();
        places.shrink_to_fit();
        states.shrink_to_fit();
        Ok(Ring { newest, places: places.into(), states: states.into() })
    }
}

impl<'de, S: State> Deserialize<'de> for Ring<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(2, RingVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use taba_core::{Event, Handler, Timestamp, decode_state, encode_state};

    use super::*;
    use crate::{Sum, Windowed};

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
        assert_eq!(ring.states, [2, 1, 1]);
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
            self.states.capacity() * 8
        }
    }

    #[test]
    fn gaps_cost_a_byte_or_two() {
        assert_eq!(encode_state(&ring(&[], 100)).len(), 2);
        assert_eq!(encode_state(&ring(&[50], 100)), [100, 1, 0, 1, 1]);
        assert_eq!(encode_state(&ring(&[50, 10], 100)), [100, 2, 0, 1, 1, 39, 1, 1]);
    }

    #[test]
    fn buckets_without_events_take_nothing() {
        let hour = Windowed::new(Sum, Duration::from_secs(3600), Duration::from_secs(1));
        let mut state = Ring::default();
        for second in [3599, 1, 2000] {
            hour.fold(&mut state, Event::new(Timestamp::from_secs(second), &1.0));
        }
        assert_eq!(state.states.len(), 3);
        let decoded = decode_state(&hour, 1, &encode_state(&state)).unwrap();
        assert_eq!(decoded, state);
        assert_eq!((decoded.states.capacity(), decoded.places.capacity()), (3, 3));
        let backs = |ring: &Ring<_>| ring.iter().map(|(back, _)| back).collect::<Vec<_>>();
        assert_eq!((backs(&state), backs(&decoded)), (vec![0, 1599, 3598], vec![0, 1599, 3598]));
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
        assert_eq!(ring.states, [1]);
    }
}
