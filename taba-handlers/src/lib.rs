//! The parts that Taba's Handlers are made of, and the standard Tab types.
//!
//! Every part keeps the laws of [`Handler`](taba_core::Handler), to the last bit and in any order, and so does
//! whatever is composed of parts. A Handler of your own is mostly one expression; see [`Group`].
//!
//! ```text
//! CounterGroup = Group<( Windowed<Sum>: 1m, 10m, 1h, 1d;  AllTime<Group<(Sum, Sketch)>> )>    one event goes to every part
//!                          └ a Sum for each bucket of time   └ count, total and percentiles of all
//! ```
//!
//! Read [`Sum`] first (the file `sum.rs`), then [`Windowed`] and [`Group`].
//!
//! # Parts
//! | part | what it says | memory | encoded, at most | accuracy |
//! |---|---|---|---|---|
//! | [`Sum`] | count, total, average | 32 B | 290 B | exact |
//! | [`Totals`] | and the extremes | 48 B | 310 B | exact |
//! | [`Sketch`] | percentiles | 1-9 B a bucket | 31 KiB | 0.542 % over 32 octaves, then [more](Sketch#values-that-span-more) |
//! | [`Latest`] | the last reading | 48 B | 4.1 KiB | exact |
//! | [`Distinct`] | how many different texts | 4 KiB | 3 KiB | 1.63 % standard error |
//! | [`Buffer`] | the readings themselves | 48 B a reading | 299 KiB | exact up to 1,000 |
//! | [`Windowed<H>`](Windowed) | `H` over the last while | `H` × buckets | `H` × buckets | as `H`; begins up to a bucket early |
//! | [`AllTime<H>`](AllTime) | `H`, or that it does not know | `H` + 16 B | `H` + 11 B | as `H` |
//! | [`Group<(A, B, …)>`](Group) | several parts of the same events | all of them | all of them | as they |
//! | [`ByKey<H>`](ByKey) | `H` for each key | `H` × keys | `H` × keys | as `H` |
//! | [`On<V, H>`](On) | `H` of something of each value | as `H` | as `H` | as `H` |
//!
//! # Standard Tab types
//! | type | of | encoded, usual and at most | accuracy |
//! |---|---|---|---|
//! | [`TotalsCounter`] | numbers | 20 B, 320 B | exact |
//! | [`PercentileCounter`] | numbers | 0.5 KiB, 31 KiB | percentiles 0.542 % |
//! | [`CounterGroup`] | numbers | 1-5 KiB, 132 KiB | percentiles 0.542 % |
//! | [`PercentileGroup`] | numbers | 6 KiB, 984 KiB | percentiles 0.542 % |
//! | [`Gauge`] | [`Reading`](taba_core::Reading) | 20 B, 4.1 KiB | exact |
//! | [`ExpiryGauge`] | [`Expiring`](taba_core::Expiring) | 25 B, 517 KiB | [as stated there](ExpiryGauge) |
//! | [`Buffer`] | [`Expiring`](taba_core::Expiring) | 20 B a reading, 300 KiB | exact up to 1,000 |
//! | [`CommonPrefixCounterGroup`] | [`Keyed`](taba_core::Keyed) | 1-5 KiB a key, 17 MiB | percentiles 0.542 % |
//! | [`Distinct`] | `String` | 3 B a text, 3 KiB | 1.63 % standard error |
//!
//! The worst cases of types with exact sums want values that span hundreds of octaves in every single bucket.
//!
//! # Examples
//! ```
//! use taba_core::{Event, Format, Handler, Timestamp};
//! use taba_handlers::CounterGroup;
//!
//! let handler = CounterGroup::new();
//! let mut state = Default::default();
//! for second in 0..600 {
//!     handler.fold(&mut state, Event::new(Timestamp::from_secs(second), &2.5));
//! }
//! let now = handler.project(&state, Timestamp::from_secs(599));
//! let said = handler.render(&now, Format::Summary);
//! // Events at 539, 540, …, 599: a window holds all of its length, and at most one bucket more.
//! assert_eq!(said["1m"].to_string(), r#"{"count":61,"total":152.5,"average":2.5}"#);
//! assert_eq!(said["10m"]["total"], 1500.0);
//! ```
//!
//! # Why there is no `TopK`
//! The heavy hitters of a stream need a State that merges without loss. Space-saving and Misra-Gries, and what is
//! built on them, do not: which counters survive depends on the order in which States merge, so one Tab would have
//! several answers. Linear sketches (Count-Min, Count-Sketch) do merge exactly, but they answer "how often was this
//! key seen?" and not "which keys?"; the candidates must be remembered beside the sketch, in a bounded set whose
//! members are chosen by their estimates so far. That choice depends on the order again. Dyadic sketches recover keys
//! without such a set at 32 or more sketches to a State, hundreds of kilobytes for each (Client, Tab). None of these
//! is good enough. Where keys are few, [`ByKey`] counts each exactly; where they are many, give each a label and let
//! a query sort them.

#![deny(missing_docs)]
#![doc(test(attr(deny(unused_imports))))]

mod all_time;
mod buffer;
mod by_key;
mod decode;
mod distinct;
mod expiry_gauge;
mod group;
mod heap;
mod latest;
mod old;
mod on;
mod ring;
mod sketch;
mod stamp;
mod sum;
mod tabs;
mod totals;
mod unknown;
mod windowed;

use taba_core::{Registry, RegistryBuilder};

pub use all_time::{AllTime, Whole, WholeView};
pub use buffer::{BUFFER_BYTES_MAX, BUFFER_READINGS_MAX, Buffer, BufferState};
pub use by_key::{ByKey, KEYS_MAX, KeyedStates, KeyedView};
pub use distinct::{Distinct, Registers};
pub use expiry_gauge::{ExpiryGauge, ExpiryState, ExpiryView};
pub use group::{Group, Parts};
pub use heap::HeapBytes;
pub use latest::{Dated, Latest, LatestView};
pub use on::On;
pub use ring::{RING_BUCKETS_MAX, Ring};
pub use sketch::{ExponentialError, ExponentialHistogram, PERCENTILES, Sketch, SketchState};
pub use stamp::Stamp;
pub use sum::{Sum, SumState};
pub use tabs::{
    CommonPrefixCounterGroup, CounterGroup, Gauge, PercentileCounter, PercentileGroup, TotalsCounter,
};
pub use totals::{Totals, TotalsState};
pub use windowed::{WindowView, Windowed};

/// All standard Tab types under their names, to build a [`Registry`] from or to add to.
///
/// # Examples
/// ```
/// use taba_handlers::{Totals, standard};
///
/// let registry = standard().with("MyTotals", Totals).build()?;
/// assert!(registry.get("CounterGroup").is_some());
/// # Ok::<(), taba_core::RegistryError>(())
/// ```
pub fn standard() -> RegistryBuilder {
    Registry::builder()
        .with_closed("Buffer", AllTime::new(Buffer))
        .with_closed("CommonPrefixCounterGroup", CommonPrefixCounterGroup::new())
        .with_closed("CounterGroup", CounterGroup::new())
        .with_closed("Distinct", AllTime::new(Distinct))
        .with_closed("ExpiryGauge", ExpiryGauge)
        .with_closed("Gauge", Gauge::new())
        .with_closed("PercentileCounter", PercentileCounter::new())
        .with_closed("PercentileGroup", PercentileGroup::new())
        .with_closed("TotalsCounter", TotalsCounter::new())
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
