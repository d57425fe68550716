//! Configuration by flags, environment and file, in this order of precedence; then come the defaults.
//!
//! [`Config`] is the one list of settings. The file is read as if its keys were flags that stand before the real ones,
//! so that one parser checks every value, wherever it comes from.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use std::{env, fmt, fs, io};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser};
use taba_process::environment::{self, UnknownVariable};
use taba_process::usage::{self, UsageError};

use crate::config::{Config, ConfigError, Verified};

/// What the environment variables of an Agent begin with.
pub const ENV_PREFIX: &str = "TABA_AGENT_";

/// The Agent of one host: takes batches from its Clients, keeps them, and brings them to Servers exactly once.
///
/// Every setting can stand in a TOML file, in the environment, or here; what stands here wins over the environment,
/// and that over the file. Sizes are written as 512KiB, 64MiB, 1GiB; times as 20ms, 10s, 5m.
///
/// An empty variable is not set.
///
/// Stops on SIGTERM or Ctrl-C: takes nothing any more, and brings what it holds to the Servers. Exit codes: 0 when it
/// stopped as asked and nothing is lost (what was not stored is in the spool on the disk, for the next run); 1 when it
/// could not start, a part of it failed, or events are lost; 2 when a flag, a variable or the file is wrong.
#[derive(Debug, Parser)]
#[command(name = "taba-agent", version)]
pub struct Cli {
    /// A TOML file of settings; its keys are the names of the flags
    #[arg(long, env = "TABA_AGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to log: off, error, warn, info, debug, trace, or MODULE=LEVEL,…; RUST_LOG counts where this is not given
    /// [default: info]
    #[arg(long, env = "TABA_AGENT_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// The settings
    #[command(flatten)]
    pub settings: Config,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings of the Agent.
    pub config: Verified<Config>,
    /// What to log; `None` for what `RUST_LOG` says.
    pub log: Option<String>,
}

/// Why the settings could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A flag or a variable is wrong, or help was asked for.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// A variable begins like ours, and is none of them.
    #[error(transparent)]
    UnknownVariable(#[from] UnknownVariable),
    /// The file cannot be read.
    #[error("cannot read {}, the file of --config or TABA_AGENT_CONFIG", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{} is no TOML", .path.display())]
    Toml {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: toml::de::Error,
    },
    /// A key of the file is no setting.
    #[error("{key} in {} is no setting of taba-agent; see --help", .path.display())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
    },
    /// A value of the file is a table, a date, or a list in a list.
    #[error("{key} in {} must be a text, a number, or a list of them", .path.display())]
    KindOfValue {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
    },
    /// A value of the file is wrong.
    #[error("in {}", .path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: clap::Error,
    },
    /// The settings do not fit together.
    #[error("the settings (--help has their names) do not fit together")]
    Config(#[from] ConfigError),
}

/// Reads the settings. `args` begins with the name of the program.
///
/// # Errors
/// [`LoadError`]; for [`LoadError::Usage`], [`UsageError::end`] does what is usual.
pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Loaded, LoadError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let command = Cli::command();
    let given = usage::parse(command.clone(), &args)?;
    environment::check(ENV_PREFIX, &command, env::vars_os())?;
    let command = environment::without_empty(command);
    let cli = match given.get_one::<PathBuf>("config") {
        None => Cli::from_arg_matches(&given).map_err(|error| usage::explain(error, &command, &args))?,
        Some(path) => {
            let from_file = file_args(path, &command, &given)?;
            let (program, flags) = args.split_at(args.len().min(1));
            let all = program.iter().cloned().chain(from_file).chain(flags.iter().cloned());
            let matches =
                command.try_get_matches_from(all).and_then(|matches| Cli::from_arg_matches(&matches));
            matches.map_err(|source| LoadError::Value { path: path.clone(), source })?
        }
    };
    Ok(Loaded { config: cli.settings.verify()?, log: cli.log })
}

/// The file as flags, but for those that are given by a real flag or a variable.
fn file_args(path: &Path, command: &Command, given: &ArgMatches) -> Result<Vec<OsString>, LoadError> {
    let text =
        fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let table: toml::Table =
        toml::from_str(&text).map_err(|source| LoadError::Toml { path: path.to_owned(), source })?;
    let mut args = Vec::new();
    for (key, value) in &table {
        let flag = key.replace('_', "-");
        let known =
            command.get_arguments().find(|arg| arg.get_long() == Some(&flag) && arg.get_id() != "config");
        let Some(known) = known else {
            return Err(LoadError::UnknownKey { path: path.to_owned(), key: key.clone() });
        };
        let texts = match value {
            toml::Value::Array(values) => values.iter().map(plain).collect(),
            value => plain(value).map(|text| vec![text]),
        };
        let texts =
            texts.ok_or_else(|| LoadError::KindOfValue { path: path.to_owned(), key: key.clone() })?;
        match given.value_source(known.get_id().as_str()) {
            Some(ValueSource::CommandLine | ValueSource::EnvVariable) => {}
            _ => args.extend(texts.iter().map(|text| format!("--{flag}={text}").into())),
        }
    }
    Ok(args)
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
            None
        }
    }
}

/// A size or a time that is not written as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(&'static str);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write {}", self.0)
    }
}

impl Error for Unreadable {}

const BYTES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIMES: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a size: a whole number, then perhaps `B`, `KiB`, `MiB` or `GiB`.
///
/// # Errors
/// When it is none, or too large.
pub fn parse_bytes<T: TryFrom<u64>>(text: &str) -> Result<T, Unreadable> {
    let bytes = number(text).and_then(|(number, unit)| {
        let unit = if unit.is_empty() { "B" } else { unit };
        number.checked_mul(BYTES.iter().find(|(name, _)| *name == unit)?.1)
    });
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(Unreadable("a size as 65536, 512KiB, 64MiB or 1GiB"))
}

/// Reads a time: a whole number, then `ms`, `s`, `m` or `h`.
///
/// # Errors
/// When it is none, or too long.
pub fn parse_duration(text: &str) -> Result<Duration, Unreadable> {
    let ms = number(text)
        .and_then(|(number, unit)| number.checked_mul(TIMES.iter().find(|(name, _)| *name == unit)?.1));
    ms.map(Duration::from_millis).ok_or(Unreadable("a time as 20ms, 10s, 5m or 1h"))
}

fn number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((u64::from_str(&text[..digits]).ok()?, text[digits..].trim_start()))
}

/// Writes a size as [`parse_bytes`] reads it.
pub fn human_bytes(bytes: u64) -> String {
    human(bytes, &BYTES)
}

/// Writes a time as [`parse_duration`] reads it; below a millisecond it is cut off.
pub fn human_duration(time: Duration) -> String {
    human(time.as_millis() as u64, &TIMES)
}

fn human(number: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().find(|(_, size)| number >= *size && number.is_multiple_of(*size));
    let (name, size) = fits.unwrap_or(&units[units.len() - 1]);
    format!("{}{name}", number / size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use taba_core::causes;

    fn args(args: &[&str]) -> Vec<OsString> {
        [&["taba-agent"], args].concat().into_iter().map(OsString::from).collect()
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        fs::write(&path, text).unwrap();
        let path = format!("--config={}", path.display());
        (dir, path)
    }

    #[test]
    fn sizes_and_times_come_back() {
        for text in ["1B", "1023B", "1KiB", "1536KiB", "64MiB", "1GiB"] {
            assert_eq!(human_bytes(parse_bytes(text).unwrap()), text);
        }
        for text in ["0ms", "20ms", "1s", "90s", "5m", "1h"] {
            assert_eq!(human_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(parse_bytes::<u64>("77"), Ok(77));
        assert!(
            ["", "x", "1.5MiB", "5 elephants", "99999999999999999999", "18446744073709551615GiB"]
                .iter()
                .all(|text| parse_bytes::<u64>(text).is_err())
        );
        assert!(["", "10", "-1s", "1d"].iter().all(|text| parse_duration(text).is_err()));
    }

    #[test]
    fn without_anything_there_are_the_defaults() {
        assert_eq!(*load(args(&[])).unwrap().config, Config::default());
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_win_over_the_file_and_that_over_the_defaults() {
        let (_dir, path) = file(
            "listen = \"127.0.0.1:1\"\nservers = [\"http://a:1\", \"http://b:1;weight=2\"]\nlinger = \"5ms\"\nspool_bytes_max = 20000000\n",
        );
        let config = load(args(&[&path, "--linger=7ms"])).unwrap().config;
        assert_eq!(config.listen.port(), 1);
        assert_eq!(
            config.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["http://a:1", "http://b:1;weight=2"]
        );
        assert_eq!(config.linger, Duration::from_millis(7));
        assert_eq!(config.spool_bytes_max, 20_000_000);
        assert_eq!(config.vbuckets, 1024);
        let config = load(args(&[&path, "--servers=http://c:1,http://d:1"])).unwrap().config;
        assert_eq!(config.servers.len(), 2, "lists are replaced, not joined");
        assert_eq!(config.servers[0].url(), "http://c:1");
    }

    #[test]
    fn every_mistake_in_the_file_is_named() {
        let error = |text: &str| {
            let (_dir, path) = file(text);
            causes(&load(args(&[&path])).unwrap_err())
        };
        assert!(error("lingr = \"5ms\"").contains("lingr in "));
        assert!(error("config = \"x\"").contains("config in "));
        assert!(error("linger = \"5 elephants\"").contains("--linger"));
        assert!(error("linger = { ms = 5 }").contains("linger in "));
        assert!(error("linger").contains("is no TOML"));
        assert!(error("vbuckets = 1000").contains("power of two"));
        assert!(load(args(&["--config=/nowhere"])).unwrap_err().to_string().contains("cannot read /nowhere"));
        assert!(load(args(&["--lingr=5ms"])).is_err());
    }
}
