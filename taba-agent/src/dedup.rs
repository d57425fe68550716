//! [`Dedup`]: recognises repeated Batches of Clients.
//!
//! A Client without an answer repeats its Batch under the same (incarnation, seq). The content under one pair never
//! changes, and a Client has one Batch in flight, so only the newest number must be kept.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use taba_core::wire::{ClientBatch, Refusal};
use taba_core::{ClientId, SeqNo, Timestamp};

use crate::sabotage::{DEDUP, is_off};
use crate::spool::record::AcceptedBatch;

/// Refusals kept for each incarnation, for the answer to a repeated Batch. If there were more, the answer has the
/// first ones; all were counted at first.
pub const REFUSALS_KEPT_MAX: usize = 64;

/// Approximate maximum bytes of one incarnation: its key, its refusals, and the maps around them.
pub const INCARNATION_BYTES_MAX: usize =
    taba_core::limits::CLIENT_ID_BYTES_MAX + REFUSALS_KEPT_MAX * size_of::<Refusal>() + 512;

/// Keys of requests to record (`Idempotency-Key`), each of one Client, that are kept besides the incarnations.
pub const KEYS_MAX: usize = 10_000;

/// Whether a Batch is a repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// Not seen before.
    New,
    /// A repetition of the newest of its incarnation.
    Again {
        /// Its refusals.
        refused: Vec<Refusal>,
        /// Its end in the Spool; 0 when an earlier run accepted it.
        position: u64,
    },
    /// Older than the newest of its incarnation: it was already answered.
    Older,
}

/// The newest Batch of each of the most recently used incarnations.
///
/// At most `incarnations_max` are kept; then the Client that has the most of them loses the one that it used least recently. So a
/// Client that begins one incarnation after the other displaces its own. If a Batch of a dropped one is repeated, it counts
/// twice; so the bound should be well above the number of Client processes on the host.
///
/// # Cost
/// [`Dedup::seen`] is one hash lookup; [`Dedup::remember`] also moves an entry in three trees. Memory is at most
/// `incarnations_max *` [`INCARNATION_BYTES_MAX`].
#[derive(Debug)]
pub struct Dedup {
    incarnations_max: usize,
    entries: HashMap<Incarnation, DedupEntry>,
    /// By last use, oldest first. INVARIANT: the same incarnations as in `entries`; `remember` upholds it.
    by_use: BTreeMap<u64, Incarnation>,
    /// The same of each Client.
    clients: HashMap<ClientId, BTreeMap<u64, u64>>,
    /// The Clients by how many they have, and by last use of the oldest one: the first loses it.
    by_share: BTreeSet<(Reverse<usize>, u64, ClientId)>,
    uses: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Incarnation {
    client: ClientId,
    number: u64,
}

#[derive(Debug)]
struct DedupEntry {
    last: SeqNo,
    refused: Box<[Refusal]>,
    position: u64,
    events_total: u64,
    used: u64,
}

impl Dedup {
    /// Empty, for at most `incarnations_max` (at least 1).
    pub fn new(incarnations_max: usize) -> Self {
        Self {
            incarnations_max: incarnations_max.max(1),
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            clients: HashMap::new(),
            by_share: BTreeSet::new(),
            uses: 0,
        }
    }

    /// Whether this Batch was seen.
    pub fn seen(&self, batch: &ClientBatch) -> Repetition {
        match self.entries.get(&Incarnation::of(batch)) {
            Some(_) if is_off(DEDUP) => Repetition::New,
            Some(entry) if batch.seq < entry.last => Repetition::Older,
            Some(entry) if batch.seq == entry.last => {
                Repetition::Again { refused: entry.refused.to_vec(), position: entry.position }
            }
            Some(_) | None => Repetition::New,
        }
    }

    /// Events accepted from the incarnation of this Batch, as far as known.
    pub fn events_total(&self, batch: &ClientBatch) -> u64 {
        self.entries.get(&Incarnation::of(batch)).map_or(0, |entry| entry.events_total)
    }

    /// Records an accepted Batch, and its end in the Spool.
    pub fn remember(&mut self, taken: &AcceptedBatch, position: u64) {
        self.insert(taken, position);
    }

    /// Restores a record of an earlier run; the most recently used last.
    pub fn restore(&mut self, taken: &AcceptedBatch) {
        let key = Incarnation { client: taken.client.clone(), number: taken.incarnation };
        if self.entries.get(&key).is_none_or(|known| known.last < taken.seq) {
            self.insert(taken, 0);
        }
    }

    /// All records, the most recently used last, for [`restore`](Self::restore).
    pub fn remembered(&self) -> impl Iterator<Item = AcceptedBatch> {
        self.by_use.values().filter_map(|key| {
            let entry = self.entries.get(key)?;
            Some(AcceptedBatch {
                client: key.client.clone(),
                incarnation: key.number,
                seq: entry.last,
                taken_at: Timestamp::default(),
                events_total: entry.events_total,
                refused: entry.refused.to_vec(),
            })
        })
    }

    fn insert(&mut self, taken: &AcceptedBatch, position: u64) {
        self.uses += 1;
        let key = Incarnation { client: taken.client.clone(), number: taken.incarnation };
        let refused = taken.refused[..taken.refused.len().min(REFUSALS_KEPT_MAX)].into();
        let (last, events_total) = (taken.seq, taken.events_total);
        let entry = DedupEntry { last, refused, position, events_total, used: self.uses };
        if let Some(before) = self.entries.insert(key.clone(), entry) {
            debug_assert!(before.last < last || is_off(DEDUP), "a repeated Batch was taken as new");
            self.by_use.remove(&before.used);
            self.share(&key.client, |uses| _ = uses.remove(&before.used));
        }
        let used = self.uses;
        self.share(&key.client, |uses| _ = uses.insert(used, key.number));
        self.by_use.insert(self.uses, key);
        while self.entries.len() > self.incarnations_max {
            let (_, used, client) = self.by_share.first().cloned().expect("whoever has one has a share");
            let oldest = self.by_use.remove(&used).expect("all maps hold the same incarnations");
            self.entries.remove(&oldest);
            self.share(&client, |uses| _ = uses.remove(&used));
        }
        debug_assert_eq!(self.entries.len(), self.by_use.len());
        debug_assert_eq!(self.clients.len(), self.by_share.len());
    }

    /// Changes what a Client has.
    fn share(&mut self, client: &ClientId, change: impl FnOnce(&mut BTreeMap<u64, u64>)) {
        let key = |uses: &BTreeMap<u64, u64>| {
            let (oldest, _) = uses.first_key_value()?;
            Some((Reverse(uses.len()), *oldest, client.clone()))
        };
        let uses = self.clients.entry(client.clone()).or_default();
        let before = key(uses);
        change(uses);
        let after = key(uses);
        if after.is_none() {
            self.clients.remove(client);
        }
        before.inspect(|before| _ = self.by_share.remove(before));
        self.by_share.extend(after);
    }

    /// The number of incarnations.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no incarnations.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Incarnation {
    fn of(batch: &ClientBatch) -> Self {
        Self { client: batch.client.clone(), number: batch.incarnation }
    }
}

#[cfg(test)]
mod tests {
    use taba_core::Timestamp;
    use taba_core::ledger::Why;

    use super::*;

    fn batch(client: &str, incarnation: u64, seq: u64) -> ClientBatch {
        let client = ClientId::new(client).unwrap();
        ClientBatch::new(client, incarnation, SeqNo(seq), Timestamp::default(), Vec::new())
    }

    fn taken(client: &str, incarnation: u64, seq: u64, refused: &[Refusal]) -> AcceptedBatch {
        let (client, seq) = (ClientId::new(client).unwrap(), SeqNo(seq));
        let (taken_at, refused) = (Timestamp::default(), refused.to_vec());
        AcceptedBatch { client, incarnation, seq, taken_at, events_total: 10 * seq.0, refused }
    }

    fn again(refused: Vec<Refusal>, position: u64) -> Repetition {
        Repetition::Again { refused, position }
    }

    #[test]
    fn the_newest_is_told_again_and_older_ones_are_known() {
        let mut dedup = Dedup::new(10);
        let refused = vec![Refusal::new(3, Why::BadName, 7)];
        assert_eq!(dedup.seen(&batch("web", 1, 5)), Repetition::New);
        dedup.remember(&taken("web", 1, 5, &refused), 5);
        assert_eq!(dedup.seen(&batch("web", 1, 5)), again(refused, 5));
        assert_eq!(dedup.seen(&batch("web", 1, 4)), Repetition::Older);
        assert_eq!(dedup.seen(&batch("web", 1, 6)), Repetition::New);
        assert_eq!(
            dedup.seen(&batch("web", 2, 5)),
            Repetition::New,
            "another run of the program counts from 1 again"
        );
        assert_eq!(dedup.seen(&batch("db", 1, 5)), Repetition::New);
    }

    #[test]
    fn the_incarnation_unused_for_longest_goes() {
        let mut dedup = Dedup::new(2);
        dedup.remember(&taken("a", 1, 1, &[]), 5);
        dedup.remember(&taken("b", 1, 1, &[]), 5);
        dedup.remember(&taken("a", 1, 2, &[]), 5);
        dedup.remember(&taken("c", 1, 1, &[]), 5);
        assert_eq!(dedup.len(), 2);
        assert_eq!(dedup.seen(&batch("b", 1, 1)), Repetition::New, "forgotten");
        assert_eq!(dedup.seen(&batch("a", 1, 2)), again(Vec::new(), 5));
        assert_eq!(dedup.seen(&batch("c", 1, 1)), again(Vec::new(), 5));
    }

    #[test]
    fn a_client_of_many_incarnations_displaces_its_own() {
        let mut dedup = Dedup::new(100);
        dedup.remember(&taken("web", 1, 1, &[]), 5);
        dedup.remember(&taken("db", 1, 7, &[]), 5);
        dedup.remember(&taken("db", 2, 7, &[]), 5);
        for number in 0..10_001 {
            dedup.remember(&taken("many", number, 1, &[]), 5);
            assert!(dedup.len() <= 100);
        }
        for (client, incarnation, seq) in [("web", 1, 1), ("db", 1, 7), ("db", 2, 7), ("many", 10_000, 1)] {
            assert_eq!(dedup.seen(&batch(client, incarnation, seq)), again(Vec::new(), 5), "{client}");
        }
        assert_eq!(dedup.seen(&batch("many", 0, 1)), Repetition::New);
    }

    #[test]
    fn what_is_remembered_is_known_after_a_restart() {
        let mut dedup = Dedup::new(10);
        let refused = vec![Refusal::new(3, Why::BadName, 7)];
        dedup.remember(&taken("b", 1, 5, &refused), 5);
        dedup.remember(&taken("a", 1, 2, &[]), 5);
        dedup.remember(&taken("b", 1, 6, &refused), 5);
        let mut restored = Dedup::new(1);
        dedup.remembered().for_each(|taken| restored.restore(&taken));
        assert_eq!(restored.seen(&batch("b", 1, 6)), again(refused, 0), "it was used last");
        assert_eq!(restored.seen(&batch("b", 1, 5)), Repetition::Older);
    }

    #[test]
    fn what_an_earlier_run_remembered_never_replaces_what_is_newer() {
        let mut dedup = Dedup::new(10);
        assert!(dedup.is_empty());
        dedup.restore(&taken("a", 1, 5, &[]));
        assert!(!dedup.is_empty());
        for older in [4, 5] {
            dedup.restore(&taken("a", 1, older, &[]));
            assert_eq!(dedup.seen(&batch("a", 1, 5)), again(Vec::new(), 0));
        }
        assert_eq!(dedup.events_total(&batch("a", 1, 6)), 50);
        dedup.restore(&taken("a", 1, 6, &[]));
        assert_eq!(dedup.seen(&batch("a", 1, 5)), Repetition::Older);
        assert_eq!(dedup.events_total(&batch("a", 1, 7)), 60);
        assert_eq!(dedup.events_total(&batch("b", 1, 7)), 0, "nothing is known of it");
    }

    #[test]
    fn no_more_refusals_are_kept_than_stated() {
        let mut dedup = Dedup::new(2);
        let refused: Vec<_> = (0..100).map(|block| Refusal::new(block, Why::BadName, 1)).collect();
        dedup.remember(&taken("a", 1, 1, &refused), 5);
        assert_eq!(dedup.seen(&batch("a", 1, 1)), again(refused[..REFUSALS_KEPT_MAX].to_vec(), 5));
    }
}
