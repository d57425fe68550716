//! What each part of an Agent is told by the settings.

use std::time::Duration;

use taba_core::{ServerUrl, VBuckets};

use super::{Config, SpoolKind, Verified};
use crate::discovery::DiscoveryOptions;
use crate::dispatcher::DispatcherOptions;
use crate::lane::LaneBounds;
use crate::relay::RelayOptions;
use crate::spool::{LogOptions, SyncPolicy};

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
            servers: self.given_servers(),
            linger: self.linger,
            request_bytes_max: self.request_bytes_max,
            requests_per_server_max: self.requests_per_server_max,
            bytes_in_flight_max: self.requests_at_once() * self.request_bytes_max,
            backoff_min: self.backoff_min,
            backoff_max: self.backoff_max,
            lane,
        };
        let (merge_after, incarnations_max) = (self.merge_after, self.incarnations_max);
        RelayOptions { vbuckets: self.vbuckets(), merge_after, incarnations_max, dispatcher }
    }

    /// Those Servers that were given by address.
    fn given_servers(&self) -> Vec<ServerUrl> {
        self.servers.iter().filter(|seed| !seed.is_name()).map(|seed| seed.url().clone()).collect()
    }

    /// How the Servers are found.
    pub fn discovery_options(&self) -> DiscoveryOptions {
        let (seeds, interval) = (self.servers.clone(), self.server_list_interval);
        DiscoveryOptions { seeds, is_on: self.discover, interval }
    }

    /// How many VBuckets the deployment has.
    pub fn vbuckets(&self) -> VBuckets {
        VBuckets::new(self.vbuckets).expect("it was verified")
    }
}

#[cfg(feature = "driver")]
impl From<Verified<Config>> for crate::driver::AgentOptions {
    fn from(config: Verified<Config>) -> Self {
        use taba_core::wire::Compression;
        use taba_listen::{BodyPace, ConnectionBounds};

        use super::RequestCompression;

        let (log, relay, discovery) =
            (config.log_options(), config.relay_options(), config.discovery_options());
        let Verified(config) = config;
        let own = config.listen.host().parse().ok();
        Self {
            listen: config.listen,
            unix: config.unix,
            host_names: config.host_names.into_iter().chain(own).collect(),
            connections: ConnectionBounds {
                connections_max: config.connections_max,
                header_timeout: config.header_timeout,
                idle_timeout: config.idle_timeout,
            },
            bodies_bytes_max: config.bodies_bytes_max,
            body_pace: BodyPace { timeout: config.body_timeout, rate_min: config.body_rate_min },
            shutdown_timeout: config.shutdown_timeout,
            spool_dir: (config.spool == SpoolKind::File).then_some(config.spool_dir),
            log,
            store_id: config.store_id,
            server_header: config.server_header,
            connect_timeout: config.connect_timeout,
            request_timeout: config.request_timeout,
            compression: match config.compression {
                RequestCompression::Lz4 => Compression::Lz4,
                RequestCompression::None => Compression::None,
            },
            relay,
            discovery,
        }
    }
}
