//! Where a [`Server`] takes the VBucket to be: from a *census*, in which it asks all shards what they hold; and, when its
//! copy turns out to be fenced, from the heads of both.

use super::rules::{Rule, Rules};
use super::server::{Asked, Link, Question, Server, Worked};
use super::shard::{Head, owner};
use super::store::{Store, Time};
use super::world::Times;

impl Server {
    /// Sees to it that it works where the VBucket is. `None`: it does.
    pub(super) fn find(
        &mut self,
        shards: &[Store],
        now: Time,
        times: &Times,
        rules: Rules,
    ) -> Option<Worked> {
        if shards.len() == 1 {
            return None;
        }
        self.reach(shards, now);
        let has_asked = self.links[self.place].asked > Asked::No || !rules.has(Rule::CensusFirst);
        if self.epoch == 0 || !has_asked {
            let is_answered = self.census(shards, None, now, times, rules);
            return Some(if is_answered { Worked::Found } else { Worked::Waits });
        }
        let head = self.heads(shards)[self.place];
        if head.is_owned(self.epoch) || !rules.has(Rule::FenceHolds) {
            return None;
        }
        let before = (self.place, self.epoch);
        match head.moved {
            Some(moved) => self.follow(shards, moved.epoch, rules),
            // It went away and came back.
            None if head.epoch > self.epoch => self.epoch = head.epoch,
            None => drop(self.census(shards, None, now, times, rules)),
        }
        Some(if (self.place, self.epoch) == before { Worked::Waits } else { Worked::Found })
    }

    /// Asks all shards, but for one that does not answer. Answers whether it knows of an owner.
    pub fn census(
        &mut self,
        shards: &[Store],
        silent: Option<usize>,
        now: Time,
        times: &Times,
        rules: Rules,
    ) -> bool {
        self.reach(shards, now);
        let heads = self.heads(shards).into_iter().enumerate().filter(|(shard, _)| Some(*shard) != silent);
        // While one is silent, what is fenced may have gone there.
        let may_own = |head: &Head| if silent.is_none() { head.epoch > 0 } else { head.is_open() };
        let mut found: Vec<(usize, Head)> = heads.filter(|(_, head)| may_own(head)).collect();
        if rules.has(Rule::HighestOwns) {
            found.sort_by_key(|(_, head)| std::cmp::Reverse(head.epoch));
        }
        let is_ambiguous = found.len() > 1 && found[0].1.epoch == found[1].1.epoch;
        let newest = found.first().filter(|_| !is_ambiguous).map(|(shard, head)| (*shard, head.epoch));
        match newest {
            None if silent.is_none() => return false,
            // An older view stays where a silent shard may hold the newer copy.
            Some((place, epoch)) if silent.is_none() || epoch >= self.epoch => {
                self.relocate(shards, place, epoch);
            }
            _ => {}
        }
        for (shard, link) in self.links.iter_mut().enumerate().take(shards.len()) {
            if Some(shard) != silent {
                let is_late = silent.is_none() && now > link.since + times.pause_max;
                link.asked = link.asked.max(if is_late { Asked::Late } else { Asked::Once });
            }
        }
        self.epoch > 0
    }

    /// Something seems to be stable, but a switch may have come since it was asked who owns the VBucket.
    pub(super) fn ask_again(&mut self, shards: &[Store], now: Time, times: &Times, rules: Rules) -> bool {
        now > self.links[self.place].since + times.pause_max && self.census(shards, None, now, times, rules)
    }

    /// Where it was is fenced under this epoch: it goes on where it is owned, or waits.
    fn follow(&mut self, shards: &[Store], fence: u8, rules: Rules) {
        let found = owner(&self.heads(shards), rules);
        if let Some((place, epoch)) = found.filter(|(_, epoch)| *epoch >= fence && *epoch > self.epoch) {
            self.relocate(shards, place, epoch);
        }
    }

    fn relocate(&mut self, shards: &[Store], place: usize, epoch: u8) {
        self.epoch = epoch;
        if self.place == place {
            return;
        }
        self.place = place;
        // What it asked after is asked of this shard now, if its last commit is there.
        let node = &shards[place].nodes[self.node()];
        let is_there = self.signed == Some(node.tip().version);
        let entry = node.history.len() - 1;
        self.question = self.question.filter(|_| is_there).map(|question| Question { entry, ..question });
    }

    fn heads(&self, shards: &[Store]) -> Vec<Head> {
        let head = |(shard, link): (&Store, &Link)| shard.nodes[link.node].tip().head;
        shards.iter().zip(&self.links).map(head).collect()
    }

    /// Connects anew where the connection is broken.
    fn reach(&mut self, shards: &[Store], now: Time) {
        for shard in 0..shards.len() {
            if !shards[shard].takes_writes(self.links[shard].node, now) {
                self.reconnect(shards, shard, now);
            }
        }
    }

    /// Connects to whoever rules a shard.
    pub(super) fn reconnect(&mut self, shards: &[Store], shard: usize, now: Time) {
        self.links[shard].node = shards[shard].ruling;
        self.disconnect(shards, shard, now);
    }

    /// Its connection to a shard is a new one: what it was told over the old one says nothing about what is behind it.
    pub(super) fn disconnect(&mut self, shards: &[Store], shard: usize, now: Time) {
        if shards.len() > 1 {
            (self.links[shard].since, self.links[shard].asked) = (now, Asked::No);
        }
    }
}
