//! [`MemoryStore`]: the laws of [`Store`] in the flesh, for tests and for Servers that may forget.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;

use crate::batch::{Mark, StreamId};
use crate::limits::COMMIT_PAIRS_MAX;
use crate::name::{TabName, TabType};
use crate::server_entry::ServerEntry;
use crate::store::{
    Commit, Committed, Loaded, Page, Part, Peek, Peeked, Scan, ScanWhat, Scanned, StateKey, Store,
    StoreError, TabList, Version, Wanted,
};
use crate::store_id::StoreId;
use crate::vbucket::{VBucket, VBuckets};

/// A store in the memory of this process: gone when the process is.
#[derive(Debug)]
pub struct MemoryStore {
    vbuckets: VBuckets,
    identity: StoreId,
    slices: Vec<Mutex<VBucketContent>>,
    servers: Mutex<BTreeMap<u64, ServerEntry>>,
}

#[derive(Debug, Default)]
struct VBucketContent {
    version: Version,
    marks: BTreeMap<StreamId, Mark>,
    tabs: BTreeMap<TabName, TabType>,
    /// The version of the last commit that changed them.
    tabs_since: Version,
    /// The parts of each, ascending: nearly always one.
    states: BTreeMap<StateKey, Vec<(Part, Bytes)>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(VBuckets::default())
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(vbuckets: VBuckets) -> Self {
        let slices = vbuckets.iter().map(|_| Mutex::default()).collect();
        Self { vbuckets, identity: StoreId::transient(), slices, servers: Mutex::default() }
    }

    fn slice(&self, vbucket: VBucket) -> MutexGuard<'_, VBucketContent> {
        // A panic while the lock was held cannot leave half a change: nothing in `apply` can panic midway.
        self.slices[usize::from(vbucket.index())].lock().expect("no commit panics half done")
    }
}

impl VBucketContent {
    fn listed(&self) -> Vec<(TabName, TabType)> {
        self.tabs.iter().map(|(tab, tab_type)| (tab.clone(), tab_type.clone())).collect()
    }

    fn apply(&mut self, commit: Commit) -> Committed {
        if self.version != commit.expect {
            return Committed::Conflict { found: self.version };
        }
        self.version = commit.next;
        for (stream, mark) in commit.marks {
            set(&mut self.marks, stream, mark);
        }
        if !commit.tabs.is_empty() {
            self.tabs_since = commit.next;
        }
        for (tab, tab_type) in commit.tabs {
            set(&mut self.tabs, tab, tab_type);
        }
        for (key, part, bytes) in commit.states {
            let parts = self.states.entry(key.clone()).or_default();
            set_part(parts, part, bytes);
            if parts.is_empty() {
                self.states.remove(&key);
            }
        }
        Committed::Done
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

fn set_part(parts: &mut Vec<(Part, Bytes)>, part: Part, bytes: Option<Bytes>) {
    match (parts.binary_search_by_key(&part, |(part, _)| *part), bytes) {
        (Ok(place), Some(bytes)) => parts[place].1 = bytes,
        (Ok(place), None) => drop(parts.remove(place)),
        (Err(place), Some(bytes)) => {
            parts.reserve_exact(1);
            parts.insert(place, (part, bytes));
        }
        (Err(_), None) => {}
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn vbuckets(&self) -> VBuckets {
        self.vbuckets
    }

    fn identity(&self) -> Option<StoreId> {
        Some(self.identity)
    }

    async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError> {
        let slice = self.slice(vbucket);
        let tabs = wanted.tabs.iter().filter_map(|tab| Some((tab.clone(), slice.tabs.get(tab)?.clone())));
        let states = wanted.states.iter().flat_map(|key| {
            let parts = slice.states.get(key).into_iter().flatten();
            parts.map(|(part, bytes)| (key.clone(), *part, bytes.clone()))
        });
        let is_known = wanted.known == Some(slice.version);
        let marks_max = if is_known { 0 } else { usize::MAX };
        let marks = slice.marks.iter().take(marks_max).map(|(stream, mark)| (*stream, *mark));
        Ok(Loaded {
            version: slice.version,
            marks: marks.collect(),
            tabs: tabs.collect(),
            states: states.collect(),
        })
    }

    async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError> {
        let pairs = commit.pairs();
        if pairs > COMMIT_PAIRS_MAX {
            return Err(StoreError::TooLarge { pairs, pairs_max: COMMIT_PAIRS_MAX });
        }
        Ok(self.slice(vbucket).apply(commit))
    }

    /// There is one machine and one memory: nothing can be lost and leave the rest.
    async fn stable(&self, _: VBucket) -> Result<(), StoreError> {
        Ok(())
    }

    async fn register(&self, process: u64, entry: Option<&ServerEntry>) -> Result<(), StoreError> {
        set(&mut self.servers.lock().expect("a map is changed as one"), process, entry.cloned());
        Ok(())
    }

    async fn servers(&self) -> Result<Vec<ServerEntry>, StoreError> {
        Ok(self.servers.lock().expect("a map is changed as one").values().cloned().collect())
    }

    async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
        Ok(self.slice(vbucket).listed())
    }

    async fn tab_list(&self, vbucket: VBucket, known: Option<Version>) -> Result<TabList, StoreError> {
        let slice = self.slice(vbucket);
        let list = TabList::default().with_version(slice.version).with_since(slice.tabs_since);
        Ok(if known == list.since { list } else { list.with_tabs(slice.listed()) })
    }

    async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError> {
        Ok(self.page(vbucket, scan).await?.states)
    }

    async fn page(&self, vbucket: VBucket, scan: &Scan) -> Result<Page, StoreError> {
        let slice = self.slice(vbucket);
        let from = match (&scan.after, &scan.tab) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(tab)) => Bound::Included(StateKey::first_of(tab)),
            (None, None) => Bound::Unbounded,
        };
        let found = slice
            .states
            .range((from, Bound::Unbounded))
            .skip_while(|(key, _)| scan.tab.as_ref().is_some_and(|tab| key.tab < *tab))
            .take_while(|(key, _)| scan.tab.as_ref().is_none_or(|tab| key.tab == *tab))
            .take(scan.limit)
            .map(|(key, parts)| Scanned {
                key: key.clone(),
                parts: match scan.what {
                    ScanWhat::Keys => Vec::new(),
                    ScanWhat::States => parts.clone(),
                },
            });
        Ok(Page::new(Some(slice.version), found.collect()))
    }

    async fn peek(&self, peeks: &[Peek]) -> Vec<Result<Peeked, StoreError>> {
        let peek = |Peek { vbucket, states }: &Peek| {
            let slice = self.slice(*vbucket);
            let whole = |key| {
                let parts = slice.states.get(key)?.first();
                parts.filter(|(part, _)| *part == Part::WHOLE).map(|(_, bytes)| bytes.clone())
            };
            let peeked = Peeked::new(slice.version, states.iter().map(whole).collect());
            Ok(peeked.with_tabs_since(slice.tabs_since))
        };
        peeks.iter().map(peek).collect()
    }
}
