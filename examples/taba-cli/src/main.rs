//! `taba`: queries a Taba Server, and records through an Agent, from the shell.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 with an answer, 1 without one or
//! with only part of one, 2 for a wrong command line; with `time`, that of the command.

mod args;
mod client;
mod clock;
mod commands;
mod doctor;
mod error;
mod json;
mod number;
mod pipe;
mod record;
mod removal;
mod shape;
mod sse;
mod table;
mod timed;
mod url;
mod watch;

use std::io;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;
use taba_process::settings::UsageError;
use taba_process::{Exit, Log, settings};

use crate::args::{Args, PROGRAM};
use crate::error::CliError;

fn main() -> ExitCode {
    taba_process::run("taba", run)
}

fn run(log: &Log) -> Exit {
    let loaded = settings::load::<Args>(&PROGRAM, std::env::args_os(), std::env::vars_os());
    let (filter, loaded) = match loaded.and_then(|loaded| Ok((loaded.filter("warn")?, loaded))) {
        Ok(read) => read,
        Err(error) => return error.end(log),
    };
    if loaded.settings.print_config {
        return loaded.print(log);
    }
    log.subscribe(filter);
    let Some(command) = &loaded.settings.command else {
        let missing = "name what to ask: agg, proj, names, …; --help has the list";
        return UsageError::from(Args::command().error(ErrorKind::MissingSubcommand, missing)).end(log);
    };
    match commands::run(&loaded.settings, command) {
        Ok(exit) => exit,
        // The reader closed the pipe: `taba names | head`.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Clean,
        Err(error) => log.fail(Exit::Failed, &error),
    }
}
