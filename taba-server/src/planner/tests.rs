//! The planner against a real `MemoryStore`: case by case, then, in `model`, with all faults.

mod accounts;
mod model;
mod outside;
mod packed;
mod parts;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use taba_core::ledger::Why;
use taba_core::limits::BATCH_BLOCKS_MAX;
use taba_core::wire::{Ack, Block, Content, LaneBatch, Probe, Refusal, WireError};
use taba_core::{
    ClientId, Envelope, Event, Events, Handler, MemoryStore, Part, Registry, SeqNo, StateKey, Store,
    StreamId, TabName, TabType, Timestamp, VBucket,
};

use super::*;
use crate::status::Status;
use crate::version::Versions;

/// A sum of whole numbers, in place of the real `TotalsCounter`.
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

/// The ids of all events, to see which are included and how often. As large numbers, so that a State is soon large enough to be
/// divided.
struct Ids;

impl Handler for Ids {
    type Value = f64;
    type State = Vec<u128>;
    type Projection = Total;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Vec<u128>, event: Event<&f64>) {
        let id = !(*event.value as u128);
        state.insert(state.partition_point(|other| *other < id), id);
    }
    fn merge(&self, into: &mut Vec<u128>, other: &Vec<u128>) {
        into.extend(other);
        into.sort_unstable();
    }
    fn project(&self, state: &Vec<u128>, _: Timestamp) -> Total {
        Total { total: state.len() as u64, latest: 0 }
    }
    fn aggregate(&self, into: &mut Total, other: &Total) {
        into.total += other.total;
    }
    fn encoded_bytes_max(&self) -> usize {
        usize::MAX
    }
}

/// A State from all its parts, and how many events it holds; `None` when there is none, an error when it cannot be read.
fn joined<H: Handler>(
    handler: &H,
    loaded: &Loaded,
    key: &StateKey,
) -> Result<Option<(u64, H::State)>, WireError> {
    let of_key = loaded.states.iter().filter(|(of, ..)| of == key);
    let parts: Vec<_> = of_key.map(|(_, part, bytes)| (*part, bytes.clone())).collect();
    if parts.is_empty() {
        return Ok(None);
    }
    let envelope = Envelope::join(&parts)?;
    let decode = |bytes| taba_core::decode_state(handler, envelope.version, bytes).unwrap();
    let (base, rest) = envelope.states();
    let mut state = base.map(|base| decode(base)).unwrap_or_default();
    handler.merge(&mut state, &decode(rest));
    Ok(Some((envelope.events, state)))
}

fn registry() -> Registry {
    let builder = Registry::builder().with("TotalsCounter", Sum).with("Other", Sum).with("Ids", Ids);
    builder.build().unwrap()
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
    LaneBatch::new(stream, 0, seq, events_before, blocks).with_base(base)
}

/// The environment of some planners: one store, actions in flight, answers.
struct World {
    runtime: tokio::runtime::Runtime,
    store: Arc<MemoryStore>,
    handlers: Registry,
    versions: Versions,
    status: Status,
    /// The Server's clock.
    now: Timestamp,
    /// The senders' clock.
    sent_at: Timestamp,
}

impl World {
    fn new() -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            store: Arc::new(MemoryStore::default()),
            handlers: registry(),
            versions: Versions::new(7),
            status: Status::default(),
            now: now(),
            sent_at: now(),
        }
    }

    fn handle<T>(&self, planner: &mut Planner<T>, input: PlannerInput<T>) -> Vec<PlannerAction<T>> {
        self.handle_as(&self.versions, planner, input)
    }

    /// As `handle`, by a Server with its own versions.
    fn handle_as<T>(
        &self,
        versions: &Versions,
        planner: &mut Planner<T>,
        input: PlannerInput<T>,
    ) -> Vec<PlannerAction<T>> {
        let env = Env {
            handlers: &self.handlers,
            versions,
            status: &self.status,
            now: self.now,
            future_max: Duration::from_secs(10),
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

    /// Runs one action against the store.
    fn perform(&self, planner: &mut Planner<u64>, action: PlannerAction<u64>) -> Vec<PlannerAction<u64>> {
        let input = match action {
            PlannerAction::Load(wanted) => PlannerInput::Loaded(Ok(self.load(&wanted))),
            PlannerAction::Commit(commit) => PlannerInput::Committed(Ok(self.store_commit(commit))),
            PlannerAction::Stabilise(version) => {
                self.runtime.block_on(self.store.stable(vbucket())).unwrap();
                PlannerInput::Stabilised(version, Ok(()))
            }
            PlannerAction::Answer(..)
            | PlannerAction::Report(_)
            | PlannerAction::Refused(_)
            | PlannerAction::Newer(_)
            | PlannerAction::Panicked(_) => {
                return Vec::new();
            }
        };
        self.handle(planner, input)
    }

    /// Runs actions until there are none, with a store that never fails.
    fn settle(&self, planner: &mut Planner<u64>, actions: Vec<PlannerAction<u64>>) -> Vec<(u64, Ack)> {
        let mut todo: VecDeque<_> = actions.into();
        let mut answers = Vec::new();
        while let Some(action) = todo.pop_front() {
            match action {
                PlannerAction::Answer(ticket, ack) => answers.push((ticket, ack)),
                action => todo.extend(self.perform(planner, action)),
            }
        }
        answers
    }

    fn give(&self, planner: &mut Planner<u64>, ticket: u64, message: IncomingMessage) {
        let input = PlannerInput::Message { ticket, message, arrived: self.now, sent_at: self.sent_at };
        assert!(self.handle(planner, input).is_empty());
    }

    fn tell(&self, planner: &mut Planner<u64>, messages: Vec<IncomingMessage>) -> Vec<Ack> {
        messages.into_iter().zip(0..).for_each(|(message, ticket)| self.give(planner, ticket, message));
        let mut answers = Vec::new();
        while planner.is_waiting() {
            let actions = self.handle(planner, PlannerInput::Due);
            answers.extend(self.settle(planner, actions));
        }
        answers.sort_by_key(|(ticket, _)| *ticket);
        answers.into_iter().map(|(_, ack)| ack).collect()
    }

    fn ingest(&self, planner: &mut Planner<u64>, batches: Vec<LaneBatch>) -> Vec<Ack> {
        self.tell(planner, batches.into_iter().map(IncomingMessage::Batch).collect())
    }

    /// A stored State: events, total, latest.
    fn state(&self, tab: &str, who: &str) -> Option<(u64, Total)> {
        let key = StateKey { tab: name(tab), client: client(who) };
        let loaded = self.load(&Wanted::default().with_states(vec![key.clone()]));
        joined(&Sum, &loaded, &key).unwrap()
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
fn marks_that_are_known_are_not_read_again() {
    let (world, mut planner) = (World::new(), Planner::default());
    let mut asked = |seq: u64, tab: &str| {
        let message = batch(1, seq, seq, 0, vec![block(tab, "c", &[1.0])]);
        world.give(&mut planner, 0, IncomingMessage::Batch(message));
        let mut known = Vec::new();
        let mut todo: VecDeque<_> = world.handle(&mut planner, PlannerInput::Due).into();
        while let Some(action) = todo.pop_front() {
            if let PlannerAction::Load(wanted) = &action {
                known.push(wanted.known);
            }
            todo.extend(world.perform(&mut planner, action));
        }
        known
    };
    assert_eq!(asked(1, "a"), [None]);
    let first = Some(world.load(&Wanted::default()).version);
    assert_eq!(asked(2, "b"), [first], "another Tab");
    let second = Some(world.load(&Wanted::default()).version);
    assert_eq!(asked(1, "b"), [second], "a copy");
    // Another Server commits, which is found out when the third Tab is read.
    let mut other = Planner::default();
    world.ingest(&mut other, vec![batch(2, 1, 1, 0, vec![block("a", "d", &[1.0])])]);
    assert_eq!(asked(3, "c"), [second, None]);
    assert_eq!(world.load(&Wanted::default()).marks.iter().filter(|(stream, _)| stream.0 <= 2).count(), 2);
}

#[test]
fn a_sender_that_has_nothing_leaves_nothing() {
    let (world, mut planner) = (World::new(), Planner::default());
    let probe = Probe::new(StreamId(5), 0, SeqNo(1), 0);
    let acks = world.tell(&mut planner, vec![IncomingMessage::Probe(probe)]);
    assert_eq!(answers(&acks), [(Answer::Applied, 0)]);
    let nak = world.ingest(&mut planner, vec![batch(6, 2, 1, 0, Vec::new())]);
    assert_eq!(answers(&nak), [(Answer::Nak, 0)]);
    assert_eq!(world.load(&Wanted::default()).marks, []);
}

#[test]
fn each_refusal_has_its_reason_and_stands_in_the_ledger() {
    let (world, mut planner) = (World::new(), Planner::default());
    world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![block("typed", "c", &[1.0])])]);
    let mut undecodable = block("x", "c", &[1.0, 2.0]);
    undecodable.content = Content::Events(Bytes::from_static(b"\xff\xff"));
    let mut version = block("x", "c", &[1.0; 3]);
    version.content = Content::State { version: 0, bytes: Bytes::new() };
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
    let refusal = |block, why, events| Refusal::new(block, why, events);
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
fn what_ends_with_the_latest_time_that_is_believed_is_not_set_back() {
    let (world, mut planner) = (World::new(), Planner::default());
    let latest = now().saturating_add(Duration::from_secs(10));
    let mut partial = block("a", "c", &[1.0; 5]);
    partial.latest = latest;
    let state = taba_core::encode_state(&Total { total: 5, latest: latest.as_micros() });
    partial.content = Content::State { version: 1, bytes: state.into() };
    world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![partial])]);
    assert_eq!(world.state("a", "c").unwrap(), (5, Total { total: 5, latest: latest.as_micros() }));
    assert_eq!(world.total("taba.clamped", "c"), 0);
}

#[test]
fn values_that_are_all_refused_leave_no_state_and_no_tab() {
    let (world, mut planner) = (World::new(), Planner::default());
    let acks = world
        .ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![block("a", "c", &[f64::NAN, f64::INFINITY])])]);
    assert_eq!(acks[0].refused, [Refusal::new(0, Why::BadValue, 2)]);
    assert_eq!(world.state("a", "c"), None);
    let loaded = world.load(&Wanted::default().with_tabs(vec![name("a")]));
    assert_eq!(loaded.tabs, []);
    assert_eq!(world.total("taba.dropped;where=server;why=bad_value", "c"), 2);
    // So another type may have the name.
    let acks = world.ingest(&mut planner, vec![batch(1, 2, 1, 2, vec![block_of("a", "c", "Other", &[1.0])])]);
    assert_eq!(acks[0].refused, []);
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
    let commit = Commit::new(expect, next).with_states(states);
    assert_eq!(world.store_commit(commit), Committed::Done);
    let acks = world.ingest(&mut planner, vec![batch(1, 2, 1, 1, vec![block("a", "c", &[1.0; 4])])]);
    assert_eq!(acks[0].refused, [Refusal::new(0, Why::Undecodable, 4)]);
    let loaded = world.load(&Wanted::default().with_states(vec![key.clone()]));
    assert_eq!(loaded.states, [(key, Part::WHOLE, bytes)]);
    assert_eq!(world.total("taba.dropped;where=server;why=undecodable", "c"), 4);
}

#[test]
fn more_than_fits_one_commit_takes_several() {
    let (world, mut planner) = (World::new(), Planner::default());
    let blocks =
        |lane: u64| (0..BATCH_BLOCKS_MAX).map(|n| block(&format!("t{lane}.{n}"), "c", &[1.0])).collect();
    let batches = (0..4).map(|lane| batch(lane, 1, 1, 0, blocks(lane))).collect();
    let acks = world.ingest(&mut planner, batches);
    assert!(acks.iter().all(|ack| ack.answer == Answer::Applied && ack.refused.is_empty()));
    assert_eq!(world.status.report().commits, 4);
    assert_eq!(world.total(&format!("t3.{}", BATCH_BLOCKS_MAX - 1), "c"), 1);
}

#[test]
fn more_refusals_than_fit_are_counted_under_one_client() {
    let (world, mut planner) = (World::new(), Planner::default());
    let blocks =
        (0..BATCH_BLOCKS_MAX).map(|n| block(&format!("t{n}"), &format!("c{n}"), &[1.0, f64::NAN])).collect();
    let acks = world.ingest(&mut planner, vec![batch(1, 1, 1, 0, blocks)]);
    assert_eq!((acks[0].answer, acks[0].refused.len()), (Answer::Applied, BATCH_BLOCKS_MAX));
    let tab = "taba.dropped;where=server;why=bad_value";
    let alone: u64 = (0..BATCH_BLOCKS_MAX).map(|n| world.total(tab, &format!("c{n}"))).sum();
    assert!(alone > 0);
    assert_eq!(alone + world.total(tab, "taba.crowd"), BATCH_BLOCKS_MAX as u64);
}

#[test]
fn a_mark_goes_when_both_clocks_say_that_it_is_old() {
    let days = Duration::from_secs(3600 * u64::from(MARK_HOURS + 1));
    let later = now().saturating_add(days);
    for (server, sender, left) in [(later, now(), 2), (now(), later, 2), (later, later, 1)] {
        let (mut world, mut planner) = (World::new(), Planner::default());
        let first = |lane| batch(lane, 1, 1, 0, vec![block("a", "c", &[1.0])]);
        world.ingest(&mut planner, vec![first(1), first(2)]);
        (world.now, world.sent_at) = (server, sender);
        world.ingest(&mut planner, vec![batch(2, 2, 2, 1, vec![block("a", "c", &[1.0])])]);
        let marks = world.load(&Wanted::default()).marks;
        assert_eq!(marks.len(), left);
        let hour = |stream| marks.iter().find(|(of, _)| *of == StreamId(stream)).unwrap().1.hour;
        assert_eq!(hour(2), hour_of(server.max(sender)), "the later clock is written");
    }
}

#[test]
fn the_slowest_clock_among_the_senders_of_a_commit_judges_the_marks() {
    let (mut world, mut planner) = (World::new(), Planner::default());
    world.ingest(&mut planner, (1..=4).map(|lane| batch(lane, 1, 1, 0, Vec::new())).collect());
    world.now = now().saturating_add(Duration::from_secs(3600 * u64::from(MARK_HOURS + 1)));
    for (stream, sent_at) in [(2, world.now), (3, now()), (4, world.now)] {
        world.sent_at = sent_at;
        world.give(&mut planner, stream, IncomingMessage::Batch(batch(stream, 2, 2, 0, Vec::new())));
    }
    let actions = world.handle(&mut planner, PlannerInput::Due);
    world.settle(&mut planner, actions);
    assert_eq!(world.load(&Wanted::default()).marks.len(), 4);
}

#[test]
fn clocks_may_be_as_far_apart_as_the_bound_says() {
    let (mut world, mut planner) = (World::new(), Planner::default());
    world.sent_at = now().saturating_sub(CLOCKS_APART_MAX);
    let acks = world.ingest(&mut planner, vec![batch(1, 1, 1, 0, Vec::new())]);
    assert_eq!(acks[0].answer, Answer::Applied);
    world.sent_at = world.sent_at.saturating_sub(Duration::from_micros(1));
    let acks = world.ingest(&mut planner, vec![batch(2, 1, 1, 0, Vec::new())]);
    assert_eq!(acks[0].answer, Answer::Misdated);
}

#[test]
fn clocks_that_are_far_apart_begin_no_lane_and_hold_up_none() {
    for ahead in [true, false] {
        let (mut world, mut planner) = (World::new(), Planner::default());
        world.ingest(&mut planner, vec![batch(1, 1, 1, 0, Vec::new())]);
        let apart = CLOCKS_APART_MAX + Duration::from_secs(1);
        world.sent_at = if ahead { now().saturating_add(apart) } else { now().saturating_sub(apart) };
        let acks =
            world.ingest(&mut planner, vec![batch(1, 2, 2, 0, Vec::new()), batch(2, 1, 1, 0, Vec::new())]);
        assert_eq!((acks[0].answer, acks[1].answer), (Answer::Applied, Answer::Misdated));
        assert_eq!(answers(&world.tell(&mut planner, vec![probe(3, 7, 70)])), [(Answer::Misdated, 6)]);
        assert_eq!(world.load(&Wanted::default()).marks.len(), 1);
        world.sent_at = now();
        assert_eq!(
            world.ingest(&mut planner, vec![batch(2, 1, 1, 0, Vec::new())])[0].answer,
            Answer::Applied
        );
        assert_eq!(world.status.report().messages_misdated, 2);
    }
}

fn probe(stream: u64, base: u64, events_before: u64) -> IncomingMessage {
    let (stream, base) = (StreamId(stream), SeqNo(base));
    IncomingMessage::Probe(Probe::new(stream, 0, base, events_before))
}

#[test]
fn a_probe_is_answered_by_a_commit_of_nothing_but_a_version() {
    let (world, mut planner) = (World::new(), Planner::default());
    assert_eq!(answers(&world.tell(&mut planner, vec![probe(1, 1, 0)])), [(Answer::Applied, 0)]);
    world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![block("a", "c", &[1.0])])]);
    world.give(&mut planner, 1, probe(1, 1, 0));
    let actions = world.handle(&mut planner, PlannerInput::Due);
    let [PlannerAction::Commit(commit)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(commit.pairs(), 1);
    let before = world.load(&Wanted::default());
    let (_, ack) = world.settle(&mut planner, actions).remove(0);
    assert_eq!((ack.answer, ack.applied, ack.stable), (Answer::Applied, SeqNo(1), SeqNo(1)));
    let after = world.load(&Wanted::default());
    assert_ne!(before.version, after.version);
    assert_eq!(before.marks, after.marks);
    assert_eq!(world.status.report().probes_answered, 2);
}

#[test]
fn a_probe_hears_of_what_the_same_commit_has_applied() {
    let (world, mut planner) = (World::new(), Planner::default());
    let first = IncomingMessage::Batch(batch(1, 1, 1, 0, vec![block("a", "c", &[1.0])]));
    let second = IncomingMessage::Batch(batch(1, 2, 1, 1, vec![block("a", "c", &[1.0])]));
    let acks = world.tell(&mut planner, vec![first.clone(), probe(1, 1, 0), second, first]);
    let applied = Answer::Applied;
    assert_eq!(answers(&acks), [(applied, 1), (applied, 2), (applied, 2), (Answer::Duplicate, 2)]);
    assert_eq!(world.status.report().commits, 1);
}

#[test]
fn a_gap_below_a_probe_is_counted_once() {
    let (world, mut planner) = (World::new(), Planner::default());
    world.ingest(&mut planner, vec![batch(255, 1, 1, 0, vec![block("a", "c", &[1.0; 2])])]);
    for _ in 0..2 {
        assert_eq!(answers(&world.tell(&mut planner, vec![probe(255, 5, 42)])), [(Answer::Applied, 4)]);
    }
    let tab = "taba.dropped;where=agent;why=gap";
    assert_eq!(world.total(tab, "taba.stream/00000000000000ff"), 40);
    let report = world.status.report();
    assert_eq!((report.gaps, report.events_gap), (1, 40));
    let acks = world.ingest(&mut planner, vec![batch(255, 5, 5, 42, vec![block("a", "c", &[1.0])])]);
    assert_eq!(answers(&acks), [(Answer::Applied, 5)], "what the sender still has goes on from there");
    let late = vec![batch(255, 3, 3, 20, vec![block("a", "c", &[1.0])])];
    assert_eq!(answers(&world.ingest(&mut planner, late)), [(Answer::Duplicate, 5)], "lost is lost");
    assert_eq!((world.total(tab, "taba.stream/00000000000000ff"), world.total("a", "c")), (40, 3));
}

#[test]
fn a_probe_waits_out_a_conflict_and_tells_what_is_stored_now() {
    let (world, mut planner, mut other) = (World::new(), Planner::default(), Planner::default());
    world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![block("a", "c", &[1.0])])]);
    world.ingest(&mut other, vec![batch(1, 2, 1, 1, vec![block("a", "c", &[1.0])])]);
    let copy = batch(1, 1, 1, 0, vec![block("a", "c", &[1.0])]);
    let acks = world.tell(&mut planner, vec![IncomingMessage::Batch(copy), probe(1, 1, 0)]);
    assert_eq!(answers(&acks), [(Answer::Duplicate, 2), (Answer::Applied, 2)]);
    assert_eq!(world.status.report().conflicts, 1);
    assert_eq!(acks[1].stable, SeqNo::NONE, "what was stable may be of another history");
    assert_eq!(world.tell(&mut planner, vec![probe(1, 1, 0)])[0].stable, SeqNo(2));
}

/// Two Servers behind a round-robin load balancer.
#[test]
fn no_answer_comes_from_a_stale_cache() {
    let (mut world, mut one, mut other) = (World::new(), Planner::default(), Planner::default());
    let nth = |seq| batch(1, seq, 1, seq - 1, vec![block("a", "c", &[1.0])]);
    world.ingest(&mut one, vec![nth(1)]);
    world.ingest(&mut other, vec![nth(2)]);
    // The cache of `one` says that 1 is applied.
    assert_eq!(answers(&world.ingest(&mut one, vec![nth(2)])), [(Answer::Duplicate, 2)]);
    world.ingest(&mut other, vec![nth(3)]);
    assert_eq!(answers(&world.ingest(&mut one, vec![nth(4)])), [(Answer::Applied, 4)], "no Nak");
    // A Lane known to have begun is not checked for its time, and `other` does not know this one.
    world.ingest(&mut one, vec![batch(2, 1, 1, 0, Vec::new())]);
    world.sent_at = now().saturating_sub(2 * CLOCKS_APART_MAX);
    let acks = world.ingest(&mut other, vec![batch(2, 2, 1, 0, Vec::new())]);
    assert_eq!(answers(&acks), [(Answer::Applied, 2)]);
    assert_eq!(world.total("a", "c"), 4);
}

#[test]
fn an_answer_without_a_commit_waits_for_the_version_of_the_store() {
    let (world, mut planner) = (World::new(), Planner::default());
    let first = batch(1, 1, 1, 0, Vec::new());
    assert_eq!(answers(&world.ingest(&mut planner, vec![first.clone()])), [(Answer::Applied, 1)]);
    world.give(&mut planner, 0, IncomingMessage::Batch(first));
    let actions = world.handle(&mut planner, PlannerInput::Due);
    assert!(
        matches!(&actions[..], [PlannerAction::Load(wanted)] if *wanted == Wanted::default().with_known(wanted.known)),
        "{actions:?}"
    );
    let actions = world.handle(&mut planner, PlannerInput::Loaded(Err(StoreFailed)));
    let [PlannerAction::Answer(0, ack)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(ack.answer, Answer::Unavailable, "a Duplicate that nothing proves is not answered");
}

#[test]
fn after_many_conflicts_in_a_row_the_sender_is_told_to_come_again() {
    let (world, mut planner) = (World::new(), Planner::default());
    world.give(&mut planner, 0, IncomingMessage::Batch(batch(1, 1, 1, 0, vec![block("a", "c", &[1.0])])));
    let mut actions = world.handle(&mut planner, PlannerInput::Due);
    let answer = loop {
        actions = match actions.pop() {
            Some(PlannerAction::Commit(_)) => {
                let found = Version { writer: 99, count: 1 };
                world.handle(&mut planner, PlannerInput::Committed(Ok(Committed::Conflict { found })))
            }
            Some(PlannerAction::Answer(_, ack)) => break ack.answer,
            Some(action) => world.perform(&mut planner, action),
            None => panic!("nothing to wait for, and no answer"),
        };
    };
    assert_eq!(
        (answer, world.status.report().conflicts),
        (Answer::Unavailable, u64::from(CONFLICTS_MAX) + 1)
    );
    // The next one begins with no conflict counted.
    let again = world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![block("a", "c", &[1.0])])]);
    assert_eq!(answers(&again), [(Answer::Applied, 1)]);
}

#[test]
fn a_gap_without_events_is_not_noted() {
    let (world, mut planner) = (World::new(), Planner::default());
    let tab = "taba.dropped;where=agent;why=gap";
    let client = "taba.stream/0000000000000001";
    world.ingest(&mut planner, vec![batch(1, 3, 3, 0, vec![block("a", "c", &[1.0])])]);
    assert_eq!((world.state(tab, client), world.status.report().gaps), (None, 1));
    world.ingest(&mut planner, vec![batch(1, 7, 7, 5, vec![block("a", "c", &[1.0])])]);
    assert_eq!((world.total(tab, client), world.status.report().gaps), (4, 2));
}

#[test]
fn a_conflict_with_its_own_commit_is_no_conflict() {
    let (world, mut planner) = (World::new(), Planner::default());
    world.tell(&mut planner, vec![probe(1, 1, 0)]);
    world.give(&mut planner, 0, probe(1, 1, 0));
    let Some(PlannerAction::Commit(commit)) = world.handle(&mut planner, PlannerInput::Due).pop() else {
        panic!()
    };
    // A client of the store repeats a commit because the first answer was lost.
    assert_eq!(world.store_commit(commit.clone()), Committed::Done);
    let found = world.store_commit(commit.clone());
    assert_eq!(found, Committed::Conflict { found: commit.next });
    let actions = world.handle(&mut planner, PlannerInput::Committed(Ok(found)));
    let answers = world.settle(&mut planner, actions);
    assert_eq!((answers[0].1.answer, world.status.report().conflicts), (Answer::Applied, 0));
}

#[test]
fn a_probe_that_the_store_fails_is_handed_back() {
    let (world, mut planner) = (World::new(), Planner::default());
    world.give(&mut planner, 0, probe(1, 4, 9));
    assert!(matches!(world.handle(&mut planner, PlannerInput::Due)[..], [PlannerAction::Load(_)]));
    let actions = world.handle(&mut planner, PlannerInput::Loaded(Err(StoreFailed)));
    let [PlannerAction::Answer(0, ack)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((ack.answer, ack.applied), (Answer::Unavailable, SeqNo(3)));
    assert_eq!(world.status.report().probes_answered, 0);
}

#[test]
fn waiting_for_what_is_stable_holds_up_nothing() {
    let (world, mut planner) = (World::new(), Planner::default());
    let mut waits = Vec::new();
    for seq in 1..=4 {
        world.give(
            &mut planner,
            seq,
            IncomingMessage::Batch(batch(1, seq, 1, seq - 1, vec![block("a", "c", &[1.0])])),
        );
        let mut todo = VecDeque::from(world.handle(&mut planner, PlannerInput::Due));
        while let Some(action) = todo.pop_front() {
            match action {
                PlannerAction::Stabilise(version) => waits.push(version),
                PlannerAction::Answer(_, ack) => {
                    assert_eq!((ack.applied, ack.stable), (SeqNo(seq), SeqNo::NONE));
                }
                other => todo.extend(world.perform(&mut planner, other)),
            }
        }
        assert!(planner.is_idle(), "a wait under way is no commit under way");
    }
    assert_eq!(waits.len(), 1, "one wait at a time");
    let actions = world.handle(&mut planner, PlannerInput::Stabilised(waits[0], Ok(())));
    assert!(
        matches!(actions[..], [PlannerAction::Stabilise(_)]),
        "the next one is about all that came meanwhile"
    );
    let ack = world.ingest(&mut planner, vec![batch(1, 1, 1, 0, Vec::new())]).remove(0);
    assert_eq!((ack.answer, ack.applied, ack.stable), (Answer::Duplicate, SeqNo(4), SeqNo(1)));
    let report = world.status.report();
    assert_eq!((report.stable_begun, report.stable_done), (2, 1));
}

#[test]
fn a_lane_stays_known_to_be_stable_when_its_cache_shrinks() {
    let (world, mut planner) = (World::new(), Planner::default());
    world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![block("a", "c", &[1.0])])]);
    planner.shrink();
    assert_eq!(planner.cache_bytes(), 0);
    assert_eq!(world.tell(&mut planner, vec![probe(1, 1, 0)])[0].stable, SeqNo(1));
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

/// As `Sum`, with another version: it reads the States of version 1.
struct Sum2;

impl Handler for Sum2 {
    type Value = f64;
    type State = Total;
    type Projection = Total;
    const VERSION: u16 = 2;

    fn fold(&self, state: &mut Total, event: Event<&f64>) {
        Sum.fold(state, event);
    }
    fn merge(&self, into: &mut Total, other: &Total) {
        Sum.merge(into, other);
    }
    fn project(&self, state: &Total, at: Timestamp) -> Total {
        Sum.project(state, at)
    }
    fn aggregate(&self, into: &mut Total, other: &Total) {
        Sum.aggregate(into, other);
    }
    fn encoded_bytes_max(&self) -> usize {
        20
    }
    fn upgrade(&self, version: u16, bytes: &[u8]) -> Result<Total, taba_core::StateError> {
        taba_core::decode_state(&Sum, version, bytes)
    }
}

impl World {
    /// The same store, and a Server whose Handlers have these versions.
    fn with(self, other: impl Handler, ledger: impl Handler) -> Self {
        let handlers =
            Registry::builder().with("TotalsCounter", ledger).with("Other", other).build().unwrap();
        Self { handlers, ..self }
    }
}

fn newer(tab: &str, tab_type: &str, events: u64) -> Block {
    let state = taba_core::encode_state(&Total { total: events, latest: 0 });
    let content = Content::State { version: 2, bytes: state.into() };
    block_of(tab, "c", tab_type, &vec![1.0; events as usize]).with_content(content)
}

#[test]
fn a_batch_of_a_newer_version_waits_and_every_other_lane_goes_on() {
    let (world, mut planner) = (World::new().with(Sum, Sum), Planner::default());
    world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![block("y", "c", &[1.0])])]);
    let waiting = batch(1, 2, 1, 1, vec![block("x", "c", &[1.0; 2]), newer("z", "Other", 3)]);
    let probe = Probe::new(StreamId(1), 0, SeqNo(2), 1);
    let messages = vec![
        IncomingMessage::Batch(waiting.clone()),
        IncomingMessage::Batch(batch(2, 1, 1, 0, vec![block("y", "c", &[1.0; 4])])),
        IncomingMessage::Probe(probe),
    ];
    let acks = world.tell(&mut planner, messages);
    let expected = [(Answer::Unavailable, 1), (Answer::Applied, 1), (Answer::Applied, 1)];
    assert_eq!(answers(&acks), expected);
    assert_eq!(acks[0].refused, [Refusal::new(1, Why::UnknownVersion, 3)]);
    assert_eq!((world.total("y", "c"), world.state("x", "c"), world.state("z", "c")), (5, None, None));
    let report = world.status.report();
    assert_eq!((report.batches_newer, report.events_refused, report.events_in), (1, 0, 5));
    // A check gives the same answer, and finds no Block at fault.
    let wanted = wanted_of(&waiting.blocks);
    let checked = check(&world.handlers, &waiting, (&wanted, &world.load(&wanted)), now());
    assert_eq!((checked.answer, checked.refused), (Answer::Unavailable, acks[0].refused.clone()));

    let world = world.with(Sum2, Sum);
    assert_eq!(
        answers(&world.ingest(&mut Planner::default(), vec![waiting.clone()])),
        [(Answer::Applied, 2)]
    );
    // The old Server then confirms the Batch as contained.
    let world = world.with(Sum, Sum);
    assert_eq!(answers(&world.ingest(&mut planner, vec![waiting])), [(Answer::Duplicate, 2)]);
}

#[test]
fn blocks_for_a_stored_state_of_a_newer_version_wait() {
    let world = World::new().with(Sum2, Sum);
    world.ingest(&mut Planner::default(), vec![batch(1, 1, 1, 0, vec![newer("z", "Other", 3)])]);
    let (world, mut planner) = (world.with(Sum, Sum), Planner::default());
    let messages = || {
        let raw = block_of("z", "c", "Other", &[1.0; 2]);
        vec![batch(2, 1, 1, 0, vec![raw]), batch(3, 1, 1, 0, vec![block("y", "c", &[1.0])])]
    };
    for other in [Answer::Applied, Answer::Duplicate] {
        let acks = world.ingest(&mut planner, messages());
        assert_eq!(answers(&acks), [(Answer::Unavailable, 0), (other, 1)]);
    }
    // A Block that every Server refuses does not wait.
    let conflict = batch(4, 1, 1, 0, vec![newer("y", "Other", 3), block("z", "c", &[1.0])]);
    let acks = world.ingest(&mut planner, vec![conflict]);
    let refused: Vec<_> = acks[0].refused.iter().map(|refusal| refusal.why).collect();
    assert_eq!((acks[0].answer, refused), (Answer::Applied, vec![Why::TypeConflict; 2]));

    let world = world.with(Sum2, Sum);
    let acks = world.ingest(&mut Planner::default(), messages());
    assert_eq!(answers(&acks), [(Answer::Applied, 1), (Answer::Duplicate, 1)]);
}

/// Refused events must be noted; if the note's State is newer, they could be counted nowhere.
#[test]
fn what_cannot_be_noted_because_the_ledger_is_newer_waits() {
    let bad = |seq| batch(1, seq, 1, seq - 1, vec![block_of("x", "c", "Unheard", &[1.0])]);
    let world = World::new().with(Sum, Sum2);
    world.ingest(&mut Planner::default(), vec![bad(1)]);
    let (world, mut planner) = (world.with(Sum, Sum), Planner::default());
    assert_eq!(answers(&world.ingest(&mut planner, vec![bad(2)])), [(Answer::Unavailable, 1)]);
    assert_eq!(world.status.report().events_without_note, 0);
    let world = world.with(Sum, Sum2);
    assert_eq!(answers(&world.ingest(&mut planner, vec![bad(2)])), [(Answer::Applied, 2)]);
}
