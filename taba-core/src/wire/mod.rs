//! The bytes between processes: frames, messages, Blocks and columns. `docs/WIRE.md` is the specification.
//!
//! Everything here takes slices and gives values; hostile input is expected, bounded, and answered with a
//! [`WireError`]. A decoder never allocates more than a stated bound before it has seen the bytes that justify it.

mod block;
pub mod column;
mod frame;
mod message;
mod reader;
mod value;

pub use block::{Block, Content};
pub use frame::{
    CONTENT_TYPE, Compression, FRAME_HEADER_BYTES, Frame, Kind, MAGIC, PROCESS_HEADER, STORE_HEADER,
    TIME_HEADER, VBUCKETS_HEADER, VERSION,
};
pub use message::{
    Ack, Answer, BadBlock, ClientBatch, LaneBatch, Lanes, Probe, Receipt, Refusal, decode_acks, encode_acks,
};
pub use reader::{Reader, put_bytes, put_i64, put_u64};
pub use value::Value;

/// Why bytes were not what they claim to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end before the value does.
    #[error("the bytes end before {what} does")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// The bytes are no such value.
    #[error("malformed: {what}")]
    Malformed {
        /// What was being read.
        what: &'static str,
    },
    /// A number is over its bound.
    #[error("{what}: {found} is over the bound of {max}")]
    TooLarge {
        /// What is bounded.
        what: &'static str,
        /// What the bytes say.
        found: u64,
        /// What they may say.
        max: u64,
    },
    /// The frame does not begin with the four bytes that every frame begins with.
    #[error("not a Taba frame")]
    Magic,
    /// The frame is of a version that this build does not read.
    #[error("wire version {found} is unknown; this build reads version {known}")]
    UnknownVersion {
        /// The version of the frame.
        found: u8,
        /// The version that is read here.
        known: u8,
    },
    /// The frame is not the kind of message expected here.
    #[error("a frame of kind {found} where kind {expected} belongs")]
    UnexpectedKind {
        /// What came.
        found: u8,
        /// What belongs here.
        expected: u8,
    },
    /// The bytes are not those that were sent.
    #[error("the checksum does not match: the bytes are not those that were sent")]
    Checksum,
    /// A name breaks the rules.
    #[error("a name breaks the rules")]
    Name(#[from] crate::name::NameError),
}

impl WireError {
    /// A short word for machines: the `reason` of an error answer.
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
