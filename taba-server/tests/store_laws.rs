//! `EmbeddedStore` keeps every law of a store, and says clearly when a directory cannot be opened.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use async_trait::async_trait;
use taba_core::laws::store::Fixture;
use taba_core::{Commit, Committed, Store, VBuckets, Version};
use taba_server::{EmbeddedError, EmbeddedOptions, EmbeddedStore};
use tempfile::TempDir;

struct Directory(TempDir);

#[async_trait]
impl Fixture for Directory {
    type Store = EmbeddedStore;
    const DURABLE: bool = true;

    async fn open(&mut self) -> EmbeddedStore {
        EmbeddedStore::open(self.0.path(), options(64)).unwrap()
    }
}

fn options(vbuckets: u32) -> EmbeddedOptions {
    EmbeddedOptions::new(VBuckets::new(vbuckets).unwrap())
}

taba_core::store_laws!(embedded, Directory(TempDir::new().unwrap()));

#[tokio::test]
async fn a_directory_is_opened_by_one_store_only() {
    let dir = TempDir::new().unwrap();
    let first = EmbeddedStore::open(dir.path(), options(64)).unwrap();
    let second = EmbeddedStore::open(dir.path(), options(64)).unwrap_err();
    assert!(matches!(second, EmbeddedError::Locked { .. }), "{second:?}");
    assert!(second.to_string().contains("another server uses this directory"));
    drop(first);
    EmbeddedStore::open(dir.path(), options(64)).unwrap();
}

#[tokio::test]
async fn a_directory_keeps_its_number_of_vbuckets() {
    let dir = TempDir::new().unwrap();
    drop(EmbeddedStore::open(dir.path(), options(64)).unwrap());
    let error = EmbeddedStore::open(dir.path(), options(128)).unwrap_err();
    assert!(matches!(error, EmbeddedError::VBuckets { found: 64, expected: 128 }), "{error:?}");
    assert_eq!(EmbeddedStore::open(dir.path(), options(64)).unwrap().vbuckets().count(), 64);
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("taba.redb");
    std::fs::write(&file, b"somebody's diary").unwrap();
    let error = EmbeddedStore::open(dir.path(), options(64)).unwrap_err();
    assert!(matches!(error, EmbeddedError::Database { .. }), "{error:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"somebody's diary");
    let error = EmbeddedStore::open(&file, options(64)).unwrap_err();
    assert!(matches!(error, EmbeddedError::Directory { .. }), "{error:?}");
}

#[tokio::test]
async fn many_commits_at_once_are_all_done() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), options(64)).unwrap();
    let commits = store.vbuckets().iter().flat_map(|vbucket| {
        // Two for each VBucket on the same expectation: one of them must lose.
        [1, 2].map(|writer| {
            let next = Version { writer, count: 1 };
            store.commit(vbucket, Commit::new(Version::NEVER, next))
        })
    });
    let outcomes = futures::future::join_all(commits).await;
    for pair in outcomes.chunks(2) {
        let done = |outcome: &Result<Committed, _>| matches!(outcome, Ok(Committed::Done));
        assert!(done(&pair[0]) != done(&pair[1]), "{pair:?}");
    }
}
