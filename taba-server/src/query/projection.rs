//! Projections: the value of each Tab for each Client.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::FutureExt;
use futures::stream::{self, Stream, TryStreamExt};
use serde::Serialize;
use serde_json::Value;
use taba_core::{Caveats, ClientId, Panicked, TabName, TabType, Timestamp};

use super::ahead::ReadAhead;
use super::catalog::{DecodedRow, ListedTab, TabStates};
use super::context::{Query, QueryContext};
use super::error::QueryError;
use super::fault::QueryItem;
use super::state::QueryState;
use super::{deadline, times};

/// The projection of one Client's State of one Tab.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClientProjection {
    /// The Tab.
    pub name: TabName,
    /// The Tab type.
    #[serde(rename = "type")]
    pub tab_type: TabType,
    /// The Client.
    pub client: ClientId,
    /// Events folded into the State.
    pub events: u64,
    /// The freshness watermark, as in [`Quality`](super::Quality).
    #[serde(serialize_with = "times::serialize")]
    pub as_of: Timestamp,
    /// Events of the Client known to be dropped, of any Tab; `None` when unknown.
    pub lost: Option<u64>,
    /// The largest relative error of estimates, as in [`Quality`](super::Quality).
    pub error_bound: Option<f64>,
    /// Whether an unreadable part of the store may hold more of it: the value covers the readable part.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Unknown and left-out parts, as in [`Quality`](super::Quality).
    #[serde(flatten)]
    pub caveats: Caveats,
    /// The Projection, as its Handler renders it.
    pub value: Value,
}

/// Projections sorted by Tab, then Client. [`Query::by`] is ignored.
///
/// The stream ends after its first error. Requires a tokio runtime.
///
/// # Cost
/// Memory: the list of chosen Tabs; of each Tab that is read at a time, one page of States.
pub fn projections(
    state: &QueryState,
    query: Query,
) -> impl Stream<Item = Result<QueryItem<ClientProjection>, QueryError>> + Send + use<> {
    let (state, query_time) = (state.clone(), state.limits.query_time);
    let open = async move {
        let (context, tabs) = QueryContext::open(state, query).await?;
        let cursor = ProjectionCursor::new(Arc::new(context), tabs);
        Ok::<_, QueryError>(stream::try_unfold(cursor, |mut cursor| async move {
            Ok(cursor.next().await?.map(|item| (item, cursor)))
        }))
    };
    deadline::stream(query_time, stream::once(open).try_flatten())
}

type ProjectionItem = QueryItem<ClientProjection>;

/// A Tab whose first page was read.
struct OpenTab {
    tab: ListedTab,
    states: TabStates,
    first: Option<Vec<ProjectionItem>>,
}

struct ProjectionCursor {
    context: Arc<QueryContext>,
    reads: ReadAhead<OpenTab>,
    open: Option<OpenTab>,
    ready: VecDeque<ProjectionItem>,
    is_finished: bool,
}

impl ProjectionCursor {
    fn new(context: Arc<QueryContext>, tabs: Vec<ListedTab>) -> Self {
        let of = Arc::clone(&context);
        let reads = tabs.into_iter().map(move |tab| {
            let context = Arc::clone(&of);
            let read = async move {
                let query = &context.query;
                let from = query.from_client.clone().filter(|_| query.selection.begins_with(&tab.name));
                let mut states = TabStates::of(tab.clone()).from(from);
                let first = context.page(&tab, &mut states).await;
                OpenTab { tab, states, first }
            };
            read.boxed()
        });
        let reads = ReadAhead::new(&context.state, reads);
        Self { context, reads, open: None, ready: VecDeque::new(), is_finished: false }
    }

    async fn next(&mut self) -> Result<Option<ProjectionItem>, QueryError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if let Some(OpenTab { tab, states, first }) = &mut self.open {
                let page = match first.take() {
                    Some(first) => Some(first),
                    None => self.context.page(tab, states).await,
                };
                match page {
                    Some(page) => self.ready.extend(page),
                    None => self.open = None,
                }
                continue;
            }
            self.open = self.reads.next().await;
            if self.open.is_none() {
                let missing = if self.is_finished { None } else { self.context.finish()? };
                self.is_finished = true;
                return Ok(missing.map(QueryItem::Missing));
            }
        }
    }
}

impl QueryContext {
    /// The next page of a Tab; `None` at its end.
    async fn page(&self, tab: &ListedTab, states: &mut TabStates) -> Option<Vec<ProjectionItem>> {
        let page = states.next(&self.state, &self.query.selection, &self.coverage).await?;
        let rows = page.opened.iter().map(|opened| self.projection(tab, opened, page.lacks_states));
        Some(rows.chain(page.faults.into_iter().map(QueryItem::Fault)).collect())
    }

    fn projection(&self, tab: &ListedTab, opened: &DecodedRow, partial: bool) -> ProjectionItem {
        match self.try_projection(tab, opened, partial) {
            Ok(projection) => QueryItem::Row(projection),
            Err(panicked) => {
                let (name, client) = (tab.name.clone(), opened.client.clone());
                QueryItem::Fault(self.state.fault(&panicked.into(), &tab.tab_type, name, client))
            }
        }
    }

    fn try_projection(
        &self,
        tab: &ListedTab,
        opened: &DecodedRow,
        partial: bool,
    ) -> Result<ClientProjection, Panicked> {
        let projection = self.project(&opened.handler, &opened.state)?;
        Ok(ClientProjection {
            name: tab.name.clone(),
            tab_type: tab.tab_type.clone(),
            client: opened.client.clone(),
            events: opened.events,
            as_of: self.as_of,
            lost: self.losses.of(&opened.client),
            error_bound: opened.handler.error_bound(&projection)?,
            partial,
            caveats: opened.handler.caveats(&projection)?,
            value: opened.handler.render(&projection, self.query.format)?,
        })
    }
}
