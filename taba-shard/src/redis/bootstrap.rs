//! Bootstrap: makes a deployment on empty shards.

use std::sync::Arc;

use redis::{Cmd, cmd};
use taba_core::{VBucket, VBuckets, Version};

use super::census::take_census;
use super::clock::random;
use super::error::{ConnectError, LinkError};
use super::link::{ShardLink, accepted};
use super::maps::first_map;
use super::scripts;
use crate::census::{CensusError, CensusOutcome, View};
use crate::command::Reply;
use crate::keys;
use crate::layout::{self, Deployment};
use crate::limits::REQUEST_COMMANDS_MAX;
use crate::map::{ShardId, ShardName, VBucketMap};

/// The shards in the order in which the VBuckets are spread over them.
///
/// The first Server to connect names each Redis. On the one with the lowest name, the first Server stores the order of its
/// list, and all others take that order: so several Servers that start at once on empty shards make one deployment,
/// whatever the order of their lists.
async fn planned(links: &[Arc<ShardLink>]) -> Result<Planned<'_>, ConnectError> {
    let mut named: Vec<(String, &Arc<ShardLink>)> = Vec::with_capacity(links.len());
    for link in links {
        let name = name_shard(link, ShardName(random())).await?.to_string();
        if let Some((_, first)) = named.iter().find(|(known, _)| *known == name) {
            return Err(ConnectError::Same { first: first.shard(), second: link.shard() });
        }
        named.push((name, link));
    }
    let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    let (_, keeper) = named.iter().min_by_key(|(name, _)| name).expect("there is at least one shard");
    let plan = get_or_set(keeper, keys::PLAN, &names.join(" ")).await?;
    let find = |wanted: &str| named.iter().find(|(name, _)| name == wanted).map(|(_, link)| *link);
    let in_order: Option<Vec<&Arc<ShardLink>>> = plan.split(' ').map(find).collect();
    match in_order.filter(|in_order| in_order.len() == links.len()) {
        Some(in_order) => Ok(Planned { in_order, keeper }),
        None => Err(ConnectError::OtherPlan { keeper: keeper.shard() }),
    }
}

/// The order of the shards, and the shard that stores it until the deployment is made.
struct Planned<'a> {
    in_order: Vec<&'a Arc<ShardLink>>,
    keeper: &'a Arc<ShardLink>,
}

/// Names a Redis, unless it has a name; answers the name that it has.
pub(super) async fn name_shard(link: &ShardLink, name: ShardName) -> Result<ShardName, ConnectError> {
    let found = get_or_set(link, keys::SHARD_NAME, &name.to_string()).await?;
    let found = found.parse().map_err(|_| LinkError::Answer { shard: link.shard() })?;
    link.expect_name(found);
    Ok(found)
}

/// Sets a key if it has no value; returns its value.
async fn get_or_set(link: &ShardLink, key: &str, text: &str) -> Result<String, ConnectError> {
    let (mut set, mut get) = (cmd("SETNX"), cmd("GET"));
    set.arg(key).arg(text);
    get.arg(key);
    let shard = link.shard();
    match link.request(vec![set, get]).await?.replies.pop().map(|reply| accepted(shard, reply)).transpose()? {
        Some(Reply::Bytes(found)) => Ok(String::from_utf8_lossy(&found).into_owned()),
        _ => Err(LinkError::Answer { shard }.into()),
    }
}

/// Creates the missing VBuckets, spread evenly; when all exist, marks each as complete.
pub(super) async fn bootstrap(
    links: &[Arc<ShardLink>],
    vbuckets: VBuckets,
    id: u64,
) -> Result<View, ConnectError> {
    let Planned { in_order, keeper } = planned(links).await?;
    // Another Server may have finished the bootstrap since the census, and removed its plan.
    if let CensusOutcome::All(view) = take_census(links, vbuckets).await?.found {
        return Ok(view);
    }
    let map = VBucketMap::even(vbuckets, links.len())?;
    let new = Deployment { vbuckets: vbuckets.count(), id, is_new: true };
    // When several Servers bootstrap at once, the one that creates the first VBucket names the deployment.
    let first = vbuckets.get(0).expect("there are at least 64");
    let link = in_order[usize::from(map.owner(first).0)];
    let damaged = |vbucket| {
        let shard = in_order[usize::from(map.owner(vbucket).0)].shard();
        ConnectError::Damaged { shard, vbucket }
    };
    let Reply::Bytes(of) = link.one(create(first, new)).await? else { return Err(damaged(first)) };
    let of = layout::read_deployment(&of).ok_or_else(|| damaged(first))?;
    if of.vbuckets != vbuckets.count() {
        let (shard, found, expected) = (link.shard(), of.vbuckets, vbuckets.count());
        return Err(CensusError::VBuckets { shard, found, expected }.into());
    }
    let new = Deployment { id: of.id, ..new };
    for step in [create, finish] {
        for (place, link) in in_order.iter().enumerate() {
            let owned: Vec<VBucket> = map.owned_by(ShardId(place as u16)).collect();
            for some in owned.chunks(REQUEST_COMMANDS_MAX) {
                let calls = some.iter().map(|vbucket| step(*vbucket, new)).collect();
                for (vbucket, reply) in some.iter().zip(link.eval(calls).await?.replies) {
                    if !is_of(&accepted(link.shard(), reply)?, new) {
                        return Err(damaged(*vbucket));
                    }
                }
            }
        }
    }
    first_map(&in_order, of.id, map).await?;
    let mut forget = cmd("DEL");
    forget.arg(keys::PLAN);
    keeper.one(forget).await?;
    tracing::info!(shards = links.len(), vbuckets = vbuckets.count(), "bootstrapped a deployment");
    match take_census(links, vbuckets).await?.found {
        CensusOutcome::All(view) => Ok(view),
        CensusOutcome::Nothing | CensusOutcome::Unfinished(_) => Err(ConnectError::Empty),
    }
}

/// Whether the answer of a step says that the VBucket is of this deployment.
pub(super) fn is_of(reply: &Reply, new: Deployment) -> bool {
    let old = Deployment { is_new: false, ..new };
    match reply {
        Reply::Bytes(of) => layout::read_deployment(of).is_some_and(|of| of == new || of == old),
        Reply::Integer(_) => true,
        _ => false,
    }
}

pub(super) fn create(vbucket: VBucket, new: Deployment) -> Cmd {
    let mut call = scripts::CREATE.call(&[keys::hash(vbucket)]);
    call.arg(layout::put_version(Version::NEVER)).arg(layout::FIRST_EPOCH);
    call.arg(layout::put_deployment(new));
    call
}

pub(super) fn finish(vbucket: VBucket, new: Deployment) -> Cmd {
    let mut call = scripts::FINISH.call(&[keys::hash(vbucket)]);
    call.arg(layout::put_deployment(new));
    call.arg(layout::put_deployment(Deployment { is_new: false, ..new }));
    call
}
