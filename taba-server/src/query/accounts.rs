//! Reads the [accounts](crate::accounts) of a VBucket; where nobody keeps them, what its States say.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt};
use taba_core::{
    ClientId, Loaded, Scan, ScanWhat, Scanned, StateKey, StoreError, TabName, VBucket, Wanted, ledger,
};

use super::accounts_sum::AccountsSum;
use super::catalog::envelope;
use super::error::QueryError;
use super::fault::{self, StateFault, Unreadable};
use super::heads::heads;
use super::missing::Coverage;
use super::selection::Selection;
use super::state::QueryState;
use super::walk::walk;
use crate::accounts::{self, AccountsHead, Entry, Group, Summary, decode_group, is_note, note_total};

/// Groups that are read at once: of 24 Clients each, so that one read is nearly always all.
const GROUPS_AT_ONCE: usize = 4096;

/// The accounts of a VBucket.
#[derive(Default)]
pub(super) struct VBucketAccounts {
    /// Of all Clients together.
    pub(super) totals: Entry,
    /// Of the chosen ones.
    pub(super) clients: Group,
    /// States and notes that could not be read: if any, the accounts lack them.
    pub(super) faults: Vec<StateFault>,
}

impl VBucketAccounts {
    fn add(&mut self, other: Self) {
        self.totals.add(&other.totals);
        for (client, entry) in other.clients {
            self.clients.entry(client).or_default().add(&entry);
        }
        other.faults.into_iter().for_each(|fault| fault::add(&mut self.faults, fault));
    }

    /// Adds what is read of these VBuckets, some at a time.
    async fn add_each<F: Future<Output = Result<Self, StoreError>>>(
        &mut self,
        (state, coverage): (&QueryState, &Coverage),
        vbuckets: Vec<VBucket>,
        read: impl Fn(VBucket) -> F,
    ) {
        let mut parts = stream::iter(vbuckets)
            .map(|vbucket| coverage.read(vbucket, read(vbucket)))
            .buffer_unordered(state.limits.vbuckets_at_once.max(1));
        while let Some(part) = parts.next().await {
            self.add(part.unwrap_or_default());
        }
    }
}

/// The sums of all VBuckets, without their Clients.
///
/// # Errors
/// When no VBucket can be read, as for all functions here that read all.
///
/// # Cost
/// One small value of each; every State where nobody keeps accounts, as for all functions here.
pub(super) async fn totals(state: &QueryState, coverage: &Coverage) -> Result<VBucketAccounts, QueryError> {
    let (mut sum, mut without) = (VBucketAccounts::default(), Vec::new());
    for (vbucket, head) in heads(state, coverage).await {
        match head {
            Some(head) => {
                coverage.has_all();
                sum.totals.add(&head.totals);
            }
            None => without.push(vbucket),
        }
    }
    let everybody = Selection::default();
    sum.add_each((state, coverage), without, |vbucket| of_states(state, vbucket, &everybody)).await;
    coverage.settle()?;
    Ok(sum)
}

/// The accounts of the chosen Clients in all VBuckets.
///
/// # Cost
/// One value for every 24 Clients of each VBucket, or for each chosen Client where they are all named.
pub(super) async fn chosen(
    state: &QueryState,
    coverage: &Coverage,
    selection: &Selection,
) -> Result<VBucketAccounts, QueryError> {
    let mut all = AccountsSum::new(selection);
    let mut alone = all.add_all(state, coverage, state.store.vbuckets().iter().collect()).await;
    if !all.grown.is_empty() {
        let grown = std::mem::take(&mut all.grown);
        alone.extend(all.add_all(state, coverage, grown).await);
        alone.append(&mut all.grown);
    }
    let mut sum = VBucketAccounts { clients: all.into_clients(), ..VBucketAccounts::default() };
    sum.add_each((state, coverage), alone, |vbucket| of_vbucket(state, vbucket, selection)).await;
    coverage.settle()?;
    Ok(sum)
}

/// The accounts of the chosen Clients in one VBucket.
async fn of_vbucket(
    state: &QueryState,
    vbucket: VBucket,
    selection: &Selection,
) -> Result<VBucketAccounts, StoreError> {
    let read = match selection.exact_clients() {
        Some(clients) => of_clients(state, vbucket, clients).await?,
        None => of_all(state, vbucket).await?.map(|(_, clients)| clients),
    };
    let Some(mut clients) = read else { return of_states(state, vbucket, selection).await };
    clients.retain(|client, _| selection.has_client(client));
    Ok(VBucketAccounts { totals: Entry::default(), clients, faults: Vec::new() })
}

/// The head of a VBucket's accounts, if somebody keeps them.
pub(super) async fn head(state: &QueryState, vbucket: VBucket) -> Result<Option<AccountsHead>, StoreError> {
    let found = state.store.scan(vbucket, &scan(None, 1)).await?;
    Ok(found.first().and_then(read_head))
}

fn scan(after: Option<StateKey>, limit: usize) -> Scan {
    let tab = TabName::new(ledger::ACCOUNTS).expect("the constant is a name");
    Scan::default().with_tab(tab).with_after(after).with_limit(limit)
}

fn read_head(found: &Scanned) -> Option<AccountsHead> {
    let (_, bytes) = found.parts.first().filter(|_| accounts::place_of(&found.key) == Some(0))?;
    AccountsHead::decode(bytes)
}

/// The accounts of all Clients, with their head. `None`: nobody keeps them, or they do not add up to what it says.
pub(super) async fn of_all(
    state: &QueryState,
    vbucket: VBucket,
) -> Result<Option<(AccountsHead, Group)>, StoreError> {
    loop {
        let mut page = state.store.scan(vbucket, &scan(None, GROUPS_AT_ONCE)).await?;
        let Some(head) = page.first().and_then(read_head) else { return Ok(None) };
        let (mut found, mut pages) = (Summary::default(), 1);
        loop {
            for scanned in page.iter().filter(|scanned| accounts::place_of(&scanned.key) != Some(0)) {
                let group = scanned.parts.first().and_then(|(_, bytes)| decode_group(bytes));
                let Some(group) = group else { return Ok(None) };
                found.clients.extend(group);
            }
            if page.len() < GROUPS_AT_ONCE {
                break;
            }
            let last = page.last().map(|scanned| scanned.key.clone());
            page = state.store.scan(vbucket, &scan(last, GROUPS_AT_ONCE)).await?;
            pages += 1;
        }
        if (head.clients, &head.totals) == (found.clients.len() as u64, &found.totals()) {
            return Ok(Some((head, found.clients)));
        }
        // One page is of one moment. Of several, somebody may have written in between.
        if pages == 1 || self::head(state, vbucket).await?.as_ref() == Some(&head) {
            return Ok(None);
        }
    }
}

/// The accounts of these Clients. `None`: nobody keeps them.
async fn of_clients(
    state: &QueryState,
    vbucket: VBucket,
    clients: &BTreeSet<ClientId>,
) -> Result<Option<Group>, StoreError> {
    let Some(mut head) = head(state, vbucket).await? else { return Ok(None) };
    loop {
        let places: BTreeSet<u64> = clients.iter().map(|client| head.place(client)).chain([0]).collect();
        let wanted = Wanted::default().with_states(places.iter().copied().map(accounts::key).collect());
        let Loaded { states, .. } = state.store.load(vbucket, &wanted).await?;
        let (mut found, mut now) = (Group::new(), None);
        for (key, _, bytes) in &states {
            match accounts::place_of(key) {
                Some(0) => now = AccountsHead::decode(bytes),
                _ => match decode_group(bytes) {
                    Some(group) => found.extend(group),
                    None => return Ok(None),
                },
            }
        }
        let Some(now) = now else { return Ok(None) };
        // Groups may have been split meanwhile.
        if clients.iter().all(|client| places.contains(&now.place(client))) {
            return Ok(Some(found));
        }
        head = now;
    }
}

/// The places of all that is stored of accounts.
pub(super) async fn places(state: &QueryState, vbucket: VBucket) -> Result<Vec<u64>, StoreError> {
    let found = state.store.scan(vbucket, &scan(None, usize::MAX).with_what(ScanWhat::Keys)).await?;
    Ok(found.iter().filter_map(|scanned| accounts::place_of(&scanned.key)).collect())
}

/// What the States of the chosen Clients say.
pub(super) async fn of_states(
    state: &QueryState,
    vbucket: VBucket,
    selection: &Selection,
) -> Result<VBucketAccounts, StoreError> {
    let (mut sums, mut faults) = (Summary::default(), Vec::new());
    walk(state, vbucket, Scan::default(), |scanned| {
        if selection.has_client(&scanned.key.client) {
            add(state, scanned, &mut sums, &mut faults);
        }
    })
    .await?;
    Ok(VBucketAccounts { totals: sums.totals(), clients: sums.clients, faults })
}

/// The same of the Ledger's notes only.
pub(super) async fn of_notes(state: &QueryState, vbucket: VBucket) -> Result<VBucketAccounts, StoreError> {
    let (mut sums, mut faults) = (Summary::default(), Vec::new());
    let tabs = state.store.tabs(vbucket).await?;
    for tab in tabs.into_iter().map(|(tab, _)| tab).filter(is_note) {
        let of_tab = Scan::default().with_tab(tab);
        walk(state, vbucket, of_tab, |scanned| add(state, scanned, &mut sums, &mut faults)).await?;
    }
    Ok(VBucketAccounts { totals: sums.totals(), clients: sums.clients, faults })
}

/// Adds what a State says.
fn add(state: &QueryState, scanned: Scanned, sums: &mut Summary, faults: &mut Vec<StateFault>) {
    let Scanned { key, parts, .. } = scanned;
    let is_reserved = key.tab.is_reserved();
    if is_reserved && !is_note(&key.tab) {
        return;
    }
    let events = envelope(&parts).and_then(|envelope| {
        if !is_reserved {
            return Ok(Some(envelope.events));
        }
        if envelope.tab_type.as_str() != ledger::TAB_TYPE {
            return Ok(None);
        }
        let handler = state.handlers.guarded(ledger::TAB_TYPE);
        let handler = handler.ok_or_else(|| Unreadable::UnknownType(envelope.tab_type.clone()))?;
        let (decoded, _) = handler.decode_stored(&envelope)?;
        Ok(Some(note_total(&handler, &decoded, state.now())?))
    });
    match events {
        Ok(None) => {}
        Ok(Some(events)) if is_reserved => sums.add_note(key, events),
        Ok(Some(events)) => sums.add_state(key.client, events),
        Err(why) => {
            if !is_reserved {
                sums.add_state(key.client.clone(), 0);
            }
            fault::add(faults, state.fault(&why, &ledger::tab_type(), key.tab, key.client));
        }
    }
}
