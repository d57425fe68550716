//! Sending to the node that has a slot, and following it where it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use redis::{Cmd, Pipeline, cmd};
use taba_core::{Backoff, Remedy, VBucket};

use super::Cluster;
use super::verdict::Verdict;
use crate::command::Reply;
use crate::limits::{
    CLUSTER_REDIRECTS_MAX, CLUSTER_REFRESH_INTERVAL, MOVE_POLL_MAX, MOVE_POLL_MIN, MOVE_WAIT_MAX,
};
use crate::map::ShardId;
use crate::redis::clock::{monotonic, random};
use crate::redis::error::LinkError;
use crate::redis::link::ShardLink;
use crate::redis::scripts;

/// Commands about keys of one VBucket that go to one node together: one, or those from `MULTI` to `EXEC`.
#[derive(Clone, Debug)]
pub(crate) struct VBucketRequest {
    pub(crate) vbucket: VBucket,
    pub(crate) commands: Vec<Cmd>,
}

/// The replies to a [`VBucketRequest`], and where they come from.
#[derive(Debug)]
pub(crate) struct VBucketAnswer {
    pub(crate) replies: Vec<Reply>,
    pub(crate) shard: ShardId,
    /// The number of the connection.
    pub(crate) epoch: u64,
}

type VBucketOutcome = Result<VBucketAnswer, Arc<LinkError>>;

/// How requests are sent again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendRules {
    /// Whether those of one VBucket have to run in their order: then one that was refused is not sent again once a later
    /// one has run.
    pub(crate) in_order: bool,
    /// How long to wait for a slot that moves, and for a node that is away.
    pub(crate) wait: Duration,
}

/// A request that is not answered yet.
struct PendingSend {
    /// Its place among the requests.
    at: usize,
    request: VBucketRequest,
    /// The node that it goes to once, after `ASKING`.
    asking: Option<ShardId>,
}

/// A request that was sent, and what came of it.
struct SentRequest {
    pending: PendingSend,
    outcome: VBucketOutcome,
    verdict: Verdict,
}

impl SendRules {
    /// In order, and waits for a slot that moves and for a failover.
    pub(crate) const PATIENT: Self = Self { in_order: true, wait: MOVE_WAIT_MAX };
    /// The same, without a wait: only redirections are followed.
    pub(crate) const HASTY: Self = Self { in_order: true, wait: Duration::ZERO };
}

impl VBucketRequest {
    pub(crate) fn one(vbucket: VBucket, command: Cmd) -> Self {
        Self { vbucket, commands: vec![command] }
    }
}

impl Cluster {
    /// Sends requests, each to the node that has its VBucket; one outcome for each, in order.
    ///
    /// What a node refuses because of a slot has changed nothing, and is sent again: where it says, or after a moment. An
    /// outcome that is unknown is not tried again.
    pub(crate) async fn send(&self, requests: Vec<VBucketRequest>, rules: SendRules) -> Vec<VBucketOutcome> {
        let until = monotonic() + rules.wait;
        let mut answers: Vec<Option<VBucketOutcome>> = requests.iter().map(|_| None).collect();
        let first = |(at, request)| PendingSend { at, request, asking: None };
        let mut pending: Vec<PendingSend> = requests.into_iter().enumerate().map(first).collect();
        let mut backoff = Backoff::new(MOVE_POLL_MIN, MOVE_POLL_MAX, random());
        for round in 1_u32.. {
            let mut sent = self.round(pending).await;
            if rules.in_order {
                keep_order(&mut sent);
            }
            let verdicts = || sent.iter().map(|sent| &sent.verdict);
            let is_redirected =
                verdicts().all(|verdict| !matches!(verdict, Verdict::Wait | Verdict::Refresh));
            // Also where the outcome is unknown: the node may be gone, and another one in its place.
            let refresh = sent.iter().any(|sent| sent.outcome.is_err() || sent.verdict == Verdict::Refresh);
            let goes_on = monotonic() < until || is_redirected && round < CLUSTER_REDIRECTS_MAX;
            pending = Vec::new();
            for SentRequest { pending: mut this, outcome, verdict } in sent {
                let asked = match verdict {
                    Verdict::Ask(address) => self.node(&address),
                    Verdict::Moved(address) => {
                        self.moved(this.request.vbucket, &address);
                        None
                    }
                    Verdict::Done => {
                        answers[this.at] = Some(outcome);
                        continue;
                    }
                    Verdict::Wait | Verdict::Refresh | Verdict::Load => None,
                };
                if goes_on {
                    this.asking = asked;
                    pending.push(this);
                } else {
                    answers[this.at] = Some(outcome);
                }
            }
            if refresh {
                self.try_refresh(CLUSTER_REFRESH_INTERVAL).await;
            }
            if pending.is_empty() {
                break;
            }
            if !is_redirected || round > 2 {
                tokio::time::sleep(backoff.after(round)).await;
            }
        }
        answers.into_iter().map(|answer| answer.expect("each request ends")).collect()
    }

    /// Sends each request once.
    async fn round(&self, pending: Vec<PendingSend>) -> Vec<SentRequest> {
        let (mut by_node, mut all) = (BTreeMap::<ShardId, Vec<PendingSend>>::new(), Vec::new());
        for this in pending {
            let vbucket = this.request.vbucket;
            if let Some(shard) = this.asking.or_else(|| self.shard_of(vbucket)) {
                by_node.entry(shard).or_default().push(this);
            } else {
                let outcome = Err(Arc::new(LinkError::Uncovered { vbucket, slot: self.slot(vbucket) }));
                all.push(SentRequest { pending: this, outcome, verdict: Verdict::Refresh });
            }
        }
        let table = self.table();
        let sent = by_node.into_iter().map(|(shard, group)| {
            let place = usize::from(shard.0);
            let host = table.addresses[place].rsplit_once(':').map_or("", |(host, _)| host);
            send_group(&table.links[place], host, group)
        });
        all.extend(join_all(sent).await.into_iter().flatten());
        all.sort_unstable_by_key(|sent| sent.pending.at);
        all
    }
}

/// Sends requests to one node, in one pipeline.
async fn send_group(link: &ShardLink, host: &str, mut group: Vec<PendingSend>) -> Vec<SentRequest> {
    let mut pipeline = Pipeline::new();
    // The commands are moved, not copied: only what is refused is sent again.
    let mut places = Vec::with_capacity(group.len());
    for this in &mut group {
        if this.asking.is_some() {
            pipeline.add_command(cmd("ASKING"));
        }
        let first = pipeline.len();
        std::mem::take(&mut this.request.commands).into_iter().for_each(|command| {
            pipeline.add_command(command);
        });
        places.push(first..pipeline.len());
    }
    let commands = |place: &std::ops::Range<usize>| {
        pipeline.cmd_iter().skip(place.start).take(place.len()).cloned().collect()
    };
    let answered = match link.send(&pipeline, None).await {
        Ok(answered) => answered,
        Err(error) => {
            let verdict = if is_undone(&error) { Verdict::Refresh } else { Verdict::Done };
            let error = Arc::new(error);
            let of = |(mut this, place): (PendingSend, std::ops::Range<usize>)| {
                this.request.commands = commands(&place);
                SentRequest { pending: this, outcome: Err(Arc::clone(&error)), verdict: verdict.clone() }
            };
            return group.into_iter().zip(places).map(of).collect();
        }
    };
    let mut replies = answered.replies;
    let mut sent = Vec::with_capacity(group.len());
    // From behind, so that what is cut off is what belongs to the request.
    for (mut this, place) in group.into_iter().zip(places).rev() {
        let mine = replies.split_off(place.start);
        replies.truncate(place.start - usize::from(this.asking.is_some()));
        let verdict = Verdict::of(&mine, host);
        if verdict != Verdict::Done {
            this.request.commands = commands(&place);
        }
        let outcome = Ok(VBucketAnswer { replies: mine, shard: link.shard(), epoch: answered.epoch });
        sent.push(SentRequest { pending: this, outcome, verdict });
    }
    if sent.iter().any(|sent| sent.verdict == Verdict::Load) {
        // If this fails, the next round says so.
        let _ = link.request(scripts::all().map(scripts::Script::load).collect()).await;
    }
    sent
}

/// Whether nothing was sent, and another node, or the same one later, may take it.
fn is_undone(error: &LinkError) -> bool {
    let may_pass = matches!(error.remedy(), Remedy::Wait(_));
    may_pass && !error.is_outcome_unknown() && !matches!(error, LinkError::Busy { .. })
}

/// Gives up what was refused while a later request of the same VBucket has run.
fn keep_order(sent: &mut [SentRequest]) {
    let mut ran: BTreeSet<VBucket> = BTreeSet::new();
    for sent in sent.iter_mut().rev() {
        if sent.verdict == Verdict::Done {
            ran.insert(sent.pending.request.vbucket);
        } else if ran.contains(&sent.pending.request.vbucket) {
            sent.verdict = Verdict::Done;
        }
    }
}

#[cfg(test)]
mod tests {
    use taba_core::VBuckets;

    use super::*;

    #[test]
    fn what_was_refused_is_not_sent_again_after_a_later_command_of_its_vbucket() {
        let sent = |at: usize, vbucket: u16, verdict: Verdict| {
            let vbucket = VBuckets::default().get(vbucket).unwrap();
            let pending = PendingSend { at, request: VBucketRequest::one(vbucket, cmd("GET")), asking: None };
            let outcome = Ok(VBucketAnswer { replies: Vec::new(), shard: ShardId(0), epoch: 1 });
            SentRequest { pending, outcome, verdict }
        };
        let ask = || Verdict::Ask("127.0.0.1:1".to_owned());
        let mut all = vec![
            sent(0, 1, Verdict::Wait),
            sent(1, 2, Verdict::Refresh),
            sent(2, 1, Verdict::Done),
            sent(3, 1, ask()),
            sent(4, 2, ask()),
        ];
        keep_order(&mut all);
        let verdicts: Vec<Verdict> = all.into_iter().map(|sent| sent.verdict).collect();
        assert_eq!(verdicts, [Verdict::Done, Verdict::Refresh, Verdict::Done, ask(), ask()]);
    }
}
