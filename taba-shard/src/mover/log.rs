//! The log of moves: who moved what, when, how long its writes were held, and how large it was. It is kept by the shards
//! that VBuckets were moved to.

use redis::cmd;
use serde::{Deserialize, Serialize};

use crate::command::Reply;
use crate::keys;
use crate::limits::MOVES_LOGGED_MAX;
use crate::redis::{ConnectError, LinkError, ShardLink, Shards, scripts};

/// One line of the log of moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MoveRecord {
    /// When, in milliseconds since 1970, by the clock of the shard.
    #[serde(default)]
    pub at_ms: u64,
    /// Which VBucket, by its number.
    pub vbucket: u16,
    /// From which shard.
    pub from: String,
    /// To which.
    pub to: String,
    /// Under which epoch.
    pub epoch: u64,
    /// Who moved it.
    pub by: String,
    /// How long its writes were held, in microseconds; none when another operator had fenced it.
    pub pause_us: Option<u64>,
    /// How many bytes were copied.
    pub bytes: u64,
    /// How many keys.
    pub keys: u64,
    /// `moved`, or `rolled back`.
    pub outcome: String,
}

/// Writes a line. What cannot be written is told, and changes nothing else: the move is done.
pub(super) async fn write(link: &ShardLink, record: &MoveRecord) {
    let Ok(text) = serde_json::to_string(record) else { return };
    let mut add = scripts::LOG_MOVE.call(&[keys::MOVES]);
    add.arg(MOVES_LOGGED_MAX).arg(text);
    if let Err(error) = link.one(add).await {
        tracing::warn!(error = taba_core::causes(&error), "a move could not be written to the log of moves");
    }
}

impl Shards {
    /// The newest lines of the log of moves, the oldest of them first.
    ///
    /// # Errors
    /// [`ConnectError`] when a shard does not answer.
    pub async fn moves(&self, lines_max: usize) -> Result<Vec<MoveRecord>, ConnectError> {
        let mut all = Vec::new();
        for link in self.links().iter().filter(|link| !link.is_retired()) {
            let mut range = cmd("XREVRANGE");
            range.arg(keys::MOVES).arg("+").arg("-").arg("COUNT").arg(lines_max);
            let Reply::List(lines) = link.one(range).await? else {
                return Err(LinkError::Answer { shard: link.shard() }.into());
            };
            all.extend(lines.into_iter().filter_map(read));
        }
        all.sort_by_key(|record: &MoveRecord| (record.at_ms, record.vbucket, record.epoch));
        let from = all.len().saturating_sub(lines_max);
        Ok(all.split_off(from))
    }
}

/// An entry of the stream: its id, which begins with the time, and its fields.
fn read(entry: Reply) -> Option<MoveRecord> {
    let Reply::List(parts) = entry else { return None };
    let [Reply::Bytes(id), Reply::List(fields)] = <[Reply; 2]>::try_from(parts).ok()? else { return None };
    let Reply::Bytes(text) = fields.into_iter().nth(1)? else { return None };
    let mut record: MoveRecord = serde_json::from_slice(&text).ok()?;
    record.at_ms = std::str::from_utf8(&id).ok()?.split_once('-')?.0.parse().ok()?;
    Some(record)
}
