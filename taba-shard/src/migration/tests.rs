//! The decisions, table by table; and walks in which everything that can go wrong does: two operators at once, one of
//! them rolling back, each killed anywhere, failovers of source and destination onto replicas that lag, and a Server
//! that writes all the while. The scripts are modelled as they stand in `redis/scripts.rs`.

use super::*;
use taba_core::VBuckets;
use taba_tests::dice::Dice;

const S: ShardName = ShardName(1);
const D: ShardName = ShardName(2);
const ELSEWHERE: ShardName = ShardName(3);

fn this() -> Move {
    along(0)
}

/// The move from one of the two shards to the other.
fn along(from: usize) -> Move {
    let (from, to) = if from == 0 { (S, D) } else { (D, S) };
    Move { vbucket: VBuckets::default().get(7).unwrap(), from, to }
}

fn head(epoch: u64, moved: Option<(u64, ShardName)>) -> Option<Head> {
    Some(Head { epoch, moved, has_content: true, is_bar: false })
}

#[test]
fn a_move_goes_step_by_step() {
    let forward = |source, destination| next(Goal::Forward, this(), source, destination);
    let back = |source, destination| next(Goal::Back, this(), source, destination);
    let tombstone =
        |epoch, moved| Some(Head { epoch, moved: Some(moved), has_content: false, is_bar: false });
    let bar = |epoch, moved| Some(Head { is_bar: true, ..tombstone(epoch, moved).unwrap() });
    let fenced = head(1, Some((2, D)));
    assert_eq!(forward(head(1, None), None), Ok(MoveStep::Fence { own: 1, fence: 2 }));
    assert_eq!(forward(fenced, None), Ok(MoveStep::Copy { own: 1, fence: 2 }));
    assert_eq!(forward(fenced, head(2, None)), Ok(MoveStep::Retire { own: 1, moved: (2, D) }));
    assert_eq!(forward(tombstone(1, (2, D)), head(2, None)), Ok(MoveStep::Done));
    // And back again: what the first move left does not stand in the way.
    let return_move = Move { from: D, to: S, ..this() };
    let left = tombstone(1, (2, D));
    assert_eq!(
        next(Goal::Forward, return_move, head(2, None), left),
        Ok(MoveStep::Fence { own: 2, fence: 3 })
    );
    assert_eq!(
        next(Goal::Forward, return_move, head(2, Some((3, S))), left),
        Ok(MoveStep::Copy { own: 2, fence: 3 })
    );
    // A rollback: the destination is barred before the source goes on.
    assert_eq!(back(head(1, None), None), Ok(MoveStep::Done));
    assert_eq!(back(fenced, None), Ok(MoveStep::Bar { own: 1, is_over_copy: false, fence: 2 }));
    let barred = bar(2, (3, S));
    for goal in [Goal::Forward, Goal::Back] {
        assert_eq!(
            next(goal, this(), fenced, barred),
            Ok(MoveStep::Unfence { own: 1, moved: Some((2, D)), epoch: 3 })
        );
    }
    assert_eq!(back(head(3, None), barred), Ok(MoveStep::Done));
    assert_eq!(forward(head(3, None), barred), Ok(MoveStep::Fence { own: 3, fence: 4 }));
    assert_eq!(back(fenced, head(2, None)), Err(MoveError::Switched { vbucket: this().vbucket, owner: D }));
    // Failovers: the source forgot the fence after the switch; the destination forgot the switch.
    assert_eq!(forward(head(1, None), head(2, None)), Ok(MoveStep::Fence { own: 1, fence: 2 }));
    assert_eq!(forward(fenced, tombstone(1, (2, S))), Ok(MoveStep::Copy { own: 1, fence: 2 }));
    // The way back is under way: this is no bar.
    let returning = head(2, Some((3, S)));
    for goal in [Goal::Forward, Goal::Back] {
        let refused = next(goal, this(), tombstone(1, (2, D)), returning);
        assert!(matches!(refused, Err(MoveError::Elsewhere { epoch: 3, .. })), "{refused:?}");
    }
    // What is no move of ours.
    let vbucket = this().vbucket;
    assert_eq!(
        forward(head(1, Some((2, ELSEWHERE))), None),
        Err(MoveError::Elsewhere { vbucket, to: ELSEWHERE, epoch: 2 })
    );
    assert_eq!(forward(head(2, None), head(2, None)), Err(MoveError::Ambiguous { vbucket, epoch: 2 }));
    assert_eq!(forward(None, None), Err(MoveError::Missing { vbucket }));
    assert_eq!(forward(None, head(2, None)), Ok(MoveStep::Done));
}

#[test]
fn servers_wait_while_nobody_owns() {
    let fenced = head(1, Some((2, D)));
    assert_eq!(owner_of(fenced, None), None);
    assert_eq!(owner_of(fenced, head(2, None)), Some((MoveEnd::Destination, 2)));
    assert_eq!(owner_of(fenced, head(2, Some((3, S)))), None, "it is being rolled back");
    assert_eq!(owner_of(head(3, None), head(2, Some((3, S)))), Some((MoveEnd::Source, 3)));
    assert_eq!(owner_of(head(1, None), head(2, None)), Some((MoveEnd::Destination, 2)));
    assert_eq!(owner_of(head(1, None), head(2, Some((3, ELSEWHERE)))), None, "an old copy owns nothing");
}

/// A copy of the VBucket: its head, and the commits that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copied {
    epoch: u64,
    moved: Option<(u64, ShardName)>,
    commits: Vec<u32>,
    is_tombstone: bool,
    is_bar: bool,
}

/// A primary and its replica.
#[derive(Clone, Debug, Default)]
struct Shard {
    primary: Option<Copied>,
    replica: Option<Copied>,
}

impl Shard {
    fn head(&self) -> Option<Head> {
        let copy = self.primary.as_ref()?;
        let Copied { epoch, moved, is_tombstone, is_bar, .. } = *copy;
        Some(Head { epoch, moved, has_content: !is_tombstone, is_bar })
    }

    fn replicate(&mut self) {
        self.replica = self.primary.clone();
    }

    fn is_replicated(&self) -> bool {
        self.primary == self.replica
    }

    fn fail_over(&mut self) {
        self.primary = self.replica.clone();
    }
}

/// Rules that a walk can do without, to see what they are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Copy only what is fenced on the replica too.
    FenceConfirmed,
    /// Switch only if the destination has not seen the epoch.
    SwitchOnce,
    /// Roll back only behind a bar.
    BarFirst,
    /// Bar over an older copy only when the replica of the source holds all of it.
    BarOverCopy,
    /// Unfence only when the replica of the destination has the bar.
    BarConfirmed,
    /// Retire only what the destination's replica has.
    RetireStable,
    /// Retire only if the source is fenced as it was.
    RetireUnchanged,
}

/// Where an operator is.
#[derive(Clone, Debug)]
enum At {
    Look,
    Do(MoveStep),
    /// With a copy in hand.
    Switch(u64, Vec<u32>),
    /// The destination was found to be stable.
    Retire(u64, (u64, ShardName)),
    /// The destination is barred.
    Unfence(u64, Option<(u64, ShardName)>, u64),
    End,
}

struct World {
    shards: [Shard; 2],
    /// What each is to do, from which shard, and how far it is.
    operators: Vec<(Goal, usize, At)>,
    /// Where the Server takes the VBucket to be.
    server: (usize, u64),
    /// What the Server thinks that the VBucket holds.
    known: Vec<u32>,
    commits: u32,
    /// What is in every history that can rule: the Agent has let go of it.
    stable: Vec<u32>,
    off: Option<Rule>,
}

impl World {
    fn holds(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    /// One step of an operator; each script is one of them.
    fn operate(&mut self, which: usize) {
        let (goal, from, at) = self.operators[which].clone();
        let (to, this) = (1 - from, along(from));
        let bar = |fence: u64| Copied {
            epoch: fence,
            moved: Some((fence + 1, this.from)),
            commits: Vec::new(),
            is_tombstone: true,
            is_bar: true,
        };
        let after = match at {
            At::End => At::End,
            At::Look => match next(goal, this, self.shards[from].head(), self.shards[to].head()) {
                Ok(MoveStep::Done) | Err(_) => At::End,
                Ok(step) => At::Do(step),
            },
            At::Do(MoveStep::Done) => At::End,
            At::Do(MoveStep::Fence { own, fence }) => {
                let source = self.shards[from].primary.as_mut();
                if let Some(copy) = source.filter(|copy| copy.epoch == own && copy.moved.is_none()) {
                    copy.moved = Some((fence, this.to));
                }
                At::Look
            }
            At::Do(MoveStep::Copy { fence, .. }) => {
                let is_fenced = |copy: &Option<Copied>| {
                    copy.as_ref()
                        .is_some_and(|copy| copy.moved == Some((fence, this.to)) && !copy.is_tombstone)
                };
                let is_confirmed = is_fenced(&self.shards[from].replica) || !self.holds(Rule::FenceConfirmed);
                match &self.shards[from].primary {
                    Some(copy) if is_fenced(&self.shards[from].primary) && is_confirmed => {
                        At::Switch(fence, copy.commits.clone())
                    }
                    _ => At::Look,
                }
            }
            At::Switch(fence, commits) => {
                let is_guarded = self.holds(Rule::SwitchOnce);
                let destination = &mut self.shards[to].primary;
                if destination.as_ref().is_none_or(|copy| copy.epoch < fence) || !is_guarded {
                    *destination = Some(Copied {
                        epoch: fence,
                        moved: None,
                        commits,
                        is_tombstone: false,
                        is_bar: false,
                    });
                }
                At::Look
            }
            At::Do(MoveStep::Retire { own, moved }) => {
                // Both hold of one connection: a failover between the look and this is noticed.
                let owns = |head: Head| head.moved.is_none() && head.epoch >= moved.0;
                let is_stable = self.shards[to].is_replicated() || !self.holds(Rule::RetireStable);
                if is_stable && self.shards[to].head().is_some_and(owns) {
                    At::Retire(own, moved)
                } else {
                    At::Look
                }
            }
            At::Retire(own, moved) => {
                let is_guarded = self.holds(Rule::RetireUnchanged);
                let source = self.shards[from].primary.as_mut();
                let fits = |copy: &&mut Copied| copy.epoch == own && copy.moved == Some(moved) || !is_guarded;
                if let Some(copy) = source.filter(fits) {
                    (copy.is_tombstone, copy.commits) = (true, Vec::new());
                }
                At::Look
            }
            At::Do(MoveStep::Bar { is_over_copy, fence, .. }) if self.holds(Rule::BarFirst) => {
                let has_fence = |copy: &Option<Copied>| {
                    copy.as_ref()
                        .is_some_and(|copy| copy.moved == Some((fence, this.to)) && !copy.is_tombstone)
                };
                let source = &self.shards[from];
                let is_confirmed = has_fence(&source.primary) && has_fence(&source.replica);
                let may_go = is_over_copy && is_confirmed || !self.holds(Rule::BarOverCopy);
                let destination = &mut self.shards[to].primary;
                let fits = |copy: &Copied| copy.epoch < fence && (copy.is_tombstone || may_go);
                if destination.as_ref().is_none_or(fits) {
                    *destination = Some(bar(fence));
                }
                At::Look
            }
            At::Do(MoveStep::Bar { fence, .. }) => {
                let own = self.shards[from].head().map_or(0, |head| head.epoch);
                At::Unfence(own, Some((fence, this.to)), fence + 1)
            }
            At::Do(MoveStep::Unfence { own, moved, epoch }) => {
                let has_bar = |copy: &Option<Copied>| *copy == Some(bar(epoch - 1));
                let is_confirmed = has_bar(&self.shards[to].replica) || !self.holds(Rule::BarConfirmed);
                if is_confirmed && has_bar(&self.shards[to].primary) {
                    At::Unfence(own, moved, epoch)
                } else {
                    At::Look
                }
            }
            At::Unfence(own, moved, epoch) => {
                let source = self.shards[from].primary.as_mut();
                if let Some(copy) = source.filter(|copy| copy.epoch == own && copy.moved == moved) {
                    (copy.epoch, copy.moved) = (epoch, None);
                }
                At::Look
            }
        };
        self.operators[which].2 = after;
    }

    /// The Server commits, or looks where the VBucket is.
    fn serve(&mut self) {
        let (place, epoch) = self.server;
        let (commits, known) = (self.commits, &mut self.known);
        match &mut self.shards[place].primary {
            Some(copy) if copy.epoch == epoch && copy.moved.is_none() => {
                if copy.commits == *known {
                    copy.commits.push(commits);
                    self.commits += 1;
                }
                *known = copy.commits.clone();
            }
            _ => self.find(),
        }
    }

    fn find(&mut self) {
        if let Some((end, epoch)) = owner_of(self.shards[0].head(), self.shards[1].head()) {
            self.server = (usize::from(end == MoveEnd::Destination), epoch);
        }
    }

    /// Where commits go is asked of the store when it says that something is stable: what is on the replica too.
    fn settle(&mut self) {
        let (place, epoch) = self.server;
        let shard = &self.shards[place];
        let owns = |copy: &Option<Copied>| {
            copy.as_ref().is_some_and(|copy| copy.epoch == epoch && copy.moved.is_none())
        };
        if let (true, true, Some(copy)) = (owns(&shard.primary), owns(&shard.replica), &shard.replica) {
            let both =
                shard.primary.as_ref().is_some_and(|primary| primary.commits.starts_with(&copy.commits));
            if both && copy.commits.len() > self.stable.len() {
                self.stable = copy.commits.clone();
            }
        }
    }
}

/// A walk; answers whether what was stable is held at the end by the one that owns.
fn walk(seed: u64, off: Option<Rule>, failovers: usize) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let mut shards = [Shard::default(), Shard::default()];
    shards[0].primary =
        Some(Copied { epoch: 1, moved: None, commits: vec![0], is_tombstone: false, is_bar: false });
    shards[0].replicate();
    let begin = |dice: &mut Dice| {
        let goal = *dice.choose(&[Goal::Forward, Goal::Forward, Goal::Back]);
        // Most go there, some come back.
        (goal, usize::from(dice.below(4) == 0), At::Look)
    };
    let operators = vec![begin(&mut dice), begin(&mut dice)];
    let mut world =
        World { shards, operators, server: (0, 1), known: vec![0], commits: 1, stable: vec![0], off };
    let mut left = failovers;
    for _ in 0..120 {
        match dice.below(20) {
            0..=5 => world.operate(0),
            6..=11 => world.operate(1),
            12..=14 => world.serve(),
            15 => world.settle(),
            16 => world.shards[0].replicate(),
            17 => world.shards[1].replicate(),
            // Killed, and begun again from what it sees.
            18 => {
                let which = dice.below(2) as usize;
                world.operators[which] = begin(&mut dice);
            }
            _ if left > 0 && dice.below(4) == 0 => {
                left -= 1;
                world.shards[dice.below(2) as usize].fail_over();
                // A Server that connects anew takes a census before it writes.
                world.find();
            }
            _ => {}
        }
    }
    // One operator brings it to an end; first what may have been begun the other way.
    for from in [1, 0] {
        world.operators = vec![(Goal::Forward, from, At::Look)];
        for _ in 0..60 {
            world.operate(0);
            world.shards.iter_mut().for_each(Shard::replicate);
        }
    }
    world.find();
    let owner = owner_of(world.shards[0].head(), world.shards[1].head());
    let Some((MoveEnd::Destination, _)) = owner else {
        return Err(format!("owned by {owner:?}: {:?}", world.shards));
    };
    let copy = world.shards[1].primary.as_ref().expect("it owns");
    if !copy.commits.starts_with(&world.stable) {
        return Err(format!("it holds {:?}, and {:?} was stable", copy.commits, world.stable));
    }
    if !world.shards[0].primary.as_ref().expect("a tombstone stays").is_tombstone {
        return Err("the source keeps its copy".to_owned());
    }
    Ok(())
}

#[test]
fn nothing_stable_is_lost_whatever_fails() {
    for seed in 0..20_000 {
        if let Err(lost) = walk(seed, None, 3) {
            panic!("seed {seed}: {lost}");
        }
    }
}

#[test]
fn each_rule_left_out_does_harm() {
    for rule in [
        Rule::FenceConfirmed,
        Rule::SwitchOnce,
        Rule::BarFirst,
        Rule::BarOverCopy,
        Rule::BarConfirmed,
        Rule::RetireStable,
        Rule::RetireUnchanged,
    ] {
        let harm = (0..200_000).find(|seed| walk(*seed, Some(rule), 3).is_err());
        assert!(harm.is_some(), "{rule:?} is of no use");
    }
}
