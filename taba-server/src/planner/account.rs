//! What a commit changes in the [accounts](crate::accounts) of its VBucket: each State that it changes is compared with what was
//! stored of it.

use std::collections::BTreeMap;

use taba_core::{ClientId, Timestamp, Version, Wanted, ledger};

use super::cache::Cache;
use super::plan::CommitPlan;
use crate::accounts::{AccountChange, is_note, note_total};

/// Adds to `wanted` the accounts that the commit changes, as far as they are not here.
pub(super) fn touch(cache: &Cache, plan: &CommitPlan, wanted: &mut Wanted) {
    let of_states = cache.changed_states().map(|(_, client, _)| client);
    cache.book.touch(of_states.chain(plan.notes.keys().map(|(_, client)| client)), wanted);
}

/// Changes the accounts as the States are changed, for the commit that makes the version `next`.
pub(super) fn apply(cache: &mut Cache, next: Version, now: Timestamp) {
    let mut changes: BTreeMap<ClientId, AccountChange> = BTreeMap::new();
    let mut is_known = true;
    for (tab, client, live) in cache.changed_states() {
        let is_reserved = tab.is_reserved();
        if is_reserved && !(is_note(tab) && live.tab_type.as_str() == ledger::TAB_TYPE) {
            continue;
        }
        let change = changes.entry(client.clone()).or_default();
        if is_reserved {
            match note_total(&live.handler, live.state(), now) {
                Ok(total) => _ = change.notes.insert(tab.clone(), total),
                Err(_) => is_known = false,
            }
        } else {
            change.states += i64::from(live.stored_events.is_none());
            change.events += i128::from(live.events) - i128::from(live.stored_events.unwrap_or(0));
        }
    }
    if is_known {
        cache.book.change(&changes, next);
    } else {
        cache.book.give_up();
    }
}
