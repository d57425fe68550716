//! Accepts input from Clients and front-ends, and waits until it has the promised safety.

use std::sync::atomic::Ordering;
use std::time::Duration;

use taba_core::Timestamp;
use taba_core::wire::{BadBlock, ClientBatch, Receipt};
use tokio::time::timeout;

use super::refusal::RequestRefusal;
use super::shared::{Shared, SpoolProgress};
use crate::frontend::FrontBatch;
use crate::relay::{AcceptOutcome, ClockReading, RecordOutcome, Relay};
use crate::sabotage::{SPOOLED, is_off};
use crate::spool::{Spool, SpoolError, SyncPolicy};

/// How long a Client waits for the disk; then it is asked to repeat its Batch.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// How far ahead of the clock generated times may be, in microseconds.
const RISING_MICROS_MAX: i64 = 1_000_000;

impl Shared {
    /// Accepts a client Batch, and waits until it has the promised safety.
    ///
    /// # Cancel safety
    /// When dropped, the Batch may have been accepted: its Client repeats it and is recognised.
    pub(super) async fn accept(
        &self,
        batch: &ClientBatch,
        bad: &[BadBlock],
    ) -> Result<Receipt, RequestRefusal> {
        self.take(|relay, now| match relay.accept(now, batch, bad) {
            AcceptOutcome::Taken { receipt, position } => Ok((receipt, position)),
            AcceptOutcome::Refused(error) => Err(error.into()),
            AcceptOutcome::Stopping => Err(RequestRefusal::Stopping),
        })
        .await
    }

    /// The first of `count` unused times, a microsecond apart, for lines without a time.
    pub(super) fn rising_times(&self, count: usize) -> Timestamp {
        let now = self.clock.now().time.as_micros();
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        // No other memory depends on it; and the count of lines is bounded, so this is never far ahead of the clock.
        let update = |free: i64| Some(first_free(free, now).saturating_add(count));
        let before = self.record_clock.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        Timestamp::from_micros(first_free(before.unwrap_or(now), now))
    }

    /// Accepts the Batches of a front-end's request, and waits as [`accept`](Self::accept) does. Returns whether all
    /// had been accepted before.
    pub(super) async fn record(
        &self,
        batches: Vec<FrontBatch>,
        key: Option<&str>,
    ) -> Result<bool, RequestRefusal> {
        self.take(|relay, now| match relay.record(now, batches, key) {
            RecordOutcome::Taken { position, is_repeated } => Ok((is_repeated, position)),
            RecordOutcome::Refused(error) => Err(error.into()),
            RecordOutcome::Stopping => Err(RequestRefusal::Stopping),
        })
        .await
    }

    /// Passes input to the Relay, and waits until it has the promised safety.
    async fn take<T>(
        &self,
        take: impl FnOnce(&mut Relay<Box<dyn Spool>>, ClockReading) -> Result<(T, u64), RequestRefusal>,
    ) -> Result<T, RequestRefusal> {
        if self.failure.borrow().is_some() {
            return Err(RequestRefusal::Failed);
        }
        // The disk is closed, and nothing is sent to Servers any more.
        if self.is_closing.load(Ordering::Acquire) {
            return Err(RequestRefusal::Stopping);
        }
        let mut safety = self.safety.subscribe();
        let failures = safety.borrow_and_update().failures;
        let taken = self.with(take)?;
        self.hint();
        let (answer, position) = taken?;
        if self.is_memory() || is_off(SPOOLED) {
            return Ok(answer);
        }
        let is_always = self.options.log.sync == SyncPolicy::Always;
        let is_safe =
            |safety: &SpoolProgress| (if is_always { safety.durable } else { safety.written }) >= position;
        let is_over =
            |safety: &SpoolProgress| is_safe(safety) || safety.failures != failures || safety.is_broken;
        match timeout(ANSWER_WAIT, safety.wait_for(is_over)).await {
            Ok(Ok(safety)) if is_safe(&safety) => Ok(answer),
            Ok(Ok(safety)) if safety.is_broken => Err(SpoolError::Broken.into()),
            Ok(_) | Err(_) => Err(RequestRefusal::Unwritten),
        }
    }
}

/// The first unused time: now, or after those used. After a clock was set back, used times do not matter.
const fn first_free(free: i64, now: i64) -> i64 {
    if free > now && free.saturating_sub(now) < RISING_MICROS_MAX { free } else { now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_are_given_away_rise_and_follow_a_clock_that_is_set_back() {
        assert_eq!(first_free(i64::MIN, 5), 5);
        assert_eq!(first_free(9, 5), 9);
        assert_eq!(first_free(5, 9), 9);
        assert_eq!(first_free(5 + RISING_MICROS_MAX, 5), 5, "the clock was set back");
    }
}
