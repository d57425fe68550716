//! [`Storm`]: one fault after the other, several at a time, as the seed decides.

use super::bad_disk::Wrong;
use super::fault::{Fault, Target};
use super::plan::Plan;
use super::world::World;
use crate::dice::{Dice, chance};

/// Events that are recorded between two decisions.
const STEP_EVENTS: u64 = 25_000;
/// Faults at a time.
const OPEN_MAX: usize = 3;
/// A fault lasts from one step to so many.
const STEPS_MAX: u64 = 5;
/// By how many hours clocks are set: from seconds' worth of nothing to more than any mark or Batch lives.
const HOURS: [i64; 8] = [0, 1, -1, 7, -7, 23, -72, 72];

/// By how many hours the clocks of Agents are set that are killed as well. An Agent reads the time of day once, at its
/// start; Lanes that a Server does not know yet wait until the two clocks agree to 5 h (see docs/FAILURES.md), and what
/// seems to come from a future run waits as well. So these are less than that apart.
const HOURS_OF_KILLED: [i64; 5] = [0, 1, -1, 2, -2];

/// Which kinds of faults a Storm is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is documented in `Fault`")]
pub enum Kind {
    KillServer,
    KillAgent,
    DisorderSpool,
    PauseServer,
    PauseAgent,
    KillNginx,
    BadHttp,
    BadRedis,
    CutRedis,
    StallRedis,
    KillRedis,
    PauseRedis,
    FullRedis,
    FullDisk,
    BadDisk,
    LoseIndexes,
    FailOver,
    Split,
    StepAgent,
    StepServer,
}

/// One fault after the other. What comes when, is decided by the seed alone, and moments are counted in recorded
/// events.
#[derive(Debug)]
pub struct Storm {
    seed: u64,
    kinds: Vec<Kind>,
    open: Vec<(Fault, u64)>,
    step: u64,
}

impl Kind {
    /// All that this World can suffer.
    pub fn all(plan: &Plan) -> Vec<Self> {
        let mut kinds = vec![
            Self::KillServer,
            Self::KillAgent,
            Self::DisorderSpool,
            Self::PauseServer,
            Self::PauseAgent,
            Self::BadHttp,
        ];
        if plan.shards > 0 {
            kinds.extend([Self::BadRedis, Self::CutRedis, Self::StallRedis]);
            kinds.extend([Self::KillRedis, Self::PauseRedis, Self::FullRedis, Self::LoseIndexes]);
        }
        if plan.has_nginx {
            kinds.push(Self::KillNginx);
        }
        if plan.spool_disk_bytes.is_some() {
            kinds.push(Self::FullDisk);
        }
        if plan.has_bad_disks {
            kinds.push(Self::BadDisk);
        }
        if plan.has_replicas {
            kinds.extend([Self::FailOver, Self::Split]);
        }
        if plan.has_clocks {
            kinds.extend([Self::StepAgent, Self::StepServer]);
        }
        kinds
    }

    fn draw(self, dice: &mut Dice, plan: &Plan, kinds: &[Self]) -> Fault {
        let mut one_of = |count: usize| dice.below(count as u64) as usize;
        match self {
            Self::KillServer => Fault::KillServer(one_of(plan.servers)),
            Self::KillAgent => Fault::KillAgent(one_of(plan.agents)),
            Self::DisorderSpool => Fault::DisorderSpool(one_of(plan.agents)),
            Self::PauseServer => Fault::PauseServer(one_of(plan.servers)),
            Self::PauseAgent => Fault::PauseAgent(one_of(plan.agents)),
            Self::KillNginx => Fault::KillNginx,
            Self::BadHttp => Fault::BadHttp(one_of(plan.agents)),
            Self::BadRedis => Fault::BadRedis(one_of(plan.servers)),
            Self::CutRedis => Fault::CutRedis(one_of(plan.servers)),
            Self::StallRedis => Fault::StallRedis(one_of(plan.servers)),
            Self::KillRedis => Fault::KillRedis(one_of(plan.shards)),
            Self::PauseRedis => Fault::PauseRedis(one_of(plan.shards)),
            Self::FullRedis => Fault::FullRedis(one_of(plan.shards)),
            Self::FullDisk => Fault::FullDisk(one_of(plan.agents)),
            Self::BadDisk => {
                let agent = one_of(plan.agents);
                Fault::BadDisk(agent, *dice.choose(&Wrong::ALL))
            }
            Self::LoseIndexes => Fault::LoseIndexes(one_of(plan.shards)),
            Self::FailOver => Fault::FailOver(one_of(plan.shards)),
            Self::Split => Fault::Split(one_of(plan.shards)),
            Self::StepAgent => {
                let agent = one_of(plan.agents);
                let is_killed = kinds.contains(&Self::KillAgent) || kinds.contains(&Self::DisorderSpool);
                Fault::StepAgent(agent, *dice.choose(if is_killed { &HOURS_OF_KILLED[..] } else { &HOURS }))
            }
            Self::StepServer => {
                let server = one_of(plan.servers);
                Fault::StepServer(server, *dice.choose(&HOURS))
            }
        }
    }
}

impl Storm {
    /// A storm of these kinds, with chance from this seed.
    pub fn new(seed: u64, kinds: Vec<Kind>) -> Self {
        Self { seed: chance(seed, 5000), kinds, open: Vec::new(), step: 0 }
    }

    /// One step: ends what has lasted long enough, perhaps begins something, and waits until some events are recorded.
    /// Returns what began.
    pub fn step(&mut self, world: &mut World) -> Option<Fault> {
        self.step += 1;
        let now = self.step;
        for (fault, _) in self.open.extract_if(.., |(_, until)| *until <= now) {
            world.end(fault);
        }
        // Dice of this step, so that what is refused here does not change what comes later.
        let mut dice = Dice::of(self.seed, now);
        let fault = dice.choose(&self.kinds).draw(&mut dice, &world.plan, &self.kinds);
        let steps = 1 + dice.below(STEPS_MAX);
        let begins = (self.open.len() < OPEN_MAX && self.is_free(fault)).then_some(fault);
        if let Some(fault) = begins {
            world.begin(fault);
            if !fault.is_momentary() {
                self.open.push((fault, now + steps));
            }
        }
        world.advance(STEP_EVENTS);
        world.look();
        begins
    }

    /// Ends all that has begun.
    pub fn calm(&mut self, world: &mut World) {
        for (fault, _) in self.open.drain(..) {
            world.end(fault);
        }
    }

    /// Whether the fault would not meet another one that it cannot happen together with.
    fn is_free(&self, fault: Fault) -> bool {
        let is_about = |target| self.open.iter().any(|(open, _)| open.target() == target);
        match fault.target() {
            // Who takes over, looks at all ways to Redis and lets them go on.
            Target::Shard(n) if fault.is_momentary() => {
                !is_about(Target::Shard(n))
                    && !self.open.iter().any(|(open, _)| matches!(open, Fault::StallRedis(_)))
            }
            target => !is_about(target),
        }
    }
}
