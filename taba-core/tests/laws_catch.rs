//! Each law catches a Handler that breaks it, and only Handlers that break something are caught.
//!
//! Every Handler here is the same honest counter but for one deliberate fault.

#![cfg(feature = "laws")]

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::Just;
use proptest::strategy::Strategy;
use serde::{Deserialize, Serialize};
use taba_core::laws::{self, Broken, Law, handler as law, samples};
use taba_core::{Event, Events, Handler, StateError, Timestamp, handler_laws};

/// What is wrong with the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Forgets the first event of each batch it is merged from.
    LosesAtCuts,
    /// Keeps the last event, not the latest.
    LastWins,
    /// Counts a batch as one.
    CountsBatches,
    /// Adds half of the other side: neither associative nor commutative.
    HalvesOnMerge,
    /// Keeps the left side.
    KeepsLeft,
    /// Adds one on every merge, also with nothing.
    CountsMerges,
    /// Projects less than it holds.
    ProjectsHalf,
    /// Aggregates by halving the right side.
    AggregatesHalf,
    /// Aggregates by keeping the left side.
    AggregatesLeft,
    /// Adds one on every aggregation.
    CountsAggregations,
    /// Does not write a field that matters.
    ForgetsOnDisk,
    /// Accepts any version.
    AcceptsAnyVersion,
    /// Prunes what still says something.
    PrunesTheLiving,
    /// Compacts what still shows.
    CompactsTheLiving,
    /// Keeps times that lie past the clamp.
    IgnoresClamp,
    /// Forgets the other events when one lies past the clamp.
    ClampTakesOthers,
    /// Divides by a number that can be zero.
    Panics,
    /// States a bound that does not hold.
    UnderstatesBound,
}

#[derive(Debug)]
struct Counter(Fault);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    count: u64,
    latest: Option<i64>,
    #[serde(skip)]
    unwritten: u64,
    merges: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Shown {
    count: u64,
    latest: Option<i64>,
}

impl Handler for Counter {
    type Value = f64;
    type State = Seen;
    type Projection = Shown;
    const VERSION: u16 = 2;

    fn fold(&self, state: &mut Seen, event: Event<&f64>) {
        let time = Some(event.time.as_micros());
        state.count += 1;
        state.latest = if self.0 == Fault::LastWins { time } else { state.latest.max(time) };
        if self.0 == Fault::ForgetsOnDisk {
            state.unwritten += 1;
        }
        if self.0 == Fault::Panics {
            assert_ne!(event.time, Timestamp::MIN, "the deliberate fault");
        }
    }

    fn fold_all(&self, state: &mut Seen, events: Events<'_, f64>) {
        if self.0 == Fault::CountsBatches && !events.is_empty() {
            state.count += 1;
            return;
        }
        events.iter().for_each(|event| self.fold(state, event));
    }

    fn merge(&self, into: &mut Seen, other: &Seen) {
        let theirs = match self.0 {
            Fault::LosesAtCuts => other.count.saturating_sub(1),
            Fault::HalvesOnMerge => other.count / 2,
            Fault::KeepsLeft if into.count > 0 => 0,
            _ => other.count,
        };
        into.count = into.count.saturating_add(theirs);
        into.merges = into.merges.saturating_add(other.merges) + u64::from(self.0 == Fault::CountsMerges);
        into.unwritten = into.unwritten.saturating_add(other.unwritten);
        into.latest = into.latest.max(other.latest);
    }

    fn project(&self, state: &Seen, _at: Timestamp) -> Shown {
        let count = if self.0 == Fault::ProjectsHalf { state.count / 2 } else { state.count };
        Shown { count, latest: state.latest }
    }

    fn aggregate(&self, into: &mut Shown, other: &Shown) {
        let theirs = match self.0 {
            Fault::AggregatesHalf => other.count / 2,
            Fault::AggregatesLeft if into.count > 0 => 0,
            _ => other.count,
        };
        into.count = into.count.saturating_add(theirs) + u64::from(self.0 == Fault::CountsAggregations);
        into.latest = into.latest.max(other.latest);
    }

    fn encoded_bytes_max(&self) -> usize {
        if self.0 == Fault::UnderstatesBound { 3 } else { 31 }
    }

    fn upgrade(&self, version: u16, bytes: &[u8]) -> Result<Seen, StateError> {
        let unknown = StateError::UnknownVersion { found: version, known: Self::VERSION };
        match (version, self.0) {
            (1, _) | (_, Fault::AcceptsAnyVersion) => {
                let count = postcard::from_bytes(bytes).map_err(|_| StateError::Malformed { version })?;
                Ok(Seen { count, ..Seen::default() })
            }
            _ => Err(unknown),
        }
    }

    fn should_prune(&self, state: &Seen, _at: Timestamp) -> bool {
        state.count == 0 || self.0 == Fault::PrunesTheLiving
    }

    fn compact(&self, state: &mut Seen, _at: Timestamp) {
        if self.0 == Fault::CompactsTheLiving {
            state.latest = None;
        }
    }

    fn clamp(&self, state: &mut Seen, latest: Timestamp) {
        if self.0 == Fault::ClampTakesOthers && state.latest > Some(latest.as_micros()) {
            state.count = 1;
        }
        if self.0 != Fault::IgnoresClamp {
            state.latest = state.latest.map(|time| time.min(latest.as_micros()));
        }
    }
}

fn verdict(fault: Fault, law: Law<Counter>) -> Result<(), Broken> {
    laws::check(&Counter(fault), samples::numbers(), law)
}

/// The law of `$law` catches the fault, and finds nothing in the honest counter.
macro_rules! catches {
    ($($test:ident: $law:path, $fault:ident;)*) => {$(
        #[test]
        fn $test() {
            assert_eq!(verdict(Fault::None, $law), Ok(()));
            let broken = verdict(Fault::$fault, $law).expect_err("the law must catch this");
            assert!(broken.detail.contains("smallest sample"), "{broken}");
        }
    )*};
}

catches! {
    splitting_catches_losses_at_cuts: law::splitting, LosesAtCuts;
    order_catches_last_wins: law::order, LastWins;
    batching_catches_counted_batches: law::batching, CountsBatches;
    merge_associates_catches_halving: law::merge_associates, HalvesOnMerge;
    merge_commutes_catches_keeping_left: law::merge_commutes, KeepsLeft;
    merge_is_neutral_catches_counted_merges: law::merge_is_neutral, CountsMerges;
    projecting_catches_halving: law::projecting, ProjectsHalf;
    aggregate_associates_catches_halving: law::aggregate_associates, AggregatesHalf;
    aggregate_commutes_catches_keeping_left: law::aggregate_commutes, AggregatesLeft;
    aggregate_is_neutral_catches_counted_aggregations: law::aggregate_is_neutral, CountsAggregations;
    round_trip_catches_what_is_not_written: law::round_trip, ForgetsOnDisk;
    parts_catches_losses_at_cuts: law::parts, LosesAtCuts;
    unknown_versions_catches_accepting_any: law::unknown_versions, AcceptsAnyVersion;
    pruning_catches_pruning_the_living: law::pruning, PrunesTheLiving;
    compacting_catches_compacting_the_living: law::compacting, CompactsTheLiving;
    clamping_catches_times_past_the_clamp: law::clamping, IgnoresClamp;
    clamping_many_catches_a_clamp_that_takes_others: law::clamping_many, ClampTakesOthers;
    totality_catches_panics: law::totality, Panics;
    bounded_catches_a_wrong_bound: law::bounded, UnderstatesBound;
}

/// The counter as it was in version 1: it only counted. `bias` is what it adds when merging.
#[derive(Debug)]
struct CounterV1 {
    bias: u64,
}

impl Handler for CounterV1 {
    type Value = f64;
    type State = u64;
    type Projection = Shown;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut u64, _: Event<&f64>) {
        *state += 1;
    }
    fn merge(&self, into: &mut u64, other: &u64) {
        *into += other + self.bias;
    }
    fn project(&self, state: &u64, _: Timestamp) -> Shown {
        Shown { count: *state, latest: None }
    }
    fn aggregate(&self, into: &mut Shown, other: &Shown) {
        into.count += other.count;
    }
    fn encoded_bytes_max(&self) -> usize {
        10
    }
}

#[test]
fn upgrading_catches_an_upgrade_that_does_not_commute_with_merging() {
    fn upgraded(handler: &Counter, sample: &samples::Sample<f64>) -> Result<(), Broken> {
        law::upgrading(handler, &CounterV1 { bias: 0 }, sample)
    }
    fn biased(handler: &Counter, sample: &samples::Sample<f64>) -> Result<(), Broken> {
        law::upgrading(handler, &CounterV1 { bias: 1 }, sample)
    }
    assert_eq!(verdict(Fault::None, upgraded), Ok(()));
    assert!(verdict(Fault::None, biased).is_err());
}

#[test]
fn a_law_is_tried_on_as_many_samples_as_stated() {
    static TRIED: AtomicU64 = AtomicU64::new(0);
    fn counting(_: &Counter, sample: &samples::Sample<f64>) -> Result<(), Broken> {
        TRIED.fetch_add(u64::from(!sample.a.is_empty()), Ordering::Relaxed);
        Ok(())
    }
    assert_eq!(verdict(Fault::None, counting), Ok(()));
    assert!(TRIED.load(Ordering::Relaxed) > u64::from(laws::CASES) / 2, "most samples have events");
}

handler_laws!(honest, Counter(Fault::None), samples::numbers(), older = [CounterV1 { bias: 0 }]);
handler_laws!(of_mapped_values, Counter(Fault::None), samples::numbers().prop_map(f64::abs));

/// A gauge that forgets the order of late readings when it is clamped: they all get one time, and the greatest wins.
#[derive(Debug)]
struct NaiveGauge;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LastReading(Option<(i64, f64)>);

impl Handler for NaiveGauge {
    type Value = f64;
    type State = LastReading;
    type Projection = LastReading;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut LastReading, event: Event<&f64>) {
        self.merge(state, &LastReading(Some((event.time.as_micros(), event.value + 0.0))));
    }
    fn merge(&self, into: &mut LastReading, other: &LastReading) {
        if into.0.partial_cmp(&other.0) == Some(std::cmp::Ordering::Less) {
            into.0 = other.0;
        }
    }
    fn project(&self, state: &LastReading, _: Timestamp) -> LastReading {
        state.clone()
    }
    fn aggregate(&self, into: &mut LastReading, other: &LastReading) {
        self.merge(into, other);
    }
    fn encoded_bytes_max(&self) -> usize {
        19
    }
    fn clamp(&self, state: &mut LastReading, latest: Timestamp) {
        state.0 = state.0.map(|(time, value)| (time.min(latest.as_micros()), value));
    }
}

#[test]
fn clamping_in_order_catches_a_clamp_that_forgets_the_order() {
    let verdict = |law: Law<NaiveGauge>| laws::check(&NaiveGauge, samples::numbers(), law);
    assert_eq!(verdict(law::clamping_many), Ok(()));
    assert!(verdict(law::clamping_in_order).is_err());
}

/// Counts in a State that reads less than merging makes, or that a merge makes larger than any State of events.
#[derive(Debug)]
struct Narrow {
    read_max: u64,
    merged_max: u64,
    fits: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Few(u64);

impl Handler for Narrow {
    type Value = f64;
    type State = Few;
    type Projection = Few;
    const VERSION: u16 = 2;

    fn fold(&self, state: &mut Few, _: Event<&f64>) {
        self.merge(state, &Few(1));
    }
    fn merge(&self, into: &mut Few, other: &Few) {
        into.0 = into.0.saturating_add(other.0).min(self.merged_max);
    }
    fn project(&self, state: &Few, _: Timestamp) -> Few {
        state.clone()
    }
    fn aggregate(&self, into: &mut Few, other: &Few) {
        self.merge(into, other);
    }
    fn encoded_bytes_max(&self) -> usize {
        2
    }
    fn upgrade(&self, version: u16, _: &[u8]) -> Result<Few, StateError> {
        match version {
            1 => Ok(Few(u64::MAX)),
            found => Err(StateError::UnknownVersion { found, known: 2 }),
        }
    }
    fn fit(&self, state: &mut Few) {
        if self.fits {
            state.0 = state.0.min(self.read_max);
        }
    }
}

#[test]
fn closed_catches_states_that_decode_but_do_not_merge_into_one_that_does() {
    let check = |narrow| laws::check(&narrow, samples::numbers(), law::closed);
    assert_eq!(check(Narrow { read_max: 100, merged_max: 100, fits: true }), Ok(()));
    for (narrow, what) in [
        (Narrow { read_max: 100, merged_max: 100, fits: false }, "it reads what it does not keep"),
        (Narrow { read_max: 100, merged_max: 300, fits: true }, "a merge makes what it does not read"),
    ] {
        let broken = check(narrow).expect_err(what).to_string();
        assert!(broken.starts_with("the law `closed` is broken"), "{broken}");
    }
    // Without the chance of the samples: by hand.
    let narrow = Narrow { read_max: 100, merged_max: 300, fits: true };
    let states = |n: u64| [taba_core::encode_state(&Few(n)), taba_core::encode_state(&Few(n))];
    assert_eq!(law::check_closed(&narrow, &states(1), Timestamp::MAX), Ok(()));
    assert!(law::check_closed(&narrow, &states(60), Timestamp::MAX).is_err());
}

#[test]
fn what_was_upgraded_fits_too() {
    let narrow = Narrow { read_max: 100, merged_max: 100, fits: true };
    assert_eq!(taba_core::decode_state(&narrow, 1, &[]), Ok(Few(100)));
}

/// A State that takes memory: as much as its bytes announce, or for each of them so much; or that says it takes less.
#[derive(Debug)]
struct Greedy {
    heap_bytes: fn(&Room) -> usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "(u16, u8)", into = "(u16, u8)")]
struct Room {
    bytes: Vec<u8>,
}

impl From<(u16, u8)> for Room {
    fn from((announced, kept): (u16, u8)) -> Self {
        let mut bytes = Vec::with_capacity(announced.into());
        bytes.resize(kept.into(), 1);
        bytes.shrink_to_fit();
        Self { bytes }
    }
}

impl From<Room> for (u16, u8) {
    fn from(room: Room) -> Self {
        (room.bytes.len() as u16, room.bytes.len() as u8)
    }
}

impl Handler for Greedy {
    type Value = f64;
    type State = Room;
    type Projection = u64;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Room, _: Event<&f64>) {
        state.bytes.resize(255, 1);
    }
    fn merge(&self, _: &mut Room, _: &Room) {}
    fn project(&self, _: &Room, _: Timestamp) -> u64 {
        0
    }
    fn aggregate(&self, _: &mut u64, _: &u64) {}
    fn encoded_bytes_max(&self) -> usize {
        4
    }
    fn heap_bytes(&self, state: &Room) -> Option<usize> {
        Some((self.heap_bytes)(state))
    }
}

fn meter(run: &mut dyn FnMut()) -> laws::Metered {
    let info = allocation_counter::measure(run);
    laws::Metered::new(info.bytes_max as usize, info.bytes_current as usize)
}

#[test]
fn decode_bounded_catches_memory_that_is_announced_and_memory_that_is_not_told() {
    let honest = Greedy { heap_bytes: |state| state.bytes.capacity() };
    let encoded = |announced: u16| taba_core::encode_state(&(announced, 200_u8));
    assert_eq!(laws::check_decoding(&honest, &encoded(3000), meter), Ok(true));
    assert_eq!(laws::check_decoding(&honest, &[200], meter), Ok(false));
    let broken = laws::check_decoding(&honest, &encoded(60_000), meter).unwrap_err().to_string();
    assert!(broken.contains("decode(b) allocates") && broken.contains("bytes for 4 encoded"), "{broken}");
    // The kit finds it too.
    let broken = laws::check_decode_bounded(&honest, samples::numbers(), meter).unwrap_err().to_string();
    assert!(broken.contains("decode(b) allocates"), "{broken}");
    let shy = Greedy { heap_bytes: |_| 0 };
    let broken = laws::check_decoding(&shy, &encoded(200), meter).unwrap_err().to_string();
    assert!(broken.contains("heap_bytes(s) is what s holds"), "{broken}");
    assert_eq!(laws::check_decode_bounded(&keeps::<f64>(usize::MAX), samples::numbers(), meter), Ok(()));
}

/// A value as people write it in serde, and as it does not come back from postcard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Sold { cents: u32 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Cents(u32),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Skipping {
    #[serde(skip_serializing_if = "Option::is_none")]
    cents: Option<u32>,
    items: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    more: std::collections::BTreeMap<String, u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Plain {
    cents: Option<u32>,
    #[serde(rename = "n", default)]
    items: u8,
}

/// Keeps every value that it ever saw; or every different one.
#[derive(Debug)]
struct Keeps<V> {
    bytes_max: usize,
    of: std::marker::PhantomData<fn() -> V>,
}

fn keeps<V>(bytes_max: usize) -> Keeps<V> {
    Keeps { bytes_max, of: std::marker::PhantomData }
}

macro_rules! counts_values {
    ($($value:ty)*) => {$(
        impl Handler for Keeps<$value> {
            type Value = $value;
            type State = std::collections::BTreeSet<Vec<u8>>;
            type Projection = std::collections::BTreeSet<Vec<u8>>;
            const VERSION: u16 = 1;

            fn fold(&self, state: &mut Self::State, event: Event<&$value>) {
                state.insert(format!("{:?}", event.value).into_bytes());
            }
            fn merge(&self, into: &mut Self::State, other: &Self::State) {
                into.extend(other.iter().cloned());
            }
            fn project(&self, state: &Self::State, _: Timestamp) -> Self::Projection {
                state.clone()
            }
            fn aggregate(&self, into: &mut Self::Projection, other: &Self::Projection) {
                self.merge(into, other);
            }
            fn encoded_bytes_max(&self) -> usize {
                self.bytes_max
            }
        }
    )*};
}

impl taba_core::Value for Tagged {}
impl taba_core::Value for Untagged {}
impl taba_core::Value for Skipping {}
impl taba_core::Value for Flat {}
impl taba_core::Value for Plain {}
counts_values! { f64 Tagged Untagged Skipping Flat Plain }

#[test]
fn values_catches_values_that_do_not_come_back_from_the_wire() {
    fn caught<V: taba_core::Value>(values: impl Strategy<Value = V> + Clone + 'static) -> Option<Broken>
    where
        Keeps<V>: Handler<Value = V>,
    {
        laws::check(&keeps::<V>(usize::MAX), values, law::values).err()
    }
    let cents = 0_u32..9;
    let text = cents
        .clone()
        .prop_map(|cents| if cents > 4 { Untagged::Cents(cents) } else { Untagged::Text("x".into()) });
    let skipping = cents.clone().prop_map(|cents| Skipping { cents: (cents > 4).then_some(cents), items: 1 });
    let flat = cents.clone().prop_map(|cents| Flat { more: [("a".to_owned(), cents)].into() });
    for broken in [
        caught(cents.clone().prop_map(|cents| Tagged::Sold { cents })),
        caught(text),
        caught(skipping),
        caught(flat),
    ] {
        let broken = broken.expect("its values are lost on the way").to_string();
        assert!(broken.contains("the law `values` is broken: decode(encode(v)) = v"), "{broken}");
    }
    assert_eq!(caught(cents.prop_map(|cents| Plain { cents: Some(cents), items: 1 })), None);
}

type Kept = std::collections::BTreeSet<Vec<u8>>;

/// A State that grows in one way.
#[derive(Debug)]
struct Grows<V> {
    by: fn(&mut Kept, Event<&V>),
    bytes_max: usize,
}

impl<V: taba_core::Value> Handler for Grows<V> {
    type Value = V;
    type State = Kept;
    type Projection = u64;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Kept, event: Event<&V>) {
        (self.by)(state, event);
    }
    fn merge(&self, _: &mut Kept, _: &Kept) {}
    fn project(&self, state: &Kept, _: Timestamp) -> u64 {
        state.len() as u64
    }
    fn aggregate(&self, _: &mut u64, _: &u64) {}
    fn encoded_bytes_max(&self) -> usize {
        self.bytes_max
    }
}

/// A map of values.
fn each_value(state: &mut Kept, event: Event<&f64>) {
    state.insert(event.value.to_bits().to_be_bytes()[..3].to_vec());
}

fn each_of_20_000(state: &mut Kept, event: Event<&f64>) {
    if state.len() < 20_000 {
        each_value(state, event);
    }
}

fn each_day(state: &mut Kept, event: Event<&f64>) {
    state.insert((event.time.as_micros() / 86_400_000_000).to_be_bytes().to_vec());
}

/// A list of a byte for each event.
fn each_event(state: &mut Kept, _: Event<&f64>) {
    let mut list = state.pop_first().unwrap_or_default();
    list.push(1);
    state.insert(list);
}

/// A list of a byte for one in sixteen values.
fn some_events(state: &mut Kept, event: Event<&f64>) {
    if event.value.to_bits() % 16 == 1 {
        each_event(state, event);
    }
}

#[test]
fn bounded_with_many_values_catches_what_grows_with_every_new_one() {
    const MILLION: usize = 1_000_000;
    // A strategy that gives one value only: it is the kit that finds others.
    let caught = |by, bytes_max| {
        let broken = laws::check_bounded(&Grows { by, bytes_max }, Just(1.0)).err();
        broken.map(|broken| broken.to_string())
    };
    let broken = caught(each_value, MILLION / 4).expect("it is over its bound");
    assert!(broken.contains("right: 250000 bytes"), "{broken}");
    let broken = caught(each_value, usize::MAX).expect("it grows, and would be over its bound after a year");
    assert!(broken.contains("stop growing") && broken.contains("after 262144 values"), "{broken}");
    for by in [each_event, some_events, each_day] {
        assert!(caught(by, MILLION).is_some());
    }
    assert_eq!(caught(each_of_20_000, MILLION), None, "it stops within its bound");
    // And of what the strategy gives.
    let kept = (0..200).prop_map(f64::from);
    assert_eq!(laws::check_bounded(&Grows { by: each_of_20_000, bytes_max: MILLION }, kept), Ok(()));
}

/// A value as an application has them, with all that can be long or extreme in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Visit {
    page: String,
    kind: Kind,
    steps: Vec<(u16, Option<String>)>,
    labels: std::collections::BTreeMap<String, i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    First,
    Again { times: u32 },
    From(String),
    Inside(Box<Kind>),
}

impl taba_core::Value for Visit {
    fn is_valid(&self) -> bool {
        self.page.len() <= 300
    }
}

#[test]
fn bounded_with_many_values_tries_the_longest_that_are_valid() {
    fn longest(state: &mut Kept, text: &str) {
        if state.last().is_none_or(|longest| text.len() > longest.len()) {
            *state = [text.as_bytes().to_vec()].into();
        }
    }
    fn is_exactly<V: taba_core::Value>(bytes_max: usize, value: &V, by: fn(&mut Kept, Event<&V>)) {
        let check = |bytes_max| laws::check_bounded(&Grows { by, bytes_max }, Just(value.clone()));
        assert_eq!(check(bytes_max), Ok(()));
        assert!(check(bytes_max - 1).is_err(), "there is a value that takes {bytes_max} bytes");
    }
    // Beside the text, its length takes two bytes, and that of the set one.
    is_exactly(taba_core::limits::VALUE_BYTES_MAX + 3, &String::new(), |state, event| {
        longest(state, event.value);
    });
    let visit = Visit { page: String::new(), kind: Kind::First, steps: vec![], labels: [].into() };
    is_exactly(300 + 3, &visit, |state, event| longest(state, &event.value.page));
    // A map of keys that are taken to be short: the bound is reached by long ones only.
    let keys = |state: &mut Kept, event: Event<&Visit>| {
        if state.len() < 100 {
            state.insert(event.value.page.as_bytes().to_vec());
        }
    };
    let short = Grows { by: keys, bytes_max: 100 * 64 };
    let pages = "[a-z]{1,20}".prop_map(move |page| Visit { page, ..visit.clone() });
    assert_eq!(laws::check(&short, pages.clone(), law::bounded), Ok(()));
    let broken = laws::check_bounded(&short, pages).unwrap_err();
    assert!(broken.to_string().contains("right: 6400 bytes"), "{broken}");
}

#[test]
fn a_broken_law_names_its_equation_and_both_sides() {
    let broken = verdict(Fault::KeepsLeft, law::merge_commutes).unwrap_err().to_string();
    let lines: Vec<_> = broken.lines().collect();
    assert_eq!(lines[0], "the law `merge_commutes` is broken: merge(s, t) ≡ merge(t, s)");
    assert!(lines[1].starts_with("left:  Seen {") && lines[2].starts_with("right: Seen {"), "{broken}");
}
