//! [`Query`], and [`QueryContext`]: what all that answers one query shares.

use std::sync::{Arc, Mutex, PoisonError};

use futures::join;
use taba_core::{AnyProjection, AnyState, ClientId, Format, Guarded, Panicked, Timestamp};

use super::catalog::{ListedTab, listed};
use super::error::QueryError;
use super::loss_cache::Losses;
use super::losses;
use super::missing::{Coverage, MissingPart};
use super::selection::Selection;
use super::state::QueryState;

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

/// A set of Clients, and the events of theirs that are known to be dropped; `None` when unknown.
type LostOf = (Arc<[ClientId]>, Option<u64>);

/// The state shared by all answers of one query.
pub(super) struct QueryContext {
    pub(super) state: QueryState,
    pub(super) query: Query,
    pub(super) at: Timestamp,
    pub(super) as_of: Timestamp,
    pub(super) losses: Arc<Losses>,
    pub(super) coverage: Coverage,
    /// When it began, by the cache of Tabs.
    pub(super) began: u64,
    /// The last set of Clients that was asked about, and what was lost of theirs: most Tabs have the same.
    lost_last: Mutex<Option<LostOf>>,
}

impl QueryContext {
    /// Of a query that begins, and the chosen Tabs. What is lost is asked for beside them.
    pub(super) async fn open(state: QueryState, query: Query) -> Result<(Self, Vec<ListedTab>), QueryError> {
        let now = state.now();
        let as_of = state.status.as_of(now);
        let coverage = Coverage::new(&state.store);
        let (at, began, lost_last) =
            (query.at.unwrap_or(now), state.shared.tab_cache.begin(), Mutex::default());
        let tabs = listed(&state, &query.selection, &coverage);
        let (losses, tabs) = join!(losses::recent(&state), tabs);
        Ok((Self { at, as_of, losses, coverage, began, lost_last, state, query }, tabs?))
    }

    /// Ends the reading of States: the unreadable part, if any.
    pub(super) fn finish(&self) -> Result<Option<MissingPart>, QueryError> {
        self.coverage.settle()?;
        Ok(MissingPart::join(self.coverage.missing(), self.losses.missing.clone()))
    }

    /// The projection of a State as of the requested time; by default now.
    pub(super) fn project(&self, handler: &Guarded, state: &AnyState) -> Result<AnyProjection, Panicked> {
        match self.query.at {
            Some(at) => handler.project(state, at),
            None => handler.project_now(state, self.at),
        }
    }

    /// Events known to be dropped for these Clients; `None` when unknown.
    pub(super) fn lost(&self, clients: &Arc<[ClientId]>) -> Option<u64> {
        let mut last = self.lost_last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, lost)) = last.as_ref().filter(|(same, _)| Arc::ptr_eq(same, clients)) {
            return *lost;
        }
        let lost =
            clients.iter().try_fold(0_u64, |sum, client| Some(sum.saturating_add(self.losses.of(client)?)));
        *last = Some((Arc::clone(clients), lost));
        lost
    }
}
