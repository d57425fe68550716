//! Shards that come and go, and what all of them hold now.

use std::sync::Arc;

use bytes::Bytes;
use redis::cmd;
use taba_core::{Remedy, VBucket};

use super::bootstrap::name_shard;
use super::census::ask;
use super::clock::{monotonic, random};
use super::error::{ConnectError, LinkError};
use super::head::heads;
use super::link::{ShardLink, accepted};
use super::maps::read_map;
use super::shards::Shards;
use crate::command::Reply;
use crate::keys;
use crate::map::{ShardId, ShardName};
use crate::migration::survey::{Pending, owner, pending_beside};
use crate::migration::{Head, Move};
use crate::shard_map::{ShardEntry, ShardMap, address_of};

/// Every copy of every VBucket, as all shards that answer hold them now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survey {
    /// One entry for each VBucket, in order.
    pub copies: Vec<(VBucket, Vec<(ShardName, Head)>)>,
    /// The shards that do not answer. What they hold is not known.
    pub silent: Vec<SilentShard>,
}

/// A shard that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SilentShard {
    /// Its name.
    pub name: ShardName,
    /// What an operator calls it.
    pub label: String,
    /// Why not.
    pub cause: String,
}

/// The replicas of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardHealth {
    /// How many are connected.
    pub replicas: usize,
    /// How many bytes the one that lags most is behind; `None` without replicas.
    pub lag: Option<u64>,
}

impl Survey {
    /// The moves that bring every VBucket further, where one is not where the map wants it.
    pub fn moves(&self, map: Option<&ShardMap>) -> Vec<Move> {
        self.pending(map).filter_map(|(_, pending)| pending.to_move()).collect()
    }

    /// What is still to be done with each VBucket, where something is, so that each is where the map wants it.
    pub fn pending<'a>(&'a self, map: Option<&'a ShardMap>) -> impl Iterator<Item = (VBucket, Pending)> + 'a {
        let silent = self.silent_names();
        let of = move |(vbucket, copies): &'a (VBucket, Vec<(ShardName, Head)>)| {
            (*vbucket, pending_beside(*vbucket, copies, map.map(|map| map.owner(*vbucket)), &silent))
        };
        self.copies.iter().map(of).filter(|(_, pending)| *pending != Pending::Nothing)
    }

    /// The names of the shards that do not answer.
    pub fn silent_names(&self) -> Vec<ShardName> {
        self.silent.iter().map(|silent| silent.name).collect()
    }

    /// Which shard owns each VBucket that has an owner.
    pub fn owners(&self) -> impl Iterator<Item = (VBucket, ShardName)> + '_ {
        self.copies.iter().filter_map(|(vbucket, copies)| Some((*vbucket, owner(copies)?.0)))
    }
}

impl Shards {
    /// Asks all shards for the heads of all VBuckets. Those that do not answer are in [`Survey::silent`].
    ///
    /// # Errors
    /// [`ConnectError`], also when one does not answer and there is no shard map that names it.
    pub async fn survey(&self) -> Result<Survey, ConnectError> {
        self.refuse_cluster()?;
        self.refresh_map().await?;
        let mut copies: Vec<(VBucket, Vec<(ShardName, Head)>)> =
            self.vbuckets().iter().map(|vbucket| (vbucket, Vec::new())).collect();
        let mut silent = Vec::new();
        let links = self.links();
        let asked = links.iter().filter(|link| !link.is_retired());
        let asked = asked.map(|link| async move { (link, heads(link, self.vbuckets()).await) });
        for (link, found) in futures::future::join_all(asked).await {
            let label = link.label();
            match (found, link.name()) {
                (Ok(found), Some(name)) => {
                    for ((_, copies), head) in copies.iter_mut().zip(found) {
                        copies.extend(head.map(|(head, _)| (name, head)));
                    }
                }
                (Err(error), Some(name)) if matches!(error.remedy(), Remedy::Wait(_)) => {
                    silent.push(SilentShard { name, label, cause: taba_core::causes(&error) });
                }
                // Each shard of the map has a link by its name.
                (Err(error), None) if matches!(error.remedy(), Remedy::Wait(_)) && self.map().is_some() => {}
                (Err(error), _) => return Err(error.into()),
                (Ok(_), None) => return Err(LinkError::Answer { shard: link.shard() }.into()),
            }
        }
        Ok(Survey { copies, silent })
    }

    /// What the entry of a Redis in the map would be, if it were a shard. Changes nothing: one without a name gets one that
    /// is not written.
    ///
    /// `address`: `host:port`, a path for a Unix socket, or the URL of one that Sentinels name; user and password are those
    /// of the first shard.
    ///
    /// # Errors
    /// [`ConnectError`], above all [`ConnectError::Occupied`] when the Redis holds something that is not of this
    /// deployment.
    pub async fn examine(&self, address: &str) -> Result<ShardEntry, ConnectError> {
        let (link, address) = self.candidate(address).await?;
        Ok(ShardEntry::new(link.name().unwrap_or_else(|| ShardName(random())), address))
    }

    /// A connection to a Redis that may become a shard, and its address.
    async fn candidate(&self, address: &str) -> Result<(ShardLink, String), ConnectError> {
        self.refuse_cluster()?;
        let like = self.topology().address(ShardId(0)).await.map_err(LinkError::Address)?;
        let address = address_of(address);
        let url =
            like.at(address).map_err(|source| ConnectError::Address { text: address.to_owned(), source })?;
        let address = url.to_string();
        // The number is only for messages.
        let link = ShardLink::to(ShardId(self.count() as u16), url, self.options());
        let (holds, _) = ask(&link, self.vbuckets()).await?;
        let deployment = self.view().deployment().id;
        let is_strange = holds.held.iter().flatten().any(|held| held.of.id != deployment);
        if is_strange || !holds.damaged.is_empty() {
            return Err(ConnectError::Occupied { label: link.label() });
        }
        Ok((link, address))
    }

    /// Makes a Redis a shard of the deployment, which owns nothing yet; one that is a shard gets this address.
    ///
    /// # Errors
    /// As [`examine`](Self::examine).
    pub async fn add_shard(&self, address: &str) -> Result<(ShardName, Arc<ShardMap>), ConnectError> {
        let (link, address) = self.candidate(address).await?;
        let name = name_shard(&link, ShardName(random())).await?;
        let entry = ShardEntry::new(name, address);
        let map = self.change_map(|map| map.with_shard(entry)).await?;
        Ok((name, map))
    }

    /// Takes a shard out of the deployment. It must own nothing, and hold nothing that is not elsewhere.
    ///
    /// # Errors
    /// [`ConnectError::StillHolds`] when it does.
    pub async fn remove_shard(&self, name: ShardName) -> Result<Arc<ShardMap>, ConnectError> {
        let survey = self.survey().await?;
        if let Some(silent) = survey.silent.iter().find(|silent| silent.name == name) {
            return Err(ConnectError::Silent { label: silent.label.clone() });
        }
        let holds = |copies: &[(ShardName, Head)]| {
            copies.iter().any(|(of, head)| *of == name && (head.moved.is_none() || head.has_content))
        };
        let vbuckets = survey.copies.iter().filter(|(_, copies)| holds(copies)).count();
        if vbuckets > 0 {
            return Err(ConnectError::StillHolds { name, vbuckets });
        }
        self.change_map_beside(&survey.silent_names(), |map| map.without_shard(name)).await
    }

    /// The replicas of a shard.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn health(&self, name: ShardName) -> Result<ShardHealth, ConnectError> {
        let shard = self.id_of(name).ok_or(ConnectError::Empty)?;
        let poll = self.link(shard).poll(monotonic()).await?;
        let lag = poll.replicas.iter().map(|offset| poll.offset.saturating_sub(*offset)).max();
        Ok(ShardHealth { replicas: poll.replicas.len(), lag })
    }

    /// The epoch of the map that each shard has that answers.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn map_epochs(&self) -> Result<Vec<(String, u64)>, ConnectError> {
        self.refuse_cluster()?;
        let mut epochs = Vec::new();
        for link in self.links().iter().filter(|link| !link.is_retired()) {
            let map = match read_map(link).await {
                Err(error) if matches!(error.remedy(), Remedy::Wait(_)) => continue,
                map => map?,
            };
            epochs.push((link.label(), map.map_or(0, |map| map.epoch())));
        }
        Ok(epochs)
    }

    /// Changes nothing in the shard map but its epoch, if a shard has an older one: it failed over to before the last change, or
    /// was silent. `silent`: those that still are.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn renew_map(&self, silent: &[ShardName]) -> Result<(), ConnectError> {
        let epochs = self.map_epochs().await?;
        if epochs.windows(2).all(|pair| pair[0].1 == pair[1].1) {
            return Ok(());
        }
        self.change_map_beside(silent, |map| map.with_owners([])).await.map(drop)
    }

    /// Removes copies that were on their way to a shard and never put in place: see [`keys::staged`]. A mover whose copy goes
    /// so copies again. Answers how many keys there were.
    ///
    /// # Errors
    /// [`ConnectError`]; what was removed stays removed.
    ///
    /// # Cost
    /// Goes through all keys.
    pub async fn remove_staged(&self) -> Result<usize, ConnectError> {
        let mut removed = 0;
        for (link, keys) in self.keys_like("{vb*}~*").await? {
            removed += keys.len();
            for some in keys.chunks(crate::limits::REQUEST_COMMANDS_MAX) {
                let mut unlink = cmd("UNLINK");
                unlink.arg(some.iter().map(|key| key.to_vec()).collect::<Vec<_>>());
                link.one(unlink).await?;
            }
        }
        Ok(removed)
    }

    /// The shards that hold keys of [`Data`](crate::Data), which do not move with their VBuckets.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cost
    /// Goes through all keys.
    pub async fn with_data(&self) -> Result<Vec<String>, ConnectError> {
        let is_set_aside = |key: &Bytes| key.windows(11).any(|part| part == b"!set-aside:");
        let of_users = self
            .keys_like("{vb*}[:!]*")
            .await?
            .into_iter()
            .filter(|(_, keys)| !keys.iter().all(is_set_aside));
        Ok(of_users.map(|(link, _)| link.label()).collect())
    }

    /// The keys like this on every shard that answers.
    async fn keys_like(&self, pattern: &str) -> Result<Vec<(Arc<ShardLink>, Vec<Bytes>)>, ConnectError> {
        self.refuse_cluster()?;
        let mut all = Vec::new();
        for link in self.links().iter().filter(|link| !link.is_retired()) {
            if link.epoch().await.is_err_and(|error| matches!(error.remedy(), Remedy::Wait(_))) {
                continue;
            }
            let (shard, mut position, mut keys) = (link.shard(), "0".to_owned(), Vec::new());
            loop {
                let mut scan = cmd("SCAN");
                scan.arg(&position).arg("MATCH").arg(pattern);
                scan.arg("COUNT").arg(crate::limits::SCAN_KEYS_MAX);
                let Reply::List(parts) = link.one(scan).await? else {
                    return Err(LinkError::Answer { shard }.into());
                };
                let Ok([Reply::Bytes(next), Reply::List(found)]) = <[Reply; 2]>::try_from(parts) else {
                    return Err(LinkError::Answer { shard }.into());
                };
                keys.extend(found.into_iter().filter_map(|key| match key {
                    Reply::Bytes(key) => Some(key),
                    _ => None,
                }));
                position = String::from_utf8_lossy(&next).into_owned();
                if position == "0" {
                    break;
                }
            }
            all.push((Arc::clone(link), keys));
        }
        Ok(all)
    }

    /// How many bytes each VBucket of a shard takes, about: of a few fields and entries, and counted up.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn sizes(&self, name: ShardName, vbuckets: &[VBucket]) -> Result<Vec<u64>, ConnectError> {
        let shard = self.id_of(name).ok_or(ConnectError::Empty)?;
        let link = self.link(shard);
        let mut sizes = Vec::with_capacity(vbuckets.len());
        for some in vbuckets.chunks(crate::limits::REQUEST_COMMANDS_MAX) {
            let command = |vbucket: &VBucket| {
                let mut command = cmd("MEMORY");
                command.arg("USAGE").arg(keys::hash(*vbucket));
                command
            };
            for reply in link.request(some.iter().map(command).collect()).await?.replies {
                sizes.push(match accepted(shard, reply)? {
                    Reply::Integer(bytes) => bytes.unsigned_abs(),
                    _ => 0,
                });
            }
        }
        Ok(sizes)
    }
}
