//! What the binaries of Taba share, so that `taba-server`, `taba-agent` and `taba` behave the same: how they log, how
//! they read the environment, how they end.
//!
//! | module | what |
//! |---|---|
//! | [`run`], [`Exit`] | the frame of a `main`: a log, a word about every panic, an exit code |
//! | [`log`] | standard error, written by a thread of its own: it never blocks the program and never fails it |
//! | [`filter`] | what is logged: `--log`, the file, a variable, `RUST_LOG` |
//! | [`environment`] | which variables are settings, and which were injected by Kubernetes or Docker |
//! | [`usage`] | errors of the command line that name the variable a value came from |
//! | `signals` | the signals that ask a process to stop (feature `signals`) |
//!
//! # Examples
//! ```no_run
//! use std::process::ExitCode;
//! use taba_process::{Exit, filter};
//!
//! fn main() -> ExitCode {
//!     taba_process::run("taba-example", |log| {
//!         match filter::read([("--log", Some("debug"))], "info") {
//!             Ok(filter) => log.subscribe(filter),
//!             Err(error) => return log.fail(Exit::Usage, &error),
//!         }
//!         tracing::info!("started");
//!         Exit::Clean
//!     })
//! }
//! ```

#![deny(missing_docs)]

mod clock;
pub mod environment;
pub mod exit;
pub mod filter;
mod line;
pub mod log;
#[cfg(feature = "signals")]
pub mod signals;
mod throttled;
pub mod usage;

pub use exit::{EXIT_CODES, Exit, run};
pub use log::{LinesDropped, Log};
