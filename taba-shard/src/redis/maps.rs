//! The shard map on the shards: reading the newest, and changing it.
//!
//! The shard with the lowest name keeps the map: a change counts once it is there, and is then spread to all others.

use std::sync::Arc;
use std::time::Duration;

use redis::cmd;
use taba_core::Remedy;

use super::clock::random;
use super::error::{ConnectError, LinkError};
use super::link::ShardLink;
use super::scripts;
use crate::command::Reply;
use crate::keys;
use crate::map::{ShardName, VBucketMap};
use crate::shard_map::{ShardEntry, ShardMap, ShardMapError};

/// How long a change of the map may take until another may begin one.
const LOCK_TIME: Duration = Duration::from_secs(10);

/// The map that one shard has, if it has any.
pub(super) async fn read_map(link: &ShardLink) -> Result<Option<ShardMap>, ConnectError> {
    let mut get = cmd("HGET");
    get.arg(keys::SHARD_MAP).arg("map");
    let text = match link.one(get).await? {
        Reply::Nothing => return Ok(None),
        Reply::Bytes(text) => text,
        _ => return Err(LinkError::Answer { shard: link.shard() }.into()),
    };
    let unusable = |source| ConnectError::ShardMap { label: link.label(), source };
    ShardMap::read(&text).map(Some).map_err(unusable)
}

/// The newest map that any shard has. One that does not answer is passed over.
///
/// # Errors
/// [`ConnectError::ShardMap`]; [`ConnectError::Deployments`] when the maps are of several.
pub(super) async fn newest_map(links: &[Arc<ShardLink>]) -> Result<Option<ShardMap>, ConnectError> {
    let asked = links.iter().filter(|link| !link.is_retired());
    let mut newest: Option<ShardMap> = None;
    let mut first: Option<(u64, String)> = None;
    for (link, found) in
        futures::future::join_all(asked.map(|link| async move { (link, read_map(link).await) })).await
    {
        if let Ok(Some(map)) = &found {
            let (id, label) = first.get_or_insert_with(|| (map.deployment(), link.label()));
            if *id != map.deployment() {
                return Err(ConnectError::Deployments { first: label.clone(), second: link.label() });
            }
        }
        match found {
            Ok(Some(map)) if newest.as_ref().is_none_or(|newest| map.epoch() > newest.epoch()) => {
                newest = Some(map);
            }
            Ok(_) => {}
            // What it holds will be asked for again, and then told.
            Err(ConnectError::Link(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(newest)
}

/// The entry of a shard that has said its name.
pub(super) fn entry(link: &ShardLink) -> Result<ShardEntry, LinkError> {
    let name = link.name().ok_or(LinkError::Answer { shard: link.shard() })?;
    Ok(ShardEntry::new(name, link.address()))
}

/// Writes the first map of a deployment, unless there is one.
pub(super) async fn first_map(
    in_order: &[&Arc<ShardLink>],
    deployment: u64,
    owners: VBucketMap,
) -> Result<ShardMap, ConnectError> {
    let entries = in_order.iter().map(|link| entry(link)).collect::<Result<Vec<_>, _>>()?;
    let label = in_order.first().map(|link| link.label()).unwrap_or_default();
    let map = ShardMap::new(deployment, entries, owners)
        .map_err(|source| ConnectError::ShardMap { label, source })?;
    let links: Vec<Arc<ShardLink>> = in_order.iter().map(|link| Arc::clone(link)).collect();
    let keeper = keeper(&links)?;
    // Of several that write it at once, the first one's is the one.
    put_map(keeper, &map, Some(0), 0).await?;
    let map = read_map(keeper).await?.ok_or(LinkError::Answer { shard: keeper.shard() })?;
    spread(&links, &[], &map, 0).await?;
    Ok(map)
}

/// The shard that keeps the map: the lowest name of all.
pub(super) fn keeper(links: &[Arc<ShardLink>]) -> Result<&Arc<ShardLink>, ConnectError> {
    let named = links.iter().filter(|link| !link.is_retired() && link.name().is_some());
    named.min_by_key(|link| link.name()).ok_or(ConnectError::Empty)
}

/// Answers whether it was written: `expect` is the epoch that the one before must have, if any may not.
async fn put_map(
    link: &ShardLink,
    map: &ShardMap,
    expect: Option<u64>,
    token: u64,
) -> Result<bool, LinkError> {
    let mut call = scripts::SET_MAP.call(&[keys::SHARD_MAP]);
    match expect {
        Some(epoch) => call.arg(epoch),
        None => call.arg("<"),
    };
    call.arg(token).arg(map.epoch()).arg(map.to_string());
    Ok(link.one(call).await? == Reply::Integer(1))
}

/// Writes the map to all shards that have an older one, and to those that are no shards any more: who knows only such a one
/// finds the others. `silent`: those that are passed over.
///
/// # Errors
/// [`LinkError`] of the first shard that does not take it: no move may begin before each has that takes part in one.
async fn spread(
    links: &[Arc<ShardLink>],
    silent: &[ShardName],
    map: &ShardMap,
    token: u64,
) -> Result<(), LinkError> {
    for link in links {
        let Some(name) = link.name().filter(|name| !silent.contains(name)) else { continue };
        match put_map(link, map, None, token).await {
            Err(error) if map.shard(name).is_some() => return Err(error),
            Err(error) => tracing::warn!(
                shard = link.label(),
                error = taba_core::causes(&error),
                "a redis that is no shard any more keeps its old shard map"
            ),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// A token that no shard has seen a higher one than: it may be of another keeper, whose clock is ahead.
async fn least_token(links: &[Arc<ShardLink>]) -> u64 {
    let asked = links.iter().filter(|link| !link.is_retired()).map(|link| async move {
        let mut get = cmd("HGET");
        get.arg(keys::SHARD_MAP).arg("token");
        link.one(get).await.ok().and_then(|token| token.number()).unwrap_or(0)
    });
    futures::future::join_all(asked).await.into_iter().max().unwrap_or(0)
}

/// Changes the map under a lock of its keeper, and spreads it. `silent`: shards that do not answer, and get it later.
///
/// # Errors
/// [`ConnectError`]; [`ConnectError::MapHeld`] when another operator changes it now, and [`ConnectError::MapChanged`] when
/// one did since it was read.
pub(crate) async fn change_map(
    links: &[Arc<ShardLink>],
    silent: &[ShardName],
    change: impl FnOnce(&ShardMap) -> Result<ShardMap, ShardMapError>,
) -> Result<ShardMap, ConnectError> {
    let keeper = keeper(links)?;
    let holder = format!("{:016x}", random());
    let mut call = scripts::ACQUIRE.call(&[keys::MAP_LOCK]);
    call.arg(&holder).arg(LOCK_TIME.as_micros() as u64).arg(least_token(links).await);
    let reply = match keeper.one(call).await {
        Ok(reply) => reply,
        Err(error) if matches!(error.remedy(), Remedy::Wait(_)) => {
            return Err(ConnectError::KeeperSilent { label: keeper.label(), source: Arc::new(error) });
        }
        Err(error) => return Err(error.into()),
    };
    if let Reply::List(_) = reply {
        return Err(ConnectError::MapHeld { left: LOCK_TIME });
    }
    let token: u64 = reply.number().ok_or(LinkError::Answer { shard: keeper.shard() })?;
    let changed = async {
        let unusable = |source| ConnectError::ShardMap { label: keeper.label(), source };
        let before = newest_map(links).await?.ok_or(ConnectError::Empty)?;
        let after = change(&before).map_err(unusable)?;
        // The keeper may have missed the last change: it may be a keeper only since then.
        put_map(keeper, &before, None, token).await?;
        if !put_map(keeper, &after, Some(before.epoch()), token).await? {
            return Err(ConnectError::MapChanged);
        }
        spread(links, silent, &after, token).await?;
        Ok(after)
    };
    let changed = changed.await;
    let mut release = scripts::RELEASE.call(&[keys::MAP_LOCK]);
    release.arg(&holder);
    // If this fails, the lock runs out by itself.
    let _ = keeper.one(release).await;
    changed
}
