//! An Agent delivers to one store: what it holds for one does not go to another, until somebody says that it shall.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use taba_core::wire::{Block, ClientBatch, Compression, Frame, Kind};
use taba_core::{ClientId, Events, SeqNo, TabName, TabType, Timestamp};
use taba_tests::{Process, Server, binary, free_port, wait_until};

fn get(port: u16, path: &str) -> Option<Value> {
    let mut answer = ureq::get(format!("http://127.0.0.1:{port}{path}"))
        .header("accept", "application/json")
        .call()
        .ok()?;
    answer.body_mut().read_json().ok()
}

fn agent(port: u16, servers: &[u16], spool: &Path, more: &[&str]) -> Process {
    let mut command = Command::new(binary("taba-agent"));
    let urls: Vec<String> = servers.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
    command.arg(format!("--listen=127.0.0.1:{port}")).arg(format!("--servers={}", urls.join(",")));
    command.arg("--spool-dir").arg(spool).args(["--backoff-min=20ms", "--backoff-max=200ms"]).args(more);
    let agent = Process::start("taba-agent", &mut command);
    wait_until("the agent answers", || get(port, "/v2/status").is_some());
    agent
}

/// Sends so many Tabs with an event each.
fn send(agent: u16, seq: u64, tabs: usize) {
    let client = ClientId::new("web").unwrap();
    let (time, sent_at) = ([Timestamp::from_secs(1_795_371_115)], Timestamp::from_secs(1_795_371_115));
    let block = |n: usize| {
        let tab = TabName::new(&format!("tab{n}")).unwrap();
        let events = Events::new(&time, &[1.0][..]);
        Block::of_events(tab, client.clone(), TabType::new("TotalsCounter").unwrap(), events).unwrap()
    };
    let blocks = (0..tabs).map(block).collect();
    let batch = ClientBatch::new(client.clone(), 7, SeqNo(seq), sent_at, blocks);
    let frame = Frame::encode(Kind::ClientBatch, &batch.encode(), Compression::None);
    let url = format!("http://127.0.0.1:{agent}/v2/events");
    ureq::post(&url).header("content-type", "application/x-taba").send(&frame[..]).unwrap();
}

/// Events that are folded in the store of this Server.
fn folded(server: u16) -> i64 {
    let ledger = get(server, "/v2/ledger?client=web").unwrap();
    ledger["results"].as_array().and_then(|all| all.first()?["folded"].as_i64()).unwrap_or_default()
}

fn store(server: u16) -> String {
    let said = get(server, "/v2/store").unwrap();
    assert_eq!(get(server, "/v2/status").unwrap()["store"], said["store"]);
    assert_eq!(said["vbuckets"], 1024);
    said["store"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_held_for_one_store_goes_to_no_other_until_somebody_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (port, spool) = (free_port(), directory.path().join("spool"));
    let first = Server::start(&directory.path().join("first"), free_port());
    let second = Server::start(&directory.path().join("second"), free_port());
    let mut to_first = agent(port, &[first.port], &spool, &[]);
    send(port, 1, 10);
    wait_until("it is stored", || folded(first.port) == 10);
    let known = store(first.port);
    assert_eq!(get(port, "/v2/status").unwrap()["store_id"], known.as_str());
    // The first store is away; what comes meanwhile is for it.
    drop(first);
    send(port, 2, 10);
    to_first.kill();

    // A wrong address: it is said before there is anything to send, and everything is kept.
    let mut to_second = agent(port, &[second.port], &spool, &[]);
    let is_said = || {
        let status = get(port, "/v2/status").unwrap();
        status["other_stores"].as_object().is_some_and(|others| others.len() == 1)
            && status["servers"][0]["last_error"].as_str().is_some_and(|why| why.contains("--store-id"))
    };
    wait_until("it is said", is_said);
    send(port, 3, 10);
    assert_eq!(get(port, "/v2/status").unwrap()["spool"]["events_unapplied"], 30);
    assert_eq!(folded(second.port), 0);
    to_second.kill();

    // Put right: it goes where it belongs.
    let first = Server::start(&directory.path().join("first"), free_port());
    assert_eq!(store(first.port), known, "a store keeps its identity");
    let mut right = agent(port, &[first.port], &spool, &[]);
    wait_until("all is stored, once", || folded(first.port) == 30);
    send(port, 4, 10);
    wait_until("it goes on", || folded(first.port) == 40);
    right.kill();

    // Accepted: what is held, and what was not confirmed yet, goes to the store that takes the place of the other one.
    let accepted = format!("--store-id={}", store(second.port));
    let mut accepting = agent(port, &[second.port], &spool, &[&accepted]);
    send(port, 5, 10);
    wait_until("the second store is delivered to", || folded(second.port) >= 10);
    accepting.kill();
    let _noted = agent(port, &[second.port], &spool, &[]);
    let before = folded(second.port);
    send(port, 6, 10);
    wait_until("it is noted", || folded(second.port) == before + 10);
}

#[test]
fn of_two_servers_with_different_stores_one_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let (port, spool) = (free_port(), directory.path().join("spool"));
    let first = Server::start(&directory.path().join("first"), free_port());
    let second = Server::start(&directory.path().join("second"), free_port());
    let _agent = agent(port, &[first.port, second.port], &spool, &[]);
    send(port, 1, 200);
    wait_until("it is stored", || folded(first.port) + folded(second.port) == 200);
    assert!(folded(first.port) == 0 || folded(second.port) == 0, "all of it is in one store");
    let status = get(port, "/v2/status").unwrap();
    assert_eq!(status["other_stores"].as_object().map(serde_json::Map::len), Some(1), "{status}");
}

#[test]
fn a_backup_that_is_put_back_is_the_same_store() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"), free_port());
    let (backup, restored) = (directory.path().join("backup"), directory.path().join("restored"));
    let tool = |args: &[&str]| {
        let done = Command::new(binary("taba-server")).args(args).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    let url = format!("http://127.0.0.1:{}", server.port);
    tool(&["backup", "--server", &url, "--to", backup.to_str().unwrap()]);
    tool(&["restore", "--from", backup.to_str().unwrap(), "--data-dir", restored.to_str().unwrap()]);
    let again = Server::start(&restored, free_port());
    assert_eq!(store(again.port), store(server.port));
}

#[test]
fn a_server_takes_nothing_that_is_meant_for_another_store() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"), free_port());
    let frame = Frame::encode(Kind::Lanes, &taba_core::wire::Lanes::default().encode(), Compression::None);
    for path in ["lanes", "check"] {
        let post = |meant: &str| {
            let request = ureq::post(format!("http://127.0.0.1:{}/v2/{path}", server.port));
            let request = request.config().http_status_as_error(false).build();
            let request = request.header("content-type", "application/x-taba").header("taba-store", meant);
            let answer = request.send(&frame[..]).unwrap();
            assert_eq!(answer.headers()["taba-store"], store(server.port).as_str());
            assert_eq!(answer.headers()["taba-vbuckets"], "1024");
            answer.status().as_u16()
        };
        assert_eq!(post("1"), 409);
        assert_eq!(post(&store(server.port)), 200);
        assert_eq!(post("not a store"), 200, "what nobody can read is not compared");
    }
}

/// What the store had and has not any more is still at the Agent; nothing new is recorded, so nothing would be sent before
/// `confirm-after` (here a quarter of an hour) is over.
#[test]
fn a_store_that_forgot_gets_back_what_agents_keep_as_soon_as_they_meet_its_server() {
    let directory = tempfile::tempdir().unwrap();
    let server = |data: &Path, port: u16| {
        if data.as_os_str().is_empty() {
            let mut command = Command::new(binary("taba-server"));
            let process = Process::start(
                "taba-server",
                command.arg(format!("--listen=127.0.0.1:{port}")).arg("--store=memory"),
            );
            wait_until("the server answers", || get(port, "/v2/status").is_some());
            return Server { process, port };
        }
        Server::start(data, port)
    };
    let tool = |args: &[&str]| {
        let done = Command::new(binary("taba-server")).args(args).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    for is_memory in [true, false] {
        let of = |name: &str| directory.path().join(format!("{name}-{is_memory}"));
        let data = if is_memory { Path::new("").to_owned() } else { of("data") };
        let (port, first) = (free_port(), server(&data, free_port()));
        let patience = ["--confirm-after=15m", "--probe-interval=100ms"];
        let _agent = agent(port, &[first.port], &of("spool"), &patience);
        // An older copy of an embedded store is put back; one in memory begins anew.
        let (at, url, backup, restored) = (first.port, first.url(), of("backup"), of("restored"));
        if !is_memory {
            tool(&["backup", "--server", &url, "--to", backup.to_str().unwrap()]);
            tool(&["restore", "--from", backup.to_str().unwrap(), "--data-dir", restored.to_str().unwrap()]);
        }
        send(port, 1, 10);
        wait_until("it is stored", || folded(at) == 10);
        drop(first);
        let _second = server(if is_memory { &data } else { &restored }, at);
        wait_until("it is stored again", || folded(at) == 10);
    }
}
