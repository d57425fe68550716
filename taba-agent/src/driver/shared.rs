//! [`Shared`]: the Relay and what its listener and its pump share.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use taba_core::wire::{BadBlock, ClientBatch, Receipt};
use taba_core::{Registry, Throttle};
use tokio::sync::{Notify, Semaphore, watch};

use super::clock::{Clock, random};
use super::disk::FileDisk;
use super::refusal::Refusal;
use super::{StartError, aside};
use crate::config::{Config, SpoolKind, Verified};
use crate::dispatcher::{Input, Request};
use crate::relay::{Moment, Origin, Relay, Verdict};
use crate::sabotage::{SPOOLED, is_off};
use crate::spool::recovery::Recovered;
use crate::spool::{LogSpool, MemorySpool, Spool, SpoolError, SyncJob, SyncPolicy, Weight};
use crate::status::Status;

/// What goes on is said again after this.
const SAY_AGAIN: Duration = Duration::from_secs(60);

pub(super) struct Shared {
    pub(super) config: Verified<Config>,
    pub(super) clock: Clock,
    /// Bytes of bodies that may still be received at the same time.
    pub(super) bodies: Semaphore,
    /// Tells the pump that there may be something to do.
    pub(super) wake: Notify,
    /// Tells the flusher that something was taken.
    pub(super) taken: Notify,
    /// Tells the syncer that something was written.
    pub(super) written: Notify,
    relay: Mutex<Relay<Box<dyn Spool>>>,
    safety: watch::Sender<Safety>,
    said: Mutex<Throttle<&'static str>>,
}

/// How far the Spool is safe.
#[derive(Clone, Copy, Debug, Default)]
struct Safety {
    /// Up to where it outlives the process.
    written: u64,
    /// Up to where it outlives a power failure.
    durable: u64,
    /// How often the disk did not take what was to be written.
    failures: u64,
    /// A sync failed.
    is_broken: bool,
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
            taken: Notify::new(),
            written: Notify::new(),
            relay: Mutex::new(relay),
            safety: watch::Sender::new(Safety::default()),
            said: Mutex::new(Throttle::new(SAY_AGAIN, 2)),
        })
    }

    /// Takes a client Batch, and waits until it is as safe as was promised.
    ///
    /// # Cancel safety
    /// When dropped, the Batch may have been taken: its Client, which hears nothing, sends it again and is recognised.
    pub(super) async fn accept(&self, batch: &ClientBatch, bad: &[BadBlock]) -> Result<Receipt, Refusal> {
        let mut safety = self.safety.subscribe();
        let failures = safety.borrow_and_update().failures;
        let verdict = {
            let mut relay = self.lock();
            relay.accept(self.clock.now(), batch, bad)
        };
        let (receipt, position) = match verdict {
            Verdict::Taken { receipt, position } => (receipt, position),
            Verdict::Refused(error) => return Err(error.into()),
            Verdict::Stopping => return Err(Refusal::Stopping),
        };
        self.wake.notify_one();
        if self.config.spool == SpoolKind::Memory || is_off(SPOOLED) {
            self.taken.notify_one();
            return Ok(receipt);
        }
        self.taken.notify_one();
        let is_always = self.config.spool_sync == SyncPolicy::Always;
        let is_safe = |safety: &Safety| (if is_always { safety.durable } else { safety.written }) >= position;
        let is_over = |safety: &Safety| is_safe(safety) || safety.failures != failures || safety.is_broken;
        match safety.wait_for(is_over).await.map(|safety| *safety) {
            Ok(safety) if is_safe(&safety) => Ok(receipt),
            Ok(Safety { is_broken: true, .. }) => Err(SpoolError::Broken.into()),
            Ok(_) | Err(_) => Err(Refusal::Unwritten),
        }
    }

    /// Hands what was taken to the disk.
    pub(super) fn flush(&self) {
        let flushed = self.lock().flush();
        if let Err(error) = &flushed {
            tracing::error!(
                error = super::with_causes(error),
                "the spool could not be written; clients keep their batches"
            );
        }
        self.safety.send_modify(|safety| match flushed {
            // Two flushes may be reported in the other order; what was written stays written.
            Ok(position) => safety.written = safety.written.max(position),
            Err(_) => safety.failures += 1,
        });
        self.written.notify_one();
        // Where the Spool is never synced, what was written may be sent.
        if self.config.spool_sync == SyncPolicy::Never {
            self.lock().flushed(self.clock.now());
            self.wake.notify_one();
        }
    }

    /// Writes down where things stand.
    pub(super) fn conclude(&self) {
        self.lock().conclude();
    }

    pub(super) fn sync_job(&self) -> Option<SyncJob> {
        self.lock().sync_job()
    }

    pub(super) fn synced(&self, position: u64, outcome: io::Result<()>) {
        let is_broken = outcome.is_err();
        self.lock().synced(self.clock.now(), position, outcome);
        self.safety.send_modify(|safety| match is_broken {
            true => safety.is_broken = true,
            false => safety.durable = safety.durable.max(position),
        });
        self.wake.notify_one();
    }

    /// Hands one input to the Relay; when it wants to be woken, and whether it is done, is told back.
    pub(super) fn handle(&self, input: Input, requests: &mut Vec<Request>) -> Next {
        let mut relay = self.lock();
        self.follow_clock(&mut relay);
        let (now, expired) = (self.clock.now(), relay.expired());
        relay.handle(now, input, requests);
        self.say(now, &relay, relay.expired() - expired);
        let aside = relay.take_set_aside();
        let is_kept = self.config.spool == SpoolKind::File;
        aside::keep(is_kept.then_some(self.config.spool_dir.as_path()), aside);
        // Copying the log together appends to it.
        self.taken.notify_one();
        match relay.next_wake() {
            _ if relay.is_done() => Next::Done,
            Some(uptime) => Next::At(self.clock.at(uptime)),
            None => Next::Wait,
        }
    }

    /// Goes by the machine's clock again when it was set, unless Servers agree with the time as it is.
    fn follow_clock(&self, relay: &mut Relay<Box<dyn Spool>>) {
        let Some(step) = self.clock.step() else { return };
        let step_s = step / 1_000_000;
        if relay.follows_clock(step) {
            self.clock.set(step);
            relay.set_clock(self.clock.now(), step);
            tracing::warn!(step_s, "the machine's clock was set, and this agent goes by it");
        } else if self.may_say("kept").is_some() {
            tracing::warn!(
                step_s,
                "the machine's clock was set; this agent keeps the time that servers agree with"
            );
        }
    }

    /// Says what waits, and what was given up.
    fn say(&self, now: Moment, relay: &Relay<Box<dyn Spool>>, expired: u64) {
        if let Some(wait) = relay.clock_wait(now)
            && let Some(suppressed) = self.may_say("clocks")
        {
            let waits_for = wait.words();
            tracing::warn!(
                waits_for,
                lanes = wait.lanes,
                suppressed,
                "events wait until the clocks of this agent and its servers agree: set right the one that is wrong"
            );
        }
        if expired > 0 {
            tracing::error!(
                events = expired,
                "events waited for servers for more than a day and were given up: what servers had not stored is lost; \
                 bring servers back within a day, and see the docs if a clock was wrong"
            );
        }
    }

    /// Whether something is said again; how often it was not, since it was said last.
    fn may_say(&self, cause: &'static str) -> Option<u64> {
        let now = self.clock.at(self.clock.now().uptime).into_std();
        self.said.lock().unwrap_or_else(PoisonError::into_inner).admit(cause, now)
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
    let batches: usize = recovered.lanes.values().map(|lane| lane.batches.len()).sum();
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
