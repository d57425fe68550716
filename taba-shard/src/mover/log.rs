//! The log of moves: who moved what, when, how long its writes were held, and how large it was. It is kept by the shards
//! that VBuckets were moved to.

use redis::cmd;
use serde::{Deserialize, Serialize};
use taba_core::{Remedy, VBucket};

use crate::command::Reply;
use crate::keys;
use crate::limits::MOVES_LOGGED_MAX;
use crate::map::ShardName;
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
    /// `moved`, `rolled back`, or `freed` and `made anew` when the shard that it came from was lost.
    pub outcome: String,
}

impl MoveRecord {
    /// What became of a VBucket whose shard was lost.
    pub(crate) fn of_loss(
        vbucket: VBucket,
        from: String,
        to: ShardName,
        epoch: u64,
        by: &str,
        outcome: &str,
    ) -> Self {
        let (vbucket, to) = (vbucket.index(), to.to_string());
        let (by, outcome) = (by.to_owned(), outcome.to_owned());
        Self { at_ms: 0, vbucket, from, to, epoch, by, pause_us: None, bytes: 0, keys: 0, outcome }
    }

    /// Writes a line. What cannot be written is told, and changes nothing else: the move is done.
    pub(crate) async fn write(&self, link: &ShardLink) {
        let Ok(text) = serde_json::to_string(self) else { return };
        let mut add = scripts::LOG_MOVE.call(&[keys::MOVES]);
        add.arg(MOVES_LOGGED_MAX).arg(text);
        if let Err(error) = link.one(add).await {
            tracing::warn!(
                error = taba_core::causes(&error),
                "a move could not be written to the log of moves"
            );
        }
    }
}

impl Shards {
    /// The newest lines of the log of moves, the oldest of them first: of all shards that answer.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn moves(&self, lines_max: usize) -> Result<Vec<MoveRecord>, ConnectError> {
        let mut all = Vec::new();
        for link in self.links().iter().filter(|link| !link.is_retired()) {
            let mut range = cmd("XREVRANGE");
            range.arg(keys::MOVES).arg("+").arg("-").arg("COUNT").arg(lines_max);
            let lines = match link.one(range).await {
                Ok(Reply::List(lines)) => lines,
                Err(error) if matches!(error.remedy(), Remedy::Wait(_)) => continue,
                Ok(_) => return Err(LinkError::Answer { shard: link.shard() }.into()),
                Err(error) => return Err(error.into()),
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
