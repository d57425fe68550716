//! [`SpreadCache`]: what a Server remembers of Tabs that are spread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use taba_core::{Spread, SpreadRules, TabName, TabType};
use tokio::time::Instant;

/// Agents are told what the store said at most so long ago.
const TOLD_AGE_MAX: Duration = Duration::from_secs(1);
/// The copies are not asked more often whether they still say what they said.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Copies are not written anew more often.
const MENDING_INTERVAL: Duration = Duration::from_secs(1);
/// For how long a Tab has the type that it had.
const TYPE_AGE_MAX: Duration = Duration::from_secs(600);
/// The same where something rests on it: a Block of another type, or a Tab that had none.
const OTHER_TYPE_AGE_MAX: Duration = Duration::from_secs(1);

/// What a Server remembers of Tabs that are spread.
#[derive(Default)]
pub(super) struct SpreadCache {
    told: Mutex<ToldRules>,
    /// What every copy in the store says, and will say in each of its histories, in `widest`.
    allowed: RwLock<SpreadRules>,
    /// When the copies were last asked whether they still say so: somebody may delete them.
    checked: Mutex<Option<Instant>>,
    /// When copies were last written anew, or that was tried.
    mended: Mutex<Option<Instant>>,
    /// Held while something is added to that.
    pub(super) allowing: Arc<tokio::sync::Mutex<()>>,
    /// The types of Tabs in their own VBuckets, and when they were read.
    types: Mutex<BTreeMap<TabName, (Option<TabType>, Instant)>>,
}

/// Whether something was last begun longer ago than `interval`, or never; if so, it begins now.
fn is_old(last: &Mutex<Option<Instant>>, interval: Duration, now: Instant) -> bool {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let is_old = last.is_none_or(|last| now.saturating_duration_since(last) >= interval);
    if is_old {
        *last = Some(now);
    }
    is_old
}

/// What Agents are told.
#[derive(Default)]
struct ToldRules {
    rules: Option<SpreadRules>,
    /// When the store was last asked.
    asked: Option<Instant>,
}

impl SpreadCache {
    fn told(&self) -> MutexGuard<'_, ToldRules> {
        // Its fields are replaced as a whole, as all that is locked here.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What Agents are told, if the store has said anything.
    pub(super) fn rules(&self) -> Option<SpreadRules> {
        self.told().rules.clone()
    }

    /// From now on Agents are told this.
    pub(super) fn tell(&self, rules: SpreadRules) {
        self.told().rules = Some(rules);
    }

    /// Whether the store is to be asked what Agents are told; if so, somebody is taken to do it.
    pub(super) fn begin_asking(&self, now: Instant) -> bool {
        let mut told = self.told();
        let is_old = told.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= TOLD_AGE_MAX);
        if is_old {
            told.asked = Some(now);
        }
        is_old
    }

    /// Whether every query looks where this Tab lies under this spread.
    pub(super) fn is_allowed(&self, tab: &TabName, spread: Spread) -> bool {
        self.allowed.read().unwrap_or_else(PoisonError::into_inner).widest(tab) >= spread
    }

    /// Every query looks so wide.
    pub(super) fn allow(&self, rules: &SpreadRules) {
        self.allowed.write().unwrap_or_else(PoisonError::into_inner).merge(rules);
    }

    /// The copies lost what they said: it has to be said again before anything rests on it.
    pub(super) fn forget_allowed(&self) {
        *self.allowed.write().unwrap_or_else(PoisonError::into_inner) = SpreadRules::default();
    }

    /// What is taken for said by every copy, if that is to be looked at again; then somebody is taken to do it.
    pub(super) fn begin_checking(&self, now: Instant) -> Option<SpreadRules> {
        let is_old = is_old(&self.checked, CHECK_INTERVAL, now);
        is_old.then(|| self.allowed.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Whether copies are to be written anew; if so, somebody is taken to do it.
    pub(super) fn begin_mending(&self, now: Instant) -> bool {
        is_old(&self.mended, MENDING_INTERVAL, now)
    }

    /// Whether a Tab has another type than this in its own VBucket; `None` when that is to be read again.
    pub(super) fn has_other_type(&self, tab: &TabName, tab_type: &TabType, now: Instant) -> Option<bool> {
        let types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, read) = types.get(tab)?;
        let age_max = if known.as_ref() == Some(tab_type) { TYPE_AGE_MAX } else { OTHER_TYPE_AGE_MAX };
        let is_fresh = now.saturating_duration_since(*read) < age_max;
        is_fresh.then(|| known.as_ref().is_some_and(|known| known != tab_type))
    }

    /// A Tab had this type in its own VBucket; `None`: it has no State there, or it could not be read.
    pub(super) fn put_type(&self, tab: &TabName, found: Option<TabType>, now: Instant) {
        let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        types.retain(|_, (_, read)| now.saturating_duration_since(*read) < TYPE_AGE_MAX);
        types.insert(tab.clone(), (found, now));
    }
}
