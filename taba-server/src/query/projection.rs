//! Projections: the value of each Tab for each Client.

use std::collections::VecDeque;

use futures::stream::{self, Stream, TryStreamExt};
use serde::Serialize;
use serde_json::Value;
use taba_core::{Caveats, ClientId, Panicked, TabName, TabType, Timestamp};

use super::aggregate::{Query, QueryContext};
use super::catalog::{DecodedRow, ListedTab, TabStates};
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
/// Memory: the list of chosen Tabs, one page of States.
pub fn projections(
    state: &QueryState,
    query: Query,
) -> impl Stream<Item = Result<QueryItem<ClientProjection>, QueryError>> + Send + use<> {
    let (state, query_time) = (state.clone(), state.limits.query_time);
    let open = async move {
        let context = QueryContext::new(state, query).await;
        let tabs = context.listed().await?.into();
        let cursor =
            ProjectionCursor { context, tabs, open: None, ready: VecDeque::new(), is_finished: false };
        Ok::<_, QueryError>(stream::try_unfold(cursor, |mut cursor| async move {
            Ok(cursor.next().await?.map(|item| (item, cursor)))
        }))
    };
    deadline::stream(query_time, stream::once(open).try_flatten())
}

struct ProjectionCursor {
    context: QueryContext,
    tabs: VecDeque<ListedTab>,
    open: Option<(ListedTab, TabStates)>,
    ready: VecDeque<QueryItem<ClientProjection>>,
    is_finished: bool,
}

impl ProjectionCursor {
    async fn next(&mut self) -> Result<Option<QueryItem<ClientProjection>>, QueryError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let Some((tab, states)) = &mut self.open else {
                let Some(tab) = self.tabs.pop_front() else {
                    let missing = if self.is_finished { None } else { self.context.finish()? };
                    self.is_finished = true;
                    return Ok(missing.map(QueryItem::Missing));
                };
                let query = &self.context.query;
                let from = query.from_client.clone().filter(|_| query.selection.begins_with(&tab.name));
                self.open = Some((tab.clone(), TabStates::of(tab).from(from)));
                continue;
            };
            let QueryContext { state, query, coverage, .. } = &self.context;
            match states.next(state, &query.selection, coverage).await {
                None => self.open = None,
                Some(page) => {
                    let row = |opened| self.context.projection(tab, opened, page.lacks_states);
                    self.ready.extend(page.opened.iter().map(row));
                    self.ready.extend(page.faults.into_iter().map(QueryItem::Fault));
                }
            }
        }
    }
}

impl QueryContext {
    fn projection(&self, tab: &ListedTab, opened: &DecodedRow, partial: bool) -> QueryItem<ClientProjection> {
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
        let projection = self.project(opened)?;
        Ok(ClientProjection {
            name: tab.name.clone(),
            tab_type: tab.tab_type.clone(),
            client: opened.client.clone(),
            events: opened.events,
            as_of: self.as_of,
            lost: self.notes.lost(&opened.client),
            error_bound: opened.handler.error_bound(&projection)?,
            partial,
            caveats: opened.handler.caveats(&projection)?,
            value: opened.handler.render(&projection, self.query.format)?,
        })
    }
}
