//! `MemoryStore` obeys the laws of a store, and each law catches a store that breaks it.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]
#![cfg(feature = "laws")]

use std::sync::Arc;

use async_trait::async_trait;
use taba_core::laws::store::{self as law, Fixture};
use taba_core::{
    Commit, Committed, Loaded, MemoryStore, Part, Peek, Peeked, Scan, ScanWhat, Scanned, ServerEntry, Store,
    StoreError, TabList, TabName, TabType, Tidied, VBucket, VBuckets, Version, Wanted, store_laws,
};

struct Memory;

#[async_trait]
impl Fixture for Memory {
    type Store = MemoryStore;
    const DURABLE: bool = false;

    async fn open(&mut self) -> MemoryStore {
        MemoryStore::default()
    }
}

store_laws!(memory, Memory);

/// What is wrong with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Was written to before anybody opened it.
    StartsUsed,
    /// Stores the States of a commit that it turns away.
    HalfCommits,
    /// Does not look at the expected version.
    Unconditional,
    /// Yields between looking at the version and writing.
    Races,
    /// Is empty after it was closed.
    Forgets,
    /// Reads the version at one moment and the rest at another.
    TornReads,
    /// Leaves the marks out whatever version the asker knows.
    Markless,
    /// Scans backwards.
    Backwards,
    /// Begins every page at the beginning.
    SamePage,
    /// Has only one VBucket behind all its numbers.
    OneBucket,
    /// Removes nothing.
    Keeps,
    /// Takes commits of any size.
    Unbounded,
    /// Takes what was stable back.
    Unstable,
    /// Keeps Servers on its list that took themselves off.
    Lingers,
    /// Tidies away what is still there.
    Overtidy,
    /// Calls Tabs known whatever happened since.
    KnowsAll,
    /// Answers a look at several VBuckets in another order.
    Shuffles,
    /// Says in a look that no Tabs have changed since the beginning.
    SeesNoTabs,
}

/// A [`MemoryStore`] with one fault.
struct Wrong {
    fault: Fault,
    inner: Arc<MemoryStore>,
}

async fn yield_now() {
    tokio::task::yield_now().await;
}

impl Wrong {
    fn place(&self, vbucket: VBucket) -> VBucket {
        let only = self.inner.vbuckets().get(0).unwrap();
        if self.fault == Fault::OneBucket { only } else { vbucket }
    }
}

#[async_trait]
impl Store for Wrong {
    fn vbuckets(&self) -> VBuckets {
        self.inner.vbuckets()
    }

    async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError> {
        let early = self.inner.load(self.place(vbucket), &Wanted::default()).await?;
        if self.fault == Fault::TornReads {
            yield_now().await;
        }
        let mut loaded = self.inner.load(self.place(vbucket), wanted).await?;
        if self.fault == Fault::TornReads {
            loaded.version = early.version;
        }
        if self.fault == Fault::Markless && wanted.known.is_some() {
            loaded.marks.clear();
        }
        Ok(loaded)
    }

    async fn commit(&self, vbucket: VBucket, mut commit: Commit) -> Result<Committed, StoreError> {
        let vbucket = self.place(vbucket);
        let found = self.inner.load(vbucket, &Wanted::default()).await?.version;
        match self.fault {
            Fault::Unconditional => commit.expect = found,
            Fault::Races if commit.expect == found => {
                yield_now().await;
                commit.expect = self.inner.load(vbucket, &Wanted::default()).await?.version;
            }
            Fault::HalfCommits if commit.expect != found => {
                let half = commit.clone().with_expect(found).with_next(found).with_marks(vec![]);
                let _ = self.inner.commit(vbucket, half).await?;
            }
            Fault::Keeps => {
                commit.states.retain(|(_, _, bytes)| bytes.is_some());
                commit.tabs.retain(|(_, tab_type)| tab_type.is_some());
            }
            Fault::Unbounded if commit.pairs() > 3900 => commit.states.truncate(10),
            _ => {}
        }
        if self.fault == Fault::TornReads {
            yield_now().await;
        }
        self.inner.commit(vbucket, commit).await
    }

    async fn stable(&self, vbucket: VBucket) -> Result<(), StoreError> {
        self.inner.stable(self.place(vbucket)).await
    }

    async fn tidy(&self, vbucket: VBucket) -> Result<Tidied, StoreError> {
        if self.fault == Fault::Overtidy {
            let expect = self.inner.load(vbucket, &Wanted::default()).await?.version;
            let scan = Scan::default().with_limit(1).with_what(ScanWhat::Keys);
            let found = self.inner.scan(vbucket, &scan).await?;
            let states = found.into_iter().map(|state| (state.key, Part::WHOLE, None)).collect();
            let _ = self.inner.commit(vbucket, Commit::new(expect, expect).with_states(states)).await?;
        }
        Ok(Tidied::default())
    }

    async fn register(&self, process: u64, entry: Option<&ServerEntry>) -> Result<(), StoreError> {
        match entry {
            None if self.fault == Fault::Lingers => Ok(()),
            entry => self.inner.register(process, entry).await,
        }
    }

    async fn servers(&self) -> Result<Vec<ServerEntry>, StoreError> {
        self.inner.servers().await
    }

    async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
        self.inner.tabs(self.place(vbucket)).await
    }

    async fn tab_list(&self, vbucket: VBucket, known: Option<Version>) -> Result<TabList, StoreError> {
        let list = self.inner.tab_list(self.place(vbucket), known).await?;
        let is_stale = self.fault == Fault::KnowsAll && known.is_some();
        Ok(if is_stale { TabList::default().with_since(known) } else { list })
    }

    async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError> {
        let mut scan = scan.clone();
        if self.fault == Fault::SamePage
            && scan.after.as_ref().is_some_and(|after| after.tab.as_str() < "t20")
        {
            scan.after = None;
        }
        let mut found = self.inner.scan(self.place(vbucket), &scan).await?;
        if self.fault == Fault::Backwards {
            found.reverse();
        }
        Ok(found)
    }

    async fn peek(&self, peeks: &[Peek]) -> Vec<Result<Peeked, StoreError>> {
        let mut answers = self.inner.peek(peeks).await;
        match self.fault {
            Fault::Shuffles => answers.swap(0, 2),
            Fault::SeesNoTabs => {
                let stale = |peeked: Peeked| peeked.with_tabs_since(Version::NEVER);
                answers = answers.into_iter().map(|peeked| peeked.map(stale)).collect();
            }
            _ => {}
        }
        answers
    }
}

struct WrongStores {
    fault: Fault,
    inner: Arc<MemoryStore>,
}

#[async_trait]
impl Fixture for WrongStores {
    type Store = Wrong;
    const DURABLE: bool = true;

    async fn open(&mut self) -> Wrong {
        if matches!(self.fault, Fault::Forgets | Fault::Unstable) {
            self.inner = Arc::default();
        }
        if self.fault == Fault::StartsUsed {
            let used = Commit::new(Version::NEVER, Version { writer: 1, count: 1 });
            let _ = self.inner.commit(self.inner.vbuckets().get(0).unwrap(), used).await.unwrap();
        }
        Wrong { fault: self.fault, inner: Arc::clone(&self.inner) }
    }
}

fn wrong(fault: Fault) -> WrongStores {
    WrongStores { fault, inner: Arc::default() }
}

macro_rules! catches {
    ($($test:ident: $law:path, $fault:ident;)*) => {$(
        #[tokio::test]
        async fn $test() {
            assert!($law(&mut wrong(Fault::$fault)).await.is_err(), "the law must catch this");
        }
    )*};
}

catches! {
    starts_empty_catches_a_used_store: law::starts_empty, StartsUsed;
    atomic_catches_half_commits: law::atomic, HalfCommits;
    conditional_catches_unconditional_commits: law::conditional, Unconditional;
    racing_catches_a_gap_between_look_and_write: law::racing, Races;
    durable_catches_forgetting: law::durable, Forgets;
    stable_catches_taking_back: law::stable, Unstable;
    consistent_catches_torn_reads: law::consistent, TornReads;
    complete_catches_leaving_out_marks: law::complete, Markless;
    ordered_catches_backward_scans: law::ordered, Backwards;
    paged_catches_repeated_pages: law::paged, SamePage;
    isolated_catches_shared_buckets: law::isolated, OneBucket;
    removing_catches_keeping: law::removing, Keeps;
    bounded_catches_any_size: law::bounded, Unbounded;
    listing_catches_keeping_who_left: law::listing, Lingers;
    upkeep_catches_tidying_away_what_is_there: law::upkeep, Overtidy;
    kept_lists_catches_lists_that_are_stale: law::kept_lists, KnowsAll;
    peeked_catches_answers_in_another_order: law::peeked, Shuffles;
    peeked_catches_tabs_that_are_stale: law::peeked, SeesNoTabs;
}

/// A store that leaves all out that has a default.
struct Plain(MemoryStore);

#[async_trait]
impl Store for Plain {
    fn vbuckets(&self) -> VBuckets {
        self.0.vbuckets()
    }
    async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError> {
        self.0.load(vbucket, wanted).await
    }
    async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError> {
        self.0.commit(vbucket, commit).await
    }
    async fn stable(&self, vbucket: VBucket) -> Result<(), StoreError> {
        self.0.stable(vbucket).await
    }
    async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
        self.0.tabs(vbucket).await
    }
    async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError> {
        self.0.scan(vbucket, scan).await
    }
}

#[async_trait]
impl Fixture for Plain {
    type Store = Self;
    const DURABLE: bool = false;

    async fn open(&mut self) -> Self {
        Self(MemoryStore::default())
    }
}

store_laws!(defaults, Plain(MemoryStore::default()));

/// The parts of a State are in the keys from the start; nobody writes more than one yet.
#[test]
fn the_whole_is_part_zero() {
    assert_eq!(Part::default(), Part::WHOLE);
}
