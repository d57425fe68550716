//! Marks that cannot be read: finding and removing them.

use redis::cmd;
use taba_core::{StoreError, StreamId, VBucket};

use super::ShardedRedis;
use super::read::{list, unavailable};
use crate::command::Reply;
use crate::keys;
use crate::layout::{self, Listed};
use crate::limits::SCAN_STATES_MAX;
use crate::redis::LinkError;

impl ShardedRedis {
    /// The streams of a VBucket whose marks cannot be read: as long as there is one, the VBucket takes nothing.
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
                    && let Some(Listed::Stream(stream)) = layout::read_field(field)
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

    /// Removes marks: what was counted of these Lanes is no longer known.
    ///
    /// What their Agents still keep of them counts once more, and what came before is counted as a gap though it is stored.
    ///
    /// # Errors
    /// [`StoreError`]; some may be removed.
    pub async fn remove_marks(&self, vbucket: VBucket, streams: &[StreamId]) -> Result<(), StoreError> {
        let owner = self.owner(vbucket).await?;
        for stream in streams {
            // A tombstone, as after a collection: it goes with the next sweep.
            let mut call = cmd("HSET");
            call.arg(keys::hash(vbucket)).arg(layout::mark_field(*stream)).arg("");
            self.ask_one(vbucket, owner, call).await?;
        }
        Ok(())
    }
}
