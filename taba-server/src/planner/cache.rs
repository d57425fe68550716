//! [`Cache`]: the decoded States, Tab types and marks of one VBucket. It can be dropped at any time, and is whenever
//! it may differ from the store.

use std::collections::HashMap;

use bytes::Bytes;
use taba_core::ledger::Why;
use taba_core::{
    ClientId, HandlerError, Loaded, Panicked, Part, Registry, StateKey, TabName, TabType, Version, Wanted,
    ledger,
};

use super::live::{BaseChange, CachedSlot, DecodedState, decode};
use super::marks::Marks;
use crate::accounts::Book;
use crate::panics::HandlerPanic;

/// The estimated size of a decoded State relative to its encoding, if its Handler does not say it.
const WEIGHT_PER_BYTE: usize = 3;
/// The estimated size of a State's table entries.
const WEIGHT_PER_STATE: usize = 416;

/// The cached content of one VBucket at one version.
#[derive(Default)]
pub(super) struct Cache {
    /// `None`: the cache is empty.
    pub(super) version: Option<Version>,
    pub(super) marks: Marks,
    pub(super) book: Book,
    tabs: HashMap<TabName, CachedTab>,
    /// One table for all: one for each Tab would take twice the memory where Tabs have one Client.
    states: HashMap<StateKey, CachedState>,
    /// States changed since the last commit, distinct.
    changed: Vec<StateKey>,
    /// Tabs whose type is new since the last commit, distinct.
    new_tabs: Vec<TabName>,
    /// Counts the attempts to commit, for "least recently used".
    attempt: u64,
    weight: usize,
    /// Whether Handlers work on copies, whose results are kept only on success.
    pub(super) is_careful: bool,
    /// A Handler panicked in an attempt that was not careful: States may be inconsistent, and nothing here may be
    /// committed.
    pub(super) is_poisoned: bool,
    /// Whether a loaded State may be [newer](CachedSlot::Newer) than this build.
    pub(super) has_newer: bool,
    /// Panics to report.
    pub(super) panics: Vec<HandlerPanic>,
}

/// What is known of a Tab.
#[derive(Default)]
struct CachedTab {
    known: bool,
    tab_type: Option<TabType>,
    /// The last attempt that used it.
    used: u64,
    /// The number of its States that are cached.
    states: usize,
}

struct CachedState {
    slot: CachedSlot,
    /// The last attempt that used it.
    used: u64,
    changed: bool,
    /// Events in it as it is stored; `None`: it is not.
    stored_events: Option<u64>,
    /// Whether a State from outside was merged into it since the last commit.
    is_merged: bool,
    weight: usize,
}

/// What changed with a State.
#[derive(Clone, Copy)]
pub(super) struct StateChange {
    /// The Tab's type is new.
    pub(super) is_new_tab: bool,
    /// A State from outside was merged into it.
    pub(super) is_merge: bool,
}

/// A State to commit; its bytes, or `None` for one to remove.
type ChangedState = (StateKey, Part, Option<Bytes>);

/// A State's slot, with the type of its Tab.
pub(super) struct CacheEntry<'a> {
    pub(super) tab_type: &'a mut Option<TabType>,
    pub(super) slot: &'a mut CachedSlot,
}

/// A stored State that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadableState {
    /// The State.
    pub key: StateKey,
    /// The reason.
    pub why: Why,
}

impl Cache {
    /// Its estimated size in bytes.
    pub(super) fn weight(&self) -> usize {
        self.weight + self.book.weight()
    }

    /// Empties the cache.
    pub(super) fn reset(&mut self) {
        let panics = std::mem::take(&mut self.panics);
        *self = Self { attempt: self.attempt, panics, ..Self::default() };
    }

    /// Invalidates the cache; keeps what the next load may confirm.
    pub(super) fn invalidate(&mut self) {
        self.marks.invalidate();
        let marks = std::mem::take(&mut self.marks);
        self.reset();
        self.marks = marks;
    }

    /// A Handler panicked. A careful attempt reports it; another attempt is repeated carefully.
    pub(super) fn panicked(&mut self, tab_type: &TabType, panicked: Panicked) {
        if self.is_careful {
            self.panics.push(HandlerPanic { tab_type: tab_type.clone(), panicked });
        } else {
            self.is_poisoned = true;
        }
    }

    /// Nothing but the version, and the marks if they are not here.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted::default().with_known(self.version)
    }

    /// Begins another attempt to commit.
    pub(super) fn begin(&mut self, is_careful: bool) {
        self.attempt += 1;
        self.is_careful = is_careful;
    }

    /// Marks a State as needed in this attempt; adds to `wanted` what has to be loaded. Returns the pairs of a commit
    /// that the State may need beyond those already counted.
    pub(super) fn touch(&mut self, tab: &TabName, client: &ClientId, wanted: &mut Wanted) -> usize {
        let attempt = self.attempt;
        let mut pairs = 0;
        if !self.tabs.contains_key(tab) {
            self.tabs.insert(tab.clone(), CachedTab::default());
        }
        let entry = self.tabs.get_mut(tab).expect("it was inserted above");
        if entry.used != attempt {
            entry.used = attempt;
            pairs += usize::from(entry.tab_type.is_none());
            if !entry.known {
                wanted.tabs.push(tab.clone());
            }
        }
        let key = StateKey { tab: tab.clone(), client: client.clone() };
        if let Some(state) = self.states.get_mut(&key) {
            pairs += usize::from(state.used != attempt);
            if state.used != attempt && matches!(state.slot, CachedSlot::Unknown) {
                wanted.states.push(key);
            }
            state.used = attempt;
        } else {
            let weight = WEIGHT_PER_STATE;
            self.weight += weight;
            let state = CachedState {
                slot: CachedSlot::Unknown,
                used: attempt,
                changed: false,
                stored_events: None,
                is_merged: false,
                weight,
            };
            entry.states += 1;
            self.states.insert(key.clone(), state);
            wanted.states.push(key);
            pairs += 1;
        }
        pairs
    }

    /// Whether [`load`](Self::load) can extend the cache, or must reset it.
    pub(super) fn is_at(&self, version: Version) -> bool {
        self.version == Some(version)
    }

    /// Adds what was loaded for `wanted`. The cache is empty or at the same version.
    pub(super) fn load(
        &mut self,
        wanted: &Wanted,
        loaded: &Loaded,
        handlers: &Registry,
    ) -> Vec<UnreadableState> {
        if self.version.is_none() {
            self.marks.load(&loaded.marks);
        }
        self.version = Some(loaded.version);
        self.book.load(wanted, loaded);
        for tab in &wanted.tabs {
            self.tabs.entry(tab.clone()).or_default().known = true;
        }
        for (tab, tab_type) in &loaded.tabs {
            self.tabs.entry(tab.clone()).or_default().tab_type = Some(tab_type.clone());
        }
        let is_state = |key: &StateKey| key.tab.as_str() != ledger::ACCOUNTS;
        for key in wanted.states.iter().filter(|key| is_state(key)) {
            self.put(key, CachedSlot::Absent);
        }
        let mut unreadable = Vec::new();
        for parts in loaded.states.chunk_by(|(one, ..), (next, ..)| one == next) {
            let key = &parts[0].0;
            if !is_state(key) {
                continue;
            }
            let slot = decode(parts, handlers, &mut self.panics);
            match slot {
                CachedSlot::Unreadable(why) => unreadable.push(UnreadableState { key: key.clone(), why }),
                CachedSlot::Newer { .. } => self.has_newer = true,
                _ => {}
            }
            self.put(key, slot);
        }
        unreadable
    }

    fn put(&mut self, key: &StateKey, slot: CachedSlot) {
        let attempt = self.attempt;
        let weight = weight_of(&slot);
        let stored_events = if let CachedSlot::Live(live) = &slot { Some(live.events) } else { None };
        let state =
            CachedState { slot, used: attempt, changed: false, stored_events, is_merged: false, weight };
        let before = self.states.insert(key.clone(), state);
        self.tabs.entry(key.tab.clone()).or_default().states += usize::from(before.is_none());
        self.weight = self.weight + weight - before.map_or(0, |state| state.weight);
    }

    /// The slot of a State that was touched and loaded.
    pub(super) fn entry(&mut self, tab: &TabName, client: &ClientId) -> CacheEntry<'_> {
        let entry = self.tabs.get_mut(tab).expect("a State is touched before it is folded into");
        let key = StateKey { tab: tab.clone(), client: client.clone() };
        let state = self.states.get_mut(&key).expect("a State is touched before it is folded into");
        debug_assert!(
            !matches!(state.slot, CachedSlot::Unknown),
            "a State is loaded before it is folded into"
        );
        CacheEntry { tab_type: &mut entry.tab_type, slot: &mut state.slot }
    }

    /// Marks the State as changed.
    pub(super) fn set_changed(&mut self, tab: &TabName, client: &ClientId, by: StateChange) {
        let key = StateKey { tab: tab.clone(), client: client.clone() };
        let state = self.states.get_mut(&key).expect("a State is touched before it is changed");
        if !state.changed {
            state.changed = true;
            self.changed.push(key);
        }
        state.is_merged |= by.is_merge;
        if by.is_new_tab {
            self.new_tabs.push(tab.clone());
        }
    }

    /// The States that are changed, and how many events each has as it is stored; `None`: it is not.
    pub(super) fn changed_states(&self) -> impl Iterator<Item = (&StateKey, &DecodedState, Option<u64>)> {
        self.changed.iter().filter_map(|key| {
            let entry = self.states.get(key)?;
            let CachedSlot::Live(live) = &entry.slot else { return None };
            Some((key, live, entry.stored_events))
        })
    }

    /// The types of Tabs to commit.
    pub(super) fn new_tabs(&self) -> Vec<(TabName, Option<TabType>)> {
        let type_of = |tab| self.tabs.get(tab).and_then(|entry| entry.tab_type.clone());
        self.new_tabs.iter().map(|tab| (tab.clone(), type_of(tab))).collect()
    }

    /// The parts of States to commit, encoded: one pair for each State, and `spare` more. If the commit is not done, the cache is to be
    /// emptied.
    ///
    /// # Errors
    /// The first panic of a Handler, or the first State that cannot be read back (`None`): then nothing may be committed.
    pub(super) fn encode_changed(&mut self, spare: usize) -> Result<Vec<ChangedState>, Option<HandlerPanic>> {
        let mut out = Vec::with_capacity(self.changed.len());
        let pairs_max = self.changed.len() + spare;
        for (place, key) in self.changed.iter().enumerate() {
            let has_room = out.len() + self.changed.len() - place < pairs_max;
            let entry = self.states.get_mut(key).expect("what is changed stays until it is committed");
            let CachedSlot::Live(live) = &mut entry.slot else {
                unreachable!("only a live State is changed")
            };
            let written = live.write(entry.is_merged, has_room).map_err(|error| match error {
                HandlerError::Panicked(panicked) => {
                    Some(HandlerPanic { tab_type: live.tab_type.clone(), panicked })
                }
                _ => None,
            })?;
            out.push((key.clone(), Part::WHOLE, Some(written.whole)));
            match written.base {
                BaseChange::None => {}
                BaseChange::Set(bytes) => out.push((key.clone(), Part::BASE, Some(bytes))),
                BaseChange::Remove => out.push((key.clone(), Part::BASE, None)),
            }
            let weight = weight_of(&entry.slot);
            self.weight = self.weight + weight - entry.weight;
            entry.weight = weight;
        }
        Ok(out)
    }

    /// The changes are stored at this version. Returns whether to start a stability wait.
    pub(super) fn committed(&mut self, version: Version) -> bool {
        self.version = Some(version);
        self.new_tabs.clear();
        for key in std::mem::take(&mut self.changed) {
            if let Some(state) = self.states.get_mut(&key) {
                (state.changed, state.is_merged) = (false, false);
                if let CachedSlot::Live(live) = &state.slot {
                    state.stored_events = Some(live.events);
                }
            }
        }
        self.book.committed();
        self.marks.committed(version)
    }

    /// Drops about half of the States, least recently used first. There must be no uncommitted changes.
    ///
    /// Marks stay: they do not count in the weight, and their stability would be lost. Idle Lanes are in the least
    /// recently used caches, and could never be confirmed.
    pub(super) fn halve(&mut self) {
        debug_assert!(self.changed.is_empty(), "what is changed stays until it is committed");
        self.audit();
        self.book.shrink();
        let mut used: Vec<u64> = self.states.values().map(|state| state.used).collect();
        if used.len() < 32 {
            (self.tabs, self.states) = Default::default();
            self.weight = 0;
            return;
        }
        let middle = used.len() / 2;
        let (_, &mut oldest_kept, _) = used.select_nth_unstable(middle);
        // Of States with the same age, only as many as needed are dropped.
        let mut to_go = middle;
        self.states.retain(|key, state| {
            let goes = to_go > 0 && state.used <= oldest_kept;
            if goes {
                to_go -= 1;
                self.weight -= state.weight;
                let tab = self.tabs.get_mut(&key.tab).expect("a cached State has a cached Tab");
                tab.states -= 1;
            }
            !goes
        });
        self.tabs.retain(|_, tab| tab.states > 0);
        self.tabs.shrink_to_fit();
        self.states.shrink_to_fit();
        self.audit();
    }

    fn audit(&self) {
        let weight = || self.states.values().map(|state| state.weight).sum::<usize>();
        debug_assert_eq!(self.weight, weight(), "the weight is off");
        let of_tabs = || self.tabs.values().map(|tab| tab.states).sum::<usize>();
        debug_assert_eq!(self.states.len(), of_tabs(), "States of a Tab are off");
    }
}

/// Bytes that a State takes here, with its table entries. What a Handler does not tell is estimated by the encoded bytes.
fn weight_of(slot: &CachedSlot) -> usize {
    let CachedSlot::Live(live) = slot else { return WEIGHT_PER_STATE };
    WEIGHT_PER_STATE + live.memory_bytes().unwrap_or(WEIGHT_PER_BYTE * live.encoded_bytes())
}
