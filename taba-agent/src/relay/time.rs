//! The wall clock of this run: follows the machine's clock when it is set, and reports what waits for clocks.

use std::collections::BTreeMap;
use std::time::Duration;

use taba_core::StreamId;
use taba_core::wire::Answer;

use super::room::ROOM_PAUSE;
use super::{ClockReading, Input, Relay};
use crate::clock::{CLOCKS_APART_MAX, StreamClock};
use crate::dispatcher::ServerStatus;
use crate::spool::Spool;

/// Lanes that wait until clocks agree.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClockWait {
    /// Their number.
    pub lanes: usize,
    /// The Server that did not begin some of them; `None` when all are held back here.
    pub server: Option<String>,
    /// The microseconds by which the last Server to answer is ahead of this Agent, if known.
    pub ahead: Option<i64>,
}

impl ClockWait {
    /// The reason, for people.
    pub fn words(&self) -> String {
        let server = self.server.as_deref().map(|url| format!(" at {url}")).unwrap_or_default();
        let apart = |ahead: i64| rough(Duration::from_micros(ahead.unsigned_abs()));
        let is_far = |ahead: &i64| ahead.unsigned_abs() > CLOCKS_APART_MAX.as_micros() as u64;
        match self.ahead.filter(is_far) {
            Some(ahead) if ahead > 0 => {
                format!("clock: this agent is {} behind the server{server}", apart(ahead))
            }
            Some(ahead) => format!("clock: this agent is {} ahead of the server{server}", apart(ahead)),
            None => format!("clock: this agent's does not agree with that of the server{server}"),
        }
    }
}

impl<S: Spool> Relay<S> {
    /// Whether to follow the machine's clock, which was set ahead of [`ClockReading::time`] by `step` microseconds.
    /// Not while Servers agree with the current time.
    pub fn follows_clock(&self, step: i64) -> bool {
        self.clock.follows(step)
    }

    /// Moves [`ClockReading::time`] by `step` microseconds. Batches of this run keep their age; those of earlier runs
    /// are dated by the new clock. Call [`Relay::handle`] afterwards.
    pub fn set_clock(&mut self, now: ClockReading, step: i64) {
        self.clock.set(step);
        self.dispatcher.set_agreed(now.uptime, self.clock.is_agreed());
        self.dispatcher.all().for_each(|lane| lane.recompute_ages(now, 0));
        if self.clock.is_agreed() {
            // A step of hours may invalidate what a Server said about an earlier run.
            self.date_back(now);
        }
        self.dispatcher.try_misdated_again(now.uptime);
    }

    /// The Lanes that wait for clocks to agree, if any.
    pub fn clock_wait(&self, now: ClockReading) -> Option<ClockWait> {
        let (lanes, server) = self.dispatcher.waiting_for_clocks(now.uptime);
        let url = |place: usize| self.dispatcher.servers()[place].url().url().to_owned();
        let ahead = self.clock.apart();
        // Before any Server has answered they wait for Servers.
        let is_known = lanes > 0 && (server.is_some() || ahead.is_some());
        is_known.then(|| ClockWait { lanes, server: server.map(url), ahead })
    }

    /// Events that became too old to be sent since the start.
    pub fn expired(&self) -> u64 {
        self.spool_counts.expired
    }

    /// Reads the time in an answer.
    pub(super) fn hear_time(&mut self, now: ClockReading, input: &Input) {
        let Input::Answered { server_time, acks, .. } = input else { return };
        let was_agreed = self.clock.is_agreed();
        match server_time {
            Some(theirs) => self.clock.heard(now.time, *theirs),
            // A proxy has removed it. An answer without a refusal counts as agreement.
            None if acks.iter().all(|ack| ack.answer != Answer::Misdated) => {
                self.clock.heard(now.time, now.time);
            }
            None => {}
        }
        if self.clock.is_agreed() && !was_agreed {
            self.date_back(now);
        }
        self.dispatcher.set_agreed(now.uptime, self.clock.is_agreed());
    }

    /// A Server agrees with this clock. So recovered Batches from the future were written by a clock that was ahead:
    /// they count as taken now, which is recorded before any of them ages.
    fn date_back(&mut self, now: ClockReading) {
        let mut ahead: BTreeMap<StreamId, i64> = BTreeMap::new();
        for lane in self.dispatcher.all().filter(|lane| lane.is_recovered()) {
            if let Some(by) = lane.ahead(now.uptime) {
                let most = ahead.entry(lane.key().stream).or_default();
                *most = by.max(*most);
            }
        }
        for lane in self.dispatcher.all() {
            if let Some(by) = ahead.get(&lane.key().stream) {
                lane.recompute_ages(now, *by);
            }
        }
        if !ahead.is_empty() {
            self.clock.tell();
        }
    }

    /// Records clock errors in the Spool, in a new segment.
    pub(super) fn write_clock(&mut self, now: Duration) {
        if self.clock.is_news() && self.room_tried.is_none_or(|tried| now >= tried + ROOM_PAUSE) {
            self.room_tried = self.begin_segment().err().map(|_| now);
        }
    }

    /// The clock error of this stream.
    pub(super) fn stream_clock(&mut self, stream: StreamId) -> StreamClock {
        let found = self.dispatcher.all().find(|lane| lane.key().stream == stream);
        found.and_then(|lane| lane.found_clock()).unwrap_or(self.clock.stream())
    }

    /// The clock errors of streams with Lanes.
    pub(super) fn stream_clocks(&mut self) -> Vec<(StreamId, StreamClock)> {
        let mine = self.clock.stream();
        let clocks =
            self.dispatcher.all().map(|lane| (lane.key().stream, lane.found_clock().unwrap_or(mine)));
        let mut clocks: BTreeMap<_, _> = clocks.collect();
        clocks.insert(self.stream, mine);
        clocks.into_iter().filter(|(_, clock)| *clock != StreamClock::default()).collect()
    }

    pub(super) fn server_status(&self, now: ClockReading) -> Vec<ServerStatus> {
        let mut servers: Vec<_> =
            self.dispatcher.servers().iter().map(|server| server.status(now.uptime)).collect();
        for (place, server) in servers.iter_mut().enumerate() {
            let lanes = self.dispatcher.lanes_too_new_for(place);
            if lanes > 0 {
                let words =
                    format!("its upgrade: {lanes} lanes hold states of a newer version than it reads");
                server.waits_for = Some(words);
            }
        }
        if let Some(wait) = self.clock_wait(now) {
            let words = wait.words();
            let is_it =
                |server: &&mut ServerStatus| wait.server.as_ref().is_none_or(|url| *url == server.url);
            servers.iter_mut().filter(is_it).for_each(|server| server.waits_for = Some(words.clone()));
        }
        // The places of those that left, until others take them.
        servers.retain(|server| server.health != "leaving" || server.in_flight > 0);
        servers
    }
}

/// A duration in its largest unit, rounded.
fn rough(time: Duration) -> String {
    match time.as_secs() {
        secs if secs >= 48 * 3600 => format!("{}d", (secs + 12 * 3600) / (24 * 3600)),
        secs if secs >= 2 * 3600 => format!("{}h", (secs + 1800) / 3600),
        secs => format!("{}min", secs / 60),
    }
}
