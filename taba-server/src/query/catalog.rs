//! Lists the chosen Tabs, and reads their States page by page.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use taba_core::{
    AnyState, ClientId, Envelope, Guarded, Panicked, Part, Registry, Scan, Scanned, StateKey, TabName,
    TabType, VBucket,
};

use super::error::QueryError;
use super::fault::{self, StateFault, Unreadable};
use super::missing::Coverage;
use super::selection::Selection;
use super::state::QueryState;

/// A chosen Tab.
#[derive(Clone, Debug)]
pub(super) struct ListedTab {
    pub(super) name: TabName,
    pub(super) tab_type: TabType,
    /// The VBuckets with its States: one, or any for a Tab of the Ledger.
    pub(super) homes: Vec<VBucket>,
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
    let mut found = Vec::new();
    let mut answers = stream::iter(selection.vbuckets(state.store.vbuckets()))
        .map(|vbucket| async move { (vbucket, coverage.read(vbucket, state.store.tabs(vbucket)).await) })
        .buffer_unordered(state.limits.vbuckets_at_once.max(1));
    while let Some((vbucket, tabs)) = answers.next().await {
        let chosen =
            tabs.unwrap_or_default().into_iter().filter(|(name, tab_type)| selection.has_tab(name, tab_type));
        found.extend(chosen.map(|(name, tab_type)| ListedTab { name, tab_type, homes: vec![vbucket] }));
        if found.len() > tabs_max {
            return Err(QueryError::TooManyTabs { tabs_max });
        }
    }
    drop(answers);
    coverage.settle()?;
    found.sort_unstable_by(|a, b| (&a.name, &a.tab_type, &a.homes).cmp(&(&b.name, &b.tab_type, &b.homes)));
    found.dedup_by(|again, first| {
        let same = again.name == first.name && again.tab_type == first.tab_type;
        if same {
            first.homes.append(&mut again.homes);
        }
        same
    });
    Ok(found)
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
    after: Option<StateKey>,
    done: bool,
}

impl TabStates {
    pub(super) fn of(tab: ListedTab) -> Self {
        Self { tab, from: None, after: None, done: false }
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
    /// A Tab of the Ledger is one page: a Client can have States in every VBucket, and they are merged here.
    pub(super) async fn next(
        &mut self,
        state: &QueryState,
        chosen: &Selection,
        coverage: &Coverage,
    ) -> Option<StatesPage> {
        // A store that never waits would block the thread, and a deadline could not end the query.
        tokio::task::yield_now().await;
        if self.done {
            return None;
        }
        if let [home] = self.tab.homes[..] {
            return Some(self.page(state, chosen, home, coverage).await);
        }
        let mut merged: BTreeMap<ClientId, DecodedRow> = BTreeMap::new();
        let mut all = StatesPage::default();
        for home in self.tab.homes.clone() {
            (self.after, self.done) = (None, false);
            while !self.done {
                let page = self.page(state, chosen, home, coverage).await;
                all.lacks_states |= page.lacks_states;
                page.faults.into_iter().for_each(|fault| fault::add(&mut all.faults, fault));
                for opened in page.opened {
                    if let Err((client, panicked)) = merge(&mut merged, opened) {
                        let (why, name) = (panicked.into(), self.tab.name.clone());
                        fault::add(&mut all.faults, state.fault(&why, &self.tab.tab_type, name, client));
                    }
                }
            }
        }
        self.done = true;
        all.opened = merged.into_values().collect();
        Some(all)
    }

    async fn page(
        &mut self,
        state: &QueryState,
        chosen: &Selection,
        home: VBucket,
        coverage: &Coverage,
    ) -> StatesPage {
        let limit = state.limits.page_states.max(1);
        let scan = Scan::default()
            .with_tab(self.tab.name.clone())
            .with_after(self.after.take().or_else(|| self.before_first()))
            .with_limit(limit);
        let Some(scanned) = coverage.read(home, state.store.scan(home, &scan)).await else {
            self.done = true;
            return StatesPage { lacks_states: true, ..StatesPage::default() };
        };
        self.done = scanned.len() < limit;
        self.after = scanned.last().map(|last| last.key.clone());
        let mut page = StatesPage::default();
        let is_wanted = |client: &ClientId| {
            chosen.has_client(client) && self.from.as_ref().is_none_or(|from| from <= client)
        };
        for scanned in scanned.into_iter().filter(|scanned| is_wanted(&scanned.key.client)) {
            match open(&state.handlers, &self.tab.tab_type, &scanned) {
                Ok(opened) => page.opened.push(opened),
                Err(why) => {
                    let fault = state.fault(&why, &self.tab.tab_type, scanned.key.tab, scanned.key.client);
                    fault::add(&mut page.faults, fault);
                }
            }
        }
        page
    }
}

/// Adds a State to those of its Client. If the Handler panics, the Client is left out.
fn merge(
    merged: &mut BTreeMap<ClientId, DecodedRow>,
    opened: DecodedRow,
) -> Result<(), (ClientId, Panicked)> {
    match merged.get_mut(&opened.client) {
        None => {
            merged.insert(opened.client.clone(), opened);
        }
        Some(into) => {
            if let Err(panicked) = into.handler.merge(&mut into.state, &opened.state) {
                merged.remove(&opened.client);
                return Err((opened.client, panicked));
            }
            into.events += opened.events;
        }
    }
    Ok(())
}

/// Joins the parts of a State into its envelope.
pub(super) fn envelope(parts: &[(Part, Bytes)]) -> Result<Envelope, Unreadable> {
    match parts {
        [(Part::WHOLE, bytes)] => Envelope::decode(bytes).map_err(|_| Unreadable::Envelope),
        _ => Err(Unreadable::Envelope),
    }
}

/// Decodes a State of a Tab of this type.
fn open(handlers: &Registry, known: &TabType, scanned: &Scanned) -> Result<DecodedRow, Unreadable> {
    let envelope = envelope(&scanned.parts)?;
    if envelope.tab_type != *known {
        return Err(Unreadable::TypeConflict { found: envelope.tab_type, known: known.clone() });
    }
    let handler = handlers.guarded(known.as_str()).ok_or_else(|| Unreadable::UnknownType(known.clone()))?;
    let state = handler.decode(envelope.version, &envelope.state)?;
    let (client, events) = (scanned.key.client.clone(), envelope.events);
    Ok(DecodedRow { client, events, handler, state })
}
