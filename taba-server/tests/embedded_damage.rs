//! An embedded store whose file is damaged, gone or empty: what can be read is read, nothing is read wrong, and no new
//! store takes its place.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use bytes::Bytes;
use taba_core::{
    ClientId, Commit, Committed, Part, Scan, Scanned, StateKey, Store, StoreError, TabName, TabType, VBucket,
    VBuckets, Version, Wanted,
};
use taba_server::{EmbeddedError, EmbeddedOptions, EmbeddedStore};
use tempfile::TempDir;

const PAGE_BYTES: usize = 4096;

fn open(dir: &Path) -> Result<EmbeddedStore, EmbeddedError> {
    let mut options = EmbeddedOptions::new(VBuckets::new(64).unwrap());
    options.cache_bytes = 1 << 20;
    EmbeddedStore::open(dir, options)
}

fn commit(expect: Version, count: u64, vbucket: VBucket) -> Commit {
    let states = (0..4).map(|n| {
        let tab = TabName::new(&format!("t{n}")).unwrap();
        let bytes = Bytes::from(vec![vbucket.index() as u8; 500]);
        (StateKey { tab, client: ClientId::new("web").unwrap() }, Part::WHOLE, Some(bytes))
    });
    let tab_type = TabType::new("Count").unwrap();
    Commit::new(expect, Version { writer: 9, count })
        .with_tabs(
            (0..4).map(|n| (TabName::new(&format!("t{n}")).unwrap(), Some(tab_type.clone()))).collect(),
        )
        .with_states(states.collect())
}

async fn scan(store: &EmbeddedStore, vbucket: VBucket) -> Result<Vec<Scanned>, StoreError> {
    let scan = Scan::default().with_limit(100);
    store.scan(vbucket, &scan).await
}

#[tokio::test]
async fn a_damaged_page_is_a_fault_where_it_is_and_nowhere_else() {
    let (dir, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = open(dir.path()).unwrap();
    let all = store.vbuckets();
    for vbucket in all.iter() {
        assert_eq!(store.commit(vbucket, commit(Version::NEVER, 1, vbucket)).await.unwrap(), Committed::Done);
    }
    let whole: Vec<_> = futures::future::join_all(all.iter().map(|vbucket| scan(&store, vbucket)))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    drop(store);
    let bytes = std::fs::read(dir.path().join("taba.redb")).unwrap();
    let (mut refused, mut opened, mut faults, mut commits_refused) = (0, 0, 0, 0);
    // The first page holds the roots; it is the one without which nothing can be found.
    let pages: Vec<usize> = (1..bytes.len() / PAGE_BYTES)
        .filter(|page| bytes[page * PAGE_BYTES..(page + 1) * PAGE_BYTES].iter().any(|byte| *byte != 0))
        .collect();
    for page in pages.iter().step_by(pages.len().div_ceil(40)) {
        let mut damaged = bytes.clone();
        damaged[page * PAGE_BYTES..(page + 1) * PAGE_BYTES].fill(0);
        std::fs::write(copy.path().join("taba.redb"), damaged).unwrap();
        let store = match open(copy.path()) {
            Ok(store) => store,
            Err(error) => {
                assert!(
                    matches!(error, EmbeddedError::Database { .. } | EmbeddedError::Engine { .. }),
                    "{error:?}"
                );
                refused += 1;
                continue;
            }
        };
        opened += 1;
        let mut unread = 0;
        for (vbucket, whole) in all.iter().zip(&whole) {
            match scan(&store, vbucket).await {
                Ok(found) => assert_eq!(found, *whole, "page {page}, {vbucket}"),
                Err(error) => {
                    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
                    unread += 1;
                }
            }
            let looked = store.load(vbucket, &Wanted::default()).await;
            assert!(matches!(looked, Ok(_) | Err(StoreError::Damaged { .. })), "{looked:?}");
        }
        faults += unread;
        // One commit for each, at once: those that need the page are refused, the others are done.
        let next = |vbucket| store.commit(vbucket, commit(Version { writer: 9, count: 1 }, 2, vbucket));
        for outcome in futures::future::join_all(all.iter().map(next)).await {
            match outcome {
                Ok(done) => assert_eq!(done, Committed::Done),
                Err(StoreError::Damaged { .. }) => commits_refused += 1,
                Err(error) => panic!("page {page}: {error:?}"),
            }
        }
    }
    println!(
        "{} pages: {opened} opened, {refused} refused; {faults} faults, {commits_refused} commits",
        pages.len()
    );
    assert!(opened > 5 * refused && faults > 0, "{opened} opened, {refused} refused, {faults} faults");
}

#[tokio::test]
async fn a_file_that_is_gone_or_empty_is_not_made_anew() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()).unwrap());
    let file = dir.path().join("taba.redb");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let gone = open(dir.path()).unwrap_err();
    assert!(
        matches!(gone, EmbeddedError::Gone { .. }) && gone.to_string().contains("taba-server restore"),
        "{gone}"
    );
    assert!(!file.exists(), "nothing was made");
    std::fs::write(&file, b"").unwrap();
    assert!(matches!(open(dir.path()).unwrap_err(), EmbeddedError::Gone { .. }));
    for foreign in [&b"somebody's diary"[..], &[0; 100_000], &bytes[..4096], &bytes[..bytes.len() / 2]] {
        std::fs::write(&file, foreign).unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(matches!(error, EmbeddedError::Database { .. } | EmbeddedError::Engine { .. }), "{error:?}");
        assert_eq!(std::fs::read(&file).unwrap(), foreign, "it is left alone");
    }
    std::fs::write(&file, bytes).unwrap();
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_file_that_is_removed_or_replaced_while_it_is_open_takes_nothing_more_and_can_be_copied() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("taba.redb");
    let store = open(dir.path()).unwrap();
    let vbucket = VBuckets::new(64).unwrap().get(7).unwrap();
    let first = store.commit(vbucket, commit(Version::NEVER, 1, vbucket)).await.unwrap();
    assert_eq!(first, Committed::Done);
    let next = || commit(Version { writer: 9, count: 1 }, 2, vbucket);
    let moved = dir.path().join("moved");
    std::fs::rename(&file, &moved).unwrap();
    for is_replaced in [false, true] {
        if is_replaced {
            std::fs::write(&file, b"another one").unwrap();
        }
        let error = store.commit(vbucket, next()).await.unwrap_err();
        let said = taba_core::causes(&error);
        assert!(
            matches!(error, StoreError::Unavailable { .. }) && said.contains("taba-server backup"),
            "{said}"
        );
        assert_eq!(scan(&store, vbucket).await.unwrap().len(), 4, "what was stored can be read");
    }
    std::fs::rename(&moved, &file).unwrap();
    assert_eq!(store.commit(vbucket, next()).await.unwrap(), Committed::Done, "it is put back");
}

#[tokio::test]
async fn space_that_large_removals_left_is_given_back() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    let vbucket = store.vbuckets().get(1).unwrap();
    let key = |n: u64| StateKey {
        tab: TabName::new(&format!("t{n}")).unwrap(),
        client: ClientId::new("web").unwrap(),
    };
    let size = || std::fs::metadata(dir.path().join("taba.redb")).unwrap().len();
    let version = |count| Version { writer: 9, count };
    for n in 0..24 {
        let expect = if n == 0 { Version::NEVER } else { version(n) };
        let bytes = Bytes::from(vec![n as u8; 1 << 20]);
        let states = vec![(key(n), Part::WHOLE, Some(bytes))];
        let change = Commit::new(expect, version(n + 1)).with_states(states);
        assert_eq!(store.commit(vbucket, change).await.unwrap(), Committed::Done);
    }
    assert_eq!(store.reclaim().await.unwrap().bytes, 0, "what is in use is left alone");
    let states = (1..24).map(|n| (key(n), Part::WHOLE, None)).collect();
    let change = Commit::new(version(24), version(25)).with_states(states);
    assert_eq!(store.commit(vbucket, change).await.unwrap(), Committed::Done);
    let before = size();
    let freed = store.reclaim().await.unwrap().bytes;
    assert!(freed > 12 << 20 && size() == before - freed, "{freed} of {before}");
    assert_eq!(scan(&store, vbucket).await.unwrap().len(), 1);
    drop(store);
    let loaded =
        open(dir.path()).unwrap().load(vbucket, &Wanted::default().with_states(vec![key(0)])).await.unwrap();
    assert_eq!((loaded.version, loaded.states[0].2.len()), (version(25), 1 << 20));
}

#[tokio::test]
async fn what_can_be_read_of_a_damaged_store_of_a_killed_process_becomes_a_backup() {
    let (dir, killed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = open(dir.path()).unwrap();
    for vbucket in store.vbuckets().iter() {
        assert_eq!(store.commit(vbucket, commit(Version::NEVER, 1, vbucket)).await.unwrap(), Committed::Done);
    }
    let (file, backup) = (killed.path().join("taba.redb"), killed.path().join("saved"));
    // What a killed process leaves.
    let bytes = std::fs::read(dir.path().join("taba.redb")).unwrap();
    let holds = |page: usize| bytes[page * PAGE_BYTES..(page + 1) * PAGE_BYTES].iter().any(|byte| *byte != 0);
    let pages: Vec<usize> = (1..bytes.len() / PAGE_BYTES).filter(|page| holds(*page)).collect();
    let (mut replaced, mut saved) = (0, 0);
    for page in pages.iter().step_by(pages.len().div_ceil(12)) {
        let mut damaged = bytes.clone();
        damaged[page * PAGE_BYTES..(page + 1) * PAGE_BYTES].fill(0);
        std::fs::write(&file, &damaged).unwrap();
        let made =
            taba_server::embedded::salvage(killed.path(), &mut std::fs::File::create(&backup).unwrap());
        assert_eq!(std::fs::read(&file).unwrap(), damaged, "it is left as it is");
        let Ok(made) = made else { continue };
        let restored = TempDir::new().unwrap();
        taba_server::embedded::restore(&backup, restored.path(), |_| {}).unwrap();
        assert!(made.lost.len() < 64);
        let restored = open(restored.path()).unwrap();
        for vbucket in restored.vbuckets().iter() {
            let found = restored.load(vbucket, &Wanted::default()).await.unwrap().version;
            let expected =
                if made.lost.contains(&vbucket) { Version::NEVER } else { Version { writer: 9, count: 1 } };
            assert_eq!(found, expected, "page {page}, {vbucket}");
            let states = scan(&restored, vbucket).await.unwrap().len();
            assert_eq!(states, if made.lost.contains(&vbucket) { 0 } else { 4 });
        }
        saved += 1;
        // A server that starts there does the same by itself; what it has lost is a fault, and nothing that begins anew.
        let kept = killed.path().join("taba.redb.damaged-1");
        let store = open(killed.path()).unwrap();
        replaced += usize::from(kept.exists());
        if kept.exists() {
            assert_eq!(std::fs::read(&kept).unwrap(), damaged);
            assert_eq!(store.lost().await.unwrap(), made.lost);
            for vbucket in store.vbuckets().iter() {
                let is_lost = made.lost.contains(&vbucket);
                assert_eq!(store.load(vbucket, &Wanted::default()).await.is_err(), is_lost);
                assert_eq!(
                    (scan(&store, vbucket).await.is_err(), store.tabs(vbucket).await.is_err()),
                    (is_lost, is_lost)
                );
                let again = store.commit(vbucket, commit(Version::NEVER, 2, vbucket)).await;
                assert!(!matches!(again, Ok(Committed::Done)), "{vbucket} begins anew: {again:?}");
            }
            store.begin_anew(&made.lost).await.unwrap();
            drop(store);
            let store = open(killed.path()).unwrap();
            for vbucket in &made.lost {
                assert_eq!(store.load(*vbucket, &Wanted::default()).await.unwrap().version, Version::NEVER);
            }
            std::fs::remove_file(&kept).unwrap();
        }
    }
    assert!(replaced > 3 && saved > 6, "{replaced} replaced, {saved} saved");
}
