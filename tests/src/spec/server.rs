//! [`Server`]: a cache of the VBucket, the messages that wait for the next commit, and what is known to be stable.

use super::rules::{Rule, Rules};
use super::shard::SHARDS;
use super::store::{Committed, Content, Events, Mark, STREAMS, Seq, Store, Time};
use super::world::Times;

/// What an Agent sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Which request; an answer names it.
    pub id: u16,
    /// Who sent it.
    pub agent: usize,
    /// Of which Stream.
    pub stream: usize,
    /// The oldest Batch that the sender still has.
    pub base: Seq,
    /// Events before the Batch; for a Probe, before `base`.
    pub events_before: u8,
    /// When it was sent, by the sender's clock.
    pub sent_at: Time,
    /// The Batch; a Probe has none.
    pub batch: Option<(Seq, Events)>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A commit that was made after it arrived contains it. The only fresh answer.
    Applied,
    /// It was contained before, in what the node of the Server held.
    Duplicate,
    /// It does not follow on the mark, in what the node of the Server held.
    Nak,
}

/// What a Server answers. A Server that could not do it does not answer: the Agent gives up waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The request answered.
    pub request: u16,
    /// Who sent it.
    pub agent: usize,
    /// Of which Stream.
    pub stream: usize,
    /// The mark.
    pub applied: Seq,
    /// How much is stable as well.
    pub stable: Seq,
    /// What became of it.
    pub kind: Kind,
    /// What time the Server had.
    pub clock: Time,
}

/// A question after what is stable: asked when a commit was done, answered at any time later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) entry: usize,
    pub(super) marks: [Mark; STREAMS],
}

/// What a Server was told over a connection of what the shard holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asked {
    /// Nothing yet.
    No,
    /// What it held.
    Once,
    /// What it held after a time in which every switch under way has come, or can come no more.
    Late,
}

/// A connection to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Which node it goes to: the ruling one, or one that has ruled.
    pub node: usize,
    /// Since when.
    pub since: Time,
    /// What it was asked, when all shards were.
    pub asked: Asked,
}

/// One Server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Which one: under this number it signs its commits.
    pub me: usize,
    /// The shard that owns the VBucket, as far as it knows.
    pub place: usize,
    /// And under which epoch; 0 until it has asked.
    pub epoch: u8,
    /// Its connection to each shard.
    pub links: [Link; SHARDS],
    /// How far its clock is off.
    pub clock_off: Time,
    /// What the VBucket held when it was last loaded or committed.
    pub cache: Option<Content>,
    /// Messages that wait for the next commit.
    pub waiting: Vec<Request>,
    pub(super) question: Option<Question>,
    pub(super) stable: [Seq; STREAMS],
    /// The version of its last commit.
    pub(super) signed: Option<u16>,
    /// After a conflict, until all is loaded again: what it believes may be of a history that is gone.
    pub(super) is_in_doubt: bool,
}

/// What a Server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Worked {
    /// It read the VBucket.
    Loaded,
    /// It answered without a commit: there was nothing to change.
    Answered(Vec<Answer>),
    /// It committed, and answered.
    Committed(Vec<Answer>),
    /// Its cache was of another version.
    Conflict,
    /// The node takes no writes.
    Refused,
    /// It has asked all shards who owns the VBucket, or has found the owner of one that moved.
    Found,
    /// No shard owns the VBucket now: what waits goes on waiting.
    Waits,
}

impl Server {
    /// A Server that knows nothing: of one shard it knows that it owns the VBucket.
    pub fn new(me: usize, shards: &[Store], now: Time) -> Self {
        let mut links = [Link { node: 0, since: 0, asked: Asked::No }; SHARDS];
        for (link, shard) in links.iter_mut().zip(shards) {
            (link.node, link.since) = (shard.ruling, if shards.len() > 1 { now } else { 0 });
        }
        Self {
            me,
            place: 0,
            epoch: u8::from(shards.len() == 1),
            links,
            clock_off: 0,
            cache: None,
            waiting: Vec::new(),
            question: None,
            stable: [0; STREAMS],
            signed: None,
            is_in_doubt: false,
        }
    }

    /// The node that it works on.
    pub const fn node(&self) -> usize {
        self.links[self.place].node
    }

    /// Forgets what it knows of the VBucket.
    pub fn forget(&mut self, rules: Rules) {
        self.cache = None;
        if rules.has(Rule::BeliefDiesWithCache) {
            self.question = None;
            self.stable = [0; STREAMS];
            (self.signed, self.is_in_doubt) = (None, false);
        }
    }

    /// What is cached is not what the store holds. Whether what it believes still holds is seen when it is loaded again.
    fn doubt(&mut self, rules: Rules) -> Worked {
        if rules.has(Rule::SignedCommits) {
            (self.cache, self.is_in_doubt) = (None, true);
        } else {
            self.forget(rules);
        }
        Worked::Conflict
    }

    fn load(&mut self, content: Content, rules: Rules) -> Worked {
        if self.is_in_doubt && self.signed != Some(content.signed[self.me]) {
            self.forget(rules);
        }
        (self.cache, self.is_in_doubt) = (Some(content), false);
        Worked::Loaded
    }

    /// Loads what it does not know; then commits whatever waits.
    pub fn work(&mut self, shards: &mut [Store], now: Time, times: &Times, rules: Rules) -> Worked {
        if let Some(found) = self.find(shards, now, times, rules) {
            return found;
        }
        let node = self.node();
        let tip = shards[self.place].nodes[node].tip();
        let Some(cache) = self.cache else { return self.load(*tip, rules) };
        let clock = now + self.clock_off;
        let (mut next, mut answers, mut changed) = (cache, Vec::new(), [false; STREAMS]);
        let mut earliest = clock;
        for request in &self.waiting {
            let apart = clock - request.sent_at;
            let is_begun = next.marks[request.stream].seq > 0;
            if rules.has(Rule::ClocksAgree) && !is_begun && apart.abs() > times.clocks_apart {
                continue;
            }
            let (kind, changes) = admit(&mut next, request, clock, rules);
            changed[request.stream] |= changes;
            if rules.has(Rule::MarksByTwoClocks) {
                earliest = earliest.min(request.sent_at);
            }
            let (request, agent, stream) = (request.id, request.agent, request.stream);
            let applied = next.marks[stream].seq;
            answers.push(Answer { request, agent, stream, applied, stable: 0, kind, clock });
        }
        if !changed.contains(&true) {
            if tip.version != cache.version && rules.has(Rule::AnswersChecked) {
                return self.doubt(rules);
            }
            self.waiting.clear();
            return Worked::Answered(self.with_stable(answers));
        }
        for (mark, changed) in next.marks.iter_mut().zip(changed) {
            if !changed && earliest - mark.written > times.mark_kept {
                *mark = Mark::default();
            }
        }
        let store = &mut shards[self.place];
        match store.commit((node, self.me), (cache.version, self.epoch), next, now, rules) {
            (Committed::Done(entry), next) => {
                (self.cache, self.signed) = (Some(next), Some(next.version));
                self.waiting.clear();
                self.question.get_or_insert(Question { entry, marks: next.marks });
                Worked::Committed(self.with_stable(answers))
            }
            (Committed::Conflict, _) => self.doubt(rules),
            // It was looked at in the same moment.
            (Committed::Elsewhere, _) => Worked::Waits,
            (Committed::Refused, _) => {
                self.forget(rules);
                self.waiting.clear();
                self.reconnect(shards, self.place, now);
                Worked::Refused
            }
        }
    }

    /// Hears whether what it asked after is stable; false when it is not, or nothing was asked.
    pub fn learn(&mut self, shards: &[Store], now: Time, times: &Times, rules: Rules) -> bool {
        let Some(question) = self.question else { return false };
        let store = &shards[self.place];
        let is_stable = store.is_stable(self.node(), question.entry, now, times.disk_lag, rules);
        if is_stable
            && shards.len() > 1
            && rules.has(Rule::CensusAgain)
            && self.links[self.place].asked < Asked::Late
        {
            return self.ask_again(shards, now, times, rules);
        }
        if is_stable {
            self.question = None;
            for (stable, mark) in self.stable.iter_mut().zip(question.marks) {
                *stable = (*stable).max(mark.seq);
            }
        }
        is_stable
    }

    fn with_stable(&self, mut answers: Vec<Answer>) -> Vec<Answer> {
        for answer in &mut answers {
            answer.stable = self.stable[answer.stream].min(answer.applied);
        }
        answers
    }
}

/// The rule of a Lane: folds what may be folded. Also says whether that has to be committed.
fn admit(content: &mut Content, request: &Request, clock: Time, rules: Rules) -> (Kind, bool) {
    let mark = &mut content.marks[request.stream];
    let written = if rules.has(Rule::MarksByTwoClocks) { clock.max(request.sent_at) } else { clock };
    let Some((seq, events)) = request.batch else {
        if request.base > mark.seq + 1 {
            content.counted += request.events_before.saturating_sub(mark.events);
            *mark = Mark { seq: request.base - 1, events: request.events_before, written };
        }
        return (Kind::Applied, rules.has(Rule::ProbeCommits));
    };
    if seq <= mark.seq {
        return (Kind::Duplicate, false);
    }
    if seq > mark.seq + 1 && seq != request.base && rules.has(Rule::GapFreeOrder) {
        return (Kind::Nak, false);
    }
    if seq > mark.seq + 1 && seq == request.base {
        content.counted += request.events_before.saturating_sub(mark.events);
    }
    *mark = Mark { seq, events: request.events_before + events.len(), written };
    content.folded.fold(events);
    (Kind::Applied, true)
}
