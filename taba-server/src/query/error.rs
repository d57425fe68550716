//! [`QueryError`]: why a query has no answer, or only part of one.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use taba_core::{HttpReason, Remedy, StoreError, TabName, TabType, TooManySpreadRules};

/// Why a query has no answer, or only part of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The query has a parameter that this endpoint does not have.
    #[error("unknown parameter {found:?}; this endpoint has {}", known.join(", "))]
    UnknownParameter {
        /// The parameter.
        found: String,
        /// The endpoint's parameters; `label.KEY` means any label.
        known: &'static [&'static str],
    },
    /// A parameter's value is invalid.
    #[error("parameter {parameter}={value:?}: {wanted}")]
    BadParameter {
        /// The parameter.
        parameter: String,
        /// Its value.
        value: String,
        /// The expected form.
        wanted: String,
    },
    /// A regular expression is invalid or too large.
    #[error("{pattern:?} is an invalid or too large regular expression")]
    BadPattern {
        /// The expression.
        pattern: String,
        /// The reason.
        source: Box<regex::Error>,
    },
    /// None of the media types in `Accept` is available.
    #[error("Accept names no available type: application/json, application/x-ndjson, text/plain")]
    NotAcceptable,
    /// A super-aggregate over Tabs of several types.
    #[error("the chosen tabs are of {} types: {}; choose one with type=", found.len(), list(found))]
    MixedTypes {
        /// Their types, sorted.
        found: Vec<TabType>,
    },
    /// A deletion without a selection.
    #[error("name what to delete: name=, base=, type=, label.KEY= or client= is needed")]
    NothingChosen,
    /// A deletion of a Tab of the Ledger.
    #[error("{name} belongs to the ledger and cannot be deleted")]
    Reserved {
        /// The Tab, or the parameter that chose it.
        name: String,
    },
    /// The selection has too many Tabs.
    #[error("the selection holds more than {tabs_max} tabs; choose fewer")]
    TooManyTabs {
        /// The maximum.
        tabs_max: usize,
    },
    /// The maximum number of watches is open, or the Server is shutting down.
    #[error("no further watch can be opened")]
    Busy,
    /// The maximum number of queries is being answered.
    #[error("{at_once} queries are being answered, and no more may be; ask again in a moment")]
    TooManyQueries {
        /// The maximum.
        at_once: usize,
    },
    /// The query exceeded its time limit.
    #[error("the query took longer than {query_time:?}; choose fewer tabs")]
    Timeout {
        /// The limit.
        query_time: Duration,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The Ledger's Handler is missing or is no counter of numbers, so a deletion cannot be recorded.
    #[error("a deletion cannot be recorded: the handler {tab_type} is missing or no counter of numbers")]
    NoLedger {
        /// The Tab type of the Ledger.
        tab_type: &'static str,
    },
    /// A note of the Ledger cannot be read, so nothing can be added to it.
    #[error("the note of {name} cannot be read")]
    DamagedNote {
        /// The Tab of the note.
        name: TabName,
    },
    /// There are as many rules of spread as there may be.
    #[error(transparent)]
    TooManySpreadRules(#[from] TooManySpreadRules),
    /// The store lost what it had said is stable, while a spread was changed.
    #[error("the store went back in time meanwhile, and no tab is spread any wider; ask again")]
    SpreadWentBack,
}

fn list(types: &[TabType]) -> String {
    types.iter().map(TabType::as_str).collect::<Vec<_>>().join(", ")
}

impl QueryError {
    /// A code for machines, and the HTTP status.
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
            Self::Busy | Self::TooManyQueries { .. } => ("busy", 503),
            Self::Timeout { .. } => ("timeout", 503),
            Self::Store(StoreError::Unavailable { .. }) => ("store_unavailable", 503),
            Self::Store(_) => ("store_damaged", 500),
            Self::NoLedger { .. } => ("no_ledger", 500),
            Self::DamagedNote { .. } => ("damaged_note", 500),
            Self::TooManySpreadRules(_) => ("too_many_rules", 400),
            Self::SpreadWentBack => ("store_unavailable", 503),
        };
        HttpReason::new(word, status)
    }

    /// What the client should do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Busy | Self::TooManyQueries { .. } | Self::SpreadWentBack => {
                Remedy::Wait(Duration::from_secs(1))
            }
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
