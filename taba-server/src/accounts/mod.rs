//! The accounts of a VBucket: for each Client, how many States the VBucket holds, of how many events, and what the Ledger noted. They
//! say nothing that the States do not say; they are kept beside them, by the same commits, so that the Ledger reads a few small
//! values of each VBucket and not every State.
//!
//! They are States of a reserved Tab, so they are copied, moved and backed up as all else: a [`AccountsHead`] with the sums, and groups of
//! Clients. A group has [`GROUP_CLIENTS`] Clients on average: a commit writes the groups of the Clients that it is about, and a query
//! reads few values. Groups are split one at a time, as there are more Clients: linear hashing, from Litwin, "Linear hashing: a
//! new tool for file and table addressing", VLDB 1980.
//!
//! A VBucket has accounts from its first commit on. Where their head is lacking, nobody keeps them, and whoever asks reads the
//! States: so it is after damage, until the [upkeep](crate::query::upkeep) has written them anew.

mod book;
mod summary;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use taba_core::{ClientId, Envelope, StateKey, TabName, TabType, Version, ledger};

pub(crate) use self::book::{ACCOUNT_PAIRS, AccountChange, Book};
#[cfg(any(feature = "driver", test))]
pub(crate) use self::summary::Summary;
pub(crate) use self::summary::{is_note, note_total};

const TYPE: &str = "taba.Accounts";
const VERSION: u16 = 1;
/// Clients in a group, on average.
const GROUP_CLIENTS: u64 = 24;
/// More groups than there are Clients anywhere.
const GROUPS_MAX: u64 = 1 << 32;
/// Any number but those by which VBuckets are chosen: the Clients of one VBucket must not all be in one group.
const GROUP_SEED: u64 = 0x7461_6261;

/// Where a Client's account is kept, or the head: a number in place of a Client. The head is 0, and sorts first.
pub(crate) fn key(place: u64) -> StateKey {
    // Made once: a query may ask for thousands.
    static TAB: LazyLock<TabName> =
        LazyLock::new(|| TabName::new(ledger::ACCOUNTS).expect("the constant is a name"));
    StateKey { tab: TAB.clone(), client: ClientId::new(&place.to_string()).expect("digits are an id") }
}

/// The Tab with its type, for the index: the first commit of a VBucket adds it.
pub(crate) fn index_entry() -> (TabName, Option<TabType>) {
    (key(0).tab, Some(tab_type()))
}

/// Adds to the first commit of a VBucket that it has accounts: none yet. Whoever commits later goes on with them.
#[cfg(feature = "driver")]
pub(crate) fn begin(commit: &mut taba_core::Commit) {
    if commit.expect == Version::NEVER {
        commit.tabs.push(index_entry());
        commit.states.extend(Book::new().write());
    }
}

fn tab_type() -> TabType {
    TabType::new(TYPE).expect("the constant is a type")
}

/// Which place of the accounts a key is.
pub(crate) fn place_of(key: &StateKey) -> Option<u64> {
    (key.tab.as_str() == ledger::ACCOUNTS).then(|| key.client.as_str().parse().ok()).flatten()
}

/// What a VBucket holds of one Client; or of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// States of Tabs that are not reserved.
    pub(crate) states: u128,
    /// Events in them.
    pub(crate) events: u128,
    /// What the Ledger noted, in events, by its Tab.
    pub(crate) notes: BTreeMap<TabName, u128>,
}

/// The sums of a VBucket's accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountsHead {
    /// Groups of Clients, but for the first one.
    more_groups: u64,
    /// Clients that have an account.
    pub(crate) clients: u64,
    /// The sum of their accounts.
    pub(crate) totals: Entry,
    /// The commit that was the last to change what was dropped: while it is the same, so is everything that was dropped.
    pub(crate) dropped_at: Version,
}

/// The accounts of a group of Clients.
pub(crate) type Group = BTreeMap<ClientId, Entry>;

impl Entry {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    #[cfg(any(feature = "driver", test))]
    pub(crate) fn add(&mut self, other: &Self) {
        self.states = self.states.saturating_add(other.states);
        self.events = self.events.saturating_add(other.events);
        for (tab, events) in &other.notes {
            let sum = self.notes.entry(tab.clone()).or_default();
            *sum = sum.saturating_add(*events);
        }
    }

    /// Sets a note; the one before.
    fn set_note(&mut self, tab: &TabName, events: u128) -> u128 {
        let before =
            if events == 0 { self.notes.remove(tab) } else { self.notes.insert(tab.clone(), events) };
        before.unwrap_or(0)
    }

    /// Takes over the notes with this base name that are larger there.
    #[cfg(feature = "driver")]
    pub(crate) fn take_notes(&mut self, base: &str, from: &Self) {
        for (tab, events) in from.notes.iter().filter(|(tab, _)| tab.base() == base) {
            let held = self.notes.entry(tab.clone()).or_default();
            *held = (*held).max(*events);
        }
    }

    /// What was dropped, by the Ledger's Tab.
    #[cfg(any(feature = "driver", test))]
    pub(crate) fn dropped(&self) -> impl Iterator<Item = (&TabName, u128)> {
        self.notes.iter().filter(|(tab, _)| tab.base() == ledger::DROPPED).map(|(tab, events)| (tab, *events))
    }

    /// The events of the notes with this base name.
    #[cfg(any(feature = "driver", test))]
    pub(crate) fn noted(&self, base: &str) -> u128 {
        let noted = self.notes.iter().filter(|(tab, _)| tab.base() == base);
        noted.fold(0, |sum, (_, events)| sum.saturating_add(*events))
    }
}

impl AccountsHead {
    /// Reads a head; `None` when it is damaged, or of another version.
    pub(crate) fn decode(bytes: &Bytes) -> Option<Self> {
        decode(bytes).filter(|head: &Self| head.more_groups < GROUPS_MAX)
    }

    fn groups(&self) -> u64 {
        self.more_groups.saturating_add(1)
    }

    /// The place of a Client's account.
    pub(crate) fn place(&self, client: &ClientId) -> u64 {
        let hash = xxhash_rust::xxh64::xxh64(client.as_str().as_bytes(), GROUP_SEED);
        let doubled = self.groups().next_power_of_two();
        let place = hash % doubled;
        // Groups from the doubled number's half on exist as far as they are split.
        1 + if place < self.groups() { place } else { place - doubled / 2 }
    }

    /// The places of all groups.
    #[cfg(any(feature = "driver", test))]
    pub(crate) fn places(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.groups()
    }

    /// The place of the group that is split next: its Clients are divided among it and the first new place.
    fn next_to_split(&self) -> Option<u64> {
        (self.clients / GROUP_CLIENTS >= self.groups()).then(|| {
            let half = (self.groups() + 1).next_power_of_two() / 2;
            1 + (self.groups() - half)
        })
    }
}

/// The bytes of a head or of a group.
fn encode(value: &impl Serialize) -> Bytes {
    let state = postcard::to_stdvec(value).expect("names and numbers can be written");
    Envelope::new(tab_type(), VERSION, 0, state.into()).encode()
}

/// Reads a group; `None` when it is damaged, or of another version.
#[cfg(any(feature = "driver", test))]
pub(crate) fn decode_group(bytes: &Bytes) -> Option<Group> {
    decode(bytes)
}

/// A group as it is stored.
#[cfg(any(feature = "driver", test))]
pub(crate) struct StoredGroup(Envelope);

#[cfg(any(feature = "driver", test))]
impl StoredGroup {
    /// `None` when it is damaged, or of another version.
    pub(crate) fn of(bytes: &Bytes) -> Option<Self> {
        opened(bytes).map(Self)
    }

    /// The accounts in it, whose ids are not looked at yet: most are known to whoever adds up. `None` when it is damaged.
    pub(crate) fn entries(&self) -> Option<Vec<(&str, Entry)>> {
        read(&self.0)
    }
}

/// The envelope of a head or of a group.
fn opened(bytes: &Bytes) -> Option<Envelope> {
    let is_ours = |envelope: &Envelope| envelope.tab_type.as_str() == TYPE && envelope.version == VERSION;
    Envelope::decode(bytes).ok().filter(is_ours)
}

fn read<'a, T: Deserialize<'a>>(envelope: &'a Envelope) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(envelope.state()?).ok()?;
    rest.is_empty().then_some(value)
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &Bytes) -> Option<T> {
    read(&opened(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_divides_one_group_and_moves_nobody_else() {
        let clients: Vec<_> = (0..2_000).map(|i| ClientId::new(&format!("client-{i}")).unwrap()).collect();
        for more_groups in 0..130 {
            let head = AccountsHead { more_groups, clients: u64::MAX, ..AccountsHead::default() };
            let (source, after) = (
                head.next_to_split().unwrap(),
                AccountsHead { more_groups: more_groups + 1, ..head.clone() },
            );
            assert!(head.places().contains(&source), "{more_groups}");
            for client in &clients {
                let (before, after) = (head.place(client), after.place(client));
                assert!(head.places().contains(&before));
                assert!(
                    before == after || (before == source && after == more_groups + 2),
                    "{more_groups}: {before} to {after}"
                );
            }
        }
    }

    #[test]
    fn groups_are_about_equal() {
        let head = AccountsHead { more_groups: 63, ..AccountsHead::default() };
        let mut clients = BTreeMap::<u64, u32>::new();
        for i in 0..6_400 {
            *clients.entry(head.place(&ClientId::new(&format!("web-{i}")).unwrap())).or_default() += 1;
        }
        assert_eq!(clients.len(), 64);
        assert!(clients.values().all(|clients| (50..=160).contains(clients)), "{clients:?}");
    }

    #[test]
    fn what_is_no_account_is_not_read() {
        let head = AccountsHead { clients: 3, ..AccountsHead::default() };
        assert_eq!(AccountsHead::decode(&encode(&head)), Some(head.clone()));
        let bytes = encode(&head);
        assert_eq!(AccountsHead::decode(&bytes.slice(..bytes.len() - 1)), None);
        let other = Envelope::new(ledger::tab_type(), VERSION, 0, postcard::to_stdvec(&head).unwrap().into());
        assert_eq!(AccountsHead::decode(&other.encode()), None);
    }
}
