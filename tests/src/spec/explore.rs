//! [`Explorer`]: every way that a small world can go, one after the other, and not only some at random: whatever happens,
//! everything drains, in a bounded number of steps.
//!
//! It walks depth-first through all states that can be reached, each once. A state on the path that is reached again is
//! a cycle: a way to go on forever and get nowhere. A state with no next step has to be drained. So when neither a cycle
//! nor such a state is found, every way through the world ends, drained, and the longest one is the bound.
//!
//! What an Agent does is as real as it needs to be for that: it sends what there is to send, asks only for what it has
//! kept for T, and once per moment; and time goes on when nobody has anything else to do. Everything else is open: which
//! Server a request goes to, in which order messages arrive, when a Server works and when it learns what is stable. So
//! many faults may happen on the way, of every kind that `Explorer::faults_at` names, at any moment.
//!
//! (The crate `stateright` explores state spaces, too. Its documentation says that its `eventually` does not tell a cycle
//! from two ways to one state, and a cycle is what is looked for here.)

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{Hash, Hasher};

use super::audit::Violation;
use super::checker::Found;
use super::operator::Goal;
use super::rules::Rules;
use super::shard::pending;
use super::world::{Size, Step, Times, World};

/// A small world, to be explored from end to end.
#[derive(Clone, Copy, Debug)]
pub struct Explorer {
    /// How large; without repeats.
    pub size: Size,
    /// The numbers of the rules: Streams never end, clocks are right.
    pub times: Times,
    /// Which rules are kept.
    pub rules: Rules,
    /// How many faults may happen.
    pub faults: u8,
    /// More states than this are too many.
    pub states_max: usize,
}

/// What was explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// The longest way until all is drained, in steps.
    pub longest: usize,
}

/// A state: the world, who may still ask in this moment, and how many faults are left.
#[derive(Clone)]
struct Node {
    world: World,
    asked: u32,
    faults: u8,
}

/// What is known of a state: on the path, or drained after so many steps at most.
enum Seen {
    OnPath,
    Done(usize),
}

impl Explorer {
    /// Explores everything.
    ///
    /// # Errors
    /// The way to something that must never be: a [`Violation::Cycle`], or any other.
    ///
    /// # Panics
    /// When there are more than `states_max` states.
    pub fn explore(&self) -> Result<Explored, Found> {
        let mut world = World::new(self.size, self.times, self.rules);
        if self.size.operators > 0 {
            world.step(Step::Begin(0, 0, Goal::Forward));
        }
        let mut walk = Walk { explorer: self, seen: HashMap::new(), trace: Vec::new() };
        let longest = walk.go(&Node { world, asked: 0, faults: self.faults })?;
        Ok(Explored { states: walk.seen.len(), longest })
    }

    /// What may go wrong now.
    fn faults_at(&self, world: &World) -> Vec<Step> {
        let servers = 0..self.size.servers;
        let messages = |len: usize| 0..len;
        let lost = messages(world.requests.len()).map(Step::DropRequest);
        let lost = lost.chain(messages(world.answers.len()).map(Step::DropAnswer));
        let crashes = (0..self.size.agents).map(|agent| Step::Crash(agent, 0));
        let killed = servers.clone().map(Step::Kill).chain(servers.map(Step::WorkUnheard));
        let shards = 0..self.size.shards;
        let restarts = shards.clone().flat_map(|shard| [Step::Restart(shard, 1), Step::Restart(shard, 2)]);
        let operators = 0..self.size.operators;
        let turned = operators
            .clone()
            .flat_map(|operator| shards.clone().map(move |shard| Step::Begin(operator, shard, Goal::Back)));
        let faults = lost.chain(crashes).chain(killed).chain(restarts);
        faults.chain(operators.map(Step::End)).chain(turned).collect()
    }
}

impl Node {
    /// The states that may be next, each with the step there. Two steps where one makes no sense alone.
    fn next(&self, explorer: &Explorer) -> Vec<(Step, Self)> {
        let size = explorer.size;
        let mut next = Vec::new();
        for step in self.actions(size) {
            let mut after = self.clone();
            if !after.world.step(step) {
                continue;
            }
            match step {
                Step::Hear(answer) => drop(after.world.step(Step::DropAnswer(answer))),
                Step::Probe(agent, lane) => after.asked |= bit(agent, lane),
                _ => {}
            }
            next.push((step, after));
        }
        let mut after = self.clone();
        if next.is_empty() && self.world.audit_drained().is_err() && after.world.step(Step::Tick) {
            after.asked = 0;
            next.push((Step::Tick, after));
        }
        if self.faults > 0 {
            for step in explorer.faults_at(&self.world) {
                let mut after = Self { faults: self.faults - 1, ..self.clone() };
                if after.world.step(step) {
                    next.push((step, after));
                }
            }
        }
        next
    }

    fn actions(&self, size: Size) -> Vec<Step> {
        let mut actions: Vec<Step> = (0..size.agents).map(Step::Take).collect();
        for (agent, of) in self.world.agents.iter().enumerate() {
            for lane in 0..=of.lanes.len() {
                actions.push(Step::Send(agent, lane));
                if self.world.is_to_ask(agent, lane) && self.asked & bit(agent, lane) == 0 {
                    actions.push(Step::Probe(agent, lane));
                }
                if self.world.is_in_vain(agent, lane) {
                    actions.push(Step::GiveUp(agent, lane));
                }
            }
        }
        for server in 0..size.servers {
            actions.extend((0..self.world.requests.len()).map(|request| Step::Arrive(request, server)));
            // A Server loads when it has to.
            if !self.world.servers[server].waiting.is_empty() {
                actions.push(Step::Work(server));
            }
            actions.push(Step::Learn(server));
        }
        actions.extend(
            (0..size.shards * size.nodes).flat_map(|node| [Step::Follow(node), Step::Replicate(node)]),
        );
        actions.extend((0..self.world.answers.len()).map(Step::Hear));
        actions.extend((0..size.operators).map(Step::Operate));
        if let (true, Some((from, _))) =
            (self.world.are_operators_done() && size.operators > 0, pending(&self.world.heads(), None))
        {
            actions.push(Step::Begin(0, from, Goal::Forward));
        }
        actions
    }
}

const fn bit(agent: usize, lane: usize) -> u32 {
    1 << (agent * 8 + lane)
}

struct Walk<'a> {
    explorer: &'a Explorer,
    seen: HashMap<u64, Seen>,
    trace: Vec<Step>,
}

impl Walk<'_> {
    /// Explores what follows a state. Answers after how many steps all is drained, at most.
    fn go(&mut self, node: &Node) -> Result<usize, Found> {
        let found = |violation| Found { trace: self.trace.clone(), violation };
        node.world.audit().map_err(found)?;
        let mut hasher = DefaultHasher::new();
        (node.world.shape(), node.asked, node.faults).hash(&mut hasher);
        let key = hasher.finish();
        match self.seen.entry(key) {
            Entry::Occupied(seen) => match seen.get() {
                Seen::OnPath => return Err(found(Violation::Cycle)),
                Seen::Done(steps) => return Ok(*steps),
            },
            Entry::Vacant(place) => drop(place.insert(Seen::OnPath)),
        }
        assert!(self.seen.len() <= self.explorer.states_max, "more than {} states", self.explorer.states_max);
        let next = node.next(self.explorer);
        if next.is_empty() {
            node.world.audit_drained().map_err(found)?;
        }
        let mut longest = 0;
        for (step, after) in next {
            self.trace.push(step);
            longest = longest.max(1 + self.go(&after)?);
            self.trace.pop();
        }
        self.seen.insert(key, Seen::Done(longest));
        Ok(longest)
    }
}
