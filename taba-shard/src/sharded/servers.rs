//! Where Servers say that they are there: a hash on each of some shards, a field for each run of a Server.
//!
//! What one shard has, the others have too, so that the loss of any but the last leaves the list whole; a reader takes the
//! newest of each. The hash has the tag of a VBucket of its shard, so that Redis Cluster knows where it is; which VBuckets
//! follows from who owns which, which all Servers agree on, in whatever order they name the shards. When a VBucket moves,
//! its hash stays behind and goes by itself; the next beats write it at its new place.

use std::collections::BTreeMap;

use futures::future::join_all;
use redis::{Cmd, cmd};
use taba_core::{ServerEntry, StoreError, VBucket};

use super::{ShardedRedis, read};
use crate::census::Location;
use crate::command::Reply;
use crate::keys;
use crate::map::ShardId;
use crate::redis::{LinkError, RedisRefusal, SendRules, VBucketAnswer, VBucketRequest};

/// Shards that have the list, at most.
const SHARDS_MAX: usize = 8;
/// Seconds after which a list goes that nobody writes to any more.
const KEPT_S: u64 = 3600;

/// Writes what a run of a Server says of itself to the list; `None` takes it off. Done when one shard has it.
pub(super) async fn register(
    store: &ShardedRedis,
    process: u64,
    entry: Option<&ServerEntry>,
) -> Result<(), StoreError> {
    let field = format!("{process:016x}");
    let commands = |key: &str| match entry {
        None => vec![command("HDEL", key, std::slice::from_ref(&field))],
        Some(entry) => vec![
            command("HSET", key, &[field.clone(), entry.encode()]),
            command("EXPIRE", key, &[KEPT_S.to_string()]),
        ],
    };
    ask(store, commands).await.map(drop)
}

/// Everybody on the list.
pub(super) async fn servers(store: &ShardedRedis) -> Result<Vec<ServerEntry>, StoreError> {
    let mut newest: BTreeMap<u64, ServerEntry> = BTreeMap::new();
    for reply in ask(store, |key| vec![command("HGETALL", key, &[])]).await? {
        let Reply::List(pairs) = reply else { continue };
        // What is no entry is of a later version, or not ours.
        let entry =
            |value: &Reply| if let Reply::Bytes(text) = value { ServerEntry::decode(text) } else { None };
        for entry in pairs.iter().skip(1).step_by(2).filter_map(entry) {
            match newest.get(&entry.process) {
                Some(known) if known.beat >= entry.beat => {}
                _ => drop(newest.insert(entry.process, entry)),
            }
        }
    }
    Ok(newest.into_values().collect())
}

fn command(name: &str, key: &str, arguments: &[String]) -> Cmd {
    let mut command = cmd(name);
    command.arg(key).arg(arguments);
    command
}

/// Sends commands to each shard that has the list; the replies of those that answered, or why none did.
async fn ask(store: &ShardedRedis, commands: impl Fn(&str) -> Vec<Cmd>) -> Result<Vec<Reply>, StoreError> {
    let places = places(store);
    let one = |(shard, vbucket): (ShardId, VBucket)| {
        let commands = commands(&keys::servers(vbucket));
        let requests = commands.into_iter().map(|command| VBucketRequest::one(vbucket, command)).collect();
        store.shards.send(shard, requests, SendRules::HASTY)
    };
    let (mut replies, mut error) = (Vec::new(), None);
    for outcome in join_all(places.into_iter().map(one)).await.into_iter().flatten() {
        match outcome {
            Ok(VBucketAnswer { replies: mine, shard, .. }) => {
                for reply in mine {
                    match reply {
                        Reply::Refused { code, detail } => {
                            let source = RedisRefusal { code, detail };
                            error = Some(LinkError::Refused { shard, source }.into());
                        }
                        reply => replies.push(reply),
                    }
                }
            }
            Err(failed) => error = Some(failed),
        }
    }
    match error {
        Some(error) if replies.is_empty() => Err(read::all_unavailable(error)),
        None if replies.is_empty() => Err(read::unavailable(store.shards.unanswered())),
        _ => Ok(replies),
    }
}

/// The first VBucket of each shard, of the first shards in the order of their VBuckets.
fn places(store: &ShardedRedis) -> Vec<(ShardId, VBucket)> {
    let mut places: Vec<(ShardId, VBucket)> = Vec::new();
    for vbucket in store.shards.vbuckets().iter() {
        if let Location::Owned(owner) = store.shards.place(vbucket)
            && places.iter().all(|(shard, _)| *shard != owner.shard)
        {
            places.push((owner.shard, vbucket));
            if places.len() == SHARDS_MAX {
                break;
            }
        }
    }
    places
}
