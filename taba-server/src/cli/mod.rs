//! What only the binary does: it waits for its store, and has commands for backups and for stores that are refused.

mod adopt;
pub(crate) mod backup;
mod check;
pub(crate) mod connect;

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use taba_process::{Exit, Log, filter, usage};
use taba_server::config::{Config, Settings};

/// The commands that are no server.
const COMMANDS: [&str; 4] = ["backup", "restore", "check", "adopt"];

type Outcome = Result<Exit, Box<dyn Error>>;

/// The command line of a command.
#[derive(Debug, Parser)]
#[command(
    name = "taba-server",
    version,
    about = "Backups, and ways out of stores that are damaged or refused."
)]
struct Tool {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copies the embedded store of a running server into one file, as it is at this moment
    ///
    /// Plain copies of its file cannot be read. What comes meanwhile is not in the backup.
    Backup {
        /// The server
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8300", conflicts_with = "damaged")]
        server: String,
        /// Instead of a server: the directory of a store that no server can open. VBuckets that can be read whole are saved,
        /// the others are named, and begin anew: what agents do not keep of them is counted as lost
        #[arg(long, value_name = "DIR")]
        damaged: Option<PathBuf>,
        /// The file to make; it must not be there
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Makes an embedded store of a backup, in a directory that holds none
    ///
    /// The server that starts there is one whose store went back in time: agents send again what they still keep, and
    /// what they do not is counted as lost.
    Restore {
        /// The backup
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Directory of the embedded store
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
    /// Reads all of a store, and says what in it is damaged; exits with 1 when something is
    ///
    /// An embedded store must not be open in a server. A Redis store may be: indexes that lost entries are written again.
    Check(Store),
    /// Takes a store as it is, when a server refuses it: see what it would do first, then say --yes
    ///
    /// Redis: shards of which one is empty, whose bootstrap was given up, or whose vbuckets are damaged at their head. What
    /// no shard holds is made anew, empty; agents send again what they still keep. Nothing that was ever written is
    /// removed. Embedded: a directory whose file is gone begins anew.
    Adopt {
        #[command(flatten)]
        store: Store,
        /// Do it, rather than only say what would be done
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct Store {
    /// A TOML file with settings
    #[arg(long, env = "TABA_SERVER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Box<Settings>,
}

impl Store {
    fn config(self) -> Result<Config, Box<dyn Error>> {
        let file = self.config.as_deref().map(Settings::from_file).transpose()?.unwrap_or_default();
        Ok(Config::new(self.settings.or(file))?)
    }
}

/// Runs the command that the command line names; `None` when it names none, and a server is to run.
pub(crate) fn run(log: &Log) -> Option<Exit> {
    let args: Vec<OsString> = std::env::args_os().collect();
    let named = args.get(1)?.to_str()?;
    if !COMMANDS.contains(&named) {
        return None;
    }
    let command = Tool::command();
    let parsed = usage::parse(command.clone(), &args).and_then(|matches| {
        Tool::from_arg_matches(&matches).map_err(|error| usage::explain(error, &command, &args))
    });
    let command = match parsed {
        Ok(tool) => tool.command,
        Err(error) => return Some(error.end(log)),
    };
    if let Ok(filter) = filter::read([("log", None::<&str>)], "warn") {
        log.subscribe(filter);
    }
    Some(command.run(log).unwrap_or_else(|error| log.fail(Exit::Failed, &*error)))
}

impl Command {
    fn run(self, log: &Log) -> Outcome {
        match self {
            Self::Backup { damaged: Some(dir), to, .. } => backup::salvage(log, &dir, &to),
            Self::Backup { server, to, .. } => backup::fetch(log, &server, &to),
            Self::Restore { from, data_dir } => backup::restore(log, &from, &data_dir),
            Self::Check(store) => {
                let config = store.config()?;
                tokio::runtime::Runtime::new()?.block_on(check::check(log, &config))
            }
            Self::Adopt { store, yes } => {
                let config = store.config()?;
                tokio::runtime::Runtime::new()?.block_on(adopt::adopt(log, &config, yes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_known_by_its_name() {
        Tool::command().debug_assert();
        let names: Vec<String> =
            Tool::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        assert_eq!(names, COMMANDS);
    }
}
