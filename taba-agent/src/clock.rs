//! `RunClock`: the wall clock of a run of the Agent; [`StreamClock`]: the clock error of a Stream in the Spool.
//!
//! All ages are measured by the uptime, which cannot be set: when a Batch is too old, when a Stream ends, how long to
//! wait for an answer. The wall clock is needed twice: each request has its time of sending, so that a Server begins
//! no Lane for a message that is hours old; and the next run must know the age of recovered Batches.
//!
//! So the wall clock may be corrected while the Agent runs, without resending: Batches keep their numbers, and later
//! requests have the right time. The Spool keeps the times as written, and each checkpoint has the clock error of
//! each Stream.

use std::time::Duration;

use taba_core::Timestamp;

use crate::units::BATCH_AGE_MAX;
use crate::units::ClockReading;

/// The maximum difference between the clocks of Agent and Server for a Lane to begin, as Servers apply it.
pub const CLOCKS_APART_MAX: Duration = Duration::from_secs(5 * 3600);
/// A smaller difference is no step: both clocks are read one after the other.
pub const STEP_MIN: Duration = Duration::from_secs(2);
/// A Server's statement about the clock is recorded again when it differs by more than this from the last one.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);

/// The clock error of a Stream in microseconds, to be added to its times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamClock {
    /// Measured when the machine's own clock was set.
    pub measured: i64,
    /// The further error according to a Server, while no Server had agreed; 0 if none said so.
    pub told: i64,
}

impl StreamClock {
    /// The age at `now` of what the Stream accepted at `taken_at` by its own clock; negative for the future. A
    /// Server's statement is used only if the Batch could not be sent without it: too old, or in the future.
    pub fn age(self, taken_at: Timestamp, now: Timestamp) -> i64 {
        let by_measure = now.as_micros().saturating_sub(taken_at.as_micros()).saturating_sub(self.measured);
        let as_told = by_measure.saturating_sub(self.told);
        let can_be =
            |age: i64| age.saturating_add(micros(CLOCKS_APART_MAX)) >= 0 && age <= micros(BATCH_AGE_MAX);
        if !can_be(by_measure) && can_be(as_told) { as_told } else { by_measure }
    }
}

/// The wall clock of one run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunClock {
    /// Of the streams of this run: their times are by the clock as it was first read.
    stream: StreamClock,
    /// The measured error when a Server last agreed. A clock that Servers agree with is not given up for a step of
    /// the machine's clock.
    agreed: Option<i64>,
    /// How far the last Server to answer is ahead.
    apart: Option<i64>,
    /// Whether the Spool has yet to record it.
    is_news: bool,
}

impl RunClock {
    /// The clock error of this run's streams.
    pub(crate) const fn stream(&self) -> StreamClock {
        self.stream
    }

    /// The reading by the clock of this run's streams.
    pub(crate) fn as_written(&self, now: ClockReading) -> ClockReading {
        let time = Timestamp::from_micros(now.time.as_micros().saturating_sub(self.stream.measured));
        ClockReading { time, ..now }
    }

    /// Whether to follow the machine's clock, which is ahead by `step` microseconds. After a Server has agreed with
    /// this clock, never by much, even if the last Server to answer agrees with the machine: two wrong clocks that
    /// agree, a Server's and an Agent's, expire recent marks (found by torture).
    pub(crate) fn follows(&self, step: i64) -> bool {
        let is_small = |apart: i64| apart.unsigned_abs() <= micros(CLOCKS_APART_MAX) as u64;
        let is_step = step.unsigned_abs() >= micros(STEP_MIN) as u64;
        let is_near =
            |agreed: i64| is_small(self.stream.measured.saturating_add(step).saturating_sub(agreed));
        is_step && self.agreed.is_none_or(is_near)
    }

    /// The wall clock was set by this many microseconds.
    pub(crate) fn set(&mut self, step: i64) {
        let was_near = self.agreed.is_some_and(|_| step.unsigned_abs() <= micros(CLOCKS_APART_MAX) as u64);
        self.agreed = self.agreed.filter(|_| was_near);
        self.stream = StreamClock { measured: self.stream.measured.saturating_add(step), told: 0 };
        (self.apart, self.is_news) = (None, true);
    }

    /// A Server's answer had its time.
    pub(crate) fn heard(&mut self, ours: Timestamp, theirs: Timestamp) {
        let apart = theirs.as_micros().saturating_sub(ours.as_micros());
        self.apart = Some(apart);
        if apart.unsigned_abs() <= micros(CLOCKS_APART_MAX) as u64 {
            self.agreed = Some(self.stream.measured);
            self.is_news |= std::mem::take(&mut self.stream.told) != 0;
        } else if self.agreed.is_none() && apart.abs_diff(self.stream.told) > micros(TOLD_AGAIN) as u64 {
            (self.stream.told, self.is_news) = (apart, true);
        }
    }

    /// How far the last Server to answer is ahead of this clock, in microseconds.
    pub(crate) const fn apart(&self) -> Option<i64> {
        self.apart
    }

    /// Whether a Server has agreed with this clock.
    pub(crate) const fn is_agreed(&self) -> bool {
        self.agreed.is_some()
    }

    /// Whether there is something to record.
    pub(crate) const fn is_news(&self) -> bool {
        self.is_news
    }

    /// Something else about clocks must be recorded.
    pub(crate) const fn tell(&mut self) {
        self.is_news = true;
    }

    /// It was recorded.
    pub(crate) const fn written(&mut self) {
        self.is_news = false;
    }
}

const fn micros(time: Duration) -> i64 {
    time.as_micros() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const DAY: i64 = 24 * HOUR;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn an_age_is_as_measured_and_as_told_only_where_nothing_else_can_be() {
        let age = |measured, told, taken_at, now| StreamClock { measured, told }.age(at(taken_at), at(now));
        assert_eq!(age(0, 0, DAY, 4 * DAY), 3 * DAY);
        assert_eq!(age(3 * DAY, 0, DAY, 4 * DAY + HOUR), HOUR, "its clock was behind");
        assert_eq!(age(-3 * DAY, 0, 4 * DAY, DAY + HOUR), HOUR, "its clock was ahead");
        assert_eq!(age(0, 3 * DAY, DAY, 4 * DAY + HOUR), HOUR, "it was killed before its clock was set");
        assert_eq!(age(0, -3 * DAY, 4 * DAY, DAY + HOUR), HOUR);
        assert_eq!(age(0, 3 * DAY, DAY, DAY + HOUR), HOUR, "the Server was wrong: this clock still says so");
        assert_eq!(age(0, -3 * DAY, DAY, DAY + HOUR), HOUR);
        assert_eq!(age(0, 3 * DAY, DAY, 9 * DAY), 8 * DAY, "too old by both");
    }

    #[test]
    fn a_clock_that_no_server_agrees_with_follows_the_machine() {
        let mut clock = RunClock::default();
        assert!(!clock.follows(0) && !clock.follows(-HOUR / 3600), "no step");
        assert!(clock.follows(3 * DAY) && clock.follows(-3 * DAY));
        clock.heard(at(0), at(3 * DAY));
        assert_eq!((clock.stream().told, clock.is_news()), (3 * DAY, true));
        clock.written();
        clock.heard(at(HOUR), at(3 * DAY + HOUR));
        assert!(!clock.is_news(), "the same again");
        assert!(clock.follows(3 * DAY));
        clock.set(3 * DAY);
        assert_eq!(clock.stream(), StreamClock { measured: 3 * DAY, told: 0 });
        assert!(clock.is_news() && !clock.is_agreed());
        let now = ClockReading { time: at(9 * DAY), ..ClockReading::default() };
        assert_eq!(clock.as_written(now).time, at(6 * DAY), "what its streams write stays of one clock");
    }

    #[test]
    fn a_server_that_agrees_takes_back_what_another_has_said() {
        let mut clock = RunClock::default();
        clock.heard(at(0), at(HOUR));
        assert!(!clock.is_news(), "nothing was said before");
        let mut clock = RunClock::default();
        clock.heard(at(0), at(3 * DAY));
        clock.written();
        clock.heard(at(0), at(HOUR));
        assert_eq!((clock.stream().told, clock.is_news(), clock.apart()), (0, true, Some(HOUR)));
        clock.heard(at(0), at(HOUR));
        assert!(clock.is_news(), "until it is written");
    }

    #[test]
    fn a_clock_that_a_server_agrees_with_is_kept() {
        let mut clock = RunClock::default();
        clock.heard(at(0), at(HOUR));
        assert!(clock.is_agreed());
        assert!(!clock.follows(3 * DAY) && !clock.follows(-3 * DAY), "the machine's clock is wrong now");
        assert!(clock.follows(2 * HOUR), "a little is no harm");
        clock.set(4 * HOUR);
        assert!(!clock.follows(4 * HOUR), "and not again and again");
        clock.heard(at(0), at(-3 * DAY));
        assert_eq!(clock.stream().told, 0, "one Server agrees: the other is wrong");
        clock.heard(at(0), at(3 * DAY));
        assert!(!clock.follows(3 * DAY), "one Server and the machine are wrong alike");
    }
}
