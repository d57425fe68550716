//! The real binary, killed and starved: nothing acknowledged is lost, nothing is counted twice.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lanes;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lanes::{acks, batch, block, frame, tab_in};
use taba_core::wire::{Ack, Answer, LaneBatch};
use taba_core::{Envelope, Scan, Store, Timestamp, VBuckets, ledger};
use taba_server::{EmbeddedOptions, EmbeddedStore};
use tempfile::TempDir;

const VBUCKETS: &str = "64";
const WAIT: Duration = Duration::from_secs(30);

/// A running taba-server; killed when dropped.
struct Process {
    child: Child,
    address: SocketAddr,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Process {
    fn start(dir: &Path) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_taba-server")), dir)
    }

    /// One that may not make any file larger than this, and is told so by an error instead of a signal.
    fn start_starved(dir: &Path, blocks: u32) -> Self {
        let mut command = Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -S -f {blocks}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_taba-server")]);
        Self::spawn(command, dir)
    }

    fn spawn(mut command: Command, dir: &Path) -> Self {
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--vbuckets",
            VBUCKETS,
            "--commit-interval",
            "2ms",
            "--data-dir",
        ]);
        let mut child = command.arg(dir).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on http://") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "the server ended before it listened");
        }
        let address =
            line.split("http://").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        Self { child, address, stderr }
    }

    fn signal(&self, name: &str) {
        let killed =
            Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(killed.success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it to stop, and waits until it has.
    fn stop(mut self) -> String {
        self.signal("TERM");
        let mut words = String::new();
        self.stderr.read_to_string(&mut words).unwrap();
        assert!(self.child.wait().unwrap().success(), "{words}");
        words
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends one request. An error means that the server is gone, and that nobody knows what became of it.
fn send(address: SocketAddr, batches: &[LaneBatch]) -> std::io::Result<Vec<Ack>> {
    let body = frame(batches);
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WAIT))?;
    write!(
        stream,
        "POST /v2/lanes HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/x-taba\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head =
        answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..head]));
    let body = answer.split_off(head + 4);
    if body.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(acks(body)) }
}

/// Some Lanes of one sender, each with what it has made and what was acknowledged.
struct Sender {
    stream: u64,
    lanes: Vec<Lane>,
}

struct Lane {
    vbucket: u16,
    tab: String,
    made: Vec<LaneBatch>,
    acked: u64,
}

impl Sender {
    fn new(stream: u64) -> Self {
        let vbuckets = VBuckets::new(64).unwrap();
        let lane =
            |vbucket| Lane { vbucket, tab: tab_in(vbuckets, vbucket, "t"), made: Vec::new(), acked: 0 };
        Self { stream, lanes: (0..64).map(lane).collect() }
    }

    /// For each Lane the Batch after the last acknowledged one, always the same for the same number.
    fn next(&mut self) -> Vec<LaneBatch> {
        let stream = self.stream;
        let lanes = self.lanes.iter_mut().map(|lane| {
            if lane.made.len() as u64 == lane.acked {
                let seq = lane.acked + 1;
                let before = lane.made.iter().map(LaneBatch::events).sum();
                let values = vec![seq as f64; 1 + (seq % 3) as usize];
                let blocks = vec![block(&lane.tab, &format!("c{stream}"), &values)];
                lane.made.push(batch(stream, lane.vbucket, seq, before, blocks));
            }
            lane.made[lane.acked as usize].clone()
        });
        lanes.collect()
    }

    fn take(&mut self, acks: &[Ack]) -> u64 {
        let mut fresh = 0;
        for (lane, ack) in self.lanes.iter_mut().zip(acks) {
            assert_eq!((ack.stream.0, ack.vbucket), (self.stream, lane.vbucket));
            assert_ne!(ack.answer, Answer::Nak, "the server went back behind what it had acknowledged");
            if matches!(ack.answer, Answer::Applied | Answer::Duplicate) {
                assert!(ack.applied.0 >= lane.acked, "the server went back behind what it had acknowledged");
                fresh += ack.applied.0 - lane.acked;
                lane.acked = ack.applied.0;
            }
        }
        fresh
    }

    /// What must be stored when everything was acknowledged: events and total, by Tab and Client.
    fn expected(&self) -> impl Iterator<Item = ((String, String), (u64, f64))> {
        self.lanes.iter().map(|lane| {
            let events = lane.made.iter().map(LaneBatch::events).sum();
            let total = lane.made.iter().map(|batch| batch.events() as f64 * batch.seq.0 as f64).sum();
            ((lane.tab.clone(), format!("c{}", self.stream)), (events, total))
        })
    }
}

/// Everything in a directory: events and total, by Tab and Client.
fn stored(dir: &Path) -> BTreeMap<(String, String), (u64, f64)> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let vbuckets = VBuckets::new(64).unwrap();
    let store = EmbeddedStore::open(dir, EmbeddedOptions::new(vbuckets)).unwrap();
    let handlers = taba_handlers::standard().build().unwrap();
    let mut found = BTreeMap::new();
    for vbucket in vbuckets.iter() {
        let scan = Scan::default();
        let states = runtime.block_on(store.scan(vbucket, &scan)).unwrap();
        for state in states.into_iter().filter(|state| state.key.tab.as_str() != ledger::ACCOUNTS) {
            let envelope = Envelope::join(&state.parts).unwrap();
            let handler = handlers.guarded(envelope.tab_type.as_str()).unwrap();
            let (decoded, _) = handler.decode_stored(&envelope).unwrap();
            let projection = handler.project_now(&decoded, Timestamp::from_secs(0)).unwrap();
            let rendered = handler.render(&projection, taba_core::Format::Summary).unwrap();
            let total = rendered["total"].as_f64().unwrap_or_else(|| panic!("no total in {rendered}"));
            found.insert((state.key.tab.to_string(), state.key.client.to_string()), (envelope.events, total));
        }
    }
    found
}

#[test]
fn killed_under_load_it_loses_and_doubles_nothing() {
    let dir = TempDir::new().unwrap();
    let mut senders = [Sender::new(1), Sender::new(2)];
    for kill_after in [700, 1500, 400] {
        let server = Process::start(dir.path());
        let (address, acked) = (server.address, AtomicU64::new(0));
        std::thread::scope(|scope| {
            for sender in &mut senders {
                let acked = &acked;
                scope.spawn(move || {
                    while let Ok(acks) = send(address, &sender.next()) {
                        acked.fetch_add(sender.take(&acks), Ordering::SeqCst);
                    }
                });
            }
            while acked.load(Ordering::SeqCst) < kill_after {
                std::thread::yield_now();
            }
            server.kill();
        });
    }
    let server = Process::start(dir.path());
    for sender in &mut senders {
        // What was sent and never answered is sent again as it was.
        while sender.lanes.iter().any(|lane| lane.acked < lane.made.len() as u64) {
            let last: Vec<u64> = sender.lanes.iter().map(|lane| lane.made.len() as u64).collect();
            let pending = sender.next();
            let acks = send(server.address, &pending).unwrap();
            sender.take(&acks);
            assert!(sender.lanes.iter().zip(last).all(|(lane, last)| lane.acked >= last));
            sender.lanes.iter_mut().for_each(|lane| lane.made.truncate(lane.acked as usize));
        }
    }
    let words = server.stop();
    assert!(words.contains("all that was taken is stored"), "{words}");
    let expected: BTreeMap<_, _> = senders.iter().flat_map(Sender::expected).collect();
    assert_eq!(stored(dir.path()), expected);
}

#[test]
fn on_a_full_disk_it_refuses_and_recovers() {
    let dir = TempDir::new().unwrap();
    // 4096 blocks of 512 bytes: 2 MiB.
    let server = Process::start_starved(dir.path(), 4096);
    let vbuckets = VBuckets::new(64).unwrap();
    let tab = tab_in(vbuckets, 7, "t");
    let make = |seq: u64| {
        let blocks = (0..1000).map(|n| block(&tab, &format!("client-{seq}-{n}"), &[1.25])).collect();
        batch(5, 7, seq, (seq - 1) * 1000, blocks)
    };
    let mut seq = 1;
    let answer = loop {
        let ack = send(server.address, &[make(seq)]).unwrap().remove(0);
        if ack.answer != Answer::Applied {
            break ack;
        }
        seq += 1;
        assert!(seq < 200, "the disk was never full");
    };
    assert!(seq > 1, "nothing was stored at all");
    assert_eq!(answer.answer, Answer::Unavailable);
    let again = send(server.address, &[make(seq)]).unwrap().remove(0);
    assert_eq!(again.answer, Answer::Unavailable, "still full");
    let duplicate = send(server.address, &[make(seq - 1)]).unwrap().remove(0);
    assert_eq!(duplicate.answer, Answer::Duplicate, "what is stored is still known");

    let pid = server.child.id().to_string();
    let freed = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status();
    assert!(freed.expect("prlimit, of util-linux, is needed").success());
    for seq in seq..seq + 3 {
        let ack = send(server.address, &[make(seq)]).unwrap().remove(0);
        assert_eq!((ack.answer, ack.applied.0), (Answer::Applied, seq), "with room again, it goes on");
    }
    server.kill();
    let expected = (1..seq + 3).flat_map(|seq| (0..1000).map(move |n| format!("client-{seq}-{n}")));
    let expected: BTreeMap<_, _> = expected.map(|client| ((tab.clone(), client), (1, 1.25))).collect();
    assert!(stored(dir.path()) == expected, "every event acknowledged is there, once");
}

#[test]
fn what_cannot_be_started_says_why() {
    let dir = TempDir::new().unwrap();
    let server = Process::start(dir.path());
    let run = |args: &[&str], variable: Option<(&str, &str)>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taba-server"));
        command.env("TABA_SERVER_LISTEN", "127.0.0.1:0").args(args).envs(variable);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let data_dir = dir.path().to_str().unwrap();
    assert!(
        run(&["--data-dir", data_dir, "--vbuckets", VBUCKETS], None)
            .contains("another server uses this directory")
    );
    assert!(run(&[], Some(("TABA_SERVER_LISTN", "x"))).contains("TABA_SERVER_LISTN"));
    assert!(run(&["--vbuckets", "100"], None).contains("power of two"));
    let file = dir.path().join("taba.toml");
    std::fs::write(&file, "vbukets = 64").unwrap();
    assert!(run(&["--config", file.to_str().unwrap()], None).contains("vbukets in "));
    assert!(
        run(&["--store", "memory", "--listen", &server.address.to_string()], None)
            .contains("cannot listen on")
    );
    server.stop();
    assert!(run(&["--data-dir", data_dir, "--vbuckets", "128"], None).contains("made for 64 vbuckets"));
}

#[test]
fn neither_half_sent_heads_nor_bodies_that_do_not_come_keep_others_out() {
    let dir = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_taba-server"));
    let settings = ["CONNECTIONS_MAX=300", "HEADER_TIMEOUT=10m", "BODY_TIMEOUT=10m", "BODY_RATE_MIN=0"];
    for (name, value) in settings.iter().filter_map(|setting| setting.split_once('=')) {
        command.env(format!("TABA_SERVER_{name}"), value);
    }
    let server = Process::spawn(command, dir.path());
    let silent = |said: &str| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        stream
    };
    let head = "POST /v2/lanes HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-taba\r\ncontent-length: 8000000\r\n\r\nTABA";
    let _bodies: Vec<_> = (0..50).map(|_| silent(head)).collect();
    let _heads: Vec<_> = (0..400).map(|_| silent("POST /v2/lanes HTTP/1.1\r\nhost")).collect();
    let blocks = vec![block(&tab_in(VBuckets::new(64).unwrap(), 7, "t"), "client", &[1.0])];
    let acks = send(server.address, &[batch(5, 7, 1, 0, blocks)]).unwrap();
    assert_eq!(acks[0].answer, Answer::Applied);
    let mut metrics = String::new();
    let mut stream = silent("GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.read_to_string(&mut metrics).unwrap();
    let closed = metrics.split("taba_server_connections_closed_total{why=\"full\"} ").nth(1).unwrap();
    let closed: u64 = closed.lines().next().unwrap().parse().unwrap();
    assert!(closed >= 150, "{closed}");
}
