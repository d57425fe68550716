//! The one file of this crate that reads clocks: [`Clock`], which is cheap and coarse, and [`Stopwatch`], which is not.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use taba_core::Timestamp;

use crate::lock::lock;

/// How far the coarse clock may lie behind the system's.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// How far [`Clock::next`] may run ahead of the clock, in microseconds: less than a Server believes.
const AHEAD_MICROS_MAX: i64 = 1_000_000;

/// The value of a clock that is not being set at the moment. Readers then ask the system.
const STOPPED: i64 = i64::MIN;

static SYSTEM: LazyLock<Clock> = LazyLock::new(|| Clock::showing(STOPPED));

/// The thread that sets the clock, if there is one.
static SETTER: Mutex<Option<Thread>> = Mutex::new(None);

/// From now on this thread sets the clock.
pub(crate) fn is_set_by(thread: &Thread) {
    if let Some(mut setter) = lock(&SETTER) {
        *setter = Some(thread.clone());
    }
}

/// A Client records again after a pause: the clock thread continues.
pub(crate) fn wind_up() {
    if let Some(setter) = lock(&SETTER).as_deref().and_then(Option::as_ref) {
        setter.unpark();
    }
}

/// The time of events, as often as you like: one load of a number that a thread of this library sets every 5 ms.
///
/// All Clients share the system's clock. For tests, a [`ManualClock`] gives another.
#[derive(Clone)]
pub struct Clock {
    // PERF: apart, so that `next` does not evict `now` from the caches of other threads.
    now: Arc<AtomicI64>,
    last: Arc<AtomicI64>,
}

impl Clock {
    fn showing(micros: i64) -> Self {
        Self { now: Arc::new(AtomicI64::new(micros)), last: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    /// The system's clock. While no Client records, its thread sleeps, and each reading asks the system: about 25 ns.
    pub fn system() -> Self {
        SYSTEM.clone()
    }

    /// The time, up to 5 ms ago.
    #[inline]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros())
    }

    #[inline]
    fn micros(&self) -> i64 {
        match self.now.load(Ordering::Relaxed) {
            STOPPED => while_stopped(),
            micros => micros,
        }
    }

    /// The time, at least a microsecond later than any returned before: of two consecutive readings, in one thread or
    /// two, the second is later.
    ///
    /// It runs ahead of the clock by one microsecond per call within one tick, and by 1 s at most; with more than a
    /// million calls a second, for longer than a second, calls within one tick return the same time.
    ///
    /// # Cost
    /// One compare-and-swap on a word that all threads share, some 10 ns.
    pub fn next(&self) -> Timestamp {
        let now = self.micros();
        let later = |last: i64| now.max(last.saturating_add(1).min(now.saturating_add(AHEAD_MICROS_MAX)));
        // Relaxed is enough: changes of one atomic have one order, which happens-before respects.
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(later(last)));
        Timestamp::from_micros(later(last.unwrap_or_else(|last| last)))
    }

    /// Reads the system's clock, for all.
    pub(crate) fn tick() {
        SYSTEM.now.store(system_micros(), Ordering::Relaxed);
    }

    /// The clock is not set until the next tick.
    pub(crate) fn stop() {
        SYSTEM.now.store(STOPPED, Ordering::Relaxed);
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

/// A clock that is set by hand.
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
        Self(Clock::showing(hand(at)))
    }

    /// The clock to give to a Client.
    pub fn clock(&self) -> Clock {
        self.0.clone()
    }

    /// Makes it show `at`.
    pub fn set(&self, at: Timestamp) {
        self.0.now.store(hand(at), Ordering::Relaxed);
    }
}

/// The value of a clock that is set by hand, which is never `STOPPED`.
fn hand(at: Timestamp) -> i64 {
    at.as_micros().max(STOPPED + 1)
}

#[cold]
#[inline(never)]
fn while_stopped() -> i64 {
    system_micros()
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

/// The moment by a clock that never goes back.
#[cfg(feature = "driver")]
#[expect(clippy::disallowed_methods, reason = "this is the file that reads clocks")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is the file that reads clocks")]
fn system_micros() -> i64 {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(before) => -micros(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_next_is_later_until_it_is_a_second_ahead() {
        let hands = ManualClock::new(Timestamp::from_secs(10));
        let clock = hands.clock();
        let micros = |clock: &Clock| clock.next().as_micros();
        assert_eq!([micros(&clock), micros(&clock)], [10_000_000, 10_000_001]);
        hands.set(Timestamp::from_secs(11));
        assert_eq!(micros(&clock), 11_000_000);
        let many: Vec<_> = (0..1_000_000).map(|_| micros(&clock)).collect();
        assert!(many.is_sorted_by(|a, b| a < b));
        assert_eq!([micros(&clock), micros(&clock)], [12_000_000, 12_000_000]);
        // A clock that is set back is followed at once but for that second.
        hands.set(Timestamp::from_secs(5));
        assert_eq!(micros(&clock), 6_000_000);
        assert_eq!(clock.now(), Timestamp::from_secs(5));
    }

    #[test]
    fn no_two_threads_are_given_the_same() {
        let clock = ManualClock::new(Timestamp::from_secs(10)).clock();
        let take = || (0..10_000).map(|_| clock.next()).collect::<Vec<_>>();
        let mut all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        assert!(all.is_sorted_by(|a, b| a < b));
    }
}
