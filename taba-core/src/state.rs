//! [`Envelope`]: a State as it is stored: which Handler wrote it, in which version, how many events it holds, and a
//! checksum over all of that.

use bytes::Bytes;

use crate::limits::TAB_TYPE_BYTES_MAX;
use crate::name::TabType;
use crate::wire::{Reader, WireError, put_bytes, put_u64};

const ENVELOPE_VERSION: u8 = 1;

/// Bytes that [`put_u64`] writes.
const fn varint_bytes(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// A stored State.
///
/// ```text
/// | envelope version u8 | type | handler version | events | state … | crc32 u32 |
/// ```
/// Lengths and integers are LEB128; the checksum (CRC-32, IEEE, little-endian) covers all before it. 9 bytes more than
/// the State and its type's name, for small versions and counts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envelope {
    /// The name of the Handler that wrote it.
    pub tab_type: TabType,
    /// [`Handler::VERSION`](crate::Handler::VERSION) of the writer.
    pub version: u16,
    /// How many events have been folded into it.
    pub events: u64,
    /// The State, encoded.
    pub state: Bytes,
}

impl Envelope {
    /// A State as its Handler encoded it, and what is kept beside it.
    pub const fn new(tab_type: TabType, version: u16, events: u64, state: Bytes) -> Self {
        Self { tab_type, version, events, state }
    }

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        // Exactly: a store in memory keeps millions of these.
        let numbers = varint_bytes(u64::from(self.version)) + varint_bytes(self.events);
        let bytes = self.state.len() + self.tab_type.as_str().len() + numbers + 6;
        let mut out = Vec::with_capacity(bytes);
        out.push(ENVELOPE_VERSION);
        put_bytes(self.tab_type.as_str().as_bytes(), &mut out);
        put_u64(u64::from(self.version), &mut out);
        put_u64(self.events, &mut out);
        out.extend_from_slice(&self.state);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        debug_assert_eq!(out.len(), bytes, "the arithmetic above is out of date");
        out.into()
    }

    /// Reads the stored form; the State is a slice of `bytes`, not a copy.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no stored State, or not as they were written.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        const WHAT: &str = "a stored state";
        let end = bytes.len().checked_sub(4).ok_or(WireError::Truncated { what: WHAT })?;
        let (head, checksum) = bytes.split_at(end);
        if crc32fast::hash(head).to_le_bytes() != checksum {
            return Err(WireError::Checksum);
        }
        let mut reader = Reader::new(head);
        let found = reader.u8(WHAT)?;
        if found != ENVELOPE_VERSION {
            return Err(WireError::UnknownVersion { found, known: ENVELOPE_VERSION });
        }
        let tab_type = TabType::new(reader.text(TAB_TYPE_BYTES_MAX, WHAT)?)?;
        let version = u16::try_from(reader.u64(WHAT)?).map_err(|_| WireError::Malformed { what: WHAT })?;
        let events = reader.u64(WHAT)?;
        Ok(Self { tab_type, version, events, state: bytes.slice(reader.position()..end) })
    }
}
