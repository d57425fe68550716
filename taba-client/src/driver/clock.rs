//! The one file of this crate that reads clocks: [`Clock`], which is cheap and coarse, and [`Stopwatch`], which is not.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use taba_core::Timestamp;

/// How far the coarse clock may lie behind the system's.
pub(crate) const TICK: Duration = Duration::from_millis(5);

static SYSTEM: LazyLock<Clock> = LazyLock::new(|| Clock(Arc::new(AtomicI64::new(system_micros()))));

/// The time of events, as often as you like: one load of a number that a thread of this library sets every 5 ms.
///
/// All Clients share the system's clock. For tests, a [`ManualClock`] gives another.
#[derive(Clone)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    /// The system's clock. It goes while there is a Client.
    pub fn system() -> Self {
        SYSTEM.clone()
    }

    /// The time, up to 5 ms ago.
    #[inline]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }

    /// Reads the system's clock, for all.
    pub(crate) fn tick() {
        SYSTEM.0.store(system_micros(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

/// A clock that goes when it is told to.
///
/// # Examples
/// ```
/// use taba_client::ManualClock;
/// use taba_core::Timestamp;
///
/// let hands = ManualClock::new(Timestamp::from_secs(1));
/// let clock = hands.clock();
/// hands.set(Timestamp::from_secs(2));
/// assert_eq!(clock.now(), Timestamp::from_secs(2));
/// ```
#[derive(Debug)]
pub struct ManualClock(Clock);

impl ManualClock {
    /// A clock that shows `at`.
    pub fn new(at: Timestamp) -> Self {
        Self(Clock(Arc::new(AtomicI64::new(at.as_micros()))))
    }

    /// What a Client is given.
    pub fn clock(&self) -> Clock {
        self.0.clone()
    }

    /// Makes it show `at`.
    pub fn set(&self, at: Timestamp) {
        self.0.0.store(at.as_micros(), Ordering::Relaxed);
    }
}

/// Measures how long something takes, to the nanosecond; about 25 ns at each end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads clocks")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the file that reads clocks")]
fn system_micros() -> i64 {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(before) => -micros(before.duration()),
    }
}
