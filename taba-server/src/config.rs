//! [`Config`]: every setting of a Server; [`VerifiedServerConfig`]: the proof that they fit together. [`Cli`] is the command line.
//!
//! Settings come from flags, variables and a file; [`taba_process::settings`] says how, and in which order.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, ValueEnum};
use taba_core::limits::FRAME_BYTES_MAX;
use taba_core::{
    HostName, HostPort, OutOfRange, ServerUrl, VBuckets, VBucketsError, bytes_within, time_within, within,
};
use taba_listen::{BodyPace, ConnectionBounds};
use taba_process::settings::{LoadedSettings, Program, Renamed, SettingsError};
use taba_process::units::{bytes_text, parse_bytes, parse_time, time_text};
use taba_shard::{ShardUrl, UrlError};

use crate::embedded::EmbeddedOptions;
use crate::server::{BODY_PACE, CACHE_BYTES_MAX, COMMIT_INTERVAL, HELD_BYTES_MAX};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const WORKERS_MAX: usize = 4096;
/// Bytes of a connection's buffers and task, about: the largest head, and what is written.
const CONNECTION_BYTES: usize = 96 * 1024;
/// Above it, a least rate of bodies in bytes a second is a mistake.
const BODY_RATE_MAX: usize = 1 << 20;
/// Above it, a bound in bytes is a mistake.
const BYTES_MAX: usize = 1 << 40;

/// How the settings of taba-server are read.
pub const PROGRAM: Program = Program::new(
    Some("TABA_SERVER_"),
    &[
        Renamed { from: "commit-interval-ms", to: "commit-interval", unit: "ms" },
        Renamed { from: "prune-interval-s", to: "prune-interval", unit: "s" },
        Renamed { from: "cache-mib", to: "cache-bytes-max", unit: "MiB" },
        Renamed { from: "held-mib", to: "held-bytes-max", unit: "MiB" },
        Renamed { from: "shutdown-s", to: "shutdown-timeout", unit: "s" },
    ],
);

/// Takes events from Taba Agents, stores their States, answers queries.
///
/// Every setting can stand in a TOML file (commit_interval = "200ms"), in the environment
/// (TABA_SERVER_COMMIT_INTERVAL=200ms), or here; what stands here wins over the environment, and that over the file.
/// Sizes are written as 512KiB, 64MiB, 1GiB; times as 20ms, 10s, 5m. An empty variable is not set.
///
/// Commands, each with a --help of its own: backup, restore, check, mend, adopt.
///
/// Stops on SIGTERM or Ctrl-C: takes nothing any more, and commits what it holds. Exit codes: 0 when it stopped as asked;
/// 1 when it could not start, or a part of it failed; 2 when a flag, a variable or the file is wrong.
#[derive(Clone, Debug, Parser)]
#[command(name = "taba-server", version)]
#[non_exhaustive]
pub struct Cli {
    /// The file of settings.
    #[command(flatten)]
    pub file: FileArgs,
    /// What to log.
    #[command(flatten)]
    pub log: LogArgs,
    /// The settings.
    #[command(flatten)]
    pub settings: Config,
}

/// Reading settings from a file, and writing one.
#[derive(Args, Clone, Debug)]
#[non_exhaustive]
pub struct FileArgs {
    /// A TOML file of settings; its keys are the names of the flags
    #[arg(long, env = "TABA_SERVER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the settings as they count, each with where it comes from, as a file for --config; and do nothing else
    #[arg(long)]
    pub print_config: bool,
}

/// What to log.
#[derive(Args, Clone, Debug)]
#[non_exhaustive]
pub struct LogArgs {
    /// What to log: off, error, warn, info, debug, trace, or MODULE=LEVEL,…; RUST_LOG counts where this is not given
    /// [default: info; of commands: warn]
    #[arg(long, env = "TABA_SERVER_LOG", value_name = "FILTER", value_parser = NonEmptyStringValueParser::new())]
    pub log: Option<String>,
}

/// Where States are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// In a directory of this machine, safe against crashes
    Embedded,
    /// In memory: gone when the process is
    Memory,
    /// In several Redis processes, for any number of servers
    Redis,
}

/// A text that is not shown: it may hold passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    fn parse(text: &str) -> Result<Self, UrlError> {
        // Any other text is kept for later: an error of clap would show it.
        if text.is_empty() { Err(UrlError::Form) } else { Ok(Self::from(text)) }
    }
}

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

/// Every setting of a Server.
///
/// The names of the fields are, with dashes, the names of the flags and of the keys in the file, and, in capitals behind
/// `TABA_SERVER_`, those of the environment variables.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Host and port to listen on; port 0 takes a free one
    ///
    /// Only programs on this machine can reach the default: there is no authentication.
    #[arg(long, env = "TABA_SERVER_LISTEN", value_name = "HOST:PORT", default_value_t = Self::default().listen)]
    pub listen: HostPort,

    /// Names under which this Server is asked, besides localhost, addresses and the name in --listen and --advertise; several are separated by commas
    ///
    /// Requests for other hosts are refused: a web page whose own name was pointed here could read all. * takes every name.
    #[arg(long, env = "TABA_SERVER_HOST_NAMES", value_name = "NAME", value_delimiter = ',')]
    pub host_names: Vec<HostName>,

    /// Where Agents reach this Server: http://HOST:PORT, perhaps with /PREFIX and ;weight=N
    ///
    /// It says so in its store, so that Agents with --discover find it there. Without it, the address that it listens on, if
    /// that is one address.
    #[arg(long, env = "TABA_SERVER_ADVERTISE", value_name = "URL")]
    pub advertise: Option<ServerUrl>,

    /// How often it says in its store that it is there, from 50ms to 1h; 0 never does
    #[arg(long, env = "TABA_SERVER_REGISTER_INTERVAL", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().register_interval))]
    pub register_interval: Duration,

    /// Where States are kept
    #[arg(long, env = "TABA_SERVER_STORE", value_enum, value_name = "WHERE", default_value_t = Self::default().store)]
    pub store: StoreKind,

    /// Directory of the embedded store
    #[arg(long, env = "TABA_SERVER_DATA_DIR", value_name = "DIR", default_value = Self::default().data_dir.into_os_string())]
    pub data_dir: PathBuf,

    /// Redis primaries of the store, one URL for each shard, with commas between: redis://:PASSWORD@HOST:PORT
    ///
    /// Where Redis Sentinels name a primary: redis+sentinel://:PASSWORD@HOST:PORT+HOST:PORT+HOST:PORT/MASTER
    ///
    /// A Redis Cluster, by some of its nodes: redis+cluster://:PASSWORD@HOST:PORT+HOST:PORT
    ///
    /// A password on the command line is seen by every user of the machine; the variable or the file is a better place
    /// for it.
    #[arg(
        long, env = "TABA_SERVER_REDIS", value_name = "URL", hide_env_values = true, value_delimiter = ',',
        value_parser = Secret::parse
    )]
    pub redis: Vec<Secret>,

    /// Replicas that each Redis primary is deployed with; with fewer connected, nothing counts as safe
    ///
    /// 0: those that are connected, and none if none was seen lately.
    #[arg(long, env = "TABA_SERVER_REDIS_REPLICAS", value_name = "COUNT", default_value_t = Self::default().redis_replicas)]
    pub redis_replicas: usize,

    /// How many VBuckets the deployment has: a power of two from 64 to 16384, the same everywhere, for ever
    #[arg(long, env = "TABA_SERVER_VBUCKETS", value_name = "COUNT", default_value_t = Self::default().vbuckets)]
    pub vbuckets: u32,

    /// Time between two commits of one VBucket, at most 1h
    ///
    /// Longer saves writes, shorter makes answers fresher; 0 commits without pause.
    #[arg(long, env = "TABA_SERVER_COMMIT_INTERVAL", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().commit_interval))]
    pub commit_interval: Duration,

    /// Time between removals of States that say nothing any more, from 1s to 8760h; 0 never removes them
    #[arg(long, env = "TABA_SERVER_PRUNE_INTERVAL", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().prune_interval))]
    pub prune_interval: Duration,

    /// Tasks that fold events; 0 takes as many as the machine has processors
    #[arg(long, env = "TABA_SERVER_WORKERS", value_name = "COUNT", default_value_t = Self::default().workers)]
    pub workers: usize,

    /// Bytes of decoded States to keep in memory
    #[arg(long, env = "TABA_SERVER_CACHE_BYTES_MAX", value_name = "BYTES", value_parser = parse_bytes::<usize>, default_value = bytes_text(Self::default().cache_bytes_max as u64))]
    pub cache_bytes_max: usize,

    /// Connections at one time
    ///
    /// A further one takes the place of one that has not sent a whole request yet, or else of one between two requests; while all
    /// have a request in hand, it waits.
    #[arg(long, env = "TABA_SERVER_CONNECTIONS_MAX", value_name = "COUNT", default_value_t = Self::default().connections_max)]
    pub connections_max: usize,

    /// How long a peer may take to send the head of a request, from its connection or first byte
    #[arg(long, env = "TABA_SERVER_HEADER_TIMEOUT", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().header_timeout))]
    pub header_timeout: Duration,

    /// How long a connection may lie idle between two requests, or its peer not read an answer
    #[arg(long, env = "TABA_SERVER_IDLE_TIMEOUT", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().idle_timeout))]
    pub idle_timeout: Duration,

    /// How long an Agent may take to send a body
    #[arg(long, env = "TABA_SERVER_BODY_TIMEOUT", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().body_timeout))]
    pub body_timeout: Duration,

    /// The least bytes a second of a body, in each tenth of body-timeout; 0 for any, at most 1MiB
    #[arg(long, env = "TABA_SERVER_BODY_RATE_MIN", value_name = "BYTES", value_parser = parse_bytes::<usize>, default_value = bytes_text(Self::default().body_rate_min as u64))]
    pub body_rate_min: usize,

    /// Bytes of requests that may be in hand, at least 16MiB; more are turned away with 503
    #[arg(long, env = "TABA_SERVER_HELD_BYTES_MAX", value_name = "BYTES", value_parser = parse_bytes::<usize>, default_value = bytes_text(Self::default().held_bytes_max as u64))]
    pub held_bytes_max: usize,

    /// How long stopping may take: the time to commit what is in hand
    #[arg(long, env = "TABA_SERVER_SHUTDOWN_TIMEOUT", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().shutdown_timeout))]
    pub shutdown_timeout: Duration,

    /// Bytes that all bounds together may come to; the Server does not start when they come to more. 0: any number
    ///
    /// What queries take comes on top.
    #[arg(long, env = "TABA_SERVER_MEMORY_BYTES_MAX", value_name = "BYTES", value_parser = parse_bytes::<usize>, default_value = bytes_text(Self::default().memory_bytes_max as u64))]
    pub memory_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: HostPort::from((Ipv4Addr::LOCALHOST, 8300)),
            host_names: Vec::new(),
            advertise: None,
            register_interval: Duration::from_secs(2),
            store: StoreKind::Embedded,
            data_dir: PathBuf::from("./taba-data"),
            redis: Vec::new(),
            redis_replicas: 0,
            vbuckets: u32::from(VBuckets::default().count()),
            commit_interval: COMMIT_INTERVAL,
            prune_interval: HOUR,
            workers: 0,
            cache_bytes_max: CACHE_BYTES_MAX,
            connections_max: 4096,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            body_timeout: BODY_PACE.timeout,
            body_rate_min: BODY_PACE.rate_min,
            held_bytes_max: HELD_BYTES_MAX,
            shutdown_timeout: Duration::from_secs(10),
            // Not a bound by default: one that the caches of an existing deployment come to would keep it from starting.
            memory_bytes_max: 0,
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting is out of its range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// The number of VBuckets is impossible.
    #[error("vbuckets")]
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
    #[error("URL number {place} of redis is not possible")]
    Redis {
        /// Which of them, from 1.
        place: usize,
        /// Why not.
        source: UrlError,
    },
    /// All bounds together are over the bound of memory.
    #[error(
        "at the worst, the bounds come to {bytes} bytes, and memory_bytes_max is {bytes_max}: lower cache_bytes_max ({cache}) \
         or held_bytes_max ({held}), or raise it"
    )]
    Memory {
        /// What they come to.
        bytes: usize,
        /// What they may come to.
        bytes_max: usize,
        /// The share of decoded States.
        cache: usize,
        /// The share of requests in hand.
        held: usize,
    },
}

impl ConfigError {
    /// The settings that it is about.
    pub fn settings(&self) -> &[&'static str] {
        match self {
            Self::OutOfRange(error) => std::slice::from_ref(&error.setting),
            Self::VBuckets(_) => &["vbuckets"],
            Self::NoRedis | Self::RedisUnused => &["store", "redis"],
            Self::Redis { .. } => &["redis"],
            Self::Memory { .. } => &["cache_bytes_max", "held_bytes_max", "memory_bytes_max"],
        }
    }
}

/// Settings that were found to fit together; the only thing that the binary runs with.
#[derive(Clone, Debug)]
pub struct VerifiedServerConfig {
    config: Config,
    vbuckets: VBuckets,
    shards: Vec<ShardUrl>,
}

impl Deref for VerifiedServerConfig {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.config
    }
}

impl VerifiedServerConfig {
    /// How many VBuckets the deployment has.
    pub const fn vbuckets(&self) -> VBuckets {
        self.vbuckets
    }

    /// Where the shards of the Redis store are, in order; shown without passwords. Empty for other stores.
    pub fn shards(&self) -> &[ShardUrl] {
        &self.shards
    }

    /// Time between two removals of silent States; `None` for never.
    pub fn prune_interval(&self) -> Option<Duration> {
        Some(self.prune_interval).filter(|interval| !interval.is_zero())
    }

    /// Every name under which it is asked: those that are set, and those of `listen` and `advertise`.
    pub fn all_host_names(&self) -> Vec<HostName> {
        let own = [Some(self.listen.clone()), self.advertise.as_ref().map(ServerUrl::host_port)];
        let own = own.into_iter().flatten().filter_map(|own| own.host().parse().ok());
        self.host_names.iter().cloned().chain(own).collect()
    }

    /// Where Agents reach it, when it listens there: what is set, or the address itself. `None` when it listens on all
    /// addresses of the machine, and nothing is set; or when it is not to say so.
    pub fn advertised(&self, listens: SocketAddr) -> Option<ServerUrl> {
        if self.register_interval.is_zero() {
            return None;
        }
        let own = || (!listens.ip().is_unspecified()).then(|| format!("http://{listens}").parse().ok());
        self.advertise.clone().or_else(|| own().flatten())
    }

    /// The bounds of connections.
    pub fn connection_bounds(&self) -> ConnectionBounds {
        let Config { connections_max, header_timeout, idle_timeout, .. } = self.config;
        ConnectionBounds { connections_max, header_timeout, idle_timeout }
    }

    /// How fast bodies have to arrive.
    pub fn body_pace(&self) -> BodyPace {
        BodyPace { timeout: self.body_timeout, rate_min: self.body_rate_min }
    }

    /// Tasks that fold; `None` for as many as there are processors.
    pub fn workers(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.workers)
    }
}

impl Config {
    /// [Verifies](Self::verify) settings that were read.
    ///
    /// # Errors
    /// [`SettingsError::Impossible`], with where each of the settings in question comes from.
    pub fn verify_loaded<C>(
        &self,
        loaded: &LoadedSettings<C>,
    ) -> Result<VerifiedServerConfig, SettingsError> {
        self.clone().verify().map_err(|error| {
            let names = error.settings().to_vec();
            loaded.impossible(&names, error)
        })
    }

    /// Checks every setting, and that the memory of all bounds together is within `memory_bytes_max`.
    ///
    /// # Errors
    /// [`ConfigError`], which names the setting to change.
    pub fn verify(self) -> Result<VerifiedServerConfig, ConfigError> {
        let vbuckets = VBuckets::new(self.vbuckets)?;
        within("workers", self.workers, 0..=WORKERS_MAX)?;
        bytes_within("cache_bytes_max", self.cache_bytes_max, 0..=BYTES_MAX)?;
        // One request, and the one that is decoded from it.
        bytes_within("held_bytes_max", self.held_bytes_max, 2 * FRAME_BYTES_MAX..=BYTES_MAX)?;
        within("connections_max", self.connections_max, 1..=1 << 20)?;
        time_within("header_timeout", self.header_timeout, MS..=600 * SECOND)?;
        time_within("idle_timeout", self.idle_timeout, MS..=24 * HOUR)?;
        time_within("body_timeout", self.body_timeout, MS..=600 * SECOND)?;
        bytes_within("body_rate_min", self.body_rate_min, 0..=BODY_RATE_MAX)?;
        time_within("commit_interval", self.commit_interval, Duration::ZERO..=HOUR)?;
        time_within("shutdown_timeout", self.shutdown_timeout, Duration::ZERO..=24 * HOUR)?;
        if !self.prune_interval.is_zero() {
            time_within("prune_interval", self.prune_interval, Duration::from_secs(1)..=365 * 24 * HOUR)?;
        }
        if !self.register_interval.is_zero() {
            time_within("register_interval", self.register_interval, Duration::from_millis(50)..=HOUR)?;
        }
        let (bytes, bytes_max) = (self.memory_bytes(), self.memory_bytes_max);
        if bytes_max > 0 && bytes > bytes_max {
            let (cache, held) = (self.cache_bytes_max, self.held_bytes_max);
            return Err(ConfigError::Memory { bytes, bytes_max, cache, held });
        }
        let shards = self.shards()?;
        Ok(VerifiedServerConfig { config: self, vbuckets, shards })
    }

    /// Where the shards are, if the store is in Redis.
    fn shards(&self) -> Result<Vec<ShardUrl>, ConfigError> {
        let read = |(place, Secret(url)): (usize, &Secret)| {
            ShardUrl::new(url.trim()).map_err(|source| ConfigError::Redis { place: place + 1, source })
        };
        match (self.store, self.redis.as_slice()) {
            (StoreKind::Redis, []) => Err(ConfigError::NoRedis),
            (StoreKind::Redis, urls) => urls.iter().enumerate().map(read).collect(),
            (StoreKind::Embedded | StoreKind::Memory, []) => Ok(Vec::new()),
            (StoreKind::Embedded | StoreKind::Memory, _) => Err(ConfigError::RedisUnused),
        }
    }

    /// What all bounds come to at the worst, in bytes: decoded States, requests in hand, connections, and what the embedded store keeps
    /// of its file. What queries take, and what a store in memory holds, is not in it.
    pub fn memory_bytes(&self) -> usize {
        let store = match self.store {
            StoreKind::Embedded => EmbeddedOptions::default().cache_bytes,
            StoreKind::Memory | StoreKind::Redis => 0,
        };
        let connections = self.connections_max.saturating_mul(CONNECTION_BYTES);
        [self.cache_bytes_max, self.held_bytes_max, connections, store]
            .into_iter()
            .fold(0, usize::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use taba_process::settings;

    fn error(change: impl FnOnce(&mut Config)) -> ConfigError {
        let mut config = Config::default();
        change(&mut config);
        config.verify().unwrap_err()
    }

    fn load(args: &[&str], variables: &[(&str, &str)]) -> Result<Config, SettingsError> {
        let args = [&["taba-server"], args].concat();
        let variables = variables.iter().map(|&(name, value)| (name.into(), value.into()));
        let loaded = settings::load::<Cli>(&PROGRAM, args.into_iter().map(Into::into), variables)?;
        loaded.settings.settings.verify_loaded(&loaded)?;
        Ok(loaded.settings.settings)
    }

    #[test]
    fn without_anything_there_are_the_defaults_which_fit_together() {
        Cli::command().debug_assert();
        assert_eq!(load(&[], &[]).unwrap(), Config::default());
        assert!(Config::default().listen.is_loopback());
    }

    #[test]
    fn every_setting_can_come_from_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        taba_process::laws::settings::<Cli>(
            &PROGRAM,
            &["taba-server"],
            dir.path(),
            &["log", "data_dir", "redis"],
        );
    }

    #[test]
    fn the_flags_and_variables_of_before_are_still_read() {
        let old = ["--commit-interval-ms=50", "--prune-interval-s", "0", "--cache-mib=1", "--held-mib", "64"];
        let config = load(&old, &[("TABA_SERVER_SHUTDOWN_S", "5")]).unwrap();
        let expected = Config {
            commit_interval: Duration::from_millis(50),
            prune_interval: Duration::ZERO,
            cache_bytes_max: 1 << 20,
            held_bytes_max: 64 << 20,
            shutdown_timeout: Duration::from_secs(5),
            ..Config::default()
        };
        assert_eq!(config, expected);
        assert_eq!(config.verify().unwrap().prune_interval(), None);
    }

    #[test]
    fn redis_is_named_with_its_store_and_its_passwords_are_not_shown() {
        let redis = |store, urls: &[&str]| {
            let redis = urls.iter().map(|&url| Secret::from(url)).collect();
            Config { store, redis, ..Config::default() }.verify()
        };
        let urls = ["redis://:hunter2@10.0.0.1:7000", " redis://10.0.0.2"];
        let config = redis(StoreKind::Redis, &urls).unwrap();
        let shown = config.shards().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown, ["10.0.0.1:7000", "10.0.0.2:6379"]);
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(matches!(redis(StoreKind::Redis, &[]), Err(ConfigError::NoRedis)));
        assert!(matches!(redis(StoreKind::Memory, &urls), Err(ConfigError::RedisUnused)));
        let bad = redis(StoreKind::Redis, &["redis://ok", "http://:hunter2@h"]).unwrap_err();
        assert!(matches!(bad, ConfigError::Redis { place: 2, .. }));
        assert!(!format!("{bad} {bad:?}").contains("hunter2"));
    }

    #[test]
    fn what_it_listens_on_is_advertised_unless_something_else_is_or_it_is_no_one_address() {
        let advertised = |args: &[&str], listens: &str| {
            let config = load(args, &[]).unwrap().verify().unwrap();
            config.advertised(listens.parse().unwrap()).map(|url| url.to_string())
        };
        assert_eq!(advertised(&[], "10.0.0.1:8300").unwrap(), "http://10.0.0.1:8300");
        assert_eq!(advertised(&[], "[::1]:8300").unwrap(), "http://[::1]:8300");
        assert_eq!(advertised(&[], "0.0.0.0:8300"), None);
        assert_eq!(advertised(&[], "[::]:8300"), None);
        let named = "--advertise=s1.example:80/taba;weight=2";
        assert_eq!(advertised(&[named], "0.0.0.0:8300").unwrap(), "http://s1.example:80/taba;weight=2");
        assert_eq!(advertised(&[named, "--register-interval=0"], "10.0.0.1:8300"), None);
    }

    #[test]
    fn each_bound_is_checked_and_the_worst_case_is_added_up() {
        let name = |error: ConfigError| match error {
            ConfigError::OutOfRange(error) => error.setting,
            other => panic!("{other}"),
        };
        assert_eq!(name(error(|c| c.held_bytes_max = 1 << 20)), "held_bytes_max");
        assert_eq!(name(error(|c| c.cache_bytes_max = usize::MAX)), "cache_bytes_max");
        assert_eq!(name(error(|c| c.workers = 5000)), "workers");
        assert_eq!(name(error(|c| c.connections_max = 0)), "connections_max");
        assert_eq!(name(error(|c| c.header_timeout = Duration::ZERO)), "header_timeout");
        assert_eq!(name(error(|c| c.idle_timeout = Duration::ZERO)), "idle_timeout");
        assert_eq!(name(error(|c| c.body_timeout = Duration::ZERO)), "body_timeout");
        assert_eq!(name(error(|c| c.body_rate_min = usize::MAX)), "body_rate_min");
        assert_eq!(name(error(|c| c.shutdown_timeout = 25 * HOUR)), "shutdown_timeout");
        assert_eq!(name(error(|c| c.commit_interval = 2 * HOUR)), "commit_interval");
        assert_eq!(name(error(|c| c.prune_interval = Duration::from_millis(1))), "prune_interval");
        assert_eq!(name(error(|c| c.register_interval = Duration::from_millis(1))), "register_interval");
        assert!(matches!(error(|c| c.vbuckets = 100), ConfigError::VBuckets(_)));
        let ConfigError::Memory { bytes, .. } = error(|c| c.memory_bytes_max = 1) else { panic!() };
        let connections = 4096 * CONNECTION_BYTES;
        assert_eq!(
            bytes,
            CACHE_BYTES_MAX + HELD_BYTES_MAX + connections + EmbeddedOptions::default().cache_bytes
        );
    }

    #[test]
    fn what_is_impossible_names_where_it_comes_from() {
        let error =
            load(&["--cache-bytes-max=1GiB"], &[("TABA_SERVER_MEMORY_BYTES_MAX", "1GiB")]).unwrap_err();
        let error = taba_core::causes(&error);
        for word in
            ["(--cache-bytes-max)", "TABA_SERVER_MEMORY_BYTES_MAX", "held_bytes_max (the default)", "lower"]
        {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
