//! States that senders hand in: what is stored can be read again, and memory is set aside before they are decoded.

use serde::Deserializer;
use serde::de::Error;
use taba_core::limits::BATCH_DECODED_BYTES_MAX;

use super::*;

/// A count that breaks the law `closed`: it reads up to 100, and merges into more.
struct Brittle;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct UpTo100(u64);

impl<'de> Deserialize<'de> for UpTo100 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = u64::deserialize(deserializer)?;
        if count <= 100 { Ok(Self(count)) } else { Err(D::Error::custom("more than 100")) }
    }
}

impl Handler for Brittle {
    type Value = f64;
    type State = UpTo100;
    type Projection = UpTo100;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut UpTo100, _: Event<&f64>) {
        state.0 += 1;
    }
    fn merge(&self, into: &mut UpTo100, other: &UpTo100) {
        into.0 += other.0;
    }
    fn project(&self, state: &UpTo100, _: Timestamp) -> UpTo100 {
        state.clone()
    }
    fn aggregate(&self, into: &mut UpTo100, other: &UpTo100) {
        self.merge(into, other);
    }
    fn encoded_bytes_max(&self) -> usize {
        10
    }
    fn decoded_bytes_max(&self, encoded_bytes: usize) -> usize {
        // So three States come to more than one Batch may.
        encoded_bytes * (BATCH_DECODED_BYTES_MAX / 2 - 1)
    }
}

fn world() -> World {
    let handlers = registry().to_builder().with("Brittle", Brittle).build().unwrap();
    World { handlers, ..World::new() }
}

/// A partial State of so many events.
fn partial(tab: &str, tab_type: &str, events: u64, bytes: Vec<u8>) -> Block {
    let content = Content::State { version: 1, bytes: bytes.into() };
    Block::new(name(tab), client("c"), TabType::new(tab_type).unwrap(), events, now()..=now(), content)
}

fn brittle(tab: &str, count: u8) -> Block {
    partial(tab, "Brittle", count.into(), vec![count])
}

/// The events of a stored State, and its bytes.
fn stored(world: &World, tab: &str) -> (u64, Bytes) {
    let loaded =
        world.load(&Wanted::default().with_states(vec![StateKey { tab: name(tab), client: client("c") }]));
    let envelope = Envelope::decode(&loaded.states[0].2).unwrap();
    (envelope.events, envelope.state().unwrap().clone())
}

#[test]
fn a_merged_state_that_could_not_be_read_again_is_refused_and_what_is_stored_stays() {
    let (world, mut planner) = (world(), Planner::default());
    let batch_of = |seq, before, blocks| batch(1, seq, 1, before, blocks);
    world.ingest(&mut planner, vec![batch_of(1, 0, vec![brittle("a", 60)])]);
    let other = block("other", "c", &[5.0]);
    let acks = world.ingest(&mut planner, vec![batch_of(2, 60, vec![brittle("a", 50), other])]);
    assert_eq!(answers(&acks), [(Answer::Applied, 2)]);
    assert_eq!(acks[0].refused, [Refusal::new(0, Why::Undecodable, 50)]);
    assert_eq!(stored(&world, "a"), (60, Bytes::from_static(&[60])));
    assert_eq!(world.total("other", "c"), 5);
    assert_eq!(world.total("taba.dropped;where=server;why=undecodable", "c"), 50);
    // Here, and in a Server that knows nothing, it goes on.
    for (seq, mut planner) in [(3, planner), (4, Planner::default())] {
        let acks = world.ingest(&mut planner, vec![batch_of(seq, 107 + seq, vec![brittle("a", 1)])]);
        assert_eq!(answers(&acks), [(Answer::Applied, seq)]);
    }
    assert_eq!(stored(&world, "a"), (62, Bytes::from_static(&[62])));
}

#[test]
fn states_beyond_the_memory_of_one_batch_are_refused_and_counted() {
    let (world, mut planner) = (world(), Planner::default());
    let blocks = vec![brittle("a", 1), brittle("b", 2), brittle("c", 3), block("d", "c", &[4.0])];
    let acks = world.ingest(&mut planner, vec![batch(1, 1, 1, 0, blocks.clone())]);
    assert_eq!(acks[0].refused, [Refusal::new(2, Why::Undecodable, 3)]);
    assert_eq!((stored(&world, "a").0, stored(&world, "b").0, world.total("d", "c")), (1, 2, 4));
    // A check says the same, so that its sender sets aside no other.
    let (wanted, loaded) = (wanted_of(&blocks), Loaded::default());
    let ack = check(&world.handlers, &batch(1, 2, 1, 6, blocks), (&wanted, &loaded), now());
    assert_eq!(ack.refused, [Refusal::new(2, Why::Undecodable, 3)]);
}

#[test]
fn memory_is_set_aside_before_states_are_decoded() {
    let (world, mut planner) = (world(), Planner::default());
    let charge = BATCH_DECODED_BYTES_MAX / 2 - 1;
    for stream in 1..=3 {
        let blocks = vec![brittle(&format!("t{stream}"), 1)];
        world.give(&mut planner, stream, IncomingMessage::Batch(batch(stream, 1, 1, 0, blocks)));
    }
    assert_eq!(planner.cache_bytes(), 0);
    let mut actions = world.handle(&mut planner, PlannerInput::Due);
    assert!(planner.cache_bytes() >= 2 * charge, "it is set aside while their States are loaded");
    assert!(planner.is_waiting(), "the third waits for the next commit");
    let [PlannerAction::Load(wanted)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(wanted.states.len(), 4, "of two messages, and the accounts");
    actions = world.perform(&mut planner, actions.remove(0));
    assert!(planner.cache_bytes() < 10_000, "what was decoded is weighed instead");
    assert_eq!(world.settle(&mut planner, actions).len(), 2);
    let actions = world.handle(&mut planner, PlannerInput::Due);
    assert_eq!(world.settle(&mut planner, actions).len(), 1);
}

/// The weight of a cache is about what it really takes, and not less.
#[test]
fn the_cache_weighs_what_states_really_take() {
    let per_state = |tabs: usize, clients: usize, tab_type: &str, apart: Duration| {
        let mut world = World { handlers: taba_handlers::standard().build().unwrap(), ..World::new() };
        let mut planner = Planner::default();
        for part in 0..2_u64 {
            let pairs = (0..tabs).flat_map(|tab| (0..clients).map(move |who| (tab, who)));
            let blocks = pairs.map(|(tab, who)| {
                block_of(&format!("some.tab.{tab}"), &format!("host-{who}"), tab_type, &[1.0; 20])
            });
            let events = (20 * tabs * clients) as u64;
            let acks =
                world.ingest(&mut planner, vec![batch(1, part + 1, 1, part * events, blocks.collect())]);
            assert_eq!((acks[0].answer, &acks[0].refused[..]), (Answer::Applied, &[][..]));
            world.now = world.now.saturating_add(apart);
            world.sent_at = world.now;
        }
        let weight = planner.cache_bytes();
        let freed = allocation_counter::measure(|| drop(std::mem::take(&mut planner)));
        let freed = usize::try_from(-freed.bytes_current).unwrap();
        let told = format!("{tab_type}, {tabs} x {clients}: {freed} bytes, {weight} weighed");
        assert!(freed <= weight + weight / 8 && weight <= 2 * freed, "{told}");
        freed / (tabs * clients)
    };
    // Decoded: of a CounterGroup about 510 are the State.
    let often = Duration::from_millis(250);
    assert!(per_state(1000, 1, "CounterGroup", often) <= 960);
    assert!(per_state(4, 300, "CounterGroup", often) <= 800);
    assert!(per_state(1000, 1, "TotalsCounter", often) <= 480);
    assert!(per_state(4, 300, "TotalsCounter", often) <= 330);
    // Packed: 110 and 26 bytes encoded. A Tab of its own takes about 150, and a Client of its own.
    let rarely = Duration::from_secs(60);
    assert!(per_state(1000, 1, "CounterGroup", rarely) <= 340);
    assert!(per_state(4, 300, "CounterGroup", rarely) <= 220);
    assert!(per_state(1000, 1, "TotalsCounter", rarely) <= 300);
    assert!(per_state(4, 300, "TotalsCounter", rarely) <= 180);
}

/// A `MemoryStore` keeps a State in little more than its bytes.
#[test]
fn a_store_in_memory_takes_little_beside_the_bytes_of_states() {
    let world = World { handlers: taba_handlers::standard().build().unwrap(), ..World::new() };
    let mut planner = Planner::default();
    let blocks =
        (0..1000).map(|tab| block_of(&format!("tab.{tab}"), "host", "CounterGroup", &[1.0])).collect();
    world.ingest(&mut planner, vec![batch(1, 1, 1, 0, blocks)]);
    drop(planner);
    let freed = allocation_counter::measure(|| drop(world));
    // With the names of Tabs and Clients, the index of Tabs, 70 bytes encoded, and an empty store, which takes 130 of it.
    assert!(-freed.bytes_current < 1000 * 420, "{} bytes", -freed.bytes_current);
}
