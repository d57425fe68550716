//! Upkeep of the whole store: States that say nothing any more go, leftovers are tidied, free space is given back.

use serde::Serialize;

use super::error::QueryError;
use super::missing::{Coverage, MissingPart};
use super::removal::{Removed, prune_all};
use super::state::QueryState;

/// What one round of upkeep did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Upkeep {
    /// What was pruned.
    pub pruned: Removed,
    /// Fields and index entries without a meaning that were taken away.
    pub entries_tidied: u64,
    /// Bytes given back to the system.
    pub bytes_reclaimed: u64,
    /// What could not be looked at; `None` when all was.
    pub missing: Option<MissingPart>,
}

/// One round over the whole store, however long it takes: a VBucket that cannot be read holds up no other.
///
/// # Errors
/// When nothing of the store can be read.
///
/// # Cost
/// Reads every State. Commits go on meanwhile.
///
/// # Cancel safety
/// Safe: what is done stays done.
pub async fn upkeep(state: &QueryState) -> Result<Upkeep, QueryError> {
    let mut done = Upkeep { pruned: prune_all(state).await?, ..Upkeep::default() };
    let coverage = Coverage::new(&state.store);
    for vbucket in state.store.vbuckets().iter() {
        let tidied = coverage.read(vbucket, state.store.tidy(vbucket)).await.unwrap_or_default();
        done.entries_tidied += tidied.entries;
        done.bytes_reclaimed += tidied.bytes;
        tokio::task::yield_now().await;
    }
    coverage.settle()?;
    done.bytes_reclaimed += state.store.reclaim().await?.bytes;
    done.missing = MissingPart::join(done.pruned.missing.clone(), coverage.missing());
    Ok(done)
}
