//! [`ServerState`]: what the Dispatcher knows of one Server.

use std::time::Duration;

use serde::Serialize;
use taba_core::limits::FRAME_BYTES_MAX;

use super::request::Draft;
use crate::health::Health;
use crate::server_url::ServerUrl;

/// Lanes that try out a Server that failed, when another one is in health: should it hang, no more than these wait for
/// it.
pub(super) const TRIAL_BATCHES_MAX: usize = 16;

/// Requests answered after which a Server is sent larger ones again, where one had been too large.
const GROW_AFTER: u64 = 256;
/// No bound below this is believed: it would not take a Probe.
const BYTES_MIN: usize = 512;

/// What the Dispatcher knows of one Server.
#[derive(Debug)]
pub struct ServerState {
    url: ServerUrl,
    health: Health,
    in_flight: usize,
    sent: u64,
    answered: u64,
    failed: u64,
    last_error: Option<String>,
    /// Bytes of a request that it takes, as far as is known; `None` when none was too large.
    bytes_max: Option<usize>,
    /// Requests answered since `bytes_max` last changed.
    answered_since: u64,
}

/// A Server in `/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    /// Where it is.
    pub url: String,
    /// Its share of the VBuckets.
    pub weight: u32,
    /// `up`, `resting` (it failed and is left alone) or `trying`.
    pub health: &'static str,
    /// How often in a row it failed.
    pub failures: u32,
    /// How long it is still left alone, in milliseconds; absent unless it is resting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_ms: Option<u64>,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests sent since the start; sent = answered + failed + in flight.
    pub requests_sent: u64,
    /// Requests answered.
    pub requests_answered: u64,
    /// Requests not answered.
    pub requests_failed: u64,
    /// Bytes of a request that it is sent at most, because it, or a proxy before it, said that more are too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_bytes_max: Option<usize>,
    /// What Lanes wait for that it did not begin, or that are held back; absent when none waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The last error there was, also when it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl ServerState {
    pub(super) fn new(url: ServerUrl) -> Self {
        Self {
            url,
            health: Health::Up,
            in_flight: 0,
            sent: 0,
            answered: 0,
            failed: 0,
            last_error: None,
            bytes_max: None,
            answered_since: 0,
        }
    }

    /// Where it is.
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Whether it may be sent requests.
    pub fn health(&self) -> Health {
        self.health
    }

    /// What is known of it.
    pub fn status(&self, now: Duration) -> ServerStatus {
        ServerStatus {
            url: self.url.url().to_owned(),
            weight: self.url.weight(),
            health: self.health.as_str(),
            failures: self.health.failures(),
            backoff_ms: self.rests_until().map(|until| until.saturating_sub(now).as_millis() as u64),
            in_flight: self.in_flight,
            requests_sent: self.sent,
            requests_answered: self.answered,
            requests_failed: self.failed,
            request_bytes_max: self.bytes_max,
            waits_for: None,
            last_error: self.last_error.clone(),
        }
    }

    pub(super) fn rests_until(&self) -> Option<Duration> {
        match self.health {
            Health::Resting { until, .. } => Some(until),
            Health::Up | Health::Trying { .. } => None,
        }
    }

    /// Whether a Lane may turn to it now. `draft` is the request being put together for it.
    pub(super) fn is_open(&self, now: Duration, is_any_up: bool, draft: Option<&Draft>) -> bool {
        match self.health {
            Health::Up => true,
            Health::Resting { until, .. } => until <= now,
            // The trial is this very draft; with no other Server in health there is no reason to keep it small.
            Health::Trying { .. } => draft.is_some_and(|draft| !is_any_up || draft.len() < TRIAL_BATCHES_MAX),
        }
    }

    /// Takes a slot for one more request, if there is one.
    pub(super) fn take_slot(&mut self, now: Duration, slots: usize) -> bool {
        match self.health {
            Health::Up if self.in_flight >= slots => return false,
            Health::Up => {}
            Health::Resting { until, failures } if until <= now => self.health = Health::Trying { failures },
            Health::Resting { .. } | Health::Trying { .. } => return false,
        }
        self.in_flight += 1;
        self.sent += 1;
        true
    }

    /// Nothing is sent in the slot that was just taken.
    pub(super) fn give_slot_back(&mut self) {
        self.in_flight -= 1;
        self.sent -= 1;
        if let Health::Trying { failures } = self.health {
            self.health = Health::Resting { until: Duration::ZERO, failures };
        }
    }

    pub(super) fn answered(&mut self) {
        self.in_flight -= 1;
        self.answered += 1;
        self.health = Health::Up;
        self.answered_since += 1;
        if self.answered_since >= GROW_AFTER
            && let Some(bytes) = self.bytes_max
        {
            // The bound may have been lifted. If not, one request is split once more.
            let more = bytes + bytes / 4;
            (self.bytes_max, self.answered_since) = (Some(more).filter(|more| *more < FRAME_BYTES_MAX), 0);
        }
    }

    /// It answered that a request of so many bytes is too large.
    pub(super) fn too_large(&mut self, bytes: usize, why: String) {
        self.in_flight -= 1;
        self.failed += 1;
        self.last_error = Some(why);
        self.health = Health::Up;
        let half = (bytes / 2).max(BYTES_MIN);
        (self.bytes_max, self.answered_since) = (Some(self.bytes_max.map_or(half, |max| max.min(half))), 0);
    }

    /// Bytes of a request that it takes, as far as is known.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max.unwrap_or(usize::MAX)
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Requests that were in flight together fail together: only the first of them counts against the Server.
    pub(super) fn failed(&mut self, until: Duration, why: String) {
        self.in_flight -= 1;
        self.failed += 1;
        self.last_error = Some(why);
        self.health = match self.health {
            Health::Up => Health::Resting { until, failures: 1 },
            Health::Trying { failures } => Health::Resting { until, failures: failures.saturating_add(1) },
            resting @ Health::Resting { .. } => resting,
        };
    }
}
