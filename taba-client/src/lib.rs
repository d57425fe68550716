//! Record events in an application: nanoseconds each, never blocking, bounded in memory.
//!
#![cfg_attr(feature = "driver", doc = "```no_run")]
#![cfg_attr(not(feature = "driver"), doc = "```ignore")]
//! use taba_client::Client;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("web-01").agent("http://127.0.0.1:8279").build()?;
//! let bids = client.counter("bids_won")?;
//! bids.add(1.0);
//! # Ok(()) }
//! ```
//!
//! # How it works
//! ```text
//! bids.add(1.0) ── (tab, time, value) ──► a ring of this thread's own       the application's threads
//! ─────────────────────────────────────────────┼─────────────────────────────────────────────────────
//! every flush interval: drain the rings ──► EventBuffer: fold ──► seal ──► Sink: POST, again until a Receipt
//!                                                                       one thread, "taba-client"
//! ```
//! Recording waits for no lock that another thread holds, makes no system call, and once a thread is warm allocates
//! nothing for numbers; only the first event after a pause, and one in some ten thousand without pause, wakes the
//! background thread. A thread that records faster than its rings are drained folds its own events. It never fails loudly either:
//! what cannot be kept is dropped, counted by reason, shown by
//! `Client::stats` and reported upstream with the next Batch.
//!
//! One thread of this library's own, with a small runtime in it, serves all Clients of the process; so the crate works
//! the same in a program without an async runtime and inside one. Where the Tab's type is in the
//! [`Registry`] given to `ClientBuilder::handlers`, events are folded before they travel, and an
//! outage costs memory by Tabs, not by events. Without it they travel as they were recorded.
//!
//! # In a library
//! A library records without knowing whether its application has a Client: with handles in statics, which record nothing
//! until the application has called `Client::set_default`. Tests of the library put a Client with a [`TestSink`] in its
//! place (`with_client`).
#![cfg_attr(feature = "driver", doc = "```")]
#![cfg_attr(not(feature = "driver"), doc = "```ignore")]
//! use taba_client::{Counter, Lazy};
//!
//! static PARSED: Lazy<Counter> = taba_client::counter("parsed");
//!
//! pub fn parse(text: &str) {
//!     PARSED.get().add(text.len() as f64);
//! }
//! ```
//!
//! # What a `fork` does
//! The thread does not exist in a forked child. The first event that a child records through a handle it inherited starts
//! another thread there, and an incarnation of the Client's own, which counts what the child records and nothing of
//! what the parent did; one log line says so. A [`Sink`] of your own is then used by both.
//!
//! # Features
//! - `driver` (default): `Client`, its handles, its thread, and `HttpSink`. Without it the crate is its pure half,
//!   [`EventBuffer`]: what to send, and when to release it.

#![deny(missing_docs)]
#![doc(test(attr(deny(unused_imports))))]

mod buffer;
mod column;
mod config;
mod drops;
mod fault;
mod sink;
mod tab;
mod test_sink;

#[cfg(feature = "driver")]
mod client;
#[cfg(feature = "driver")]
mod client_core;
#[cfg(feature = "driver")]
mod clock;
#[cfg(feature = "driver")]
mod driver;
#[cfg(feature = "driver")]
mod global;
#[cfg(feature = "driver")]
mod handles;
#[cfg(feature = "driver")]
mod lock;
#[cfg(feature = "driver")]
mod pool;
#[cfg(feature = "driver")]
mod process;
#[cfg(feature = "driver")]
mod recorder;
#[cfg(feature = "driver")]
mod ring;
#[cfg(feature = "driver")]
mod stats;
#[cfg(feature = "driver")]
mod tabs;

#[doc(no_inline)]
pub use async_trait::async_trait;
pub use buffer::{EventBuffer, EventCounts, FlushPoint, SealedBatch, SenderIdentity};
pub use column::Datum;
pub use config::{Config, Verified};
pub use drops::Drops;
pub use fault::ApplicationFault;
pub use sink::{Sink, SinkError};
pub use tab::TabSpec;
pub use taba_core::{
    Expiring, Keyed, NameError, Number, OutOfRange, Reading, Registry, RequestHeader, RequestHeaderError,
    TabName, TabType, Timestamp, Value,
};
pub use test_sink::TestSink;

#[cfg(feature = "driver")]
pub use client::{Client, ClientBuilder};
#[cfg(feature = "driver")]
pub use client_core::BuildError;
#[cfg(feature = "driver")]
pub use clock::{Clock, ManualClock};
#[cfg(feature = "driver")]
pub use driver::{AgentAddress, AgentAddressError, HttpSink};
#[cfg(feature = "driver")]
pub use global::{
    DefaultError, Lazy, LazyRef, buffer, counter, current, distinct, expiry_gauge, gauge, keyed, percentile,
    percentile_totals, timer, totals, with_client,
};
#[cfg(feature = "driver")]
pub use handles::{
    Buffered, Counter, Distinct, ExpiryGauge, Gauge, KeyedCounter, Percentile, Tab, Timer, TimerGuard,
};
#[cfg(feature = "driver")]
pub use stats::{ClientStats, FlushReport};
#[cfg(feature = "driver")]
pub use tabs::TabError;

/// The example of the README, compiled.
#[cfg(all(doctest, feature = "driver"))]
#[doc = include_str!("../README.md")]
struct Readme;
