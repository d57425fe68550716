//! [`Heads`]: the versions of all VBuckets, in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use taba_core::{Commit, VBucket, Version};

/// The versions of a VBucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredVersions {
    /// The one that it is at.
    pub(super) version: Version,
    /// The one since which its Tabs are the same, or a later one.
    pub(super) tabs_since: Version,
}

/// The versions of all VBuckets. The writer changes them when a commit is on the disk, before it says so.
#[derive(Debug)]
pub(super) struct Heads(Mutex<BTreeMap<VBucket, Option<StoredVersions>>>);

impl Heads {
    /// As the file has them: `None` for a damaged one; those that were never written are left out.
    pub(super) fn new(versions: BTreeMap<VBucket, Option<Version>>) -> Self {
        let heads = Self(Mutex::default());
        heads.replace(versions);
        heads
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<VBucket, Option<StoredVersions>>> {
        // Each is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when it is damaged.
    pub(super) fn get(&self, vbucket: VBucket) -> Option<StoredVersions> {
        let never = StoredVersions { version: Version::NEVER, tabs_since: Version::NEVER };
        self.all().get(&vbucket).copied().unwrap_or(Some(never))
    }

    /// The file was opened again.
    pub(super) fn replace(&self, versions: BTreeMap<VBucket, Option<Version>>) {
        let head = |version| StoredVersions { version, tabs_since: version };
        *self.all() = versions.into_iter().map(|(vbucket, version)| (vbucket, version.map(head))).collect();
    }

    /// A commit is done.
    pub(super) fn committed(&self, vbucket: VBucket, commit: &Commit) {
        let before = self.get(vbucket).map_or(commit.next, |head| head.tabs_since);
        let tabs_since = if commit.tabs.is_empty() { before } else { commit.next };
        self.all().insert(vbucket, Some(StoredVersions { version: commit.next, tabs_since }));
    }

    /// The VBucket is damaged.
    pub(super) fn spoil(&self, vbucket: VBucket) {
        self.all().insert(vbucket, None);
    }
}
