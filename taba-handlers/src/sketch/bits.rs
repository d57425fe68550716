//! Integers in few bits: Rice codes whose parameter follows the integers that came before.
//!
//! With parameter `k`, an integer is written as its quotient by `2^k` in unary (that many ones and a zero) and its `k` low bits;
//! quotients from 8 on as 8 ones and all bits that an integer of its kind can have. An integer takes about one and a half bits more
//! than its logarithm to base 2; one that is nearly always 0 takes one bit.
//!
//! # Sources
//! Rice, *Some practical universal noiseless coding techniques* (JPL 79-22, 1979). The choice of the parameter is that of JPEG-LS:
//! Weinberger, Seroussi, Sapiro, *The LOCO-I lossless image compression algorithm* (IEEE Transactions on Image Processing, 2000).

/// The least quotient that is not written in unary.
const ESCAPE: u32 = 8;
/// Integers count no more than this in the mean, so that one of them does not make all others long.
const WEIGHT_MAX: u64 = 1 << 32;

/// What the code of the next integer of one kind depends on: those before it.
pub(super) struct RiceCoder {
    /// Bits that an integer of this kind has at most.
    width: u32,
    /// Of the last 8 to 15 integers, about.
    sum: u64,
    integers: u64,
}

impl RiceCoder {
    /// `width`: 1 to 64 bits.
    pub(super) fn new(width: u32) -> Self {
        Self { width, sum: 2, integers: 1 }
    }

    /// The most bits that an integer of that width takes.
    pub(super) const fn bits_max(width: u32) -> usize {
        (ESCAPE + width) as usize
    }

    /// The parameter: the least `k` with `integers * 2^k >= sum`, so about the logarithm of the mean.
    #[inline]
    fn low_bits(&self) -> u32 {
        // PERF: by the lengths of both numbers, since a division costs more than the rest of the code.
        let k = self.integers.leading_zeros().saturating_sub(self.sum.leading_zeros());
        k + u32::from(self.integers << k < self.sum)
    }

    fn count(&mut self, integer: u64) {
        self.sum += integer.min(WEIGHT_MAX);
        self.integers += 1;
        if self.integers == 16 {
            self.sum /= 2;
            self.integers /= 2;
        }
    }
}

/// Writes bits, the first ones low in each byte.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Fewer than 32.
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    pub(super) fn put(&mut self, integer: u64, coder: &mut RiceCoder) {
        let low_bits = coder.low_bits();
        let quotient = integer >> low_bits;
        if quotient < u64::from(ESCAPE) {
            self.bits((1 << quotient) - 1, quotient as u32 + 1);
            self.bits(integer & ((1 << low_bits) - 1), low_bits);
        } else {
            self.bits((1 << ESCAPE) - 1, ESCAPE);
            self.bits(integer & u64::from(u32::MAX), coder.width.min(32));
            self.bits(integer >> 32, coder.width.saturating_sub(32));
        }
        coder.count(integer);
    }

    /// `bits` has no more than `len`, which are at most 32.
    #[inline]
    fn bits(&mut self, bits: u64, len: u32) {
        self.pending |= bits << self.pending_bits;
        self.pending_bits += len;
        if self.pending_bits >= 32 {
            self.bytes.extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.pending_bits -= 32;
        }
    }

    /// The bytes, the last filled with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let len = self.pending_bits.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&self.pending.to_le_bytes()[..len]);
        self.bytes
    }
}

/// Reads what a [`BitWriter`] wrote.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    pending: u128,
    pending_bits: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pending: 0, pending_bits: 0 }
    }

    /// The next integer; `None` when the bits end before, or it was not written in the one way that it can be.
    pub(super) fn get(&mut self, coder: &mut RiceCoder) -> Option<u64> {
        let low_bits = coder.low_bits();
        self.fill();
        let quotient = self.pending.trailing_ones().min(ESCAPE);
        let integer = if quotient < ESCAPE {
            self.bits(quotient + 1)?;
            u64::from(quotient) << low_bits | self.bits(low_bits)?
        } else {
            self.bits(ESCAPE)?;
            let integer = self.bits(coder.width)?;
            if integer >> low_bits < u64::from(ESCAPE) {
                return None;
            }
            integer
        };
        coder.count(integer);
        Some(integer)
    }

    fn fill(&mut self) {
        while self.pending_bits <= 120 {
            let Some((&byte, rest)) = self.bytes.split_first() else { return };
            self.pending |= u128::from(byte) << self.pending_bits;
            self.pending_bits += 8;
            self.bytes = rest;
        }
    }

    fn bits(&mut self, len: u32) -> Option<u64> {
        self.fill();
        self.pending_bits = self.pending_bits.checked_sub(len)?;
        let bits = (self.pending & ((1 << len) - 1)) as u64;
        self.pending >>= len;
        Some(bits)
    }

    /// Whether all was read but the zeros that fill the last byte.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.bytes.is_empty() && self.pending_bits < 8 && self.pending == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            integers in prop::collection::vec(prop_oneof![0_u64..4, 0_u64..5000, any::<u64>()], 0..200)
        ) {
            let (mut writer, mut coder) = (BitWriter::default(), RiceCoder::new(64));
            integers.iter().for_each(|&integer| writer.put(integer, &mut coder));
            let bytes = writer.finish();
            let (mut reader, mut coder) = (BitReader::new(&bytes), RiceCoder::new(64));
            for &integer in &integers {
                prop_assert_eq!(reader.get(&mut coder), Some(integer));
            }
            prop_assert!(reader.is_at_end());
            prop_assert!(bytes.is_empty() || BitReader::new(&bytes[1..]).bytes.len() < bytes.len());
        }

        /// Bytes that can be read at all are those that are written for what they say.
        #[test]
        fn nothing_is_written_in_two_ways(bytes in prop::collection::vec(any::<u8>(), 0..60), n in 0_usize..40) {
            let (mut reader, mut coder) = (BitReader::new(&bytes), RiceCoder::new(64));
            let read: Option<Vec<u64>> = (0..n).map(|_| reader.get(&mut coder)).collect();
            if let (Some(read), true) = (read, reader.is_at_end()) {
                let (mut writer, mut coder) = (BitWriter::default(), RiceCoder::new(64));
                read.iter().for_each(|&integer| writer.put(integer, &mut coder));
                prop_assert_eq!(writer.finish(), bytes);
            }
        }
    }

    #[test]
    fn zeros_take_a_bit_each() {
        let (mut writer, mut coder) = (BitWriter::default(), RiceCoder::new(64));
        (0..800).for_each(|_| writer.put(0, &mut coder));
        assert!(writer.finish().len() <= 101);
    }
}
