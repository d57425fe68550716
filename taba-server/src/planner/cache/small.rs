//! Keeps a cache small: packs what is not used any more, and drops what was not used for long.

use std::collections::VecDeque;

use super::{Cache, CachedState, LOOKS, StateId, list};
use crate::planner::live::CachedSlot;

impl Cache {
    /// Packs States that are not used any more, of so many that may be decoded. There must be no uncommitted changes.
    pub(super) fn pack(&mut self, looks: usize) {
        for _ in 0..looks.min(self.decoded.len()) {
            let Some(id) = self.decoded.pop_front() else { return };
            let Some(state) = self.states.get_mut(&id) else { continue };
            state.is_listed = false;
            let CachedSlot::Live(live) = &state.slot else { continue };
            let is_in_use = state.is_used_often && self.attempts.is_recent(state.used);
            let is_of_tab = self.tabs[id.tab as usize].tab_type.as_ref() == Some(&live.tab_type);
            if is_in_use || !is_of_tab {
                list(&mut self.decoded, id, state);
                continue;
            }
            let before = state.heap();
            match live.pack() {
                Ok(Some(packed)) => state.slot = CachedSlot::Packed(packed),
                Ok(None) => list(&mut self.decoded, id, state),
                // What can be packed no more is to be loaded again.
                Err(_) => state.slot = CachedSlot::Unknown,
            }
            self.heap = self.heap + state.heap() - before;
        }
        if self.decoded.capacity() / 4 > self.decoded.len() + LOOKS {
            self.decoded.shrink_to_fit();
        }
    }

    /// Drops about half of the States, least recently used first. There must be no uncommitted changes.
    ///
    /// Marks stay: they do not count in the weight, and their stability would be lost. Idle Lanes are in the least
    /// recently used caches, and could never be confirmed.
    pub(in crate::planner) fn halve(&mut self) {
        debug_assert!(self.changed.is_empty(), "what is changed stays until it is committed");
        self.audit();
        self.book.shrink();
        let mut used: Vec<u32> = self.states.values().map(|state| state.used).collect();
        let middle = if used.len() < 32 { used.len() } else { used.len() / 2 };
        let oldest_kept = if middle == used.len() { u32::MAX } else { *used.select_nth_unstable(middle).1 };
        let (states, tabs) = (std::mem::take(&mut self.states), std::mem::take(&mut self.tabs));
        let tab_names = std::mem::take(&mut self.tab_names);
        let clients = std::mem::take(&mut self.clients);
        (self.heap, self.decoded) = (0, VecDeque::new());
        // Of States with the same age, only as many as needed are dropped.
        let mut to_go = middle;
        self.states.reserve(used.len() - middle);
        for (id, mut state) in states {
            if to_go > 0 && state.used <= oldest_kept {
                to_go -= 1;
                continue;
            }
            let tab = self.tab(tab_names.name(id.tab));
            self.tabs[tab as usize] = tabs[id.tab as usize].clone();
            let id = StateId { tab, client: self.clients.number(clients.name(id.client)) };
            self.heap += state.heap();
            state.is_listed = false;
            list(&mut self.decoded, id, &mut state);
            self.states.insert(id, state);
        }
        self.audit();
    }

    fn audit(&self) {
        let heap = || self.states.values().map(CachedState::heap).sum::<usize>();
        debug_assert_eq!(self.heap, heap(), "the weight is off");
        let is_live = |state: &&CachedState| matches!(state.slot, CachedSlot::Live(_));
        let is_listed = || self.states.values().filter(is_live).all(|state| state.is_listed);
        debug_assert!(is_listed(), "a decoded State would never be packed");
    }

    /// States that are decoded.
    #[cfg(test)]
    pub(in crate::planner) fn decoded(&self) -> usize {
        let is_live = |state: &&CachedState| matches!(state.slot, CachedSlot::Live(_));
        self.states.values().filter(is_live).count()
    }
}
