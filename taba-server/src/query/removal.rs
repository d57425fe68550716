//! Deletion and pruning: States are removed from the store, and the Ledger keeps their counts.
//!
//! Each step is one conditional commit based on one consistent read of the VBucket: it removes the States and adds
//! their events to `taba.deleted` of their Clients. If a Server commits to the VBucket meanwhile, one of the two has
//! a conflict and reads again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Serialize, Serializer};
use taba_core::limits::COMMIT_PAIRS_MAX;
use taba_core::{
    ClientId, Commit, Committed, Envelope, HandlerError, Loaded, Part, Registry, Scan, ScanWhat, Spread,
    SpreadRules, StateKey, StoreError, TabName, TabType, Timestamp, VBucket, Version, Wanted, ledger,
};
use tokio::time::timeout;

use super::error::QueryError;
use super::missing::{Coverage, MissingPart};
use super::selection::Selection;
use super::state::QueryState;
use crate::accounts::{ACCOUNT_PAIRS, AccountChange, Book, is_note, note_total};
use crate::spread;

/// States in one commit. Each can cost a pair for each of its two parts, one for its Client's note and one for its account.
const COMMIT_STATES_MAX: usize = 900;
/// Tabs that are examined before what is to go of them is committed, and with it that they are done.
const STEP_TABS_MAX: usize = 250;

const _: () = assert!(
    4 * COMMIT_STATES_MAX + 2 + ACCOUNT_PAIRS < COMMIT_PAIRS_MAX,
    "a full removal must fit one commit"
);

/// The result of a deletion or a pruning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Removed {
    /// Tabs without any State left.
    pub tabs: u64,
    /// States; a Client's State of a Tab that is spread can lie in several VBuckets, and counts in each.
    pub states: u64,
    /// Events of those States; now in `taba.deleted`.
    pub events: u64,
    /// Unreadable States among them; their events are in no account.
    pub damaged: u64,
    /// VBuckets that could not be read completely, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingPart>,
    /// Whether time ran out before the last VBucket.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_cut_short: bool,
    /// How far it came, if time ran out.
    #[serde(flatten)]
    pub rest: Option<RemovalRest>,
}

/// What is left of a removal whose time ran out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemovalRest {
    /// VBuckets that are done, of those that can hold selected States.
    pub vbuckets_done: usize,
    /// Those that can.
    pub vbuckets: usize,
    /// Where to go on.
    #[serde(serialize_with = "as_text")]
    pub next: RemovalCursor,
}

/// Where a removal goes on: in a VBucket, at a Tab or at its first one. As text the number of the one, and after a space the name
/// of the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovalCursor {
    vbucket: u16,
    tab: Option<TabName>,
}

impl fmt::Display for RemovalCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tab {
            None => write!(f, "{}", self.vbucket),
            Some(tab) => write!(f, "{} {tab}", self.vbucket),
        }
    }
}

impl FromStr for RemovalCursor {
    type Err = RemovalCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (vbucket, tab) = text.split_once(' ').map_or((text, None), |(vbucket, tab)| (vbucket, Some(tab)));
        let vbucket = vbucket.parse().map_err(|_| RemovalCursorError)?;
        let tab = tab.map(TabName::new).transpose().map_err(|_| RemovalCursorError)?;
        Ok(Self { vbucket, tab })
    }
}

/// A text that no answer has as [`RemovalRest::next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`next` of an answer is needed: the number of a vbucket, or also a space and the name of a tab")]
pub struct RemovalCursorError;

fn as_text<S: Serializer>(cursor: &RemovalCursor, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(cursor)
}

/// How far a removal is; readable after its future was dropped.
#[derive(Default)]
struct RemovalProgress {
    cursor: RemovalCursor,
    vbuckets_done: usize,
    vbuckets: usize,
}

/// Which of the selected States to remove.
#[derive(Clone, Copy)]
enum RemovalRule {
    /// All.
    Chosen,
    /// All of the chosen Client, with what the Ledger has noted of it.
    Forgotten,
    /// Those whose Handler says that they hold no more information.
    Silent { at: Timestamp },
}

impl RemovalRule {
    fn what(self) -> ScanWhat {
        match self {
            Self::Chosen | Self::Forgotten => ScanWhat::Keys,
            Self::Silent { .. } => ScanWhat::States,
        }
    }

    /// Whether States of this Tab may go. What the Ledger notes goes with its Client alone; what somebody else wrote under its prefix
    /// can be deleted.
    fn is_for(self, tab: &TabName) -> bool {
        match self {
            _ if !tab.is_reserved() => true,
            Self::Chosen => !is_own(tab),
            Self::Forgotten => tab.base() != ledger::ACCOUNTS && tab.as_str() != spread::TAB,
            Self::Silent { .. } => false,
        }
    }

    /// Whether to remove the State. One that is unreadable, or whose Handler panics, only if it was named.
    fn takes(self, state: &QueryState, parts: &[(Part, Bytes)]) -> bool {
        let Self::Silent { at } = self else { return true };
        let Some(envelope) = whole(parts) else { return false };
        let Some(handler) = state.handlers.guarded(envelope.tab_type.as_str()) else { return false };
        let decoded = handler.decode_stored(&envelope);
        match decoded.and_then(|(decoded, _)| Ok(handler.should_prune(&decoded, at)?)) {
            Ok(goes) => goes,
            Err(HandlerError::Panicked(panicked)) => {
                state.panicked(&envelope.tab_type, &panicked);
                false
            }
            Err(_) => false,
        }
    }
}

/// Whether Servers write this Tab themselves.
fn is_own(tab: &TabName) -> bool {
    ledger::is_tab(tab) || tab.as_str() == spread::TAB
}

/// The State's envelope, if readable.
fn whole(parts: &[(Part, Bytes)]) -> Option<Envelope> {
    Envelope::join(parts).ok()
}

/// Deletes the selected States, and the index entries of Tabs that have none left; from where an earlier call
/// [ended](RemovalRest::next), or all. What was removed before an error stays removed.
///
/// One call takes at most [`query_time`](super::Limits::query_time).
///
/// # Errors
/// [`QueryError::Timeout`] when it came nowhere in that time. [`QueryError::NothingChosen`] and [`QueryError::Reserved`] when
/// everything or the Ledger is selected; else as any query.
///
/// # Cancel safety
/// Safe: completed steps stay, and no further one begins.
pub async fn delete(
    state: &QueryState,
    selection: &Selection,
    from: Option<&RemovalCursor>,
) -> Result<Removed, QueryError> {
    if selection.is_everything() {
        return Err(QueryError::NothingChosen);
    }
    let chosen = selection.exactly_named().find(|name| is_own(name)).cloned();
    let chosen = || chosen.or_else(|| ledger::tabs().find(|tab| selection.has_tab(tab, &ledger::tab_type())));
    if let Some(name) = selection.reserved_name().and_then(|_| chosen()) {
        return Err(QueryError::Reserved { name: name.to_string() });
    }
    if selection.is_reserved_included() {
        return Err(QueryError::Reserved { name: "reserved=true".to_owned() });
    }
    within_time(state, selection, RemovalRule::Chosen, from).await
}

/// Removes one Client: its States, and what the Ledger has noted of it; nothing of it stays in an account, as if it had never been.
/// What it sends later counts anew.
///
/// # Errors
/// As [`delete`].
///
/// # Cancel safety
/// As [`delete`].
pub async fn forget(
    state: &QueryState,
    client: ClientId,
    from: Option<&RemovalCursor>,
) -> Result<Removed, QueryError> {
    let selection = Selection::default().client(client).with_reserved();
    within_time(state, &selection, RemovalRule::Forgotten, from).await
}

/// Removes the selected States whose Handler says that they hold no more information, as of now; from where an earlier call
/// [ended](RemovalRest::next), or all.
///
/// One call takes at most [`query_time`](super::Limits::query_time). What was removed before an error stays removed. The Ledger
/// is never pruned.
///
/// # Errors
/// As any query, when no VBucket can be read.
///
/// # Cancel safety
/// As [`delete`].
pub async fn prune(
    state: &QueryState,
    selection: &Selection,
    from: Option<&RemovalCursor>,
) -> Result<Removed, QueryError> {
    within_time(state, selection, RemovalRule::Silent { at: state.now() }, from).await
}

async fn within_time(
    state: &QueryState,
    selection: &Selection,
    rule: RemovalRule,
    from: Option<&RemovalCursor>,
) -> Result<Removed, QueryError> {
    let begin = from.cloned().unwrap_or_default();
    let progress = Mutex::new(RemovalProgress { cursor: begin.clone(), ..RemovalProgress::default() });
    let mut removed = Removed::default();
    let removing = remove(state, selection, rule, &progress, &mut removed);
    if let Ok(done) = timeout(state.limits.query_time, removing).await {
        done?;
        return Ok(removed);
    }
    let RemovalProgress { cursor: next, vbuckets_done, vbuckets } = std::mem::take(&mut *at(&progress));
    // Whoever asks again and again comes to an end, or to an error.
    if next == begin && removed.states == 0 {
        return Err(QueryError::Timeout { query_time: state.limits.query_time });
    }
    removed.is_cut_short = true;
    removed.rest = Some(RemovalRest { vbuckets_done, vbuckets, next });
    Ok(removed)
}

/// As [`prune`], for all Tabs and without a time limit.
pub(super) async fn prune_all(state: &QueryState) -> Result<Removed, QueryError> {
    let (mut removed, progress) = (Removed::default(), Mutex::default());
    let rule = RemovalRule::Silent { at: state.now() };
    remove(state, &Selection::default(), rule, &progress, &mut removed).await?;
    Ok(removed)
}

/// Processes the selected VBuckets from the cursor on; an unreadable one does not stop the others.
async fn remove(
    state: &QueryState,
    selection: &Selection,
    rule: RemovalRule,
    progress: &Mutex<RemovalProgress>,
    removed: &mut Removed,
) -> Result<(), QueryError> {
    let coverage = Coverage::new(&state.store);
    let (vbuckets, rules) = state.vbuckets_of(selection).await;
    let rules = state.spread_or(rules).await;
    let mut emptied = BTreeSet::new();
    let begin = at(progress).cursor.clone();
    at(progress).vbuckets = vbuckets.len();
    for (done, vbucket) in vbuckets.into_iter().enumerate() {
        at(progress).vbuckets_done = done;
        if vbucket.index() < begin.vbucket {
            continue;
        }
        let from = if vbucket.index() == begin.vbucket { begin.tab.clone() } else { None };
        at(progress).cursor = RemovalCursor { vbucket: vbucket.index(), tab: from.clone() };
        let Some(tabs) = coverage.read(vbucket, state.store.tabs(vbucket)).await else { continue };
        let chosen = |(tab, tab_type): &(TabName, TabType)| {
            rule.is_for(tab)
                && selection.has_tab(tab, tab_type)
                && from.as_ref().is_none_or(|from| tab >= from)
        };
        let tabs = tabs.into_iter().filter(chosen).map(|(tab, _)| tab).collect();
        let sweep = RemovalSweep {
            state,
            vbucket,
            selection,
            rule,
            going: Vec::new(),
            thinned: Vec::new(),
            rules: &rules,
            emptied: &mut emptied,
        };
        match sweep.run(tabs, progress, removed).await {
            Err(error @ (QueryError::Store(_) | QueryError::DamagedNote { .. })) => {
                coverage.lacks(vbucket, error);
            }
            done => done?,
        }
        tokio::task::yield_now().await;
    }
    for tab in emptied {
        removed.tabs += u64::from(is_empty(state, &tab, rules.widest(&tab), &coverage).await);
    }
    removed.missing = coverage.missing();
    coverage.settle()
}

/// Whether a Tab that is spread has no State left, so far as can be read.
async fn is_empty(state: &QueryState, tab: &TabName, widest: Spread, coverage: &Coverage) -> bool {
    for vbucket in state.store.vbuckets().places(tab, widest) {
        if coverage.read(vbucket, has_none(state, vbucket, tab)).await != Some(true) {
            return false;
        }
    }
    true
}

/// Whether a VBucket has no State of a Tab.
async fn has_none(state: &QueryState, vbucket: VBucket, tab: &TabName) -> Result<bool, StoreError> {
    let scan = Scan::default().with_tab(tab.clone()).with_limit(1).with_what(ScanWhat::Keys);
    Ok(state.store.scan(vbucket, &scan).await?.is_empty())
}

fn at(progress: &Mutex<RemovalProgress>) -> MutexGuard<'_, RemovalProgress> {
    // Each field is replaced as a whole, so a panic leaves it intact.
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The removal from one VBucket.
struct RemovalSweep<'a> {
    state: &'a QueryState,
    vbucket: VBucket,
    selection: &'a Selection,
    rule: RemovalRule,
    /// States to remove in the next commit.
    going: Vec<StateKey>,
    /// Tabs that may have no State left.
    thinned: Vec<TabName>,
    rules: &'a SpreadRules,
    /// Tabs that are spread, and have no State left here.
    emptied: &'a mut BTreeSet<TabName>,
}

impl RemovalSweep<'_> {
    async fn run(
        mut self,
        tabs: Vec<TabName>,
        progress: &Mutex<RemovalProgress>,
        removed: &mut Removed,
    ) -> Result<(), QueryError> {
        let mut damaged = None;
        for some in tabs.chunks(STEP_TABS_MAX) {
            // What was before them is done.
            at(progress).cursor.tab = some.first().cloned();
            for tab in some {
                match self.tab(tab, removed).await {
                    // Other Tabs can still be pruned.
                    Err(error @ QueryError::Store(StoreError::Damaged { .. })) => damaged = Some(error),
                    done => done?,
                }
            }
            self.finish_step(removed).await?;
        }
        damaged.map_or(Ok(()), Err)
    }

    /// Commits what is to go so far.
    async fn finish_step(&mut self, removed: &mut Removed) -> Result<(), QueryError> {
        let (state, vbucket) = (self.state, self.vbucket);
        commit_removal(state, vbucket, &std::mem::take(&mut self.going), self.rule, removed).await?;
        if self.thinned.is_empty() {
            return Ok(());
        }
        for tab in commit_index(state, vbucket, &std::mem::take(&mut self.thinned)).await? {
            if self.rules.widest(&tab) > Spread::ONE {
                self.emptied.insert(tab);
            } else {
                removed.tabs += 1;
            }
        }
        Ok(())
    }

    async fn tab(&mut self, tab: &TabName, removed: &mut Removed) -> Result<(), QueryError> {
        let (state, vbucket, selection, rule) = (self.state, self.vbucket, self.selection, self.rule);
        let (mut after, mut found, mut taken) = (None, false, false);
        loop {
            let scan = Scan::default()
                .with_tab(tab.clone())
                .with_after(after)
                .with_limit(state.limits.page_states)
                .with_what(rule.what());
            let page = state.store.scan(vbucket, &scan).await?;
            let last = page.len() < scan.limit;
            after = page.last().map(|scanned| scanned.key.clone());
            found |= !page.is_empty();
            for scanned in page {
                if selection.has_client(&scanned.key.client) && rule.takes(state, &scanned.parts) {
                    taken = true;
                    self.going.push(scanned.key);
                }
                if self.going.len() == COMMIT_STATES_MAX {
                    commit_removal(state, vbucket, &std::mem::take(&mut self.going), rule, removed).await?;
                }
            }
            if last {
                break;
            }
        }
        if taken || !found {
            self.thinned.push(tab.clone());
        }
        Ok(())
    }
}

/// Removes States: reads them and their Clients' notes and commits conditionally, until there is no conflict.
async fn commit_removal(
    state: &QueryState,
    vbucket: VBucket,
    keys: &[StateKey],
    rule: RemovalRule,
    removed: &mut Removed,
) -> Result<(), QueryError> {
    let deleted = ledger::tab(ledger::DELETED);
    let mut states = keys.to_vec();
    let going = keys.iter().collect();
    let has_note = !matches!(rule, RemovalRule::Forgotten);
    states.extend(
        keys.iter()
            .filter(|_| has_note)
            .map(|key| StateKey { tab: deleted.clone(), client: key.client.clone() }),
    );
    states.sort_unstable();
    states.dedup();
    while !keys.is_empty() {
        let (mut wanted, mut book) = (Wanted::default(), Book::default());
        book.touch_head(&mut wanted);
        let head = state.store.load(vbucket, &wanted).await?;
        book.load(&wanted, &head);
        wanted.states.extend(states.iter().cloned());
        book.touch(keys.iter().map(|key| &key.client), &mut wanted);
        let loaded = state.store.load(vbucket, &wanted).await?;
        if loaded.version != head.version {
            state.shared.counters.conflict();
            tokio::task::yield_now().await;
            continue;
        }
        book.load(&wanted, &loaded);
        let plan = plan_removal(state, loaded, book, &going, rule, state.next_version(), state.now())?;
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

/// Removes Tabs without a State from the index: which ones.
async fn commit_index(
    state: &QueryState,
    vbucket: VBucket,
    tabs: &[TabName],
) -> Result<Vec<TabName>, QueryError> {
    loop {
        let version = state.store.load(vbucket, &Wanted::default()).await?.version;
        let mut empty = Vec::new();
        for tab in tabs {
            if has_none(state, vbucket, tab).await? {
                empty.push(tab.clone());
            }
        }
        let tabs = empty.iter().map(|tab| (tab.clone(), None)).collect();
        let commit = Commit::new(version, state.next_version()).with_tabs(tabs);
        if empty.is_empty() || committed(state, vbucket, commit).await? {
            return Ok(empty);
        }
    }
}

/// Whether the commit succeeded; false after a conflict.
async fn committed(state: &QueryState, vbucket: VBucket, commit: Commit) -> Result<bool, QueryError> {
    let next = commit.next;
    match state.store.commit(vbucket, commit).await? {
        Committed::Conflict { found } if found != next => {
            state.shared.counters.conflict();
            tokio::task::yield_now().await;
            Ok(false)
        }
        // Committed, now or by an earlier commit whose answer was lost.
        _ => Ok(true),
    }
}

/// A commit that removes States, and its counts.
struct RemovalPlan {
    commit: Commit,
    removed: Removed,
}

/// Plans the commit from one read of the VBucket.
fn plan_removal(
    state: &QueryState,
    loaded: Loaded,
    mut book: Book,
    keys: &BTreeSet<&StateKey>,
    rule: RemovalRule,
    next: Version,
    now: Timestamp,
) -> Result<RemovalPlan, QueryError> {
    let mut found: BTreeMap<StateKey, Vec<(Part, Bytes)>> = BTreeMap::new();
    for (key, part, bytes) in loaded.states {
        found.entry(key).or_default().push((part, bytes));
    }
    let mut accounts: BTreeMap<ClientId, AccountChange> = BTreeMap::new();
    let mut removed = Removed::default();
    let mut commit = Commit::new(loaded.version, next);
    for (key, parts) in &found {
        if !keys.contains(key) || !rule.takes(state, parts) {
            continue;
        }
        removed.states += 1;
        commit.states.extend(parts.iter().map(|(part, _)| (key.clone(), *part, None)));
        let account = accounts.entry(key.client.clone()).or_default();
        if key.tab.is_reserved() {
            // What is under the Ledger's prefix is no event.
            if is_note(&key.tab) {
                account.notes.insert(key.tab.clone(), 0);
            }
            continue;
        }
        account.states -= 1;
        match whole(parts) {
            Some(envelope) => {
                removed.events = removed.events.saturating_add(envelope.events);
                account.events -= i128::from(envelope.events);
            }
            // Of how many events it was is unknown: in the account they stay folded.
            None => removed.damaged += 1,
        }
    }
    let deleted = ledger::tab(ledger::DELETED);
    let is_noted = !matches!(rule, RemovalRule::Forgotten);
    for (client, account) in accounts.iter_mut().filter(|(_, account)| is_noted && account.events < 0) {
        let key = StateKey { tab: deleted.clone(), client: client.clone() };
        let note = found.get(&key).and_then(|parts| parts.first()).map(|(_, bytes)| bytes);
        let events = u64::try_from(-account.events).unwrap_or(u64::MAX);
        let (bytes, total) = add_note(&state.handlers, &deleted, note, events, now)?;
        account.notes.insert(deleted.clone(), total);
        commit.states.push((key, Part::WHOLE, Some(bytes)));
    }
    if is_noted && accounts.values().any(|account| account.events < 0) {
        commit.tabs.push((deleted, Some(ledger::tab_type())));
    }
    if matches!(rule, RemovalRule::Forgotten) && removed.damaged > 0 {
        // Nobody knows how much of the account was of those: it is made anew of what is left.
        book.give_up();
    } else {
        book.change(&accounts, next);
    }
    commit.states.extend(book.write());
    Ok(RemovalPlan { commit, removed })
}

/// The Ledger's State with this many events added, and its total.
fn add_note(
    handlers: &Registry,
    name: &TabName,
    note: Option<&Bytes>,
    events: u64,
    now: Timestamp,
) -> Result<(Bytes, u64), QueryError> {
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
            let (held, _) = handler.decode_stored(&envelope).map_err(|_| damaged())?;
            (held, envelope.events)
        }
    };
    handler.fold_values(&mut held, &[now], &vec![events as f64]).map_err(|_| no_ledger())?;
    let envelope = Envelope::new(
        ledger::tab_type(),
        handler.version(),
        noted + 1,
        handler.encode(&held).map_err(|_| damaged())?.into(),
    );
    let total = note_total(&handler, &held, now).map_err(|_| damaged())?;
    Ok((envelope.encode(), total))
}
