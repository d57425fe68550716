//! [`IndexCache`]: which index entries of a VBucket need not be written again.
//!
//! # When an entry may be taken for written
//! A field of a VBucket that has no entry in the indexes is worse than lost: a scan does not see the State, and a
//! mark that is not listed lets a Batch count twice. So this must hold in every state that a shard can be in, also
//! after a failover took it back: *each field that is no tombstone has its entries.*
//!
//! 1. The commit script itself looks whether the entries that this process does not know are there, at the moment at
//!    which it writes the fields. Writing them before is what makes it succeed, not what makes it safe.
//! 2. What a process knows is tied to one version `at`: these entries belong to fields that were there, and were no
//!    tombstones, when `at` was written. The script writes only if the VBucket is at the version that the commit
//!    expects, and versions are never used twice. So if that is `at`, the shard's history contains the moment at
//!    which `at` was written, however far it has gone back, and with it the fields and their entries. If it is not,
//!    nothing is known.
//! 3. Entries are removed only by the sweep, in a script that looks whether the fields are gone at that moment. A
//!    field that is there at `at` is there until a commit removes it, and that commit makes another version.
//!    A process that removes a field itself forgets its entries at the same time, here.
//!
//! Hence what is known has to be dropped for no other reason: not when a connection breaks, not on a failover.

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
    /// 128 bits stand for the entry: two of a deployment's entries share them with a chance of 10⁻²⁴ or less.
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

/// The index entries of one VBucket that one process knows to be written.
#[derive(Clone, Debug, Default)]
pub struct IndexCache {
    /// `None`: nothing is known.
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

    /// The entries that the commit needs and that are not known to be written, sorted, each once.
    pub fn missing(&self, commit: &Commit) -> Vec<IndexEntry> {
        let is_known =
            |entry: &IndexEntry| self.at == Some(commit.expect) && self.entries.contains(&entry.digest());
        let mut missing: Vec<IndexEntry> = needed(commit).filter(|entry| !is_known(entry)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// The commit is done. At most `room` entries are remembered in all; past that it remembers none.
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

/// The entries that a commit's fields need, some of them more than once.
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

/// The entries that may be left without a field by a commit. More than are left in truth: a Tab whose type goes may
/// still have States, and a State may have other parts.
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
