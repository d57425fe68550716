//! [`RequestRefusal`]: an answer that is not 200, as JSON for machines and people.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use taba_core::wire::WireError;
use taba_core::{ForeignRequest, HttpReason};
use taba_listen::BodyRefusal;

use super::failure::Poisoned;
use crate::frontend::{KEY_BYTES_MAX, TooManyLines};
use crate::relay;
use crate::spool::SpoolError;

/// How to handle a Batch that was not accepted. It may be in the Spool all the same.
const AGAIN: &str = "keep it and send it again (to /v2/record under the same Idempotency-Key: without one it may count twice)";

/// The log's data of a refused request.
#[derive(Clone, Debug)]
pub(super) struct LoggedRefusal {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestRefusal {
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Body(#[from] BodyRefusal),
    #[error(transparent)]
    TooManyLines(#[from] TooManyLines),
    #[error("no line could be read{}", .0.as_ref().map_or_else(|| "; send one JSON object a line".to_owned(), |first| format!("; the first: {first}")))]
    Lines(Option<String>),
    #[error("the parameters could not be read: {0}")]
    Parameter(String),
    #[error("Idempotency-Key must be given once, with 1 to {KEY_BYTES_MAX} printable characters of ASCII")]
    Key,
    #[error(transparent)]
    Foreign(#[from] ForeignRequest),
    #[error("the content type must be {}", .0.join(" or "))]
    ContentType(&'static [&'static str]),
    #[error("the agent cannot keep the batch now; {AGAIN}")]
    Spool(#[from] SpoolError),
    #[error("the disk under the agent's spool does not take the batch now; {AGAIN}")]
    Unwritten,
    #[error("the agent is stopping; {AGAIN}")]
    Stopping,
    #[error("the agent has failed and is about to end; {AGAIN}")]
    Failed,
    #[error("unknown path; try POST /v2/record, POST /v2/events, GET /status, GET /metrics")]
    NotFound,
    #[error("this path has no such method")]
    Method,
}

impl From<Poisoned> for RequestRefusal {
    fn from(_: Poisoned) -> Self {
        Self::Failed
    }
}

impl RequestRefusal {
    pub(super) fn reason(&self) -> HttpReason {
        match self {
            Self::Wire(error) => error.into(),
            Self::Body(BodyRefusal::TooLarge(_)) | Self::TooManyLines(_) => HttpReason::TOO_LARGE,
            Self::Lines(_) => HttpReason::new("malformed", 400),
            Self::Parameter(_) => HttpReason::BAD_PARAMETER,
            Self::Key => HttpReason::new("bad_key", 400),
            Self::Foreign(foreign) => foreign.reason(),
            Self::Body(BodyRefusal::Unreadable) => HttpReason::UNREADABLE,
            Self::Body(BodyRefusal::TooSlow(_)) => HttpReason::TOO_SLOW,
            Self::Body(BodyRefusal::NoRoom) => HttpReason::FULL,
            Self::ContentType(_) => HttpReason::CONTENT_TYPE,
            Self::Spool(SpoolError::Full { .. }) => HttpReason::FULL,
            Self::Spool(_) | Self::Unwritten => HttpReason::new("spool_failed", 503),
            Self::Stopping => HttpReason::STOPPING,
            Self::Failed => HttpReason::new("failed", 503),
            Self::NotFound => HttpReason::UNKNOWN_PATH,
            Self::Method => HttpReason::METHOD_NOT_ALLOWED,
        }
    }
}

impl IntoResponse for RequestRefusal {
    fn into_response(self) -> Response {
        let (reason, message) = (self.reason(), taba_core::causes(&self));
        let status = StatusCode::from_u16(reason.status).expect("each reason has a status of HTTP");
        let mut response = (status, Json(reason.body(&message))).into_response();
        response.extensions_mut().insert(LoggedRefusal { reason: reason.word, message });
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(relay::RETRY_AFTER.as_secs()));
        }
        response
    }
}
