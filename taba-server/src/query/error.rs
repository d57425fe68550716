//! [`QueryError`]: why a query has no answer, or only part of one.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use taba_core::{Remedy, StoreError, TabName, TabType};

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
    /// One word for machines.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownParameter { .. } => "unknown_parameter",
            Self::BadParameter { .. } => "bad_parameter",
            Self::BadPattern { .. } => "bad_regex",
            Self::NotAcceptable => "not_acceptable",
            Self::MixedTypes { .. } => "mixed_types",
            Self::NothingChosen => "nothing_chosen",
            Self::Reserved { .. } => "reserved",
            Self::TooManyTabs { .. } => "too_many_tabs",
            Self::Busy => "busy",
            Self::Timeout { .. } => "timeout",
            Self::Store(StoreError::Unavailable { .. }) => "store_unavailable",
            Self::Store(_) => "store_damaged",
            Self::NoLedger { .. } => "no_ledger",
            Self::DamagedNote { .. } => "damaged_note",
        }
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

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::Busy | Self::Timeout { .. } | Self::Store(StoreError::Unavailable { .. }) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Store(_) | Self::NoLedger { .. } | Self::DamagedNote { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The error and its causes, for people.
    pub fn message(&self) -> String {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        message
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        let mut error = json!({ "reason": self.reason(), "message": self.message() });
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
        let mut response = (self.status(), axum::Json(self.to_json())).into_response();
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = match self.remedy() {
                Remedy::Wait(time) => time.as_secs().max(1),
                _ => 1,
            };
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
