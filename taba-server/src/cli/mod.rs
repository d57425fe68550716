//! Parts of the binary only: waiting for the store, and commands for backups and damaged or refused stores.

mod adopt;
pub(crate) mod backup;
mod check;
pub(crate) mod connect;
mod mend;

use std::error::Error;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use taba_core::{HostPort, HostPortError};
use taba_process::settings::{self, LoadedSettings};
use taba_process::{Exit, Log};
use taba_server::config::{Config, FileArgs, LogArgs, PROGRAM, VerifiedServerConfig};
use tokio::runtime::Runtime;

/// The commands besides running a server.
const COMMANDS: [&str; 5] = ["backup", "restore", "check", "mend", "adopt"];

type Outcome = Result<Exit, Box<dyn Error>>;

/// The command line of these commands.
#[derive(Debug, Parser)]
#[command(
    name = "taba-server",
    version,
    about = "Backups, and the repair of stores that are damaged or refused."
)]
struct Tool {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copies the embedded store of a running server into one file
    ///
    /// The backup is consistent; commits that happen meanwhile are not in it. Plain copies of the store's file are
    /// unusable.
    Backup {
        /// The server
        #[arg(
            long, value_name = "URL", default_value = "http://127.0.0.1:8300", conflicts_with = "damaged",
            value_parser = server
        )]
        server: HostPort,
        /// Instead of a server: the directory of a store that no server can open. VBuckets that can be read
        /// completely are saved; the others are named and left out: what agents no longer keep of them is counted as
        /// lost
        #[arg(long, value_name = "DIR")]
        damaged: Option<PathBuf>,
        /// The file to make; it must not be there
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        #[command(flatten)]
        log: LogArgs,
    },
    /// Makes an embedded store from a backup, in a directory without one
    ///
    /// For agents this is a store that went back in time: they send again what they still keep, and the rest is
    /// counted as lost.
    Restore {
        /// The backup
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Directory of the embedded store
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        #[command(flatten)]
        log: LogArgs,
    },
    /// Reads a whole store and reports damage; exits with 1 if there is any
    ///
    /// An embedded store must not be open in a server. A Redis store may be: missing index entries are written again.
    Check(StoreArgs),
    /// Removes unreadable marks, and recreates vbuckets lost with a damaged file: until then they refuse batches.
    /// Prints what it would do; --yes does it
    ///
    /// A mark records what was counted of a Lane. Without it, what the Lane's agent still keeps may be counted twice.
    /// An embedded store must not be open in a server; a Redis store may be.
    Mend {
        #[command(flatten)]
        store: StoreArgs,
        /// Do it, instead of only printing it
        #[arg(long)]
        yes: bool,
    },
    /// Accepts the current state of a store that a server refuses. Prints what it would do; --yes does it
    ///
    /// Redis: when a shard is empty, a bootstrap was abandoned, or vbuckets have a damaged head. VBuckets that no
    /// shard holds are created empty; agents send again what they still keep. Data that was ever written is not
    /// removed. Embedded: a directory whose file is gone gets a new store.
    Adopt {
        #[command(flatten)]
        store: StoreArgs,
        /// Do it, instead of only printing it
        #[arg(long)]
        yes: bool,
        /// Make vbuckets anew, empty, also where a Redis that is not named may still have them: that one is an older copy then
        #[arg(long)]
        recreate_empty: bool,
    },
}

/// Parses `http://HOST:PORT`, or without `http://`.
fn server(url: &str) -> Result<HostPort, HostPortError> {
    url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').parse()
}

#[derive(Debug, Args)]
struct StoreArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    settings: Box<Config>,
}

/// Runs the command in the command line; `None` when there is none, and a server is to run.
pub(crate) fn run(log: &Log) -> Option<Exit> {
    let named = std::env::args_os().nth(1)?;
    if !COMMANDS.contains(&named.to_str()?) {
        return None;
    }
    let loaded = settings::load::<Tool>(&PROGRAM, std::env::args_os(), std::env::vars_os());
    let loaded = match loaded.and_then(|loaded| Ok((loaded.filter("warn")?, loaded))) {
        Ok((filter, loaded)) => {
            log.subscribe(filter);
            loaded
        }
        Err(error) => return Some(error.end(log)),
    };
    Some(match &loaded.settings.command {
        Command::Backup { damaged: Some(dir), to, .. } => ended(log, backup::salvage(log, dir, to)),
        Command::Backup { server, to, .. } => ended(log, backup::fetch(log, server, to)),
        Command::Restore { from, data_dir, .. } => ended(log, backup::restore(log, from, data_dir)),
        Command::Check(store) => {
            store.run(&loaded, log, |runtime, config| runtime.block_on(check::check(log, config)))
        }
        Command::Mend { store, yes } => {
            store.run(&loaded, log, |runtime, config| runtime.block_on(mend::mend(log, config, *yes)))
        }
        Command::Adopt { store, yes, recreate_empty } => store.run(&loaded, log, |runtime, config| {
            runtime.block_on(adopt::adopt(log, config, *yes, *recreate_empty))
        }),
    })
}

impl StoreArgs {
    fn run(
        &self,
        loaded: &LoadedSettings<Tool>,
        log: &Log,
        command: impl FnOnce(Runtime, &VerifiedServerConfig) -> Outcome,
    ) -> Exit {
        let config = match self.settings.verify_loaded(loaded) {
            Ok(config) => config,
            Err(error) => return error.end(log),
        };
        if self.file.print_config {
            return loaded.print(log);
        }
        match Runtime::new() {
            Ok(runtime) => ended(log, command(runtime, &config)),
            Err(error) => log.fail(Exit::Failed, &error),
        }
    }
}

fn ended(log: &Log, outcome: Outcome) -> Exit {
    outcome.unwrap_or_else(|error| log.fail(Exit::Failed, &*error))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_is_known_by_its_name() {
        Tool::command().debug_assert();
        let names: Vec<String> =
            Tool::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        assert_eq!(names, COMMANDS);
    }

    #[test]
    fn every_setting_of_a_command_can_come_from_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        for command in ["check", "mend", "adopt"] {
            let args = ["taba-server", command];
            taba_process::laws::settings::<Tool>(&PROGRAM, &args, dir.path(), &["log", "data_dir", "redis"]);
        }
    }
}
