//! [`Census`]: decides which shard owns which VBucket, from what each shard says it holds.
//!
//! Each VBucket records its own ownership epoch. Of several shards that hold one, the highest epoch owns it; a
//! VBucket that its highest holder marks as moved has no owner until the move is completed.
//!
//! A shard that does not answer may hold a higher epoch, or a VBucket that no other shard holds. While some shards
//! are silent, a VBucket belongs to the shard that holds it without a mark of moving (a move marks it there first,
//! and each commit checks that mark again); all others are [`Location::Unknown`], and none is recreated. Whether a
//! deployment exists at all is known only when every shard has answered.

use std::collections::{BTreeMap, BTreeSet};

use taba_core::{VBucket, VBuckets};

use crate::layout::Deployment;
use crate::map::ShardId;

/// One shard's copy of one VBucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldVBucket {
    /// Its ownership epoch.
    pub epoch: u64,
    /// Whether it is marked as moved to another shard, or being moved.
    pub is_moved: bool,
    /// Whether it was ever committed to.
    pub is_written: bool,
    /// The deployment it belongs to.
    pub of: Deployment,
}

impl HeldVBucket {
    /// A copy that was committed to and is not moved.
    pub const fn new(epoch: u64, of: Deployment) -> Self {
        Self { epoch, is_moved: false, is_written: true, of }
    }

    /// The same, moved or being moved.
    #[must_use]
    pub const fn moved(self) -> Self {
        Self { is_moved: true, ..self }
    }
}

/// What one shard holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardHoldings {
    /// One entry for each VBucket, in order.
    pub held: Vec<Option<HeldVBucket>>,
    /// VBuckets whose head cannot be read.
    pub damaged: BTreeSet<VBucket>,
}

/// The owner of a VBucket, and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owner {
    /// The shard.
    pub shard: ShardId,
    /// The epoch that a commit expects.
    pub epoch: u64,
}

/// Where a VBucket is, as of one census.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// This shard owns it.
    Owned(Owner),
    /// This shard holds data under its name that no store writes.
    Damaged(ShardId),
    /// No shard that answered holds it; a silent one may.
    Unknown,
}

/// The owner of each VBucket, as of one census.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    vbuckets: VBuckets,
    deployment: Deployment,
    places: Vec<Location>,
    silent: Vec<ShardId>,
}

impl View {
    /// How many VBuckets there are.
    pub const fn vbuckets(&self) -> VBuckets {
        self.vbuckets
    }

    /// The deployment.
    pub const fn deployment(&self) -> Deployment {
        self.deployment
    }

    /// The location of a VBucket; during a move, the last known one.
    ///
    /// # Panics
    /// When the VBucket is of a deployment with more VBuckets than this one.
    pub fn place(&self, vbucket: VBucket) -> Location {
        self.places[usize::from(vbucket.index())]
    }

    /// The owner; `None` when unknown or damaged.
    ///
    /// # Panics
    /// As [`place`](Self::place).
    pub fn owner(&self, vbucket: VBucket) -> Option<Owner> {
        if let Location::Owned(owner) = self.place(vbucket) { Some(owner) } else { None }
    }

    /// This view, with another owner of one VBucket.
    #[must_use]
    pub fn with_owner(&self, vbucket: VBucket, owner: Owner) -> Self {
        let mut view = self.clone();
        view.places[usize::from(vbucket.index())] = Location::Owned(owner);
        view
    }

    /// The shards that did not answer.
    pub fn silent(&self) -> &[ShardId] {
        &self.silent
    }

    /// VBuckets that are damaged, with the shards that hold them.
    pub fn damaged(&self) -> impl Iterator<Item = (VBucket, ShardId)> + '_ {
        let damaged = |(vbucket, place): (VBucket, &Location)| match place {
            Location::Damaged(shard) => Some((vbucket, *shard)),
            Location::Owned(_) | Location::Unknown => None,
        };
        self.vbuckets.iter().zip(&self.places).filter_map(damaged)
    }

    /// This view, with unknown locations taken from an `older` one: a shard that is silent now still holds what it
    /// held.
    #[must_use]
    pub fn over(mut self, older: &Self) -> Self {
        if self.silent.is_empty() {
            return self;
        }
        for (place, old) in self.places.iter_mut().zip(&older.places) {
            let is_older = match (&*place, old) {
                (Location::Owned(new), Location::Owned(old)) => new.epoch >= old.epoch,
                (Location::Damaged(_), _) | (_, Location::Unknown) => true,
                (Location::Unknown, _) | (Location::Owned(_), Location::Damaged(_)) => false,
            };
            if !is_older {
                *place = *old;
            }
        }
        self.silent.retain(|shard| older.silent.contains(shard));
        self
    }
}

/// The outcome of a census.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CensusOutcome {
    /// No shard holds any VBucket: there is no deployment here.
    Nothing,
    /// A bootstrap has not ended: nothing was ever committed, and the missing VBuckets may be made.
    Unfinished(Deployment),
    /// All VBuckets, except those of silent shards.
    All(View),
}

/// Why a census cannot tell the owners.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CensusError {
    /// A shard has not answered.
    #[error("{shard} has not answered")]
    Incomplete {
        /// The first of them.
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
        "{vbucket} of {shard} is of deployment {found:016x}, others are of {expected:016x}: these shards do not belong together; \
         name those of one deployment, or run taba-server adopt"
    )]
    Mixed {
        /// The first VBucket of another deployment than those before it.
        vbucket: VBucket,
        /// Where it is.
        shard: ShardId,
        /// Its deployment.
        found: u64,
        /// The deployment of the others.
        expected: u64,
    },
    /// VBuckets that existed once are on no shard.
    #[error(
        "{vbucket} and {others} more are on no shard: a shard is missing from the list, or has lost its data; \
         none is recreated. Restore the shard or its data; or run taba-server adopt, which recreates \
         them empty"
    )]
    Missing {
        /// The first of them.
        vbucket: VBucket,
        /// How many more.
        others: usize,
    },
    /// All data found is damaged.
    #[error("{vbucket} of {shard} and {others} more are damaged, and no shard holds a readable one")]
    Damaged {
        /// The first of them.
        vbucket: VBucket,
        /// Where it is.
        shard: ShardId,
        /// How many more.
        others: usize,
    },
    /// Two shards hold a VBucket under the same epoch.
    #[error(
        "{vbucket} is held by {first} and {second} under epoch {epoch}: these shards do not belong together; \
         leave out the one that is a copy, or run taba-server adopt"
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

/// Collects the answers of all shards and decides the owners.
#[derive(Clone, Debug)]
pub struct Census {
    vbuckets: VBuckets,
    shards: usize,
    answers: BTreeMap<ShardId, Vec<Option<HeldVBucket>>>,
    damaged: BTreeSet<(VBucket, ShardId)>,
}

impl Census {
    /// A census of `shards` shards, numbered from 0. A shard without an answer is silent.
    pub fn new(vbuckets: VBuckets, shards: usize) -> Self {
        Self { vbuckets, shards, answers: BTreeMap::new(), damaged: BTreeSet::new() }
    }

    /// Takes the answer of one shard: one entry for each VBucket, in order. A later answer replaces an earlier one.
    ///
    /// # Panics
    /// When the number of entries is not that of the VBuckets.
    pub fn answer(&mut self, shard: ShardId, held: Vec<Option<HeldVBucket>>) {
        assert_eq!(held.len(), usize::from(self.vbuckets.count()), "one for each vbucket");
        self.answers.insert(shard, held);
    }

    /// Notes that a shard holds data under this VBucket's name that no store writes.
    pub fn damaged(&mut self, shard: ShardId, vbucket: VBucket) {
        self.damaged.insert((vbucket, shard));
    }

    /// Decides from all answers.
    ///
    /// # Errors
    /// [`CensusError`]; [`CensusError::Incomplete`] when only the silent shards can tell whether there is a deployment.
    pub fn finish(mut self) -> Result<CensusOutcome, CensusError> {
        let shards = (0..self.shards).map(|shard| ShardId(shard as u16));
        let silent: Vec<ShardId> = shards.filter(|shard| !self.answers.contains_key(shard)).collect();
        self.mark_foreign_as_damaged();
        let deployment = self.deployment()?;
        let everything = || self.answers.values().flatten().flatten();
        let is_unfinished =
            |deployment: Deployment| deployment.is_new && everything().all(|held| !held.is_written);
        let deployment = match (deployment, silent.first(), self.damaged.first()) {
            (None, Some(shard), _) => return Err(CensusError::Incomplete { shard: *shard }),
            (None, None, Some(&(vbucket, shard))) => {
                return Err(CensusError::Damaged { vbucket, shard, others: self.damaged.len() - 1 });
            }
            (None, None, None) => return Ok(CensusOutcome::Nothing),
            (Some(deployment), Some(shard), _) if is_unfinished(deployment) => {
                return Err(CensusError::Incomplete { shard: *shard });
            }
            (Some(deployment), None, _) if is_unfinished(deployment) => {
                return Ok(CensusOutcome::Unfinished(deployment));
            }
            (Some(deployment), ..) => deployment,
        };
        let places = self.vbuckets.iter().map(|vbucket| self.place(vbucket, !silent.is_empty()));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let mut unknown = self.vbuckets.iter().zip(&places).filter(|(_, place)| **place == Location::Unknown);
        if let (Some((vbucket, _)), true) = (unknown.next(), silent.is_empty()) {
            return Err(CensusError::Missing { vbucket, others: unknown.count() });
        }
        Ok(CensusOutcome::All(View { vbuckets: self.vbuckets, deployment, places, silent }))
    }

    /// A shard holds one deployment: VBuckets of a minority deployment on it count as damaged. With a tie, none does.
    fn mark_foreign_as_damaged(&mut self) {
        for (shard, held) in &mut self.answers {
            let mut counts: BTreeMap<(u16, u64), usize> = BTreeMap::new();
            for held in held.iter().flatten() {
                *counts.entry((held.of.vbuckets, held.of.id)).or_default() += 1;
            }
            let all: usize = counts.values().sum();
            let Some((most, _)) = counts.into_iter().find(|(_, count)| 2 * count > all) else { continue };
            for (vbucket, place) in self.vbuckets.iter().zip(held) {
                if place.is_some_and(|held| (held.of.vbuckets, held.of.id) != most) {
                    *place = None;
                    self.damaged.insert((vbucket, *shard));
                }
            }
        }
    }

    /// The one deployment of all VBuckets found; new only if all of them say so.
    fn deployment(&self) -> Result<Option<Deployment>, CensusError> {
        let mut all: Option<Deployment> = None;
        for (shard, held) in &self.answers {
            for (vbucket, held) in self.vbuckets.iter().zip(held) {
                let Some(HeldVBucket { of, .. }) = held else { continue };
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

    fn place(&self, vbucket: VBucket, is_any_silent: bool) -> Result<Location, CensusError> {
        if let Some((_, shard)) =
            self.damaged.range((vbucket, ShardId(0))..=(vbucket, ShardId(u16::MAX))).next()
        {
            return Ok(Location::Damaged(*shard));
        }
        let mut best: Option<Owner> = None;
        // Another shard that holds it under the same epoch: ambiguous, unless a third one holds it under a higher one.
        let mut second: Option<ShardId> = None;
        for (shard, held) in &self.answers {
            let Some(held) = held[usize::from(vbucket.index())] else { continue };
            if is_any_silent && held.is_moved {
                continue;
            }
            match best {
                Some(owner) if owner.epoch == held.epoch => second = Some(*shard),
                Some(owner) if owner.epoch > held.epoch => {}
                _ => (best, second) = (Some(Owner { shard: *shard, epoch: held.epoch }), None),
            }
        }
        if let (Some(Owner { shard: first, epoch }), Some(second)) = (best, second) {
            return Err(CensusError::Ambiguous { vbucket, first, second, epoch });
        }
        Ok(best.map_or(Location::Unknown, Location::Owned))
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

    fn held(epoch: u64) -> Option<HeldVBucket> {
        Some(HeldVBucket { epoch, is_moved: false, is_written: true, of: OF })
    }

    fn census(shards: &[Vec<Option<HeldVBucket>>]) -> Census {
        let mut census = Census::new(vbuckets(), shards.len());
        for (shard, held) in shards.iter().enumerate() {
            census.answer(ShardId(shard as u16), held.clone());
        }
        census
    }

    #[test]
    fn the_highest_epoch_counts_as_soon_as_its_shard_has_answered() {
        let mut census = Census::new(vbuckets(), 2);
        census.answer(ShardId(0), vec![held(1); 64]);
        let CensusOutcome::All(view) = census.clone().finish().unwrap() else {
            panic!("one shard holds all")
        };
        assert_eq!(view.silent(), [ShardId(1)]);
        let mut other = vec![None; 64];
        other[5] = held(2);
        census.answer(ShardId(1), other);
        let CensusOutcome::All(view) = census.finish().unwrap() else { panic!("all were found") };
        for vbucket in vbuckets().iter() {
            let expected = if vbucket.index() == 5 { (ShardId(1), 2) } else { (ShardId(0), 1) };
            let owner = view.owner(vbucket).unwrap();
            assert_eq!((owner.shard, owner.epoch), expected);
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        assert_eq!(census(&[vec![None; 64], vec![None; 64]]).finish(), Ok(CensusOutcome::Nothing));
        let both = census(&[vec![held(1); 64], vec![held(1); 64]]).finish().unwrap_err();
        assert!(matches!(both, CensusError::Ambiguous { epoch: 1, .. }), "{both:?}");
        let mut lost = vec![held(1); 64];
        (lost[3], lost[9]) = (None, None);
        let lost = census(&[lost]).finish().unwrap_err();
        assert!(
            matches!(lost, CensusError::Missing { vbucket, others: 1 } if vbucket.index() == 3),
            "{lost:?}"
        );
        let other = |of| Some(HeldVBucket { epoch: 1, is_moved: false, is_written: false, of });
        let mixed = vec![other(Deployment { id: 8, ..OF }); 64];
        let mixed = census(&[vec![held(1); 64], mixed]).finish().unwrap_err();
        assert!(matches!(mixed, CensusError::Mixed { found: 8, expected: 7, .. }), "{mixed:?}");
        let more = census(&[vec![other(Deployment { vbuckets: 1024, ..OF }); 64]]).finish().unwrap_err();
        assert!(matches!(more, CensusError::VBuckets { found: 1024, expected: 64, .. }), "{more:?}");
    }

    #[test]
    fn while_a_shard_is_silent_what_the_others_hold_is_known_and_nothing_is_taken_for_lost() {
        let halves = |half: usize| (0..64).map(|n| if n / 32 == half { held(1) } else { None }).collect();
        let (one, two): (Vec<_>, Vec<_>) = (halves(0), halves(1));
        let mut moved = one.clone();
        moved[7] = Some(HeldVBucket { is_moved: true, ..one[7].unwrap() });
        let mut partial = Census::new(vbuckets(), 2);
        partial.answer(ShardId(0), moved);
        let CensusOutcome::All(partial) = partial.finish().unwrap() else { panic!("half of it is known") };
        let known = |view: &View| vbuckets().iter().filter(|vbucket| view.owner(*vbucket).is_some()).count();
        assert_eq!(
            (known(&partial), partial.silent()),
            (31, &[ShardId(1)][..]),
            "one went to the other shard"
        );
        let CensusOutcome::All(whole) = census(&[one, two]).finish().unwrap() else { panic!("all is known") };
        assert_eq!(partial.clone().over(&whole), whole, "what was known stays known");
        assert_eq!(whole.clone().over(&partial), whole);
        // Only the answers of all shards tell whether a deployment exists, or whether its bootstrap has ended.
        let new =
            HeldVBucket { is_written: false, of: Deployment { is_new: true, ..OF }, ..held(1).unwrap() };
        for held in [None, Some(new)] {
            let mut census = Census::new(vbuckets(), 2);
            census.answer(ShardId(0), vec![held; 64]);
            assert_eq!(census.finish(), Err(CensusError::Incomplete { shard: ShardId(1) }));
        }
        assert_eq!(Census::new(vbuckets(), 1).finish(), Err(CensusError::Incomplete { shard: ShardId(0) }));
    }

    #[test]
    fn of_two_views_the_higher_epoch_counts() {
        let view = |epoch: u64, shards: usize| {
            let mut census = Census::new(vbuckets(), shards);
            census.answer(ShardId(0), vec![held(epoch); 64]);
            if let CensusOutcome::All(view) = census.finish().unwrap() {
                view
            } else {
                panic!("all were found")
            }
        };
        let epoch = |view: &View| view.owner(vbuckets().get(5).unwrap()).unwrap().epoch;
        assert_eq!(epoch(&view(2, 2).over(&view(1, 1))), 2);
        assert_eq!(epoch(&view(1, 2).over(&view(2, 1))), 2);
        assert_eq!(epoch(&view(1, 1).over(&view(2, 1))), 1, "all shards have answered: nothing is unknown");
    }

    #[test]
    fn on_one_shard_the_deployment_of_more_than_half_counts() {
        let of = |id: u64| Some(HeldVBucket { of: Deployment { id, ..OF }, ..held(1).unwrap() });
        let two = |first: usize| (0..64).map(|n| of(if n < first { 7 } else { 8 })).collect::<Vec<_>>();
        let CensusOutcome::All(view) = census(&[two(33)]).finish().unwrap() else { panic!("33 are there") };
        assert_eq!((view.damaged().count(), view.deployment().id), (31, 7));
        assert!(
            matches!(census(&[two(32)]).finish(), Err(CensusError::Mixed { .. })),
            "as many of one as of the other"
        );
        let three = (0..64)
            .map(|n| {
                of(if n < 22 {
                    7
                } else if n < 43 {
                    8
                } else {
                    9
                })
            })
            .collect();
        assert!(
            matches!(census(&[three]).finish(), Err(CensusError::Mixed { .. })),
            "22 of 64 are no majority"
        );
    }

    #[test]
    fn a_damaged_vbucket_is_damaged_and_no_other_is() {
        let mut held_by_one = vec![held(1); 64];
        held_by_one[3] = None;
        held_by_one[9] = Some(HeldVBucket { of: Deployment { id: 99, ..OF }, ..held(1).unwrap() });
        let mut census = census(&[held_by_one]);
        census.damaged(ShardId(0), vbuckets().get(3).unwrap());
        let CensusOutcome::All(view) = census.finish().unwrap() else { panic!("the others are there") };
        let damaged: Vec<_> = view.damaged().map(|(vbucket, shard)| (vbucket.index(), shard.0)).collect();
        assert_eq!(damaged, [(3, 0), (9, 0)]);
        assert_eq!(view.deployment(), OF);
        let mut nothing = Census::new(vbuckets(), 1);
        nothing.answer(ShardId(0), vec![None; 64]);
        nothing.damaged(ShardId(0), vbuckets().get(3).unwrap());
        assert!(matches!(nothing.finish(), Err(CensusError::Damaged { others: 0, .. })));
    }

    #[test]
    fn a_bootstrap_is_unfinished_until_one_vbucket_says_that_it_ended() {
        let new = HeldVBucket {
            epoch: 1,
            is_moved: false,
            is_written: false,
            of: Deployment { is_new: true, ..OF },
        };
        let mut half = vec![None; 64];
        half[..10].fill(Some(new));
        assert!(matches!(census(&[half.clone()]).finish(), Ok(CensusOutcome::Unfinished(_))));
        // The other shard's bootstrap had ended: this one has lost VBuckets.
        let ended = Some(HeldVBucket { of: OF, ..new });
        half[0] = ended;
        assert!(matches!(census(&[half.clone()]).finish(), Err(CensusError::Missing { .. })));
        half[0] = Some(HeldVBucket { is_written: true, ..new });
        assert!(matches!(census(&[half]).finish(), Err(CensusError::Missing { .. })));
    }

    proptest! {
        #[test]
        fn the_highest_epoch_owns_whatever_the_order_of_answers(
            epochs in prop::collection::vec((0_usize..64, 0_usize..3, 1_u64..6), 0..12), order in Just([0, 1, 2]).prop_shuffle()
        ) {
            // Each VBucket is on one shard; some of them are on others as well.
            let mut shards = vec![vec![None; 64]; 3];
            for at in 0..64 {
                shards[at % 3][at] = held(2);
            }
            for (vbucket, shard, epoch) in epochs {
                shards[shard][vbucket] = held(epoch);
            }
            let mut census = Census::new(vbuckets(), 3);
            for shard in order {
                census.answer(ShardId(shard as u16), shards[shard].clone());
            }
            let epoch = |shard: usize, at: usize| shards[shard][at].map_or(0, |held: HeldVBucket| held.epoch);
            let best = |at: usize| (0..3).map(|shard| epoch(shard, at)).max().unwrap();
            let one = |at: usize| (0..3).filter(|shard| epoch(*shard, at) == best(at)).count() == 1;
            if let Ok(CensusOutcome::All(view)) = census.finish() {
                for vbucket in vbuckets().iter() {
                    let at = usize::from(vbucket.index());
                    let owner = view.owner(vbucket).unwrap();
                    prop_assert!(owner.epoch == best(at) && one(at));
                    prop_assert_eq!(epoch(usize::from(owner.shard.0), at), owner.epoch);
                }
            } else {
                prop_assert!((0..64).any(|at| best(at) == 0 || !one(at)));
            }
        }
    }
}
