//! Many Tabs of many Clients, as the first Taba had them: every pair is a State, and then events come in on random pairs. Real
//! Agents with Spools, two real Servers, two Redis with AOF everysec or the embedded store of one Server; all on this machine.
//!
//! Prints, by process, CPU and memory; how long until an event is visible, and how long queries take meanwhile. Ends with an error
//! unless the Ledger is exact.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use taba_bench::{Figure, cpu_seconds_of, noise, now, pause, print_machine, resident_bytes};
use taba_core::wire::{self, Block, ClientBatch, Compression, Frame, Kind};
use taba_core::{ClientId, Events, SeqNo, TabName, TabType, Timestamp, ledger};
use taba_tests::Process;
use taba_tests::redis::{Options, Redis};
use taba_tests::{binary, free_port, get};

/// Blocks of one Batch while the States are made.
const FILL_BLOCKS: usize = 2_000;
/// How often the Ledger is asked in the end.
const LEDGER_TRIES: usize = 5;
/// How often each Client sends.
const FLUSH: Duration = Duration::from_millis(250);

/// The first Taba's load.
#[derive(Debug, Parser)]
#[command(about)]
struct Load {
    /// Clients; one Agent for each 100
    #[arg(long, default_value_t = 300)]
    clients: usize,
    /// Tabs of each
    #[arg(long, default_value_t = 20_000)]
    tabs: usize,
    /// Events a second on random pairs, over all Clients
    #[arg(long, default_value_t = 167_000)]
    rate: usize,
    /// Seconds of that
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Where the States are
    #[arg(long, value_enum, default_value_t = StoreKind::Redis)]
    store: StoreKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// Two Redis processes, two Servers.
    Redis,
    /// One Server.
    Embedded,
}

/// The processes, each with the word under which it is printed.
struct Deployment {
    redis: Vec<Redis>,
    servers: Vec<(Process, String)>,
    agents: Vec<(Process, String)>,
}

impl Deployment {
    fn start(load: &Load, directory: &Path) -> Self {
        let redis: Vec<Redis> = if load.store == StoreKind::Redis {
            Redis::start_many(2, &Options::durable())
        } else {
            Vec::new()
        };
        let urls: Vec<String> = redis.iter().map(Redis::url).collect();
        let servers = (0..if redis.is_empty() { 1 } else { 2 }).map(|n| {
            let (port, mut command) = (free_port(), Command::new(binary("taba-server")));
            command.arg(format!("--listen=127.0.0.1:{port}"));
            if redis.is_empty() {
                command.arg("--data-dir").arg(directory.join(format!("store-{n}")));
            } else {
                command.args(["--store=redis", "--redis", &urls.join(",")]);
            }
            started("taba-server", &mut command, port, directory)
        });
        let servers: Vec<_> = servers.collect();
        let list: Vec<&str> = servers.iter().map(|(_, url)| &**url).collect();
        let agents = (0..load.clients.div_ceil(100)).map(|n| {
            let (port, mut command) = (free_port(), Command::new(binary("taba-agent")));
            command.arg(format!("--listen=127.0.0.1:{port}")).args(["--servers", &list.join(",")]);
            command.arg("--spool-dir").arg(directory.join(format!("spool-{n}")));
            started("taba-agent", &mut command, port, directory)
        });
        let agents = agents.collect();
        Self { redis, servers, agents }
    }

    /// Word, CPU seconds and resident bytes of each process.
    fn usage(&self) -> Vec<(String, f64, u64)> {
        let of = |word: &str, n: usize, pid: u32| {
            (format!("{word} {n}"), cpu_seconds_of(pid), resident_bytes(pid))
        };
        let redis = self.redis.iter().enumerate().map(|(n, redis)| of("redis", n, redis.pid()));
        let servers = self.servers.iter().enumerate().map(|(n, (server, _))| of("server", n, server.id()));
        let agents = self.agents.iter().enumerate().map(|(n, (agent, _))| of("agent", n, agent.id()));
        redis.chain(servers).chain(agents).collect()
    }

    /// Bytes that all Redis were sent.
    fn sent_to_redis(&self) -> u64 {
        let bytes = |redis: &Redis| redis.info("stats", "total_net_input_bytes").parse::<u64>().unwrap_or(0);
        self.redis.iter().map(bytes).sum()
    }

    fn server(&self, n: usize) -> &str {
        &self.servers[n % self.servers.len()].1
    }

    /// Events that Agents hold and no Server has.
    fn unapplied(&self) -> u64 {
        let of = |url: &str| {
            get(url, "/v2/status").and_then(|status| status["spool"]["events_unapplied"].as_u64())
        };
        self.agents.iter().map(|(_, url)| of(url).unwrap_or(u64::MAX / 1000)).sum()
    }
}

fn started(name: &str, command: &mut Command, port: u16, directory: &Path) -> (Process, String) {
    let process = Process::start_logged(name, command, &directory.join("log"));
    let url = format!("http://127.0.0.1:{port}");
    let begin = now();
    while get(&url, "/v2/status").is_none() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{name} does not answer: see its log");
        pause(Duration::from_millis(20));
    }
    (process, url)
}

fn time() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "a bench stands where programs do")]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_micros(since.expect("the clock is past 1970").as_micros() as i64)
}

/// One of the Clients, without the library: its memory for so many Tabs is not what is measured.
struct Sender {
    id: ClientId,
    agent: String,
    seq: u64,
    recorded: u64,
}

impl Sender {
    fn new(id: &str, agent: &str) -> Self {
        Self {
            id: ClientId::new(id).expect("a word is an id"),
            agent: format!("{agent}/v2/events"),
            seq: 0,
            recorded: 0,
        }
    }

    /// One event for each of these Tabs, sent until the Agent has taken it.
    fn send(&mut self, http: &ureq::Agent, tab_type: &TabType, tabs: impl Iterator<Item = TabName>) {
        let at = time();
        let value = noise((self.seq as usize) << 8) * 100.0;
        let block =
            |tab| Block::of_events(tab, self.id.clone(), tab_type.clone(), Events::new(&[at], &[value]));
        let mut blocks: Vec<Block> = tabs.filter_map(block).collect();
        let events = blocks.len() as u64;
        blocks.push(Block::note(ledger::tab(ledger::RECORDED), self.id.clone(), at, events));
        self.seq += 1;
        let batch = ClientBatch::new(self.id.clone(), 1, SeqNo(self.seq), at, blocks);
        let frame = Frame::encode(Kind::ClientBatch, &batch.encode(), Compression::Lz4);
        while http.post(&self.agent).header("content-type", wire::CONTENT_TYPE).send(&frame[..]).is_err() {
            pause(Duration::from_millis(50));
        }
        self.recorded += events;
    }
}

/// Every pair becomes a State.
fn fill(load: &Load, deployment: &Deployment, senders: &mut [Sender], names: &[TabName]) {
    let (begin, done) = (now(), AtomicU64::new(0));
    let tab_type = TabType::new("CounterGroup").expect("a type name");
    thread::scope(|scope| {
        for some in senders.chunks_mut(100) {
            scope.spawn(|| {
                let http = ureq::Agent::new_with_defaults();
                for tabs in names.chunks(FILL_BLOCKS) {
                    for sender in &mut *some {
                        sender.send(&http, &tab_type, tabs.iter().cloned());
                        done.fetch_add(tabs.len() as u64, Ordering::Relaxed);
                    }
                }
            });
        }
        let all = (load.clients * load.tabs) as u64;
        while done.load(Ordering::Relaxed) < all {
            pause(Duration::from_secs(1));
            let done = done.load(Ordering::Relaxed);
            if begin.elapsed().as_secs() % 10 == 0 {
                println!(
                    "  {done} of {all} States sent, {:.0} a second",
                    done as f64 / begin.elapsed().as_secs_f64()
                );
            }
        }
    });
    drain(deployment);
    let states = load.clients * load.tabs;
    let rate = states as f64 / begin.elapsed().as_secs_f64();
    println!("{states} States made in {:.0} s, {rate:.0} a second", begin.elapsed().as_secs_f64());
}

/// Waits until the Agents have brought everything to Servers.
fn drain(deployment: &Deployment) {
    while deployment.unapplied() > 0 {
        pause(Duration::from_millis(50));
    }
}

/// Events on random pairs, as many as are due; answers how many.
fn run(load: &Load, senders: &mut [Sender], names: &[TabName]) -> u64 {
    let begin = now();
    let each = (load.rate as f64 / load.clients as f64 * FLUSH.as_secs_f64()).round().max(1.0) as usize;
    let tab_type = TabType::new("CounterGroup").expect("a type name");
    let before: u64 = senders.iter().map(|sender| sender.recorded).sum();
    thread::scope(|scope| {
        for some in senders.chunks_mut(100) {
            let tab_type = &tab_type;
            scope.spawn(move || {
                let http = ureq::Agent::new_with_defaults();
                let ticks = (load.seconds as f64 / FLUSH.as_secs_f64()) as u32;
                for tick in 0..ticks {
                    for sender in &mut *some {
                        let first = sender.seq as usize * 1_009 + sender.id.as_str().len() * 7_919;
                        let tabs = (0..each).map(|n| (noise(first + n) * names.len() as f64) as usize);
                        sender.send(&http, tab_type, tabs.map(|tab| names[tab].clone()));
                    }
                    pause((FLUSH * (tick + 1)).saturating_sub(begin.elapsed()));
                }
            });
        }
    });
    let after: u64 = senders.iter().map(|sender| sender.recorded).sum();
    println!(
        "{} events sent in {:.0} s, {:.0} a second of {} wanted",
        after - before,
        begin.elapsed().as_secs_f64(),
        (after - before) as f64 / begin.elapsed().as_secs_f64(),
        load.rate
    );
    after - before
}

/// Milliseconds until an event is visible at a Server, one event after the other.
fn watch(deployment: &Deployment, canary: &mut Sender, is_over: &AtomicBool) -> Vec<f64> {
    let (http, mut millis) = (ureq::Agent::new_with_defaults(), Vec::new());
    let tab_type = TabType::new("TotalsCounter").expect("a type name");
    let tab = TabName::new("canary").expect("a tab name");
    while !is_over.load(Ordering::Relaxed) {
        let begin = now();
        canary.send(&http, &tab_type, std::iter::once(tab.clone()));
        let seen = || get(deployment.server(millis.len()), "/v2/tabs?name=canary");
        while seen().is_none_or(|answer| answer["results"][0]["events"] != canary.recorded) {
            pause(Duration::from_millis(10));
        }
        millis.push(begin.elapsed().as_secs_f64() * 1e3);
        pause(Duration::from_millis(100));
    }
    millis
}

/// Milliseconds of each query, again and again.
fn ask(deployment: &Deployment, is_over: &AtomicBool) -> BTreeMap<&'static str, Vec<f64>> {
    let queries = [
        ("one tab", "/v2/tabs?name=tab-00017"),
        ("an expression for 100 tabs", "/v2/tabs?re=true&name=tab-001..&limit=100"),
        ("clients", "/v2/clients"),
        ("one account", "/v2/ledger?client=client-017"),
        ("metrics", "/metrics"),
    ];
    let http: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(90))).build().into();
    let mut millis: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    while !is_over.load(Ordering::Relaxed) {
        for (n, (name, path)) in queries.iter().enumerate() {
            let begin = now();
            let answer = http.get(format!("{}{path}", deployment.server(n))).call();
            let is_whole = answer.and_then(|mut answer| answer.body_mut().read_to_string()).is_ok();
            let took = begin.elapsed().as_secs_f64() * 1e3;
            millis.entry(*name).or_default().push(if is_whole { took } else { f64::INFINITY });
        }
        pause(Duration::from_secs(1));
    }
    millis
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted.get(((sorted.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

fn print_usage(deployment: &Deployment, before: &[(String, f64, u64)], begin: Instant) {
    let elapsed = begin.elapsed().as_secs_f64();
    for ((word, cpu, _), (_, cpu_now, bytes)) in before.iter().zip(deployment.usage()) {
        let share = (cpu_now - cpu) / elapsed * 100.0;
        println!("{word}: {share:.0} % of a core, {:.0} MiB resident", bytes as f64 / f64::from(1 << 20));
    }
}

fn main() {
    print_machine();
    let load = Load::parse();
    let target = std::env::current_exe().expect("this program has a path");
    // Beside the build, where there is a disk: a temporary directory may be memory.
    let directory = tempfile::tempdir_in(target.parent().expect("a binary is in a directory")).expect("room");
    let deployment = Deployment::start(&load, directory.path());
    let names: Vec<TabName> =
        (0..load.tabs).map(|n| TabName::new(&format!("tab-{n:05}")).expect("a tab name")).collect();
    let mut senders: Vec<Sender> = (0..load.clients)
        .map(|n| Sender::new(&format!("client-{n:03}"), &deployment.agents[n / 100].1))
        .collect();
    let mut canary = Sender::new("canary", &deployment.agents[0].1);
    fill(&load, &deployment, &mut senders, &names);
    let (begin, before, sent, is_over) =
        (now(), deployment.usage(), deployment.sent_to_redis(), AtomicBool::new(false));
    let (events, mut visible, queries) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&deployment, &mut canary, &is_over));
        let asking = scope.spawn(|| ask(&deployment, &is_over));
        let events = run(&load, &mut senders, &names);
        is_over.store(true, Ordering::Relaxed);
        (events, watching.join().expect("it does not panic"), asking.join().expect("it does not panic"))
    });
    let lag = now();
    drain(&deployment);
    println!("all of it with servers {:.1} s after the last was sent", lag.elapsed().as_secs_f64());
    print_usage(&deployment, &before, begin);
    if events > 0 && !deployment.redis.is_empty() {
        println!(
            "redis: {:.0} bytes sent to it an event",
            (deployment.sent_to_redis() - sent) as f64 / events as f64
        );
    }
    visible.sort_by(f64::total_cmp);
    println!(
        "visible, {} events: p50 {:.0} ms, p99 {:.0} ms (wanted: 1000 ms or less)",
        visible.len(),
        at(&visible, 0.5),
        at(&visible, 0.99)
    );
    for (name, millis) in queries {
        println!("{name}: {} ms", Figure::of(millis));
    }
    let recorded: u64 = senders.iter().chain([&canary]).map(|sender| sender.recorded).sum();
    // A Server refuses what takes it longer than a minute.
    let totals = (0..LEDGER_TRIES).find_map(|_| {
        let ledger = get(deployment.server(0), "/v2/ledger").filter(|ledger| ledger["complete"] == true);
        ledger.map(|ledger| ledger["totals"].clone())
    });
    let totals = totals.expect("the ledger is answered: with fewer States it is");
    assert_eq!((&totals["recorded"], &totals["folded"]), (&recorded.into(), &recorded.into()), "{totals}");
    assert_eq!(totals["in_flight"], 0, "{totals}");
    println!("the ledger is exact: {recorded} events recorded and folded");
}
