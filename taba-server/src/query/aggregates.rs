//! Aggregates over Clients for each Tab, or over Tabs for each group of labels.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use futures::future::FutureExt;
use futures::stream::{self, Stream, TryStreamExt};
use serde_json::Map;
use taba_core::TabType;

use super::aggregate::Aggregate;
use super::ahead::ReadAhead;
use super::context::{Query, QueryContext};
use super::deadline;
use super::error::QueryError;
use super::fault::{QueryItem, StateFault};
use super::groups::{TabGroup, groups};
use super::missing::PartialAnswer;
use super::state::QueryState;
use super::sums::{OpenGroup, TabSum};

/// Aggregates, sorted by name: one for each chosen Tab, or for each group.
///
/// Tabs without a chosen State have none. The stream ends after its first error. Requires a tokio runtime.
///
/// # Cost
/// Memory: the list of chosen Tabs; for each Tab that is read at a time, one page of States and one aggregate. Tabs of VBuckets
/// that nobody has committed to since they were last read are not read again, as far as they are
/// [kept](super::Limits::tab_cache_bytes_max).
pub fn aggregates(
    state: &QueryState,
    query: Query,
) -> impl Stream<Item = Result<QueryItem<Aggregate>, QueryError>> + Send + use<> {
    let (state, query_time) = (state.clone(), state.limits.query_time);
    let open = async move {
        let (context, tabs) = QueryContext::open(state, query).await?;
        let groups = groups(tabs, &context.query.by);
        let cursor = AggregateCursor::new(Arc::new(context), groups);
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
        let (context, tabs) = QueryContext::open(state.clone(), query).await?;
        let types: BTreeSet<&TabType> = tabs.iter().map(|tab| &tab.tab_type).collect();
        if types.len() > 1 {
            return Err(QueryError::MixedTypes { found: types.into_iter().cloned().collect() });
        }
        let Some(tab_type) = types.first().map(|tab_type| (*tab_type).clone()) else {
            return Ok(PartialAnswer { value: (None, Vec::new()), missing: context.finish()? });
        };
        let name = context.query.selection.title();
        let group = TabGroup { name, by: Map::new(), tab_type, tabs, is_alone: false };
        let mut cursor = AggregateCursor::new(Arc::new(context), vec![group]);
        let value = cursor.next_group().await.unwrap_or_default();
        Ok(PartialAnswer { value, missing: cursor.context.finish()? })
    };
    deadline::answer(state.limits.query_time, answer).await
}

/// A Tab that was read.
struct ReadTab {
    group: Arc<OpenGroup>,
    /// Whether it is the last of its group.
    is_last: bool,
    sum: TabSum,
}

struct AggregateCursor {
    context: Arc<QueryContext>,
    reads: ReadAhead<ReadTab>,
    ready: VecDeque<QueryItem<Aggregate>>,
    is_finished: bool,
}

impl AggregateCursor {
    fn new(context: Arc<QueryContext>, groups: Vec<TabGroup>) -> Self {
        let of = Arc::clone(&context);
        let reads = groups.into_iter().flat_map(move |group| {
            let (group, tabs) = OpenGroup::of(group);
            let (of, last) = (Arc::clone(&of), tabs.len() - 1);
            tabs.into_iter().enumerate().map(move |(place, tab)| {
                let (context, group, is_last) = (Arc::clone(&of), Arc::clone(&group), place == last);
                let read = async move {
                    let sum = TabSum::of(&context, tab, &group).await;
                    ReadTab { group, is_last, sum }
                };
                read.boxed()
            })
        });
        let reads = ReadAhead::new(&context.state, reads);
        Self { context, reads, ready: VecDeque::new(), is_finished: false }
    }

    async fn next(&mut self) -> Result<Option<QueryItem<Aggregate>>, QueryError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let Some((aggregate, faults)) = self.next_group().await else {
                let missing = if self.is_finished { None } else { self.context.finish()? };
                self.is_finished = true;
                return Ok(missing.map(QueryItem::Missing));
            };
            self.ready.extend(aggregate.map(QueryItem::Row));
            self.ready.extend(faults.into_iter().map(QueryItem::Fault));
        }
    }

    async fn next_group(&mut self) -> Option<(Option<Aggregate>, Vec<StateFault>)> {
        let mut all = TabSum::default();
        loop {
            let ReadTab { group, is_last, sum } = self.reads.next().await?;
            all.add(&self.context, &group, sum);
            if is_last {
                return Some(group.finish(&self.context, all));
            }
        }
    }
}
