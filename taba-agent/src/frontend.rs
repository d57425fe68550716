//! The front-end seam: [`Decoder`] says what a line of some protocol means, [`collect`] makes Batches of many lines.
//!
//! ```text
//! bytes ──lines──► Decoder ──Observation or LineError──► collect ──FrontBatches──► Relay::record ──► Spool
//!                                                        └─► RecordedLines: what was recorded, what was refused, by line
//! ```
//!
//! A front-end is a decoder, which is pure, and whatever brings it bytes: `POST /v2/record` is [`JsonLines`] behind HTTP,
//! `examples/src/bin/text_listener.rs` a text protocol behind TCP. The Agent takes what comes out as it takes the Batches
//! of a Client: written to the Spool before it is answered, delivered exactly once, balanced in the Ledger: a line that is
//! refused counts as recorded and as dropped (`where=client`: the front-end stands in for the client library).

mod collect;
mod json;

use std::fmt;

use taba_core::ledger::Why;
use taba_core::{ClientId, NameError, TabName, TabType, Timestamp};

pub use self::collect::{
    Collected, FrontBatch, LineContext, RecordedLines, RefusedLine, TooManyLines, collect,
};
pub use self::json::JsonLines;

/// Who recorded, where nobody says it.
pub const CLIENT: &str = "http";
/// The Tab type of a number, where nobody says it.
pub const NUMBER_TYPE: &str = "CounterGroup";
/// The Tab type of a text, where nobody says it.
pub const TEXT_TYPE: &str = "Gauge";
/// Lines of one request that are not blank.
pub const LINES_MAX: usize = 10_000;
/// Bytes of one request.
pub const BYTES_MAX: usize = 1 << 20;
/// Clients of one request; lines of further ones are refused.
pub const CLIENTS_MAX: usize = 100;
/// Bytes of a key under which a request counts once: 1 to this many.
pub const KEY_BYTES_MAX: usize = 256;
/// Refused lines that an answer lists; it says how many there were.
pub const REFUSED_LISTED_MAX: usize = 100;

/// One event as a front-end reads it; what it does not say has a default.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Who recorded it; by default the request's, or [`CLIENT`].
    pub client: Option<ClientId>,
    /// What was measured.
    pub tab: TabName,
    /// Its Tab type; by default [`NUMBER_TYPE`] for a number, [`TEXT_TYPE`] for a text.
    pub tab_type: Option<TabType>,
    /// When it happened; by default now.
    pub time: Option<Timestamp>,
    /// What was observed, in the form that [`Value::from_json`](taba_core::Value::from_json) of its type reads.
    pub value: serde_json::Value,
}

/// Why a line is no event.
#[derive(Clone, Debug, PartialEq)]
pub struct LineError {
    /// Whose it is, as far as it can be told.
    pub client: Option<ClientId>,
    /// The word for machines; [`Why::Undecodable`] for what is not of the protocol at all.
    pub why: Why,
    /// The words for people: what is wrong, and what would be right.
    pub message: String,
}

/// A protocol of lines: bytes in, events out. Pure: it reads no clock and remembers nothing.
///
/// # Examples
/// ```
/// use taba_agent::frontend::{Decoder, Observation, LineError};
/// use taba_core::TabName;
/// use taba_core::ledger::Why;
///
/// /// Each line is the name of a Tab, and counts one.
/// struct Names;
///
/// impl Decoder for Names {
///     fn decode(&self, line: &[u8]) -> Option<Result<Observation, LineError>> {
///         let name = String::from_utf8_lossy(line);
///         let tab = TabName::new(name.trim());
///         Some(tab.map(|tab| Observation::of(tab, 1)).map_err(LineError::from))
///     }
/// }
///
/// assert_eq!(Names.decode(b"bids_won").unwrap().unwrap().value, 1);
/// assert_eq!(Names.decode(b"bids won").unwrap().unwrap_err().why, Why::BadName);
/// ```
pub trait Decoder {
    /// What a line means; `None`: nothing, as of a comment. Lines come without their ends, and none is blank.
    fn decode(&self, line: &[u8]) -> Option<Result<Observation, LineError>>;
}

impl Observation {
    /// An event of a Tab, with all the defaults.
    pub fn of(tab: TabName, value: impl Into<serde_json::Value>) -> Self {
        Self { client: None, tab, tab_type: None, time: None, value: value.into() }
    }
}

impl LineError {
    /// The line is not of the protocol.
    pub fn malformed(message: impl fmt::Display) -> Self {
        Self { client: None, why: Why::Undecodable, message: message.to_string() }
    }

    /// A value breaks the rules.
    pub fn value(message: impl fmt::Display) -> Self {
        Self { client: None, why: Why::BadValue, message: message.to_string() }
    }

    /// The same, of this Client.
    #[must_use]
    pub fn of(self, client: Option<ClientId>) -> Self {
        Self { client, ..self }
    }
}

impl From<NameError> for LineError {
    /// A name breaks the rules.
    fn from(error: NameError) -> Self {
        Self { client: None, why: Why::BadName, message: error.to_string() }
    }
}
