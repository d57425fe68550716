//! [`ServerState`]: what the Dispatcher knows of one Server.

use std::time::Duration;

use serde::Serialize;
use taba_core::limits::FRAME_BYTES_MAX;
use xxhash_rust::xxh64::xxh64;

use super::request::Draft;
use super::share::{LaneShare, RETURN_TIME_MAX, threshold};
use crate::health::Health;
use taba_core::ServerUrl;

/// Lanes that try out a Server that failed, when another one is in health: should it hang, no more than these wait for
/// it.
pub(super) const TRIAL_BATCHES_MAX: usize = 16;

/// Requests answered after which a Server is sent larger ones again, where one had been too large.
const GROW_AFTER: u64 = 256;
/// By how much of the difference an answer's time moves the usual one.
const LATENCY_PART: u32 = 8;
/// No bound below this is believed: it would not take a Probe.
const BYTES_MIN: usize = 512;

/// What the Dispatcher knows of one Server.
#[derive(Debug)]
pub struct ServerState {
    url: ServerUrl,
    /// A hash of the URL.
    hash: u64,
    /// Whether new requests may be sent to it: it is one of the Servers.
    is_listed: bool,
    health: Health,
    /// When it failed, unless it has answered since.
    failed_at: Option<Duration>,
    share: LaneShare,
    /// When its share was halved last.
    halved_at: Option<Duration>,
    /// How long it usually takes to answer; `None` before its first answer.
    latency: Option<Duration>,
    /// When each request in flight was sent, the oldest in front.
    in_flight: Vec<Duration>,
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
#[non_exhaustive]
pub struct ServerStatus {
    /// Where it is.
    pub url: String,
    /// Its share of the VBuckets.
    pub weight: u32,
    /// `up`, `resting` (it failed and is left alone), `trying`, or `leaving` (it is no Server of this Agent any more, and
    /// still has requests in flight).
    pub health: &'static str,
    /// Percent of its Lanes that it is given: 100, or less for a while after it was away or slow, or was added.
    pub share_percent: u8,
    /// How long it usually takes to answer, in milliseconds, a commit included; absent before its first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
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
            hash: xxh64(url.url().as_bytes(), 0),
            url,
            is_listed: true,
            health: Health::Up,
            failed_at: None,
            share: LaneShare::FULL,
            halved_at: None,
            latency: None,
            in_flight: Vec::new(),
            sent: 0,
            answered: 0,
            failed: 0,
            last_error: None,
            bytes_max: None,
            answered_since: 0,
        }
    }

    /// One that was added at this moment: it is given its Lanes little by little.
    pub(super) fn added(url: ServerUrl, now: Duration) -> Self {
        Self { share: LaneShare::returned(now, RETURN_TIME_MAX), ..Self::new(url) }
    }

    /// Whether it is one of the Servers, or (again) with this weight.
    pub(super) fn list(&mut self, now: Duration, listed: Option<&ServerUrl>) {
        if let Some(url) = listed {
            if !self.is_listed {
                self.share = LaneShare::returned(now, RETURN_TIME_MAX);
            }
            self.url = url.clone();
        }
        self.is_listed = listed.is_some();
    }

    /// Where it is.
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Whether it is one of the Servers; one that is not any more only answers what it was sent.
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// Whether its place may be another Server's: it is not listed, and has nothing in flight.
    pub(super) fn is_gone(&self) -> bool {
        !self.is_listed && self.in_flight.is_empty()
    }

    /// Which part of its Lanes it is given, from 1/16 to 1.
    pub(super) fn share(&self, now: Duration) -> f64 {
        self.share.level(now)
    }

    /// Whether the Lane of a VBucket is in a part of its Lanes.
    pub(super) fn takes(&self, vbucket: u16, share: f64) -> bool {
        share >= 1.0 || threshold(self.hash, vbucket) < share
    }

    /// How long it usually takes to answer, if it is up.
    pub(super) fn latency(&self) -> Option<Duration> {
        self.latency.filter(|_| self.is_listed && self.health == Health::Up)
    }

    /// Whether it has not answered a request for so long.
    pub(super) fn hangs(&self, now: Duration, slow_after: Duration) -> bool {
        self.oldest_in_flight().is_some_and(|sent_at| now.saturating_sub(sent_at) >= slow_after)
    }

    /// When its oldest request in flight was sent.
    pub(super) fn oldest_in_flight(&self) -> Option<Duration> {
        self.in_flight.first().copied()
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
            health: if self.is_listed { self.health.as_str() } else { "leaving" },
            share_percent: (self.share(now) * 100.0) as u8,
            latency_ms: self.latency.map(|latency| latency.as_millis() as u64),
            failures: self.health.failures(),
            backoff_ms: self.rests_until().map(|until| until.saturating_sub(now).as_millis() as u64),
            in_flight: self.in_flight.len(),
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
            _ if !self.is_listed => false,
            Health::Up => true,
            Health::Resting { until, .. } => until <= now,
            // The trial is this very draft; with no other Server in health there is no reason to keep it small.
            Health::Trying { .. } => draft.is_some_and(|draft| !is_any_up || draft.len() < TRIAL_BATCHES_MAX),
        }
    }

    /// Takes a slot for one more request, if there is one.
    pub(super) fn take_slot(&mut self, now: Duration, slots: usize) -> bool {
        match self.health {
            Health::Up if self.in_flight.len() >= slots => return false,
            Health::Up => {}
            Health::Resting { until, failures } if until <= now => self.health = Health::Trying { failures },
            Health::Resting { .. } | Health::Trying { .. } => return false,
        }
        self.in_flight.push(now);
        self.sent += 1;
        true
    }

    /// Nothing is sent in the slot that was just taken.
    pub(super) fn give_slot_back(&mut self) {
        self.in_flight.pop();
        self.sent -= 1;
        if let Health::Trying { failures } = self.health {
            self.health = Health::Resting { until: Duration::ZERO, failures };
        }
    }

    /// It answered a request. One that took longer than `slow_after` halves its share, once for all that were in flight
    /// with it.
    pub(super) fn answered(&mut self, now: Duration, sent_at: Duration, slow_after: Duration) {
        self.free_slot(sent_at);
        self.answered += 1;
        self.health = Health::Up;
        let taken = now.saturating_sub(sent_at);
        let usual = self.latency.unwrap_or(taken);
        self.latency = Some((usual * (LATENCY_PART - 1) + taken) / LATENCY_PART);
        if let Some(failed_at) = self.failed_at.take() {
            self.share = LaneShare::returned(now, now.saturating_sub(failed_at));
        }
        if taken > slow_after && self.halved_at.is_none_or(|halved_at| sent_at >= halved_at) {
            (self.share, self.halved_at) = (self.share.halved(now), Some(now));
        }
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
    pub(super) fn too_large(&mut self, sent_at: Duration, bytes: usize, why: String) {
        self.free_slot(sent_at);
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
        self.in_flight.len()
    }

    fn free_slot(&mut self, sent_at: Duration) {
        let place = self.in_flight.iter().position(|sent| *sent == sent_at);
        self.in_flight.remove(place.expect("a request in flight holds a slot"));
    }

    /// Requests that were in flight together fail together: only the first of them counts against the Server.
    pub(super) fn failed(&mut self, now: Duration, sent_at: Duration, until: Duration, why: String) {
        self.free_slot(sent_at);
        self.failed += 1;
        self.failed_at.get_or_insert(now);
        self.last_error = Some(why);
        self.health = match self.health {
            Health::Up => Health::Resting { until, failures: 1 },
            Health::Trying { failures } => Health::Resting { until, failures: failures.saturating_add(1) },
            resting @ Health::Resting { .. } => resting,
        };
    }
}
