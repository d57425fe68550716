//! Aggregates over Clients for each Tab, or over Tabs for each group of labels, with their quality.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use futures::stream::{self, Stream, TryStreamExt};
use serde::Serialize;
use serde_json::{Map, Value};
use taba_core::{AnyProjection, Caveats, ClientId, Format, Guarded, Panicked, TabName, TabType, Timestamp};

use super::catalog::{DecodedRow, ListedTab, TabStates, listed};
use super::error::QueryError;
use super::fault::{self, QueryItem, StateFault};
use super::groups::{TabGroup, groups};
use super::missing::{Coverage, MissingPart, PartialAnswer};
use super::note::Notes;
use super::notes;
use super::selection::Selection;
use super::state::QueryState;
use super::{deadline, times};

/// A query of Projections.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Query {
    /// Which Tabs and Clients.
    pub selection: Selection,
    /// The time to project as of; `None` for now.
    pub at: Option<Timestamp>,
    /// Group by the values of these labels: one aggregate per combination, base name and type. Empty: one per Tab.
    pub by: Vec<String>,
    /// The amount of detail.
    pub format: Format,
    /// Of the Tab that [`Selection::from`] names, only Clients from this one on; for Projections, whose rows are of one Client.
    pub from_client: Option<ClientId>,
}

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

/// The state shared by all answers of one query.
pub(super) struct QueryContext {
    pub(super) state: QueryState,
    pub(super) query: Query,
    pub(super) at: Timestamp,
    pub(super) as_of: Timestamp,
    pub(super) notes: Arc<Notes>,
    pub(super) coverage: Coverage,
}

impl QueryContext {
    pub(super) async fn new(state: QueryState, query: Query) -> Self {
        let now = state.now();
        let as_of = state.status.as_of(now);
        let notes = notes::recent(&state).await;
        let coverage = Coverage::new(&state.store);
        Self { at: query.at.unwrap_or(now), as_of, notes, coverage, state, query }
    }

    /// The chosen Tabs.
    pub(super) async fn listed(&self) -> Result<Vec<ListedTab>, QueryError> {
        listed(&self.state, &self.query.selection, &self.coverage).await
    }

    /// Ends the reading of States: the unreadable part, if any.
    pub(super) fn finish(&self) -> Result<Option<MissingPart>, QueryError> {
        self.coverage.settle()?;
        Ok(MissingPart::join(self.coverage.missing(), self.notes.missing.clone()))
    }
}

/// Aggregates, sorted by name: one for each chosen Tab, or for each group.
///
/// Tabs without a chosen State have none. The stream ends after its first error. Requires a tokio runtime.
///
/// # Cost
/// Memory: the list of chosen Tabs, one page of States, one aggregate.
pub fn aggregates(
    state: &QueryState,
    query: Query,
) -> impl Stream<Item = Result<QueryItem<Aggregate>, QueryError>> + Send + use<> {
    let (state, query_time) = (state.clone(), state.limits.query_time);
    let open = async move {
        let context = QueryContext::new(state, query).await;
        let tabs = context.listed().await?;
        let groups = groups(tabs, &context.query.by).into();
        let cursor = AggregateCursor { context, groups, ready: VecDeque::new(), is_finished: false };
        Ok::<_, QueryError>(stream::try_unfold(cursor, |mut cursor| async move {
            Ok(cursor.next().await?.map(|item| (item, cursor)))
        }))
    };
    deadline::stream(query_time, stream::once(open).try_flatten())
}

/// One aggregate over all chosen Tabs, which must be of one type, and the faults met; `None` when there is no State.
/// With it, the unreadable part of the store.
///
/// # Errors
/// [`QueryError::MixedTypes`] when the Tabs are of several types; else as any query.
pub async fn super_aggregate(
    state: &QueryState,
    query: Query,
) -> Result<PartialAnswer<(Option<Aggregate>, Vec<StateFault>)>, QueryError> {
    let answer = async {
        let context = QueryContext::new(state.clone(), query).await;
        let tabs = context.listed().await?;
        let types: BTreeSet<&TabType> = tabs.iter().map(|tab| &tab.tab_type).collect();
        if types.len() > 1 {
            return Err(QueryError::MixedTypes { found: types.into_iter().cloned().collect() });
        }
        let Some(tab_type) = types.first().map(|tab_type| (*tab_type).clone()) else {
            return Ok(PartialAnswer { value: (None, Vec::new()), missing: context.finish()? });
        };
        let name = context.query.selection.title();
        let value =
            context.aggregate(TabGroup { name, by: Map::new(), tab_type, tabs, is_alone: false }).await;
        Ok(PartialAnswer { value, missing: context.finish()? })
    };
    deadline::answer(state.limits.query_time, answer).await
}

struct AggregateCursor {
    context: QueryContext,
    groups: VecDeque<TabGroup>,
    ready: VecDeque<QueryItem<Aggregate>>,
    is_finished: bool,
}

impl AggregateCursor {
    async fn next(&mut self) -> Result<Option<QueryItem<Aggregate>>, QueryError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let Some(group) = self.groups.pop_front() else {
                let missing = if self.is_finished { None } else { self.context.finish()? };
                self.is_finished = true;
                return Ok(missing.map(QueryItem::Missing));
            };
            let (aggregate, faults) = self.context.aggregate(group).await;
            self.ready.extend(aggregate.map(QueryItem::Row));
            self.ready.extend(faults.into_iter().map(QueryItem::Fault));
        }
    }
}

impl QueryContext {
    /// The projection of a State as of the requested time; by default now.
    pub(super) fn project(&self, opened: &DecodedRow) -> Result<AnyProjection, Panicked> {
        match self.query.at {
            Some(at) => opened.handler.project(&opened.state, at),
            None => opened.handler.project_now(&opened.state, self.at),
        }
    }

    async fn aggregate(&self, group: TabGroup) -> (Option<Aggregate>, Vec<StateFault>) {
        let mut sum = AggregateSum::new(self, group.tabs.len() > 1);
        let mut faults = Vec::new();
        let mut tabs = 0;
        let mut fault = |panicked: Panicked, name: &TabName, client: &ClientId| {
            let (name, client) = (name.clone(), client.clone());
            fault::add(&mut faults, self.state.fault(&panicked.into(), &group.tab_type, name, client));
        };
        let mut unreadable = Vec::new();
        let mut partial = !group.is_alone && self.coverage.missing_count() > 0;
        for tab in group.tabs {
            let name = tab.name.clone();
            let mut states = TabStates::of(tab);
            let mut has_any = false;
            while let Some(page) = states.next(&self.state, &self.query.selection, &self.coverage).await {
                has_any |= !page.opened.is_empty();
                partial |= page.lacks_states;
                for opened in &page.opened {
                    if let Err(panicked) = sum.take(&name, opened) {
                        fault(panicked, &name, &opened.client);
                    }
                }
                unreadable.extend(page.faults);
            }
            tabs += u64::from(has_any);
        }
        let mut shown = None;
        if let Some(running) = sum.running.take() {
            match running.show(self.query.format) {
                Ok(value) => shown = Some(value),
                Err(panicked) => fault(panicked, &running.name, &running.client),
            }
        }
        unreadable.into_iter().for_each(|fault| fault::add(&mut faults, fault));
        let Some(RenderedAggregate { error_bound, caveats, value }) = shown else { return (None, faults) };
        let quality = Quality {
            clients: sum.clients,
            events: sum.events,
            as_of: self.as_of,
            lost: sum.lost,
            lost_scope: "clients",
            lost_unattributed: self.notes.lost_unattributed(),
            error_bound,
            caveats,
        };
        let (name, tab_type, by) = (group.name, group.tab_type, group.by);
        let (clients_by_value, clients_by_other_values) = (sum.words, sum.other_words);
        let aggregate = Aggregate {
            name,
            tab_type,
            by,
            tabs,
            partial,
            quality,
            value,
            clients_by_value,
            clients_by_other_values,
        };
        (Some(aggregate), faults)
    }
}

/// An aggregate that is being computed.
struct AggregateSum<'a> {
    context: &'a QueryContext,
    running: Option<RunningProjection>,
    /// A Handler panicked while aggregating: there is no result.
    is_broken: bool,
    clients: u64,
    /// The Clients already counted; only several Tabs can have States of one Client.
    seen: Option<HashSet<ClientId>>,
    events: u64,
    lost: Option<u64>,
    words: BTreeMap<String, u64>,
    other_words: u64,
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

impl<'a> AggregateSum<'a> {
    fn new(context: &'a QueryContext, several: bool) -> Self {
        let (seen, words) = (several.then(HashSet::new), BTreeMap::new());
        let lost = Some(0);
        Self {
            context,
            running: None,
            is_broken: false,
            clients: 0,
            seen,
            events: 0,
            lost,
            words,
            other_words: 0,
        }
    }

    /// Adds a State. If its Handler panics before that, the State is left out; if it panics while adding, the result
    /// is lost.
    fn take(&mut self, name: &TabName, opened: &DecodedRow) -> Result<(), Panicked> {
        if self.is_broken {
            return Ok(());
        }
        let handler = &opened.handler;
        let projection = self.context.project(opened)?;
        let word = handler.tally(&projection)?;
        let mut running = match self.running.take() {
            Some(running) => running,
            None => {
                let (client, projection) = (opened.client.clone(), handler.empty_projection()?);
                RunningProjection { name: name.clone(), client, handler: handler.clone(), projection }
            }
        };
        if let Err(panicked) = running.handler.aggregate(&mut running.projection, &projection) {
            self.is_broken = true;
            return Err(panicked);
        }
        self.running = Some(running);
        if let Some(word) = word {
            let full = self.words.len() >= self.context.state.limits.tally_words_max;
            if full && !self.words.contains_key(&word) {
                self.other_words += 1;
            } else {
                *self.words.entry(word).or_default() += 1;
            }
        }
        self.events += opened.events;
        if self.seen.as_mut().is_none_or(|seen| seen.insert(opened.client.clone())) {
            self.clients += 1;
            self.lost = self.lost.zip(self.context.notes.lost(&opened.client)).map(|(sum, lost)| sum + lost);
        }
        Ok(())
    }
}
