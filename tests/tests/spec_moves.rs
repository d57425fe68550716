//! A VBucket moves in the specification: nothing is lost or doubled, whatever fails at whichever step; and each rule of
//! moving is needed: for each there is a way to do harm without it, which does none with it. With `--nocapture` the
//! shortest such way is printed.

#![expect(clippy::print_stdout, reason = "the traces are what one comes here to see")]

use taba_tests::spec::Step::{
    Arrive, Begin, DropAnswer, End, FailOver, Follow, Hear, Learn, Operate, Probe, Reconnect, Replicate,
    Restart, Send, Split, Take, Tick, Work,
};
use taba_tests::spec::shard::Head;
use taba_tests::spec::{
    Checker, Dice, Explorer, Found, Goal, Rule, Rules, Size, Step, Times, World, heal, tell,
};

/// Two shards of one node or more; one Agent, two Servers, two operators.
const fn moving(nodes: usize) -> Checker {
    let size = Size { agents: 1, servers: 2, shards: 2, nodes, operators: 2, events: 6, repeats: false };
    let (times, rules) = (Times::ENDLESS, Rules::ALL);
    Checker { size, times, rules, steps: 400, ticks: 15, loses: true, seed: 20_261_128 }
}

const S: usize = 0;
const D: usize = 1;
/// Operators.
const FIRST: usize = 0;
const SECOND: usize = 1;
/// After so many steps of an operator that begins: the fence is written; what it copied is in its hands; the destination
/// is switched; it waits until that is stable.
const FENCED: usize = 2;
const COPIED: usize = 5;
const SWITCHED: usize = 6;
const SETTLING: usize = 8;
/// After so many of one that rolls back what was fenced: all that it waited for is confirmed, and it is about to unfence.
const BARRED: usize = 5;
/// After so many it has decided to.
const DECIDED: usize = 2;

fn steps(operator: usize, steps: usize) -> Vec<Step> {
    vec![Operate(operator); steps]
}

fn ticks(ticks: usize) -> Vec<Step> {
    vec![Tick; ticks]
}

/// Server A asks all shards late enough to believe for ever what they say.
fn know() -> Vec<Step> {
    [ticks(6), vec![Work(0)]].concat()
}

/// An event is folded by Server A, wherever it finds the VBucket, and the answer heard.
fn fold() -> Vec<Step> {
    let ask = [Take(0), Send(0, 0), Arrive(0, 0)];
    [&ask[..], &[Work(0); 4], &[Hear(0), DropAnswer(0)]].concat()
}

/// All replicas copy everything.
fn replicate() -> Vec<Step> {
    (0..4).flat_map(|node| [Replicate(node); 6]).collect()
}

/// Server A hears what is stable, and its Agent that it was and still is: it lets go.
fn release() -> Vec<Step> {
    let ask = [Learn(0), Learn(0), Probe(0, 0), Arrive(0, 0), Work(0), Work(0), Hear(0), DropAnswer(0)];
    [replicate(), ticks(3), ask.to_vec()].concat()
}

/// The same long after.
fn release_late() -> Vec<Step> {
    [replicate(), ticks(6), release()].concat()
}

fn forward(operator: usize, from: usize) -> Vec<Step> {
    vec![Begin(operator, from, Goal::Forward)]
}

fn back(operator: usize, from: usize) -> Vec<Step> {
    vec![Begin(operator, from, Goal::Back)]
}

/// The trace does harm without the rule, and none with it; the shortest part of it that does is printed.
fn needs(rule: Rule, checker: Checker, trace: &[Vec<Step>]) {
    let trace = trace.concat();
    let without = Checker { rules: checker.rules.without(rule), ..checker };
    if let Err(found) = checker.replay(&trace) {
        panic!("with {rule} the same steps do harm as well:\n{}", tell(&checker, &found));
    }
    let Err(found) = without.replay(&trace) else { panic!("without {rule} the steps do no harm") };
    let found = without.shorten(&found);
    println!("Without {rule}:\n{}\n", tell(&without, &found));
    if let Err(found) = checker.replay(&found.trace) {
        panic!("with {rule} the shortest steps do harm as well:\n{}", tell(&checker, &found));
    }
}

const fn without(rule: Rule, checker: Checker) -> Checker {
    Checker { rules: checker.rules.without(rule), ..checker }
}

macro_rules! needed {
    ($($(#[$doc:meta])* $test:ident: $rule:ident in $checker:expr, $trace:expr;)*) => {
        $($(#[$doc])*
        #[test]
        fn $test() {
            needs(Rule::$rule, $checker, &$trace);
        })*

        #[test]
        fn no_rule_of_moving_is_forgotten() {
            let tested = [$(Rule::$rule),*];
            for rule in Rule::OF_MOVING {
                assert!(tested.contains(&rule), "{rule} has no test");
            }
        }
    };
}

/// The first operator copies, the second is about to roll back, and the destination is switched in between.
fn rolled_back_late(barred: usize, loses_bar: &[Step]) -> Vec<Vec<Step>> {
    vec![
        forward(FIRST, S),
        steps(FIRST, COPIED - 1),
        replicate(),
        steps(FIRST, 1),
        back(SECOND, S),
        steps(SECOND, barred),
        loses_bar.to_vec(),
        steps(FIRST, 1),
        fold(),
        release_late(),
        steps(SECOND, 1),
    ]
}

/// After the switch the source forgets its fence.
fn forgotten() -> Vec<Vec<Step>> {
    let fails = vec![Restart(S, 2)];
    vec![know(), forward(FIRST, S), steps(FIRST, SWITCHED), fails, fold(), release_late()]
}

/// Before the switch the source forgets its fence, and takes a commit.
fn forgotten_early() -> Vec<Step> {
    [forward(FIRST, S), steps(FIRST, COPIED), vec![Restart(S, 2)], fold()].concat()
}

/// A Server has asked all shards, and the first operator has gone so far.
fn moved(operations: usize) -> Vec<Step> {
    [know(), forward(FIRST, S), steps(FIRST, operations)].concat()
}

needed! {
    a_fenced_copy_takes_no_commit: FenceHolds in moving(1),
        [moved(COPIED), fold(), release(), steps(FIRST, 1)];
    /// The source has failed over, and its old primary, which does not know, gets the fence.
    what_is_copied_has_a_fence_that_is_confirmed: FenceConfirmed in moving(2), [
        forward(FIRST, S),
        vec![Split(1), Work(0), Reconnect(0)],
        fold(),
        ticks(1),
        steps(FIRST, COPIED),
        vec![Tick, Follow(0), Tick, Tick, Tick, Learn(0), Learn(0), Probe(0, 0), Arrive(0, 0), Work(0)],
        steps(FIRST, 1),
        vec![Hear(0)],
    ];
    a_destination_is_switched_once: SwitchOnce in moving(1), [
        moved(COPIED),
        forward(SECOND, S),
        steps(SECOND, SWITCHED),
        fold(),
        release(),
        steps(FIRST, 1),
    ];
    /// The source forgets its fence, and a Server that has asked all shards twice takes it for the owner.
    a_switch_comes_in_time: SwitchInTime in moving(1),
        [forgotten_early(), release_late(), steps(FIRST, 1)];
    /// A second line: a source that is unfenced in time does no harm.
    a_source_is_unfenced_after_a_bar: BarFirst in without(Rule::UnfenceInTime, moving(1)),
        rolled_back_late(DECIDED, &[]);
    /// A second line, as the bar itself.
    a_source_is_unfenced_after_a_bar_that_is_confirmed: BarConfirmed in without(Rule::UnfenceInTime, moving(2)),
        rolled_back_late(BARRED, &[FailOver(3), Follow(2)]);
    /// The bar is confirmed, and the destination forgets it all the same: no disk has it yet.
    a_source_is_unfenced_in_time: UnfenceInTime in moving(1),
        rolled_back_late(BARRED, &[Restart(D, 2)]);
    /// It came from where it is to go to, and the copy there is the only one that is stable.
    a_bar_over_a_copy_waits_until_the_source_is_stable: BarOverCopy in moving(1), [
        know(),
        fold(),
        release(),
        moved(SWITCHED),
        forward(SECOND, D),
        steps(SECOND, FENCED),
        back(SECOND, D),
        steps(SECOND, 3),
    ];
    the_copy_of_the_source_stays_until_the_switch_is_stable: RetireStable in moving(1),
        [know(), fold(), release(), moved(SETTLING + 2)];
    /// While an operator slept, the VBucket came back.
    only_what_is_fenced_as_it_was_is_retired: RetireUnchanged in moving(1), [
        moved(SETTLING),
        ticks(3),
        steps(FIRST, 1),
        forward(SECOND, D),
        steps(SECOND, SWITCHED),
        fold(),
        release(),
        steps(FIRST, 1),
    ];
    the_highest_epoch_owns: HighestOwns in moving(1), forgotten();
    /// A second line: nothing is released before all shards were asked again.
    over_a_new_connection_all_shards_are_asked_first: CensusFirst in without(Rule::CensusAgain, moving(1)),
        forgotten();
    /// The source forgets its fence, a Server asks all shards, and only then the destination is switched.
    all_shards_are_asked_again_before_anything_is_stable: CensusAgain in moving(1),
        [forgotten_early(), steps(FIRST, 1), release()];
}

/// Nothing is found; and it is not because nothing happens.
fn holds(checker: Checker, steps: u64) {
    taba_tests::spec::assert_holds(&checker, steps, 10);
}

/// In which no harm is to be found. Many more were walked before this was written down.
const CALM_STEPS: u64 = 200_000;

#[test]
fn nothing_is_found_between_two_nodes() {
    holds(moving(1), CALM_STEPS);
}

#[test]
fn nothing_is_found_between_two_primaries_with_replicas() {
    holds(moving(2), CALM_STEPS);
}

/// Everything drains, and the move ends or is rolled back, whatever comes first, and after any one fault.
#[test]
fn every_way_through_a_move_ends() {
    // With two events and one fault there are 15,927 states, with two Servers 38,557 (of one event): they were explored
    // before this was written down.
    for (servers, events, faults) in [(2, 2, 0), (1, 1, 1)] {
        let size = Size { agents: 1, servers, shards: 2, nodes: 1, operators: 1, events, repeats: false };
        let times = Times { confirm_after: 2, disk_lag: 1, pause_max: 1, unfence_max: 0, ..Times::ENDLESS };
        let explorer = Explorer { size, times, rules: Rules::ALL, faults, states_max: 1_000_000 };
        match explorer.explore() {
            Ok(explored) => println!("{servers} Servers, {events} events, {faults} faults: {explored:?}"),
            Err(found) => {
                let checker = Checker { size, times, ..moving(1) };
                let begun = [vec![Begin(FIRST, S, Goal::Forward)], found.trace].concat();
                let found = Found { trace: begun, ..found };
                panic!("it does not end:\n{}", tell(&checker, &found));
            }
        }
    }
}

/// A shard fails.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// Its replica rules, however far it lags; the old primary is dead.
    FailOver,
    /// The same, and the old primary does not know.
    Split,
    /// It is killed, and starts again from what its disk has.
    Restart,
}

/// A move that is rolled back once the source is fenced, or one that is not; and what fails when.
#[derive(Clone, Copy, Debug)]
struct Plan {
    goal: Goal,
    failure: Failure,
    shard: usize,
    /// Right after, or right before, this step of the operator.
    step: usize,
    is_after: bool,
}

/// A run, and the way that it took.
struct Run {
    checker: Checker,
    world: World,
    trace: Vec<Step>,
    dice: Dice,
}

impl Run {
    fn take(&mut self, step: Step) -> bool {
        let is_taken = self.world.step(step);
        if is_taken {
            self.trace.push(step);
            let audited = self.world.audit();
            self.judge(audited);
        }
        is_taken
    }

    fn judge(&self, result: Result<(), taba_tests::spec::Violation>) {
        if let Err(violation) = result {
            let found = Found { trace: self.trace.clone(), violation };
            panic!("the protocol has a hole:\n{}", tell(&self.checker, &self.checker.shorten(&found)));
        }
    }

    /// Agents, Servers and replicas do some of what they do.
    fn go_on(&mut self, steps: usize) {
        for _ in 0..steps {
            let step = self.checker.propose(&self.world, &mut self.dice);
            if !step.is_fault() && !matches!(step, Begin(..) | Operate(_)) {
                self.take(step);
            }
        }
    }

    fn fail(&mut self, plan: Plan) -> bool {
        let (ruling, nodes) = (self.world.shards[plan.shard].ruling, self.checker.size.nodes);
        let other = plan.shard * nodes + (ruling + 1) % nodes;
        match plan.failure {
            Failure::FailOver => self.take(FailOver(other)),
            Failure::Split => self.take(Split(other)),
            Failure::Restart => (1..=3).rev().any(|writes| self.take(Restart(plan.shard, writes))),
        }
    }

    /// Answers whether something failed, and where the VBucket is in the end.
    fn run(&mut self, plan: Plan) -> (bool, usize) {
        self.go_on(60);
        self.take(Begin(FIRST, S, Goal::Forward));
        if plan.goal == Goal::Back {
            let before = self.dice.roll(3) + FENCED;
            for _ in 0..before {
                self.take(Operate(FIRST));
            }
            self.take(End(FIRST));
            self.take(Begin(FIRST, S, Goal::Back));
        }
        let (mut has_failed, mut taken) = (false, 0);
        for _ in 0..LOOKS_MAX {
            let busy = self.dice.roll(12);
            self.go_on(busy);
            let is_now = taken == plan.step;
            has_failed |= is_now && !plan.is_after && self.fail(plan);
            let goes_on = self.take(Operate(FIRST));
            has_failed |= is_now && goes_on && plan.is_after && self.fail(plan);
            taken += usize::from(goes_on || is_now);
        }
        self.go_on(60);
        let mut world = self.world.clone();
        let mut trace = Vec::new();
        let healed = heal(&mut world, &mut trace);
        self.trace.extend(trace);
        self.judge(healed);
        let owner = world.heads().iter().position(Head::is_open);
        (has_failed, owner.expect("it is owned"))
    }
}

/// More steps than a move here takes, waiting included.
const LOOKS_MAX: usize = 24;
const SEEDS: u64 = 8;

/// For each step of a move that is to end, and of one that is rolled back: the source, and the destination, fails before
/// and after it, in each of three ways.
#[test]
fn at_each_step_source_or_destination_fails() {
    let (mut runs, mut failures, mut switched, mut rolled_back) = (0, 0, 0, 0);
    let goals = [(Goal::Forward, 12), (Goal::Back, 8)];
    let failing = [Failure::FailOver, Failure::Split, Failure::Restart];
    for (goal, steps) in goals {
        let of = |step| failing.map(|failure| (step, failure));
        for (step, failure) in (0..steps).flat_map(of) {
            for (shard, is_after) in [(S, false), (S, true), (D, false), (D, true)] {
                let plan = Plan { goal, failure, shard, step, is_after };
                for seed in 0..SEEDS {
                    let checker = Checker { loses: false, ticks: 3, ..moving(2) };
                    let (dice, world) = (Dice::new(seed << 32 | runs), checker.world());
                    let (failed, owner) = Run { checker, world, trace: Vec::new(), dice }.run(plan);
                    runs += 1;
                    failures += u32::from(failed);
                    *if owner == D { &mut switched } else { &mut rolled_back } += 1;
                }
            }
        }
    }
    println!("{runs} runs, {failures} failures, {switched} moves ended, {rolled_back} rolled back");
    assert!(runs >= 1_000 && failures >= 1_000, "{runs} runs, {failures} failures");
    assert!(switched >= 300 && rolled_back >= 300, "{switched} ended, {rolled_back} rolled back");
}
