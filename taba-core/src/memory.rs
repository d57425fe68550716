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
///
/// # Cost
/// A State of one part takes its bytes and about 100 more; they are copied for each who reads them. Keys are kept as they came with
/// the first commit: States share their names if whoever commits shares them, as a Server does.
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
    /// The parts of a State stand in a row. One allocation each, and nothing to spare: there are millions.
    states: BTreeMap<(StateKey, Part), Box<[u8]>>,
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
            // Nobody else has them: they are not copied.
            set(&mut self.states, (key, part), bytes.map(|bytes| Vec::from(bytes).into_boxed_slice()));
        }
        Committed::Done
    }

    fn parts(&self, key: &StateKey) -> impl Iterator<Item = (&(StateKey, Part), &Box<[u8]>)> {
        self.states.range((key.clone(), Part(0))..=(key.clone(), Part(u16::MAX)))
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
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
            slice.parts(key).map(|((key, part), bytes)| (key.clone(), *part, Bytes::copy_from_slice(bytes)))
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
            (Some(after), _) => Bound::Excluded((after.clone(), Part(u16::MAX))),
            (None, Some(tab)) => Bound::Included((StateKey::first_of(tab), Part(0))),
            (None, None) => Bound::Unbounded,
        };
        let found = slice
            .states
            .range((from, Bound::Unbounded))
            .skip_while(|((key, _), _)| scan.tab.as_ref().is_some_and(|tab| key.tab < *tab))
            .take_while(|((key, _), _)| scan.tab.as_ref().is_none_or(|tab| key.tab == *tab));
        let mut states: Vec<Scanned> = Vec::new();
        for ((key, part), bytes) in found {
            if states.last().is_none_or(|last| last.key != *key) {
                if states.len() == scan.limit {
                    break;
                }
                states.push(Scanned::new(key.clone(), Vec::new()));
            }
            if let (ScanWhat::States, Some(state)) = (scan.what, states.last_mut()) {
                state.parts.push((*part, Bytes::copy_from_slice(bytes)));
            }
        }
        Ok(Page::new(Some(slice.version), states))
    }

    async fn peek(&self, peeks: &[Peek]) -> Vec<Result<Peeked, StoreError>> {
        let peek = |Peek { vbucket, states }: &Peek| {
            let slice = self.slice(*vbucket);
            let whole = |key: &StateKey| {
                slice.states.get(&(key.clone(), Part::WHOLE)).map(|bytes| Bytes::copy_from_slice(bytes))
            };
            let peeked = Peeked::new(slice.version, states.iter().map(whole).collect());
            Ok(peeked.with_tabs_since(slice.tabs_since))
        };
        peeks.iter().map(peek).collect()
    }
}
