//! VBuckets that move from Redis to Redis while they are written to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use taba_core::{ClientId, Commit, Committed, Part, Peek, StateKey, Store, VBucket, Wanted, causes};
use taba_shard::migration::survey::Pending;
use taba_shard::migration::{Goal, Move};
use taba_shard::mover::{MoveEvent, MoveReport, Mover, MoverOptions};
use taba_shard::shard_map::ShardMap;
use taba_shard::{ShardName, ShardUrl, ShardedRedis, Shards};
use taba_tests::redis::{Options, Redis};

use crate::kit::{self, commit, content, key, loaded, vbucket};

/// Writes to every VBucket in turn until it is told to stop; each commit has to be done at the first try.
pub(crate) struct Load {
    store: Arc<ShardedRedis>,
    stop: Arc<AtomicBool>,
    /// How many commits each VBucket has.
    counts: Arc<Vec<AtomicU64>>,
    /// How long each commit and each load took, in microseconds.
    micros: Arc<Mutex<Vec<u64>>>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

#[expect(clippy::disallowed_methods, reason = "what takes how long is printed, and nothing is decided by it")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

const WRITERS: u16 = 8;

/// Looks at all VBuckets in one go: each says what it holds, wherever it is; of one it is known what that is.
async fn peek_at_all(store: &ShardedRedis, counts: &[AtomicU64], (known, n): (u16, u64)) {
    let before: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let peeks: Vec<_> = (0..64).map(|index| Peek::new(vbucket(index), vec![key("b"), key("c")])).collect();
    for (index, (peeked, before)) in (0..).zip(store.peek(&peeks).await.into_iter().zip(before)) {
        let peeked = peeked.unwrap_or_else(|error| panic!("vbucket {index}: {}", causes(&error)));
        let count = peeked.version.unwrap().count;
        assert!(count >= before, "vbucket {index} is at {count} after {before}");
        assert!(index != known || count == n, "vbucket {index} is at {count}, and not at {n}");
        let is_new = (count == 0).then_some(None);
        assert_eq!(peeked.states, [is_new.unwrap_or_else(|| Some(content("b", count))), None]);
    }
}

impl Load {
    pub(crate) async fn start(urls: Vec<ShardUrl>) -> Self {
        let store = Arc::new(ShardedRedis::connect(urls, kit::options()).await.unwrap());
        let micros = Arc::<Mutex<Vec<u64>>>::default();
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), (0..64).map(|_| AtomicU64::new(0)).collect());
        let counts: Arc<Vec<AtomicU64>> = Arc::new(counts);
        let writers = (0..WRITERS).map(|writer| {
            let (store, stop, counts) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&counts));
            let micros = Arc::clone(&micros);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    for index in (writer..64).step_by(usize::from(WRITERS)) {
                        let n = counts[usize::from(index)].load(Ordering::Relaxed);
                        let begun = now();
                        let outcome = store.commit(vbucket(index), commit(n, n + 1, &["a", "b"])).await;
                        micros.lock().unwrap().push(begun.elapsed().as_micros() as u64);
                        match outcome {
                            Ok(outcome) => {
                                assert_eq!(outcome, Committed::Done, "vbucket {index}, commit {n}");
                            }
                            Err(error) => panic!("vbucket {index}, commit {n}: {}", causes(&error)),
                        }
                        counts[usize::from(index)].store(n + 1, Ordering::Relaxed);
                        if n % 8 == 0 {
                            let begun = now();
                            let found = kit::load(&store, vbucket(index), &["a", "b"]).await;
                            micros.lock().unwrap().push(begun.elapsed().as_micros() as u64);
                            assert_eq!(found, loaded(n + 1, &["a", "b"]));
                            peek_at_all(&store, &counts, (index, n + 1)).await;
                        }
                    }
                }
            })
        });
        Self { writers: writers.collect(), store, stop, counts, micros }
    }

    /// Waits until every VBucket has this many commits more.
    pub(crate) async fn goes_on(&self, more: u64) {
        let before: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        for (count, before) in self.counts.iter().zip(before) {
            while count.load(Ordering::Relaxed) < before + more {
                assert!(
                    !self.writers.iter().any(tokio::task::JoinHandle::is_finished),
                    "a writer has failed"
                );
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    /// How long the commits and loads since the last call took.
    pub(crate) fn took(&self) -> String {
        let mut micros = std::mem::take(&mut *self.micros.lock().unwrap());
        micros.sort_unstable();
        let at = |permille: usize| Duration::from_micros(micros[(micros.len() - 1) * permille / 1000]);
        format!("{} operations: p50 {:?}, p99 {:?}, max {:?}", micros.len(), at(500), at(990), at(1000))
    }

    /// Stops, and compares what is stored with what was written, as a Server that starts now sees it.
    pub(crate) async fn end(self, urls: Vec<ShardUrl>) {
        self.goes_on(2).await;
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
        let fresh = ShardedRedis::connect(urls, kit::options()).await.unwrap();
        for index in 0..64 {
            let n = self.counts[usize::from(index)].load(Ordering::Relaxed);
            assert_eq!(kit::load(&fresh, vbucket(index), &["a", "b"]).await, loaded(n, &["a", "b"]));
            kit::done(&self.store, vbucket(index), commit(n, n + 1, &["a"])).await;
        }
        self.store.stable(vbucket(0)).await.unwrap();
    }
}

fn mover(shards: &Shards) -> Mover {
    Mover::new(shards.clone(), MoverOptions::by("test"))
}

/// Does everything that is pending; panics when something cannot be done.
async fn settle(mover: &Mover) -> MoveReport {
    let fail = |event| {
        if let MoveEvent::Failed { this, error } = event {
            panic!("{this}: {}", causes(&error));
        }
    };
    mover.settle(fail).await.unwrap()
}

fn owned(shards: &Shards, name: ShardName) -> usize {
    let (view, id) = (shards.view(), shards.id_of(name));
    shards.vbuckets().iter().filter(|vbucket| view.owner(*vbucket).map(|owner| owner.shard) == id).count()
}

async fn name(redis: &Redis) -> ShardName {
    redis.command(&["GET", "taba:shard"]).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_grows_and_shrinks_under_load() {
    let redis = Redis::start_many(4, &Options::durable());
    let load = Load::start(kit::urls(&redis[..1])).await;
    load.goes_on(3).await;
    // The operator knows the first only, and says where the others are.
    let shards = kit::shards(&redis[..1]).await;
    let mover = mover(&shards);
    for count in [2, 4] {
        for redis in &redis[count / 2..count] {
            shards.add_shard(&format!("127.0.0.1:{}", redis.port())).await.unwrap();
        }
        shards.change_map(ShardMap::balanced).await.unwrap();
        let report = settle(&mover).await;
        println!(
            "paused: p50 {:?}, p99 {:?}, max {:?}",
            report.pause(500),
            report.pause(990),
            report.pause(1000)
        );
        assert_eq!(report.ended, 32, "half of them: {report:?}");
        shards.census().await.unwrap();
        for redis in &redis[..count] {
            assert_eq!(owned(&shards, name(redis).await), 64 / count);
        }
        load.goes_on(3).await;
    }
    // Back to one, and it is not the first.
    for redis in &redis[..3] {
        let name = name(redis).await;
        shards.change_map(|map| map.with_draining(name, true)).await.unwrap();
    }
    shards.change_map(ShardMap::balanced).await.unwrap();
    assert_eq!(settle(&mover).await.ended, 48);
    for redis in &redis[..3] {
        shards.remove_shard(name(redis).await).await.unwrap();
    }
    load.goes_on(3).await;
    // Who knows only what is no shard any more finds the deployment all the same.
    assert_eq!(owned(&kit::shards(&redis[..1]).await, name(&redis[3]).await), 64);
    load.end(kit::urls(&redis[3..])).await;
    let map = shards.map().unwrap();
    assert_eq!(map.shards().len(), 1);
    // What is left where they were: a name and tombstones.
    for redis in &redis[..3] {
        let keys = redis.command(&["KEYS", "*"]);
        let is_left = |key: &str| {
            ["taba:shard", "taba:moves", "taba:map", "taba:map-lock"].contains(&key)
                || key.starts_with("{vb") && key.ends_with('}')
        };
        assert!(keys.lines().all(is_left), "{keys}");
    }
    let log = shards.moves(1000).await.unwrap();
    assert!(log.iter().all(|line| line.by == "test" && line.outcome == "moved" && line.bytes > 0), "{log:?}");
}

/// What was begun by an operator who is gone.
fn fence(redis: &Redis, index: u16, to: ShardName) -> VBucket {
    let (hash, vbucket) = (format!("{{vb{index:04}}}"), vbucket(index));
    let own: u64 = redis.command(&["HGET", &hash, "own"]).parse().unwrap();
    redis.command(&["HSET", &hash, "moved", &format!("{}:{to}", own + 1)]);
    vbucket
}

#[tokio::test]
async fn what_another_operator_left_is_gone_on_with_or_taken_back() {
    let redis = Redis::start_many(2, &Options::durable());
    let store = kit::store(&redis).await;
    for index in 0..64 {
        kit::done(&store, vbucket(index), commit(0, 1, &["a"])).await;
    }
    let shards = kit::shards(&redis).await;
    let (one, two) = (name(&redis[0]).await, name(&redis[1]).await);
    let mover = mover(&shards);
    let left = [fence(&redis[0], 1, two), fence(&redis[0], 2, two)];
    let survey = shards.survey().await.unwrap();
    let pending: Vec<_> = survey.pending(None).collect();
    let this = |vbucket| Move { vbucket, from: one, to: two };
    assert_eq!(pending, left.map(|vbucket| (vbucket, Pending::Fenced(this(vbucket)))));
    // One is taken back: its writes go on where it was, under a higher epoch.
    let report = mover.run(Goal::Back, &[this(left[0])], |_| {}).await;
    assert_eq!((report.rolled_back, report.failed), (1, 0));
    assert_eq!(redis[0].command(&["HMGET", "{vb0001}", "own", "moved"]), "3\n(nil)");
    assert_eq!(redis[1].command(&["HMGET", "{vb0001}", "own", "bar"]), "2\n1");
    kit::done(&store, left[0], commit(1, 2, &["a"])).await;
    // The other one arrives. Twice is as good as once, and it is too late to take it back.
    for _ in 0..2 {
        let report = mover.run(Goal::Forward, &[this(left[1])], |_| {}).await;
        assert_eq!((report.ended, report.failed), (1, 0));
    }
    assert_eq!(redis[0].command(&["HGETALL", "{vb0002}"]).lines().count(), 8, "a tombstone");
    kit::done(&store, left[1], commit(1, 2, &["a"])).await;
    let report = mover.run(Goal::Back, &[this(left[1])], |_| {}).await;
    assert_eq!(report.failed, 1);
    // And back, over its own tombstone.
    let back = Move { vbucket: left[1], from: two, to: one };
    assert_eq!(mover.run(Goal::Forward, &[back], |_| {}).await.ended, 1);
    assert_eq!(kit::load(&store, left[1], &["a"]).await, loaded(2, &["a"]));
    assert_eq!(kit::load(&store, left[0], &["a"]).await, loaded(2, &["a"]));
}

#[tokio::test]
async fn a_large_vbucket_arrives_whole_and_a_foreign_key_stops_its_move() {
    let redis = Redis::start_many(2, &Options::durable());
    let store = kit::store(&redis).await;
    for index in 0..64 {
        kit::done(&store, vbucket(index), commit(0, 1, &["a"])).await;
    }
    // More fields and bytes than one portion of a copy has, more entries in one index, and more indexes.
    let key = |tab: usize, client: usize| StateKey {
        tab: kit::tab(&format!("t{tab}")),
        client: ClientId::new(&format!("c{client}")).unwrap(),
    };
    let states: Vec<StateKey> =
        (0..300).map(|n| key(n, 0)).chain((0..2_000).map(|n| key(0, n + 1))).collect();
    let value = Bytes::from(vec![7; 1_500]);
    let whole = |state: &StateKey| (state.clone(), Part::WHOLE, Some(value.clone()));
    let change =
        Commit::new(kit::version(1), kit::version(2)).with_states(states.iter().map(whole).collect());
    kit::done(&store, vbucket(1), change).await;

    let shards = kit::shards(&redis).await;
    let this = Move { vbucket: vbucket(1), from: name(&redis[0]).await, to: name(&redis[1]).await };
    // Another program has put something under the name of an index.
    let index = "{vb0001}.clients.t7";
    redis[0].command(&["RENAME", index, "aside"]);
    redis[0].command(&["SET", index, "foreign"]);
    let failed = Mutex::new(String::new());
    let tell = |event| {
        if let MoveEvent::Failed { error, .. } = event {
            *failed.lock().unwrap() = causes(&error);
        }
    };
    let report = mover(&shards).run(Goal::Forward, &[this], tell).await;
    assert_eq!((report.ended, report.rolled_back, report.failed), (0, 1, 1));
    let failed = failed.into_inner().unwrap();
    assert!(failed.contains(index) && failed.contains("no sorted set"), "{failed}");
    assert_eq!(redis[0].command(&["GET", index]), "foreign");
    redis[0].command(&["RENAME", "aside", index]);

    let report = mover(&shards).run(Goal::Forward, &[this], |_| {}).await;
    assert_eq!((report.ended, report.failed), (1, 0));
    assert!(report.bytes > 2_300 * 1_500, "{}", report.bytes);
    let found = store.load(vbucket(1), &Wanted::default().with_states(states.clone())).await.unwrap();
    assert_eq!(found.states.len(), states.len());
    assert!(found.states.iter().all(|(.., content)| *content == value));
    let card = |index: &str| redis[1].command(&["ZCARD", index]);
    assert_eq!((card("{vb0001}.clients.t0"), card("{vb0001}.tabs")), ("2001".to_owned(), "301".to_owned()));
    // Nothing is left under a name of its own, and nothing will expire.
    assert_eq!(redis[1].command(&["KEYS", "*~*"]), "");
    assert_eq!(redis[1].command(&["PTTL", "{vb0001}"]), "-1");
}
