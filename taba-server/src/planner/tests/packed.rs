//! States that are used rarely: they are packed, and go on as if nothing had been.

use std::sync::atomic::AtomicBool;

use taba_core::{AnyState, Arrival, Guarded, Noise};

use super::*;

const TYPES: [&str; 4] = ["CounterGroup", "PercentileGroup", "TotalsCounter", "PercentileCounter"];

fn standard() -> World {
    World { handlers: taba_handlers::standard().build().unwrap(), ..World::new() }
}

/// Lets time pass, for the Server and for who sends to it.
fn pass(world: &mut World, time: Duration) {
    world.now = world.now.saturating_add(time);
    world.sent_at = world.now;
}

fn decoded(planner: &Planner<u64>) -> usize {
    planner.cache.decoded()
}

fn stored(world: &World, handler: &Guarded, tab: &str) -> (u64, AnyState) {
    let loaded =
        world.load(&Wanted::default().with_states(vec![StateKey { tab: name(tab), client: client("c") }]));
    let parts: Vec<_> = loaded.states.into_iter().map(|(_, part, bytes)| (part, bytes)).collect();
    let envelope = Envelope::join(&parts).unwrap();
    (envelope.events, handler.decode_stored(&envelope).unwrap().0)
}

/// Whatever the time between two events of a State, and whether it is stored in one part or in two.
#[test]
fn a_state_that_was_packed_is_the_state() {
    let (mut world, mut planner, mut noise) = (standard(), Planner::default(), Noise::new(7));
    let mut all: Vec<(Guarded, u64, AnyState)> = TYPES
        .iter()
        .map(|tab_type| {
            let handler = world.handlers.guarded(tab_type).unwrap();
            let empty = handler.empty_state().unwrap();
            (handler, 0, empty)
        })
        .collect();
    let (mut events, mut seen) = (0, [false; 2]);
    for seq in 1..=400 {
        let which = noise.number() as usize % TYPES.len();
        let values: Vec<f64> =
            (0..noise.number() % 60).map(|_| (noise.number() % 9_999) as f64 / 8.0).collect();
        pass(&mut world, Duration::from_millis(noise.number() % 2_500));
        let times = vec![world.now; values.len()];
        let tab_type = TYPES[which];
        let block = Block::of_events(
            name(tab_type),
            client("c"),
            TabType::new(tab_type).unwrap(),
            Events::new(&times, &values),
        );
        let blocks: Vec<Block> = block.into_iter().collect();
        let (handler, count, state) = &mut all[which];
        for block in &blocks {
            let Content::Events(columns) = &block.content else { panic!("these are events") };
            handler.fold_columns(state, columns, values.len(), Arrival::ANY).unwrap();
        }
        *count += values.len() as u64;
        let ack = world.ingest(&mut planner, vec![batch(1, seq, 1, events, blocks)]).remove(0);
        assert_eq!((ack.answer, ack.applied), (Answer::Applied, SeqNo(seq)));
        events += values.len() as u64;
        let now_decoded = decoded(&planner);
        seen[0] |= now_decoded > 0;
        seen[1] |= now_decoded < TYPES.len() && seq > 100;
    }
    assert_eq!(seen, [true; 2], "some were packed, and some were not");
    for (tab_type, (handler, count, state)) in TYPES.iter().zip(&all) {
        let (found, stored) = stored(&world, handler, tab_type);
        assert_eq!(found, *count, "{tab_type}");
        assert_eq!(handler.encode(&stored).unwrap(), handler.encode(state).unwrap(), "{tab_type}");
    }
}

/// It is packed by the commit that writes it, or when it was not used for a while; and is not loaded again.
#[test]
fn a_state_stays_decoded_while_it_is_used_often() {
    let (mut world, mut planner) = (World::new(), Planner::default());
    let mut seq = 0;
    let mut commit = |world: &mut World, planner: &mut Planner<u64>, tab: &str, after: u64| {
        pass(world, Duration::from_millis(after));
        seq += 1;
        let message = IncomingMessage::Batch(batch(1, seq, 1, seq - 1, vec![block(tab, "c", &[1.0])]));
        world.give(planner, seq, message);
        let actions = world.handle(planner, PlannerInput::Due);
        let is_load = actions.iter().any(|action| matches!(action, PlannerAction::Load(_)));
        world.settle(planner, actions);
        (is_load, decoded(planner))
    };
    assert_eq!(commit(&mut world, &mut planner, "a", 0), (true, 0));
    assert_eq!(commit(&mut world, &mut planner, "a", 60_000), (false, 0), "used rarely");
    assert_eq!(commit(&mut world, &mut planner, "a", 1_000), (false, 1), "used often");
    assert_eq!(commit(&mut world, &mut planner, "b", 1_000), (true, 1));
    assert_eq!(commit(&mut world, &mut planner, "c", 3_000), (true, 0));
    assert_eq!(commit(&mut world, &mut planner, "c", 60_000), (false, 0), "none is used any more");
    assert_eq!(commit(&mut world, &mut planner, "a", 1), (false, 0));
    assert_eq!(world.total("a", "c"), 4);
}

/// A count that cannot be read while this is set.
static IS_UNREADABLE: AtomicBool = AtomicBool::new(false);

struct Fickle;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
struct Count(u8);

impl TryFrom<u8> for Count {
    type Error = &'static str;
    fn try_from(count: u8) -> Result<Self, Self::Error> {
        if IS_UNREADABLE.load(Ordering::Relaxed) { Err("not now") } else { Ok(Self(count)) }
    }
}

impl From<Count> for u8 {
    fn from(count: Count) -> Self {
        count.0
    }
}

impl Handler for Fickle {
    type Value = f64;
    type State = Count;
    type Projection = Total;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Count, _: Event<&f64>) {
        state.0 += 1;
    }
    fn merge(&self, into: &mut Count, other: &Count) {
        into.0 += other.0;
    }
    fn project(&self, state: &Count, _: Timestamp) -> Total {
        Total { total: state.0.into(), latest: 0 }
    }
    fn aggregate(&self, into: &mut Total, other: &Total) {
        into.total += other.total;
    }
    fn encoded_bytes_max(&self) -> usize {
        2
    }
}

/// What cannot be read again is not packed; and when a packed State cannot be read after all, the Server says what one says that begins
/// with it: nothing is folded into another State in its place.
#[test]
fn a_packed_state_that_cannot_be_read_is_refused_and_stays_as_it_is_stored() {
    let handlers = registry().to_builder().with("Fickle", Fickle).build().unwrap();
    let (mut world, mut planner, mut seq) = (World { handlers, ..World::new() }, Planner::default(), 0);
    let mut commit = |planner: &mut Planner<u64>, is_unreadable: bool| {
        IS_UNREADABLE.store(is_unreadable, Ordering::Relaxed);
        pass(&mut world, Duration::from_secs(60));
        seq += 1;
        let blocks = vec![block_of("a", "c", "Fickle", &[1.0; 2]), block("b", "c", &[1.0])];
        let ack = world.ingest(planner, vec![batch(1, seq, 1, 3 * (seq - 1), blocks)]).remove(0);
        assert_eq!((ack.answer, ack.applied), (Answer::Applied, SeqNo(seq)));
        (ack.refused, decoded(planner))
    };
    assert_eq!(commit(&mut planner, true), (vec![], 1), "it cannot be read, and so is not packed");
    assert_eq!(commit(&mut planner, false), (vec![], 0));
    let refused = vec![Refusal::new(0, Why::Undecodable, 2)];
    assert_eq!(commit(&mut planner, true).0, refused);
    assert_eq!(commit(&mut Planner::default(), false), (vec![], 0), "it was not written over");
    assert_eq!(world.total("b", "c"), 4);
    assert_eq!(world.total("taba.dropped;where=server;why=undecodable", "c"), 2);
    let handler = world.handlers.guarded("Fickle").unwrap();
    assert_eq!(stored(&world, &handler, "a").0, 6);
}
