//! [`Operator`]: moves the VBucket from one shard to the other, or back. It remembers nothing between two looks at the
//! heads of both copies: [`decide`] says what comes next.
//!
//! It may be killed anywhere and begun again, by itself or by another one, also while that one is at work.

use super::rules::{Rule, Rules};
use super::shard::{Head, Moved, SHARDS};
use super::store::{Content, Store, Time};
use super::world::Times;

/// What a move is to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goal {
    /// The destination owns the VBucket.
    Forward,
    /// The source owns it again, if the switch has not come.
    Back,
}

/// What comes next. `own` is the epoch that the source has, `fence` the one that the destination has or would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are named above, or as in the heads")]
pub enum Decision {
    /// The source is marked as going to the destination.
    Fence { own: u8, fence: u8 },
    /// Once the fence is confirmed: the source is copied, and the destination switched.
    Copy { own: u8, fence: u8 },
    /// Once the switch is stable: only a tombstone is left at the source.
    Retire { own: u8, moved: Moved },
    /// The destination is barred, over an older copy or not.
    Bar { fence: u8, is_over_copy: bool },
    /// Once the bar is confirmed: the source, as it was found, owns the VBucket again.
    Unfence { own: u8, moved: Option<Moved>, epoch: u8 },
    /// It is where it is to be.
    Done,
    /// This move cannot come to its goal: another one has to be ended first.
    Stuck,
}

/// The decision from the heads at the source `from` and at the destination `to`.
pub fn decide(goal: Goal, (from, to): (u8, u8), source: Head, destination: Head) -> Decision {
    let is_forward = goal == Goal::Forward;
    let is_switched = destination.is_open() && destination.epoch > source.epoch;
    let (own, seen) = (source.epoch, destination.epoch);
    if own == 0 {
        return if is_switched && is_forward { Decision::Done } else { Decision::Stuck };
    }
    if source.is_bar {
        return Decision::Stuck;
    }
    // Under the epoch of the bar no switch came, and none can: the source holds everything, however old its head is.
    let is_older = |moved: Moved| moved.to == to && moved.epoch <= seen;
    if destination == Head::bar(seen, from) && own <= seen && source.moved.is_none_or(is_older) {
        return Decision::Unfence { own, moved: source.moved, epoch: seen + 1 };
    }
    match source.moved {
        _ if is_switched && !is_forward => Decision::Stuck,
        // A failover took it back to before the fence.
        None if is_switched => Decision::Fence { own, fence: seen },
        Some(moved) if is_switched && source.has_content => Decision::Retire { own, moved },
        Some(_) if is_switched => Decision::Done,
        Some(Moved { epoch: fence, to: towards }) if towards == to && seen < fence => {
            let bar = Decision::Bar { fence, is_over_copy: destination.has_content };
            if is_forward { Decision::Copy { own, fence } } else { bar }
        }
        None if seen < own && is_forward => Decision::Fence { own, fence: own + 1 },
        None if seen < own => Decision::Done,
        _ => Decision::Stuck,
    }
}

/// How far it is. An `entry` is the write whose confirmation it waits for, over the connection that it was made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// It has nothing to do.
    Ended,
    /// It reads both heads.
    Look,
    /// It has decided.
    Do(Decision),
    /// The fence is to be on the replicas of the source.
    ConfirmFence { own: u8, moved: Moved, entry: usize, deadline: Time },
    /// The destination is to be switched to this copy.
    Switch { fence: u8, copy: Content, deadline: Time },
    /// The switch is to be stable.
    SettleSwitch { own: u8, moved: Moved, entry: usize },
    /// The copy of the source is to go.
    Retire { own: u8, moved: Moved },
    /// What the source holds is to be stable.
    SettleSource { bar: Head, entry: usize },
    /// The bar is to be on the replicas of the destination.
    ConfirmBar { own: u8, moved: Option<Moved>, epoch: u8, entry: usize, deadline: Time },
    /// The source is to own the VBucket again.
    Unfence { own: u8, moved: Option<Moved>, epoch: u8, deadline: Time },
}

/// One operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operator {
    /// What its move is to come to.
    pub goal: Goal,
    /// The source.
    pub from: usize,
    /// How far it is.
    pub(super) at: At,
    /// Which node of each shard it is connected to.
    pub nodes: [usize; SHARDS],
}

impl Default for Operator {
    fn default() -> Self {
        Self { goal: Goal::Forward, from: 0, at: At::Ended, nodes: [0; SHARDS] }
    }
}

impl Operator {
    /// One that begins a move.
    pub fn new(goal: Goal, from: usize, shards: &[Store]) -> Self {
        let mut nodes = [0; SHARDS];
        for (node, shard) in nodes.iter_mut().zip(shards) {
            *node = shard.ruling;
        }
        Self { goal, from, at: At::Look, nodes }
    }

    /// The destination.
    pub const fn to(&self) -> usize {
        1 - self.from
    }

    fn ends(&self) -> (u8, u8) {
        (self.from as u8, self.to() as u8)
    }

    /// The heads at the source and at the destination, as its connections show them.
    pub fn heads(&self, shards: &[Store]) -> (Head, Head) {
        let head = |shard: usize| shards[shard].nodes[self.nodes[shard]].tip().head;
        (head(self.from), head(self.to()))
    }

    fn decide(&self, shards: &[Store]) -> Decision {
        let (source, destination) = self.heads(shards);
        decide(self.goal, self.ends(), source, destination)
    }

    /// Its connection to a shard broke: what it waited for is known only over the connection that it was written over.
    pub(super) fn disconnect(&mut self, shard: usize) {
        let waits_for = match self.at {
            At::ConfirmFence { .. } | At::SettleSource { .. } => self.from,
            At::ConfirmBar { .. } | At::SettleSwitch { .. } => self.to(),
            At::Ended | At::Look | At::Do(_) | At::Switch { .. } | At::Retire { .. } | At::Unfence { .. } => {
                return;
            }
        };
        if shard == waits_for {
            self.at = At::Look;
        }
    }

    /// Takes the next step; false when it has to wait, or has nothing to do.
    pub fn operate(&mut self, shards: &mut [Store], now: Time, times: &Times, rules: Rules) -> bool {
        for (shard, store) in shards.iter().enumerate() {
            if !store.takes_writes(self.nodes[shard], now) {
                self.nodes[shard] = store.ruling;
                self.disconnect(shard);
            }
        }
        let next = match self.at {
            At::Ended => None,
            At::Look => Some(match self.decide(shards) {
                Decision::Done | Decision::Stuck => At::Ended,
                decision => At::Do(decision),
            }),
            At::Do(decision) => Some(self.begin(decision, shards, now, times, rules)),
            waiting => self.go_on(waiting, shards, now, times, rules),
        };
        let goes_on = next.is_some();
        self.at = next.unwrap_or_else(|| std::mem::replace(&mut self.at, At::Ended));
        goes_on
    }

    fn begin(&self, decision: Decision, shards: &mut [Store], now: Time, times: &Times, rules: Rules) -> At {
        let (from, to) = (self.from, self.to());
        let (source, destination) = (self.nodes[from], self.nodes[to]);
        let moved = |epoch: u8| Moved { epoch, to: to as u8 };
        let unfence_until = now + times.unfence_max;
        match decision {
            Decision::Done | Decision::Stuck => At::Ended,
            Decision::Fence { own, fence } => {
                let _ = shards[from].fence(source, own, moved(fence), now);
                At::Look
            }
            Decision::Copy { own, fence } => match shards[from].fence(source, own, moved(fence), now) {
                Some(entry) => {
                    let deadline = now + times.pause_max;
                    At::ConfirmFence { own, moved: moved(fence), entry, deadline }
                }
                None => At::Look,
            },
            // Decided anew, over the connection over which it is then seen to be stable.
            Decision::Retire { own, moved } if self.decide(shards) == decision => {
                let entry = shards[to].nodes[destination].history.len() - 1;
                At::SettleSwitch { own, moved, entry }
            }
            Decision::Retire { .. } => At::Look,
            Decision::Bar { .. } if !rules.has(Rule::BarFirst) => match self.heads(shards).0 {
                Head { epoch: own, moved: Some(moved), .. } => {
                    At::Unfence { own, moved: Some(moved), epoch: moved.epoch + 1, deadline: unfence_until }
                }
                _ => At::Look,
            },
            Decision::Bar { fence, is_over_copy } => {
                let bar = Head::bar(fence, from as u8);
                if is_over_copy && self.decide(shards) == decision {
                    let entry = shards[from].nodes[source].history.len() - 1;
                    return At::SettleSource { bar, entry };
                }
                let _ = shards[to].bar(destination, bar, false, now);
                At::Look
            }
            // The bar once more, over this connection, so that it can be waited for.
            Decision::Unfence { own, moved, epoch } => {
                match shards[to].bar(destination, Head::bar(epoch - 1, from as u8), false, now) {
                    Some(entry) => At::ConfirmBar { own, moved, epoch, entry, deadline: unfence_until },
                    None => At::Look,
                }
            }
        }
    }

    fn go_on(
        &mut self,
        waiting: At,
        shards: &mut [Store],
        now: Time,
        times: &Times,
        rules: Rules,
    ) -> Option<At> {
        let (from, to) = (self.from, self.to());
        let (source, destination) = (self.nodes[from], self.nodes[to]);
        match waiting {
            At::ConfirmFence { own, moved, entry, deadline } => {
                let is_confirmed = shards[from].is_received(source, entry, rules);
                if !is_confirmed && rules.has(Rule::FenceConfirmed) {
                    return (now > deadline).then(|| self.turn_back());
                }
                let copy = *shards[from].nodes[source].tip();
                let is_so = copy.head.epoch == own && copy.head.moved == Some(moved) && copy.head.has_content;
                Some(if is_so { At::Switch { fence: moved.epoch, copy, deadline } } else { At::Look })
            }
            At::Switch { deadline, .. } if now > deadline && rules.has(Rule::SwitchInTime) => {
                Some(self.turn_back())
            }
            At::Switch { fence, copy, .. } => {
                let _ = shards[to].switch(destination, fence, &copy, now, rules);
                Some(At::Look)
            }
            At::SettleSwitch { own, moved, entry } => {
                let is_stable = shards[to].is_stable(destination, entry, now, times.disk_lag, rules);
                (is_stable || !rules.has(Rule::RetireStable)).then_some(At::Retire { own, moved })
            }
            At::Retire { own, moved } => {
                let _ = shards[from].retire(source, own, moved, now, rules);
                Some(At::Look)
            }
            At::SettleSource { bar, entry } => {
                let is_stable = shards[from].is_stable(source, entry, now, times.disk_lag, rules);
                (is_stable || !rules.has(Rule::BarOverCopy)).then(|| {
                    let _ = shards[to].bar(destination, bar, true, now);
                    At::Look
                })
            }
            At::ConfirmBar { own, moved, epoch, entry, deadline } => {
                let is_confirmed = shards[to].is_received(destination, entry, rules);
                (is_confirmed || !rules.has(Rule::BarConfirmed)).then_some(At::Unfence {
                    own,
                    moved,
                    epoch,
                    deadline,
                })
            }
            At::Unfence { own, moved, epoch, deadline } => {
                if now <= deadline || !rules.has(Rule::UnfenceInTime) {
                    let _ = shards[from].unfence(source, own, moved, epoch, now);
                }
                Some(At::Look)
            }
            At::Ended | At::Look | At::Do(_) => None,
        }
    }

    /// Writes were held for too long: they go on at the source.
    const fn turn_back(&mut self) -> At {
        self.goal = Goal::Back;
        At::Look
    }
}
