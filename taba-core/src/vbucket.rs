//! [`VBucket`]: one slice of the key space. Which slice a Tab lies in is a promise to every stored deployment; the
//! test vectors stand in `docs/WIRE.md` and below.

use std::fmt;

use xxhash_rust::xxh64::xxh64;

use crate::name::{ClientId, TabName};

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
        VBucket((xxh64(tab.as_str().as_bytes(), 0) % u64::from(self.0)) as u16)
    }

    /// Where an Agent puts what the Ledger notes of a Client: `XXH64(id, seed 0) mod count`, so that the notes of many Clients do
    /// not all meet in one VBucket. No promise: the Ledger's Tabs are looked for in every VBucket.
    pub fn of_client(self, client: &ClientId) -> VBucket {
        VBucket((xxh64(client.as_str().as_bytes(), 0) % u64::from(self.0)) as u16)
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
