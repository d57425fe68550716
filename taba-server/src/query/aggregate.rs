//! [`Aggregate`]: what an answer says of many Clients' States, and its [`Quality`].

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use taba_core::{Caveats, TabType, Timestamp};

use super::times;

/// The quality of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Quality {
    /// Clients included.
    pub clients: u64,
    /// Events folded into the included States.
    pub events: u64,
    /// The freshness watermark: everything this Server had received by then is included.
    #[serde(serialize_with = "times::serialize")]
    pub as_of: Timestamp,
    /// Events known to be dropped for the included Clients, of any Tab; `None` when unknown.
    pub lost: Option<u64>,
    /// The scope of [`lost`](Self::lost): always `clients`, because the Tab of a dropped event may be unknown.
    pub lost_scope: &'static str,
    /// Events known to be dropped whose Client is unknown: gaps in what Agents sent; `None` when unknown.
    pub lost_unattributed: Option<u64>,
    /// The largest relative error of estimates, 0.01 for one per cent; `None` without estimates or without such a
    /// bound.
    pub error_bound: Option<f64>,
    /// `unknown`: the parts of the value that are `null`, and why. `left_out`: observed data that is not in the
    /// value. `standard_error`: of estimates without a largest error. Each is present only when needed.
    #[serde(flatten)]
    pub caveats: Caveats,
}

/// The aggregate of many Clients' States.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Aggregate {
    /// The Tab; of a group, the base name with its labels; of a super-aggregate, the selection.
    pub name: String,
    /// The Tab type.
    #[serde(rename = "type")]
    pub tab_type: TabType,
    /// The values of the group's labels; `null` where the Tabs lack one.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub by: Map<String, Value>,
    /// Tabs included: those with a State of a chosen Client.
    pub tabs: u64,
    /// Whether an unreadable part of the store may hold more of it: the value covers the readable part.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// The quality.
    #[serde(flatten)]
    pub quality: Quality,
    /// The aggregate, as its Handler renders it.
    pub value: Value,
    /// The number of States per word, for Handlers that give one, such as gauges, up to
    /// [`tally_words_max`](super::Limits::tally_words_max) words. A text that looks like a number is in quotes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub clients_by_value: BTreeMap<String, u64>,
    /// States with a word beyond that bound.
    #[serde(skip_serializing_if = "is_zero")]
    pub clients_by_other_values: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
