//! Locks: one holder at a time, and a holder that overslept is fenced.

use std::time::Duration;

use taba_shard::{Fenced, FencingToken, LockError};
use taba_tests::redis::{Options, Redis};
use taba_tests::wait_until;

use crate::kit;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(60);

/// Waits until the lease in this lock has run out by the clock of its Redis.
fn run_out(redis: &Redis, name: &str) {
    let vbucket = taba_shard::vbucket_of(kit::options().vbuckets, name.as_bytes()).unwrap();
    let until: u64 =
        redis.command(&["HGET", &format!("{{{vbucket}}}!test:{name}"), "until"]).parse().unwrap();
    wait_until("the lease runs out", || {
        let time = redis.command(&["TIME"]);
        let parts: Vec<u64> = time.lines().map(|part| part.parse().unwrap()).collect();
        parts[0] * 1_000_000 + parts[1] >= until
    });
}

#[tokio::test]
async fn one_holds_it_and_only_the_holder_gives_it_back() {
    let redis = [Redis::start(Options::durable())];
    let data = kit::shards(&redis).await.data("test").unwrap();
    let first = data.lock("l", LONG).await.unwrap();
    let held = data.lock("l", LONG).await.unwrap_err();
    assert!(matches!(&held, LockError::Held { left } if *left <= LONG && !left.is_zero()), "{held:?}");
    let other = data.lock("m", LONG).await.unwrap();
    data.renew(&first, LONG).await.unwrap();
    let token = first.token();
    data.unlock(first.clone()).await.unwrap();
    assert!(matches!(data.unlock(first.clone()).await, Err(LockError::Lost)));
    assert!(matches!(data.renew(&first, LONG).await, Err(LockError::Lost)));
    let second = data.lock("l", LONG).await.unwrap();
    assert!(second.token() > token);
    // The first holder does not take away what is the second's.
    assert!(matches!(data.unlock(first).await, Err(LockError::Lost)));
    assert!(matches!(data.lock("l", LONG).await, Err(LockError::Held { .. })));
    data.unlock(second).await.unwrap();
    data.unlock(other).await.unwrap();
    assert!(matches!(data.lock("l", Duration::ZERO).await, Err(LockError::Time { .. })));
    let racers = futures::future::join_all((0..20).map(|_| data.lock("r", LONG))).await;
    assert_eq!(racers.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}

#[tokio::test]
async fn a_holder_whose_lease_ran_out_is_fenced_by_its_token() {
    let redis = [Redis::start(Options::durable())];
    let data = kit::shards(&redis).await.data("test").unwrap();
    let sleeper = data.lock("l", SHORT).await.unwrap();
    assert_eq!(data.fenced_set("guarded", sleeper.token(), "by the sleeper").await.unwrap(), Fenced::Done);
    run_out(&redis[0], "l");
    assert!(matches!(data.renew(&sleeper, LONG).await, Err(LockError::Lost)), "also while it is free");
    let second = data.lock("l", LONG).await.unwrap();
    assert!(second.token() > sleeper.token());
    assert_eq!(data.fenced_set("guarded", second.token(), "by the second").await.unwrap(), Fenced::Done);
    // It wakes up, believes to hold the lock, and writes.
    let late = data.fenced_set("guarded", sleeper.token(), "too late").await.unwrap();
    assert_eq!(late, Fenced::Stale { highest: second.token() });
    let (token, value) = data.fenced_get("guarded").await.unwrap().unwrap();
    assert_eq!((token, value.as_ref()), (second.token(), b"by the second".as_slice()));
    assert_eq!(data.fenced_get("nothing").await.unwrap(), None);
    assert!(matches!(data.unlock(sleeper).await, Err(LockError::Lost)));
    data.unlock(second).await.unwrap();
}

#[tokio::test]
async fn tokens_go_up_through_restarts_and_through_a_redis_that_forgot() {
    let mut redis = [Redis::start(Options::durable())];
    let shards = kit::shards(&redis).await;
    let data = shards.data("test").unwrap();
    let mut last = FencingToken(0);
    for round in 0..3 {
        let lease = loop {
            match data.lock("l", LONG).await {
                Ok(lease) => break lease,
                Err(LockError::Data(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error:?}"),
            }
        };
        assert!(lease.token() > last, "{lease:?}");
        last = lease.token();
        data.unlock(lease).await.unwrap();
        match round {
            0 => redis[0].restart(),
            // As a failover onto a replica that had not heard of the lock: the counter is gone.
            _ => assert_eq!(
                redis[0].command(&[
                    "DEL",
                    &format!("{{{}}}!test:l", taba_shard::vbucket_of(kit::options().vbuckets, b"l").unwrap())
                ]),
                "1"
            ),
        }
    }
    // A counter ahead of the clock goes on counting.
    let name = format!("{{{}}}!test:l", taba_shard::vbucket_of(kit::options().vbuckets, b"l").unwrap());
    redis[0].command(&["HSET", &name, "token", "9000000000000000"]);
    assert_eq!(data.lock("l", LONG).await.unwrap().token(), FencingToken(9_000_000_000_000_001));
}
