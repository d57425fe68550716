//! What slow and silent peers can do to a real Agent: nothing to others.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use support::*;

/// The binary, killed when dropped.
struct Agent {
    child: Child,
    addr: SocketAddr,
}

impl Agent {
    /// One whose shell runs `before` first.
    fn start(before: &str, args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let script = format!("{before} exec \"$0\" \"$@\"");
        command.args([
            "-c",
            &script,
            env!("CARGO_BIN_EXE_taba-agent"),
            "--listen=127.0.0.1:0",
            "--spool=memory",
        ]);
        let mut child = command.args(args).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let listening = lines.find(|line| line.contains("listening")).unwrap();
        thread::spawn(move || lines.for_each(drop));
        let addr = listening.split_once("addr=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        Self { child, addr }
    }

    /// One of the counts of connections that it closed.
    fn closed(&self, why: &str) -> u64 {
        let metrics = String::from_utf8(get(self.addr, "/metrics").body).unwrap();
        let name = format!("taba_agent_connections_closed_total{{why=\"{why}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }

    fn takes(&self, seq: u64) -> bool {
        let answered = post_events(self.addr, &frame(&batch(seq, vec![block("bids", 3)])));
        answered.receipt().refused.is_empty()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that has sent this and says no more.
fn silent(addr: SocketAddr, said: &[u8]) -> TcpStream {
    let mut stream = connect(addr);
    stream.write_all(said).unwrap();
    stream
}

/// Everything until the peer closes; a reset is a close too.
fn until_closed(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8(all).unwrap()
}

const HALF: &[u8] = b"POST /v2/events HTTP/1.1\r\nHost: localhost\r\nConte";
const ASKED: &[u8] = b"GET /v2/status HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn heads_that_are_half_sent_shut_nobody_out() {
    let agent = Agent::start("", &["--connections-max=300", "--header-timeout=10m"]);
    let _half: Vec<_> = (0..400).map(|_| silent(agent.addr, HALF)).collect();
    assert!(agent.takes(1));
    assert!(agent.closed("full") >= 100);
}

#[test]
fn a_client_between_two_requests_stays_while_there_are_others_that_never_asked() {
    let agent = Agent::start("", &["--connections-max=20", "--header-timeout=10m"]);
    let mut client = silent(agent.addr, ASKED);
    assert!(client.read(&mut [0; 16]).unwrap() > 0);
    let _half: Vec<_> = (0..100).map(|_| silent(agent.addr, HALF)).collect();
    assert!(agent.takes(1));
    client.write_all(&request("GET", "/v2/status", "", b"")).unwrap();
    assert_eq!(until_closed(client).matches("HTTP/1.1 200").count(), 1, "the answer to the second one");
}

#[test]
fn connections_that_lie_idle_make_room() {
    let agent = Agent::start("", &["--connections-max=20", "--idle-timeout=10m"]);
    let idle = |_| {
        let mut stream = silent(agent.addr, ASKED);
        assert!(stream.read(&mut [0; 16]).unwrap() > 0);
        stream
    };
    let _idle: Vec<_> = (0..30).map(idle).collect();
    assert!(agent.takes(1));
    assert!(agent.closed("full") >= 10);
}

#[test]
fn without_file_descriptors_it_still_takes_what_comes() {
    let agent = Agent::start("ulimit -n 64;", &["--header-timeout=10m"]);
    let _half: Vec<_> = (0..100).map(|_| silent(agent.addr, HALF)).collect();
    assert!(agent.takes(1));
    assert!(agent.closed("full") > 0);
}

#[test]
fn a_head_that_takes_too_long_and_silence_after_an_answer_are_ended() {
    let agent = Agent::start("", &["--header-timeout=200ms", "--idle-timeout=200ms"]);
    assert_eq!(until_closed(silent(agent.addr, HALF)), "");
    assert_eq!(until_closed(silent(agent.addr, b"")), "", "one that says nothing at all");
    assert!(until_closed(silent(agent.addr, ASKED)).starts_with("HTTP/1.1 200"));
    assert_eq!((agent.closed("header_timeout"), agent.closed("idle_timeout")), (2, 1));
    assert!(agent.takes(1));
}

#[test]
fn bodies_that_do_not_come_keep_nobody_elses_out() {
    let agent = Agent::start("", &["--bodies-bytes-max=9MiB", "--body-timeout=10m", "--body-rate-min=0"]);
    let head = "POST /v2/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-taba\r\nContent-Length: 8000000\r\n\r\nTABA";
    let _slow: Vec<_> = (0..50).map(|_| silent(agent.addr, head.as_bytes())).collect();
    assert!(agent.takes(1));
}
