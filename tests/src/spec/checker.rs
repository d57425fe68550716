//! [`Checker`]: walks through the world at random, looks after every step for what must never be, and in the end lets
//! everything heal. What it finds it makes short.

use super::audit::Violation;
use super::operator::{At, Goal};
use super::rules::Rules;
use super::shard::pending;
use super::world::{Size, Step, Times, World};

/// After so many rounds without faults everything must have drained.
const HEAL_ROUNDS: usize = 300;
/// What an operator does in one of them, at most.
const OPERATIONS_MAX: usize = 8;

/// Numbers that look random, the same for the same seed: SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall as this seed says.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`.
    pub const fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 32) as usize * sides) >> 32
    }
}

impl Dice {
    /// One of so many messages, the newest half of the time.
    const fn message(&mut self, len: usize) -> usize {
        if len == 0 || self.roll(2) == 0 { 0 } else { self.roll(len) }
    }
}

/// A world to walk in, and how.
#[derive(Clone, Copy, Debug)]
pub struct Checker {
    /// How large.
    pub size: Size,
    /// The numbers of the rules.
    pub times: Times,
    /// Which rules are kept.
    pub rules: Rules,
    /// How many random steps a walk has before all faults stop.
    pub steps: usize,
    /// How often time goes on, against 100 other steps.
    pub ticks: usize,
    /// Whether Agents may throw away what they have: otherwise every event has to be in the store in the end.
    pub loses: bool,
    /// The first seed.
    pub seed: u64,
}

/// A walk that came upon a violation.
#[derive(Clone, Debug)]
pub struct Found {
    /// The steps.
    pub trace: Vec<Step>,
    /// What was found: by the last of the steps, or, if it is something that should have happened and did not, after
    /// all faults had stopped.
    pub violation: Violation,
}

/// What walks found, and how far they went.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Steps that were taken.
    pub steps: u64,
    /// Walks that were begun.
    pub walks: u64,
    /// Events that were let go amid faults.
    pub released: u64,
    /// Batches that a store had folded and then had not any more.
    pub taken_back: u64,
    /// The first violation.
    pub found: Option<Found>,
}

impl Checker {
    /// Walks until something is found, or so many steps were taken.
    pub fn search(&self, steps_max: u64) -> Verdict {
        let mut verdict = Verdict::default();
        while verdict.steps < steps_max && verdict.found.is_none() {
            let mut dice =
                Dice::new(self.seed.wrapping_add(verdict.walks).wrapping_mul(0x2545_f491_4f6c_dd1d));
            verdict.walks += 1;
            let (mut world, mut trace) = (self.world(), Vec::new());
            let mut result = Ok(());
            // In some walks everything goes wrong all the time; in others something gets done.
            let calm = dice.roll(6);
            while trace.len() < self.steps && result.is_ok() {
                let step = self.propose(&world, &mut dice);
                if step.is_fault() && dice.roll(6) < calm {
                    continue;
                }
                let before = world.marks_sum();
                if world.step(step) {
                    trace.push(step);
                    verdict.taken_back += u64::from(before.saturating_sub(world.marks_sum()));
                    result = world.audit();
                }
            }
            verdict.released += world.agents.iter().map(|agent| u64::from(agent.released.len())).sum::<u64>();
            let result = result.and_then(|()| heal(&mut world, &mut trace));
            verdict.steps += trace.len() as u64;
            verdict.found = result.err().map(|violation| Found { trace, violation });
        }
        verdict
    }

    /// A world in which nothing has happened.
    pub fn world(&self) -> World {
        World::new(self.size, self.times, self.rules)
    }

    /// Takes the steps that can be taken; then everything heals.
    ///
    /// # Errors
    /// What was found, with the steps up to there.
    pub fn replay(&self, trace: &[Step]) -> Result<(), Found> {
        let (mut world, mut trace) = self.walk(trace)?;
        heal(&mut world, &mut trace).map_err(|violation| Found { trace, violation })
    }

    /// Takes the steps that can be taken, and answers which.
    fn walk(&self, trace: &[Step]) -> Result<(World, Vec<Step>), Found> {
        let (mut world, mut taken) = (self.world(), Vec::new());
        for step in trace {
            if world.step(*step) {
                taken.push(*step);
                if let Err(violation) = world.audit() {
                    return Err(Found { trace: taken, violation });
                }
            }
        }
        Ok((world, taken))
    }

    /// Leaves out steps for as long as there is still a violation.
    #[must_use]
    pub fn shorten(&self, found: &Found) -> Found {
        let mut found = found.clone();
        let mut piece = found.trace.len();
        while piece > 0 {
            let (mut from, before) = (0, found.trace.len());
            while from < found.trace.len() {
                let to = (from + piece).min(found.trace.len());
                if !self.leave_out(&mut found, |n| (from..to).contains(&n)) {
                    from += piece;
                }
            }
            // Single steps are tried again until none can be left out.
            piece = if piece == 1 && found.trace.len() < before { 1 } else { piece / 2 };
        }
        // Some make sense in pairs only: a message and its loss, a death and a recovery.
        let (mut one, mut other) = (0, 1);
        while one < found.trace.len() {
            if self.leave_out(&mut found, |n| n == one || n == other) {
                (one, other) = (0, 1);
            } else if other + 1 < found.trace.len() {
                other += 1;
            } else {
                (one, other) = (one + 1, one + 2);
            }
        }
        found
    }

    /// Leaves out these steps if there is still a violation then.
    fn leave_out(&self, found: &mut Found, out: impl Fn(usize) -> bool) -> bool {
        let needs_time = matches!(
            found.violation,
            Violation::NotDrained(_) | Violation::NotCounted(_) | Violation::Unfinished
        );
        let steps = found.trace.iter().enumerate();
        let shorter: Vec<Step> = steps.filter(|(n, _)| !out(*n)).map(|(_, step)| *step).collect();
        let still = match self.walk(&shorter) {
            Err(still) => Some(still),
            Ok((mut world, trace)) if needs_time => {
                let broken = heal(&mut world, &mut Vec::new()).err();
                broken.map(|violation| Found { trace, violation })
            }
            Ok(_) => None,
        };
        still.map(|still| *found = still).is_some()
    }

    /// The shortest of the first few violations that are found within so many steps in all, shortened.
    pub fn shortest(&self, steps_max: u64, tries: u64) -> Option<Found> {
        let (mut left, mut shortest) = (steps_max, None::<Found>);
        for n in 0..tries {
            let verdict = Self { seed: self.seed.wrapping_add(n << 32), ..*self }.search(left);
            left = left.saturating_sub(verdict.steps);
            let Some(found) = verdict.found else { break };
            let found = self.shorten(&found);
            if shortest.as_ref().is_none_or(|shortest| found.trace.len() < shortest.trace.len()) {
                shortest = Some(found);
            }
        }
        shortest
    }

    /// A step that may happen next, or may not be possible.
    pub fn propose(&self, world: &World, dice: &mut Dice) -> Step {
        if dice.roll(100 + self.ticks) < self.ticks {
            return Step::Tick;
        }
        if self.size.operators > 0 && dice.roll(100) < 40 {
            return self.propose_move(world, dice);
        }
        let agent = dice.roll(self.size.agents);
        let server = dice.roll(self.size.servers);
        let node = dice.roll(self.size.shards * self.size.nodes);
        // The newest Lane and one that is not there yet, most of the time.
        let lanes = world.agents[agent].lanes.len();
        let lane = (lanes + 1).saturating_sub(1 + dice.roll(2 + dice.clone().roll(lanes + 1)));
        let clock = [0, 1, -1][dice.roll(3)];
        match dice.roll(100) {
            0..8 => Step::Take(agent),
            8..23 => Step::Send(agent, lane),
            23..30 => Step::Probe(agent, lane),
            30..34 => Step::GiveUp(agent, lane),
            34 if self.loses => Step::Lose(agent, lane),
            34..36 => Step::Crash(agent, if self.times.clock_fault == 0 { 0 } else { clock }),
            36..50 => Step::Arrive(dice.message(world.requests.len()), server),
            50..53 => Step::DropRequest(dice.message(world.requests.len())),
            53..66 => Step::Hear(dice.message(world.answers.len())),
            67 => Step::DropAnswer(dice.message(world.answers.len())),
            68..80 => Step::Work(server),
            80 => Step::WorkUnheard(server),
            81..84 | 66 => Step::Learn(server),
            84 if dice.roll(2) == 0 => Step::Reconnect(server),
            84 if self.times.clock_fault != 0 && dice.roll(2) == 0 => Step::SetAgentClock(agent, clock),
            84 if self.times.clock_fault != 0 => Step::SetClock(server, clock),
            84 => Step::Kill(server),
            85..92 => Step::Replicate(node),
            92 => Step::FailOver(node),
            93 | 94 => Step::Split(node),
            95..98 => Step::Follow(node),
            98 => Step::Cut(node),
            _ => Step::Restart(node / self.size.nodes, 1 + dice.roll(3)),
        }
    }

    /// Something that an operator does; now and then one is killed, and goes on with another move. And what makes moves
    /// come to an end.
    fn propose_move(&self, world: &World, dice: &mut Dice) -> Step {
        let operator = dice.roll(self.size.operators);
        let is_idle = world.operators[operator].at == At::Ended;
        match dice.roll(32) {
            0 if dice.roll(4) == 0 => Step::Census(dice.roll(self.size.servers), dice.roll(self.size.shards)),
            0 if dice.roll(2) == 0 => Step::End(operator),
            0..3 if is_idle || dice.roll(8) == 0 => {
                let goal = if dice.roll(4) == 0 { Goal::Back } else { Goal::Forward };
                Step::Begin(operator, dice.roll(self.size.shards), goal)
            }
            3..10 => Step::Replicate(dice.roll(self.size.shards * self.size.nodes)),
            10 | 11 => Step::Follow(dice.roll(self.size.shards * self.size.nodes)),
            12 => Step::Learn(dice.roll(self.size.servers)),
            _ => Step::Operate(operator),
        }
    }
}

/// No fault happens any more: whatever is held must go where it belongs, although each request goes to another Server
/// than the one before; and a move ends, or is rolled back.
///
/// # Errors
/// What should have happened and did not, or what must never be.
pub fn heal(world: &mut World, trace: &mut Vec<Step>) -> Result<(), Violation> {
    let mut go = |world: &mut World, step: Step| {
        let is_taken = world.step(step);
        if is_taken {
            trace.push(step);
            world.audit()?;
        }
        Ok(is_taken)
    };
    let size = world.size();
    for server in 0..size.servers {
        go(world, Step::SetClock(server, 0))?;
    }
    for agent in 0..size.agents {
        go(world, Step::SetAgentClock(agent, 0))?;
    }
    // Two that disagree about where the VBucket is to be might go on for ever.
    for operator in 1..size.operators {
        go(world, Step::End(operator))?;
    }
    let mut drained = world.audit_drained();
    let mut requests = 0;
    for _ in 0..HEAL_ROUNDS {
        go(world, Step::Tick)?;
        for node in 0..size.shards * size.nodes {
            go(world, Step::Follow(node))?;
        }
        move_on(world, &mut go)?;
        for agent in 0..size.agents {
            for lane in (0..=world.agents[agent].lanes.len()).rev() {
                go(world, Step::GiveUp(agent, lane))?;
            }
            for lane in 0..=world.agents[agent].lanes.len() {
                let _ = go(world, Step::Send(agent, lane))? || go(world, Step::Probe(agent, lane))?;
            }
        }
        while go(world, Step::Arrive(0, requests % size.servers))? {
            go(world, Step::DropRequest(0))?;
            requests += 1;
        }
        for server in 0..size.servers {
            while go(world, Step::Work(server))? {}
        }
        for node in 0..size.shards * size.nodes {
            while go(world, Step::Replicate(node))? {}
        }
        for server in 0..size.servers {
            go(world, Step::Learn(server))?;
        }
        while !world.answers.is_empty() {
            go(world, Step::Hear(0))?;
            go(world, Step::DropAnswer(0))?;
        }
        drained = world.audit_drained();
        // What is counted wrongly stays so.
        if !matches!(drained, Err(Violation::NotDrained(_) | Violation::Unfinished)) {
            break;
        }
    }
    drained
}

/// The operator ends what it is at, and resumes what was left.
fn move_on(
    world: &mut World,
    go: &mut impl FnMut(&mut World, Step) -> Result<bool, Violation>,
) -> Result<(), Violation> {
    if world.size().operators == 0 {
        return Ok(());
    }
    if let (true, Some((from, _))) = (world.are_operators_done(), pending(&world.heads(), None)) {
        go(world, Step::Begin(0, from, Goal::Forward))?;
    }
    for _ in 0..OPERATIONS_MAX {
        if !go(world, Step::Operate(0))? {
            break;
        }
    }
    Ok(())
}
