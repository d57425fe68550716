//! The scale of a sketch: which bucket a double falls into, and which doubles a bucket holds.
//!
//! Every octave `[2^e, 2^(e+1))` of magnitudes is cut into 36 buckets whose bounds are `2^(e + j/36)`, so a bucket's
//! ends differ by 1.95 % and a well-chosen point inside is never further than 0.963 % from any of it. There are 2,098
//! octaves, the subnormal ones included.
//!
//! ```text
//! double  | sign | exponent, 11 bits | mantissa, 52 bits: the top 6 choose a guess j, one comparison corrects it |
//! index   octave * 36 + j                                                            0 ..= 75,527
//! key     0 for zero, 1 + (index >> level) for positive, its negative for negative numbers
//! ```
//!
//! No logarithm is taken: `ln` differs between platforms in the last bit, and then a value on a bound would fall into
//! one bucket here and its neighbour there. A table and a comparison are the same everywhere, and faster.

/// Buckets in one octave.
const OCTAVE_BUCKETS: u32 = 36;
/// Octaves of magnitudes: from 2^-1074 up to, not including, 2^1024.
const OCTAVES: u32 = 2098;
/// One more than the largest index.
const INDEX_END: u32 = OCTAVES * OCTAVE_BUCKETS;
/// The level at which all keys there can be are fewer than any sketch may hold.
pub(super) const LEVEL_MAX: u8 = 7;
const MANTISSA: u64 = (1 << 52) - 1;

/// The largest relative error of [`representative`] at each level, rounded up.
pub(super) const ERRORS: [f64; LEVEL_MAX as usize + 1] =
    [0.0097, 0.0193, 0.0385, 0.0769, 0.1529, 0.2987, 0.5485, 0.8433];

/// The mantissa of 2^(j/36), rounded to nearest. A test computes them again.
const BOUNDS: [u64; OCTAVE_BUCKETS as usize + 1] = [
    0x0000000000000,
    0x04fa0fe0e9f56,
    0x0a0ce483df7f8,
    0x0f38f92d97963,
    0x147ecb8844cd1,
    0x19dedbaf82830,
    0x1f59ac3c7d6c0,
    0x24efc252589e7,
    0x2aa1a5aad04f5,
    0x306fe0a31b715,
    0x365b00490d6fa,
    0x3c63946879435,
    0x428a2f98d728b,
    0x48cf674b2e3ff,
    0x4f33d3d8436be,
    0x55b8108f0ec5e,
    0x5c5cbbc379085,
    0x632276dd6253b,
    0x6a09e667f3bcd,
    0x7113b2213d178,
    0x7840850a207a0,
    0x7f910d768cfb0,
    0x8705fd1e0a350,
    0x8ea0092c96214,
    0x965fea53d6e3d,
    0x9e465cdca229f,
    0xa65420b8dbc64,
    0xae89f995ad3ad,
    0xb6e8aeee17ed5,
    0xbf710c1de3c7e,
    0xc823e074ec129,
    0xd101ff4acc5a8,
    0xda0c4012ef44d,
    0xe3437e7101344,
    0xeca89a4dc8b32,
    0xf63c77ec669b3,
    0x10000000000000,
];

/// The bucket that holds the least mantissa with these top 6 bits. A bucket is wider than 1/64, so the next bound is
/// the only one that can lie within.
const GUESSES: [u8; 64] = [
    0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 8, 9, 10, 10, 11, 12, 12, 13, 14, 14, 15, 15, 16, 17, 17, 18, 18, 19,
    19, 20, 21, 21, 22, 22, 23, 23, 24, 24, 25, 25, 26, 26, 27, 27, 28, 28, 29, 29, 29, 30, 30, 31, 31, 32,
    32, 33, 33, 33, 34, 34, 35, 35,
];

/// The key of a value at level 0.
#[inline]
pub(super) fn key(value: f64) -> i32 {
    let magnitude = value.to_bits() & (u64::MAX >> 1);
    let index = if magnitude > MANTISSA {
        index(magnitude, 51)
    } else if magnitude == 0 {
        return 0;
    } else {
        subnormal(magnitude)
    };
    // What is not finite never gets here; if it did, it would count as the largest there is.
    let key = 1 + index.min(INDEX_END - 1) as i32;
    if value < 0.0 { -key } else { key }
}

/// The index of a normal double whose biased exponent is `octave` less than its octave.
#[inline]
fn index(magnitude: u64, octave: i32) -> u32 {
    let octave = ((magnitude >> 52) as i32 + octave) as u32;
    let mantissa = magnitude & MANTISSA;
    let guess = GUESSES[(mantissa >> 46) as usize & 63];
    let above = mantissa >= BOUNDS[usize::from(guess) + 1];
    octave * OCTAVE_BUCKETS + u32::from(guess) + u32::from(above)
}

#[cold]
fn subnormal(magnitude: u64) -> u32 {
    // Times 2^64 it is normal, and nothing was lost.
    let scaled = f64::from_bits(magnitude) * power_of_two(64);
    index(scaled.to_bits(), 51 - 64)
}

/// The key that a key becomes when the level rises by `levels`: neighbours pair up.
#[inline]
pub(super) fn raise(key: i32, levels: u8) -> i32 {
    if key == 0 {
        return 0;
    }
    key.signum() * (1 + ((key.abs() - 1) >> levels))
}

/// Whether any value has this key at this level.
pub(super) fn is_key(key: i32, level: u8) -> bool {
    key.unsigned_abs() <= 1 + ((INDEX_END - 1) >> level)
}

/// The ends of a bucket, the lesser first. The one nearer to zero is within, the other is not; the ends of the zero
/// bucket are both zero. The topmost ends at `f64::MAX`.
pub(super) fn ends(key: i32, level: u8) -> (f64, f64) {
    let (low, high) = edges(key, level);
    let (near, far) = (scale(low.0, low.1), scale(high.0, high.1).min(f64::MAX));
    match key.signum() {
        0 => (0.0, 0.0),
        1 => (near, far),
        _ => (-far, -near),
    }
}

/// The point of a bucket that is nearest, relatively, to all of it: the harmonic mean of its ends.
pub(super) fn representative(key: i32, level: u8) -> f64 {
    if key == 0 {
        return 0.0;
    }
    let ((a, exponent), (b, above)) = edges(key, level);
    let b = b * power_of_two(above - exponent);
    let magnitude = scale(2.0 * a * b / (a + b), exponent);
    if key < 0 { -magnitude } else { magnitude }
}

/// The ends of a bucket's magnitudes, each as mantissa in `[1, 2)` and exponent.
fn edges(key: i32, level: u8) -> ((f64, i32), (f64, i32)) {
    let magnitude = key.unsigned_abs().max(1) - 1;
    let (low, high) = (magnitude << level, ((magnitude + 1) << level).min(INDEX_END));
    let edge = |index: u32| {
        let mantissa = f64::from_bits(1023 << 52 | BOUNDS[(index % OCTAVE_BUCKETS) as usize]);
        (mantissa, (index / OCTAVE_BUCKETS) as i32 - 1074)
    };
    (edge(low), edge(high))
}

/// `mantissa * 2^exponent`, rounded once; infinite when that is too large.
fn scale(mantissa: f64, exponent: i32) -> f64 {
    // Two factors, each a normal double; only the last product can be subnormal and round.
    let first = exponent.clamp(-1022, 1023);
    mantissa * power_of_two(first) * power_of_two(exponent - first)
}

/// A power of two from -1022 to 1023.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `base^36` in limbs of 32 bits, the least first.
    fn power_36(base: u64) -> Vec<u32> {
        let mut limbs = vec![1_u32];
        for _ in 0..36 {
            let mut carry = 0_u128;
            for limb in &mut limbs {
                let value = u128::from(*limb) * u128::from(base) + carry;
                *limb = value as u32;
                carry = value >> 32;
            }
            while carry > 0 {
                limbs.push(carry as u32);
                carry >>= 32;
            }
        }
        limbs
    }

    /// Whether `limbs < 2^bit`.
    fn is_below(limbs: &[u32], bit: u32) -> bool {
        let top = limbs.iter().rposition(|&limb| limb != 0).expect("it is not zero");
        (top as u32 + 1) * 32 - limbs[top].leading_zeros() <= bit
    }

    #[test]
    fn bounds_are_the_nearest_doubles_to_the_powers() {
        for (j, &mantissa) in BOUNDS.iter().enumerate() {
            // In units of half the last place, the power lies between the double less one and the double plus one.
            let double = (1 << 52 | mantissa) << 1;
            let double = if j == 36 { 1 << 54 } else { double };
            let exact = 53 * 36 + j as u32;
            assert!(is_below(&power_36(double - 1), exact), "2^({j}/36) is lower");
            assert!(!is_below(&power_36(double + 1), exact), "2^({j}/36) is higher");
        }
    }

    #[test]
    fn guesses_are_right_or_one_too_low() {
        for (bits, &guess) in GUESSES.iter().enumerate() {
            let (first, last) = ((bits as u64) << 46, ((bits as u64 + 1) << 46) - 1);
            let holds = |mantissa: u64, j: usize| BOUNDS[j] <= mantissa && mantissa < BOUNDS[j + 1];
            let guess = usize::from(guess);
            assert!(holds(first, guess), "{bits}");
            assert!(holds(last, guess) || holds(last, guess + 1), "{bits}");
        }
    }

    #[test]
    fn errors_are_as_stated() {
        for (level, &stated) in ERRORS.iter().enumerate() {
            let gamma = 2_f64.powf(2_f64.powi(level as i32) / 36.0);
            let error = (gamma - 1.0) / (gamma + 1.0);
            assert!(error < stated && stated - error < 1e-4, "level {level}: {error}");
        }
    }

    #[test]
    fn all_keys_of_the_last_level_fit_any_sketch() {
        let keys = 2 * (1 + ((INDEX_END - 1) >> LEVEL_MAX)) + 1;
        assert!(keys as usize <= super::super::SketchState::BUCKETS_MAX);
    }

    #[test]
    fn the_ends_of_the_range_have_keys() {
        assert_eq!(key(0.0), 0);
        assert_eq!(key(-0.0), 0);
        assert_eq!(key(5e-324), 1);
        assert_eq!(key(f64::MAX), INDEX_END as i32);
        assert_eq!(key(-f64::MAX), -(INDEX_END as i32));
        assert_eq!(representative(1, 0), 5e-324);
        for level in 0..=LEVEL_MAX {
            let top = raise(key(f64::MAX), level);
            assert!(is_key(top, level) && !is_key(top + 1, level));
            assert!(representative(top, level).is_finite());
            assert_eq!(ends(top, level).1, f64::MAX);
        }
    }

    fn doubles() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>().prop_filter("finite", |v| v.is_finite()),
            -1e4..1e4,
            (-3000_i32..3000).prop_map(f64::from),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn keys_are_ordered_as_values(a in doubles(), b in doubles()) {
            if a < b {
                prop_assert!(key(a) <= key(b));
            }
        }

        #[test]
        fn a_value_lies_in_its_bucket_and_near_its_representative(value in doubles(), level in 0..=LEVEL_MAX) {
            let key = raise(key(value), level);
            let (low, high) = ends(key, level);
            prop_assert!(low <= value && value <= high, "{low} {value} {high}");
            // Below 1e-310 doubles stand too far apart to name the point any better.
            let slack = 5e-324;
            let error = (representative(key, level) - value).abs();
            prop_assert!(error <= ERRORS[usize::from(level)] * value.abs() + slack);
        }

        #[test]
        fn raising_twice_is_raising_once(value in doubles(), a in 0..4_u8, b in 0..4_u8) {
            let key = key(value);
            prop_assert_eq!(raise(raise(key, a), b), raise(key, a + b));
        }
    }
}
