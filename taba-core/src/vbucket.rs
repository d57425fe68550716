//! [`VBucket`]: one slice of the key space. Which slice a Tab lies in is a promise to every stored deployment; the
//! test vectors stand in `docs/WIRE.md` and below.

use std::collections::BTreeSet;
use std::fmt;

use xxhash_rust::xxh64::xxh64;

use crate::name::{ClientId, TabName};
use crate::spread::Spread;

/// One slice of the key space: a number from 0 to 16,383.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VBucket(u16);

impl VBucket {
    /// The number of this VBucket.
    pub const fn index(self) -> u16 {
        self.0
    }
}

impl fmt::Display for VBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vb{:04}", self.0)
    }
}

/// How many VBuckets there are was not a power of two from 64 to 16,384.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} VBuckets: the number must be a power of two from 64 to 16384")]
#[non_exhaustive]
pub struct VBucketsError {
    /// What was asked for.
    pub count: u32,
}

/// How many VBuckets a deployment has, fixed for its life.
///
/// # Examples
/// ```
/// use taba_core::{TabName, VBuckets};
///
/// let vbuckets = VBuckets::default();
/// assert_eq!(vbuckets.count(), 1024);
/// assert_eq!(vbuckets.of(&TabName::new("bids_won")?).index(), 480);
/// # Ok::<(), taba_core::NameError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VBuckets(u16);

impl Default for VBuckets {
    /// 1,024, good for about five million States.
    fn default() -> Self {
        Self(1024)
    }
}

impl VBuckets {
    /// A deployment of `count` VBuckets.
    ///
    /// # Errors
    /// [`VBucketsError`] when `count` is not a power of two from 64 to 16,384.
    pub const fn new(count: u32) -> Result<Self, VBucketsError> {
        if count.is_power_of_two() && count >= 64 && count <= 16384 {
            Ok(Self(count as u16))
        } else {
            Err(VBucketsError { count })
        }
    }

    /// How many there are.
    pub const fn count(self) -> u16 {
        self.0
    }

    /// Where a Tab lives: `XXH64(whole name, seed 0) mod count`.
    ///
    /// Source of the hash: Y. Collet, xxHash fast digest algorithm, version 0.1.1.
    pub fn of(self, tab: &TabName) -> VBucket {
        self.way(tab, 0)
    }

    /// Where an Agent puts what this Client sends of a Tab that is spread: `XXH64(whole name, seed w) mod count`, with
    /// `w = XXH64(id, seed 0) mod spread`. Without a spread that is [`of`](Self::of).
    pub fn place(self, tab: &TabName, client: &ClientId, spread: Spread) -> VBucket {
        self.way(tab, client_hash(client) & u64::from(spread.get() - 1))
    }

    /// All VBuckets in which a Tab that has been spread so far may have States; some ways may meet in one VBucket.
    pub fn places(self, tab: &TabName, spread: Spread) -> BTreeSet<VBucket> {
        (0..u64::from(spread.get())).map(|way| self.way(tab, way)).collect()
    }

    /// The least spread under which this Client's events of a Tab may lie in a VBucket; `None` when there is none. Follows from
    /// the names alone: what one Server takes, no other one calls misplaced, whatever rules it knows.
    pub fn spread_at(self, tab: &TabName, client: &ClientId, vbucket: VBucket) -> Option<Spread> {
        if self.of(tab) == vbucket {
            return Some(Spread::ONE);
        }
        let hash = client_hash(client);
        Spread::all().find(|spread| self.way(tab, hash & u64::from(spread.get() - 1)) == vbucket)
    }

    fn way(self, tab: &TabName, way: u64) -> VBucket {
        VBucket((xxh64(tab.as_str().as_bytes(), way) % u64::from(self.0)) as u16)
    }

    /// Where an Agent puts what the Ledger notes of a Client: `XXH64(id, seed 0) mod count`, so that the notes of many Clients do
    /// not all meet in one VBucket. No promise: the Ledger's Tabs are looked for in every VBucket.
    pub fn of_client(self, client: &ClientId) -> VBucket {
        VBucket((client_hash(client) % u64::from(self.0)) as u16)
    }

    /// The VBucket with this number, if the deployment has it.
    pub const fn get(self, index: u16) -> Option<VBucket> {
        if index < self.0 { Some(VBucket(index)) } else { None }
    }

    /// All of them, in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = VBucket> {
        (0..self.0).map(VBucket)
    }
}

fn client_hash(client: &ClientId) -> u64 {
    xxh64(client.as_str().as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tab: &str, client: usize) -> (TabName, ClientId) {
        (TabName::new(tab).unwrap(), ClientId::new(&format!("host-{client}")).unwrap())
    }

    #[test]
    fn a_tab_lies_where_it_always_has_and_spreads_by_client() {
        for count in [64, 1024, 16384] {
            let vbuckets = VBuckets::new(count).unwrap();
            for spread in Spread::all() {
                let (tab, _) = names("hot;a=b", 0);
                let places = vbuckets.places(&tab, spread);
                assert!(places.contains(&vbuckets.of(&tab)), "what was there before is found");
                let mut used = BTreeSet::new();
                for client in 0..2_000 {
                    let (tab, client) = names("hot;a=b", client);
                    let place = vbuckets.place(&tab, &client, spread);
                    assert!(
                        vbuckets.spread_at(&tab, &client, place).unwrap() <= spread,
                        "every Server takes it"
                    );
                    assert!(spread > Spread::ONE || place == vbuckets.of(&tab));
                    used.insert(place);
                }
                assert_eq!(used, places, "{count} {spread}: each place is used, and no other");
            }
        }
    }

    #[test]
    fn what_is_no_place_of_a_client_is_none() {
        let vbuckets = VBuckets::default();
        let (tab, client) = names("hot", 7);
        let is_place = |vbucket: &VBucket| vbuckets.spread_at(&tab, &client, *vbucket).is_some();
        let places = vbuckets.iter().filter(is_place).count();
        assert!((2..=7).contains(&places), "one for each spread, of 1,024: {places}");
    }

    #[test]
    fn a_wider_spread_finds_what_a_narrower_one_has_placed() {
        let vbuckets = VBuckets::default();
        let (tab, _) = names("hot", 0);
        for (narrow, wide) in Spread::all().zip(Spread::all().skip(1)) {
            assert!(vbuckets.places(&tab, wide).is_superset(&vbuckets.places(&tab, narrow)), "{narrow}");
        }
    }
}
