//! Lists of Tabs, types and Clients.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt};
use serde::Serialize;
use taba_core::{
    ClientId, Scan, ScanWhat, Scanned, Spread, SpreadRules, StateKey, StoreError, TabName, TabType, VBucket,
};

use super::accounts;
use super::catalog::listed;
use super::deadline;
use super::error::QueryError;
use super::ledger::shown;
use super::missing::{Coverage, PartialAnswer};
use super::selection::Selection;
use super::state::QueryState;
use super::walk::walk;

/// A Tab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TabRow {
    /// Its name.
    pub name: TabName,
    /// Its type.
    #[serde(rename = "type")]
    pub tab_type: TabType,
}

/// A Tab type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TypeRow {
    /// Its name.
    #[serde(rename = "type")]
    pub tab_type: TabType,
    /// Chosen Tabs of the type.
    pub tabs: u64,
    /// Whether a Handler is registered for it.
    pub known: bool,
}

/// A Client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClientRow {
    /// Its id.
    pub client: ClientId,
    /// Chosen Tabs in which it has a State. Where all Tabs are chosen, one whose spread was raised may count in each of its places.
    pub tabs: u64,
}

/// The chosen Tabs, sorted by name. If Clients are selected, only Tabs in which one of them has a State.
///
/// # Errors
/// As any query.
///
/// # Cost
/// Reads the index of the VBuckets; if Clients are selected, all keys too.
pub async fn names(
    state: &QueryState,
    selection: &Selection,
) -> Result<PartialAnswer<Vec<TabRow>>, QueryError> {
    let answer = async {
        let coverage = Coverage::new(&state.store);
        let mut tabs = listed(state, selection, &coverage).await?;
        if !selection.has_all_clients() {
            let seen: BTreeSet<TabName> =
                keys(state, selection, &coverage, |key| key.tab).await?.into_keys().collect();
            tabs.retain(|tab| seen.contains(&tab.name));
        }
        let value = tabs.into_iter().map(|tab| TabRow { name: tab.name, tab_type: tab.tab_type }).collect();
        Ok(PartialAnswer { value, missing: coverage.missing() })
    };
    deadline::answer(state.limits.query_time, answer).await
}

/// The types of the chosen Tabs and all registered types, sorted.
///
/// # Errors
/// As any query.
pub async fn types(
    state: &QueryState,
    selection: &Selection,
) -> Result<PartialAnswer<Vec<TypeRow>>, QueryError> {
    let answer = async {
        let coverage = Coverage::new(&state.store);
        let mut types: BTreeMap<TabType, u64> =
            state.handlers.types().map(|known| (known.clone(), 0)).collect();
        for tab in listed(state, selection, &coverage).await? {
            *types.entry(tab.tab_type).or_default() += 1;
        }
        let known = |tab_type: &TabType| state.handlers.get(tab_type.as_str()).is_some();
        let row = |(tab_type, tabs)| TypeRow { known: known(&tab_type), tab_type, tabs };
        Ok(PartialAnswer { value: types.into_iter().map(row).collect(), missing: coverage.missing() })
    };
    deadline::answer(state.limits.query_time, answer).await
}

/// The chosen Clients that have a State in a chosen Tab, sorted.
///
/// # Errors
/// As any query.
///
/// # Cost
/// Reads the accounts of all Clients; if Tabs are selected, the keys of all States.
pub async fn clients(
    state: &QueryState,
    selection: &Selection,
) -> Result<PartialAnswer<Vec<ClientRow>>, QueryError> {
    let answer = async {
        let coverage = Coverage::new(&state.store);
        let found = if selection.has_all_tabs() {
            states_of_clients(state, selection, &coverage).await?
        } else {
            keys(state, selection, &coverage, |key| key.client).await?
        };
        let value = found.into_iter().map(|(client, tabs)| ClientRow { client, tabs }).collect();
        Ok(PartialAnswer { value, missing: coverage.missing() })
    };
    deadline::answer(state.limits.query_time, answer).await
}

/// The number of States of each chosen Client, by the accounts.
async fn states_of_clients(
    state: &QueryState,
    selection: &Selection,
    coverage: &Coverage,
) -> Result<BTreeMap<ClientId, u64>, QueryError> {
    let sum = accounts::chosen(state, coverage, selection).await?;
    let with_states = sum.clients.into_iter().filter(|(_, entry)| entry.states > 0);
    Ok(with_states.map(|(client, entry)| (client, shown(entry.states))).collect())
}

/// The number of chosen (Tab, Client) for each value of `column`. Those that can have States in several VBuckets are held until
/// the end, to count each once.
async fn keys<K: Ord>(
    state: &QueryState,
    selection: &Selection,
    coverage: &Coverage,
    column: fn(StateKey) -> K,
) -> Result<BTreeMap<K, u64>, QueryError> {
    let mut found = BTreeMap::new();
    let mut several = BTreeSet::new();
    let (places, rules) = state.vbuckets_of(selection).await;
    let rules = state.spread_or(rules).await;
    let mut answers = stream::iter(places)
        .map(|vbucket| coverage.read(vbucket, keys_of(state, vbucket, selection, &rules, column)))
        .buffer_unordered(state.limits.vbuckets_at_once.max(1));
    while let Some(part) = answers.next().await {
        let (counts, keys) = part.unwrap_or_default();
        for (key, states) in counts {
            *found.entry(key).or_default() += states;
        }
        several.extend(keys);
    }
    drop(answers);
    for key in several {
        *found.entry(column(key)).or_default() += 1;
    }
    coverage.settle()?;
    Ok(found)
}

async fn keys_of<K: Ord>(
    state: &QueryState,
    vbucket: VBucket,
    selection: &Selection,
    rules: &SpreadRules,
    column: fn(StateKey) -> K,
) -> Result<(BTreeMap<K, u64>, Vec<StateKey>), StoreError> {
    let mut tabs: BTreeSet<TabName> = BTreeSet::new();
    for (name, tab_type) in state.store.tabs(vbucket).await? {
        if selection.has_tab(&name, &tab_type) {
            tabs.insert(name);
        }
    }
    let (mut found, mut several) = (BTreeMap::new(), Vec::new());
    if tabs.is_empty() {
        return Ok((found, several));
    }
    walk(state, vbucket, Scan::default().with_what(ScanWhat::Keys), |Scanned { key, .. }| {
        if !tabs.contains(&key.tab) || !selection.has_client(&key.client) {
            return;
        }
        if key.tab.is_reserved() || rules.widest(&key.tab) > Spread::ONE {
            several.push(key);
        } else {
            *found.entry(column(key)).or_default() += 1;
        }
    })
    .await?;
    Ok((found, several))
}
