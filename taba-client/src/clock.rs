//! The one file of this crate that reads clocks: [`Clock`], which is cheap and coarse, and [`Stopwatch`], which is not.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use taba_core::Timestamp;

/// How far [`Clock::next`] may run ahead of the clock, in microseconds: less than a Server believes.
const AHEAD_MICROS_MAX: i64 = 1_000_000;

static SYSTEM: LazyLock<Clock> = LazyLock::new(|| Clock::of(None));

/// The time of events: the system's, up to one tick of its kernel behind (4 ms on most machines with Linux, at most
/// 10 ms), and never further, however busy the machine is.
///
/// All Clients share the system's clock. For tests, a [`ManualClock`] gives another.
///
/// # Cost
/// About 5 ns on Linux and Android with 64 bits. Elsewhere the exact time is read, about 25 ns.
#[derive(Clone)]
pub struct Clock {
    /// What a clock that is set by hand shows; `None` for the system's.
    hands: Option<Arc<AtomicI64>>,
    last: Arc<AtomicI64>,
}

impl Clock {
    fn of(hands: Option<Arc<AtomicI64>>) -> Self {
        Self { hands, last: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    /// The system's clock.
    pub fn system() -> Self {
        SYSTEM.clone()
    }

    /// The time, up to one tick of the system ago.
    #[inline]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros())
    }

    #[inline]
    fn micros(&self) -> i64 {
        match &self.hands {
            None => coarse_micros(),
            Some(hands) => hands.load(Ordering::Relaxed),
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
pub struct ManualClock {
    clock: Clock,
    hands: Arc<AtomicI64>,
}

impl ManualClock {
    /// A clock that shows `at`.
    pub fn new(at: Timestamp) -> Self {
        let hands = Arc::new(AtomicI64::new(at.as_micros()));
        Self { clock: Clock::of(Some(Arc::clone(&hands))), hands }
    }

    /// The clock to give to a Client.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Makes it show `at`.
    pub fn set(&self, at: Timestamp) {
        self.hands.store(at.as_micros(), Ordering::Relaxed);
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

/// The moment by a clock that never goes back.
#[cfg(feature = "driver")]
#[expect(clippy::disallowed_methods, reason = "this is the file that reads clocks")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// Microseconds since the Unix epoch as of the last tick of the kernel.
#[cfg(all(any(target_os = "linux", target_os = "android"), target_pointer_width = "64"))]
#[expect(unsafe_code, reason = "std has no coarse clock, and rustix takes half as long again to read it")]
#[inline]
fn coarse_micros() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` of this frame, which is all that the function writes to.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut time) };
    if read != 0 {
        return system_micros();
    }
    // PERF: the fraction is less than a second, and 32 bits are divided in half the time.
    time.tv_sec.wrapping_mul(1_000_000) + i64::from(time.tv_nsec as u32 / 1000)
}

/// Microseconds since the Unix epoch.
#[cfg(not(all(any(target_os = "linux", target_os = "android"), target_pointer_width = "64")))]
fn coarse_micros() -> i64 {
    system_micros()
}

#[cold]
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

    #[test]
    fn the_coarse_clock_is_at_most_a_tick_behind_the_systems() {
        // Busy threads, more than the machine has processors: nobody has to run for the clock to be right. The time between
        // two readings is not the clock's, so the closest of some is taken.
        let busy = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            let work = || {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            for _ in 0..8 {
                scope.spawn(work);
            }
            for _ in 0..20 {
                let behind = || {
                    let (before, shown) = (system_micros(), coarse_micros());
                    assert!(shown <= system_micros());
                    before - shown
                };
                let closest = (0..100).map(|_| behind()).min();
                assert!(closest <= Some(10_000), "{closest:?} microseconds behind");
            }
            busy.store(false, Ordering::Relaxed);
        });
    }
}
