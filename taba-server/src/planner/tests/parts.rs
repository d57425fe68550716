//! States in parts: a large State is a base and what is new since. Whatever happens, the two are the State.

use std::collections::BTreeMap;

use taba_core::{AnyState, Arrival, Guarded, Keyed, Noise, StateError, Value};

use super::*;

fn standard() -> World {
    World { handlers: taba_handlers::standard().build().unwrap(), ..World::new() }
}

fn handler(world: &World, tab_type: &str) -> Guarded {
    world.handlers.guarded(tab_type).unwrap()
}

/// A Block of one value for each of some seconds.
fn block_at<V: Value>(tab_type: &str, seconds: &[i64], values: &[V]) -> Block {
    let times: Vec<_> = seconds.iter().map(|second| at(*second)).collect();
    let tab_type = TabType::new(tab_type).unwrap();
    Block::of_events(name("a"), client("c"), tab_type, Events::new(&times, values)).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(now().as_micros() + 1_000_000 * second)
}

fn fold(handler: &Guarded, state: &mut AnyState, block: &Block) {
    let Content::Events(columns) = &block.content else { panic!("these are events") };
    handler.fold_columns(state, columns, block.events as usize, Arrival::ANY).unwrap();
}

/// The same events as a partial State.
fn folded(world: &World, block: &Block) -> Block {
    let handler = handler(world, block.tab_type.as_str());
    let mut state = handler.empty_state().unwrap();
    fold(&handler, &mut state, block);
    let bytes = handler.encode(&state).unwrap().into();
    let mut block = block.clone();
    block.content = Content::State { version: handler.version(), bytes };
    block
}

fn key() -> StateKey {
    StateKey { tab: name("a"), client: client("c") }
}

/// The parts of the stored State.
fn parts(world: &World) -> Vec<(Part, Bytes)> {
    let loaded = world.load(&Wanted::default().with_states(vec![key()]));
    loaded.states.into_iter().map(|(_, part, bytes)| (part, bytes)).collect()
}

/// The events of the stored State, and what it is in one part.
fn stored(world: &World, tab_type: &str) -> (u64, Vec<u8>) {
    let envelope = Envelope::join(&parts(world)).unwrap();
    let handler = handler(world, tab_type);
    let (state, _) = handler.decode_stored(&envelope).unwrap();
    (envelope.events, handler.encode(&state).unwrap())
}

/// Writes parts of the State behind every Server's back.
fn put(world: &World, parts: &[(Part, Option<Bytes>)]) {
    let version = world.load(&Wanted::default()).version;
    let next = Version { writer: version.writer + 99, count: version.count + 1 };
    let states = parts.iter().map(|(part, bytes)| (key(), *part, bytes.clone())).collect();
    assert_eq!(world.store_commit(Commit::new(version, next).with_states(states)), Committed::Done);
}

/// Two Servers take turns, forget what they know, and get events and partial States, late ones too. After every commit the store holds
/// what all events make together.
fn walk<V: Value + Clone>(tab_type: &str, value: impl Fn(&mut Noise) -> V) {
    let (mut world, mut noise) = (standard(), Noise::new(1));
    let mut below = |end: u64| (noise.number() % end) as i64;
    let mut planners = [Planner::default(), Planner::default()];
    let handler = handler(&world, tab_type);
    let (mut all, mut events) = (handler.empty_state().unwrap(), 0);
    let (mut second, mut divided, mut values) = (0, 0, Noise::new(2));
    for seq in 1..=300 {
        second += below(40);
        (world.now, world.sent_at) = (at(second), at(second));
        let late = if below(5) == 0 { below(2000) } else { 0 };
        let times: Vec<_> = (0..=below(8)).map(|n| second - late - n % 3).collect();
        let made: Vec<V> = times.iter().map(|_| value(&mut values)).collect();
        let block = block_at(tab_type, &times, &made);
        fold(&handler, &mut all, &block);
        let sent = if below(2) == 0 { folded(&world, &block) } else { block.clone() };
        if below(20) == 0 {
            planners[0] = Planner::default();
        }
        let planner = &mut planners[usize::from(below(6) == 0)];
        let acks = world.ingest(planner, vec![batch(1, seq, 1, events, vec![sent])]);
        assert_eq!((acks[0].answer, &acks[0].refused[..]), (Answer::Applied, &[][..]));
        events += block.events;
        assert_eq!(stored(&world, tab_type), (events, handler.encode(&all).unwrap()), "{tab_type}, {seq}");
        divided += usize::from(parts(&world).len() == 2);
    }
    assert!(divided > 100, "{tab_type} was divided {divided} times");
}

#[test]
fn a_state_in_parts_is_the_state() {
    let number = |noise: &mut Noise| (noise.number() % 100_000) as f64 / 7.0;
    walk("CounterGroup", number);
    walk("PercentileGroup", number);
    walk("CommonPrefixCounterGroup", |noise| Keyed { key: (noise.number() % 200).to_string(), value: 1.5 });
    walk("Distinct", |noise| noise.number().to_string());
}

/// What commits write of a State, beside its own bytes.
struct Written {
    share: f64,
    most: usize,
    encoded: usize,
}

/// A value a second for a day, then commits of so many events each, `apart` milliseconds apart.
fn written(tab_type: &str, events: i64, apart: i64, value: impl Fn(&mut Noise) -> f64) -> Written {
    let (mut world, mut noise) = (standard(), Noise::new(3));
    let mut planner = Planner::default();
    let (mut sizes, mut encoded, mut before) = (Vec::new(), Vec::new(), 0);
    let mut commit = |seq: u64, times: &[Timestamp]| {
        (world.now, world.sent_at) = (*times.last().unwrap(), *times.last().unwrap());
        let values: Vec<f64> = times.iter().map(|_| value(&mut noise)).collect();
        let tab_type_name = TabType::new(tab_type).unwrap();
        let block = Block::of_events(name("a"), client("c"), tab_type_name, Events::new(times, &values));
        let message = batch(1, seq, 1, before, vec![block.unwrap()]);
        before += times.len() as u64;
        world.give(&mut planner, 0, IncomingMessage::Batch(message));
        let mut todo: VecDeque<_> = world.handle(&mut planner, PlannerInput::Due).into();
        while let Some(action) = todo.pop_front() {
            if let PlannerAction::Commit(commit) = &action {
                let of_it = commit.states.iter().filter(|(key, ..)| !key.tab.is_reserved());
                sizes.push(of_it.flat_map(|(_, _, bytes)| bytes).map(Bytes::len).sum::<usize>());
            }
            todo.extend(world.perform(&mut planner, action));
        }
        encoded.push(stored(&world, tab_type).1.len());
    };
    let day: Vec<_> = (-86_400..0).map(at).collect();
    for (seq, times) in (1..).zip(day.chunks(43_200)) {
        commit(seq, times);
    }
    const COMMITS: i64 = 200;
    for n in 0..COMMITS {
        let step = 1000 * apart / events;
        let times = (0..events).map(|event| now().as_micros() + 1000 * n * apart + event * step);
        commit(3 + n as u64, &times.map(Timestamp::from_micros).collect::<Vec<_>>());
    }
    let mean = |sizes: &[usize]| sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
    let (sizes, encoded) = (&sizes[2..], mean(&encoded[2..]));
    Written {
        share: mean(sizes) / encoded,
        most: sizes.iter().copied().max().unwrap(),
        encoded: encoded as usize,
    }
}

#[test]
fn a_commit_writes_less_than_a_quarter_of_a_busy_state() {
    let integers = |noise: &mut Noise| (noise.number() % 1000) as f64;
    let doubles = |noise: &mut Noise| noise.number() as f64 / u64::MAX as f64;
    for (events, apart) in [(1, 1000), (5, 250), (250, 250), (5, 5000)] {
        let told = [
            ("CounterGroup of integers", written("CounterGroup", events, apart, integers)),
            ("CounterGroup of doubles", written("CounterGroup", events, apart, doubles)),
            ("PercentileGroup of doubles", written("PercentileGroup", events, apart, doubles)),
        ];
        for (what, Written { share, most, encoded }) in told {
            let percent = 100.0 * share;
            println!(
                "{what}, {events} events each {apart} ms: {percent:.1} % of {encoded} B, at most {most} B"
            );
            assert!(share <= 0.25 && most <= encoded * 5 / 4, "{what}");
        }
    }
}

/// A Server with a State of two parts, of `events` events.
fn divided() -> (World, Planner<u64>, u64) {
    let (world, mut planner) = (standard(), Planner::default());
    let seconds: Vec<_> = (-1000..0).collect();
    let first = block_at("CounterGroup", &seconds, &vec![0.1; 1000]);
    world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![first])]);
    world.ingest(&mut planner, vec![batch(1, 2, 1, 1000, vec![block_at("CounterGroup", &[0], &[0.1])])]);
    assert_eq!(parts(&world).iter().map(|(part, _)| *part).collect::<Vec<_>>(), [Part::WHOLE, Part::BASE]);
    (world, planner, 1001)
}

#[test]
fn a_base_that_is_lacking_or_another_makes_a_state_unreadable_and_not_smaller() {
    let base = divided().0;
    let base = parts(&base)[1].1.to_vec();
    let mut flipped = base.clone();
    flipped[500] ^= 4;
    for bad in [None, Some(Bytes::from(base[1..].to_vec())), Some(flipped.into()), Some(Bytes::new())] {
        let (world, _, events) = divided();
        put(&world, &[(Part::BASE, bad)]);
        let before = parts(&world);
        let mut planner = Planner::default();
        let block = block_at("CounterGroup", &[1], &[1.0]);
        let acks = world.ingest(&mut planner, vec![batch(1, 3, 1, events, vec![block])]);
        assert_eq!(acks[0].refused, [Refusal::new(0, Why::Undecodable, 1)]);
        assert_eq!(parts(&world), before, "it is not written over");
    }
}

#[test]
fn a_part_that_only_a_newer_build_writes_makes_blocks_wait() {
    let (world, _, events) = divided();
    put(&world, &[(Part(2), Some(Bytes::from_static(b"new")))]);
    let block = block_at("CounterGroup", &[1], &[1.0]);
    let acks = world.ingest(&mut Planner::default(), vec![batch(1, 3, 1, events, vec![block])]);
    assert_eq!(acks[0].answer, Answer::Unavailable);
}

#[test]
fn a_large_state_that_was_stored_in_one_part_is_read_and_divided() {
    let (world, _, events) = divided();
    let (_, bytes) = stored(&world, "CounterGroup");
    let (tab_type, version) =
        (TabType::new("CounterGroup").unwrap(), handler(&world, "CounterGroup").version());
    let whole = Envelope::new(tab_type, version, events, bytes.into()).encode();
    for (seq, base) in [(3, None), (4, Some(Bytes::from_static(b"left behind")))] {
        put(&world, &[(Part::WHOLE, Some(whole.clone())), (Part::BASE, base)]);
        let block = block_at("CounterGroup", &[1], &[1.0]);
        let acks = world.ingest(&mut Planner::default(), vec![batch(1, seq, 1, 998 + seq, vec![block])]);
        assert_eq!((acks[0].answer, parts(&world).len()), (Answer::Applied, 2));
        assert_eq!(stored(&world, "CounterGroup").0, events + 1);
    }
}

/// What is new grows where no second pair fits, and a State that was in one part stays so.
#[test]
fn without_room_for_two_pairs_a_state_is_written_in_one() {
    let world = standard();
    let handler = handler(&world, "CounterGroup");
    let mut live = live::DecodedState::empty(TabType::new("CounterGroup").unwrap(), handler.clone()).unwrap();
    let (mut all, mut parts) = (handler.empty_state().unwrap(), BTreeMap::new());
    let mut lengths = Vec::new();
    for second in 0..600 {
        let block = block_at("CounterGroup", &[10 * second], &[0.1]);
        fold(&handler, &mut all, &block);
        let Content::Events(columns) = &block.content else { panic!("these are events") };
        live.fold_columns(columns, 1, Arrival::ANY).unwrap();
        live.events += 1;
        let has_room = second % 200 == 199;
        let written = live.write(has_room, false).unwrap();
        parts.insert(Part::WHOLE, written.whole);
        match written.base {
            live::BaseChange::Set(bytes) if has_room => drop(parts.insert(Part::BASE, bytes)),
            live::BaseChange::Remove if has_room => drop(parts.remove(&Part::BASE)),
            base => assert!(matches!(base, live::BaseChange::None), "that is a second pair"),
        }
        lengths.push(parts.len());
        let envelope = Envelope::join(&parts.clone().into_iter().collect::<Vec<_>>()).unwrap();
        let (state, _) = handler.decode_stored(&envelope).unwrap();
        assert_eq!(handler.encode(&state).unwrap(), handler.encode(&all).unwrap());
    }
    assert_eq!((lengths[198], lengths[199], lengths[599]), (1, 2, 2));
}

#[test]
fn a_state_that_has_become_small_is_in_one_part_again() {
    let (mut world, mut planner, events) = divided();
    for n in 0..400 {
        let second = 1_000_000 + 100_000 * n;
        (world.now, world.sent_at) = (at(second), at(second));
        let block = block_at("CounterGroup", &[second], &[0.1]);
        let seq = 3 + n as u64;
        // A Lane of its own for each, since Streams are short.
        let message = batch(100 + seq, 1, 1, 0, vec![block]);
        assert_eq!(world.ingest(&mut planner, vec![message])[0].answer, Answer::Applied);
        assert_eq!(stored(&world, "CounterGroup").0, events + 1 + n as u64);
        if parts(&world).len() == 1 {
            return;
        }
    }
    panic!("a small State keeps its base");
}

/// [`Ids`] in the next version: it reads what the one before wrote.
struct Ids2;

impl Handler for Ids2 {
    type Value = f64;
    type State = Vec<u128>;
    type Projection = Total;
    const VERSION: u16 = 2;

    fn fold(&self, state: &mut Vec<u128>, event: Event<&f64>) {
        Ids.fold(state, event);
    }
    fn merge(&self, into: &mut Vec<u128>, other: &Vec<u128>) {
        Ids.merge(into, other);
    }
    fn project(&self, state: &Vec<u128>, at: Timestamp) -> Total {
        Ids.project(state, at)
    }
    fn aggregate(&self, into: &mut Total, other: &Total) {
        Ids.aggregate(into, other);
    }
    fn encoded_bytes_max(&self) -> usize {
        usize::MAX
    }
    fn upgrade(&self, version: u16, bytes: &[u8]) -> Result<Vec<u128>, StateError> {
        taba_core::decode_state(&Ids, version, bytes)
    }
}

#[test]
fn a_divided_state_of_an_older_version_is_upgraded_as_one() {
    let mut world = World::new();
    let ids: Vec<f64> = (0..100).map(f64::from).collect();
    let block = |ids: &[f64]| vec![block_of("a", "c", "Ids", ids)];
    let mut planner = Planner::default();
    world.ingest(&mut planner, vec![batch(1, 1, 1, 0, block(&ids))]);
    world.ingest(&mut planner, vec![batch(1, 2, 1, 100, block(&[200.0]))]);
    assert_eq!(parts(&world).len(), 2);
    world.handlers = Registry::builder().with("TotalsCounter", Sum).with("Ids", Ids2).build().unwrap();
    let mut planner = Planner::default();
    for (seq, id) in [(3, 300.0), (4, 400.0)] {
        let acks = world.ingest(&mut planner, vec![batch(1, seq, 1, 98 + seq, block(&[id]))]);
        assert_eq!((acks[0].answer, parts(&world).len()), (Answer::Applied, 2));
        let envelope = Envelope::join(&parts(&world)).unwrap();
        assert_eq!((envelope.version, envelope.events), (2, 99 + seq));
    }
    let loaded = world.load(&Wanted::default().with_states(vec![key()]));
    let (_, held) = joined(&Ids2, &loaded, &key()).unwrap().unwrap();
    assert_eq!(held.len(), 103);
}
