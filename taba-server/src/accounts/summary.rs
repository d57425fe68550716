//! What the States of a VBucket say: the accounts as they must be.

use taba_core::{AnyState, Format, Guarded, Panicked, TabName, Timestamp, ledger};
#[cfg(any(feature = "driver", test))]
use taba_core::{ClientId, StateKey};

#[cfg(any(feature = "driver", test))]
use super::{Entry, Group};

/// Whether this is a Tab of the Ledger's notes.
pub(crate) fn is_note(tab: &TabName) -> bool {
    tab.is_reserved()
        && [ledger::RECORDED, ledger::DROPPED, ledger::DELETED, ledger::CLAMPED].contains(&tab.base())
}

/// The total of a note's State: a number of events. Exact up to 2^53.
pub(crate) fn note_total(handler: &Guarded, state: &AnyState, at: Timestamp) -> Result<u64, Panicked> {
    let projection = handler.project_now(state, at)?;
    let rendered = handler.render(&projection, Format::Summary)?;
    Ok(rendered.get("total").and_then(serde_json::Value::as_f64).unwrap_or(0.0) as u64)
}

/// The accounts of a VBucket, added up from its States.
#[cfg(any(feature = "driver", test))]
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) clients: Group,
}

#[cfg(any(feature = "driver", test))]
impl Summary {
    /// Adds a State of a Tab that is not reserved.
    pub(crate) fn add_state(&mut self, client: ClientId, events: u64) {
        let entry = self.clients.entry(client).or_default();
        entry.states += 1;
        entry.events += u128::from(events);
    }

    /// Adds a note.
    pub(crate) fn add_note(&mut self, key: StateKey, events: u64) {
        if events > 0 {
            self.clients.entry(key.client).or_default().notes.insert(key.tab, events.into());
        }
    }

    /// The sum of the accounts.
    pub(crate) fn totals(&self) -> Entry {
        let mut totals = Entry::default();
        self.clients.values().for_each(|entry| totals.add(entry));
        totals
    }
}
