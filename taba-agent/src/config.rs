//! [`Config`]: every setting of an Agent, plain data; [`Verified`]: the proof that the settings fit together.

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use taba_core::limits::{BLOCK_BYTES_MAX, FRAME_BYTES_MAX};
use taba_core::wire::FRAME_HEADER_BYTES;
use taba_core::{HostPort, StoreId, VBuckets, VBucketsError};

use crate::dedup::{INCARNATION_BYTES_MAX, KEYS_MAX};
use crate::dispatcher::DispatcherOptions;
use crate::lane::{HEAD_BYTES_MAX, LaneBounds};
use crate::relay::{HELD_HERE_BYTES_MAX, RelayOptions};
use crate::server_url::ServerUrl;
use crate::spool::{LogOptions, SyncPolicy};
use taba_core::RequestHeader;

#[cfg(feature = "cli")]
use taba_process::units::{bytes_text, parse_bytes, parse_time, time_text};

/// Servers of one Agent.
pub const SERVERS_MAX: usize = 256;
/// Bytes of one body on the wire: a full frame.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX + FRAME_HEADER_BYTES;
/// Threads that may decode a body at the same time; the drivers here run no more workers than this.
pub const DECODERS_MAX: u64 = 16;
/// Bytes of a Lane without its Blocks, about.
const LANE_BYTES: u64 = 1024;
/// A log takes one byte of memory for so many on the disk, about: 32 for each fragment of a Batch.
const INDEX_SHARE: u64 = 8;
/// Bytes of a connection's buffers and task, about.
const CONNECTION_BYTES: u64 = 32 * 1024;

/// Every setting of an Agent.
///
/// The names of the fields are, with dashes, the names of the flags and of the keys in the file, and, in capitals
/// behind `TABA_AGENT_`, those of the environment variables. (In the file, dashes and underscores are the same.)
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct Config {
    /// Host and port to listen on for Clients; port 0 lets the system choose
    ///
    /// Only programs on this machine can reach the default.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_LISTEN", value_name = "HOST:PORT", default_value_t = Self::default().listen))]
    pub listen: HostPort,

    /// Path of a Unix socket to listen on as well
    ///
    /// A socket that an earlier run left behind is replaced.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_UNIX", value_name = "PATH"))]
    pub unix: Option<PathBuf>,

    /// Servers, each http://HOST:PORT or http://HOST:PORT;weight=N; several are separated by commas
    ///
    /// A Server behind a prefix is http://HOST:PORT/PREFIX.
    /// A Server of weight 2 takes twice the share of one of weight 1. At least one, at most 256.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_SERVERS", value_name = "URL", value_delimiter = ',', default_values_t = Self::default().servers))]
    pub servers: Vec<ServerUrl>,

    /// Headers of each request to a Server, each `Name: value`; several are separated by commas, so that no value holds one
    ///
    /// For a token that a proxy before the Servers asks for. A secret: give it by the variable or the file, since everybody on
    /// this machine can see the flags of a program.
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            env = "TABA_AGENT_SERVER_HEADER",
            value_name = "HEADER",
            value_delimiter = ',',
            hide_env_values = true
        )
    )]
    pub server_header: Vec<RequestHeader>,

    /// How many VBuckets the deployment has: a power of two from 64 to 16384, the same everywhere, for ever
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_VBUCKETS", value_name = "COUNT", default_value_t = Self::default().vbuckets))]
    pub vbuckets: u32,

    /// The store to deliver to, if it is not the one that what the spool holds is for: 1 to 16 hexadecimal digits
    ///
    /// The agent notes in its spool to which store it delivers: the first one it met when it held nothing. To a server of another
    /// store nothing is sent. To accept a store that takes the place of an old one, name it here: GET /v2/store of its server,
    /// and the agent's log, say which it is.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_STORE_ID", value_name = "ID"))]
    pub store_id: Option<StoreId>,

    /// Where what was taken is kept until it is stored for good: in a directory of this machine, or only in memory
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_SPOOL", value_enum, value_name = "WHERE", default_value_t = Self::default().spool))]
    pub spool: SpoolKind,

    /// Directory of the spool; one for each agent
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_SPOOL_DIR", value_name = "DIR", default_value = Self::default().spool_dir.into_os_string()))]
    pub spool_dir: PathBuf,

    /// Bytes that the spool takes at most; above it, Clients are asked to wait (503)
    ///
    /// It holds what was not stored yet, merged by Tab while Servers are away, and what was stored less than
    /// confirm-after ago. At least 16MiB, so that every Batch fits.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_SPOOL_BYTES_MAX", value_name = "BYTES", value_parser = parse_bytes::<u64>, default_value = bytes_text(Self::default().spool_bytes_max)))]
    pub spool_bytes_max: u64,

    /// When the spool is made safe against a power failure: before each Client is answered, every spool-sync-interval, or never
    ///
    /// Against the end of the process alone it is always safe.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_SPOOL_SYNC", value_enum, value_name = "WHEN", default_value_t = Self::default().spool_sync))]
    pub spool_sync: SyncPolicy,

    /// How often the spool is synced, if at intervals; from 1ms to 1s
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_SPOOL_SYNC_INTERVAL", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().spool_sync_interval)))]
    pub spool_sync_interval: Duration,

    /// How long what was stored is kept in case the store goes back: longer than a store that was cut off goes on writing
    ///
    /// With Redis, longer than its repl-timeout (60 s). A store on one machine cannot go back; then less saves room.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_CONFIRM_AFTER", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().confirm_after)))]
    pub confirm_after: Duration,

    /// How long to wait before asking again after what could not be confirmed.
    ///
    /// As often Servers are asked which process they are, while something is not confirmed: after a restart the store may hold
    /// less than it did.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_PROBE_INTERVAL", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().probe_interval)))]
    pub probe_interval: Duration,

    /// How long events wait for a Server before those of one Client and Tab are merged
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_MERGE_AFTER", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().merge_after)))]
    pub merge_after: Duration,

    /// Bytes at which a Lane's Batch is closed (one large Block may be over it); at most 4MiB
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_BATCH_BYTES_MAX", value_name = "BYTES", value_parser = parse_bytes::<usize>, default_value = bytes_text(Self::default().batch_bytes_max as u64)))]
    pub batch_bytes_max: usize,

    /// Bytes of one request to a Server, before compression; at most 8MiB, and room for one Batch
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_REQUEST_BYTES_MAX", value_name = "BYTES", value_parser = parse_bytes::<usize>, default_value = bytes_text(Self::default().request_bytes_max as u64)))]
    pub request_bytes_max: usize,

    /// Requests in flight to one Server, from 1 to 64
    ///
    /// A Server answers after its commit, so this many requests a commit interval is the most an Agent brings.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_REQUESTS_PER_SERVER_MAX", value_name = "COUNT", default_value_t = Self::default().requests_per_server_max))]
    pub requests_per_server_max: usize,

    /// How long events wait for others to travel with, at most 10s; 0s sends at once
    ///
    /// More makes fewer and larger requests, and answers to queries older by as much.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_LINGER", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().linger)))]
    pub linger: Duration,

    /// How long a Server, or a Lane, that failed once is left alone; doubles with every further failure
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_BACKOFF_MIN", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().backoff_min)))]
    pub backoff_min: Duration,

    /// How long a Server, or a Lane, that goes on failing is left alone, at most 10m
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_BACKOFF_MAX", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().backoff_max)))]
    pub backoff_max: Duration,

    /// How long to wait for a connection to a Server
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_CONNECT_TIMEOUT", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().connect_timeout)))]
    pub connect_timeout: Duration,

    /// How long to wait for a Server's whole answer; then the Batches are sent again
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_REQUEST_TIMEOUT", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().request_timeout)))]
    pub request_timeout: Duration,

    /// Whether requests to Servers are compressed: lz4 or none
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_COMPRESSION", value_enum, value_name = "HOW", default_value_t = Self::default().compression))]
    pub compression: Compression,

    /// Runs of Client programs whose last Batch is remembered, so that a repetition is not counted twice
    ///
    /// Should be well above the number of Client processes on this host.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_INCARNATIONS_MAX", value_name = "COUNT", default_value_t = Self::default().incarnations_max))]
    pub incarnations_max: usize,

    /// Connections of Clients at one time; further ones wait to be accepted
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_CONNECTIONS_MAX", value_name = "COUNT", default_value_t = Self::default().connections_max))]
    pub connections_max: usize,

    /// Bytes of request bodies being received at one time; at least 8MiB and a little; further requests wait
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_BODIES_BYTES_MAX", value_name = "BYTES", value_parser = parse_bytes::<usize>, default_value = bytes_text(Self::default().bodies_bytes_max as u64)))]
    pub bodies_bytes_max: usize,

    /// How long a Client may take to send a body, its turn to do so included
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_BODY_TIMEOUT", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().body_timeout)))]
    pub body_timeout: Duration,

    /// How long stopping may take: after it, what has not been brought to a Server is given up and reported
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_SHUTDOWN_TIMEOUT", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().shutdown_timeout)))]
    pub shutdown_timeout: Duration,

    /// Bytes that all bounds together may come to; the Agent does not start when they come to more
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_MEMORY_BYTES_MAX", value_name = "BYTES", value_parser = parse_bytes::<u64>, default_value = bytes_text(Self::default().memory_bytes_max)))]
    pub memory_bytes_max: u64,
}

/// Whether requests are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Compression {
    /// LZ4, where it makes them smaller.
    #[default]
    Lz4,
    /// Not at all: for Servers on the same machine.
    None,
}

/// Where what was taken is kept until it is stored for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum SpoolKind {
    /// In a directory: it outlives the process
    #[default]
    File,
    /// In memory: it is gone with the process
    Memory,
}

/// Here, so that the Spool does not know the command line.
#[cfg(feature = "cli")]
impl clap::ValueEnum for SyncPolicy {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Always, Self::Interval, Self::Never]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let (name, help) = match self {
            Self::Always => (
                "always",
                "Before its Client is told that it is safe: nothing that was acknowledged is lost, also when the power fails",
            ),
            Self::Interval => (
                "interval",
                "Every few milliseconds, and before it is sent: when the power fails, the last of them are lost, and nothing is counted twice",
            ),
            Self::Never => (
                "never",
                "When the system finds time: when the power fails, what was acknowledged may be lost; nothing is when only the process is killed",
            ),
        };
        Some(clap::builder::PossibleValue::new(name).help(help))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: HostPort::from((Ipv4Addr::LOCALHOST, 8279)),
            unix: None,
            servers: vec!["http://127.0.0.1:8300".parse().expect("the constant is an address")],
            server_header: Vec::new(),
            vbuckets: u32::from(VBuckets::default().count()),
            store_id: None,
            spool: SpoolKind::File,
            spool_dir: PathBuf::from("./taba-spool"),
            spool_bytes_max: 512 << 20,
            spool_sync: SyncPolicy::Interval,
            spool_sync_interval: Duration::from_millis(5),
            confirm_after: Duration::from_secs(60),
            probe_interval: Duration::from_secs(5),
            merge_after: Duration::from_secs(2),
            batch_bytes_max: 512 << 10,
            request_bytes_max: 4 << 20,
            requests_per_server_max: 4,
            // Simulated with Servers that answer every 200 ms, and 4, 20 and 100 Clients that send every 250 ms: below
            // 50 ms, small requests take all slots and the rest waits longer for one than it would have lingered
            // (median 295 ms from Client to stored with 20 ms and 20 Clients, 250 ms with 50 ms; 12 and 4 requests a
            // second with 4 Clients); at 100 ms nothing more is won.
            linger: Duration::from_millis(50),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(10),
            compression: Compression::Lz4,
            incarnations_max: 10_000,
            connections_max: 1024,
            bodies_bytes_max: 64 << 20,
            body_timeout: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(10),
            memory_bytes_max: 3 << 29,
        }
    }
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is out of its range.
    #[error("{name} = {found} is not from {min} to {max}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// What it is.
        found: String,
        /// What it may be at least.
        min: String,
        /// What it may be at most.
        max: String,
    },
    /// The number of VBuckets is impossible.
    #[error("vbuckets")]
    VBuckets(#[from] VBucketsError),
    /// One Server stands twice.
    #[error("server {url} stands twice; give it a weight instead")]
    ServerTwice {
        /// Which one.
        url: String,
    },
    /// All bounds together are over the bound of memory.
    #[error(
        "at the worst, the bounds come to {bytes} bytes, and memory_bytes_max is {bytes_max}: \
         lower spool_bytes_max ({spool}), bodies_bytes_max ({bodies}) or requests_per_server_max ({requests}), or raise it"
    )]
    Memory {
        /// What they come to.
        bytes: u64,
        /// What they may come to.
        bytes_max: u64,
        /// The share of the Spool.
        spool: u64,
        /// The share of bodies being received.
        bodies: u64,
        /// The share of requests to Servers.
        requests: u64,
    },
}

impl ConfigError {
    /// The settings that it is about.
    pub fn settings(&self) -> &[&'static str] {
        match self {
            Self::OutOfRange { name: "backoff_min", .. } => &["backoff_min", "backoff_max"],
            Self::OutOfRange { name: "request_bytes_max", .. } => &["request_bytes_max", "batch_bytes_max"],
            Self::OutOfRange { name, .. } => std::slice::from_ref(name),
            Self::VBuckets(_) => &["vbuckets"],
            Self::ServerTwice { .. } => &["servers"],
            Self::Memory { .. } => {
                &["spool_bytes_max", "bodies_bytes_max", "requests_per_server_max", "memory_bytes_max"]
            }
        }
    }
}

/// Settings that were found to fit together; the only thing a driver accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified<T>(T);

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Verified<Config> {
    /// How the log of a Spool on a disk is kept.
    pub fn log_options(&self) -> LogOptions {
        // Many segments, so that room comes back in small pieces; none so small that files are a burden.
        let segment_bytes = (self.spool_bytes_max / 16).clamp(1 << 20, 64 << 20);
        let sync_interval = match self.spool_sync {
            SyncPolicy::Interval => self.spool_sync_interval,
            SyncPolicy::Always | SyncPolicy::Never => Duration::ZERO,
        };
        LogOptions { bytes_max: self.spool_bytes_max, segment_bytes, sync: self.spool_sync, sync_interval }
    }

    /// The options of a Relay.
    pub fn relay_options(&self) -> RelayOptions {
        let lane = LaneBounds {
            batch_bytes_max: self.batch_bytes_max,
            confirm_after: self.confirm_after,
            probe_interval: self.probe_interval,
            spool_keeps_content: self.spool == SpoolKind::File,
        };
        let dispatcher = DispatcherOptions {
            servers: self.servers.clone(),
            linger: self.linger,
            request_bytes_max: self.request_bytes_max,
            requests_per_server_max: self.requests_per_server_max,
            backoff_min: self.backoff_min,
            backoff_max: self.backoff_max,
            lane,
        };
        let (merge_after, incarnations_max) = (self.merge_after, self.incarnations_max);
        RelayOptions { vbuckets: self.vbuckets(), merge_after, incarnations_max, dispatcher }
    }

    /// How many VBuckets the deployment has.
    pub fn vbuckets(&self) -> VBuckets {
        VBuckets::new(self.vbuckets).expect("it was verified")
    }
}

impl Config {
    /// Checks every setting, and that the memory of all bounds together is within `memory_bytes_max`.
    ///
    /// # Errors
    /// [`ConfigError`], which names the setting to change.
    pub fn verify(self) -> Result<Verified<Self>, ConfigError> {
        VBuckets::new(self.vbuckets)?;
        self.verify_servers()?;
        self.verify_ranges()?;
        let memory = self.memory();
        let bytes = memory.total();
        if bytes > self.memory_bytes_max {
            let Memory { spool, bodies, requests, .. } = memory;
            return Err(ConfigError::Memory {
                bytes,
                bytes_max: self.memory_bytes_max,
                spool,
                bodies,
                requests,
            });
        }
        Ok(Verified(self))
    }

    fn verify_servers(&self) -> Result<(), ConfigError> {
        within("servers", self.servers.len() as u64, 1, SERVERS_MAX as u64)?;
        for (place, server) in self.servers.iter().enumerate() {
            if self.servers[..place].iter().any(|before| before.url() == server.url()) {
                return Err(ConfigError::ServerTwice { url: server.url().to_owned() });
            }
        }
        Ok(())
    }

    fn verify_ranges(&self) -> Result<(), ConfigError> {
        // The notes that the Agent adds to a Batch come on top of what a frame can hold.
        within("spool_bytes_max", self.spool_bytes_max, 2 * FRAME_BYTES_MAX as u64, 1 << 40)?;
        within("batch_bytes_max", self.batch_bytes_max as u64, 1, FRAME_BYTES_MAX as u64 / 2)?;
        // The largest Batch, with room for its head and the numbers around it.
        let batch = self.batch_bytes_max.max(BLOCK_BYTES_MAX) + HEAD_BYTES_MAX + 64;
        within("request_bytes_max", self.request_bytes_max as u64, batch as u64, FRAME_BYTES_MAX as u64)?;
        within("requests_per_server_max", self.requests_per_server_max as u64, 1, 64)?;
        within("incarnations_max", self.incarnations_max as u64, 1, 1 << 24)?;
        within("connections_max", self.connections_max as u64, 1, 1 << 20)?;
        within("bodies_bytes_max", self.bodies_bytes_max as u64, BODY_BYTES_MAX as u64, 1 << 31)?;
        let (ms, secs) = (Duration::from_millis, Duration::from_secs);
        last("spool_sync_interval", self.spool_sync_interval, ms(1), secs(1))?;
        last("confirm_after", self.confirm_after, Duration::ZERO, secs(3600))?;
        last("probe_interval", self.probe_interval, ms(10), secs(600))?;
        last("merge_after", self.merge_after, Duration::ZERO, secs(600))?;
        last("linger", self.linger, Duration::ZERO, secs(10))?;
        last("backoff_min", self.backoff_min, ms(1), self.backoff_max)?;
        last("backoff_max", self.backoff_max, ms(1), secs(600))?;
        last("connect_timeout", self.connect_timeout, ms(1), secs(600))?;
        last("request_timeout", self.request_timeout, ms(1), secs(600))?;
        last("body_timeout", self.body_timeout, ms(1), secs(600))?;
        last("shutdown_timeout", self.shutdown_timeout, Duration::ZERO, secs(86_400))
    }

    /// What all bounds come to at the worst.
    pub fn memory(&self) -> Memory {
        let requests = (self.servers.len() * self.requests_per_server_max) as u64;
        Memory {
            // A Batch that is being filled has grown by doubling; and the index of a log on a disk is in memory.
            spool: match self.spool {
                SpoolKind::Memory => self.spool_bytes_max.saturating_mul(2),
                SpoolKind::File => 2 * HELD_HERE_BYTES_MAX + self.spool_bytes_max / INDEX_SHARE,
            },
            bodies: self.bodies_bytes_max as u64 + DECODERS_MAX * FRAME_BYTES_MAX as u64,
            // The message, its frame, and the answer.
            requests: requests * (2 * self.request_bytes_max as u64 + BODY_BYTES_MAX as u64),
            lanes: u64::from(self.vbuckets) * (LANE_BYTES + 2 * self.servers.len() as u64),
            incarnations: (self.incarnations_max + KEYS_MAX) as u64 * INCARNATION_BYTES_MAX as u64,
            connections: self.connections_max as u64 * CONNECTION_BYTES,
        }
    }
}

/// What each bound comes to at the worst, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Blocks that are held.
    pub spool: u64,
    /// Bodies being received, and those being unpacked.
    pub bodies: u64,
    /// Requests to Servers.
    pub requests: u64,
    /// Lanes without their Blocks.
    pub lanes: u64,
    /// Incarnations of Clients, and keys of requests to record.
    pub incarnations: u64,
    /// Connections of Clients.
    pub connections: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        let Self { spool, bodies, requests, lanes, incarnations, connections } = *self;
        [spool, bodies, requests, lanes, incarnations, connections].into_iter().fold(0, u64::saturating_add)
    }
}

fn within(name: &'static str, found: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        name,
        found: found.to_string(),
        min: min.to_string(),
        max: max.to_string(),
    })
}

fn last(name: &'static str, found: Duration, min: Duration, max: Duration) -> Result<(), ConfigError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    let text = |time: Duration| format!("{time:?}");
    Err(ConfigError::OutOfRange { name, found: text(found), min: text(min), max: text(max) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(change: impl FnOnce(&mut Config)) -> ConfigError {
        let mut config = Config::default();
        change(&mut config);
        config.verify().unwrap_err()
    }

    #[test]
    fn the_defaults_fit_together() {
        let config = Config::default().verify().unwrap();
        assert_eq!(config.vbuckets(), VBuckets::default());
        assert!(config.memory().total() > HELD_HERE_BYTES_MAX);
    }

    #[test]
    fn each_bound_is_checked() {
        let name = |error: ConfigError| match error {
            ConfigError::OutOfRange { name, .. } => name,
            other => panic!("{other}"),
        };
        assert_eq!(name(error(|c| c.servers.clear())), "servers");
        assert_eq!(name(error(|c| c.spool_bytes_max = 1 << 20)), "spool_bytes_max");
        assert_eq!(name(error(|c| c.batch_bytes_max = 0)), "batch_bytes_max");
        assert_eq!(name(error(|c| c.request_bytes_max = c.batch_bytes_max)), "request_bytes_max");
        assert_eq!(name(error(|c| c.request_bytes_max = FRAME_BYTES_MAX + 1)), "request_bytes_max");
        assert_eq!(name(error(|c| c.requests_per_server_max = 0)), "requests_per_server_max");
        assert_eq!(name(error(|c| c.bodies_bytes_max = FRAME_BYTES_MAX)), "bodies_bytes_max");
        assert_eq!(name(error(|c| c.linger = Duration::from_secs(11))), "linger");
        assert_eq!(name(error(|c| c.backoff_min = Duration::from_secs(5))), "backoff_min");
        assert_eq!(name(error(|c| c.request_timeout = Duration::ZERO)), "request_timeout");
        assert!(matches!(error(|c| c.vbuckets = 1000), ConfigError::VBuckets(_)));
        assert!(matches!(error(|c| c.servers.push(c.servers[0].clone())), ConfigError::ServerTwice { .. }));
    }

    #[test]
    fn the_worst_case_is_added_up() {
        let large = |c: &mut Config| (c.spool, c.spool_bytes_max) = (SpoolKind::Memory, 1 << 30);
        let ConfigError::Memory { bytes, spool, .. } = error(large) else { panic!() };
        assert_eq!(spool, 2 << 30);
        assert!(bytes > spool);
    }
}
