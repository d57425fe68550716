//! The Server of Taba: it receives Batches from Agents, folds them into States, stores them with their marks, and
//! answers queries. It is stateless: any Server may process any Batch at any time, because the marks that make a
//! Batch count exactly once are in the [`Store`](taba_core::Store), beside the States. An answer states what the
//! store holds, and how much of that would survive the loss of its machine; what a sender may release then is the
//! sender's rule.
//!
//! ```text
//! POST /v2/lanes ─► open_requests ─► worker: planner of each VBucket ─► Store: load, commit on condition of the version
//!       ▲            bound     admit by the mark, fold, commit        │
//!       └──────────── Acks, after the commit ◄────────────────────────┘
//! GET  /v2/tabs … ─► query: project and aggregate the stored States ◄─┘
//! ```
//!
//! Read [`admission`] first (the rule of a Lane), then [`planner`], then `query`.
//!
//! # Modules
//! | module | content |
//! |---|---|
//! | `server` | `Server` and its builder, to embed or nest (feature `driver`, as all below) |
//! | `config` | the settings of the binary |
//! | `embedded` | `EmbeddedStore`: one directory, crash-safe |
//! | `query` | aggregates, projections, lists, deletion, pruning, and their HTTP interface |
//! | [`server_list`] | pure: which Servers of a store are alive |
//! | [`admission`], [`planner`] | pure: the rule of a Lane, and the commit loop of a VBucket |
//! | `clock`, [`status`], [`version`] | the one clock; the Server's counters; the versions of commits |
//!
//! # Features
//! - `driver` (default): workers, HTTP service, queries. Without it, only the pure modules.
//! - `embedded` (default): `EmbeddedStore`, one crash-safe directory.
//! - `cli` (default): the binary and its configuration.

#![deny(missing_docs)]
#![doc(test(attr(deny(unused_imports))))]

mod accounts;
pub mod admission;
#[cfg(feature = "driver")]
pub mod clock;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "driver")]
mod direction;
#[cfg(feature = "driver")]
mod driver;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod panics;
pub mod planner;
#[cfg(feature = "driver")]
pub mod query;
mod sabotage;
#[cfg(feature = "driver")]
pub mod server;
pub mod server_list;
#[cfg(feature = "driver")]
mod service;
#[cfg(feature = "driver")]
mod spread;
pub mod status;
pub mod version;

#[cfg(feature = "driver")]
pub use clock::{Clock, system_clock};
#[cfg(feature = "driver")]
pub use direction::Misdirected;
#[cfg(feature = "driver")]
pub use driver::ServerFailure;
#[cfg(feature = "embedded")]
pub use embedded::{EmbeddedError, EmbeddedOptions, EmbeddedStore};
#[cfg(feature = "driver")]
pub use server::{Server, ServerBuildError, ServerBuilder, ShutdownReport};
pub use status::{Status, StatusReport};
pub use version::Versions;

/// Compiles the README's example with the tests.
#[cfg(all(doctest, feature = "driver"))]
#[doc = include_str!("../README.md")]
struct Readme;
