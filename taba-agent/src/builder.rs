//! [`AgentBuilder`]: builds an [`Agent`].

use std::path::PathBuf;

use taba_core::{HostName, HostPort, Registry};

use crate::config::{Config, ConfigError, SpoolKind};
use crate::driver::Agent;
use crate::server_seed::ServerSeed;

/// Builds an [`Agent`]; other settings are as in [`Config::default`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct AgentBuilder {
    config: Config,
    handlers: Registry,
}

impl Agent {
    /// An Agent to be configured by calls.
    pub fn builder() -> AgentBuilder {
        AgentBuilder::default()
    }
}

impl AgentBuilder {
    /// The Servers, in place of the default one.
    pub fn servers(mut self, servers: impl IntoIterator<Item = ServerSeed>) -> Self {
        self.config.servers = servers.into_iter().collect();
        self
    }

    /// Where to listen; port 0 lets the system choose.
    pub fn listen(mut self, addr: HostPort) -> Self {
        self.config.listen = addr;
        self
    }

    /// The directory of the Spool, in place of `./taba-spool`.
    pub fn spool_dir(mut self, path: impl Into<PathBuf>) -> Self {
        (self.config.spool, self.config.spool_dir) = (SpoolKind::File, path.into());
        self
    }

    /// Keeps the Spool in memory only: its content is lost with the process.
    pub fn memory_spool(mut self) -> Self {
        self.config.spool = SpoolKind::Memory;
        self
    }

    /// See [`Agent::with_handlers`].
    pub fn handlers(mut self, handlers: Registry) -> Self {
        self.handlers = handlers;
        self
    }

    /// Names under which it is asked, besides `localhost` and addresses: requests for other hosts are refused.
    pub fn host_names(mut self, names: Vec<HostName>) -> Self {
        self.config.host_names = names;
        self
    }

    /// A Unix socket to listen on as well.
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.unix = Some(path.into());
        self
    }

    /// Changes any other setting.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`], which names the setting to change.
    pub fn build(self) -> Result<Agent, ConfigError> {
        Ok(Agent::new(self.config.verify()?).with_handlers(self.handlers))
    }
}
