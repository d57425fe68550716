//! Torture, in its short form: each scenario of `taba_tests::torture::scenarios` once, with real binaries and real
//! `redis-server` processes; at the end every total must equal what the Clients recorded, at every Server.
//!
//! Can this fail? `torture_sabotage.rs` runs the same scenarios with one rule of the protocol switched off each, and
//! sees wrong totals. And each scenario asserts here that what it is about has happened.

#![expect(clippy::print_stderr, reason = "what a run met is worth reading in its log")]

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use taba_tests::binary;
use taba_tests::torture::scenarios::{self, Run, Scenario};
use taba_tests::torture::{Expected, Plan, SmallDisk, World, Wrong};

/// One World at a time: each is heavy.
static ONE: Mutex<()> = Mutex::new(());
const SEED: u64 = 20_261_125;

fn run(scenario: Scenario) -> Run {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let run = scenario(SEED, None);
    eprintln!("{}", run.report);
    run.outcome.assert_exact();
    assert!(run.report.released > 0, "no agent let anything go: nothing was retained, or nothing confirmed");
    run
}

fn assert_faults(run: &Run, kinds: &[&str]) {
    for kind in kinds {
        assert!(run.report.faults.get(*kind).is_some_and(|times| *times > 0), "{kind} never happened");
    }
}

#[test]
fn a_kills_change_no_total() {
    let run = run(scenarios::kills);
    assert_faults(
        &run,
        &[
            "kill a server",
            "kill an agent",
            "disorder a spool",
            "http: AnswerLost",
            "http: Cut",
            "http: Ghost",
        ],
    );
    assert!(run.report.repeated > 0 && run.report.replayed > 0 && run.report.duplicates > 0);
}

#[test]
fn a_servers_that_take_turns_behind_nginx_change_no_total() {
    let run = run(scenarios::nginx_between);
    assert_faults(&run, &["kill a server", "pause a server", "kill an nginx"]);
    assert!(run.report.repeated_posts > 0, "nginx repeated nothing");
    assert!(run.report.duplicates > 0, "no server had a batch that it was given again");
}

#[test]
fn b_bad_networks_change_no_total() {
    let run = run(scenarios::networks);
    let ways = ["http: AnswerLost", "http: Twice", "http: Cut", "http: Late", "http: Ghost"];
    assert_faults(&run, &ways);
    assert_faults(&run, &["redis: AnswerLost", "redis: Cut", "redis: Late", "redis: Ghost"]);
    assert!(run.report.repeated > 0 && run.report.replayed > 0 && run.report.duplicates > 0);
}

#[test]
fn c_servers_that_write_the_same_vbuckets_change_no_total() {
    assert!(run(scenarios::collisions).report.conflicts > 0);
    assert!(run(scenarios::collisions_of_two).report.conflicts > 0);
}

#[test]
fn d_a_redis_killed_with_its_log_synced_at_each_write_changes_no_total() {
    assert_faults(&run(scenarios::redis_killed_always), &["kill a redis"]);
}

#[test]
fn d_a_redis_killed_with_a_torn_log_changes_no_total() {
    let run = run(scenarios::redis_killed_everysec);
    assert!(run.report.rewinds > 0, "what was torn off had not been acknowledged");
}

#[test]
fn e_a_replica_that_lagged_and_takes_over_gets_all_again() {
    let run = run(scenarios::fail_overs);
    assert!(run.report.lost.batches > 0, "the replica had everything");
    assert!(run.report.rewinds > 0 && run.report.replayed > 0);
}

#[test]
fn f_what_a_replaced_primary_takes_does_not_count() {
    let run = run(scenarios::split_brains);
    assert!(run.report.strays > 0, "nobody wrote to the replaced primary");
    assert!(run.report.rewinds > 0 && run.report.replayed > 0);
}

#[test]
fn g_a_full_redis_loses_nothing_that_was_acknowledged() {
    let run = run(scenarios::redis_full);
    assert!(run.report.store_errors > 0, "no commit was refused");
}

#[test]
#[ignore = "mounts a small tmpfs, which takes root: scripts/check runs it"]
fn g_a_full_disk_loses_nothing_that_was_acknowledged() {
    assert!(SmallDisk::is_permitted(), "run as root: a small tmpfs has to be mounted");
    let run = run(scenarios::disk_full);
    assert!(run.report.disk_errors > 0, "no agent said so");
}

#[test]
fn g_disks_that_hang_and_fail_lose_nothing_and_stop_nobody_else() {
    let run = run(scenarios::disk_bad);
    assert_faults(&run, &Wrong::ALL.map(Wrong::kind));
    assert!(run.report.disk_calls > 0, "no call to a disk went wrong");
    assert!(run.report.disk_errors > 0, "no agent said so");
}

#[test]
fn h_wrong_clocks_change_no_total() {
    assert_faults(
        &run(scenarios::clock_steps),
        &["step the clock of an agent", "step the clock of a server"],
    );
}

#[test]
fn i_a_standard_error_that_takes_nothing_stops_nobody() {
    let run = run(scenarios::stderr_bad);
    assert_faults(&run, &["kill a server", "kill a redis", "kill an agent"]);
    assert!(run.report.log_lines_dropped > 0, "all that was said was written somewhere");
    assert_eq!(run.report.ended, 0, "a process ended by itself");
}

#[test]
fn j_index_keys_that_are_deleted_change_no_total() {
    let run = run(scenarios::indexes_lost);
    assert!(run.report.index_keys_lost > 0, "there were no index keys");
}

#[test]
fn the_command_line_shows_the_same_ledger() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::start(Plan::new(SEED));
    world.advance(50_000);
    let outcome = world.finish();
    outcome.assert_exact();
    let shown = ledger_of_cli(&world);
    for (client, events) in &outcome.expected.clients {
        let account =
            shown["results"].as_array().into_iter().flatten().find(|row| row["client"] == client.as_str());
        let account = account.unwrap_or_else(|| panic!("{client} is missing in {shown}"));
        let numbers = ["recorded", "folded", "in_flight"].map(|field| account[field].as_i64());
        assert_eq!(numbers, [Some(*events as i64), Some(*events as i64), Some(0)]);
    }
    assert_ne!(outcome.expected, Expected::default());
}

fn ledger_of_cli(world: &World) -> serde_json::Value {
    let mut command = Command::new(binary("taba"));
    let output = command.args(["--json", "--server", &world.servers[0].url(), "ledger"]).output();
    let output = output.expect("taba runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("taba prints JSON")
}
