//! An operator that was stopped between two steps, while others went on: what it does next does no harm. The same, with
//! what it leads to, is in `tests/tests/spec_moves.rs`.

use std::time::Duration;

use taba_core::{VBucket, VBuckets};
use taba_tests::redis::{Options, Redis};

use super::*;
use crate::mover::MoverOptions;
use crate::redis::{Bootstrap, ShardsOptions};
use crate::{ShardUrl, Shards};

/// Two shards, the VBucket that is moved from the first to the second, and who moves it.
struct Two {
    redis: Vec<Redis>,
    mover: Mover,
    this: Move,
    hash: String,
}

impl Two {
    async fn start(change: impl FnOnce(&mut ShardsOptions)) -> Self {
        let redis = Redis::start_many(2, &Options::durable());
        let vbuckets = VBuckets::new(64).unwrap();
        let mut options =
            ShardsOptions { vbuckets, bootstrap: Bootstrap::IfEmpty, ..ShardsOptions::default() };
        change(&mut options);
        let urls = redis.iter().map(|redis| ShardUrl::new(&redis.url()).unwrap()).collect();
        let shards = Shards::connect(urls, options).await.unwrap();
        let name = |shard| shards.link(ShardId(shard)).name().unwrap();
        let owned = |vbucket: &VBucket| shards.view().owner(*vbucket).unwrap().shard == ShardId(0);
        let vbucket = shards.vbuckets().iter().find(owned).unwrap();
        let this = Move { vbucket, from: name(0), to: name(1) };
        let hash = keys::hash(vbucket);
        let mut by = MoverOptions::by("test");
        by.retry_max = Duration::from_secs(1);
        Self { mover: Mover::new(shards, by), redis, this, hash }
    }

    fn carried<'a>(&self, tell: &'a (dyn Fn(MoveEvent) + Sync)) -> Carried<'a> {
        let link = |shard| self.mover.take_link(ShardId(shard));
        Carried {
            this: self.this,
            source: link(0),
            destination: link(1),
            tell,
            fenced: None,
            switched: None,
            is_rolled_back: false,
            replicas: None,
        }
    }

    /// The shard holds this copy, with content, if `content` says so.
    fn holds(&self, shard: usize, own: u64, moved: Option<(u64, ShardName)>, content: bool) {
        let (redis, hash, own) = (&self.redis[shard], self.hash.as_str(), own.to_string());
        redis.command(&["DEL", hash]);
        let of = layout::put_deployment(self.mover.shards.view().deployment());
        redis.command(&["HSET", hash, "ver", "0000000000000007-1", "own", &own, "of", &of]);
        if let Some((epoch, to)) = moved {
            redis.command(&["HSET", hash, "moved", &layout::put_moved(epoch, to)]);
        }
        if content {
            redis.command(&["HSET", hash, "t:tab", "Count"]);
        }
    }

    fn own(&self, shard: usize) -> String {
        self.redis[shard].command(&["HGET", &self.hash, "own"])
    }
}

/// It had seen the bar; then the destination lost that, was switched by another operator, and may have taken commits.
#[tokio::test]
async fn a_source_whose_destination_was_switched_is_not_unfenced() {
    let two = Two::start(|_| {}).await;
    let moved = Some((2, two.this.to));
    two.holds(0, 1, moved, true);
    two.holds(1, 2, None, true);
    let mut carried = two.carried(&|_| {});
    two.mover.unfence(&mut carried, ShardId(1), (1, moved), 3).await.unwrap();
    assert_eq!((two.own(0), two.own(1)), ("1".to_owned(), "2".to_owned()));
    assert!(!carried.is_rolled_back);
    // Where the bar is there, it is.
    two.redis[1].command(&["DEL", &two.hash]);
    two.mover.unfence(&mut carried, ShardId(1), (1, moved), 3).await.unwrap();
    assert_eq!((two.own(0), two.own(1)), ("3".to_owned(), "2".to_owned()));
    assert!(carried.is_rolled_back);
}

/// It was stopped after the bar was confirmed, for so long that the destination may have forgotten it.
#[tokio::test]
async fn a_source_is_not_unfenced_late() {
    let two = Two::start(|_| {}).await;
    let moved = (2, two.this.to);
    two.holds(0, 1, Some(moved), true);
    let link = two.mover.take_link(ShardId(0));
    let unfence = |deadline: u64| {
        let mut call = scripts::UNFENCE.call(&[&two.hash]);
        call.arg(1).arg(layout::put_moved(moved.0, moved.1)).arg(3).arg(deadline);
        call
    };
    let (now, _) = read_time(&link).await.unwrap();
    assert_ne!(link.one(unfence(now - 1)).await.unwrap(), Reply::Integer(1));
    assert_eq!(two.own(0), "1");
    assert_eq!(link.one(unfence(now + 60_000_000)).await.unwrap(), Reply::Integer(1));
    assert_eq!(two.own(0), "3");
}

/// The move goes back to where the VBucket came from a moment ago: the copy there is the only one that is on a disk.
#[tokio::test]
async fn an_older_copy_stays_until_the_source_is_stable() {
    let two = Two::start(|options| {
        options.stability.disk_lag = Duration::from_secs(3600);
        options.stable_wait_max = Duration::from_millis(200);
    })
    .await;
    let moved = Some((3, two.this.to));
    two.holds(0, 2, moved, true);
    two.holds(1, 1, Some((2, two.this.from)), true);
    let carried = two.carried(&|_| {});
    two.mover.confirm_and_bar(&carried, ShardId(0), 2, true, 3).await.unwrap();
    assert_eq!(two.redis[1].command(&["HGET", &two.hash, "t:tab"]), "Count", "the copy is gone");
    assert_eq!(two.own(1), "1");
}
