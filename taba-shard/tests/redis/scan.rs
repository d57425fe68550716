//! A scan finds every key, of every shard, through writes and restarts.

use std::collections::BTreeSet;

use bytes::Bytes;
use taba_shard::{Data, DataError};
use taba_tests::redis::{Options, Redis};

use crate::kit;

async fn page_by_page(data: &Data, keys: usize, mut between: impl FnMut(usize)) -> Vec<Bytes> {
    let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = match data.scan(cursor.clone(), keys).await {
            Ok(page) => page,
            Err(DataError::Link(_)) => continue,
            Err(error) => panic!("{error:?}"),
        };
        let unique: BTreeSet<_> = page.keys.iter().collect();
        assert_eq!(unique.len(), page.keys.len(), "no key comes twice on a page");
        found.extend(page.keys);
        pages += 1;
        assert!(pages < 10_000, "it never ends");
        between(pages);
        let Some(next) = page.next else { return found };
        cursor = Some(next);
    }
}

async fn filled(redis: &[Redis], count: usize) -> (Data, BTreeSet<Bytes>) {
    let shards = kit::shards(redis).await;
    let data = shards.data("test").unwrap();
    let other = shards.data("test2").unwrap();
    let keys: Vec<String> = (0..count).map(|n| format!("key:{n}")).collect();
    assert!(data.set_many(keys.iter().map(|key| (key, "x"))).await.iter().all(Result::is_ok));
    assert!(
        other.set_many(keys.iter().map(|key| (format!("not {key}"), "x"))).await.iter().all(Result::is_ok)
    );
    let lock = data.lock("a lock is no key", std::time::Duration::from_secs(9)).await.unwrap();
    data.unlock(lock).await.unwrap();
    (data, keys.into_iter().map(Bytes::from).collect())
}

#[tokio::test]
async fn every_key_of_the_namespace_and_no_other() {
    let redis = Redis::start_many(3, &Options::default());
    let (data, keys) = filled(&redis, 500).await;
    for count in [1, 10, 1000, usize::MAX] {
        let found: BTreeSet<_> = page_by_page(&data, count, |_| ()).await.into_iter().collect();
        assert_eq!(found, keys);
    }
    let nothing = kit::shards(&redis).await.data("empty").unwrap();
    assert_eq!(page_by_page(&nothing, 100, |_| ()).await, Vec::<Bytes>::new());
}

#[tokio::test]
async fn keys_that_stay_are_found_while_others_come_and_go() {
    let redis = Redis::start_many(2, &Options::default());
    let (data, keys) = filled(&redis, 300).await;
    let vbuckets = kit::options().vbuckets;
    let mut n = 0;
    let found = page_by_page(&data, 10, |_| {
        for _ in 0..50 {
            let key = format!("new:{n}");
            let vbucket = taba_shard::vbucket_of(vbuckets, key.as_bytes()).unwrap();
            let shard = usize::from(vbucket.index() >= 32);
            redis[shard].command(&["SET", &format!("{{{vbucket}}}:test:{key}"), "x"]);
            n += 1;
        }
    });
    let found: BTreeSet<_> = found.await.into_iter().collect();
    assert!(found.is_superset(&keys), "{} of {} were missed", keys.difference(&found).count(), keys.len());
}

/// A position in one process means nothing in another: it hashes with another seed.
#[tokio::test]
async fn a_restart_in_the_middle_hides_no_key() {
    let mut redis = Redis::start_many(2, &Options::durable());
    let (data, keys) = filled(&redis, 400).await;
    let found = page_by_page(&data, 10, |pages| {
        if pages == 15 || pages == 40 {
            redis[0].restart();
        }
    });
    let found: Vec<_> = found.await;
    let unique: BTreeSet<_> = found.iter().cloned().collect();
    assert_eq!(unique, keys);
    assert!(found.len() > keys.len(), "the restart was after the end: nothing was tried");
}
