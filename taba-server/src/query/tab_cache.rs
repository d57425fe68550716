//! [`TabCache`]: what was read of Tabs, kept between queries.
//!
//! What is kept was read at one version of each VBucket that the Tab lies in, and is used only by a query that found them at
//! these versions: so it is what a read would bring, whoever commits, and also when the store went back. Projections are not kept:
//! they change with time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use taba_core::{ClientId, Scanned, TabName, TabType, VBucket, Version};

/// Bytes of an entry besides what it holds, about.
const ENTRY_BYTES: usize = 320;
/// The same of a State, and of a Client in a set.
const STATE_BYTES: usize = 160;
const CLIENT_BYTES: usize = 40;
/// An entry takes at most this part of the whole.
const ENTRY_SHARE: usize = 64;

/// The versions of the VBuckets that a Tab lies in.
pub(super) type TabVersions = Vec<(VBucket, Version)>;

/// What is kept of a Tab.
#[derive(Clone)]
pub(super) enum KeptTab {
    /// The States of all Clients, merged.
    Merged(KeptSum),
    /// The States as they are stored, of each VBucket.
    Stored(Arc<[Vec<Scanned>]>),
}

/// The States of all Clients, merged and encoded.
#[derive(Clone)]
pub(super) struct KeptSum {
    /// The version of the Handler that encoded it.
    pub(super) version: u16,
    pub(super) state: Bytes,
    /// Clients that have a State, sorted.
    pub(super) clients: Arc<[ClientId]>,
    pub(super) events: u64,
}

/// Of which Tab, and in which form.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct KeptKey {
    pub(super) name: TabName,
    pub(super) tab_type: TabType,
    pub(super) is_merged: bool,
}

/// What was read of Tabs, up to a number of bytes; beyond, what was used longest ago goes.
#[derive(Default)]
pub(super) struct TabCache {
    kept: Mutex<KeptTabs>,
}

#[derive(Default)]
struct KeptTabs {
    entries: HashMap<KeptKey, KeptEntry>,
    /// By when they were last used.
    by_use: BTreeMap<u64, KeptKey>,
    /// Sets of Clients, and how many entries have each: most Tabs have the same.
    clients: HashMap<Arc<[ClientId]>, usize>,
    bytes: usize,
    uses: u64,
}

struct KeptEntry {
    at: TabVersions,
    content: KeptTab,
    bytes: usize,
    used: u64,
}

impl KeptTab {
    /// Bytes that it takes, without a set of Clients.
    fn bytes(&self) -> usize {
        match self {
            Self::Merged(sum) => sum.state.len(),
            Self::Stored(homes) => homes.iter().flatten().map(stored_bytes).sum(),
        }
    }
}

/// Bytes that a State takes here.
pub(super) fn stored_bytes(state: &Scanned) -> usize {
    let parts: usize = state.parts.iter().map(|(_, bytes)| bytes.len() + size_of::<Bytes>()).sum();
    STATE_BYTES + state.key.client.as_str().len() + parts
}

fn set_bytes(clients: &[ClientId]) -> usize {
    clients.iter().map(|client| CLIENT_BYTES + client.as_str().len()).sum()
}

impl TabCache {
    fn kept(&self) -> MutexGuard<'_, KeptTabs> {
        self.kept.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            // Its parts may disagree.
            let mut kept = poisoned.into_inner();
            *kept = KeptTabs { uses: kept.uses, ..KeptTabs::default() };
            kept
        })
    }

    /// The largest entry.
    pub(super) const fn entry_bytes_max(bytes_max: usize) -> usize {
        bytes_max / ENTRY_SHARE
    }

    /// A query begins: what it keeps displaces nothing that was used since.
    pub(super) fn begin(&self) -> u64 {
        self.kept().uses
    }

    /// What is kept of a Tab that is at these versions.
    pub(super) fn get(&self, key: &KeptKey, at: &TabVersions) -> Option<KeptTab> {
        let mut kept = self.kept();
        let kept = &mut *kept;
        let entry = kept.entries.get_mut(key).filter(|entry| entry.at == *at)?;
        kept.uses += 1;
        kept.by_use.remove(&entry.used);
        kept.by_use.insert(kept.uses, key.clone());
        entry.used = kept.uses;
        Some(entry.content.clone())
    }

    /// Keeps what a query that [began](Self::begin) then has read at these versions, if there is room.
    pub(super) fn put(
        &self,
        key: KeptKey,
        at: TabVersions,
        mut content: KeptTab,
        began: u64,
        bytes_max: usize,
    ) {
        let mut kept = self.kept();
        kept.remove(&key);
        let at_bytes = at.len() * size_of::<(VBucket, Version)>();
        let bytes = ENTRY_BYTES + key.name.as_str().len() + at_bytes + content.bytes();
        if bytes > Self::entry_bytes_max(bytes_max) {
            return;
        }
        if let KeptTab::Merged(sum) = &mut content {
            kept.share(&mut sum.clients);
        }
        kept.uses += 1;
        let used = kept.uses;
        kept.bytes += bytes;
        kept.by_use.insert(used, key.clone());
        kept.entries.insert(key, KeptEntry { at, content, bytes, used });
        while kept.bytes > bytes_max {
            let Some((used_then, oldest)) = kept.by_use.first_key_value() else { break };
            // The last that came goes rather than what this query, or a later one, used.
            let oldest = if *used_then > began { kept.by_use[&used].clone() } else { oldest.clone() };
            kept.remove(&oldest);
        }
    }
}

impl KeptTabs {
    /// Puts the same set that another entry has in its place.
    fn share(&mut self, clients: &mut Arc<[ClientId]>) {
        if let Some((same, entries)) = self.clients.get_key_value(&**clients) {
            (*clients, _) = (Arc::clone(same), entries);
        } else {
            self.bytes += set_bytes(clients);
        }
        *self.clients.entry(Arc::clone(clients)).or_default() += 1;
    }

    fn remove(&mut self, key: &KeptKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.by_use.remove(&entry.used);
        self.bytes -= entry.bytes;
        if let KeptTab::Merged(KeptSum { clients, .. }) = entry.content
            && let Some(entries) = self.clients.get_mut(&clients)
        {
            *entries -= 1;
            if *entries == 0 {
                self.clients.remove(&clients);
                self.bytes -= set_bytes(&clients);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use taba_core::VBuckets;

    use super::*;

    const BYTES_MAX: usize = 100 * 1024;

    fn key(n: usize) -> KeptKey {
        let name = TabName::new(&format!("t{n}")).unwrap();
        KeptKey { name, tab_type: TabType::new("Sum").unwrap(), is_merged: true }
    }

    fn at(count: u64) -> TabVersions {
        vec![(VBuckets::default().get(0).unwrap(), Version { writer: 1, count })]
    }

    fn sum(bytes: usize, clients: usize) -> KeptTab {
        let clients = (0..clients).map(|n| ClientId::new(&format!("c{n}")).unwrap()).collect();
        KeptTab::Merged(KeptSum { version: 1, state: vec![0; bytes].into(), clients, events: 1 })
    }

    #[test]
    fn it_is_found_at_its_versions_only_and_weighed() {
        let cache = TabCache::default();
        cache.put(key(1), at(1), sum(100, 30), cache.begin(), BYTES_MAX);
        cache.put(key(2), at(1), sum(100, 30), cache.begin(), BYTES_MAX);
        assert!(cache.get(&key(1), &at(1)).is_some() && cache.get(&key(1), &at(2)).is_none());
        assert_eq!(cache.kept().clients.len(), 1, "one set for both");
        let both = cache.kept().bytes;
        cache.put(key(2), at(2), sum(100, 30), cache.begin(), BYTES_MAX);
        assert_eq!(cache.kept().bytes, both, "in place of the old one");
        cache.put(key(3), at(1), sum(BYTES_MAX / 2, 30), cache.begin(), BYTES_MAX);
        assert!(cache.get(&key(3), &at(1)).is_none(), "too large");
        cache.kept().remove(&key(1));
        cache.kept().remove(&key(2));
        let kept = cache.kept();
        assert_eq!((kept.bytes, kept.clients.len(), kept.by_use.len()), (0, 0, 0));
    }

    #[test]
    fn one_query_over_more_than_fits_keeps_what_fits_and_the_next_displaces_what_is_old() {
        let cache = TabCache::default();
        let began = cache.begin();
        for n in 0..200 {
            cache.put(key(n), at(1), sum(1000, 1), began, BYTES_MAX);
            assert!(cache.kept().bytes <= BYTES_MAX);
        }
        let found = (0..200).filter(|n| cache.get(&key(*n), &at(1)).is_some()).count();
        assert!(found > 60 && cache.get(&key(0), &at(1)).is_some(), "{found}");
        let began = cache.begin();
        cache.put(key(500), at(1), sum(1000, 1), began, BYTES_MAX);
        assert!(cache.get(&key(500), &at(1)).is_some());
        assert!(cache.kept().bytes <= BYTES_MAX);
    }
}
