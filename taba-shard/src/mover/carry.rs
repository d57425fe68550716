//! One VBucket, from step to step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Cmd;
use taba_core::{Remedy, Version};

use super::copy::{Copied, Copy, SwitchOutcome, confirmed, fence_call, list_keys};
use super::log::MoveRecord;
use super::{MoveEvent, Mover, MoverError};
use crate::command::Reply;
use crate::keys;
use crate::layout;
use crate::limits::{MOVE_TRIES_MAX, UNFENCE_TIME};
use crate::map::{ShardId, ShardName};
use crate::migration::{Goal, Head, Move, MoveError, MoveStep, next};
use crate::redis::{LinkError, ShardLink, monotonic, read_head, read_time, scripts};
use crate::sabotage::{die_at, stop_at};

/// What one move of one mover knows besides the heads: only what it has to tell.
struct Carried<'a> {
    this: Move,
    source: Arc<ShardLink>,
    destination: Arc<ShardLink>,
    tell: &'a (dyn Fn(MoveEvent) + Sync),
    /// When this mover fenced it.
    fenced: Option<Instant>,
    /// The epoch of the destination and what was copied, once this mover has switched it.
    switched: Option<(u64, Copied)>,
    is_rolled_back: bool,
    /// Replicas of the source that must have the fence.
    replicas: Option<u64>,
}

impl Mover {
    /// Brings one move to its goal.
    pub(super) async fn carry(
        &self,
        goal: Goal,
        this: Move,
        tell: &(dyn Fn(MoveEvent) + Sync),
    ) -> Result<(), MoverError> {
        let (from, to) = (self.shard(this.from)?, self.shard(this.to)?);
        // Always in the same order, so that no two moves wait for each other.
        let (first, second) = (self.permits(from.min(to)), self.permits(from.max(to)));
        let permits = (first.acquire_owned().await, second.acquire_owned().await);
        if self.is_stopping() {
            tell(MoveEvent::Left { this });
            return Ok(());
        }
        let (source, destination) = (self.take_link(from), self.take_link(to));
        let mut carried = Carried {
            this,
            source: Arc::clone(&source),
            destination: Arc::clone(&destination),
            tell,
            fenced: None,
            switched: None,
            is_rolled_back: false,
            replicas: None,
        };
        self.until_switched(goal, &mut carried, from, to).await?;
        self.give_back(source);
        self.give_back(destination);
        drop(permits);
        if let Some((epoch, copied)) = carried.switched {
            self.write_log(&carried, epoch, copied, "moved").await;
        }
        if carried.is_rolled_back {
            tell(MoveEvent::RolledBack { this });
            return Ok(());
        }
        if goal == Goal::Forward {
            self.retire(this, from, to).await?;
        }
        tell(MoveEvent::Ended { this });
        Ok(())
    }

    /// Goes on until the source holds nothing that is needed, or owns the VBucket again.
    async fn until_switched(
        &self,
        mut goal: Goal,
        carried: &mut Carried<'_>,
        from: ShardId,
        to: ShardId,
    ) -> Result<(), MoverError> {
        let begun = monotonic();
        let mut tries = 0;
        let mut rolled_back_for = None;
        loop {
            let step = match self.look(goal, carried).await {
                Ok(step) => step,
                // The answer of the switch was lost, and it had come before this went back.
                Err(MoverError::Move(MoveError::Switched { .. })) if rolled_back_for.is_some() => {
                    goal = Goal::Forward;
                    rolled_back_for = None;
                    continue;
                }
                Err(error) => {
                    self.may_retry(&error, begun).await.ok_or(error)?;
                    continue;
                }
            };
            let done = match step {
                MoveStep::Done | MoveStep::Retire { .. } => {
                    return rolled_back_for.map_or(Ok(()), |error| {
                        (carried.tell)(MoveEvent::Failed { this: carried.this, error });
                        Ok(())
                    });
                }
                // One that was switched already and came back with an old copy is fenced at once.
                MoveStep::Fence { own, fence } if fence != own + 1 => {
                    self.fence_old_copy(carried, own, fence).await
                }
                MoveStep::Fence { own, fence } => match self.may_begin(from, to, carried.tell).await {
                    Ok(replicas) => {
                        carried.replicas = Some(replicas);
                        self.copy(carried, from, own, fence).await
                    }
                    Err(error) => Err(error),
                },
                MoveStep::Copy { own, fence } => self.copy(carried, from, own, fence).await,
                MoveStep::Bar { own, is_over_copy, fence } => {
                    self.confirm_and_bar(carried, from, own, is_over_copy, fence).await
                }
                MoveStep::Unfence { own, moved, epoch } => {
                    self.unfence(carried, to, (own, moved), epoch).await
                }
            };
            match done {
                Ok(()) if carried.switched.is_some() => return Ok(()),
                Ok(()) => {
                    tries += 1;
                    if tries > MOVE_TRIES_MAX {
                        return Err(MoverError::Contended);
                    }
                }
                // Writes were held for too long, or it cannot be copied: they go on at the source.
                Err(error) if goal == Goal::Forward && self.goes_back_for(&error, carried) => {
                    goal = Goal::Back;
                    rolled_back_for = Some(error);
                }
                Err(error) => self.may_retry(&error, begun).await.ok_or(error)?,
            }
        }
    }

    /// Whether writes were held for too long, or would be: it cannot be copied, or no memory is left for it.
    fn goes_back_for(&self, error: &MoverError, carried: &Carried<'_>) -> bool {
        let held = carried.fenced.map(|fenced| monotonic().saturating_duration_since(fenced));
        match error {
            MoverError::Late { .. }
            | MoverError::Unconfirmed { .. }
            | MoverError::Foreign { .. }
            | MoverError::Differs => true,
            MoverError::Link(LinkError::Refused { source, .. }) if source.code == "OOM" => true,
            MoverError::Link(_) => held.is_some_and(|held| held > self.options.pause_max),
            _ => false,
        }
    }

    /// Waits, when it is worth trying again.
    async fn may_retry(&self, error: &MoverError, begun: Instant) -> Option<()> {
        let MoverError::Link(link) = error else { return None };
        let Remedy::Wait(pause) = link.remedy() else { return None };
        if monotonic().saturating_duration_since(begun) >= self.options.retry_max {
            return None;
        }
        tokio::time::sleep(pause.clamp(Duration::from_millis(20), Duration::from_secs(1))).await;
        Some(())
    }

    async fn look(&self, goal: Goal, carried: &Carried<'_>) -> Result<MoveStep, MoverError> {
        let vbucket = carried.this.vbucket;
        let (source, destination) = futures::future::try_join(
            read_head(&carried.source, vbucket),
            read_head(&carried.destination, vbucket),
        )
        .await?;
        Ok(next(goal, carried.this, source.head, destination.head)?)
    }

    async fn fence_old_copy(&self, carried: &Carried<'_>, own: u64, fence: u64) -> Result<(), MoverError> {
        // If it says no, the heads say why.
        carried.source.one(fence_call(carried.this, own, fence)).await?;
        Ok(())
    }

    /// Fences and copies in one: the script of the fence looks at the source again, that of the switch at the destination,
    /// so that nothing needs to be read between.
    async fn copy(
        &self,
        carried: &mut Carried<'_>,
        from: ShardId,
        own: u64,
        fence: u64,
    ) -> Result<(), MoverError> {
        let replicas = match carried.replicas {
            Some(replicas) => replicas,
            None => self.replicas(from).await?.0,
        };
        let copy = Copy {
            this: carried.this,
            source: &carried.source,
            destination: &carried.destination,
            own,
            fence,
            replicas,
            pause_max: self.options.pause_max,
        };
        let SwitchOutcome::Switched(copied) = copy.run(&mut carried.fenced).await? else { return Ok(()) };
        stop_at("switched", carried.this.vbucket).await;
        self.gate.copied(copied.bytes);
        let (pause, bytes) = (copied.pause, copied.bytes);
        (carried.tell)(MoveEvent::Switched { this: carried.this, pause, bytes });
        carried.switched = Some((fence, copied));
        Ok(())
    }

    async fn write_log(&self, carried: &Carried<'_>, epoch: u64, copied: Copied, outcome: &str) {
        let record = MoveRecord {
            at_ms: 0,
            vbucket: carried.this.vbucket.index(),
            from: carried.this.from.to_string(),
            to: carried.this.to.to_string(),
            epoch,
            by: self.options.by.clone(),
            pause_us: copied.pause.map(|pause| pause.as_micros() as u64),
            bytes: copied.bytes,
            keys: copied.keys,
            outcome: outcome.to_owned(),
        };
        record.write(&carried.destination).await;
    }

    async fn confirm_and_bar(
        &self,
        carried: &Carried<'_>,
        from: ShardId,
        own: u64,
        is_over_copy: bool,
        fence: u64,
    ) -> Result<(), MoverError> {
        if is_over_copy {
            // The copy there may be the only one that is on every disk.
            let (source, this) = (self.shards.link(from), carried.this);
            let found = read_head(&source, this.vbucket).await?;
            let is_so = |head: Head| head.epoch == own && head.moved == Some((fence, this.to));
            if !found.head.is_some_and(is_so)
                || source.stable(found.connection, self.shards.options()).await?.is_err()
            {
                return Ok(());
            }
        }
        // If it says no, the heads say why.
        carried.destination.one(self.bar_call(carried, fence, is_over_copy)).await?;
        die_at("barred");
        Ok(())
    }

    fn bar_call(&self, carried: &Carried<'_>, fence: u64, is_over_copy: bool) -> Cmd {
        let mut call = scripts::BAR.call(&[keys::hash(carried.this.vbucket)]);
        call.arg(fence).arg(layout::put_moved(fence + 1, carried.this.from));
        call.arg(layout::put_version(Version::NEVER));
        call.arg(layout::put_deployment(self.shards.view().deployment())).arg(u8::from(is_over_copy));
        call
    }

    async fn unfence(
        &self,
        carried: &mut Carried<'_>,
        to: ShardId,
        (own, moved): (u64, Option<(u64, ShardName)>),
        epoch: u64,
    ) -> Result<(), MoverError> {
        // By the source's own clock, read before the bar is written.
        let (now, connection) = read_time(&carried.source).await?;
        let deadline = now + UNFENCE_TIME.as_micros() as u64;
        let replicas = self.replicas(to).await?.0;
        let call = || self.bar_call(carried, epoch - 1, false);
        if confirmed(&carried.destination, call, replicas, self.options.retry_max).await? != Reply::Integer(1)
        {
            return Ok(());
        }
        let mut call = scripts::UNFENCE.call(&[keys::hash(carried.this.vbucket)]);
        let moved = moved.map_or_else(String::new, |(fence, to)| layout::put_moved(fence, to));
        call.arg(own).arg(moved).arg(epoch).arg(deadline);
        let answered = carried.source.eval_over(vec![call], Some(connection)).await?;
        if answered.replies == [Reply::Integer(1)] {
            carried.is_rolled_back = true;
            die_at("unfenced");
            self.write_log(carried, epoch, Copied::default(), "rolled back").await;
        }
        Ok(())
    }

    /// Leaves a tombstone at the source, once what the destination holds is stable, and so is the map everywhere.
    async fn retire(&self, this: Move, from: ShardId, to: ShardId) -> Result<(), MoverError> {
        let (source, destination) = (self.shards.link(from), self.shards.link(to));
        let begun = monotonic();
        loop {
            match self.try_retire(this, &source, &destination).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => self.may_retry(&error, begun).await.ok_or(error)?,
            }
            if monotonic().saturating_duration_since(begun) >= self.options.retry_max * 4 {
                return Err(MoverError::Contended);
            }
        }
    }

    async fn try_retire(
        &self,
        this: Move,
        source: &ShardLink,
        destination: &ShardLink,
    ) -> Result<bool, MoverError> {
        let (here, there) =
            futures::future::try_join(read_head(source, this.vbucket), read_head(destination, this.vbucket))
                .await?;
        let (own, moved) = match next(Goal::Forward, this, here.head, there.head)? {
            MoveStep::Done => return Ok(true),
            MoveStep::Retire { own, moved } => (own, moved),
            // A failover has taken one of them back: what to do is decided anew, by another run.
            _ => return Err(MoverError::Contended),
        };
        // At the same time: each takes as long as a disk may lag.
        let map = self.map_is_stable.get_or_try_init(|| self.wait_for_map());
        let is_there = async { Ok(destination.stable(there.connection, self.shards.options()).await?) };
        let (_, is_there) = futures::future::try_join(map, is_there).await?;
        if is_there.is_err() {
            return Ok(false);
        }
        stop_at("stable", this.vbucket).await;
        let moved = layout::put_moved(moved.0, moved.1);
        // A fenced copy gets no more indexes; if it is not fenced so any more, the script says no.
        let names = list_keys(source, this).await?;
        let mut call = scripts::RETIRE.call(&names);
        call.arg(own).arg(moved);
        let is_done = source.one(call).await? == Reply::Integer(1);
        stop_at("retired", this.vbucket).await;
        Ok(is_done)
    }

    /// Waits until the map is safe on every shard that is not silent.
    async fn wait_for_map(&self) -> Result<(), MoverError> {
        let links = self.shards.links();
        let is_silent =
            |link: &ShardLink| link.name().is_some_and(|name| self.options.silent.contains(&name));
        let asked = links.iter().filter(|link| !link.is_retired() && !is_silent(link));
        let asked = asked.map(|link| async move {
            loop {
                let connection = link.epoch().await?;
                if link.stable(connection, self.shards.options()).await?.is_ok() {
                    return Ok::<(), LinkError>(());
                }
            }
        });
        futures::future::try_join_all(asked).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
