//! Sums of many doubles at a time, where they are alike.

use super::float::join;

/// So many values are added at the same time.
const LANES: usize = 4;
/// Of integers up to this size 1,024 add up to at most 2^52, so that every sum of some of them is a double.
const SMALL_MAX: f64 = (1_u64 << 42) as f64;

/// The sum of at most 1,024 values, if all of them are integers up to 2^42 in size.
// PERF: additions of doubles alone, several at a time; a conversion of each to an integer and back takes three times as long.
pub(super) fn small_integer_sum(values: &[f64]) -> Option<i64> {
    // Added and taken away again, it leaves the nearest integer.
    const ROUNDING: f64 = 1.5 * (1_u64 << 52) as f64;
    // The first value usually tells what the column is made of.
    if values.first().is_some_and(|value| value + ROUNDING - ROUNDING != *value) {
        return None;
    }
    let (mut sums, mut largest, mut rests) = ([0.0_f64; LANES], [0.0_f64; LANES], [0_u64; LANES]);
    let chunks = values.chunks_exact(LANES);
    let mut last = [0.0; LANES];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    for chunk in chunks.chain([&last[..]]) {
        for (lane, &value) in chunk.iter().enumerate() {
            // Minus zero is the one integer that differs from its rounding.
            let value = value + 0.0;
            rests[lane] |= (value + ROUNDING - ROUNDING).to_bits() ^ value.to_bits();
            largest[lane] = if value.abs() > largest[lane] { value.abs() } else { largest[lane] };
            sums[lane] += value;
        }
    }
    let is_small = largest.iter().all(|largest| *largest <= SMALL_MAX);
    let sum: f64 = sums.iter().sum();
    // NaN is neither larger nor different, but it stays in the sum.
    (rests == [0; LANES] && is_small && !sum.is_nan()).then_some(sum as i64)
}

/// Integers up to this size can be added 1,024 at a time into an i64.
const INTEGER_MAX: i64 = 1 << 52;

/// The sum of at most 1,024 values, if all of them are integers up to 2^52 in size.
pub(super) fn integer_sum(values: &[f64]) -> Option<i64> {
    let (mut integers, mut sum) = (true, 0_i64);
    if values.first().is_some_and(|value| value.fract() != 0.0) {
        return None;
    }
    for &value in values {
        // A cast saturates and turns NaN into 0; the comparison then sees it.
        let integer = value as i64;
        integers &= (integer as f64 == value) & (integer.unsigned_abs() <= INTEGER_MAX as u64);
        sum = sum.wrapping_add(integer);
    }
    integers.then_some(sum)
}

/// The sum of at most 1,024 values as integer times power of two, if their exponents lie close enough together.
///
/// Every mantissa is shifted to the lowest exponent among them: 53 bits, shifted by at most 63, added 1,024 times, stay
/// below 2^126.
// PERF: no branch a value, and no test of a carry; `cargo run --profile bench -p taba-bench --bin fold`.
pub(super) fn aligned_sum(values: &[f64]) -> Option<(i128, i32)> {
    let (mut lowest, mut highest) = (u64::MAX, 0);
    for value in values {
        let bits = value.to_bits();
        let biased = (bits >> 52) & 0x7ff;
        highest = highest.max(biased);
        // Zero has no bits that would have to be shifted anywhere.
        lowest = lowest.min(if bits << 1 == 0 { u64::MAX } else { biased.max(1) });
    }
    if highest == 0x7ff || lowest == u64::MAX || highest.saturating_sub(lowest) > 63 {
        return None;
    }
    let mut sum = 0_i128;
    for value in values {
        let bits = value.to_bits();
        let biased = (bits >> 52) & 0x7ff;
        let fraction = bits & ((1 << 52) - 1);
        let mantissa = if biased == 0 { fraction } else { fraction | 1 << 52 };
        let shift = biased.max(1).saturating_sub(lowest) as u32 & 63;
        // Two shifts of 64 bits: a shift of 128 would have to ask whether it is by more than 63.
        let magnitude = join(mantissa << shift, (mantissa >> 1) >> (63 - shift));
        let sign = i128::from(bits as i64 >> 63);
        sum += (magnitude ^ sign) - sign;
    }
    Some((sum, lowest as i32 - 1075))
}
