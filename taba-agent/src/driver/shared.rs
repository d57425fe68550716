//! [`Shared`]: the Relay and what its listener and its pump share.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use taba_core::Registry;
use taba_core::wire::{BadBlock, ClientBatch};
use tokio::sync::{Notify, Semaphore, watch};

use super::StartError;
use super::clock::{Clock, random};
use super::disk::FileDisk;
use crate::config::{Config, SpoolKind, Verified};
use crate::dispatcher::{Input, Request};
use crate::relay::{Origin, Relay, Verdict};
use crate::spool::recovery::Recovered;
use crate::spool::{LogSpool, MemorySpool, Spool, SpoolError, SyncJob, SyncPolicy, Weight};
use crate::status::Status;

pub(super) struct Shared {
    pub(super) config: Verified<Config>,
    pub(super) clock: Clock,
    /// Bytes of bodies that may still be received at the same time.
    pub(super) bodies: Semaphore,
    /// Tells the pump that there may be something to do.
    pub(super) wake: Notify,
    /// Tells the syncer that something was written.
    pub(super) written: Notify,
    relay: Mutex<Relay<Box<dyn Spool>>>,
    /// Up to where the Spool is durable; `None` when a sync failed.
    durable: watch::Sender<Option<u64>>,
}

impl Shared {
    pub(super) fn new(config: Verified<Config>, handlers: Registry) -> Result<Self, StartError> {
        let (spool, recovered) = open(&config)?;
        let clock = Clock::start();
        let origin = Origin { now: clock.now(), seed: random()?, recovered, handlers };
        let relay = Relay::new(&config, spool, origin);
        let bodies = Semaphore::new(config.bodies_bytes_max);
        Ok(Self {
            config,
            clock,
            bodies,
            wake: Notify::new(),
            written: Notify::new(),
            relay: Mutex::new(relay),
            durable: watch::Sender::new(Some(0)),
        })
    }

    pub(super) fn accept(&self, batch: &ClientBatch, bad: &[BadBlock]) -> Verdict {
        let verdict = {
            let mut relay = self.lock();
            relay.accept(self.clock.now(), batch, bad)
        };
        self.wake.notify_one();
        self.written.notify_one();
        verdict
    }

    /// Waits until what was written up to there outlives a power failure, if that was promised.
    pub(super) async fn until_durable(&self, position: u64) -> Result<(), SpoolError> {
        if self.config.spool == SpoolKind::Memory || self.config.spool_sync != SyncPolicy::Always {
            return Ok(());
        }
        let mut durable = self.durable.subscribe();
        let reached = durable.wait_for(|durable| durable.is_none_or(|durable| durable >= position)).await;
        match reached.map(|durable| *durable) {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => Err(SpoolError::Broken),
        }
    }

    pub(super) fn sync_job(&self) -> Option<SyncJob> {
        self.lock().sync_job()
    }

    pub(super) fn synced(&self, position: u64, outcome: io::Result<()>) {
        let durable = outcome.as_ref().ok().map(|()| position);
        self.lock().synced(self.clock.now(), position, outcome);
        self.durable.send_replace(durable);
        self.wake.notify_one();
    }

    /// Hands one input to the Relay; when it wants to be woken, and whether it is done, is told back.
    pub(super) fn handle(&self, input: Input, requests: &mut Vec<Request>) -> Next {
        let mut relay = self.lock();
        relay.handle(self.clock.now(), input, requests);
        // Copying the log together writes to it.
        self.written.notify_one();
        match relay.next_wake() {
            _ if relay.is_done() => Next::Done,
            Some(uptime) => Next::At(self.clock.at(uptime)),
            None => Next::Wait,
        }
    }

    /// Takes nothing any more.
    pub(super) fn stop(&self) {
        self.lock().stop(self.clock.now());
        self.wake.notify_one();
    }

    pub(super) fn status(&self) -> Status {
        self.lock().status(self.clock.now())
    }

    pub(super) fn unapplied(&self) -> Weight {
        self.lock().unapplied()
    }

    /// The clock is read under the lock, so that the Relay never sees it go back. A panic in the Relay is a bug that
    /// may have left it half changed, but never with a Batch counted twice: going on is better than losing all of it.
    fn lock(&self) -> MutexGuard<'_, Relay<Box<dyn Spool>>> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the Spool that is asked for, and says what an earlier run has left in it.
fn open(config: &Verified<Config>) -> Result<(Box<dyn Spool>, Recovered), StartError> {
    if config.spool == SpoolKind::Memory {
        return Ok((Box::new(MemorySpool::new(config.spool_bytes_max)), Recovered::default()));
    }
    let path = &config.spool_dir;
    let disk = FileDisk::open(path)?;
    let opened = LogSpool::open(disk, config.log_options());
    let (spool, recovered) = opened.map_err(|source| StartError::Spool { path: path.clone(), source })?;
    let batches: usize = recovered.lanes.values().map(Vec::len).sum();
    tracing::info!(spool_dir = %path.display(), lanes = recovered.lanes.len(), batches, "spool opened");
    let damage = recovered.damage;
    if damage.stretches > 0 {
        tracing::error!(
            stretches = damage.stretches,
            bytes = damage.bytes,
            events = damage.events,
            "the spool is damaged; what could be read is kept, what is known to be lost is told to the ledger"
        );
    }
    Ok((Box::new(spool), recovered))
}

/// What the Relay waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    /// This moment, or anything else before.
    At(tokio::time::Instant),
    /// An answer, or a client Batch.
    Wait,
    /// Nothing: it was stopped, and all is stored.
    Done,
}
