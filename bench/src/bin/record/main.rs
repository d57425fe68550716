//! What recording costs the thread that records, beside the crates `metrics` and `cadence`: every row in a process of its own, first
//! with one thread, then with several, which record without a pause.
//!
//! Each row makes its calls twice. First in batches of [`BATCH`], with one look at the clock for each: the CPU time a call, and the median,
//! since a clock takes longer than a call and has steps of some nanoseconds. Then every call by itself, for the higher percentiles: a
//! batch would hide the slow call in it, which is what one wants to know. The median of a loop that does nothing but look at the clock
//! is taken away from all of them.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod subjects;

use std::process::Command;
use std::sync::Barrier;
use std::thread;

use clap::Parser;
use taba_bench::{cpu_seconds, now, peak_resident_bytes, print_machine, resident_bytes, thread_cpu_seconds};

use self::subjects::{SUBJECTS, Subject};

/// Calls between two looks at the clock, where one call is too short.
const BATCH: u64 = 64;

/// What recording costs, beside `metrics` and `cadence`
#[derive(Parser)]
struct Cli {
    /// Calls of a row, over all its threads
    #[arg(long, default_value_t = 10_000_000)]
    calls: u64,
    /// How many threads record at a time; the rows are repeated for each number
    #[arg(long, default_values_t = [1, 4])]
    threads: Vec<u64>,
    /// Only the row of this number
    #[arg(long, hide = true)]
    row: Option<usize>,
}

/// How long calls took: those below [`Latencies::FINE`] by nanoseconds, the others one by one.
struct Latencies {
    fine: Vec<u64>,
    coarse: Vec<u64>,
    /// CPU seconds of the threads that called.
    cpu: f64,
}

impl Latencies {
    const FINE: usize = 16 * 1024;

    fn new() -> Self {
        Self { fine: vec![0; Self::FINE], coarse: Vec::new(), cpu: 0.0 }
    }

    fn add(&mut self, nanos: u64) {
        match self.fine.get_mut(nanos as usize) {
            Some(count) => *count += 1,
            None => self.coarse.push(nanos),
        }
    }

    fn join(mut self, other: Self) -> Self {
        self.fine.iter_mut().zip(other.fine).for_each(|(count, more)| *count += more);
        self.coarse.extend(other.coarse);
        self.cpu += other.cpu;
        self
    }

    /// The nanoseconds that this share of the calls did not exceed.
    fn at(&mut self, share: f64) -> u64 {
        self.coarse.sort_unstable();
        let fine: u64 = self.fine.iter().sum();
        let place = ((fine + self.coarse.len() as u64 - 1) as f64 * share) as u64;
        let mut seen = 0;
        let mut fits = self.fine.iter().map(|count| {
            seen += count;
            seen
        });
        let exceeded = fits.position(|seen| seen > place);
        exceeded.map_or_else(|| self.coarse[(place - fine) as usize], |nanos| nanos as u64)
    }
}

/// Runs it in so many threads at the same time; answers what each says.
fn side_by_side<T: Send>(threads: u64, run: impl Fn() -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(threads as usize);
    thread::scope(|scope| {
        let start = || {
            barrier.wait();
            run()
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(start)).collect();
        running.into_iter().map(|thread| thread.join().expect("nothing panics")).collect()
    })
}

/// How long calls take, in batches of so many.
fn latencies(threads: u64, batches: u64, batch: u64, call: &(dyn Fn(u64) + Sync)) -> Latencies {
    let all = side_by_side(threads, || {
        let (mut latencies, mut last) = (Latencies::new(), now());
        for _ in 0..batches {
            call(batch);
            let this = now();
            latencies.add((this - last).as_nanos() as u64);
            last = this;
        }
        latencies.cpu = thread_cpu_seconds();
        latencies
    });
    all.into_iter().reduce(Latencies::join).expect("there is a thread")
}

/// Prints one row.
fn measure(subject: &Subject, threads: u64, calls: u64) {
    let clock = latencies(1, 1_000_000, 0, &|_| {}).at(0.5);
    let resident = resident_bytes(std::process::id());
    let recording = (subject.start)();
    let call = |times| recording.call(times);
    let (batches, cpu) = (calls / threads / BATCH, cpu_seconds());
    let mut together = latencies(threads, batches, BATCH, &call);
    recording.settle();
    let each =
        |seconds: f64| seconds * 1e9 / (batches * threads * BATCH) as f64 - clock as f64 / BATCH as f64;
    let (own, all) = (each(together.cpu), each(cpu_seconds() - cpu));
    let typical = together.at(0.5).saturating_sub(clock) as f64 / BATCH as f64;
    let mut alone = latencies(threads, batches * BATCH, 1, &call);
    recording.settle();
    let made = 2 * batches * BATCH * threads;
    let lost = recording.lost(made) as f64 / made as f64 * 100.0;
    let percentiles = [0.9, 0.99, 0.999, 0.9999].map(|share| alone.at(share).saturating_sub(clock));
    let percentiles: String = percentiles.iter().map(|nanos| format!("{nanos:>9}")).collect();
    let (max, peak) = (alone.at(1.0) as f64 / 1e6, peak_resident_bytes(std::process::id()));
    let memory = peak.saturating_sub(resident) as f64 / f64::from(1 << 20);
    println!(
        "{:<32}{threads:>3}{own:>8.1}{all:>8.1}{typical:>8.1}{percentiles}{max:>9.1}{lost:>7.2}{memory:>8.1}",
        subject.name
    );
}

fn main() {
    let Cli { calls, threads, row } = Cli::parse();
    if let Some(row) = row {
        measure(&SUBJECTS[row], threads[0], calls);
        return;
    }
    print_machine();
    println!("{calls} calls a row, twice; nanoseconds a call, the longest in ms; % lost; MiB");
    println!(
        "{:<32}{:>3}{:>8}{:>8}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}{:>7}{:>8}",
        "", "thr", "CPU", "all CPU", "p50", "p90", "p99", "p99.9", "p99.99", "max ms", "lost", "memory"
    );
    for threads in threads {
        for row in 0..SUBJECTS.len() {
            let mut itself = Command::new(std::env::current_exe().expect("this program has a path"));
            itself.arg(format!("--row={row}")).arg(format!("--calls={calls}"));
            let status = itself.arg(format!("--threads={threads}")).status().expect("it starts again");
            assert!(status.success(), "row {row} ends with {status}");
        }
    }
}
