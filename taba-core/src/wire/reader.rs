//! [`Reader`]: a bounds-checked cursor over bytes; and the encoding of integers.

use super::WireError;

/// Appends an unsigned LEB128 integer: seven bits a byte, low bits first, 1 to 10 bytes.
pub fn put_u64(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed integer in zigzag LEB128: 0, -1, 1, -2, … become 0, 1, 2, 3, …
pub fn put_i64(value: i64, out: &mut Vec<u8>) {
    put_u64((value << 1 ^ value >> 63) as u64, out);
}

/// Appends a length as [`put_u64`], then the bytes.
pub fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_u64(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A cursor over bytes. Every read names its value for errors.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A cursor at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The number of bytes read.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// The number of bytes left.
    pub const fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when there are fewer.
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        if count > self.remaining() {
            return Err(WireError::Truncated { what });
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when there are fewer.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], WireError> {
        self.take(N, what)?.try_into().map_err(|_| WireError::Truncated { what })
    }

    /// One byte.
    ///
    /// # Errors
    /// [`WireError::Truncated`] at the end.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// An unsigned LEB128 integer.
    ///
    /// # Errors
    /// [`WireError`] at the end, or when the value exceeds 64 bits.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Malformed { what })
    }

    /// A zigzag LEB128 integer.
    ///
    /// # Errors
    /// As [`Reader::u64`].
    pub fn i64(&mut self, what: &'static str) -> Result<i64, WireError> {
        let zigzag = self.u64(what)?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// A bounded count.
    ///
    /// # Errors
    /// [`WireError::TooLarge`] over the bound; otherwise as [`Reader::u64`].
    pub fn count(&mut self, max: usize, what: &'static str) -> Result<usize, WireError> {
        let found = self.u64(what)?;
        if found > max as u64 {
            return Err(WireError::TooLarge { what, found, max: max as u64 });
        }
        Ok(found as usize)
    }

    /// A length and that many bytes.
    ///
    /// # Errors
    /// As [`Reader::count`] and [`Reader::take`].
    pub fn bytes(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        let count = self.count(max, what)?;
        self.take(count, what)
    }

    /// A length and that many bytes of UTF-8.
    ///
    /// # Errors
    /// As [`Reader::bytes`], and [`WireError::Malformed`] when the bytes are not UTF-8.
    pub fn text(&mut self, max: usize, what: &'static str) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes(max, what)?).map_err(|_| WireError::Malformed { what })
    }

    /// Checks that no bytes are left.
    ///
    /// # Errors
    /// [`WireError::Malformed`] when there are some.
    pub fn finish(self, what: &'static str) -> Result<(), WireError> {
        if self.remaining() == 0 { Ok(()) } else { Err(WireError::Malformed { what }) }
    }
}
