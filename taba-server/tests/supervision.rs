//! Parts of a Server that fail: it says so, takes nothing more, and still commits what it can.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lanes;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lanes::{batch, block, tab_in};
use taba_core::wire::{Answer, Lanes};
use taba_core::{
    Commit, Committed, Loaded, MemoryStore, Scan, Scanned, Store, StoreError, TabName, TabType, VBucket,
    VBuckets, Wanted,
};
use taba_server::Server;
use tokio::sync::Semaphore;

/// A store whose commits to VBucket 1 panic, and whose other commits wait for the test.
struct Faulty {
    inside: MemoryStore,
    gate: Semaphore,
    waiting: AtomicUsize,
}

#[async_trait]
impl Store for Faulty {
    fn vbuckets(&self) -> VBuckets {
        self.inside.vbuckets()
    }

    async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError> {
        self.inside.load(vbucket, wanted).await
    }

    async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError> {
        assert_ne!(vbucket.index(), 1, "the deliberate fault");
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _gate = self.gate.acquire().await.unwrap();
        self.inside.commit(vbucket, commit).await
    }

    async fn stable(&self, vbucket: VBucket) -> Result<(), StoreError> {
        self.inside.stable(vbucket).await
    }

    async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
        self.inside.tabs(vbucket).await
    }

    async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError> {
        self.inside.scan(vbucket, scan).await
    }
}

fn server() -> (Server, Arc<Faulty>) {
    let (gate, waiting) = (Semaphore::new(0), AtomicUsize::new(0));
    let store = Arc::new(Faulty { inside: MemoryStore::new(VBuckets::new(64).unwrap()), gate, waiting });
    let builder =
        Server::builder().shared_store(store.clone()).handlers(taba_handlers::standard().build().unwrap());
    (builder.workers(NonZeroUsize::new(2).unwrap()).build().unwrap(), store)
}

/// One Batch for this VBucket.
fn lanes_to(vbucket: u16) -> Lanes {
    let tab = tab_in(VBuckets::new(64).unwrap(), vbucket, "t");
    lanes::lanes(vec![batch(1, vbucket, 1, 0, vec![block(&tab, "a", &[1.0])])])
}

/// Sends a Batch, and waits until its commit is under way.
async fn begin(server: &Server, store: &Faulty, vbucket: u16) -> tokio::task::JoinHandle<Answer> {
    let before = store.waiting.load(Ordering::SeqCst);
    let task = server.clone();
    let sent = tokio::spawn(async move { task.ingest(lanes_to(vbucket)).await[0].answer });
    while store.waiting.load(Ordering::SeqCst) == before {
        tokio::task::yield_now().await;
    }
    sent
}

const WAIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_store_that_panics_ends_the_server_after_its_other_commits() {
    let (server, store) = server();
    // The same worker has VBuckets 1 and 3.
    let others = begin(&server, &store, 3).await;
    assert_eq!(server.ingest(lanes_to(1)).await[0].answer, Answer::Unavailable);
    let failure = tokio::time::timeout(WAIT, server.failed()).await.unwrap();
    assert!(
        failure.to_string().contains("the store of the server failed") && failure.why.contains("deliberate")
    );
    assert_eq!(server.ingest(lanes_to(2)).await[0].answer, Answer::Unavailable, "it takes nothing more");
    let stopping = server.clone();
    let stopped = tokio::spawn(async move { stopping.shutdown(WAIT).await });
    store.gate.add_permits(1);
    assert_eq!(others.await.unwrap(), Answer::Applied, "what was under way is committed");
    assert_eq!(stopped.await.unwrap().requests_unanswered, 0);
}

#[tokio::test]
async fn a_shutdown_that_is_dropped_aborts_no_commit() {
    let (server, store) = server();
    let sent = begin(&server, &store, 3).await;
    let report = tokio::time::timeout(Duration::from_millis(1), server.shutdown(WAIT)).await;
    assert!(report.is_err(), "it had to wait");
    store.gate.add_permits(1);
    assert_eq!(sent.await.unwrap(), Answer::Applied);
    assert_eq!(server.shutdown(WAIT).await.requests_unanswered, 0, "asked again, it comes to its end");
}

#[tokio::test]
async fn a_server_whose_handles_are_gone_still_commits() {
    let (server, store) = server();
    let sent = begin(&server, &store, 3).await;
    drop(server);
    store.gate.add_permits(1);
    assert_eq!(sent.await.unwrap(), Answer::Applied);
}
