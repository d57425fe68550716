//! [`BelievedExcess`]: which records were waited for in vain.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use taba_core::ClientId;

/// What Clients had too much when their records were waited for in vain.
#[derive(Default)]
pub(super) struct BelievedExcess(Mutex<BTreeMap<ClientId, u64>>);

impl BelievedExcess {
    fn believed(&self) -> MutexGuard<'_, BTreeMap<ClientId, u64>> {
        // Replaced as one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a Client has more too much than is believed.
    pub(super) fn is_news(&self, excess: &BTreeMap<ClientId, u64>) -> bool {
        let believed = self.believed();
        excess.iter().any(|(client, events)| believed.get(client).is_none_or(|known| events > known))
    }

    /// This was waited for in vain, of these Clients.
    pub(super) fn believe(&self, excess: BTreeMap<ClientId, u64>) {
        *self.believed() = excess;
    }
}
