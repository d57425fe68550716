//! [`VBucketMap`]: which shard owns which VBucket in a new deployment. Total by construction: gaps and overlaps
//! cannot be built.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use taba_core::{VBucket, VBuckets};

use crate::limits::SHARDS_MAX;

/// One Redis primary with its replicas: its index in the deployment's list, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.0)
    }
}

/// The name of a Redis, given once and kept for its life: what tells a shard from every other, whatever its address and
/// its place in a list. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardName(pub u64);

impl fmt::Display for ShardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ShardName {
    type Err = ShardNameError;

    fn from_str(text: &str) -> Result<Self, ShardNameError> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 16 || !text.bytes().all(is_hex) {
            return Err(ShardNameError);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| ShardNameError)
    }
}

/// A text is no name of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no name of a shard: it has 16 digits of 0-9 and a-f")]
pub struct ShardNameError;

/// Why ranges do not form a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// There must be at least one shard, and not more than VBuckets or [`SHARDS_MAX`].
    #[error("{shards} shards for {vbuckets} vbuckets: there may be 1 to {shards_max}")]
    Shards {
        /// How many were asked for.
        shards: usize,
        /// How many VBuckets there are.
        vbuckets: u16,
        /// How many shards there may be.
        shards_max: usize,
    },
    /// A VBucket lies in no range.
    #[error("vbucket {index} belongs to no shard")]
    Gap {
        /// The first of them.
        index: u16,
    },
    /// A VBucket lies in two ranges.
    #[error("vbucket {index} belongs to two shards")]
    Overlap {
        /// The first of them.
        index: u16,
    },
    /// A range ends beyond the last VBucket, or is empty.
    #[error("there is no range {start}..={end} in {vbuckets} vbuckets")]
    Range {
        /// Where it begins.
        start: u16,
        /// Where it ends.
        end: u16,
        /// How many VBuckets there are.
        vbuckets: u16,
    },
}

/// Which shard each VBucket belongs to.
///
/// # Examples
/// ```
/// use taba_core::VBuckets;
/// use taba_shard::{ShardId, VBucketMap};
///
/// let map = VBucketMap::even(VBuckets::new(64)?, 3)?;
/// let last = map.vbuckets().get(63).unwrap();
/// assert_eq!(map.owner(last), ShardId(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VBucketMap {
    vbuckets: VBuckets,
    /// One for each VBucket.
    owners: Vec<ShardId>,
}

impl VBucketMap {
    /// Contiguous slices, as even as possible: the first shards have one VBucket more where the division leaves a
    /// remainder.
    ///
    /// # Errors
    /// [`MapError::Shards`].
    pub fn even(vbuckets: VBuckets, shards: usize) -> Result<Self, MapError> {
        let count = usize::from(vbuckets.count());
        let shards_max = SHARDS_MAX.min(count);
        if shards == 0 || shards > shards_max {
            return Err(MapError::Shards { shards, vbuckets: vbuckets.count(), shards_max });
        }
        let (each, more) = (count / shards, count % shards);
        let owners = (0..shards)
            .flat_map(|shard| std::iter::repeat_n(ShardId(shard as u16), each + usize::from(shard < more)))
            .collect();
        Ok(Self { vbuckets, owners })
    }

    /// From ranges of VBuckets, ends included, in any order.
    ///
    /// # Errors
    /// [`MapError`] when they leave a gap, overlap, or end beyond the last VBucket.
    pub fn from_ranges(
        vbuckets: VBuckets,
        ranges: &[(RangeInclusive<u16>, ShardId)],
    ) -> Result<Self, MapError> {
        let mut owners: Vec<Option<ShardId>> = vec![None; usize::from(vbuckets.count())];
        for (range, shard) in ranges {
            let (start, end) = (*range.start(), *range.end());
            if range.is_empty() || end >= vbuckets.count() {
                return Err(MapError::Range { start, end, vbuckets: vbuckets.count() });
            }
            for index in range.clone() {
                if owners[usize::from(index)].replace(*shard).is_some() {
                    return Err(MapError::Overlap { index });
                }
            }
        }
        let owned = owners.iter().enumerate().map(|(index, owner)| owner.ok_or(index));
        let owners =
            owned.collect::<Result<_, _>>().map_err(|index| MapError::Gap { index: index as u16 })?;
        Ok(Self { vbuckets, owners })
    }

    /// From one owner for each VBucket, in order.
    ///
    /// # Panics
    /// When there is not one for each VBucket.
    pub fn from_owners(vbuckets: VBuckets, owners: Vec<ShardId>) -> Self {
        assert_eq!(owners.len(), usize::from(vbuckets.count()), "one for each vbucket");
        Self { vbuckets, owners }
    }

    /// Runs of VBuckets of one owner, in order.
    pub fn ranges(&self) -> Vec<(RangeInclusive<u16>, ShardId)> {
        let mut ranges: Vec<(RangeInclusive<u16>, ShardId)> = Vec::new();
        for (index, owner) in (0..).zip(&self.owners) {
            match ranges.last_mut() {
                Some((range, last)) if last == owner => *range = *range.start()..=index,
                _ => ranges.push((index..=index, *owner)),
            }
        }
        ranges
    }

    /// How many VBuckets there are.
    pub const fn vbuckets(&self) -> VBuckets {
        self.vbuckets
    }

    /// The shard that owns the VBucket.
    ///
    /// # Panics
    /// When the VBucket is of a deployment with more VBuckets than this one.
    pub fn owner(&self, vbucket: VBucket) -> ShardId {
        self.owners[usize::from(vbucket.index())]
    }

    /// All VBuckets of one shard, in order.
    pub fn owned_by(&self, shard: ShardId) -> impl Iterator<Item = VBucket> {
        self.vbuckets.iter().filter(move |vbucket| self.owner(*vbucket) == shard)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vbuckets(count: u32) -> VBuckets {
        VBuckets::new(count).unwrap()
    }

    #[test]
    fn there_may_be_as_many_shards_as_vbuckets() {
        assert!(VBucketMap::even(vbuckets(64), 64).is_ok());
        assert!(VBucketMap::even(vbuckets(64), 65).is_err());
        assert!(VBucketMap::even(vbuckets(64), 0).is_err());
    }

    proptest! {
        #[test]
        fn an_even_map_is_total_contiguous_and_even(shards in 1_usize..=64, power in 6_u32..=14) {
            let map = VBucketMap::even(vbuckets(1 << power), shards).unwrap();
            let owners: Vec<_> = map.vbuckets().iter().map(|vbucket| map.owner(vbucket)).collect();
            prop_assert!(owners.is_sorted());
            let sizes: Vec<_> =
                (0..shards).map(|shard| map.owned_by(ShardId(shard as u16)).count()).collect();
            prop_assert_eq!(sizes.iter().sum::<usize>(), 1 << power);
            let (min, max) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            prop_assert!(max - min <= 1 && *min >= 1, "{:?}", sizes);
        }

        #[test]
        fn ranges_make_a_map_exactly_when_each_vbucket_lies_in_one(
            ranges in prop::collection::vec((0_u16..70, 0_u16..70, 0_u16..4), 0..6)
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(a, b, shard)| (a..=b, ShardId(shard))).collect();
            let times = |index: u16| ranges.iter().filter(|(range, _)| range.contains(&index)).count();
            let fine = ranges.iter().all(|(range, _)| !range.is_empty() && *range.end() < 64)
                && (0..64).all(|index| times(index) == 1);
            let map = VBucketMap::from_ranges(vbuckets(64), &ranges);
            prop_assert_eq!(map.is_ok(), fine, "{:?} of {:?}", map, ranges);
            if let Ok(map) = map {
                for vbucket in map.vbuckets().iter() {
                    let range = ranges.iter().find(|(range, _)| range.contains(&vbucket.index())).unwrap();
                    prop_assert_eq!(map.owner(vbucket), range.1);
                }
            }
        }
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let of = |ranges: &[(RangeInclusive<u16>, ShardId)]| {
            VBucketMap::from_ranges(vbuckets(64), ranges).map(|_| ()).unwrap_err()
        };
        assert_eq!(of(&[]), MapError::Gap { index: 0 });
        assert_eq!(of(&[(0..=31, ShardId(0)), (33..=63, ShardId(1))]), MapError::Gap { index: 32 });
        assert_eq!(of(&[(0..=31, ShardId(0)), (31..=63, ShardId(1))]), MapError::Overlap { index: 31 });
        assert_eq!(of(&[(0..=64, ShardId(0))]), MapError::Range { start: 0, end: 64, vbuckets: 64 });
        assert!(matches!(VBucketMap::even(vbuckets(64), 0), Err(MapError::Shards { .. })));
        assert!(matches!(VBucketMap::even(vbuckets(64), 65), Err(MapError::Shards { shards_max: 64, .. })));
        assert!(
            VBucketMap::from_ranges(vbuckets(64), &[(32..=63, ShardId(1)), (0..=31, ShardId(0))]).is_ok()
        );
    }
}
