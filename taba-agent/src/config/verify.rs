//! Checking a [`Config`]: every range, and the memory of all bounds together.

use std::time::Duration;

use taba_core::limits::{BLOCK_BYTES_MAX, FRAME_BYTES_MAX};
use taba_core::{OutOfRange, VBuckets, VBucketsError, bytes_within, time_within, within};

use super::{
    BODY_BYTES_MAX, BODY_RATE_MAX, CONNECTION_BYTES, Config, DECODERS_MAX, FOUND_SERVERS, INDEX_SHARE,
    LANE_BYTES, SERVERS_MAX, SpoolKind, Verified,
};
use crate::dedup::{INCARNATION_BYTES_MAX, KEYS_MAX};
use crate::lane::HEAD_BYTES_MAX;
use crate::relay::HELD_HERE_BYTES_MAX;
use crate::server_seed::ServerSeed;

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting is out of its range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
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
            Self::OutOfRange(error) => match error.setting {
                "backoff_min" => &["backoff_min", "backoff_max"],
                "request_bytes_max" => &["request_bytes_max", "batch_bytes_max"],
                _ => std::slice::from_ref(&error.setting),
            },
            Self::VBuckets(_) => &["vbuckets"],
            Self::ServerTwice { .. } => &["servers"],
            Self::Memory { .. } => {
                &["spool_bytes_max", "bodies_bytes_max", "requests_per_server_max", "memory_bytes_max"]
            }
        }
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

    /// Whether its Servers are those that it was given, and no others.
    fn has_few_servers(&self) -> bool {
        !self.discover && !self.servers.iter().any(ServerSeed::is_name)
    }

    /// Requests of the largest size that may be in flight at one time.
    pub(super) fn requests_at_once(&self) -> usize {
        let given = self.servers.len();
        let servers = if self.has_few_servers() { given } else { given.max(FOUND_SERVERS) };
        servers * self.requests_per_server_max
    }

    fn verify_servers(&self) -> Result<(), ConfigError> {
        within("servers", self.servers.len(), 1..=SERVERS_MAX)?;
        for (place, server) in self.servers.iter().enumerate() {
            if self.servers[..place].iter().any(|before| before.url().url() == server.url().url()) {
                return Err(ConfigError::ServerTwice { url: server.url().url().to_owned() });
            }
        }
        Ok(())
    }

    fn verify_ranges(&self) -> Result<(), OutOfRange> {
        // The notes that the Agent adds to a Batch come on top of what a frame can hold.
        bytes_within("spool_bytes_max", self.spool_bytes_max, 2 * FRAME_BYTES_MAX as u64..=1 << 40)?;
        bytes_within("batch_bytes_max", self.batch_bytes_max, 1..=FRAME_BYTES_MAX / 2)?;
        // The largest Batch, with room for its head and the numbers around it.
        let batch = self.batch_bytes_max.max(BLOCK_BYTES_MAX) + HEAD_BYTES_MAX + 64;
        bytes_within("request_bytes_max", self.request_bytes_max, batch..=FRAME_BYTES_MAX)?;
        bytes_within("bodies_bytes_max", self.bodies_bytes_max, BODY_BYTES_MAX..=1 << 31)?;
        within("requests_per_server_max", self.requests_per_server_max, 1..=64)?;
        within("incarnations_max", self.incarnations_max, 1..=1 << 24)?;
        within("connections_max", self.connections_max, 1..=1 << 20)?;
        let (ms, secs) = (Duration::from_millis, Duration::from_secs);
        time_within("spool_sync_interval", self.spool_sync_interval, ms(1)..=secs(1))?;
        time_within("confirm_after", self.confirm_after, secs(0)..=secs(3600))?;
        time_within("server_list_interval", self.server_list_interval, ms(50)..=secs(3600))?;
        time_within("probe_interval", self.probe_interval, ms(10)..=secs(600))?;
        time_within("merge_after", self.merge_after, secs(0)..=secs(600))?;
        time_within("linger", self.linger, secs(0)..=secs(10))?;
        time_within("backoff_min", self.backoff_min, ms(1)..=self.backoff_max)?;
        time_within("backoff_max", self.backoff_max, ms(1)..=secs(600))?;
        time_within("connect_timeout", self.connect_timeout, ms(1)..=secs(600))?;
        time_within("request_timeout", self.request_timeout, ms(1)..=secs(600))?;
        time_within("header_timeout", self.header_timeout, ms(1)..=secs(600))?;
        time_within("idle_timeout", self.idle_timeout, ms(1)..=secs(86_400))?;
        time_within("body_timeout", self.body_timeout, ms(1)..=secs(600))?;
        bytes_within("body_rate_min", self.body_rate_min, 0..=BODY_RATE_MAX)?;
        time_within("shutdown_timeout", self.shutdown_timeout, secs(0)..=secs(86_400))
    }

    /// What all bounds come to at the worst.
    pub fn memory(&self) -> Memory {
        let requests = self.requests_at_once() as u64;
        let servers_max = if self.has_few_servers() { self.servers.len() } else { SERVERS_MAX };
        Memory {
            // A Batch that is being filled has grown by doubling; and the index of a log on a disk is in memory.
            spool: match self.spool {
                SpoolKind::Memory => self.spool_bytes_max.saturating_mul(2),
                SpoolKind::File => 2 * HELD_HERE_BYTES_MAX + self.spool_bytes_max / INDEX_SHARE,
            },
            bodies: self.bodies_bytes_max as u64 + DECODERS_MAX * FRAME_BYTES_MAX as u64,
            // The message, its frame, and the answer.
            requests: requests * (2 * self.request_bytes_max as u64 + BODY_BYTES_MAX as u64),
            lanes: u64::from(self.vbuckets) * (LANE_BYTES + 2 * servers_max as u64),
            incarnations: (self.incarnations_max + KEYS_MAX) as u64 * INCARNATION_BYTES_MAX as u64,
            connections: self.connections_max as u64 * CONNECTION_BYTES,
        }
    }
}

/// What each bound comes to at the worst, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
        for (spool, discover) in
            [(SpoolKind::Memory, false), (SpoolKind::Memory, true), (SpoolKind::File, true)]
        {
            let config = Config { spool, discover, ..Config::default() };
            assert!(config.clone().verify().is_ok(), "{:?}", config.memory());
        }
    }

    #[test]
    fn each_bound_is_checked() {
        let name = |error: ConfigError| match error {
            ConfigError::OutOfRange(error) => error.setting,
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
        assert_eq!(name(error(|c| c.header_timeout = Duration::ZERO)), "header_timeout");
        assert_eq!(name(error(|c| c.idle_timeout = Duration::ZERO)), "idle_timeout");
        assert_eq!(name(error(|c| c.body_rate_min = 1 << 30)), "body_rate_min");
        assert!(matches!(error(|c| c.vbuckets = 1000), ConfigError::VBuckets(_)));
        assert!(matches!(error(|c| c.servers.push(c.servers[0].clone())), ConfigError::ServerTwice { .. }));
    }

    #[test]
    fn the_worst_case_is_added_up() {
        let large = |c: &mut Config| (c.spool, c.spool_bytes_max) = (SpoolKind::Memory, 1 << 30);
        let ConfigError::Memory { bytes, spool, .. } = error(large) else { panic!() };
        assert_eq!(spool, 2 << 30);
        assert!(bytes > spool);
        let found = Config { discover: true, ..Config::default() }.verify().unwrap();
        let given = Config::default().verify().unwrap();
        assert_eq!(found.memory().requests, 4 * given.memory().requests);
        let options = found.relay_options().dispatcher;
        assert_eq!(options.bytes_in_flight_max, 16 * found.request_bytes_max);
    }
}
