//! A commit: one script, one write.

use std::collections::BTreeMap;

use redis::Cmd;
use taba_core::limits::COMMIT_PAIRS_MAX;
use taba_core::{Commit, Committed, StoreError, VBucket};

use super::ShardedRedis;
use super::read::{failure, unavailable};
use crate::census::Owner;
use crate::command::Reply;
use crate::index_cache::IndexEntry;
use crate::redis::{LinkError, scripts};
use crate::{keys, layout};

/// Tries of a commit whose index entries a concurrent sweep removes between the two scripts.
const INDEX_TRIES_MAX: usize = 3;

#[derive(Debug, thiserror::Error)]
#[error("a sweep removed the index entries of a commit {INDEX_TRIES_MAX} times")]
struct IndexEntriesSwept;

pub(super) async fn commit(
    store: &ShardedRedis,
    vbucket: VBucket,
    commit: &Commit,
) -> Result<Committed, StoreError> {
    let pairs = commit.pairs();
    if pairs > COMMIT_PAIRS_MAX {
        return Err(StoreError::TooLarge { pairs, pairs_max: COMMIT_PAIRS_MAX });
    }
    let outcome = attempt(store, vbucket, commit).await;
    if !matches!(outcome, Ok(Committed::Done)) {
        store.change_index(&mut store.memory(vbucket), |index, _| index.forget());
    }
    store.follow(outcome).await
}

async fn attempt(store: &ShardedRedis, vbucket: VBucket, commit: &Commit) -> Result<Committed, StoreError> {
    let owner = store.owner(vbucket).await?;
    let mut missing = store.memory(vbucket).index.missing(commit);
    for _ in 0..INDEX_TRIES_MAX {
        let calls = calls(vbucket, owner, commit, &missing);
        let mut answered = store.send(vbucket, owner, calls).await?;
        let reply = answered.replies.pop().ok_or(LinkError::Answer { shard: owner.shard });
        match reply.map_err(unavailable)? {
            Reply::Integer(1) => {
                done(store, vbucket, commit, answered.epoch);
                store.sweep_after(vbucket, owner, commit).await;
                return Ok(Committed::Done);
            }
            Reply::List(items) if says(&items, "CONFLICT") => {
                let found = if let Some(Reply::Bytes(text)) = items.get(1) {
                    layout::read_version(text)
                } else {
                    None
                };
                let found = found.ok_or(StoreError::Damaged { vbucket, what: "version" })?;
                return Ok(Committed::Conflict { found });
            }
            Reply::List(items) if says(&items, "UNINDEXED") => {
                // The reason why they are missing, if Redis gave one.
                if let Some(refused @ Reply::Refused { .. }) = answered.replies.pop() {
                    return Err(failure(vbucket, owner, refused));
                }
                missing = all_entries(commit);
            }
            other => return Err(failure(vbucket, owner, other)),
        }
    }
    let shard = owner.shard;
    Err(StoreError::Unavailable {
        retry_after: std::time::Duration::from_millis(100),
        source: Box::new(LinkError::Broken { shard, source: Box::new(IndexEntriesSwept) }),
    })
}

fn says(items: &[Reply], word: &str) -> bool {
    matches!(items.first(), Some(Reply::Bytes(first)) if first == word.as_bytes())
}

/// Every index entry that the commit needs, cached or not.
fn all_entries(commit: &Commit) -> Vec<IndexEntry> {
    crate::index_cache::IndexCache::default().missing(commit)
}

fn done(store: &ShardedRedis, vbucket: VBucket, commit: &Commit, epoch: u64) {
    let mut memory = store.memory(vbucket);
    // The connection is new, and the commit does not follow this process's last one: a failover between the two may
    // have undone that one.
    let breaks = memory.last.is_some_and(|(version, last)| last != epoch && version != commit.expect);
    memory.is_broken |= breaks;
    memory.last = Some((commit.next, epoch));
    store.change_index(&mut memory, |index, room| index.committed(commit, room));
}

/// The scripts of a commit: first those that write missing index entries.
fn calls(vbucket: VBucket, owner: Owner, commit: &Commit, missing: &[IndexEntry]) -> Vec<Cmd> {
    let hash = keys::hash(vbucket);
    let expect = layout::put_version(commit.expect);
    if missing.is_empty() {
        let mut call = scripts::COMMIT.call(&[&hash]);
        call.arg(expect).arg(owner.epoch);
        put_pairs(&mut call, commit);
        return vec![call];
    }
    let mut by_index: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for entry in missing {
        let (index, member) = place(vbucket, entry);
        by_index.entry(index).or_default().push(member);
    }
    let names: Vec<&String> = std::iter::once(&hash).chain(by_index.keys()).collect();
    let mut index = scripts::INDEX.call(&names);
    index.arg(owner.epoch);
    let mut call = scripts::COMMIT_INDEXED.call(&names);
    call.arg(expect).arg(owner.epoch);
    for members in by_index.values() {
        index.arg(members.len()).arg(members);
        call.arg(members.len()).arg(members);
    }
    put_pairs(&mut call, commit);
    vec![index, call]
}

/// The index and the member of an entry.
pub(super) fn place(vbucket: VBucket, entry: &IndexEntry) -> (String, Vec<u8>) {
    match entry {
        IndexEntry::Stream(stream) => (keys::streams(vbucket), stream.to_string().into_bytes()),
        IndexEntry::Tab(tab) => (keys::tabs(vbucket), tab.as_str().into()),
        IndexEntry::Client(key) => (keys::clients(vbucket, &key.tab), key.client.as_str().into()),
        IndexEntry::Part(key, part) => {
            (keys::parts(vbucket, &key.tab), layout::part_entry(&key.client, *part).into_bytes())
        }
    }
}

/// The arguments of the one write command: the version, then every changed field; a removed one becomes empty.
fn put_pairs(call: &mut Cmd, commit: &Commit) {
    let next = layout::put_version(commit.next);
    call.arg(layout::VERSION).arg(&next);
    if !commit.tabs.is_empty() {
        call.arg(layout::TABS).arg(&next);
    }
    for (stream, mark) in &commit.marks {
        call.arg(layout::mark_field(*stream));
        match mark {
            Some(mark) => call.arg(layout::put_mark(mark).as_slice()),
            None => call.arg(""),
        };
    }
    for (tab, tab_type) in &commit.tabs {
        call.arg(layout::tab_field(tab)).arg(tab_type.as_ref().map_or("", |tab_type| tab_type.as_str()));
    }
    for (key, part, bytes) in &commit.states {
        call.arg(layout::state_field(key, *part)).arg(bytes.as_deref().unwrap_or_default());
    }
}
