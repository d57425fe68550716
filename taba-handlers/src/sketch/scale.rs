//! The scale of a sketch: which bucket a double falls into, and which doubles a bucket holds.
//!
//! Every octave `(2^e, 2^(e+1)]` of magnitudes is cut into 64 buckets whose bounds are `2^(e + j/64)`, the upper one within, so
//! a bucket's ends differ by 1.09 % and a well-chosen point inside is never further than 0.542 % from any of it. These are the
//! buckets of OTLP's exponential histograms of scale 6 and of Prometheus' native histograms of schema 6; joining neighbours, as
//! here from level to level, is the downscaling of both.
//!
//! ```text
//! double  | sign | exponent, 11 bits | mantissa, 52 bits: the top 7 choose a guess, one comparison corrects it |
//! index   OTLP's index at scale 6, plus 68,864                                       127 ..= 134,399
//! key     0 for zero, 1 + (index >> level) for positive, its negative for negative numbers
//! ```
//! 68,864 is the least multiple of 256 that makes all indexes positive, so that up to level 8 shifting joins the same neighbours
//! as it does there.
//!
//! No logarithm is taken: `ln` differs between platforms in the last bit, and then a value on a bound would fall into
//! one bucket here and its neighbour there. A table and a comparison are the same everywhere, and faster.

/// Buckets in one octave.
const OCTAVE_BUCKETS: u32 = 64;
/// What is added to OTLP's index at scale 6.
pub(super) const INDEX_OFFSET: i32 = 68_864;
/// The index of the least double, `2^-1074`: the upper end of its bucket.
const INDEX_MIN: u32 = 127;
/// The index of the greatest.
const INDEX_MAX: u32 = 134_399;
/// The index of the bucket that ends where the biased exponent is 0.
const NORMAL: i32 = INDEX_OFFSET - 1 - 1023 * OCTAVE_BUCKETS as i32;
/// OTLP's scale at level 0.
pub(super) const SCALE: i8 = 6;
/// The level at which all keys there can be are fewer than any sketch may hold.
pub(super) const LEVEL_MAX: u8 = 8;
const MANTISSA: u64 = (1 << 52) - 1;

/// The largest relative error of [`representative`] at each level, rounded up.
pub(super) const ERRORS: [f64; LEVEL_MAX as usize + 1] =
    [0.00542, 0.01084, 0.02166, 0.0433, 0.0865, 0.1716, 0.3334, 0.6001, 0.8824];

/// The mantissa of 2^(j/64), rounded to nearest. A test computes them again.
const BOUNDS: [u64; OCTAVE_BUCKETS as usize + 1] = [
    0x0000000000000,
    0x02c9a3e778061,
    0x059b0d3158574,
    0x0874518759bc8,
    0x0b5586cf9890f,
    0x0e3ec32d3d1a2,
    0x11301d0125b51,
    0x1429aaea92de0,
    0x172b83c7d517b,
    0x1a35beb6fcb75,
    0x1d4873168b9aa,
    0x2063b88628cd6,
    0x2387a6e756238,
    0x26b4565e27cdd,
    0x29e9df51fdee1,
    0x2d285a6e4030b,
    0x306fe0a31b715,
    0x33c08b26416ff,
    0x371a7373aa9cb,
    0x3a7db34e59ff7,
    0x3dea64c123422,
    0x4160a21f72e2a,
    0x44e086061892d,
    0x486a2b5c13cd0,
    0x4bfdad5362a27,
    0x4f9b2769d2ca7,
    0x5342b569d4f82,
    0x56f4736b527da,
    0x5ab07dd485429,
    0x5e76f15ad2148,
    0x6247eb03a5585,
    0x6623882552225,
    0x6a09e667f3bcd,
    0x6dfb23c651a2f,
    0x71f75e8ec5f74,
    0x75feb564267c9,
    0x7a11473eb0187,
    0x7e2f336cf4e62,
    0x82589994cce13,
    0x868d99b4492ed,
    0x8ace5422aa0db,
    0x8f1ae99157736,
    0x93737b0cdc5e5,
    0x97d829fde4e50,
    0x9c49182a3f090,
    0xa0c667b5de565,
    0xa5503b23e255d,
    0xa9e6b5579fdbf,
    0xae89f995ad3ad,
    0xb33a2b84f15fb,
    0xb7f76f2fb5e47,
    0xbcc1e904bc1d2,
    0xc199bdd85529c,
    0xc67f12e57d14b,
    0xcb720dcef9069,
    0xd072d4a07897c,
    0xd5818dcfba487,
    0xda9e603db3285,
    0xdfc97337b9b5f,
    0xe502ee78b3ff6,
    0xea4afa2a490da,
    0xefa1bee615a27,
    0xf50765b6e4540,
    0xfa7c1819e90d8,
    0x10000000000000,
];

/// How many bounds lie below the least mantissa with these top 7 bits. A bucket is wider than 1/128, so the next bound is
/// the only one that can lie within.
const GUESSES: [u8; 128] = [
    0, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 9, 10, 11, 11, 12, 13, 13, 14, 15, 15, 16, 16, 17, 18, 18, 19, 19,
    20, 21, 21, 22, 22, 23, 23, 24, 25, 25, 26, 26, 27, 27, 28, 28, 29, 29, 30, 30, 31, 31, 32, 32, 33, 34,
    34, 35, 35, 36, 36, 36, 37, 37, 38, 38, 39, 39, 40, 40, 41, 41, 42, 42, 43, 43, 44, 44, 44, 45, 45, 46,
    46, 47, 47, 48, 48, 48, 49, 49, 50, 50, 51, 51, 51, 52, 52, 53, 53, 53, 54, 54, 55, 55, 55, 56, 56, 57,
    57, 57, 58, 58, 59, 59, 59, 60, 60, 60, 61, 61, 62, 62, 62, 63, 63, 63, 64, 64,
];

/// The key of a value at level 0.
#[inline]
pub(super) fn key(value: f64) -> i32 {
    let magnitude = value.to_bits() & (u64::MAX >> 1);
    let index = if magnitude > MANTISSA {
        index(magnitude, NORMAL)
    } else if magnitude == 0 {
        return 0;
    } else {
        subnormal(magnitude)
    };
    // What is not finite never gets here; if it did, it would count as the largest there is.
    let key = 1 + index.min(INDEX_MAX) as i32;
    if value < 0.0 { -key } else { key }
}

/// The index of a normal double. `offset` is [`NORMAL`], if it was not scaled.
#[inline]
fn index(magnitude: u64, offset: i32) -> u32 {
    let mantissa = magnitude & MANTISSA;
    let guess = GUESSES[(mantissa >> 45) as usize & 127];
    let above = mantissa > BOUNDS[usize::from(guess)];
    ((magnitude >> 52) as i32 * OCTAVE_BUCKETS as i32 + offset) as u32 + u32::from(guess) + u32::from(above)
}

#[cold]
fn subnormal(magnitude: u64) -> u32 {
    // Times 2^64 it is normal, and nothing was lost.
    let scaled = f64::from_bits(magnitude) * power_of_two(64);
    index(scaled.to_bits(), NORMAL - 64 * OCTAVE_BUCKETS as i32)
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
    key == 0 || (INDEX_MIN >> level..=INDEX_MAX >> level).contains(&(key.unsigned_abs() - 1))
}

/// The ends of a bucket, the lesser first. The one farther from zero is within, the other is not; the ends of the zero
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
    let (low, high) = (magnitude << level, (magnitude + 1) << level);
    let edge = |index: u32| {
        let mantissa = f64::from_bits(1023 << 52 | BOUNDS[(index % OCTAVE_BUCKETS) as usize]);
        (mantissa, (index / OCTAVE_BUCKETS) as i32 - INDEX_OFFSET / OCTAVE_BUCKETS as i32)
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

    /// `base^64` in limbs of 32 bits, the least first.
    fn power_64(base: u64) -> Vec<u32> {
        let mut limbs = vec![1_u32];
        for _ in 0..64 {
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
            let double = if j == 64 { 1 << 54 } else { double };
            let exact = 53 * 64 + j as u32;
            assert!(is_below(&power_64(double - 1), exact), "2^({j}/64) is lower");
            assert!(!is_below(&power_64(double + 1), exact), "2^({j}/64) is higher");
        }
    }

    #[test]
    fn guesses_are_right_or_one_too_low() {
        for (bits, &guess) in GUESSES.iter().enumerate() {
            let (first, last) = ((bits as u64) << 45, ((bits as u64 + 1) << 45) - 1);
            let below = |mantissa: u64| BOUNDS.iter().filter(|bound| **bound < mantissa).count();
            let guess = usize::from(guess);
            assert_eq!(below(first), guess, "{bits}");
            assert!(below(last) <= guess + 1, "{bits}");
        }
    }

    #[test]
    fn errors_are_as_stated() {
        for (level, &stated) in ERRORS.iter().enumerate() {
            let gamma = 2_f64.powf(2_f64.powi(level as i32) / 64.0);
            let error = (gamma - 1.0) / (gamma + 1.0);
            assert!(error < stated && stated - error < 1e-4, "level {level}: {error}");
        }
    }

    #[test]
    fn all_keys_of_the_last_level_fit_any_sketch() {
        let keys = 2 * (1 + (INDEX_MAX >> LEVEL_MAX)) + 1;
        assert!(keys as usize <= super::super::SketchState::BUCKETS_MAX);
    }

    #[test]
    fn the_ends_of_the_range_have_keys() {
        assert_eq!(key(0.0), 0);
        assert_eq!(key(-0.0), 0);
        assert_eq!(key(5e-324), 1 + INDEX_MIN as i32);
        assert_eq!(key(f64::MAX), 1 + INDEX_MAX as i32);
        assert_eq!(key(-f64::MAX), -1 - INDEX_MAX as i32);
        assert_eq!(representative(1 + INDEX_MIN as i32, 0), 5e-324);
        for level in 0..=LEVEL_MAX {
            let (top, least) = (raise(key(f64::MAX), level), raise(key(5e-324), level));
            assert!(is_key(least, level) && (least == 1 || !is_key(least - 1, level)));
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
