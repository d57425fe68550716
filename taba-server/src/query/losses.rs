//! How many events of each Client are known to be lost, for the quality of every answer.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use taba_core::{StoreError, VBucket, ledger};

use super::accounts::{of_all, of_notes};
use super::heads::heads;
use super::loss_cache::{Losses, RecentLosses, VBucketLosses};
use super::missing::{Affects, Coverage, MissingPart};
use super::state::QueryState;

/// VBuckets whose losses are read at once, where they have changed.
const VBUCKETS_AT_ONCE: usize = 64;

/// What was lost, at most [`lost_age_max`](super::Limits::lost_age_max) ago. Of concurrent queries one reads, the others
/// wait for it; while what was read last is younger, none waits, and it is read again beside them.
///
/// # Cost
/// A small value of each VBucket; the accounts of all Clients of those in which something was dropped since the last time.
pub(super) async fn recent(state: &QueryState) -> Arc<Losses> {
    let cache = &state.shared.losses;
    let (max, now) = (state.limits.lost_age_max, state.now());
    if let Some((age, losses)) = cache.shown(now).filter(|(age, _)| *age < max) {
        if age >= max / 4
            && let Ok(mut held) = Arc::clone(&cache.reading).try_lock_owned()
        {
            let state = state.clone();
            tokio::spawn(async move {
                let losses = held.read(&state).await;
                state.shared.losses.show(now, losses);
            });
        }
        return losses;
    }
    let mut held = cache.reading.lock().await;
    let now = state.now();
    if let Some((_, losses)) = cache.shown(now).filter(|(age, _)| *age < max) {
        return losses;
    }
    let losses = held.read(state).await;
    cache.show(now, Arc::clone(&losses));
    losses
}

impl RecentLosses {
    async fn read(&mut self, state: &QueryState) -> Arc<Losses> {
        let coverage = Coverage::new(&state.store);
        let (mut vbuckets, mut changed) = (HashMap::new(), Vec::new());
        for (vbucket, head) in heads(state, &coverage).await {
            match head {
                Some(head) if head.totals.noted(ledger::DROPPED) == 0 => {}
                head => {
                    let known = self.vbuckets.get(&vbucket);
                    let is_same = |known: &VBucketLosses| {
                        head.is_some_and(|head| known.dropped_at == Some(head.dropped_at))
                    };
                    match known.filter(|known| is_same(known)) {
                        Some(known) => drop(vbuckets.insert(vbucket, Arc::clone(known))),
                        None => changed.push(vbucket),
                    }
                }
            }
        }
        let mut reads = stream::iter(changed)
            .map(|vbucket| {
                let read = coverage.read(vbucket, of_vbucket(state, vbucket));
                async move { (vbucket, read.await) }
            })
            .buffer_unordered(VBUCKETS_AT_ONCE);
        while let Some((vbucket, read)) = reads.next().await {
            // Without it a query still has its results; the number of lost events is then unknown.
            vbuckets.extend(read.flatten().map(|losses| (vbucket, losses)));
        }
        drop(reads);
        let missing = coverage.missing().map(|missing| MissingPart { affects: Affects::Lost, ..missing });
        let is_same = |(vbucket, losses): (&VBucket, &Arc<VBucketLosses>)| {
            self.vbuckets.get(vbucket).is_some_and(|known| Arc::ptr_eq(known, losses))
        };
        if missing != self.losses.missing
            || vbuckets.len() != self.vbuckets.len()
            || !vbuckets.iter().all(is_same)
        {
            self.losses = Arc::new(Losses::of_vbuckets(&vbuckets, missing));
        }
        self.vbuckets = vbuckets;
        Arc::clone(&self.losses)
    }
}

/// What was dropped in a VBucket; `None`: nothing.
async fn of_vbucket(state: &QueryState, vbucket: VBucket) -> Result<Option<Arc<VBucketLosses>>, StoreError> {
    let (dropped_at, clients, faults) = match of_all(state, vbucket).await? {
        Some((head, clients)) => (Some(head.dropped_at), clients, Vec::new()),
        None => {
            let read = of_notes(state, vbucket).await?;
            (None, read.clients, read.faults)
        }
    };
    let clients: Vec<_> = clients
        .into_iter()
        .map(|(client, entry)| (client, entry.noted(ledger::DROPPED)))
        .filter(|(_, events)| *events > 0)
        .collect();
    let has_any = !clients.is_empty() || !faults.is_empty();
    Ok(has_any.then(|| Arc::new(VBucketLosses { dropped_at, clients, faults })))
}
