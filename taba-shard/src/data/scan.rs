//! [`Data::scan`]: every key of a namespace, over all shards, a page at a time.

use std::collections::BTreeSet;

use bytes::Bytes;
use redis::cmd;

use super::{Data, DataError};
use crate::command::Reply;
use crate::limits::SCAN_KEYS_MAX;
use crate::map::ShardId;
use crate::redis::{LinkError, RedisRefusal};

/// The position of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanCursor {
    shard: ShardId,
    /// The run ID of the process that gave the position; it is invalid for any other.
    run: String,
    position: String,
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
    /// a hash seed of the process.
    ///
    /// # Errors
    /// [`DataError`]; the same page can be requested again.
    ///
    /// # Cost
    /// Each page makes a shard examine about `keys` of all its keys, with those of other namespaces and of the Store.
    /// At most [`SCAN_KEYS_MAX`]; slightly more may come, since Redis returns whole buckets.
    pub async fn scan(&self, cursor: Option<ScanCursor>, keys: usize) -> Result<ScanPage, DataError> {
        let (shard, run, position) = match cursor {
            Some(cursor) => (cursor.shard, cursor.run, cursor.position),
            None => (ShardId(0), String::new(), "0".to_owned()),
        };
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
            Some(ScanCursor { shard, run: answered.run, position })
        } else if usize::from(shard.0) + 1 < self.shards.count() {
            Some(ScanCursor { shard: ShardId(shard.0 + 1), run: String::new(), position: "0".to_owned() })
        } else {
            None
        };
        Ok(ScanPage { keys: unique.into_iter().collect(), next })
    }
}
