//! `taba record`, `taba time` and `taba doctor`, through the real binaries.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use taba_tests::{Agent, Process, Server, binary, free_port, wait_until};

fn agent(port: u16, server: &Server, spool: &Path) -> Agent {
    let mut command = Command::new(binary("taba-agent"));
    command.arg(format!("--listen=127.0.0.1:{port}")).arg("--servers").arg(server.url());
    command.arg("--spool-dir").arg(spool).args(["--backoff-min=20ms", "--backoff-max=100ms"]);
    let agent = Agent { process: Process::start("taba-agent", &mut command), port };
    wait_until("the agent answers", || ureq::get(&format!("{}/v2/status", agent.url())).call().is_ok());
    agent
}

/// The CLI, for this Server and this Agent.
fn taba(server: u16, agent: u16, args: &[&str]) -> Command {
    let mut command = Command::new(binary("taba"));
    command.env("TABA_SERVER", format!("127.0.0.1:{server}")).env("TABA_AGENT", format!("127.0.0.1:{agent}"));
    command.env_remove("RUST_LOG").args(args);
    command
}

fn texts(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn fed(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Whoever refuses the command line reads nothing.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn value(server: &Server, query: &str) -> Value {
    server.get(&format!("/v2/tabs?{query}"))["results"][0].clone()
}

#[test]
fn what_is_recorded_from_the_shell_counts_once_and_what_is_refused_is_named_by_line() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"), free_port());
    let agent = agent(free_port(), &server, &directory.path().join("spool"));
    let taba = |args: &[&str]| taba(server.port, agent.port, args);
    for args in [
        &["record", "bids"][..],
        &["record", "bids", "2.5"],
        &["record", "bids", "-1", "--key", "k"],
        &["record", "bids", "-1", "--key", "k"],
        &["record", "mood", "good", "--label", "city=Zürich; 50%", "--client", "shell"],
        &["record", "hot", r#"{"key":"a.b","value":3}"#, "--type", "CommonPrefixCounterGroup"],
    ] {
        assert_eq!(texts(&taba(args).output().unwrap()), (0, String::new(), String::new()), "{args:?}");
    }
    wait_until("all is stored", || value(&server, "name=bids")["value"]["pct"]["total"] == 2.5);
    wait_until("the text is stored", || value(&server, "base=mood")["value"]["value"] == "good");
    wait_until("the object is stored", || {
        value(&server, "base=hot")["value"]["keys"]["a.b"]["1m"]["total"] == 3.0
    });
    assert_eq!(value(&server, "name=bids")["events"], 3);
    assert_eq!(value(&server, "label.city=Z%C3%BCrich%3B%2050%25&client=shell")["events"], 1);
    for (args, code, said) in [
        (&["record", "no name"][..], 1, "bad_name"),
        (&["record", "bids", "2", "--type", "Nope", "--time", "soon"], 1, "line 1"),
        (&["record"], 2, "NAME"),
        (&["record", "bids", "--stdin"], 2, "--stdin"),
    ] {
        let (found, _, text) = texts(&taba(args).output().unwrap());
        assert!(found == code && text.contains(said), "{args:?}: {found} {text}");
    }
    // More than a request takes; some lines are none.
    let mut input = String::new();
    for number in 1..=25_000 {
        input += match number {
            7 => "what is this\n",
            11_111 => "{\"tab\":\"a b\"}\n",
            12_000 => "\n",
            _ => "{\"tab\":\"many\"}\n",
        };
    }
    let (code, _, text) =
        texts(&fed(taba(&["record", "--stdin", "--client", "pipe"]), input.trim_end().as_bytes()));
    assert!(code == 1 && text.contains("line 7: ") && text.contains("line 11111: "), "{text}");
    assert!(text.ends_with("recorded 24997 events, refused 2 lines\n"), "{text}");
    wait_until("all lines are stored", || value(&server, "name=many&client=pipe")["events"] == 24_997);
}

#[test]
fn lines_are_sent_while_others_are_waited_for_and_an_agent_that_is_away_is_waited_for_too() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"), free_port());
    let (port, spool) = (free_port(), directory.path().join("spool"));
    let first = agent(port, &server, &spool);
    let mut child = taba(server.port, port, &["record", "--stdin"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"tab\":\"slow\"}\n").unwrap();
    wait_until("the first line is visible", || value(&server, "name=slow")["events"] == 1);
    drop(first);
    stdin.write_all(b"{\"tab\":\"slow\"}\n").unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("retrying")));
    let _second = agent(port, &server, &spool);
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    wait_until("both are visible", || value(&server, "name=slow")["events"] == 2);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (code, _, text) =
        texts(&taba(server.port, gone, &["record", "x", "--timeout=100ms"]).output().unwrap());
    assert!(code == 1 && text.contains("--agent") && text.contains("--key taba/"), "{text}");
}

#[test]
fn a_command_is_timed_and_ends_as_it_would_alone() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"), free_port());
    let agent = agent(free_port(), &server, &directory.path().join("spool"));
    let taba = |args: &[&str]| taba(server.port, agent.port, args);
    let (code, out, _) = texts(&taba(&["time", "--", "sh", "-c", "echo out; exit 7"]).output().unwrap());
    assert_eq!((code, out.as_str()), (7, "out\n"));
    assert_eq!(taba(&["time", "--", "sh", "-c", "kill -9 $$"]).output().unwrap().status.code(), Some(137));
    wait_until("both are visible", || value(&server, "name=command.seconds;command=sh")["events"] == 2);
    let (code, _, text) = texts(&taba(&["time", "--", "/no/such/command"]).output().unwrap());
    assert!(code == 127 && text.contains("/no/such/command"), "{text}");
    assert_eq!(taba(&["time", "--tab", "no name", "--", "true"]).output().unwrap().status.code(), Some(1));
    // Its own end does not depend on the Agent.
    let mut away = taba(&["time", "--agent=127.0.0.1:1", "--timeout=10ms", "--", "true"]);
    let (code, _, text) = texts(&away.output().unwrap());
    assert!(code == 0 && text.contains("was not recorded"), "{text}");
    let directory = directory.path();
    let script = directory.join("no-program");
    std::fs::write(&script, "").unwrap();
    assert_eq!(taba(&["time", "--", script.to_str().unwrap()]).output().unwrap().status.code(), Some(126));
}

/// The signals that this process ignores, one bit each; none where the system does not say.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default()
}

#[test]
fn signals_are_those_of_the_timed_command() {
    let run = |script: &str| {
        let mut command = Command::new("sh");
        let time = format!("{} time --agent=127.0.0.1:1 --timeout=1ms -- sh -c", binary("taba").display());
        command.args(["-c", &script.replace("TIME", &time)]).stdout(Stdio::piped()).stderr(Stdio::null());
        // No terminal sends its signals to this group.
        command.process_group(0).spawn().unwrap()
    };
    let ignored = ignored();
    for (code, (signal, name)) in
        [(1, "HUP"), (2, "INT"), (3, "QUIT"), (15, "TERM"), (10, "USR1"), (12, "USR2")]
            .into_iter()
            .enumerate()
    {
        // What this process was started with as ignored (by nohup, or in the background of a shell) its children ignore too.
        if ignored & (1 << (signal - 1)) != 0 {
            continue;
        }
        let code = 3 + code as i32;
        let mut child = run(&format!(
            "exec TIME 'trap \"exit {code}\" {name}; echo ready; while :; do sleep 0.01; done'"
        ));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let kill = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{name}");
    }
    // What nohup made both ignore stays ignored.
    let mut child = run("trap '' HUP; exec TIME 'kill -HUP $PPID; kill -HUP $$; exit 4'");
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"), free_port());
    let agent = agent(free_port(), &server, &directory.path().join("spool"));
    let doctor = |args: &[&str]| texts(&taba(server.port, agent.port, args).arg("doctor").output().unwrap());
    assert!(taba(server.port, agent.port, &["record", "x"]).status().unwrap().success());
    wait_until("nothing is on its way", || doctor(&[]).1.contains("has delivered everything"));
    let (code, text, _) = doctor(&[]);
    assert!(code == 0 && text.lines().all(|line| line.starts_with("ok ")), "{text}");
    let (_, json, _) = doctor(&["--json"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["is_well"], true);
    let (code, text, _) = doctor(&["--agent=127.0.0.1:1"]);
    assert!(code == 1 && text.contains("BAD   agent 127.0.0.1:1"), "{text}");
    // Behind, since its Server is away.
    let port = server.port;
    drop(server);
    assert!(taba(port, agent.port, &["record", "x"]).status().unwrap().success());
    let doctor = || texts(&taba(port, agent.port, &["doctor"]).output().unwrap());
    wait_until("it is told", || doctor().1.contains("cannot deliver to"));
    let (code, text, _) = doctor();
    assert!(code == 1 && text.contains("has 1 events to deliver") && text.contains("--server"), "{text}");
}

#[test]
fn shells_and_man_know_the_commands() {
    let taba = |args: &[&str]| texts(&taba(1, 1, args).output().unwrap());
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = taba(&["completions", shell]);
        assert!(code == 0 && script.contains("doctor"), "{shell}");
    }
    let (code, page, _) = taba(&["man"]);
    assert!(code == 0 && page.contains(".TH taba") && page.contains("doctor"), "{page}");
    assert!(taba(&["man", "record"]).1.contains("Idempotency") || taba(&["man", "record"]).1.contains("key"));
    assert_eq!(taba(&["man", "nothing"]).0, 1);
}

#[test]
fn the_doctor_names_agents_that_wait_for_a_clock() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let server = listener.local_addr().unwrap().port();
    let clock: taba_server::Clock = std::sync::Arc::new(|| taba_core::Timestamp::from_secs(1_000_000_000));
    let handlers = taba_handlers::standard().build().unwrap();
    let own = taba_server::Server::builder().store(taba_core::MemoryStore::default()).handlers(handlers);
    let routes = own.clock(clock).build().unwrap().router();
    runtime.spawn(async move { axum::serve(listener, routes).await });
    let port = free_port();
    let mut command = Command::new(binary("taba-agent"));
    command.arg(format!("--listen=127.0.0.1:{port}")).arg(format!("--servers=http://127.0.0.1:{server}"));
    command.arg("--spool=memory");
    let agent = Agent { process: Process::start("taba-agent", &mut command), port };
    wait_until("the agent answers", || ureq::get(&format!("{}/v2/status", agent.url())).call().is_ok());
    assert!(taba(server, port, &["record", "x"]).status().unwrap().success());
    let doctor = || texts(&taba(server, port, &["doctor"]).output().unwrap());
    wait_until("it is told", || doctor().1.contains("waits with"));
    let (code, text, _) = doctor();
    assert!(code == 1 && text.contains("BAD   its clock is") && text.contains("set right a clock"), "{text}");
}
