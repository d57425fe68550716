//! [`Server`]: everything wired together, to be embedded in a program or nested in its routes.

use std::fmt;
use std::sync::Arc;

use taba_core::{Registry, Store};

use crate::clock::{Clock, system_clock};
use crate::status::Status;

/// A running Server. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    handlers: Registry,
    clock: Clock,
    status: Arc<Status>,
}

/// Why a Server cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No store was given.
    #[error("a server needs a store: call `.store(..)`")]
    NoStore,
}

/// A [`Server`] in the making.
#[must_use]
pub struct ServerBuilder {
    store: Option<Arc<dyn Store>>,
    handlers: Registry,
    clock: Clock,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("handlers", &self.inner.handlers).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("handlers", &self.handlers).finish_non_exhaustive()
    }
}

impl Server {
    /// A Server to be configured.
    pub fn builder() -> ServerBuilder {
        ServerBuilder { store: None, handlers: Registry::default(), clock: system_clock() }
    }

    /// Its counters.
    pub fn status(&self) -> &Arc<Status> {
        &self.inner.status
    }

    /// Its store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }
}

impl ServerBuilder {
    /// Where States are kept.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Where States are kept, when others use the same store.
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// The Tab types that it understands.
    pub fn handlers(mut self, handlers: Registry) -> Self {
        self.handlers = handlers;
        self
    }

    /// The clock; by default the machine's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`BuildError`] when something is missing.
    pub fn build(self) -> Result<Server, BuildError> {
        let store = self.store.ok_or(BuildError::NoStore)?;
        let status = Arc::new(Status::default());
        Ok(Server { inner: Arc::new(Inner { store, handlers: self.handlers, clock: self.clock, status }) })
    }
}
