//! The real binary: its log, its environment, its errors, and how it ends.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, pipe};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;

use support::*;

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taba-agent"));
    command.env_remove("RUST_LOG").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// A running agent with a Spool in memory; killed when dropped.
struct Agent {
    child: Child,
    addr: SocketAddr,
}

impl Agent {
    /// On a port that was free a moment ago, since its log may not say which.
    fn start(server: &Server, command: &mut Command, stderr: impl Into<Stdio>) -> Self {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (listen, servers) = (format!("--listen={addr}"), format!("--servers={}", server.url()));
        if !command.get_args().any(|arg| arg.to_string_lossy().starts_with("--spool-dir")) {
            command.arg("--spool=memory");
        }
        command.args([&*listen, &servers, "--confirm-after=0s", "--probe-interval=20ms"]);
        let mut agent = Self { child: command.stderr(stderr).spawn().unwrap(), addr };
        while TcpStream::connect(addr).is_err() {
            assert_eq!(agent.child.try_wait().unwrap(), None, "it ended before it listened");
            thread::yield_now();
        }
        agent
    }

    fn end(mut self) -> ExitStatus {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server refuses what it is sent, until it has done so often.
fn refuse(server: &Server, times: u64) {
    server.be(Mood::Refusing);
    let before = server.requests();
    while server.requests() < before + times {
        thread::yield_now();
    }
    server.be(Mood::Well);
}

#[test]
fn a_log_that_nobody_can_read_stops_nothing() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for stderr in [Stdio::from(writer), Stdio::from(full)] {
        let server = Server::start();
        server.be(Mood::Refusing);
        let agent = Agent::start(&server, &mut command(), stderr);
        post_events(agent.addr, &frame(&batch(1, vec![block("bids", 3)]))).receipt();
        refuse(&server, 3);
        server.next_block();
        post_events(agent.addr, &frame(&batch(2, vec![block("bids", 4)]))).receipt();
        server.next_block();
        assert_eq!(server.events()["bids"], 7, "it goes on delivering");
        while get(agent.addr, "/status").json()["log_lines_dropped"] == 0 {
            thread::yield_now();
        }
        assert_eq!(agent.end().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_it_at_once_and_the_next_run_brings_what_was_left() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.be(Mood::Refusing);
    let spool = format!("--spool-dir={}", dir.path().display());
    let (reader, writer) = pipe().unwrap();
    let mut command = command();
    let mut agent = Agent::start(&server, command.args(["--shutdown-timeout=1h", &spool]), writer);
    drop(command);
    post_events(agent.addr, &frame(&batch(1, vec![block("bids", 3)]))).receipt();
    let signal = |name: &str| {
        let kill = format!("kill -{name} {}", agent.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    };
    signal("TERM");
    let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("stopping")), "the first one begins to drain");
    signal("INT");
    assert!(lines.any(|line| line.contains("asked a second time")));
    assert_eq!(agent.child.wait().unwrap().code(), Some(1));
    server.be(Mood::Well);
    let agent = Agent::start(&server, self::command().arg(&spool), Stdio::null());
    server.next_block();
    assert_eq!(server.events()["bids"], 3);
    assert_eq!(agent.end().code(), Some(0));
}

#[test]
fn a_log_has_no_colours_in_a_pipe_and_one_line_for_each_cause() {
    let ((mut reader, writer), server) = (pipe().unwrap(), Server::start());
    server.be(Mood::Refusing);
    let mut command = command();
    let agent = Agent::start(&server, command.args(["--backoff-min=1ms", "--backoff-max=2ms"]), writer);
    drop(command);
    let reading = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    post_events(agent.addr, &frame(&batch(1, vec![block("bids", 3)]))).receipt();
    refuse(&server, 50);
    for seq in 2..9 {
        // Agents alone write this Tab.
        let lie = block("taba.dropped;where=agent;why=gap", 5);
        post_events(agent.addr, &frame(&batch(seq, vec![lie]))).receipt();
        assert_eq!(post_events(agent.addr, b"no frame").status, 400);
    }
    server.next_block();
    assert_eq!(agent.end().code(), Some(0));
    let text = reading.join().unwrap();
    let lines = text.lines().filter(|line| line.contains("a request failed")).count();
    // More than one only on a machine that needs more than 10 s for this.
    assert!((1..=10).contains(&lines), "{text}");
    for words in ["a block was refused; its events are counted as dropped", "a request was refused"] {
        let found: Vec<_> = text.lines().filter(|line| line.contains(words)).collect();
        assert!((1..7).contains(&found.len()), "{text}");
    }
    assert!(
        text.contains("tab=\"taba.dropped;where=agent;why=gap\"") && text.contains("client=web-1"),
        "{text}"
    );
    assert!(text.contains("INFO") && !text.contains('\x1b'), "{text}");
}

/// Flags, variables, and the words that the error must have.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);

fn run(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = command().args(args).envs(variables.iter().copied()).output().unwrap();
    let Output { status, stdout, stderr } = output;
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn every_error_of_a_setting_names_it_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("--config={}", path.display())
    };
    let typo = file("typo.toml", "lingr = \"5ms\"");
    let kind = file("kind.toml", "linger = { ms = 5 }");
    let value = file("value.toml", "linger = \"5 elephants\"");
    let broken = file("broken.toml", "linger");
    let vbuckets = file("vbuckets.toml", "vbuckets = 1000");
    let log = file("log.toml", "log = \"verbose\"");
    let cases: &[Case<'_>] = &[
        (&["--vbuckets=100"], &[], &["vbuckets", "power of two"]),
        (&["--vbuckets=many"], &[], &["--vbuckets"]),
        (&["--listen=here"], &[], &["--listen", "localhost:8300"]),
        (&["--linger=1h"], &[], &["(--linger)", "10s"]),
        (&[], &[("TABA_AGENT_LINGER", "1h")], &["TABA_AGENT_LINGER", "10s"]),
        (&["--linger=5"], &[], &["--linger", "20ms"]),
        (&["--spool-bytes-max=1MiB"], &[], &["spool_bytes_max", "16MiB"]),
        (&["--requests-per-server-max=65"], &[], &["requests_per_server_max"]),
        (&["--servers=https://a:1"], &[], &["--servers", "TLS"]),
        (&["--servers=http://a:1,http://a:1"], &[], &["http://a:1", "weight"]),
        (&["--spool=tape"], &[], &["--spool", "file"]),
        (&["--log=inof"], &[], &["--log", "inof", "debug"]),
        (&[], &[("TABA_AGENT_LOG", "taba=loud")], &["TABA_AGENT_LOG", "taba=loud"]),
        (&[], &[("RUST_LOG", "=====")], &["RUST_LOG"]),
        (&[], &[("TABA_AGENT_LISTEN", "here")], &["TABA_AGENT_LISTEN"]),
        (&[], &[("TABA_AGENT_LINGER", "soon")], &["TABA_AGENT_LINGER"]),
        (&[], &[("TABA_AGENT_LINGR", "5ms")], &["TABA_AGENT_LINGR", "did you mean TABA_AGENT_LINGER?"]),
        (&[], &[("TABA_AGENT_PORT", "8279")], &["TABA_AGENT_PORT"]),
        (&["--frobnicate"], &[], &["--frobnicate"]),
        (&["--config=/nowhere/agent.toml"], &[], &["/nowhere/agent.toml", "--config"]),
        (&[&typo], &[], &["typo.toml", "lingr"]),
        (&[&kind], &[], &["kind.toml", "linger"]),
        (&[&value], &[], &["value.toml", "linger", "20ms"]),
        (&[&broken], &[], &["broken.toml"]),
        (&[&vbuckets], &[], &["vbuckets in ", "vbuckets.toml", "power of two"]),
        (&[&log], &[], &["log in ", "log.toml", "verbose"]),
    ];
    for (args, variables, words) in cases {
        let (code, text) = run(args, variables);
        assert_eq!(code, Some(2), "{args:?} {variables:?}: {text}");
        for word in *words {
            assert!(text.contains(word), "{args:?} {variables:?} do not name {word}: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
    let (code, text) = run(&["--help"], &[("TABA_AGENT_LINGR", "x")]);
    assert!(code == Some(0) && text.contains("Exit codes: 0") && text.contains("2 when"), "{text}");
    assert_eq!(run(&["--version"], &[("TABA_AGENT_LINGR", "x")]).0, Some(0));
}

#[test]
fn it_listens_on_a_host_by_name_and_prints_its_settings() {
    let server = Server::start();
    let (listen, servers) = ("--listen=localhost:0".to_owned(), format!("--servers={}", server.url()));
    let mut child =
        command().args(["--spool=memory", &listen, &servers]).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it listened");
    }
    let addr = line.split("addr=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let agent = Agent { child, addr };
    assert!(addr.ip().is_loopback() && get(addr, "/status").status == 200);
    assert_eq!(agent.end().code(), Some(0));

    let (code, text) = run(&["--print-config", &listen], &[("TABA_AGENT_LINGER", "1s")]);
    assert!(code == Some(0) && text.contains("listen = \"localhost:0\"  # --listen\n"), "{text}");
    assert!(text.contains("linger = \"1s\"  # the variable TABA_AGENT_LINGER\n"), "{text}");
}

#[test]
fn what_kubernetes_and_docker_inject_does_no_harm_and_empty_is_not_set() {
    let (server, mut command) = (Server::start(), command());
    command.envs([
        ("TABA_AGENT_SERVICE_HOST", "10.0.0.5"),
        ("TABA_AGENT_SERVICE_PORT", "8279"),
        ("TABA_AGENT_SERVICE_PORT_EVENTS", "8279"),
        ("TABA_AGENT_PORT", "tcp://10.0.0.5:8279"),
        ("TABA_AGENT_PORT_8279_TCP", "tcp://10.0.0.5:8279"),
        ("TABA_AGENT_PORT_8279_TCP_PROTO", "tcp"),
        ("TABA_AGENT_PORT_8279_TCP_PORT", "8279"),
        ("TABA_AGENT_PORT_8279_TCP_ADDR", "10.0.0.5"),
        ("TABA_AGENT_1_PORT_8279_TCP_ADDR", "172.17.0.2"),
        ("TABA_AGENT_NAME", "/web/taba-agent"),
        ("TABA_SERVER_PORT", "8300"),
        ("TABA_AGENT_VBUCKETS", ""),
        ("TABA_AGENT_SERVERS", ""),
        ("TABA_AGENT_CONFIG", ""),
        ("RUST_LOG", ""),
    ]);
    let agent = Agent::start(&server, &mut command, Stdio::null());
    assert_eq!(get(agent.addr, "/status").json()["vbuckets"], 1024);
    assert_eq!(agent.end().code(), Some(0));
}
