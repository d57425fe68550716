//! What a Server keeps between queries is never older than the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::json;
use taba_core::{
    Commit, Committed, Loaded, MemoryStore, Page, Reading, Registry, Scan, Scanned, Store, StoreError,
    TabList, TabName, TabType, VBucket, VBuckets, Version, Wanted,
};
use taba_server::query::Limits;

use crate::kit::{Intruded, Intruder, Kit, NOW, StoreCall, handlers};

fn standard() -> Registry {
    taba_handlers::standard().build().unwrap()
}

/// A store that can go back to an older one, and counts what it is asked for.
#[derive(Default)]
struct Replaceable {
    store: Mutex<Arc<MemoryStore>>,
    /// Tabs that were read.
    tabs: AtomicUsize,
    /// States that were read, without those of the Ledger and of rules.
    states: AtomicUsize,
}

impl Replaceable {
    fn now(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, by: &Arc<MemoryStore>) {
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(by);
    }

    /// How many Tabs and States were read since the last call.
    fn read(&self) -> (usize, usize) {
        (self.tabs.swap(0, Ordering::SeqCst), self.states.swap(0, Ordering::SeqCst))
    }
}

#[async_trait]
impl Store for Replaceable {
    fn vbuckets(&self) -> VBuckets {
        self.now().vbuckets()
    }
    async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError> {
        self.now().load(vbucket, wanted).await
    }
    async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError> {
        self.now().commit(vbucket, commit).await
    }
    async fn stable(&self, vbucket: VBucket) -> Result<(), StoreError> {
        self.now().stable(vbucket).await
    }
    async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
        self.now().tabs(vbucket).await
    }
    async fn tab_list(&self, vbucket: VBucket, known: Option<Version>) -> Result<TabList, StoreError> {
        let list = self.now().tab_list(vbucket, known).await?;
        self.tabs.fetch_add(list.tabs.as_ref().map_or(0, Vec::len), Ordering::SeqCst);
        Ok(list)
    }
    async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError> {
        Ok(self.page(vbucket, scan).await?.states)
    }
    async fn page(&self, vbucket: VBucket, scan: &Scan) -> Result<Page, StoreError> {
        let page = self.now().page(vbucket, scan).await?;
        let found = page.states.iter().filter(|state| !state.key.tab.is_reserved()).count();
        self.states.fetch_add(found, Ordering::SeqCst);
        Ok(page)
    }
}

/// A store to write to, and what a Server asks, which is that one at first. With the standard types, and others.
async fn kit_of(handlers: Registry) -> (Kit, Arc<Replaceable>) {
    let memory = Arc::new(MemoryStore::default());
    let asked = Arc::new(Replaceable::default());
    asked.replace(&memory);
    let kit = Kit::with_handlers(memory, asked.clone(), Limits::default(), handlers);
    kit.settle_spread().await;
    (kit, asked)
}

#[tokio::test]
async fn names_are_read_once_and_what_others_commit_is_seen_at_once() {
    let (kit, asked) = kit_of(handlers()).await;
    for name in ["delay;to=MEM", "delay;to=ATL", "wind"] {
        kit.count(name, "a", &[1.0]).await;
    }
    let delays = "/v2/names?base=delay";
    assert_eq!(kit.names(delays).await, ["delay;to=ATL", "delay;to=MEM"]);
    asked.read();
    assert_eq!(kit.names("/v2/names?label.to=MEM").await, ["delay;to=MEM"]);
    assert_eq!(asked.read().0, 0, "the lists are kept");
    // Another Server commits: a new State of a known Tab, a new Tab, and a Tab that goes.
    kit.count("wind", "b", &[1.0]).await;
    assert_eq!(kit.names("/v2/names?re=true&name=w.*").await, ["wind"]);
    kit.count("delay;to=JFK", "a", &[1.0]).await;
    assert_eq!(kit.names(delays).await, ["delay;to=ATL", "delay;to=JFK", "delay;to=MEM"]);
    let home = kit.store.vbuckets().of(&TabName::new("delay;to=MEM").unwrap());
    kit.remove(home, "delay;to=MEM", "a").await;
    assert_eq!(kit.names(delays).await, ["delay;to=ATL", "delay;to=JFK"]);
}

#[tokio::test]
async fn a_store_that_went_back_is_answered_from_as_it_is_now() {
    let (kit, asked) = kit_of(handlers()).await;
    kit.count("x", "a", &[1.0]).await;
    // What a failover leaves: the same commits up to a point, and others after it.
    let older = Arc::new(MemoryStore::default());
    let home = kit.store.vbuckets().of(&TabName::new("x").unwrap());
    let loaded = kit.store.load(home, &Wanted::default()).await.unwrap();
    let states = kit.store.scan(home, &Scan::default()).await.unwrap();
    let parts = states.into_iter().flat_map(|state| {
        let key = state.key;
        state.parts.into_iter().map(move |(part, bytes)| (key.clone(), part, Some(bytes)))
    });
    let tabs = kit.store.tabs(home).await.unwrap().into_iter().map(|(tab, of)| (tab, Some(of))).collect();
    let commit = Commit::new(Version::NEVER, loaded.version).with_tabs(tabs).with_states(parts.collect());
    assert_eq!(older.commit(home, commit).await.unwrap(), Committed::Done);
    let total = async || kit.results("/v2/tabs?name=x").await[0]["value"]["total"].clone();
    assert_eq!(total().await, json!(1.0));
    kit.count("x", "b", &[5.0]).await;
    kit.count_in(home, "y", "b", &[5.0]).await;
    assert_eq!(total().await, json!(6.0));
    assert_eq!(kit.names("/v2/names").await, ["x", "y"]);
    asked.replace(&older);
    assert_eq!(total().await, json!(1.0));
    assert_eq!(kit.names("/v2/names").await, ["x"]);
}

#[tokio::test]
async fn what_did_not_change_is_not_read_again_and_what_changed_is() {
    let (kit, asked) = kit_of(standard()).await;
    let sum = ("CounterGroup", taba_handlers::CounterGroup::new());
    for n in 0..20 {
        for client in ["a", "b", "c"] {
            kit.fold((&format!("t{n:02}"), client), sum.clone(), &[(5, 1.0), (70, 2.0)]).await;
        }
        let gauge = ("Gauge", taba_handlers::Gauge::new());
        kit.fold((&format!("own{n:02}"), "a"), gauge, &[(5, Reading::from(3.0))]).await;
    }
    for path in [
        "/v2/tabs",
        "/v2/tabs?client=a",
        "/v2/tabs?name=t03,t04,own05",
        "/v2/tabs?re=true&name=t0.&at=1000000000",
    ] {
        let first = kit.results(path).await;
        asked.read();
        assert_eq!(kit.results(path).await, first, "{path}");
        assert_eq!(asked.read(), (0, 0), "{path}");
    }
    kit.fold(("t03", "d"), sum.clone(), &[(5, 10.0)]).await;
    let changed = kit.results("/v2/tabs").await;
    let states = asked.read().1;
    assert!((4..60).contains(&states), "only Tabs of that VBucket: {states}");
    let row = |rows: &[serde_json::Value], name: &str| {
        rows.iter()
            .find(|row| row["name"] == name)
            .map(|row| (row["clients"].clone(), row["value"].clone()))
            .unwrap()
    };
    assert_eq!(row(&changed, "t03").0, 4);
    // What is kept and what is read are the same answer.
    let whole = Kit::with_handlers(kit.store.clone(), kit.store.clone(), Limits::default(), standard());
    assert_eq!(whole.results("/v2/tabs").await, changed);
    let home = kit.store.vbuckets().of(&TabName::new("t03").unwrap());
    kit.remove(home, "t03", "d").await;
    kit.fold(("t03", "e"), sum, &[(5, 1.0)]).await;
    assert_eq!(kit.results("/v2/tabs?name=t03").await[0]["clients"], 4);
}

#[tokio::test]
async fn time_moves_windows_of_what_is_kept() {
    let clock = Arc::new(AtomicI64::new(NOW));
    let store = Arc::new(MemoryStore::default());
    let kit_of = |limits| Kit::with_clock(store.clone(), store.clone(), limits, standard(), clock.clone());
    let kit = kit_of(Limits::default());
    let sum = ("CounterGroup", taba_handlers::CounterGroup::new());
    kit.fold(("x", "a"), sum.clone(), &[(10, 1.0)]).await;
    kit.fold(("x", "b"), sum, &[(3000, 4.0)]).await;
    kit.fold(("g", "a"), ("Gauge", taba_handlers::Gauge::new()), &[(10, Reading::from(7.0))]).await;
    for secs in [0, 30, 600, 7200] {
        clock.store(NOW + secs, Ordering::SeqCst);
        // A Server that keeps nothing.
        let mut limits = Limits::default();
        (limits.tab_cache_bytes_max, limits.tab_index_bytes_max, limits.tabs_ahead) = (0, 0, 0);
        let fresh = kit_of(limits);
        assert_eq!(kit.results("/v2/tabs").await, fresh.results("/v2/tabs").await, "{secs} s later");
    }
}

/// A store whose scans wait, and tell how many of them there are.
#[derive(Default)]
struct Waiting {
    scans: AtomicUsize,
    ended: Arc<AtomicUsize>,
    is_open: AtomicBool,
}

/// Counts when it goes.
struct Ended(Arc<AtomicUsize>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Intruder for Waiting {
    async fn before(&self, call: StoreCall<'_>, _: VBucket) -> Result<(), StoreError> {
        if let StoreCall::Scan(scan) = call
            && scan.tab.as_ref().is_some_and(|tab| !tab.is_reserved())
            && !self.is_open.load(Ordering::SeqCst)
        {
            self.scans.fetch_add(1, Ordering::SeqCst);
            let _ended = Ended(Arc::clone(&self.ended));
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn tabs_are_read_side_by_side_within_a_bound_and_reads_end_with_their_query() {
    let memory = Arc::new(MemoryStore::default());
    let waiting = Arc::new(Intruded { store: memory.clone(), intruder: Waiting::default() });
    let mut limits = Limits::default();
    (limits.tabs_ahead, limits.vbuckets_at_once) = (7, 6);
    let kit = Kit::over(memory, waiting.clone(), limits);
    for n in 0..100 {
        kit.count(&format!("t{n:02}"), "a", &[1.0]).await;
    }
    let Waiting { scans, ended, is_open } = &waiting.intruder;
    let until = async |wanted: usize| {
        while scans.load(Ordering::SeqCst) < wanted {
            tokio::task::yield_now().await;
        }
    };
    let ask = |path: &'static str| Box::pin(kit.get(path));
    let mut first = ask("/v2/tabs");
    tokio::select! { _ = &mut first => panic!("it waits"), () = until(6) => {} }
    // Of seven that all queries share five are taken; one more is always there.
    let mut second = ask("/v2/projections");
    tokio::select! { _ = &mut second => panic!("it waits"), () = until(6 + 3) => {} }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scans.load(Ordering::SeqCst), 9);
    drop(first);
    drop(second);
    while ended.load(Ordering::SeqCst) < 9 {
        tokio::task::yield_now().await;
    }
    is_open.store(true, Ordering::SeqCst);
    let names: Vec<_> = (0..100).map(|n| format!("t{n:02}")).collect();
    assert_eq!(kit.names("/v2/tabs").await, names, "in order");
    assert_eq!(kit.names("/v2/projections").await, names, "in order");
}
