//! [`IndexCache`]: the index entries of a VBucket that need not be written again.
//!
//! # When an entry counts as written
//! A field of a VBucket without its index entries is worse than lost: a scan does not see the State, and an unlisted
//! mark lets a Batch count twice. The invariant, in every state of a shard, also after a failover to an older one:
//! *each field that is no tombstone has its index entries.*
//!
//! 1. The commit script checks the entries that this process does not know, in the same step that writes the fields.
//!    Writing them beforehand makes the commit succeed; the check makes it safe.
//! 2. The cache is tied to one version `at`: its entries belong to fields that existed when `at` was written. The
//!    script writes only if the VBucket is at the version that the commit expects, and versions are never reused. If
//!    that is `at`, the shard's history contains the write of `at`, however far it has gone back, and with it the
//!    fields and their entries. If it is not, the cache is not used.
//! 3. Only the sweep removes entries, in a script that checks that their fields are gone. A field that exists at `at`
//!    exists until a commit removes it, and that commit makes another version. A process that removes a field also
//!    drops its entries from this cache.
//!
//! So nothing else invalidates the cache: neither a broken connection nor a failover.

use std::collections::HashSet;

use taba_core::{Commit, Part, StateKey, StreamId, TabName, Version};
use xxhash_rust::xxh3::xxh3_128;

use crate::layout;

/// An entry of an index.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IndexEntry {
    /// Of `.streams`.
    Stream(StreamId),
    /// Of `.tabs`.
    Tab(TabName),
    /// Of `.clients.TAB`.
    Client(StateKey),
    /// Of `.parts.TAB`.
    Part(StateKey, Part),
}

impl IndexEntry {
    /// A 128-bit digest: the chance that two entries of a deployment share one is 10⁻²⁴ or less.
    fn digest(&self) -> u128 {
        let bytes = match self {
            Self::Stream(stream) => layout::mark_field(*stream).into_bytes(),
            Self::Tab(tab) => layout::tab_field(tab),
            Self::Client(key) => layout::state_field(key, Part::WHOLE),
            Self::Part(key, part) => layout::state_field(key, *part),
        };
        xxh3_128(&bytes)
    }
}

/// The index entries of one VBucket that this process knows to be written.
#[derive(Clone, Debug, Default)]
pub struct IndexCache {
    /// `None`: the cache is empty.
    at: Option<Version>,
    entries: HashSet<u128>,
}

impl IndexCache {
    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries that the commit needs and that are not cached, sorted and distinct.
    pub fn missing(&self, commit: &Commit) -> Vec<IndexEntry> {
        let is_known =
            |entry: &IndexEntry| self.at == Some(commit.expect) && self.entries.contains(&entry.digest());
        let mut missing: Vec<IndexEntry> = needed(commit).filter(|entry| !is_known(entry)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// The commit succeeded. Caches at most `room` entries; beyond that, none.
    pub fn committed(&mut self, commit: &Commit, room: usize) {
        if self.at != Some(commit.expect) {
            self.entries.clear();
        }
        self.at = Some(commit.next);
        self.entries.extend(needed(commit).map(|entry| entry.digest()));
        for gone in removed(commit) {
            self.entries.remove(&gone.digest());
        }
        if self.entries.len() > room {
            self.forget();
        }
    }

    /// Drops all entries.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The entries that a commit's fields need, with duplicates.
fn needed(commit: &Commit) -> impl Iterator<Item = IndexEntry> {
    let streams =
        commit.marks.iter().filter(|(_, mark)| mark.is_some()).map(|(stream, _)| IndexEntry::Stream(*stream));
    let tabs = commit
        .tabs
        .iter()
        .filter(|(_, tab_type)| tab_type.is_some())
        .map(|(tab, _)| IndexEntry::Tab(tab.clone()));
    let states = commit.states.iter().filter(|(_, _, bytes)| bytes.is_some()).flat_map(|(key, part, _)| {
        let part = (*part != Part::WHOLE).then(|| IndexEntry::Part(key.clone(), *part));
        [IndexEntry::Tab(key.tab.clone()), IndexEntry::Client(key.clone())].into_iter().chain(part)
    });
    streams.chain(tabs).chain(states)
}

/// The entries that a commit may leave without a field. Some may still have one: a Tab whose type is removed may have
/// States, and a State may have other parts.
pub fn removed(commit: &Commit) -> impl Iterator<Item = IndexEntry> {
    let streams =
        commit.marks.iter().filter(|(_, mark)| mark.is_none()).map(|(stream, _)| IndexEntry::Stream(*stream));
    let tabs = commit
        .tabs
        .iter()
        .filter(|(_, tab_type)| tab_type.is_none())
        .map(|(tab, _)| IndexEntry::Tab(tab.clone()));
    let states = commit.states.iter().filter(|(_, _, bytes)| bytes.is_none()).flat_map(|(key, part, _)| {
        let part = (*part != Part::WHOLE).then(|| IndexEntry::Part(key.clone(), *part));
        [IndexEntry::Tab(key.tab.clone()), IndexEntry::Client(key.clone())].into_iter().chain(part)
    });
    streams.chain(tabs).chain(states)
}

#[cfg(test)]
#[path = "index_cache/tests.rs"]
mod tests;
