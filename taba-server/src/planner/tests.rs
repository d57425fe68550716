//! The planner against a real `MemoryStore`: one by one, then with everything that can go wrong.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use taba_core::ledger::Why;
use taba_core::wire::{Block, Content, Refusal};
use taba_core::{
    ClientId, Envelope, Event, Events, Handler, Mark, MemoryStore, Part, SeqNo, StateKey, Store, TabName,
    TabType, VBucket,
};

use super::*;

/// A sum of whole numbers; stands in for the real `TotalsCounter`.
struct Sum;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Total {
    total: u64,
    latest: i64,
}

impl Handler for Sum {
    type Value = f64;
    type State = Total;
    type Projection = Total;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Total, event: Event<&f64>) {
        state.total += *event.value as u64;
        state.latest = state.latest.max(event.time.as_micros());
    }
    fn merge(&self, into: &mut Total, other: &Total) {
        into.total += other.total;
        into.latest = into.latest.max(other.latest);
    }
    fn project(&self, state: &Total, _: Timestamp) -> Total {
        state.clone()
    }
    fn aggregate(&self, into: &mut Total, other: &Total) {
        self.merge(into, other);
    }
    fn encoded_bytes_max(&self) -> usize {
        20
    }
    fn clamp(&self, state: &mut Total, latest: Timestamp) {
        state.latest = state.latest.min(latest.as_micros());
    }
}

fn registry() -> Registry {
    Registry::builder().with("TotalsCounter", Sum).with("Other", Sum).build().unwrap()
}

fn vbucket() -> VBucket {
    taba_core::VBuckets::default().get(0).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_secs(1_000_000_000)
}

fn name(text: &str) -> TabName {
    TabName::new(text).unwrap()
}

fn client(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

fn block_of(tab: &str, who: &str, tab_type: &str, values: &[f64]) -> Block {
    let times = vec![now(); values.len()];
    Block::of_events(name(tab), client(who), TabType::new(tab_type).unwrap(), Events::new(&times, values))
        .unwrap()
}

fn block(tab: &str, who: &str, values: &[f64]) -> Block {
    block_of(tab, who, "TotalsCounter", values)
}

fn batch(stream: u64, seq: u64, base: u64, events_before: u64, blocks: Vec<Block>) -> LaneBatch {
    let (stream, seq, base) = (StreamId(stream), SeqNo(seq), SeqNo(base));
    LaneBatch { stream, vbucket: 0, seq, base, events_before, blocks }
}

/// Everything around some planners: one store, what is under way, what was answered.
struct World {
    runtime: tokio::runtime::Runtime,
    store: Arc<MemoryStore>,
    handlers: Registry,
    versions: Versions,
    status: Status,
    quarantine: Quarantine,
    now: Timestamp,
    alive: Vec<StreamId>,
}

impl World {
    fn new() -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            store: Arc::new(MemoryStore::default()),
            handlers: registry(),
            versions: Versions::new(7),
            status: Status::default(),
            quarantine: Quarantine::default(),
            now: now(),
            alive: Vec::new(),
        }
    }

    fn handle(&self, planner: &mut Planner<u64>, input: Input<u64>) -> Vec<Action<u64>> {
        let env = Env {
            handlers: &self.handlers,
            versions: &self.versions,
            status: &self.status,
            quarantine: &self.quarantine,
            now: self.now,
            future_max: Duration::from_secs(10),
            is_alive: &|stream| self.alive.contains(&stream),
        };
        let mut actions = Vec::new();
        planner.handle(input, &env, &mut actions);
        actions
    }

    fn load(&self, wanted: &Wanted) -> Loaded {
        self.runtime.block_on(self.store.load(vbucket(), wanted)).unwrap()
    }

    fn store_commit(&self, commit: Commit) -> Committed {
        self.runtime.block_on(self.store.commit(vbucket(), commit)).unwrap()
    }

    /// Does what is wanted until nothing is, with a store that never fails.
    fn settle(&self, planner: &mut Planner<u64>, actions: Vec<Action<u64>>) -> Vec<(u64, Ack)> {
        let mut todo: VecDeque<_> = actions.into();
        let mut answers = Vec::new();
        while let Some(action) = todo.pop_front() {
            match action {
                Action::Load(wanted) => {
                    todo.extend(self.handle(planner, Input::Loaded(Ok(self.load(&wanted)))));
                }
                Action::Commit(commit) => {
                    let committed = self.store_commit(commit);
                    todo.extend(self.handle(planner, Input::Committed(Ok(committed))));
                }
                Action::Answer(ticket, ack) => answers.push((ticket, ack)),
                Action::Report(_) => {}
            }
        }
        answers
    }

    fn ingest(&self, planner: &mut Planner<u64>, batches: Vec<LaneBatch>) -> Vec<Ack> {
        for (ticket, batch) in batches.into_iter().enumerate() {
            let input = Input::Batch { ticket: ticket as u64, batch, arrived: self.now };
            assert!(self.handle(planner, input).is_empty());
        }
        let mut answers = Vec::new();
        while planner.is_waiting() {
            let actions = self.handle(planner, Input::Due);
            answers.extend(self.settle(planner, actions));
        }
        answers.sort_by_key(|(ticket, _)| *ticket);
        answers.into_iter().map(|(_, ack)| ack).collect()
    }

    /// A stored State: events, total, latest.
    fn state(&self, tab: &str, who: &str) -> Option<(u64, Total)> {
        let key = StateKey { tab: name(tab), client: client(who) };
        let loaded = self.load(&Wanted { tabs: Vec::new(), states: vec![key] });
        let (_, _, bytes) = loaded.states.first()?;
        let envelope = Envelope::decode(bytes).unwrap();
        Some((envelope.events, taba_core::decode_state(&Sum, envelope.version, &envelope.state).unwrap()))
    }

    fn total(&self, tab: &str, who: &str) -> u64 {
        self.state(tab, who).map_or(0, |(_, state)| state.total)
    }
}

fn answers(acks: &[Ack]) -> Vec<(Answer, u64)> {
    acks.iter().map(|ack| (ack.answer, ack.applied.0)).collect()
}

#[test]
fn a_batch_is_stored_once_and_its_copies_are_told_so() {
    let (world, mut planner) = (World::new(), Planner::default());
    let first = batch(1, 1, 1, 0, vec![block("a", "c", &[1.0, 2.0])]);
    let second = batch(1, 2, 1, 2, vec![block("a", "c", &[4.0])]);
    let acks = world.ingest(&mut planner, vec![first.clone(), first.clone(), second.clone()]);
    assert_eq!(answers(&acks), [(Answer::Applied, 1), (Answer::Duplicate, 1), (Answer::Applied, 2)]);
    let acks = world.ingest(&mut planner, vec![second, batch(1, 4, 2, 9, Vec::new())]);
    assert_eq!(answers(&acks), [(Answer::Duplicate, 2), (Answer::Nak, 2)]);
    assert_eq!(world.state("a", "c").unwrap(), (3, Total { total: 7, latest: now().as_micros() }));
    assert_eq!(world.load(&Wanted::default()).marks[0].1.events, 3);
    let mut other = Planner::default();
    assert_eq!(answers(&world.ingest(&mut other, vec![first])), [(Answer::Duplicate, 2)]);
}

#[test]
fn each_refusal_has_its_reason_and_stands_in_the_ledger() {
    let (world, mut planner) = (World::new(), Planner::default());
    world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![block("typed", "c", &[1.0])])]);
    let mut undecodable = block("x", "c", &[1.0, 2.0]);
    undecodable.content = Content::Events(Bytes::from_static(b"\xff\xff"));
    let mut version = block("x", "c", &[1.0; 3]);
    version.content = Content::State { version: 9, bytes: Bytes::new() };
    let mut huge = block("x", "c", &[1.0; 4]);
    huge.content = Content::State { version: 1, bytes: Bytes::from(vec![0; 21]) };
    let blocks = vec![
        block_of("x", "c", "Unheard", &[1.0; 5]),
        block_of("typed", "c", "Other", &[1.0; 6]),
        undecodable,
        version,
        huge,
        block("x", "d", &[3.0, f64::NAN, f64::INFINITY]),
        block_of("y", "c", "Other", &[1.0]),
        block("y", "c", &[1.0; 7]),
    ];
    let acks = world.ingest(&mut planner, vec![batch(1, 2, 1, 1, blocks)]);
    let refusal = |block, why, events| Refusal { block, why, events };
    let expected = vec![
        refusal(0, Why::UnknownType, 5),
        refusal(1, Why::TypeConflict, 6),
        refusal(2, Why::Undecodable, 2),
        refusal(3, Why::UnknownVersion, 3),
        refusal(4, Why::Undecodable, 4),
        refusal(5, Why::BadValue, 2),
        refusal(7, Why::TypeConflict, 7),
    ];
    assert_eq!(acks[0].refused, expected);
    assert_eq!(acks[0].answer, Answer::Applied, "a refusal never blocks its lane");
    assert_eq!(world.total("taba.dropped;where=server;why=type_conflict", "c"), 13);
    assert_eq!(world.total("taba.dropped;where=server;why=undecodable", "c"), 6);
    assert_eq!(world.total("taba.dropped;where=server;why=bad_value", "d"), 2);
    assert_eq!(world.state("x", "d").unwrap().0, 1, "the good value of a block with bad ones is kept");
    assert_eq!(world.state("x", "c"), None, "what was refused leaves no state");
    let report = world.status.report();
    assert_eq!((report.events_in, report.events_folded, report.events_refused), (32, 3, 29));
    assert_eq!(report.events_without_note, 0);
}

#[test]
fn without_the_ledgers_handler_refusals_are_counted_in_the_status() {
    let (mut world, mut planner) = (World::new(), Planner::default());
    world.handlers = Registry::builder().with("Other", Sum).build().unwrap();
    let acks = world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![block("a", "c", &[1.0; 3])])]);
    assert_eq!(acks[0].refused.len(), 1);
    assert_eq!(world.status.report().events_without_note, 3);
}

#[test]
fn a_gap_is_counted_under_its_stream() {
    let (world, mut planner) = (World::new(), Planner::default());
    world.ingest(&mut planner, vec![batch(255, 1, 1, 0, vec![block("a", "c", &[1.0; 2])])]);
    let acks = world.ingest(&mut planner, vec![batch(255, 5, 5, 42, vec![block("a", "c", &[1.0])])]);
    assert_eq!(answers(&acks), [(Answer::Applied, 5)]);
    assert_eq!(world.total("taba.dropped;where=agent;why=gap", "taba.stream/00000000000000ff"), 40);
    assert_eq!(world.status.report().events_gap, 40);
}

#[test]
fn times_in_the_future_are_set_back_and_counted() {
    let (world, mut planner) = (World::new(), Planner::default());
    let later = now().saturating_add(Duration::from_secs(3600));
    let times = [now(), later];
    let tab_type = TabType::new("TotalsCounter").unwrap();
    let raw = Block::of_events(name("raw"), client("c"), tab_type, Events::new(&times, &[1.0, 1.0])).unwrap();
    let mut partial = block("partial", "c", &[1.0; 5]);
    partial.latest = later;
    let state = taba_core::encode_state(&Total { total: 5, latest: later.as_micros() });
    partial.content = Content::State { version: 1, bytes: state.into() };
    world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![raw, partial])]);
    assert_eq!(world.state("raw", "c").unwrap().1.latest, now().as_micros());
    assert_eq!(world.state("partial", "c").unwrap().1.latest, now().as_micros());
    assert_eq!(
        world.total("taba.clamped", "c"),
        6,
        "1 of the raw ones, and all that may be in the partial state"
    );
}

#[test]
fn a_damaged_state_is_not_written_over() {
    let (world, mut planner) = (World::new(), Planner::default());
    world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![block("a", "c", &[1.0])])]);
    let key = StateKey { tab: name("a"), client: client("c") };
    let expect = world.load(&Wanted::default()).version;
    let next = Version { writer: 99, count: 1 };
    let bytes = Bytes::from_static(b"what is this");
    let states = vec![(key.clone(), Part::WHOLE, Some(bytes.clone()))];
    let commit = Commit { expect, next, states, ..Commit::default() };
    assert_eq!(world.store_commit(commit), Committed::Done);
    let acks = world.ingest(&mut planner, vec![batch(1, 2, 1, 1, vec![block("a", "c", &[1.0; 4])])]);
    assert_eq!(acks[0].refused, [Refusal { block: 0, why: Why::Undecodable, events: 4 }]);
    let loaded = world.load(&Wanted { tabs: Vec::new(), states: vec![key.clone()] });
    assert_eq!(loaded.states, [(key, Part::WHOLE, bytes)]);
    assert_eq!(world.total("taba.dropped;where=server;why=undecodable", "c"), 4);
}

#[test]
fn more_than_fits_one_commit_takes_several() {
    let (world, mut planner) = (World::new(), Planner::default());
    let blocks = |lane: u64| (0..1900).map(|n| block(&format!("t{lane}.{n}"), "c", &[1.0])).collect();
    let batches = (0..4).map(|lane| batch(lane, 1, 1, 0, blocks(lane))).collect();
    let acks = world.ingest(&mut planner, batches);
    assert!(acks.iter().all(|ack| ack.answer == Answer::Applied && ack.refused.is_empty()));
    assert_eq!(world.status.report().commits, 4);
    assert_eq!(world.total("t3.1899", "c"), 1);
}

#[test]
fn more_refusals_than_fit_are_counted_under_one_client() {
    let (world, mut planner) = (World::new(), Planner::default());
    let blocks = (0..1900).map(|n| block(&format!("t{n}"), &format!("c{n}"), &[1.0, f64::NAN])).collect();
    let acks = world.ingest(&mut planner, vec![batch(1, 1, 1, 0, blocks)]);
    assert_eq!((acks[0].answer, acks[0].refused.len()), (Answer::Applied, 1900));
    let tab = "taba.dropped;where=server;why=bad_value";
    let alone: u64 = (0..1900).map(|n| world.total(tab, &format!("c{n}"))).sum();
    assert!(alone > 0);
    assert_eq!(alone + world.total(tab, "taba.crowd"), 1900);
}

#[test]
fn old_marks_go_unless_their_stream_lives() {
    let (mut world, mut planner) = (World::new(), Planner::default());
    for stream in 1..=3 {
        world.ingest(&mut planner, vec![batch(stream, 1, 1, 0, vec![block("a", "c", &[1.0])])]);
    }
    world.now = now().saturating_add(Duration::from_secs(3600 * u64::from(MARK_HOURS + 1)));
    world.alive = vec![StreamId(2)];
    world.ingest(&mut planner, vec![batch(3, 2, 1, 1, vec![block("a", "c", &[1.0])])]);
    let mut streams: Vec<u64> =
        world.load(&Wanted::default()).marks.iter().map(|(stream, _)| stream.0).collect();
    streams.sort_unstable();
    assert_eq!(streams, [2, 3]);
    assert_eq!(world.total("a", "c"), 4);
}

#[test]
fn a_shrunk_cache_changes_no_answer() {
    let (world, mut planner) = (World::new(), Planner::default());
    for seq in 1..=20 {
        let blocks = (0..50).map(|n| block(&format!("t{}", (n * seq) % 77), "c", &[1.0])).collect();
        world.ingest(&mut planner, vec![batch(1, seq, 1, (seq - 1) * 50, blocks)]);
        planner.shrink();
    }
    let total: u64 = (0..77).map(|n| world.total(&format!("t{n}"), "c")).sum();
    assert_eq!(total, 1000);
    assert!(planner.cache_bytes() < 77 * 600);
    for _ in 0..10 {
        planner.shrink();
    }
    assert_eq!(planner.cache_bytes(), 0);
}

/// One sender's Lane in the model: every Batch it ever made, each with a power of two as the total of its values, so
/// that the stored total tells which Batches it contains.
#[derive(Default)]
struct Lane {
    made: Vec<LaneBatch>,
    /// The first Batch that is still kept, from 0.
    base: usize,
    /// Batches that were acknowledged.
    acked: u64,
}

/// What may happen.
#[derive(Clone, Debug)]
enum Op {
    /// A Lane sends its oldest unacknowledged Batch to one of two Servers, again or for the first time.
    Send {
        lane: usize,
        server: usize,
    },
    /// A Lane drops its oldest unacknowledged Batch.
    Drop {
        lane: usize,
    },
    Due {
        server: usize,
    },
    /// The store does the next thing that a Server wants.
    Work {
        server: usize,
        fault: Fault,
    },
    /// A Server dies; what it had asked of the store may still happen, or not.
    Crash {
        server: usize,
        lands: bool,
    },
    /// A commit of a dead Server reaches the store late.
    Land,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Nothing happened.
    Before,
    /// It happened, and the answer was lost.
    After,
    /// The Agent never hears the answers to the Batches.
    AcksLost,
}

fn ops() -> impl Strategy<Value = Op> {
    let fault = prop_oneof![6 => Just(Fault::None), 1 => Just(Fault::Before), 1 => Just(Fault::After), 1 => Just(Fault::AcksLost)];
    prop_oneof![
        6 => (0..3_usize, 0..2_usize).prop_map(|(lane, server)| Op::Send { lane, server }),
        1 => (0..3_usize).prop_map(|lane| Op::Drop { lane }),
        4 => (0..2_usize).prop_map(|server| Op::Due { server }),
        12 => (0..2_usize, fault).prop_map(|(server, fault)| Op::Work { server, fault }),
        1 => (0..2_usize, any::<bool>()).prop_map(|(server, lands)| Op::Crash { server, lands }),
        1 => Just(Op::Land),
    ]
}

struct Model {
    world: World,
    lanes: [Lane; 3],
    planners: [Planner<u64>; 2],
    /// What each Server wants of the store.
    wants: [Option<Action<u64>>; 2],
    late: Vec<Commit>,
    made: u32,
}

impl Model {
    fn new() -> Self {
        let lanes = [Lane::default(), Lane::default(), Lane::default()];
        Self {
            world: World::new(),
            lanes,
            planners: Default::default(),
            wants: [None, None],
            late: Vec::new(),
            made: 0,
        }
    }

    /// The oldest Batch of a Lane that was not acknowledged, made now if there is none.
    fn current(&mut self, lane: usize) -> LaneBatch {
        let place = (self.lanes[lane].acked as usize).max(self.lanes[lane].base);
        if place == self.lanes[lane].made.len() {
            let before = self.lanes[lane].made.iter().map(LaneBatch::events).sum();
            let mut values = vec![2_f64.powi(self.made as i32)];
            values.extend(vec![0.0; (self.made % 3) as usize]);
            // Some carry values that are refused: they must be counted as often, and as exactly, as the others.
            values.extend(vec![f64::NAN; (self.made % 2) as usize]);
            let blocks = vec![block(&format!("t{}", lane % 2), &format!("c{lane}"), &values)];
            self.lanes[lane].made.push(batch(lane as u64, place as u64 + 1, 1, before, blocks));
            self.made += 1;
        }
        let mut batch = self.lanes[lane].made[place].clone();
        batch.base = SeqNo(self.lanes[lane].base.max(place.min(self.lanes[lane].acked as usize)) as u64 + 1);
        batch
    }

    fn step(&mut self, op: &Op) {
        match *op {
            // A sum of powers of two stays exact in a u64 up to here.
            Op::Send { lane, server }
                if self.made < 50 || self.lanes[lane].made.len() > self.lanes[lane].acked as usize =>
            {
                let batch = self.current(lane);
                let input = Input::Batch { ticket: lane as u64, batch, arrived: self.world.now };
                self.feed(server, input, Fault::None);
            }
            Op::Send { .. } => {}
            Op::Drop { lane } => {
                let lane = &mut self.lanes[lane];
                let place = (lane.acked as usize).max(lane.base);
                lane.base = (place + 1).min(lane.made.len());
            }
            Op::Due { server } => self.feed(server, Input::Due, Fault::None),
            Op::Work { server, fault } => self.work(server, fault),
            Op::Crash { server, lands } => {
                self.planners[server] = Planner::default();
                if let (Some(Action::Commit(commit)), true) = (self.wants[server].take(), lands) {
                    self.late.push(commit);
                }
            }
            Op::Land => {
                if let Some(commit) = self.late.pop() {
                    let _ = self.world.store_commit(commit);
                }
            }
        }
        self.audit();
    }

    fn feed(&mut self, server: usize, input: Input<u64>, fault: Fault) {
        for action in self.world.handle(&mut self.planners[server], input) {
            match action {
                Action::Answer(lane, ack) if fault != Fault::AcksLost => {
                    let lane = &mut self.lanes[lane as usize];
                    // Answers overtake each other: only news counts.
                    if matches!(ack.answer, Answer::Applied | Answer::Duplicate | Answer::Nak) {
                        lane.acked = lane.acked.max(ack.applied.0);
                    }
                }
                Action::Answer(..) | Action::Report(_) => {}
                wanted => assert!(self.wants[server].replace(wanted).is_none(), "one thing at a time"),
            }
        }
    }

    fn work(&mut self, server: usize, fault: Fault) {
        let Some(wanted) = self.wants[server].take() else { return };
        let is_failed = matches!(fault, Fault::Before | Fault::After);
        let input = match wanted {
            Action::Load(wanted) if !is_failed => Input::Loaded(Ok(self.world.load(&wanted))),
            Action::Load(_) => Input::Loaded(Err(Failed)),
            Action::Commit(_) if fault == Fault::Before => Input::Committed(Err(Failed)),
            Action::Commit(commit) => {
                let committed = self.world.store_commit(commit);
                Input::Committed(if is_failed { Err(Failed) } else { Ok(committed) })
            }
            Action::Answer(..) | Action::Report(_) => unreachable!("the store is not asked for answers"),
        };
        self.feed(server, input, fault);
    }

    /// What the stored States and marks say together holds at every moment, whoever has just crashed.
    fn audit(&self) {
        let marks: BTreeMap<StreamId, Mark> = self.world.load(&Wanted::default()).marks.into_iter().collect();
        for (number, lane) in self.lanes.iter().enumerate() {
            let mark = marks.get(&StreamId(number as u64)).copied().unwrap_or_default();
            let up_to = &lane.made[..mark.seq.0 as usize];
            assert_eq!(mark.events, up_to.iter().map(LaneBatch::events).sum::<u64>(), "lane {number}");
            assert!(lane.acked <= mark.seq.0, "lane {number}: acknowledged before it was stored");
            let who = format!("c{number}");
            let (folded, state) = self.world.state(&format!("t{}", number % 2), &who).unwrap_or_default();
            let refused = self.world.total("taba.dropped;where=server;why=bad_value", &who);
            let stream = format!("taba.stream/{number:016x}");
            let gap = self.world.total("taba.dropped;where=agent;why=gap", &stream);
            assert_eq!(
                folded + refused + gap,
                mark.events,
                "lane {number}: folded + refused + gap = up to the mark"
            );
            let contained = up_to.iter().filter(|batch| state.total & value_of(batch) != 0);
            let contained: u64 = contained.map(LaneBatch::events).sum();
            assert_eq!(folded + refused, contained, "lane {number}: each batch in it counts once");
            let not_up_to: u64 = lane.made[mark.seq.0 as usize..].iter().map(value_of).sum();
            assert_eq!(state.total & not_up_to, 0, "lane {number}: nothing behind the mark is in it");
            for kept in up_to.iter().skip(lane.base) {
                assert_ne!(state.total & value_of(kept), 0, "lane {number}: {} is lost", kept.seq);
            }
        }
    }

    /// Everything works again: all Lanes must drain.
    fn heal(&mut self) {
        for commit in std::mem::take(&mut self.late) {
            let _ = self.world.store_commit(commit);
        }
        for lane in 0..3 {
            for _ in 0..200 {
                let at = (self.lanes[lane].acked as usize).max(self.lanes[lane].base);
                if at == self.lanes[lane].made.len() {
                    break;
                }
                self.step(&Op::Send { lane, server: lane % 2 });
                for _ in 0..20 {
                    self.step(&Op::Due { server: lane % 2 });
                    self.step(&Op::Work { server: lane % 2, fault: Fault::None });
                }
            }
            let at = (self.lanes[lane].acked as usize).max(self.lanes[lane].base);
            assert_eq!(at, self.lanes[lane].made.len(), "lane {lane} does not drain");
        }
    }
}

/// The power of two that only this Batch adds.
fn value_of(batch: &LaneBatch) -> u64 {
    let mut state = registry().get("TotalsCounter").unwrap().empty_state();
    let Content::Events(columns) = &batch.blocks[0].content else {
        unreachable!("the model sends raw events")
    };
    let registry = registry();
    let handler = registry.get("TotalsCounter").unwrap();
    handler
        .fold_columns(&mut state, columns, batch.blocks[0].events as usize, taba_core::Arrival::ANY)
        .unwrap();
    taba_core::decode_state(&Sum, 1, &handler.encode(&state)).unwrap().total
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn two_servers_on_one_store_count_everything_once(ops in proptest::collection::vec(ops(), 1..150)) {
        let mut model = Model::new();
        for op in &ops {
            model.step(op);
        }
        model.heal();
    }
}

#[test]
fn a_store_that_fails_at_any_step_loses_and_doubles_nothing() {
    for fault in [Fault::Before, Fault::After, Fault::AcksLost] {
        for failing in 0.. {
            let mut model = Model::new();
            let mut works = 0;
            for round in 0..6 {
                for lane in 0..3 {
                    model.step(&Op::Send { lane, server: (lane + round) % 2 });
                }
                for server in [0, 1] {
                    model.step(&Op::Due { server });
                    while model.wants[server].is_some() {
                        model.step(&Op::Work {
                            server,
                            fault: if works == failing { fault } else { Fault::None },
                        });
                        works += 1;
                    }
                }
            }
            model.heal();
            if works <= failing {
                assert!(failing > 12, "the script works the store");
                break;
            }
        }
    }
}
