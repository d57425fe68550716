//! The real Lane and the real admission beside the specification, step by step: they send the same, hold the same, let
//! go of the same, and fold the same.
//!
//! Can this fail? The last test switches rules of the specification off, and sees that the two part.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use taba_agent::Config;
use taba_agent::lane::{Lane, LaneKey, NextMessage, OutgoingMessage};
use taba_agent::relay::ClockReading;
use taba_agent::spool::record::Record;
use taba_agent::spool::{MemorySpool, Spool};
use taba_core::wire::{Ack, Answer, Block, LaneBatch, Probe, Reader};
use taba_core::{ClientId, Events, Mark, SeqNo, StreamId, TabName, TabType, Timestamp};
use taba_server::admission::{Admission, ProbeOutcome, admit, admit_probe, mark_after, mark_below};
use taba_tests::spec::server::{Kind, Request};
use taba_tests::spec::{Checker, Dice, Rule, Rules, Size, Step, Times, World, store};

const VBUCKET: u16 = 3;
const WALKS: u64 = 5_000;
const STEPS: usize = 400;

const CHECKER: Checker = Checker {
    size: Size { agents: 1, servers: 2, shards: 1, nodes: 2, operators: 0, events: 12, repeats: true },
    times: Times::ENDLESS,
    rules: Rules::ALL,
    steps: STEPS,
    ticks: 15,
    loses: false,
    seed: 1,
};

#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    rewinds: u64,
    released: u64,
    folded: u64,
    turned_back: u64,
}

/// A real Lane that is given what the Lane of the specification is given.
struct Twin {
    lane: Lane,
    spool: MemorySpool,
}

impl Twin {
    fn new(stream: usize) -> Self {
        let mut bounds = Config::default().verify().unwrap().relay_options().dispatcher.lane;
        bounds.batch_bytes_max = 1 << 20;
        bounds.confirm_after = Duration::from_secs(CHECKER.times.confirm_after as u64);
        bounds.probe_interval = Duration::ZERO;
        bounds.spool_keeps_content = false;
        Self { lane: Lane::new(key(stream), bounds), spool: MemorySpool::new(1 << 40) }
    }

    fn append(&mut self, now: ClockReading, events: u8) {
        let fragments = self.lane.plan([&block(events)]);
        let stream = self.lane.key().stream;
        let written =
            self.spool.append(&Record::Merge { stream, taken_at: now.time, fragments: &fragments }).unwrap();
        self.lane.append(now, fragments.into_iter().zip(written.locations), written.position);
    }

    /// What it sends is what the specification sends.
    fn sends(&mut self, now: ClockReading, expected: &Request) {
        assert!(self.lane.make_ready(u64::MAX));
        let message = self.lane.send(now);
        match (message, expected.batch) {
            (Some(OutgoingMessage::Probe(probe)), None) => assert_eq!(probe, to_probe(expected)),
            (Some(OutgoingMessage::Batch(batch)), Some(_)) => {
                let mut bytes = Vec::new();
                batch.encode(&mut bytes);
                let bytes = Bytes::from(bytes);
                assert_eq!(LaneBatch::decode(&mut Reader::new(&bytes), &bytes).unwrap(), to_batch(expected));
            }
            (sent, _) => panic!("it sends {sent:?}, and should {expected:?}"),
        }
    }
}

const fn key(stream: usize) -> LaneKey {
    LaneKey { stream: StreamId(stream as u64), vbucket: VBUCKET }
}

fn block(events: u8) -> Block {
    let (times, values) = (vec![Timestamp::default(); events.into()], vec![1.0; events.into()]);
    let (tab, client) = (TabName::new("tab").unwrap(), ClientId::new("client").unwrap());
    Block::of_events(tab, client, TabType::new("Totals").unwrap(), Events::new(&times, &values)).unwrap()
}

fn to_batch(request: &Request) -> LaneBatch {
    let (seq, events) = request.batch.unwrap();
    LaneBatch::new(
        StreamId(request.stream as u64),
        VBUCKET,
        SeqNo(seq.into()),
        request.events_before.into(),
        vec![block(events.len())],
    )
    .with_base(SeqNo(request.base.into()))
}

fn to_probe(request: &Request) -> Probe {
    Probe::new(
        StreamId(request.stream as u64),
        VBUCKET,
        SeqNo(request.base.into()),
        request.events_before.into(),
    )
}

fn reading(now: u64) -> ClockReading {
    ClockReading { uptime: Duration::from_secs(now), time: Timestamp::from_secs(now as i64) }
}

/// One walk. The Agent of the specification is never killed: a real Lane is recovered from a Spool, which has tests of
/// its own.
fn walk(rules: Rules, dice: &mut Dice, tally: &mut Tally) {
    let mut world = Checker { rules, ..CHECKER }.world();
    let mut twins: BTreeMap<usize, Twin> = BTreeMap::new();
    let (mut now, calm) = (0, dice.roll(6));
    for _ in 0..STEPS {
        let step = match CHECKER.propose(&world, dice) {
            Step::Crash(..) => continue,
            step if step.is_fault() && dice.roll(6) < calm => continue,
            // A question that was not answered is asked again before anything else; the specification may choose.
            Step::Send(agent, lane) => {
                let stream = world.agents[0].lanes.get(lane).map(|lane| lane.stream);
                let twin = stream.and_then(|stream| twins.get(&stream));
                let asks = twin.is_some_and(|twin| twin.lane.next() == Some(NextMessage::Probe));
                if asks { Step::Probe(agent, lane) } else { Step::Send(agent, lane) }
            }
            step => step,
        };
        let before = world.clone();
        if !world.step(step) {
            continue;
        }
        now += u64::from(step == Step::Tick);
        match step {
            Step::Send(..) | Step::Probe(..) => sent(&before, &world, &mut twins, reading(now), tally),
            Step::GiveUp(_, lane) => {
                let stream = before.agents[0].lanes[lane].stream;
                twins.get_mut(&stream).unwrap().lane.give_back();
            }
            Step::Hear(_) => heard(&before, &world, step, &mut twins, Duration::from_secs(now), tally),
            Step::Work(server) => worked(&before, &world, server, tally),
            _ => {}
        }
        for lane in &world.agents[0].lanes {
            let Some(twin) = twins.get(&lane.stream) else { continue };
            assert_eq!(twin.lane.base(), SeqNo(lane.base().into()), "after {step:?}");
            let held = lane.retained.iter().map(|sealed| u64::from(sealed.events.len())).sum::<u64>();
            assert_eq!(twin.lane.events_held(), held, "after {step:?}");
            let to_send = lane.retained.iter().filter(|sealed| sealed.seq >= lane.cursor);
            let to_send = to_send.map(|sealed| u64::from(sealed.events.len())).sum::<u64>();
            assert_eq!(twin.lane.unapplied().events, to_send, "the cursors differ after {step:?}");
        }
    }
}

fn sent(
    before: &World,
    world: &World,
    twins: &mut BTreeMap<usize, Twin>,
    now: ClockReading,
    tally: &mut Tally,
) {
    let request = world.requests.last().unwrap();
    let stream = request.stream;
    let twin = twins.entry(stream).or_insert_with(|| Twin::new(stream));
    let last = |world: &World| {
        world.agents[0].lanes.iter().find(|lane| lane.stream == stream).map_or(0, |lane| lane.last)
    };
    match request.batch {
        // The Lane of the specification seals just before it sends.
        Some((seq, events)) if seq > last(before) => twin.append(now, events.len()),
        Some(_) => {}
        None => twin.lane.probe(),
    }
    twin.sends(now, request);
    tally.sent += 1;
}

fn heard(
    before: &World,
    world: &World,
    step: Step,
    twins: &mut BTreeMap<usize, Twin>,
    now: Duration,
    tally: &mut Tally,
) {
    let Step::Hear(number) = step else { return };
    let answer = before.answers[before.answers.len() - 1 - number];
    let ack = Ack::new(
        StreamId(answer.stream as u64),
        VBUCKET,
        SeqNo(answer.applied.into()),
        match answer.kind {
            Kind::Applied => Answer::Applied,
            Kind::Duplicate => Answer::Duplicate,
            Kind::Nak => Answer::Nak,
        },
    )
    .with_stable(SeqNo(answer.stable.into()));
    let twin = twins.get_mut(&answer.stream).unwrap();
    let unapplied = twin.lane.unapplied().events;
    let (_, released) = twin.lane.acknowledge(now, &ack);
    let expected = world.agents[0].released.but(before.agents[0].released);
    assert_eq!(released.events, u64::from(expected.len()), "{ack:?}");
    tally.released += released.events;
    tally.rewinds += u64::from(twin.lane.unapplied().events > unapplied);
}

/// The real rules of admission, over what the Server of the specification had in its cache, make of the same messages
/// the same marks and the same sums.
fn worked(before: &World, world: &World, server: usize, tally: &mut Tally) {
    let was = &before.servers[server];
    let (Some(cache), Some(after)) = (was.cache, world.servers[server].cache) else { return };
    let mut marks: BTreeMap<usize, Mark> = BTreeMap::new();
    let real = |mark: store::Mark| Mark::new(SeqNo(mark.seq.into()), mark.events.into(), 0);
    let (mut folded, mut counted) = (cache.folded, u64::from(cache.counted));
    for request in &was.waiting {
        let mark = *marks.entry(request.stream).or_insert_with(|| real(cache.marks[request.stream]));
        let Some((_, events)) = request.batch else {
            let probe = to_probe(request);
            if let ProbeOutcome::Gap { events_lost } = admit_probe(Some(mark), &probe) {
                counted += events_lost;
                marks.insert(request.stream, mark_below(&probe, 0));
            }
            continue;
        };
        let batch = to_batch(request);
        match admit(Some(mark), &batch) {
            Admission::Duplicate | Admission::Nak => tally.turned_back += 1,
            admitted => {
                if let Admission::AfterGap { events_lost } = admitted {
                    counted += events_lost;
                }
                folded.fold(events);
                tally.folded += 1;
                marks.insert(request.stream, mark_after(&batch, 0));
            }
        }
    }
    for (stream, mark) in marks {
        assert_eq!(real(after.marks[stream]), mark, "stream {stream}");
    }
    assert_eq!((after.folded, u64::from(after.counted)), (folded, counted));
}

#[test]
fn the_lane_and_the_admission_do_what_the_specification_does() {
    let mut tally = Tally::default();
    for seed in 0..WALKS {
        walk(Rules::ALL, &mut Dice::new(seed), &mut tally);
    }
    println!("{tally:?}");
    assert!(tally.rewinds > 100 && tally.released > 100, "hardly anything has happened: {tally:?}");
    assert!(tally.folded > 1_000 && tally.turned_back > 1_000, "hardly anything has happened: {tally:?}");
}

#[test]
fn they_part_where_the_specification_lacks_a_rule() {
    let rules = [
        Rule::GapFreeOrder,
        Rule::StableBeforeRelease,
        Rule::ConfirmAfterT,
        Rule::ConfirmFromSent,
        Rule::FreshOnlyFromCommits,
        Rule::RewindOnLowerAnswer,
        Rule::RewindForgetsAnswers,
        Rule::BaseTold,
    ];
    for rule in rules {
        let mut walks = (0..WALKS).map(|seed| {
            std::panic::catch_unwind(|| {
                walk(Rules::ALL.without(rule), &mut Dice::new(seed), &mut Tally::default());
            })
        });
        assert!(walks.any(|walk| walk.is_err()), "without {rule} they do the same");
    }
}
