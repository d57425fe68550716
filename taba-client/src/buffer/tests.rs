//! The buffer against a model, and at its bounds.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use taba_core::ledger::{self, Where};
use taba_core::limits::{BLOCK_BYTES_MAX, FRAME_BYTES_MAX, VALUE_BYTES_MAX};
use taba_core::wire::{Block, Content, Frame, Kind};
use taba_core::{Event, Handler, TabName, TabType, Value};

use super::by_tab::ByTab;
use super::*;
use crate::config::Config;

trait Summable: Value {
    fn amount(&self) -> u64;
}

impl Summable for f64 {
    fn amount(&self) -> u64 {
        *self as u64
    }
}

impl Summable for String {
    fn amount(&self) -> u64 {
        self.len() as u64
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LabeledWeight {
    grams: u64,
    label: String,
}

impl Value for LabeledWeight {}

impl Summable for LabeledWeight {
    fn amount(&self) -> u64 {
        self.grams
    }
}

/// Adds up amounts.
struct SumHandler<V>(PhantomData<fn(V)>);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct SumState {
    events: u64,
    sum: u64,
}

impl<V: Summable> Handler for SumHandler<V> {
    type Value = V;
    type State = SumState;
    type Projection = SumState;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut SumState, event: Event<&V>) {
        state.events += 1;
        state.sum = state.sum.wrapping_add(event.value.amount());
    }
    fn merge(&self, into: &mut SumState, other: &SumState) {
        into.events += other.events;
        into.sum = into.sum.wrapping_add(other.sum);
    }
    fn project(&self, state: &SumState, _: Timestamp) -> SumState {
        state.clone()
    }
    fn aggregate(&self, into: &mut SumState, other: &SumState) {
        self.merge(into, other);
    }
    fn encoded_bytes_max(&self) -> usize {
        20
    }
}

fn sum<V: Summable>() -> SumHandler<V> {
    SumHandler(PhantomData)
}

/// What a Server knows: more than the Client.
fn server() -> Registry {
    let both = client().to_builder();
    both.with("FarNumbers", sum::<f64>()).with("FarTexts", sum::<String>()).build().unwrap()
}

fn client() -> Registry {
    Registry::builder().with("Numbers", sum::<f64>()).with("Parcels", sum::<LabeledWeight>()).build().unwrap()
}

fn spec<V: Value>(name: &str, tab_type: &str) -> TabSpec {
    TabSpec::new::<V>(TabName::new(name).unwrap(), TabType::new(tab_type).unwrap())
}

fn buffer(config: Config) -> EventBuffer {
    let identity = SenderIdentity { client: ClientId::new("web-01").unwrap(), incarnation: 7 };
    EventBuffer::new(identity, client(), config.verify().unwrap())
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

/// Events and their sum, by Tab; what the Ledger was told included.
type Books = BTreeMap<String, (u64, u64)>;

fn enter(books: &mut Books, block: &Block) {
    if block.tab.is_reserved() {
        assert_eq!(block.tab_type, ledger::tab_type());
        let noted = block_total(&sum::<f64>(), block);
        let entry = books.entry(block.tab.to_string()).or_default();
        *entry = (entry.0 + 1, entry.1 + noted.1);
        return;
    }
    let registry = server();
    let (events, sum) = block_total(registry.get(block.tab_type.as_str()).unwrap().as_ref(), block);
    assert_eq!(events, block.events);
    let entry = books.entry(block.tab.to_string()).or_default();
    *entry = (entry.0 + events, entry.1.wrapping_add(sum));
}

/// What the Ledger was told: recorded.
fn recorded(books: &Books) -> u64 {
    books.get(ledger::RECORDED).map_or(0, |(_, sum)| *sum)
}

/// Events that arrived, and those that were told as dropped.
fn arrived_or_dropped(books: &Books) -> u64 {
    let of = |(tab, (events, sum)): (&String, &(u64, u64))| match tab.as_str() {
        ledger::RECORDED => 0,
        tab if tab.starts_with(ledger::DROPPED) => *sum,
        _ => *events,
    };
    books.iter().map(of).sum()
}

fn block_total(handler: &dyn taba_core::AnyHandler, block: &Block) -> (u64, u64) {
    let state = match &block.content {
        Content::State { version, bytes } => handler.decode(*version, bytes).unwrap(),
        Content::Withheld { .. } => panic!("a client withholds nothing"),
        Content::Events(columns) => {
            let mut state = handler.empty_state();
            let folded = handler
                .fold_columns(&mut state, columns, block.events as usize, taba_core::Arrival::ANY)
                .unwrap();
            assert_eq!((folded.folded, folded.refused), (block.events, 0));
            state
        }
    };
    let shown = handler.render(&handler.project(&state, at(0)), taba_core::Format::Summary);
    (shown["events"].as_u64().unwrap(), shown["sum"].as_u64().unwrap())
}

/// The Batch as an Agent reads it.
fn read(sealed: &SealedBatch) -> ClientBatch {
    let frame = Frame::decode(&sealed.frame(), Kind::ClientBatch).unwrap();
    let (batch, bad) = ClientBatch::decode(&frame.message).unwrap();
    assert!(bad.is_empty());
    assert_eq!(&batch, sealed.batch());
    batch
}

#[derive(Clone, Debug)]
enum BufferInput {
    Offer {
        tab: u32,
        amount: u16,
        time: i64,
        times: u16,
    },
    /// Numbers out of rings, sorted by Tab; only the first of them at a small bound, where nobody can say which are dropped.
    Sorted(Vec<(u32, u16, i64, u16)>),
    /// Another thread takes events out of its ring, and then the background thread all of them.
    Absorb(Vec<(u32, u16, i64, u16)>),
    Dropped(u8),
    Seal,
    Acknowledge,
    AcknowledgeAnother,
    GiveUp,
}

fn steps() -> impl Strategy<Value = Vec<BufferInput>> {
    let offer = (0_u32..7, any::<u16>(), -5_i64..5, prop_oneof![1_u16..4, 1_u16..600]);
    let elsewhere = (0_u32..6, any::<u16>(), -5_i64..5, prop_oneof![1_u16..4, 1_u16..1200]);
    let step = prop_oneof![
        8 => offer.prop_map(|(tab, amount, time, times)| BufferInput::Offer { tab, amount, time, times }),
        2 => prop::collection::vec(elsewhere.clone(), 0..9).prop_map(BufferInput::Absorb),
        2 => prop::collection::vec(elsewhere, 1..9).prop_map(BufferInput::Sorted),
        1 => (1_u8..9).prop_map(BufferInput::Dropped),
        3 => Just(BufferInput::Seal),
        3 => Just(BufferInput::Acknowledge),
        1 => Just(BufferInput::AcknowledgeAnother),
        1 => Just(BufferInput::GiveUp),
    ];
    prop::collection::vec(step, 0..60)
}

const TABS: [&str; 6] = ["n0", "n1", "p", "far", "texts", "mismatch"];

fn declare(buffer: &mut EventBuffer) {
    let specs = [
        spec::<f64>(TABS[0], "Numbers"),
        spec::<f64>(TABS[1], "Numbers"),
        spec::<LabeledWeight>(TABS[2], "Parcels"),
        spec::<f64>(TABS[3], "FarNumbers"),
        spec::<String>(TABS[4], "FarTexts"),
        // The Client's Handler for this type folds something else; such events stay as they are.
        spec::<f64>(TABS[5], "Parcels"),
    ];
    specs.into_iter().enumerate().for_each(|(n, spec)| assert_eq!(buffer.declare(spec), n as u32));
}

fn datum(tab: u32, amount: u16) -> Datum {
    match tab {
        2 => {
            Datum::of(LabeledWeight { grams: u64::from(amount), label: "x".repeat(usize::from(amount) % 7) })
        }
        4 => Datum::of("y".repeat(usize::from(amount) % 100)),
        _ => Datum::of(f64::from(amount)),
    }
}

fn amount_of(tab: u32, amount: u16) -> u64 {
    if tab == 4 { u64::from(amount) % 100 } else { u64::from(amount) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: every event is in exactly one Batch or counted as dropped, sums included;
    /// a Batch never changes; and the Ledger is told all of it, by Batches that arrive.
    #[test]
    fn nothing_is_lost_or_doubled(steps in steps(), blocks in 1_usize..4, small in any::<bool>()) {
        let mut config = Config { batch_blocks_max: LEDGER_BLOCKS_MAX + blocks, ..Config::default() };
        if small {
            (config.tab_events_max, config.pending_bytes_max) = (300, 64 * 1024);
        }
        let mut buffer = buffer(config);
        declare(&mut buffer);
        let (mut taken, mut arrived, mut lost) = (Books::new(), Books::new(), Books::new());
        let (mut in_flight, mut far): (Option<(SeqNo, bytes::Bytes)>, u64) = (None, 0);
        for step in steps {
            match step {
                BufferInput::Offer { tab, amount, time, times } => for _ in 0..times {
                    let before = buffer.counts().pending;
                    buffer.offer(tab, at(time), datum(tab, amount));
                    if buffer.counts().pending > before && tab != 5 {
                        let entry = taken.entry(TABS[tab as usize].to_owned()).or_default();
                        *entry = (entry.0 + 1, entry.1 + amount_of(tab, amount));
                    }
                },
                BufferInput::Sorted(mut all) => {
                    all.truncate(if small { 1 } else { all.len() });
                    let (mut by_tab, mut before) = (ByTab::default(), buffer.counts().pending);
                    for (tab, amount, time, times) in all.into_iter().filter(|(tab, ..)| ![2, 4].contains(tab)) {
                        (0..times).for_each(|_| by_tab.push(tab, at(time), f64::from(amount), &mut buffer));
                        if small {
                            by_tab.empty_into(&mut buffer);
                        }
                        let taken_now = if small { buffer.counts().pending - before } else { u64::from(times) };
                        before = buffer.counts().pending;
                        if tab != 5 && taken_now > 0 {
                            let entry = taken.entry(TABS[tab as usize].to_owned()).or_default();
                            *entry = (entry.0 + taken_now, entry.1 + taken_now * amount_of(tab, amount));
                        }
                    }
                    by_tab.empty_into(&mut buffer);
                }
                BufferInput::Absorb(all) => {
                    // There the Tabs have other numbers, and at a small bound nobody can say which events are dropped.
                    let numbers = if small { vec![] } else { vec![5, 4, 3, 2, 1, 0] };
                    let mut other = self::buffer(Config::default());
                    for &number in &numbers {
                        other.declare(buffer.tabs[number as usize].as_ref().unwrap().spec().clone());
                    }
                    for (tab, amount, time, times) in all.into_iter().filter(|_| !small) {
                        (0..times).for_each(|_| other.offer(5 - tab, at(time), datum(tab, amount)));
                        if tab != 5 {
                            let entry = taken.entry(TABS[tab as usize].to_owned()).or_default();
                            let (times, amount) = (u64::from(times), amount_of(tab, amount));
                            *entry = (entry.0 + times, entry.1 + times * amount);
                        }
                    }
                    buffer.absorb(other, &numbers);
                }
                BufferInput::Dropped(events) => buffer.note_dropped(Why::BadValue, u64::from(events)),
                BufferInput::Seal => {
                    let sealed = buffer.seal(at(9));
                    if let (Some(sealed), Some((seq, frame))) = (&sealed, &in_flight) {
                        prop_assert_eq!((sealed.seq(), &sealed.frame()), (*seq, frame));
                    }
                    in_flight = sealed.map(|sealed| (sealed.seq(), sealed.frame()));
                }
                BufferInput::AcknowledgeAnother => {
                    let before = buffer.counts();
                    prop_assert!(!buffer.acknowledge(SeqNo(999)) && !buffer.give_up(SeqNo(999), Why::Full));
                    prop_assert_eq!(buffer.counts(), before);
                }
                BufferInput::Acknowledge | BufferInput::GiveUp => if let Some((seq, _)) = in_flight.take() {
                    let batch = read(&buffer.seal(at(9)).unwrap());
                    let numbers = batch.blocks.iter().filter(|block| block.tab.as_str() != TABS[5]);
                    if matches!(step, BufferInput::Acknowledge) {
                        numbers.for_each(|block| enter(&mut arrived, block));
                        far += batch.blocks.iter().filter(|b| b.tab.as_str() == TABS[5]).map(|b| b.events).sum::<u64>();
                        prop_assert_eq!(recorded(&arrived), arrived_or_dropped(&arrived) + far, "nothing is in flight");
                        prop_assert!(buffer.acknowledge(seq));
                    } else {
                        numbers.filter(|block| !block.tab.is_reserved()).for_each(|block| enter(&mut lost, block));
                        prop_assert!(buffer.give_up(seq, Why::Undecodable));
                    }
                },
            }
            buffer.audit_deeply();
        }
        while let Some(sealed) = buffer.seal(at(10)) {
            let batch = read(&sealed);
            prop_assert!(batch.blocks.len() <= LEDGER_BLOCKS_MAX + blocks);
            batch.blocks.iter().filter(|b| b.tab.as_str() != TABS[5]).for_each(|block| enter(&mut arrived, block));
            buffer.acknowledge(sealed.seq());
            buffer.audit_deeply();
        }
        let counts = buffer.counts();
        prop_assert_eq!((counts.pending, counts.sealed), (0, 0));
        prop_assert!(buffer.pending_bytes() < 64 * 1024, "{} bytes are kept", buffer.pending_bytes());
        prop_assert_eq!(arrived.remove(ledger::RECORDED).unwrap_or_default().1, counts.recorded);
        for why in Why::ALL {
            let told = arrived.remove(ledger::dropped_tab(Where::Client, why).as_str()).unwrap_or_default().1;
            prop_assert_eq!(told, counts.dropped.get(why), "dropped as {}", why);
        }
        for (tab, (events, sum)) in lost {
            let entry = arrived.entry(tab).or_default();
            *entry = (entry.0 + events, entry.1 + sum);
        }
        prop_assert_eq!(arrived, taken);
    }
}

proptest! {
    /// What many threads recorded comes sorted by Tab; late events, those that are no number and unknown Tabs among them.
    #[test]
    fn sorted_by_tab_is_as_one_by_one(
        events in prop::collection::vec((0_u32..7, 0_u16..99, -5_i64..12, 1_u16..400), 0..20),
        tab_events_max in 8_usize..1500,
    ) {
        let config = Config { tab_events_max, raw_events_max: 8, ..Config::default() };
        let (mut singly, mut sorted, mut by_tab) = (buffer(config.clone()), buffer(config), ByTab::default());
        for buffer in [&mut singly, &mut sorted] {
            declare(buffer);
            buffer.set_now(at(0));
        }
        for (tab, amount, time, times) in events {
            let number = if amount == 0 { f64::NAN } else { f64::from(amount) };
            for _ in 0..times {
                singly.offer(tab, at(time), Datum::Number(number));
                by_tab.push(tab, at(time), number, &mut sorted);
            }
        }
        by_tab.empty_into(&mut sorted);
        prop_assert_eq!((by_tab.len(), singly.counts()), (0, sorted.counts()));
        sorted.audit_deeply();
        let [singly, sorted] = [singly, sorted].map(|mut buffer| {
            let mut books = Books::new();
            while let Some(sealed) = buffer.seal(at(0)) {
                let batch = read(&sealed);
                batch.blocks.iter().filter(|b| b.tab.as_str() != TABS[5]).for_each(|block| enter(&mut books, block));
                buffer.acknowledge(sealed.seq());
            }
            books
        });
        prop_assert_eq!(singly, sorted);
    }
}

#[test]
fn equal_events_that_cannot_be_folded_are_counted() {
    let mut buffer = buffer(Config { tab_events_max: 2000, ..Config::default() });
    declare(&mut buffer);
    let value = |n: u64| (n % 5) as f64;
    for n in 0..300_000 {
        buffer.offer(3, at(n as i64 / 100_000), Datum::Number(value(n)));
    }
    assert!(buffer.pending_bytes() < 128 * 1024, "{} bytes", buffer.pending_bytes());
    buffer.audit_deeply();
    let mut books = Books::new();
    let mut blocks = 0;
    while let Some(sealed) = buffer.seal(at(9)) {
        read(&sealed).blocks.iter().filter(|block| !block.tab.is_reserved()).for_each(|block| {
            blocks += 1;
            enter(&mut books, block);
        });
        assert!(sealed.frame().len() < 4096, "a column of equal events is short");
        buffer.acknowledge(sealed.seq());
        buffer.audit_deeply();
    }
    assert_eq!((blocks, books["far"]), (5, (300_000, 600_000)));
    assert_eq!(buffer.counts().dropped.total(), 0);
}

#[test]
fn few_events_travel_raw_and_many_as_a_state() {
    let mut buffer = buffer(Config::default());
    declare(&mut buffer);
    (0..16).for_each(|n| buffer.offer(0, at(n), Datum::Number(1.0)));
    (0..17).for_each(|n| buffer.offer(1, at(-n), Datum::Number(2.0)));
    let batch = read(&buffer.seal(at(99)).unwrap());
    let [raw, state, recorded] = &batch.blocks[..] else { panic!("{:?}", batch.blocks) };
    assert!(matches!(raw.content, Content::Events(_)));
    assert!(matches!(state.content, Content::State { version: 1, .. }));
    assert_eq!((state.earliest, state.latest, state.events), (at(-16), at(0), 17));
    assert_eq!((raw.earliest, raw.latest, raw.events), (at(0), at(15), 16));
    assert_eq!((recorded.tab.as_str(), recorded.earliest), (ledger::RECORDED, at(99)));
    assert_eq!((batch.seq, batch.sent_at, batch.incarnation), (SeqNo::FIRST, at(99), 7));
}

#[test]
fn an_outage_costs_memory_by_tabs() {
    let mut buffer = buffer(Config::default());
    declare(&mut buffer);
    buffer.offer(0, at(0), Datum::Number(1.0));
    let in_flight = buffer.seal(at(1)).unwrap().frame();
    for n in 0..1_000_000 {
        buffer.offer(n % 2, at(i64::from(n)), Datum::Number(1.0));
    }
    assert!(buffer.pending_bytes() < 16 * 1024, "{} bytes wait", buffer.pending_bytes());
    assert_eq!(buffer.seal(at(2)).unwrap().frame(), in_flight);
    assert_eq!(buffer.counts().dropped.total(), 0);
    buffer.acknowledge(SeqNo::FIRST);
    assert_eq!(buffer.seal(at(3)).unwrap().events(), 1_000_000);
    assert!(!buffer.left_behind());
}

#[test]
fn past_the_bound_the_newest_are_dropped_and_told() {
    let mut buffer =
        buffer(Config { pending_bytes_max: 64 * 1024, tab_events_max: 100, ..Config::default() });
    declare(&mut buffer);
    (0..101).for_each(|n| buffer.offer(3, at(0), Datum::Number(f64::from(n))));
    assert_eq!(buffer.counts().dropped.get(Why::Full), 1, "one Tab may hold a hundred different raw events");
    (0..20).for_each(|_| buffer.offer(0, at(0), Datum::Number(1.0)));
    while buffer.counts().dropped.total() == 1 {
        buffer.offer(4, at(0), Datum::of("z".repeat(1000)));
    }
    assert!(buffer.pending_bytes() <= 64 * 1024);
    let pending = buffer.counts().pending;
    (0..1000).for_each(|_| buffer.offer(0, at(0), Datum::Number(1.0)));
    assert_eq!(buffer.counts().pending, pending + 1000, "a Tab with a State goes on");
    while buffer.counts().dropped.total() == 2 {
        buffer.offer(4, at(0), Datum::of("z".repeat(10)));
    }
    buffer.offer(1, at(0), Datum::Number(1.0));
    assert_eq!(buffer.counts().dropped.get(Why::Full), 4, "a new Tab does not");
    buffer.audit_deeply();
    let told = read(&buffer.seal(at(0)).unwrap()).blocks.pop().unwrap();
    assert_eq!(told.tab, ledger::dropped_tab(Where::Client, Why::Full));
    assert_eq!(block_total(&sum::<f64>(), &told), (1, 4));
}

#[test]
fn large_values_are_cut_into_blocks_that_fit() {
    let mut buffer = buffer(Config { batch_bytes_max: 2 * BLOCK_BYTES_MAX, ..Config::default() });
    declare(&mut buffer);
    for _ in 0..2000 {
        buffer.offer(4, at(0), Datum::of("w".repeat(VALUE_BYTES_MAX)));
    }
    assert_eq!(buffer.counts().dropped.total(), 0);
    let (mut events, mut batches) = (0, 0);
    while let Some(sealed) = buffer.seal(at(0)) {
        assert!(sealed.batch().encode().len() <= FRAME_BYTES_MAX);
        events += read(&sealed).blocks.iter().filter(|b| !b.tab.is_reserved()).map(|b| b.events).sum::<u64>();
        batches += 1;
        buffer.acknowledge(sealed.seq());
    }
    assert_eq!(events, 2000);
    assert!(batches >= 4, "8 MB went in {batches} batches");
}

#[test]
fn values_that_no_reader_would_take_are_refused() {
    let mut buffer = buffer(Config::default());
    declare(&mut buffer);
    buffer.offer(0, at(0), Datum::Number(f64::NAN));
    buffer.offer(0, at(0), Datum::Number(f64::NEG_INFINITY));
    buffer.offer(4, at(0), Datum::of("w".repeat(VALUE_BYTES_MAX + 1)));
    buffer.offer(2, at(0), Datum::of(LabeledWeight { grams: 1, label: "w".repeat(VALUE_BYTES_MAX) }));
    buffer.offer(2, at(0), Datum::Number(1.0));
    assert_eq!(buffer.counts().dropped.get(Why::BadValue), 5);
    buffer.offer(77, at(0), Datum::Number(1.0));
    assert_eq!(buffer.counts().dropped.get(Why::TooManyTabs), 1);
    // With nothing else to say, the Ledger is still told, once.
    let batch = read(&buffer.seal(at(0)).unwrap());
    assert_eq!(batch.blocks.len(), 3);
    buffer.acknowledge(batch.seq);
    assert!(buffer.seal(at(0)).is_none());
}

/// A State that outgrows what its Handler says.
struct Oversized;

impl Handler for Oversized {
    type Value = f64;
    type State = Vec<u8>;
    type Projection = SumState;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Vec<u8>, _: Event<&f64>) {
        state.resize(state.len() + 100_000, 1);
    }
    fn merge(&self, _: &mut Vec<u8>, _: &Vec<u8>) {}
    fn project(&self, _: &Vec<u8>, _: Timestamp) -> SumState {
        SumState::default()
    }
    fn aggregate(&self, _: &mut SumState, _: &SumState) {}
    fn encoded_bytes_max(&self) -> usize {
        1
    }
}

#[test]
fn a_state_that_fits_no_block_is_counted_as_dropped() {
    let handlers = Registry::builder().with("Oversized", Oversized).build().unwrap();
    let identity = SenderIdentity { client: ClientId::new("web-01").unwrap(), incarnation: 7 };
    let mut buffer = EventBuffer::new(identity, handlers, Verified::default());
    buffer.declare(spec::<f64>("lies", "Oversized"));
    (0..20).for_each(|_| buffer.offer(0, at(0), Datum::Number(1.0)));
    let batch = read(&buffer.seal(at(0)).unwrap());
    assert!(batch.blocks.iter().all(|block| block.tab.is_reserved()));
    assert_eq!(buffer.counts().dropped.get(Why::Full), 20);
    buffer.audit_deeply();
}

/// A Handler that panics at numbers below zero, and when it encodes a sum beyond a thousand.
struct PanickingHandler;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct PanickingState {
    events: u64,
    sum: f64,
}

impl Serialize for PanickingState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.sum <= 1000.0, "too heavy");
        (self.events, self.sum).serialize(serializer)
    }
}

impl Handler for PanickingHandler {
    type Value = f64;
    type State = PanickingState;
    type Projection = SumState;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut PanickingState, event: Event<&f64>) {
        assert!(*event.value >= 0.0, "below zero");
        state.events += 1;
        state.sum += event.value;
    }
    fn merge(&self, _: &mut PanickingState, _: &PanickingState) {}
    fn project(&self, _: &PanickingState, _: Timestamp) -> SumState {
        SumState::default()
    }
    fn aggregate(&self, _: &mut SumState, _: &SumState) {}
    fn encoded_bytes_max(&self) -> usize {
        20
    }
}

fn fragile(config: Config) -> EventBuffer {
    let handlers = client().to_builder().with("PanickingHandler", PanickingHandler).build().unwrap();
    let identity = SenderIdentity { client: ClientId::new("web-01").unwrap(), incarnation: 7 };
    let mut buffer = EventBuffer::new(identity, handlers, config.verify().unwrap());
    buffer.declare(spec::<f64>("glass", "PanickingHandler"));
    buffer.declare(spec::<f64>("sound", "Numbers"));
    buffer
}

#[test]
fn a_handler_that_panics_costs_its_own_state_and_no_more() {
    let mut buffer = fragile(Config::default());
    let mut offer = |tab, times: usize, number| {
        (0..times).for_each(|_| buffer.offer(tab, at(0), Datum::Number(number)));
        buffer.audit_deeply();
        (buffer.counts().dropped.get(Why::Undecodable), buffer.take_fault())
    };
    assert_eq!(offer(0, 17, 1.0), (0, None), "folded");
    offer(1, 100, 1.0);
    let (dropped, fault) = offer(0, 300, -1.0);
    let (fault, times) = fault.expect("it is told");
    assert_eq!((dropped, fault.events, times), (17, 17, 1), "what was in the State");
    assert_eq!((fault.tab.as_str(), fault.message.as_str()), ("glass", "panicked: below zero"));
    let batch = read(&buffer.seal(at(1)).unwrap());
    let [glass, sound, ..] = &batch.blocks[..] else { panic!("{:?}", batch.blocks) };
    assert!(matches!(glass.content, Content::Events(_)), "the rest travels as it is");
    assert_eq!((glass.events, sound.events), (300, 100));
    buffer.audit_deeply();
}

#[test]
fn a_state_that_cannot_be_encoded_is_dropped_and_its_tab_goes_on() {
    let mut buffer = fragile(Config::default());
    (0..17).for_each(|_| buffer.offer(0, at(0), Datum::Number(1.0)));
    (0..3).for_each(|_| buffer.offer(0, at(0), Datum::Number(1000.0)));
    let batch = read(&buffer.seal(at(1)).unwrap());
    assert!(batch.blocks.iter().all(|block| block.tab.is_reserved()), "{:?}", batch.blocks);
    assert_eq!(buffer.counts().dropped.get(Why::Undecodable), 20);
    buffer.acknowledge(batch.seq);
    (0..30).for_each(|_| buffer.offer(0, at(0), Datum::Number(1000.0)));
    assert_eq!(buffer.seal(at(2)).unwrap().events(), 30);
    buffer.audit_deeply();
}

/// A value of a shape that postcard does not write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct NotEncodable {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

impl Value for NotEncodable {}

#[test]
fn a_value_that_cannot_be_encoded_is_refused_and_told_once() {
    let mut buffer = buffer(Config::default());
    declare(&mut buffer);
    let flat = buffer.declare(spec::<NotEncodable>("flat", "NotEncodable"));
    for _ in 0..1000 {
        buffer.offer(flat, at(0), Datum::of(NotEncodable { name: String::new(), rest: BTreeMap::new() }));
        buffer.offer(0, at(0), Datum::Number(1.0));
    }
    assert_eq!(buffer.counts().dropped.get(Why::BadValue), 1000);
    let (fault, times) = buffer.take_fault().expect("it is told");
    assert_eq!((fault.tab.as_str(), fault.why, times), ("flat", Why::BadValue, 1));
    assert_eq!(buffer.seal(at(0)).unwrap().events(), 1000);
    buffer.audit_deeply();
}

/// The standard types, which have real sizes.
fn standard(config: Config, tabs: u32) -> EventBuffer {
    let identity = SenderIdentity { client: ClientId::new("web-01").unwrap(), incarnation: 7 };
    let handlers = taba_handlers::standard().build().unwrap();
    let mut buffer = EventBuffer::new(identity, handlers, config.verify().unwrap());
    for n in 0..tabs {
        buffer.declare(spec::<f64>(&format!("tab;n={n}"), "CounterGroup"));
    }
    buffer
}

#[test]
fn many_tabs_in_an_outage_cost_memory_by_tabs_and_drop_nothing() {
    // A tenth of what was seen to fail with 20,000 Tabs under 64 MiB: gathered, the events of one round take 8 MiB.
    const TABS: u32 = 2000;
    let config = Config { pending_bytes_max: 64 << 20, ..Config::default() };
    let config = Config { pending_bytes_max: config.pending_bytes_max / 10, ..config };
    let mut buffer = standard(config, TABS);
    buffer.offer(0, at(0), Datum::Number(1.0));
    buffer.seal(at(0)).unwrap();
    let mut most = 0;
    for n in 0..400 {
        for tab in 0..TABS {
            buffer.offer(tab, at(n / 4), Datum::Number(f64::from(tab % 97) * 0.1));
        }
        most = most.max(buffer.pending_bytes());
    }
    assert_eq!(buffer.counts().dropped.total(), 0, "{:?}", buffer.counts());
    assert!(most <= (64 << 20) / 10 && most > 2 << 20, "{most} bytes");
    buffer.audit_deeply();
    buffer.acknowledge(SeqNo::FIRST);
    let mut events = 0;
    while let Some(sealed) = buffer.seal(at(100)) {
        events += sealed.events();
        buffer.acknowledge(sealed.seq());
    }
    assert_eq!(events, 400 * u64::from(TABS));
    buffer.audit_deeply();
}

#[test]
fn past_every_bound_looking_for_room_stays_cheap() {
    // More Tabs than their States fit: each further event is refused without a look at all of them.
    let mut buffer = standard(Config { pending_bytes_max: 64 * 1024, ..Config::default() }, 5000);
    for n in 0..200 {
        for tab in 0..5000 {
            buffer.offer(tab, at(n), Datum::Number(1.0));
        }
    }
    assert!(buffer.counts().dropped.get(Why::Full) > 900_000, "{:?}", buffer.counts());
    assert!(buffer.compactions < 1_000_000, "{} Tabs were looked at", buffer.compactions);
    buffer.audit_deeply();
}

/// What a Server makes of Blocks that it receives at `now`: those of a `CounterGroup`, and how many events it set back.
fn received(blocks: &[Block], now: Timestamp) -> (serde_json::Value, u64) {
    use taba_core::{AnyHandler, Arrival, Format};
    let handler: &dyn AnyHandler = &taba_handlers::CounterGroup::new();
    let arrival = Arrival { at: now, latest: now.saturating_add(Duration::from_secs(10)) };
    let (mut whole, mut clamped) = (handler.empty_state(), 0);
    for block in blocks.iter().filter(|block| !block.tab.is_reserved()) {
        match &block.content {
            Content::Events(columns) => {
                let folded = handler.fold_columns(&mut whole, columns, block.events as usize, arrival);
                clamped += folded.unwrap().clamped;
            }
            Content::State { version, bytes } => {
                let mut partial = handler.decode(*version, bytes).unwrap();
                if block.latest > arrival.latest {
                    handler.clamp(&mut partial, now);
                    clamped += block.events;
                }
                handler.merge(&mut whole, &partial);
            }
            Content::Withheld { .. } => panic!("a client sends all it has"),
        }
    }
    (handler.render(&handler.project_now(&whole, now), Format::Summary), clamped)
}

/// One event of tomorrow among 40 of now, and, in an outage, one in 15 of 300, over ten seconds: all are counted by every
/// window, and none but the late ones is set back.
#[test]
fn an_event_of_tomorrow_touches_no_other() {
    for (events, every) in [(41, 41), (301, 15)] {
        let handlers = taba_handlers::standard().build().unwrap();
        let identity = SenderIdentity { client: ClientId::new("web-01").unwrap(), incarnation: 7 };
        let mut buffer = EventBuffer::new(identity, handlers, Verified::default());
        let tab = buffer.declare(spec::<f64>("bids", "CounterGroup"));
        let tomorrow = |n: i64| at(100_000 + 86_400 * (1 + n % 3));
        let (mut late, mut blocks) = (0, Vec::new());
        for n in 1..=events {
            let now = at(100_000 + n / 30);
            buffer.set_now(now);
            let is_late = n % every == 0;
            late += u64::from(is_late);
            buffer.offer(tab, if is_late { tomorrow(n) } else { now }, Datum::Number(1.0));
            // The Agent is away from the tenth to the two hundredth.
            if !(10..=200).contains(&n) && n % 20 == 0 {
                let sealed = buffer.seal(now).unwrap();
                blocks.extend(read(&sealed).blocks);
                assert!(buffer.acknowledge(sealed.seq()));
            }
        }
        while let Some(sealed) = buffer.seal(at(100_010)) {
            blocks.extend(read(&sealed).blocks);
            buffer.acknowledge(sealed.seq());
        }
        buffer.audit_deeply();
        assert_eq!(buffer.counts().acked, events as u64);
        let (said, clamped) = received(&blocks, at(100_011));
        let counts = ["1m", "10m", "1h", "1d", "pct"].map(|part| said[part]["count"].as_i64().unwrap());
        assert_eq!((counts, clamped), ([events; 5], late));
    }
}

#[test]
fn late_events_are_bounded_as_all_that_cannot_be_folded() {
    let mut buffer = buffer(Config { tab_events_max: 20, raw_events_max: 4, ..Config::default() });
    let tab = buffer.declare(spec::<f64>("n", "Numbers"));
    buffer.set_now(at(0));
    for n in 0..100 {
        buffer.offer(tab, at(if n % 2 == 0 { 0 } else { 11 }), Datum::Number(1.0));
    }
    buffer.audit_deeply();
    assert_eq!(buffer.counts().dropped.get(Why::Full), 30, "of 50 late ones");
    let sealed = buffer.seal(at(0)).unwrap();
    let blocks = read(&sealed).blocks;
    let shape: Vec<_> = blocks
        .iter()
        .filter(|block| !block.tab.is_reserved())
        .map(|block| (block.events, block.latest))
        .collect();
    assert_eq!(shape, [(50, at(0)), (20, at(11))]);
    buffer.audit_deeply();
}

#[test]
fn after_a_panic_the_batch_in_flight_is_whole_and_the_rest_is_counted() {
    let mut buffer = standard(Config::default(), 3);
    let mut told = 0;
    (0..3).for_each(|tab| buffer.offer(tab, at(0), Datum::Number(1.0)));
    let in_flight = buffer.seal(at(1)).unwrap();
    (0..100).for_each(|n| buffer.offer(n % 2, at(1), Datum::Number(1.0)));
    let mark = buffer.flush_point();
    // An event was counted, and lost on its way into the buffer.
    buffer.counts.recorded += 1;
    buffer.salvage();
    buffer.audit_deeply();
    assert_eq!((buffer.counts().dropped.get(Why::Damaged), buffer.counts().pending), (101, 0));
    assert_eq!(buffer.seal(at(2)).unwrap().frame(), in_flight.frame());
    assert!(!buffer.is_settled(mark), "the batch in flight is not there yet");
    buffer.acknowledge(in_flight.seq());
    buffer.offer(2, at(3), Datum::Number(1.0));
    for sealed in std::iter::from_fn(|| buffer.seal(at(4))).take(1) {
        told += sealed.events();
        assert_eq!(read(&sealed).blocks.len(), 3, "an event, what is recorded, what is dropped");
    }
    assert_eq!(told, 1);
    buffer.audit_deeply();
}

#[test]
fn what_is_marked_is_settled_when_its_batches_are_and_not_before() {
    let mut buffer = buffer(Config { batch_blocks_max: LEDGER_BLOCKS_MAX + 2, ..Config::default() });
    (0..5).for_each(|n| _ = buffer.declare(spec::<f64>(&format!("n{n}"), "Numbers")));
    assert!(buffer.is_settled(buffer.flush_point()), "nothing is here");
    (0..5).for_each(|tab| buffer.offer(tab, at(0), Datum::Number(1.0)));
    let first = buffer.seal(at(0)).unwrap();
    let mark = buffer.flush_point();
    for round in 0..3 {
        // What comes later does not hold it up, whatever Tab it is of.
        (0..5).for_each(|tab| buffer.offer(tab, at(1), Datum::Number(1.0)));
        assert!(!buffer.is_settled(mark), "round {round}");
        let sealed = buffer.seal(at(1)).unwrap();
        buffer.acknowledge(sealed.seq());
    }
    assert!(buffer.is_settled(mark));
    assert!(first.events() == 2 && buffer.counts().pending > 0);
    let mark = buffer.flush_point();
    buffer.note_dropped(Why::BadValue, 1);
    while !buffer.is_settled(mark) {
        let sealed = buffer.seal(at(2)).unwrap();
        assert!(!buffer.is_settled(mark));
        buffer.acknowledge(sealed.seq());
    }
    buffer.note_dropped(Why::BadValue, 1);
    let mark = buffer.flush_point();
    assert!(!buffer.is_settled(mark), "a drop is still to be told");
    let sealed = buffer.seal(at(3)).unwrap();
    assert!(!buffer.is_settled(mark));
    buffer.acknowledge(sealed.seq());
    assert!(buffer.is_settled(mark));
}
