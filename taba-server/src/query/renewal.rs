//! Writes the accounts of a VBucket anew, from its States, where nobody keeps them.

use std::collections::BTreeMap;

use taba_core::limits::COMMIT_PAIRS_MAX;
use taba_core::{Commit, Committed, Part, StoreError, VBucket, Version, Wanted};

use super::accounts::{VBucketAccounts, head, of_states, places};
use super::selection::Selection;
use super::state::QueryState;
use crate::accounts::{self, Book};

/// Tries while others commit to the VBucket; the next round of upkeep tries again.
const TRIES: usize = 3;

/// Whether accounts were written. They are not where somebody keeps them, where a State cannot be read (its events would be in no
/// account, and nobody would be told), nor while others commit all the time.
///
/// # Cost
/// One small value; where nobody keeps accounts, every State.
pub(super) async fn renew(state: &QueryState, vbucket: VBucket) -> Result<bool, StoreError> {
    for _ in 0..TRIES {
        if head(state, vbucket).await?.is_some() {
            return Ok(false);
        }
        let expect = state.store.load(vbucket, &Wanted::default()).await?.version;
        if expect == Version::NEVER {
            return Ok(false);
        }
        let VBucketAccounts { clients, faults, .. } =
            of_states(state, vbucket, &Selection::default()).await?;
        if !faults.is_empty() {
            return Ok(false);
        }
        let next = state.next_version();
        // Groups of before that are no longer among them are removed.
        let old = places(state, vbucket).await?.into_iter().map(|place| (accounts::key(place), None));
        let mut states: BTreeMap<_, _> = old.collect();
        let new = Book::of_clients(clients, next).write();
        states.extend(new.into_iter().map(|(key, _, bytes)| (key, bytes)));
        let states: Vec<_> = states.into_iter().map(|(key, bytes)| (key, Part::WHOLE, bytes)).collect();
        if states.len() >= COMMIT_PAIRS_MAX {
            return Ok(false);
        }
        let commit = Commit::new(expect, next).with_tabs(vec![accounts::index_entry()]).with_states(states);
        match state.store.commit(vbucket, commit).await? {
            Committed::Conflict { found } if found != next => state.shared.counters.conflict(),
            _ => return Ok(true),
        }
    }
    Ok(false)
}
