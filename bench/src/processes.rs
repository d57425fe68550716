//! [`Processes`]: real Agents with Spools, Servers and Redis processes with AOF everysec, all on this machine.

use std::fmt;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use taba_tests::redis::{Options, Redis};
use taba_tests::{Process, binary, free_port, get};
use tempfile::TempDir;

use crate::{cpu_seconds_of, now, pause, resident_bytes};

/// How often the Ledger is asked in the end; a Server refuses what takes it longer than a minute.
const LEDGER_TRIES: usize = 5;
/// How long a process may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// An Agent or a Server.
#[derive(Debug)]
struct Listening {
    process: Process,
    command: Command,
    url: String,
    port: u16,
}

/// A deployment on this machine; it ends when it is dropped.
#[derive(Debug)]
pub struct Processes {
    redis: Vec<Redis>,
    servers: Vec<Listening>,
    agents: Vec<Listening>,
    directory: TempDir,
}

/// What a process has used when it was asked.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Which one.
    pub process: String,
    /// CPU since its start.
    pub cpu_seconds: f64,
    /// Its memory.
    pub resident_bytes: u64,
}

impl Processes {
    /// Starts Servers on Redis processes, or without those one with an embedded store, and Agents for them.
    ///
    /// # Panics
    /// When one of them does not start.
    pub fn start(redis: usize, servers: usize, agents: usize) -> Self {
        let target = std::env::current_exe().expect("this program has a path");
        // Beside the build, where there is a disk: a temporary directory may be memory.
        let beside = target.parent().expect("a binary is in a directory");
        let directory = tempfile::tempdir_in(beside).expect("there is room");
        let redis = Redis::start_many(redis, &Options::durable());
        let mut processes = Self { redis, servers: Vec::new(), agents: Vec::new(), directory };
        let path = |name: String| processes.directory.path().join(name);
        let urls: Vec<String> = processes.redis.iter().map(Redis::url).collect();
        let server = |n: usize| {
            let mut command = Command::new(binary("taba-server"));
            if urls.is_empty() {
                command.arg("--data-dir").arg(path(format!("store-{n}")));
            } else {
                command.args(["--store=redis", "--redis", &urls.join(",")]);
            }
            processes.listening("taba-server", command)
        };
        let servers: Vec<_> = (0..if urls.is_empty() { 1 } else { servers }).map(server).collect();
        let list: Vec<&str> = servers.iter().map(|server| &*server.url).collect();
        let agent = |n: usize| {
            let mut command = Command::new(binary("taba-agent"));
            command.args(["--servers", &list.join(",")]).arg("--spool-dir").arg(path(format!("spool-{n}")));
            processes.listening("taba-agent", command)
        };
        let agents = (0..agents).map(agent).collect();
        (processes.servers, processes.agents) = (servers, agents);
        processes
    }

    fn listening(&self, name: &str, mut command: Command) -> Listening {
        let port = free_port();
        command.arg(format!("--listen=127.0.0.1:{port}"));
        let process = Process::start_logged(name, &mut command, &self.directory.path().join("log"));
        let listening = Listening { process, command, url: format!("http://127.0.0.1:{port}"), port };
        let begin = now();
        while get(&listening.url, "/v2/status").is_none() {
            assert!(begin.elapsed() < PATIENCE, "{name} does not answer");
            pause(Duration::from_millis(20));
        }
        listening
    }

    /// Stops a Server and starts it again; how long until the first answer to this request that is as it should be.
    ///
    /// # Panics
    /// When it does not stop, or does not answer right.
    pub fn restart_server(&mut self, n: usize, path: &str, is_right: impl Fn(&Value) -> bool) -> Duration {
        let log = self.directory.path().join("log");
        let server = &mut self.servers[n];
        server.process.terminate();
        let begin = now();
        server.process = Process::start_logged("taba-server", &mut server.command, &log);
        let address = ("127.0.0.1", server.port);
        loop {
            assert!(begin.elapsed() < PATIENCE, "the server does not answer after its start");
            let is_open = TcpStream::connect(address).is_ok();
            if is_open && get(&server.url, path).is_some_and(|answer| is_right(&answer)) {
                return begin.elapsed();
            }
            pause(Duration::from_millis(2));
        }
    }

    /// CPU and memory of each process.
    pub fn usage(&self) -> Vec<Usage> {
        let of = |word: &str, n: usize, pid: u32| Usage {
            process: format!("{word} {n}"),
            cpu_seconds: cpu_seconds_of(pid),
            resident_bytes: resident_bytes(pid),
        };
        let redis = self.redis.iter().enumerate().map(|(n, redis)| of("redis", n, redis.pid()));
        let servers = self.servers.iter().enumerate().map(|(n, server)| of("server", n, server.process.id()));
        let agents = self.agents.iter().enumerate().map(|(n, agent)| of("agent", n, agent.process.id()));
        redis.chain(servers).chain(agents).collect()
    }

    /// Bytes that all Redis processes were sent; `None` when there is none.
    pub fn sent_to_redis(&self) -> Option<u64> {
        let bytes = |redis: &Redis| redis.info("stats", "total_net_input_bytes").parse::<u64>().unwrap_or(0);
        (!self.redis.is_empty()).then(|| self.redis.iter().map(bytes).sum())
    }

    /// The URL of a Server; they take turns.
    pub fn server(&self, n: usize) -> &str {
        &self.servers[n % self.servers.len()].url
    }

    /// The URL of an Agent; they take turns.
    pub fn agent(&self, n: usize) -> &str {
        &self.agents[n % self.agents.len()].url
    }

    /// Waits until the Agents have brought everything to Servers.
    pub fn drain(&self) {
        let held = |agent: &Listening| {
            get(&agent.url, "/v2/status").and_then(|status| status["spool"]["events_unapplied"].as_u64())
        };
        while self.agents.iter().any(|agent| held(agent) != Some(0)) {
            pause(Duration::from_millis(50));
        }
    }

    /// Checks that the Ledger has these events, recorded and folded, and no others.
    ///
    /// # Panics
    /// When it has not.
    pub fn assert_exact(&self, recorded: u64) {
        let totals = (0..LEDGER_TRIES).find_map(|_| {
            let ledger = get(self.server(0), "/v2/ledger").filter(|ledger| ledger["complete"] == true);
            ledger.map(|ledger| ledger["totals"].clone())
        });
        let totals = totals.expect("the ledger is answered: with fewer States it is");
        assert_eq!(
            (&totals["recorded"], &totals["folded"]),
            (&recorded.into(), &recorded.into()),
            "{totals}"
        );
        assert_eq!(totals["in_flight"], 0, "{totals}");
    }
}

/// What each process used since then: CPU, and what it holds now.
#[derive(Clone, Debug)]
pub struct UsageSince {
    begin: Instant,
    before: Vec<Usage>,
    now: Vec<Usage>,
}

impl UsageSince {
    /// From now on.
    pub fn start(processes: &Processes) -> Self {
        let before = processes.usage();
        Self { begin: now(), now: before.clone(), before }
    }

    /// Until now.
    #[must_use]
    pub fn until_now(mut self, processes: &Processes) -> Self {
        self.now = processes.usage();
        self
    }
}

impl fmt::Display for UsageSince {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elapsed = self.begin.elapsed().as_secs_f64();
        for (before, now) in self.before.iter().zip(&self.now) {
            let share = (now.cpu_seconds - before.cpu_seconds) / elapsed * 100.0;
            let resident = now.resident_bytes as f64 / f64::from(1 << 20);
            writeln!(f, "{}: {share:.0} % of a core, {resident:.0} MiB resident", now.process)?;
        }
        Ok(())
    }
}
