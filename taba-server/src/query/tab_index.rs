//! [`TabIndex`]: the Tabs of all VBuckets, kept between queries.
//!
//! A list that is kept is answered from only when the store says, within the query, that it is still the one since its version:
//! so what other Servers commit is seen at once, and a list of a history that was lost is never used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use taba_core::{Peeked, Store, StoreError, TabName, TabType, VBucket, Version};

/// Bytes of a Tab in a list besides its name: two pointers with lengths, and the head of its allocation.
const TAB_BYTES: usize = 56;

/// The Tabs of one VBucket, sorted by name.
pub(super) type TabSlice = Arc<[(TabName, TabType)]>;

/// The Tabs of VBuckets, up to a number of bytes.
#[derive(Default)]
pub(super) struct TabIndex {
    kept: Mutex<KeptLists>,
}

#[derive(Default)]
struct KeptLists {
    lists: BTreeMap<VBucket, KeptList>,
    bytes: usize,
}

struct KeptList {
    since: Version,
    tabs: TabSlice,
    bytes: usize,
}

/// The Tabs of a VBucket, now.
pub(super) struct TabsNow {
    /// The version that it is at, if the store says.
    pub(super) version: Option<Version>,
    pub(super) tabs: TabSlice,
}

impl TabIndex {
    /// The Tabs of a VBucket where they are kept, if the store says that they are still these.
    pub(super) fn known(&self, vbucket: VBucket, peeked: &Peeked) -> Option<TabsNow> {
        let (since, tabs) = self.get(vbucket)?;
        (peeked.tabs_since == Some(since)).then_some(TabsNow { version: peeked.version, tabs })
    }

    /// Whether the Tabs of a VBucket are kept.
    pub(super) fn has(&self, vbucket: VBucket) -> bool {
        self.kept().lists.contains_key(&vbucket)
    }

    /// The Tabs of a VBucket, read only where they changed. Keeps at most so many bytes.
    pub(super) async fn tabs(
        &self,
        store: &dyn Store,
        vbucket: VBucket,
        bytes_max: usize,
    ) -> Result<TabsNow, StoreError> {
        let kept = self.get(vbucket);
        let list = store.tab_list(vbucket, kept.as_ref().map(|(since, _)| *since)).await?;
        let version = list.version;
        let tabs = match (list.tabs, kept) {
            (None, Some((_, tabs))) => return Ok(TabsNow { version, tabs }),
            (tabs, _) => with_one_of_each_type(tabs.unwrap_or_default()),
        };
        if let Some(since) = list.since {
            self.put(vbucket, since, &tabs, bytes_max);
        }
        Ok(TabsNow { version, tabs })
    }

    fn kept(&self) -> MutexGuard<'_, KeptLists> {
        // A panic leaves a list out at worst.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, vbucket: VBucket) -> Option<(Version, TabSlice)> {
        self.kept().lists.get(&vbucket).map(|list| (list.since, Arc::clone(&list.tabs)))
    }

    fn put(&self, vbucket: VBucket, since: Version, tabs: &TabSlice, bytes_max: usize) {
        let bytes = tabs.iter().map(|(name, _)| TAB_BYTES + name.as_str().len()).sum();
        let mut kept = self.kept();
        let before = kept.lists.remove(&vbucket).map_or(0, |list| list.bytes);
        kept.bytes -= before;
        if kept.bytes + bytes <= bytes_max {
            kept.bytes += bytes;
            kept.lists.insert(vbucket, KeptList { since, tabs: Arc::clone(tabs), bytes });
        }
    }
}

/// The same Tabs, sharing the texts of their types.
fn with_one_of_each_type(tabs: Vec<(TabName, TabType)>) -> TabSlice {
    let mut types = BTreeSet::new();
    let shared = tabs.into_iter().map(|(name, tab_type)| match types.get(&tab_type) {
        Some(known) => (name, TabType::clone(known)),
        None => {
            types.insert(tab_type.clone());
            (name, tab_type)
        }
    });
    shared.collect()
}
