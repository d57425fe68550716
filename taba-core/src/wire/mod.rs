//! The bytes between processes: frames, messages, Blocks and columns. `docs/WIRE.md` is the specification.
//!
//! Decoders take untrusted slices: input is bounded, and errors are [`WireError`]s. A decoder never allocates more
//! than a stated bound before it has seen the bytes that justify it.

mod block;
pub mod column;
mod frame;
mod message;
mod reader;
mod value;

pub use block::{Block, Content};
pub use frame::{
    CONTENT_TYPE, Compression, FRAME_HEADER_BYTES, Frame, Kind, MAGIC, PROCESS_HEADER, STORE_HEADER,
    STORE_PROCESSES_HEADER, TIME_HEADER, VBUCKETS_HEADER, VERSION,
};
pub use message::{
    Ack, Answer, BadBlock, ClientBatch, LaneBatch, Lanes, Probe, Receipt, Refusal, decode_acks, encode_acks,
};
pub use reader::{Reader, put_bytes, put_i64, put_u64};
pub use value::Value;

/// Why bytes cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end within the value.
    #[error("the bytes end before {what} does")]
    Truncated {
        /// The value.
        what: &'static str,
    },
    /// The bytes are no such value.
    #[error("malformed: {what}")]
    Malformed {
        /// The value.
        what: &'static str,
    },
    /// A number exceeds its bound.
    #[error("{what}: {found} is over the bound of {max}")]
    TooLarge {
        /// What is bounded.
        what: &'static str,
        /// The number in the bytes.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// The frame does not begin with the magic bytes.
    #[error("not a Taba frame")]
    Magic,
    /// This build does not read the frame's version.
    #[error("wire version {found} is unknown; this build reads version {known}")]
    UnknownVersion {
        /// The version of the frame.
        found: u8,
        /// The version of this build.
        known: u8,
    },
    /// The frame holds another kind of message than expected.
    #[error("a frame of kind {found}, expected kind {expected}")]
    UnexpectedKind {
        /// The kind found.
        found: u8,
        /// The kind expected.
        expected: u8,
    },
    /// The bytes were changed in transit.
    #[error("the checksum does not match: the bytes were changed in transit")]
    Checksum,
    /// A name is invalid.
    #[error("a name is invalid")]
    Name(#[from] crate::name::NameError),
}

impl WireError {
    /// A code for machines: the `reason` of an error answer.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::Malformed { .. } => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::Magic => "not_a_frame",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::UnexpectedKind { .. } => "unexpected_kind",
            Self::Checksum => "checksum",
            Self::Name(_) => "bad_name",
        }
    }
}
