//! [`Shared`]: the Relay and what its listener and its pump share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use taba_core::StreamId;
use taba_core::wire::{BadBlock, ClientBatch};
use tokio::sync::{Notify, Semaphore};

use super::clock::{Clock, random};
use crate::config::{Config, Verified};
use crate::dispatcher::{Input, Request};
use crate::relay::{Relay, Verdict};
use crate::spool::{MemorySpool, Spool, Weight};
use crate::status::Status;

pub(super) struct Shared {
    pub(super) config: Verified<Config>,
    pub(super) clock: Clock,
    /// Bytes of bodies that may still be received at the same time.
    pub(super) bodies: Semaphore,
    /// Tells the pump that there may be something to do.
    pub(super) wake: Notify,
    relay: Mutex<Relay>,
}

impl Shared {
    pub(super) fn new(config: Verified<Config>) -> Result<Self, getrandom::Error> {
        let spool = MemorySpool::new(config.spool_bytes_max);
        let relay = Relay::new(&config, spool, StreamId(random()?), random()?);
        let bodies = Semaphore::new(config.bodies_bytes_max);
        Ok(Self { config, clock: Clock::start(), bodies, wake: Notify::new(), relay: Mutex::new(relay) })
    }

    pub(super) fn accept(&self, batch: &ClientBatch, bad: &[BadBlock]) -> Verdict {
        let verdict = {
            let mut relay = self.lock();
            relay.accept(self.clock.now(), batch, bad)
        };
        self.wake.notify_one();
        verdict
    }

    /// Hands one input to the Relay; when it wants to be woken, and whether it is done, is told back.
    pub(super) fn handle(&self, input: Input, requests: &mut Vec<Request>) -> Next {
        let mut relay = self.lock();
        relay.handle(self.clock.now(), input, requests);
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

    pub(super) fn held(&self) -> Weight {
        self.lock().spool().tally().held
    }

    /// The clock is read under the lock, so that the Relay never sees it go back. A panic in the Relay is a bug that
    /// may have left it half changed, but never with a Batch counted twice: going on is better than losing all of it.
    fn lock(&self) -> MutexGuard<'_, Relay> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
