//! [`Wide`]: a sum that does not fit 128 bits.

use super::float::{EXPONENT_MIN, round, split};
use super::{Canonical, canonical_small};

/// Bits of the wide form: 2,098 for the doubles themselves and 78 for carries and the sign.
pub(super) const LIMBS: usize = 34;
pub(super) const WIDE_BYTES: usize = LIMBS * 8;
/// Every wide number is below two to this power; one is that, below zero.
pub(super) const WIDE_EXPONENT: i32 = LIMBS as i32 * 64 - 1 + EXPONENT_MIN;

/// 2,176 bits of two's complement, in units of 2^-1074.
#[derive(Clone, Debug)]
pub(super) struct Wide(pub(super) [u64; LIMBS]);

impl Wide {
    pub(super) fn add_scaled(&mut self, mantissa: i128, exponent: i32) {
        let at = (exponent - EXPONENT_MIN) as usize;
        let (limb, shift) = (at / 64, at % 64);
        let fill = if mantissa < 0 { u64::MAX } else { 0 };
        let (lo, hi) = split(mantissa);
        let spread = if shift == 0 {
            [lo, hi, fill]
        } else {
            [lo << shift, hi << shift | lo >> (64 - shift), fill << shift | hi >> (64 - shift)]
        };
        let mut carry = false;
        for (i, mine) in self.0.iter_mut().enumerate().skip(limb) {
            let other = spread.get(i - limb).copied().unwrap_or(fill);
            let (sum, over) = mine.overflowing_add(other);
            let (sum, over_carry) = sum.overflowing_add(u64::from(carry));
            *mine = sum;
            carry = over | over_carry;
        }
    }

    pub(super) fn add_wide(&mut self, other: &Self) {
        let mut carry = false;
        for (mine, other) in self.0.iter_mut().zip(&other.0) {
            let (sum, over) = mine.overflowing_add(*other);
            let (sum, over_carry) = sum.overflowing_add(u64::from(carry));
            *mine = sum;
            carry = over | over_carry;
        }
    }

    fn is_negative(&self) -> bool {
        self.0[LIMBS - 1] >> 63 == 1
    }

    fn magnitude(&self) -> [u64; LIMBS] {
        let mut limbs = self.0;
        if self.is_negative() {
            let mut carry = true;
            for limb in &mut limbs {
                let (value, over) = (!*limb).overflowing_add(u64::from(carry));
                *limb = value;
                carry = over;
            }
        }
        limbs
    }

    /// Whether the number is less than `count` times 2^1024 away from zero, or is zero.
    pub(super) fn is_below(&self, count: u64) -> bool {
        const BIT: usize = (1024 - EXPONENT_MIN) as usize;
        const _: () = assert!(BIT / 64 + 2 == LIMBS, "what is above lies in two limbs");
        let limbs = self.magnitude();
        let above = u128::from(limbs[LIMBS - 1]) << 64 | u128::from(limbs[LIMBS - 2]);
        above >> (BIT % 64) < u128::from(count) || limbs == [0; LIMBS]
    }

    pub(super) fn to_f64(&self) -> f64 {
        self.to_f64_below(0)
    }

    /// The nearest double to this by `2^down`.
    pub(super) fn to_f64_below(&self, down: i32) -> f64 {
        let limbs = self.magnitude();
        let Some(top) = limbs.iter().rposition(|&limb| limb != 0) else { return 0.0 };
        // The top 64 bits, then one sticky bit for all below: enough for a correct rounding to 53.
        let lead = limbs[top].leading_zeros();
        let next = if top > 0 { limbs[top - 1] } else { 0 };
        let head = if lead == 0 { limbs[top] } else { limbs[top] << lead | next >> (64 - lead) };
        let left = if top > 0 && lead < 64 { next << lead } else { 0 };
        let sticky = left != 0 || limbs[..top.saturating_sub(1)].iter().any(|&limb| limb != 0);
        let mantissa = i128::from(head) << 1 | i128::from(sticky);
        let exponent = top as i32 * 64 - lead as i32 + EXPONENT_MIN - 1 - down;
        let magnitude = if exponent < EXPONENT_MIN {
            // Fewer than 64 bits above the lowest: they are all in the head and the shift loses only zeros.
            round(mantissa >> (EXPONENT_MIN - exponent), EXPONENT_MIN)
        } else if exponent > 1023 {
            f64::INFINITY
        } else {
            round(mantissa, exponent)
        };
        if self.is_negative() { -magnitude } else { magnitude }
    }

    pub(super) fn canonical(&self) -> Canonical {
        let limbs = self.magnitude();
        let Some(low) = limbs.iter().position(|&limb| limb != 0) else { return Canonical::Integer(0) };
        let high = limbs.iter().rposition(|&limb| limb != 0).unwrap_or(low);
        let zeros = low * 64 + limbs[low].trailing_zeros() as usize;
        let bits = high * 64 + 64 - limbs[high].leading_zeros() as usize - zeros;
        if bits <= 127 {
            let mut mantissa = 0_u128;
            for (i, &limb) in limbs.iter().enumerate().skip(low).take(3) {
                let at = (i * 64) as i64 - zeros as i64;
                if at < 0 {
                    mantissa |= u128::from(limb) >> -at;
                } else if at < 128 {
                    mantissa |= u128::from(limb) << at;
                }
            }
            let mantissa = if self.is_negative() { -(mantissa as i128) } else { mantissa as i128 };
            return canonical_small(mantissa, zeros as i32 + EXPONENT_MIN);
        }
        let bytes: Vec<u8> = self.0.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        let skip = bytes.iter().position(|&byte| byte != 0).unwrap_or(0);
        let fill = if self.is_negative() { 0xff } else { 0 };
        let mut end = bytes.len();
        // A byte goes when it only repeats the sign that the one below it shows.
        while end - skip > 1 && bytes[end - 1] == fill && (bytes[end - 2] ^ fill) & 0x80 == 0 {
            end -= 1;
        }
        Canonical::Wide { skip: skip as u16, bytes: bytes[skip..end].to_vec() }
    }

    pub(super) fn from_bytes(skip: u16, bytes: &[u8]) -> Option<Self> {
        let skip = usize::from(skip);
        let end = skip.checked_add(bytes.len()).filter(|end| *end <= WIDE_BYTES)?;
        let fill = if bytes.last()? & 0x80 != 0 { 0xff } else { 0 };
        let mut all = [fill; WIDE_BYTES];
        all[..skip].fill(0);
        all[skip..end].copy_from_slice(bytes);
        let mut limbs = [0; LIMBS];
        for (limb, chunk) in limbs.iter_mut().zip(all.chunks_exact(8)) {
            *limb = u64::from_le_bytes(chunk.try_into().ok()?);
        }
        Some(Self(limbs))
    }
}
