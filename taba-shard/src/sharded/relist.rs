//! Rebuilds the indexes of a VBucket from its fields.
//!
//! The hash is the source of truth. Each load compares an index with the number of entries in the hash; when an index
//! key was deleted from outside, all entries are rewritten before anything is answered. A mark that was not seen
//! would let its Batches count twice.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Cmd, cmd};
use taba_core::{Part, StoreError, VBucket};

use super::ShardedRedis;
use super::read::{INDEX, KEY, failure, list, unavailable};
use crate::census::Owner;
use crate::command::Reply;
use crate::index_cache::IndexEntry;
use crate::layout::{self, IndexedField};
use crate::limits::SCAN_STATES_MAX;
use crate::redis::{LinkError, random, scripts};
use crate::{keys, sharded::commit::place};

/// The entries that the fields need, by index key.
type Entries = BTreeMap<String, BTreeSet<Vec<u8>>>;

impl ShardedRedis {
    /// Runs it; when an index has lost entries, rebuilds the indexes and runs it once more.
    pub(super) async fn relisting<T, F>(&self, vbucket: VBucket, run: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let is_unlisted = |outcome: &Result<T, StoreError>| matches!(outcome, Err(StoreError::Damaged { what, .. }) if [INDEX, KEY].contains(what));
        let outcome = run().await;
        if !is_unlisted(&outcome) {
            return outcome;
        }
        // One at a time over all VBuckets: it reads a whole hash.
        let _relisting = self.relisting.lock().await;
        let outcome = run().await;
        if !is_unlisted(&outcome) {
            return outcome;
        }
        let entries = self.relist(vbucket).await?;
        let vbucket = vbucket.index();
        tracing::error!(
            vbucket,
            entries,
            "keys of the store were deleted in redis; its indexes were rebuilt"
        );
        run().await
    }

    /// Writes every index entry that the fields of a VBucket need; returns how many were missing.
    ///
    /// Concurrent commits are safe: they list their own new fields first.
    ///
    /// # Errors
    /// [`StoreError`]; entries already written stay.
    ///
    /// # Cost
    /// Reads the whole VBucket.
    pub async fn relist(&self, vbucket: VBucket) -> Result<u64, StoreError> {
        let owner = self.owner(vbucket).await?;
        let needed = self.needed(vbucket, owner).await?;
        for index in needed.keys() {
            self.rename_foreign_key(vbucket, owner, index).await?;
        }
        let mut before = 0;
        for index in needed.keys() {
            before += self.count(vbucket, owner, index).await?;
        }
        let hash = keys::hash(vbucket);
        let mut after = 0;
        for (index, entries) in &needed {
            let all: Vec<&Vec<u8>> = entries.iter().collect();
            for some in all.chunks(SCAN_STATES_MAX) {
                let mut call = scripts::INDEX.call(&[&hash, index]);
                call.arg(owner.epoch).arg(some.len()).arg(some);
                self.ask_one(vbucket, owner, call).await?;
            }
            let mut call = scripts::COUNTED.call(&[&hash, index]);
            call.arg(owner.epoch).arg(entries.len());
            match self.ask_one(vbucket, owner, call).await? {
                Reply::Integer(1) => {}
                Reply::Integer(_) => return Err(StoreError::Damaged { vbucket, what: INDEX }),
                other => return Err(failure(vbucket, owner, other)),
            }
            after += self.count(vbucket, owner, index).await?;
        }
        Ok(after.saturating_sub(before))
    }

    /// The index entries that the fields of a VBucket need. Every field that exists throughout is seen.
    async fn needed(&self, vbucket: VBucket, owner: Owner) -> Result<Entries, StoreError> {
        let (mut needed, mut position) = (Entries::new(), "0".to_owned());
        needed.entry(keys::streams(vbucket)).or_default();
        needed.entry(keys::tabs(vbucket)).or_default();
        loop {
            let mut call = cmd("HSCAN");
            call.arg(keys::hash(vbucket)).arg(&position).arg("COUNT").arg(SCAN_STATES_MAX);
            let reply = self.ask_one(vbucket, owner, call).await?;
            let answer = |reply| <[Reply; 2]>::try_from(list(reply)?).ok();
            let Some([Reply::Bytes(next), Reply::List(pairs)]) = answer(reply) else {
                return Err(unavailable(LinkError::Answer { shard: owner.shard }));
            };
            for pair in pairs.chunks_exact(2) {
                if let [Reply::Bytes(field), Reply::Bytes(value)] = pair {
                    if let Some(index) = layout::read_count_field(field) {
                        needed.entry(keys::hash(vbucket) + index).or_default();
                    }
                    if !value.is_empty() {
                        entries(vbucket, field, &mut needed);
                    }
                }
            }
            position = String::from_utf8_lossy(&next).into_owned();
            if position == "0" {
                return Ok(needed);
            }
        }
    }

    /// Renames a key of another type that has the name of an index.
    async fn rename_foreign_key(
        &self,
        vbucket: VBucket,
        owner: Owner,
        index: &str,
    ) -> Result<(), StoreError> {
        let mut question = cmd("TYPE");
        question.arg(index);
        let Reply::Bytes(kind) = self.ask_one(vbucket, owner, question).await? else { return Ok(()) };
        if kind == "zset" || kind == "none" {
            return Ok(());
        }
        let aside = format!("{}!set-aside:{:016x}", keys::hash(vbucket), random());
        let mut rename = cmd("RENAMENX");
        rename.arg(index).arg(&aside);
        self.ask_one(vbucket, owner, rename).await?;
        tracing::error!(vbucket = vbucket.index(), index, aside, "a key that is no index was renamed");
        Ok(())
    }

    async fn count(&self, vbucket: VBucket, owner: Owner, index: &str) -> Result<u64, StoreError> {
        let mut question = cmd("ZCARD");
        question.arg(index);
        match self.ask_one(vbucket, owner, question).await? {
            Reply::Integer(count) => Ok(count.unsigned_abs()),
            other => Err(failure(vbucket, owner, other)),
        }
    }

    pub(super) async fn ask_one(
        &self,
        vbucket: VBucket,
        owner: Owner,
        call: Cmd,
    ) -> Result<Reply, StoreError> {
        let reply = self.send(vbucket, owner, vec![call]).await?.replies.pop();
        match reply.ok_or_else(|| unavailable(LinkError::Answer { shard: owner.shard }))? {
            refused @ Reply::Refused { .. } => Err(failure(vbucket, owner, refused)),
            reply => Ok(reply),
        }
    }
}

/// Adds the index entries that a field needs.
fn entries(vbucket: VBucket, field: &[u8], needed: &mut Entries) {
    let entries = match layout::read_field(field) {
        Some(IndexedField::Stream(stream)) => vec![IndexEntry::Stream(stream)],
        Some(IndexedField::Tab(tab)) => vec![IndexEntry::Tab(tab)],
        Some(IndexedField::State(key, part)) => {
            let further = (part != Part::WHOLE).then(|| IndexEntry::Part(key.clone(), part));
            [IndexEntry::Tab(key.tab.clone()), IndexEntry::Client(key)].into_iter().chain(further).collect()
        }
        None => Vec::new(),
    };
    for entry in entries {
        let (index, member) = place(vbucket, &entry);
        needed.entry(index).or_default().insert(member);
    }
}
