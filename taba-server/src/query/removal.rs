//! Deleting and pruning: States leave the store, and the Ledger keeps what they counted.
//!
//! Each step is one conditional commit made from one consistent look at the VBucket: the States go, and the events
//! they held are added to `taba.deleted` of their Clients beside them. A Server that folds into the same VBucket at
//! that moment meets a conflict, or this does; whoever does looks again.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use taba_core::limits::COMMIT_PAIRS_MAX;
use taba_core::{
    ClientId, Commit, Committed, Envelope, HandlerError, Loaded, Part, Registry, Scan, ScanWhat, StateKey,
    TabName, Timestamp, VBucket, Version, Wanted, ledger,
};

use super::deadline;
use super::error::QueryError;
use super::selection::Selection;
use super::state::QueryState;

/// States in one commit. Each can cost a pair for itself and one for the note of its Client.
const COMMIT_STATES_MAX: usize = 1000;
/// Tabs that leave the index in one commit.
const COMMIT_TABS_MAX: usize = 250;

const _: () = assert!(2 * COMMIT_STATES_MAX + 2 < COMMIT_PAIRS_MAX, "a full removal must fit one commit");

/// What a deletion or a pruning removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Tabs that have no State any more.
    pub tabs: u64,
    /// States.
    pub states: u64,
    /// Events that the States held; now in `taba.deleted`.
    pub events: u64,
    /// States among them that could not be read; their events are in no account.
    pub damaged: u64,
}

/// Which of the chosen States go.
#[derive(Clone, Copy)]
enum Rule {
    /// All.
    Chosen,
    /// Those that say nothing any more.
    Silent { at: Timestamp },
}

impl Rule {
    fn what(self) -> ScanWhat {
        match self {
            Self::Chosen => ScanWhat::Keys,
            Self::Silent { .. } => ScanWhat::States,
        }
    }

    /// Whether the State goes. One that cannot be read, or whose Handler panics, only goes when it was named.
    fn takes(self, state: &QueryState, parts: &[(Part, Bytes)]) -> bool {
        let Self::Silent { at } = self else { return true };
        let Some(envelope) = whole(parts) else { return false };
        let Some(handler) = state.handlers.guarded(envelope.tab_type.as_str()) else { return false };
        let decoded = handler.decode(envelope.version, &envelope.state);
        match decoded.and_then(|decoded| Ok(handler.should_prune(&decoded, at)?)) {
            Ok(goes) => goes,
            Err(HandlerError::Panicked(panicked)) => {
                state.panicked(&envelope.tab_type, &panicked);
                false
            }
            Err(_) => false,
        }
    }
}

/// The State's envelope, if it can be read.
fn whole(parts: &[(Part, Bytes)]) -> Option<Envelope> {
    let (_, bytes) = parts.iter().find(|(part, _)| *part == Part::WHOLE)?;
    Envelope::decode(bytes).ok()
}

/// Deletes the chosen States; the Tabs that have none left leave the index.
///
/// What was removed before an error stays removed; asking again removes the rest.
///
/// # Errors
/// [`QueryError::NothingChosen`] and [`QueryError::Reserved`] when the selection is everything, or names the Ledger;
/// else as any query.
pub async fn delete(state: &QueryState, selection: &Selection) -> Result<Removed, QueryError> {
    if selection.is_everything() {
        return Err(QueryError::NothingChosen);
    }
    if let Some(name) = selection.reserved_name() {
        return Err(QueryError::Reserved { name: name.to_owned() });
    }
    if selection.is_reserved_included() {
        return Err(QueryError::Reserved { name: "reserved=true".to_owned() });
    }
    deadline::answer(state.limits.query_time, remove(state, selection, Rule::Chosen)).await
}

/// Removes the chosen States whose Handler says that they say nothing any more, as of now.
///
/// What was removed before an error stays removed; asking again removes the rest. The Ledger is never pruned.
///
/// # Errors
/// As any query.
pub async fn prune(state: &QueryState, selection: &Selection) -> Result<Removed, QueryError> {
    let rule = Rule::Silent { at: state.now() };
    deadline::answer(state.limits.query_time, remove(state, selection, rule)).await
}

async fn remove(state: &QueryState, selection: &Selection, rule: Rule) -> Result<Removed, QueryError> {
    let mut removed = Removed::default();
    for vbucket in selection.vbuckets(state.store.vbuckets()) {
        sweep(state, vbucket, selection, rule, &mut removed).await?;
        tokio::task::yield_now().await;
    }
    Ok(removed)
}

/// Removes what goes from one VBucket.
async fn sweep(
    state: &QueryState,
    vbucket: VBucket,
    selection: &Selection,
    rule: Rule,
    removed: &mut Removed,
) -> Result<(), QueryError> {
    let (mut going, mut thinned) = (Vec::new(), Vec::new());
    for (tab, tab_type) in state.store.tabs(vbucket).await? {
        if tab.is_reserved() || !selection.has_tab(&tab, &tab_type) {
            continue;
        }
        let (mut after, mut found, mut taken) = (None, false, false);
        loop {
            let scan =
                Scan { tab: Some(tab.clone()), after, limit: state.limits.page_states, what: rule.what() };
            let page = state.store.scan(vbucket, &scan).await?;
            let last = page.len() < scan.limit;
            after = page.last().map(|scanned| scanned.key.clone());
            found |= !page.is_empty();
            for scanned in page {
                if selection.has_client(&scanned.key.client) && rule.takes(state, &scanned.parts) {
                    taken = true;
                    going.push(scanned.key);
                }
                if going.len() == COMMIT_STATES_MAX {
                    commit_removal(state, vbucket, &std::mem::take(&mut going), rule, removed).await?;
                }
            }
            if last {
                break;
            }
        }
        if taken || !found {
            thinned.push(tab);
        }
    }
    commit_removal(state, vbucket, &going, rule, removed).await?;
    for tabs in thinned.chunks(COMMIT_TABS_MAX) {
        commit_index(state, vbucket, tabs, removed).await?;
    }
    Ok(())
}

/// Removes States: looks at them and at their Clients' notes, and commits against what it saw, until nobody else
/// committed in between.
async fn commit_removal(
    state: &QueryState,
    vbucket: VBucket,
    keys: &[StateKey],
    rule: Rule,
    removed: &mut Removed,
) -> Result<(), QueryError> {
    let deleted = ledger::tab(ledger::DELETED);
    let mut states = keys.to_vec();
    states.extend(keys.iter().map(|key| StateKey { tab: deleted.clone(), client: key.client.clone() }));
    states.sort_unstable();
    states.dedup();
    let wanted = Wanted { tabs: Vec::new(), states };
    while !keys.is_empty() {
        let loaded = state.store.load(vbucket, &wanted).await?;
        let plan = plan_removal(state, loaded, rule, state.next_version(), state.now())?;
        if plan.removed.states == 0 || committed(state, vbucket, plan.commit).await? {
            removed.states += plan.removed.states;
            removed.events += plan.removed.events;
            removed.damaged += plan.removed.damaged;
            state.shared.counters.removal(plan.removed.states);
            break;
        }
    }
    Ok(())
}

/// Removes Tabs from the index that have no State.
async fn commit_index(
    state: &QueryState,
    vbucket: VBucket,
    tabs: &[TabName],
    removed: &mut Removed,
) -> Result<(), QueryError> {
    loop {
        let version = state.store.load(vbucket, &Wanted::default()).await?.version;
        let mut empty = Vec::new();
        for tab in tabs {
            let scan = Scan { tab: Some(tab.clone()), after: None, limit: 1, what: ScanWhat::Keys };
            if state.store.scan(vbucket, &scan).await?.is_empty() {
                empty.push((tab.clone(), None));
            }
        }
        let count = empty.len() as u64;
        let commit = Commit { expect: version, next: state.next_version(), tabs: empty, ..Commit::default() };
        if count == 0 || committed(state, vbucket, commit).await? {
            removed.tabs += count;
            return Ok(());
        }
    }
}

/// Whether the commit was done; false when somebody else's was first.
async fn committed(state: &QueryState, vbucket: VBucket, commit: Commit) -> Result<bool, QueryError> {
    let next = commit.next;
    match state.store.commit(vbucket, commit).await? {
        Committed::Conflict { found } if found != next => {
            state.shared.counters.conflict();
            tokio::task::yield_now().await;
            Ok(false)
        }
        // Done; or done before, by a commit whose answer was lost.
        _ => Ok(true),
    }
}

/// A commit that removes States, and what it removes.
struct Plan {
    commit: Commit,
    removed: Removed,
}

/// What to commit, given one look at the VBucket.
fn plan_removal(
    state: &QueryState,
    loaded: Loaded,
    rule: Rule,
    next: Version,
    now: Timestamp,
) -> Result<Plan, QueryError> {
    let mut found: BTreeMap<StateKey, Vec<(Part, Bytes)>> = BTreeMap::new();
    for (key, part, bytes) in loaded.states {
        found.entry(key).or_default().push((part, bytes));
    }
    let mut notes: BTreeMap<ClientId, (u64, Option<Bytes>)> = BTreeMap::new();
    let mut removed = Removed::default();
    let mut commit = Commit { expect: loaded.version, next, ..Commit::default() };
    for (key, parts) in &found {
        if key.tab.is_reserved() || !rule.takes(state, parts) {
            continue;
        }
        removed.states += 1;
        match whole(parts) {
            Some(envelope) => {
                removed.events += envelope.events;
                notes.entry(key.client.clone()).or_default().0 += envelope.events;
            }
            None => removed.damaged += 1,
        }
        commit.states.extend(parts.iter().map(|(part, _)| (key.clone(), *part, None)));
    }
    let deleted = ledger::tab(ledger::DELETED);
    for (client, (events, note)) in &mut notes {
        let key = StateKey { tab: deleted.clone(), client: client.clone() };
        *note = found.get(&key).and_then(|parts| parts.first()).map(|(_, bytes)| bytes.clone());
        if *events > 0 {
            let bytes = add_note(&state.handlers, &deleted, note.as_ref(), *events, now)?;
            commit.states.push((key, Part::WHOLE, Some(bytes)));
        }
    }
    if notes.values().any(|(events, _)| *events > 0) {
        commit.tabs.push((deleted, Some(ledger::tab_type())));
    }
    Ok(Plan { commit, removed })
}

/// The Ledger's State with one more note in it, of this many events.
fn add_note(
    handlers: &Registry,
    name: &TabName,
    note: Option<&Bytes>,
    events: u64,
    now: Timestamp,
) -> Result<Bytes, QueryError> {
    let no_ledger = || QueryError::NoLedger { tab_type: ledger::TAB_TYPE };
    let damaged = || QueryError::DamagedNote { name: name.clone() };
    let handler = handlers.guarded(ledger::TAB_TYPE).ok_or_else(no_ledger)?;
    let (mut held, noted) = match note {
        None => (handler.empty_state().map_err(|_| damaged())?, 0),
        Some(bytes) => {
            let envelope = Envelope::decode(bytes).map_err(|_| damaged())?;
            if envelope.tab_type.as_str() != ledger::TAB_TYPE {
                return Err(damaged());
            }
            let held = handler.decode(envelope.version, &envelope.state).map_err(|_| damaged())?;
            (held, envelope.events)
        }
    };
    handler.fold_values(&mut held, &[now], &vec![events as f64]).map_err(|_| no_ledger())?;
    let envelope = Envelope {
        tab_type: ledger::tab_type(),
        version: handler.version(),
        events: noted + 1,
        state: handler.encode(&held).map_err(|_| damaged())?.into(),
    };
    Ok(envelope.encode())
}
