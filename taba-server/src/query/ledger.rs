//! The Ledger's balance: for each Client, recorded = folded + dropped + in flight; or, if the store lost what was
//! recorded, recorded + excess = folded + dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use taba_core::{ClientId, ledger};

use super::accounts::{self, VBucketAccounts};
use super::deadline;
use super::error::QueryError;
use super::excess::BelievedExcess;
use super::fault::StateFault;
use super::loss_cache::is_stream;
use super::missing::{Coverage, MissingPart};
use super::selection::Selection;
use super::state::QueryState;
use crate::accounts::Entry;

/// After which time the records are read again for the first time.
const LATE_RECORDS_FIRST: Duration = Duration::from_millis(10);
/// The name of all Clients together, among those whose records were waited for.
const FLEET: &str = "taba.fleet";

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
/// Reads a value of each VBucket for every 24 Clients there; memory grows with the Clients. Where nobody keeps accounts, after damage,
/// it reads every State. An excess that was not there before costs up to [`late_records`](super::Limits::late_records) more.
pub async fn ledger(state: &QueryState, selection: &Selection) -> Result<Ledger, QueryError> {
    let answer = settled(state, &state.shared.excess, || read_clients(state, selection), of_clients);
    deadline::answer(state.limits.query_time, answer).await
}

/// The sum over all Clients, without their accounts. What is [in flight](Account::in_flight) of one and an
/// [excess](Account::excess) of another are set off against each other here: the accounts tell them apart.
///
/// # Errors
/// As any query.
///
/// # Cost
/// Reads one small value of each VBucket; else as [`ledger()`].
pub async fn ledger_totals(state: &QueryState) -> Result<Ledger, QueryError> {
    let answer = settled(state, &state.shared.fleet_excess, || read_totals(state), of_fleet);
    deadline::answer(state.limits.query_time, answer).await
}

/// What was read of all VBuckets.
type Read = (VBucketAccounts, Option<MissingPart>);

/// Reads, and while there is an excess that is new, reads for some time again what was recorded: that is in a VBucket of the Client,
/// which may be committed after that of the Tab, and while events come in, was perhaps read before. What was waited for in vain is not
/// waited for again.
async fn settled<F: Future<Output = Result<Read, QueryError>>>(
    state: &QueryState,
    believed: &BelievedExcess,
    read: impl Fn() -> F,
    balanced: fn(&Read) -> Ledger,
) -> Result<Ledger, QueryError> {
    let (mut waited, mut wait) = (Duration::ZERO, LATE_RECORDS_FIRST);
    let mut found = read().await?;
    loop {
        let answer = balanced(&found);
        let excess = answer.excess();
        if !believed.is_news(&excess) {
            return Ok(answer);
        }
        if waited >= state.limits.late_records {
            believed.believe(excess);
            return Ok(answer);
        }
        let pause = wait.min(state.limits.late_records - waited);
        tokio::time::sleep(pause).await;
        waited += pause;
        wait *= 2;
        let (later, missing) = read().await?;
        found.0.totals.take_notes(ledger::RECORDED, &later.totals);
        for (client, entry) in later.clients.iter().filter(|(_, entry)| entry.noted(ledger::RECORDED) > 0) {
            found.0.clients.entry(client.clone()).or_default().take_notes(ledger::RECORDED, entry);
        }
        found.1 = MissingPart::join(found.1, missing);
    }
}

async fn read_totals(state: &QueryState) -> Result<Read, QueryError> {
    let coverage = Coverage::new(&state.store);
    Ok((accounts::totals(state, &coverage).await?, coverage.missing()))
}

async fn read_clients(state: &QueryState, selection: &Selection) -> Result<Read, QueryError> {
    let coverage = Coverage::new(&state.store);
    Ok((accounts::chosen(state, &coverage, selection).await?, coverage.missing()))
}

fn of_fleet((sum, missing): &Read) -> Ledger {
    let mut totals = Account::of(&sum.totals);
    totals.balance(missing.is_none() && sum.faults.is_empty());
    Ledger { accounts: BTreeMap::new(), totals, faults: sum.faults.clone(), missing: missing.clone() }
}

fn of_clients((sum, missing): &Read) -> Ledger {
    let unreadable: BTreeSet<&ClientId> = sum.faults.iter().flat_map(|fault| &fault.clients).collect();
    let mut totals = Entry::default();
    let mut accounts: BTreeMap<ClientId, Account> =
        unreadable.iter().map(|client| ((*client).clone(), Account::default())).collect();
    for (client, entry) in &sum.clients {
        totals.add(entry);
        accounts.insert(client.clone(), Account::of(entry));
    }
    for (client, account) in &mut accounts {
        account.balance(missing.is_none() && !unreadable.contains(client));
    }
    let is_whole = missing.is_none() && unreadable.is_empty();
    let (faults, missing) = (sum.faults.clone(), missing.clone());
    let mut answer = Ledger { accounts, totals: Account::of(&totals), faults, missing };
    // An excess of one Client cannot be set off against what is in flight of another.
    let is_balanced = is_whole && answer.excess().is_empty();
    answer.totals.balance(is_balanced);
    answer
}

impl Ledger {
    /// The Clients of which more is folded or dropped than they recorded, and how much more; of totals alone, the fleet. Gaps of streams do
    /// not count: known Clients recorded those events.
    fn excess(&self) -> BTreeMap<ClientId, u64> {
        if self.accounts.is_empty() {
            let fleet = ClientId::new(FLEET).expect("the constant is an id");
            return (self.totals.excess > 0).then_some((fleet, self.totals.excess)).into_iter().collect();
        }
        let of = |(client, account): (&ClientId, &Account)| {
            (account.excess > 0 && !is_stream(client)).then(|| (client.clone(), account.excess))
        };
        self.accounts.iter().filter_map(of).collect()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(events: &u64) -> bool {
    *events == 0
}

/// A number of events, or the largest that can be shown.
pub(super) fn shown(events: u128) -> u64 {
    u64::try_from(events).unwrap_or(u64::MAX)
}

impl Account {
    /// Events dropped, over all places and reasons.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().fold(0, |sum, lost| sum.saturating_add(lost.events))
    }

    /// What the accounts of a Client say; not yet [balanced](Self::balance).
    fn of(entry: &Entry) -> Self {
        let deleted = entry.noted(ledger::DELETED);
        let mut dropped: BTreeMap<(&str, &str), u128> = BTreeMap::new();
        for (tab, events) in entry.dropped() {
            let label = |key| tab.label(key).unwrap_or("unknown");
            let sum = dropped.entry((label("where"), label("why"))).or_default();
            *sum = sum.saturating_add(events);
        }
        let dropped = dropped.into_iter().map(|((place, why), events)| DroppedEvents {
            place: place.to_owned(),
            why: why.to_owned(),
            events: shown(events),
        });
        Self {
            recorded: shown(entry.noted(ledger::RECORDED)),
            folded: shown(entry.events.saturating_add(deleted)),
            deleted: shown(deleted),
            clamped: shown(entry.noted(ledger::CLAMPED)),
            dropped: dropped.collect(),
            in_flight: None,
            excess: 0,
        }
    }

    fn balance(&mut self, is_whole: bool) {
        let gone = self.folded.saturating_add(self.dropped_total());
        self.excess = gone.saturating_sub(self.recorded);
        let on_the_way = i64::try_from(self.recorded.saturating_sub(gone)).unwrap_or(i64::MAX);
        // A number that is as large as can be shown may be larger.
        let is_exact = self.recorded < u64::MAX && gone < u64::MAX;
        self.in_flight = (is_whole && is_exact && self.excess == 0).then_some(on_the_way);
    }
}
