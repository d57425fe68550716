//! [`Buckets`]: the buckets of a sketch that are in use, and how often each was hit.

use super::counts::{BucketCounts, grow};
use super::scale;
use crate::heap::HeapBytes;

/// The most buckets in use at once.
pub(super) const BUCKETS_MAX: usize = 2048;

/// The buckets in use, each with its count.
///
/// ```text
/// level u8 | runs: (first key i32, place of its first count u32) | counts, as wide as the largest needs
/// ```
/// A run is a row of buckets without an empty one between, as long as can be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Buckets {
    level: u8,
    runs: Vec<BucketRun>,
    counts: BucketCounts,
}

/// Buckets of consecutive keys, up to where the next run begins.
#[derive(Clone, Copy, Debug, PartialEq)]
struct BucketRun {
    first: i32,
    /// The place of its first count.
    at: u32,
}

/// Where the counts of one run are.
#[derive(Clone, Copy, Default)]
struct Span {
    first: i32,
    at: usize,
    len: usize,
}

impl Span {
    #[inline]
    fn place(&self, key: i32) -> Option<usize> {
        let offset = key.wrapping_sub(self.first) as u32 as usize;
        (offset < self.len).then_some(self.at + offset)
    }
}

impl Buckets {
    pub(super) fn level(&self) -> u8 {
        self.level
    }

    /// How many are in use.
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// The first key, and the length of each row of buckets and of the gap before it; the first gap is 0.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut next = self.runs.first().map_or(0, |run| run.first);
        (0..self.runs.len()).map(move |run| {
            let span = self.span(run);
            let gap = span.first.abs_diff(next);
            next = span.first + span.len as i32;
            (gap, span.len as u32)
        })
    }

    /// The buckets in use, ascending: key and count.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        (0..self.runs.len()).flat_map(|run| {
            let span = self.span(run);
            (span.first..).zip((span.at..span.at + span.len).map(|place| self.counts.get(place)))
        })
    }

    /// Where the counts of a run are. Empty if there is no such run.
    fn span(&self, run: usize) -> Span {
        let Some(&BucketRun { first, at }) = self.runs.get(run) else { return Span::default() };
        let end = self.runs.get(run + 1).map_or(self.counts.len(), |next| next.at as usize);
        Span { first, at: at as usize, len: end - at as usize }
    }

    pub(super) fn add_all(&mut self, mut values: &[f64]) {
        // PERF: most values fall in the run of the one before, and there the key says the place.
        let mut span = Span::default();
        loop {
            let level = self.level;
            let places = values.iter().map_while(|&value| span.place(scale::raise(scale::key(value), level)));
            let counted = self.counts.add_one_at_each(places);
            let Some((&value, rest)) = values.get(counted..).and_then(<[_]>::split_first) else { return };
            let run = self.put(scale::raise(scale::key(value), self.level), 1);
            span = self.span(run);
            values = rest;
        }
    }

    /// Counts a value `count` times.
    pub(super) fn add(&mut self, value: f64, count: u64) {
        self.put(scale::raise(scale::key(value), self.level), count);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if other.runs.is_empty() {
            return;
        }
        if other.level > self.level {
            self.rise(other.level - self.level);
        }
        if other.counts.len() * 8 <= self.counts.len() {
            // Searching for a few is cheaper than building all anew.
            for (key, count) in other.iter() {
                // Putting can raise the level, so it is not known outside the loop.
                self.put(scale::raise(key, self.level - other.level), count);
            }
        } else {
            *self = self.united(other);
            self.fit();
        }
    }

    /// The buckets of both, in one pass. The other's level is not higher.
    fn united(&self, other: &Self) -> Self {
        let levels = self.level - other.level;
        let mut mine = self.iter().peekable();
        let mut theirs = other.iter().map(|(key, count)| (scale::raise(key, levels), count)).peekable();
        let mut united = Self::with_level(self.level, self.counts.len().max(other.counts.len()));
        while let Some(next) = match (mine.peek(), theirs.peek()) {
            (Some(a), Some(b)) if b.0 < a.0 => theirs.next(),
            (None, _) => theirs.next(),
            (Some(_), _) => mine.next(),
        } {
            united.push(next.0, next.1);
        }
        united
    }

    pub(super) fn with_level(level: u8, buckets: usize) -> Self {
        Self { level, runs: Vec::new(), counts: BucketCounts::with_capacity(buckets) }
    }

    /// Counts `count` more values in the bucket, and says in which run it is; no more than a guess, if the level
    /// rose.
    fn put(&mut self, key: i32, count: u64) -> usize {
        let after = self.runs.partition_point(|run| run.first <= key);
        let before = after.wrapping_sub(1);
        let span = self.span(before);
        if let Some(place) = span.place(key) {
            self.counts.add(place, count);
            return before;
        }
        let place = span.at + span.len;
        self.counts.insert(place, count);
        let extends = span.len > 0 && span.first + span.len as i32 == key;
        let joins = self.runs.get(after).is_some_and(|next| next.first == key + 1);
        let shifted = match (extends, joins) {
            (true, true) => {
                self.runs.remove(after);
                after
            }
            (true, false) => after,
            (false, true) => {
                self.runs[after].first = key;
                after + 1
            }
            (false, false) => {
                grow(&mut self.runs);
                self.runs.insert(after, BucketRun { first: key, at: place as u32 });
                after + 1
            }
        };
        self.runs[shifted..].iter_mut().for_each(|run| run.at += 1);
        self.fit();
        if extends { before } else { after }
    }

    /// Counts `count` more values in the last bucket or in one above it.
    pub(super) fn push(&mut self, key: i32, count: u64) {
        let span = self.span(self.runs.len().wrapping_sub(1));
        if let Some(place) = span.place(key) {
            self.counts.add(place, count);
            return;
        }
        let place = self.counts.len();
        if span.len == 0 || span.first + span.len as i32 != key {
            grow(&mut self.runs);
            self.runs.push(BucketRun { first: key, at: place as u32 });
        }
        self.counts.insert(place, count);
    }

    /// Raises the level until the buckets fit.
    pub(super) fn fit(&mut self) {
        while self.counts.len() > BUCKETS_MAX {
            self.rise(1);
        }
    }

    pub(super) fn rise(&mut self, levels: u8) {
        let mut risen = Self::with_level(self.level + levels, self.counts.len().div_ceil(2));
        for (key, count) in self.iter() {
            risen.push(scale::raise(key, levels), count);
        }
        *self = risen;
    }
}

impl HeapBytes for Buckets {
    fn heap_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<BucketRun>() + self.counts.heap_bytes()
    }
}
