//! Plans the steps that make one deployment out of shards that do not hold one. Pure.
//!
//! Data that was ever written is never removed. A VBucket that was created and never written may be removed; one that
//! no shard holds is created empty; an unreadable head is rewritten, and its marks and States stay.

use std::collections::BTreeMap;

use taba_core::{VBucket, VBuckets};

use crate::census::{HeldVBucket, ShardHoldings};
use crate::layout::Deployment;
use crate::map::ShardId;

/// One step of an adoption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Removes a VBucket that was never written, and is of another deployment or on two shards.
    Remove,
    /// Rewrites the head of a VBucket.
    Mend,
    /// Creates a VBucket, empty.
    Make,
}

/// All steps, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Steps {
    /// The resulting deployment.
    pub deployment: Deployment,
    /// Each step with its VBucket and shard.
    pub steps: Vec<(Step, VBucket, ShardId)>,
}

/// Why VBuckets that would be made may exist already: on a shard that was not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// On one of these shards of the map.
    Shards(Vec<String>),
    /// On any: no shard that was asked has a map.
    NoMap,
}

/// Whether the VBuckets that would be made may exist on a shard that was not asked. Where no VBucket was ever complete there is
/// none. `map`: addresses and whether each was asked, of the shards of the newest map.
pub fn unseen(
    steps: &Steps,
    shards: &[ShardHoldings],
    map: Option<&[(String, bool)]>,
) -> Option<(usize, Unseen)> {
    let made = steps.steps.iter().filter(|(step, ..)| *step == Step::Make).count();
    let was_complete = |held: &HeldVBucket| held.is_written || !held.of.is_new;
    if made == 0 || !shards.iter().flat_map(|shard| &shard.held).flatten().any(was_complete) {
        return None;
    }
    let Some(map) = map else { return Some((made, Unseen::NoMap)) };
    let missing: Vec<String> =
        map.iter().filter(|(_, was_asked)| !was_asked).map(|(address, _)| address.clone()).collect();
    (!missing.is_empty()).then_some((made, Unseen::Shards(missing)))
}

/// Why the shards cannot become one deployment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptionError {
    /// VBuckets of several deployments hold data.
    #[error(
        "{first} and {second} hold data of different deployments: name the shards of one of them; \
         the other one's are a store of their own"
    )]
    Several {
        /// A shard of the first.
        first: ShardId,
        /// A shard of the second.
        second: ShardId,
    },
    /// Two shards hold data of one VBucket under the same epoch.
    #[error("{vbucket} was written on {first} and on {second}: leave out the shard that is an old copy")]
    Twice {
        /// The VBucket.
        vbucket: VBucket,
        /// One of them.
        first: ShardId,
        /// The other.
        second: ShardId,
    },
    /// VBuckets would be made that may exist on a shard that was not asked.
    #[error(
        "{vbuckets} vbuckets are on no redis of the list, and may be on {others}: name all shards of the deployment to --redis; \
         a shard that is lost for good is given up with taba-shard forget. --recreate-empty makes those vbuckets here, empty: a \
         shard that has them counts as an older copy from then on"
    )]
    Unseen {
        /// How many.
        vbuckets: usize,
        /// Where they may be.
        others: String,
    },
    /// The deployment was made for another number of VBuckets.
    #[error("the shards hold a deployment of {found} vbuckets, not of {expected}: use --vbuckets {found}")]
    VBuckets {
        /// What it was made for.
        found: u16,
        /// What was asked for.
        expected: u16,
    },
}

/// Plans the adoption. `id` names the deployment if none exists.
///
/// # Errors
/// [`AdoptionError`] when written data would have to be removed.
///
/// # Panics
/// When a shard has no entry for a VBucket.
pub fn plan(vbuckets: VBuckets, shards: &[ShardHoldings], id: u64) -> Result<Steps, AdoptionError> {
    let deployment = deployment(vbuckets, shards, id)?;
    let mut steps = Vec::new();
    let mut load = vec![0_usize; shards.len()];
    let mut homeless = Vec::new();
    for vbucket in vbuckets.iter() {
        let mut keeper: Option<(ShardId, HeldVBucket)> = None;
        for (shard, holding) in (0..).map(ShardId).zip(shards) {
            let Some(held) = holding.held[usize::from(vbucket.index())] else { continue };
            if held.of.id != deployment.id {
                steps.push((Step::Remove, vbucket, shard));
                continue;
            }
            let rank = |held: HeldVBucket| (held.is_written, held.epoch);
            match keeper {
                Some((first, kept)) if rank(kept) == rank(held) && held.is_written => {
                    return Err(AdoptionError::Twice { vbucket, first, second: shard });
                }
                Some((other, kept)) if rank(held) > rank(kept) => {
                    if !kept.is_written {
                        steps.push((Step::Remove, vbucket, other));
                    }
                    keeper = Some((shard, held));
                }
                Some(_) if !held.is_written => steps.push((Step::Remove, vbucket, shard)),
                Some(_) => {}
                None => keeper = Some((shard, held)),
            }
        }
        let damaged = (0..).map(ShardId).zip(shards).find(|(_, holding)| holding.damaged.contains(&vbucket));
        match (keeper, damaged) {
            (Some((shard, _)), _) => load[usize::from(shard.0)] += 1,
            (None, Some((shard, _))) => {
                load[usize::from(shard.0)] += 1;
                steps.push((Step::Mend, vbucket, shard));
            }
            (None, None) => homeless.push(vbucket),
        }
    }
    for vbucket in homeless {
        let (shard, held) =
            load.iter_mut().enumerate().min_by_key(|(_, held)| **held).expect("there is a shard");
        *held += 1;
        steps.push((Step::Make, vbucket, ShardId(shard as u16)));
    }
    steps.sort_unstable();
    Ok(Steps { deployment, steps })
}

/// The one deployment that holds data; else the one with the most VBuckets; else a new one.
fn deployment(vbuckets: VBuckets, shards: &[ShardHoldings], id: u64) -> Result<Deployment, AdoptionError> {
    let mut written: Option<(ShardId, u64)> = None;
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for (shard, holding) in (0..).map(ShardId).zip(shards) {
        for held in holding.held.iter().flatten() {
            if held.of.vbuckets != vbuckets.count() {
                let (found, expected) = (held.of.vbuckets, vbuckets.count());
                return Err(AdoptionError::VBuckets { found, expected });
            }
            *counts.entry(held.of.id).or_default() += 1;
            match written {
                Some((first, known)) if held.is_written && known != held.of.id => {
                    return Err(AdoptionError::Several { first, second: shard });
                }
                None if held.is_written => written = Some((shard, held.of.id)),
                _ => {}
            }
        }
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(id, _)| id);
    let id = written.map(|(_, id)| id).or(most).unwrap_or(id);
    Ok(Deployment { vbuckets: vbuckets.count(), id, is_new: false })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn held(id: u64, is_written: bool) -> Option<HeldVBucket> {
        let of = Deployment { vbuckets: 64, id, is_new: false };
        Some(HeldVBucket { epoch: 1, is_moved: false, is_written, of })
    }

    fn holding(held: impl Fn(usize) -> Option<HeldVBucket>) -> ShardHoldings {
        ShardHoldings { held: (0..64).map(held).collect(), damaged: BTreeSet::new() }
    }

    fn plan_of(shards: &[ShardHoldings]) -> Result<Steps, AdoptionError> {
        plan(VBuckets::new(64).unwrap(), shards, 99)
    }

    #[test]
    fn what_may_be_on_a_shard_that_was_not_asked_is_told() {
        let half = holding(|n| if n < 32 { held(7, false) } else { None });
        let steps = plan_of(std::slice::from_ref(&half)).unwrap();
        let of = |map: Option<&[(String, bool)]>| unseen(&steps, std::slice::from_ref(&half), map);
        assert_eq!(of(None), Some((32, Unseen::NoMap)));
        let (asked, other) = (("a".to_owned(), true), ("b".to_owned(), false));
        assert_eq!(of(Some(&[asked.clone(), other])), Some((32, Unseen::Shards(vec!["b".to_owned()]))));
        assert_eq!(of(Some(&[asked])), None);
        // Nothing is there, or a bootstrap was given up; nothing is to be made.
        let nothing = [holding(|_| None)];
        assert_eq!(unseen(&plan_of(&nothing).unwrap(), &nothing, None), None);
        let of = Deployment { vbuckets: 64, id: 7, is_new: true };
        let new = HeldVBucket { epoch: 1, is_moved: false, is_written: false, of };
        let new = [holding(|n| (n < 32).then_some(new))];
        assert_eq!(unseen(&plan_of(&new).unwrap(), &new, None), None);
        let whole = [holding(|_| held(7, true))];
        assert_eq!(unseen(&plan_of(&whole).unwrap(), &whole, None), None);
    }

    #[test]
    fn what_was_lost_is_made_anew_and_what_was_written_stays() {
        let half = holding(|n| if n < 32 { held(7, true) } else { None });
        let steps = plan_of(&[half.clone(), holding(|_| None)]).unwrap();
        assert_eq!((steps.deployment.id, steps.steps.len()), (7, 32));
        let is_made = |step: &(Step, VBucket, ShardId)| {
            step.0 == Step::Make && step.2 == ShardId(1) && step.1.index() >= 32
        };
        assert!(steps.steps.iter().all(is_made), "{steps:?}");
        let mut damaged = holding(|n| if n == 5 { None } else { held(7, true) });
        let fifth = VBuckets::new(64).unwrap().get(5).unwrap();
        damaged.damaged.insert(fifth);
        assert_eq!(plan_of(&[damaged]).unwrap().steps, [(Step::Mend, fifth, ShardId(0))]);
        assert_eq!(plan_of(&[holding(|_| held(7, true))]).unwrap().steps, []);
    }

    #[test]
    fn of_two_bootstraps_one_stays_and_data_is_never_removed() {
        // Two Servers with differently ordered lists made half a deployment each, and nothing was written.
        let mixed = |one: u64, two: u64| holding(move |n| held(if n < 32 { one } else { two }, false));
        let steps = plan_of(&[mixed(7, 8), mixed(8, 7)]).unwrap();
        let removed = steps.steps.iter().filter(|step| step.0 == Step::Remove).count();
        assert_eq!((removed, steps.steps.len()), (64, 64), "{steps:?}");
        // One VBucket was written: its deployment wins.
        let written = holding(|n| held(8, n == 3));
        let steps = plan_of(&[mixed(7, 7), written.clone()]).unwrap();
        assert_eq!((steps.deployment.id, steps.steps.len()), (8, 64));
        let error = plan_of(&[holding(|_| held(7, true)), written.clone()]).unwrap_err();
        assert!(matches!(error, AdoptionError::Several { .. }), "{error:?}");
        let error = plan_of(&[written.clone(), written]).unwrap_err();
        assert!(matches!(error, AdoptionError::Twice { .. }), "{error:?}");
        assert_eq!(plan_of(&[holding(|_| None)]).unwrap().steps.len(), 64);
    }

    #[test]
    fn of_two_copies_of_a_vbucket_the_written_one_stays_then_the_one_of_the_higher_epoch() {
        let copies = |first: (u64, bool), second: (u64, bool)| {
            let copy = |(epoch, is_written)| {
                holding(move |_| Some(HeldVBucket { epoch, ..held(7, is_written).unwrap() }))
            };
            let steps = plan_of(&[copy(first), copy(second)]).unwrap().steps;
            assert!(steps.iter().all(|step| step.0 == Step::Remove), "{steps:?}");
            let shards: BTreeSet<_> = steps.iter().map(|step| step.2.0).collect();
            assert_eq!(steps.len(), 64 * shards.len(), "{steps:?}");
            shards.into_iter().collect::<Vec<_>>()
        };
        let (written, empty) = (true, false);
        assert_eq!(copies((1, empty), (1, written)), [0]);
        assert_eq!(copies((1, written), (1, empty)), [1]);
        assert_eq!(copies((2, empty), (1, written)), [0], "written data counts more than an epoch");
        assert_eq!(copies((1, empty), (2, empty)), [0]);
        assert_eq!(copies((2, empty), (1, empty)), [1]);
        assert_eq!(copies((1, empty), (1, empty)), [1]);
        let removed = copies((1, written), (2, written)).len() + copies((2, written), (1, written)).len();
        assert_eq!(removed, 0, "data is never removed");
    }

    #[test]
    fn new_vbuckets_go_to_the_shards_that_hold_fewest() {
        let made = |shards: &[ShardHoldings], on: u16| {
            let steps = plan_of(shards).unwrap().steps;
            steps.iter().filter(|step| step.0 == Step::Make && step.2 == ShardId(on)).count()
        };
        let none = || holding(|_| None);
        assert_eq!(made(&[none(), none()], 0), 32);
        let some = holding(|n| if n < 32 { held(7, true) } else { None });
        assert_eq!(made(&[some, none()], 1), 32);
        let mut damaged = none();
        damaged.damaged.extend(VBuckets::new(64).unwrap().iter().take(32));
        assert_eq!(made(&[damaged, none()], 1), 32);
        // Both shards hold a copy of the first half: only the copy of the higher epoch counts.
        let old = holding(|n| if n < 32 { held(7, true) } else { None });
        let new =
            holding(
                |n| if n < 32 { held(7, true).map(|held| HeldVBucket { epoch: 2, ..held }) } else { None },
            );
        assert_eq!(made(&[old, new], 0), 32);
    }

    #[test]
    fn where_nothing_was_written_the_deployment_with_most_vbuckets_stays() {
        let of_8_and_9 = holding(|n| held(if n < 40 { 8 } else { 9 }, false));
        assert_eq!(plan_of(&[of_8_and_9]).unwrap().deployment.id, 8);
    }
}
