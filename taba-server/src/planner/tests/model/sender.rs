//! [`Sender`]: one Lane of an Agent, by the Agent's rules: what is sent next, when it goes back, what it releases.

use taba_core::wire::{Ack, Answer, LaneBatch, Probe};
use taba_core::{SeqNo, StreamId};

use super::super::{IncomingMessage, batch, block_of};
use super::{CONFIRM_AFTER, Rule, Rules};

/// What a Batch is, for those who keep the books.
pub(super) struct MadeBatch {
    /// The ids of its events; those of refused ones are not among them.
    pub(super) ids: Vec<u32>,
    /// Events that every Server must refuse.
    pub(super) refused: u64,
    /// When the Lane first heard that it is applied. Forgotten when the Lane goes back.
    acked: Option<u64>,
    /// Whether it was dropped before it was known to be safe.
    pub(super) is_given_up: bool,
    content: LaneBatch,
}

impl MadeBatch {
    pub(super) fn events(&self) -> u64 {
        self.ids.len() as u64 + self.refused
    }
}

/// The sender's end of a Lane.
pub(super) struct Sender {
    lane: u64,
    /// Every Batch, the first under 0.
    pub(super) made: Vec<MadeBatch>,
    /// The oldest that is kept; one above the last when there is none.
    pub(super) base: u64,
    /// Up to where all is applied, as far as it has heard.
    pub(super) applied: u64,
}

impl Sender {
    pub(super) fn new(lane: u64) -> Self {
        Self { lane, made: Vec::new(), base: 1, applied: 0 }
    }

    /// Events of all Batches below that one.
    pub(super) fn events_below(&self, seq: u64) -> u64 {
        self.made[..seq as usize - 1].iter().map(MadeBatch::events).sum()
    }

    /// Makes a Batch of these events, and as many more that must be refused.
    pub(super) fn make(&mut self, ids: Vec<u32>, refused: u64) {
        let mut values: Vec<f64> = ids.iter().map(|id| f64::from(*id)).collect();
        values.resize(ids.len() + refused as usize, f64::NAN);
        let (tab, client) = (format!("t{}", self.lane % 2), format!("c{}", self.lane));
        let seq = self.made.len() as u64 + 1;
        let blocks = vec![block_of(&tab, &client, "Ids", &values)];
        let content = batch(self.lane, seq, 1, self.events_below(seq), blocks);
        self.made.push(MadeBatch { ids, refused, acked: None, is_given_up: false, content });
    }

    /// Whether it knows that all it made is applied.
    pub(super) fn is_drained(&self) -> bool {
        self.applied.max(self.base - 1) == self.made.len() as u64
    }

    /// The next Batch; a Probe when there is none.
    pub(super) fn next(&self) -> IncomingMessage {
        if self.is_drained() { self.probe() } else { self.batch(self.applied.max(self.base - 1)) }
    }

    /// The Batch at that place, from 0.
    fn batch(&self, place: u64) -> IncomingMessage {
        let base = SeqNo(self.base);
        IncomingMessage::Batch(self.made[place as usize].content.clone().with_base(base))
    }

    pub(super) fn probe(&self) -> IncomingMessage {
        let (stream, base) = (StreamId(self.lane), SeqNo(self.base));
        IncomingMessage::Probe(Probe::new(stream, 0, base, self.events_below(self.base)))
    }

    /// There is no room any more: the oldest Batch goes, safe or not.
    pub(super) fn give_up(&mut self) -> bool {
        let Some(oldest) = self.made.get_mut(self.base as usize - 1) else { return false };
        oldest.is_given_up = true;
        self.base += 1;
        true
    }

    /// Hears the answer to a message that was sent in that step.
    pub(super) fn hear(&mut self, ack: &Ack, sent: u64, now: u64, rules: Rules) {
        if matches!(ack.answer, Answer::Unavailable | Answer::Busy) {
            return;
        }
        let (before, applied) = (self.applied, ack.applied.0);
        self.applied = applied.max(self.base - 1);
        for made in &mut self.made[before.min(applied) as usize..] {
            if rules.holds(Rule::BackMeansForget) && applied < before {
                made.acked = None;
            }
        }
        for made in &mut self.made[before.min(applied) as usize..applied as usize] {
            made.acked.get_or_insert(now);
        }
        if ack.answer == Answer::Applied || !rules.holds(Rule::OnlyAppliedIsFresh) {
            self.let_go(ack, sent, rules);
        }
    }

    fn let_go(&mut self, ack: &Ack, sent: u64, rules: Rules) {
        let stable = if rules.holds(Rule::OnlyStable) { ack.stable } else { ack.applied };
        let safe = ack.applied.min(stable).0;
        let wait = if rules.holds(Rule::OnlyLater) { CONFIRM_AFTER } else { 0 };
        let is_old = |made: &MadeBatch| made.acked.is_some_and(|acked| acked + wait <= sent);
        while self.base <= safe && (wait == 0 || is_old(&self.made[self.base as usize - 1])) {
            self.base += 1;
        }
    }
}
