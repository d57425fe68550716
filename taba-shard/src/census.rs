//! [`Census`]: each shard was asked which VBuckets it holds; who owns which?
//!
//! The truth about a VBucket is in the VBucket. Of several shards that hold one, the highest epoch owns it; a VBucket
//! that is marked as moved away by its highest holder is owned by nobody until the mover goes on. A census yields a
//! [`View`] only when every shard has answered: a shard that is silent may hold the higher epoch.

use std::collections::BTreeMap;

use taba_core::{VBucket, VBuckets};

use crate::layout::Deployment;
use crate::map::ShardId;

/// What one shard says about one VBucket that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its ownership epoch.
    pub epoch: u64,
    /// Whether it is marked as moved, or moving, away.
    pub is_moved: bool,
    /// Whether it was ever committed to.
    pub is_written: bool,
    /// Of which deployment it is.
    pub of: Deployment,
}

/// Who owns a VBucket, and under which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Whose it is.
    pub shard: ShardId,
    /// Under which epoch: what a commit expects to find.
    pub epoch: u64,
}

/// Who owns which VBucket, as of one census.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    vbuckets: VBuckets,
    deployment: Deployment,
    owners: Vec<Owner>,
}

impl View {
    /// How many VBuckets there are.
    pub const fn vbuckets(&self) -> VBuckets {
        self.vbuckets
    }

    /// Of which deployment.
    pub const fn deployment(&self) -> Deployment {
        self.deployment
    }

    /// Who owns it; where it is being moved, who owned it last.
    ///
    /// # Panics
    /// When the VBucket is of a deployment with more VBuckets than this one.
    pub fn owner(&self, vbucket: VBucket) -> Owner {
        self.owners[usize::from(vbucket.index())]
    }
}

/// What a census found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No shard holds any VBucket: there is no deployment here.
    Nothing,
    /// Somebody's bootstrap has not ended: nothing was ever committed, and the rest may be made.
    Unfinished(Deployment),
    /// All VBuckets.
    All(View),
}

/// Why a census says nothing about who owns what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CensusError {
    /// A shard has not answered.
    #[error("{shard} has not answered")]
    Incomplete {
        /// The first such.
        shard: ShardId,
    },
    /// The deployment was made for another number of VBuckets, which is fixed for its life.
    #[error("{shard} holds a deployment of {found} vbuckets, not of {expected}: connect with {found}")]
    VBuckets {
        /// Where.
        shard: ShardId,
        /// What it was made for.
        found: u16,
        /// What was asked for.
        expected: u16,
    },
    /// The shards hold VBuckets of different deployments.
    #[error(
        "{vbucket} of {shard} is of deployment {found:016x}, others are of {expected:016x}: these shards do not belong together"
    )]
    Mixed {
        /// The first VBucket that is of another one than those before it.
        vbucket: VBucket,
        /// Where it is.
        shard: ShardId,
        /// Of which it is.
        found: u64,
        /// Of which the others are.
        expected: u64,
    },
    /// VBuckets that were there once are on no shard.
    #[error(
        "{vbucket} and {others} more are on no shard: a shard is missing from the list, or has lost its data; \
         nothing is made anew in their place"
    )]
    Missing {
        /// The first such.
        vbucket: VBucket,
        /// How many more.
        others: usize,
    },
    /// Two shards hold a VBucket under one epoch.
    #[error(
        "{vbucket} is held by {first} and {second} under epoch {epoch}: these shards do not belong together"
    )]
    Ambiguous {
        /// Which VBucket.
        vbucket: VBucket,
        /// One of them.
        first: ShardId,
        /// The other.
        second: ShardId,
        /// The epoch of both.
        epoch: u64,
    },
}

/// Collects the answers of shards, and judges when all are there.
#[derive(Clone, Debug)]
pub struct Census {
    vbuckets: VBuckets,
    shards: usize,
    answers: BTreeMap<ShardId, Vec<Option<Held>>>,
}

impl Census {
    /// A census of so many shards, numbered from 0.
    pub fn new(vbuckets: VBuckets, shards: usize) -> Self {
        Self { vbuckets, shards, answers: BTreeMap::new() }
    }

    /// Takes the answer of one shard: what it holds, one for each VBucket in order. A later answer replaces an
    /// earlier one.
    ///
    /// # Panics
    /// When there is not one for each VBucket.
    pub fn answer(&mut self, shard: ShardId, held: Vec<Option<Held>>) {
        assert_eq!(held.len(), usize::from(self.vbuckets.count()), "one for each vbucket");
        self.answers.insert(shard, held);
    }

    /// What all answers together say.
    ///
    /// # Errors
    /// [`CensusError`].
    pub fn finish(&self) -> Result<Found, CensusError> {
        for shard in (0..self.shards).map(|shard| ShardId(shard as u16)) {
            if !self.answers.contains_key(&shard) {
                return Err(CensusError::Incomplete { shard });
            }
        }
        let Some(deployment) = self.deployment()? else { return Ok(Found::Nothing) };
        let owners = self.vbuckets.iter().map(|vbucket| self.owner(vbucket));
        let owners = owners.collect::<Result<Vec<_>, _>>()?;
        let everything = || self.answers.values().flatten().flatten();
        if deployment.is_new && everything().all(|held| !held.is_written) {
            return Ok(Found::Unfinished(deployment));
        }
        let mut missing = self.vbuckets.iter().zip(&owners).filter(|(_, owner)| owner.is_none());
        if let Some((vbucket, _)) = missing.next() {
            return Err(CensusError::Missing { vbucket, others: missing.count() });
        }
        let owners = owners.into_iter().flatten().collect();
        Ok(Found::All(View { vbuckets: self.vbuckets, deployment, owners }))
    }

    /// The one deployment of all VBuckets found; new only if all of them say so.
    fn deployment(&self) -> Result<Option<Deployment>, CensusError> {
        let mut all: Option<Deployment> = None;
        for (shard, held) in &self.answers {
            for (vbucket, held) in self.vbuckets.iter().zip(held) {
                let Some(Held { of, .. }) = held else { continue };
                if of.vbuckets != self.vbuckets.count() {
                    let (shard, found, expected) = (*shard, of.vbuckets, self.vbuckets.count());
                    return Err(CensusError::VBuckets { shard, found, expected });
                }
                let known = all.get_or_insert(*of);
                if of.id != known.id {
                    let (shard, found, expected) = (*shard, of.id, known.id);
                    return Err(CensusError::Mixed { vbucket, shard, found, expected });
                }
                known.is_new &= of.is_new;
            }
        }
        Ok(all)
    }

    fn owner(&self, vbucket: VBucket) -> Result<Option<Owner>, CensusError> {
        let mut best: Option<Owner> = None;
        for (shard, held) in &self.answers {
            let Some(held) = held[usize::from(vbucket.index())] else { continue };
            match best {
                Some(owner) if owner.epoch == held.epoch => {
                    let (first, second, epoch) = (owner.shard, *shard, held.epoch);
                    return Err(CensusError::Ambiguous { vbucket, first, second, epoch });
                }
                Some(owner) if owner.epoch > held.epoch => {}
                _ => best = Some(Owner { shard: *shard, epoch: held.epoch }),
            }
        }
        Ok(best)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OF: Deployment = Deployment { vbuckets: 64, id: 7, is_new: false };

    fn vbuckets() -> VBuckets {
        VBuckets::new(64).unwrap()
    }

    fn held(epoch: u64) -> Option<Held> {
        Some(Held { epoch, is_moved: false, is_written: true, of: OF })
    }

    fn census(shards: &[Vec<Option<Held>>]) -> Census {
        let mut census = Census::new(vbuckets(), shards.len());
        for (shard, held) in shards.iter().enumerate() {
            census.answer(ShardId(shard as u16), held.clone());
        }
        census
    }

    #[test]
    fn only_when_every_shard_answered_there_is_a_view() {
        let mut census = Census::new(vbuckets(), 2);
        census.answer(ShardId(0), vec![held(1); 64]);
        assert_eq!(census.finish(), Err(CensusError::Incomplete { shard: ShardId(1) }));
        let mut other = vec![None; 64];
        other[5] = held(2);
        census.answer(ShardId(1), other);
        let Found::All(view) = census.finish().unwrap() else { panic!("all were found") };
        for vbucket in vbuckets().iter() {
            let expected = if vbucket.index() == 5 { (ShardId(1), 2) } else { (ShardId(0), 1) };
            let owner = view.owner(vbucket);
            assert_eq!((owner.shard, owner.epoch), expected);
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        assert_eq!(census(&[vec![None; 64], vec![None; 64]]).finish(), Ok(Found::Nothing));
        let both = census(&[vec![held(1); 64], vec![held(1); 64]]).finish().unwrap_err();
        assert!(matches!(both, CensusError::Ambiguous { epoch: 1, .. }), "{both:?}");
        let mut lost = vec![held(1); 64];
        (lost[3], lost[9]) = (None, None);
        let lost = census(&[lost]).finish().unwrap_err();
        assert!(
            matches!(lost, CensusError::Missing { vbucket, others: 1 } if vbucket.index() == 3),
            "{lost:?}"
        );
        let other = |of| Some(Held { epoch: 1, is_moved: false, is_written: false, of });
        let mut mixed = vec![held(1); 64];
        mixed[8] = other(Deployment { id: 8, ..OF });
        let mixed = census(&[mixed]).finish().unwrap_err();
        assert!(matches!(mixed, CensusError::Mixed { found: 8, expected: 7, .. }), "{mixed:?}");
        let more = census(&[vec![other(Deployment { vbuckets: 1024, ..OF }); 64]]).finish().unwrap_err();
        assert!(matches!(more, CensusError::VBuckets { found: 1024, expected: 64, .. }), "{more:?}");
    }

    #[test]
    fn a_bootstrap_is_unfinished_until_one_vbucket_says_that_it_ended() {
        let new =
            Held { epoch: 1, is_moved: false, is_written: false, of: Deployment { is_new: true, ..OF } };
        let mut half = vec![None; 64];
        half[..10].fill(Some(new));
        assert!(matches!(census(&[half.clone()]).finish(), Ok(Found::Unfinished(_))));
        // The other shard had ended its bootstrap: this one has lost VBuckets.
        let ended = Some(Held { of: OF, ..new });
        half[0] = ended;
        assert!(matches!(census(&[half.clone()]).finish(), Err(CensusError::Missing { .. })));
        half[0] = Some(Held { is_written: true, ..new });
        assert!(matches!(census(&[half]).finish(), Err(CensusError::Missing { .. })));
    }

    proptest! {
        #[test]
        fn the_highest_epoch_owns_whatever_the_order_of_answers(
            epochs in prop::collection::vec((0_usize..64, 0_usize..3, 1_u64..4), 0..60), order in Just([0, 1, 2]).prop_shuffle()
        ) {
            let mut shards = vec![vec![None; 64]; 3];
            for (vbucket, shard, epoch) in epochs {
                shards[shard][vbucket] = held(epoch);
            }
            let mut census = Census::new(vbuckets(), 3);
            for shard in order {
                census.answer(ShardId(shard as u16), shards[shard].clone());
            }
            let epoch = |shard: usize, at: usize| shards[shard][at].map_or(0, |held: Held| held.epoch);
            let best = |at: usize| (0..3).map(|shard| epoch(shard, at)).max().unwrap();
            let one = |at: usize| (0..3).filter(|shard| epoch(*shard, at) == best(at)).count() == 1;
            if let Ok(Found::All(view)) = census.finish() {
                for vbucket in vbuckets().iter() {
                    let at = usize::from(vbucket.index());
                    let owner = view.owner(vbucket);
                    prop_assert!(owner.epoch == best(at) && one(at));
                    prop_assert_eq!(epoch(usize::from(owner.shard.0), at), owner.epoch);
                }
            } else {
                prop_assert!((0..64).any(|at| best(at) == 0 || !one(at)));
            }
        }
    }
}
