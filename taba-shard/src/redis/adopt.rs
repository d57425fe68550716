//! [`Adoption`]: runs a plan of [`adoption`](crate::adoption).

use std::sync::Arc;

use redis::{Cmd, cmd};
use taba_core::{VBucket, Version};

use super::bootstrap::name_shard;
use super::census::ask;
use super::clock::random;
use super::cluster::{Cluster, cluster_url, holdings};
use super::error::ConnectError;
use super::head::read_time;
use super::link::{ShardLink, accepted};
use super::maps::{change_map, entry, newest_map, read_map};
use super::options::ShardsOptions;
use super::scripts;
use super::topology::{StaticTopology, Topology};
use super::url::ShardUrl;
use crate::adoption::{AdoptionError, Step, Steps, Unseen, plan, unseen};
use crate::command::Reply;
use crate::keys;
use crate::layout;
use crate::limits::{MOVE_WAIT_MAX, REQUEST_COMMANDS_MAX, SHARDS_MAX};
use crate::map::{ShardId, ShardName};
use crate::shard_map::{ShardEntry, ShardMap};

/// Shards that do not hold one deployment, and the steps that make one of them.
#[derive(Debug)]
pub struct Adoption {
    links: Vec<Arc<ShardLink>>,
    cluster: Option<Arc<Cluster>>,
    names: Vec<String>,
    steps: Steps,
    /// Why VBuckets that would be made may exist elsewhere.
    unseen: Option<AdoptionError>,
    recreates_empty: bool,
}

impl Adoption {
    /// Asks all shards and plans; changes nothing.
    ///
    /// # Errors
    /// [`ConnectError`] when a shard does not answer, or written data would have to be removed.
    pub async fn plan(addresses: Vec<ShardUrl>, options: ShardsOptions) -> Result<Self, ConnectError> {
        let topology = Arc::new(StaticTopology::new(addresses));
        let shards = topology.shards();
        if !(1..=SHARDS_MAX).contains(&shards) {
            return Err(ConnectError::Shards { shards });
        }
        if let Some(url) = cluster_url(&*topology).await? {
            return Self::plan_cluster(url, options).await;
        }
        let all = || (0..shards).map(|shard| ShardId(shard as u16));
        let names = all().map(|shard| topology.name(shard)).collect();
        let links: Vec<Arc<ShardLink>> =
            all().map(|shard| Arc::new(ShardLink::new(shard, topology.clone(), &options))).collect();
        let mut holdings = Vec::with_capacity(shards);
        for link in &links {
            holdings.push(ask(link, options.vbuckets).await?.0);
        }
        let steps = plan(options.vbuckets, &holdings, random())?;
        let map = newest_map_of(&links, steps.deployment.id).await;
        let is_asked = |shard: &ShardEntry| {
            let is_it = |link: &&Arc<ShardLink>| match link.name() {
                Some(name) => name == shard.name,
                None => link.address() == shard.address,
            };
            links.iter().any(|link| is_it(&link))
        };
        let asked: Option<Vec<(String, bool)>> = map
            .map(|map| map.shards().iter().map(|shard| (shard.address.clone(), is_asked(shard))).collect());
        let unseen = unseen(&steps, &holdings, asked.as_deref()).map(|(vbuckets, unseen)| {
            let others = match unseen {
                Unseen::Shards(addresses) => addresses.join(", "),
                Unseen::NoMap => "a redis that is not named, since none of these has a shard map".to_owned(),
            };
            AdoptionError::Unseen { vbuckets, others }
        });
        Ok(Self { links, cluster: None, names, steps, unseen, recreates_empty: false })
    }

    /// Makes VBuckets also where they may exist on a shard that was not asked: under an epoch above any that it has.
    #[must_use]
    pub fn recreating_empty(self) -> Self {
        Self { recreates_empty: true, ..self }
    }

    /// In a Redis Cluster each VBucket is made at the node that has its slot.
    async fn plan_cluster(url: ShardUrl, options: ShardsOptions) -> Result<Self, ConnectError> {
        let cluster = Cluster::connect(url, &options).await?;
        let mut steps = plan(options.vbuckets, &holdings(&cluster, options.vbuckets).await?, random())?;
        for (_, vbucket, shard) in &mut steps.steps {
            *shard = cluster.shard_of(*vbucket).unwrap_or(*shard);
        }
        let links = cluster.links().as_ref().clone();
        let names = links.iter().map(|link| link.label()).collect();
        Ok(Self { links, cluster: Some(cluster), names, steps, unseen: None, recreates_empty: false })
    }

    /// The resulting deployment and the steps, one line each.
    pub fn steps(&self) -> Vec<String> {
        let Steps { deployment, steps } = &self.steps;
        let mut lines =
            vec![format!("deployment {:016x} of {} vbuckets", deployment.id, deployment.vbuckets)];
        let what = [
            (Step::Remove, "remove vbuckets that were never written"),
            (Step::Mend, "rewrite the heads of damaged vbuckets"),
            (Step::Make, "create empty vbuckets in place of those that no shard holds"),
        ];
        for (step, what) in what {
            for (place, name) in self.names.iter().enumerate() {
                let of = |(found, vbucket, shard): &(Step, VBucket, ShardId)| {
                    (*found == step && usize::from(shard.0) == place).then_some(*vbucket)
                };
                let vbuckets: Vec<VBucket> = steps.iter().filter_map(of).collect();
                if let Some(first) = vbuckets.first() {
                    lines.push(format!("{name}: {what}: {} from {first} on", vbuckets.len()));
                }
            }
        }
        if let Some(unseen) = &self.unseen {
            lines.push(unseen.to_string());
        }
        if steps.is_empty() {
            lines.push("all vbuckets are correct; the plan of an abandoned bootstrap is removed".to_owned());
        }
        lines
    }

    /// Runs the plan. All Servers must be stopped: a VBucket that one of them writes meanwhile is not removed.
    ///
    /// # Errors
    /// [`ConnectError`], before anything is done [`AdoptionError::Unseen`]; completed steps stay, and a new plan contains the
    /// rest.
    pub async fn run(self) -> Result<(), ConnectError> {
        let epoch = match &self.unseen {
            Some(unseen) if !self.recreates_empty => return Err(unseen.clone().into()),
            Some(_) => read_time(&self.links[0]).await?.0,
            None => layout::FIRST_EPOCH,
        };
        for step in [Step::Remove, Step::Mend, Step::Make] {
            for link in &self.links {
                let of = |(found, vbucket, shard): &(Step, VBucket, ShardId)| {
                    (*found == step && *shard == link.shard()).then_some(*vbucket)
                };
                let vbuckets: Vec<VBucket> = self.steps.steps.iter().filter_map(of).collect();
                if let Some(cluster) = &self.cluster {
                    for (_, outcome) in cluster
                        .ask_each(&vbuckets, MOVE_WAIT_MAX, |vbucket| self.call(step, vbucket, epoch))
                        .await
                    {
                        let (shard, reply) = outcome.map_err(ConnectError::Link)?;
                        accepted(shard, reply)?;
                    }
                    continue;
                }
                for some in vbuckets.chunks(REQUEST_COMMANDS_MAX) {
                    let calls = some.iter().map(|vbucket| self.call(step, *vbucket, epoch)).collect();
                    check(link, link.eval(calls).await?.replies)?;
                }
            }
        }
        if self.cluster.is_some() {
            return Ok(());
        }
        for link in &self.links {
            let mut forget = cmd("DEL");
            forget.arg(keys::PLAN);
            link.one(forget).await?;
        }
        name_all(&self.links, self.steps.deployment.id).await
    }

    fn call(&self, step: Step, vbucket: VBucket, epoch: u64) -> Cmd {
        let hash = keys::hash(vbucket);
        let of = layout::put_deployment(self.steps.deployment);
        let never = layout::put_version(Version::NEVER);
        match step {
            Step::Remove => {
                let mut call = scripts::DISCARD.call(&[&hash]);
                call.arg(never);
                call
            }
            Step::Make => {
                let mut call = scripts::CREATE.call(&[&hash]);
                call.arg(never).arg(epoch).arg(of);
                call
            }
            Step::Mend => {
                let aside = format!("{hash}!set-aside:{:016x}", random());
                let mut call = scripts::MEND.call(&[&hash, &aside]);
                // A new version invalidates every cache of this VBucket.
                call.arg(layout::put_version(Version { writer: random(), count: 1 }));
                call.arg(layout::FIRST_EPOCH).arg(of);
                call
            }
        }
    }
}

/// The newest map of this deployment; one that cannot be read is none.
async fn newest_map_of(links: &[Arc<ShardLink>], deployment: u64) -> Option<ShardMap> {
    let maps = futures::future::join_all(links.iter().map(|link| read_map(link))).await;
    let maps = maps.into_iter().filter_map(|map| map.ok().flatten());
    maps.filter(|map| map.deployment() == deployment).max_by_key(ShardMap::epoch)
}

/// Gives every shard that has lost its name the one that the shard map has for its address, or a new one, and every shard the
/// map. Maps of other deployments go.
async fn name_all(links: &[Arc<ShardLink>], deployment: u64) -> Result<(), ConnectError> {
    for link in links {
        if read_map(link).await.is_ok_and(|map| map.is_none_or(|map| map.deployment() == deployment)) {
            continue;
        }
        let mut forget = cmd("DEL");
        forget.arg(keys::SHARD_MAP);
        link.one(forget).await?;
    }
    let map = newest_map(links).await?;
    let mut entries = Vec::with_capacity(links.len());
    for link in links {
        let address = link.address();
        let known = map.iter().flat_map(ShardMap::shards).find(|shard| shard.address == address);
        let name = known.map_or_else(|| ShardName(random()), |shard| shard.name);
        name_shard(link, name).await?;
        entries.push(entry(link)?);
    }
    if map.is_some() {
        let is_new = |map: &ShardMap, entry: &ShardEntry| map.shard(entry.name).is_none();
        change_map(links, &[], |map| {
            entries.into_iter().try_fold(map.clone(), |map, entry| {
                if is_new(&map, &entry) { map.with_shard(entry) } else { Ok(map) }
            })
        })
        .await?;
    }
    Ok(())
}

fn check(link: &ShardLink, replies: Vec<Reply>) -> Result<(), ConnectError> {
    replies.into_iter().try_for_each(|reply| accepted(link.shard(), reply).map(drop)).map_err(Into::into)
}
