//! Shards that are lost for good: taken out of the shard map, and what was on its way to them freed.
//!
//! The map comes first: from then on nobody sends anything to the lost shard, also if it comes back, and no mover moves anything
//! there. Then each copy is freed under an epoch above all that the lost shard can have seen. Whoever is killed between is gone
//! on with by the same again.

use std::collections::BTreeSet;
use std::sync::Arc;

use taba_core::{Remedy, VBucket, Version};

use crate::command::Reply;
use crate::keys;
use crate::layout;
use crate::map::ShardName;
use crate::migration::lost::{RemainingCopy, Remains, floor, remains};
use crate::mover::MoveRecord;
use crate::redis::{ConnectError, LinkError, ShardLink, Shards, change_map, heads, read_time, scripts};
use crate::shard_map::{ShardMap, ShardMapError};

/// The time of a Redis in microseconds, as a Lua number that none is above.
const NO_DEADLINE: u64 = 1 << 53;

/// What the loss of shards comes to, or has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// VBuckets that were to go to a lost shard, with the shard that owns them: it keeps them.
    pub kept: Vec<(VBucket, ShardName)>,
    /// VBuckets that were fenced towards a lost shard, with the shard whose copy counts again. It is as of the fence: if the lost
    /// shard was switched, what it took after that is not in it.
    pub freed: Vec<(VBucket, ShardName)>,
    /// VBuckets of which no other shard holds anything, with the shard on which they are to be made anew, empty.
    pub lost: Vec<(VBucket, ShardName)>,
}

/// All copies of one VBucket on the shards that are left.
type AllRemains = Vec<(VBucket, Vec<RemainingCopy>, Remains)>;

impl Shards {
    /// What the loss of these shards comes to. Changes nothing.
    ///
    /// # Errors
    /// [`ConnectError::Answers`] when one of them answers, [`ConnectError::Silent`] when another one does not.
    pub async fn plan_forget(&self, lost: &[ShardName]) -> Result<Loss, ConnectError> {
        self.refuse_cluster()?;
        self.refresh_map().await?;
        let map = self.map().ok_or(ConnectError::Empty)?;
        let found = self.find_remains(lost, &map, &BTreeSet::new()).await?;
        loss(&map, lost, &found).map_err(unusable)
    }

    /// Takes shards out of the deployment that are lost for good, frees what was on its way to them, and, if so asked, makes
    /// anew, empty, what was only there. May be done again, also when they are in the map no more.
    ///
    /// # Errors
    /// As [`plan_forget`](Self::plan_forget); [`ConnectError::OnlyCopies`] when something was only there and is not to be made
    /// anew. What is done stays done.
    ///
    /// # Cancel safety
    /// Left in the middle, VBuckets wait until it is done again.
    pub async fn forget(&self, lost: &[ShardName], anew: bool, by: &str) -> Result<Loss, ConnectError> {
        let planned = self.plan_forget(lost).await?;
        if !planned.lost.is_empty() && !anew {
            return Err(ConnectError::OnlyCopies { vbuckets: planned.lost.len() });
        }
        let before = self.map().ok_or(ConnectError::Empty)?;
        let was_theirs: BTreeSet<VBucket> = lost.iter().flat_map(|name| before.owned_by(*name)).collect();
        if before.shards().iter().any(|shard| lost.contains(&shard.name)) {
            let links: Vec<Arc<ShardLink>> =
                self.links().iter().filter(|link| !is_of(link, lost)).cloned().collect();
            let epoch = before.epoch();
            let Loss { kept, freed, lost: anew } = planned;
            let owners = kept.into_iter().chain(freed).chain(anew);
            let change = |map: &ShardMap| {
                if map.epoch() == epoch {
                    map.without_lost(lost, owners)
                } else {
                    Err(ShardMapError::Changed)
                }
            };
            self.adopt_map(change_map(&links, &[], change).await?).await?;
        }
        // Somebody else may have done some of it meanwhile.
        let map = self.map().ok_or(ConnectError::Empty)?;
        let found = self.find_remains(lost, &map, &was_theirs).await?;
        let loss = loss(&map, lost, &found).map_err(unusable)?;
        if !loss.lost.is_empty() && !anew {
            return Err(ConnectError::OnlyCopies { vbuckets: loss.lost.len() });
        }
        for (vbucket, copies, remains) in &found {
            match remains {
                Remains::Untouched => {}
                Remains::Owned(copy) | Remains::Fenced(copy) => {
                    self.free(*vbucket, copies, *copy, lost, by).await?;
                }
                Remains::Lost => {
                    let on = loss.lost.iter().find(|(found, _)| found == vbucket).map(|(_, on)| *on);
                    self.make_anew(*vbucket, copies, on, lost, by).await?;
                }
            }
        }
        Ok(loss)
    }

    async fn find_remains(
        &self,
        lost: &[ShardName],
        map: &ShardMap,
        was_theirs: &BTreeSet<VBucket>,
    ) -> Result<AllRemains, ConnectError> {
        let mut all: AllRemains =
            self.vbuckets().iter().map(|vbucket| (vbucket, Vec::new(), Remains::Untouched)).collect();
        let links = self.links();
        for link in links.iter().filter(|link| !link.is_retired()) {
            // One without a name has not answered, and each shard of the map has a link by its name.
            let Some(name) = link.name() else { continue };
            if lost.contains(&name) {
                if link.epoch().await.is_ok() {
                    return Err(ConnectError::Answers { label: link.label() });
                }
                continue;
            }
            let heads = match heads(link, self.vbuckets()).await {
                Err(error) if matches!(error.remedy(), Remedy::Wait(_)) => {
                    return Err(ConnectError::Silent { label: link.label() });
                }
                heads => heads?,
            };
            for ((_, copies, _), head) in all.iter_mut().zip(heads) {
                copies.extend(
                    head.map(|(head, version)| {
                        RemainingCopy::new(name, head, version != Some(Version::NEVER))
                    }),
                );
            }
        }
        for (vbucket, copies, found) in &mut all {
            let theirs = lost.first().filter(|_| was_theirs.contains(vbucket));
            *found = remains(copies, theirs.copied().unwrap_or_else(|| map.owner(*vbucket)), lost);
        }
        Ok(all)
    }

    /// An epoch above all that a lost shard can have seen.
    async fn epoch_above(&self, link: &ShardLink, copies: &[RemainingCopy]) -> Result<u64, LinkError> {
        Ok(floor(copies).max(read_time(link).await?.0))
    }

    /// If the copy is as it was found, its shard owns the VBucket.
    async fn free(
        &self,
        vbucket: VBucket,
        copies: &[RemainingCopy],
        copy: RemainingCopy,
        lost: &[ShardName],
        by: &str,
    ) -> Result<(), ConnectError> {
        let link = self.link(self.id_of(copy.shard).ok_or(ConnectError::Empty)?);
        let epoch = self.epoch_above(&link, copies).await?;
        let moved = copy.head.moved.map_or_else(String::new, |(fence, to)| layout::put_moved(fence, to));
        let mut call = scripts::UNFENCE.call(&[keys::hash(vbucket)]);
        call.arg(copy.head.epoch).arg(moved).arg(epoch).arg(NO_DEADLINE);
        if link.one(call).await? != Reply::Integer(1) {
            return Err(ConnectError::MapChanged);
        }
        self.log_loss(&link, (vbucket, copy.shard, epoch), lost, by, "freed").await;
        Ok(())
    }

    async fn make_anew(
        &self,
        vbucket: VBucket,
        copies: &[RemainingCopy],
        on: Option<ShardName>,
        lost: &[ShardName],
        by: &str,
    ) -> Result<(), ConnectError> {
        let name = on.ok_or(ConnectError::Empty)?;
        let link = self.link(self.id_of(name).ok_or(ConnectError::Empty)?);
        let epoch = self.epoch_above(&link, copies).await?;
        let mut call = scripts::ANEW.call(&[keys::hash(vbucket)]);
        call.arg(layout::put_version(Version::NEVER)).arg(epoch);
        call.arg(layout::put_deployment(self.view().deployment()));
        if link.one(call).await? != Reply::Integer(1) {
            return Err(ConnectError::MapChanged);
        }
        self.log_loss(&link, (vbucket, name, epoch), lost, by, "made anew").await;
        Ok(())
    }

    async fn log_loss(
        &self,
        link: &ShardLink,
        (vbucket, to, epoch): (VBucket, ShardName, u64),
        lost: &[ShardName],
        by: &str,
        outcome: &str,
    ) {
        let from = lost.first().map(ToString::to_string).unwrap_or_default();
        MoveRecord::of_loss(vbucket, from, to, epoch, by, outcome).write(link).await;
    }
}

fn is_of(link: &ShardLink, names: &[ShardName]) -> bool {
    link.name().is_some_and(|name| names.contains(&name))
}

fn unusable(source: ShardMapError) -> ConnectError {
    ConnectError::ShardMap { label: "the deployment".to_owned(), source }
}

/// Who gets what: the lost ones go to the shards that own the fewest.
fn loss(map: &ShardMap, lost: &[ShardName], found: &AllRemains) -> Result<Loss, ShardMapError> {
    let takers = map.shards().iter().filter(|shard| !lost.contains(&shard.name));
    let mut owned: Vec<(usize, ShardName)> = takers
        .clone()
        .filter(|shard| !shard.is_draining)
        .map(|shard| (map.owned_by(shard.name).count(), shard.name))
        .collect();
    if owned.is_empty() {
        owned = takers.map(|shard| (0, shard.name)).collect();
    }
    let mut loss = Loss::default();
    for (vbucket, _, remains) in found {
        let wanted = map.owner(*vbucket);
        match remains {
            Remains::Owned(copy) => loss.kept.push((*vbucket, copy.shard)),
            Remains::Fenced(copy) => loss.freed.push((*vbucket, copy.shard)),
            Remains::Lost if !lost.contains(&wanted) => loss.lost.push((*vbucket, wanted)),
            Remains::Untouched if !lost.contains(&wanted) => {}
            // Fenced between two others, or lost: somebody is to own it.
            Remains::Untouched | Remains::Lost => {
                let (count, name) = owned.iter_mut().min().ok_or(ShardMapError::NoneLeft)?;
                *count += 1;
                if *remains == Remains::Lost {
                    loss.lost.push((*vbucket, *name));
                } else {
                    loss.kept.push((*vbucket, *name));
                }
            }
        }
    }
    Ok(loss)
}
