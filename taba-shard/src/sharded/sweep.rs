//! Sweeping: removes tombstones, and index entries without a field.
//!
//! It changes nothing that readers see, so it makes no new version. Each script checks that a field is still empty or
//! missing in the same step that removes.

use std::collections::BTreeMap;

use redis::{Cmd, cmd};
use taba_core::{Commit, Part, StateKey, StoreError, TabName, VBucket};

use super::ShardedRedis;
use super::commit::place;
use super::read::{failure, unavailable, value};
use crate::census::Owner;
use crate::command::Reply;
use crate::index_cache::{IndexEntry, removed};
use crate::limits::SCAN_STATES_MAX;
use crate::redis::{LinkError, scripts};
use crate::{keys, layout};

/// The number of removed items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Tombstones.
    pub fields: u64,
    /// Index entries without a field.
    pub entries: u64,
}

impl ShardedRedis {
    /// Sweeps a whole VBucket. Commits sweep after themselves; this removes what was left when a process or
    /// connection ended in between. Once a day is enough.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed stays removed.
    ///
    /// # Cost
    /// A few scripts for each Tab. Redis examines every field of the VBucket, in steps of [`SCAN_STATES_MAX`].
    pub async fn sweep(&self, vbucket: VBucket) -> Result<Swept, StoreError> {
        let owner = self.owner(vbucket).await?;
        let mut swept = Swept::default();
        let (streams, tabs) = (keys::streams(vbucket), keys::tabs(vbucket));
        let mut from = "-".to_owned();
        while let Some(entries) = self.page(owner, vbucket, &streams, &mut from).await? {
            let entries =
                entries.iter().filter_map(|entry| Some(IndexEntry::Stream(layout::read_stream(entry)?)));
            self.sweep_some(vbucket, owner, entries.collect(), &mut swept).await?;
        }
        let mut from = "-".to_owned();
        while let Some(entries) = self.page(owner, vbucket, &tabs, &mut from).await? {
            for tab in entries.iter().filter_map(|entry| layout::read_tab(entry)) {
                self.sweep_tab(vbucket, owner, &tab, &mut swept).await?;
            }
        }
        Ok(swept)
    }

    async fn sweep_tab(
        &self,
        vbucket: VBucket,
        owner: Owner,
        tab: &TabName,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        let key = |client| StateKey { tab: tab.clone(), client };
        let mut from = "-".to_owned();
        while let Some(entries) = self.page(owner, vbucket, &keys::parts(vbucket, tab), &mut from).await? {
            let read = |entry: &Vec<u8>| {
                let (client, part) = layout::read_part(entry)?;
                Some(IndexEntry::Part(key(client), part))
            };
            self.sweep_some(vbucket, owner, entries.iter().filter_map(read).collect(), swept).await?;
        }
        let mut from = "-".to_owned();
        while let Some(entries) = self.page(owner, vbucket, &keys::clients(vbucket, tab), &mut from).await? {
            let read = |entry: &Vec<u8>| Some(IndexEntry::Client(key(layout::read_client(entry)?)));
            self.sweep_some(vbucket, owner, entries.iter().filter_map(read).collect(), swept).await?;
        }
        self.sweep_some(vbucket, owner, vec![IndexEntry::Tab(tab.clone())], swept).await
    }

    /// The next entries of an index; `None` at its end. The position is an entry's name, so removals do not shift it.
    async fn page(
        &self,
        owner: Owner,
        vbucket: VBucket,
        index: &str,
        from: &mut String,
    ) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        let mut call = cmd("ZRANGEBYLEX");
        call.arg(index).arg(from.as_str()).arg("+").arg("LIMIT").arg(0).arg(SCAN_STATES_MAX);
        let reply = self.send(vbucket, owner, vec![call]).await?.replies.pop();
        let reply = reply.ok_or_else(|| unavailable(LinkError::Answer { shard: owner.shard }))?;
        let Reply::List(items) = reply else { return Err(failure(vbucket, owner, reply)) };
        let entries: Option<Vec<Vec<u8>>> =
            items.into_iter().map(|entry| value(entry)?.map(Vec::from)).collect();
        let entries = entries.ok_or(StoreError::Damaged { vbucket, what: "index" })?;
        let Some(last) = entries.last() else { return Ok(None) };
        *from = format!("({}", String::from_utf8_lossy(last));
        Ok(Some(entries))
    }

    /// Sweeps after a commit that removed something. On failure, tombstones stay; no reader sees them.
    pub(super) async fn sweep_after(&self, vbucket: VBucket, owner: Owner, commit: &Commit) {
        let mut gone: Vec<IndexEntry> = removed(commit).collect();
        if gone.is_empty() {
            return;
        }
        gone.sort_unstable();
        gone.dedup();
        if let Err(error) = self.sweep_some(vbucket, owner, gone, &mut Swept::default()).await {
            tracing::debug!(vbucket = vbucket.index(), %error, "tombstones stay until the next sweep");
        }
    }

    async fn sweep_some(
        &self,
        vbucket: VBucket,
        owner: Owner,
        entries: Vec<IndexEntry>,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        for some in entries.chunks(SCAN_STATES_MAX) {
            let calls = calls(vbucket, owner, some);
            for (place, reply) in self.send(vbucket, owner, calls).await?.replies.into_iter().enumerate() {
                match reply {
                    Reply::Integer(count) if place == 0 => swept.fields += count.unsigned_abs(),
                    Reply::Integer(count) => swept.entries += count.unsigned_abs(),
                    other => return Err(failure(vbucket, owner, other)),
                }
            }
        }
        Ok(())
    }
}

/// The scripts that sweep these fields and entries, in order: fields, parts, Clients, Tabs.
fn calls(vbucket: VBucket, owner: Owner, entries: &[IndexEntry]) -> Vec<Cmd> {
    let hash = keys::hash(vbucket);
    let mut fields = scripts::SWEEP_FIELDS.call(&[&hash]);
    fields.arg(owner.epoch);
    let mut by_index: BTreeMap<(u8, String), Vec<&IndexEntry>> = BTreeMap::new();
    let mut tabs = Vec::new();
    for entry in entries {
        fields.arg(field(entry));
        let order = match entry {
            IndexEntry::Part(..) => 0,
            IndexEntry::Client(_) => 1,
            IndexEntry::Stream(_) => 2,
            IndexEntry::Tab(tab) => {
                tabs.push(tab);
                continue;
            }
        };
        by_index.entry((order, place(vbucket, entry).0)).or_default().push(entry);
    }
    let mut calls = vec![fields];
    for ((_, index), entries) in by_index {
        let mut names = vec![hash.clone(), index];
        let before = match entries[0] {
            IndexEntry::Stream(_) | IndexEntry::Tab(_) => "a:".to_owned(),
            IndexEntry::Client(key) => {
                names.push(keys::parts(vbucket, &key.tab));
                format!("s:{} ", key.tab)
            }
            IndexEntry::Part(key, _) => format!("s:{} ", key.tab),
        };
        let mut call = scripts::SWEEP_ENTRIES.call(&names);
        call.arg(owner.epoch).arg(before);
        for entry in entries {
            call.arg(place(vbucket, entry).1);
        }
        calls.push(call);
    }
    if !tabs.is_empty() {
        let mut names = vec![hash, keys::tabs(vbucket)];
        names.extend(tabs.iter().map(|tab| keys::clients(vbucket, tab)));
        let mut call = scripts::SWEEP_TABS.call(&names);
        call.arg(owner.epoch);
        for tab in tabs {
            call.arg(tab.as_str());
        }
        calls.push(call);
    }
    calls
}

/// The field of an entry.
fn field(entry: &IndexEntry) -> Vec<u8> {
    match entry {
        IndexEntry::Stream(stream) => layout::mark_field(*stream).into_bytes(),
        IndexEntry::Tab(tab) => layout::tab_field(tab),
        IndexEntry::Client(key) => layout::state_field(key, Part::WHOLE),
        IndexEntry::Part(key, part) => layout::state_field(key, *part),
    }
}
