//! What a Server keeps between queries is never older than the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::json;
use taba_core::{
    Commit, Committed, Loaded, MemoryStore, Page, Scan, Scanned, Store, StoreError, TabList, TabName,
    TabType, VBucket, VBuckets, Version, Wanted,
};
use taba_server::query::Limits;

use crate::kit::Kit;

/// A store that can go back to an older one, and counts what it is asked for.
#[derive(Default)]
struct Replaceable {
    store: Mutex<Arc<MemoryStore>>,
    /// Tabs that were read.
    tabs: AtomicUsize,
    /// States that were read.
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
        self.states.fetch_add(page.states.len(), Ordering::SeqCst);
        Ok(page)
    }
}

/// A store, its content so far in another one that goes on alone, and the store that a Server asks.
async fn kit_of(limits: Limits) -> (Kit, Arc<Replaceable>) {
    let memory = Arc::new(MemoryStore::default());
    let asked = Arc::new(Replaceable::default());
    asked.replace(&memory);
    let kit = Kit::over(memory, asked.clone(), limits);
    kit.settle_spread().await;
    (kit, asked)
}

#[tokio::test]
async fn names_are_read_once_and_what_others_commit_is_seen_at_once() {
    let (kit, asked) = kit_of(Limits::default()).await;
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
    let (kit, asked) = kit_of(Limits::default()).await;
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
