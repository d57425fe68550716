//! [`LossCache`]: what was lost, as it was read last.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use taba_core::{ClientId, Timestamp, VBucket, Version, ledger};
use tokio::sync::Mutex;

use super::fault::StateFault;
use super::missing::MissingPart;

/// Whether this id is the stream of an Agent: losses in gaps of Lanes have no known Client.
pub(super) fn is_stream(client: &ClientId) -> bool {
    client.as_str().starts_with(ledger::STREAM_PREFIX)
}

/// Events known to be lost.
#[derive(Default)]
pub(super) struct Losses {
    /// `None` for a Client with notes that could not be read, or that say more than a number can.
    clients: HashMap<ClientId, Option<u64>>,
    /// Of Clients that are not known.
    unattributed: Option<u64>,
    /// VBuckets whose accounts could not be read.
    pub(super) missing: Option<MissingPart>,
}

impl Losses {
    /// What was dropped in these VBuckets.
    pub(super) fn of_vbuckets(
        vbuckets: &HashMap<VBucket, Arc<VBucketLosses>>,
        missing: Option<MissingPart>,
    ) -> Self {
        let mut clients: BTreeMap<&ClientId, u128> = BTreeMap::new();
        for (client, events) in vbuckets.values().flat_map(|losses| &losses.clients) {
            let sum = clients.entry(client).or_default();
            *sum = sum.saturating_add(*events);
        }
        let exact = |events: u128| u64::try_from(events).ok().filter(|events| *events < u64::MAX);
        let mut clients: HashMap<ClientId, Option<u64>> =
            clients.into_iter().map(|(client, events)| (client.clone(), exact(events))).collect();
        let faults = vbuckets.values().flat_map(|losses| &losses.faults);
        clients.extend(faults.flat_map(|fault| &fault.clients).map(|client| (client.clone(), None)));
        let mut of_streams = clients.iter().filter(|(client, _)| is_stream(client));
        let unattributed = of_streams.try_fold(0_u64, |sum, (_, events)| sum.checked_add((*events)?));
        Self { clients, unattributed, missing }
    }

    /// Events of the Client known to be dropped; `None` when some accounts could not be read, or its own notes are nonsense.
    pub(super) fn of(&self, client: &ClientId) -> Option<u64> {
        if self.missing.is_some() { None } else { self.clients.get(client).copied().unwrap_or(Some(0)) }
    }

    /// Events known to be dropped whose Client is unknown; `None` when some accounts could not be read.
    pub(super) fn unattributed(&self) -> Option<u64> {
        self.unattributed.filter(|_| self.missing.is_none())
    }
}

/// What was lost, as it was read last, shared by subsequent queries.
#[derive(Default)]
pub(super) struct LossCache {
    /// When it was read, and what was found.
    shown: RwLock<Option<(Timestamp, Arc<Losses>)>>,
    /// Held by whoever reads it again.
    pub(super) reading: Arc<Mutex<RecentLosses>>,
}

/// What a reader compares with.
#[derive(Default)]
pub(super) struct RecentLosses {
    pub(super) losses: Arc<Losses>,
    /// What was dropped in VBuckets where anything was.
    pub(super) vbuckets: HashMap<VBucket, Arc<VBucketLosses>>,
}

impl LossCache {
    /// What was read last, and how long ago. Of a clock that stands still or goes back, nothing: it must not keep old ones alive.
    pub(super) fn shown(&self, now: Timestamp) -> Option<(Duration, Arc<Losses>)> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        let (at, losses) = shown.as_ref().filter(|(at, _)| now > *at)?;
        Some((now.since(*at), Arc::clone(losses)))
    }

    /// This was read at that time.
    pub(super) fn show(&self, read_at: Timestamp, losses: Arc<Losses>) {
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Some((read_at, losses));
    }
}

/// What was dropped in a VBucket, by Client.
#[derive(Default)]
pub(super) struct VBucketLosses {
    /// The commit that was the last to change it; `None`: that is not known.
    pub(super) dropped_at: Option<Version>,
    pub(super) clients: Vec<(ClientId, u128)>,
    pub(super) faults: Vec<StateFault>,
}
