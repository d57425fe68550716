//! [`AgentSlot`]: the place of one Agent: its Spool, its ways to the Servers, and its process over its runs.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bad_disk::{BadDisk, Wrong};
use super::disk::SmallDisk;
use super::plan::Plan;
use super::supervised::{Counters, Supervised};
use crate::dice::chance;
use crate::proxy::Proxy;

const COUNTERS: &Counters = &[
    ("/lane_batches/sent", "sent"),
    ("/lane_batches/replayed", "replayed"),
    ("/lane_batches/rewinds", "rewinds"),
    ("/batches/repeated", "repeated"),
    ("/batches/turned_away", "turned_away"),
    ("/spool/events_released", "released"),
    ("/log_lines_dropped", "log_lines_dropped"),
];

/// The place of one Agent. It keeps its Spool over restarts.
#[derive(Debug)]
pub struct AgentSlot {
    /// The way of its Clients to it.
    pub from_clients: Proxy,
    /// Its own way to each Server, so that each Agent knows the Servers by other names and spreads Lanes differently; or
    /// its one way to what stands before them.
    pub to_servers: Vec<Proxy>,
    /// Where its Spool is.
    pub spool: PathBuf,
    /// The disk of its Spool, if that can be full.
    pub disk: Option<SmallDisk>,
    /// The calls to the disk of its Spool, if they can go wrong.
    pub bad_disk: Option<BadDisk>,
    /// How often a look at it found that its disk did not take what was to be written.
    pub disk_errors: u64,
    process: Supervised,
}

impl AgentSlot {
    /// A place without a process.
    pub(super) fn new(n: usize, plan: &Plan, servers: &[u16], directory: &Path) -> Self {
        let name = format!("agent-{n}");
        let spool = directory.join(format!("{name}.spool"));
        let bad_disk = plan.has_bad_disks.then(|| BadDisk::new(&spool, directory, &name));
        let mut process = Supervised::new(plan, directory, ("taba-agent", name), n, COUNTERS);
        let proxy = |way: usize, port: u16| {
            let proxy = Proxy::start(port, chance(plan.seed, (2000 + n * 100 + way) as u64));
            proxy.calm();
            proxy
        };
        let to_servers: Vec<_> = servers.iter().enumerate().map(|(n, port)| proxy(n + 1, *port)).collect();
        let urls: Vec<_> = to_servers.iter().map(Proxy::url).collect();
        let time = |time: Duration| format!("{}ms", time.as_millis());
        let command = &mut process.command;
        command.arg("--servers").arg(urls.join(",")).arg("--spool-dir").arg(&spool);
        command.args(["--spool", if plan.sabotage == Some("memory-spool") { "memory" } else { "file" }]);
        command.args(["--vbuckets", &plan.vbuckets.to_string(), "--request-timeout", "3s"]);
        command.args(["--confirm-after", &time(plan.confirm_after)]);
        command.args(["--probe-interval", &time(plan.probe_interval)]);
        bad_disk.iter().for_each(|disk| disk.wear(command));
        Self {
            from_clients: proxy(0, process.port),
            to_servers,
            disk: plan.spool_disk_bytes.map(|bytes| SmallDisk::mount(&spool, bytes)),
            bad_disk,
            spool,
            disk_errors: 0,
            process,
        }
    }

    /// Looks at its counters and at its disk.
    pub fn look(&mut self) {
        let has_error = self.process.look().is_some_and(|status| status.pointer("/spool/error").is_some());
        self.disk_errors += u64::from(has_error);
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
}

impl Deref for AgentSlot {
    type Target = Supervised;

    fn deref(&self) -> &Supervised {
        &self.process
    }
}

impl DerefMut for AgentSlot {
    fn deref_mut(&mut self) -> &mut Supervised {
        &mut self.process
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
