//! The command line of taba-agent. Settings come from flags, variables and a file; [`taba_process::settings`] says how, and
//! in which order.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use clap::builder::NonEmptyStringValueParser;
use taba_process::settings::{self, LoadedSettings, Program, SettingsError};

use crate::config::{Config, ConfigError, Verified};

/// How the settings of taba-agent are read.
pub const PROGRAM: Program = Program::new(Some("TABA_AGENT_"), &[]);

/// The Agent of one host: accepts batches from its Clients, stores them, and delivers them to Servers exactly once.
///
/// Every setting can stand in a TOML file (linger = "20ms"), in the environment (TABA_AGENT_LINGER=20ms), or here; what
/// stands here wins over the environment, and that over the file. Sizes are written as 512KiB, 64MiB, 1GiB; times as
/// 20ms, 10s, 5m. An empty variable is not set.
///
/// Command, with a --help of its own: set-aside, for what servers failed on.
///
/// Stops on SIGTERM or Ctrl-C: accepts nothing more, and delivers what it holds to the Servers. Exit codes: 0 when it
/// stopped as asked and nothing is lost (what was not stored is in the spool on the disk, for the next run); 1 when
/// it could not start, a part of it failed, or events are lost; 2 when a flag, a variable or the file is wrong.
#[derive(Clone, Debug, Parser)]
#[command(name = "taba-agent", version)]
#[non_exhaustive]
pub struct Cli {
    /// A TOML file of settings; its keys are the names of the flags
    #[arg(long, env = "TABA_AGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the effective settings and their sources, as a file for --config, and end
    #[arg(long)]
    pub print_config: bool,

    /// What to log: off, error, warn, info, debug, trace, or MODULE=LEVEL,…; if not given, RUST_LOG is used [default:
    /// info; of commands: warn]
    #[arg(long, env = "TABA_AGENT_LOG", value_name = "FILTER", value_parser = NonEmptyStringValueParser::new())]
    pub log: Option<String>,

    /// The settings
    #[command(flatten)]
    pub settings: Config,
}

/// Reads and verifies the settings. `args` begins with the name of the program; `variables` are the environment.
///
/// # Errors
/// [`SettingsError`], also when help or the version was requested; [`SettingsError::end`] handles both.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(LoadedSettings<Cli>, Verified<Config>), SettingsError> {
    let loaded = settings::load::<Cli>(&PROGRAM, args, variables)?;
    let config = loaded.settings.settings.clone().verify();
    let config = config.map_err(|error: ConfigError| {
        let names = error.settings().to_vec();
        loaded.impossible(&names, error)
    })?;
    Ok((loaded, config))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use clap::CommandFactory;
    use taba_core::causes;

    use super::*;

    fn config(args: &[&str]) -> Result<Verified<Config>, SettingsError> {
        let args = [&["taba-agent"], args].concat();
        Ok(load(args.into_iter().map(OsString::from), [])?.1)
    }

    #[test]
    fn without_anything_there_are_the_defaults() {
        assert_eq!(*config(&[]).unwrap(), Config::default());
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_can_come_from_everywhere() {
        let (dir, free) = (tempfile::tempdir().unwrap(), ["log", "unix", "spool_dir"]);
        taba_process::laws::settings::<Cli>(&PROGRAM, &["taba-agent"], dir.path(), &free);
    }

    #[test]
    fn a_file_is_read_and_lists_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        let text = "listen = \"127.0.0.1:1\"\nservers = [\"http://a:1\", \"http://b:1;weight=2\"]\n\
                    linger = \"5ms\"\nspool_bytes_max = 20000000\n";
        fs::write(&path, text).unwrap();
        let path = format!("--config={}", path.display());
        let read = config(&[&path, "--linger=7ms"]).unwrap();
        assert_eq!(read.listen.port(), 1);
        let servers: Vec<String> = read.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["http://a:1", "http://b:1;weight=2"]);
        assert_eq!((read.linger, read.spool_bytes_max), (Duration::from_millis(7), 20_000_000));
        assert_eq!(read.vbuckets, 1024);
        let read = config(&[&path, "--servers=http://c:1,http://d:1"]).unwrap();
        assert_eq!(
            read.servers.iter().map(|seed| seed.url().url()).collect::<Vec<_>>(),
            ["http://c:1", "http://d:1"]
        );
    }

    #[test]
    fn a_header_with_a_token_is_shown_nowhere() {
        let variables = |value: &str| [("TABA_AGENT_SERVER_HEADER".into(), value.into())];
        let args = || [OsString::from("taba-agent")];
        let (loaded, config) = load(args(), variables("Authorization: Bearer t0k3n,X-Team: a")).unwrap();
        let values: Vec<_> = config.server_header.iter().map(crate::RequestHeader::value).collect();
        assert_eq!(values, ["Bearer t0k3n", "a"]);
        let error = load(args(), variables("Authorization=Bearer t0k3n")).unwrap_err();
        for shown in [loaded.to_toml(), format!("{config:?}"), causes(&error)] {
            assert!(!shown.contains("t0k3n"), "{shown}");
            assert!(shown.contains("erver") && shown.to_lowercase().contains("header"), "{shown}");
        }
    }

    #[test]
    fn what_is_impossible_names_where_it_comes_from() {
        let error = causes(&config(&["--backoff-min=5s"]).unwrap_err());
        for word in ["backoff_min (--backoff-min)", "backoff_max (the default)", "2s"] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
