//! Each scenario of torture with one rule of the protocol switched off: the totals must be wrong.
//!
//! The binaries are those of `scripts/sabotage`: what is shipped has no such switches. So these tests are ignored, until
//! `scripts/sabotage && cargo test -p taba-tests --test torture_sabotage -- --ignored`; `scripts/check` does the same.
//!
//! Which packet is where when something happens is up to the machine, so one run may get away with it: each is given
//! [`TRIES`] seeds.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use taba_tests::torture::scenarios::{self, Scenario};
use taba_tests::{binary, sabotaged};

/// One World at a time: each is heavy.
static ONE: Mutex<()> = Mutex::new(());
const SEED: u64 = 20_261_125;
const TRIES: u64 = 3;
/// Two rules, each of which is enough: what was acknowledged without having been committed is not stable, so an Agent
/// that keeps what is not stable sends it again.
const UNKEPT: &str = "ack-failed-commit,release-on-applied";

fn assert_wrong(scenario: Scenario, rule: &'static str) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let is_exact = |n| scenario(SEED + n, Some(rule)).outcome.is_exact();
    assert!(!(0..TRIES).all(is_exact), "without the rule {rule:?} every total is still right");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn what_is_shipped_has_no_switches() {
    // Of strings: to look through 30 MB byte by byte takes a debug build a minute.
    let has_switches =
        |binary: PathBuf| String::from_utf8_lossy(&fs::read(binary).unwrap()).contains("TABA_SABOTAGE");
    for name in ["taba-agent", "taba-server"] {
        assert!(!has_switches(binary(name)), "{name} can be told to break the rules");
        assert!(has_switches(sabotaged(name)), "the test looks for the wrong word");
    }
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn a_kills_without_a_durable_spool() {
    assert_wrong(scenarios::kills, "memory-spool");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn a_kills_without_knowing_client_batches_again() {
    assert_wrong(scenarios::kills, "forget-dedup");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn b_networks_without_marks() {
    assert_wrong(scenarios::networks, "ignore-marks");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn c_collisions_without_conditional_commits() {
    assert_wrong(scenarios::collisions, "unconditional-commit");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn d_a_killed_redis_with_acknowledgements_before_commits() {
    assert_wrong(scenarios::redis_killed_always, UNKEPT);
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn d_a_torn_log_without_retention() {
    assert_wrong(scenarios::redis_killed_everysec, "release-on-applied");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn e_fail_overs_without_retention() {
    assert_wrong(scenarios::fail_overs, "release-on-applied");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn e_fail_overs_without_order() {
    assert_wrong(scenarios::fail_overs, "no-gap-free-order");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn f_split_brains_without_retention() {
    assert_wrong(scenarios::split_brains, "release-on-applied");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn f_split_brains_with_counted_versions() {
    assert_wrong(scenarios::split_brains, "version-counter");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn g_a_full_redis_with_acknowledgements_before_commits() {
    assert_wrong(scenarios::redis_full, UNKEPT);
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn g_a_full_disk_with_acknowledgements_before_the_spool() {
    assert_wrong(scenarios::disk_full, "ack-unspooled");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn g_disks_that_fail_with_acknowledgements_before_the_spool() {
    assert_wrong(scenarios::disk_bad, "ack-unspooled");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn h_wrong_clocks_when_one_is_believed() {
    assert_wrong(scenarios::clock_steps, "one-clock");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn j_index_keys_that_are_deleted_when_they_are_believed() {
    assert_wrong(scenarios::indexes_lost, "believe-indexes");
}
