//! An Agent that fails in part, or whose disk does: the process ends with a word and a code, and a disk that hangs, is
//! small or is gone holds up nobody for good.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use support::*;
use taba_agent::driver::FileDisk;
use taba_agent::spool::{Disk, Extent, SegmentId};
use taba_agent::{Agent, RunningAgent};
use tokio::runtime::Runtime;

/// A directory on which every call can be made to hang.
#[derive(Clone)]
struct HangingDisk {
    disk: Arc<Mutex<FileDisk>>,
    hang: Arc<(Mutex<bool>, Condvar)>,
}

impl HangingDisk {
    fn new(path: &Path) -> Self {
        let disk = Arc::new(Mutex::new(FileDisk::open(path).unwrap()));
        Self { disk, hang: Arc::default() }
    }

    fn set_hanging(&self, hangs: bool) {
        *self.hang.0.lock().unwrap() = hangs;
        self.hang.1.notify_all();
    }

    fn wait(&self) {
        let hangs = self.hang.0.lock().unwrap();
        drop(self.hang.1.wait_while(hangs, |hangs| *hangs).unwrap());
    }
}

impl Disk for HangingDisk {
    fn segments(&self) -> io::Result<Vec<(SegmentId, u64)>> {
        self.disk.lock().unwrap().segments()
    }
    fn create(&mut self, segment: SegmentId, head: &[u8]) -> io::Result<()> {
        self.wait();
        self.disk.lock().unwrap().create(segment, head)
    }
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wait();
        self.disk.lock().unwrap().append(bytes)
    }
    fn read(&self, segment: SegmentId, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        self.wait();
        self.disk.lock().unwrap().read(segment, offset, bytes)
    }
    fn cut(&mut self, segment: SegmentId, bytes: u64) -> io::Result<()> {
        self.wait();
        self.disk.lock().unwrap().cut(segment, bytes)
    }
    fn rename(&mut self, from: SegmentId, to: SegmentId) -> io::Result<()> {
        self.wait();
        self.disk.lock().unwrap().rename(from, to)
    }
    fn extent(&self) -> io::Result<Option<Extent>> {
        self.disk.lock().unwrap().extent()
    }
    fn begins_at(&mut self, oldest: SegmentId) -> io::Result<()> {
        self.wait();
        self.disk.lock().unwrap().begins_at(oldest)
    }
    fn keep_damaged(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        self.wait();
        self.disk.lock().unwrap().keep_damaged(segment, offset, bytes)
    }
    fn remove(&mut self, segment: SegmentId) -> io::Result<()> {
        self.wait();
        self.disk.lock().unwrap().remove(segment)
    }
    fn sync(&mut self) -> Box<dyn FnOnce() -> io::Result<()> + Send> {
        let (hanging, sync) = (self.clone(), self.disk.lock().unwrap().sync());
        Box::new(move || {
            hanging.wait();
            sync()
        })
    }
}

fn start_on(runtime: &Runtime, server: &Server, disk: HangingDisk) -> RunningAgent {
    let builder = Agent::builder().listen("127.0.0.1:0".parse().unwrap());
    let builder = builder.servers([server.url().parse().unwrap()]).configure(|config| {
        config.confirm_after = Duration::ZERO;
        config.probe_interval = Duration::from_millis(20);
    });
    runtime.block_on(builder.build().unwrap().start_on(disk)).unwrap()
}

fn status_when(addr: SocketAddr, is: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    for _ in 0..2_000 {
        let status = get(addr, "/status").json();
        if is(&status) {
            return status;
        }
    }
    panic!("it never comes to that: {}", get(addr, "/status").json());
}

#[test]
fn a_disk_that_hangs_holds_up_neither_status_nor_answers_nor_what_is_in_memory() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let disk = HangingDisk::new(dir.path());
    server.be(Mood::Refusing);
    let agent = start_on(&runtime, &server, disk.clone());
    let addr = agent.addr();
    post_events(addr, &frame(&batch(1, vec![block("bids", 3)]))).receipt();
    // It is synced, and cannot be sent yet.
    status_when(addr, |_| server.requests() > 0);
    disk.set_hanging(true);
    let waiting = thread::spawn(move || post_events(addr, &frame(&batch(2, vec![block("bids", 4)]))));
    status_when(addr, |status| status["batches"]["taken"] == 2);
    // Its runtime has one thread: whoever waited for the disk on it would hold up all of this.
    post_events(addr, &frame(&batch(1, vec![block("bids", 3)]))).receipt();
    assert!(get(addr, "/metrics").status == 200);
    server.be(Mood::Well);
    assert_eq!(server.next_block(), block("bids", 3), "what is durable is sent");
    let refused = waiting.join().unwrap();
    assert_eq!(
        (refused.status, refused.reason().as_str()),
        (503, "spool_failed"),
        "it does not wait for ever"
    );
    assert_eq!(server.events()["bids"], 3, "what is not in the spool is not sent");
    disk.set_hanging(false);
    post_events(addr, &frame(&batch(2, vec![block("bids", 4)]))).receipt();
    assert_eq!(server.next_block(), block("bids", 4));
    assert!(runtime.block_on(agent.shutdown(PATIENCE)).is_nothing());
    assert_eq!(server.events()["bids"], 7);
}

/// The real binary.
struct Process {
    child: Child,
    addr: SocketAddr,
    lines: Receiver<String>,
}

impl Process {
    fn start(server: &Server, spool: &Path, change: impl FnOnce(&mut Command)) -> Self {
        Self::start_from(env!("CARGO_BIN_EXE_taba-agent"), server, spool, change)
    }

    /// Starts the binary that breaks the rule, or panics in the part, of this name.
    fn start_sabotaged(sabotage: &str, server: &Server, spool: &Path) -> Self {
        let binary = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/sabotage/taba-agent");
        Self::start_from(binary, server, spool, |command| {
            command.env("TABA_SABOTAGE", sabotage).arg("--merge-after=0s");
        })
    }

    fn start_from(binary: &str, server: &Server, spool: &Path, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(binary);
        command.args(["--listen=127.0.0.1:0", "--servers", &server.url()]).arg("--spool-dir").arg(spool);
        command.args(["--confirm-after=0s", "--probe-interval=20ms", "--backoff-max=100ms"]);
        command.env_remove("RUST_LOG").stderr(Stdio::piped()).stdin(Stdio::null());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let mut process = Self { child, addr: "127.0.0.1:0".parse().unwrap(), lines };
        let line = process.line("listening");
        process.addr = line.split_once("addr=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        process
    }

    fn line(&self, words: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {words:?}: {seen:#?}"));
            if line.contains(words) {
                return line;
            }
            seen.push(line);
        }
    }

    fn post(&self, seq: u64, events: usize) -> Answered {
        post_events(self.addr, &frame(&batch(seq, vec![block("bids", events)])))
    }

    /// As a Client does: until it is taken.
    fn deliver(&self, seq: u64, body: &[u8]) {
        for _ in 0..10_000 {
            if post_events(self.addr, body).status == 200 {
                return;
            }
        }
        panic!("batch {seq} is never taken: {}", get(self.addr, "/status").json());
    }

    fn stop(mut self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn a_part_that_fails_ends_the_process_with_a_word_and_a_code_and_nothing_is_lost_or_doubled() {
    for (sabotage, part) in [
        ("panic-in-pump", "the pump of the agent failed"),
        ("panic-in-disk-thread", "the disk thread of the agent failed"),
        ("panic-in-taking", "a task of the agent failed"),
    ] {
        let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
        let mut agent = Process::start_sabotaged(sabotage, &server, dir.path());
        // Whatever it answers, or not, its Client sends the Batch again to the next run.
        let body = events_request(&frame(&batch(1, vec![block("bids", 3)])));
        // Open until the end: a connection that is closed takes back a request that nobody has looked at yet.
        let mut stream = std::net::TcpStream::connect(agent.addr);
        if let Ok(stream) = &mut stream {
            let _ = io::Write::write_all(stream, &body);
        }
        let line = agent.line(part);
        assert!(line.contains("panic-in-") || sabotage == "panic-in-taking", "{line}");
        assert_eq!(agent.child.wait().unwrap().code(), Some(1), "{sabotage}");
        drop(agent);
        let agent = Process::start(&server, dir.path(), |_| {});
        agent.post(1, 3).receipt();
        agent.post(2, 4).receipt();
        status_when(agent.addr, |status| status["spool"]["events_held"] == 0);
        assert_eq!(server.events()["bids"], 7, "{sabotage}");
        agent.stop();
    }
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn a_handler_that_panics_over_merging_costs_room_and_nothing_else() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.be(Mood::Refusing);
    let agent = Process::start_sabotaged("panic-in-merging", &server, dir.path());
    for seq in 1..=10 {
        let body = frame(&batch(seq, vec![heavy("bids", 20_000)]));
        post_events(agent.addr, &body).receipt();
    }
    agent.line("a handler panicked");
    server.be(Mood::Well);
    status_when(agent.addr, |status| status["spool"]["events_held"] == 0);
    assert_eq!(server.events()["bids"], 50);
    agent.stop();
}

#[test]
fn a_directory_that_is_removed_is_made_anew_and_nothing_is_lost() {
    let (server, parent) = (Server::start(), tempfile::tempdir().unwrap());
    let dir = parent.path().join("spool");
    server.be(Mood::Refusing);
    let agent = Process::start(&server, &dir, |_| {});
    for seq in 1..=5 {
        agent.post(seq, 3).receipt();
    }
    std::fs::remove_dir_all(&dir).unwrap();
    agent.deliver(6, &frame(&batch(6, vec![block("bids", 3)])));
    agent.line("the files of the spool are gone");
    agent.line("takes what is written again");
    agent.post(7, 3).receipt();
    // All of it stands in the new directory: killed, the next run has it.
    drop(agent);
    let agent = Process::start(&server, &dir, |_| {});
    assert_eq!(get(agent.addr, "/status").json()["spool"]["events_recovered"], 21);
    server.be(Mood::Well);
    status_when(agent.addr, |status| status["spool"]["events_held"] == 0);
    assert_eq!(server.events()["bids"], 21);
    agent.stop();
}

/// A file system in memory of so many bytes; unmounted when dropped. `None` where mounting is not permitted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_smaller_than_the_bound_drains_and_heals_with_servers_up() {
    let Some(small) = SmallDisk::mount(3 << 20) else {
        // Where nobody may mount, the same is tested without a file system: see `relay::tests`.
        eprintln!("this process may not mount: not tested here");
        assert!(std::env::var_os("CI").is_none(), "on CI it may");
        return;
    };
    let server = Server::start();
    server.be(Mood::Refusing);
    let agent = Process::start(&server, &small.0.path().join("spool"), |_| {});
    let mut events = BTreeMap::new();
    let mut body = |seq: u64| {
        let tab = format!("tab{}", seq % 50);
        *events.entry(tab.clone()).or_default() += 5;
        frame(&batch(seq, vec![heavy(&tab, 60_000 + seq as usize)]))
    };
    let full = (1..).find_map(|seq| {
        let body = body(seq);
        let answered = post_events(agent.addr, &body);
        (answered.status == 503).then_some((seq, body))
    });
    let (seq, refused) = full.unwrap();
    agent.line("the spool is full");
    server.be(Mood::Well);
    agent.deliver(seq, &refused);
    // Several times as much as the disk has.
    for seq in seq + 1..seq + 150 {
        agent.deliver(seq, &body(seq));
    }
    let status = status_when(agent.addr, |status| status["spool"]["events_held"] == 0);
    assert!(status["spool"]["error"].is_null(), "{status}");
    assert_eq!(server.events(), events);
    agent.stop();
}
