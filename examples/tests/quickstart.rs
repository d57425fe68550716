//! The main job on real input, end to end: the shipped sample of flights through client, agent, server and embedded
//! store; every answer compared with the one computed from the file. In one process, then through the real binaries.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::process::Command;

use taba_examples::flights;

fn quickstart(arguments: &[&str]) -> String {
    // Makes sure that taba-server and taba-agent stand beside the quickstart, as they are now.
    taba_tests::binary("taba-server");
    let output = Command::new(taba_tests::binary("quickstart")).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn the_sample_is_answered_exactly_in_one_process() {
    let text = quickstart(&["--exit", "--verify", "--listen", "127.0.0.1:0"]);
    assert!(text.contains("300000 events of 226 clients are recorded, folded and stored"), "{text}");
    assert!(text.contains("verified against"), "{text}");
}

#[test]
fn the_sample_is_answered_exactly_through_the_real_processes() {
    let sample = flights::sample_path();
    let text = quickstart(&["--exit", "--verify", sample.to_str().unwrap()]);
    assert!(text.contains("taba-server at http://127.0.0.1:"), "{text}");
    assert!(text.contains("300000 events of 226 clients are recorded, folded and stored"), "{text}");
    assert!(text.contains("verified against"), "{text}");
}

#[test]
fn a_file_that_is_not_there_or_holds_no_flights_is_an_error_that_says_so() {
    let run = |path: &str| {
        let output = Command::new(taba_tests::binary("quickstart")).args(["--exit", path]).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run("no-such-file.csv").contains("no-such-file.csv"));
    let wrong = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
    std::fs::write(wrong.path(), "time,origin,destination,delay,distance\nsoon,ATL,MEM,1,2\n").unwrap();
    let said = run(wrong.path().to_str().unwrap());
    assert!(said.contains("invalid digit"), "{said}");
}

/// The comparison itself must be able to fail.
#[test]
fn a_wrong_answer_is_found() {
    use taba_core::{Event, Handler, Timestamp};

    let mut truth = flights::Truth::default();
    for flight in flights::read(&flights::sample_path()).unwrap().take(50) {
        truth.add(&flight.unwrap());
    }
    let mut all = truth.over_clients("delay");
    let handler = taba_handlers::CounterGroup::default();
    let mut state = Default::default();
    for value in all.values() {
        handler.fold(&mut state, Event::new(Timestamp::default(), &f64::from(*value)));
    }
    let value =
        handler.render(&handler.project_now(&state, Timestamp::default()), taba_core::Format::Summary);
    let mut row = serde_json::json!({ "events": all.count(), "value": value });
    let mut verified = taba_examples::verify::Verified::default();
    verified.compare("right", &row, &all).unwrap();
    row["value"]["pct"]["total"] = (all.total() + 1).into();
    assert!(verified.compare("a total that is off by one", &row, &all).is_err());
    row["value"]["pct"]["total"] = all.total().into();
    row["value"]["pct"]["pct"][6] = (f64::from(all.quantile(0.999)) * 1.02).into();
    assert!(verified.compare("a percentile that is off by 2 %", &row, &all).is_err());
}
