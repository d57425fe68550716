//! Half of what a machine can take, for ten minutes: Clients in this process, a real Agent, Server and Redis with AOF. Prints by the
//! minute how many events were recorded, how soon one is visible, and the memory of each process.
//!
//! Ends with an error unless the Ledger is exact, nothing was dropped, and no process' memory grows in the second half by more than it may.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Parser;
use taba_bench::processes::{Processes, UsageSince};
use taba_bench::{cpu_seconds, now, pause, percentile, print_machine, resident_bytes, slope};
use taba_client::{Client, Counter};
use taba_tests::get;

/// Threads record so often, each time what is due.
const TICK: Duration = Duration::from_millis(10);
/// How often memory is read.
const SAMPLE: Duration = Duration::from_secs(2);
/// Windows of States fill up in the first minutes, and allocators keep some of what they had.
const GROWTH_MIB: f64 = 16.0;
const GROWTH_SHARE: f64 = 0.05;

/// Half of what a machine can take, for ten minutes
#[derive(Parser)]
struct Cli {
    /// How long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Events a second, over all Clients; if not given, half of the most that was recorded, delivered and counted in
    /// --probe seconds
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds in which Clients record as fast as they can, to find the rate
    #[arg(long, default_value_t = 10.0)]
    probe: f64,
    /// Clients, each with a thread that records
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Tabs of each
    #[arg(long, default_value_t = 1_000)]
    tabs: usize,
}

/// One of the Clients, with its Tabs.
struct Recording {
    client: Client,
    counters: Vec<Counter>,
    recorded: u64,
}

impl Recording {
    /// With Handlers, so that events are folded before they travel.
    fn new(id: &str, agent: &str, tabs: usize) -> Self {
        let handlers = taba_handlers::standard().build().expect("the standard types have different names");
        let client =
            Client::builder(id).agent(agent).handlers(handlers).build().expect("the settings are right");
        let counter = |n| client.counter(format!("soak-{n:04}")).expect("a tab name");
        let counters = (0..tabs).map(counter).collect();
        Self { client, counters, recorded: 0 }
    }

    /// Records at this rate for so long.
    fn run(&mut self, rate: f64, seconds: f64) {
        let (begin, before) = (now(), self.recorded);
        while begin.elapsed().as_secs_f64() < seconds {
            let due = before + (begin.elapsed().as_secs_f64() * rate) as u64;
            for n in self.recorded..due.min(self.recorded + 1_000_000) {
                self.counters[n as usize % self.counters.len()].add((n % 100) as f64);
                self.recorded = n + 1;
            }
            if rate.is_finite() {
                pause(TICK);
            }
        }
    }
}

fn record(recordings: &mut [Recording], rate: f64, seconds: f64) {
    let rate = rate / recordings.len() as f64;
    thread::scope(|scope| {
        for recording in recordings {
            scope.spawn(move || recording.run(rate, seconds));
        }
    });
}

/// Waits until all is with a Server.
fn drain(processes: &Processes, recordings: &[Recording]) {
    for recording in recordings {
        let report = recording.client.flush(Duration::from_secs(60));
        assert_eq!((report.left, report.dropped), (0, 0), "{report:?}");
    }
    processes.drain();
}

/// The most events a second that are recorded and then counted.
fn probe(processes: &Processes, recordings: &mut [Recording], seconds: f64) -> f64 {
    let (begin, cpu) = (now(), cpu_seconds());
    record(recordings, f64::INFINITY, seconds);
    let own = cpu_seconds() - cpu;
    drain(processes, recordings);
    let recorded: u64 = recordings.iter().map(|recording| recording.recorded).sum();
    let rate = recorded as f64 / begin.elapsed().as_secs_f64();
    let nanos = own * 1e9 / recorded as f64;
    println!(
        "the most in {seconds:.0} s: {:.2} M events/s, all counted; {nanos:.1} ns of CPU an event in the Clients",
        rate / 1e6
    );
    rate
}

/// Records one event after the other; how many, and the milliseconds until a query showed each.
fn watch(processes: &Processes, is_over: &AtomicBool, visible: &Mutex<Vec<f64>>) -> u64 {
    let client = Client::builder("canary").agent(processes.agent(0)).build().expect("the settings are right");
    let (canary, mut count) = (client.totals("canary").expect("a tab name"), 0);
    while !is_over.load(Ordering::Relaxed) {
        let start = now();
        canary.increment();
        count += 1;
        let seen = || get(processes.server(count as usize), "/v2/tabs?name=canary");
        while seen().is_none_or(|answer| answer["results"][0]["events"] != count) {
            pause(Duration::from_millis(5));
        }
        visible.lock().expect("nobody panics").push(start.elapsed().as_secs_f64() * 1e3);
        pause(Duration::from_millis(37 * (count % 7)));
    }
    let _ = client.flush(Duration::from_secs(60));
    count
}

/// MiB of each process, this one last.
fn resident(processes: &Processes) -> Vec<(String, f64)> {
    let others = processes.usage().into_iter().map(|usage| (usage.process, usage.resident_bytes));
    let all = others.chain([("clients".to_owned(), resident_bytes(std::process::id()))]);
    all.map(|(process, bytes)| (process, bytes as f64 / f64::from(1 << 20))).collect()
}

/// What was seen meanwhile, by minutes since the begin.
#[derive(Default)]
struct Seen {
    /// The median and the 99th percentile of each minute, in milliseconds.
    p50: Vec<(f64, f64)>,
    p99: Vec<(f64, f64)>,
    /// MiB of each process.
    resident: BTreeMap<String, Vec<(f64, f64)>>,
}

impl Seen {
    /// Looks on for so long, and prints each minute.
    fn look_on(processes: &Processes, minutes: f64, visible: &Mutex<Vec<f64>>) -> Self {
        let (begin, mut seen, mut minute) = (now(), Self::default(), 1.0);
        while minute <= minutes.ceil() {
            pause(SAMPLE);
            let elapsed = begin.elapsed().as_secs_f64() / 60.0;
            let resident = resident(processes);
            for (process, mib) in &resident {
                seen.resident.entry(process.clone()).or_default().push((elapsed, *mib));
            }
            if elapsed >= minute.min(minutes) {
                let mut millis = std::mem::take(&mut *visible.lock().expect("nobody panics"));
                let (p50, p99) = (percentile(&mut millis, 0.5), percentile(&mut millis, 0.99));
                let resident: String =
                    resident.iter().map(|(process, mib)| format!("  {process} {mib:.0}")).collect();
                println!("minute {minute}: visible p50 {p50:.0} ms, p99 {p99:.0} ms; MiB:{resident}");
                seen.p50.push((elapsed, p50));
                seen.p99.push((elapsed, p99));
                minute += 1.0;
            }
        }
        seen
    }

    /// Prints how latency and memory change; whether memory stays as it is in the second half.
    fn is_flat(&self, minutes: f64) -> bool {
        if self.p50.len() > 1 {
            println!("visible: p50 {:+.1}, p99 {:+.1} ms a minute", slope(&self.p50), slope(&self.p99));
        }
        let mut is_flat = true;
        for (process, points) in &self.resident {
            let second: Vec<_> = points.iter().copied().filter(|(at, _)| *at >= minutes / 2.0).collect();
            let mean = second.iter().map(|(_, mib)| mib).sum::<f64>() / second.len() as f64;
            let (growth, may) = (slope(&second) * minutes / 2.0, GROWTH_MIB + GROWTH_SHARE * mean);
            let verdict = if growth > may { ": too much" } else { "" };
            println!(
                "{process}: {mean:.0} MiB in the second half, which grow by {growth:+.1}, may by {may:.1}{verdict}"
            );
            is_flat &= growth <= may;
        }
        is_flat
    }
}

fn main() -> ExitCode {
    print_machine();
    let cli = Cli::parse();
    let processes = Processes::start(1, 1, 1);
    let mut recordings: Vec<_> = (0..cli.clients)
        .map(|n| Recording::new(&format!("client-{n}"), processes.agent(n), cli.tabs))
        .collect();
    let rate = cli.rate.unwrap_or_else(|| probe(&processes, &mut recordings, cli.probe) / 2.0);
    println!("{:.2} M events/s for {} minutes", rate / 1e6, cli.minutes);
    let before: u64 = recordings.iter().map(|recording| recording.recorded).sum();
    let (usage, cpu) = (UsageSince::start(&processes), cpu_seconds());
    let (is_over, visible) = (AtomicBool::new(false), Mutex::default());
    let (seen, watched) = thread::scope(|scope| {
        let recording = scope.spawn(|| record(&mut recordings, rate, cli.minutes * 60.0));
        let watching = scope.spawn(|| watch(&processes, &is_over, &visible));
        let seen = Seen::look_on(&processes, cli.minutes, &visible);
        recording.join().expect("it does not panic");
        is_over.store(true, Ordering::Relaxed);
        (seen, watching.join().expect("it does not panic"))
    });
    print!("{}", usage.until_now(&processes));
    drain(&processes, &recordings);
    let recorded: u64 = recordings.iter().map(|recording| recording.recorded).sum();
    let (events, cpu) = ((recorded - before) as f64, cpu_seconds() - cpu);
    let (rate, nanos) = (events / cli.minutes / 60e6, cpu * 1e9 / events);
    println!("{events} events, {rate:.2} M/s; {nanos:.1} ns of CPU an event in this process");
    let is_flat = seen.is_flat(cli.minutes);
    processes.assert_exact(recorded + watched);
    println!("the ledger is exact: {} events recorded and folded, none dropped", recorded + watched);
    if is_flat { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
