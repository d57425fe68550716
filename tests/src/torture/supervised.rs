//! [`Supervised`]: a process that is started again when it has ended by itself; its port, clock, log and counters outlive its
//! runs.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::clock::WrongClock;
use super::counts::Counts;
use super::http;
use super::log::Log;
use super::plan::Plan;
use crate::{Process, binary, free_port, sabotaged, wait_until};

/// What a process counts and we sum up over its runs: the path in its status, and a name.
pub(super) type Counters = [(&'static str, &'static str)];

/// A process over its runs.
#[derive(Debug)]
pub struct Supervised {
    /// Its name in logs.
    pub name: String,
    /// Where it listens.
    pub port: u16,
    /// Its clock, if that can be stepped.
    pub clock: Option<WrongClock>,
    /// How often it ended by itself.
    pub ended: u64,
    /// How it is started.
    pub(super) command: Command,
    process: Option<Process>,
    is_paused: bool,
    log: Log,
    counters: &'static Counters,
    counts: Counts,
}

impl Supervised {
    /// This binary, not running yet. Its log is the plan's `n`-th.
    pub(super) fn new(
        plan: &Plan,
        directory: &Path,
        (program, name): (&str, String),
        n: usize,
        counters: &'static Counters,
    ) -> Self {
        let port = free_port();
        let binary = if plan.sabotage.is_some() { sabotaged(program) } else { binary(program) };
        let mut command = Command::new(binary);
        command.arg("--listen").arg(format!("127.0.0.1:{port}"));
        command.envs(plan.sabotage.map(|sabotage| ("TABA_SABOTAGE", sabotage)));
        let clock = plan.has_clocks.then(|| WrongClock::new(directory, &name));
        clock.iter().for_each(|clock| clock.wear(&mut command));
        Self {
            port,
            clock,
            ended: 0,
            command,
            process: None,
            is_paused: false,
            log: Log::of(plan, directory, &name, n),
            counters,
            counts: Counts::new(&counters.iter().map(|(_, name)| *name).collect::<Vec<_>>()),
            name,
        }
    }

    /// Starts it.
    pub fn start(&mut self) {
        self.process = Some(self.log.start(&self.name, &mut self.command));
    }

    /// Waits until it answers; when it has ended by itself meanwhile, it is started again.
    pub fn wait(&mut self) {
        wait_until(&format!("{} answers", self.name), || {
            self.tend();
            if self.process.is_none() {
                self.start();
            }
            self.status().is_some()
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

    /// Whether it was killed and not started again.
    pub fn is_down(&self) -> bool {
        self.process.is_none()
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

    /// The JSON that it answers to this path, if it answers.
    pub fn get(&self, path: &str) -> Option<Value> {
        http::get(self.port, path)
    }

    /// What it tells about itself, if it answers.
    pub fn status(&self) -> Option<Value> {
        self.get("/v2/status")
    }

    /// Looks at its counters, and gives its status; what it counted after the last look before it is killed, is not known.
    pub fn look(&mut self) -> Option<Value> {
        if self.is_paused || self.process.is_none() {
            return None;
        }
        let status = self.status()?;
        self.counts.look(|name| {
            let (path, _) = self.counters.iter().find(|(_, of)| *of == name)?;
            status.pointer(path)?.as_u64()
        });
        Some(status)
    }

    /// One of its counters, over all its runs.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.of(name)
    }
}
