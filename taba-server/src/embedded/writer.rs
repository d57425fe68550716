//! [`StoreWriter`]: the one writer thread. It puts the commits of many VBuckets into one transaction and one sync.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use taba_core::limits::COMMIT_PAIRS_MAX;
use taba_core::{Commit, Committed, StoreError, VBucket};
use tokio::sync::oneshot;

use super::file::{DatabaseFile, Pair, is_damage};
use super::heads::{Heads, StoredVersions};
use super::{layout, unavailable};

/// Pairs in one transaction, about: beyond, waiting costs more than another sync.
const GROUP_PAIRS_MAX: usize = 16 * COMMIT_PAIRS_MAX;

/// A request to the writer.
pub(super) enum WriteJob {
    Commit {
        vbucket: VBucket,
        commit: Commit,
        reply: oneshot::Sender<Result<Committed, StoreError>>,
    },
    /// A reader had a disk error: reopen the file.
    Reopen,
}

struct PendingCommit {
    vbucket: VBucket,
    commit: Commit,
    reply: oneshot::Sender<Result<Committed, StoreError>>,
}

/// The one writer thread.
pub(super) struct StoreWriter {
    file: Arc<DatabaseFile>,
    jobs: Receiver<WriteJob>,
    heads: Arc<Heads>,
    /// Commits to VBuckets that the current group already changes.
    deferred: Vec<PendingCommit>,
    /// VBuckets whose commits met a damaged page.
    spoilt: BTreeSet<VBucket>,
}

impl StoreWriter {
    pub(super) fn new(file: Arc<DatabaseFile>, jobs: Receiver<WriteJob>, heads: Arc<Heads>) -> Self {
        Self { file, jobs, heads, deferred: Vec::new(), spoilt: BTreeSet::new() }
    }

    /// Runs until all senders are dropped.
    pub(super) fn run(mut self) {
        loop {
            let mut waiting = std::mem::take(&mut self.deferred);
            let mut must_reopen = false;
            if waiting.is_empty() {
                match self.jobs.recv() {
                    Ok(WriteJob::Commit { vbucket, commit, reply }) => {
                        waiting.push(PendingCommit { vbucket, commit, reply });
                    }
                    Ok(WriteJob::Reopen) => must_reopen = true,
                    Err(_) => return,
                }
            }
            let mut pairs: usize = waiting.iter().map(|pending| pending.commit.pairs()).sum();
            while pairs < GROUP_PAIRS_MAX {
                match self.jobs.try_recv() {
                    Ok(WriteJob::Commit { vbucket, commit, reply }) => {
                        pairs += commit.pairs();
                        waiting.push(PendingCommit { vbucket, commit, reply });
                    }
                    Ok(WriteJob::Reopen) => must_reopen = true,
                    Err(_) => break,
                }
            }
            if must_reopen {
                self.file.close();
            }
            self.commit(waiting);
        }
    }

    /// Commits as many of these as possible as one group.
    fn commit(&mut self, waiting: Vec<PendingCommit>) {
        // One check per group costs nothing beside the sync.
        if let Err(error) = self.ensure_open().and_then(|()| Ok(self.file.check_place()?)) {
            let cause = taba_core::causes(&*error);
            for pending in waiting {
                let error: Box<dyn std::error::Error + Send + Sync> = cause.clone().into();
                answer(pending, Err(unavailable(error)));
            }
            return;
        }
        let mut group: BTreeMap<VBucket, PendingCommit> = BTreeMap::new();
        for pending in waiting {
            let pairs = pending.commit.pairs();
            let Some(StoredVersions { version: found, .. }) = self.heads.get(pending.vbucket) else {
                let vbucket = pending.vbucket;
                answer(pending, Err(StoreError::Damaged { vbucket, what: "version or page" }));
                continue;
            };
            if pairs > COMMIT_PAIRS_MAX {
                answer(pending, Err(StoreError::TooLarge { pairs, pairs_max: COMMIT_PAIRS_MAX }));
                continue;
            }
            match group.entry(pending.vbucket) {
                // Its base is known only when the group is stored.
                Entry::Occupied(_) => self.deferred.push(pending),
                Entry::Vacant(_) if pending.commit.expect != found => {
                    answer(pending, Ok(Committed::Conflict { found }));
                }
                Entry::Vacant(place) => {
                    place.insert(pending);
                }
            }
        }
        if group.is_empty() {
            return;
        }
        match self.file.write(&pairs_of(&group)) {
            Ok(()) => {
                for (vbucket, pending) in group {
                    self.heads.committed(vbucket, &pending.commit);
                    answer(pending, Ok(Committed::Done));
                }
            }
            Err(error) if is_damage(&error) => self.commit_apart(group),
            Err(error) => {
                tracing::warn!(%error, vbuckets = group.len(), "a write failed; the file will be opened again");
                self.file.close();
                let cause = error.to_string();
                for (_, pending) in group {
                    let error: Box<dyn std::error::Error + Send + Sync> = cause.clone().into();
                    answer(pending, Err(unavailable(error)));
                }
            }
        }
    }

    /// The group met a damaged page: commits each VBucket alone to find the damaged one; the others succeed.
    fn commit_apart(&mut self, group: BTreeMap<VBucket, PendingCommit>) {
        let is_alone = group.len() == 1;
        for (vbucket, pending) in group {
            if !is_alone {
                self.commit(vec![pending]);
                continue;
            }
            tracing::error!(
                vbucket = vbucket.index(),
                "the store is damaged where a commit has to write: this vbucket refuses batches, all others work"
            );
            // Until the file is reopened.
            self.spoilt.insert(vbucket);
            self.heads.spoil(vbucket);
            answer(pending, Err(StoreError::Damaged { vbucket, what: "page" }));
        }
    }

    /// Reopens the file after an error. Its content shows whether the failed write happened.
    fn ensure_open(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.file.is_open() {
            return Ok(());
        }
        self.file.reopen()?;
        match self.file.versions() {
            Ok(versions) => {
                self.heads.replace(versions);
                self.spoilt.iter().for_each(|vbucket| self.heads.spoil(*vbucket));
            }
            Err(error) => {
                self.file.close();
                return Err(error.into());
            }
        }
        tracing::info!("the store was reopened");
        Ok(())
    }
}

/// The pairs of a group, sorted, so that neighbours in the file are written together.
fn pairs_of(group: &BTreeMap<VBucket, PendingCommit>) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    for (&vbucket, PendingCommit { commit, .. }) in group {
        pairs.push((layout::version_key(vbucket), Some(layout::put_version(commit.next))));
        let marks = commit.marks.iter();
        pairs.extend(
            marks.map(|(stream, mark)| {
                (layout::mark_key(vbucket, *stream), mark.as_ref().map(layout::put_mark))
            }),
        );
        let tabs = commit.tabs.iter();
        pairs.extend(tabs.map(|(tab, tab_type)| {
            (layout::tab_key(vbucket, tab), tab_type.as_ref().map(|name| name.as_str().as_bytes().to_vec()))
        }));
        let states = commit.states.iter();
        pairs.extend(states.map(|(key, part, bytes)| {
            (layout::state_key(vbucket, key, *part), bytes.as_ref().map(|bytes| bytes.to_vec()))
        }));
    }
    // Stable sort: of two pairs with one key, the later one wins.
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs
}

fn answer(pending: PendingCommit, outcome: Result<Committed, StoreError>) {
    // The receiver may be gone; the commit is done or not all the same.
    let _ = pending.reply.send(outcome);
}
