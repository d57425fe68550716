//! What a [`SketchState`] is when encoded.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bits::{BitReader, BitWriter, RiceCoder};
use super::buckets::{BUCKETS_MAX, Buckets};
use super::scale;
use super::state::{Bucketed, Form, SketchState, is_integral};

/// The encoded form, as plain data; all integers are varints, signed ones in zigzag.
#[derive(Serialize, Deserialize)]
enum Encoded {
    /// Up to 16 different values, ascending, each with its count.
    Integers(Vec<(i64, u64)>),
    /// The same, when one at least is no integer.
    Doubles(Vec<(f64, u64)>),
    /// Buckets of integers alone.
    IntegerBuckets { min: i64, max: i64, buckets: EncodedBuckets },
    /// All other buckets.
    DoubleBuckets { min: f64, max: f64, buckets: EncodedBuckets },
}

/// The first bucket is that of the least value, the last that of the greatest.
#[derive(Serialize, Deserialize)]
struct EncodedBuckets {
    level: u8,
    /// How many are in use.
    len: u16,
    /// For each row of buckets in use: the gap before it less 1 (the first has none), its length less 1, and for each bucket the
    /// difference of its count to that of the one before, in zigzag; each kind of integer with a [`RiceCoder`] of its own.
    bits: Vec<u8>,
}

impl Serialize for SketchState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encoded = match &self.form {
            Form::Values(values) if values.iter().all(|(value, _)| is_integral(*value)) => {
                Encoded::Integers(values.iter().map(|&(value, count)| (value as i64, count)).collect())
            }
            Form::Values(values) => Encoded::Doubles(values.clone()),
            Form::Buckets(all) => {
                let (min, max, buckets) = (all.min, all.max, EncodedBuckets::new(&all.buckets));
                if all.is_integral {
                    Encoded::IntegerBuckets { min: min as i64, max: max as i64, buckets }
                } else {
                    Encoded::DoubleBuckets { min, max, buckets }
                }
            }
        };
        encoded.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SketchState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = match Encoded::deserialize(deserializer)? {
            Encoded::Integers(values) => {
                let integers = values.into_iter().map(|(value, count)| Some((integer(value)?, count)));
                integers.collect::<Option<_>>().and_then(few)
            }
            Encoded::Doubles(values) => {
                let is_form = !values.iter().all(|(value, _)| is_integral(*value));
                if is_form { few(values) } else { None }
            }
            Encoded::IntegerBuckets { min, max, buckets } => match (integer(min), integer(max)) {
                (Some(min), Some(max)) => buckets.check(min, max, true),
                _ => None,
            },
            Encoded::DoubleBuckets { min, max, buckets } => buckets.check(min, max, false),
        };
        Ok(Self { form: form.ok_or_else(|| D::Error::custom("not the values or buckets of a sketch"))? })
    }
}

/// The double that is this integer, if there is one.
fn integer(value: i64) -> Option<f64> {
    let double = value as f64;
    (double as i64 == value).then_some(double)
}

fn few(values: Vec<(f64, u64)>) -> Option<Form> {
    let ascend = values.is_sorted_by(|a, b| a.0 < b.0);
    let are_lawful = values.iter().all(|&(value, count)| is_plain(value) && count > 0);
    (values.len() <= SketchState::VALUES_MAX && ascend && are_lawful).then_some(Form::Values(values))
}

/// Whether a State can hold it: it is finite, and not the zero with a sign.
fn is_plain(value: f64) -> bool {
    value.is_finite() && value.to_bits() != (-0.0_f64).to_bits()
}

impl EncodedBuckets {
    fn new(buckets: &Buckets) -> Self {
        let (mut bits, mut coders) = (BitWriter::default(), RiceCoders::new());
        let (mut counts, mut last) = (buckets.iter().map(|(_, count)| count), 0_u64);
        for (gap, len) in buckets.runs() {
            if gap > 0 {
                bits.put(u64::from(gap - 1), &mut coders.gap);
            }
            bits.put(u64::from(len - 1), &mut coders.len);
            for count in counts.by_ref().take(len as usize) {
                bits.put(zigzag(count.wrapping_sub(last)), &mut coders.count);
                last = count;
            }
        }
        Self { level: buckets.level(), len: buckets.len() as u16, bits: bits.finish() }
    }

    fn check(self, min: f64, max: f64, is_integral: bool) -> Option<Form> {
        let mut left = usize::from(self.len);
        let are_bounds = is_plain(min) && is_plain(max) && min <= max;
        if left == 0 || left > BUCKETS_MAX || self.level > scale::LEVEL_MAX || !are_bounds {
            return None;
        }
        let key = |value| scale::raise(scale::key(value), self.level);
        let mut buckets = Buckets::with_level(self.level, left);
        let (mut bits, mut coders) = (BitReader::new(&self.bits), RiceCoders::new());
        let (mut next, mut count) = (key(min), 0_u64);
        while left > 0 {
            if buckets.len() > 0 {
                let gap = u32::try_from(bits.get(&mut coders.gap)?).ok()?;
                next = next.checked_add_unsigned(gap)?.checked_add(1)?;
            }
            let len = bits.get(&mut coders.len)?.checked_add(1)?;
            left = left.checked_sub(usize::try_from(len).ok()?)?;
            for _ in 0..len {
                count = count.wrapping_add(unzigzag(bits.get(&mut coders.count)?));
                if count == 0 || !scale::is_key(next, self.level) {
                    return None;
                }
                buckets.push(next, count);
                next += 1;
            }
        }
        // Nothing is spelled one way only.
        let is_all = bits.is_at_end() && next == key(max) + 1;
        is_all.then(|| Form::Buckets(Box::new(Bucketed { buckets, min, max, is_integral })))
    }
}

/// Bits of a gap: any key less any other.
const GAP_WIDTH: u32 = 19;
/// Bits of the length of a row less 1.
const LEN_WIDTH: u32 = 11;

struct RiceCoders {
    gap: RiceCoder,
    len: RiceCoder,
    count: RiceCoder,
}

impl RiceCoders {
    fn new() -> Self {
        Self { gap: RiceCoder::new(GAP_WIDTH), len: RiceCoder::new(LEN_WIDTH), count: RiceCoder::new(64) }
    }
}

/// Small for a difference near zero of either sign, modulo 2^64.
fn zigzag(difference: u64) -> u64 {
    let signed = difference as i64;
    (signed << 1 ^ signed >> 63) as u64
}

fn unzigzag(code: u64) -> u64 {
    code >> 1 ^ (code & 1).wrapping_neg()
}

impl SketchState {
    /// The most bytes one takes when encoded: form, ends, level, two lengths, and for each bucket its count, and a row of its own.
    pub const ENCODED_BYTES_MAX: usize = 1
        + 20
        + 1
        + 3
        + 3
        + (Self::BUCKETS_MAX
            * (RiceCoder::bits_max(GAP_WIDTH) + RiceCoder::bits_max(LEN_WIDTH) + RiceCoder::bits_max(64)))
        .div_ceil(8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use taba_core::{StateError, decode_state, encode_state};

    use super::super::Sketch;
    use super::*;

    fn decode(bytes: &[u8]) -> Result<SketchState, StateError> {
        decode_state(&Sketch, 2, bytes)
    }

    #[test]
    fn other_spellings_are_refused() {
        assert!(decode(&[0, 1, 2, 5]).is_ok(), "five times 1");
        assert!(decode(&[0, 1, 2, 0]).is_err(), "1, and never");
        assert!(decode(&[0, 2, 2, 5, 2, 5]).is_err(), "1 twice");
        assert!(decode(&[0, 2, 4, 5, 2, 5]).is_err(), "2 before 1");
        assert!(
            decode(&[0, 17].into_iter().chain((0..17).flat_map(|i| [2 * i, 1])).collect::<Vec<_>>()).is_err(),
            "17"
        );
        let double = |value: f64| [&[1, 1][..], &value.to_le_bytes(), &[5]].concat();
        assert!(decode(&double(0.5)).is_ok());
        for value in [1.0, -0.0, f64::NAN, f64::INFINITY] {
            assert!(decode(&double(value)).is_err(), "{value} as a double");
        }
        assert!(decode(&[0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 5]).is_ok(), "-2^63");
        assert!(
            decode(&[0, 1, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 5]).is_err(),
            "2^63 - 2"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Whatever is read is written as it was, changed bytes included, and merges into what can be read.
        #[test]
        fn there_is_one_way_to_write_each(
            values in prop::collection::vec(prop_oneof![(0..1000_i16).prop_map(f64::from), -2.0..2.0, any::<f64>()], 0..60),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut state = SketchState::default();
            state.add_all(&values.into_iter().filter(|value| value.is_finite()).collect::<Vec<_>>());
            let mut bytes = encode_state(&state);
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            // A varint of more bytes than it needs is refused by no decoder of them.
            if let Ok(mut read) = decode(&bytes) {
                let written = encode_state(&read);
                prop_assert!(written == bytes || written.len() < bytes.len());
                read.merge(&state);
                read.quantiles(super::super::PERCENTILES);
                read.error_bound();
                prop_assert_eq!(decode(&encode_state(&read)).unwrap(), read);
            }
        }
    }
}
