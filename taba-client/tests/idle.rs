//! A Client that records nothing costs the machine nothing.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what the tests share is a test too")]

use std::fs;
use std::time::{Duration, SystemTime};

use taba_client::{Client, Clock, Config, TestSink, Timestamp};

/// How often the threads of taba-client have gone to sleep, in all.
fn sleeps() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let ours = tasks.filter_map(|task| {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).ok()?;
        let status = fs::read_to_string(task.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        name.starts_with("taba-").then(|| line.trim().parse::<u64>().unwrap())
    });
    ours.sum()
}

#[expect(clippy::disallowed_methods, reason = "the event is to have the time of the system")]
fn now() -> Timestamp {
    SystemTime::now().into()
}

#[test]
fn an_idle_client_hardly_ever_wakes_and_the_next_event_is_sent_at_once_with_the_right_time() {
    let sink = TestSink::new();
    let client = Client::builder("idle").sink(sink.clone()).build().unwrap();
    let counter = client.counter("bids").unwrap();
    counter.increment();
    // Another has an event that no Agent takes.
    let mut config = Config::default();
    config.drop_deadline = Duration::ZERO;
    let lonely = Client::builder("lonely").agent("http://127.0.0.1:1").config(config).build().unwrap();
    lonely.counter("bids").unwrap().increment();
    // At 200 ticks a second it would be 100 in this time.
    let is_still = || {
        let before = sleeps();
        std::thread::park_timeout(Duration::from_millis(500));
        sleeps() - before <= 4
    };
    assert!((0..40).any(|_| is_still()), "the threads still wake all the time");
    assert_eq!(lonely.stats().pending + lonely.stats().sealed, 1, "its event is kept");
    drop(lonely);

    let before = now();
    counter.increment();
    let arrived = || sink.events::<f64>("bids").len() == 2;
    let soon = (0..1600).any(|_| {
        std::thread::park_timeout(Duration::from_millis(5));
        arrived()
    });
    assert!(soon, "not even within the eight seconds, after which the next flush would come by itself");
    let time = sink.events::<f64>("bids")[1].time;
    // Times are those of the last tick of the kernel.
    let earliest = Timestamp::from_micros(before.as_micros() - 10_000);
    assert!((earliest..=now()).contains(&time), "{time} is not after {before}");
    drop((client, counter));
    assert!(Clock::system().now() >= earliest, "without a client, the clock is that of the system");
}
