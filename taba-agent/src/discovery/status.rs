//! What `/status` says about [`Discovery`](super::Discovery).

use std::collections::BTreeMap;

use serde::Serialize;

/// Where the Servers of an Agent come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DiscoveryStatus {
    /// Whether Servers are asked for others (`--discover`).
    pub is_on: bool,
    /// Who gave the last list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told_by: Option<String>,
    /// How long ago, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told_ms_ago: Option<u64>,
    /// Why there was no list the last time that one was asked for; the one before counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The Servers on the last list.
    pub found: Vec<FoundServerStatus>,
    /// The addresses of each name.
    pub names: BTreeMap<String, NameStatus>,
    /// How often lists and names were asked for.
    #[serde(flatten)]
    pub counts: DiscoveryCounts,
}

/// A Server on the last list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FoundServerStatus {
    /// Where it is.
    pub url: String,
    /// Its share of the VBuckets.
    pub weight: u32,
    /// Its version, as it says.
    pub version: String,
    /// `serving`, `draining` (it is about to stop), or `not_reached` (it has not answered this Agent yet).
    pub state: &'static str,
    /// Why it was not reached the last time that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NameStatus {
    /// Its addresses, when it was last resolved.
    pub addresses: Vec<String>,
    /// Why it could not be resolved the last time that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How often lists and names were asked for since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DiscoveryCounts {
    /// Lists that Servers gave.
    pub lists_heard: u64,
    /// Questions for a list that were not answered with one.
    pub lists_failed: u64,
    /// Names resolved.
    pub names_resolved: u64,
    /// Names not resolved.
    pub names_failed: u64,
}
