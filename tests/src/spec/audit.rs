//! What must never be, looked for in a [`World`].

use super::lane::{Agent, Lane};
use super::shard::{Head, pending, prevailing};
use super::store::{Content, Entry, Events, Node, Store};
use super::world::World;

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A store holds events more than once.
    Twice(Events),
    /// An Agent let go of events that a node lacks which may rule.
    LetGoTooEarly(Events),
    /// Events are in no store that rules, with no Agent, and were not thrown away.
    Gone(Events),
    /// More events are counted as lost than were.
    CountedTooMany(u8),
    /// After all faults had stopped, Agents still held something.
    NotDrained(Events),
    /// After all was drained, so many lost events were not counted.
    NotCounted(u8),
    /// An Agent threw away as too old what it had taken a moment before.
    ThrownAway(Events),
    /// After all faults had stopped, a move had neither ended nor been rolled back.
    Unfinished,
    /// Without any fault the world comes back to where it was: it may go on so forever.
    Cycle,
}

impl World {
    fn sum(&self, of: fn(&Agent) -> Events) -> Events {
        self.agents.iter().fold(Events::default(), |all, agent| all.and(of(agent)))
    }

    /// The content that is in force, if nothing fails any more; `None`: no shard holds any.
    pub fn in_force(&self) -> Option<&Content> {
        match &self.shards[..] {
            [shard] => Some(shard.nodes[shard.ruling].tip()),
            shards => prevailing(shards.iter().map(|shard| shard.nodes[shard.ruling].tip())),
        }
    }

    /// The heads of the copies, shard by shard.
    pub fn heads(&self) -> Vec<Head> {
        self.shards.iter().map(|shard| shard.nodes[shard.ruling].tip().head).collect()
    }

    /// Looks for what must never be.
    ///
    /// # Errors
    /// The [`Violation`] found.
    pub fn audit(&self) -> Result<(), Violation> {
        let (taken, held) = (self.sum(|agent| agent.taken), self.sum(Agent::held));
        let (lost, released) = (self.sum(|agent| agent.lost), self.sum(|agent| agent.released));
        let lost_young = self.sum(|agent| agent.lost_young);
        if !lost_young.is_empty() {
            return Err(Violation::ThrownAway(lost_young));
        }
        for node in self.shards.iter().flat_map(|shard| &shard.nodes) {
            let tip = node.tip();
            if !tip.folded.twice.is_empty() {
                return Err(Violation::Twice(tip.folded.twice));
            }
            let missing = lost.but(tip.folded.once).len();
            if tip.counted > missing {
                return Err(Violation::CountedTooMany(tip.counted - missing));
            }
        }
        let lacking = self.lacking(released);
        if !lacking.is_empty() {
            return Err(Violation::LetGoTooEarly(lacking));
        }
        let folded = self.in_force().map(|content| content.folded.once).unwrap_or_default();
        let gone = taken.but(folded).but(held).but(lost);
        if gone.is_empty() { Ok(()) } else { Err(Violation::Gone(gone)) }
    }

    /// What of these may be missing later: any node of a shard may rule next, and may start again from its disk.
    fn lacking(&self, released: Events) -> Events {
        let lacks = |content: &Content| released.but(content.folded.once);
        if let [shard] = &self.shards[..] {
            let oldest = |node: &Node| node.on_disk(self.now, self.times.disk_lag) - 1;
            let lacking = shard.nodes.iter().map(|node| lacks(&node.history[oldest(node)].content));
            return lacking.fold(Events::default(), Events::and);
        }
        if released.is_empty() {
            return released;
        }
        let possible =
            |shard: &Store| shard.nodes.iter().flat_map(|node| self.possible(node)).copied().collect();
        let possible: Vec<Vec<Content>> = self.shards.iter().map(possible).collect();
        for here in &possible[0] {
            for there in &possible[1] {
                let lacking = prevailing([here, there]).map_or(released, lacks);
                if !lacking.is_empty() {
                    return lacking;
                }
            }
        }
        Events::default()
    }

    /// What a node may hold after a restart. Of those with one head the oldest will do: the others hold more.
    fn possible<'a>(&self, node: &'a Node) -> impl Iterator<Item = &'a Content> {
        let on_disk = node.on_disk(self.now, self.times.disk_lag);
        let contents = node.history[on_disk - 1..].iter().map(|Entry { content, .. }| content);
        let mut last = None;
        contents.filter(move |content| last.replace(content.head) != Some(content.head))
    }

    /// What must be once all is well and drained: every event once, in the store or in the count of what was lost.
    ///
    /// # Errors
    /// The [`Violation`] found.
    pub fn audit_drained(&self) -> Result<(), Violation> {
        self.audit()?;
        let is_done = |agent: &Agent| agent.blocks.is_empty() && agent.lanes.iter().all(Lane::is_done);
        if !self.agents.iter().all(is_done) {
            return Err(Violation::NotDrained(self.sum(Agent::held)));
        }
        if self.shards.len() > 1 && (pending(&self.heads(), None).is_some() || !self.are_operators_done()) {
            return Err(Violation::Unfinished);
        }
        let in_force = self.in_force().copied().unwrap_or_default();
        // What was given up with its Stream may have been counted before, or not.
        let given_up = self.sum(|agent| agent.given_up);
        let taken = self.sum(|agent| agent.taken);
        let uncounted = taken.but(given_up).but(in_force.folded.once).len().saturating_sub(in_force.counted);
        if uncounted == 0 { Ok(()) } else { Err(Violation::NotCounted(uncounted)) }
    }

    /// How many Batches are contained in what is in force.
    pub fn marks_sum(&self) -> u16 {
        let marks = self.in_force().map(|content| &content.marks[..]);
        marks.unwrap_or_default().iter().map(|mark| u16::from(mark.seq)).sum()
    }
}
