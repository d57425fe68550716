//! [`Config`]: every setting of an Agent, plain data; [`Verified`]: the proof that the settings fit together.

mod options;
mod verify;

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use taba_core::{HostName, HostPort, RequestHeader, StoreId, VBuckets};

pub use self::verify::{ConfigError, Memory};
pub use crate::discovery::SERVERS_MAX;
use crate::server_seed::ServerSeed;
use crate::spool::SyncPolicy;
pub use crate::units::BODY_BYTES_MAX;

#[cfg(feature = "cli")]
use taba_process::units::{bytes_text, parse_bytes, parse_time, time_text};

/// Where the number of Servers is not known, requests of the largest size may be in flight to so many at one time; of smaller
/// ones more.
const FOUND_SERVERS: usize = 4;
/// Threads that may decode a body at the same time; the drivers here run no more workers than this.
pub const DECODERS_MAX: u64 = 16;
/// Bytes of a Lane without its Blocks, about.
const LANE_BYTES: u64 = 1024;
/// A log takes one byte of memory for so many on the disk, about: 32 for each fragment of a Batch.
const INDEX_SHARE: u64 = 8;
/// Bytes of a connection's buffers and task, about: the largest head, and what is written.
const CONNECTION_BYTES: u64 = 96 * 1024;
/// Above it, a least rate of bodies in bytes a second is a mistake.
const BODY_RATE_MAX: usize = 1 << 20;

/// Every setting of an Agent.
///
/// The names of the fields are, with dashes, the names of the flags and of the keys in the file, and, in capitals
/// behind `TABA_AGENT_`, those of the environment variables. (In the file, dashes and underscores are the same.)
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[non_exhaustive]
pub struct Config {
    /// Host and port to listen on for Clients; port 0 lets the system choose
    ///
    /// Only programs on this machine can reach the default.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_LISTEN", value_name = "HOST:PORT", default_value_t = Self::default().listen))]
    pub listen: HostPort,

    /// Names under which this Agent is asked, besides localhost, addresses and the name in --listen; several are separated by commas
    ///
    /// Requests for other hosts are refused: a web page whose own name was pointed here could read all. * takes every name.
    #[cfg_attr(
        feature = "cli",
        arg(long, env = "TABA_AGENT_HOST_NAMES", value_name = "NAME", value_delimiter = ',')
    )]
    pub host_names: Vec<HostName>,

    /// Path of a Unix socket to listen on as well
    ///
    /// A socket that an earlier run left behind is replaced.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_UNIX", value_name = "PATH"))]
    pub unix: Option<PathBuf>,

    /// Servers, each http://HOST:PORT or http://HOST:PORT;weight=N; several are separated by commas
    ///
    /// A Server behind a prefix is http://HOST:PORT/PREFIX. dns:NAME:PORT stands for all addresses of the name, each of which is
    /// a Server; the name is resolved again every server-list-interval.
    /// A Server of weight 2 takes twice the share of one of weight 1. At least one, at most 256.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_SERVERS", value_name = "URL", value_delimiter = ',', default_values_t = Self::default().servers))]
    pub servers: Vec<ServerSeed>,

    /// Look for all Servers of the store: ask those of --servers, and then those that are found
    ///
    /// Each has to say where Agents reach it (taba-server --advertise). One that is found is used once it has answered; those of
    /// --servers are used as well while none that was found is in health.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_DISCOVER", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = Self::default().discover, action = clap::ArgAction::Set))]
    pub discover: bool,

    /// How often names are resolved, and Servers asked for others, about; from 50ms to 1h
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_SERVER_LIST_INTERVAL", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().server_list_interval)))]
    pub server_list_interval: Duration,

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
    pub compression: RequestCompression,

    /// Runs of Client programs whose last Batch is remembered, so that a repetition is not counted twice
    ///
    /// Should be well above the number of Client processes on this host.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_INCARNATIONS_MAX", value_name = "COUNT", default_value_t = Self::default().incarnations_max))]
    pub incarnations_max: usize,

    /// Connections of Clients at one time
    ///
    /// A further one takes the place of one that has not sent a whole request yet, or else of one between two requests; while all
    /// have a request in hand, it waits.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_CONNECTIONS_MAX", value_name = "COUNT", default_value_t = Self::default().connections_max))]
    pub connections_max: usize,

    /// How long a Client may take to send the head of a request, from its connection or first byte
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_HEADER_TIMEOUT", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().header_timeout)))]
    pub header_timeout: Duration,

    /// How long a connection may lie idle between two requests, or its Client not read an answer
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_IDLE_TIMEOUT", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().idle_timeout)))]
    pub idle_timeout: Duration,

    /// Bytes of request bodies being received at one time; at least 8MiB and a little; further ones wait
    ///
    /// Room is taken as the bytes of a body arrive.
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_BODIES_BYTES_MAX", value_name = "BYTES", value_parser = parse_bytes::<usize>, default_value = bytes_text(Self::default().bodies_bytes_max as u64)))]
    pub bodies_bytes_max: usize,

    /// How long a Client may take to send a body, its turn to do so included
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_BODY_TIMEOUT", value_name = "TIME", value_parser = parse_time, default_value = time_text(Self::default().body_timeout)))]
    pub body_timeout: Duration,

    /// The least bytes a second of a body, in each tenth of body-timeout; 0 for any, at most 1MiB
    #[cfg_attr(feature = "cli", arg(long, env = "TABA_AGENT_BODY_RATE_MIN", value_name = "BYTES", value_parser = parse_bytes::<usize>, default_value = bytes_text(Self::default().body_rate_min as u64)))]
    pub body_rate_min: usize,

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
pub enum RequestCompression {
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
            host_names: Vec::new(),
            unix: None,
            servers: vec!["http://127.0.0.1:8300".parse().expect("the constant is an address")],
            discover: false,
            server_list_interval: Duration::from_secs(5),
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
            compression: RequestCompression::Lz4,
            incarnations_max: 10_000,
            connections_max: 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            bodies_bytes_max: 64 << 20,
            body_timeout: Duration::from_secs(10),
            body_rate_min: 1024,
            shutdown_timeout: Duration::from_secs(10),
            memory_bytes_max: 7 << 28,
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
