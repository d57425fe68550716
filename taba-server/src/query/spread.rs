//! Rules of spread: where queries look, what Agents are told, and how an operator changes them.

use std::sync::Arc;
use std::time::Duration;

use taba_core::{Envelope, Scan, Spread, SpreadRules, SpreadTabs, StoreError, TabName, TabType, VBucket};
use tokio::time::{Instant, timeout, timeout_at};

use super::deadline;
use super::error::QueryError;
use super::selection::Selection;
use super::state::QueryState;
use crate::clock::monotonic;
use crate::spread::{self, SpreadChangeError};

/// After what ended before it was done.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the first Agent may wait until the store has been asked.
const FIRST_READ_MAX: Duration = Duration::from_millis(100);

impl From<SpreadChangeError> for QueryError {
    fn from(error: SpreadChangeError) -> Self {
        match error {
            SpreadChangeError::Store(error) => Self::Store(error),
            SpreadChangeError::TooMany(error) => Self::TooManySpreadRules(error),
            SpreadChangeError::WentBack => Self::SpreadWentBack,
        }
    }
}

/// The rules of spread.
///
/// # Errors
/// As any query, when no copy of them can be read.
pub async fn spread_rules(state: &QueryState) -> Result<SpreadRules, QueryError> {
    let read = async { Ok(spread::known(&*state.store).await?) };
    deadline::answer(state.limits.query_time, read).await
}

/// From now on Agents split these Tabs over so many VBuckets by Client, as soon as they ask a Server, within seconds. Queries
/// see one Tab all the while: what is stored stays where it is, and queries look at every place that was ever used.
///
/// # Errors
/// [`QueryError::Reserved`] for Tabs of the Ledger, [`QueryError::TooManySpreadRules`]; else as any query. Then the old spread
/// holds, or the new one; ask again.
///
/// # Cost
/// Waits until the replicas of a few VBuckets have the rule.
pub async fn set_spread(
    state: &QueryState,
    tabs: &SpreadTabs,
    spread: Spread,
) -> Result<SpreadRules, QueryError> {
    let name = tabs.to_string();
    if name.starts_with(TabName::RESERVED) {
        return Err(QueryError::Reserved { name });
    }
    let change = async { Ok(spread::change(&*state.store, &|| state.next_version(), tabs, spread).await?) };
    let rules = deadline::answer(state.limits.query_time, change).await?;
    state.shared.spread.tell(rules.clone());
    Ok(rules)
}

impl QueryState {
    /// How wide Tabs may have been spread by what was stored before the call; as wide as can be where nobody can say.
    async fn spread_so_far(&self) -> SpreadRules {
        let (rules, is_damaged) = spread::widest(&*self.store).await;
        if is_damaged {
            self.mend_spread();
        }
        rules
    }

    /// Writes copies of the rules anew that are damaged or not there, unless that was tried just now. Does not wait for it.
    fn mend_spread(&self) {
        let Ok(allowing) = Arc::clone(&self.shared.spread.allowing).try_lock_owned() else { return };
        if !self.shared.spread.begin_mending(monotonic()) {
            return;
        }
        let state = self.clone();
        tokio::spawn(async move {
            let _allowing = allowing;
            match spread::mend(&*state.store, &|| state.next_version()).await {
                Ok(()) => tracing::debug!("the rules of spread are in all their places"),
                Err(error) => tracing::warn!(
                    error = taba_core::causes(&error),
                    "the rules of spread cannot be written anew; queries look everywhere meanwhile"
                ),
            }
        });
    }

    /// These rules, or those of [`spread_so_far`](Self::spread_so_far) where none were read yet.
    pub(super) async fn spread_or(&self, rules: Option<SpreadRules>) -> SpreadRules {
        match rules {
            Some(rules) => rules,
            None => self.spread_so_far().await,
        }
    }

    /// The VBuckets that can hold selected Tabs, and the rules if they were needed for that.
    pub(super) async fn vbuckets_of(&self, selection: &Selection) -> (Vec<VBucket>, Option<SpreadRules>) {
        let vbuckets = self.store.vbuckets();
        let Some(names) = selection.exact_names() else { return (vbuckets.iter().collect(), None) };
        let rules = self.spread_so_far().await;
        let mut places: Vec<_> =
            names.iter().flat_map(|name| vbuckets.places(name, rules.widest(name))).collect();
        places.sort_unstable();
        places.dedup();
        (places, Some(rules))
    }

    /// Before Blocks of this Tab are folded beside its own VBucket: sees to it that every query looks there.
    ///
    /// # Errors
    /// As [`set_spread`]: then nothing is to be folded there yet.
    ///
    /// # Cost
    /// A look at a list; the first time for a rule some round trips, and for what no rule allows a wait for the replicas.
    ///
    /// # Cancel safety
    /// It goes on by itself.
    pub(crate) async fn allow_spread(&self, tab: &TabName, spread: Spread) -> Result<(), QueryError> {
        if self.shared.spread.is_allowed(tab, spread) {
            self.check_spread();
            return Ok(());
        }
        let allowing = Arc::clone(&self.shared.spread.allowing).lock_owned().await;
        let (state, tab) = (self.clone(), tab.clone());
        let task = tokio::spawn(async move {
            let _allowing = allowing;
            if !state.shared.spread.is_allowed(&tab, spread) {
                let all = spread::allow(&*state.store, &|| state.next_version(), &tab, spread).await?;
                state.shared.spread.allow(&all);
            }
            Ok(())
        });
        let ended = |error| StoreError::Unavailable { retry_after: RETRY_AFTER, source: Box::new(error) };
        // It panicked, or the runtime is ending.
        task.await.unwrap_or_else(|error| Err(ended(error).into()))
    }

    /// Looks now and then whether the copies still say what this Server rests on. Does not wait for it.
    fn check_spread(&self) {
        let Some(rules) = self.shared.spread.begin_checking(monotonic()) else { return };
        let state = self.clone();
        tokio::spawn(async move {
            if !spread::still_say(&*state.store, &rules).await {
                state.shared.spread.forget_allowed();
            }
        });
    }

    /// Whether a Tab has another type than this in its own VBucket; not if that cannot be read in time.
    pub(crate) async fn has_other_type(&self, tab: &TabName, tab_type: &TabType, until: Instant) -> bool {
        let cache = &self.shared.spread;
        if let Some(has_other) = cache.has_other_type(tab, tab_type, monotonic()) {
            return has_other;
        }
        let home = self.store.vbuckets().of(tab);
        let scan = Scan::default().with_tab(tab.clone()).with_limit(1);
        let read = timeout_at(until, self.store.scan(home, &scan)).await;
        let states = read.ok().and_then(Result::ok).unwrap_or_default();
        let found = states.first().and_then(|state| Some(Envelope::join(&state.parts).ok()?.tab_type));
        let has_other = found.as_ref().is_some_and(|found| found != tab_type);
        cache.put_type(tab, found, monotonic());
        has_other
    }

    /// What Agents are told: the Tabs that are spread now. `None` as long as the store has not said. Does not wait for a store
    /// that is slow: Agents ask again.
    pub(crate) async fn spread_for_agents(&self) -> Option<SpreadRules> {
        if self.shared.spread.begin_asking(monotonic()) {
            let state = self.clone();
            let reading = tokio::spawn(async move {
                if let Ok((rules, is_damaged)) = spread::known_and_damage(&*state.store).await {
                    state.shared.spread.tell(rules);
                    if is_damaged {
                        state.mend_spread();
                    }
                }
            });
            if self.shared.spread.rules().is_none() {
                let _ = timeout(FIRST_READ_MAX, reading).await;
            }
        }
        self.shared.spread.rules().as_ref().map(SpreadRules::in_use)
    }
}
