//! [`SketchState`]: the values themselves while few differ, then buckets.

use super::buckets::{BUCKETS_MAX, Buckets};
use super::counts::grow;
use super::scale;
use crate::heap::HeapBytes;

/// The State of a [`Sketch`](super::Sketch), and its Projection too: up to 16 different values, each with its count; of more, the
/// buckets in use, the least and the greatest value, and whether all are integers.
#[derive(Clone, Debug, PartialEq)]
pub struct SketchState {
    pub(super) form: Form,
}

/// Which form it has depends on the values alone, as does everything in it; so nothing shows how they were grouped.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    /// Ascending.
    Values(Vec<(f64, u64)>),
    /// The box keeps a State of few values small.
    Buckets(Box<Bucketed>),
}

/// Values in buckets.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bucketed {
    pub(super) buckets: Buckets,
    pub(super) min: f64,
    pub(super) max: f64,
    /// Whether all are integers of at most 64 bits.
    pub(super) is_integral: bool,
}

impl Default for SketchState {
    fn default() -> Self {
        Self { form: Form::Values(Vec::new()) }
    }
}

impl SketchState {
    /// The most buckets in use at once.
    pub const BUCKETS_MAX: usize = BUCKETS_MAX;
    /// The most different values that are kept as they are.
    pub const VALUES_MAX: usize = 16;

    /// How many values there were.
    pub fn count(&self) -> u64 {
        match &self.form {
            Form::Values(values) => values.iter().map(|(_, count)| *count).fold(0, u64::saturating_add),
            Form::Buckets(all) => all.buckets.iter().map(|(_, count)| count).fold(0, u64::saturating_add),
        }
    }

    /// How many buckets are in use; of few values, how many differ.
    pub fn buckets_used(&self) -> usize {
        match &self.form {
            Form::Values(values) => values.len(),
            Form::Buckets(all) => all.buckets.len(),
        }
    }

    /// The largest relative error of a quantile: 0 while few values differ; `None` when there were none.
    ///
    /// # Cost
    /// One pass over the buckets when all values are integers.
    pub fn error_bound(&self) -> Option<f64> {
        match &self.form {
            Form::Values(values) => (!values.is_empty()).then_some(0.0),
            Form::Buckets(all) => Some(all.error_bound()),
        }
    }

    /// An estimate of the smallest value whose rank is at least `per_mille` thousandths of the count (and at least
    /// 1); `per_mille` is 0 to 1000. `None` when there were no values.
    pub fn quantile(&self, per_mille: u32) -> Option<f64> {
        self.quantiles([per_mille])[0]
    }

    /// [`quantile`](Self::quantile) for several, which must ascend.
    ///
    /// # Cost
    /// Two passes over the buckets.
    pub fn quantiles<const N: usize>(&self, per_mille: [u32; N]) -> [Option<f64>; N] {
        match &self.form {
            Form::Values(values) => at_ranks(|| values.iter().copied(), per_mille),
            Form::Buckets(all) => {
                let keys = at_ranks(|| all.buckets.iter(), per_mille);
                keys.map(|key| key.map(|key| all.estimate(key)))
            }
        }
    }

    /// The buckets in use, ascending: lower end, upper end, count. While few values differ, each is both ends.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, f64, u64)> + '_ {
        let (values, buckets) = match &self.form {
            Form::Values(values) => (Some(values), None),
            Form::Buckets(all) => (None, Some(&all.buckets)),
        };
        let values = values.into_iter().flatten().map(|&(value, count)| (value, value, count));
        let buckets = buckets.into_iter().flat_map(|buckets| {
            buckets.iter().map(|(key, count)| {
                let (low, high) = scale::ends(key, buckets.level());
                (low, high, count)
            })
        });
        values.chain(buckets)
    }

    pub(super) fn add_all(&mut self, mut values: &[f64]) {
        while let Form::Values(few) = &mut self.form {
            let Some(&value) = values.first() else { return };
            // PERF: most counters are incremented by one again and again.
            let equal = values.iter().take_while(|next| **next == value).count().max(1);
            values = &values[equal..];
            if count_value(few, value, equal as u64) {
                self.form = Form::Buckets(Box::new(Bucketed::new(few)));
            }
        }
        if let Form::Buckets(all) = &mut self.form {
            all.add_all(values);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        match (&mut self.form, &other.form) {
            (Form::Buckets(all), Form::Buckets(more)) => all.merge(more),
            (Form::Buckets(all), Form::Values(few)) => {
                few.iter().for_each(|&(value, count)| all.add(value, count));
            }
            (Form::Values(few), Form::Buckets(more)) => {
                let mut all = more.clone();
                few.iter().for_each(|&(value, count)| all.add(value, count));
                self.form = Form::Buckets(all);
            }
            (Form::Values(few), Form::Values(more)) => {
                // Both together are so few that a list of them all is no burden.
                let mut is_over = false;
                more.iter().for_each(|&(value, count)| is_over |= count_value(few, value, count));
                if is_over {
                    self.form = Form::Buckets(Box::new(Bucketed::new(few)));
                }
            }
        }
    }
}

/// Counts a value `count` times, and says whether there are more different ones than may be.
fn count_value(values: &mut Vec<(f64, u64)>, value: f64, count: u64) -> bool {
    let value = finite(value);
    match values.binary_search_by(|(known, _)| known.total_cmp(&value)) {
        Ok(place) => values[place].1 = values[place].1.saturating_add(count),
        Err(place) => {
            grow(values);
            values.insert(place, (value, count));
        }
    }
    values.len() > SketchState::VALUES_MAX
}

/// What is not finite never gets here; if it did, it would count as the largest there is. Zero has no sign.
fn finite(value: f64) -> f64 {
    if value.is_finite() { value + 0.0 } else { f64::MAX.copysign(value) }
}

/// The items at which the counts reach these ranks; `per_mille` ascends.
fn at_ranks<T: Copy, I: Iterator<Item = (T, u64)>, const N: usize>(
    items: impl Fn() -> I,
    per_mille: [u32; N],
) -> [Option<T>; N] {
    let total: u128 = items().map(|(_, count)| u128::from(count)).sum();
    let mut items = items();
    let (mut seen, mut last) = (0_u128, None);
    per_mille.map(|per_mille| {
        let rank = (total * u128::from(per_mille.min(1000))).div_ceil(1000).max(1);
        while seen < rank {
            let Some((item, count)) = items.next() else { break };
            seen += u128::from(count);
            last = Some(item);
        }
        last
    })
}

/// Whether it is an integer of at most 64 bits.
pub(super) fn is_integral(value: f64) -> bool {
    value as i64 as f64 == value
}

impl Bucketed {
    /// `values` ascend, and there is one at least.
    pub(super) fn new(values: &[(f64, u64)]) -> Self {
        let (first, last) = (values[0].0, values[values.len() - 1].0);
        let mut all = Self { buckets: Buckets::default(), min: first, max: last, is_integral: true };
        values.iter().for_each(|&(value, count)| all.add(value, count));
        all
    }

    fn add_all(&mut self, values: &[f64]) {
        self.buckets.add_all(values);
        // PERF: comparisons of a whole batch take a fraction of a nanosecond each; only these two can be new extremes.
        let least =
            values.iter().fold(f64::INFINITY, |least, &value| if value < least { value } else { least });
        let greatest =
            values.iter().fold(f64::NEG_INFINITY, |most, &value| if value > most { value } else { most });
        [least, greatest]
            .into_iter()
            .filter(|_| !values.is_empty())
            .for_each(|value| self.note(finite(value)));
        self.is_integral = self.is_integral && values.iter().all(|&value| is_integral(value));
    }

    fn add(&mut self, value: f64, count: u64) {
        self.buckets.add(value, count);
        self.note(value);
    }

    #[inline]
    fn note(&mut self, value: f64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.is_integral &= is_integral(value);
    }

    fn merge(&mut self, other: &Self) {
        self.buckets.merge(&other.buckets);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.is_integral &= other.is_integral;
    }

    /// The value of a bucket that is shown for all in it.
    fn estimate(&self, key: i32) -> f64 {
        let nearest = scale::representative(key, self.buckets.level());
        if !self.is_integral {
            return nearest.clamp(self.min, self.max);
        }
        let (low, high) = self.integers(key);
        nearest.round().clamp(low, high.max(low))
    }

    /// The least and the greatest integer that were counted in this bucket, if any was.
    fn integers(&self, key: i32) -> (f64, f64) {
        let (low, high) = scale::ends(key, self.buckets.level());
        // The end nearer to zero is not within.
        let (low, high) = match key.signum() {
            0 => (0.0, 0.0),
            1 => (low.floor() + 1.0, high.floor()),
            _ => (low.ceil(), high.ceil() - 1.0),
        };
        (low.clamp(self.min, self.max), high.clamp(self.min, self.max))
    }

    fn error_bound(&self) -> f64 {
        let stated = scale::ERRORS[usize::from(self.buckets.level())];
        if !self.is_integral {
            return stated;
        }
        // An integer in place of the best point is up to twice as far from the other one of two, and is the only one below 92.
        let error = |(key, _)| {
            let ((low, high), shown) = (self.integers(key), self.estimate(key));
            let off = |value: f64| if value == 0.0 { 0.0 } else { ((shown - value) / value).abs() };
            off(low).max(off(high))
        };
        self.buckets.iter().map(error).fold(0.0, f64::max)
    }
}

impl HeapBytes for SketchState {
    fn heap_bytes(&self) -> usize {
        match &self.form {
            Form::Values(values) => values.capacity() * size_of::<(f64, u64)>(),
            Form::Buckets(all) => size_of::<Bucketed>() + all.buckets.heap_bytes(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use taba_core::{decode_state, encode_state};

    use super::super::Sketch;
    use super::*;

    pub(in super::super) fn state(values: &[f64]) -> SketchState {
        let mut state = SketchState::default();
        state.add_all(values);
        state
    }

    /// `n` values, each in a bucket of its own: powers of 2^(1/64) from 2^-900 up, each a little less.
    fn spread(n: usize, sign: f64) -> Vec<f64> {
        (0..n).map(|i| sign * 2_f64.powf((i as f64 - 0.5) / 64.0 - 900.0)).collect()
    }

    #[test]
    fn nothing_has_no_quantiles() {
        assert_eq!(state(&[]).quantile(500), None);
        assert_eq!(state(&[]).error_bound(), None);
        assert_eq!(encode_state(&state(&[])), [0, 0]);
    }

    #[test]
    fn few_different_values_are_answered_exactly() {
        let few = state(&[-4.5, -2.0, -0.0, 2.0, 1e300, 2.0]);
        let quantiles = few.quantiles([0, 166, 167, 500, 501, 800, 1000]);
        assert_eq!(quantiles.map(Option::unwrap), [-4.5, -4.5, -2.0, 0.0, 2.0, 2.0, 1e300]);
        assert_eq!(few.error_bound(), Some(0.0));
        assert_eq!(state(&[17.0; 1000]).quantiles([1, 500, 999]), [Some(17.0); 3]);
    }

    #[test]
    fn ranks_are_nearest_ranks() {
        let values: Vec<f64> = (0..100).map(|i| f64::from(i) * 1.5 - 60.0).collect();
        let state = state(&values);
        for per_mille in 0..=1000 {
            let value = values[(per_mille as usize * 100).div_ceil(1000).max(1) - 1];
            let found = state.quantile(per_mille).unwrap();
            assert!((found - value).abs() <= 0.00542 * value.abs(), "{per_mille}: {found} for {value}");
        }
    }

    #[test]
    fn integers_answer_with_integers_and_the_bound_is_that_of_these() {
        let up_to = |n: i32| state(&(1..=n).map(f64::from).collect::<Vec<_>>());
        assert_eq!(up_to(92).error_bound(), Some(0.0));
        let state = up_to(1000);
        let bound = state.error_bound().unwrap();
        assert!(bound <= 1.0 / 92.0 && bound > 0.00542, "{bound}");
        for per_mille in 1..=1000_u32 {
            let (found, value) = (state.quantile(per_mille).unwrap(), f64::from(per_mille));
            assert!(found.fract() == 0.0 && (found - value).abs() <= bound * value, "{per_mille}: {found}");
        }
    }

    #[test]
    fn too_many_buckets_join_and_the_bound_says_so() {
        let values = spread(SketchState::BUCKETS_MAX, 1.0);
        let mut state = state(&values);
        assert_eq!(state.error_bound(), Some(0.00542));
        state.add_all(&[-1.0]);
        assert_eq!(state.error_bound(), Some(0.01084));
        assert_eq!(state.count(), 2049);
        let (found, value) = (state.quantile(500).unwrap(), values[1024 - 1]);
        assert!((found - value).abs() <= 0.01084 * value);
    }

    #[test]
    fn counts_of_more_than_32_bits_stay_exact() {
        for different in [2, 20] {
            let values: Vec<f64> = (0..different).map(f64::from).collect();
            let (mut state, mut count) = (state(&values), different as u64);
            for _ in 0..40 {
                state.merge(&state.clone());
                count *= 2;
            }
            assert_eq!(state.count(), count);
            assert_eq!(decode_state(&Sketch, 2, &encode_state(&state)).unwrap(), state);
        }
    }

    #[test]
    fn a_dense_sketch_takes_two_bytes_a_bucket() {
        let values: Vec<f64> = (0..100_000).map(|i| f64::from(i) + 10_000.0).collect();
        let state = state(&values);
        let bytes = encode_state(&state).len();
        assert!(bytes <= 24 + 2 * state.buckets_used(), "{bytes} for {}", state.buckets_used());
        assert!(state.heap_bytes() <= 3 * state.buckets_used() + 128);
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

        /// Whether values are kept or put into buckets shows no more how they were grouped.
        #[test]
        fn neither_does_the_form(
            values in prop::collection::vec(prop_oneof![(0..30_i8).prop_map(f64::from), -2.0..2.0], 1..40),
            cut in 0_usize..40
        ) {
            let whole = state(&values);
            let (a, b) = values.split_at(cut.min(values.len()));
            let (mut left, mut right) = (state(a), state(b));
            left.merge(&state(b));
            right.merge(&state(a));
            prop_assert!(left == whole && right == whole);
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let all_are_integers = values.iter().all(|value| value.fract() == 0.0);
            for per_mille in [0, 1, 250, 500, 990, 1000] {
                let value = sorted[(per_mille as usize * values.len()).div_ceil(1000).max(1) - 1];
                let found = whole.quantile(per_mille).unwrap();
                prop_assert!(sorted[0] <= found && found <= sorted[values.len() - 1]);
                prop_assert!((found - value).abs() <= whole.error_bound().unwrap() * value.abs());
                prop_assert!(!all_are_integers || found.fract() == 0.0);
            }
        }
    }
}
