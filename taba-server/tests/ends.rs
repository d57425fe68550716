//! The real binary: its log, its environment, its errors, and how it ends.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lanes;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use lanes::{batch, block, frame, tab_in};
use taba_core::VBuckets;

const WAIT: Duration = Duration::from_secs(30);

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taba-server"));
    command.args(args).env_remove("RUST_LOG").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// A running server; killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// With a memory store on a port that was free a moment ago, since its log may not say which.
    fn start(args: &[&str], stderr: impl Into<Stdio>) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = command(&["--store=memory", "--vbuckets=64", "--listen", &address.to_string()]);
        Self::spawn(command.args(args).stderr(stderr), address)
    }

    fn spawn(command: &mut Command, address: SocketAddr) -> Self {
        let mut server = Self { child: command.spawn().unwrap(), address };
        while TcpStream::connect(address).is_err() {
            assert_eq!(server.child.try_wait().unwrap(), None, "it ended before it listened");
            std::thread::yield_now();
        }
        server
    }

    fn ask(&self, request: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/x-taba\r\ncontent-length: {length}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn lines_dropped(&self) -> u64 {
        let status = self.ask("GET /v2/status", b"");
        let status: serde_json::Value = serde_json::from_str(&status[status.find('{').unwrap()..]).unwrap();
        status["ingest"]["log_lines_dropped"].as_u64().unwrap()
    }

    fn end(mut self) -> ExitStatus {
        let pid = self.child.id();
        assert!(Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for stderr in [Stdio::from(writer), Stdio::from(full)] {
        let server = Server::start(&["--log=debug"], stderr);
        server.ask("GET /v2/names?nonsense=1", b"");
        while server.lines_dropped() < 2 {
            std::thread::yield_now();
        }
        let metrics = server.ask("GET /metrics", b"");
        assert!(metrics.contains("taba_server_log_lines_dropped_total "), "{metrics}");
        assert_eq!(server.end().code(), Some(0));
    }
}

#[test]
fn a_log_whose_reader_stalls_stops_nothing_and_says_later_what_is_missing() {
    let (mut reader, writer) = pipe().unwrap();
    let server = Server::start(&["--log=debug"], writer);
    // More than a pipe and the queue hold: 64 KiB and 4,096 lines.
    let (mut sent, request) = (0, "GET /v2/names?nonsense=1 HTTP/1.1\r\nhost: localhost\r\n\r\n");
    while server.lines_dropped() == 0 {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.write_all(request.repeat(500).as_bytes()).unwrap();
        let mut answers = BufReader::new(stream);
        for _ in 0..500 {
            let mut line = String::new();
            while !line.contains("HTTP/1.1 400") {
                line.clear();
                assert!(answers.read_line(&mut line).unwrap() > 0, "the server answers");
            }
        }
        sent += 500;
        assert!(sent < 100_000, "no line was ever dropped");
    }
    let dropped = server.lines_dropped();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(server.end().code(), Some(0));
    let text = reading.join().unwrap();
    let said = |line: &str| -> Option<u64> {
        line.strip_prefix("taba-server: ")?.strip_suffix(" lines of this log were dropped")?.parse().ok()
    };
    let said: u64 = text.lines().filter_map(said).sum();
    // Until it was read on, more may have been dropped.
    assert!(said >= dropped, "{dropped} lines were dropped, and {said} are said to be");
    assert!(text.trim_end().ends_with("all that was taken is stored"), "and its last word is there");
}

#[test]
#[ignore = "needs the binaries of scripts/sabotage"]
fn a_worker_that_panics_ends_the_process_with_a_word_and_a_code() {
    let (mut reader, writer) = pipe().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let binary = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/sabotage/taba-server");
    let mut command = Command::new(binary);
    command.args(["--store=memory", "--vbuckets=64", "--listen", &address.to_string()]);
    let mut server = Server::spawn(command.env("TABA_SABOTAGE", "worker-panics").stderr(writer), address);
    drop(command);
    let tab = tab_in(VBuckets::new(64).unwrap(), 7, "t");
    let answer = server.ask("POST /v2/lanes", &frame(&[batch(1, 7, 1, 0, vec![block(&tab, "a", &[1.0])])]));
    assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(server.child.wait().unwrap().code(), Some(1));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.contains("panicked at") && text.contains("a worker of the server failed"), "{text}");
}

fn run(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command(args).envs(variables.iter().copied()).output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

/// Flags, variables, and the words that the error must have.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn every_error_of_a_setting_names_it_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("--config={}", path.display())
    };
    let typo = file("typo.toml", "vbukets = 64");
    let kind = file("kind.toml", "vbuckets = \"many\"");
    let broken = file("broken.toml", "vbuckets");
    let twice = file("twice.toml", "data-dir = \"a\"\ndata_dir = \"b\"");
    let listen = file("listen.toml", "listen = \"here\"");
    let cases: &[Case<'_>] = &[
        (&["--vbuckets=100"], &[], &["vbuckets", "power of two"]),
        (&["--vbuckets=many"], &[], &["--vbuckets"]),
        (&["--listen=here"], &[], &["--listen"]),
        (&["--held-bytes-max=1MiB"], &[], &["held_bytes_max", "16MiB"]),
        (&["--held-mib=1"], &[], &["held_bytes_max", "16MiB"]),
        (&["--shutdown-timeout=25h"], &[], &["shutdown_timeout", "24h"]),
        (&["--prune-interval=10ms"], &[], &["prune_interval", "1s"]),
        (&["--commit-interval=2h"], &[], &["commit_interval", "1h"]),
        (&["--commit-interval-ms=99999999999"], &[], &["commit_interval"]),
        (&[], &[("TABA_SERVER_COMMIT_INTERVAL", "2h")], &["TABA_SERVER_COMMIT_INTERVAL", "1h"]),
        (&["--commit-interval=200"], &[], &["--commit-interval", "20ms"]),
        (&["--memory-bytes-max=1MiB"], &[], &["--memory-bytes-max", "cache_bytes_max"]),
        (&["--workers=99999999"], &[], &["workers", "4096"]),
        (&["--store=redis"], &[], &["--redis"]),
        (&["--redis=redis://h"], &[], &["--store redis"]),
        (&["--store=redis", "--redis=http://h"], &[], &["--redis"]),
        (&["--store=redis"], &[("TABA_SERVER_REDIS", "http://h")], &["TABA_SERVER_REDIS"]),
        (&["backup", "--to=x", "--server=https://h:1"], &[], &["--server", "localhost:8300"]),
        (&["backup", "--to=x", "--log=loud"], &[], &["--log", "loud"]),
        (&["check", "--vbuckets=100"], &[], &["--vbuckets", "power of two"]),
        (&["--listen=256.0.0.1:80"], &[], &["--listen", "localhost:8300"]),
        (&["--log=inof"], &[], &["--log", "inof", "debug"]),
        (&[], &[("TABA_SERVER_LOG", "taba=loud")], &["TABA_SERVER_LOG", "taba=loud"]),
        (&[], &[("RUST_LOG", "=====")], &["RUST_LOG"]),
        (&[], &[("TABA_SERVER_LISTEN", "here")], &["TABA_SERVER_LISTEN"]),
        (&[], &[("TABA_SERVER_VBUCKETS", "x")], &["TABA_SERVER_VBUCKETS"]),
        (&[], &[("TABA_SERVER_LISTN", "x")], &["TABA_SERVER_LISTN", "did you mean TABA_SERVER_LISTEN?"]),
        (&[], &[("TABA_SERVER_PORT", "8300")], &["TABA_SERVER_PORT"]),
        (&["--frobnicate"], &[], &["--frobnicate"]),
        (&["--config=/nowhere/taba.toml"], &[], &["/nowhere/taba.toml", "--config"]),
        (&[&typo], &[], &["typo.toml", "vbukets", "did you mean vbuckets?"]),
        (&[&kind], &[], &["kind.toml", "vbuckets"]),
        (&[&broken], &[], &["broken.toml"]),
        (&[&twice], &[], &["twice.toml", "data_dir"]),
        (&[&listen], &[], &["listen.toml", "listen"]),
    ];
    for (args, variables, words) in cases {
        let (code, text) = run(args, variables);
        assert_eq!(code, Some(2), "{args:?} {variables:?}: {text}");
        for word in *words {
            assert!(text.contains(word), "{args:?} {variables:?} do not name {word}: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn what_fails_at_the_start_ends_with_1_and_help_with_0() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = run(&["--store=memory", "--listen", &address], &[]);
    assert!(code == Some(1) && text.contains("--listen") && text.contains(&address), "{text}");
    let (code, text) = run(&["--data-dir=/dev/null/x"], &[("TABA_SERVER_LISTEN", "127.0.0.1:0")]);
    assert!(code == Some(1) && text.contains("/dev/null/x; --data-dir"), "{text}");
    let (code, text) = run(&["--help"], &[("TABA_SERVER_LISTN", "x")]);
    assert!(code == Some(0) && text.contains("Exit codes: 0") && text.contains("2 when"), "{text}");
    assert_eq!(run(&["--version"], &[("TABA_SERVER_LISTN", "x")]).0, Some(0));
}

#[test]
fn it_listens_on_a_host_by_name_and_prints_its_settings() {
    let mut child =
        command(&["--store=memory", "--listen=localhost:0"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on http://") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it listened");
    }
    let address = line.split("http://").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let server = Server { child, address };
    assert!(address.ip().is_loopback() && server.ask("GET /v2/status", b"").starts_with("HTTP/1.1 200"));
    assert_eq!(server.end().code(), Some(0));

    let (code, text) =
        run(&["--print-config", "--store=redis"], &[("TABA_SERVER_REDIS", "redis://:hunter2@h:1")]);
    assert!(code == Some(0) && text.contains("store = \"redis\"  # --store\n"), "{text}");
    assert!(text.contains("TABA_SERVER_REDIS") && !text.contains("hunter2"), "{text}");
}

#[test]
fn what_kubernetes_and_docker_inject_does_no_harm_and_empty_is_not_set() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = command(&["--store=memory", "--listen", &address.to_string()]);
    command.envs([
        ("TABA_SERVER_SERVICE_HOST", "10.0.0.5"),
        ("TABA_SERVER_SERVICE_PORT", "8300"),
        ("TABA_SERVER_SERVICE_PORT_HTTP", "8300"),
        ("TABA_SERVER_PORT", "tcp://10.0.0.5:8300"),
        ("TABA_SERVER_PORT_8300_TCP", "tcp://10.0.0.5:8300"),
        ("TABA_SERVER_PORT_8300_TCP_PROTO", "tcp"),
        ("TABA_SERVER_PORT_8300_TCP_PORT", "8300"),
        ("TABA_SERVER_PORT_8300_TCP_ADDR", "10.0.0.5"),
        ("TABA_SERVER_NAME", "/web/taba-server"),
        ("TABA_SERVER_ENV_PATH", "/bin"),
        ("TABA_SERVER_HEADLESS_SERVICE_HOST", "None"),
        ("TABA_AGENT_LISTEN", "another program's"),
        ("TABA_SERVER_VBUCKETS", ""),
        ("TABA_SERVER_CONFIG", ""),
        ("TABA_SERVER_LOG", ""),
        ("RUST_LOG", ""),
    ]);
    let server = Server::spawn(command.stderr(Stdio::null()), address);
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn a_pipe_gets_no_colours() {
    let (mut reader, writer) = pipe().unwrap();
    let server = Server::start(&["--log=debug"], writer);
    server.ask("GET /v2/names?nonsense=1", b"");
    assert_eq!(server.end().code(), Some(0));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.contains("DEBUG") && !text.contains('\x1b'), "{text}");
}
