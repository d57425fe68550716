//! Finds and removes unreadable marks.

use redis::cmd;
use taba_core::{StoreError, StreamId, VBucket};

use super::ShardedRedis;
use super::read::{list, unavailable};
use crate::command::Reply;
use crate::keys;
use crate::layout::{self, IndexedField};
use crate::limits::SCAN_STATES_MAX;
use crate::redis::LinkError;

impl ShardedRedis {
    /// The streams with unreadable marks: while there is one, the VBucket accepts nothing.
    ///
    /// # Errors
    /// [`StoreError`] when its shard does not answer.
    ///
    /// # Cost
    /// Reads the whole VBucket.
    pub async fn damaged_marks(&self, vbucket: VBucket) -> Result<Vec<StreamId>, StoreError> {
        let owner = self.owner(vbucket).await?;
        let (mut damaged, mut position) = (Vec::new(), "0".to_owned());
        loop {
            let mut call = cmd("HSCAN");
            call.arg(keys::hash(vbucket)).arg(&position).arg("MATCH").arg("a:*");
            call.arg("COUNT").arg(SCAN_STATES_MAX);
            let reply = self.ask_one(vbucket, owner, call).await?;
            let answer = |reply| <[Reply; 2]>::try_from(list(reply)?).ok();
            let Some([Reply::Bytes(next), Reply::List(pairs)]) = answer(reply) else {
                return Err(unavailable(LinkError::Answer { shard: owner.shard }));
            };
            for pair in pairs.chunks_exact(2) {
                if let [Reply::Bytes(field), Reply::Bytes(value)] = pair
                    && let Some(IndexedField::Stream(stream)) = layout::read_field(field)
                    && !value.is_empty()
                    && layout::read_mark(value).is_none()
                {
                    damaged.push(stream);
                }
            }
            position = String::from_utf8_lossy(&next).into_owned();
            if position == "0" {
                damaged.sort_unstable();
                damaged.dedup();
                return Ok(damaged);
            }
        }
    }

    /// Removes marks: what was counted of these Lanes is no longer known. Batches that their Agents still keep count
    /// again, and earlier ones are counted as a gap although they are stored.
    ///
    /// # Errors
    /// [`StoreError`]; some marks may be removed.
    pub async fn remove_marks(&self, vbucket: VBucket, streams: &[StreamId]) -> Result<(), StoreError> {
        let owner = self.owner(vbucket).await?;
        for stream in streams {
            // A tombstone, as after a collection: the next sweep removes it.
            let mut call = cmd("HSET");
            call.arg(keys::hash(vbucket)).arg(layout::mark_field(*stream)).arg("");
            self.ask_one(vbucket, owner, call).await?;
        }
        Ok(())
    }
}
