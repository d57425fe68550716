//! Rules of spread: where queries look, what Agents are told, and how an operator changes them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use taba_core::{Spread, SpreadRules, SpreadTabs, TabName, VBucket};
use tokio::time::{Instant, timeout};

use super::deadline;
use super::error::QueryError;
use super::selection::Selection;
use super::state::QueryState;
use crate::clock::monotonic;
use crate::spread::{self, SpreadChangeError};

/// Agents are told what the store said at most so long ago.
const TOLD_AGE_MAX: Duration = Duration::from_secs(1);
/// How long a request may wait until the store tells queries where to look. What is in it is sent again.
const ALLOW_TIME_MAX: Duration = Duration::from_secs(1);
/// How long the first Agent may wait until the store has been asked.
const FIRST_READ_MAX: Duration = Duration::from_millis(100);

/// What Agents are told.
#[derive(Default)]
pub(super) struct SpreadCache {
    told: Mutex<ToldRules>,
    /// What every copy in the store says, and will say in each of its histories, in `widest`.
    allowed: RwLock<SpreadRules>,
    /// Held while something is added to that.
    allowing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct ToldRules {
    rules: Option<SpreadRules>,
    /// When the store was last asked.
    asked: Option<Instant>,
}

impl SpreadCache {
    fn lock(&self) -> MutexGuard<'_, ToldRules> {
        // Its fields are replaced as a whole.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
    let read = async { Ok(spread::all(&*state.store).await?) };
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
    state.shared.spread.lock().rules = Some(rules.clone());
    Ok(rules)
}

impl QueryState {
    /// How wide Tabs may have been spread by what was stored before the call; as wide as can be where nobody can say.
    pub(super) async fn spread_so_far(&self) -> SpreadRules {
        spread::any(&*self.store).await.unwrap_or_else(|_| SpreadRules::unknown())
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
    /// As [`set_spread`], and when it takes too long: then nothing is to be folded there yet. It goes on by itself.
    ///
    /// # Cost
    /// A look at a list; the first time for a rule some round trips, and for what no rule allows a wait for the replicas.
    pub(crate) async fn allow_spread(&self, tab: &TabName, spread: Spread) -> Result<(), QueryError> {
        if self.is_spread_allowed(tab, spread) {
            return Ok(());
        }
        let allow = async {
            let allowing = Arc::clone(&self.shared.spread.allowing).lock_owned().await;
            let (state, tab) = (self.clone(), tab.clone());
            let task = tokio::spawn(async move {
                let _allowing = allowing;
                if !state.is_spread_allowed(&tab, spread) {
                    let all = spread::allow(&*state.store, &|| state.next_version(), &tab, spread).await?;
                    let allowed = &state.shared.spread.allowed;
                    allowed.write().unwrap_or_else(PoisonError::into_inner).merge(&all);
                }
                Ok(())
            });
            // It panicked, or the runtime is ending.
            task.await.unwrap_or(Err(QueryError::Timeout { query_time: ALLOW_TIME_MAX }))
        };
        deadline::answer(ALLOW_TIME_MAX, allow).await
    }

    fn is_spread_allowed(&self, tab: &TabName, spread: Spread) -> bool {
        let allowed = self.shared.spread.allowed.read().unwrap_or_else(PoisonError::into_inner);
        allowed.widest(tab) >= spread
    }

    /// What Agents are told: the Tabs that are spread now. `None` as long as the store has not said. Does not wait for a store
    /// that is slow: Agents ask again.
    pub(crate) async fn spread_for_agents(&self) -> Option<SpreadRules> {
        let cache = &self.shared.spread;
        let (is_old, is_first) = {
            let mut told = cache.lock();
            let now = monotonic();
            let is_old = told.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= TOLD_AGE_MAX);
            if is_old {
                told.asked = Some(now);
            }
            (is_old, told.rules.is_none())
        };
        if is_old {
            let state = self.clone();
            let reading = tokio::spawn(async move {
                if let Ok(rules) = spread::all(&*state.store).await {
                    state.shared.spread.lock().rules = Some(rules);
                }
            });
            if is_first {
                let _ = timeout(FIRST_READ_MAX, reading).await;
            }
        }
        let told = cache.lock();
        told.rules.as_ref().map(SpreadRules::in_use)
    }
}
