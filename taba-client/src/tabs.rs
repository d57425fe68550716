//! [`Tabs`]: the table of a Client's Tabs, shared by those who make handles and the background thread.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use taba_core::{NameError, Registry, TabName, TabType, ValueMismatch};

use crate::tab::TabSpec;

/// The number of all Tabs beyond the bound; what is recorded under it is dropped.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// Why there is no handle for a Tab.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TabError {
    /// The name of the Tab or of its type breaks the rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name lies under the prefix that Taba keeps for itself.
    #[error("tab name {tab} is reserved: names must not begin with `taba.`")]
    Reserved {
        /// The name.
        tab: TabName,
    },
    /// The Tab was made with another type before.
    #[error("tab {tab} is a {known}, so it cannot be a {asked}")]
    TypeConflict {
        /// The name.
        tab: TabName,
        /// The type it has.
        known: TabType,
        /// The type it was to have.
        asked: TabType,
    },
    /// The Handler of the Tab's type folds values of another Rust type, or the Tab was made with another before.
    #[error("the values of tab {tab} are of another type")]
    ValueConflict {
        /// The name.
        tab: TabName,
        /// What the Handler says, if that is who disagrees.
        #[source]
        source: Option<ValueMismatch>,
    },
}

/// The table of a Client's Tabs.
pub(crate) struct Tabs {
    tabs_max: usize,
    handlers: Registry,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    numbers: HashMap<TabName, u32>,
    specs: Vec<TabSpec>,
}

impl Tabs {
    pub(crate) fn new(handlers: Registry, tabs_max: usize) -> Self {
        Self { tabs_max, handlers, table: Mutex::default() }
    }

    /// The number of a Tab; [`NOWHERE`] for one too many.
    pub(crate) fn number(&self, spec: TabSpec) -> Result<u32, TabError> {
        let tab = spec.name().clone();
        if tab.is_reserved() {
            return Err(TabError::Reserved { tab });
        }
        let mut table = self.table();
        if let Some(&number) = table.numbers.get(&tab) {
            let known = &table.specs[number as usize];
            if known.agrees(&spec) {
                return Ok(number);
            }
            if known.tab_type() == spec.tab_type() {
                return Err(TabError::ValueConflict { tab, source: None });
            }
            let (known, asked) = (known.tab_type().clone(), spec.tab_type().clone());
            return Err(TabError::TypeConflict { tab, known, asked });
        }
        if let Some(handler) = self.handlers.get(spec.tab_type().as_str())
            && let Err(mismatch) = spec.fits(handler.as_ref())
        {
            return Err(TabError::ValueConflict { tab, source: Some(mismatch) });
        }
        if table.specs.len() >= self.tabs_max {
            return Ok(NOWHERE);
        }
        let number = table.specs.len() as u32;
        table.specs.push(spec);
        table.numbers.insert(tab, number);
        Ok(number)
    }

    /// The Tabs from number `from` on.
    pub(crate) fn after(&self, from: usize) -> Vec<TabSpec> {
        self.table().specs.get(from..).unwrap_or_default().to_vec()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A Handler that panics when asked what it folds leaves the table as it was.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
