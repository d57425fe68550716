//! [`AccountsSum`]: the accounts of many VBuckets, read some VBuckets at a time and added up.

use std::collections::{BTreeSet, HashMap};

use futures::stream::{self, StreamExt};
use taba_core::{ClientId, Peek, Peeked, VBucket};

use super::head_cache::Head;
use super::heads::head_key;
use super::missing::Coverage;
use super::selection::Selection;
use super::state::QueryState;
use crate::accounts::{self, AccountsHead, Entry, Group, StoredGroup};

/// Groups that are read at once, about: of 24 Clients each.
const GROUPS_AT_ONCE: usize = 2048;
/// Reads that are under way at a time: one is added up while the next one comes.
const READS_AT_ONCE: usize = 2;

/// Accounts that are being added up.
pub(super) struct AccountsSum<'a> {
    selection: &'a Selection,
    /// `None` for Clients that are not chosen.
    clients: HashMap<ClientId, Option<Entry>>,
    /// VBuckets that turned out to have more groups than were read; how many they have is known now.
    pub(super) grown: Vec<VBucket>,
}

/// VBuckets that are read at once, and the places of the groups.
type Portion = Vec<(VBucket, BTreeSet<u64>)>;

/// What came of a VBucket.
enum Added {
    Done,
    Grown,
    /// Nobody keeps accounts there, or they do not add up.
    NotKept,
}

impl<'a> AccountsSum<'a> {
    pub(super) fn new(selection: &'a Selection) -> Self {
        Self { selection, clients: HashMap::new(), grown: Vec::new() }
    }

    /// Adds the accounts of these VBuckets; those that are to be read one by one.
    pub(super) async fn add_all(
        &mut self,
        state: &QueryState,
        coverage: &Coverage,
        vbuckets: Vec<VBucket>,
    ) -> Vec<VBucket> {
        let (mut portions, mut portion, mut groups, mut alone) = (Vec::new(), Portion::new(), 0, Vec::new());
        for vbucket in vbuckets {
            let places = self.places(state.shared.heads.last(vbucket).as_deref());
            if places.len() > GROUPS_AT_ONCE {
                alone.push(vbucket);
                continue;
            }
            if groups + places.len() > GROUPS_AT_ONCE {
                groups = 0;
                portions.push(std::mem::take(&mut portion));
            }
            groups += places.len();
            portion.push((vbucket, places));
        }
        portions.push(portion);
        let read = |portion: Portion| async move {
            let peek = |(vbucket, places): &(VBucket, BTreeSet<u64>)| {
                let groups = places.iter().copied().map(accounts::key);
                Peek::new(*vbucket, std::iter::once(head_key()).chain(groups).collect())
            };
            let found = coverage.peek(portion.iter().map(peek).collect()).await;
            (portion.into_iter().collect::<HashMap<_, _>>(), found)
        };
        let mut reads = stream::iter(portions).map(read).buffer_unordered(READS_AT_ONCE);
        while let Some((places, found)) = reads.next().await {
            for (vbucket, peeked) in found {
                let head = state.shared.heads.read(vbucket, &peeked);
                match places.get(&vbucket).map(|places| self.add(head, places, &peeked)) {
                    Some(Added::Done) => coverage.has_all(),
                    Some(Added::Grown) => self.grown.push(vbucket),
                    Some(Added::NotKept) | None => alone.push(vbucket),
                }
            }
            // What is added up makes nobody wait.
            tokio::task::yield_now().await;
        }
        alone
    }

    /// The places of the chosen Clients' accounts; of a VBucket that is not known yet, as if it had few Clients.
    fn places(&self, head: Option<&AccountsHead>) -> BTreeSet<u64> {
        let few = AccountsHead::default();
        let head = head.unwrap_or(&few);
        match self.selection.exact_clients() {
            Some(clients) => clients.iter().map(|client| head.place(client)).collect(),
            None => head.places().collect(),
        }
    }

    fn add(&mut self, head: Head, places: &BTreeSet<u64>, peeked: &Peeked) -> Added {
        let Some(head) = head else { return Added::NotKept };
        let has_all = match self.selection.exact_clients() {
            Some(clients) => clients.iter().all(|client| places.contains(&head.place(client))),
            None => head.places().all(|place| places.contains(&place)),
        };
        if !has_all {
            return Added::Grown;
        }
        let stored = peeked.states.iter().skip(1).flatten();
        let Some(groups) = stored.map(StoredGroup::of).collect::<Option<Vec<_>>>() else {
            return Added::NotKept;
        };
        let entries = groups.iter().map(StoredGroup::entries).collect::<Option<Vec<_>>>();
        let Some(entries) = entries else { return Added::NotKept };
        if self.selection.exact_clients().is_none() {
            let mut totals = Entry::default();
            entries.iter().flatten().for_each(|(_, entry)| totals.add(entry));
            let clients = entries.iter().map(Vec::len).sum::<usize>();
            if (head.clients, &head.totals) != (clients as u64, &totals) {
                return Added::NotKept;
            }
        }
        if !entries.iter().flatten().all(|(client, _)| self.knows(client)) {
            return Added::NotKept;
        }
        for (client, entry) in entries.into_iter().flatten() {
            if let Some(Some(sum)) = self.clients.get_mut(client) {
                sum.add(&entry);
            }
        }
        Added::Done
    }

    /// Looks once at each id: whether it is one, and whether it is chosen.
    fn knows(&mut self, client: &str) -> bool {
        if self.clients.contains_key(client) {
            return true;
        }
        let Ok(id) = ClientId::new(client) else { return false };
        let entry = self.selection.has_client(&id).then(Entry::default);
        self.clients.insert(id, entry);
        true
    }

    /// The chosen Clients that have accounts.
    pub(super) fn into_clients(self) -> Group {
        self.clients.into_iter().filter_map(|(client, entry)| Some((client, entry?))).collect()
    }
}
