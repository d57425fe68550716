//! The rules of spread in the store: several copies, of which a query needs any one, and a change writes all.
//!
//! A copy that is not there is as damaged as one that cannot be read: somebody deleted it, or no Server has written the first
//! one yet. Then queries look at all places that a Tab can have, until [`mend`] has written the copies anew, from where the
//! Tabs are ([`rebuilt`]).
//!
//! One thing is proven before a Server folds the first Block of a Tab beside its own VBucket: *every* copy tells queries to look
//! there, and that is [stable](taba_core::Store::stable), so that no failover takes it back ([`allow`]). So a query that
//! reads one copy after the event was stored looks there. Neither Agents nor Servers have to know the same rules at the same
//! time, no clocks are compared, and an Agent that spreads by a rule which nobody knows does no harm.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{join_all, try_join_all};
use futures::stream::{self, FuturesUnordered, TryStreamExt};
use serde::{Deserialize, Serialize};
use taba_core::{
    ClientId, Commit, Committed, Envelope, Part, Scan, Spread, SpreadRules, SpreadTabs, StateKey, Store,
    StoreError, TabName, TabType, TooManySpreadRules, VBucket, VBuckets, Version, Wanted,
};
use tokio::time::timeout_at;

use crate::accounts;
use crate::clock::monotonic;

/// The Tab of the rules. No query chooses it.
pub(crate) const TAB: &str = "taba.spread";
const TYPE: &str = "taba.SpreadRules";
const VERSION: u16 = 1;
/// What is wrong with a copy that cannot be read.
const DAMAGED: &str = "rule of spread";
const NEWER: &str = "rule of spread, or one of a newer version of the server,";
/// Copies of the rules: while one can be read, queries know where to look.
const COPIES: u16 = 4;
/// How much longer than for the first copy a query waits for the others: one of them may have gone back in time.
const OTHER_COPIES_TIME: Duration = Duration::from_millis(100);
/// VBuckets that are asked for their Tabs at once.
const VBUCKETS_AT_ONCE: usize = 16;

/// Why rules of spread were not changed, or perhaps not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpreadChangeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    TooMany(#[from] TooManySpreadRules),
    #[error("the store went back in time meanwhile, and no tab is spread any wider; ask again")]
    WentBack,
}

/// The VBuckets with a copy, chosen so that they lie on different shards, whether these have VBuckets in rows or in turns.
fn copies(vbuckets: VBuckets) -> impl Iterator<Item = VBucket> {
    let apart = vbuckets.count() / COPIES + 1;
    (0..COPIES).filter_map(move |copy| vbuckets.get(copy * apart))
}

fn key() -> StateKey {
    let (tab, client) = (TabName::new(TAB), ClientId::new("rules"));
    StateKey { tab: tab.expect("the constant is a name"), client: client.expect("one word is an id") }
}

/// A copy of the rules. Copies that are equal were written by the same commit: a history that has lost it never has it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SpreadCopy {
    /// The version that the commit made.
    written: Version,
    rules: SpreadRules,
}

fn read(vbucket: VBucket, bytes: Option<&Bytes>) -> Result<SpreadCopy, StoreError> {
    let envelope = bytes.and_then(|bytes| Envelope::decode(bytes).ok());
    if envelope.as_ref().is_some_and(|envelope| envelope.version > VERSION) {
        return Err(StoreError::Damaged { vbucket, what: NEWER });
    }
    let copy = envelope.and_then(|envelope| serde_json::from_slice(envelope.state()?).ok());
    copy.ok_or(StoreError::Damaged { vbucket, what: DAMAGED })
}

async fn copy(store: &dyn Store, vbucket: VBucket) -> Result<SpreadCopy, StoreError> {
    let scan = Scan::default().with_tab(key().tab).with_limit(1);
    let found = store.scan(vbucket, &scan).await?;
    read(vbucket, found.first().and_then(|scanned| scanned.parts.first()).map(|(_, bytes)| bytes))
}

/// How wide queries have to look, for everything that was stored before the call; and whether copies are to be [mended](mend).
pub(crate) async fn widest(store: &dyn Store) -> (SpreadRules, bool) {
    let mut reads: FuturesUnordered<_> =
        copies(store.vbuckets()).map(|vbucket| copy(store, vbucket)).collect();
    let (mut rules, mut is_damaged) = (None::<SpreadRules>, false);
    let mut until = None;
    loop {
        let read = match until {
            None => reads.next().await,
            Some(until) => timeout_at(until, reads.next()).await.unwrap_or(None),
        };
        match read {
            None => break,
            Some(Ok(copy)) => {
                rules.get_or_insert_default().merge(&copy.rules);
                until.get_or_insert_with(|| monotonic() + OTHER_COPIES_TIME);
            }
            Some(Err(error)) => is_damaged |= is_to_be_mended(&error),
        }
    }
    let rules = rules.filter(|_| !is_damaged);
    (rules.unwrap_or_else(SpreadRules::unknown), is_damaged)
}

fn is_to_be_mended(error: &StoreError) -> bool {
    matches!(error, StoreError::Damaged { what: DAMAGED, .. })
}

/// What all copies say together that can be read; if one is damaged, also what the places of the Tabs tell.
///
/// # Errors
/// [`StoreError`] when no copy can be read, and the places of the Tabs cannot either.
pub(crate) async fn known(store: &dyn Store) -> Result<SpreadRules, StoreError> {
    known_and_damage(store).await.map(|(rules, _)| rules)
}

/// The same, and whether copies are to be [mended](mend).
///
/// # Errors
/// As [`known`].
pub(crate) async fn known_and_damage(store: &dyn Store) -> Result<(SpreadRules, bool), StoreError> {
    let (mut rules, mut error, mut is_damaged) = (None::<SpreadRules>, None, false);
    for read in join_all(copies(store.vbuckets()).map(|vbucket| copy(store, vbucket))).await {
        match read {
            Ok(copy) => rules.get_or_insert_default().merge(&copy.rules),
            Err(damaged) if is_to_be_mended(&damaged) => is_damaged = true,
            Err(failed) => error = Some(failed),
        }
    }
    if is_damaged {
        rules.get_or_insert_default().merge(&rebuilt(store).await?);
    }
    let rules = rules.ok_or_else(|| error.expect("each copy was read, or damaged, or could not be read"));
    Ok((rules?, is_damaged))
}

/// As wide as what is stored needs, by the VBuckets in which each Tab is.
///
/// # Errors
/// [`StoreError`] when a VBucket cannot be read.
///
/// # Cost
/// Reads the names of all Tabs.
async fn rebuilt(store: &dyn Store) -> Result<SpreadRules, StoreError> {
    let vbuckets = store.vbuckets();
    let mut found = stream::iter(vbuckets.iter())
        .map(|vbucket| async move { store.tabs(vbucket).await.map(|tabs| (vbucket, tabs)) })
        .buffer_unordered(VBUCKETS_AT_ONCE);
    let mut widest = BTreeMap::<TabName, Spread>::new();
    while let Some((vbucket, tabs)) = found.try_next().await? {
        for (tab, _) in tabs.into_iter().filter(|(tab, _)| !tab.is_reserved() && vbuckets.of(tab) != vbucket)
        {
            let is_place = |spread: &Spread| vbuckets.places(&tab, *spread).contains(&vbucket);
            let spread = Spread::all().find(is_place).unwrap_or(Spread::ONE);
            let known = widest.entry(tab).or_insert(spread);
            *known = spread.max(*known);
        }
    }
    let mut rules = SpreadRules::default();
    if widest.len() > SpreadRules::MAX / 2 {
        // Room is left for rules of operators.
        let most = widest.into_values().max().unwrap_or(Spread::ONE);
        rules.widen(&SpreadTabs::Prefix(String::new()), most);
        return Ok(rules);
    }
    widest.into_iter().for_each(|(tab, spread)| rules.widen(&SpreadTabs::Name(tab), spread));
    Ok(rules)
}

/// Whether no copy has lost any of these rules. One that cannot be read now has lost none.
pub(crate) async fn still_say(store: &dyn Store, rules: &SpreadRules) -> bool {
    let widest = |copy: &SpreadRules, tabs: &SpreadTabs| match tabs {
        SpreadTabs::Name(tab) => copy.widest(tab),
        tabs => copy.widest_of(tabs),
    };
    let says = |copy: &SpreadRules| rules.iter().all(|rule| widest(copy, &rule.tabs) >= rule.widest);
    let read = join_all(copies(store.vbuckets()).map(|vbucket| copy(store, vbucket))).await;
    read.iter().all(|read| match read {
        Ok(copy) => says(&copy.rules),
        Err(error) => !is_to_be_mended(error),
    })
}

/// Writes each copy anew that is damaged or not there.
///
/// # Errors
/// [`SpreadChangeError`]: some are written, or none.
///
/// # Cost
/// As [`rebuilt`], if there is one.
pub(crate) async fn mend(
    store: &dyn Store,
    next: &(dyn Fn() -> Version + Sync),
) -> Result<(), SpreadChangeError> {
    for vbucket in copies(store.vbuckets()) {
        update(store, next, vbucket, |_| Ok(())).await?;
    }
    Ok(())
}

/// Spreads these Tabs so wide from now on. What is stored stays where it is.
///
/// # Errors
/// [`SpreadChangeError`]: then it is unknown which spread holds, and every answer is right all the same; ask again.
///
/// # Cancel safety
/// As after an error.
pub(crate) async fn change(
    store: &dyn Store,
    next: &(dyn Fn() -> Version + Sync),
    tabs: &SpreadTabs,
    spread: Spread,
) -> Result<SpreadRules, SpreadChangeError> {
    mend(store, next).await?;
    let mut known = SpreadRules::default();
    for vbucket in copies(store.vbuckets()) {
        known.merge(&copy(store, vbucket).await?.rules);
    }
    known.check_room(tabs)?;
    let number = known.next_change();
    // Where that has been in use already, queries look so wide for good.
    if known.in_use().widest_of(tabs) < spread {
        widen(store, next, |rules| rules.widen(tabs, spread)).await?;
    }
    for vbucket in copies(store.vbuckets()) {
        update(store, next, vbucket, |rules| {
            if rules.widest_of(tabs) < spread {
                return Err(SpreadChangeError::WentBack);
            }
            rules.set(tabs, spread, number);
            Ok(())
        })
        .await?;
    }
    Ok(self::known(store).await?)
}

/// From here on every query looks at all places that a Tab can have when it is spread so wide. Gives what is known of all Tabs.
///
/// # Errors
/// [`SpreadChangeError`]: then it is unknown.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn allow(
    store: &dyn Store,
    next: &(dyn Fn() -> Version + Sync),
    tab: &TabName,
    spread: Spread,
) -> Result<SpreadRules, SpreadChangeError> {
    // A spread is set only once every query looks so wide, for good.
    let in_use = known(store).await?.in_use();
    if in_use.widest(tab) >= spread {
        return Ok(in_use);
    }
    let allowed = |rules: &mut SpreadRules| {
        if rules.widest(tab) < spread {
            rules.widen(&SpreadTabs::Name(tab.clone()), spread);
        }
    };
    let mut every = widen(store, next, allowed).await?;
    // Each copy says so, be it by different rules.
    every.widen(&SpreadTabs::Name(tab.clone()), spread);
    Ok(every)
}

/// Changes how wide queries look, in every copy, and waits until that is stable. Gives what every copy says.
async fn widen(
    store: &dyn Store,
    next: &(dyn Fn() -> Version + Sync),
    change: impl Fn(&mut SpreadRules) + Sync,
) -> Result<SpreadRules, SpreadChangeError> {
    let change = |rules: &mut SpreadRules| {
        change(rules);
        Ok(())
    };
    let settle = async |vbucket| {
        let mut known = update(store, next, vbucket, &change).await?;
        // Until what was there before the wait is there behind it: so it was there when the wait began, and is stable. Also
        // what an earlier change has written, which may have ended before it waited.
        loop {
            store.stable(vbucket).await?;
            if copy(store, vbucket).await? == known {
                return Ok::<_, SpreadChangeError>(known.rules);
            }
            known = update(store, next, vbucket, &change).await?;
        }
    };
    // Side by side: what takes long is that a disk may lag.
    let every = try_join_all(copies(store.vbuckets()).map(settle)).await?;
    Ok(every.into_iter().reduce(|every, copy| every.in_both(&copy)).unwrap_or_default())
}

/// Changes one copy, on what it says at that moment. Gives what it says then.
async fn update(
    store: &dyn Store,
    next: &(dyn Fn() -> Version + Sync),
    vbucket: VBucket,
    change: impl Fn(&mut SpreadRules) -> Result<(), SpreadChangeError>,
) -> Result<SpreadCopy, SpreadChangeError> {
    let key = key();
    let wanted = Wanted::default().with_states(vec![key.clone()]);
    let tab_type = TabType::new(TYPE).expect("the constant is a type name");
    loop {
        let loaded = store.load(vbucket, &wanted).await?;
        let (before, is_damaged) = match read(vbucket, loaded.states.first().map(|(.., bytes)| bytes)) {
            Err(error) if is_to_be_mended(&error) => {
                (SpreadCopy { rules: known(store).await?, ..SpreadCopy::default() }, true)
            }
            before => (before?, false),
        };
        let mut copy = SpreadCopy { written: next(), ..before.clone() };
        change(&mut copy.rules)?;
        if copy.rules == before.rules && !is_damaged {
            return Ok(before);
        }
        let text = serde_json::to_string(&copy).expect("numbers and texts are JSON");
        let envelope = Envelope::new(tab_type.clone(), VERSION, 0, text.into());
        let mut commit = Commit::new(loaded.version, copy.written)
            .with_tabs(vec![(key.tab.clone(), Some(tab_type.clone()))])
            .with_states(vec![(key.clone(), Part::WHOLE, Some(envelope.encode()))]);
        accounts::begin(&mut commit);
        match store.commit(vbucket, commit).await? {
            Committed::Conflict { found } if found != copy.written => tokio::task::yield_now().await,
            // Committed, now or by an earlier commit whose answer was lost.
            _ => return Ok(copy),
        }
    }
}

#[cfg(test)]
mod tests;
