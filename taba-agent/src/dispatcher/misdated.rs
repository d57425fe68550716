//! Clocks that do not agree: Lanes that a Server does not begin, Lanes that are held back, and asking for the time.

use std::collections::BTreeMap;
use std::time::Duration;

use taba_core::StreamId;
use taba_core::wire::{Ack, Answer};

use super::request::Draft;
use super::{Action, Dispatcher};
use crate::lane::LaneKey;
use crate::units::ClockReading;

/// How long to wait before asking again for the time of a Server.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How long to wait for the Spool to say that a stream may have been sent.
const SPOOL_WAIT_MAX: Duration = Duration::from_secs(2);

/// What is known about clocks.
#[derive(Debug, Default)]
pub(super) struct ClockAgreement {
    /// Whether a Server has agreed with this run's clock.
    pub(super) is_agreed: bool,
    /// The Server that last refused to begin a Lane because of the clocks.
    refused_by: Option<usize>,
    /// Whether a Lane is held back until a Server agrees, or answers.
    pub(super) is_holding: bool,
    /// Streams of which nothing may be sent before the Spool has this position for good: there it says that something
    /// may have been. Before a Server has answered, nobody has asked the Spool to say so, and it is as far as can be.
    withheld: BTreeMap<StreamId, u64>,
    /// The Spool is waited for until then.
    withheld_until: Duration,
    /// Not before then is a Server asked for the time.
    ask_not_before: Duration,
}

impl ClockAgreement {
    /// The Servers are others now.
    pub(super) fn forget_refusal(&mut self) {
        self.refused_by = None;
    }
}

impl Dispatcher {
    /// Whether a Server agrees with this run's clock. Until one does, what an earlier run has left and can be neither
    /// sent nor given up by this clock is held back: one of the two clocks was wrong.
    pub fn set_agreed(&mut self, now: Duration, is_agreed: bool) {
        let is_new = is_agreed && !self.clocks.is_agreed;
        self.clocks.is_agreed = is_agreed;
        if is_new && self.flush_at.is_some() {
            (self.flush_at, self.checked_at) = (Some(now), None);
        }
    }

    /// Nothing of this stream may be sent before a Server has answered.
    pub fn withhold(&mut self, stream: StreamId) {
        self.clocks.withheld.insert(stream, u64::MAX);
    }

    /// A Server has answered: this stream may be sent once the Spool has this position for good. A disk that hangs is not
    /// waited for.
    pub fn withhold_until(&mut self, now: Duration, stream: StreamId, position: u64) {
        self.clocks.withheld.insert(stream, position);
        (self.clocks.is_holding, self.clocks.withheld_until) = (false, now + SPOOL_WAIT_MAX);
    }

    /// Whether streams may be sent once the Spool has some position for good.
    pub fn waits_for_spool(&self) -> bool {
        self.clocks.withheld.values().any(|position| *position < u64::MAX)
    }

    /// When the Spool is not waited for any more.
    pub(super) fn withheld_until(&self) -> Option<Duration> {
        Some(self.clocks.withheld_until).filter(|_| self.waits_for_spool())
    }

    /// These streams may be sent now.
    pub fn stop_withholding(&mut self) {
        self.clocks.withheld.retain(|_, position| *position == u64::MAX);
        self.checked_at = None;
    }

    /// Looks how far the Spool is.
    pub(super) fn check_spool(&mut self, now: Duration, durable: u64) {
        self.clocks.withheld.retain(|_, position| *position > durable);
        if self.withheld_until().is_some_and(|until| until <= now) {
            self.stop_withholding();
        }
    }

    /// Whether nothing of this Lane may be sent now.
    fn is_withheld(&mut self, key: LaneKey, durable: u64) -> bool {
        let Some(position) = self.clocks.withheld.get(&key.stream).copied() else { return false };
        self.clocks.is_holding |= position == u64::MAX;
        // What is in the Spool is not to wait for what comes.
        self.scheduled(key).lane.make_ready(durable);
        true
    }

    /// A request failed that asked for the time only: it is asked again once a Server may be.
    pub(super) fn ask_again(&mut self, now: Duration) {
        let rests = self.servers.iter().map(|server| server.rests_until().unwrap_or(now));
        self.clocks.ask_not_before = rests.min().unwrap_or(now);
    }

    /// The time of day was set: Lanes that rest because a Server did not begin them try again at once.
    pub fn try_misdated_again(&mut self, now: Duration) {
        self.clocks.ask_not_before = now;
        let resting: Vec<LaneKey> =
            self.lanes.iter().filter(|(_, scheduled)| scheduled.is_misdated).map(|(key, _)| *key).collect();
        for key in resting {
            let scheduled = self.scheduled(key);
            scheduled.failures = 0;
            if let super::LaneState::BackingOff(until) = scheduled.place {
                self.timers.remove(&(until, key));
                self.enqueue(now, key);
            }
        }
    }

    /// Whether a Server did not begin this Lane because of the clocks, or did at last.
    pub(super) fn compare_clocks(&mut self, now: Duration, server: usize, key: LaneKey, ack: Option<&Ack>) {
        let scheduled = self.scheduled(key);
        match ack.map(|ack| ack.answer) {
            Some(Answer::Misdated) => {
                scheduled.is_misdated = true;
                self.clocks.refused_by = Some(server);
            }
            Some(Answer::Applied | Answer::Duplicate | Answer::Nak) if scheduled.is_misdated => {
                scheduled.is_misdated = false;
                scheduled.lane.is_begun(now);
            }
            _ => {}
        }
    }

    /// Releases what a Lane has that is too old to be sent; false when the Lane is held back instead.
    pub(super) fn expire(
        &mut self,
        now: Duration,
        key: LaneKey,
        durable: u64,
        actions: &mut Vec<Action>,
    ) -> bool {
        if self.is_withheld(key, durable) {
            return false;
        }
        let is_agreed = self.clocks.is_agreed;
        let scheduled = self.scheduled(key);
        if scheduled.lane.is_misdated(now) && (!is_agreed || scheduled.lane.ahead(now).is_some()) {
            self.clocks.is_holding |= !is_agreed;
            return false;
        }
        // What no Server has ever taken is none the older for it.
        if scheduled.is_misdated && !scheduled.lane.is_recovered() {
            return true;
        }
        let expired = scheduled.lane.expire(now);
        if expired.batches > 0 {
            self.events_held -= expired.events;
            actions.push(Action::Expire(expired));
        }
        true
    }

    /// Lanes that wait because of the clocks, refused or held back, and the Server that refused them last.
    pub fn waiting_for_clocks(&self, now: Duration) -> (usize, Option<usize>) {
        let is_held = |key: &LaneKey, scheduled: &super::ScheduledLane| {
            let is_withheld =
                self.clocks.withheld.contains_key(&key.stream) && scheduled.lane.next().is_some();
            !self.clocks.is_agreed && (is_withheld || scheduled.lane.is_misdated(now))
        };
        let waiting = self
            .lanes
            .iter()
            .filter(|(key, scheduled)| scheduled.is_misdated || is_held(key, scheduled))
            .count();
        (waiting, self.clocks.refused_by.filter(|_| waiting > 0))
    }

    /// When to ask for the time, if that is needed.
    pub(super) fn ask_time_at(&self) -> Option<Duration> {
        let is_needed = self.clocks.is_holding && self.in_flight.is_empty();
        is_needed.then_some(self.clocks.ask_not_before)
    }

    /// Asks a Server for the time, by a request without a message: any answer tells it.
    pub(super) fn ask_time(&mut self, now: ClockReading, actions: &mut Vec<Action>) {
        if self.ask_time_at().is_none_or(|at| at > now.uptime) {
            return;
        }
        self.clocks.ask_not_before = now.uptime + ASK_AGAIN;
        let slots = self.options.requests_per_server_max;
        let is_any_up = self.is_any_up(now.uptime);
        let server = (0..self.servers.len()).find(|place| {
            let server = &mut self.servers[*place];
            server.is_open(now.uptime, is_any_up, None) && server.take_slot(now.uptime, slots)
        });
        if let Some(server) = server {
            self.send(now, server, Some(Draft::default()), actions);
        }
    }
}
