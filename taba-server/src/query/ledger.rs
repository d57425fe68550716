//! The Ledger's balance: for each Client, recorded = folded + dropped + in flight; or, if the store lost what was
//! recorded, recorded + excess = folded + dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use serde::Serialize;
use taba_core::{ClientId, ScanWhat, StoreError, VBucket};

use super::catalog::envelope;
use super::deadline;
use super::error::QueryError;
use super::fault::{self, StateFault};
use super::lists::walk;
use super::missing::{Affects, Coverage, MissingPart};
use super::note::{Note, Notes, is_stream};
use super::notes;
use super::selection::Selection;
use super::state::QueryState;

/// After which time the records are read again for the first time.
const LATE_RECORDS_FIRST: Duration = Duration::from_millis(10);

/// Events dropped at one place for one reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct DroppedEvents {
    /// The place: `client`, `agent` or `server`.
    #[serde(rename = "where")]
    pub place: String,
    /// The reason, a word of [`taba_core::ledger::Why`].
    pub why: String,
    /// Their number.
    pub events: u64,
}

/// One account of the Ledger, in events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Account {
    /// Recorded through the client library.
    pub recorded: u64,
    /// Folded into States, with those since deleted.
    pub folded: u64,
    /// Folded into States that were since deleted or pruned.
    pub deleted: u64,
    /// Folded with a time that was set back because it was too far in the future.
    pub clamped: u64,
    /// Dropped, by place and reason; sorted.
    pub dropped: Vec<DroppedEvents>,
    /// In flight: `recorded - folded - dropped`, never negative. `None` when unknown: a part of the store, a State or
    /// a note of this Client could not be read, or there is an [`excess`](Self::excess).
    pub in_flight: Option<i64>,
    /// Events folded or dropped beyond those recorded: `recorded + excess = folded + dropped`. Causes: the store lost
    /// what was recorded (a restarted memory store, a restored backup); the record arrives later than
    /// [`late_records`](super::Limits::late_records); or this is the stream of an Agent (`taba.stream/…`), whose gaps are losses of unknown Clients.
    #[serde(skip_serializing_if = "is_zero")]
    pub excess: u64,
}

/// The accounts of the chosen Clients, and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ledger {
    /// One account for each Client.
    pub accounts: BTreeMap<ClientId, Account>,
    /// Their sum.
    pub totals: Account,
    /// Unreadable States and notes: their events are missing in `folded` or in the account.
    pub faults: Vec<StateFault>,
    /// VBuckets that could not be read: their events are in no account, and what is in flight is unknown.
    pub missing: Option<MissingPart>,
}

/// The accounts of the selected Clients; the selection of Tabs is ignored.
///
/// # Errors
/// As any query.
///
/// # Cost
/// Reads every State of the store; memory grows with the Clients. An excess that was not there
/// before costs up to [`late_records`](super::Limits::late_records) more.
pub async fn ledger(state: &QueryState, selection: &Selection) -> Result<Ledger, QueryError> {
    deadline::answer(state.limits.query_time, read(state, selection)).await
}

async fn read(state: &QueryState, selection: &Selection) -> Result<Ledger, QueryError> {
    // What was deleted is read before the States: what is deleted in between is then missing for a moment, and never counted twice.
    let deleted = notes::read(state).await?;
    let folded = read_folded(state, selection).await?;
    let (mut waited, mut wait) = (Duration::ZERO, LATE_RECORDS_FIRST);
    loop {
        let mut notes = notes::read(state).await?;
        notes.set_deleted(&deleted);
        let answer = balance(folded.clone(), notes, selection);
        // The record is in a VBucket of the Client, which may be committed after that of the Tab. What was waited for in vain is
        // not waited for again.
        let excess = answer.excess();
        if !state.shared.notes.is_news(&excess) {
            return Ok(answer);
        }
        if waited >= state.limits.late_records {
            state.shared.notes.believe(excess);
            return Ok(answer);
        }
        let pause = wait.min(state.limits.late_records - waited);
        tokio::time::sleep(pause).await;
        waited += pause;
        wait *= 2;
    }
}

/// Accounts that only know what was folded.
async fn read_folded(state: &QueryState, selection: &Selection) -> Result<Ledger, QueryError> {
    let mut answer = Ledger::default();
    let coverage = Coverage::new(&state.store);
    let mut parts = stream::iter(state.store.vbuckets().iter())
        .map(|vbucket| coverage.read(vbucket, folded(state, vbucket, selection)))
        .buffer_unordered(state.limits.vbuckets_at_once.max(1));
    while let Some(part) = parts.next().await {
        let (clients, faults) = part.unwrap_or_default();
        for (client, events) in clients {
            answer.accounts.entry(client).or_default().folded += events;
        }
        answer.faults.extend(faults);
    }
    drop(parts);
    coverage.settle()?;
    answer.missing = coverage.missing();
    Ok(answer)
}

fn balance(mut answer: Ledger, notes: Notes, selection: &Selection) -> Ledger {
    // Their counts are results here.
    let of_notes = notes.missing.map(|missing| MissingPart { affects: Affects::Results, ..missing });
    answer.missing = MissingPart::join(answer.missing, of_notes);
    answer.faults.extend(notes.faults);
    for (client, note) in notes.clients.into_iter().filter(|(client, _)| selection.has_client(client)) {
        answer.accounts.entry(client).or_default().take(note);
    }
    let unreadable: BTreeSet<&ClientId> = answer.faults.iter().flat_map(|fault| &fault.clients).collect();
    let mut dropped = BTreeMap::new();
    for (client, account) in &mut answer.accounts {
        account.balance(answer.missing.is_none() && !unreadable.contains(client));
        answer.totals.add(account);
        for lost in &account.dropped {
            *dropped.entry((lost.place.clone(), lost.why.clone())).or_default() += lost.events;
        }
    }
    let is_whole = answer.missing.is_none() && unreadable.is_empty();
    answer.totals.dropped = lost(dropped);
    // An excess of one Client cannot be set off against what is in flight of another.
    let is_balanced = is_whole && answer.excess().is_empty();
    answer.totals.balance(is_balanced);
    answer
}

impl Ledger {
    /// The Clients of which more is folded or dropped than they recorded, and how much more. Gaps of streams do not count: known
    /// Clients recorded those events.
    fn excess(&self) -> BTreeMap<ClientId, u64> {
        let of = |(client, account): (&ClientId, &Account)| {
            (account.excess > 0 && !is_stream(client)).then(|| (client.clone(), account.excess))
        };
        self.accounts.iter().filter_map(of).collect()
    }
}

/// The events in the States of a VBucket by Client, without the Ledger's own.
async fn folded(
    state: &QueryState,
    vbucket: VBucket,
    selection: &Selection,
) -> Result<(BTreeMap<ClientId, u64>, Vec<StateFault>), StoreError> {
    let (mut clients, mut faults) = (BTreeMap::new(), Vec::new());
    walk(state, vbucket, ScanWhat::States, |scanned| {
        if scanned.key.tab.is_reserved() || !selection.has_client(&scanned.key.client) {
            return;
        }
        match envelope(&scanned.parts) {
            Ok(envelope) => *clients.entry(scanned.key.client).or_default() += envelope.events,
            Err(why) => {
                state.shared.counters.fault();
                fault::add(&mut faults, why.fault(scanned.key.tab, scanned.key.client));
            }
        }
    })
    .await?;
    Ok((clients, faults))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(events: &u64) -> bool {
    *events == 0
}

fn lost(dropped: BTreeMap<(String, String), u64>) -> Vec<DroppedEvents> {
    dropped.into_iter().map(|((place, why), events)| DroppedEvents { place, why, events }).collect()
}

impl Account {
    /// Events dropped, over all places and reasons.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(|lost| lost.events).sum()
    }

    fn take(&mut self, note: Note) {
        self.recorded += note.recorded;
        self.folded += note.deleted;
        self.deleted += note.deleted;
        self.clamped += note.clamped;
        self.dropped = lost(note.dropped);
    }

    fn balance(&mut self, is_whole: bool) {
        let gone = self.folded + self.dropped_total();
        self.excess = gone.saturating_sub(self.recorded);
        let on_the_way = i64::try_from(self.recorded.saturating_sub(gone)).unwrap_or(i64::MAX);
        self.in_flight = (is_whole && self.excess == 0).then_some(on_the_way);
    }

    fn add(&mut self, other: &Self) {
        self.recorded += other.recorded;
        self.folded += other.folded;
        self.deleted += other.deleted;
        self.clamped += other.clamped;
    }
}
