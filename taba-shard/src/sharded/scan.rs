//! Reading a VBucket in the order of its indexes.

use bytes::Bytes;
use redis::{Cmd, cmd};
use taba_core::{
    ClientId, Page, Part, Scan, ScanWhat, Scanned, StateKey, StoreError, TabList, TabName, TabType, VBucket,
    Version,
};

use super::ShardedRedis;
use super::read::{failure, list, result, unavailable, value};
use crate::census::Owner;
use crate::command::Reply;
use crate::layout::damaged_type;
use crate::limits::{SCAN_STATES_MAX, SCAN_TABS_MAX};
use crate::redis::{LinkError, scripts};
use crate::{keys, layout};

/// Extra States to read of a Tab, in case some were added since counting.
const SCAN_SLACK: usize = 8;

pub(super) async fn tabs(
    store: &ShardedRedis,
    vbucket: VBucket,
    known: Option<Version>,
) -> Result<TabList, StoreError> {
    let owner = store.owner(vbucket).await?;
    let outcome = async {
        let (mut versions, mut sinces) = (CommonVersion::default(), CommonVersion::default());
        let (mut found, mut from, mut known) = (Vec::new(), "-".to_owned(), known);
        loop {
            let page = tab_page(store, vbucket, owner, &from, SCAN_STATES_MAX, known.take()).await?;
            versions.add(page.version);
            sinces.add(page.since);
            let list = TabList::default().with_version(versions.get()).with_since(sinces.get());
            let Some((tabs, last)) = page.tabs else { return Ok(list) };
            found.extend(tabs.into_iter().filter_map(|(tab, tab_type)| Some((tab, tab_type?))));
            match last {
                Some(tab) => from = format!("({tab}"),
                None => return Ok(list.with_tabs(found)),
            }
        }
    };
    store.follow(outcome.await).await
}

/// The version that several answers are of; none if they are of several.
#[derive(Default)]
struct CommonVersion {
    /// `None` before the first answer.
    all: Option<Option<Version>>,
}

impl CommonVersion {
    fn add(&mut self, one: Option<Version>) {
        self.all = Some(one.filter(|_| self.all.is_none_or(|all| all == one)));
    }

    fn get(&self) -> Option<Version> {
        self.all.flatten()
    }
}

/// Tabs with their types, and the last entry if more may follow.
type TabEntries = (Vec<(TabName, Option<TabType>)>, Option<String>);

/// A page of the index of Tabs.
struct TabPage {
    version: Option<Version>,
    since: Option<Version>,
    /// `None` when they are known.
    tabs: Option<TabEntries>,
}

async fn tab_page(
    store: &ShardedRedis,
    vbucket: VBucket,
    owner: Owner,
    from: &str,
    count: usize,
    known: Option<Version>,
) -> Result<TabPage, StoreError> {
    let mut call = scripts::TABS.call(&[keys::hash(vbucket), keys::tabs(vbucket)]);
    let known = known.map(layout::put_version).unwrap_or_default();
    call.arg(owner.epoch).arg(from).arg(count).arg(known);
    let reply = one(store, vbucket, owner, call).await?;
    let [version, since, entries, types] = result(vbucket, owner, reply)?;
    let version = read_version(&version);
    let since = version.and_then(|version| read_since(version, &since));
    if entries == Reply::Nothing {
        return Ok(TabPage { version, since, tabs: None });
    }
    let read = || {
        let (entries, types) = (list(entries)?, list(types)?);
        let (found, last) = (entries.len(), entries.last().cloned());
        let mut tabs = Vec::with_capacity(found);
        for (entry, tab_type) in entries.into_iter().zip(types) {
            // No store writes this entry, so it has no field either.
            let Some(tab) = layout::read_tab(&value(entry)??) else { continue };
            let tab_type =
                value(tab_type)?.map(|bytes| layout::read_type(&bytes).unwrap_or_else(damaged_type));
            tabs.push((tab, tab_type));
        }
        let last = match last {
            Some(Reply::Bytes(last)) if found == count => Some(String::from_utf8_lossy(&last).into_owned()),
            _ => None,
        };
        Some((tabs, last))
    };
    let tabs = read().ok_or(StoreError::Damaged { vbucket, what: "tab" })?;
    Ok(TabPage { version, since, tabs: Some(tabs) })
}

/// The version since which a VBucket that is at `version` has its Tabs. One that was never written has none, and no field says so.
pub(super) fn read_since(version: Version, since: &Reply) -> Option<Version> {
    read_version(since).or((version == Version::NEVER).then_some(version))
}

/// A version; none for what no store writes.
pub(super) fn read_version(reply: &Reply) -> Option<Version> {
    if let Reply::Bytes(text) = reply { layout::read_version(text) } else { None }
}

async fn one(store: &ShardedRedis, vbucket: VBucket, owner: Owner, call: Cmd) -> Result<Reply, StoreError> {
    let reply = store.send(vbucket, owner, vec![call]).await?.replies.pop();
    reply.ok_or_else(|| unavailable(LinkError::Answer { shard: owner.shard }))
}

pub(super) async fn scan(store: &ShardedRedis, vbucket: VBucket, scan: &Scan) -> Result<Page, StoreError> {
    let owner = store.owner(vbucket).await?;
    let (limit, version) = (scan.limit.max(1), CommonVersion::default());
    let mut page = OpenPage { store, vbucket, owner, limit, what: scan.what, found: Vec::new(), version };
    let outcome = async {
        let after = scan.after.as_ref();
        match &scan.tab {
            Some(tab) => {
                // A position before this Tab means its start; after a position beyond it, nothing of it is left.
                if after.is_none_or(|after| after.tab <= *tab) {
                    let client =
                        after.filter(|after| after.tab == *tab).map(|after| after.client.to_string());
                    page.tab(tab, client).await?;
                }
            }
            None => page.all_tabs(after).await?,
        }
        Ok(())
    };
    let outcome: Result<(), StoreError> = outcome.await;
    store.follow(outcome).await?;
    Ok(Page::new(page.version.get(), page.found))
}

/// A page that is being filled.
struct OpenPage<'a> {
    store: &'a ShardedRedis,
    vbucket: VBucket,
    owner: Owner,
    limit: usize,
    what: ScanWhat,
    found: Vec<Scanned>,
    version: CommonVersion,
}

impl OpenPage<'_> {
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.found.len())
    }

    /// Adds States of one Tab after a Client.
    async fn tab(&mut self, tab: &TabName, mut after: Option<String>) -> Result<(), StoreError> {
        while self.room() > 0 {
            let count = self.room().min(SCAN_STATES_MAX);
            let call = self.call(tab, after.as_deref(), count);
            let reply = one(self.store, self.vbucket, self.owner, call).await?;
            after = self.take(tab, count, reply)?;
            if after.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Adds States of all Tabs after a State.
    async fn all_tabs(&mut self, after: Option<&StateKey>) -> Result<(), StoreError> {
        let mut from = "-".to_owned();
        if let Some(after) = after {
            self.tab(&after.tab, Some(after.client.to_string())).await?;
            from = format!("({}", after.tab);
        }
        while self.room() > 0 {
            let page = tab_page(self.store, self.vbucket, self.owner, &from, SCAN_TABS_MAX, None).await?;
            let (tabs, last) = page.tabs.unwrap_or_default();
            let tabs: Vec<TabName> = tabs.into_iter().map(|(tab, _)| tab).collect();
            self.some_tabs(&tabs).await?;
            match last {
                Some(tab) => from = format!("({tab}"),
                None => break,
            }
        }
        Ok(())
    }

    /// Adds States of these Tabs: as many Tabs per round trip as the page has room for.
    async fn some_tabs(&mut self, tabs: &[TabName]) -> Result<(), StoreError> {
        let counts = self.count(tabs).await?;
        let mut rest: &[(TabName, usize)] = &tabs.iter().cloned().zip(counts).collect::<Vec<_>>();
        while let (Some((tab, _)), true) = (rest.first(), self.room() > 0) {
            let bound = self.room().min(SCAN_STATES_MAX);
            let mut sum = 0;
            let small = rest.iter().take_while(|(_, count)| {
                sum += count;
                sum <= bound
            });
            let together = small.count();
            if together == 0 {
                self.tab(tab, None).await?;
                rest = &rest[1..];
                continue;
            }
            let (now, later) = rest.split_at(together);
            let calls = now.iter().map(|(tab, count)| self.call(tab, None, count + SCAN_SLACK)).collect();
            let replies = self.store.send(self.vbucket, self.owner, calls).await?.replies;
            for ((tab, count), reply) in now.iter().zip(replies) {
                // More States than were counted: read the rest before the next Tab.
                if let Some(after) = self.take(tab, count + SCAN_SLACK, reply)? {
                    self.tab(tab, Some(after)).await?;
                }
            }
            rest = later;
        }
        self.found.truncate(self.limit);
        Ok(())
    }

    /// The number of entries of each Tab.
    async fn count(&self, tabs: &[TabName]) -> Result<Vec<usize>, StoreError> {
        if tabs.is_empty() {
            return Ok(Vec::new());
        }
        let question = |tab: &TabName| {
            let mut command = cmd("ZCARD");
            command.arg(keys::clients(self.vbucket, tab));
            command
        };
        let questions = tabs.iter().map(question).collect();
        let replies = self.store.send(self.vbucket, self.owner, questions).await?.replies;
        let count = |reply| match reply {
            Reply::Integer(count) => Ok(usize::try_from(count).unwrap_or(0)),
            other => Err(failure(self.vbucket, self.owner, other)),
        };
        replies.into_iter().map(count).collect()
    }

    fn call(&self, tab: &TabName, after: Option<&str>, count: usize) -> Cmd {
        let names =
            [keys::hash(self.vbucket), keys::clients(self.vbucket, tab), keys::parts(self.vbucket, tab)];
        let mut call = scripts::SCAN.call(&names);
        let from = after.map_or_else(|| "-".to_owned(), |client| format!("({client}"));
        let what = match self.what {
            ScanWhat::States => "STATES",
            ScanWhat::Keys => "KEYS",
        };
        call.arg(self.owner.epoch).arg(tab.as_str()).arg(from).arg(count).arg(what);
        call
    }

    /// Adds a script's answer for a Tab; returns the last entry if more may follow.
    fn take(&mut self, tab: &TabName, count: usize, reply: Reply) -> Result<Option<String>, StoreError> {
        let [version, entries, values, parts] = result(self.vbucket, self.owner, reply)?;
        self.version.add(read_version(&version));
        let found = [entries, values, parts];
        let (states, last) = read_states(tab, self.what, found)
            .ok_or(StoreError::Damaged { vbucket: self.vbucket, what: "state" })?;
        let is_full = last.1 == count;
        self.found.extend(states);
        Ok(last.0.filter(|_| is_full))
    }
}

type ReadStates = (Vec<Scanned>, (Option<String>, usize));

/// The States, the last entry read, and the number of entries.
fn read_states(tab: &TabName, what: ScanWhat, found: [Reply; 3]) -> Option<ReadStates> {
    let [entries, values, parts] = found;
    let (entries, values) = (list(entries)?, list(values)?);
    let mut parts: Vec<_> = list(parts)?.into_iter().filter_map(|part| read_part(what, part)).collect();
    parts.reverse();
    let count = entries.len();
    let (mut states, mut last) = (Vec::with_capacity(count), None);
    if values.len() != count {
        return None;
    }
    for (entry, whole) in entries.into_iter().zip(values) {
        let entry = value(entry)??;
        last = Some(entry.clone());
        // No store writes this entry, so it has no field either.
        let Some(client) = layout::read_client(&entry) else { continue };
        let mut all: Vec<_> = content(what, whole)?.map(|bytes| (Part::WHOLE, bytes)).into_iter().collect();
        // Both are sorted by Client; a part whose Client has no entry is skipped.
        while let Some((of, part, bytes)) = parts.pop_if(|(of, ..)| *of <= client) {
            if of == client {
                all.extend(bytes.map(|bytes| (part, bytes)));
            }
        }
        if !all.is_empty() {
            if what == ScanWhat::Keys {
                all.clear();
            }
            states.push(Scanned::new(StateKey { tab: tab.clone(), client }, all));
        }
    }
    Some((states, (last.map(|last| String::from_utf8_lossy(&last).into_owned()), count)))
}

/// A value, or for keys its length.
fn content(what: ScanWhat, reply: Reply) -> Option<Option<Bytes>> {
    match (what, reply) {
        (ScanWhat::Keys, Reply::Integer(0)) => Some(None),
        (ScanWhat::Keys, Reply::Integer(_)) => Some(Some(Bytes::new())),
        (ScanWhat::States, reply) => value(reply),
        (ScanWhat::Keys, _) => None,
    }
}

fn read_part(what: ScanWhat, part: Reply) -> Option<(ClientId, Part, Option<Bytes>)> {
    let [Reply::Bytes(entry), bytes] = <[Reply; 2]>::try_from(list(part)?).ok()? else { return None };
    let (client, part) = layout::read_part(&entry)?;
    Some((client, part, content(what, bytes)?))
}
