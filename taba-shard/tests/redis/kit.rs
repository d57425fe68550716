//! What the tests on real Redis processes share.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use taba_core::{
    ClientId, Commit, Committed, Loaded, Mark, Part, SeqNo, StateKey, Store, StoreError, StreamId, TabName,
    TabType, VBucket, VBuckets, Version, Wanted, causes,
};
use taba_shard::{
    Bootstrap, ShardId, ShardUrl, ShardedRedis, Shards, ShardsOptions, Topology, TopologyError,
};
use taba_tests::PATIENCE;
use taba_tests::redis::Redis;

pub(crate) fn urls(redis: &[Redis]) -> Vec<ShardUrl> {
    redis.iter().map(|redis| ShardUrl::new(&redis.url()).unwrap()).collect()
}

/// 64 VBuckets, made where there are none; short waits.
pub(crate) fn options() -> ShardsOptions {
    let mut options = ShardsOptions::default();
    options.vbuckets = VBuckets::new(64).unwrap();
    options.bootstrap = Bootstrap::IfEmpty;
    options.response_timeout = Duration::from_secs(5);
    options.stability.disk_lag = Duration::from_millis(200);
    options
}

pub(crate) async fn store(redis: &[Redis]) -> ShardedRedis {
    ShardedRedis::connect(urls(redis), options()).await.unwrap()
}

pub(crate) async fn shards(redis: &[Redis]) -> Shards {
    Shards::connect(urls(redis), options()).await.unwrap()
}

pub(crate) fn vbucket(index: u16) -> VBucket {
    VBuckets::new(64).unwrap().get(index).unwrap()
}

pub(crate) fn version(count: u64) -> Version {
    Version { writer: 77, count }
}

pub(crate) fn tab(name: &str) -> TabName {
    TabName::new(name).unwrap()
}

pub(crate) fn key(name: &str) -> StateKey {
    StateKey { tab: tab(name), client: ClientId::new("web").unwrap() }
}

pub(crate) fn mark(n: u64) -> Mark {
    Mark::new(SeqNo(n), 10 * n, 500_000)
}

pub(crate) fn content(of: &str, n: u64) -> Bytes {
    format!("{of} as of {n}").into_bytes().into()
}

/// A commit that writes content `n` of each Tab, and mark `n`.
pub(crate) fn commit(expect: u64, n: u64, tabs: &[&str]) -> Commit {
    Commit::new(if expect == 0 { Version::NEVER } else { version(expect) }, version(n))
        .with_marks(vec![(StreamId(5), Some(mark(n)))])
        .with_tabs(tabs.iter().map(|name| (tab(name), Some(TabType::new("Count").unwrap()))).collect())
        .with_states(tabs.iter().map(|name| (key(name), Part::WHOLE, Some(content(name, n)))).collect())
}

pub(crate) fn wanted(tabs: &[&str]) -> Wanted {
    Wanted::default()
        .with_tabs(tabs.iter().map(|name| tab(name)).collect())
        .with_states(tabs.iter().map(|name| key(name)).collect())
}

/// What a VBucket holds after `commit(_, n, tabs)` and nothing else.
pub(crate) fn loaded(n: u64, tabs: &[&str]) -> Loaded {
    Loaded::new(version(n))
        .with_marks(vec![(StreamId(5), mark(n))])
        .with_tabs(tabs.iter().map(|name| (tab(name), TabType::new("Count").unwrap())).collect())
        .with_states(tabs.iter().map(|name| (key(name), Part::WHOLE, content(name, n))).collect())
}

pub(crate) async fn load(store: &ShardedRedis, vbucket: VBucket, tabs: &[&str]) -> Loaded {
    try_load(store, vbucket, tabs).await.unwrap()
}

/// Commits, and expects that it is done.
pub(crate) async fn done(store: &ShardedRedis, vbucket: VBucket, commit: Commit) {
    assert_eq!(store.commit(vbucket, commit).await.unwrap(), Committed::Done);
}

pub(crate) async fn try_load(
    store: &ShardedRedis,
    vbucket: VBucket,
    tabs: &[&str],
) -> Result<Loaded, StoreError> {
    store.load(vbucket, &wanted(tabs)).await
}

/// One shard whose address changes: what Sentinel, or a virtual address, does.
pub(crate) struct Switch(Mutex<ShardUrl>);

impl Switch {
    pub(crate) fn new(redis: &Redis) -> Arc<Self> {
        Arc::new(Self(Mutex::new(ShardUrl::new(&redis.url()).unwrap())))
    }

    pub(crate) fn switch_to(&self, redis: &Redis) {
        *self.0.lock().unwrap() = ShardUrl::new(&redis.url()).unwrap();
    }
}

#[async_trait]
impl Topology for Switch {
    fn shards(&self) -> usize {
        1
    }

    async fn address(&self, _: ShardId) -> Result<ShardUrl, TopologyError> {
        Ok(self.0.lock().unwrap().clone())
    }
}

/// The refusal of a commit, once it says that its shard has lost its data.
pub(crate) async fn refused_as_lost(store: &ShardedRedis, change: impl Fn() -> Commit) -> StoreError {
    let refused = async {
        loop {
            match store.commit(vbucket(1), change()).await {
                Err(error) if causes(&error).contains("has lost its data") => return error,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(outcome) => panic!("{outcome:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap()
}
