//! Sums of many doubles at a time, where they are alike.

use super::float::join;

/// Integers up to this size can be added 1,024 at a time into an i64.
const INTEGER_MAX: i64 = 1 << 52;

/// The sum of at most 1,024 values, if all of them are integers up to 2^52 in size.
pub(super) fn integer_sum(values: &[f64]) -> Option<i64> {
    // The first value usually tells what the column is made of.
    let mut integers = values.first().is_none_or(|value| value.fract() == 0.0);
    let mut sum = 0_i64;
    if !integers {
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
