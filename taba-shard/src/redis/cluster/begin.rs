//! What a Redis Cluster holds, and making a deployment in one.

use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;
use taba_core::{VBucket, VBuckets};

use super::{Cluster, SendRules, VBucketRequest};
use crate::census::{Census, CensusError, CensusOutcome, ShardHoldings, View};
use crate::command::Reply;
use crate::layout::{self, Deployment};
use crate::limits::{MOVE_WAIT_MAX, REQUEST_COMMANDS_MAX};
use crate::map::ShardId;
use crate::redis::bootstrap::{create, finish, is_of};
use crate::redis::census::{CensusReport, question, read_answer};
use crate::redis::error::{ConnectError, LinkError};
use crate::redis::link::accepted;

/// What one look at all VBuckets has found.
struct Found {
    holdings: Vec<ShardHoldings>,
    /// The nodes that did not answer.
    silence: Vec<(ShardId, Arc<LinkError>)>,
}

impl Cluster {
    /// Runs a command about each of these VBuckets; which node answered what.
    pub(in crate::redis) async fn ask_each(
        &self,
        vbuckets: &[VBucket],
        wait: Duration,
        command: impl Fn(VBucket) -> Cmd,
    ) -> Vec<(VBucket, Result<(ShardId, Reply), Arc<LinkError>>)> {
        let mut all = Vec::with_capacity(vbuckets.len());
        for some in vbuckets.chunks(REQUEST_COMMANDS_MAX) {
            let request = |vbucket: &VBucket| VBucketRequest::one(*vbucket, command(*vbucket));
            let requests = some.iter().map(request).collect();
            let outcomes = self.send(requests, SendRules { in_order: false, wait }).await;
            for (vbucket, outcome) in some.iter().zip(outcomes) {
                let outcome = outcome.and_then(|mut answer| {
                    let shard = answer.shard;
                    let reply = answer.replies.pop().ok_or(LinkError::Answer { shard })?;
                    Ok((shard, reply))
                });
                all.push((*vbucket, outcome));
            }
        }
        all
    }

    async fn look(&self, vbuckets: VBuckets) -> Result<Found, ConnectError> {
        let all: Vec<VBucket> = vbuckets.iter().collect();
        let answers = self.ask_each(&all, Duration::ZERO, question).await;
        let links = self.links();
        let nothing = || ShardHoldings { held: vec![None; all.len()], ..ShardHoldings::default() };
        let mut found = Found { holdings: links.iter().map(|_| nothing()).collect(), silence: Vec::new() };
        self.check_covered()?;
        for (vbucket, outcome) in answers {
            let answer = outcome.and_then(|(shard, reply)| Ok((shard, read_answer(shard, reply)?)));
            match answer {
                Ok((shard, held)) => {
                    let holding = &mut found.holdings[usize::from(shard.0)];
                    match held {
                        Some(held) => holding.held[usize::from(vbucket.index())] = held,
                        None => drop(holding.damaged.insert(vbucket)),
                    }
                }
                Err(error) if matches!(error.remedy(), taba_core::Remedy::Wait(_)) => {
                    let shard = self.shard_of(vbucket).unwrap_or(ShardId(0));
                    if found.silence.iter().all(|(silent, _)| *silent != shard) {
                        found.silence.push((shard, error));
                    }
                }
                Err(error) => return Err(ConnectError::Link(error)),
            }
        }
        Ok(found)
    }
}

/// What each node holds, as [`ask`](crate::redis::census::ask) of a shard.
///
/// # Errors
/// [`ConnectError`] when one does not answer.
pub(in crate::redis) async fn holdings(
    cluster: &Cluster,
    vbuckets: VBuckets,
) -> Result<Vec<ShardHoldings>, ConnectError> {
    let mut found = cluster.look(vbuckets).await?;
    found.silence.pop().map_or(Ok(found.holdings), |(_, error)| Err(ConnectError::Link(error)))
}

/// A census of the VBuckets, each at the node that has its slot.
///
/// The nodes do not answer at one moment. So VBuckets are missing only when a second census says so too: a bootstrap
/// completes none before all are there, and the first one may have seen some before it and others after.
pub(in crate::redis) async fn cluster_census(
    cluster: &Cluster,
    vbuckets: VBuckets,
) -> Result<CensusReport, ConnectError> {
    match take(cluster, vbuckets).await {
        Err(ConnectError::Census(CensusError::Missing { .. })) => take(cluster, vbuckets).await,
        taken => taken,
    }
}

async fn take(cluster: &Cluster, vbuckets: VBuckets) -> Result<CensusReport, ConnectError> {
    let Found { holdings, silence } = cluster.look(vbuckets).await?;
    let mut census = Census::new(vbuckets, holdings.len());
    for (shard, holding) in (0..).map(ShardId).zip(holdings) {
        if silence.iter().any(|(silent, _)| *silent == shard) {
            continue;
        }
        census.answer(shard, holding.held);
        holding.damaged.into_iter().for_each(|vbucket| census.damaged(shard, vbucket));
    }
    CensusReport::of(census, silence, Vec::new())
}

/// Creates the missing VBuckets, each at the node that has its slot; when all exist, marks each as complete.
pub(in crate::redis) async fn bootstrap_cluster(
    cluster: &Cluster,
    vbuckets: VBuckets,
    id: u64,
) -> Result<View, ConnectError> {
    let new = Deployment { vbuckets: vbuckets.count(), id, is_new: true };
    let all: Vec<VBucket> = vbuckets.iter().collect();
    let damaged = |vbucket| {
        let shard = cluster.shard_of(vbucket).unwrap_or(ShardId(0));
        ConnectError::Damaged { shard, vbucket }
    };
    let run = async |vbuckets: &[VBucket], step: fn(VBucket, Deployment) -> Cmd, new| {
        let mut replies = Vec::with_capacity(vbuckets.len());
        for (vbucket, outcome) in
            cluster.ask_each(vbuckets, MOVE_WAIT_MAX, |vbucket| step(vbucket, new)).await
        {
            let (shard, reply) = outcome.map_err(ConnectError::Link)?;
            replies.push((vbucket, accepted(shard, reply)?));
        }
        Ok::<_, ConnectError>(replies)
    };
    // When several Servers bootstrap at once, the one that creates the first VBucket names the deployment.
    let first = run(&all[..1], create, new).await?.pop();
    let of = match &first {
        Some((_, Reply::Bytes(of))) => layout::read_deployment(of),
        _ => None,
    };
    let of = of.ok_or_else(|| damaged(all[0]))?;
    if of.vbuckets != vbuckets.count() {
        let shard = cluster.shard_of(all[0]).unwrap_or(ShardId(0));
        return Err(CensusError::VBuckets { shard, found: of.vbuckets, expected: vbuckets.count() }.into());
    }
    let new = Deployment { id: of.id, ..new };
    for step in [create, finish] {
        let replies = run(&all, step, new).await?;
        if let Some((vbucket, _)) = replies.iter().find(|(_, reply)| !is_of(reply, new)) {
            return Err(damaged(*vbucket));
        }
    }
    tracing::info!(nodes = cluster.links().len(), vbuckets = vbuckets.count(), "bootstrapped a deployment");
    match cluster_census(cluster, vbuckets).await?.found {
        CensusOutcome::All(view) => Ok(view),
        CensusOutcome::Nothing | CensusOutcome::Unfinished(_) => Err(ConnectError::Empty),
    }
}
