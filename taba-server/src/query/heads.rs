//! Reads the heads of the accounts of all VBuckets.

use std::sync::LazyLock;

use taba_core::{Peek, StateKey, VBucket};

use super::head_cache::Head;
use super::missing::Coverage;
use super::state::QueryState;
use crate::accounts;

/// The key of a head, made once: it is asked of each VBucket by many queries.
pub(super) fn head_key() -> StateKey {
    static HEAD: LazyLock<StateKey> = LazyLock::new(|| accounts::key(0));
    HEAD.clone()
}

/// The heads of all VBuckets that can be read.
///
/// # Cost
/// A small value of each VBucket, and one request to each place that keeps some.
pub(super) async fn heads(state: &QueryState, coverage: &Coverage) -> Vec<(VBucket, Head)> {
    let peeks = state.store.vbuckets().iter().map(|vbucket| Peek::new(vbucket, vec![head_key()]));
    let found = coverage.peek(peeks.collect()).await.into_iter();
    found.map(|(vbucket, peeked)| (vbucket, state.shared.heads.read(vbucket, &peeked))).collect()
}
