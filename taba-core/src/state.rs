//! [`Envelope`]: a State as it is stored: which Handler wrote it, in which version, how many events it holds, and a
//! checksum over all of that; in one part or in two.

use bytes::Bytes;

use crate::limits::TAB_TYPE_BYTES_MAX;
use crate::name::TabType;
use crate::store::Part;
use crate::wire::{Reader, WireError, put_bytes, put_u64};

/// Of a State in one part.
const WHOLE_VERSION: u8 = 1;
/// Of a State in two parts.
const DIVIDED_VERSION: u8 = 2;
const WHAT: &str = "a stored state";

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
///
/// A large State that changes often is *divided*: its [base](Part::BASE) is what it was at some time, encoded, and the
/// [whole](Part::WHOLE) holds the State of all events since. The two merged are the State: that is the law `parts`. So a commit
/// writes what is new; the base, when enough came together.
/// ```text
/// | 2 u8 | type | handler version | events | bytes of the base | crc32 of the base u32 | state since the base … | crc32 u32 |
/// ```
/// `events` are those of both. A base that is lacking, foreign or damaged makes the State unreadable, never smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envelope {
    /// The name of the Handler that wrote it.
    pub tab_type: TabType,
    /// [`Handler::VERSION`](crate::Handler::VERSION) of the writer.
    pub version: u16,
    /// How many events have been folded into it.
    pub events: u64,
    /// The State, encoded; if it is divided, the State since its base.
    state: Bytes,
    /// If it is divided, what it was before.
    base: Option<Bytes>,
}

/// Which base a divided State belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseId {
    bytes: usize,
    crc32: u32,
}

impl BaseId {
    /// That of an encoded State, written as the part [`Part::BASE`].
    pub fn of(base: &[u8]) -> Self {
        Self { bytes: base.len(), crc32: crc32fast::hash(base) }
    }

    /// How many bytes the base has.
    pub const fn bytes(self) -> usize {
        self.bytes
    }
}

impl Envelope {
    /// A State as its Handler encoded it, and what is kept beside it.
    pub const fn new(tab_type: TabType, version: u16, events: u64, state: Bytes) -> Self {
        Self { tab_type, version, events, state, base: None }
    }

    /// The State as its Handler encoded it; `None` when it is divided.
    pub const fn state(&self) -> Option<&Bytes> {
        if self.base.is_none() { Some(&self.state) } else { None }
    }

    /// The base, if it is divided, and the rest: encoded States, which merged are the State. To decode them, see
    /// [`Guarded::decode_stored`](crate::Guarded::decode_stored).
    pub fn states(&self) -> (Option<&Bytes>, &Bytes) {
        (self.base.as_ref(), &self.state)
    }

    /// The stored form of a State in one part.
    pub fn encode(&self) -> Bytes {
        self.encode_with(WHOLE_VERSION, &[])
    }

    /// The stored form of what came since a base, to be stored together with that.
    pub fn encode_since(&self, base: BaseId) -> Bytes {
        let mut of_base = Vec::with_capacity(varint_bytes(base.bytes as u64) + 4);
        put_u64(base.bytes as u64, &mut of_base);
        of_base.extend_from_slice(&base.crc32.to_le_bytes());
        self.encode_with(DIVIDED_VERSION, &of_base)
    }

    fn encode_with(&self, envelope_version: u8, of_base: &[u8]) -> Bytes {
        // Exactly: a store in memory keeps millions of these.
        let numbers = varint_bytes(u64::from(self.version)) + varint_bytes(self.events);
        let bytes = self.state.len() + self.tab_type.as_str().len() + numbers + of_base.len() + 6;
        let mut out = Vec::with_capacity(bytes);
        out.push(envelope_version);
        put_bytes(self.tab_type.as_str().as_bytes(), &mut out);
        put_u64(u64::from(self.version), &mut out);
        put_u64(self.events, &mut out);
        out.extend_from_slice(of_base);
        out.extend_from_slice(&self.state);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        debug_assert_eq!(out.len(), bytes, "the arithmetic above is out of date");
        out.into()
    }

    /// Reads the stored form of a State in one part; the State is a slice of `bytes`, not a copy.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no stored State in one part, or not as they were written.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        Self::read(bytes, None)
    }

    /// Reads a stored State from all its parts, in any order; what it holds are slices of them, not copies. A base beside a whole
    /// that needs none is left out.
    ///
    /// # Errors
    /// [`WireError`] when the parts are no stored State, or not as they were written.
    pub fn join(parts: &[(Part, Bytes)]) -> Result<Self, WireError> {
        let find = |number| parts.iter().find(|(part, _)| *part == number).map(|(_, bytes)| bytes);
        Self::read(find(Part::WHOLE).ok_or(WireError::Truncated { what: WHAT })?, find(Part::BASE))
    }

    /// As [`join`](Self::join), of a whole and the base that was found beside it.
    ///
    /// # Errors
    /// As there.
    pub fn read(whole: &Bytes, base: Option<&Bytes>) -> Result<Self, WireError> {
        let end = whole.len().checked_sub(4).ok_or(WireError::Truncated { what: WHAT })?;
        let (head, checksum) = whole.split_at(end);
        if crc32fast::hash(head).to_le_bytes() != checksum {
            return Err(WireError::Checksum);
        }
        let mut reader = Reader::new(head);
        let found = reader.u8(WHAT)?;
        if !(WHOLE_VERSION..=DIVIDED_VERSION).contains(&found) {
            return Err(WireError::UnknownVersion { found, known: DIVIDED_VERSION });
        }
        let tab_type = TabType::new(reader.text(TAB_TYPE_BYTES_MAX, WHAT)?)?;
        let version = u16::try_from(reader.u64(WHAT)?).map_err(|_| WireError::Malformed { what: WHAT })?;
        let events = reader.u64(WHAT)?;
        let base = if found == WHOLE_VERSION {
            None
        } else {
            let bytes = reader.u64(WHAT)?;
            let crc32 = u32::from_le_bytes(reader.array(WHAT)?);
            let base = base.ok_or(WireError::Truncated { what: "the base of a stored state" })?;
            if base.len() as u64 != bytes || crc32fast::hash(base) != crc32 {
                return Err(WireError::Checksum);
            }
            Some(base.clone())
        };
        Ok(Self { tab_type, version, events, state: whole.slice(reader.position()..end), base })
    }
}
