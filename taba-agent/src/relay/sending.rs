//! Tracks since when a stream may have been sent: unsent Batches do not age.
//!
//! A Batch ages because a Server that has it keeps its mark for 48 h only; one that no Server can have does not. So
//! before the first Batch of a stream is sent, the head of a new segment records it, and must be on the disk. That
//! waits until a Server has answered and agrees with the clock; until then, whatever this run's clock says, and
//! however often it is killed, the next run knows that nothing of the stream was sent.

use std::collections::BTreeSet;
use std::time::Duration;

use taba_core::{StreamId, Timestamp};

use super::{ClockReading, Input, Relay};
use crate::dispatcher::FailureCause;
use crate::lane::Lane;
use crate::spool::Spool;
use crate::spool::recovery::{Recovered, Sending};

/// After this long without an answer, new Batches go to a new, unsent stream.
const OUTAGE: Duration = Duration::from_secs(60);

impl<S: Spool> Relay<S> {
    /// Loads what an earlier run has recorded about its streams.
    pub(super) fn recover_sendings(&mut self, found: &Recovered) {
        for (key, lane) in &found.lanes {
            if lane.sending != Sending::Unknown {
                self.sendings.insert(key.stream, lane.sending);
            }
            if lane.sending == Sending::Never {
                self.dispatcher.withhold(key.stream);
            }
        }
    }

    /// New Batches go to a new stream from now on.
    pub(super) fn begin_stream(&mut self, now: Duration) {
        (self.stream, self.stream_began) = (StreamId(self.streams.number()), now);
        self.dispatcher.set_stream(self.stream);
        self.sends_nothing();
        // Records it in the Spool.
        let _ = self.begin_segment();
    }

    /// Nothing of the current stream was sent.
    pub(super) fn sends_nothing(&mut self) {
        self.sendings.insert(self.stream, Sending::Never);
        // A Spool in memory has no later run.
        if self.spool.keeps_content() {
            self.dispatcher.withhold(self.stream);
        }
    }

    /// Watches whether Servers answer. When one does that agrees with the clock, all streams may be sent once that is
    /// recorded.
    pub(super) fn note_sending(&mut self, now: ClockReading, input: &Input) {
        match input {
            Input::Answered { .. } => {
                self.answered = now.uptime;
                self.begin_sending(now);
            }
            Input::Failed {
                cause: FailureCause::Unreached | FailureCause::Away | FailureCause::Broken,
                ..
            } => {
                self.failed |= now.uptime.saturating_sub(self.answered) >= OUTAGE;
            }
            Input::Failed { .. } | Input::Tick | Input::NewServer => {}
        }
        // A faulty disk may recover only after something was sent, and a hanging one must not block sending. If this
        // run is then killed and its Spool lies for days, the next run knows less than it should.
        if self.dispatcher.waits_for_spool() && self.spool.usage().fault.is_some() {
            self.dispatcher.stop_withholding();
        }
    }

    /// After a while without an answer, new and certainly unsent Batches move to a new stream, in which they do not
    /// age, in the next run neither.
    pub(super) fn leave_begun_stream(&mut self, now: ClockReading) {
        if !std::mem::take(&mut self.failed) {
            return;
        }
        if self.sendings.get(&self.stream) != Some(&Sending::Never) {
            self.begin_stream(now.uptime);
        }
        let current = self.stream;
        let is_left = |lane: &&mut Lane| {
            !lane.is_recovered() && lane.key().stream != current && lane.first_unsent() < lane.end()
        };
        let left: Vec<_> =
            self.dispatcher.all().filter(is_left).map(|lane| (lane.key(), lane.first_unsent())).collect();
        for (key, from) in left {
            let blocks = self.dispatcher.get(key).and_then(|lane| lane.rest(from));
            if let Some(blocks) = blocks {
                self.move_rest(now, key, from, &blocks);
            }
        }
    }

    fn begin_sending(&mut self, now: ClockReading) {
        let is_never = |(_, sending): &(&StreamId, &Sending)| **sending == Sending::Never;
        let new: Vec<StreamId> = self.sendings.iter().filter(is_never).map(|(stream, _)| *stream).collect();
        if new.is_empty() || !self.clock.is_agreed() {
            return;
        }
        for stream in &new {
            let off = self.stream_clock(*stream).measured;
            let time = Timestamp::from_micros(now.time.as_micros().saturating_sub(off));
            self.sendings.insert(*stream, Sending::Since(time));
        }
        if self.begin_segment().is_ok() {
            let position = self.spool.position();
            let withhold = |stream: &StreamId| self.dispatcher.withhold_until(now.uptime, *stream, position);
            new.iter().for_each(withhold);
        } else {
            // This is tried again with the next answer.
            self.sendings.extend(new.into_iter().map(|stream| (stream, Sending::Never)));
        }
    }

    /// The entries of a checkpoint for the streams with Lanes.
    pub(super) fn written_sendings(&mut self) -> Vec<(StreamId, Option<Timestamp>)> {
        let mut streams: BTreeSet<StreamId> = self.dispatcher.all().map(|lane| lane.key().stream).collect();
        streams.insert(self.stream);
        self.sendings.retain(|stream, _| streams.contains(stream));
        let written = self.sendings.iter().filter_map(|(stream, sending)| match sending {
            Sending::Unknown => None,
            Sending::Never => Some((*stream, None)),
            Sending::Since(time) => Some((*stream, Some(*time))),
        });
        written.collect()
    }
}
