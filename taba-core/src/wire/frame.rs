//! [`Frame`]: the body of an HTTP request or answer: a header and a message, perhaps compressed.

use std::borrow::Cow;

use bytes::Bytes;

use super::{Reader, WireError};
use crate::limits::FRAME_BYTES_MAX;

/// The header of an answer to Lanes with the number of VBuckets of the Server's deployment.
pub const VBUCKETS_HEADER: &str = "taba-vbuckets";
/// The header with a [`StoreId`](crate::StoreId): in an answer, the Server's store; in a request with Lanes, the
/// store they are for: a Server of another store rejects it (409).
pub const STORE_HEADER: &str = "taba-store";
/// The header of a Server's answer that identifies the Server's process: 16 hexadecimal digits, random at each start.
/// The store of a new process may hold less than before, so Agents probe it at once.
pub const PROCESS_HEADER: &str = "taba-process";
/// The header of a Server's answer that identifies the processes of its store, as 16 hexadecimal digits: see
/// [`Store::processes`](crate::Store::processes). Agents treat a new one as a new process of the Server.
pub const STORE_PROCESSES_HEADER: &str = "taba-store-processes";
/// The header of a Server's answer with its time, in microseconds since the Unix epoch. `Date` is unsuitable: load
/// balancers write their own, and HTTP libraries cache it while a clock is set back.
pub const TIME_HEADER: &str = "taba-time";
/// The media type of a frame: the `Content-Type` of every body in `docs/WIRE.md`.
pub const CONTENT_TYPE: &str = "application/x-taba";
/// The first four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"TABA";
/// The version of the frame and of all messages in it.
pub const VERSION: u8 = 1;
/// Bytes before the body.
pub const FRAME_HEADER_BYTES: usize = 20;

const _: () =
    assert!(FRAME_HEADER_BYTES == 4 + 1 + 1 + 1 + 1 + 4 + 4 + 4, "the drawing below is out of date");

/// Which message a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client to Agent: [`ClientBatch`](super::ClientBatch).
    ClientBatch = 1,
    /// Agent to Client: [`Receipt`](super::Receipt).
    Receipt = 2,
    /// Agent to Server: [`LaneBatch`](super::LaneBatch)es.
    Lanes = 3,
    /// Server to Agent: [`Ack`](super::Ack)s.
    Acks = 4,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    None = 0,
    /// LZ4 block format, if that makes the body smaller; otherwise not at all.
    #[default]
    Lz4 = 1,
}

/// A message with its header.
///
/// ```text
/// | "TABA" | version u8 | kind u8 | compression u8 | 0 u8 | body_bytes u32 | raw_bytes u32 | crc32 u32 | body … |
/// ```
/// Little-endian. `body_bytes` is the length of the body as sent, `raw_bytes` its length when unpacked, both at most
/// 8 MiB; the checksum (CRC-32, IEEE) covers the body as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// Which message it is.
    pub kind: Kind,
    /// The message, unpacked.
    pub message: Bytes,
}

impl Frame {
    /// A whole frame, ready to be sent.
    ///
    /// # Panics
    /// When the message is over [`FRAME_BYTES_MAX`]: senders cut their Batches below that.
    pub fn encode(kind: Kind, message: &[u8], compression: Compression) -> Vec<u8> {
        assert!(message.len() <= FRAME_BYTES_MAX, "a message of {} bytes must not be sent", message.len());
        let packed = match compression {
            Compression::None => None,
            Compression::Lz4 => {
                Some(lz4_flex::block::compress(message)).filter(|packed| packed.len() < message.len())
            }
        };
        let used = if packed.is_some() { Compression::Lz4 } else { Compression::None };
        let body = packed.map_or(Cow::Borrowed(message), Cow::Owned);
        let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, kind as u8, used as u8, 0]);
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&(message.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Reads a whole frame, which must hold the `expected` kind of message.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no such frame. At most [`FRAME_BYTES_MAX`] are allocated.
    pub fn decode(bytes: &Bytes, expected: Kind) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.array("a frame header")? != MAGIC {
            return Err(WireError::Magic);
        }
        let [version, kind, compression, _] = reader.array("a frame header")?;
        if version != VERSION {
            return Err(WireError::UnknownVersion { found: version, known: VERSION });
        }
        if kind != expected as u8 {
            return Err(WireError::UnexpectedKind { found: kind, expected: expected as u8 });
        }
        let body_bytes = bounded(reader.array("a frame header")?)?;
        let raw_bytes = bounded(reader.array("a frame header")?)?;
        let checksum = u32::from_le_bytes(reader.array("a frame header")?);
        let body = reader.take(body_bytes, "the body of a frame")?;
        reader.finish("bytes behind a frame")?;
        if crc32fast::hash(body) != checksum {
            return Err(WireError::Checksum);
        }
        let message = match compression {
            0 if raw_bytes == body_bytes => bytes.slice(FRAME_HEADER_BYTES..),
            1 => match lz4_flex::block::decompress(body, raw_bytes) {
                Ok(message) if message.len() == raw_bytes => message.into(),
                _ => return Err(WireError::Malformed { what: "a compressed body" }),
            },
            _ => return Err(WireError::Malformed { what: "a frame header" }),
        };
        Ok(Self { kind: expected, message })
    }
}

fn bounded(bytes: [u8; 4]) -> Result<usize, WireError> {
    let found = u32::from_le_bytes(bytes);
    if found as usize > FRAME_BYTES_MAX {
        let max = FRAME_BYTES_MAX as u64;
        return Err(WireError::TooLarge { what: "bytes of one frame", found: u64::from(found), max });
    }
    Ok(found as usize)
}
