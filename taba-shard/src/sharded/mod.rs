//! [`ShardedRedis`]: States in several Redis processes, with exactly-once commits.
//!
//! # How it works
//! One VBucket is one Redis hash; [`layout`](crate::layout) has its format. A commit is one script with one write
//! command: it checks version and ownership, and writes all changed fields and the new version, or nothing. New
//! fields are first listed in the indexes beside the hash; in the steady state nothing is new, and a commit is one
//! command without a read. Loads and scans read by the indexes, and detect when one has lost entries; then `relist`
//! rebuilds them. [`index_cache`](crate::index_cache) says when an index entry counts as written.
//!
//! # When a commit fails
//! A commit without an answer may have succeeded, or may still succeed when a paused Redis continues. Both are
//! harmless: it is conditional, so it succeeds at most once, and never after another one.
//!
//! # When a Redis loses data
//! One that comes back empty holds no VBucket, and none is recreated: commits and loads fail with
//! [`StoreError::Misplaced`], and new connections are refused, until the data is restored. One that comes back with
//! older data is at an older version: commits conflict, Servers load again, and Agents resend what is missing.

mod commit;
mod load;
mod mend;
mod moving;
mod peek;
mod read;
mod relist;
mod scan;
mod servers;
mod stable;
mod sweep;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use taba_core::{
    Commit, Committed, Loaded, Page, Peek, Peeked, Scan, Scanned, ServerEntry, Store, StoreError, StoreId,
    TabList, TabName, TabType, Tidied, VBucket, VBuckets, Version, Wanted,
};

pub use self::read::Misplaced;
pub use self::sweep::Swept;

use crate::census::{Location, Owner};
use crate::index_cache::IndexCache;
use crate::redis::{ConnectError, ShardUrl, Shards, ShardsOptions};

/// States in several Redis processes.
///
/// # Cost
/// A commit is one round trip and one script; about 6 µs of Redis and 1 µs more for each changed State of 300 bytes.
/// Memory: up to [`ShardsOptions::index_entries_max`] entries of 32 to 64 bytes.
#[derive(Debug)]
pub struct ShardedRedis {
    shards: Shards,
    memories: Vec<Mutex<VBucketMemory>>,
    /// Index entries cached, over all VBuckets.
    index_entries: AtomicUsize,
    /// Held while indexes are rebuilt.
    relisting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct VBucketMemory {
    index: IndexCache,
    /// The last commit of this process: its version, and its connection.
    last: Option<(Version, u64)>,
    /// Whether commits before `last` may be lost although they succeeded, and this is not reported yet.
    is_broken: bool,
}

impl ShardedRedis {
    /// A store on shards that are connected.
    pub fn new(shards: Shards) -> Self {
        let memories = shards.vbuckets().iter().map(|_| Mutex::default()).collect();
        Self {
            shards,
            memories,
            index_entries: AtomicUsize::new(0),
            relisting: tokio::sync::Mutex::default(),
        }
    }

    /// Connects and makes a store.
    ///
    /// # Errors
    /// As [`Shards::connect`].
    pub async fn connect(addresses: Vec<ShardUrl>, options: ShardsOptions) -> Result<Self, ConnectError> {
        Ok(Self::new(Shards::connect(addresses, options).await?))
    }

    /// Its shards.
    pub const fn shards(&self) -> &Shards {
        &self.shards
    }

    /// The owner of a VBucket.
    ///
    /// # Errors
    /// When it is damaged; or when no shard that answered holds it, which causes a census.
    async fn owner(&self, vbucket: VBucket) -> Result<Owner, StoreError> {
        if self.shards.place(vbucket) == Location::Unknown {
            self.shards.census_after_a_miss().await;
        }
        match self.shards.place(vbucket) {
            Location::Owned(owner) => Ok(owner),
            Location::Damaged(_) => {
                // It may have been mended.
                self.shards.census_after_a_miss().await;
                Err(StoreError::Damaged { vbucket, what: "head" })
            }
            Location::Unknown => Err(read::unavailable(self.shards.unanswered())),
        }
    }

    fn memory(&self, vbucket: VBucket) -> MutexGuard<'_, VBucketMemory> {
        let memory = &self.memories[usize::from(vbucket.index())];
        memory.lock().unwrap_or_else(|_| {
            tracing::error!(
                vbucket = vbucket.index(),
                "a thread panicked while it updated a vbucket's cache; the vbucket is read again"
            );
            reset_memory(memory, &self.index_entries)
        })
    }

    /// Changes the index cache of a VBucket, and counts the entries. `room`: how many it may cache.
    fn change_index(&self, memory: &mut VBucketMemory, change: impl FnOnce(&mut IndexCache, usize)) {
        let before = memory.index.len();
        let others = self.index_entries.load(Ordering::Relaxed).saturating_sub(before);
        change(&mut memory.index, self.shards.options().index_entries_max.saturating_sub(others));
        let after = memory.index.len();
        if after >= before {
            self.index_entries.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.index_entries.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

/// After a panic the memory of a VBucket may be inconsistent. It is dropped, and the next stability wait fails.
fn reset_memory<'a>(
    memory: &'a Mutex<VBucketMemory>,
    index_entries: &AtomicUsize,
) -> MutexGuard<'a, VBucketMemory> {
    let mut held = memory.lock().unwrap_or_else(PoisonError::into_inner);
    let forgotten =
        std::mem::replace(&mut *held, VBucketMemory { is_broken: true, ..VBucketMemory::default() });
    let _ = index_entries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |entries| {
        Some(entries.saturating_sub(forgotten.index.len()))
    });
    memory.clear_poison();
    held
}

#[async_trait]
impl Store for ShardedRedis {
    fn vbuckets(&self) -> VBuckets {
        self.shards.vbuckets()
    }

    fn identity(&self) -> Option<StoreId> {
        Some(StoreId { number: self.shards.view().deployment().id, is_durable: true })
    }

    fn processes(&self) -> Option<u64> {
        let links = self.shards.links();
        // In whatever order a Server knows the shards.
        Some(links.iter().filter(|link| !link.is_retired()).fold(0, |all, link| all ^ link.process()))
    }

    fn place(&self, vbucket: VBucket) -> Option<String> {
        Some(self.shards.place_name(vbucket))
    }

    async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError> {
        self.settled(vbucket, || load::load(self, vbucket, wanted)).await
    }

    async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError> {
        self.settled(vbucket, || commit::commit(self, vbucket, &commit)).await
    }

    async fn stable(&self, vbucket: VBucket) -> Result<(), StoreError> {
        stable::stable(self, vbucket).await
    }

    async fn tidy(&self, vbucket: VBucket) -> Result<Tidied, StoreError> {
        // Checks the index of marks, which queries do not read.
        self.load(vbucket, &Wanted::default()).await?;
        let swept = self.sweep(vbucket).await?;
        Ok(Tidied::new(swept.fields + swept.entries, 0))
    }

    async fn register(&self, process: u64, entry: Option<&ServerEntry>) -> Result<(), StoreError> {
        servers::register(self, process, entry).await
    }

    async fn servers(&self) -> Result<Vec<ServerEntry>, StoreError> {
        servers::servers(self).await
    }

    async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
        Ok(self.tab_list(vbucket, None).await?.tabs.unwrap_or_default())
    }

    async fn tab_list(&self, vbucket: VBucket, known: Option<Version>) -> Result<TabList, StoreError> {
        self.settled(vbucket, || scan::tabs(self, vbucket, known)).await
    }

    async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError> {
        Ok(self.page(vbucket, scan).await?.states)
    }

    async fn page(&self, vbucket: VBucket, scan: &Scan) -> Result<Page, StoreError> {
        self.settled(vbucket, || scan::scan(self, vbucket, scan)).await
    }

    async fn peek(&self, peeks: &[Peek]) -> Vec<Result<Peeked, StoreError>> {
        peek::peek(self, peeks).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_panicked_over_is_forgotten_and_nothing_of_it_is_called_safe() {
        let memory = Mutex::new(VBucketMemory {
            last: Some((Version { writer: 7, count: 1 }, 1)),
            ..VBucketMemory::default()
        });
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut held = memory.lock().unwrap();
            held.is_broken = false;
            panic!("half changed");
        }));
        assert!(panicked.is_err() && memory.lock().is_err());
        let entries = AtomicUsize::new(3);
        {
            let held = reset_memory(&memory, &entries);
            assert!(held.is_broken && held.last.is_none() && held.index.is_empty());
        }
        assert!(memory.lock().is_ok(), "it goes on");
    }
}
