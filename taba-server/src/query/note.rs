//! [`Note`]: the Ledger's counts for one Client; [`Notes`]: for all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use taba_core::{ClientId, Timestamp};
use tokio::sync::Mutex;

use super::fault::StateFault;
use super::missing::MissingPart;

/// The Ledger's counts for one Client, in events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) recorded: u64,
    pub(super) deleted: u64,
    pub(super) clamped: u64,
    /// By (where, why).
    pub(super) dropped: BTreeMap<(String, String), u64>,
}

/// The Ledger's counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    pub(super) clients: BTreeMap<ClientId, Note>,
    /// Notes that could not be read: if any, the counts are too low.
    pub(super) faults: Vec<StateFault>,
    /// VBuckets whose notes could not be read: if any, the counts are too low.
    pub(super) missing: Option<MissingPart>,
}

/// The last notes read, shared by subsequent queries.
#[derive(Default)]
pub(super) struct NotesCache {
    pub(super) recent: Mutex<Option<(Timestamp, Arc<Notes>)>>,
    /// What Clients had too much when their records were waited for in vain.
    excess: std::sync::Mutex<BTreeMap<ClientId, u64>>,
}

impl NotesCache {
    fn believed(&self) -> MutexGuard<'_, BTreeMap<ClientId, u64>> {
        // Replaced as one.
        self.excess.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a Client has more too much than is believed.
    pub(super) fn is_news(&self, excess: &BTreeMap<ClientId, u64>) -> bool {
        let believed = self.believed();
        excess.iter().any(|(client, events)| believed.get(client).is_none_or(|known| events > known))
    }

    /// This was waited for in vain.
    pub(super) fn believe(&self, excess: BTreeMap<ClientId, u64>) {
        *self.believed() = excess;
    }
}

/// Losses in gaps of Lanes have no known Client; they are under ids with this prefix, one per stream.
const STREAM_PREFIX: &str = "taba.stream/";

/// Whether this id is the stream of an Agent.
pub(super) fn is_stream(client: &ClientId) -> bool {
    client.as_str().starts_with(STREAM_PREFIX)
}

impl Note {
    pub(super) fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }
}

impl Notes {
    /// Events of the Client known to be dropped; `None` when some notes could not be read.
    pub(super) fn lost(&self, client: &ClientId) -> Option<u64> {
        self.is_whole().then(|| self.clients.get(client).map_or(0, Note::dropped_total))
    }

    /// Events known to be dropped whose Client is unknown; `None` when some notes could not be read.
    pub(super) fn lost_unattributed(&self) -> Option<u64> {
        let streams = self.clients.iter().filter(|(client, _)| is_stream(client));
        self.is_whole().then(|| streams.map(|(_, note)| note.dropped_total()).sum())
    }

    /// Takes what was deleted from other notes.
    pub(super) fn set_deleted(&mut self, from: &Self) {
        for (client, note) in &mut self.clients {
            note.deleted = from.clients.get(client).map_or(0, |from| from.deleted);
        }
    }

    /// Whether all notes could be read.
    fn is_whole(&self) -> bool {
        self.faults.is_empty() && self.missing.is_none()
    }
}
