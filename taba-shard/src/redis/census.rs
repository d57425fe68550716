//! Takes a census: asks every shard for its VBuckets.

use std::sync::Arc;

use redis::{Cmd, cmd};
use taba_core::{Remedy, VBucket, VBuckets, Version};

use super::error::{ConnectError, LinkError};
use super::link::{ShardLink, accepted};
use crate::census::{Census, CensusError, CensusOutcome, HeldVBucket, ShardHoldings};
use crate::command::Reply;
use crate::keys;
use crate::layout;
use crate::limits::REQUEST_COMMANDS_MAX;
use crate::map::ShardId;

/// A census, and the shards that did not answer.
pub(super) struct CensusReport {
    pub(super) found: CensusOutcome,
    pub(super) silence: Vec<(ShardId, Arc<LinkError>)>,
    /// The connections over which the others answered.
    pub(super) connections: Vec<(ShardId, u64)>,
}

impl CensusReport {
    /// What a census has come to.
    ///
    /// # Errors
    /// [`ConnectError`]: where a shard that did not answer was needed, why it did not.
    pub(super) fn of(
        census: Census,
        silence: Vec<(ShardId, Arc<LinkError>)>,
        connections: Vec<(ShardId, u64)>,
    ) -> Result<Self, ConnectError> {
        match census.finish() {
            Ok(found) => Ok(Self { found, silence, connections }),
            Err(CensusError::Incomplete { shard }) => {
                let error = silence.into_iter().find(|(silent, _)| *silent == shard);
                Err(error
                    .map_or(CensusError::Incomplete { shard }.into(), |(_, error)| ConnectError::Link(error)))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn silence_words(&self) -> String {
        let words: Vec<String> = self.silence.iter().map(|(_, error)| taba_core::causes(&**error)).collect();
        words.join("; ")
    }
}

pub(super) async fn take_census(
    links: &[Arc<ShardLink>],
    vbuckets: VBuckets,
) -> Result<CensusReport, ConnectError> {
    let mut census = Census::new(vbuckets, links.len());
    let (gone, asked): (Vec<_>, Vec<_>) = links.iter().partition(|link| link.is_retired());
    for link in gone {
        census.answer(link.shard(), vec![None; usize::from(vbuckets.count())]);
    }
    let answers = futures::future::join_all(asked.iter().map(|link| ask(link, vbuckets))).await;
    let (mut silence, mut connections) = (Vec::new(), Vec::new());
    for (link, answer) in asked.into_iter().zip(answers) {
        match answer {
            Ok((answer, connection)) => {
                connections.push((link.shard(), connection));
                census.answer(link.shard(), answer.held);
                answer.damaged.into_iter().for_each(|vbucket| census.damaged(link.shard(), vbucket));
            }
            // A temporary error counts as silence; one that an operator has to fix is returned at once.
            Err(error) if matches!(error.remedy(), Remedy::Wait(_)) => {
                silence.push((link.shard(), Arc::new(error)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    CensusReport::of(census, silence, connections)
}

/// What one shard holds, and the number of the connection over which it said so.
pub(super) async fn ask(link: &ShardLink, vbuckets: VBuckets) -> Result<(ShardHoldings, u64), LinkError> {
    let shard = link.shard();
    let all: Vec<VBucket> = vbuckets.iter().collect();
    let mut answer = ShardHoldings::default();
    let mut connection = u64::MAX;
    for some in all.chunks(REQUEST_COMMANDS_MAX) {
        let answered = link.request(some.iter().map(|vbucket| question(*vbucket)).collect()).await?;
        // The first of them: what came over a later one is only newer.
        connection = connection.min(answered.epoch);
        for (vbucket, reply) in some.iter().zip(answered.replies) {
            let held = read_answer(shard, reply)?;
            if held.is_none() {
                answer.damaged.insert(*vbucket);
            }
            answer.held.push(held.unwrap_or(None));
        }
    }
    Ok((answer, connection))
}

/// Asks what a shard holds of a VBucket.
pub(super) fn question(vbucket: VBucket) -> Cmd {
    let mut command = cmd("HMGET");
    let fields = [layout::VERSION, layout::OWN, layout::MOVED, layout::OF];
    command.arg(keys::hash(vbucket)).arg(&fields);
    command
}

/// Parses the answer to [`question`]. The outer `None`: no store writes this.
pub(super) fn read_answer(shard: ShardId, reply: Reply) -> Result<Option<Option<HeldVBucket>>, LinkError> {
    match reply {
        // No store writes a key of another type under this name.
        Reply::Refused { code, .. } if code == "WRONGTYPE" => Ok(None),
        reply => Ok(read_held(accepted(shard, reply)?)),
    }
}

/// Parses version, epoch, moved and deployment. The outer `None`: no store writes this.
fn read_held(reply: Reply) -> Option<Option<HeldVBucket>> {
    let Reply::List(items) = reply else { return None };
    let [version, own, moved, of] = <[Reply; 4]>::try_from(items).ok()?;
    match (version, own, moved, of) {
        (Reply::Nothing, Reply::Nothing, Reply::Nothing, Reply::Nothing) => Some(None),
        (Reply::Bytes(version), Reply::Bytes(own), moved, Reply::Bytes(of)) => Some(Some(HeldVBucket {
            epoch: layout::read_epoch(&own)?,
            is_moved: moved != Reply::Nothing,
            is_written: layout::read_version(&version)? != Version::NEVER,
            of: layout::read_deployment(&of)?,
        })),
        _ => None,
    }
}
