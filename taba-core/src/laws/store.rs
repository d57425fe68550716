//! The laws of [`Store`], each an async function of a [`Fixture`].

use async_trait::async_trait;
use bytes::Bytes;

use super::Broken;
use crate::batch::{Mark, SeqNo, StreamId};
use crate::limits::COMMIT_PAIRS_MAX;
use crate::name::{ClientId, TabName, TabType};
use crate::server_entry::ServerEntry;
use crate::store::{
    Commit, Committed, Loaded, Part, Peek, Scan, ScanWhat, StateKey, Store, StoreError, Version, Wanted,
};
use crate::vbucket::VBucket;

/// The name of a law, and what it says.
type Law = (&'static str, &'static str);
type Verdict = Result<(), Broken>;

/// Makes the store under test, and makes it again after it was closed.
#[async_trait]
pub trait Fixture: Send {
    /// The store under test.
    type Store: Store;
    /// Whether what was stored is there after the store was dropped and opened again.
    const DURABLE: bool;

    /// Opens the store: empty the first time, with what it held after that.
    async fn open(&mut self) -> Self::Store;
}

/// A VBucket that was never written is at [`Version::NEVER`] and holds nothing.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn starts_empty<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law =
        ("starts_empty", "A VBucket that was never written is at Version::NEVER and holds nothing");
    let store = fixture.open().await;
    for vbucket in [first(&store), last(&store)] {
        let loaded = store.load(vbucket, &wanted(&["a"])).await.map_err(broken(LAW))?;
        same(LAW, &loaded, &Loaded::default())?;
        same(LAW, &store.tabs(vbucket).await.map_err(broken(LAW))?, &vec![])?;
        same(LAW, &store.scan(vbucket, &everything()).await.map_err(broken(LAW))?, &vec![])?;
    }
    Ok(())
}

/// After a commit all of it is visible; after one that was turned away, nothing of it.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn atomic<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = ("atomic", "After a commit all of it is visible");
    let store = fixture.open().await;
    let vbucket = first(&store);
    done(LAW, &store, vbucket, commit(Version::NEVER, 1, &["a", "b"])).await?;
    expect(LAW, &store, vbucket, 1, &["a", "b"]).await?;
    let stale = commit(Version::NEVER, 2, &["a", "b", "c"]);
    let _ = store.commit(vbucket, stale).await.map_err(broken(LAW))?;
    expect(LAW, &store, vbucket, 1, &["a", "b"]).await
}

/// A commit on another version than the VBucket's changes nothing, and says which version it found; so does the same
/// commit a second time.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn conditional<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = (
        "conditional",
        "A commit on another version than the VBucket's changes nothing, and says which version it found",
    );
    let store = fixture.open().await;
    let vbucket = first(&store);
    let wrong = store.commit(vbucket, commit(version(7), 8, &["a"])).await.map_err(broken(LAW))?;
    same(LAW, &wrong, &Committed::Conflict { found: Version::NEVER })?;
    let once = commit(Version::NEVER, 1, &["a"]);
    done(LAW, &store, vbucket, once.clone()).await?;
    let again = store.commit(vbucket, once).await.map_err(broken(LAW))?;
    same(LAW, &again, &Committed::Conflict { found: version(1) })?;
    done(LAW, &store, vbucket, commit(version(1), 2, &["a"])).await?;
    expect(LAW, &store, vbucket, 2, &["a"]).await
}

/// Of many commits on the same version that run at once, exactly one is done, and its content is what is there.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn racing<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = (
        "racing",
        "Of many commits on the same version that run at once, exactly one is done, and its content is what is there",
    );
    let store = fixture.open().await;
    let vbucket = last(&store);
    let mut current = Version::NEVER;
    for round in 0..8_u64 {
        let racers: Vec<u64> = (1..=6).map(|racer| round * 10 + racer).collect();
        let runs = racers.iter().map(|racer| store.commit(vbucket, commit(current, *racer, &["a", "b"])));
        let outcomes = join_all(runs.collect()).await;
        let mut winners = Vec::new();
        for (racer, outcome) in racers.iter().zip(outcomes) {
            if outcome.map_err(broken(LAW))? == Committed::Done {
                winners.push(*racer);
            }
        }
        let [winner] = winners[..] else {
            return Err(Broken::new(LAW, format!("{} of 6 commits were done", winners.len())));
        };
        expect(LAW, &store, vbucket, winner, &["a", "b"]).await?;
        current = version(winner);
    }
    Ok(())
}

/// What a commit wrote is there after the store was closed and opened again. Holds by default for stores that are
/// not durable.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn durable<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = ("durable", "What a commit wrote is there after the store was closed and opened again");
    if !F::DURABLE {
        return Ok(());
    }
    let store = fixture.open().await;
    let vbuckets = [first(&store), last(&store)];
    for vbucket in vbuckets {
        done(LAW, &store, vbucket, commit(Version::NEVER, 1, &["a", "b"])).await?;
        done(LAW, &store, vbucket, commit(version(1), 2, &["a", "c"])).await?;
    }
    drop(store);
    let store = fixture.open().await;
    for vbucket in vbuckets {
        let loaded = store.load(vbucket, &wanted(&["a", "b", "c"])).await.map_err(broken(LAW))?;
        same(LAW, &loaded.version, &version(2))?;
        same(LAW, &loaded.marks, &vec![(StreamId(5), mark(2))])?;
        let states: Vec<Bytes> = loaded.states.into_iter().map(|(_, _, bytes)| bytes).collect();
        same(LAW, &states, &vec![content("a", 2), content("b", 1), content("c", 2)])?;
        same(LAW, &loaded.tabs.len(), &3)?;
        let stale = store.commit(vbucket, commit(version(1), 9, &["a"])).await.map_err(broken(LAW))?;
        same(LAW, &stale, &Committed::Conflict { found: version(2) })?;
    }
    Ok(())
}

/// After `stable`, what had been committed is there when the store was closed and opened again; asking twice is as good
/// as once, and so is asking for a VBucket that was never written.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn stable<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = (
        "stable",
        "After stable, what had been committed is there when the store was closed and opened again",
    );
    let store = fixture.open().await;
    let (written, never_written) = (first(&store), last(&store));
    done(LAW, &store, written, commit(Version::NEVER, 1, &["a"])).await?;
    for vbucket in [written, never_written, written] {
        store.stable(vbucket).await.map_err(broken(LAW))?;
    }
    expect(LAW, &store, written, 1, &["a"]).await?;
    if F::DURABLE {
        drop(store);
        expect(LAW, &fixture.open().await, written, 1, &["a"]).await?;
    }
    Ok(())
}

/// `load` shows the version, the marks, the Tabs and the States of one moment.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn consistent<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law =
        ("consistent", "load shows the version, the marks, the Tabs and the States of one moment");
    let store = fixture.open().await;
    let vbucket = first(&store);
    let writer = async {
        let mut current = Version::NEVER;
        for n in 1..40 {
            done(LAW, &store, vbucket, commit(current, n, &["a", "b", "c"])).await?;
            current = version(n);
        }
        Ok(())
    };
    let reader = async {
        for _ in 0..40 {
            let loaded = store.load(vbucket, &wanted(&["a", "b", "c"])).await.map_err(broken(LAW))?;
            let n = loaded.version.count;
            if n == 0 {
                same(LAW, &loaded, &Loaded::default())?;
                continue;
            }
            same(LAW, &loaded.marks, &vec![(StreamId(5), mark(n))])?;
            let states: Vec<Bytes> = loaded.states.into_iter().map(|(_, _, bytes)| bytes).collect();
            same(LAW, &states, &vec![content("a", n), content("b", n), content("c", n)])?;
        }
        Ok(())
    };
    let (written, read): (Verdict, Verdict) = join(writer, reader).await;
    written.and(read)
}

/// A scan yields each State once, in the order of keys, and only those of the Tab it asks for.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn ordered<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = (
        "ordered",
        "A scan yields each State once, in the order of keys, and only those of the Tab it asks for",
    );
    let store = fixture.open().await;
    let vbucket = first(&store);
    // Names that are prefixes of each other, and that sort differently with a separator than without.
    let tabs = ["b", "a", "a;x=1", "aa", "a-b", "a;x=1;y=2"];
    let clients = ["web", "web-1", "db", "!", "~"];
    let mut change = commit(Version::NEVER, 1, &[]);
    let mut keys = Vec::new();
    for tab in tabs {
        change.tabs.push((name(tab), Some(tab_type())));
        for client in clients {
            let key = StateKey { tab: name(tab), client: ClientId::new(client).expect("a client id") };
            change.states.push((key.clone(), Part(1), Some(content(client, 2))));
            change.states.push((key.clone(), Part::WHOLE, Some(content(client, 1))));
            keys.push(key);
        }
    }
    done(LAW, &store, vbucket, change).await?;
    keys.sort();
    let all = store.scan(vbucket, &everything()).await.map_err(broken(LAW))?;
    same(LAW, &all.iter().map(|found| found.key.clone()).collect::<Vec<_>>(), &keys)?;
    for found in &all {
        let client = found.key.client.as_str();
        same(LAW, &found.parts, &vec![(Part::WHOLE, content(client, 1)), (Part(1), content(client, 2))])?;
    }
    for tab in tabs {
        let scan = Scan { tab: Some(name(tab)), what: ScanWhat::Keys, ..everything() };
        let found = store.scan(vbucket, &scan).await.map_err(broken(LAW))?;
        let expected: Vec<_> = keys.iter().filter(|key| key.tab == name(tab)).cloned().collect();
        same(LAW, &found.iter().map(|found| found.key.clone()).collect::<Vec<_>>(), &expected)?;
        same(LAW, &found.iter().all(|found| found.parts.is_empty()), &true)?;
    }
    let mut sorted: Vec<_> = tabs.iter().map(|tab| (name(tab), tab_type())).collect();
    sorted.sort();
    same(LAW, &store.tabs(vbucket).await.map_err(broken(LAW))?, &sorted)
}

/// Pages of any size, put together, are the whole scan.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn paged<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = ("paged", "Pages of any size, put together, are the whole scan");
    let store = fixture.open().await;
    let vbucket = last(&store);
    let tabs: Vec<String> = (0..40).map(|n| format!("t{n:02}")).collect();
    let tabs: Vec<&str> = tabs.iter().map(String::as_str).collect();
    done(LAW, &store, vbucket, commit(Version::NEVER, 1, &tabs)).await?;
    let whole = store.scan(vbucket, &everything()).await.map_err(broken(LAW))?;
    same(LAW, &whole.len(), &tabs.len())?;
    for limit in [1, 7, 40, 1000] {
        let mut pages = Vec::new();
        loop {
            let after = pages.last().map(|found: &crate::store::Scanned| found.key.clone());
            let page =
                store.scan(vbucket, &Scan { after, limit, ..everything() }).await.map_err(broken(LAW))?;
            if page.len() > limit {
                return Err(Broken::new(LAW, format!("{} States on a page of {limit}", page.len())));
            }
            if page.is_empty() {
                break;
            }
            pages.extend(page);
            if pages.len() > whole.len() {
                return Err(Broken::new(LAW, format!("pages of {limit} yield more than the whole scan")));
            }
        }
        same(LAW, &pages, &whole)?;
    }
    Ok(())
}

/// A commit to one VBucket shows in no other.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn isolated<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = ("isolated", "A commit to one VBucket shows in no other");
    let store = fixture.open().await;
    let (here, there) = (first(&store), last(&store));
    done(LAW, &store, here, commit(Version::NEVER, 1, &["a"])).await?;
    let loaded = store.load(there, &wanted(&["a"])).await.map_err(broken(LAW))?;
    same(LAW, &loaded, &Loaded::default())?;
    same(LAW, &store.scan(there, &everything()).await.map_err(broken(LAW))?, &vec![])?;
    done(LAW, &store, there, commit(Version::NEVER, 2, &["b"])).await?;
    expect(LAW, &store, here, 1, &["a"]).await?;
    expect(LAW, &store, there, 2, &["b"]).await
}

/// What a commit removes is gone: a State's part, a Tab, a mark. The rest stays.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn removing<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = ("removing", "What a commit removes is gone: a State's part, a Tab, a mark");
    let store = fixture.open().await;
    let vbucket = first(&store);
    done(LAW, &store, vbucket, commit(Version::NEVER, 1, &["a", "b"])).await?;
    let removal = Commit {
        expect: version(1),
        next: version(2),
        marks: vec![(StreamId(5), None), (StreamId(6), None)],
        tabs: vec![(name("a"), None), (name("never-was"), None)],
        states: vec![(key("a"), Part::WHOLE, None), (key("never-was"), Part::WHOLE, None)],
    };
    done(LAW, &store, vbucket, removal).await?;
    let loaded = store.load(vbucket, &wanted(&["a", "b"])).await.map_err(broken(LAW))?;
    let left = Loaded {
        version: version(2),
        marks: vec![],
        tabs: vec![(name("b"), tab_type())],
        states: vec![(key("b"), Part::WHOLE, content("b", 1))],
    };
    same(LAW, &loaded, &left)?;
    same(LAW, &store.scan(vbucket, &everything()).await.map_err(broken(LAW))?.len(), &1)
}

/// What runs of Servers say of themselves is listed as they said it last, and not after they took it back; or nothing is.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn listing<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = (
        "listing",
        "What runs of Servers say of themselves is listed as they said it last, and not after they took it back; or nothing is",
    );
    let store = fixture.open().await;
    let entry = |process: u64, beat: u64| {
        let url = format!("http://s{process}:1;weight={process}").parse().expect("an address");
        ServerEntry { beat, ..ServerEntry::new(process, url, "1", 50) }
    };
    for (process, said) in [(1, Some(1)), (2, Some(1)), (3, Some(1)), (1, Some(2)), (2, None), (9, None)] {
        let said = said.map(|beat| entry(process, beat));
        store.register(process, said.as_ref()).await.map_err(broken(LAW))?;
    }
    let mut listed = store.servers().await.map_err(broken(LAW))?;
    listed.sort_unstable_by_key(|entry| entry.process);
    if listed.is_empty() { Ok(()) } else { same(LAW, &listed, &vec![entry(1, 2), entry(3, 1)]) }
}

/// Tidying and giving space back change nothing that can be seen, and what was committed before can be committed on.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn upkeep<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = (
        "upkeep",
        "Tidying and giving space back change nothing that can be seen, and what was committed before can be committed on",
    );
    let store = fixture.open().await;
    let (vbucket, other) = (first(&store), last(&store));
    done(LAW, &store, vbucket, commit(Version::NEVER, 1, &["a", "b", "c"])).await?;
    done(LAW, &store, other, commit(Version::NEVER, 1, &["a"])).await?;
    let removal = Commit {
        expect: version(1),
        next: version(2),
        marks: vec![(StreamId(6), Some(mark(6)))],
        tabs: vec![(name("a"), None)],
        states: vec![(key("a"), Part::WHOLE, None)],
    };
    done(LAW, &store, vbucket, removal).await?;
    let before = store.load(vbucket, &wanted(&["a", "b", "c"])).await.map_err(broken(LAW))?;
    let scanned = store.scan(vbucket, &everything()).await.map_err(broken(LAW))?;
    for _ in 0..2 {
        store.tidy(vbucket).await.map_err(broken(LAW))?;
        store.reclaim().await.map_err(broken(LAW))?;
        let after = store.load(vbucket, &wanted(&["a", "b", "c"])).await.map_err(broken(LAW))?;
        let sorted = |loaded: &Loaded| {
            let mut marks = loaded.marks.clone();
            marks.sort_unstable_by_key(|(stream, _)| *stream);
            Loaded { marks, ..loaded.clone() }
        };
        same(LAW, &sorted(&after), &sorted(&before))?;
        same(LAW, &store.scan(vbucket, &everything()).await.map_err(broken(LAW))?, &scanned)?;
        expect(LAW, &store, other, 1, &["a"]).await?;
    }
    done(LAW, &store, other, commit(version(1), 2, &["a"])).await
}

/// Marks are left out only at the version that the asker knows; all else is as always.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn complete<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = ("complete", "Marks are left out only at the version that the asker knows");
    let store = fixture.open().await;
    let vbucket = first(&store);
    done(LAW, &store, vbucket, commit(Version::NEVER, 1, &["a"])).await?;
    done(LAW, &store, vbucket, commit(version(1), 2, &["a"])).await?;
    let whole = store.load(vbucket, &wanted(&["a"])).await.map_err(broken(LAW))?;
    for known in [Version::NEVER, version(1), version(2)] {
        let asked = Wanted { known: Some(known), ..wanted(&["a"]) };
        let mut loaded = store.load(vbucket, &asked).await.map_err(broken(LAW))?;
        if known == whole.version && loaded.marks.is_empty() {
            loaded.marks.clone_from(&whole.marks);
        }
        same(LAW, &loaded, &whole)?;
    }
    Ok(())
}

/// Tabs that a list calls known are those that are there, and a version beside a list or a page is that of its content.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn kept_lists<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = (
        "kept_lists",
        "Tabs that a list calls known are those that are there, and a version beside a list or a page is that of its content",
    );
    let mut store = fixture.open().await;
    let vbucket = first(&store);
    let other_type = TabType::new("Other").expect("a tab type");
    let changes = [
        commit(Version::NEVER, 1, &["a", "b"]),
        Commit { tabs: vec![], ..commit(version(1), 2, &["a", "b"]) },
        Commit { tabs: vec![(name("a"), None)], ..Commit::new(version(2), version(3)) },
        Commit { tabs: vec![(name("b"), Some(other_type))], ..Commit::new(version(3), version(4)) },
        // Turned away.
        commit(version(1), 5, &["c"]),
        commit(version(4), 6, &["c"]),
    ];
    let mut kept: Option<(Version, Vec<(TabName, TabType)>)> = None;
    for change in changes {
        let _ = store.commit(vbucket, change).await.map_err(broken(LAW))?;
        let at = store.load(vbucket, &Wanted::default()).await.map_err(broken(LAW))?.version;
        for is_again in [false, true] {
            let known = kept.as_ref().map(|(since, _)| *since);
            let list = store.tab_list(vbucket, known).await.map_err(broken(LAW))?;
            let tabs = list.tabs.or_else(|| kept.map(|(_, tabs)| tabs)).unwrap_or_default();
            same(LAW, &tabs, &store.tabs(vbucket).await.map_err(broken(LAW))?)?;
            kept = list.since.map(|since| (since, tabs));
            let page = store.page(vbucket, &everything()).await.map_err(broken(LAW))?;
            same(LAW, &page.states, &store.scan(vbucket, &everything()).await.map_err(broken(LAW))?)?;
            for told in [list.version, page.version].into_iter().flatten() {
                same(LAW, &told, &at)?;
            }
            if is_again && F::DURABLE {
                drop(store);
                store = fixture.open().await;
            }
        }
    }
    Ok(())
}

/// A look at many VBuckets says of each, in the order of the questions, what loading it and listing its Tabs says.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn peeked<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = (
        "peeked",
        "A look at many VBuckets says of each, in the order of the questions, what loading it and listing its Tabs says",
    );
    let store = fixture.open().await;
    let (here, there) = (first(&store), last(&store));
    let part = (key("b"), Part(1), Some(content("b", 9)));
    let only_a_part = (key("c"), Part(1), Some(content("c", 9)));
    let changes = [
        (here, commit(Version::NEVER, 1, &["a", "b"])),
        (there, commit(Version::NEVER, 2, &["a"])),
        (here, Commit { tabs: vec![], ..commit(version(1), 3, &["b"]) }),
        (here, Commit::new(version(3), version(4)).with_states(vec![part, only_a_part])),
        (here, Commit::new(version(4), version(5)).with_states(vec![(key("a"), Part::WHOLE, None)])),
        (there, Commit::new(version(2), version(6)).with_tabs(vec![(name("a"), None)])),
    ];
    let ask = |vbucket, tabs: &[&str]| Peek::new(vbucket, tabs.iter().map(|tab| key(tab)).collect());
    let peeks = [
        ask(there, &["a"]),
        ask(here, &["b", "never-was", "a", "c"]),
        ask(there, &[]),
        ask(here, &["a", "a;x=1", "b"]),
    ];
    let (mut kept, mut changes) =
        (Vec::<(VBucket, Version, Vec<(TabName, TabType)>)>::new(), changes.into_iter());
    loop {
        let answers = store.peek(&peeks).await;
        same(LAW, &answers.len(), &peeks.len())?;
        for (peek, peeked) in peeks.iter().zip(answers) {
            let (vbucket, peeked) = (peek.vbucket, peeked.map_err(broken(LAW))?);
            let asked = Wanted { states: peek.states.clone(), ..Wanted::default() };
            let loaded = store.load(vbucket, &asked).await.map_err(broken(LAW))?;
            let whole = |wanted: &StateKey| {
                let mut found = loaded.states.iter();
                found
                    .find(|(key, part, _)| key == wanted && *part == Part::WHOLE)
                    .map(|(_, _, bytes)| bytes.clone())
            };
            same(LAW, &peeked.states, &peek.states.iter().map(whole).collect::<Vec<_>>())?;
            same(LAW, &peeked.version.unwrap_or(loaded.version), &loaded.version)?;
            let Some(since) = peeked.tabs_since else { continue };
            let tabs = store.tabs(vbucket).await.map_err(broken(LAW))?;
            for (_, _, before) in kept.iter().filter(|(of, at, _)| (*of, *at) == (vbucket, since)) {
                same(LAW, before, &tabs)?;
            }
            kept.push((vbucket, since, tabs));
        }
        let Some((vbucket, change)) = changes.next() else { return Ok(()) };
        done(LAW, &store, vbucket, change).await?;
    }
}

/// The largest commit there may be is done; a larger one is refused and changes nothing.
///
/// # Errors
/// [`Broken`] when the law does not hold.
pub async fn bounded<F: Fixture>(fixture: &mut F) -> Verdict {
    const LAW: Law = ("bounded", "The largest commit there may be is done");
    let store = fixture.open().await;
    let vbucket = first(&store);
    let tabs: Vec<String> = (0..COMMIT_PAIRS_MAX / 2).map(|n| format!("tab-{n}")).collect();
    let tabs: Vec<&str> = tabs.iter().map(String::as_str).collect();
    let too_large = commit(Version::NEVER, 1, &tabs);
    match store.commit(vbucket, too_large).await {
        Err(StoreError::TooLarge { pairs_max: COMMIT_PAIRS_MAX, .. }) => {}
        other => return Err(Broken::new(LAW, format!("a commit over the bound gave {other:?}"))),
    }
    same(LAW, &store.load(vbucket, &wanted(&["tab-0"])).await.map_err(broken(LAW))?, &Loaded::default())?;
    done(LAW, &store, vbucket, commit(Version::NEVER, 1, &tabs[..COMMIT_PAIRS_MAX / 2 - 1])).await
}

fn version(count: u64) -> Version {
    Version { writer: 77, count }
}

fn mark(n: u64) -> Mark {
    Mark { seq: SeqNo(n), events: 10 * n, hour: 500_000 }
}

fn name(tab: &str) -> TabName {
    TabName::new(tab).expect("a tab name")
}

fn tab_type() -> TabType {
    TabType::new("Count").expect("a tab type")
}

fn key(tab: &str) -> StateKey {
    StateKey { tab: name(tab), client: ClientId::new("web").expect("a client id") }
}

fn content(of: &str, n: u64) -> Bytes {
    format!("{of} as of {n}").into_bytes().into()
}

fn wanted(tabs: &[&str]) -> Wanted {
    Wanted {
        tabs: tabs.iter().map(|tab| name(tab)).collect(),
        states: tabs.iter().map(|tab| key(tab)).collect(),
        ..Wanted::default()
    }
}

fn everything() -> Scan {
    Scan { tab: None, after: None, limit: 10_000, what: ScanWhat::States }
}

/// A commit that writes content `n` of each Tab.
fn commit(expect: Version, n: u64, tabs: &[&str]) -> Commit {
    Commit {
        expect,
        next: version(n),
        marks: vec![(StreamId(5), Some(mark(n)))],
        tabs: tabs.iter().map(|tab| (name(tab), Some(tab_type()))).collect(),
        states: tabs.iter().map(|tab| (key(tab), Part::WHOLE, Some(content(tab, n)))).collect(),
    }
}

fn first(store: &impl Store) -> VBucket {
    store.vbuckets().get(0).expect("there are at least 64")
}

fn last(store: &impl Store) -> VBucket {
    store.vbuckets().iter().last().expect("there are at least 64")
}

fn broken(law: Law) -> impl Fn(StoreError) -> Broken {
    move |error| Broken::new(law, format!("the store failed: {error:?}"))
}

fn same<T: PartialEq + std::fmt::Debug>(law: Law, found: &T, expected: &T) -> Verdict {
    if found == expected {
        return Ok(());
    }
    Err(Broken::new(law, format!("found:    {found:?}\nexpected: {expected:?}")))
}

async fn done(law: Law, store: &impl Store, vbucket: VBucket, change: Commit) -> Verdict {
    same(law, &store.commit(vbucket, change).await.map_err(broken(law))?, &Committed::Done)
}

/// The VBucket holds content `n` of exactly these Tabs.
async fn expect(law: Law, store: &impl Store, vbucket: VBucket, n: u64, tabs: &[&str]) -> Verdict {
    let loaded = store.load(vbucket, &wanted(tabs)).await.map_err(broken(law))?;
    let expected = Loaded {
        version: version(n),
        marks: vec![(StreamId(5), mark(n))],
        tabs: tabs.iter().map(|tab| (name(tab), tab_type())).collect(),
        states: tabs.iter().map(|tab| (key(tab), Part::WHOLE, content(tab, n))).collect(),
    };
    same(law, &loaded, &expected)?;
    same(law, &store.scan(vbucket, &everything()).await.map_err(broken(law))?.len(), &tabs.len())
}

/// Runs futures at once, on whatever runtime polls this one: the crate has none of its own.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(move |context| {
        let mut waiting = false;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(futures.iter_mut().filter_map(|(_, output)| output.take()).collect())
    })
    .await
}

async fn join<A: Future<Output = Verdict>, B: Future<Output = Verdict>>(a: A, b: B) -> (Verdict, Verdict) {
    type Boxed<'a> = std::pin::Pin<Box<dyn Future<Output = Verdict> + 'a>>;
    let (a, b): (Boxed<'_>, Boxed<'_>) = (Box::pin(a), Box::pin(b));
    let mut both = join_all(vec![a, b]).await.into_iter();
    (both.next().unwrap_or(Ok(())), both.next().unwrap_or(Ok(())))
}
