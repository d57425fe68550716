//! The Agent of one host: it accepts Batches from the Clients there, stores them, and delivers them to Servers, each
//! exactly once.
//!
//! ```text
//! Clients ──POST /v2/events──►  intake ─► spool ─► lanes ─► dispatcher  ──POST /v2/lanes──►  Servers
//!         ◄──────Receipt──────    │ dedup      one per      health, backoff   ◄─────Acks─────
//!                                 └ refused:   VBucket      of each Server
//!                                   counted in the Ledger
//! ```
//!
//! All decisions are made by pure state machines: [`Relay`] takes inputs and the time, and returns requests to send.
//! It is composed of smaller machines, one per file, none of which knows a socket or a clock. The `driver` adds a
//! listener, a sender and a clock, and decides nothing.
//!
//! # Modules
//! | module | content |
//! |---|---|
//! | [`relay`] | all decisions of the Agent |
//! | [`dedup`] | recognises repeated client Batches |
//! | [`frontend`] | makes Batches of lines: `POST /v2/record`, and your own protocols |
//! | [`intake`] | checks client Batches |
//! | [`units`] | ids and units |
//! | [`spool`] | the bounded write-ahead log of accepted Batches |
//! | [`clock`] | the wall clock of a run, and the ages of recovered Batches |
//! | [`lane`] | one ordered, gap-free sequence of Batches, and when one may be released |
//! | [`merge`] | merges unsent Blocks while Servers are unavailable |
//! | [`dispatcher`], [`health`], [`rendezvous`] | which Lane goes to which Server, and when |
//! | [`discovery`], [`server_seed`] | the Servers: given, by name, or discovered |
//! | [`store_choice`] | the store that is delivered to |
//! | [`config`] | all settings, checked |
//! | [`relay::status`] | `/status` and `/metrics` |
//! | `driver` | `Agent`: sockets and time (feature `driver`) |
//! | `cli` | configuration by file, environment and flags (feature `cli`) |
//!
//! # What can be lost
//! What a Client was told is safe is in the Spool: after a kill, an Agent continues when it is started again with the
//! same directory, and recognises repeated Batches of Clients. `docs/EXACTLY_ONCE.md` explains why nothing counts
//! twice, and [`spool::SyncPolicy`] what a power failure may lose.

#![deny(missing_docs)]
#![doc(test(attr(deny(unused_imports))))]

#[cfg(feature = "driver")]
mod builder;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod config;
pub mod dedup;
pub mod discovery;
pub mod dispatcher;
#[cfg(feature = "driver")]
pub mod driver;
pub mod frontend;
pub mod health;
pub mod intake;
pub mod lane;
pub mod merge;
pub mod relay;
pub mod rendezvous;
mod sabotage;
pub mod server_seed;
pub mod spool;
pub mod store_choice;
pub mod units;

#[cfg(feature = "driver")]
pub use builder::AgentBuilder;
pub use config::{Config, ConfigError, SpoolKind, Verified};
#[cfg(feature = "driver")]
pub use driver::{
    AcceptError, Agent, AgentFailure, AgentHandle, AgentOptions, Left, RunError, RunningAgent, StartError,
};
pub use relay::Status;
pub use relay::{AcceptOutcome, ClockReading, Relay, RelayOptions, RelayStart};
pub use server_seed::ServerSeed;
pub use spool::{LogSpool, MemorySpool, Spool, SyncPolicy};
pub use taba_core::{RequestHeader, RequestHeaderError, ServerUrl, ServerUrlError};
