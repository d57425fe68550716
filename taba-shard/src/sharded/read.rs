//! Interprets the answers of scripts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Cmd;
use taba_core::{Remedy, StoreError, VBucket};

use super::ShardedRedis;
use crate::census::Owner;
use crate::command::Reply;
use crate::layout;
use crate::map::{ShardId, ShardName};
use crate::redis::{Answered, LinkError, RedisRefusal, SendRules, VBucketRequest};

/// The damaged part when entries of an index are missing.
pub(super) const INDEX: &str = "index";
/// The damaged part when a key has another type.
pub(super) const KEY: &str = "key";

/// The state of a VBucket on the shard that should hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misplaced {
    /// None: the shard has lost it, or never had it.
    #[error("{shard} does not hold it: the shard has lost its data, or never had it")]
    Missing {
        /// The shard.
        shard: ShardId,
    },
    /// It is moving, or was moved.
    #[error(
        "it is moving from {shard} to shard {to} under epoch {epoch}, and neither owns it yet: taba-shard resume goes on with a move that was left"
    )]
    Moved {
        /// The source.
        shard: ShardId,
        /// The epoch of the move.
        epoch: u64,
        /// The name of the shard that it went to.
        to: ShardName,
    },
    /// It has another epoch than known here.
    #[error("{shard} owns it under epoch {found}, not {expected}")]
    NotOwner {
        /// The shard.
        shard: ShardId,
        /// Its epoch.
        found: u64,
        /// The epoch known here.
        expected: u64,
    },
    /// Redis Cluster has it on another node.
    #[error("the cluster keeps it elsewhere")]
    Elsewhere {
        /// The shard that was asked.
        shard: ShardId,
    },
}

pub(super) fn unavailable(error: LinkError) -> StoreError {
    StoreError::Unavailable { retry_after: retry_after(&error), source: Box::new(error) }
}

/// The same for an error that several requests share.
pub(super) fn all_unavailable(error: Arc<LinkError>) -> StoreError {
    StoreError::Unavailable { retry_after: retry_after(&error), source: Box::new(error) }
}

fn retry_after(error: &LinkError) -> Duration {
    match error.remedy() {
        Remedy::Wait(time) => time,
        // An operator has to fix it; retrying sooner does not help.
        _ => Duration::from_secs(5),
    }
}

fn misplaced(vbucket: VBucket, source: Misplaced) -> StoreError {
    StoreError::Misplaced { vbucket, source: Box::new(source) }
}

/// The error of a script that did not answer OK: refused, or the VBucket has another owner or state.
pub(super) fn failure(vbucket: VBucket, owner: Owner, reply: Reply) -> StoreError {
    let shard = owner.shard;
    let damaged = |what| StoreError::Damaged { vbucket, what };
    match reply {
        Reply::Refused { code, .. } if matches!(code.as_str(), "MOVED" | "ASK") => {
            misplaced(vbucket, Misplaced::Elsewhere { shard })
        }
        // No store writes a key of this type.
        Reply::Refused { code, .. } if code == "WRONGTYPE" => damaged(KEY),
        Reply::Refused { code, detail } => {
            unavailable(LinkError::Refused { shard, source: RedisRefusal { code, detail } })
        }
        Reply::List(items) => {
            let mut items = items.into_iter();
            let (word, detail) = (items.next(), items.next());
            let detail = if let Some(Reply::Bytes(detail)) = detail { detail } else { Bytes::new() };
            match word {
                Some(Reply::Bytes(word)) if word == "MISSING" => {
                    misplaced(vbucket, Misplaced::Missing { shard })
                }
                Some(Reply::Bytes(word)) if word == "MOVED" => match layout::read_moved(&detail) {
                    Some((epoch, to)) => misplaced(vbucket, Misplaced::Moved { shard, epoch, to }),
                    None => damaged("mark of moving"),
                },
                Some(Reply::Bytes(word)) if word == "NOTOWNER" => match layout::read_epoch(&detail) {
                    Some(found) => {
                        misplaced(vbucket, Misplaced::NotOwner { shard, found, expected: owner.epoch })
                    }
                    None => damaged("epoch"),
                },
                // Entries of an index are missing: see `relist`.
                Some(Reply::Bytes(word)) if word == "UNLISTED" => damaged(INDEX),
                _ => unavailable(LinkError::Answer { shard }),
            }
        }
        _ => unavailable(LinkError::Answer { shard }),
    }
}

/// The rest of an answer that begins with OK.
pub(super) fn result<const N: usize>(
    vbucket: VBucket,
    owner: Owner,
    reply: Reply,
) -> Result<[Reply; N], StoreError> {
    match reply {
        Reply::List(mut items) if items.first() == Some(&Reply::Bytes(Bytes::from_static(b"OK"))) => {
            items.remove(0);
            let wrong = |_| unavailable(LinkError::Answer { shard: owner.shard });
            <[Reply; N]>::try_from(items).map_err(wrong)
        }
        other => Err(failure(vbucket, owner, other)),
    }
}

impl ShardedRedis {
    /// Sends scripts to the owner of the VBucket.
    pub(super) async fn send(
        &self,
        vbucket: VBucket,
        owner: Owner,
        calls: Vec<Cmd>,
    ) -> Result<Answered, StoreError> {
        if self.shards.is_cluster() {
            return self.send_by_slot(vbucket, owner, calls).await;
        }
        let over = self.shards.known_connection(owner.shard).await;
        self.shards.link(owner.shard).eval_over(calls, over).await.map_err(unavailable)
    }

    /// The same in a Redis Cluster. Each script changes all or nothing, and one that is refused because its slot moves is
    /// sent again, wherever the slot is then.
    async fn send_by_slot(
        &self,
        vbucket: VBucket,
        owner: Owner,
        calls: Vec<Cmd>,
    ) -> Result<Answered, StoreError> {
        let requests = calls.into_iter().map(|call| VBucketRequest::one(vbucket, call)).collect();
        let rules = SendRules { in_order: false, ..SendRules::PATIENT };
        let mut all = Answered { replies: Vec::new(), epoch: 0, run: String::new() };
        for outcome in self.shards.send(owner.shard, requests, rules).await {
            let answer = outcome.map_err(all_unavailable)?;
            all.replies.extend(answer.replies);
            // That of the last: a commit is the last of its scripts.
            all.epoch = answer.epoch;
        }
        Ok(all)
    }

    /// Passes an outcome on; a misplaced VBucket causes a census.
    pub(super) async fn follow<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        // One that moves is followed without a census.
        if let Err(StoreError::Misplaced { source, .. }) = &outcome
            && !matches!(source.downcast_ref(), Some(Misplaced::Moved { .. }))
        {
            self.shards.census_after_a_miss().await;
        }
        outcome
    }
}

/// A list; `None` for any other reply.
pub(super) fn list(reply: Reply) -> Option<Vec<Reply>> {
    if let Reply::List(items) = reply { Some(items) } else { None }
}

/// Bytes, or nothing; a tombstone is nothing.
pub(super) fn value(reply: Reply) -> Option<Option<Bytes>> {
    match reply {
        Reply::Nothing => Some(None),
        Reply::Bytes(bytes) => Some(Some(bytes).filter(|bytes| !bytes.is_empty())),
        _ => None,
    }
}
