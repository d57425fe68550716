//! Servers come, go, fail, hang and return: where their Lanes go meanwhile.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LANES: u16 = 256;

fn urls(names: &[&str]) -> Vec<ServerUrl> {
    names.iter().map(|name| format!("http://{name}:1").parse().unwrap()).collect()
}

fn dispatcher_of(names: &[&str]) -> Dispatcher {
    dispatcher(1, |options| {
        options.servers = urls(names);
        options.linger = Duration::ZERO;
        options.requests_per_server_max = 64;
    })
}

/// Sends something of every Lane, all of which is stored at once; which Server each went to.
fn homes(dispatcher: &mut Dispatcher, now: Duration) -> BTreeMap<u16, String> {
    offer(dispatcher, now, 0..LANES);
    let mut homes = BTreeMap::new();
    let mut sent = tick(dispatcher, now);
    while let Some(request) = sent.pop() {
        let url = dispatcher.servers()[request.server].url().url().to_owned();
        homes.extend(request.lanes().map(|lane| (lane.vbucket, url.clone())));
        sent.extend(handle(dispatcher, now, answered(&request, Answer::Applied)));
    }
    assert_eq!(homes.len(), usize::from(LANES), "every Lane has a Server");
    homes
}

fn count(homes: &BTreeMap<u16, String>, name: &str) -> usize {
    homes.values().filter(|url| **url == format!("http://{name}:1")).count()
}

#[test]
fn a_server_that_joins_takes_its_lanes_little_by_little_and_no_other_lane_moves() {
    let mut dispatcher = dispatcher_of(&["a", "b"]);
    let before = homes(&mut dispatcher, ms(0));
    dispatcher.set_servers(ms(1_000), &urls(&["a", "b", "c"]));
    let mut lanes = Vec::new();
    let mut all = before.clone();
    for second in 1..=11 {
        let after = homes(&mut dispatcher, ms(second * 1_000));
        let moved = |(lane, url): (&u16, &String)| url != &all[lane];
        assert!(after.iter().filter(|entry| moved(*entry)).all(|(_, url)| url == "http://c:1"));
        lanes.push(count(&after, "c"));
        all = after;
    }
    assert!(lanes.is_sorted() && (1..16).contains(&lanes[0]), "{lanes:?}");
    assert!(lanes[5] > lanes[0] && lanes[5] < lanes[10], "{lanes:?}");
    assert!((60..110).contains(&lanes[10]), "a third: {lanes:?}");

    dispatcher.set_servers(ms(12_000), &urls(&["c", "b"]));
    let after = homes(&mut dispatcher, ms(12_000));
    assert!(after.iter().all(|(lane, url)| url == &all[lane] || all[lane] == "http://a:1"));
    assert_eq!(count(&after, "a"), 0);
}

#[test]
fn a_server_that_returns_has_its_lanes_back_within_ten_seconds_and_not_at_once() {
    let mut dispatcher = dispatcher_of(&["a", "b", "c"]);
    let before = homes(&mut dispatcher, ms(0));
    offer(&mut dispatcher, ms(10), 0..LANES);
    let sent = tick(&mut dispatcher, ms(10));
    let (gone, others): (Vec<_>, Vec<_>) = sent.into_iter().partition(|request| request.server == 0);
    let moved = handle(&mut dispatcher, ms(20), failed(&gone[0]));
    assert_eq!(lanes(&moved), lanes(&gone), "at once, and all of them");
    for request in others.iter().chain(&moved) {
        handle(&mut dispatcher, ms(30), answered(request, Answer::Applied));
    }
    // It is away for a minute.
    let trial = |dispatcher: &mut Dispatcher, now, is_up: bool| {
        offer(dispatcher, now, 0..LANES);
        let mut sent = tick(dispatcher, now);
        while let Some(request) = sent.pop() {
            let fails = request.server == 0 && !is_up;
            let input = if fails { failed(&request) } else { answered(&request, Answer::Applied) };
            assert!(request.server > 0 || lanes(std::slice::from_ref(&request)) <= TRIAL_BATCHES_MAX);
            sent.extend(handle(dispatcher, now, input));
        }
    };
    for second in 1..60 {
        trial(&mut dispatcher, ms(second * 1_000), false);
    }
    let back = ms(63_000);
    trial(&mut dispatcher, back, true);
    let at = |dispatcher: &mut Dispatcher, after| count(&homes(dispatcher, back + after), "a");
    let first = at(&mut dispatcher, ms(1));
    assert!((1..16).contains(&first), "{first}");
    assert_eq!(dispatcher.servers()[0].status(back + ms(5_000)).share_percent, 56);
    let half = at(&mut dispatcher, ms(5_000));
    assert!(half > first && half < count(&before, "a"), "{half}");
    assert_eq!(homes(&mut dispatcher, back + RETURN_TIME_MAX), before);
}

#[test]
fn lanes_leave_a_server_that_hangs_within_seconds_and_all_stay_where_all_hang() {
    let mut dispatcher = dispatcher_of(&["a", "b"]);
    dispatcher.options.requests_per_server_max = 1;
    offer(&mut dispatcher, ms(0), 0..LANES);
    let sent = tick(&mut dispatcher, ms(0));
    assert_eq!(sent.len(), 2);
    let (of_a, of_b) = if sent[0].server == 0 { (&sent[0], &sent[1]) } else { (&sent[1], &sent[0]) };
    handle(&mut dispatcher, ms(10), answered(of_b, Answer::Applied));
    // Others that are at home there come, and wait for its slot.
    let other: Vec<u16> = (LANES..LANES + 64).collect();
    other.iter().for_each(|vbucket| offer(&mut dispatcher, ms(20), *vbucket..*vbucket + 1));
    let first = tick(&mut dispatcher, ms(20));
    assert!(first.iter().all(|request| request.server == 1));
    let waiting = other.len() - lanes(&first);
    assert!(waiting > 16);
    handle(&mut dispatcher, ms(30), answered(&first[0], Answer::Applied));
    let wake = dispatcher.next_wake().unwrap();
    assert_eq!(wake, ms(2_000), "it hangs");
    let moved = tick(&mut dispatcher, wake);
    assert_eq!((lanes(&moved), moved[0].server), (waiting, 1));
    handle(&mut dispatcher, ms(2_010), answered(&moved[0], Answer::Applied));

    // It answers: it is slow, and so given half of its Lanes for now.
    handle(&mut dispatcher, ms(3_000), answered(of_a, Answer::Applied));
    assert_eq!(dispatcher.servers()[0].status(ms(3_000)).share_percent, 50);
    assert_eq!(dispatcher.servers()[1].status(ms(3_000)).share_percent, 100);

    // Both hang: each keeps its own.
    offer(&mut dispatcher, ms(20_000), 0..LANES);
    let sent = tick(&mut dispatcher, ms(20_000));
    offer(&mut dispatcher, ms(20_010), LANES..LANES + 64);
    assert!(tick(&mut dispatcher, ms(20_010)).is_empty() && tick(&mut dispatcher, ms(29_000)).is_empty());
    assert_eq!(sent.len(), 2);
    assert_eq!(lanes(&handle(&mut dispatcher, ms(29_010), answered(&sent[0], Answer::Applied))), 64);
}

#[test]
fn a_deployment_that_commits_rarely_is_not_slow() {
    let mut dispatcher = dispatcher_of(&["a", "b"]);
    for round in 0..4 {
        let start = ms(round * 10_000);
        offer(&mut dispatcher, start, 0..LANES);
        for request in tick(&mut dispatcher, start) {
            handle(&mut dispatcher, start + ms(1_500), answered(&request, Answer::Applied));
        }
    }
    offer(&mut dispatcher, ms(50_000), 0..LANES);
    let sent = tick(&mut dispatcher, ms(50_000));
    for request in &sent {
        handle(&mut dispatcher, ms(58_000), answered(request, Answer::Applied));
    }
    assert!((0..2).all(|place| dispatcher.servers()[place].status(ms(58_000)).share_percent == 100));
}

#[test]
fn one_that_leaves_answers_what_it_was_sent_and_then_its_place_is_anothers() {
    let mut dispatcher = dispatcher_of(&["a", "b"]);
    offer(&mut dispatcher, ms(0), 0..LANES);
    let sent = tick(&mut dispatcher, ms(0));
    dispatcher.set_servers(ms(10), &[]);
    assert!(dispatcher.servers().iter().all(ServerState::is_listed), "never without a Server");
    dispatcher.set_servers(ms(10), &urls(&["c"]));
    assert_eq!(dispatcher.servers().len(), 3, "their places are in use");
    assert_eq!(dispatcher.servers()[0].status(ms(10)).health, "leaving");
    handle(&mut dispatcher, ms(20), answered(&sent[0], Answer::Applied));
    let again = handle(&mut dispatcher, ms(20), failed(&sent[1]));
    assert!(again.iter().all(|request| request.server == 2), "what failed goes to one of the new ones");
    dispatcher.set_servers(ms(30), &urls(&["c", "d", "e"]));
    assert_eq!(dispatcher.servers().len(), 3);
    again
        .iter()
        .for_each(|request| drop(handle(&mut dispatcher, ms(40), answered(request, Answer::Applied))));
    assert!(dispatcher.is_drained());
    let homes = homes(&mut dispatcher, ms(20_000));
    assert!(["c", "d", "e"].iter().all(|name| count(&homes, name) > 50), "{homes:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Offer(u16),
    /// Of the requests in flight, this one is answered, or not.
    Answer(usize, bool),
    Servers(Vec<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1_u64..3_000).prop_map(Step::Pass),
        3 => (0..64_u16).prop_map(Step::Offer),
        4 => (0..100_usize, prop::bool::weighted(0.6)).prop_map(|(which, is_ok)| Step::Answer(which, is_ok)),
        1 => prop::collection::vec(0..6_usize, 0..5).prop_map(Step::Servers),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the Servers do, nothing is sent to one that is not listed, no more than its slots, and no Lane waits
    /// for long while a Server answers.
    #[test]
    fn no_lane_is_without_a_server_while_one_is_up(steps in prop::collection::vec(step(), 1..120)) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let mut dispatcher = dispatcher(1, |options| {
            (options.servers, options.requests_per_server_max) = (urls(&names[..2]), 2);
            // No Probes.
            options.lane.confirm_after = Duration::from_secs(3_600);
            options.lane.probe_interval = Duration::from_secs(3_600);
        });
        let mut now = ms(0);
        let mut in_flight: Vec<Request> = Vec::new();
        let take = |dispatcher: &Dispatcher, in_flight: &mut Vec<Request>, sent: Vec<Request>| {
            for request in sent {
                assert!(dispatcher.servers()[request.server].is_listed());
                in_flight.push(request);
            }
            for place in 0..dispatcher.servers().len() {
                assert!(in_flight.iter().filter(|request| request.server == place).count() <= 2);
            }
        };
        for step in steps {
            let sent = match step {
                Step::Pass(millis) => {
                    now += ms(millis);
                    tick(&mut dispatcher, now)
                }
                Step::Offer(vbucket) => {
                    offer(&mut dispatcher, now, vbucket..vbucket + 1);
                    tick(&mut dispatcher, now)
                }
                Step::Answer(_, _) if in_flight.is_empty() => continue,
                Step::Answer(which, is_ok) => {
                    let request = in_flight.remove(which % in_flight.len());
                    let input = if is_ok { answered(&request, Answer::Applied) } else { failed(&request) };
                    handle(&mut dispatcher, now, input)
                }
                Step::Servers(which) => {
                    let which: std::collections::BTreeSet<usize> = which.into_iter().collect();
                    let names: Vec<_> = which.into_iter().map(|which| names[which]).collect();
                    dispatcher.set_servers(now, &urls(&names));
                    tick(&mut dispatcher, now)
                }
            };
            take(&dispatcher, &mut in_flight, sent);
            prop_assert!(dispatcher.servers().iter().any(ServerState::is_listed));
        }
        // From here on one Server answers, all others hang; what they had is given up after 10 s.
        let up = dispatcher.servers().iter().position(ServerState::is_listed).unwrap();
        offer(&mut dispatcher, now, 0..64);
        let end = now + Duration::from_secs(25);
        let mut hung: Vec<(Duration, Request)> = Vec::new();
        while now < end && dispatcher.unapplied() != Weight::default() {
            let mut sent = tick(&mut dispatcher, now);
            sent.append(&mut in_flight);
            while let Some(request) = sent.pop() {
                if request.server == up {
                    sent.extend(handle(&mut dispatcher, now, answered(&request, Answer::Applied)));
                } else {
                    hung.push((now, request));
                }
            }
            let (over, still): (Vec<_>, Vec<_>) =
                hung.into_iter().partition(|(since, _)| now - *since >= ms(10_000));
            hung = still;
            for (_, request) in over {
                in_flight.extend(handle(&mut dispatcher, now, failed(&request)));
            }
            now += ms(50);
        }
        prop_assert_eq!(dispatcher.unapplied(), Weight::default(), "{:?}", dispatcher.servers());
    }
}
