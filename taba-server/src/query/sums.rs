//! [`TabSum`]: what all States of one Tab come to, and how those of a group come together.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use taba_core::{AnyProjection, AnyState, Caveats, ClientId, Format, Guarded, Panicked, TabName, TabType};

use super::aggregate::{Aggregate, Quality};
use super::catalog::{DecodedRow, ListedTab, StatesPage, TabStates};
use super::context::QueryContext;
use super::fault::{self, StateFault};
use super::groups::TabGroup;
use super::tab_cache::{KeptKey, KeptSum, KeptTab};

/// A group while its Tabs are read, several of them at a time.
pub(super) struct OpenGroup {
    name: String,
    by: Map<String, Value>,
    tab_type: TabType,
    is_alone: bool,
    counts: Mutex<GroupCounts>,
}

/// What is counted over the States of a group.
#[derive(Default)]
struct GroupCounts {
    clients: u64,
    /// The Clients already counted; only several Tabs can have States of one Client.
    seen: Option<HashSet<ClientId>>,
    events: u64,
    /// `None`: unknown.
    lost: Option<u64>,
    words: BTreeMap<String, u64>,
    other_words: u64,
}

impl OpenGroup {
    /// The group, and its Tabs.
    pub(super) fn of(group: TabGroup) -> (Arc<Self>, Vec<ListedTab>) {
        let TabGroup { name, by, tab_type, tabs, is_alone } = group;
        let seen = (tabs.len() > 1).then(HashSet::new);
        let counts = Mutex::new(GroupCounts { seen, lost: Some(0), ..GroupCounts::default() });
        (Arc::new(Self { name, by, tab_type, is_alone, counts }), tabs)
    }

    fn counts(&self) -> MutexGuard<'_, GroupCounts> {
        // It belongs to one query, which a panic ends.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts States of these Clients, in one Tab.
    fn count(&self, context: &QueryContext, clients: &Arc<[ClientId]>, events: u64) {
        let mut counts = self.counts();
        counts.events += events;
        let new = match &mut counts.seen {
            None => Arc::clone(clients),
            Some(seen) => clients.iter().filter(|client| seen.insert((*client).clone())).cloned().collect(),
        };
        counts.clients += new.len() as u64;
        counts.lost = counts.lost.zip(context.lost(&new)).map(|(sum, lost)| sum.saturating_add(lost));
    }

    /// The aggregate, when all its Tabs were read, and what is not in it.
    pub(super) fn finish(
        &self,
        context: &QueryContext,
        mut sum: TabSum,
    ) -> (Option<Aggregate>, Vec<StateFault>) {
        let mut shown = None;
        if let Some(running) = sum.running.take() {
            match running.show(context.query.format) {
                Ok(value) => shown = Some(value),
                Err(panicked) => sum.fault(context, self, (&running.name, &running.client), panicked),
            }
        }
        let mut faults = sum.faults;
        sum.unreadable.into_iter().for_each(|fault| fault::add(&mut faults, fault));
        let Some(RenderedAggregate { error_bound, caveats, value }) = shown else { return (None, faults) };
        let counts = std::mem::take(&mut *self.counts());
        let quality = Quality {
            clients: counts.clients,
            events: counts.events,
            as_of: context.as_of,
            lost: counts.lost,
            lost_scope: "clients",
            lost_unattributed: context.losses.unattributed(),
            error_bound,
            caveats,
        };
        let aggregate = Aggregate {
            name: self.name.clone(),
            tab_type: self.tab_type.clone(),
            by: self.by.clone(),
            tabs: sum.tabs,
            partial: sum.lacks_states || !self.is_alone && context.coverage.missing_count() > 0,
            quality,
            value,
            clients_by_value: counts.words,
            clients_by_other_values: counts.other_words,
        };
        (Some(aggregate), faults)
    }

    fn count_words(&self, words: Vec<String>, words_max: usize) {
        let mut counts = self.counts();
        for word in words {
            if counts.words.len() >= words_max && !counts.words.contains_key(&word) {
                counts.other_words += 1;
            } else {
                *counts.words.entry(word).or_default() += 1;
            }
        }
    }
}

/// What States come to.
#[derive(Default)]
pub(super) struct TabSum {
    running: Option<RunningProjection>,
    /// A Handler panicked while adding: there is no result.
    is_broken: bool,
    /// Tabs that have a State.
    tabs: u64,
    lacks_states: bool,
    /// Of Handlers that panicked.
    faults: Vec<StateFault>,
    /// Of States that cannot be read.
    unreadable: Vec<StateFault>,
}

/// The projection aggregated so far, and the first State in it.
struct RunningProjection {
    name: TabName,
    client: ClientId,
    handler: Guarded,
    projection: AnyProjection,
}

/// The aggregate as its Handler renders it.
struct RenderedAggregate {
    error_bound: Option<f64>,
    caveats: Caveats,
    value: Value,
}

impl RunningProjection {
    fn show(&self, format: Format) -> Result<RenderedAggregate, Panicked> {
        let Self { handler, projection, .. } = self;
        Ok(RenderedAggregate {
            error_bound: handler.error_bound(projection)?,
            caveats: handler.caveats(projection)?,
            value: handler.render(projection, format)?,
        })
    }
}

/// States of a Tab, merged: by the law of `projecting` their aggregate is the projection of this.
struct MergedStates {
    handler: Guarded,
    state: Option<AnyState>,
    clients: Vec<ClientId>,
    events: u64,
}

impl MergedStates {
    fn of(handler: Guarded) -> Self {
        Self { handler, state: None, clients: Vec::new(), events: 0 }
    }

    fn add(&mut self, row: DecodedRow) -> Result<(), Panicked> {
        match &mut self.state {
            Some(state) => self.handler.merge(state, &row.state)?,
            state => *state = Some(row.state),
        }
        self.events += row.events;
        self.clients.push(row.client);
        Ok(())
    }
}

/// A State, of whom.
type Named<'a> = (&'a TabName, &'a ClientId);

impl TabSum {
    /// The sum of a Tab's States: of those that are kept, or they are read.
    pub(super) async fn of(context: &QueryContext, tab: ListedTab, group: &OpenGroup) -> Self {
        let QueryContext { state, query, coverage, .. } = context;
        let cache = &state.shared.tab_cache;
        let merging = if query.selection.has_all_clients() { state.merging(&tab.tab_type) } else { None };
        let (name, tab_type) = (tab.name.clone(), tab.tab_type.clone());
        let key = KeptKey { name: name.clone(), tab_type, is_merged: merging.is_some() };
        let kept = coverage.versions(&tab.homes).and_then(|at| cache.get(&key, &at));
        let mut sum = Self { lacks_states: tab.is_partial, ..Self::default() };
        let mut states = TabStates::of(tab);
        if kept.is_some() {
            coverage.has_all();
        }
        match kept {
            Some(KeptTab::Merged(kept)) if sum.take_kept(context, group, &name, &kept) => return sum,
            Some(KeptTab::Stored(homes)) => states = states.with_kept(&homes),
            _ if merging.is_none() => states = states.keeping(state.limits.tab_cache_bytes_max),
            _ => {}
        }
        let mut merged = merging.map(MergedStates::of);
        while let Some(page) = states.next(state, &query.selection, coverage).await {
            sum.add_page(context, group, &name, page, merged.as_mut());
        }
        let is_whole = sum.faults.is_empty() && sum.unreadable.is_empty() && !sum.lacks_states;
        let read_at = states.read_at().filter(|_| is_whole);
        let content = match merged {
            Some(merged) => sum.take_merged(context, group, &name, merged).map(KeptTab::Merged),
            None => states.into_stored().map(KeptTab::Stored),
        };
        if let (Some(at), Some(content)) = (read_at, content) {
            cache.put(key, at, content, context.began, state.limits.tab_cache_bytes_max);
        }
        sum
    }

    fn fault(&mut self, context: &QueryContext, group: &OpenGroup, of: Named<'_>, panicked: Panicked) {
        let fault = context.state.fault(&panicked.into(), &group.tab_type, of.0.clone(), of.1.clone());
        fault::add(&mut self.faults, fault);
    }

    /// Adds what is kept of a Tab; not if it cannot be read.
    fn take_kept(
        &mut self,
        context: &QueryContext,
        group: &OpenGroup,
        name: &TabName,
        kept: &KeptSum,
    ) -> bool {
        let Some(handler) = context.state.handlers.guarded(group.tab_type.as_str()) else { return false };
        let Ok(state) = handler.decode(kept.version, &kept.state) else { return false };
        self.tabs = 1;
        self.project(context, group, name, (&handler, &state), (&kept.clients, kept.events));
        true
    }

    /// Adds a page of States.
    fn add_page(
        &mut self,
        context: &QueryContext,
        group: &OpenGroup,
        name: &TabName,
        page: StatesPage,
        merged: Option<&mut MergedStates>,
    ) {
        self.tabs = self.tabs.max(u64::from(!page.opened.is_empty()));
        self.lacks_states |= page.lacks_states;
        self.unreadable.extend(page.faults);
        let Some(merged) = merged else { return self.add_each(context, group, name, &page.opened) };
        for row in page.opened {
            let client = row.client.clone();
            if self.is_broken {
                return;
            }
            if let Err(panicked) = merged.add(row) {
                self.is_broken = true;
                self.fault(context, group, (name, &client), panicked);
            }
        }
    }

    /// Adds the States of a Tab, merged, and gives them to be kept.
    fn take_merged(
        &mut self,
        context: &QueryContext,
        group: &OpenGroup,
        name: &TabName,
        merged: MergedStates,
    ) -> Option<KeptSum> {
        let MergedStates { handler, state, clients, events } = merged;
        let (state, clients) = (state.filter(|_| !self.is_broken)?, Arc::from(clients));
        self.project(context, group, name, (&handler, &state), (&clients, events));
        let encoded = handler.encode(&state).ok()?;
        Some(KeptSum { version: handler.version(), state: encoded.into(), clients, events })
    }

    /// Projects merged States, and counts them.
    fn project(
        &mut self,
        context: &QueryContext,
        group: &OpenGroup,
        name: &TabName,
        (handler, state): (&Guarded, &AnyState),
        (clients, events): (&Arc<[ClientId]>, u64),
    ) {
        let Some(client) = clients.first() else { return };
        match context.project(handler, state) {
            Ok(projection) => {
                group.count(context, clients, events);
                let (name, client, handler) = (name.clone(), client.clone(), handler.clone());
                self.running = Some(RunningProjection { name, client, handler, projection });
            }
            Err(panicked) => {
                self.is_broken = true;
                self.fault(context, group, (name, client), panicked);
            }
        }
    }

    /// Adds States one by one. If a Handler panics before one is added, that State is left out; if while it is added, the result
    /// is lost.
    fn add_each(&mut self, context: &QueryContext, group: &OpenGroup, name: &TabName, opened: &[DecodedRow]) {
        let (mut clients, mut events, mut words) = (Vec::new(), 0, Vec::new());
        for row in opened {
            if self.is_broken {
                break;
            }
            match self.add_one(context, name, row) {
                Ok(word) => {
                    clients.push(row.client.clone());
                    events += row.events;
                    words.extend(word);
                }
                Err(panicked) => self.fault(context, group, (name, &row.client), panicked),
            }
        }
        group.count(context, &clients.into(), events);
        group.count_words(words, context.state.limits.tally_words_max);
    }

    /// Adds a State: its word.
    fn add_one(
        &mut self,
        context: &QueryContext,
        name: &TabName,
        row: &DecodedRow,
    ) -> Result<Option<String>, Panicked> {
        let handler = &row.handler;
        let projection = context.project(handler, &row.state)?;
        let word = handler.tally(&projection)?;
        let mut running = match self.running.take() {
            Some(running) => running,
            None => {
                let (client, projection) = (row.client.clone(), handler.empty_projection()?);
                RunningProjection { name: name.clone(), client, handler: handler.clone(), projection }
            }
        };
        if let Err(panicked) = running.handler.aggregate(&mut running.projection, &projection) {
            self.is_broken = true;
            return Err(panicked);
        }
        self.running = Some(running);
        Ok(word)
    }

    /// Adds the sum of another Tab of the group.
    pub(super) fn add(&mut self, context: &QueryContext, group: &OpenGroup, other: Self) {
        self.is_broken |= other.is_broken;
        self.tabs += other.tabs;
        self.lacks_states |= other.lacks_states;
        other.faults.into_iter().for_each(|fault| fault::add(&mut self.faults, fault));
        self.unreadable.extend(other.unreadable);
        self.running = match (self.running.take(), other.running) {
            _ if self.is_broken => None,
            (Some(mut running), Some(other)) => {
                match running.handler.aggregate(&mut running.projection, &other.projection) {
                    Ok(()) => Some(running),
                    Err(panicked) => {
                        self.is_broken = true;
                        self.fault(context, group, (&other.name, &other.client), panicked);
                        None
                    }
                }
            }
            (one, two) => one.or(two),
        };
    }
}
