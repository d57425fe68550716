//! What things cost. Each figure is the median of several rounds, printed with its spread; compare figures of one run
//! only, since machines differ and share their cores with others.

pub mod growth;
pub mod load;
pub mod processes;
pub mod simulate;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use taba_tests::redis::Redis;

/// Counts allocations, and the bytes that are allocated; a bench that wants to know installs it as its global allocator.
#[derive(Debug)]
pub struct CountingAllocator;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system allocator as it came; only counters are touched beside it.
#[expect(unsafe_code, reason = "an allocator can only be written so")]
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        ALLOCATED_BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED_BYTES.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        ALLOCATED_BYTES.fetch_add((size as u64).wrapping_sub(layout.size() as u64), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Allocations so far, of all threads; 0 for ever without [`CountingAllocator`].
pub fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Bytes that are allocated now, by all threads, without what the allocator itself needs; 0 for ever without
/// [`CountingAllocator`].
pub fn allocated_bytes() -> u64 {
    ALLOCATED_BYTES.load(Ordering::Relaxed)
}

/// The clock of the benches.
#[expect(clippy::disallowed_methods, reason = "measuring time is what a bench is for")]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets time pass, as a bench of a rate or of a latency has to.
#[expect(clippy::disallowed_methods, reason = "measuring time is what a bench is for")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// One figure: the median of several rounds, and the best and the worst.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// The quickest round.
    pub min: f64,
    /// The round in the middle.
    pub median: f64,
    /// The slowest round.
    pub max: f64,
}

impl Figure {
    /// The figure of these rounds, at least one.
    ///
    /// # Panics
    /// When there is no round.
    pub fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        Self { min: rounds[0], median: rounds[rounds.len() / 2], max: rounds[rounds.len() - 1] }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}..{:.2})", self.median, self.min, self.max)
    }
}

/// The least of these numbers that this share of them does not exceed; NaN when there is none.
pub fn percentile(numbers: &mut [f64], share: f64) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let rank = (numbers.len() as f64 * share).ceil() as usize;
    numbers.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// The slope of the line that fits best: least squares. NaN unless there are two different `x`.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    covariance / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}

/// How many rounds a figure is made of.
pub const ROUNDS: usize = 15;

/// Nanoseconds per operation: `round` does `operations` of them. One round is not counted, to warm up.
pub fn nanos_per_operation(operations: u64, mut round: impl FnMut()) -> Figure {
    round();
    let rounds = (0..ROUNDS).map(|_| {
        let start = now();
        round();
        nanos_each(start.elapsed(), operations)
    });
    Figure::of(rounds.collect())
}

/// The nanoseconds that each of so many operations took.
pub fn nanos_each(elapsed: Duration, operations: u64) -> f64 {
    elapsed.as_secs_f64() * 1e9 / operations as f64
}

/// CPU seconds that this process has used so far, in all threads, user and system.
pub fn cpu_seconds() -> f64 {
    seconds_of(ClockId::ProcessCPUTime)
}

/// CPU seconds that this thread has used so far, user and system.
pub fn thread_cpu_seconds() -> f64 {
    seconds_of(ClockId::ThreadCPUTime)
}

fn seconds_of(clock: ClockId) -> f64 {
    let used = clock_gettime(clock);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// The same of another process, in steps of 10 ms.
///
/// # Panics
/// Where there is no `/proc`, or no such process.
pub fn cpu_seconds_of(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a Linux machine has /proc");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // Fields 14 and 15 of proc(5), counted from 1; the first two went with the parenthesis. A tick is 10 ms.
    (ticks(11) + ticks(12)) / 100.0
}

/// Bytes of memory that a process has now, without what is swapped out.
///
/// # Panics
/// Where there is no `/proc`, or no such process.
pub fn resident_bytes(process: u32) -> u64 {
    status_bytes(process, "VmRSS:")
}

/// The most that it ever had.
///
/// # Panics
/// Where there is no `/proc`, or no such process.
pub fn peak_resident_bytes(process: u32) -> u64 {
    status_bytes(process, "VmHWM:")
}

fn status_bytes(process: u32, name: &str) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{process}/status")).expect("a Linux machine has /proc");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}

/// CPU seconds that a Redis has used so far, user and system.
///
/// # Panics
/// When it does not say so.
pub fn redis_cpu_seconds(redis: &Redis) -> f64 {
    let seconds = |name| redis.info("cpu", name).parse::<f64>().expect("CPU seconds");
    seconds("used_cpu_user") + seconds("used_cpu_sys")
}

/// Prints which machine this is, since a figure without its machine says nothing.
#[expect(clippy::print_stdout, reason = "a bench prints its figures")]
pub fn print_machine() {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let model = model.trim_start_matches([' ', '\t', ':']);
    println!("machine: {cpus} cores, {model}; {ROUNDS} rounds a figure, median (min..max)");
}

/// A number from 0 to 1 that looks random and is the same in every run: the finaliser of splitmix64 over `n`.
///
/// Source: S. Vigna, splitmix64.c. A mere multiple of `n` would repeat, and compress as no real data does.
pub fn noise(n: usize) -> f64 {
    let mut z = (n as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_numbers() {
        let mut numbers: Vec<f64> = (1..=8).rev().map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| percentile(&mut numbers, share)), [1.0, 4.0, 8.0, 8.0]);
        assert!(percentile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn slopes_of_lines_are_found() {
        let line = |slope: f64| [0.0, 1.0, 4.0].map(|x| (x, 7.0 + slope * x));
        assert_eq!([-2.0, 0.0, 3.0].map(|of| slope(&line(of))), [-2.0, 0.0, 3.0]);
    }
}
