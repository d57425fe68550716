//! [`Config`]: how the binary is set up: by flags, environment and file, from one table of [`Settings`].
//!
//! A flag `--commit-interval-ms` is the variable `TABA_SERVER_COMMIT_INTERVAL_MS` and the key `commit_interval_ms` (or
//! `commit-interval-ms`) of the file. What is given twice counts in this order: flag, environment, file, default.
//! A key or variable that nothing knows is an error: it is a setting that somebody believes in. An empty variable is not
//! set; those that Kubernetes or Docker inject for a Service called `taba-server` are nobody's setting.

use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueEnum};
use serde::Deserialize;
use taba_core::limits::FRAME_BYTES_MAX;
use taba_core::{VBuckets, VBucketsError};
use taba_process::environment::{self, UnknownVariable};
use taba_process::usage::{self, UsageError};
use taba_shard::{ShardUrl, UrlError};

use crate::server::{CACHE_BYTES_MAX, COMMIT_INTERVAL, HELD_BYTES_MAX};

/// What every variable of the environment that is ours begins with.
const ENV_PREFIX: &str = "TABA_SERVER_";
const MIB: usize = 1024 * 1024;
const HOUR_S: u64 = 3600;
const YEAR_S: u64 = 365 * 24 * HOUR_S;
const WORKERS_MAX: u64 = 4096;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "taba-server",
    version,
    about = "Takes events from Taba agents, stores their States, answers queries."
)]
#[command(after_help = "Every flag can also be a key of the file (commit_interval_ms = 200) or a variable \
    (TABA_SERVER_COMMIT_INTERVAL_MS=200).\nFlags win over variables, variables over the file. An empty variable is not set.\n\n\
    Commands, each with a --help of its own: backup, restore, check, adopt.\n\
    Stops on SIGTERM or Ctrl-C: takes nothing any more, and commits what it holds.\n\
    Exit codes: 0 when it stopped as asked; 1 when it could not start, or a part of it failed; \
    2 when a flag, a variable or the file is wrong.")]
pub struct Flags {
    /// A TOML file with settings
    #[arg(long, env = "TABA_SERVER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Everything else, as far as it is given.
    #[command(flatten)]
    pub settings: Settings,
}

/// Where States are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// In a directory of this machine, safe against crashes
    Embedded,
    /// In memory: gone when the process is
    Memory,
    /// In several Redis processes, for any number of servers
    Redis,
}

/// A text that is not shown: it may hold passwords.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// All that can be set, as one source gives it. The one list of settings: flags, variables and keys are made from it.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:8300]
    #[arg(long, env = "TABA_SERVER_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Where States are kept [default: embedded]
    #[arg(long, env = "TABA_SERVER_STORE", value_enum)]
    pub store: Option<StoreKind>,
    /// Directory of the embedded store [default: ./taba-data]
    #[arg(long, env = "TABA_SERVER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Redis primaries of the store, one URL for each shard, with commas between: redis://:PASSWORD@HOST:PORT. A
    /// password on the command line is seen by every user of the machine; the variable or the file is a better place
    /// for it
    #[arg(long, env = "TABA_SERVER_REDIS", value_name = "URL,…", hide_env_values = true)]
    pub redis: Option<Secret>,
    /// Replicas that each Redis primary is deployed with; with fewer connected, nothing counts as safe. 0: those that
    /// are connected, and none if none was seen lately [default: 0]
    #[arg(long, env = "TABA_SERVER_REDIS_REPLICAS", value_name = "COUNT")]
    pub redis_replicas: Option<usize>,
    /// Slices of the key space, fixed for a deployment's life: a power of two from 64 to 16384 [default: 1024]
    #[arg(long, env = "TABA_SERVER_VBUCKETS", value_name = "COUNT")]
    pub vbuckets: Option<u32>,
    /// Milliseconds between two commits of one slice; longer saves writes, shorter makes answers fresher [default: 200]
    #[arg(long, env = "TABA_SERVER_COMMIT_INTERVAL_MS", value_name = "MS")]
    pub commit_interval_ms: Option<u64>,
    /// Seconds between removals of States that say nothing any more; 0 never removes them [default: 3600]
    #[arg(long, env = "TABA_SERVER_PRUNE_INTERVAL_S", value_name = "S")]
    pub prune_interval_s: Option<u64>,
    /// Tasks that fold events; 0 takes as many as the machine has processors [default: 0]
    #[arg(long, env = "TABA_SERVER_WORKERS", value_name = "COUNT")]
    pub workers: Option<usize>,
    /// MiB of decoded States to keep in memory [default: 512]
    #[arg(long, env = "TABA_SERVER_CACHE_MIB", value_name = "MIB")]
    pub cache_mib: Option<usize>,
    /// MiB of requests that may be in hand; more are turned away with 503 [default: 128]
    #[arg(long, env = "TABA_SERVER_HELD_MIB", value_name = "MIB")]
    pub held_mib: Option<usize>,
    /// Seconds to commit what is in hand when told to stop [default: 10]
    #[arg(long, env = "TABA_SERVER_SHUTDOWN_S", value_name = "S")]
    pub shutdown_s: Option<u64>,
    /// What to log: off, error, warn, info, debug, trace, or MODULE=LEVEL,…; RUST_LOG counts where this is not given
    /// [default: info]
    #[arg(long, env = "TABA_SERVER_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// How the binary is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Loopback by default: there is no authentication.
    pub listen: SocketAddr,
    /// Where States are kept.
    pub store: StoreKind,
    /// Directory of the embedded store.
    pub data_dir: PathBuf,
    /// Where the shards of the Redis store are, in order; shown without passwords. Empty for other stores.
    pub redis: Vec<ShardUrl>,
    /// Replicas that each shard is deployed with; 0 for those that are connected.
    pub redis_replicas: usize,
    /// How many slices the key space has.
    pub vbuckets: VBuckets,
    /// How long lies between two commits of one slice.
    pub commit_interval: Duration,
    /// How long lies between two removals of silent States; `None` for never.
    pub prune_interval: Option<Duration>,
    /// Tasks that fold; `None` for as many as there are processors.
    pub workers: Option<NonZeroUsize>,
    /// Bytes of decoded States to keep.
    pub cache_bytes_max: usize,
    /// Bytes of requests that may be in hand.
    pub held_bytes_max: usize,
    /// How long stopping may take.
    pub shutdown: Duration,
    /// What to log; `None` for what `RUST_LOG` says.
    pub log: Option<String>,
}

/// Why the binary cannot be set up so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}, the file of --config or TABA_SERVER_CONFIG", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not TOML, or holds what is no setting.
    #[error("{} is not understood", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: toml::de::Error,
    },
    /// One setting stands in the file twice, in two spellings.
    #[error("{key} stands in {} twice, with - and with _; leave one out", path.display())]
    Twice {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
    },
    /// The command line or a variable is wrong, or help was asked for.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// There is no such setting.
    #[error(transparent)]
    UnknownVariable(#[from] UnknownVariable),
    /// A number is out of its range.
    #[error("{name} is {found}, but must be from {min} to {max}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// What it is.
        found: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// The number of slices cannot be.
    #[error("vbuckets is not possible")]
    VBuckets(#[from] VBucketsError),
    /// The Redis store was asked for, but not where it is.
    #[error(
        "store is redis, but there is no --redis URL,…: the Redis primaries, in the order of their shards"
    )]
    NoRedis,
    /// Redis processes were named for a store that is not in Redis.
    #[error("redis is set, but store is not redis; add --store redis, or leave it out")]
    RedisUnused,
    /// One of the URLs is none. It is not repeated here: it may hold a password.
    #[error("URL number {place} of redis (--redis, TABA_SERVER_REDIS) is not possible")]
    Redis {
        /// Which of them, from 1.
        place: usize,
        /// Why not.
        source: UrlError,
    },
    /// A bound is too small for one request.
    #[error("held_mib is {found}, but one request may take {min}: give at least that")]
    HeldTooSmall {
        /// What was asked for.
        found: usize,
        /// The least that works.
        min: usize,
    },
}

impl Settings {
    /// These settings, and where they are silent, the other ones.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            store: self.store.or(other.store),
            data_dir: self.data_dir.or(other.data_dir),
            redis: self.redis.or(other.redis),
            redis_replicas: self.redis_replicas.or(other.redis_replicas),
            vbuckets: self.vbuckets.or(other.vbuckets),
            commit_interval_ms: self.commit_interval_ms.or(other.commit_interval_ms),
            prune_interval_s: self.prune_interval_s.or(other.prune_interval_s),
            workers: self.workers.or(other.workers),
            cache_mib: self.cache_mib.or(other.cache_mib),
            held_mib: self.held_mib.or(other.held_mib),
            shutdown_s: self.shutdown_s.or(other.shutdown_s),
            log: self.log.or(other.log),
        }
    }

    /// The settings of a file.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be read, or holds something that is no setting.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::from_toml(&text, path)
    }

    fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file = |source| ConfigError::File { path: path.to_owned(), source };
        let table: toml::Table = text.parse().map_err(file)?;
        let mut settings = toml::Table::new();
        for (key, value) in table {
            let key = key.replace('-', "_");
            if settings.insert(key.clone(), value).is_some() {
                return Err(ConfigError::Twice { path: path.to_owned(), key });
            }
        }
        settings.try_into().map_err(file)
    }
}

impl Config {
    /// From the command line, the environment, and the file that one of them names.
    ///
    /// # Errors
    /// [`ConfigError`]; [`ConfigError::Usage`] also when help or the version was asked for.
    pub fn from_process() -> Result<Self, ConfigError> {
        let (command, args) = (Flags::command(), std::env::args_os().collect::<Vec<OsString>>());
        let matches = usage::parse(command.clone(), &args)?;
        environment::check(ENV_PREFIX, &command, std::env::vars_os())?;
        let flags = Flags::from_arg_matches(&matches);
        let Flags { config, settings } = flags.map_err(|error| usage::explain(error, &command, &args))?;
        let file = config.as_deref().map(Settings::from_file).transpose()?.unwrap_or_default();
        Self::new(settings.or(file))
    }

    /// From settings; defaults fill the rest.
    ///
    /// # Errors
    /// [`ConfigError`] when a value is not possible.
    pub fn new(settings: Settings) -> Result<Self, ConfigError> {
        let mib = |bytes: usize| bytes / MIB;
        let held_mib = settings.held_mib.unwrap_or(mib(HELD_BYTES_MAX));
        let held_min = mib(2 * FRAME_BYTES_MAX);
        if held_mib < held_min {
            return Err(ConfigError::HeldTooSmall { found: held_mib, min: held_min });
        }
        let prune = in_range("prune_interval_s", settings.prune_interval_s, (0, YEAR_S))?;
        let prune = Duration::from_secs(prune.unwrap_or(3600));
        let commit = in_range("commit_interval_ms", settings.commit_interval_ms, (0, HOUR_S * 1000))?;
        let shutdown = in_range("shutdown_s", settings.shutdown_s, (0, HOUR_S))?;
        in_range("workers", settings.workers.map(|workers| workers as u64), (0, WORKERS_MAX))?;
        let store = settings.store.unwrap_or(StoreKind::Embedded);
        let redis = shards(store, settings.redis.as_ref())?;
        Ok(Self {
            listen: settings.listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 8300))),
            store,
            data_dir: settings.data_dir.unwrap_or_else(|| PathBuf::from("./taba-data")),
            redis,
            redis_replicas: settings.redis_replicas.unwrap_or(0),
            vbuckets: settings.vbuckets.map_or(Ok(VBuckets::default()), VBuckets::new)?,
            commit_interval: commit.map_or(COMMIT_INTERVAL, Duration::from_millis),
            prune_interval: Some(prune).filter(|interval| !interval.is_zero()),
            workers: settings.workers.and_then(NonZeroUsize::new),
            cache_bytes_max: settings.cache_mib.unwrap_or(mib(CACHE_BYTES_MAX)).saturating_mul(MIB),
            held_bytes_max: held_mib.saturating_mul(MIB),
            shutdown: Duration::from_secs(shutdown.unwrap_or(10)),
            log: settings.log,
        })
    }

    /// The most that its bounds allow to be in memory at once, in bytes; what queries take is theirs to bound.
    pub const fn memory_bytes_max(&self) -> usize {
        self.cache_bytes_max.saturating_add(self.held_bytes_max)
    }
}

/// Where the shards are, if the store is in Redis.
fn shards(store: StoreKind, redis: Option<&Secret>) -> Result<Vec<ShardUrl>, ConfigError> {
    match (store, redis) {
        (StoreKind::Redis, None) => Err(ConfigError::NoRedis),
        (StoreKind::Redis, Some(Secret(urls))) => {
            let read = |(place, url): (usize, &str)| {
                ShardUrl::new(url.trim()).map_err(|source| ConfigError::Redis { place: place + 1, source })
            };
            urls.split(',').enumerate().map(read).collect()
        }
        (StoreKind::Embedded | StoreKind::Memory, None) => Ok(Vec::new()),
        (StoreKind::Embedded | StoreKind::Memory, Some(_)) => Err(ConfigError::RedisUnused),
    }
}

/// A number, if it is given, and in its range.
fn in_range(
    name: &'static str,
    found: Option<u64>,
    (min, max): (u64, u64),
) -> Result<Option<u64>, ConfigError> {
    match found {
        Some(found) if !(min..=max).contains(&found) => {
            Err(ConfigError::OutOfRange { name, found, min, max })
        }
        found => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Result<Settings, ConfigError> {
        Settings::from_toml(text, Path::new("test.toml"))
    }

    #[test]
    fn every_setting_is_flag_variable_and_key_under_one_name() {
        Flags::command().debug_assert();
        for arg in
            Flags::command().get_arguments().filter(|arg| arg.get_id() != "help" && arg.get_id() != "version")
        {
            let id = arg.get_id().as_str();
            assert_eq!(arg.get_long(), Some(id.replace('_', "-").as_str()));
            assert_eq!(
                arg.get_env().unwrap().to_str(),
                Some(format!("{ENV_PREFIX}{}", id.to_uppercase()).as_str())
            );
            if id != "config" {
                let unknown = toml(&format!("{id} = {{}}")).unwrap_err();
                let cause = std::error::Error::source(&unknown).unwrap().to_string();
                assert!(!cause.contains("unknown field"), "{id} is no key of the file: {cause}");
            }
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let flags = Flags::try_parse_from(["taba-server", "--vbuckets", "64", "--store", "memory"]).unwrap();
        let file =
            toml("vbuckets = 128\ncommit-interval-ms = 50\nprune_interval_s = 0\nworkers = 3").unwrap();
        let config = Config::new(flags.settings.or(file)).unwrap();
        assert_eq!(config.vbuckets.count(), 64);
        assert_eq!(config.store, StoreKind::Memory);
        assert_eq!(config.commit_interval, Duration::from_millis(50));
        assert_eq!(config.prune_interval, None);
        assert_eq!(config.workers, NonZeroUsize::new(3));
        assert_eq!(config.listen, "127.0.0.1:8300".parse().unwrap());
        assert!(config.listen.ip().is_loopback());
    }

    #[test]
    fn redis_is_named_with_its_store_and_its_passwords_are_not_shown() {
        let redis = |store, urls: Option<&str>| {
            Config::new(Settings { store, redis: urls.map(Secret::from), ..Settings::default() })
        };
        let urls = "redis://:hunter2@10.0.0.1:7000, redis://10.0.0.2";
        let config = redis(Some(StoreKind::Redis), Some(urls)).unwrap();
        let shown = config.redis.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown, ["10.0.0.1:7000", "10.0.0.2:6379"]);
        let settings = Settings { redis: Some(urls.into()), ..Settings::default() };
        assert!(!format!("{config:?} {settings:?}").contains("hunter2"));
        assert!(matches!(redis(Some(StoreKind::Redis), None), Err(ConfigError::NoRedis)));
        assert!(matches!(redis(None, Some(urls)), Err(ConfigError::RedisUnused)));
        let bad = redis(Some(StoreKind::Redis), Some("redis://ok,http://:hunter2@h")).unwrap_err();
        assert!(matches!(bad, ConfigError::Redis { place: 2, .. }));
        assert!(!format!("{bad} {bad:?}").contains("hunter2"));
        assert_eq!(
            toml("store = \"redis\"\nredis = \"a\"\nredis_replicas = 1").unwrap().redis_replicas,
            Some(1)
        );
    }

    #[test]
    fn what_nothing_knows_is_an_error() {
        assert!(matches!(toml("commit_interval = 3"), Err(ConfigError::File { .. })));
        assert!(matches!(toml("vbuckets = \"many\""), Err(ConfigError::File { .. })));
        assert!(matches!(toml("data-dir = \"a\"\ndata_dir = \"b\""), Err(ConfigError::Twice { .. })));
        assert!(Flags::try_parse_from(["taba-server", "--vbucket", "64"]).is_err());
        let vbuckets = Settings { vbuckets: Some(100), ..Settings::default() };
        assert!(matches!(Config::new(vbuckets), Err(ConfigError::VBuckets(_))));
        let held = Settings { held_mib: Some(1), ..Settings::default() };
        assert!(matches!(Config::new(held), Err(ConfigError::HeldTooSmall { .. })));
        let shutdown = Settings { shutdown_s: Some(u64::MAX), ..Settings::default() };
        assert!(matches!(Config::new(shutdown), Err(ConfigError::OutOfRange { .. })));
    }
}
