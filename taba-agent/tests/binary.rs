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
use tempfile::TempDir;

struct Agent {
    child: Child,
    addr: SocketAddr,
    lines: Receiver<String>,
    /// Its Spool, unless the test has one of its own.
    _directory: TempDir,
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
        let directory = tempfile::tempdir().unwrap();
        command.arg("--listen=127.0.0.1:0").env("TABA_AGENT_SPOOL_DIR", directory.path());
        command.args(args).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let listening = wait_for(&lines, "listening");
        let addr = listening.split_once("addr=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        Self { child, addr, lines, _directory: directory }
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
    let agent = Agent::start(&["--servers", &server.url(), "--shutdown-timeout=200ms", "--spool=memory"]);
    post_events(agent.addr, &frame(&batch(1, vec![block("bids", 3)]))).receipt();
    agent.signal("-TERM");
    let (status, line) = agent.ended("lost");
    assert_eq!(status.code(), Some(1));
    assert!(line.contains("events=3"), "{line}");
}

#[test]
fn what_could_not_be_delivered_waits_in_the_spool_for_the_next_run() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.be(Mood::Refusing);
    let spool = format!("--spool-dir={}", dir.path().display());
    let agent = Agent::start(&["--servers", &server.url(), "--shutdown-timeout=200ms", &spool]);
    post_events(agent.addr, &frame(&batch(1, vec![block("bids", 3)]))).receipt();
    agent.signal("-TERM");
    let (status, line) = agent.ended("the spool keeps them");
    assert_eq!(status.code(), Some(0));
    assert!(line.contains("events=3"), "{line}");
    server.be(Mood::Well);
    let agent = Agent::start(&["--servers", &server.url(), &spool]);
    server.next_block();
    agent.signal("-TERM");
    assert_eq!(agent.ended("everything is stored").0.code(), Some(0));
    assert_eq!(server.events()["bids"], 3);
}

#[test]
fn a_killed_agent_goes_on_where_it_was_and_knows_whom_it_had_answered() {
    for sync in ["always", "interval", "never"] {
        let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
        server.be(Mood::Refusing);
        let spool = format!("--spool-dir={}", dir.path().display());
        let sync = format!("--spool-sync={sync}");
        let args = ["--servers", &server.url(), &spool, &sync, "--confirm-after=0s", "--probe-interval=20ms"];
        let agent = Agent::start(&args);
        for seq in 1..=5 {
            post_events(agent.addr, &frame(&batch(seq, vec![block("bids", 3)]))).receipt();
        }
        agent.signal("-KILL");
        wait_for_disconnect(agent);
        let agent = Agent::start(&args);
        // A Client that did not hear the answer sends its Batch again, to an Agent that never saw it.
        post_events(agent.addr, &frame(&batch(5, vec![block("bids", 3)]))).receipt();
        post_events(agent.addr, &frame(&batch(6, vec![block("bids", 4)]))).receipt();
        let status = get(agent.addr, "/status").json();
        assert_eq!(status["spool"]["events_recovered"], 15, "{status}");
        assert_eq!((&status["batches"]["repeated"], &status["batches"]["taken"]), (&1.into(), &1.into()));
        server.be(Mood::Well);
        (0..6).for_each(|_| drop(server.next_block()));
        // Killed again while what was stored is still kept: nothing is stored a second time.
        agent.signal("-KILL");
        wait_for_disconnect(agent);
        let agent = Agent::start(&args);
        let status = loop {
            let status = get(agent.addr, "/status").json();
            if status["spool"]["events_held"] == 0 {
                break status;
            }
        };
        assert_eq!(status["damage"]["bytes"], 0, "{status}");
        agent.signal("-TERM");
        assert_eq!(agent.ended("everything is stored").0.code(), Some(0));
        assert_eq!(server.events()["bids"], 19, "{sync}");
    }
}

#[test]
fn a_spool_whose_end_was_torn_off_keeps_what_is_whole_and_says_so() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.be(Mood::Refusing);
    let spool = format!("--spool-dir={}", dir.path().display());
    let args = ["--servers", &server.url(), &spool];
    let agent = Agent::start(&args);
    for seq in 1..=3 {
        post_events(agent.addr, &frame(&batch(seq, vec![block("bids", 3)]))).receipt();
    }
    agent.signal("-KILL");
    wait_for_disconnect(agent);
    let segments = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let segment = segments.filter(|path| path.extension().is_some_and(|end| end == "spool")).max().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.set_len(file.metadata().unwrap().len() - 5).unwrap();
    server.be(Mood::Well);
    let agent = Agent::start_as(command(), &args);
    let status = get(agent.addr, "/status").json();
    assert_eq!(status["damage"]["stretches"], 1);
    assert!(status["damage"]["bytes"].as_u64() > Some(20));
    (0..2).for_each(|_| drop(server.next_block()));
    agent.signal("-TERM");
    assert_eq!(agent.ended("everything is stored").0.code(), Some(0));
    assert_eq!(server.events()["bids"], 6);
}

#[test]
fn a_directory_belongs_to_one_agent() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let spool = format!("--spool-dir={}", dir.path().display());
    let _first = Agent::start(&["--servers", &server.url(), &spool]);
    let (code, message) = run(command().args(["--listen=127.0.0.1:0", &spool]));
    assert_eq!(code, Some(1));
    assert!(message.contains("another agent has it"), "{message}");
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let (code, message) = run(command().args(["--listen=127.0.0.1:0", "--spool-dir"]).arg(&file));
    assert_eq!(code, Some(1));
    assert!(message.contains("cannot use the directory"), "{message}");
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
    let (code, message) = run(command().args(["--listen=127.0.0.1:0", "--spool=memory", &unix]));
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
    let (code, _) = run(command().args(["--listen=127.0.0.1:0", "--spool=memory", &unix]));
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

    let (code, message) = run(command().env("TABA_AGENT_SPOOL_BYTES_MAX", "4GiB").arg("--spool=memory"));
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
            && help.contains("./taba-spool")
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
    let (code, message) = run(command().args(["--spool=memory", "--listen", &addr]));
    assert_eq!(code, Some(1));
    assert!(message.contains(&addr) && message.contains("in use"), "{message}");
}
