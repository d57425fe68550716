//! [`ShardMap`]: the shards of a deployment by name and address, and which of them is to own each VBucket.
//!
//! It is stored on every shard as JSON under [`keys::SHARD_MAP`](crate::keys::SHARD_MAP). Of several versions the one
//! with the highest epoch is in force. It says what is wanted: who owns a VBucket now is in the VBucket itself, so a map
//! that is out of date costs a question and never a count.

use serde::{Deserialize, Serialize};
use taba_core::{VBucket, VBuckets};

use crate::map::{MapError, ShardId, ShardName, VBucketMap};

/// One shard of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardEntry {
    /// Its name.
    pub name: ShardName,
    /// Where it was last known to be, `host:port`, or which Sentinels name it, for those who do not know better; without user
    /// and password. See [`ShardUrl::at`](crate::ShardUrl::at).
    pub address: String,
    /// Whether it is to be emptied: it gets no VBuckets.
    pub is_draining: bool,
}

impl ShardEntry {
    /// A shard that takes VBuckets.
    pub const fn new(name: ShardName, address: String) -> Self {
        Self { name, address, is_draining: false }
    }
}

/// The address in the URL of a Redis, as a map writes it.
pub(crate) fn address_of(url: &str) -> &str {
    url.strip_prefix("redis://").unwrap_or(url).trim_end_matches('/')
}

/// Why a text or a change is no map.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardMapError {
    /// It is not the map any more that the change was planned for.
    #[error("another operator has changed the shard map in the meantime; look at it, and try again")]
    Changed,
    /// It is not the JSON of a map.
    #[error("the shard map is not what a deployment writes")]
    Json(#[from] serde_json::Error),
    /// Its ranges leave a gap or overlap.
    #[error("the shard map does not give each vbucket one shard")]
    Ranges(#[from] MapError),
    /// The number of VBuckets is none that a deployment can have.
    #[error("the shard map is of {count} vbuckets, which no deployment has")]
    VBuckets {
        /// How many it says.
        count: u32,
    },
    /// It does not name its deployment.
    #[error("the shard map is of deployment {text:?}, which has no such name: 16 digits of 0-9 and a-f")]
    Deployment {
        /// What it says.
        text: String,
    },
    /// A range names a shard that is not in the list.
    #[error("the shard map names shard {name}, and does not list it")]
    Unlisted {
        /// Which.
        name: String,
    },
    /// A shard is listed twice.
    #[error("the shard map lists shard {name} twice")]
    Twice {
        /// Which.
        name: ShardName,
    },
    /// Each shard is draining: none is left to take the VBuckets.
    #[error("no shard is left to own the vbuckets: each is draining")]
    NoneLeft,
    /// A shard is not in the map.
    #[error("no shard {text:?} in the map; taba-shard status lists them")]
    Unknown {
        /// What was asked for.
        text: String,
    },
    /// A shard that is to own VBuckets cannot be removed.
    #[error("shard {name} is still to own {vbuckets} vbuckets: drain it first")]
    Owns {
        /// Which.
        name: ShardName,
        /// How many.
        vbuckets: usize,
    },
}

/// The shards of a deployment, and which is to own each VBucket. Total by construction: a gap or an overlap cannot be
/// built.
///
/// # Examples
/// ```
/// use taba_core::VBuckets;
/// use taba_shard::shard_map::{ShardEntry, ShardMap};
/// use taba_shard::{ShardName, VBucketMap};
///
/// let entry = |n: u64| {
///     ShardEntry::new(ShardName(n), format!("10.0.0.{n}:6379"))
/// };
/// let owners = VBucketMap::even(VBuckets::new(64)?, 1)?;
/// let one = ShardMap::new(7, vec![entry(1)], owners)?;
/// let two = one.with_shard(entry(2))?.balanced()?;
/// assert_eq!(two.owned_by(ShardName(2)).count(), 32);
/// assert_eq!(ShardMap::read(two.to_string().as_bytes())?, two);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    deployment: u64,
    epoch: u64,
    shards: Vec<ShardEntry>,
    /// Places in `shards`.
    owners: VBucketMap,
}

/// How a map is written.
#[derive(Serialize, Deserialize)]
struct Written {
    /// 16 hexadecimal digits, as a name.
    deployment: String,
    epoch: u64,
    vbuckets: u32,
    shards: Vec<WrittenShard>,
    /// First VBucket, last VBucket, name of the shard.
    owners: Vec<(u16, u16, String)>,
}

#[derive(Serialize, Deserialize)]
struct WrittenShard {
    name: String,
    address: String,
    #[serde(default)]
    draining: bool,
}

/// By how much the epoch of the map grows when a shard is lost: that shard may have had newer maps, which nobody else has.
const LOST_EPOCHS: u64 = 1_000_000;

impl ShardMap {
    /// The first map of a deployment, which is named by a number: its epoch is 1. `owners` gives places in `shards`.
    ///
    /// # Errors
    /// [`ShardMapError::Twice`]; [`ShardMapError::Unlisted`] when an owner has no place in the list.
    pub fn new(deployment: u64, shards: Vec<ShardEntry>, owners: VBucketMap) -> Result<Self, ShardMapError> {
        Self { deployment, epoch: 1, shards, owners }.checked()
    }

    /// With these shards and owners, under the next epoch.
    fn changed(&self, shards: Vec<ShardEntry>, owners: VBucketMap) -> Result<Self, ShardMapError> {
        Self { deployment: self.deployment, epoch: self.epoch + 1, shards, owners }.checked()
    }

    fn checked(self) -> Result<Self, ShardMapError> {
        let Self { shards, owners, .. } = &self;
        for (place, shard) in shards.iter().enumerate() {
            if shards[..place].iter().any(|other| other.name == shard.name) {
                return Err(ShardMapError::Twice { name: shard.name });
            }
        }
        let mut ranges = owners.ranges().into_iter();
        match ranges.find(|(_, shard)| usize::from(shard.0) >= shards.len()) {
            Some((_, shard)) => Err(ShardMapError::Unlisted { name: shard.to_string() }),
            None => Ok(self),
        }
    }

    /// Reads a map.
    ///
    /// # Errors
    /// [`ShardMapError`].
    pub fn read(text: &[u8]) -> Result<Self, ShardMapError> {
        let written: Written = serde_json::from_slice(text)?;
        let count = written.vbuckets;
        let vbuckets = VBuckets::new(count).map_err(|_| ShardMapError::VBuckets { count })?;
        let mut shards = Vec::with_capacity(written.shards.len());
        for WrittenShard { name, address, draining } in written.shards {
            let name = name.parse().map_err(|_| ShardMapError::Unlisted { name })?;
            shards.push(ShardEntry { name, address, is_draining: draining });
        }
        let mut ranges = Vec::with_capacity(written.owners.len());
        for (first, last, name) in written.owners {
            let place = shards.iter().position(|shard| shard.name.to_string() == name);
            let place = place.ok_or(ShardMapError::Unlisted { name })?;
            ranges.push((first..=last, ShardId(place as u16)));
        }
        let owners = VBucketMap::from_ranges(vbuckets, &ranges)?;
        let deployment = written.deployment.parse::<ShardName>();
        let deployment = deployment.map_err(|_| ShardMapError::Deployment { text: written.deployment })?.0;
        Self { deployment, epoch: written.epoch, shards, owners }.checked()
    }

    /// The number of the deployment.
    pub const fn deployment(&self) -> u64 {
        self.deployment
    }

    /// Higher after each change.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many VBuckets there are.
    pub const fn vbuckets(&self) -> VBuckets {
        self.owners.vbuckets()
    }

    /// All shards.
    pub fn shards(&self) -> &[ShardEntry] {
        &self.shards
    }

    /// The shard of this name.
    pub fn shard(&self, name: ShardName) -> Option<&ShardEntry> {
        self.shards.iter().find(|shard| shard.name == name)
    }

    /// The shard that an operator names: by its name, the beginning of its name, or its address.
    ///
    /// # Errors
    /// [`ShardMapError::Unknown`], also when the beginning of a name is that of several.
    pub fn find(&self, text: &str) -> Result<&ShardEntry, ShardMapError> {
        let address = address_of(text);
        let mut named = self.shards.iter().filter(|shard| {
            shard.address == address || !text.is_empty() && shard.name.to_string().starts_with(text)
        });
        match (named.next(), named.next()) {
            (Some(shard), None) => Ok(shard),
            _ => Err(ShardMapError::Unknown { text: text.to_owned() }),
        }
    }

    /// Which shard is to own the VBucket.
    ///
    /// # Panics
    /// When the VBucket is of a deployment with more VBuckets than this one.
    pub fn owner(&self, vbucket: VBucket) -> ShardName {
        self.shards[usize::from(self.owners.owner(vbucket).0)].name
    }

    /// The VBuckets that a shard is to own, in order.
    pub fn owned_by(&self, name: ShardName) -> impl Iterator<Item = VBucket> + '_ {
        self.vbuckets().iter().filter(move |vbucket| self.owner(*vbucket) == name)
    }

    /// With one shard more, which owns nothing yet; one of this name is replaced, and is not draining any more.
    ///
    /// # Errors
    /// [`ShardMapError`].
    pub fn with_shard(&self, shard: ShardEntry) -> Result<Self, ShardMapError> {
        let mut shards = self.shards.clone();
        match shards.iter_mut().find(|known| known.name == shard.name) {
            Some(known) => *known = shard,
            None => shards.push(shard),
        }
        self.changed(shards, self.owners.clone())
    }

    /// With this shard draining, or not. Its VBuckets stay its own until the next [`balanced`](Self::balanced).
    ///
    /// # Errors
    /// [`ShardMapError::Unknown`].
    pub fn with_draining(&self, name: ShardName, is_draining: bool) -> Result<Self, ShardMapError> {
        let shard = self.shard(name).ok_or_else(|| ShardMapError::Unknown { text: name.to_string() })?;
        self.with_shard(ShardEntry { is_draining, ..shard.clone() })
    }

    /// Without a shard.
    ///
    /// # Errors
    /// [`ShardMapError::Owns`] when it is to own VBuckets.
    pub fn without_shard(&self, name: ShardName) -> Result<Self, ShardMapError> {
        let vbuckets = self.owned_by(name).count();
        if vbuckets > 0 {
            return Err(ShardMapError::Owns { name, vbuckets });
        }
        let gone = self.shards.iter().position(|shard| shard.name == name);
        let gone = gone.ok_or_else(|| ShardMapError::Unknown { text: name.to_string() })?;
        let mut shards = self.shards.clone();
        shards.remove(gone);
        let place = |owner: ShardId| ShardId(if usize::from(owner.0) > gone { owner.0 - 1 } else { owner.0 });
        let owners = self.vbuckets().iter().map(|vbucket| place(self.owners.owner(vbucket))).collect();
        self.changed(shards, VBucketMap::from_owners(self.vbuckets(), owners))
    }

    /// This map, in which what these shards own, or would get, stays where it was before.
    ///
    /// # Errors
    /// [`ShardMapError`] when a shard that owned some of it is no shard any more.
    pub fn leaving_alone(&self, shards: &[ShardName], before: &Self) -> Result<Self, ShardMapError> {
        if shards.is_empty() {
            return Ok(self.clone());
        }
        let is_of = |owner: ShardName| shards.contains(&owner);
        let kept = |vbucket: &VBucket| is_of(before.owner(*vbucket)) || is_of(self.owner(*vbucket));
        self.with_owners(self.vbuckets().iter().filter(kept).map(|vbucket| (vbucket, before.owner(vbucket))))
    }

    /// Without shards that are lost for good, and with these owners of what was to be theirs. Its epoch is higher than that of
    /// any map that only they can have.
    ///
    /// # Errors
    /// [`ShardMapError::NoneLeft`] when no shard is left; [`ShardMapError::Owns`] when one of them would still own something.
    pub fn without_lost(
        &self,
        lost: &[ShardName],
        owners: impl IntoIterator<Item = (VBucket, ShardName)>,
    ) -> Result<Self, ShardMapError> {
        let known = self.shards.iter().filter(|shard| lost.contains(&shard.name)).map(|shard| shard.name);
        let known: Vec<ShardName> = known.collect();
        if known.len() == self.shards.len() {
            return Err(ShardMapError::NoneLeft);
        }
        let without =
            known.iter().try_fold(self.with_owners(owners)?, |map, name| map.without_shard(*name))?;
        Ok(Self { epoch: self.epoch + LOST_EPOCHS, ..without })
    }

    /// With these owners.
    ///
    /// # Errors
    /// [`ShardMapError::Unknown`] when one of them is no shard of the map.
    pub fn with_owners(
        &self,
        owners: impl IntoIterator<Item = (VBucket, ShardName)>,
    ) -> Result<Self, ShardMapError> {
        let mut places: Vec<ShardId> =
            self.vbuckets().iter().map(|vbucket| self.owners.owner(vbucket)).collect();
        for (vbucket, name) in owners {
            let place = self.shards.iter().position(|shard| shard.name == name);
            let place = place.ok_or_else(|| ShardMapError::Unknown { text: name.to_string() })?;
            places[usize::from(vbucket.index())] = ShardId(place as u16);
        }
        let owners = VBucketMap::from_owners(self.vbuckets(), places);
        self.changed(self.shards.clone(), owners)
    }

    /// With the VBuckets spread evenly over the shards that are not draining, so that as few as can be change their
    /// owner: afterwards two shards differ by one VBucket at most.
    ///
    /// # Errors
    /// [`ShardMapError::NoneLeft`].
    pub fn balanced(&self) -> Result<Self, ShardMapError> {
        let takers: Vec<usize> =
            self.shards.iter().enumerate().filter(|(_, shard)| !shard.is_draining).map(|(n, _)| n).collect();
        if takers.is_empty() {
            return Err(ShardMapError::NoneLeft);
        }
        let all = usize::from(self.vbuckets().count());
        let mut held: Vec<Vec<VBucket>> = vec![Vec::new(); self.shards.len()];
        for vbucket in self.vbuckets().iter() {
            held[usize::from(self.owners.owner(vbucket).0)].push(vbucket);
        }
        // Those that hold the most keep the odd ones: so the fewest are moved.
        let mut by_size = takers.clone();
        by_size.sort_by_key(|shard| (std::cmp::Reverse(held[*shard].len()), *shard));
        let (each, more) = (all / takers.len(), all % takers.len());
        let mut quota = vec![0; self.shards.len()];
        for (rank, shard) in by_size.iter().enumerate() {
            quota[*shard] = each + usize::from(rank < more);
        }
        let mut moving: Vec<VBucket> = Vec::new();
        for (shard, held) in held.iter_mut().enumerate() {
            moving.extend(held.drain(quota[shard].min(held.len())..));
        }
        let mut owners = Vec::with_capacity(moving.len());
        for shard in takers {
            let room = quota[shard].saturating_sub(held[shard].len()).min(moving.len());
            let name = self.shards[shard].name;
            owners.extend(moving.drain(..room).map(|vbucket| (vbucket, name)));
        }
        self.with_owners(owners)
    }
}

/// The JSON that is stored.
impl std::fmt::Display for ShardMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |shard: ShardId| self.shards[usize::from(shard.0)].name.to_string();
        let shard = |shard: &ShardEntry| WrittenShard {
            name: shard.name.to_string(),
            address: shard.address.clone(),
            draining: shard.is_draining,
        };
        let written = Written {
            deployment: ShardName(self.deployment).to_string(),
            epoch: self.epoch,
            vbuckets: self.vbuckets().count().into(),
            shards: self.shards.iter().map(shard).collect(),
            owners: self
                .owners
                .ranges()
                .into_iter()
                .map(|(range, owner)| (*range.start(), *range.end(), name(owner)))
                .collect(),
        };
        f.write_str(&serde_json::to_string(&written).map_err(|_| std::fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: u64) -> ShardEntry {
        ShardEntry { name: ShardName(name), address: format!("127.0.0.1:{name}"), is_draining: false }
    }

    fn first(shards: u64) -> ShardMap {
        let owners = VBucketMap::even(VBuckets::new(64).unwrap(), shards as usize).unwrap();
        ShardMap::new(7, (1..=shards).map(entry).collect(), owners).unwrap()
    }

    fn sizes(map: &ShardMap) -> Vec<usize> {
        map.shards().iter().map(|shard| map.owned_by(shard.name).count()).collect()
    }

    fn changed(one: &ShardMap, two: &ShardMap) -> usize {
        one.vbuckets().iter().filter(|vbucket| one.owner(*vbucket) != two.owner(*vbucket)).count()
    }

    proptest! {
        /// Shards come, drain and go in any order: the map stays even, total, and moves no more than it must.
        #[test]
        fn balancing_is_even_and_moves_as_few_as_can_be(
            start in 1_u64..6, changes in prop::collection::vec((any::<bool>(), 0_usize..8), 0..8)
        ) {
            let mut map = first(start);
            let mut next = start;
            for (is_new, which) in changes {
                let before = map.clone();
                let changed_map = if is_new {
                    next += 1;
                    map.with_shard(entry(next)).unwrap()
                } else {
                    let name = map.shards()[which % map.shards().len()].name;
                    map.with_draining(name, true).unwrap()
                };
                let Ok(balanced) = changed_map.balanced() else { break };
                prop_assert!(balanced.epoch() > before.epoch());
                let active: Vec<usize> = balanced.shards().iter().zip(sizes(&balanced))
                    .filter(|(shard, _)| !shard.is_draining).map(|(_, size)| size).collect();
                prop_assert!(active.iter().max().unwrap() - active.iter().min().unwrap() <= 1);
                prop_assert_eq!(active.iter().sum::<usize>(), 64);
                // What any even map has to move at least: what lies over the larger share, and on draining shards.
                let (each, more) = (64 / active.len(), 64 % active.len());
                let mut held: Vec<usize> = changed_map.shards().iter().zip(sizes(&changed_map))
                    .filter(|(shard, _)| !shard.is_draining).map(|(_, size)| size).collect();
                held.sort_unstable_by(|a, b| b.cmp(a));
                let kept: usize = held.iter().enumerate()
                    .map(|(rank, size)| (*size).min(each + usize::from(rank < more))).sum();
                prop_assert_eq!(changed(&changed_map, &balanced), 64 - kept);
                prop_assert_eq!(&ShardMap::read(balanced.to_string().as_bytes()).unwrap(), &balanced);
                map = balanced;
                for shard in map.shards().to_vec().iter().filter(|shard| shard.is_draining) {
                    let without = map.without_shard(shard.name).unwrap();
                    prop_assert_eq!(changed(&map, &without), 0);
                    map = without;
                }
            }
        }

        #[test]
        fn any_bytes_are_a_map_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ShardMap::read(&bytes);
        }
    }

    #[test]
    fn what_is_no_map_cannot_be_built() {
        let map = first(2);
        assert!(matches!(map.without_shard(ShardName(1)), Err(ShardMapError::Owns { vbuckets: 32, .. })));
        let all = map.with_draining(ShardName(1), true).unwrap().with_draining(ShardName(2), true).unwrap();
        assert!(matches!(all.balanced(), Err(ShardMapError::NoneLeft)));
        let text = map.to_string();
        for (from, to) in [
            ("[32,63,", "[33,63,"),
            ("[32,63,", "[31,63,"),
            ("\"vbuckets\":64", "\"vbuckets\":65"),
            ("{", ""),
        ] {
            assert!(ShardMap::read(text.replacen(from, to, 1).as_bytes()).is_err(), "{from} to {to}");
        }
        let twice = ShardMap::new(7, vec![entry(1), entry(1)], VBucketMap::even(map.vbuckets(), 2).unwrap());
        assert!(matches!(twice, Err(ShardMapError::Twice { .. })));
        let unlisted = ShardMap::new(7, vec![entry(1)], VBucketMap::even(map.vbuckets(), 2).unwrap());
        assert!(matches!(unlisted, Err(ShardMapError::Unlisted { .. })));
    }

    #[test]
    fn a_shard_is_found_by_name_and_address() {
        let map = first(2);
        for text in ["0000000000000002", "127.0.0.1:2", "redis://127.0.0.1:2/"] {
            assert_eq!(map.find(text).unwrap().name, ShardName(2), "{text}");
        }
        for text in ["", "0000", "127.0.0.1:3", "redis://"] {
            assert!(matches!(map.find(text), Err(ShardMapError::Unknown { .. })), "{text}");
        }
    }
}
