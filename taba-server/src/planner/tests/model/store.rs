//! [`StoreModel`]: a real `MemoryStore` with a past, so that it can go back to it: what a primary holds, what of that its
//! replica holds, and what is on its disk.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use taba_core::{Commit, Committed, Loaded, MemoryStore, Store, VBuckets, Wanted};

use super::super::accounts::audit;
use super::super::vbucket;

/// One VBucket of a store, with every commit that was done.
pub(super) struct StoreModel {
    store: MemoryStore,
    /// Each commit, and the step in which it was done.
    log: Vec<(u64, Commit)>,
    /// How many of them the replica has.
    replica: usize,
}

/// What a `MemoryStore` answers it answers at once.
pub(in super::super) fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a MemoryStore waits for nothing"),
    }
}

impl StoreModel {
    pub(super) fn new() -> Self {
        Self::of(Vec::new())
    }

    /// A store with this past, and a replica that has all of it.
    fn of(log: Vec<(u64, Commit)>) -> Self {
        let store = MemoryStore::new(VBuckets::new(64).unwrap());
        for (_, commit) in &log {
            assert_eq!(at_once(store.commit(vbucket(), commit.clone())).unwrap(), Committed::Done);
        }
        Self { store, replica: log.len(), log }
    }

    pub(super) fn load(&self, wanted: &Wanted) -> Loaded {
        at_once(self.store.load(vbucket(), wanted)).unwrap()
    }

    pub(super) fn commit(&mut self, commit: Commit, now: u64) -> Committed {
        let committed = at_once(self.store.commit(vbucket(), commit.clone())).unwrap();
        if committed == Committed::Done {
            self.log.push((now, commit));
        }
        committed
    }

    /// The accounts say what the States say.
    pub(super) fn audit(&self) {
        if !self.log.is_empty() {
            audit(&self.store);
        }
    }

    /// How many commits there are.
    pub(super) fn len(&self) -> usize {
        self.log.len()
    }

    /// The replica catches up, with all or with some of what it lacks.
    pub(super) fn replicate(&mut self, commits_max: usize) {
        self.replica = self.log.len().min(self.replica.saturating_add(commits_max));
    }

    /// Whether the replica has that many commits; an error when they are gone.
    pub(super) fn is_stable(&self, commits: usize) -> Result<bool, ()> {
        if commits > self.log.len() { Err(()) } else { Ok(commits <= self.replica) }
    }

    /// The replica takes over, with what it has. What is left behind is the old primary, which may not know yet.
    pub(super) fn fail_over(&mut self) -> Self {
        let promoted = Self::of(self.log[..self.replica].to_vec());
        std::mem::replace(self, promoted)
    }

    /// The process starts again from its disk, which lacks what was written after that step; the replica follows it.
    pub(super) fn restart(&mut self, written: u64) {
        let kept = self.log.iter().take_while(|(step, _)| *step <= written).count();
        let replica = self.replica.min(kept);
        *self = Self { replica, ..Self::of(self.log[..kept].to_vec()) };
    }
}
