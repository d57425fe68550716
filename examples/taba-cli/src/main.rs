//! `taba`: ask a Taba Server from the shell.
//!
//! Results go to standard output, everything about them to standard error. Exit codes: 0 when there is an answer, 1
//! when there is none or only part of one, 2 when the command line is wrong.

mod args;
mod client;
mod commands;
mod error;
mod number;
mod pipe;
mod shape;
mod table;
mod url;
mod watch;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use taba_process::{Exit, Log, filter, usage};

use crate::args::Args;
use crate::error::CliError;

fn main() -> ExitCode {
    taba_process::run("taba", run)
}

fn run(log: &Log) -> Exit {
    let words: Vec<_> = std::env::args_os().collect();
    let parsed = usage::parse(Args::command(), &words).and_then(|matches| {
        Args::from_arg_matches(&matches).map_err(|error| usage::explain(error, &Args::command(), &words))
    });
    let args = match parsed {
        Ok(args) => args,
        Err(error) => return error.end(log),
    };
    match filter::read([("log (--log, TABA_LOG)", args.log.as_deref())], "warn") {
        Ok(filter) => log.subscribe(filter),
        Err(error) => return log.fail(Exit::Usage, &error),
    }
    match commands::run(&args) {
        Ok(()) => Exit::Clean,
        // The reader of a pipe has seen enough: `taba names | head`.
        Err(CliError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Exit::Clean,
        Err(error) => log.fail(Exit::Failed, &error),
    }
}
