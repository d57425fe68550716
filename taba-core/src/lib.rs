//! The types and contracts of Taba: low-latency event aggregation, exact in any order.
//!
//! A program records [`Event`]s under [`TabName`]s. A [`Handler`] folds them into a State, one for each Client and
//! Tab. States merge; their Projections, the readable results, aggregate. Because both are commutative monoids,
//! events may be folded anywhere between the program and the store, in any order and any grouping, and the answer is
//! the same to the last bit. This crate has no runtime, clock, socket or file.
//!
//! ```text
//! Event ──fold──► State ──merge──► State ──project(at)──► Projection ──aggregate──► Projection ──render──► JSON
//!   of one Tab,     of one Tab       the same, of more       the result                over Clients
//!   one Client      and Client       events                  at a time                 or Tabs
//! ```
//!
//! Read [`Handler`] first, then [`sum`], [`wire`] and [`store`].
//!
//! # Modules
//! | module | content |
//! |---|---|
//! | [`handler`] | [`Handler`] and its laws; [`erased`], its object-safe form; [`registry`], the table of Handlers |
//! | `laws` | the test kit: each law is a function (feature `laws`) |
//! | [`event`], [`name`], [`time`], [`Value`], [`reading`], [`text`] | the parts of an event |
//! | [`sum`] | sums of doubles without error |
//! | [`wire`] | the encoding between processes; [`state`] the encoding in the store |
//! | [`batch`], [`ledger`] | the types of exactly-once and of the Ledger |
//! | [`vbucket`], [`store`], [`memory`] | the storage of States |
//! | [`limits`], [`error`], [`throttle`] | bounds, remedies of errors, and limits of log lines |
//! | [`json`] | events with values in JSON |
//! | [`host`] | addresses to listen on |
//!
//! # Examples
//! ```
//! use serde::{Deserialize, Serialize};
//! use taba_core::{Event, Handler, Timestamp};
//!
//! struct Seen;
//!
//! #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
//! struct Count { n: u64 }
//!
//! impl Handler for Seen {
//!     type Value = f64;
//!     type State = Count;
//!     type Projection = Count;
//!     const VERSION: u16 = 1;
//!
//!     fn fold(&self, state: &mut Count, _: Event<&f64>) { state.n += 1; }
//!     fn merge(&self, into: &mut Count, other: &Count) { into.n += other.n; }
//!     fn project(&self, state: &Count, _: Timestamp) -> Count { state.clone() }
//!     fn aggregate(&self, into: &mut Count, other: &Count) { into.n += other.n; }
//!     fn encoded_bytes_max(&self) -> usize { 10 }
//! }
//!
//! let (mut web, mut db) = (Count::default(), Count::default());
//! Seen.fold(&mut web, Event::new(Timestamp::from_secs(0), &1.0));
//! Seen.fold(&mut db, Event::new(Timestamp::from_secs(1), &1.0));
//! Seen.merge(&mut web, &db);
//! assert_eq!(Seen.project(&web, Timestamp::from_secs(2)).n, 2);
//! ```

#![deny(missing_docs)]

pub mod backoff;
pub mod batch;
mod dropped_log_lines;
pub mod erased;
pub mod error;
pub mod event;
pub mod guard;
pub mod handler;
pub mod host;
mod http_reason;
pub mod json;
#[cfg(feature = "laws")]
pub mod laws;
pub mod ledger;
pub mod limits;
mod log_throttle;
pub mod memory;
mod metrics_text;
pub mod name;
#[cfg(not(feature = "laws"))]
mod no_laws;
mod number;
mod range;
pub mod reading;
pub mod registry;
mod request_guard;
mod request_header;
#[doc(hidden)]
pub mod sabotage;
mod server_entry;
mod server_url;
mod spread;
pub mod state;
pub mod store;
mod store_id;
pub mod sum;
pub mod text;
pub mod throttle;
pub mod time;
pub mod vbucket;
pub mod wire;

#[doc(no_inline)]
pub use async_trait::async_trait;
pub use backoff::{Backoff, Noise};
pub use batch::{Mark, SeqNo, StreamId};
pub use dropped_log_lines::DroppedLogLines;
pub use erased::{AnyHandler, AnyProjection, AnyState, AnyValues, Arrival, Folded, ValueMismatch};
pub use error::{Remedy, causes};
pub use event::{Event, Events};
pub use guard::{Guarded, HandlerError, Panicked};
pub use handler::{Caveats, Format, Handler, Projection, State, StateError, decode_state, encode_state};
pub use host::{HostPort, HostPortError};
pub use http_reason::HttpReason;
pub use json::{JsonEvents, JsonValueError, json_events};
pub use log_throttle::LogThrottle;
pub use memory::MemoryStore;
pub use metrics_text::{MetricKind, MetricsText};
pub use name::{ClientId, NameError, TabName, TabNameBuilder, TabType, escape_label, unescape_label};
pub use number::Number;
pub use range::{OutOfRange, bytes_text, bytes_within, time_within, within};
pub use reading::{Expiring, Keyed, Reading, number_text};
pub use registry::{Registry, RegistryBuilder, RegistryError};
pub use request_guard::{ForeignRequest, HostName, HostNameError, REQUEST_HEADER, RequestGuard};
pub use request_header::{RequestHeader, RequestHeaderError};
pub use server_entry::ServerEntry;
pub use server_url::{SERVER_WEIGHT_MAX, ServerUrl, ServerUrlError};
pub use spread::{Spread, SpreadError, SpreadRule, SpreadRules, SpreadTabs, TooManySpreadRules};
pub use state::{BaseId, Envelope};
pub use store::{
    Commit, Committed, Loaded, Page, Part, Peek, Peeked, Scan, ScanWhat, Scanned, StateKey, Store,
    StoreError, TabList, Tidied, Version, Wanted,
};
pub use store_id::{StoreId, StoreIdError};
pub use sum::ExactSum;
pub use text::{printable, printable_json, printable_lines};
pub use throttle::Throttle;
pub use time::Timestamp;
pub use vbucket::{VBucket, VBuckets, VBucketsError};
pub use wire::Value;
