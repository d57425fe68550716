//! [`SketchState`]: the buckets of a sketch that are in use, and how often each was hit.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::counts::{BucketCounts, grow};
use super::scale;
use crate::heap::HeapBytes;

/// The State of a [`Sketch`](super::Sketch), and its Projection too: the buckets in use, each with its count.
///
/// ```text
/// memory    level u8 | runs: (first key i32, place of its first count u32) | counts u32, or u64 once one needs it
/// encoded   level u8 | first key zigzag | runs: (buckets skipped before it, n, n counts), … |
/// ```
/// A run is a row of buckets without an empty one between, as long as can be; all encoded numbers are varints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SketchState {
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

impl SketchState {
    /// The most buckets in use at once.
    pub const BUCKETS_MAX: usize = 2048;

    /// The most bytes one takes when encoded: at most 3 for what was skipped, 1 for the length of the run and 10 for
    /// the count, for each bucket.
    pub const ENCODED_BYTES_MAX: usize = 1 + 5 + 2 + Self::BUCKETS_MAX * (3 + 1 + 10);

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, u64::saturating_add)
    }

    /// How many buckets are in use.
    pub fn buckets_used(&self) -> usize {
        self.counts.len()
    }

    /// The largest relative error of a quantile; `None` when there were no values.
    pub fn error_bound(&self) -> Option<f64> {
        (self.counts.len() > 0).then(|| scale::ERRORS[usize::from(self.level)])
    }

    /// An estimate of the smallest value whose rank is at least `per_mille` thousandths of the count (and at least
    /// 1); `per_mille` is 0 to 1000. `None` when there were no values.
    pub fn quantile(&self, per_mille: u32) -> Option<f64> {
        self.quantiles([per_mille])[0]
    }

    /// [`quantile`](Self::quantile) for several, which must ascend.
    ///
    /// # Cost
    /// One pass over the buckets.
    pub fn quantiles<const N: usize>(&self, per_mille: [u32; N]) -> [Option<f64>; N] {
        let count: u128 = self.counts.iter().map(u128::from).sum();
        let mut buckets = self.iter();
        let (mut seen, mut last) = (0_u128, None);
        per_mille.map(|per_mille| {
            let rank = (count * u128::from(per_mille.min(1000))).div_ceil(1000).max(1);
            while seen < rank {
                let Some((key, n)) = buckets.next() else { break };
                seen += u128::from(n);
                last = Some(key);
            }
            last.map(|key| scale::representative(key, self.level))
        })
    }

    /// The buckets in use, ascending: lower end, upper end, count.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, f64, u64)> + '_ {
        self.iter().map(|(key, count)| {
            let (low, high) = scale::ends(key, self.level);
            (low, high, count)
        })
    }

    /// The buckets in use, ascending: key and count.
    fn iter(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
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

    pub(super) fn add(&mut self, value: f64) {
        self.put(scale::raise(scale::key(value), self.level), 1);
    }

    pub(super) fn add_all(&mut self, values: &[f64]) {
        // PERF: most values fall in the run of the one before, and there the key says the place.
        let mut span = Span::default();
        for &value in values {
            let key = scale::raise(scale::key(value), self.level);
            if let Some(place) = span.place(key) {
                self.counts.add(place, 1);
            } else {
                let run = self.put(key, 1);
                span = self.span(run);
            }
        }
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

    fn with_level(level: u8, buckets: usize) -> Self {
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
        self.counts.grow();
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
    fn push(&mut self, key: i32, count: u64) {
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
        self.counts.grow();
        self.counts.insert(place, count);
    }

    /// Raises the level until the buckets fit.
    fn fit(&mut self) {
        while self.counts.len() > Self::BUCKETS_MAX {
            self.rise(1);
        }
    }

    fn rise(&mut self, levels: u8) {
        let mut risen = Self::with_level(self.level + levels, self.counts.len().div_ceil(2));
        for (key, count) in self.iter() {
            risen.push(scale::raise(key, levels), count);
        }
        *self = risen;
    }
}

impl HeapBytes for SketchState {
    fn heap_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<BucketRun>() + self.counts.heap_bytes()
    }
}

/// The encoded form, as plain data.
#[derive(Serialize, Deserialize)]
struct Encoded {
    level: u8,
    first: i32,
    runs: Vec<(u32, Vec<u64>)>,
}

impl Serialize for SketchState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let first = self.runs.first().map_or(0, |run| run.first);
        let mut next = first;
        let runs = (0..self.runs.len()).map(|run| {
            let span = self.span(run);
            let skip = span.first.abs_diff(next);
            next = span.first + span.len as i32;
            (skip, (span.at..span.at + span.len).map(|place| self.counts.get(place)).collect())
        });
        let runs = runs.collect();
        Encoded { level: self.level, first, runs }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SketchState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Encoded::deserialize(deserializer)?
            .check()
            .ok_or_else(|| D::Error::custom("not the buckets of a sketch"))
    }
}

impl Encoded {
    fn check(self) -> Option<SketchState> {
        let buckets: usize = self.runs.iter().map(|(_, counts)| counts.len()).sum();
        if buckets > SketchState::BUCKETS_MAX || self.level > scale::LEVEL_MAX {
            return None;
        }
        let mut state = SketchState::with_level(self.level, buckets);
        let mut next = self.first;
        for (place, (skip, counts)) in self.runs.into_iter().enumerate() {
            if (skip == 0) != (place == 0) || counts.is_empty() {
                return None;
            }
            next = next.checked_add_unsigned(skip)?;
            for count in counts {
                if count == 0 || !scale::is_key(next, self.level) {
                    return None;
                }
                state.push(next, count);
                next += 1;
            }
        }
        // Nothing is spelled one way only.
        let empty = buckets == 0;
        (!empty || (self.first == 0 && self.level == 0)).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use taba_core::{decode_state, encode_state};

    use super::super::Sketch;
    use super::*;

    fn state(values: &[f64]) -> SketchState {
        let mut state = SketchState::default();
        state.add_all(values);
        state
    }

    /// `n` values, each in a bucket of its own: powers of 2^(1/32) from 2^-900 up.
    fn spread(n: usize, sign: f64) -> Vec<f64> {
        (0..n).map(|i| sign * 2_f64.powf(i as f64 / 32.0 - 900.0)).collect()
    }

    #[test]
    fn nothing_has_no_quantiles() {
        assert_eq!(state(&[]).quantile(500), None);
        assert_eq!(state(&[]).error_bound(), None);
        assert_eq!(encode_state(&state(&[])), [0, 0, 0]);
    }

    #[test]
    fn ranks_are_nearest_ranks() {
        let state = state(&[-4.0, -2.0, 0.0, 2.0, 4.0]);
        let near = |per_mille, value: f64| {
            let found = state.quantile(per_mille).unwrap();
            assert!((found - value).abs() <= 0.0097 * value.abs(), "{per_mille}: {found} for {value}");
        };
        near(0, -4.0);
        near(200, -4.0);
        near(201, -2.0);
        near(500, 0.0);
        near(800, 2.0);
        near(801, 4.0);
        near(1000, 4.0);
    }

    #[test]
    fn too_many_buckets_join_and_the_bound_says_so() {
        let values = spread(SketchState::BUCKETS_MAX, 1.0);
        let mut state = state(&values);
        assert_eq!(state.error_bound(), Some(0.0097));
        state.add(-1.0);
        assert_eq!(state.error_bound(), Some(0.0193));
        assert_eq!(state.count(), 2049);
        let (found, value) = (state.quantile(500).unwrap(), values[1024 - 1]);
        assert!((found - value).abs() <= 0.0193 * value);
    }

    #[test]
    fn counts_of_more_than_32_bits_stay_exact() {
        let mut state = state(&[1.0, 2.0]);
        let mut count = 2_u64;
        for _ in 0..40 {
            state.merge(&state.clone());
            count *= 2;
        }
        assert_eq!(state.count(), count);
        assert_eq!(decode_state(&Sketch, 1, &encode_state(&state)).unwrap(), state);
    }

    #[test]
    fn a_dense_sketch_takes_two_bytes_a_bucket() {
        let values: Vec<f64> = (0..100_000).map(|i| f64::from(i) + 10_000.0).collect();
        let state = state(&values);
        let bytes = encode_state(&state).len();
        assert!(bytes <= 8 + 2 * state.buckets_used(), "{bytes} for {}", state.buckets_used());
        assert!(state.heap_bytes() <= 5 * state.buckets_used() + 64);
    }

    #[test]
    fn other_spellings_are_refused() {
        let decode = |bytes: &[u8]| decode_state(&Sketch, 1, bytes);
        assert!(decode(&[0, 0, 1, 0, 1, 5]).is_ok());
        assert!(decode(&[0, 2, 0]).is_err(), "nothing, from key 1");
        assert!(decode(&[1, 0, 0]).is_err(), "nothing, at level 1");
        assert!(decode(&[8, 0, 1, 0, 1, 5]).is_err(), "level 8");
        assert!(decode(&[0, 0, 1, 1, 1, 5]).is_err(), "a skip before the first");
        assert!(decode(&[0, 0, 1, 0, 1, 0]).is_err(), "a count of 0");
        assert!(decode(&[0, 0, 2, 0, 1, 5, 0, 1, 5]).is_err(), "two runs that are one");
        assert!(
            decode(&[0, 0, 2, 0, 1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 5]).is_err(),
            "a key out of range"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// The laws' samples are too small to raise the level; these are not.
        #[test]
        fn rising_does_not_show_how_values_were_grouped(
            n in 1500_usize..6000, cut in 0_usize..6000, mixed in any::<bool>(), seed in any::<u64>()
        ) {
            let mut values = spread(n, 1.0);
            if mixed {
                values.iter_mut().step_by(3).for_each(|value| *value = -*value);
            }
            let whole = encode_state(&state(&values));
            let (a, b) = values.split_at(cut.min(n));
            let (a, b) = (state(a), state(b));
            let (mut left, mut right) = (a.clone(), b.clone());
            left.merge(&b);
            right.merge(&a);
            prop_assert_eq!(&encode_state(&left), &whole);
            prop_assert_eq!(&encode_state(&right), &whole);
            let mut shuffled = values.clone();
            for i in (1..n).rev() {
                shuffled.swap(i, (seed.rotate_left(i as u32 % 64) % (i as u64 + 1)) as usize);
            }
            prop_assert_eq!(&encode_state(&state(&shuffled)), &whole);
            prop_assert!(whole.len() <= SketchState::ENCODED_BYTES_MAX);
        }
    }
}
