//! The shards of a list, beside those that the shard map names.

use std::sync::Arc;

use taba_core::VBuckets;

use super::census::ask;
use super::error::{ConnectError, LinkError};
use super::link::ShardLink;
use super::options::ShardsOptions;
use super::topology::Topology;
use crate::map::ShardId;
use crate::shard_map::{ShardMap, ShardMapError};

/// Adds a link for each shard of the map that there is none for, and retires those that are not in it any more.
pub(super) async fn add_links(
    links: &mut Vec<Arc<ShardLink>>,
    map: &ShardMap,
    topology: &Arc<dyn Topology>,
    options: &ShardsOptions,
) -> Result<(), ConnectError> {
    for link in links.iter() {
        if let Some(name) = link.name() {
            // One Redis under two addresses is one shard.
            let is_first = links
                .iter()
                .find(|other| other.name() == Some(name))
                .is_some_and(|first| Arc::ptr_eq(first, link));
            link.retire(map.shard(name).is_none() || !is_first);
        }
    }
    for shard in map.shards() {
        if links.iter().any(|link| link.name() == Some(shard.name)) {
            continue;
        }
        // One that has not answered yet is the shard that the map has at its address.
        let silent = links.iter().find(|link| link.name().is_none() && link.address() == shard.address);
        if let Some(link) = silent {
            link.expect_name(shard.name);
            continue;
        }
        let like = topology.address(ShardId(0)).await.map_err(LinkError::Address)?;
        let Ok(url) = like.at(&shard.address) else {
            let source = ShardMapError::Unknown { text: shard.address.clone() };
            return Err(ConnectError::ShardMap { label: shard.name.to_string(), source });
        };
        let link = ShardLink::to(ShardId(links.len() as u16), url, options);
        link.expect_name(shard.name);
        links.push(Arc::new(link));
    }
    Ok(())
}

/// Refuses a Redis of the list that is no shard of the map and holds nothing: it may be one that lost its data. One that
/// was a shard once is passed over.
pub(super) async fn refuse_strangers(
    links: &[Arc<ShardLink>],
    map: &ShardMap,
    vbuckets: VBuckets,
) -> Result<(), ConnectError> {
    for link in links {
        if link.connection().is_none() || link.name().is_some_and(|name| map.shard(name).is_some()) {
            continue;
        }
        let (holds, _) = ask(link, vbuckets).await?;
        if holds.held.iter().flatten().any(|held| held.of.id != map.deployment()) {
            let first = map.shards().first().map(|shard| shard.address.clone()).unwrap_or_default();
            return Err(ConnectError::Deployments { first, second: link.label() });
        }
        if holds.held.iter().any(Option::is_some) {
            // A census judges whether what it holds is of this deployment.
            if link.name().is_some() {
                tracing::warn!(
                    shard = link.label(),
                    "this redis is no shard of the deployment any more: leave it out"
                );
            }
            continue;
        }
        let shards = map.shards().iter().map(|shard| format!("{} ({})", shard.address, shard.name));
        let shards = shards.collect::<Vec<_>>().join(", ");
        return Err(ConnectError::NoShard { label: link.label(), shards });
    }
    Ok(())
}
