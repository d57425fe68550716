//! [`Cache`]: the States, Tab types and marks of one VBucket. It can be dropped at any time, and is whenever it may
//! differ from the store.
//!
//! **Packed.** States that are used often stay decoded. All others are kept [`Packed`], encoded as they are stored, and are decoded
//! when they are used: a State of one event takes 600 bytes decoded. *Often* is twice within [a few seconds](attempts::OFTEN). A State that is used
//! rarely is packed by the commit that writes it, which has encoded it anyway; one that was used often, by a later commit.

mod attempts;
mod names;
mod small;

use std::collections::VecDeque;

use bytes::Bytes;
use taba_core::ledger::Why;
use taba_core::{
    ClientId, HandlerError, Loaded, Panicked, Part, Registry, StateKey, TabName, TabType, Timestamp, Version,
    Wanted, ledger,
};

use self::attempts::Attempts;
pub(super) use self::names::StateId;
use self::names::{ByState, Names, table_bytes};
use super::live::{BaseChange, CachedSlot, DecodedState, decode};
use super::marks::Marks;
use crate::accounts::Book;
use crate::panics::HandlerPanic;

/// Decoded States that a commit looks at, besides as many as it writes, to pack those that are not used any more.
const LOOKS: usize = 16;

/// The cached content of one VBucket at one version.
#[derive(Default)]
pub(super) struct Cache {
    /// `None`: the cache is empty.
    pub(super) version: Option<Version>,
    pub(super) marks: Marks,
    pub(super) book: Book,
    tab_names: Names<TabName>,
    /// By the number of their name.
    tabs: Vec<CachedTab>,
    clients: Names<ClientId>,
    states: ByState<CachedState>,
    /// States changed since the last commit, distinct.
    changed: Vec<StateId>,
    /// Tabs whose type is new since the last commit, distinct.
    new_tabs: Vec<u32>,
    /// All States that are decoded, distinct, and perhaps some that were.
    decoded: VecDeque<StateId>,
    /// Bytes that States take besides their place in the table.
    heap: usize,
    attempts: Attempts,
    /// Whether Handlers work on copies, whose results are kept only on success.
    pub(super) is_careful: bool,
    /// A Handler panicked in an attempt that was not careful, or a packed State could not be read: States may be inconsistent, and
    /// nothing here may be committed.
    pub(super) is_poisoned: bool,
    /// Whether a loaded State may be [newer](CachedSlot::Newer) than this build.
    pub(super) has_newer: bool,
    /// Panics to report.
    pub(super) panics: Vec<HandlerPanic>,
}

/// What is known of a Tab.
#[derive(Clone, Default)]
struct CachedTab {
    known: bool,
    tab_type: Option<TabType>,
    /// The last attempt that used it.
    used: u32,
}

struct CachedState {
    slot: CachedSlot,
    /// The last attempt that used it.
    used: u32,
    /// Whether it was used not long before that.
    is_used_often: bool,
    /// Whether it is in [`Cache::decoded`].
    is_listed: bool,
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
    pub(super) id: StateId,
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

// In a table of millions.
const _: () = assert!(size_of::<(StateId, CachedState)>() == 40);

impl CachedState {
    fn new(slot: CachedSlot, used: u32) -> Self {
        Self { slot, used, is_used_often: false, is_listed: false }
    }

    /// Bytes that it takes besides its place in the table.
    fn heap(&self) -> usize {
        match &self.slot {
            CachedSlot::Live(live) => live.weight(),
            CachedSlot::Packed(packed) => packed.weight(),
            _ => 0,
        }
    }
}

impl Cache {
    /// Its size in bytes; what Handlers do not tell is estimated.
    pub(super) fn weight(&self) -> usize {
        table_bytes::<(StateId, CachedState)>(self.states.capacity())
            + self.heap
            + self.decoded.capacity() * size_of::<StateId>()
            + self.tabs.capacity() * size_of::<CachedTab>()
            + self.tab_names.weight()
            + self.clients.weight()
            + self.book.weight()
    }

    /// Empties the cache.
    pub(super) fn reset(&mut self) {
        let panics = std::mem::take(&mut self.panics);
        *self = Self { attempts: self.attempts, panics, ..Self::default() };
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
    pub(super) fn begin(&mut self, is_careful: bool, now: Timestamp) {
        if self.attempts.is_over() {
            self.invalidate();
            self.attempts = Attempts::default();
        }
        self.attempts.begin(now);
        self.is_careful = is_careful;
    }

    /// The number of a Tab, whose place there is then.
    fn tab(&mut self, tab: &TabName) -> u32 {
        let number = self.tab_names.number(tab);
        if self.tabs.len() == number as usize {
            self.tabs.push(CachedTab::default());
        }
        number
    }

    /// Marks a State as needed in this attempt; adds to `wanted` what has to be loaded. Returns the pairs of a commit
    /// that the State may need beyond those already counted.
    pub(super) fn touch(&mut self, tab: &TabName, client: &ClientId, wanted: &mut Wanted) -> usize {
        let attempt = self.attempts.now;
        let mut pairs = 0;
        let id = StateId { tab: self.tab(tab), client: self.clients.number(client) };
        let entry = &mut self.tabs[id.tab as usize];
        if entry.used != attempt {
            entry.used = attempt;
            pairs += usize::from(entry.tab_type.is_none());
            if !entry.known {
                wanted.tabs.push(tab.clone());
            }
        }
        let mut is_new = false;
        let state = self.states.entry(id).or_insert_with(|| {
            is_new = true;
            CachedState::new(CachedSlot::Unknown, attempt)
        });
        if state.used != attempt {
            state.is_used_often = self.attempts.is_recent(state.used);
            state.used = attempt;
            is_new = matches!(state.slot, CachedSlot::Unknown);
            pairs += 1;
        } else if is_new {
            pairs += 1;
        }
        if is_new {
            wanted.states.push(StateKey { tab: tab.clone(), client: client.clone() });
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
            let tab = self.tab(tab);
            self.tabs[tab as usize].known = true;
        }
        for (tab, tab_type) in &loaded.tabs {
            let tab = self.tab(tab);
            let shared = handlers.tab_type(tab_type.as_str()).unwrap_or(tab_type);
            self.tabs[tab as usize].tab_type = Some(shared.clone());
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
        let id = StateId { tab: self.tab(&key.tab), client: self.clients.number(&key.client) };
        let attempt = self.attempts.now;
        let state = self.states.entry(id).or_insert_with(|| CachedState::new(CachedSlot::Unknown, attempt));
        self.heap -= state.heap();
        state.slot = slot;
        if let CachedSlot::Live(live) = &mut state.slot {
            live.weigh();
        }
        self.heap += state.heap();
        list(&mut self.decoded, id, state);
    }

    /// The slot of a State that was touched and loaded, decoded.
    pub(super) fn entry(&mut self, tab: &TabName, client: &ClientId, handlers: &Registry) -> CacheEntry<'_> {
        let id = self.tab_names.find(tab).zip(self.clients.find(client));
        let (tab, client) = id.expect("a State is touched before it is folded into");
        let id = StateId { tab, client };
        let state = self.states.get_mut(&id).expect("a State is touched before it is folded into");
        let tab_type = &mut self.tabs[tab as usize].tab_type;
        debug_assert!(
            !matches!(state.slot, CachedSlot::Unknown),
            "a State is loaded before it is folded into"
        );
        if let CachedSlot::Packed(packed) = &state.slot {
            let found = tab_type.as_ref().and_then(|tab_type| {
                let handler = handlers.guarded(tab_type.as_str())?;
                packed.unpack(tab_type.clone(), handler).ok()
            });
            self.heap -= state.heap();
            state.slot = match found {
                Some(mut live) => {
                    live.weigh();
                    CachedSlot::Live(Box::new(live))
                }
                // It was encoded here. All is loaded again, and what is stored says what there is.
                None => {
                    self.is_poisoned = true;
                    CachedSlot::Absent
                }
            };
            self.heap += state.heap();
            list(&mut self.decoded, id, state);
        }
        CacheEntry { id, tab_type, slot: &mut state.slot }
    }

    /// Marks the State as changed.
    pub(super) fn set_changed(&mut self, id: StateId, by: StateChange) {
        let state = self.states.get_mut(&id).expect("a State is touched before it is changed");
        list(&mut self.decoded, id, state);
        let CachedSlot::Live(live) = &mut state.slot else { unreachable!("only a live State is changed") };
        if !live.is_changed {
            live.is_changed = true;
            self.changed.push(id);
        }
        live.is_merged |= by.is_merge;
        if by.is_new_tab {
            self.new_tabs.push(id.tab);
        }
    }

    /// The States that are changed.
    pub(super) fn changed_states(&self) -> impl Iterator<Item = (&TabName, &ClientId, &DecodedState)> {
        self.changed.iter().filter_map(|id| {
            let CachedSlot::Live(live) = &self.states.get(id)?.slot else { return None };
            Some((self.tab_names.name(id.tab), self.clients.name(id.client), &**live))
        })
    }

    /// The types of Tabs to commit.
    pub(super) fn new_tabs(&self) -> Vec<(TabName, Option<TabType>)> {
        let entry =
            |tab: &u32| (self.tab_names.name(*tab).clone(), self.tabs[*tab as usize].tab_type.clone());
        self.new_tabs.iter().map(entry).collect()
    }

    /// The parts of States to commit, encoded: one pair for each State, and `spare` more. If the commit is not done, the cache is to be
    /// emptied.
    ///
    /// # Errors
    /// The first panic of a Handler, or the first State that cannot be read back (`None`): then nothing may be committed.
    pub(super) fn encode_changed(&mut self, spare: usize) -> Result<Vec<ChangedState>, Option<HandlerPanic>> {
        let mut out = Vec::with_capacity(self.changed.len());
        let pairs_max = self.changed.len() + spare;
        for (place, id) in self.changed.iter().enumerate() {
            let has_room = out.len() + self.changed.len() - place < pairs_max;
            let state = self.states.get_mut(id).expect("what is changed stays until it is committed");
            let before = state.heap();
            let CachedSlot::Live(live) = &mut state.slot else {
                unreachable!("only a live State is changed")
            };
            let tab_type = &self.tabs[id.tab as usize].tab_type;
            let is_to_pack = !state.is_used_often && tab_type.as_ref() == Some(&live.tab_type);
            let written = live.write(has_room, is_to_pack).map_err(|error| match error {
                HandlerError::Panicked(panicked) => {
                    Some(HandlerPanic { tab_type: live.tab_type.clone(), panicked })
                }
                _ => None,
            })?;
            match written.packed {
                Some(packed) => state.slot = CachedSlot::Packed(packed),
                None => live.weigh(),
            }
            self.heap = self.heap + state.heap() - before;
            let (tab, client) = (self.tab_names.name(id.tab), self.clients.name(id.client));
            let key = StateKey { tab: tab.clone(), client: client.clone() };
            match written.base {
                BaseChange::None => out.push((key, Part::WHOLE, Some(written.whole))),
                BaseChange::Set(bytes) => {
                    out.push((key.clone(), Part::WHOLE, Some(written.whole)));
                    out.push((key, Part::BASE, Some(bytes)));
                }
                BaseChange::Remove => {
                    out.push((key.clone(), Part::WHOLE, Some(written.whole)));
                    out.push((key, Part::BASE, None));
                }
            }
        }
        Ok(out)
    }

    /// The changes are stored at this version. Returns whether to start a stability wait.
    pub(super) fn committed(&mut self, version: Version) -> bool {
        self.version = Some(version);
        self.new_tabs.clear();
        let looks = self.changed.len() + LOOKS;
        for id in std::mem::take(&mut self.changed) {
            if let Some(CachedState { slot: CachedSlot::Live(live), .. }) = self.states.get_mut(&id) {
                (live.is_changed, live.is_merged) = (false, false);
                live.stored_events = Some(live.events);
            }
        }
        self.pack(looks);
        self.book.committed();
        self.marks.committed(version)
    }
}

/// Lists a State that is decoded.
fn list(decoded: &mut VecDeque<StateId>, id: StateId, state: &mut CachedState) {
    if matches!(state.slot, CachedSlot::Live(_)) && !state.is_listed {
        state.is_listed = true;
        decoded.push_back(id);
    }
}
