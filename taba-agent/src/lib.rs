//! The Agent of one host: it takes Batches from the Clients there, keeps them, and brings them to Servers, each exactly
//! once.
//!
//! ```text
//! Clients ──POST /v2/events──►  intake ─► spool ─► lanes ─► dispatcher  ──POST /v2/lanes──►  Servers
//!         ◄──────Receipt──────    │ dedup      one per      health, backoff   ◄─────Acks─────
//!                                 └ refused:   VBucket      of each Server
//!                                   counted in the Ledger
//! ```
//!
//! What to do is decided by plain values: [`Relay`] takes inputs and the moment, and answers with requests to send. It
//! is made of smaller machines, one in each file, none of which knows a socket or a clock. Around it, the `driver` is
//! a listener, a sender and a clock that decide nothing.
//!
//! # Where things are
//! | module | what |
//! |---|---|
//! | [`relay`] | everything the Agent decides, put together |
//! | [`dedup`] | which client Batches have been seen |
//! | [`frontend`] | lines of other protocols become Batches: `POST /v2/record`, and protocols of your own |
//! | [`intake`] | what of a client Batch is taken, and what is refused |
//! | [`units`] | ids and units |
//! | [`spool`] | the bounded, durable place of what is taken and not yet stored for good |
//! | [`clock`] | which time of day a run goes by, and how old is what an earlier one has left |
//! | [`lane`] | one ordered, gap-free sequence of Batches, and when one may be released |
//! | [`merge`] | what was never sent, merged while Servers are away |
//! | [`dispatcher`], [`health`], [`rendezvous`] | which Lane goes to which Server, and when |
//! | [`store_choice`] | which store is delivered to, and which Servers have another one |
//! | [`config`], [`server_url`] | every bound, checked |
//! | [`relay::status`] | what `/status` and `/metrics` tell |
//! | `driver` | `Agent`: sockets and time (feature `driver`) |
//! | `cli` | configuration by file, environment and flags (feature `cli`) |
//!
//! # What is lost when
//! What a Client was told is safe stands in the Spool: killed, an Agent goes on where it was when it is started again with
//! the same directory, and knows a Batch that a Client sends again. See `docs/EXACTLY_ONCE.md` for why nothing is counted
//! twice, and [`spool::SyncPolicy`] for what a power failure may take.

#![deny(missing_docs)]
#![doc(test(attr(deny(unused_imports))))]

#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod config;
pub mod dedup;
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
pub mod server_url;
pub mod spool;
pub mod store_choice;
pub mod units;

pub use config::{Config, ConfigError, SpoolKind, Verified};
#[cfg(feature = "driver")]
pub use driver::{
    AcceptError, Agent, AgentBuilder, AgentFailure, AgentHandle, Left, RunError, RunningAgent, StartError,
};
pub use relay::Status;
pub use relay::{AcceptOutcome, ClockReading, Relay, RelayOptions, RelayStart};
pub use server_url::{ServerUrl, ServerUrlError};
pub use spool::{LogSpool, MemorySpool, Spool, SyncPolicy};
pub use taba_core::{RequestHeader, RequestHeaderError};
