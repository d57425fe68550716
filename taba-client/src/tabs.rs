//! [`Tabs`]: the table of a Client's Tabs, shared by the background thread and threads that make handles.
//!
//! ```text
//! handle made ──► number, lease ──► last handle dropped ──► released ──► rings drained, all sealed ──► number is free
//! ```
//! A Tab without a handle is forgotten once its events are in a Batch, so the bound of Tabs is one of Tabs in use.

use std::collections::HashMap;
use std::mem;
use std::panic::RefUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use taba_core::ledger::Why;
use taba_core::{NameError, Registry, TabName, TabType, ValueMismatch};

use crate::lock::lock;
use crate::tab::TabSpec;

/// Why there is no handle for a Tab.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TabError {
    /// The name of the Tab or of its type breaks the rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name has the reserved prefix.
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
        /// The Handler's answer, if the Handler is of another value type.
        #[source]
        source: Option<ValueMismatch>,
    },
    /// The Client has as many Tabs as it may have. Drop handles that are no longer used, or raise
    /// [`Config::tabs_max`](crate::Config::tabs_max).
    #[error(
        "tab {tab} is one too many: the client has {tabs_max} tabs in use; drop unused handles or raise `tabs_max`"
    )]
    TooManyTabs {
        /// The name.
        tab: TabName,
        /// The bound.
        tabs_max: usize,
    },
    /// The Client's background task ended, and could not be started again. Build another Client.
    #[error("the client no longer works, so tab {tab} would count nothing: {reason}")]
    ClientGone {
        /// The name.
        tab: TabName,
        /// What happened.
        reason: Arc<str>,
    },
}

impl TabError {
    /// The reason under which events are dropped that have no handle because of this error.
    pub(crate) fn why(&self) -> Why {
        match self {
            Self::Name(_) | Self::Reserved { .. } => Why::BadName,
            Self::TypeConflict { .. } => Why::TypeConflict,
            Self::ValueConflict { .. } => Why::BadValue,
            Self::TooManyTabs { .. } => Why::TooManyTabs,
            Self::ClientGone { .. } => Why::Shutdown,
        }
    }
}

/// The table of a Client's Tabs.
pub(crate) struct Tabs {
    tabs_max: usize,
    handlers: Registry,
    table: Mutex<TabTable>,
    /// The Tabs of the table that have had a handle, to be found without its lock. Changed under the lock only, so that a fork
    /// in the middle of a change is noticed.
    by_name: papaya::HashMap<TabName, LeasedTab>,
}

/// A Tab and its newest lease.
struct LeasedTab {
    spec: TabSpec,
    lease: Weak<TabLease>,
}

#[derive(Default)]
struct TabTable {
    numbers: HashMap<TabName, u32>,
    entries: Vec<Option<TabEntry>>,
    /// Places of `entries` that hold none.
    free: Vec<u32>,
    /// Numbers that the background thread does not know yet.
    new: Vec<u32>,
    released: Vec<ReleasedTab>,
    leases: u64,
}

struct TabEntry {
    spec: TabSpec,
    lease: Weak<TabLease>,
    /// The newest lease.
    ordinal: u64,
}

/// Is called when a Tab has lost its last handle.
pub(crate) trait TabOwner: Send + Sync + RefUnwindSafe {
    fn release(&self, tab: ReleasedTab);
}

/// Shared by the handles of one Tab. While it lives, the Tab keeps its number.
pub(crate) struct TabLease {
    number: u32,
    /// Which lease this is, of all that the Client ever gave.
    ordinal: u64,
    owner: Arc<dyn TabOwner>,
}

/// A Tab that has lost its last handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReleasedTab {
    pub(crate) number: u32,
    ordinal: u64,
}

impl Drop for TabLease {
    fn drop(&mut self) {
        self.owner.release(ReleasedTab { number: self.number, ordinal: self.ordinal });
    }
}

impl TabLease {
    /// A lease of a Client that records nothing, and so has no table of Tabs.
    pub(crate) fn disabled(owner: Arc<dyn TabOwner>) -> Arc<Self> {
        Arc::new(Self { number: 0, ordinal: 0, owner })
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Tabs {
    /// An empty table. Tabs whose type has a Handler must be of its value type.
    pub(crate) fn new(handlers: Registry, tabs_max: usize) -> Self {
        Self { tabs_max, handlers, table: Mutex::default(), by_name: papaya::HashMap::new() }
    }

    /// A lease of the Tab, which gets a number if it has none. Takes no lock where the Tab has a handle.
    pub(crate) fn lease(&self, spec: &TabSpec, owner: Arc<dyn TabOwner>) -> Result<Arc<TabLease>, TabError> {
        match self.existing_lease(spec) {
            Some(lease) => Ok(lease),
            None => self.find_or_make_lease(spec, owner),
        }
    }

    /// The lease of the handles that the Tab has.
    fn existing_lease(&self, spec: &TabSpec) -> Option<Arc<TabLease>> {
        let by_name = self.by_name.pin();
        let known = by_name.get(spec.name())?;
        if known.spec.agrees(spec) { known.lease.upgrade() } else { None }
    }

    fn find_or_make_lease(
        &self,
        spec: &TabSpec,
        owner: Arc<dyn TabOwner>,
    ) -> Result<Arc<TabLease>, TabError> {
        let tab = spec.name().clone();
        if tab.is_reserved() {
            return Err(TabError::Reserved { tab });
        }
        // The Handler is the application's code: not under the lock.
        let handler = self.handlers.get(spec.tab_type().as_str());
        if let Some(Err(mismatch)) = handler.map(|handler| spec.fits(handler.as_ref())) {
            let known = self.table().and_then(|table| table.known(&tab));
            return match known {
                Some(known) if known.tab_type() != spec.tab_type() => Err(type_conflict(&known, spec)),
                Some(_) | None => Err(TabError::ValueConflict { tab, source: Some(mismatch) }),
            };
        }
        let Some(mut table) = self.table() else {
            let reason = Arc::from("the process forked while another thread made a handle");
            return Err(TabError::ClientGone { tab, reason });
        };
        let number = match table.numbers.get(&tab) {
            Some(&number) => number,
            None => table.add(spec.clone(), self.tabs_max)?,
        };
        let TabTable { entries, leases, .. } = &mut *table;
        let entry = entries[number as usize].as_mut().expect("a number that a name has is in use");
        if !entry.spec.agrees(spec) {
            return Err(match entry.spec.tab_type() == spec.tab_type() {
                true => TabError::ValueConflict { tab: spec.name().clone(), source: None },
                false => type_conflict(&entry.spec, spec),
            });
        }
        Ok(entry.lease.upgrade().unwrap_or_else(|| {
            *leases += 1;
            entry.ordinal = *leases;
            let lease = Arc::new(TabLease { number, ordinal: entry.ordinal, owner });
            entry.lease = Arc::downgrade(&lease);
            let leased = LeasedTab { spec: entry.spec.clone(), lease: entry.lease.clone() };
            self.by_name.pin().insert(spec.name().clone(), leased);
            lease
        }))
    }

    /// The Handlers.
    pub(crate) fn handlers(&self) -> &Registry {
        &self.handlers
    }

    /// The Tab with this number. `None` when another thread holds the table at the moment: a thread that records does not wait.
    pub(crate) fn try_spec(&self, number: u32) -> Option<TabSpec> {
        let table = self.table.try_lock().ok()?;
        Some(table.entries.get(number as usize)?.as_ref()?.spec.clone())
    }

    /// Tabs that have got their number since this was last asked.
    pub(crate) fn take_new(&self) -> Vec<(u32, TabSpec)> {
        let Some(mut table) = self.table() else { return Vec::new() };
        let new = mem::take(&mut table.new);
        let entry = |number: u32| Some((number, table.entries[number as usize].as_ref()?.spec.clone()));
        new.into_iter().filter_map(entry).collect()
    }

    /// A Tab has lost its last handle.
    pub(crate) fn release(&self, tab: ReleasedTab) {
        if let Some(mut table) = self.table() {
            table.released.push(tab);
        }
    }

    /// Tabs that have lost their last handle since this was last asked.
    pub(crate) fn take_released(&self) -> Vec<ReleasedTab> {
        self.table().map(|mut table| mem::take(&mut table.released)).unwrap_or_default()
    }

    /// Forgets a Tab, unless it has had a handle since it was released. Its number can then be another's.
    pub(crate) fn forget(&self, released: ReleasedTab) -> bool {
        let Some(mut table) = self.table() else { return false };
        let place = &mut table.entries[released.number as usize];
        let unused =
            |entry: &mut TabEntry| entry.ordinal == released.ordinal && entry.lease.strong_count() == 0;
        let Some(entry) = place.take_if(unused) else { return false };
        table.numbers.remove(entry.spec.name());
        self.by_name.pin().remove(entry.spec.name());
        table.free.push(released.number);
        true
    }

    /// A background task that knows no Tab begins: tells it of all. `false` when the table cannot be used.
    pub(crate) fn begin_again(&self) -> bool {
        let Some(mut table) = self.table() else { return false };
        table.new = table.numbers.values().copied().collect();
        table.released.clear();
        true
    }

    /// `None` when another thread held it while the process forked.
    fn table(&self) -> Option<MutexGuard<'_, TabTable>> {
        lock(&self.table)
    }
}

impl TabTable {
    /// A number for a Tab that has none.
    fn add(&mut self, spec: TabSpec, tabs_max: usize) -> Result<u32, TabError> {
        let tab = spec.name().clone();
        if self.numbers.len() >= tabs_max {
            return Err(TabError::TooManyTabs { tab, tabs_max });
        }
        let entry = Some(TabEntry { spec, lease: Weak::new(), ordinal: 0 });
        let number = self.free.pop().unwrap_or(self.entries.len() as u32);
        match self.entries.get_mut(number as usize) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
        self.numbers.insert(tab, number);
        self.new.push(number);
        Ok(number)
    }

    fn known(&self, tab: &TabName) -> Option<TabSpec> {
        let entry = self.entries[*self.numbers.get(tab)? as usize].as_ref()?;
        Some(entry.spec.clone())
    }
}

fn type_conflict(known: &TabSpec, asked: &TabSpec) -> TabError {
    TabError::TypeConflict {
        tab: asked.name().clone(),
        known: known.tab_type().clone(),
        asked: asked.tab_type().clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    struct Nobody;

    impl TabOwner for Nobody {
        fn release(&self, _: ReleasedTab) {}
    }

    fn spec(name: &str) -> TabSpec {
        TabSpec::new::<f64>(TabName::new(name).unwrap(), TabType::new("CounterGroup").unwrap())
    }

    #[test]
    fn a_tab_with_a_handle_is_found_while_another_thread_holds_the_table() {
        let tabs = Arc::new(Tabs::new(Registry::default(), 10));
        let first = tabs.lease(&spec("bids"), Arc::new(Nobody)).unwrap();
        let held = tabs.table.lock().unwrap();
        let (found, other) = (mpsc::channel(), Arc::clone(&tabs));
        thread::spawn(move || found.0.send(other.lease(&spec("bids"), Arc::new(Nobody)).unwrap()));
        let second = found.1.recv_timeout(Duration::from_secs(10)).expect("it waits for the table");
        drop(held);
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn a_tab_that_was_forgotten_is_not_found() {
        let tabs = Tabs::new(Registry::default(), 1);
        let first = tabs.lease(&spec("bids"), Arc::new(Nobody)).unwrap();
        let released = ReleasedTab { number: first.number(), ordinal: first.ordinal };
        drop(first);
        assert!(tabs.forget(released));
        assert!(tabs.by_name.is_empty());
        assert!(tabs.lease(&spec("wins"), Arc::new(Nobody)).is_ok(), "its place is free");
    }
}
