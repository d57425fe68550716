//! Shared by `taba-server`, `taba-agent` and `taba`: logging, settings, and exit codes.
//!
//! ```text
//! flags ─┐                                   tracing ─┐
//! TABA_… ├─► settings::load ─► your clap struct       ├─► log: queue ─► a thread ─► standard error
//! file  ─┘        └─ error: where the value came from │     └ full: counted
//!                                              panics ─┘
//! run(name, |log| …) ─► Exit 0 ended as requested, 1 failed, 2 wrong settings
//! ```
//!
//! Read [`run`] first, then [`settings`].
//!
//! | module | content |
//! |---|---|
//! | [`run`], [`Exit`] | the frame of a `main`: a log, logged panics, an exit code |
//! | [`log`] | standard error, written by a thread: it never blocks the program or makes it fail |
//! | [`settings`] | flags, variables and a file, by one clap struct; the source of each value; `--print-config` |
//! | [`units`] | times and sizes: `200ms`, `64MiB` |
//! | [`filter`] | the log filter: `--log`, a variable, the file, `RUST_LOG` |
//! | `laws` | a test of each setting of a program: every source, good, bad and empty (feature `laws`) |
//! | `signals` | the signals that ask a process to stop (feature `signals`) |
//!
//! # Examples
//! ```no_run
//! use std::process::ExitCode;
//! use std::time::Duration;
//!
//! use clap::Parser;
//! use taba_process::settings::{self, Program};
//! use taba_process::{Exit, units};
//!
//! /// Beats.
//! #[derive(Parser)]
//! struct Cli {
//!     /// Time between two beats
//!     #[arg(long, env = "EXAMPLE_INTERVAL", value_parser = units::parse_time, default_value = "200ms")]
//!     interval: Duration,
//!     /// A TOML file of settings
//!     #[arg(long, env = "EXAMPLE_CONFIG")]
//!     config: Option<String>,
//!     /// What to log
//!     #[arg(long, env = "EXAMPLE_LOG")]
//!     log: Option<String>,
//! }
//!
//! fn main() -> ExitCode {
//!     taba_process::run("example", |log| {
//!         let program = Program::new(Some("EXAMPLE_"), &[]);
//!         let loaded = settings::load::<Cli>(&program, std::env::args_os(), std::env::vars_os());
//!         let loaded = match loaded.and_then(|loaded| Ok((loaded.filter("info")?, loaded))) {
//!             Ok((filter, loaded)) => {
//!                 log.subscribe(filter);
//!                 loaded
//!             }
//!             Err(error) => return error.end(log),
//!         };
//!         tracing::info!(interval = ?loaded.settings.interval, "started");
//!         Exit::Clean
//!     })
//! }
//! ```

#![deny(missing_docs)]
#![doc(test(attr(deny(unused_imports))))]

mod clock;
pub mod exit;
pub mod filter;
#[cfg(feature = "laws")]
pub mod laws;
mod line;
pub mod log;
mod program;
pub mod settings;
#[cfg(feature = "signals")]
pub mod signals;
mod throttled;
pub mod units;

pub use exit::{EXIT_CODES, Exit};
pub use log::{LinesDropped, Log};
pub use program::run;
