//! The only file of this crate that reads clocks and random numbers. Everything else gets a [`ClockReading`].

use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use taba_core::Timestamp;
use tokio::time;

use crate::clock::STEP_MIN;
use crate::relay::ClockReading;

/// Both clocks are read within this time, or the reading says nothing about a step.
const READING_MAX: Duration = Duration::from_millis(100);

/// The machine's clocks, counting from the start of the Agent.
///
/// The wall clock is read at the start, and advanced by the uptime, including sleep of the machine (on Linux). A step
/// of the machine's clock is detected ([`Clock::step`]), and followed only when the Relay decides so.
#[derive(Debug)]
pub(super) struct Clock {
    start: Duration,
    /// The wall time at the start, in microseconds; corrected when it was wrong.
    start_time: AtomicI64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: since_boot(), start_time: AtomicI64::new(time_of_day()) }
    }

    /// Now, on both clocks.
    pub(super) fn now(&self) -> ClockReading {
        let uptime = since_boot().saturating_sub(self.start);
        let start_time = Timestamp::from_micros(self.start_time.load(Ordering::Relaxed));
        ClockReading { uptime, time: start_time.saturating_add(uptime) }
    }

    /// The microseconds by which the machine's clock is ahead of this one, if it was set.
    pub(super) fn step(&self) -> Option<i64> {
        let (here, machine) = (self.now(), time_of_day());
        // This thread, or the machine, may have been paused between two readings.
        let is_one_moment = self.now().uptime.saturating_sub(here.uptime) <= READING_MAX;
        let step = machine.saturating_sub(here.time.as_micros());
        Some(step).filter(|step| is_one_moment && step.unsigned_abs() >= STEP_MIN.as_micros() as u64)
    }

    /// Moves the wall clock.
    pub(super) fn set(&self, step: i64) {
        self.start_time.fetch_add(step, Ordering::Relaxed);
    }

    /// The instant at which the Agent has been running for `uptime`.
    #[expect(clippy::disallowed_methods, reason = "this is the driver's one clock")]
    pub(super) fn at(&self, uptime: Duration) -> time::Instant {
        time::Instant::from_std(Instant::now() + uptime.saturating_sub(self.now().uptime))
    }
}

/// The clock for intervals between log lines.
#[expect(clippy::disallowed_methods, reason = "this is the driver's one clock")]
pub(super) fn monotonic() -> Instant {
    Instant::now()
}

/// Time since the Unix epoch, in microseconds.
#[expect(clippy::disallowed_methods, reason = "this is the driver's one clock")]
fn time_of_day() -> i64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

/// Monotonic time, including sleep of the machine.
#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Monotonic time. Whether it includes sleep depends on the system.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "this is the driver's one clock")]
fn since_boot() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}

/// A random number from the operating system.
///
/// # Errors
/// When there is none; then no stream can be named.
pub(super) fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}
