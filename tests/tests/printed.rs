//! Names and values are untrusted: no text that a program of the family shows acts on a terminal or forges a line, be it an answer,
//! metrics, output of a tool or a log.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::path::Path;
use std::process::Command;

use taba_tests::{Agent, Process, Server, binary, free_port, wait_until};

/// Of each kind one: C0, DEL, C1, and what turns the direction of a line.
const EVIL: &str =
    "a\u{1b}[2J\u{7}\r\nFORGED\t\u{8}\u{7f}\u{85}\u{9b}31m\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{feff}z";

fn acts(c: char) -> bool {
    c != '\n' && c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[track_caller]
fn assert_inert(what: &str, text: &str) {
    let found: String = text.chars().filter(|c| acts(*c)).flat_map(char::escape_unicode).collect();
    assert!(found.is_empty(), "{what}: {found} in {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("FORGED")), "{what}: {text}");
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn text_at(url: &str, path: &str) -> String {
    let get = ureq::get(&format!("{url}{path}")).header("accept", "text/plain");
    let answer = get.config().http_status_as_error(false).build().call();
    answer.unwrap().body_mut().read_to_string().unwrap()
}

/// What a program prints, on both of its streams.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(binary(program)).args(arguments).output().unwrap();
    let all = [output.stdout, output.stderr].concat();
    String::from_utf8(all).unwrap()
}

fn started(name: &str, arguments: &[&str], log: &Path) -> Process {
    let mut command = Command::new(binary(name));
    command.args(["--log", "debug"]).args(arguments);
    Process::start_logged(name, &mut command, log)
}

#[test]
fn nothing_that_others_named_or_recorded_acts_where_it_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (log_of_server, log_of_agent) =
        (directory.path().join("server.log"), directory.path().join("agent.log"));
    let (port, listen) = (free_port(), free_port());
    let (data, spool) = (directory.path().join("data"), directory.path().join("spool"));
    let address = format!("127.0.0.1:{port}");
    let process =
        started("taba-server", &["--listen", &address, "--data-dir", data.to_str().unwrap()], &log_of_server);
    let server = Server { process, port };
    let (own, to) = (format!("127.0.0.1:{listen}"), server.url());
    let arguments = ["--listen", &own, "--servers", &to, "--spool-dir", spool.to_str().unwrap()];
    let agent = Agent { process: started("taba-agent", &arguments, &log_of_agent), port: listen };
    wait_until("both answer", || {
        [server.url(), agent.url()].iter().all(|url| ureq::get(&format!("{url}/v2/status")).call().is_ok())
    });

    let evil = serde_json::json!(EVIL);
    let lines = [
        format!("{{\"tab\":\"mood\",\"type\":\"Gauge\",\"value\":{evil}}}"),
        format!("{{\"tab\":\"level\",\"type\":\"ExpiryGauge\",\"value\":{evil}}}"),
        format!("{{\"tab\":\"sold\",\"labels\":{{\"to\":{evil}}},\"value\":1}}"),
        format!("{{\"tab\":{evil},\"value\":1}}"),
        format!("{{\"tab\":\"x\",\"type\":{evil},\"value\":1}}"),
        format!("{{\"tab\":\"x\",\"client\":{evil},\"value\":1}}"),
        format!("{{\"tab\":\"sold\",\"value\":{evil}}}"),
        format!("{{\"tab\":\"sold\",\"time\":{evil},\"value\":1}}"),
        EVIL.replace('\n', ""),
    ];
    let record =
        ureq::post(&format!("{}/v2/record", agent.url())).header("content-type", "application/x-ndjson");
    let answer = record.config().http_status_as_error(false).build().send(lines.join("\n")).unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    wait_until("it is stored", || text_at(&server.url(), "/v2/tabs?base=sold").contains("sold"));

    let name = encoded(EVIL);
    for path in
        ["tabs", "projections", "names", "clients", "types", "ledger", "status", "spread", "super?base=sold"]
    {
        assert_inert(path, &text_at(&server.url(), &format!("/v2/{path}")));
    }
    for query in [
        "name",
        "base",
        "type",
        "client",
        "at",
        "by",
        "limit",
        "re=true&name",
        "label.to",
        "label.x%1b",
        "from",
    ] {
        assert_inert(query, &text_at(&server.url(), &format!("/v2/tabs?{query}={name}")));
    }
    assert_inert("a path", &text_at(&server.url(), &format!("/{name}")));
    assert_inert("a parameter", &text_at(&server.url(), &format!("/v2/tabs?{name}=1")));
    assert_inert("group-by", &text_at(&server.url(), "/v2/tabs?base=sold&by=to"));
    for labels in ["base=sold", "base=sold&by=to"] {
        let metrics = text_at(&server.url(), &format!("/metrics?{labels}"));
        assert!(metrics.contains("FORGED"), "the label is there: {metrics}");
        assert_inert("metrics", &metrics);
    }
    assert_inert("metrics", &text_at(&agent.url(), "/metrics"));
    assert_inert("a client", &text_at(&agent.url(), &format!("/v2/record?client={name}")));

    let (of_server, of_agent) = (format!("--server={}", server.url()), format!("--agent={}", agent.url()));
    for command in ["agg", "proj", "names", "clients", "types", "ledger", "status", "spread", "doctor"] {
        for more in [&[][..], &["--json"]] {
            let arguments = [&[of_server.as_str(), &of_agent, command], more].concat();
            assert_inert(command, &output("taba", &arguments));
        }
    }
    for arguments in [
        &["agg", EVIL][..],
        &["agg", "--detail"],
        &["proj", "--client", EVIL],
        &["agg", "--re", EVIL],
        &["super", "--base", "sold"],
        &["agg", "--base", "sold", "--by", "to"],
        &["record", EVIL, "1"],
        &["record", "mood", EVIL, "--type", EVIL],
        &["delete", EVIL],
        &["prune", "--base", EVIL],
        &[EVIL],
        &["--at", EVIL, "agg"],
    ] {
        let arguments = [&[of_server.as_str(), &of_agent], arguments].concat();
        assert_inert(&format!("{arguments:?}"), &output("taba", &arguments));
    }
    for (program, flag) in [
        ("taba-server", "--listen"),
        ("taba-agent", "--servers"),
        ("taba-shard", "--redis"),
        ("taba", "--server"),
    ] {
        for value in [EVIL, &format!("http://127.0.0.1:1/{EVIL}"), &format!("redis://{EVIL}")] {
            assert_inert(program, &output(program, &[flag, value, "status"]));
        }
    }
    for log in [&log_of_server, &log_of_agent] {
        let text = std::fs::read_to_string(log).unwrap();
        assert!(!text.is_empty());
        assert_inert("a log", &text);
    }
}
