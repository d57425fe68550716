//! The rules of spread in the store: several copies, of which a query needs any one, and a change writes all.
//!
//! One thing is proven before a Server folds the first Block of a Tab beside its own VBucket: *every* copy tells queries to look
//! there, and that is [stable](taba_core::Store::stable), so that no failover takes it back ([`allow`]). So a query that
//! reads one copy after the event was stored looks there. Neither Agents nor Servers have to know the same rules at the same
//! time, no clocks are compared, and an Agent that spreads by a rule which nobody knows does no harm.

use bytes::Bytes;
use futures::future::{join_all, select_ok, try_join_all};
use serde::{Deserialize, Serialize};
use taba_core::{
    ClientId, Commit, Committed, Envelope, Part, Scan, Spread, SpreadRules, SpreadTabs, StateKey, Store,
    StoreError, TabName, TabType, TooManySpreadRules, VBucket, VBuckets, Version, Wanted,
};

/// The Tab of the rules. No query chooses it.
pub(crate) const TAB: &str = "taba.spread";
const TYPE: &str = "taba.SpreadRules";
const VERSION: u16 = 1;
/// What is wrong with a copy that cannot be read.
const DAMAGED: &str = "rule of spread";
const NEWER: &str = "rule of spread, or one of a newer version of the server,";
/// Copies of the rules: while one can be read, queries know where to look.
const COPIES: u16 = 4;

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
    let Some(bytes) = bytes else { return Ok(SpreadCopy::default()) };
    let envelope = Envelope::decode(bytes).ok();
    if envelope.as_ref().is_some_and(|envelope| envelope.version > VERSION) {
        return Err(StoreError::Damaged { vbucket, what: NEWER });
    }
    let copy = envelope.and_then(|envelope| serde_json::from_slice(&envelope.state).ok());
    copy.ok_or(StoreError::Damaged { vbucket, what: DAMAGED })
}

async fn copy(store: &dyn Store, vbucket: VBucket) -> Result<SpreadCopy, StoreError> {
    let scan = Scan::default().with_tab(key().tab).with_limit(1);
    let found = store.scan(vbucket, &scan).await?;
    read(vbucket, found.first().and_then(|scanned| scanned.parts.first()).map(|(_, bytes)| bytes))
}

/// What any one copy says: as wide as every Tab has been spread by anything that was stored before the call.
///
/// # Errors
/// [`StoreError`] when no copy can be read.
pub(crate) async fn any(store: &dyn Store) -> Result<SpreadRules, StoreError> {
    let reads = copies(store.vbuckets()).map(|vbucket| Box::pin(copy(store, vbucket)));
    Ok(select_ok(reads).await?.0.rules)
}

/// What all copies say together that can be read.
///
/// # Errors
/// [`StoreError`] when no copy can be read.
pub(crate) async fn all(store: &dyn Store) -> Result<SpreadRules, StoreError> {
    let (mut rules, mut error) = (None::<SpreadRules>, None);
    for read in join_all(copies(store.vbuckets()).map(|vbucket| copy(store, vbucket))).await {
        match read {
            Ok(copy) => rules.get_or_insert_default().merge(&copy.rules),
            Err(failed) => error = Some(failed),
        }
    }
    match (rules, error) {
        (None, Some(error)) => Err(error),
        (rules, _) => Ok(rules.unwrap_or_default()),
    }
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
    let mut known = SpreadRules::default();
    for vbucket in copies(store.vbuckets()) {
        match copy(store, vbucket).await {
            Err(StoreError::Damaged { what: DAMAGED, .. }) => {}
            copy => known.merge(&copy?.rules),
        }
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
    Ok(all(store).await?)
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
    let in_use = all(store).await?.in_use();
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
            // Each of the other copies says all that it has to say.
            Err(StoreError::Damaged { what: DAMAGED, .. }) => {
                (SpreadCopy { rules: all(store).await?, ..SpreadCopy::default() }, true)
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
        let commit = Commit::new(loaded.version, copy.written)
            .with_tabs(vec![(key.tab.clone(), Some(tab_type.clone()))])
            .with_states(vec![(key.clone(), Part::WHOLE, Some(envelope.encode()))]);
        match store.commit(vbucket, commit).await? {
            Committed::Conflict { found } if found != copy.written => tokio::task::yield_now().await,
            // Committed, now or by an earlier commit whose answer was lost.
            _ => return Ok(copy),
        }
    }
}

#[cfg(test)]
mod tests;
