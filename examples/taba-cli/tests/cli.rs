//! The real binary against a real server over a socket.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test: a panic is a failure, and its output is for people"
)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use taba_core::{
    AnyValues, ClientId, Commit, Committed, Envelope, MemoryStore, Part, Reading, Registry, StateKey, Store,
    TabName, TabType, Timestamp, Version, Wanted,
};
use taba_server::Status;
use taba_server::query::{QueryState, router};

/// 2001-09-09T01:46:40Z.
const NOW: i64 = 1_000_000_000;

struct Server {
    runtime: tokio::runtime::Runtime,
    store: Arc<MemoryStore>,
    handlers: Registry,
    state: QueryState,
    url: String,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = Arc::new(MemoryStore::default());
        let handlers = taba_handlers::standard().build().unwrap();
        let clock: taba_server::Clock = Arc::new(|| Timestamp::from_secs(NOW));
        let state = QueryState::new(store.clone(), handlers.clone(), clock, Arc::new(Status::default()));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(axum::serve(listener, router(state.clone())).into_future());
        Self { runtime, store, handlers, state, url }
    }

    /// A server with a bit of everything.
    fn filled() -> Self {
        let server = Self::start();
        for (client, shift) in [("ATL", 0.0), ("JFK", 12.5), ("ORD", -3.25)] {
            let delays: Vec<f64> = (0..2000).map(|i| f64::from(i % 97) + shift).collect();
            server.numbers("delay;to=MEM", "CounterGroup", client, &delays);
            server.numbers("delay;to=JFK", "CounterGroup", client, &delays[..500]);
            server.numbers("departures", "TotalsCounter", client, &vec![1.0; 2500]);
            server.numbers("latency", "PercentileGroup", client, &delays);
            server.numbers("distance", "PercentileCounter", client, &[404.0, 1200.0, 2586.0]);
            let (mode, at) = (if client == "ATL" { "taxi" } else { "gate" }, Timestamp::from_secs(NOW - 3));
            server.put("mode", "Gauge", client, &[at], &vec![Reading::Text(mode.to_owned())]);
            server.numbers("taba.recorded", "TotalsCounter", client, &[9_010.0]);
            server.numbers("taba.dropped;where=client;why=full", "TotalsCounter", client, &[2.0]);
        }
        server
    }

    fn numbers(&self, tab: &str, tab_type: &str, client: &str, values: &[f64]) {
        let times: Vec<Timestamp> = (0..values.len()).map(|i| Timestamp::from_secs(NOW - i as i64)).collect();
        self.put(tab, tab_type, client, &times, &values.to_vec());
    }

    fn put(&self, tab: &str, tab_type: &str, client: &str, times: &[Timestamp], values: &dyn AnyValues) {
        let handler = self.handlers.get(tab_type).unwrap();
        let mut state = handler.empty_state();
        let events = times.len() as u64;
        handler.fold_values(&mut state, times, values).unwrap();
        let (tab, tab_type) = (TabName::new(tab).unwrap(), TabType::new(tab_type).unwrap());
        let version = handler.version();
        let envelope = Envelope::new(tab_type.clone(), version, events, handler.encode(&state).into());
        let home = self.store.vbuckets().of(&tab);
        self.runtime.block_on(async {
            let expect = self.store.load(home, &Wanted::default()).await.unwrap().version;
            let key = StateKey { tab: tab.clone(), client: ClientId::new(client).unwrap() };
            let commit = Commit::new(expect, Version { writer: 7, count: expect.count + 1 })
                .with_tabs(vec![(tab, Some(tab_type))])
                .with_states(vec![(key, Part::WHOLE, Some(envelope.encode()))]);
            assert_eq!(self.store.commit(home, commit).await.unwrap(), Committed::Done);
        });
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taba"));
        command.env("TABA_SERVER", &self.url).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output of a command that succeeds. Shown when the test is run with `--nocapture`.
    fn shows(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stdout).unwrap();
        println!("$ taba {}\n{text}{}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?}");
        text
    }

    fn fails(&self, args: &[&str], code: i32, message: &str) {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        println!("$ taba {}\n{text}", args.join(" "));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(message), "{args:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

/// The words of the line that begins with `name`.
fn line<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let found = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    found.unwrap_or_else(|| panic!("no line {name} in\n{text}")).split_whitespace().collect()
}

#[test]
fn tabs_are_spread_and_rules_shown() {
    let server = Server::start();
    assert_eq!(server.shows(&["spread"]), "no tab is spread\n");
    server.shows(&["spread", "delay;to=MEM", "8"]);
    server.shows(&["spread", "delay;to=MEM", "1"]);
    let rules = server.shows(&["spread", "--prefix", "ads.", "16"]);
    assert_eq!(line(&rules, "delay;to=MEM"), ["delay;to=MEM", "-", "1", "8"]);
    assert_eq!(line(&rules, "-"), ["-", "ads.", "16", "16"]);
    assert_eq!(server.shows(&["spread"]), rules);
    server.fails(&["spread", "hot", "3"], 1, "power of two");
    server.fails(&["spread", "taba.recorded", "2"], 1, "ledger");
    server.fails(&["spread", "hot"], 2, "VBUCKETS");
}

#[test]
fn tables_show_what_the_server_says() {
    let server = Server::filled();
    let totals = server.shows(&["agg", "departures"]);
    assert_eq!(line(&totals, "departures")[1..], ["3", "7,500", "6", "7,500", "7,500", "1", "1", "1"]);
    assert!(totals.contains("as of 2001-09-09T01:46:40Z"));
    let delays = server.shows(&["agg", "--base", "delay"]);
    assert_eq!(line(&delays, "delay;to=JFK")[1..4], ["3", "1,500", "6"]);
    assert!(delays.contains("p99") && delays.contains("estimates within 0.54 %"), "{delays}");
    server.shows(&["agg"]);
    server.shows(&["agg", "delay;to=MEM"]);
    let groups = server.shows(&["agg", "--base=delay", "--by=to", "--label", "to=MEM"]);
    assert!(groups.contains("delay;to=MEM") && !groups.contains("JFK"));
    let one = server.shows(&["proj", "departures", "--client", "ATL"]);
    assert_eq!(line(&one, "departures")[1..4], ["ATL", "2,500", "2"]);
    assert!(server.shows(&["super", "--base", "delay"]).contains("delay;*"));
    let modes = server.shows(&["agg", "mode"]);
    assert!(modes.contains("gate × 2, taxi × 1") && modes.contains("2001-09-09T01:46:37Z"), "{modes}");
    assert_eq!(line(&server.shows(&["clients"]), "ATL"), ["ATL", "6"]);
    assert_eq!(
        line(&server.shows(&["names", "--re", "d.*s"]), "departures"),
        ["departures", "TotalsCounter"]
    );
    assert_eq!(line(&server.shows(&["types"]), "CounterGroup"), ["CounterGroup", "2", "true"]);
    assert!(server.shows(&["status"]).contains("vbuckets"));
    let ledger = server.shows(&["ledger"]);
    assert_eq!(line(&ledger, "total")[1..], ["27,030", "21,012", "6", "6,012", "0"]);
}

#[test]
fn json_is_what_the_server_sent() {
    let server = Server::filled();
    let json: serde_json::Value =
        serde_json::from_str(&server.shows(&["--json", "agg", "departures"])).unwrap();
    assert_eq!(json["results"][0]["value"]["total"], 7500.0);
    let then = ["--json", "--at", "999999000", "agg", "delay;to=JFK"];
    let json: serde_json::Value = serde_json::from_str(&server.shows(&then)).unwrap();
    assert_eq!(json["at"], "2001-09-09T01:30:00Z");
}

#[test]
fn deleting_and_pruning_say_how_much() {
    let server = Server::filled();
    assert_eq!(line(&server.shows(&["prune"]), "removed.states"), ["removed.states", "0"]);
    let removed = server.shows(&["delete", "departures", "--client", "ATL"]);
    assert_eq!(line(&removed, "removed.states")[1], "1");
    assert_eq!(line(&removed, "removed.events")[1], "2,500");
    assert_eq!(line(&server.shows(&["ledger", "--client", "ATL"]), "ATL")[5], "2,500");
}

#[test]
fn errors_have_a_message_and_a_code() {
    let server = Server::filled();
    server.fails(&["agg", "--re", "("], 1, "bad_regex");
    server.fails(&["names", "--at", "5"], 1, "unknown_parameter");
    server.fails(&["super"], 1, "mixed_types");
    server.fails(&["delete"], 1, "nothing_chosen");
    server.fails(&["delete", "taba.recorded"], 1, "reserved");
    server.fails(&["--json", "agg", "a b"], 1, "bad_parameter");
    server.fails(
        &["agg", "--server", "127.0.0.1:1"],
        1,
        "is it running? (--server or TABA_SERVER names another)",
    );
    server.fails(&["agg", "--server", "ftp://x"], 2, "write http://HOST:PORT");
    server.fails(&["frobnicate"], 2, "unrecognized subcommand");
    server.fails(&["agg", "--label", "to"], 2, "KEY=VALUE");
    server.fails(&[], 2, "Usage");
    let nothing = server.run(&["agg", "nothing"]);
    assert!(nothing.status.success() && String::from_utf8_lossy(&nothing.stderr).contains("nothing found"));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let server = Server::start();
    for i in 0..3000 {
        server.numbers(
            &format!("tab{i:05};label=long_enough_to_fill_the_buffer_of_a_pipe"),
            "TotalsCounter",
            "a",
            &[1.0],
        );
    }
    for args in [&["names"][..], &["--json", "agg"]] {
        let mut child = server.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
            (Some(0), ""),
            "{args:?}"
        );
    }
}

#[test]
fn a_watch_shows_changes_until_the_server_ends_it() {
    let server = Server::filled();
    let args = ["watch", "departures", "--every", "0.1"];
    let mut child = server.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut find = |text: &str| lines.any(|line| line.unwrap().contains(text));
    assert!(find("7,500"));
    server.numbers("departures", "TotalsCounter", "LAX", &[1.0]);
    assert!(find("7,501"));
    server.state.close();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "taba: the server ended the watch\n");
}

#[test]
fn texts_of_others_act_on_no_terminal() {
    let server = Server::filled();
    let text = "ok\u{1b}[2J\u{1b}]52;c;eA==\u{7}\r\n evil  9999  forged\u{9b}31m\u{202e}";
    let at = [Timestamp::from_secs(NOW - 3)];
    server.put("evil", "Gauge", "ATL", &at, &vec![Reading::Text(text.to_owned())]);
    let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    for args in [&["agg", "evil"][..], &["proj", "evil", "--detail"], &["agg"], &["names"], &["status"]] {
        let shown = server.shows(args);
        assert!(!shown.contains(acts), "{args:?}: {shown:?}");
        assert!(!shown.lines().any(|line| line.trim_start().starts_with("evil  9999")), "{shown}");
    }
    assert!(server.shows(&["agg", "evil"]).contains(r"ok\u{1b}[2J"));
    let output = server.run(&["agg", "--re", "\u{1b}[2J("]);
    assert!(!String::from_utf8(output.stderr).unwrap().contains('\u{1b}'));
}

#[test]
fn labels_are_shown_and_asked_for_as_their_texts() {
    let server = Server::filled();
    for city in ["Zürich", "São Paulo, 50%", ""] {
        let name = TabName::builder("shop").label("city", city).build().unwrap();
        server.numbers(name.as_str(), "TotalsCounter", "ATL", &[1.0]);
    }
    let shown = server.shows(&["agg", "--base", "shop"]);
    assert!(shown.contains("shop;city=Zürich") && shown.contains("shop;city=São Paulo, 50%"), "{shown}");
    assert!(server.shows(&["names"]).contains("shop;city=Zürich"));
    for (args, city) in [
        (&["agg", "--label", "city=Zürich"][..], "Zürich"),
        (&["agg", "--label", "city=São Paulo, 50%"], "São Paulo"),
        (&["agg", "shop;city=Zürich"], "Zürich"),
        (&["agg", "--re", "shop;city=Z.rich"], "Zürich"),
        (&["agg", "--base=shop", "--by=city", "--label", "city=Zürich"], "Zürich"),
    ] {
        let shown = server.shows(args);
        assert!(shown.contains(city) && shown.matches("shop;").count() == 1, "{args:?}: {shown}");
    }
    assert_eq!(line(&server.shows(&["agg", "--label", "city="]), "shop;city=")[1], "1");
}

#[test]
fn proxies_of_the_environment_are_not_used_and_the_one_that_is_is_named() {
    let server = Server::filled();
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"] {
        let output = server.command(&["names"]).env(name, "http://127.0.0.1:9").output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    server.fails(&["names", "--proxy", "http://127.0.0.1:9"], 1, "by the proxy http://127.0.0.1:9");
    server.fails(&["names", "--proxy", "what is this"], 2, "--proxy");
    server.fails(&["names", "--server", "what is this"], 2, "http://localhost:8300");
}

#[test]
fn a_watch_ends_with_its_reader() {
    let server = Server::filled();
    let mut child = server.command(&["watch", "mode"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().is_some());
    drop(lines);
    // Nothing changes any more: a write would never tell that the reader has gone.
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn settings_are_as_those_of_the_other_binaries() {
    let server = Server::filled();
    let run = |args: &[&str], name: &str, value: &str| {
        let output = server.command(args).env_remove("RUST_LOG").env(name, value).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = run(&["names", "--log=debug"], "NO_COLOR", "");
    assert!(code == Some(0) && text.contains("DEBUG") && !text.contains('\u{1b}'), "{text}");
    let (code, text) = run(&["names"], "RUST_LOG", "taba=debug");
    assert!(code == Some(0) && text.contains("DEBUG"), "{text}");
    let (code, text) = run(&["names", "--log=inof"], "NO_COLOR", "");
    assert!(code == Some(2) && text.contains("--log") && text.contains("inof"), "{text}");
    let (code, text) = run(&["names"], "TABA_LOG", "taba=loud");
    assert!(code == Some(2) && text.contains("TABA_LOG"), "{text}");
    assert_eq!(run(&["names"], "TABA_PROXY", ""), (Some(0), String::new()), "empty is not set");
    for args in [&["--print-config"][..], &["names", "--print-config"]] {
        let output = server.command(args).output().unwrap();
        let (code, text) = (output.status.code(), String::from_utf8(output.stdout).unwrap());
        assert!(code == Some(0) && text.contains("# the variable TABA_SERVER\n"), "{text}");
    }
    let output = server
        .command(&["status", "--server", "http://127.0.0.1:1"])
        .env("TABA_SERVER", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}

/// A stranger that says this to the first who asks, and then nothing any more.
fn silent(says: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(says.as_bytes()).unwrap();
        // It stays open until the other side closes it.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    url
}

/// A server whose time runs out twice: what it is asked, and what it says to each.
fn hurried() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, requests) = std::sync::mpsc::channel();
    let rest = |next: &str| {
        format!(r#","is_cut_short":true,"vbuckets_done":{next},"vbuckets":64,"next":"{next} b""#)
    };
    std::thread::spawn(move || {
        for rest in [rest("7"), rest("40"), String::new()] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let read = std::io::Read::read(&mut stream, &mut request).unwrap();
            let line = String::from_utf8_lossy(&request[..read]).lines().next().unwrap().to_owned();
            asked.send(line).unwrap();
            let body = format!(r#"{{"removed":{{"tabs":1,"states":5,"events":9,"damaged":0{rest}}}}}"#);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    (url, requests)
}

#[test]
fn a_removal_goes_on_until_nothing_is_left_and_tells_how_far_it_is() {
    for (command, path) in [(&["delete", "a"][..], "DELETE /v2/tabs?name=a"), (&["prune"], "POST /v2/prune")]
    {
        let (url, requests) = hurried();
        let mut taba = Command::new(env!("CARGO_BIN_EXE_taba"));
        let output = taba.args(command).args(["--server", &url]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let requests: Vec<String> = requests.iter().collect();
        let sign = if path.contains('?') { '&' } else { '?' };
        let expected = ["", "from=7%20b", "from=40%20b"].map(|from| match from {
            "" => format!("{path} HTTP/1.1"),
            from => format!("{path}{sign}{from} HTTP/1.1"),
        });
        assert_eq!(requests, expected);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(["removed.states", "removed.events"].map(|count| line(&text, count)[1]), ["15", "27"]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told, "7 of 64 vbuckets, 5 states removed\n40 of 64 vbuckets, 10 states removed\n");
    }
}

#[test]
fn a_server_that_falls_silent_holds_no_command_for_ever() {
    let server = Server::start();
    let silence = silent("");
    for command in ["names", "ledger", "watch"] {
        let url = silent("");
        server.fails(&[command, "--server", &url, "--timeout=100ms"], 1, "--timeout or TABA_TIMEOUT");
    }
    server.fails(&["record", "x", "--agent", &silence, "--timeout=100ms"], 1, "--timeout or TABA_TIMEOUT");
    let half = silent("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\n");
    server.fails(&["names", "--server", &half, "--timeout=100ms"], 1, "is incomplete");
    let half = silent("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\n");
    server.fails(&["names", "--json", "--server", &half, "--timeout=100ms"], 1, "is incomplete");
}

#[test]
fn a_watch_ends_when_not_even_signs_of_life_come_and_ignores_events_that_it_does_not_know() {
    let watch = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hello\n\nevent: tomorrow\ndata: what is this\n\n\
                 event: aggregate\ndata: {\"name\":\"x\",\"type\":\"T\",\"value\":{\"count\":7}}\n\n\
                 data: no name\n\nevent: missing\ndata: null\n\n";
    for args in [&["watch", "--idle=300ms"][..], &["watch", "--idle=300ms", "--json"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_taba"))
            .args(args)
            .args(["--server", &silent(watch)])
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.code() == Some(1) && err.contains("--idle"), "{err}");
        assert!(out.contains('7') && !out.contains("no name") && !out.contains("what is this"), "{out}");
        assert!(!err.contains("unknown"), "{err}");
    }
}

#[test]
fn what_is_not_found_suggests_base_and_what_was_asked_about_the_past_says_which_time() {
    let server = Server::filled();
    for args in [&["agg", "delay"][..], &["proj", "delay"], &["names", "delay"], &["delete", "delay"]] {
        let output = server.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.contains("--base delay"), "{args:?}: {text}");
    }
    let shown = server.shows(&["agg", "mode", "--at", "1000000060"]);
    assert!(shown.ends_with("windows and gauges at 2001-09-09T01:47:40Z (--at)\n"), "{shown}");
    let part = server.run(&["names", "--limit", "2"]);
    let text = String::from_utf8(part.stderr).unwrap();
    let from = text.split("--from ").nth(1).unwrap().trim().trim_matches('\'').to_owned();
    let rest = server.shows(&["names", "--from", &from]);
    let all = server.shows(&["names"]).lines().count();
    assert_eq!(String::from_utf8(part.stdout).unwrap().lines().count() + rest.lines().count() - 2, all);
    for list in ["proj", "types", "clients", "ledger"] {
        assert!(server.run(&[list, "--limit", "1"]).status.success(), "{list}");
    }
}

#[test]
fn headers_go_with_each_request_and_are_shown_nowhere() {
    let server = Server::filled();
    let listener = server.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let check = |request: axum::extract::Request, next: axum::middleware::Next| async move {
        let is_known = {
            let has =
                |name: &str, value: &str| request.headers().get(name).is_some_and(|found| found == value);
            has("authorization", "Bearer t0k3n") && has("x-tenant", "a")
        };
        if is_known {
            return Ok(next.run(request).await);
        }
        Err(axum::http::StatusCode::UNAUTHORIZED)
    };
    let routes = router(server.state.clone()).layer(axum::middleware::from_fn(check));
    server.runtime.spawn(axum::serve(listener, routes).into_future());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("taba.toml");
    std::fs::write(&file, "header = [\"Authorization: Bearer t0k3n\", \"X-Tenant: a\"]\n").unwrap();
    let token = "Authorization: Bearer t0k3n";
    for (args, variable) in [
        (&["names", "--header", token, "--header", "X-Tenant: a"][..], ""),
        (&["names"], "Authorization: Bearer t0k3n,X-Tenant: a"),
        (&["names", "--config", file.to_str().unwrap()], ""),
        (&["delete", "nothing", "--config", file.to_str().unwrap()], ""),
    ] {
        let run = |more: &[&str]| {
            let mut command = server.command(args);
            command.env("TABA_SERVER", &url).env("TABA_HEADER", variable).args(more).output().unwrap()
        };
        let output = run(&["--log=debug"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && !text.contains("t0k3n"), "{args:?}: {text}");
        assert!(!String::from_utf8(run(&["--print-config"]).stdout).unwrap().contains("t0k3n"));
    }
    server.fails(&["names", "--server", &url], 1, "status 401");
}

#[test]
fn the_doctor_names_a_clock_that_is_wrong() {
    let server = Server::filled();
    let output = server.run(&["doctor", "--timeout=5s"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("BAD   its clock is -") && text.contains("set right the one that is wrong"),
        "{text}"
    );
}
