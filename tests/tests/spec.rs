//! The specification holds, and each of its rules is needed: switched off, something goes wrong within a stated number
//! of steps. `cargo test -p taba-tests --test spec -- --nocapture` prints the shortest way there that was found.

#![expect(clippy::print_stdout, reason = "the traces are what one comes here to see")]

use taba_tests::spec::{Checker, Explorer, Rule, Rules, Size, Step, Times, tell};

const SMALL: Size =
    Size { agents: 1, servers: 2, shards: 1, nodes: 2, operators: 0, events: 4, repeats: true };
const LARGE: Size =
    Size { agents: 2, servers: 2, shards: 1, nodes: 3, operators: 0, events: 10, repeats: true };
const DAYS: Size =
    Size { agents: 2, servers: 2, shards: 1, nodes: 2, operators: 0, events: 6, repeats: true };

/// Streams end, Batches expire and marks are collected; clocks may be wrong.
const LONG: Times = Times {
    confirm_after: 2,
    disk_lag: 1,
    split_writes: 1,
    stream_appends: 3,
    batch_sent: 9,
    stream_sends: 13,
    mark_kept: 16,
    clocks_apart: 1,
    // Longer than any message is under way: see "What it does not cover" in docs/EXACTLY_ONCE.md.
    clock_fault: 200,
    pause_max: 1,
    unfence_max: 0,
};

const fn short(size: Size) -> Checker {
    let (times, rules) = (Times::ENDLESS, Rules::ALL);
    Checker { size, times, rules, steps: 150, ticks: 8, loses: true, seed: 20_261_125 }
}

/// No Agent throws anything away.
const fn keeping() -> Checker {
    Checker { loses: false, ..short(SMALL) }
}

const fn long() -> Checker {
    Checker { times: LONG, ticks: 12, steps: 300, ..short(DAYS) }
}

/// A store without replicas that calls stable what is not on its disk yet: then T has to cover the disk, and can, if
/// no message comes twice.
const fn second_line() -> Checker {
    let size = Size { nodes: 1, repeats: false, ..SMALL };
    Checker { rules: Rules::ALL.without(Rule::StableOnDisk), size, ..keeping() }
}

/// Two Agents, one Server whose clock may be wrong, and hardly any time.
const fn clocks() -> Checker {
    let size = Size { nodes: 1, servers: 1, events: 4, ..DAYS };
    Checker { size, steps: 60, ticks: 1, loses: false, ..long() }
}

const fn without(rule: Rule, checker: Checker) -> Checker {
    Checker { rules: checker.rules.without(rule), ..checker }
}

/// Nothing is found; and it is not because nothing happens.
fn holds(checker: Checker, steps: u64) {
    taba_tests::spec::assert_holds(&checker, steps, 300);
}

/// Something is found.
fn fails(checker: Checker, rule: Rule, steps: u64) {
    let checker = without(rule, checker);
    let found = checker.shortest(steps, 4);
    let found = found.unwrap_or_else(|| panic!("without {rule} nothing goes wrong in {steps} steps"));
    println!("Without {rule}:\n{}\n", tell(&checker, &found));
    harmful_only_without(checker, rule, &found.trace);
}

/// The steps do harm, and with the rule they do not.
fn harmful_only_without(checker: Checker, rule: Rule, trace: &[Step]) {
    assert!(checker.replay(trace).is_err(), "the trace tells what it is said to tell");
    let whole = Checker { rules: checker.rules.with(rule), ..checker };
    if let Err(found) = whole.replay(trace) {
        panic!("with {rule} the same steps do harm as well:\n{}", tell(&whole, &found));
    }
}

/// In which harm has to be found.
const STEPS: u64 = 1_000_000;
/// In which no harm is to be found. Some hundred millions were walked before this was written down.
const CALM_STEPS: u64 = 500_000;

#[test]
fn nothing_is_found_in_a_small_world() {
    holds(short(SMALL), CALM_STEPS);
}

#[test]
fn nothing_is_found_in_a_large_world() {
    holds(Checker { steps: 300, ..short(LARGE) }, CALM_STEPS);
}

#[test]
fn every_event_is_in_the_store_in_the_end_if_no_spool_overflows() {
    holds(keeping(), CALM_STEPS);
}

/// T is a second line: what is honestly stable needs none.
#[test]
fn where_stable_is_a_proof_t_is_not_needed() {
    let t = [Rule::ConfirmAfterT, Rule::ConfirmFromSent, Rule::RewindForgetsAnswers, Rule::AnswersMatch];
    holds(t.into_iter().fold(short(SMALL), |checker, rule| without(rule, checker)), CALM_STEPS);
}

#[test]
fn nothing_is_found_over_days_and_with_wrong_clocks() {
    holds(long(), CALM_STEPS);
}

#[test]
fn where_stable_is_not_on_disk_t_covers_it_if_no_message_comes_twice() {
    holds(second_line(), CALM_STEPS);
}

/// Too rare for random walks: a Server that asked after its commit hears of another node, which has other entries.
#[test]
fn needs_fresh_only_from_commits() {
    use Step::{
        Arrive, DropAnswer, DropRequest, FailOver, Follow, GiveUp, Hear, Learn, Reconnect, Replicate, Send,
        Take, Tick, Work,
    };
    let (first, second) = (0, 1);
    let trace = [
        // Server A commits #1 on Node 1 and asks after it; Agent 1 hears that it is applied.
        [Take(first), Send(first, 0), Work(0), Arrive(0, 0), Work(0), Hear(0), DropRequest(0), DropAnswer(0)],
        // T later it commits #2, and the answer is lost. Node 2 has none of it, and rules.
        [Tick, Tick, Tick, Take(first), Send(first, 0), Arrive(0, 0), Work(0), DropAnswer(0)],
        [
            GiveUp(first, 0),
            DropRequest(0),
            FailOver(1),
            Follow(0),
            Reconnect(1),
            Take(second),
            Send(second, 0),
            Work(1),
        ],
        // Server B commits something else there; both nodes have that.
        [Arrive(0, 1), Work(1), Replicate(0), DropRequest(0), DropAnswer(0), Tick, Tick, Reconnect(0)],
        // Server A hears that all have the first entry. #2 comes again; in its cache it is a duplicate.
        [Learn(0), Send(first, 0), Arrive(0, 0), Work(0), Hear(0), Tick, Tick, Tick],
    ];
    let rule = Rule::FreshOnlyFromCommits;
    // A second line as well: what is checked against the store has not done any harm.
    let unchecked = without(Rule::AnswersChecked, short(Size { agents: 2, ..SMALL }));
    let checker = without(rule, unchecked);
    let found = checker.replay(trace.as_flattened()).expect_err("it does harm");
    println!("Without {rule}:\n{}\n", tell(&checker, &checker.shorten(&found)));
    harmful_only_without(checker, rule, trace.as_flattened());
}

/// Explored from end to end: one Agent or two, each with its Lane, two Servers, Batches of one or two events.
const fn explorer(agents: usize, events: u8, faults: u8) -> Explorer {
    let size = Size { agents, servers: 2, shards: 1, nodes: 1, operators: 0, events, repeats: false };
    let times = Times { confirm_after: 2, disk_lag: 1, ..Times::ENDLESS };
    Explorer { size, times, rules: Rules::ALL, faults, states_max: 2_000_000 }
}

/// Every way through it ends, and in the end all is drained.
fn drains(explorer: Explorer) {
    match explorer.explore() {
        Ok(explored) => println!("{explored:?}"),
        Err(found) => panic!("it does not drain:\n{}", tell(&checker_of(&explorer), &found)),
    }
}

/// There is a way that does not end, or ends too early.
fn stands_still(explorer: Explorer, rule: Rule) {
    let explorer = Explorer { rules: explorer.rules.without(rule), ..explorer };
    let found = explorer.explore().expect_err("without the rule something stands still");
    println!("Without {rule}:\n{}\n", tell(&checker_of(&explorer), &found));
}

const fn checker_of(explorer: &Explorer) -> Checker {
    Checker { times: explorer.times, rules: explorer.rules, ..short(explorer.size) }
}

#[test]
fn one_lane_drains_whatever_server_answers() {
    drains(explorer(1, 4, 0));
}

#[test]
fn two_lanes_drain_whatever_server_answers() {
    drains(explorer(2, 2, 0));
}

/// With three events there are 166,122 states; they were explored before this was written down.
#[test]
fn one_lane_drains_after_any_one_fault() {
    drains(explorer(1, 2, 1));
}

#[test]
fn lanes_stand_still_when_answers_come_from_stale_caches() {
    stands_still(explorer(1, 3, 0), Rule::AnswersChecked);
}

#[test]
fn lanes_stand_still_when_commits_are_not_signed() {
    stands_still(explorer(1, 1, 0), Rule::SignedCommits);
}

macro_rules! needed {
    ($($test:ident: $rule:ident in $checker:expr;)*) => {
        $(#[test]
        fn $test() {
            fails($checker, Rule::$rule, STEPS);
        })*

        #[test]
        fn no_rule_is_forgotten() {
            let tested = [$(Rule::$rule),*];
            let by_itself = Rule::FreshOnlyFromCommits;
            for rule in Rule::OF_ONE_SHARD {
                assert!(tested.contains(&rule) || rule == by_itself, "{rule} has no test");
            }
        }
    };
}

needed! {
    needs_gap_free_order: GapFreeOrder in short(SMALL);
    needs_unique_version: UniqueVersion in Checker { steps: 80, loses: false, ..short(Size { agents: 2, nodes: 1, ..SMALL }) };
    needs_conditional_commit: ConditionalCommit in keeping();
    needs_one_write_per_commit: OneWritePerCommit in short(SMALL);
    needs_answers_checked: AnswersChecked in keeping();
    needs_probe_commits: ProbeCommits in short(SMALL);
    needs_belief_dies_with_cache: BeliefDiesWithCache in short(SMALL);
    needs_signed_commits: SignedCommits in keeping();
    needs_short_list_says_nothing: ShortListSaysNothing in keeping();
    needs_stable_on_disk: StableOnDisk in short(SMALL);
    needs_clocks_agree: ClocksAgree in long();
    needs_marks_by_two_clocks: MarksByTwoClocks in clocks();
    needs_stable_before_release: StableBeforeRelease in short(SMALL);
    needs_confirm_after_t: ConfirmAfterT in second_line();
    needs_confirm_from_sent: ConfirmFromSent in second_line();
    needs_rewind_on_lower_answer: RewindOnLowerAnswer in short(SMALL);
    needs_rewind_forgets_answers: RewindForgetsAnswers in second_line();
    needs_answers_match: AnswersMatch in second_line();
    needs_immutable_content: ImmutableContent in keeping();
    needs_sealed_before_sent: SealedBeforeSent in short(SMALL);
    needs_new_stream_after_restart: NewStreamAfterRestart in keeping();
    needs_base_told: BaseTold in short(SMALL);
    needs_loss_is_confirmed: LossIsConfirmed in short(SMALL);
    needs_young_only: YoungOnly in long();
    needs_streams_end: StreamsEnd in long();
    needs_ages_by_uptime: AgesByUptime in long();
}
