//! [`AgentSlot`]: the place of one Agent: its port, its Spool, its ways to the Servers, and the process that is there
//! now.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::bad_disk::{BadDisk, Wrong};
use super::clock::WrongClock;
use super::counts::Counts;
use super::disk::SmallDisk;
use super::http;
use super::log::Log;
use super::plan::Plan;
use crate::dice::chance;
use crate::proxy::Proxy;
use crate::{Process, binary, free_port, sabotaged, wait_until};

/// What an Agent counts and we sum up over its runs: the path in its status, and a name.
const COUNTERS: [(&str, &str); 7] = [
    ("/lane_batches/sent", "sent"),
    ("/lane_batches/replayed", "replayed"),
    ("/lane_batches/rewinds", "rewinds"),
    ("/batches/repeated", "repeated"),
    ("/batches/turned_away", "turned_away"),
    ("/spool/events_released", "released"),
    ("/log_lines_dropped", "log_lines_dropped"),
];

/// The place of one Agent. It keeps its port and its Spool over restarts.
#[derive(Debug)]
pub struct AgentSlot {
    /// Its name in logs.
    pub name: String,
    /// Where it listens.
    pub port: u16,
    /// The way of its Clients to it.
    pub from_clients: Proxy,
    /// Its own way to each Server, so that each Agent knows the Servers by other names and spreads Lanes differently; or
    /// its one way to what stands before them.
    pub to_servers: Vec<Proxy>,
    /// Its clock, if that can be stepped.
    pub clock: Option<WrongClock>,
    /// Where its Spool is.
    pub spool: PathBuf,
    /// The disk of its Spool, if that can be full.
    pub disk: Option<SmallDisk>,
    /// The calls to the disk of its Spool, if they can go wrong.
    pub bad_disk: Option<BadDisk>,
    /// How often a look at it found that its disk did not take what was to be written.
    pub disk_errors: u64,
    /// How often it ended by itself.
    pub ended: u64,
    process: Option<Process>,
    is_paused: bool,
    log: Log,
    flags: Vec<String>,
    sabotage: Option<&'static str>,
    counts: Counts,
}

impl AgentSlot {
    /// A place without a process.
    pub(super) fn new(n: usize, plan: &Plan, servers: &[u16], directory: &Path) -> Self {
        let name = format!("agent-{n}");
        let port = free_port();
        let proxy = |way: usize, port: u16| {
            let proxy = Proxy::start(port, chance(plan.seed, (2000 + n * 100 + way) as u64));
            proxy.calm();
            proxy
        };
        let time = |time: Duration| format!("{}ms", time.as_millis());
        let spool = if plan.sabotage == Some("memory-spool") { "memory" } else { "file" };
        let flags = vec![
            format!("--spool={spool}"),
            format!("--vbuckets={}", plan.vbuckets),
            format!("--confirm-after={}", time(plan.confirm_after)),
            format!("--probe-interval={}", time(plan.probe_interval)),
            "--request-timeout=3s".to_owned(),
        ];
        let spool = directory.join(format!("{name}.spool"));
        Self {
            from_clients: proxy(0, port),
            to_servers: servers.iter().enumerate().map(|(n, port)| proxy(n + 1, *port)).collect(),
            clock: plan.has_clocks.then(|| WrongClock::new(directory, &name)),
            disk: plan.spool_disk_bytes.map(|bytes| SmallDisk::mount(&spool, bytes)),
            bad_disk: plan.has_bad_disks.then(|| BadDisk::new(&spool, directory, &name)),
            spool,
            disk_errors: 0,
            ended: 0,
            process: None,
            is_paused: false,
            log: Log::of(plan, directory, &name, n),
            flags,
            sabotage: plan.sabotage,
            counts: Counts::new(&COUNTERS.map(|(_, name)| name)),
            port,
            name,
        }
    }

    /// Starts a process there.
    pub fn start(&mut self) {
        let binary = if self.sabotage.is_some() { sabotaged("taba-agent") } else { binary("taba-agent") };
        let mut command = Command::new(binary);
        command.arg("--listen").arg(format!("127.0.0.1:{}", self.port));
        let servers: Vec<_> = self.to_servers.iter().map(Proxy::url).collect();
        command.arg("--servers").arg(servers.join(",")).arg("--spool-dir").arg(&self.spool).args(&self.flags);
        if let Some(clock) = &self.clock {
            clock.wear(&mut command);
        }
        if let Some(disk) = &self.bad_disk {
            disk.wear(&mut command);
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

    /// Puts the files of its Spool in disorder, while no process is there: two are swapped, one has another name, one is
    /// there twice, one has a head that nobody can read. Nothing that was taken is lost by it.
    pub fn disorder_spool(&self) {
        let Ok(entries) = fs::read_dir(&self.spool) else { return };
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
        files.sort();
        let [first, second, .., last] = files.as_slice() else { return };
        let other = |name: &str| self.spool.join(name);
        // A disk that is full or fails takes what it takes: any of this may be done in part.
        let done = fs::copy(last, other("copy.spool"))
            .and_then(|_| fs::rename(first, other("away.spool")))
            .and_then(|()| fs::rename(second, first))
            .and_then(|()| fs::rename(other("away.spool"), second))
            .and_then(|()| flip(first, 20))
            .and_then(|()| fs::rename(last, other("renamed.spool")));
        drop(done);
    }

    /// Stops it in the middle of whatever it does (SIGSTOP), or lets it go on.
    pub fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
        let process = self.process.as_ref();
        process.inspect(|process| if is_paused { process.pause() } else { process.resume() });
    }

    /// Its ways to others and of others to it.
    pub fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.to_servers.iter().chain([&self.from_clients])
    }

    /// Fills the disk of its Spool.
    ///
    /// # Panics
    /// When it has none of its own.
    pub fn fill_disk(&self) {
        self.disk.as_ref().expect("the plan gives its spool a disk").fill();
    }

    /// Makes room on the disk of its Spool.
    pub fn free_disk(&self) {
        self.disk.iter().for_each(SmallDisk::free);
    }

    /// What is wrong with calls to the disk of its Spool from now on.
    ///
    /// # Panics
    /// When they cannot go wrong.
    pub fn set_disk(&self, wrong: Option<Wrong>) {
        self.bad_disk.as_ref().expect("the plan has bad disks").set(wrong);
    }

    /// Calls to the disk of its Spool that took longer or failed so far.
    pub fn disk_calls(&self) -> u64 {
        self.bad_disk.as_ref().map_or(0, BadDisk::hits)
    }

    /// Sets its clock so many hours ahead.
    ///
    /// # Panics
    /// When its clock cannot be set.
    pub fn step_clock(&self, hours: i64) {
        self.clock.as_ref().expect("the plan has clocks").set(hours * 3600);
    }

    /// What it tells about itself, if it answers.
    pub fn status(&self) -> Option<Value> {
        http::get(self.port, "/v2/status")
    }

    /// Looks at its counters; what it counted after the last look before it is killed, is not known.
    pub fn look(&mut self) {
        if self.is_paused || self.process.is_none() {
            return;
        }
        if let Some(status) = self.status() {
            self.disk_errors += u64::from(status.pointer("/spool/error").is_some());
            self.counts.look(|name| {
                let (path, _) = COUNTERS.iter().find(|(_, of)| *of == name)?;
                status.pointer(path)?.as_u64()
            });
        }
    }

    /// One of its counters, over all its runs.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.of(name)
    }
}

/// Flips a bit of a byte of a file.
fn flip(path: &Path, at: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[byte[0] ^ 4])
}
