//! [`Registry`]: which Handler belongs to which Tab type; sealed once built.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::erased::AnyHandler;
use crate::guard::Guarded;
use crate::handler::Handler;
use crate::name::{NameError, TabType};

/// Which Handler belongs to which Tab type. Cloning is cheap: the table is shared.
///
/// # Examples
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use taba_core::{Event, Handler, Timestamp};
/// # struct Count;
/// # #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
/// # struct N { n: u64 }
/// # impl Handler for Count {
/// #     type Value = f64; type State = N; type Projection = N; const VERSION: u16 = 1;
/// #     fn fold(&self, state: &mut N, _: Event<&f64>) { state.n += 1; }
/// #     fn merge(&self, into: &mut N, other: &N) { into.n += other.n; }
/// #     fn project(&self, state: &N, _: Timestamp) -> N { state.clone() }
/// #     fn aggregate(&self, into: &mut N, other: &N) { into.n += other.n; }
/// #     fn encoded_bytes_max(&self) -> usize { 10 }
/// # }
/// use taba_core::Registry;
///
/// let registry = Registry::builder().with("Count", Count).build()?;
/// assert!(registry.get("Count").is_some());
/// # Ok::<(), taba_core::RegistryError>(())
/// ```
#[derive(Clone, Default)]
pub struct Registry(Arc<BTreeMap<TabType, RegisteredHandler>>);

#[derive(Clone)]
struct RegisteredHandler {
    handler: Arc<dyn AnyHandler>,
    /// Whether its States are known to be closed under merging.
    is_closed: bool,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys().map(TabType::as_str)).finish()
    }
}

/// Why a table of Handlers cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The name breaks the rules.
    #[error("a handler cannot be registered as {name:?}")]
    Name {
        /// The name it was to have.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// The name is taken.
    #[error("two handlers are registered as {name}")]
    Twice {
        /// The name they share.
        name: TabType,
    },
}

/// A [`Registry`] in the making.
#[must_use]
#[derive(Default)]
pub struct RegistryBuilder {
    handlers: Vec<(String, RegisteredHandler)>,
}

impl fmt::Debug for RegistryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.handlers.iter().map(|(name, _)| name)).finish()
    }
}

impl Registry {
    /// An empty table to add Handlers to.
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder::default()
    }

    /// The table with everything in it, to add to.
    pub fn to_builder(&self) -> RegistryBuilder {
        let handlers =
            self.0.iter().map(|(name, registered)| (name.to_string(), registered.clone())).collect();
        RegistryBuilder { handlers }
    }

    /// The name of a Tab type that is in the table: one text, shared by all who ask.
    pub fn tab_type(&self, tab_type: &str) -> Option<&TabType> {
        self.0.get_key_value(tab_type).map(|(name, _)| name)
    }

    /// The Handler of a Tab type.
    pub fn get(&self, tab_type: &str) -> Option<&Arc<dyn AnyHandler>> {
        self.0.get(tab_type).map(|registered| &registered.handler)
    }

    /// The Handler of a Tab type, with its panics as errors.
    pub fn guarded(&self, tab_type: &str) -> Option<Guarded> {
        let RegisteredHandler { handler, is_closed } = self.0.get(tab_type)?;
        Some(Guarded::registered(Arc::clone(handler), *is_closed))
    }

    /// Every Tab type, sorted.
    pub fn types(&self) -> impl Iterator<Item = &TabType> {
        self.0.keys()
    }
}

impl RegistryBuilder {
    /// Adds a Handler under a Tab type.
    pub fn with<H: Handler>(self, tab_type: &str, handler: H) -> Self {
        self.register(tab_type, handler, false)
    }

    /// As [`with`](Self::with), for a Handler that is tested for the law `closed`: a State that others were merged into is not read
    /// back before it is stored, but in debug builds. That saves about as much as encoding it takes.
    pub fn with_closed<H: Handler>(self, tab_type: &str, handler: H) -> Self {
        self.register(tab_type, handler, true)
    }

    fn register<H: Handler>(mut self, tab_type: &str, handler: H, is_closed: bool) -> Self {
        let registered = RegisteredHandler { handler: Arc::new(handler), is_closed };
        self.handlers.push((tab_type.to_owned(), registered));
        self
    }

    /// Seals the table.
    ///
    /// # Errors
    /// [`RegistryError`] when a name is bad or taken.
    pub fn build(self) -> Result<Registry, RegistryError> {
        let mut table = BTreeMap::new();
        for (name, handler) in self.handlers {
            let name = TabType::new(&name).map_err(|source| RegistryError::Name { name, source })?;
            if table.insert(name.clone(), handler).is_some() {
                return Err(RegistryError::Twice { name });
            }
        }
        Ok(Registry(Arc::new(table)))
    }
}
