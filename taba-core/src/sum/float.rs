//! Doubles as integers times powers of two.

/// The exponent of the lowest bit of the smallest double.
pub(super) const EXPONENT_MIN: i32 = -1074;

pub(super) const fn join(lo: u64, hi: u64) -> i128 {
    ((hi as i128) << 64) | lo as i128
}

pub(super) const fn split(value: i128) -> (u64, u64) {
    (value as u64, (value >> 64) as u64)
}

/// A finite double as integer times power of two. Integers below 2^53 come out with exponent 0, so that the usual
/// sums of counts never shift.
#[inline]
pub(super) fn decompose(value: f64) -> (i64, i32) {
    let integer = value as i64;
    if integer as f64 == value && integer.unsigned_abs() < 1 << 53 {
        return (integer, 0);
    }
    let bits = value.to_bits();
    let biased = (bits >> 52) as i32 & 0x7ff;
    let fraction = (bits & ((1 << 52) - 1)) as i64;
    let (mantissa, exponent) =
        if biased == 0 { (fraction, EXPONENT_MIN) } else { (fraction | 1 << 52, biased - 1075) };
    (if value < 0.0 { -mantissa } else { mantissa }, exponent)
}

/// `a * 2^at + b * 2^bt`, if it fits an i128 at the lower of the two exponents.
#[inline]
pub(super) fn add_small(a: i128, at: i32, b: i128, bt: i32) -> Option<(i128, i32)> {
    if at == bt {
        return Some((a.checked_add(b)?, at));
    }
    if b == 0 {
        return Some((a, at));
    }
    if a == 0 {
        return Some((b, bt));
    }
    let (high, shift, low, exponent) =
        if at > bt { (a, at.abs_diff(bt), b, bt) } else { (b, at.abs_diff(bt), a, at) };
    // Two bits stay free: one for the sign, one so that the sum of two such numbers cannot overflow by much.
    if high.unsigned_abs().leading_zeros() < shift.saturating_add(2) {
        return None;
    }
    Some(((high << shift).checked_add(low)?, exponent))
}

/// The same value with an odd mantissa; zero has exponent 0.
pub(super) fn normalise(mantissa: i128, exponent: i32) -> (i128, i32) {
    if mantissa == 0 {
        return (0, 0);
    }
    let zeros = mantissa.trailing_zeros();
    (mantissa >> zeros, exponent + zeros as i32)
}

/// `mantissa * 2^exponent` to the nearest double, ties to even.
pub(super) fn round(mantissa: i128, exponent: i32) -> f64 {
    // The cast rounds correctly. It is exact wherever the result would be subnormal: exponents never go below -1074,
    // so such a result has fewer than 53 bits. Scaling in two steps keeps each factor within the normal range.
    let half = exponent / 2;
    mantissa as f64 * power_of_two(half) * power_of_two(exponent - half)
}

pub(super) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}
