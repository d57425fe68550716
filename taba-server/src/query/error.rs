//! [`QueryError`]: why a query has no answer, or only part of one.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use taba_core::{HttpReason, Remedy, StoreError, TabName, TabType};

/// Why a query has no answer, or only part of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The question has a parameter that this endpoint does not know.
    #[error("unknown parameter {found:?}; known here: {}", known.join(", "))]
    UnknownParameter {
        /// What was found.
        found: String,
        /// What is known; `label.KEY` stands for every label.
        known: &'static [&'static str],
    },
    /// A parameter's value is not of its kind.
    #[error("parameter {parameter}={value:?}: {wanted}")]
    BadParameter {
        /// Which one.
        parameter: String,
        /// The value given.
        value: String,
        /// What it should have been.
        wanted: String,
    },
    /// A regular expression is wrong, or too large.
    #[error("{pattern:?} is no regular expression that can be used")]
    BadPattern {
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        source: Box<regex::Error>,
    },
    /// None of the media types in `Accept` can be produced.
    #[error("nothing in Accept can be produced: application/json, application/x-ndjson and text/plain can")]
    NotAcceptable,
    /// A super-aggregate was asked over Tabs of several types.
    #[error("the chosen tabs are of {} types: {}; choose one with type=", found.len(), list(found))]
    MixedTypes {
        /// The types found, sorted.
        found: Vec<TabType>,
    },
    /// A deletion did not say what to delete.
    #[error("name what to delete: name=, base=, type=, label.KEY= or client= is needed")]
    NothingChosen,
    /// A Tab of the Ledger was to be deleted.
    #[error("{name} belongs to the ledger and cannot be deleted")]
    Reserved {
        /// The Tab, or the parameter that chose it.
        name: String,
    },
    /// The selection holds more Tabs than the query may.
    #[error("the selection holds more than {tabs_max} tabs; choose fewer")]
    TooManyTabs {
        /// How many it may hold.
        tabs_max: usize,
    },
    /// As many watches are open as may be, or the Server is shutting down.
    #[error("no further watch can be opened")]
    Busy,
    /// The query took longer than a query may.
    #[error("the query took longer than {query_time:?}; choose fewer tabs")]
    Timeout {
        /// How long it may take.
        query_time: Duration,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The Ledger's Handler is missing or is no counter of numbers, so that no deletion can be accounted for.
    #[error("no deletion can be accounted for: the handler {tab_type} is missing or no counter of numbers")]
    NoLedger {
        /// The Tab type that should count.
        tab_type: &'static str,
    },
    /// A note of the Ledger cannot be read, so that nothing can be added to it.
    #[error("the note of {name} cannot be read")]
    DamagedNote {
        /// The Tab of the note.
        name: TabName,
    },
}

fn list(types: &[TabType]) -> String {
    types.iter().map(TabType::as_str).collect::<Vec<_>>().join(", ")
}

impl QueryError {
    /// One word for machines, and the HTTP status.
    pub fn reason(&self) -> HttpReason {
        let (word, status) = match self {
            Self::UnknownParameter { .. } => ("unknown_parameter", 400),
            Self::BadParameter { .. } => return HttpReason::BAD_PARAMETER,
            Self::BadPattern { .. } => ("bad_regex", 400),
            Self::NotAcceptable => ("not_acceptable", 406),
            Self::MixedTypes { .. } => ("mixed_types", 400),
            Self::NothingChosen => ("nothing_chosen", 400),
            Self::Reserved { .. } => ("reserved", 400),
            Self::TooManyTabs { .. } => ("too_many_tabs", 400),
            Self::Busy => ("busy", 503),
            Self::Timeout { .. } => ("timeout", 503),
            Self::Store(StoreError::Unavailable { .. }) => ("store_unavailable", 503),
            Self::Store(_) => ("store_damaged", 500),
            Self::NoLedger { .. } => ("no_ledger", 500),
            Self::DamagedNote { .. } => ("damaged_note", 500),
        };
        HttpReason::new(word, status)
    }

    /// What to do next.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Busy => Remedy::Wait(Duration::from_secs(1)),
            Self::Timeout { .. } | Self::TooManyTabs { .. } => Remedy::Split,
            Self::Store(error) => error.remedy(),
            _ => Remedy::GiveUp,
        }
    }

    /// The error and its causes, for people.
    pub fn message(&self) -> String {
        taba_core::causes(self)
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        let mut error = self.reason().body(&self.message());
        match self {
            Self::UnknownParameter { known, .. } => error["known"] = json!(known),
            Self::MixedTypes { found } => error["types"] = json!(found),
            _ => {}
        }
        error
    }
}

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        let wait = match self.remedy() {
            Remedy::Wait(time) => time,
            _ => Duration::ZERO,
        };
        refuse(self.reason(), self.to_json(), wait)
    }
}

/// An answer that is not 200; of one that may come later, with the seconds to wait, at least 1.
pub(crate) fn refuse(reason: HttpReason, body: serde_json::Value, wait: Duration) -> Response {
    let status = StatusCode::from_u16(reason.status).expect("each reason has a status of HTTP");
    let mut response = (status, axum::Json(body)).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}
