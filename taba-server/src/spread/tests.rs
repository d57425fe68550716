//! Changes of the spread in a store whose shards go back in time, and whose answers are lost, at any step.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use taba_core::{Loaded, Noise, Scanned};

use super::*;

/// What a VBucket holds: its version, and the rules.
type Content = (Version, Option<Bytes>);

/// Each VBucket is a primary that answers before its replica has a commit. At random it fails over, or an answer is lost.
struct Failing {
    now: Mutex<BTreeMap<u16, Content>>,
    /// What the replicas have.
    stable: Mutex<BTreeMap<u16, Content>>,
    noise: Mutex<Noise>,
    /// How often something fails, of 1.
    faults: f64,
}

impl Failing {
    fn new(seed: u64, faults: f64) -> Self {
        let noise = Mutex::new(Noise::new(seed));
        Self { now: Mutex::default(), stable: Mutex::default(), noise, faults }
    }

    fn happens(&self) -> bool {
        self.noise.lock().unwrap().fraction() < self.faults
    }

    fn fail_over(&self, vbucket: VBucket) {
        let before = self.stable.lock().unwrap().get(&vbucket.index()).cloned().unwrap_or_default();
        self.now.lock().unwrap().insert(vbucket.index(), before);
    }

    /// Before an operation.
    fn begin(&self, vbucket: VBucket) {
        if self.happens() {
            self.fail_over(vbucket);
        }
    }

    /// After it.
    fn end<T>(&self, answer: T) -> Result<T, StoreError> {
        let retry_after = Duration::ZERO;
        if self.happens() {
            return Err(StoreError::Unavailable { retry_after, source: "the answer is lost".into() });
        }
        Ok(answer)
    }

    fn content(&self, vbucket: VBucket) -> Content {
        self.now.lock().unwrap().get(&vbucket.index()).cloned().unwrap_or_default()
    }

    /// What a query that reads this copy knows, now and after a failover.
    fn copies(&self, vbucket: VBucket) -> [SpreadRules; 2] {
        let of = |copies: &Mutex<BTreeMap<u16, Content>>| {
            let content = copies.lock().unwrap().get(&vbucket.index()).cloned().unwrap_or_default();
            content.1.map(|bytes| read(vbucket, Some(&bytes)).unwrap().rules).unwrap_or_default()
        };
        [of(&self.now), of(&self.stable)]
    }
}

#[async_trait]
impl Store for Failing {
    fn vbuckets(&self) -> VBuckets {
        VBuckets::default()
    }
    async fn load(&self, vbucket: VBucket, _: &Wanted) -> Result<Loaded, StoreError> {
        self.begin(vbucket);
        let (version, bytes) = self.content(vbucket);
        let states = bytes.map(|bytes| (key(), Part::WHOLE, bytes));
        self.end(Loaded::new(version).with_states(states.into_iter().collect()))
    }
    async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError> {
        self.begin(vbucket);
        let (found, _) = self.content(vbucket);
        if found != commit.expect {
            return self.end(Committed::Conflict { found });
        }
        let bytes = commit.states.into_iter().find_map(|(.., bytes)| bytes);
        self.now.lock().unwrap().insert(vbucket.index(), (commit.next, bytes));
        self.end(Committed::Done)
    }
    async fn stable(&self, vbucket: VBucket) -> Result<(), StoreError> {
        self.begin(vbucket);
        // What was done before the call; it is on the replica even if the answer is lost.
        let content = self.content(vbucket);
        self.stable.lock().unwrap().insert(vbucket.index(), content);
        self.end(())
    }
    async fn tabs(&self, _: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
        Ok(Vec::new())
    }
    async fn scan(&self, vbucket: VBucket, _: &Scan) -> Result<Vec<Scanned>, StoreError> {
        self.begin(vbucket);
        let bytes = self.content(vbucket).1;
        self.end(bytes.map(|bytes| Scanned::new(key(), vec![(Part::WHOLE, bytes)])).into_iter().collect())
    }
}

/// Whatever anybody was told to use, every copy tells queries to look there, now and in each later history.
#[tokio::test]
async fn what_may_be_used_is_looked_for_in_every_copy_and_every_history() {
    let tabs = [SpreadTabs::Name(TabName::new("hot").unwrap()), SpreadTabs::Prefix("ho".to_owned())];
    let (mut used_at_all, mut refused) = (0, 0);
    for seed in 0..100 {
        let store = Failing::new(seed, if seed % 3 == 0 { 0.2 } else { 0.03 });
        let count = AtomicU64::new(0);
        let next = || Version { writer: seed + 1, count: count.fetch_add(1, Ordering::Relaxed) };
        let hot = TabName::new("hot").unwrap();
        let mut used = Spread::ONE;
        let mut dice = Noise::new(!seed);
        for _ in 0..30 {
            let spread = Spread::all().nth((dice.fraction() * 7.0) as usize).unwrap();
            let tabs = &tabs[usize::from(dice.fraction() < 0.5)];
            match (dice.fraction() * 3.0) as u8 {
                0 => refused += u32::from(change(&store, &next, tabs, spread).await.is_err()),
                1 => {
                    if let Ok(allowed) = allow(&store, &next, &hot, spread).await {
                        assert!(allowed.widest(&hot) >= spread, "it is said that it may be used");
                        used = used.max(allowed.widest(&hot));
                    }
                }
                // An Agent hears of it, or a Server that takes what is in use for allowed.
                _ => used = used.max(known(&store).await.map_or(used, |known| known.spread(&hot))),
            }
            for vbucket in copies(store.vbuckets()) {
                for copy in store.copies(vbucket) {
                    assert!(
                        copy.widest(&hot) >= used,
                        "seed {seed}: {vbucket} does not know of {used}: {copy:?}"
                    );
                }
            }
        }
        used_at_all += u32::from(used > Spread::ONE);
    }
    assert!(used_at_all > 60 && refused > 30, "the walks did something: {used_at_all}, {refused}");
}

#[tokio::test]
async fn a_change_is_done_wholly_and_lowering_keeps_where_to_look() {
    let store = Failing::new(1, 0.0);
    let count = AtomicU64::new(1);
    let next = || Version { writer: 1, count: count.fetch_add(1, Ordering::Relaxed) };
    let tabs = SpreadTabs::Name(TabName::new("hot").unwrap());
    let hot = TabName::new("hot").unwrap();
    let of = |spread| Spread::new(spread).unwrap();
    for (spread, widest) in [(8, 8), (1, 8), (2, 8), (16, 16), (16, 16), (4, 16)] {
        let rules = change(&store, &next, &tabs, of(spread)).await.unwrap();
        assert_eq!((rules.spread(&hot), rules.widest(&hot)), (of(spread), of(widest)));
        for vbucket in copies(store.vbuckets()) {
            assert_eq!(store.copies(vbucket)[0], rules, "each copy says the same");
        }
    }
    // A damaged copy is written anew from the others by the next change; one of a newer Server is left alone.
    let vbucket = copies(store.vbuckets()).nth(2).unwrap();
    let spoil = |bytes: Bytes| {
        let version = Version { writer: 9, count: bytes.len() as u64 };
        store.now.lock().unwrap().insert(vbucket.index(), (version, Some(bytes)));
    };
    spoil(Bytes::from_static(b"damaged"));
    assert!(copy(&store, vbucket).await.is_err() && known(&store).await.unwrap().widest(&hot) == of(16));
    let (rules, is_damaged) = widest(&store).await;
    assert!(is_damaged && rules.widest(&hot) == Spread::MAX);
    let rules = change(&store, &next, &tabs, of(2)).await.unwrap();
    assert_eq!(store.copies(vbucket)[0], rules);
    spoil(Envelope::new(TabType::new(TYPE).unwrap(), 2, 0, Bytes::from_static(b"{}")).encode());
    assert!(change(&store, &next, &tabs, of(4)).await.is_err());
    assert_eq!(widest(&store).await.0.widest(&hot), of(16));
}

#[test]
fn the_copies_lie_apart() {
    for count in [64, 1024, 16384] {
        let vbuckets = VBuckets::new(count).unwrap();
        let copies: Vec<_> = copies(vbuckets).map(|vbucket| u32::from(vbucket.index())).collect();
        for shards in [2, 4, 8] {
            // VBuckets in rows, and in turns.
            for of in
                [|vbucket, count, shards| vbucket * shards / count, |vbucket, _, shards| vbucket % shards]
            {
                let used: std::collections::BTreeSet<u32> =
                    copies.iter().map(|vbucket| of(*vbucket, count, shards)).collect();
                assert_eq!(used.len(), copies.len().min(shards as usize), "{count} {shards}");
            }
        }
    }
}

#[test]
fn the_bytes_of_a_copy_are_a_promise() {
    let mut copy = SpreadCopy { written: Version { writer: 7, count: 3 }, ..SpreadCopy::default() };
    copy.rules.widen(&SpreadTabs::Prefix("ads.".to_owned()), Spread::MAX);
    let text =
        r#"{"written":{"writer":7,"count":3},"rules":[{"prefix":"ads.","spread":1,"widest":64,"change":0}]}"#;
    assert_eq!(serde_json::to_string(&copy).unwrap(), text);
    let stored = |version, text: &str| {
        Envelope::new(TabType::new(TYPE).unwrap(), version, 0, text.to_owned().into()).encode()
    };
    let vbucket = VBuckets::default().get(0).unwrap();
    assert_eq!(read(vbucket, Some(&stored(1, text))).unwrap(), copy);
    for bad in [Some(stored(2, text)), Some(stored(1, "{}")), Some(Bytes::from_static(b"x")), None] {
        assert!(matches!(read(vbucket, bad.as_ref()), Err(StoreError::Damaged { .. })));
    }
}
