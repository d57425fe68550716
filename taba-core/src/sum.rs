//! [`ExactSum`]: the sum of any number of `f64`, without error, the same in every order.
//!
//! Every finite double is an integer times a power of two, so a sum of doubles is one too. Nearly always that integer
//! fits 128 bits, and the sum is kept as `mantissa: i128` and `exponent: i16` (24 bytes in all). When the bits of a
//! sum span more than that (`1e300 + 1e-300`), it widens into a fixed-point number of 2,176 bits on the heap, which
//! holds every sum of fewer than 2^77 doubles. Rounding happens once, when somebody reads [`ExactSum::to_f64`].
//! Beyond that (only bytes that nobody wrote get there) it wraps around, as integers do: so addition stays associative, and
//! every sum that can be read can be added to any other and read again. [`ExactSum::is_sum_of`] tells them apart.
//!
//! ```text
//! small   lo u64 | hi u64 | exponent i16       value = (hi:lo as i128) * 2^exponent
//! wide    34 limbs of u64, little-endian       value = two's complement * 2^-1074
//! ```
//!
//! The in-memory form is whatever was quickest; [`ExactSum::canonical`] is one form per value, and is what gets
//! compared and encoded. The wide form is the "small superaccumulator" of R. M. Neal, *Fast exact summation using
//! small and large superaccumulators* (2015), with full carries, since it is rare here.

mod column;
mod float;
mod wide;

use std::fmt;
use std::iter::Sum;
use std::ops::AddAssign;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::column::{aligned_sum, integer_sum, small_integer_sum};
use self::float::{EXPONENT_MIN, add_small, decompose, join, normalise, power_of_two, round, split};
use self::wide::{LIMBS, WIDE_BYTES, WIDE_EXPONENT, Wide};
use crate::reading::number_text;

/// An exact sum of doubles: associative and commutative to the last bit.
///
/// # Examples
/// ```
/// use taba_core::ExactSum;
///
/// let sum: ExactSum = [1e100, 1.0, -1e100].into_iter().collect();
/// assert_eq!(sum.to_f64(), 1.0);
/// ```
///
/// # Cost
/// About 3 ns an [`add`](Self::add); about 1 ns an event in [`extend`](Extend) when the values are integers below
/// 2^52. 24 bytes, plus 272 on the heap when wide.
#[derive(Clone, Debug)]
pub struct ExactSum(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Small { lo: u64, hi: u64, exponent: i16 },
    Wide(Box<Wide>),
}

/// A sum of two small ones with no greater exponent is within the wide form's range; beyond, only that wraps around.
const SMALL_EXPONENT_MAX: i32 = WIDE_EXPONENT - 127;

const _: () = assert!(size_of::<ExactSum>() == 24, "hundreds of these sit in the windows of one State");

/// The one form of a sum that equal sums share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// An integer that fits 63 bits and a sign.
    Integer(i64),
    /// `mantissa * 2^exponent`, the mantissa odd and not [`Canonical::Integer`] material.
    Scaled {
        /// An odd integer.
        mantissa: i128,
        /// A power of two, -1074 to 1101.
        exponent: i16,
    },
    /// All bits: a two's complement integer times 2^-1074, little-endian, without the bytes at either end that only
    /// repeat (`skip` zero bytes below, sign bytes above).
    Wide {
        /// Zero bytes left out at the low end.
        skip: u16,
        /// The bytes between.
        bytes: Vec<u8>,
    },
}

impl Default for ExactSum {
    fn default() -> Self {
        Self::ZERO
    }
}

impl ExactSum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(Repr::Small { lo: 0, hi: 0, exponent: 0 });

    /// The most bytes that one sum takes when encoded, as a part of a postcard value.
    pub const ENCODED_BYTES_MAX: usize = WIDE_BYTES + 8;

    /// Adds one value. NaN and the infinities have no place in a sum and leave it as it is; they are refused, and
    /// counted, long before they get here.
    #[inline]
    pub fn add(&mut self, value: f64) {
        if value.is_finite() {
            let (mantissa, exponent) = decompose(value);
            self.add_scaled(i128::from(mantissa), exponent);
        }
    }

    /// Adds another sum.
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        match &other.0 {
            Repr::Small { lo, hi, exponent } => self.add_scaled(join(*lo, *hi), i32::from(*exponent)),
            Repr::Wide(wide) => {
                let mine = self.widen();
                mine.add_wide(wide);
            }
        }
    }

    /// The sum, rounded to the nearest double (ties to even). Infinite when no double is that large.
    pub fn to_f64(&self) -> f64 {
        match &self.0 {
            Repr::Small { lo, hi, exponent } => round(join(*lo, *hi), i32::from(*exponent)),
            Repr::Wide(wide) => wide.to_f64(),
        }
    }

    /// The sum by `count`, rounded; finite where the sum itself is too large for a double and its average is not.
    /// NaN when both are zero.
    pub fn divided_by(&self, count: u64) -> f64 {
        let total = self.to_f64();
        if total.is_finite() {
            return total / count as f64;
        }
        // A sum of fewer than 2^64 doubles is below 2^1088.
        const DOWN: i32 = 64;
        let scaled = match &self.0 {
            Repr::Small { lo, hi, exponent } => round(join(*lo, *hi), i32::from(*exponent) - DOWN),
            Repr::Wide(wide) => wide.to_f64_below(DOWN),
        };
        scaled / count as f64 * power_of_two(DOWN)
    }

    /// The sum as an integer, if it is one of fewer than 127 bits.
    pub fn to_integer(&self) -> Option<i128> {
        match self.canonical() {
            Canonical::Integer(value) => Some(i128::from(value)),
            Canonical::Scaled { mantissa, exponent } if exponent >= 0 => {
                let free = mantissa.unsigned_abs().leading_zeros();
                (i32::from(exponent) + 2 <= free as i32).then(|| mantissa << exponent)
            }
            Canonical::Scaled { .. } | Canonical::Wide { .. } => None,
        }
    }

    /// Whether the sum of `count` doubles can be this. If two sums are, the sum of them is one of as many doubles as both have.
    pub fn is_sum_of(&self, count: u64) -> bool {
        // Each is below 2^1024, so the sum is below `count` times that.
        match &self.0 {
            Repr::Small { lo, hi, exponent } => {
                let bits = 128 - join(*lo, *hi).unsigned_abs().leading_zeros() as i32;
                let is_one = bits == 0 || count > 0 && bits + i32::from(*exponent) <= 1024;
                is_one || self.clone().widen().is_below(count)
            }
            Repr::Wide(wide) => wide.is_below(count),
        }
    }

    /// Bytes on the heap: 0 nearly always, 272 when the sum is wide.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Small { .. } => 0,
            Repr::Wide(_) => size_of::<Wide>(),
        }
    }

    /// Whether the sum is zero.
    pub fn is_zero(&self) -> bool {
        self.canonical() == Canonical::Integer(0)
    }

    /// The one form that all equal sums share, whatever way they came about.
    pub fn canonical(&self) -> Canonical {
        if let Some(integer) = self.small_integer() {
            return Canonical::Integer(integer);
        }
        match &self.0 {
            Repr::Small { lo, hi, exponent } => canonical_small(join(*lo, *hi), i32::from(*exponent)),
            Repr::Wide(wide) => wide.canonical(),
        }
    }

    /// The sum as an integer, if it is one that [`Canonical::Integer`] holds and is kept as one: nearly always, and at no cost.
    #[inline]
    pub fn small_integer(&self) -> Option<i64> {
        match self.0 {
            Repr::Small { lo, hi, exponent: 0 } => {
                let integer = lo as i64;
                (hi as i64 == integer >> 63 && is_canonical(integer)).then_some(integer)
            }
            Repr::Small { .. } | Repr::Wide(_) => None,
        }
    }

    /// The sum that is this integer; `None` when [`Canonical::Integer`] does not hold it.
    #[inline]
    pub fn from_small_integer(integer: i64) -> Option<Self> {
        is_canonical(integer).then(|| small(i128::from(integer), 0))
    }

    /// The sum that has this form. `None` when no sum has it: the form must be the one [`canonical`](Self::canonical)
    /// would give.
    pub fn from_canonical(form: &Canonical) -> Option<Self> {
        let sum = match form {
            Canonical::Integer(value) => return Self::from_small_integer(*value),
            Canonical::Scaled { mantissa, exponent } => {
                let bits = 128 - mantissa.unsigned_abs().leading_zeros() as i32;
                // Of two's complement, the lowest number is one further from zero than the highest.
                let bits = if *mantissa == -1 { 0 } else { bits };
                if i32::from(*exponent) < EXPONENT_MIN || bits + i32::from(*exponent) > WIDE_EXPONENT {
                    return None;
                }
                small(*mantissa, i32::from(*exponent))
            }
            Canonical::Wide { skip, bytes } => Self(Repr::Wide(Box::new(Wide::from_bytes(*skip, bytes)?))),
        };
        (sum.canonical() == *form).then_some(sum)
    }

    fn add_scaled(&mut self, mantissa: i128, exponent: i32) {
        if let Repr::Small { lo, hi, exponent: mine } = &mut self.0 {
            match add_small(join(*lo, *hi), i32::from(*mine), mantissa, exponent) {
                Some((sum, at)) if at <= SMALL_EXPONENT_MAX => {
                    (*lo, *hi) = split(sum);
                    *mine = at as i16;
                    return;
                }
                _ => {}
            }
        }
        self.add_slow(mantissa, exponent);
    }

    /// The bits do not line up within 128 as they stand: strip trailing zeros and try once more, then widen.
    #[cold]
    fn add_slow(&mut self, mantissa: i128, exponent: i32) {
        if let Repr::Small { lo, hi, exponent: mine } = &mut self.0 {
            let (a, at) = normalise(join(*lo, *hi), i32::from(*mine));
            let (b, bt) = normalise(mantissa, exponent);
            match add_small(a, at, b, bt) {
                Some((sum, at)) if at <= SMALL_EXPONENT_MAX => {
                    (*lo, *hi) = split(sum);
                    *mine = at as i16;
                    return;
                }
                _ => {}
            }
        }
        self.widen().add_scaled(mantissa, exponent);
    }

    fn widen(&mut self) -> &mut Wide {
        if let Repr::Small { lo, hi, exponent } = self.0 {
            let mut wide = Box::new(Wide([0; LIMBS]));
            wide.add_scaled(join(lo, hi), i32::from(exponent));
            self.0 = Repr::Wide(wide);
        }
        match &mut self.0 {
            Repr::Wide(wide) => wide,
            Repr::Small { .. } => unreachable!("it was widened on the line above"),
        }
    }
}

impl Extend<f64> for ExactSum {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.add(value));
    }
}

impl AddAssign<f64> for ExactSum {
    fn add_assign(&mut self, value: f64) {
        self.add(value);
    }
}

impl AddAssign<&Self> for ExactSum {
    fn add_assign(&mut self, other: &Self) {
        self.merge(other);
    }
}

impl From<f64> for ExactSum {
    fn from(value: f64) -> Self {
        [value].into_iter().collect()
    }
}

impl Sum<f64> for ExactSum {
    fn sum<I: Iterator<Item = f64>>(values: I) -> Self {
        values.collect()
    }
}

impl<'a> Sum<&'a Self> for ExactSum {
    fn sum<I: Iterator<Item = &'a Self>>(sums: I) -> Self {
        sums.fold(Self::ZERO, |mut all, sum| {
            all.merge(sum);
            all
        })
    }
}

/// An integer exactly; any other sum rounded to the nearest double.
impl fmt::Display for ExactSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_integer() {
            Some(integer) => fmt::Display::fmt(&integer, f),
            None => f.pad(&number_text(self.to_f64())),
        }
    }
}

impl FromIterator<f64> for ExactSum {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut sum = Self::ZERO;
        sum.extend(values);
        sum
    }
}

impl ExactSum {
    /// Adds a column of values.
    ///
    /// # Cost
    /// Columns of integers below 2^52, which is what counters are made of, cost about 1 ns a value: they are added in
    /// an `i64`, 1,024 at a time, which cannot overflow. Other columns cost about 3 ns a value as long as the sizes of
    /// 1,024 neighbours differ by less than 2^63; beyond that, as much as [`add`](Self::add).
    pub fn add_all(&mut self, values: &[f64]) {
        for chunk in values.chunks(CHUNK) {
            if let Some(sum) = small_integer_sum(chunk).or_else(|| integer_sum(chunk)) {
                self.add_scaled(i128::from(sum), 0);
            } else if let Some((sum, exponent)) = aligned_sum(chunk) {
                self.add_scaled(sum, exponent);
            } else {
                self.extend(chunk.iter().copied());
            }
        }
    }
}

/// Values that are added before anybody looks for an overflow.
const CHUNK: usize = 1024;

impl PartialEq for ExactSum {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl Eq for ExactSum {}

impl Serialize for ExactSum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.canonical() {
            Canonical::Integer(value) => (0_u8, value).serialize(serializer),
            Canonical::Scaled { mantissa, exponent } => (1_u8, exponent, mantissa).serialize(serializer),
            Canonical::Wide { skip, bytes } => (2_u8, skip, bytes).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ExactSum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(3, SumVisitor)
    }
}

struct SumVisitor;

impl<'de> serde::de::Visitor<'de> for SumVisitor {
    type Value = ExactSum;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the form of an exact sum (0, 1 or 2), then its fields")
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<ExactSum, A::Error> {
        let form: u8 = element(&mut seq)?;
        let canonical = canonical_from_seq(form, &mut seq)?;
        ExactSum::from_canonical(&canonical)
            .ok_or_else(|| serde::de::Error::custom("not a canonical exact sum"))
    }
}

/// Reads the fields of [`Canonical`] form 0, 1 or 2 from a sequence. For parts that pack the number of the form into
/// a header of their own.
///
/// # Errors
/// When a field is missing or the form is unknown.
pub fn canonical_from_seq<'de, A: serde::de::SeqAccess<'de>>(
    form: u8,
    seq: &mut A,
) -> Result<Canonical, A::Error> {
    Ok(match form {
        0 => Canonical::Integer(element(seq)?),
        1 => Canonical::Scaled { exponent: element(seq)?, mantissa: element(seq)? },
        2 => Canonical::Wide { skip: element(seq)?, bytes: element(seq)? },
        _ => return Err(serde::de::Error::custom("unknown form of an exact sum")),
    })
}

fn element<'de, T: Deserialize<'de>, A: serde::de::SeqAccess<'de>>(seq: &mut A) -> Result<T, A::Error> {
    seq.next_element()?.ok_or_else(|| serde::de::Error::custom("an exact sum ends early"))
}

fn small(mantissa: i128, exponent: i32) -> ExactSum {
    let (lo, hi) = split(mantissa);
    ExactSum(Repr::Small { lo, hi, exponent: exponent as i16 })
}

/// Whether an integer has few enough bits for [`Canonical::Integer`].
const fn is_canonical(integer: i64) -> bool {
    integer.unsigned_abs() < 1 << 62
}

fn canonical_small(mantissa: i128, exponent: i32) -> Canonical {
    let (mantissa, exponent) = normalise(mantissa, exponent);
    let bits = 128 - mantissa.unsigned_abs().leading_zeros() as i32;
    if exponent >= 0 && bits + exponent <= 62 {
        return Canonical::Integer((mantissa << exponent) as i64);
    }
    Canonical::Scaled { mantissa, exponent: exponent as i16 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sums_add_up_by_the_operators_too() {
        let mut sum: ExactSum = [1e100, 0.5].into_iter().sum();
        sum += -1e100;
        sum += &ExactSum::from(2.0);
        assert_eq!((sum.to_string(), sum.to_f64()), ("2.5".to_owned(), 2.5));
        let two: ExactSum = [&sum, &sum].into_iter().sum();
        assert_eq!(format!("{two:>3}"), "  5");
    }

    fn sum(values: &[f64]) -> ExactSum {
        values.iter().copied().collect()
    }

    fn encoded(sum: &ExactSum) -> Vec<u8> {
        postcard::to_stdvec(sum).unwrap()
    }

    /// Doubles of every kind: any bits, near one, integers, and the ends of the range.
    fn doubles() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>().prop_filter("finite", |v| v.is_finite()),
            -1e3..1e3,
            (-1_000_000_i64..1_000_000).prop_map(|v| v as f64),
            prop::sample::select(vec![
                f64::MAX,
                f64::MIN,
                f64::MIN_POSITIVE,
                5e-324,
                -5e-324,
                0.0,
                -0.0,
                2f64.powi(53)
            ]),
        ]
    }

    /// Doubles whose exponents lie closer together or further apart than a column can align, with zeros between.
    fn column_values() -> impl Strategy<Value = f64> {
        (-1.0..1.0_f64, -40_i32..40, any::<bool>())
            .prop_map(|(v, e, is_zero)| if is_zero { 0.0 } else { v * 2f64.powi(e) })
    }

    #[test]
    fn columns_of_extremes_are_their_values() {
        for extreme in [f64::MAX, f64::MIN, 5e-324, -5e-324, f64::MIN_POSITIVE, 1.5, -0.0] {
            let values = vec![extreme; 1024];
            let mut column = ExactSum::ZERO;
            column.add_all(&values);
            assert_eq!(encoded(&column), encoded(&sum(&values)), "{extreme}");
        }
        let mut column = ExactSum::ZERO;
        column.add_all(&[1.5, f64::NAN, f64::INFINITY, 2.0]);
        assert_eq!(column.to_f64(), 3.5);
    }

    #[test]
    fn what_doubles_lose_is_kept() {
        assert_eq!(sum(&[1e100, 1.0, -1e100]).to_f64(), 1.0);
        assert_eq!(sum(&[1e300, 1e-300, -1e300]).to_f64(), 1e-300);
        assert_eq!(sum(&[0.1; 10]).to_f64(), 1.0);
        assert_eq!(sum(&[16_777_216.0, 1.0]).to_f64(), 16_777_217.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).to_f64(), f64::INFINITY);
        assert_eq!(sum(&[f64::MAX, f64::MAX, f64::MIN]).to_f64(), f64::MAX);
        assert_eq!(sum(&[5e-324, 5e-324]).to_f64(), 1e-323);
        assert_eq!(sum(&[1.0, f64::NAN, f64::INFINITY]).to_f64(), 1.0);
    }

    #[test]
    fn a_sum_between_two_doubles_is_the_nearer_one_however_little_decides() {
        let tiny = 2f64.powi(-1000);
        for exponent in -64..64 {
            let (one, half) = (2f64.powi(exponent), 2f64.powi(exponent - 53));
            let next = one + 2.0 * half;
            assert_eq!(sum(&[one, half]).to_f64(), one, "a tie goes to the even one: 2^{exponent}");
            assert_eq!(sum(&[next, half]).to_f64(), next + 2.0 * half, "2^{exponent}");
            for little in
                [tiny, 2f64.powi(exponent - 60), 2f64.powi(exponent - 64), 2f64.powi(exponent - 130)]
            {
                let of = |little: f64| sum(&[one, half, little, tiny, -tiny]).to_f64();
                assert_eq!((of(little), of(-little)), (next, one), "2^{exponent} and {little:e}");
                let below = sum(&[-one, -half, -little, tiny, -tiny]).to_f64();
                assert_eq!(below, -next, "-2^{exponent} and {little:e}");
            }
        }
    }

    #[test]
    fn a_wide_sum_takes_the_bytes_between_its_ends() {
        let wide = |sign: f64| sum(&[sign, sign * 2f64.powi(-1000)]);
        assert!((125..=135).contains(&encoded(&wide(1.0)).len()), "{}", encoded(&wide(1.0)).len());
        assert!((125..=135).contains(&encoded(&wide(-1.0)).len()), "{}", encoded(&wide(-1.0)).len());
        assert!(wide(1.0).heap_bytes() > 0 && sum(&[1.0]).heap_bytes() == 0);
        assert!(!wide(1.0).is_zero() && !sum(&[1.0]).is_zero());
        assert!(ExactSum::ZERO.is_zero() && sum(&[1.0, 1e-300, -1.0, -1e-300]).is_zero());
    }

    #[test]
    fn an_average_is_finite_where_it_can_be() {
        assert_eq!(sum(&[f64::MAX, f64::MAX]).divided_by(2), f64::MAX);
        assert_eq!(sum(&[f64::MIN, f64::MIN, f64::MIN]).divided_by(3), f64::MIN);
        assert_eq!(sum(&[f64::MAX, f64::MAX, 5e-324]).divided_by(3), f64::MAX / 3.0 * 2.0);
        assert_eq!(sum(&[1.0, 2.0]).divided_by(2), 1.5);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).divided_by(1), f64::INFINITY);
    }

    #[test]
    fn integers_beyond_a_doubles_are_exact() {
        assert_eq!(sum(&[2_f64.powi(53), 1.0]).to_integer(), Some((1 << 53) + 1));
        assert_eq!(sum(&[2_f64.powi(63), 1.0]).to_integer(), Some((1 << 63) + 1));
        assert_eq!(sum(&[-(2_f64.powi(125))]).to_integer(), Some(-(1 << 125)));
        assert_eq!(sum(&[0.5]).to_integer(), None);
        assert_eq!(sum(&[1e300]).to_integer(), None);
        assert_eq!(sum(&[]).to_integer(), Some(0));
    }

    #[test]
    fn a_wide_sum_that_cancels_encodes_as_if_it_had_never_been_wide() {
        let wide = sum(&[1e300, 1e-300, 7.0, -1e300, -1e-300]);
        assert!(matches!(wide.0, Repr::Wide(_)));
        assert_eq!(encoded(&wide), encoded(&sum(&[7.0])));
        assert_eq!(encoded(&sum(&[1e300, 1e-300, -1e300, -1e-300])), encoded(&ExactSum::ZERO));
    }

    #[test]
    fn sizes_are_as_stated() {
        assert_eq!(encoded(&ExactSum::ZERO).len(), 2);
        assert_eq!(encoded(&sum(&[1.0; 60])).len(), 2);
        assert!(encoded(&sum(&[0.1])).len() <= 11);
        let worst = sum(&[f64::MAX, f64::MAX, 5e-324]);
        assert!(encoded(&worst).len() <= ExactSum::ENCODED_BYTES_MAX);
    }

    #[test]
    fn forms_that_are_not_canonical_are_refused() {
        for form in [
            Canonical::Scaled { mantissa: 2, exponent: -7 },
            Canonical::Scaled { mantissa: 3, exponent: 0 },
            Canonical::Scaled { mantissa: 3, exponent: -1075 },
            Canonical::Scaled { mantissa: i128::MAX, exponent: 1000 },
            Canonical::Scaled { mantissa: 1, exponent: 1101 },
            Canonical::Scaled { mantissa: -1, exponent: 1102 },
            Canonical::Scaled { mantissa: 5, exponent: 1099 },
            Canonical::Scaled { mantissa: 1, exponent: i16::MAX },
            Canonical::Integer(i64::MAX),
            Canonical::Wide { skip: 3, bytes: vec![1] },
            Canonical::Wide { skip: 271, bytes: vec![1, 2] },
            Canonical::Wide { skip: 0, bytes: vec![] },
        ] {
            assert!(ExactSum::from_canonical(&form).is_none(), "{form:?}");
        }
    }

    /// Of any sign and size, up to the ends of what can be read.
    fn readable() -> impl Strategy<Value = ExactSum> {
        let part = (any::<i128>(), 0_u32..127, -1074_i16..1102)
            .prop_map(|(bits, shift, exponent)| Canonical::Scaled { mantissa: bits >> shift | 1, exponent });
        let read = |form: Canonical| ExactSum::from_canonical(&form).unwrap_or_default();
        prop::collection::vec(part.prop_map(read), 1..4).prop_map(|parts| parts.iter().sum())
    }

    #[test]
    fn sums_at_the_ends_are_read_again() {
        let of =
            |mantissa, exponent| ExactSum::from_canonical(&Canonical::Scaled { mantissa, exponent }).unwrap();
        for end in [of(1, 1099), of(1, 1100), of(-1, 1100), of(-1, 1101), of(3, 1099), of(i128::MAX, 974)] {
            for other in [end.clone(), sum(&[1.0]), of(1, -1074), of(-1, 1101)] {
                let mut sum = end.clone();
                for _ in 0..5 {
                    sum.merge(&other);
                    assert_eq!(postcard::from_bytes::<ExactSum>(&encoded(&sum)).as_ref(), Ok(&sum));
                }
            }
        }
        assert_eq!([of(1, 1100), of(1, 1100)].iter().sum::<ExactSum>(), of(-1, 1101), "it wraps around");
    }

    #[test]
    fn what_doubles_can_add_up_to() {
        assert!(sum(&[]).is_sum_of(0) && !sum(&[1.0]).is_sum_of(0) && !sum(&[5e-324]).is_sum_of(0));
        for count in 1..5 {
            let most = sum(&vec![f64::MAX; count]);
            assert!(most.is_sum_of(count as u64) && !most.is_sum_of(count as u64 - 1));
            let least = sum(&[vec![f64::MIN; count], vec![5e-324]].concat());
            assert!(least.is_sum_of(count as u64) && !least.is_sum_of(count as u64 - 1));
        }
        let power =
            |exponent| ExactSum::from_canonical(&Canonical::Scaled { mantissa: 1, exponent }).unwrap();
        assert!(!power(1024).is_sum_of(1) && power(1024).is_sum_of(2));
        assert!(!power(1100).is_sum_of(u64::MAX) && power(1087).is_sum_of(u64::MAX));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn readable_sums_are_a_commutative_group(a in readable(), b in readable(), c in readable()) {
            let plus = |a: &ExactSum, b: &ExactSum| [a, b].into_iter().sum::<ExactSum>();
            prop_assert_eq!(encoded(&plus(&a, &b)), encoded(&plus(&b, &a)));
            let whole = plus(&plus(&a, &b), &c);
            prop_assert_eq!(encoded(&whole), encoded(&plus(&a, &plus(&b, &c))));
            prop_assert_eq!(postcard::from_bytes::<ExactSum>(&encoded(&whole)), Ok(whole));
        }

        #[test]
        fn any_order_and_any_grouping_gives_the_same_bytes(
            values in prop::collection::vec(doubles(), 0..40), cut in 0_usize..40, seed in any::<u64>()
        ) {
            let whole = sum(&values);
            let cut = cut.min(values.len());
            let mut parts = sum(&values[cut..]);
            parts.merge(&sum(&values[..cut]));
            prop_assert_eq!(encoded(&whole), encoded(&parts));
            let mut shuffled = values.clone();
            for i in (1..shuffled.len()).rev() {
                shuffled.swap(i, (seed.rotate_left(i as u32) % (i as u64 + 1)) as usize);
            }
            prop_assert_eq!(encoded(&whole), encoded(&sum(&shuffled)));
            let mut column = ExactSum::ZERO;
            column.add_all(&values);
            prop_assert_eq!(encoded(&whole), encoded(&column));
        }

        #[test]
        fn a_column_is_its_values(values in prop::collection::vec(column_values(), 0..1500)) {
            let mut column = ExactSum::ZERO;
            column.add_all(&values);
            prop_assert_eq!(encoded(&column), encoded(&sum(&values)));
        }

        #[test]
        fn small_and_wide_are_one_number(values in prop::collection::vec(doubles(), 0..20)) {
            let sum = sum(&values);
            let mut wide = sum.clone();
            wide.widen();
            prop_assert_eq!(sum.canonical(), wide.canonical());
            prop_assert_eq!(sum.to_f64().to_bits(), wide.to_f64().to_bits());
        }

        #[test]
        fn encoding_loses_nothing(values in prop::collection::vec(doubles(), 0..20)) {
            let sum = sum(&values);
            let back: ExactSum = postcard::from_bytes(&encoded(&sum)).unwrap();
            prop_assert_eq!(&sum, &back);
            prop_assert_eq!(sum.to_f64().to_bits(), back.to_f64().to_bits());
        }

        #[test]
        fn hostile_bytes_are_an_error_or_a_canonical_sum(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((sum, rest)) = postcard::take_from_bytes::<ExactSum>(&bytes) {
                let used = bytes.len() - rest.len();
                prop_assert!(encoded(&sum).len() <= used);
            }
        }

        #[test]
        fn one_value_comes_back_as_it_is(value in doubles()) {
            prop_assert_eq!(sum(&[value]).to_f64(), value);
        }

        #[test]
        fn two_values_round_as_the_machine_rounds_them(a in doubles(), b in doubles()) {
            prop_assert_eq!(sum(&[a, b]).to_f64(), a + b);
        }
    }
}
