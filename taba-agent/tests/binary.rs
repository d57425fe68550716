//! The real binary: its settings, its sockets, its signals, its exit codes.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use support::*;

struct Agent {
    child: Child,
    addr: SocketAddr,
    lines: Receiver<String>,
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taba-agent"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TABA_AGENT_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command
}

impl Agent {
    fn start(args: &[&str]) -> Self {
        Self::start_as(command(), args)
    }

    fn start_as(mut command: Command, args: &[&str]) -> Self {
        command.args(["--listen=127.0.0.1:0"]).args(args).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let listening = wait_for(&lines, "listening");
        let addr = listening.split_once("addr=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        Self { child, addr, lines }
    }

    fn signal(&self, name: &str) {
        // The shell's own kill: a bare machine may have no other.
        let kill = format!("kill {name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end; the last line that said how it went.
    fn ended(mut self, words: &str) -> (ExitStatus, String) {
        let line = wait_for(&self.lines, words);
        (self.child.wait().unwrap(), line)
    }
}

fn wait_for(lines: &Receiver<String>, words: &str) -> String {
    let mut seen = Vec::new();
    loop {
        let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {words:?} in {seen:#?}"));
        if line.contains(words) {
            return line;
        }
        seen.push(line);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Most have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, stdout } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap() + &String::from_utf8(stdout).unwrap())
}

#[test]
fn sigterm_and_ctrl_c_drain_and_end_well() {
    for signal in ["-TERM", "-INT"] {
        let server = Server::start();
        let agent = Agent::start(&["--servers", &server.url(), "--linger=10s"]);
        post_events(agent.addr, &frame(&batch(1, vec![block("bids", 3)]))).receipt();
        agent.signal(signal);
        let (status, _) = agent.ended("everything is stored");
        assert_eq!(status.code(), Some(0));
        assert_eq!(server.events()["bids"], 3, "it did not linger");
    }
}

#[test]
fn what_could_not_be_delivered_is_told_and_the_exit_code_says_so() {
    let server = Server::start();
    server.be(Mood::Refusing);
    let agent = Agent::start(&["--servers", &server.url(), "--shutdown-timeout=200ms"]);
    post_events(agent.addr, &frame(&batch(1, vec![block("bids", 3)]))).receipt();
    agent.signal("-TERM");
    let (status, line) = agent.ended("lost");
    assert_eq!(status.code(), Some(1));
    assert!(line.contains("events=3"), "{line}");
}

#[test]
fn the_unix_socket_works_replaces_a_stale_one_and_goes_away() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let path = dir.path().join("agent.sock");
    let unix = format!("--unix={}", path.display());
    let agent = Agent::start(&["--servers", &server.url(), &unix]);
    let send = |seq| {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        exchange(stream, &events_request(&frame(&batch(seq, vec![block("bids", 3)])))).receipt()
    };
    send(1);
    let (code, message) = run(command().args(["--listen=127.0.0.1:0", &unix]));
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("cannot listen on") && message.contains("agent.sock"), "{message}");
    agent.signal("-KILL");
    wait_for_disconnect(agent);
    assert!(path.exists(), "a killed agent leaves it behind");

    let agent = Agent::start(&["--servers", &server.url(), &unix]);
    send(2);
    agent.signal("-TERM");
    assert_eq!(agent.ended("everything is stored").0.code(), Some(0));
    assert!(!path.exists());

    std::fs::write(&path, "not a socket").unwrap();
    let (code, _) = run(command().args(["--listen=127.0.0.1:0", &unix]));
    assert_eq!(code, Some(1));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a socket", "what is not ours is left alone");
}

fn wait_for_disconnect(mut agent: Agent) {
    agent.child.wait().unwrap();
}

#[test]
fn wrong_settings_end_it_with_2_and_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, "lingr = \"5ms\"\n").unwrap();
    let (code, message) = run(command().arg("--config").arg(&path));
    assert_eq!(code, Some(2));
    assert!(message.contains("lingr") && message.contains("agent.toml"), "{message}");

    let (code, message) = run(command().env("TABA_AGENT_LINGR", "5ms"));
    assert_eq!(code, Some(2));
    assert!(message.contains("TABA_AGENT_LINGR"), "{message}");

    let (code, message) = run(command().env("TABA_AGENT_SPOOL_BYTES_MAX", "4GiB"));
    assert_eq!(code, Some(2));
    assert!(message.contains("memory_bytes_max"), "{message}");

    let (code, message) = run(command().arg("--servers=https://a:1"));
    assert_eq!(code, Some(2));
    assert!(message.contains("TLS"), "{message}");
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_both() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let path = dir.path().join("agent.toml");
    let text =
        format!("servers = \"{}\"\nvbuckets = 64\nlinger = \"1ms\"\nconnections-max = 7\n", server.url());
    std::fs::write(&path, text).unwrap();
    let (_, help) = run(command().arg("--help"));
    assert!(
        help.contains("--spool-bytes-max")
            && help.contains("TABA_AGENT_SPOOL_BYTES_MAX")
            && help.contains("256MiB")
    );

    let config = format!("--config={}", path.display());
    let vbuckets = |env: Option<&str>, args: &[&str]| {
        let mut command = command();
        command.envs(env.map(|value| ("TABA_AGENT_VBUCKETS", value)));
        let agent = Agent::start_as(command, &[&[config.as_str()], args].concat());
        let status = get(agent.addr, "/status").json();
        assert_eq!(status["servers"][0]["url"], server.url());
        status["vbuckets"].as_u64().unwrap()
    };
    assert_eq!(vbuckets(None, &[]), 64);
    assert_eq!(vbuckets(Some("128"), &[]), 128);
    assert_eq!(vbuckets(Some("128"), &["--vbuckets=256"]), 256);
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (code, message) = run(command().args(["--listen", &addr]));
    assert_eq!(code, Some(1));
    assert!(message.contains(&addr) && message.contains("in use"), "{message}");
}
