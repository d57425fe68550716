//! Requests about VBuckets, to a shard of a list or to the nodes of a Redis Cluster.

use std::sync::Arc;

use redis::Cmd;
use taba_core::VBucket;

use super::cluster::{SendRules, VBucketAnswer, VBucketRequest};
use super::error::LinkError;
use super::link::accepted;
use super::shards::Shards;
use crate::command::Reply;
use crate::map::ShardId;

impl Shards {
    /// Sends requests to a shard; in a Redis Cluster each to the node that has its VBucket, whatever `shard` is. One outcome
    /// for each, in order.
    pub(crate) async fn send(
        &self,
        shard: ShardId,
        requests: Vec<VBucketRequest>,
        rules: SendRules,
    ) -> Vec<Result<VBucketAnswer, Arc<LinkError>>> {
        if let Some(cluster) = self.cluster() {
            return cluster.send(requests, rules).await;
        }
        let counts: Vec<usize> = requests.iter().map(|request| request.commands.len()).collect();
        let commands = requests.into_iter().flat_map(|request| request.commands).collect();
        match self.link(shard).eval(commands).await {
            Ok(answered) => {
                let mut replies = answered.replies.into_iter();
                let of = |count: &usize| {
                    let replies = replies.by_ref().take(*count).collect();
                    Ok(VBucketAnswer { replies, shard, epoch: answered.epoch })
                };
                counts.iter().map(of).collect()
            }
            Err(error) => {
                let error = Arc::new(error);
                counts.iter().map(|_| Err(Arc::clone(&error))).collect()
            }
        }
    }

    /// Runs one command or script about a key of a VBucket; what is refused is an answer too.
    pub(crate) async fn ask(
        &self,
        vbucket: VBucket,
        shard: ShardId,
        call: Cmd,
    ) -> Result<Reply, Arc<LinkError>> {
        let rules = SendRules::PATIENT;
        let answer = self.send(shard, vec![VBucketRequest::one(vbucket, call)], rules).await.pop();
        let mut answer = answer.ok_or(LinkError::Answer { shard })??;
        Ok(answer.replies.pop().ok_or(LinkError::Answer { shard })?)
    }

    /// As [`ask`](Self::ask); an error reply is an error.
    pub(crate) async fn one(
        &self,
        vbucket: VBucket,
        shard: ShardId,
        call: Cmd,
    ) -> Result<Reply, Arc<LinkError>> {
        Ok(accepted(shard, self.ask(vbucket, shard, call).await?)?)
    }
}
