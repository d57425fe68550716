//! A look at many VBuckets: one request to each shard, and in it one command for each VBucket. A script over all would read no
//! faster, could not run in a Redis Cluster, and would hold up commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{FutureExt, join_all};
use futures::stream::{self, StreamExt};
use redis::{Cmd, cmd};
use taba_core::{Part, Peek, Peeked, StoreError, VBucket};

use super::ShardedRedis;
use super::read::{all_unavailable, failure, unavailable, value};
use crate::census::{Location, Owner};
use crate::command::Reply;
use crate::limits::FOLLOWED_AT_ONCE;
use crate::map::ShardId;
use crate::redis::{LinkError, SendRules, VBucketRequest};
use crate::{keys, layout};

type Outcome = Result<Peeked, StoreError>;

/// One outcome for each, in order. VBuckets that are not where they were thought to be are followed there one by one.
pub(super) async fn peek(store: &ShardedRedis, peeks: &[Peek]) -> Vec<Outcome> {
    let mut answers = at_once(store, peeks).boxed().await;
    let is_open = |answer: &Option<Outcome>| match answer {
        None | Some(Err(StoreError::Misplaced { .. })) => true,
        Some(Err(StoreError::Unavailable { source, .. })) => {
            matches!(source.downcast_ref(), Some(LinkError::Reconnected { .. }))
        }
        Some(_) => false,
    };
    let open: Vec<usize> = (0..peeks.len()).filter(|place| is_open(&answers[*place])).collect();
    let followed =
        open.into_iter().map(|place| async move { (place, follow(store, &peeks[place]).boxed().await) });
    let mut followed = stream::iter(followed).buffer_unordered(FOLLOWED_AT_ONCE);
    while let Some((place, outcome)) = followed.next().await {
        answers[place] = Some(outcome);
    }
    answers.into_iter().map(|answer| answer.expect("what is open is followed")).collect()
}

/// Asks for one, wherever it is.
async fn follow(store: &ShardedRedis, peek: &Peek) -> Outcome {
    let one = || async {
        let owner = store.owner(peek.vbucket).await?;
        let outcome = at_once(store, std::slice::from_ref(peek)).await.pop().flatten();
        store
            .follow(outcome.unwrap_or_else(|| Err(unavailable(LinkError::Answer { shard: owner.shard }))))
            .await
    };
    store.settled(peek.vbucket, || one().boxed()).await
}

/// Asks each shard once; nothing for VBuckets that have no owner as far as is known.
async fn at_once(store: &ShardedRedis, peeks: &[Peek]) -> Vec<Option<Outcome>> {
    let mut by_shard = BTreeMap::<ShardId, Vec<(usize, Owner)>>::new();
    for (place, peek) in peeks.iter().enumerate() {
        if let Location::Owned(owner) = store.shards.place(peek.vbucket) {
            by_shard.entry(owner.shard).or_default().push((place, owner));
        }
    }
    let asked = by_shard.into_iter().map(|(shard, places)| async move {
        let question = |(place, _): &(usize, Owner)| {
            VBucketRequest::one(peeks[*place].vbucket, question(&peeks[*place]))
        };
        let replies = ask(store, shard, places.iter().map(question).collect()).boxed().await;
        (places, replies)
    });
    let mut answers: Vec<Option<Outcome>> = peeks.iter().map(|_| None).collect();
    for (places, replies) in join_all(asked).await {
        for ((place, owner), reply) in places.into_iter().zip(replies) {
            answers[place] = Some(reply.and_then(|reply| read(peeks[place].vbucket, owner, reply)));
        }
    }
    answers
}

/// One request to a shard; in a Redis Cluster, one to each node that has some of the VBuckets.
async fn ask(
    store: &ShardedRedis,
    shard: ShardId,
    requests: Vec<VBucketRequest>,
) -> Vec<Result<Reply, StoreError>> {
    let silent = || unavailable(LinkError::Answer { shard });
    if store.shards.is_cluster() {
        let rules = SendRules { in_order: false, ..SendRules::PATIENT };
        let answers = store.shards.send(shard, requests, rules).await.into_iter();
        let reply = |mut replies: Vec<Reply>| replies.pop().ok_or_else(silent);
        return answers.map(|answer| reply(answer.map_err(all_unavailable)?.replies)).collect();
    }
    let count = requests.len();
    let over = store.shards.known_connection(shard).await;
    let commands = requests.into_iter().flat_map(|request| request.commands).collect();
    match store.shards.link(shard).eval_over(commands, over).await {
        Ok(answered) => {
            let mut replies = answered.replies.into_iter();
            (0..count).map(|_| replies.next().ok_or_else(silent)).collect()
        }
        Err(error) => {
            let error = Arc::new(error);
            (0..count).map(|_| Err(all_unavailable(Arc::clone(&error)))).collect()
        }
    }
}

fn question(peek: &Peek) -> Cmd {
    let mut command = cmd("HMGET");
    command.arg(keys::hash(peek.vbucket));
    for field in [layout::VERSION, layout::OWN, layout::MOVED, layout::TABS] {
        command.arg(field);
    }
    for key in &peek.states {
        command.arg(layout::state_field(key, Part::WHOLE));
    }
    command
}

fn read(vbucket: VBucket, owner: Owner, reply: Reply) -> Outcome {
    let failed = |word: &'static str, detail| {
        let word = Reply::Bytes(word.as_bytes().into());
        Err(failure(vbucket, owner, Reply::List(vec![word, detail])))
    };
    let mut fields = match reply {
        Reply::List(fields) => fields.into_iter(),
        refused => return Err(failure(vbucket, owner, refused)),
    };
    let mut next = || fields.next().unwrap_or(Reply::Nothing);
    let (version, own, moved, tabs_since) = (next(), next(), next(), next());
    match (&version, &own, &moved) {
        (Reply::Nothing, ..) | (_, Reply::Nothing, _) => return failed("MISSING", Reply::Nothing),
        (.., Reply::Bytes(_)) => return failed("MOVED", moved),
        (_, Reply::Bytes(own), _) if layout::read_epoch(own) == Some(owner.epoch) => {}
        _ => return failed("NOTOWNER", own),
    }
    let damaged = StoreError::Damaged { vbucket, what: "state" };
    let states = fields.map(value).collect::<Option<_>>().ok_or(damaged)?;
    let version = super::scan::read_version(&version);
    // Of a version that no store writes nothing is known.
    let tabs_since = version.and_then(|version| super::scan::read_since(version, &tabs_since));
    Ok(Peeked::new(version, states).with_tabs_since(tabs_since))
}
