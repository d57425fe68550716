//! Lists the chosen Tabs, and reads their States page by page.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use taba_core::{
    AnyState, ClientId, Envelope, Guarded, Page, Panicked, Part, Peek, Registry, Scan, Scanned, StateKey,
    TabName, TabType, VBucket, Version,
};

use super::chooser::TabChooser;
use super::error::QueryError;
use super::fault::{self, StateFault, Unreadable};
use super::missing::Coverage;
use super::selection::Selection;
use super::state::QueryState;
use super::tab_cache::{TabCache, TabVersions, stored_bytes};
use super::tab_index::TabsNow;

/// Names that are matched before others have their turn.
const TABS_AT_A_TIME: usize = 4096;

/// A chosen Tab.
#[derive(Clone, Debug)]
pub(super) struct ListedTab {
    pub(super) name: TabName,
    pub(super) tab_type: TabType,
    /// The VBuckets with its States: one, several of a Tab that is spread, any of a Tab of the Ledger.
    pub(super) homes: Vec<VBucket>,
    /// Whether it may have States in a VBucket that could not be read.
    pub(super) is_partial: bool,
}

/// The chosen Tabs, sorted by name, of the readable VBuckets.
///
/// # Errors
/// When no VBucket can be read, or the selection has too many Tabs.
pub(super) async fn listed(
    state: &QueryState,
    selection: &Selection,
    coverage: &Coverage,
) -> Result<Vec<ListedTab>, QueryError> {
    let tabs_max = state.limits.tabs_max;
    let (mut found, mut looked_at) = (Vec::new(), 0);
    let (places, rules) = state.vbuckets_of(selection).await;
    let chooser = TabChooser::of(selection);
    let (known, changed) = known_tabs(state, places, coverage).await;
    let read = stream::iter(changed)
        .map(|vbucket| async move {
            let tabs = state.shared.tab_index.tabs(&*state.store, vbucket, state.limits.tab_index_bytes_max);
            (vbucket, coverage.read(vbucket, tabs).await)
        })
        .buffer_unordered(state.limits.vbuckets_at_once.max(1));
    let mut answers = pin!(stream::iter(known).chain(read));
    while let Some((vbucket, now)) = answers.next().await {
        let Some(TabsNow { version, tabs }) = now else { continue };
        looked_at += tabs.len();
        if looked_at > TABS_AT_A_TIME {
            // What is kept makes nobody wait.
            looked_at = 0;
            tokio::task::yield_now().await;
        }
        coverage.found_at(vbucket, version);
        found.extend(chooser.of_list(&tabs).map(|(name, tab_type)| ListedTab {
            name: name.clone(),
            tab_type: tab_type.clone(),
            homes: vec![vbucket],
            is_partial: false,
        }));
        if found.len() > tabs_max {
            return Err(QueryError::TooManyTabs { tabs_max });
        }
    }
    coverage.settle()?;
    found.sort_unstable_by(|a, b| (&a.name, &a.tab_type, &a.homes).cmp(&(&b.name, &b.tab_type, &b.homes)));
    found.dedup_by(|again, first| {
        let same = again.name == first.name && again.tab_type == first.tab_type;
        if same {
            first.homes.append(&mut again.homes);
        }
        same
    });
    let Some(missing) = coverage.missing() else { return Ok(found) };
    let (vbuckets, rules) = (state.store.vbuckets(), state.spread_or(rules).await);
    for tab in &mut found {
        let is_missing = |place| missing.vbuckets.contains(place);
        let places = || vbuckets.places(&tab.name, rules.widest(&tab.name));
        tab.is_partial = tab.name.is_reserved() || places().iter().any(is_missing);
    }
    Ok(found)
}

/// The Tabs of VBuckets where they are kept and still the same, asked for in one go; and the VBuckets whose Tabs are to be read.
async fn known_tabs(
    state: &QueryState,
    places: Vec<VBucket>,
    coverage: &Coverage,
) -> (Vec<(VBucket, Option<TabsNow>)>, Vec<VBucket>) {
    let index = &state.shared.tab_index;
    let (kept, mut changed): (Vec<_>, Vec<_>) = places.into_iter().partition(|vbucket| index.has(*vbucket));
    if kept.len() < 2 {
        changed.extend(kept);
        return (Vec::new(), changed);
    }
    let mut known = Vec::with_capacity(kept.len());
    for (vbucket, peeked) in
        coverage.peek(kept.into_iter().map(|vbucket| Peek::new(vbucket, Vec::new())).collect()).await
    {
        match index.known(vbucket, &peeked) {
            Some(tabs) => {
                coverage.has_all();
                known.push((vbucket, Some(tabs)));
            }
            None => changed.push(vbucket),
        }
    }
    (known, changed)
}

/// A decoded State and its Handler.
pub(super) struct DecodedRow {
    pub(super) client: ClientId,
    pub(super) events: u64,
    pub(super) handler: Guarded,
    pub(super) state: AnyState,
}

/// States of a Tab, sorted by Client.
#[derive(Default)]
pub(super) struct StatesPage {
    pub(super) opened: Vec<DecodedRow>,
    pub(super) faults: Vec<StateFault>,
    /// Whether States of the Tab could not be read; they are in the query's [`Coverage`].
    pub(super) lacks_states: bool,
}

/// The chosen States of one Tab that are not yet read.
pub(super) struct TabStates {
    tab: ListedTab,
    /// Only Clients from this one on.
    from: Option<ClientId>,
    /// What is to be read in each of the Tab's VBuckets.
    homes: Vec<HomeCursor>,
    /// States that were read, by Client, until nothing more can come to theirs; `None` when merging them failed.
    merged: BTreeMap<ClientId, Option<DecodedRow>>,
    began: bool,
    /// The States of each VBucket, if they are to be kept, or were.
    stored: Option<StoredStates>,
}

/// States as they are stored, of each VBucket.
struct StoredStates {
    homes: Vec<Vec<Scanned>>,
    /// Bytes that more may take.
    room: usize,
    /// Whether they were kept, and are not to be read.
    is_kept: bool,
}

/// How far a VBucket is read.
struct HomeCursor {
    vbucket: VBucket,
    after: Option<StateKey>,
    done: bool,
    /// The one version that all of it was read at; the inner `None` for several. The outer: nothing was read.
    version: Option<Option<Version>>,
}

impl TabStates {
    pub(super) fn of(tab: ListedTab) -> Self {
        let home =
            |vbucket: &VBucket| HomeCursor { vbucket: *vbucket, after: None, done: false, version: None };
        let homes = tab.homes.iter().map(home).collect();
        Self { tab, from: None, homes, merged: BTreeMap::new(), began: false, stored: None }
    }

    /// Keeps what is read, for [`into_stored`](Self::into_stored).
    pub(super) fn keeping(self, bytes_max: usize) -> Self {
        let (homes, room) = (vec![Vec::new(); self.homes.len()], TabCache::entry_bytes_max(bytes_max));
        Self { stored: Some(StoredStates { homes, room, is_kept: false }), ..self }
    }

    /// Instead of reading, takes what is kept.
    pub(super) fn with_kept(self, homes: &[Vec<Scanned>]) -> Self {
        Self { stored: Some(StoredStates { homes: homes.to_vec(), room: 0, is_kept: true }), ..self }
    }

    /// The States as they are stored, if they were read to be kept and are not too many.
    pub(super) fn into_stored(self) -> Option<Arc<[Vec<Scanned>]>> {
        Some(self.stored.filter(|stored| !stored.is_kept)?.homes.into())
    }

    /// The version of each VBucket that all of the Tab was read at, if there is one.
    pub(super) fn read_at(&self) -> Option<TabVersions> {
        let is_whole = self.from.is_none() && !self.tab.is_partial;
        let at = |home: &HomeCursor| Some((home.vbucket, home.version??)).filter(|_| home.done);
        self.homes.iter().map(at).collect::<Option<_>>().filter(|_| is_whole)
    }

    pub(super) fn from(self, from: Option<ClientId>) -> Self {
        Self { from, ..self }
    }

    /// A key a little before the first Client that is wanted: a scan begins behind a key.
    fn before_first(&self) -> Option<StateKey> {
        let from = self.from.as_ref()?.as_str();
        let client = ClientId::new(from.get(..from.len() - 1)?).ok()?;
        Some(StateKey { tab: self.tab.name.clone(), client })
    }

    /// The next page, possibly empty; `None` at the end.
    ///
    /// A Client can have States in several VBuckets, and they are merged here: the VBuckets are read side by side, each in
    /// the order of Clients.
    pub(super) async fn next(
        &mut self,
        state: &QueryState,
        chosen: &Selection,
        coverage: &Coverage,
    ) -> Option<StatesPage> {
        // A store that never waits would block the thread, and a deadline could not end the query.
        tokio::task::yield_now().await;
        if std::mem::replace(&mut self.began, true) && self.homes.iter().all(|home| home.done) {
            return None;
        }
        let mut page = StatesPage { lacks_states: self.tab.is_partial, ..StatesPage::default() };
        if let Some(kept) = self.stored.take_if(|stored| stored.is_kept) {
            for (place, scanned) in kept.homes.into_iter().enumerate() {
                self.add(state, chosen, place, Some(Page::new(None, scanned)), &mut page);
                self.homes[place].done = true;
            }
        } else {
            for (place, scanned) in self.read(state, coverage).await {
                self.add(state, chosen, place, scanned, &mut page);
            }
        }
        // Behind the last Client that every VBucket was read up to, more may come.
        let open = self.homes.iter().filter(|home| !home.done).map(|home| home.after.as_ref());
        let settled = open.min().map(|after| after.map(|key| key.client.clone()));
        while let Some(first) = self.merged.first_entry() {
            if settled.as_ref().is_some_and(|settled| settled.as_ref().is_none_or(|last| first.key() > last))
            {
                break;
            }
            page.opened.extend(first.remove());
        }
        Some(page)
    }

    /// Reads on where the least has been read; all VBuckets the first time.
    async fn read(&self, state: &QueryState, coverage: &Coverage) -> Vec<(usize, Option<Page>)> {
        let limit = self.page_states(state);
        let open = || self.homes.iter().enumerate().filter(|(_, home)| !home.done);
        let least = open().map(|(_, home)| home.after.as_ref()).min();
        let next = open().filter(|(_, home)| Some(home.after.as_ref()) == least);
        let reads = next.map(|(place, home)| {
            let scan = Scan::default()
                .with_tab(self.tab.name.clone())
                .with_after(home.after.clone().or_else(|| self.before_first()))
                .with_limit(limit);
            async move { (place, coverage.read(home.vbucket, state.store.page(home.vbucket, &scan)).await) }
        });
        let reads: Vec<_> = reads.collect();
        stream::iter(reads).buffer_unordered(state.limits.vbuckets_at_once.max(1)).collect().await
    }

    /// States read from a VBucket at once. Of several, a page of each is held.
    fn page_states(&self, state: &QueryState) -> usize {
        let pages = if self.homes.len() == 1 { 1 } else { 4 };
        (state.limits.page_states / pages).max(1)
    }

    /// Adds what was read of a VBucket; `None`: it could not be read.
    fn add(
        &mut self,
        state: &QueryState,
        chosen: &Selection,
        place: usize,
        read: Option<Page>,
        page: &mut StatesPage,
    ) {
        let limit = self.page_states(state);
        let Some(home) = self.homes.get_mut(place) else { return };
        let Some(Page { version, states: scanned, .. }) = read else {
            (home.done, page.lacks_states, self.tab.is_partial) = (true, true, true);
            return;
        };
        home.version = Some(version.filter(|_| home.version.is_none_or(|before| before == version)));
        keep(&mut self.stored, place, &scanned);
        home.done = scanned.len() < limit;
        home.after = scanned.last().map(|last| last.key.clone());
        let is_wanted = |client: &ClientId| {
            chosen.has_client(client) && self.from.as_ref().is_none_or(|from| from <= client)
        };
        for scanned in scanned.into_iter().filter(|scanned| is_wanted(&scanned.key.client)) {
            let added = open(&state.handlers, &self.tab.tab_type, &scanned)
                .and_then(|opened| Ok(merge(&mut self.merged, opened)?));
            if let Err(why) = added {
                let fault = state.fault(&why, &self.tab.tab_type, scanned.key.tab, scanned.key.client);
                fault::add(&mut page.faults, fault);
            }
        }
    }
}

/// Adds States to those that are to be kept; if they are too many, none are.
fn keep(stored: &mut Option<StoredStates>, place: usize, scanned: &[Scanned]) {
    let bytes: usize = scanned.iter().map(stored_bytes).sum();
    *stored = stored.take().filter(|stored| bytes <= stored.room);
    if let Some(stored) = stored {
        stored.room -= bytes;
        stored.homes[place].extend_from_slice(scanned);
    }
}

/// Adds a State to those of its Client. If the Handler panics, the Client is left out.
fn merge(merged: &mut BTreeMap<ClientId, Option<DecodedRow>>, opened: DecodedRow) -> Result<(), Panicked> {
    match merged.get_mut(&opened.client) {
        None => {
            merged.insert(opened.client.clone(), Some(opened));
        }
        Some(held) => {
            let Some(into) = held else { return Ok(()) };
            if let Err(panicked) = into.handler.merge(&mut into.state, &opened.state) {
                *held = None;
                return Err(panicked);
            }
            into.events += opened.events;
        }
    }
    Ok(())
}

/// Joins the parts of a State into its envelope.
pub(super) fn envelope(parts: &[(Part, Bytes)]) -> Result<Envelope, Unreadable> {
    Envelope::join(parts).map_err(|_| Unreadable::Envelope)
}

/// Decodes a State of a Tab of this type.
fn open(handlers: &Registry, known: &TabType, scanned: &Scanned) -> Result<DecodedRow, Unreadable> {
    let envelope = envelope(&scanned.parts)?;
    if envelope.tab_type != *known {
        return Err(Unreadable::TypeConflict { found: envelope.tab_type, known: known.clone() });
    }
    let handler = handlers.guarded(known.as_str()).ok_or_else(|| Unreadable::UnknownType(known.clone()))?;
    let (state, _) = handler.decode_stored(&envelope)?;
    let (client, events) = (scanned.key.client.clone(), envelope.events);
    Ok(DecodedRow { client, events, handler, state })
}
