//! [`Data::scan`]: every key of a namespace, over all shards, a page at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use redis::cmd;

use super::{Data, DataError};
use crate::command::Reply;
use crate::limits::{CLUSTER_REFRESH_INTERVAL, SCAN_KEYS_MAX};
use crate::map::ShardId;
use crate::redis::{LinkError, RedisRefusal, ShardLink};

/// The position of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanCursor {
    shard: ShardId,
    /// The run ID of the process that gave the position; it is invalid for any other.
    run: String,
    position: String,
    /// Of the slots of a Redis Cluster: another one means that some have moved.
    generation: u64,
}

impl ScanCursor {
    /// Before the first key of a shard.
    fn first(shard: ShardId, generation: u64) -> Self {
        Self { shard, run: String::new(), position: "0".to_owned(), generation }
    }
}

/// A page of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanPage {
    /// Unordered, without duplicates; may be empty although more follow.
    pub keys: Vec<Bytes>,
    /// The position of the next page; `None` at the end.
    pub next: Option<ScanCursor>,
}

impl Data {
    /// A page of keys of this namespace, from all shards one after another. Begin with `None` and continue with
    /// [`ScanPage::next`] until it is `None`.
    ///
    /// Every key that exists during the whole scan is returned at least once; it may appear again on a later page.
    /// When a shard fails over or restarts meanwhile, its keys are scanned again from the start: positions depend on
    /// a hash seed of the process. In a Redis Cluster all keys are scanned again when slots have moved; of a slot that is
    /// moving when the scan ends, keys may be left out.
    ///
    /// # Errors
    /// [`DataError`]; the same page can be requested again.
    ///
    /// # Cost
    /// Each page makes a shard examine about `keys` of all its keys, with those of other namespaces and of the Store.
    /// At most [`SCAN_KEYS_MAX`]; slightly more may come, since Redis returns whole buckets.
    pub async fn scan(&self, cursor: Option<ScanCursor>, keys: usize) -> Result<ScanPage, DataError> {
        let generation = self.generation().await;
        let cursor = cursor.filter(|cursor| cursor.generation == generation);
        let first = || ScanCursor::first(self.next_shard(0).unwrap_or(ShardId(0)), generation);
        let ScanCursor { shard, run, position, .. } = cursor.unwrap_or_else(first);
        let question = |position: &str| {
            let mut command = cmd("SCAN");
            command.arg(position).arg("MATCH").arg(self.namespace.pattern());
            command.arg("COUNT").arg(keys.clamp(1, SCAN_KEYS_MAX));
            command
        };
        let link = self.shards.link(shard);
        let mut answered = link.request(vec![question(&position)]).await?;
        if position != "0" && answered.run != run {
            answered = link.request(vec![question("0")]).await?;
        }
        let wrong = || DataError::from(LinkError::Answer { shard });
        let items = match answered.replies.pop() {
            Some(Reply::List(items)) => items,
            Some(Reply::Refused { code, detail }) => {
                return Err(DataError::Refused { shard, source: RedisRefusal { code, detail } });
            }
            _ => return Err(wrong()),
        };
        let [Reply::Bytes(position), Reply::List(found)] =
            <[Reply; 2]>::try_from(items).map_err(|_| wrong())?
        else {
            return Err(wrong());
        };
        let mut unique = BTreeSet::new();
        for key in found {
            let Reply::Bytes(key) = key else { return Err(wrong()) };
            if let Some(key) = self.namespace.read(&key) {
                unique.insert(Bytes::copy_from_slice(key));
            }
        }
        let position = String::from_utf8_lossy(&position).into_owned();
        let next = if position != "0" {
            Some(ScanCursor { shard, run: answered.run, position, generation })
        } else if let Some(shard) = self.next_shard(usize::from(shard.0) + 1) {
            Some(ScanCursor::first(shard, generation))
        } else {
            let now = self.generation().await;
            // A key may have gone from a node that was not yet scanned to one that was.
            let first = self.next_shard(0).filter(|_| now != generation);
            first.map(|shard| ScanCursor::first(shard, now))
        };
        Ok(ScanPage { keys: unique.into_iter().collect(), next })
    }

    /// The first shard from this place on; in a Redis Cluster the first node with slots.
    fn next_shard(&self, from: usize) -> Option<ShardId> {
        let links = self.shards.links();
        let is_scanned = |link: &Arc<ShardLink>| !self.shards.is_cluster() || !link.is_retired();
        links.iter().skip(from).find(|link| is_scanned(link)).map(|link| link.shard())
    }

    /// The generation of the slots, as the nodes of a Redis Cluster say now; 0 without one.
    async fn generation(&self) -> u64 {
        let Some(cluster) = self.shards.cluster() else { return 0 };
        cluster.try_refresh(CLUSTER_REFRESH_INTERVAL).await;
        cluster.generation()
    }
}
