//! `taba`: ask a Taba Server from the shell.
//!
//! Results go to standard output, everything about them to standard error. Exit codes: 0 when there is an answer, 1
//! when there is none or only part of one, 2 when the command line is wrong.

mod args;
mod client;
mod commands;
mod error;
mod number;
mod shape;
mod table;
mod url;
mod watch;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::error::CliError;

fn main() -> ExitCode {
    match commands::run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has seen enough: `taba names | head`.
        Err(CliError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // When nobody listens there either, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "taba: {}", error.message());
            ExitCode::FAILURE
        }
    }
}
