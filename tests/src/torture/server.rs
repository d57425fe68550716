//! [`ServerSlot`]: the place of one Server: its port, its ways to Redis, and the process that is there now.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::clock::WrongClock;
use super::counts::Counts;
use super::http;
use super::log::Log;
use super::plan::Plan;
use crate::link::Link;
use crate::{Process, binary, free_port, sabotaged, wait_until};

/// What a Server counts and we sum up over its runs.
const COUNTERS: [&str; 5] =
    ["batches_duplicate", "commits", "conflicts", "store_errors", "log_lines_dropped"];

/// The place of one Server. It keeps its port over restarts.
#[derive(Debug)]
pub struct ServerSlot {
    /// Its name in logs.
    pub name: String,
    /// Where it listens.
    pub port: u16,
    /// Its own way to the primary of each shard, in order.
    pub links: Vec<Link>,
    /// Its clock, if that can be stepped.
    pub clock: Option<WrongClock>,
    /// How often it ended by itself.
    pub ended: u64,
    process: Option<Process>,
    is_paused: bool,
    log: Log,
    vbuckets: u32,
    has_replicas: bool,
    sabotage: Option<&'static str>,
    counts: Counts,
}

impl ServerSlot {
    /// A place without a process.
    pub(super) fn new(n: usize, plan: &Plan, primaries: &[u16], directory: &Path) -> Self {
        let name = format!("server-{n}");
        let seed = |shard: usize| crate::dice::chance(plan.seed, (1000 + n * 100 + shard) as u64);
        Self {
            port: free_port(),
            links: primaries.iter().enumerate().map(|(n, port)| Link::start(*port, seed(n))).collect(),
            clock: plan.has_clocks.then(|| WrongClock::new(directory, &name)),
            ended: 0,
            process: None,
            is_paused: false,
            log: Log::of(plan, directory, &name, n + 2),
            vbuckets: plan.vbuckets,
            has_replicas: plan.has_replicas,
            sabotage: plan.sabotage,
            counts: Counts::new(&COUNTERS),
            name,
        }
    }

    /// Starts a process there.
    pub fn start(&mut self) {
        let redis: Vec<_> =
            self.links.iter().map(|link| format!("redis://127.0.0.1:{}", link.port())).collect();
        let binary = if self.sabotage.is_some() { sabotaged("taba-server") } else { binary("taba-server") };
        let mut command = Command::new(binary);
        command.arg("--listen").arg(format!("127.0.0.1:{}", self.port));
        command
            .args(["--commit-interval", "50ms", "--prune-interval", "0", "--vbuckets"])
            .arg(self.vbuckets.to_string());
        if redis.is_empty() {
            command.args(["--store", "embedded", "--data-dir"]).arg(self.log.file().with_extension("data"));
        } else {
            command.args(["--store", "redis", "--redis"]).arg(redis.join(","));
            command.args(["--redis-replicas", if self.has_replicas { "1" } else { "0" }]);
        }
        if let Some(clock) = &self.clock {
            clock.wear(&mut command);
        }
        if let Some(sabotage) = self.sabotage {
            command.env("TABA_SABOTAGE", sabotage);
        }
        self.process = Some(self.log.start(&self.name, &mut command));
    }

    /// Waits until it answers; when it has ended by itself meanwhile, it is started again.
    pub fn wait(&mut self) {
        wait_until(&format!("{} answers", self.name), || {
            self.tend();
            if self.process.is_none() {
                self.start();
            }
            self.get("/v2/status").is_some()
        });
    }

    /// Starts it again if it has ended by itself, as whoever supervises it would: a Server does not start without its
    /// Redis, for instance.
    pub fn tend(&mut self) {
        if self.process.as_mut().is_some_and(|process| !process.is_running()) {
            self.ended += 1;
            self.counts.begin_again();
            self.start();
        }
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.look();
        self.counts.begin_again();
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops it in the middle of whatever it does (SIGSTOP), or lets it go on.
    pub fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
        let process = self.process.as_ref();
        process.inspect(|process| if is_paused { process.pause() } else { process.resume() });
    }

    /// Sets its clock so many hours ahead.
    ///
    /// # Panics
    /// When its clock cannot be set.
    pub fn step_clock(&self, hours: i64) {
        self.clock.as_ref().expect("the plan has clocks").set(hours * 3600);
    }

    /// Whether it was killed and not started again.
    pub fn is_down(&self) -> bool {
        self.process.is_none()
    }

    /// The JSON that it answers to this path, if it answers.
    pub fn get(&self, path: &str) -> Option<Value> {
        http::get(self.port, path)
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Looks at its counters; what it counted after the last look before it is killed, is not known.
    pub fn look(&mut self) {
        if self.is_paused || self.process.is_none() {
            return;
        }
        if let Some(status) = self.get("/v2/status") {
            self.counts.look(|name| status["ingest"][name].as_u64());
        }
    }

    /// One of its counters, over all its runs.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.of(name)
    }
}
