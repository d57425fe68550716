//! [`Book`]: the accounts of one VBucket as whoever commits to it holds them, and what a commit changes in them.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use taba_core::{ClientId, Loaded, Part, StateKey, TabName, Version, Wanted, ledger};

use super::{AccountsHead, Group, decode, encode, key, place_of};

/// Groups that one commit splits, at most.
const SPLITS_MAX: u64 = 16;
/// Pairs of a commit that the accounts may need beside a group for each Client: the head, and two for each split.
pub(crate) const ACCOUNT_PAIRS: usize = 1 + 2 * SPLITS_MAX as usize;
/// Bytes of a group in the tables besides its own, about.
const WEIGHT_PER_GROUP: usize = 100;

/// The accounts of a VBucket, as far as they are loaded.
#[derive(Default)]
pub(crate) enum Book {
    /// They are not loaded.
    #[default]
    Unknown,
    /// Nobody keeps them, because they are damaged, or were never there. A head that is still there is to be removed.
    NotKept { has_head: bool },
    /// The head is loaded, and some groups.
    Kept(Accounts),
}

#[derive(Default)]
pub(crate) struct Accounts {
    head: AccountsHead,
    /// The groups, as they are stored: decoded they take five times as much.
    groups: BTreeMap<u64, Bytes>,
    /// Bytes of these groups.
    bytes: usize,
    /// Groups that are changed, decoded.
    changed: BTreeMap<u64, Group>,
    is_head_changed: bool,
}

/// What a commit changes for one Client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountChange {
    pub(crate) states: i64,
    pub(crate) events: i128,
    /// What notes come to now, in events.
    pub(crate) notes: BTreeMap<TabName, u64>,
}

impl Book {
    /// The accounts of a VBucket that has nothing else. The first commit writes their head, whatever it is about.
    pub(crate) fn new() -> Self {
        Self::Kept(Accounts { is_head_changed: true, ..Accounts::default() })
    }

    /// The accounts of these Clients, in groups of the usual size, all to be written by the commit that makes the version `next`.
    #[cfg(any(feature = "driver", test))]
    pub(crate) fn of_clients(clients: Group, next: Version) -> Self {
        let more_groups = clients.len() as u64 / super::GROUP_CLIENTS;
        let mut head = AccountsHead {
            more_groups,
            clients: clients.len() as u64,
            dropped_at: next,
            ..AccountsHead::default()
        };
        let mut changed = BTreeMap::<u64, Group>::new();
        for (client, entry) in clients {
            head.totals.add(&entry);
            changed.entry(head.place(&client)).or_default().insert(client, entry);
        }
        Self::Kept(Accounts { head, changed, is_head_changed: true, ..Accounts::default() })
    }

    /// Adds the head to what is to be loaded, unless it is here, and the first group: where there are few Clients, it is all.
    pub(crate) fn touch_head(&self, wanted: &mut Wanted) {
        if matches!(self, Self::Unknown) {
            wanted.states.extend([key(0), key(1)]);
        }
    }

    /// Adds the groups of these Clients to what is to be loaded, and those that a commit may split, unless they are here.
    pub(crate) fn touch<'a>(&self, clients: impl Iterator<Item = &'a ClientId>, wanted: &mut Wanted) {
        let Self::Kept(accounts) = self else { return };
        let mut places: BTreeSet<u64> = clients.map(|client| accounts.head.place(client)).collect();
        places.extend(accounts.to_split());
        let lacking = places.into_iter().filter(|place| !accounts.groups.contains_key(place));
        wanted.states.extend(lacking.map(key));
    }

    /// Adds what was loaded.
    pub(crate) fn load(&mut self, wanted: &Wanted, loaded: &Loaded) {
        let found = loaded.states.iter().filter_map(|(key, _, bytes)| Some((place_of(key)?, bytes)));
        let found: BTreeMap<u64, &Bytes> = found.collect();
        for place in wanted.states.iter().filter_map(place_of) {
            let bytes = found.get(&place).copied();
            match place {
                0 => *self = Self::of(loaded.version, bytes),
                _ => self.load_group(place, bytes),
            }
        }
    }

    fn of(version: Version, head: Option<&Bytes>) -> Self {
        match head.map(AccountsHead::decode) {
            None if version == Version::NEVER => Self::new(),
            None => Self::NotKept { has_head: false },
            Some(None) => Self::NotKept { has_head: true },
            Some(Some(head)) => Self::Kept(Accounts { head, ..Accounts::default() }),
        }
    }

    fn load_group(&mut self, place: u64, bytes: Option<&Bytes>) {
        let Self::Kept(accounts) = self else { return };
        match bytes {
            None => accounts.put(place, Bytes::new()),
            Some(bytes) if decode::<Group>(bytes).is_some() => {
                accounts.put(place, Bytes::copy_from_slice(bytes));
            }
            Some(_) => *self = Self::NotKept { has_head: true },
        }
    }

    /// Changes the accounts as the commit that makes the version `next` changes the States. The groups of the Clients are
    /// [loaded](Self::touch).
    pub(crate) fn change(&mut self, changes: &BTreeMap<ClientId, AccountChange>, next: Version) {
        let Self::Kept(accounts) = self else { return };
        let is_done = changes.iter().all(|(client, change)| accounts.change(client, change, next).is_some());
        debug_assert!(is_done, "a group is loaded before it is changed");
        if !is_done {
            *self = Self::NotKept { has_head: true };
        }
    }

    /// Accounts that cannot be kept are not kept: rather none than wrong ones.
    pub(crate) fn give_up(&mut self) {
        *self = Self::NotKept { has_head: true };
    }

    /// What the commit writes of them: heads and groups that are changed.
    pub(crate) fn write(&mut self) -> Vec<(StateKey, Part, Option<Bytes>)> {
        match self {
            Self::Unknown | Self::NotKept { has_head: false } => Vec::new(),
            Self::NotKept { .. } => vec![(key(0), Part::WHOLE, None)],
            Self::Kept(accounts) => accounts.write(),
        }
    }

    /// What was to be written is stored.
    pub(crate) fn committed(&mut self) {
        match self {
            Self::Unknown => {}
            Self::NotKept { has_head } => *has_head = false,
            Self::Kept(accounts) => {
                accounts.changed.clear();
                accounts.is_head_changed = false;
            }
        }
    }

    /// Forgets what can be loaded again.
    pub(crate) fn shrink(&mut self) {
        if let Self::Kept(accounts) = self {
            accounts.groups.clear();
            accounts.bytes = 0;
        }
    }

    /// Groups that a commit may change, at most.
    pub(crate) fn groups(&self) -> usize {
        match self {
            Self::Unknown => usize::MAX,
            Self::NotKept { .. } => 0,
            Self::Kept(accounts) => usize::try_from(accounts.head.groups()).unwrap_or(usize::MAX),
        }
    }

    /// The estimated size in memory, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let Self::Kept(accounts) = self else { return 0 };
        accounts.bytes + accounts.groups.len() * WEIGHT_PER_GROUP
    }
}

impl Accounts {
    /// Places of the groups that the next commit may split.
    fn to_split(&self) -> impl Iterator<Item = u64> {
        let head = |more| AccountsHead {
            more_groups: self.head.more_groups + more,
            clients: self.head.clients,
            ..AccountsHead::default()
        };
        let known = self.head.groups();
        (0..SPLITS_MAX).map_while(move |more| head(more).next_to_split()).filter(move |place| *place <= known)
    }

    /// Keeps the bytes of a group; none: it is empty.
    fn put(&mut self, place: u64, bytes: Bytes) {
        self.bytes += bytes.len();
        let before = self.groups.insert(place, bytes);
        self.bytes -= before.map_or(0, |before| before.len());
    }

    fn change(&mut self, client: &ClientId, change: &AccountChange, next: Version) -> Option<()> {
        let place = self.head.place(client);
        let group = to_change(&mut self.changed, &self.groups, place)?;
        let totals = &mut self.head.totals;
        let is_new = !group.contains_key(client);
        let entry = group.entry(client.clone()).or_default();
        for account in [&mut *entry, &mut *totals] {
            account.states = account.states.saturating_add_signed(change.states.into());
            account.events = account.events.saturating_add_signed(change.events);
        }
        for (tab, events) in &change.notes {
            let events = u128::from(*events);
            let before = entry.set_note(tab, events);
            if before == events {
                continue;
            }
            let sum = totals.notes.get(tab).copied().unwrap_or(0);
            totals.set_note(tab, sum.saturating_sub(before).saturating_add(events));
            if tab.base() == ledger::DROPPED {
                self.head.dropped_at = next;
            }
        }
        let is_gone = entry.is_empty();
        if is_gone {
            group.remove(client);
        }
        self.head.clients = match (is_new, is_gone) {
            (true, false) => self.head.clients + 1,
            (false, true) => self.head.clients.saturating_sub(1),
            _ => self.head.clients,
        };
        self.is_head_changed = true;
        Some(())
    }

    /// Divides groups that have become too large.
    fn split(&mut self) {
        for _ in 0..SPLITS_MAX {
            let Some(source) = self.head.next_to_split() else { return };
            let Some(group) = to_change(&mut self.changed, &self.groups, source) else { return };
            self.head.more_groups += 1;
            let head = &self.head;
            let (stay, go) =
                std::mem::take(group).into_iter().partition(|(client, _)| head.place(client) == source);
            *group = stay;
            self.changed.insert(head.groups(), go);
            self.is_head_changed = true;
        }
    }

    fn write(&mut self) -> Vec<(StateKey, Part, Option<Bytes>)> {
        self.split();
        let mut out = Vec::with_capacity(self.changed.len() + 1);
        if self.is_head_changed {
            out.push((key(0), Part::WHOLE, Some(encode(&self.head))));
        }
        let written: Vec<_> = self.changed.iter().map(|(place, group)| (*place, encode(group))).collect();
        for (place, bytes) in written {
            self.put(place, bytes.clone());
            out.push((key(place), Part::WHOLE, Some(bytes)));
        }
        out
    }
}

/// A group that is loaded, decoded.
fn to_change<'a>(
    changed: &'a mut BTreeMap<u64, Group>,
    groups: &BTreeMap<u64, Bytes>,
    place: u64,
) -> Option<&'a mut Group> {
    match changed.entry(place) {
        Slot::Occupied(group) => Some(group.into_mut()),
        Slot::Vacant(slot) => {
            let bytes = groups.get(&place)?;
            Some(slot.insert(if bytes.is_empty() { Group::new() } else { decode(bytes)? }))
        }
    }
}
