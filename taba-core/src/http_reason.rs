//! [`HttpReason`]: why an answer is not 200, in the same words from Agents and Servers.

use serde_json::{Value, json};

use crate::text::printable_lines;
use crate::wire::WireError;

/// Why a request was refused: one word for machines, and the HTTP status that goes with it.
///
/// # Examples
/// ```
/// use taba_core::HttpReason;
///
/// let body = HttpReason::FULL.body("no room");
/// assert_eq!((HttpReason::FULL.status, &body["reason"], &body["message"]), (503, &"full".into(), &"no room".into()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpReason {
    /// The word.
    pub word: &'static str,
    /// The HTTP status.
    pub status: u16,
}

impl HttpReason {
    /// The content type is another one than this path takes.
    pub const CONTENT_TYPE: Self = Self::new("content_type", 415);
    /// The body is over its bound.
    pub const TOO_LARGE: Self = Self::new("too_large", 413);
    /// The body did not come in time.
    pub const TOO_SLOW: Self = Self::new("too_slow", 408);
    /// The body ended before its end.
    pub const UNREADABLE: Self = Self::new("unreadable", 400);
    /// A parameter's value is not of its kind.
    pub const BAD_PARAMETER: Self = Self::new("bad_parameter", 400);
    /// There is no room; nothing was taken.
    pub const FULL: Self = Self::new("full", 503);
    /// The process is shutting down; nothing was taken.
    pub const STOPPING: Self = Self::new("stopping", 503);
    /// There is nothing at this path.
    pub const UNKNOWN_PATH: Self = Self::new("unknown_path", 404);
    /// This path has no such method.
    pub const METHOD_NOT_ALLOWED: Self = Self::new("method_not_allowed", 405);

    /// A reason that only one program has.
    pub const fn new(word: &'static str, status: u16) -> Self {
        Self { word, status }
    }

    /// The body of the answer, with a message for people; what others named in it acts on no terminal.
    pub fn body(self, message: &str) -> Value {
        json!({ "reason": self.word, "message": printable_lines(message) })
    }
}

impl From<&WireError> for HttpReason {
    fn from(error: &WireError) -> Self {
        let status = if matches!(error, WireError::TooLarge { .. }) { Self::TOO_LARGE.status } else { 400 };
        Self::new(error.code(), status)
    }
}
