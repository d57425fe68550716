use taba_core::ledger::Why;
use taba_core::wire::{Ack, Answer, Block};
use taba_core::{ClientId, Events, SeqNo, TabName, TabType, Timestamp, VBuckets};

use super::*;
use crate::config::Config;
use crate::dispatcher::server::TRIAL_BATCHES_MAX;
use crate::spool::record::Record;
use crate::spool::{MemorySpool, Spool};

mod servers;

const LINGER: Duration = ms(20);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn options(servers: usize) -> DispatcherOptions {
    let servers = (0..servers).map(|n| format!("http://server{n}:1").parse().unwrap()).collect();
    let mut options = Config::default().verify().unwrap().relay_options().dispatcher;
    options.lane.spool_keeps_content = false;
    DispatcherOptions { servers, linger: LINGER, ..options }
}

fn dispatcher(servers: usize, change: impl FnOnce(&mut DispatcherOptions)) -> Dispatcher {
    let mut options = options(servers);
    change(&mut options);
    Dispatcher::new(options, VBuckets::default(), StreamId(7), 1)
}

fn block(bytes: usize) -> Block {
    let (tab, client) = (TabName::new(&"x".repeat(bytes)).unwrap(), ClientId::new("web").unwrap());
    let times = [Timestamp::from_secs(1)];
    Block::of_events(tab, client, TabType::new("T").unwrap(), Events::new(&times, &[1.0])).unwrap()
}

fn at(uptime: Duration) -> ClockReading {
    ClockReading { uptime, time: Timestamp::from_secs(1) }
}

fn spool() -> MemorySpool {
    MemorySpool::new(1 << 40)
}

fn offer_block(dispatcher: &mut Dispatcher, now: Duration, vbucket: u16, block: &Block) {
    let fragments = dispatcher.lane(vbucket).plan([block]);
    let record = Record::Merge { stream: StreamId(7), taken_at: Timestamp::default(), fragments: &fragments };
    let locations = spool().append(&record).unwrap().locations;
    dispatcher.append(at(now), vbucket, fragments.into_iter().zip(locations).collect(), 0);
}

fn offer(dispatcher: &mut Dispatcher, now: Duration, vbuckets: std::ops::Range<u16>) {
    vbuckets.for_each(|vbucket| offer_block(dispatcher, now, vbucket, &block(1)));
}

fn handle(dispatcher: &mut Dispatcher, now: Duration, input: Input) -> Vec<Request> {
    let mut actions = Vec::new();
    dispatcher.handle(at(now), input, u64::MAX, &mut actions);
    let sent = actions.into_iter().filter_map(|action| match action {
        Action::Send(request) => Some(request),
        _ => None,
    });
    sent.collect()
}

fn tick(dispatcher: &mut Dispatcher, now: Duration) -> Vec<Request> {
    handle(dispatcher, now, Input::Tick)
}

fn acks(request: &Request, answer: Answer) -> Vec<Ack> {
    let ack = |batch: &crate::lane::OutgoingBatch| {
        let applied = if answer == Answer::Applied { batch.seq } else { SeqNo(batch.seq.0 - 1) };
        Ack::new(batch.lane.stream, batch.lane.vbucket, applied, answer)
    };
    request.batches.iter().map(ack).collect()
}

fn answered(request: &Request, answer: Answer) -> Input {
    Input::Answered { request: request.id, acks: acks(request, answer), server_time: None }
}

fn failed(request: &Request) -> Input {
    Input::Failed { request: request.id, why: "refused".into(), cause: FailureCause::Away, retry_after: None }
}

fn lanes(requests: &[Request]) -> usize {
    requests.iter().map(|request| request.batches.len()).sum()
}

#[test]
fn what_comes_while_lingering_travels_together() {
    let mut dispatcher = dispatcher(1, |_| {});
    assert_eq!(dispatcher.next_wake(), None);
    offer(&mut dispatcher, ms(0), 0..5);
    assert!(tick(&mut dispatcher, ms(0)).is_empty());
    assert_eq!(dispatcher.next_wake(), Some(LINGER));
    offer(&mut dispatcher, ms(10), 3..9);
    assert!(tick(&mut dispatcher, ms(10)).is_empty());
    let sent = tick(&mut dispatcher, LINGER);
    assert_eq!((sent.len(), lanes(&sent)), (1, 9));
    assert_eq!(dispatcher.next_wake(), None, "nothing to do but wait for the answer");
    assert!(handle(&mut dispatcher, ms(30), answered(&sent[0], Answer::Applied)).is_empty());
    assert!(dispatcher.is_drained());
    assert_eq!((dispatcher.unapplied(), dispatcher.events_held()), (Weight::default(), 11), "kept, in case");
}

#[test]
fn a_lane_waits_for_its_answer_and_then_goes_on_at_once() {
    let mut dispatcher = dispatcher(1, |_| {});
    offer(&mut dispatcher, ms(0), 0..1);
    let first = tick(&mut dispatcher, LINGER);
    offer(&mut dispatcher, ms(30), 0..1);
    assert!(tick(&mut dispatcher, ms(100)).is_empty());
    let second = handle(&mut dispatcher, ms(200), answered(&first[0], Answer::Applied));
    assert_eq!(second[0].batches[0].seq, SeqNo(2), "it has lingered long enough");
}

#[test]
fn much_goes_out_without_lingering_and_within_the_bounds() {
    let mut dispatcher = dispatcher(1, |options| {
        options.request_bytes_max = 2_000;
        options.requests_per_server_max = 3;
    });
    for index in 0..20 {
        offer_block(&mut dispatcher, ms(5), index, &block(400));
    }
    let sent = tick(&mut dispatcher, ms(5));
    assert_eq!(sent.len(), 3, "no more requests than there are slots");
    assert!(sent.iter().all(|request| request.message().len() <= 2_000 && request.batches.len() >= 3));
    assert_eq!(dispatcher.next_wake(), None);
    assert!(tick(&mut dispatcher, ms(50)).is_empty());
    let more = handle(&mut dispatcher, ms(60), answered(&sent[1], Answer::Applied));
    assert_eq!(more.len(), 1, "a slot was free, and is taken");
}

#[test]
fn lanes_of_a_failing_server_go_to_the_next_and_come_back() {
    let mut dispatcher = dispatcher(3, |_| {});
    offer(&mut dispatcher, ms(0), 0..300);
    let first = tick(&mut dispatcher, ms(20));
    assert_eq!(first.len(), 3);
    let home: Vec<_> = first.iter().map(|request| (request.server, request.batches.len())).collect();
    assert!(home.iter().all(|(_, lanes)| *lanes > 50), "{home:?}");

    let moved = handle(&mut dispatcher, ms(25), failed(&first[0]));
    assert_eq!(moved.len(), 2, "they are shared by the others");
    assert_eq!(lanes(&moved), first[0].batches.len());
    assert!(moved.iter().all(|request| request.server != first[0].server));
    for request in first[1..].iter().chain(&moved) {
        handle(&mut dispatcher, ms(30), answered(request, Answer::Applied));
    }
    assert!(dispatcher.is_drained());

    // Too early: still away from it. Then a few try it out, and when they succeed, the others follow.
    offer(&mut dispatcher, ms(40), 0..300);
    let early = tick(&mut dispatcher, ms(60));
    assert!(early.iter().all(|request| request.server != first[0].server));
    early
        .iter()
        .for_each(|request| drop(handle(&mut dispatcher, ms(65), answered(request, Answer::Applied))));
    offer(&mut dispatcher, ms(200), 0..300);
    let trial = tick(&mut dispatcher, ms(220));
    assert_eq!(lanes(&trial), 300);
    let tried = trial.iter().find(|request| request.server == first[0].server).unwrap();
    assert_eq!(tried.batches.len(), TRIAL_BATCHES_MAX);
    trial
        .iter()
        .for_each(|request| drop(handle(&mut dispatcher, ms(225), answered(request, Answer::Applied))));
    // It was away for 200 ms: after a second it has all of them.
    offer(&mut dispatcher, ms(1_300), 0..300);
    let back = tick(&mut dispatcher, ms(1_320));
    let now: Vec<_> = back.iter().map(|request| (request.server, request.batches.len())).collect();
    assert_eq!(now, home);
}

#[test]
fn the_only_server_is_tried_less_and_less_often() {
    let mut dispatcher = dispatcher(1, |_| {});
    offer(&mut dispatcher, ms(0), 0..100);
    let mut now = ms(20);
    let mut sent = tick(&mut dispatcher, now);
    let mut waits = Vec::new();
    for failures in 1..=8 {
        assert_eq!((sent.len(), lanes(&sent)), (1, 100), "with nobody else there, all try it");
        assert!(handle(&mut dispatcher, now, failed(&sent[0])).is_empty());
        assert_eq!(dispatcher.servers()[0].status(now).failures, failures);
        let wake = dispatcher.next_wake().unwrap();
        assert!(tick(&mut dispatcher, wake - ms(1)).is_empty());
        assert_eq!(dispatcher.next_wake(), Some(wake));
        waits.push(wake - now);
        now = wake;
        sent = tick(&mut dispatcher, now);
    }
    assert!(waits[0] <= ms(100) && waits[0] >= ms(50));
    assert!(waits.iter().all(|wait| *wait <= Config::default().backoff_max));
    assert!(waits[7] >= Config::default().backoff_max / 2);
    handle(&mut dispatcher, now, answered(&sent[0], Answer::Applied));
    assert_eq!(dispatcher.servers()[0].status(now).health, "up");
    assert!(dispatcher.is_drained());
}

#[test]
fn requests_that_fail_together_count_once() {
    let mut dispatcher = dispatcher(1, |options| options.request_bytes_max = 2_000);
    for index in 0..20 {
        offer_block(&mut dispatcher, ms(0), index, &block(400));
    }
    let sent = tick(&mut dispatcher, ms(0));
    assert!(sent.len() > 2);
    sent.iter().for_each(|request| assert!(handle(&mut dispatcher, ms(10), failed(request)).is_empty()));
    assert_eq!(dispatcher.servers()[0].health().failures(), 1);
    let asked = Input::Failed {
        request: RequestId(99),
        why: String::new(),
        cause: FailureCause::Away,
        retry_after: None,
    };
    assert!(handle(&mut dispatcher, ms(11), asked).is_empty(), "an unknown request changes nothing");
}

#[test]
fn a_server_that_asks_for_rest_gets_it() {
    let mut dispatcher = dispatcher(1, |_| {});
    offer(&mut dispatcher, ms(0), 0..1);
    let sent = tick(&mut dispatcher, ms(20));
    let retry_after = Some(Duration::from_secs(5));
    handle(
        &mut dispatcher,
        ms(30),
        Input::Failed { request: sent[0].id, why: "busy".into(), cause: FailureCause::Away, retry_after },
    );
    assert_eq!(dispatcher.next_wake(), Some(ms(5_030)));
    assert_eq!(dispatcher.servers()[0].status(ms(4_030)).backoff_ms, Some(1_000));
    assert_eq!(dispatcher.servers()[0].status(ms(30)).last_error.as_deref(), Some("busy"));
}

#[test]
fn a_lane_that_cannot_be_stored_rests_while_others_go_on() {
    for answer in [Answer::Unavailable, Answer::Busy] {
        let mut dispatcher = dispatcher(1, |_| {});
        offer(&mut dispatcher, ms(0), 0..2);
        let sent = tick(&mut dispatcher, ms(20));
        let mut acks = acks(&sent[0], Answer::Applied);
        acks[0].answer = answer;
        assert!(
            handle(&mut dispatcher, ms(30), Input::Answered { request: sent[0].id, acks, server_time: None })
                .is_empty()
        );
        let wake = dispatcher.next_wake().unwrap();
        assert!(wake > ms(30) && wake <= ms(130));
        offer(&mut dispatcher, ms(31), 0..2);
        assert_eq!(lanes(&tick(&mut dispatcher, ms(51).min(wake - ms(1)))), 1);
        let again = tick(&mut dispatcher, wake);
        assert_eq!(again[0].batches[0], sent[0].batches[0], "the same bytes");
    }
}

#[test]
fn a_lane_that_the_answer_does_not_mention_is_sent_again() {
    let mut dispatcher = dispatcher(1, |_| {});
    offer(&mut dispatcher, ms(0), 0..2);
    let sent = tick(&mut dispatcher, ms(20));
    let mut acks = acks(&sent[0], Answer::Applied);
    acks[0].stream = StreamId(8);
    handle(&mut dispatcher, ms(30), Input::Answered { request: sent[0].id, acks, server_time: None });
    let wake = dispatcher.next_wake().unwrap();
    assert_eq!(tick(&mut dispatcher, wake)[0].batches, sent[0].batches[..1]);
    assert_eq!(dispatcher.counts().batches_unanswered, 1);
}

#[test]
fn a_hurry_ends_lingering() {
    let mut dispatcher = dispatcher(1, |_| {});
    offer(&mut dispatcher, ms(0), 0..1);
    dispatcher.hurry(ms(1));
    assert_eq!(lanes(&tick(&mut dispatcher, ms(1))), 1);
}

#[test]
fn refusals_are_counted_once() {
    let mut dispatcher = dispatcher(1, |_| {});
    offer(&mut dispatcher, ms(0), 0..1);
    let sent = tick(&mut dispatcher, ms(20));
    let mut acks = acks(&sent[0], Answer::Applied);
    acks[0].refused = vec![taba_core::wire::Refusal::new(0, Why::UnknownType, 1)];
    handle(&mut dispatcher, ms(30), Input::Answered { request: sent[0].id, acks, server_time: None });
    assert_eq!(dispatcher.counts().refused[&Why::UnknownType], 1);
}

#[test]
fn who_joins_the_line_in_the_moment_of_a_dispatch_is_not_forgotten() {
    let mut dispatcher = dispatcher(1, |options| options.linger = Duration::ZERO);
    offer(&mut dispatcher, ms(5), 0..1);
    assert_eq!(lanes(&tick(&mut dispatcher, ms(5))), 1);
    offer(&mut dispatcher, ms(5), 1..2);
    assert_eq!(dispatcher.next_wake(), Some(ms(5)));
}

/// The answers to a request that asks: all is applied up to `applied`, and stable.
fn confirmed(request: &Request, applied: u64) -> Input {
    let ack = |key: LaneKey| {
        Ack::new(key.stream, key.vbucket, SeqNo(applied), Answer::Applied).with_stable(SeqNo(applied))
    };
    Input::Answered { request: request.id, acks: request.lanes().map(ack).collect(), server_time: None }
}

#[test]
fn idle_lanes_ask_together_when_their_time_has_come_and_then_rest_for_ever() {
    let mut dispatcher = dispatcher(1, |options| options.lane.confirm_after = ms(1_000));
    offer(&mut dispatcher, ms(0), 0..9);
    let sent = tick(&mut dispatcher, ms(20));
    handle(&mut dispatcher, ms(30), answered(&sent[0], Answer::Applied));
    assert_eq!(
        dispatcher.next_wake(),
        Some(ms(5_030)),
        "an answer that confirmed nothing is followed after a pause"
    );
    let asked = tick(&mut dispatcher, ms(5_030));
    assert_eq!((asked.len(), asked[0].probes.len(), asked[0].batches.len()), (1, 9, 0));
    let again = handle(&mut dispatcher, ms(5_040), confirmed(&asked[0], 0));
    assert_eq!(again[0].batches.len(), 9, "the store went back: all of it again");
    handle(&mut dispatcher, ms(5_050), answered(&again[0], Answer::Applied));
    assert_eq!(dispatcher.counts().rewinds, 9);
    let asked = tick(&mut dispatcher, ms(11_000));
    handle(&mut dispatcher, ms(11_001), confirmed(&asked[0], 1));
    assert_eq!((dispatcher.events_held(), dispatcher.next_wake()), (0, None));
    assert_eq!(dispatcher.counts().batches_replayed, 9);
}

#[test]
fn a_new_server_process_is_asked_at_once_by_all_lanes_that_keep_something() {
    let mut dispatcher = dispatcher(1, |options| options.lane.confirm_after = ms(60_000));
    offer(&mut dispatcher, ms(0), 0..9);
    assert!(
        handle(&mut dispatcher, ms(1), Input::NewServer).is_empty(),
        "what was never sent asks for nothing"
    );
    let sent = tick(&mut dispatcher, ms(20));
    assert!(handle(&mut dispatcher, ms(1_021), Input::NewServer).is_empty(), "an answer is under way");
    handle(&mut dispatcher, ms(1_030), answered(&sent[0], Answer::Applied));
    let asked = handle(&mut dispatcher, ms(4_040), Input::NewServer);
    assert_eq!((asked.len(), asked[0].probes.len(), asked[0].batches.len()), (1, 9, 0));
    let again = handle(&mut dispatcher, ms(4_050), confirmed(&asked[0], 0));
    assert_eq!(again[0].batches.len(), 9, "the store began anew: all of it again");
}

/// A Server that calls itself another one in each answer, as behind a proxy that mixes many.
#[test]
fn news_that_do_not_end_make_no_storm_of_probes() {
    let mut dispatcher = dispatcher(1, |options| options.lane.confirm_after = ms(60_000));
    offer(&mut dispatcher, ms(0), 0..9);
    let sent = tick(&mut dispatcher, ms(20));
    handle(&mut dispatcher, ms(30), answered(&sent[0], Answer::Applied));
    let mut probes = Vec::new();
    for now in (40..32_000).step_by(10) {
        let mut asked = handle(&mut dispatcher, ms(now), Input::NewServer);
        while let Some(request) = asked.pop() {
            probes.extend(std::iter::repeat_n(now, request.probes.len()));
            // Nothing becomes stable.
            let ack = |key: LaneKey| Ack::new(key.stream, key.vbucket, SeqNo(1), Answer::Applied);
            let acks = request.lanes().map(ack).collect();
            let answer = Input::Answered { request: request.id, acks, server_time: None };
            asked.extend(handle(&mut dispatcher, ms(now), answer));
        }
    }
    assert!((9 * 5..=9 * 12).contains(&probes.len()), "{} probes of 9 lanes in 32 s", probes.len());
}

#[test]
fn what_was_refused_is_sent_at_once_to_a_new_process() {
    let mut dispatcher = dispatcher(1, |_| {});
    offer(&mut dispatcher, ms(0), 0..9);
    let mut now = 20;
    let mut sent = tick(&mut dispatcher, ms(now));
    for _ in 0..8 {
        now += 4_000;
        handle(&mut dispatcher, ms(now), answered(&sent[0], Answer::Unavailable));
        sent = tick(&mut dispatcher, ms(now + 3_000));
    }
    now += 4_000;
    assert!(handle(&mut dispatcher, ms(now), answered(&sent[0], Answer::Unavailable)).is_empty());
    assert!(tick(&mut dispatcher, ms(now + 1)).is_empty(), "they rest");
    let again = handle(&mut dispatcher, ms(now + 2), Input::NewServer);
    assert_eq!(again[0].batches.len(), 9);
    handle(&mut dispatcher, ms(now + 3), answered(&again[0], Answer::Unavailable));
    assert_eq!(tick(&mut dispatcher, ms(now + 203))[0].batches.len(), 9, "and not for long the next time");
}

#[test]
fn replays_never_take_the_last_slot_of_a_server() {
    let mut dispatcher = dispatcher(1, |options| {
        (options.requests_per_server_max, options.request_bytes_max, options.linger) =
            (2, 2_000, Duration::ZERO);
    });
    let found = |vbucket| crate::spool::recovery::RecoveredBatch {
        seq: SeqNo(1),
        events_before: 0,
        blocks: 0,
        events: 5,
        lost: BTreeMap::new(),
        taken_at: Timestamp::from_secs(1),
        locations: vec![FragmentLocation {
            segment: crate::spool::SegmentId(1),
            offset: 0,
            bytes: 1_500 + vbucket,
            crc: 0,
        }],
    };
    for vbucket in 0..20 {
        let key = LaneKey { stream: StreamId(1), vbucket };
        let batches = vec![found(u32::from(vbucket))];
        dispatcher.recover(
            at(ms(0)),
            key,
            RecoveredLane { applied: SeqNo::NONE, batches, ..RecoveredLane::default() },
        );
    }
    let asked = tick(&mut dispatcher, ms(0));
    assert_eq!(
        (asked.len(), asked[0].probes.len()),
        (1, 20),
        "lanes of an earlier run ask first, and fit lanes_max"
    );
    // While they wait, what is fresh goes out.
    offer(&mut dispatcher, ms(1), 0..3);
    assert_eq!(lanes(&tick(&mut dispatcher, ms(1))), 3);
    assert_eq!(dispatcher.lanes(), 23);
}

#[test]
fn a_lane_of_an_earlier_stream_that_holds_nothing_is_gone() {
    let mut dispatcher = dispatcher(1, |options| {
        (options.lane.confirm_after, options.lane.probe_interval) = (Duration::ZERO, ms(10));
    });
    offer(&mut dispatcher, ms(0), 0..2);
    let sent = tick(&mut dispatcher, ms(20));
    dispatcher.set_stream(StreamId(8));
    offer(&mut dispatcher, ms(21), 0..1);
    assert_eq!(dispatcher.lanes(), 3);
    handle(&mut dispatcher, ms(30), answered(&sent[0], Answer::Applied));
    let asked = tick(&mut dispatcher, ms(60));
    let of_old = asked.iter().find(|request| !request.probes.is_empty()).unwrap();
    assert!(of_old.probes.iter().all(|probe| probe.stream == StreamId(7)));
    for request in &asked {
        handle(&mut dispatcher, ms(70), confirmed(request, 1));
    }
    assert_eq!(dispatcher.lanes(), 1, "only the lane that is appended to");
}

#[test]
fn a_lane_for_which_a_server_is_too_old_goes_to_the_next_and_all_others_stay() {
    let mut dispatcher = dispatcher(2, |_| {});
    offer(&mut dispatcher, ms(0), 0..32);
    let sent = tick(&mut dispatcher, ms(20));
    let (home, other) = (sent[0].server, sent[1].server);
    let mut answer = acks(&sent[0], Answer::Applied);
    let lane = sent[0].batches[0].lane;
    (answer[0].answer, answer[0].applied) = (Answer::Unavailable, SeqNo::NONE);
    answer[0].refused = vec![taba_core::wire::Refusal::new(0, Why::UnknownVersion, 1)];
    let answers = [
        Input::Answered { request: sent[0].id, acks: answer, server_time: None },
        answered(&sent[1], Answer::Applied),
    ];
    for answer in answers {
        assert!(handle(&mut dispatcher, ms(30), answer).is_empty(), "it rests first");
    }
    assert_eq!((dispatcher.lanes_too_new_for(home), dispatcher.lanes_too_new_for(other)), (1, 0));
    assert!(dispatcher.counts().refused.is_empty(), "nothing is dropped");
    let wake = dispatcher.next_wake().unwrap();
    let again = tick(&mut dispatcher, wake);
    assert_eq!((again[0].server, &again[0].batches[..]), (other, &sent[0].batches[..1]), "the same bytes");
    handle(&mut dispatcher, wake, answered(&again[0], Answer::Applied));
    assert_eq!(dispatcher.lanes_too_new_for(home), 0);

    // For a while it stays there; then its first choice is tried again.
    for (at, server) in [(ms(1_000), other), (ms(70_000), home)] {
        offer(&mut dispatcher, at, lane.vbucket..lane.vbucket + 1);
        let next = tick(&mut dispatcher, at + LINGER);
        let is_it = |request: &&Request| request.batches.iter().any(|batch| batch.lane == lane);
        assert_eq!(next.iter().find(is_it).unwrap().server, server);
        for request in &next {
            handle(&mut dispatcher, at + LINGER, answered(request, Answer::Applied));
        }
    }
}

/// Neither when a Server says so nor when it says so of a check.
#[test]
fn what_servers_are_too_old_for_is_tried_at_all_of_them_and_never_set_aside() {
    let mut dispatcher = dispatcher(2, |_| {});
    offer(&mut dispatcher, ms(0), 0..1);
    let (mut servers, mut now) = (Vec::new(), ms(20));
    for _ in 0..20 {
        let mut actions = Vec::new();
        dispatcher.handle(at(now), Input::Tick, u64::MAX, &mut actions);
        for action in actions {
            let Action::Send(request) = action else { panic!("{action:?}") };
            servers.push(request.server);
            let mut acks = acks(&request, Answer::Unavailable);
            let refusal = taba_core::wire::Refusal::new(0, Why::UnknownVersion, 1);
            acks.iter_mut().for_each(|ack| ack.refused = vec![refusal.clone()]);
            let answer = Input::Answered { request: request.id, acks, server_time: None };
            let mut actions = Vec::new();
            dispatcher.handle(at(now), answer, u64::MAX, &mut actions);
            assert!(actions.is_empty(), "{actions:?}");
        }
        now = dispatcher.next_wake().unwrap();
    }
    assert!(servers.windows(2).all(|pair| pair[0] != pair[1]), "in turns: {servers:?}");
    assert_eq!((servers.len(), dispatcher.events_held()), (20, 1));
}
