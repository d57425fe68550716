//! [`AgentOptions`]: what an [`Agent`](super::Agent) is told by its settings.

use std::path::PathBuf;
use std::time::Duration;

use taba_core::wire::Compression;
use taba_core::{HostName, HostPort, RequestHeader, StoreId};
use taba_listen::{BodyPace, ConnectionBounds};

use crate::discovery::DiscoveryOptions;
use crate::relay::RelayOptions;
use crate::spool::LogOptions;

/// What an [`Agent`](super::Agent) is told by its settings. It is made of a [`Verified`](crate::Verified) configuration, and of
/// nothing else.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    pub(crate) listen: HostPort,
    pub(crate) unix: Option<PathBuf>,
    pub(crate) host_names: Vec<HostName>,
    pub(crate) connections: ConnectionBounds,
    pub(crate) bodies_bytes_max: usize,
    pub(crate) body_pace: BodyPace,
    pub(crate) shutdown_timeout: Duration,
    /// `None`: the Spool is in memory.
    pub(crate) spool_dir: Option<PathBuf>,
    pub(crate) log: LogOptions,
    pub(crate) store_id: Option<StoreId>,
    pub(crate) server_header: Vec<RequestHeader>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) compression: Compression,
    pub(crate) relay: RelayOptions,
    pub(crate) discovery: DiscoveryOptions,
}

impl AgentOptions {
    /// The directory of the Spool, for messages.
    pub(super) fn path(&self) -> PathBuf {
        self.spool_dir.clone().unwrap_or_default()
    }
}
