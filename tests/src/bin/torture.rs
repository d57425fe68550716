//! The long torture: whole deployments of real processes, one after the other, under random faults of every kind.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use taba_tests::dice::Dice;
use taba_tests::redis::Aof;
use taba_tests::shield_from_ctrl_c;
use taba_tests::torture::{Kind, Plan, Report, SmallDisk, Storm, World};

/// Steps of one round; a fault may begin in each.
const STEPS: u64 = 150;
/// How often it says how far it is, in steps.
const TELL: u64 = 10;

/// Tortures whole deployments of Taba, and compares every total with what was recorded.
///
/// Each round starts redis-servers, servers, agents and clients, hurts them with a random mix of all faults, heals
/// them, and compares every total and the ledger. Kinds, order and targets of the faults come from the seed alone;
/// moments are counted in recorded events. Progress goes to the error stream, the result to the output. Ctrl-C ends the
/// round under way early, compares it, and ends.
///
/// Exit code 0: every total of every round was exact. 1: one was not; the seed, the round, and where the logs are, is
/// printed.
#[derive(Debug, Parser)]
#[command(name = "torture", version)]
struct Args {
    /// For how long
    #[arg(long, default_value_t = 10, value_name = "N")]
    minutes: u64,
    /// From which all chance comes
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Only this round, in full, whatever time it takes: to see again what went wrong
    #[arg(long, value_name = "R")]
    round: Option<u64>,
    /// Tell each fault
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    shield_from_ctrl_c();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
            eprintln!("torture: cannot listen to signals: {error}");
            return ExitCode::FAILURE;
        }
    }
    let clock = Clock::start(Duration::from_secs(60 * args.minutes));
    let mut report = Report::default();
    let rounds = args.round.map_or(0..u64::MAX, |round| round..round + 1);
    for round in rounds {
        let is_over = || stop.load(Ordering::Relaxed) || (args.round.is_none() && clock.is_over());
        if is_over() {
            break;
        }
        let run = || run(&args, round, &clock, &is_over, &mut report);
        // What does not come up, or hangs, panics after a while; its World says where the logs are.
        if !catch_unwind(AssertUnwindSafe(run)).unwrap_or(false) {
            print!("{report}");
            println!("NOT EXACT: seed {}, round {round}; see above", args.seed);
            return ExitCode::FAILURE;
        }
    }
    print!("{report}");
    println!("exact: every total equals what was recorded; seed {}", args.seed);
    ExitCode::SUCCESS
}

/// One round; false when something differs.
fn run(args: &Args, round: u64, clock: &Clock, is_over: &dyn Fn() -> bool, report: &mut Report) -> bool {
    let plan = plan(args.seed, round);
    eprintln!("round {round}: {plan:?}");
    let mut world = World::start(plan);
    let mut storm = Storm::new(world.plan.seed, Kind::all(&world.plan));
    for step in 1..=STEPS {
        if let Some(fault) = storm.step(&mut world).filter(|_| args.verbose) {
            eprintln!("round {round}, step {step}: {fault}");
        }
        if step % TELL == 0 {
            let (passed, faults) = (clock.passed().as_secs(), world.faults.values().sum::<u64>());
            let events = report.events + world.load.recorded();
            eprintln!("{passed} s: round {round}, step {step} of {STEPS}, {events} events, {faults} faults");
        }
        if is_over() {
            break;
        }
    }
    storm.calm(&mut world);
    let outcome = world.finish();
    report.join(&Report::of(&world, &outcome));
    if outcome.is_exact() {
        eprintln!("round {round}: exact, {} events", outcome.expected.events());
        return true;
    }
    eprintln!("round {round}: NOT EXACT; logs are in {}", outcome.directory.display());
    outcome.differences.iter().for_each(|difference| eprintln!("  {difference}"));
    false
}

/// What the deployment of a round looks like.
fn plan(seed: u64, round: u64) -> Plan {
    let mut dice = Dice::of(seed, round);
    // Without a shard, one Server with an embedded store: once in a while.
    let shards = *dice.choose(&[0, 1, 1, 1, 2, 2]);
    let (servers, has_replicas) = (2 + dice.below(2) as usize, dice.below(3) > 0);
    Plan {
        shards,
        has_replicas: has_replicas && shards > 0,
        servers: if shards == 0 { 1 } else { servers },
        agents: 2,
        has_one_client: dice.below(2) == 0,
        has_bad_disks: dice.below(2) == 0,
        has_bad_stderr: dice.below(3) == 0,
        has_nginx: dice.below(3) == 0,
        confirm_after: Duration::from_secs(3),
        aof: *dice.choose(&[Aof::EverySecond, Aof::Always]),
        has_clocks: dice.below(2) == 0,
        spool_disk_bytes: (SmallDisk::is_permitted() && dice.below(2) == 0).then_some(64 << 20),
        ..Plan::new(dice.below(u64::MAX))
    }
}

/// How long the whole thing has been going on.
struct Clock {
    start: Instant,
    time: Duration,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the minutes that were asked for are real ones")]
    fn start(time: Duration) -> Self {
        Self { start: Instant::now(), time }
    }

    fn passed(&self) -> Duration {
        self.start.elapsed()
    }

    fn is_over(&self) -> bool {
        self.passed() >= self.time
    }
}
