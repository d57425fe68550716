//! [`ExponentialHistogram`]: a sketch as others have it.

use super::buckets::{BUCKETS_MAX, Buckets};
use super::scale::{self, INDEX_OFFSET, LEVEL_MAX, SCALE};
use super::state::{Bucketed, Form, SketchState};

/// The buckets of a [`SketchState`], as OTLP's exponential histograms and Prometheus' native ones number them.
///
/// The bucket with index `i` of positive values holds those in `(base^i, base^(i + 1)]`, where `base` is `2^(2^-scale)`;
/// that of negative values the same with the other sign. OTLP's `scale` is Prometheus' `schema`; Prometheus numbers buckets by
/// their upper end, so its index is one more.
///
/// Both directions are exact: counts go to the very buckets in which the other side would have counted. A histogram of a
/// scale above 6 is brought to 6, as OTLP does it: by joining neighbours.
///
/// ```
/// use taba_core::{Event, Handler, Timestamp};
/// use taba_handlers::{ExponentialHistogram, Sketch, SketchState};
///
/// let mut state = SketchState::default();
/// Sketch.fold(&mut state, Event::new(Timestamp::from_secs(0), &2.0));
/// let histogram = ExponentialHistogram::from(&state);
/// // 2 = 2^(64/64) is the upper end of bucket 63.
/// assert_eq!((histogram.scale, &histogram.positive[..]), (6, &[(63, 1)][..]));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ExponentialHistogram {
    /// From -2 to 6 when made of a State; others may have up to 20.
    pub scale: i8,
    /// How many values were zero.
    pub zero_count: u64,
    /// Index and count of each bucket of positive values in use, ascending.
    pub positive: Vec<(i32, u64)>,
    /// The same for negative values, by their magnitude.
    pub negative: Vec<(i32, u64)>,
    /// The least value, where it is known.
    pub min: Option<f64>,
    /// The greatest.
    pub max: Option<f64>,
}

/// Why a histogram cannot be taken for a sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExponentialError {
    /// Its buckets are wider than those of any sketch, or narrower than OTLP allows.
    #[error("scale {0} is not from -2 to 20")]
    Scale(i8),
    /// No double lies in this bucket.
    #[error("bucket {0} holds no double")]
    Index(i32),
    /// Its least value does not lie in the first of its buckets, or its greatest not in the last.
    #[error("the least or the greatest value lies outside of the buckets")]
    Extremes,
}

impl From<&SketchState> for ExponentialHistogram {
    fn from(state: &SketchState) -> Self {
        let counted;
        let all = match &state.form {
            Form::Values(values) if values.is_empty() => return Self { scale: SCALE, ..Self::default() },
            Form::Values(values) => {
                counted = Bucketed::new(values);
                &counted
            }
            Form::Buckets(all) => all,
        };
        let level = all.buckets.level();
        let mut histogram =
            Self { scale: SCALE - level as i8, min: Some(all.min), max: Some(all.max), ..Self::default() };
        for (key, count) in all.buckets.iter() {
            let index = key.abs() - 1 - (INDEX_OFFSET >> level);
            match key.signum() {
                0 => histogram.zero_count = count,
                1 => histogram.positive.push((index, count)),
                _ => histogram.negative.push((index, count)),
            }
        }
        histogram.negative.reverse();
        histogram
    }
}

impl TryFrom<&ExponentialHistogram> for SketchState {
    type Error = ExponentialError;

    /// Empty buckets are left out. Extremes that are not known are taken for the ends of the outermost buckets.
    fn try_from(histogram: &ExponentialHistogram) -> Result<Self, ExponentialError> {
        let scale = histogram.scale;
        if !(SCALE - LEVEL_MAX as i8..=20).contains(&scale) {
            return Err(ExponentialError::Scale(scale));
        }
        let level = (SCALE - scale).max(0) as u8;
        let mut keys = Vec::new();
        for (sign, buckets) in [(1, &histogram.positive), (-1, &histogram.negative)] {
            for &(index, count) in buckets.iter().filter(|(_, count)| *count > 0) {
                let key = (index >> (scale - SCALE).max(0)).checked_add(1 + (INDEX_OFFSET >> level));
                let is_key = |key: &i32| *key > 0 && scale::is_key(*key, level);
                keys.push((sign * key.filter(is_key).ok_or(ExponentialError::Index(index))?, count));
            }
        }
        keys.extend((histogram.zero_count > 0).then_some((0, histogram.zero_count)));
        keys.sort_unstable();
        let (Some(&(first, _)), Some(&(last, _))) = (keys.first(), keys.last()) else {
            return Ok(Self::default());
        };
        let mut buckets = Buckets::with_level(level, keys.len().min(BUCKETS_MAX));
        keys.into_iter().for_each(|(key, count)| buckets.push(key, count));
        buckets.fit();
        // The end nearer to zero is not within.
        let least = |(low, _): (f64, f64)| if first > 0 { low.next_up() } else { low };
        let greatest = |(_, high): (f64, f64)| if last < 0 { high.next_down() } else { high };
        let min = histogram.min.unwrap_or_else(|| least(scale::ends(first, level)));
        let max = histogram.max.unwrap_or_else(|| greatest(scale::ends(last, level)));
        let key = |value| scale::raise(scale::key(value), level);
        if key(min) != first || key(max) != last {
            return Err(ExponentialError::Extremes);
        }
        Ok(Self { form: Form::Buckets(Box::new(Bucketed { buckets, min, max, is_integral: false })) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::state::tests::state;
    use super::*;

    /// OTLP's mapping by logarithm, which is right but within an ulp or two of a bound.
    fn otlp_index(value: f64, scale: i32) -> i32 {
        (value.log2() * f64::from(scale).exp2()).ceil() as i32 - 1
    }

    #[test]
    fn buckets_are_those_of_otlp() {
        for scale in [6, 3, 0, -2] {
            for value in [1.0, 1.5, 2.0, 2.1, 3.0, 4.0, 1e-9, 0.25, 1e300, 123_456.789] {
                let mut state = state(&[value]);
                // So many octaves that the level is as wanted.
                let Form::Values(values) = &state.form else { panic!("one value") };
                let mut all = Bucketed::new(values);
                all.buckets.rise((SCALE - scale as i8) as u8);
                state.form = Form::Buckets(Box::new(all));
                let histogram = ExponentialHistogram::from(&state);
                assert_eq!(i32::from(histogram.scale), scale);
                assert_eq!(histogram.positive, [(otlp_index(value, scale), 1)], "{value} at scale {scale}");
            }
        }
    }

    #[test]
    fn a_power_of_two_is_the_upper_end_of_its_bucket() {
        let histogram = ExponentialHistogram::from(&state(&[1.0, 1.0_f64.next_up(), 2.0, 2.0_f64.next_up()]));
        assert_eq!(histogram.positive, [(-1, 1), (0, 1), (63, 1), (64, 1)]);
    }

    #[test]
    fn what_no_sketch_can_hold_is_refused() {
        let with = |change: fn(&mut ExponentialHistogram)| {
            let mut histogram =
                ExponentialHistogram { scale: 6, positive: vec![(0, 1)], ..Default::default() };
            change(&mut histogram);
            SketchState::try_from(&histogram).map(|state| state.count())
        };
        assert_eq!(with(|_| ()), Ok(1));
        assert_eq!(with(|histogram| histogram.scale = -3), Err(ExponentialError::Scale(-3)));
        assert_eq!(with(|histogram| histogram.scale = 21), Err(ExponentialError::Scale(21)));
        assert_eq!(with(|histogram| histogram.positive[0].0 = 65_536), Err(ExponentialError::Index(65_536)));
        assert_eq!(
            with(|histogram| histogram.negative = vec![(i32::MIN, 1)]),
            Err(ExponentialError::Index(i32::MIN))
        );
        assert_eq!(with(|histogram| histogram.max = Some(3.0)), Err(ExponentialError::Extremes));
        assert_eq!(with(|histogram| histogram.min = Some(f64::NAN)), Err(ExponentialError::Extremes));
    }

    proptest! {
        #[test]
        fn there_and_back_nothing_is_lost(
            values in prop::collection::vec(prop_oneof![Just(0.0), -1e3..1e3, any::<f64>()], 0..100)
        ) {
            let values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
            let histogram = ExponentialHistogram::from(&state(&values));
            let back = SketchState::try_from(&histogram).unwrap();
            prop_assert_eq!(ExponentialHistogram::from(&back), histogram);
        }

        /// Joining neighbours is the downscaling of others: a finer histogram says the same as the values themselves.
        #[test]
        fn a_finer_histogram_merges_in_exactly(values in prop::collection::vec(-1e6..1e6, 17..60), finer in 1_u32..6) {
            let index = |value: f64| (value.abs().log2() * 2_f64.powi(6 + finer as i32)).ceil() as i32 - 1;
            // Bounds of the finer grid, where logarithms may err, are left out.
            let is_inside = |value: &f64| {
                let place = value.abs().log2() * 2_f64.powi(6 + finer as i32);
                *value != 0.0 && (place - place.round()).abs() > 1e-6
            };
            let values: Vec<f64> = values.into_iter().filter(is_inside).collect();
            let mut histogram = ExponentialHistogram { scale: 6 + finer as i8, ..Default::default() };
            for &value in &values {
                let side = if value < 0.0 { &mut histogram.negative } else { &mut histogram.positive };
                side.push((index(value), 1));
            }
            let taken = ExponentialHistogram::from(&SketchState::try_from(&histogram).unwrap());
            let own = ExponentialHistogram::from(&state(&values));
            prop_assert_eq!((taken.positive, taken.negative), (own.positive, own.negative));
        }
    }
}
