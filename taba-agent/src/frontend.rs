//! The front-end seam: a [`Decoder`] parses a line of some protocol, [`collect`] makes Batches of many lines.
//!
//! ```text
//! bytes ──lines──► Decoder ──Observation or LineError──► collect ──FrontBatches──► Relay::record ──► Spool
//!                                                        └─► RecordedLines: what was recorded, what was refused, by line
//! ```
//!
//! A front-end is a pure decoder and a source of bytes: `POST /v2/record` is [`JsonLines`] over HTTP,
//! `examples/src/bin/text_listener.rs` a text protocol over TCP. The Agent treats the result like Batches of a
//! Client: written to the Spool before the answer, delivered exactly once, balanced in the Ledger: a refused line
//! counts as recorded and as dropped (`where=client`: the front-end acts as the client library).

mod collect;
mod json;

use std::fmt;

use taba_core::ledger::Why;
use taba_core::{ClientId, NameError, TabName, TabType, Timestamp};

pub use self::collect::{
    Collected, FrontBatch, LineContext, RecordedLines, RefusedLine, TooManyLines, collect,
};
pub use self::json::JsonLines;

/// The default Client.
pub const CLIENT: &str = "http";
/// The default Tab type of a number.
pub const NUMBER_TYPE: &str = "CounterGroup";
/// The default Tab type of a text.
pub const TEXT_TYPE: &str = "Gauge";
/// Maximum non-blank lines of one request.
pub const LINES_MAX: usize = 10_000;
/// Maximum bytes of one request.
pub const BYTES_MAX: usize = 1 << 20;
/// Maximum Clients of one request; lines of further ones are refused.
pub const CLIENTS_MAX: usize = 100;
/// Bytes of a request's idempotency key: 1 to this many.
pub const KEY_BYTES_MAX: usize = 256;
/// Refused lines listed in an answer, which also has their number.
pub const REFUSED_LISTED_MAX: usize = 100;

/// One event of a front-end; missing parts have defaults.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Observation {
    /// The Client; by default the request's, or [`CLIENT`].
    pub client: Option<ClientId>,
    /// The Tab.
    pub tab: TabName,
    /// Its Tab type; by default [`NUMBER_TYPE`] for a number, [`TEXT_TYPE`] for a text.
    pub tab_type: Option<TabType>,
    /// The time; by default now.
    pub time: Option<Timestamp>,
    /// The value, as [`Value::from_json`](taba_core::Value::from_json) of its type reads it.
    pub value: serde_json::Value,
}

/// Why a line is no event.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LineError {
    /// The Client, as far as known.
    pub client: Option<ClientId>,
    /// The code; [`Why::Undecodable`] for a line that is not of the protocol.
    pub why: Why,
    /// The error and its remedy, for people.
    pub message: String,
}

/// A protocol of lines: bytes in, events out. Pure: no clock, no state.
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
    /// Decodes a line, which is not blank and has no line end; `None` for one without an event, such as a comment.
    fn decode(&self, line: &[u8]) -> Option<Result<Observation, LineError>>;
}

impl Observation {
    /// An event of a Tab with all defaults.
    pub fn of(tab: TabName, value: impl Into<serde_json::Value>) -> Self {
        Self { client: None, tab, tab_type: None, time: None, value: value.into() }
    }
}

impl LineError {
    /// The line does not follow the protocol.
    pub fn malformed(message: impl fmt::Display) -> Self {
        Self { client: None, why: Why::Undecodable, message: message.to_string() }
    }

    /// The value is invalid.
    pub fn value(message: impl fmt::Display) -> Self {
        Self { client: None, why: Why::BadValue, message: message.to_string() }
    }

    /// The same error, of this Client.
    #[must_use]
    pub fn of(self, client: Option<ClientId>) -> Self {
        Self { client, ..self }
    }
}

impl From<NameError> for LineError {
    /// An invalid name.
    fn from(error: NameError) -> Self {
        Self { client: None, why: Why::BadName, message: error.to_string() }
    }
}
