//! Upkeep of the whole store: pruning, tidying, accounts where they are lacking, and returning free space.

use serde::Serialize;

use super::error::QueryError;
use super::missing::{Coverage, MissingPart};
use super::removal::{Removed, prune_all};
use super::renewal::renew;
use super::state::QueryState;

/// The result of one round of upkeep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Upkeep {
    /// The States pruned.
    pub pruned: Removed,
    /// Fields and index entries without a use that were removed.
    pub entries_tidied: u64,
    /// VBuckets whose accounts nobody kept any more, and which have them again.
    pub accounts_renewed: u64,
    /// Bytes returned to the system.
    pub bytes_reclaimed: u64,
    /// The part that could not be read, if any.
    pub missing: Option<MissingPart>,
}

/// One round over the whole store, without a time limit; an unreadable VBucket does not stop the others.
///
/// # Errors
/// When nothing of the store can be read.
///
/// # Cost
/// Reads every State. Commits continue meanwhile.
///
/// # Cancel safety
/// Safe: completed steps stay.
pub async fn upkeep(state: &QueryState) -> Result<Upkeep, QueryError> {
    let mut done = Upkeep { pruned: prune_all(state).await?, ..Upkeep::default() };
    let coverage = Coverage::new(&state.store);
    for vbucket in state.store.vbuckets().iter() {
        let tidied = coverage.read(vbucket, state.store.tidy(vbucket)).await.unwrap_or_default();
        done.entries_tidied += tidied.entries;
        done.bytes_reclaimed += tidied.bytes;
        let renewed = coverage.read(vbucket, renew(state, vbucket)).await.unwrap_or_default();
        done.accounts_renewed += u64::from(renewed);
        tokio::task::yield_now().await;
    }
    coverage.settle()?;
    done.bytes_reclaimed += state.store.reclaim().await?.bytes;
    done.missing = MissingPart::join(done.pruned.missing.clone(), coverage.missing());
    Ok(done)
}
