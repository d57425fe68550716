//! The simulation ends with every event stored once, and the same seed brings the same report.

use taba_bench::simulate::{Options, run};

#[test]
fn a_simulated_deployment_loses_and_doubles_nothing() {
    let run = || run(Options::quick(), &mut |_| {}).unwrap();
    let report = run();
    println!("{report}");
    assert_eq!(report.events_recorded, report.events_stored);
    let phases = &report.phases;
    assert_eq!(phases.len(), 6);
    assert!(phases.iter().all(|phase| phase.commits_per_second > 0.0 && phase.recovery_seconds.is_some()));
    assert!(phases[1].failed_requests > 0 && phases[2].failed_requests > 0, "Servers were lost");
    assert!(phases[3].store_errors > 0, "shards were away");
    assert!(phases[4].commits_taken_back > 0 && phases[4].conflicts > 0, "replicas that lag took over");
    let moves = phases[5].moves.as_ref().unwrap();
    assert!(moves.vbuckets > 0 && moves.seconds.is_some());
    assert_eq!(run(), report);
}
