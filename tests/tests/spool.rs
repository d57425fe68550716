//! What somebody does to the files of a Spool while its Agent is down, with the real programs: the Agent starts, delivers
//! all that is intact, and the Ledger says what each Client lost.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use taba_core::wire::{Block, ClientBatch, Compression, Frame, Kind};
use taba_core::{ClientId, Events, SeqNo, TabName, TabType, Timestamp};
use taba_tests::{Process, Server, binary, free_port, wait_until};

const CLIENTS: [&str; 2] = ["web-1", "web-2"];
const BATCHES: u64 = 40;
const TABS: usize = 100;
const EVENTS: usize = 60;
/// What one Client records.
const RECORDED: u64 = BATCHES * (TABS * EVENTS) as u64;

fn get(port: u16, path: &str) -> Option<Value> {
    let mut answer = ureq::get(format!("http://127.0.0.1:{port}{path}"))
        .header("accept", "application/json")
        .call()
        .ok()?;
    answer.body_mut().read_json().ok()
}

/// An Agent with segments of 1 MiB, which merges nothing.
fn agent(port: u16, server: u16, spool: &Path) -> Process {
    let mut command = Command::new(binary("taba-agent"));
    command.arg("--listen").arg(format!("127.0.0.1:{port}"));
    command.arg("--servers").arg(format!("http://127.0.0.1:{server}"));
    command.arg("--spool-dir").arg(spool).args(["--spool-bytes-max=16MiB", "--merge-after=10m"]);
    command.args(["--backoff-max=200ms", "--confirm-after=0s", "--probe-interval=20ms"]);
    let agent = Process::start("taba-agent", &mut command);
    wait_until("the agent answers", || get(port, "/v2/status").is_some());
    agent
}

fn block(tab: &str, client: &str, tab_type: &str, values: &[f64]) -> Block {
    let times: Vec<_> = (0..values.len() as i64).map(|n| Timestamp::from_secs(1_795_371_115 + n)).collect();
    let (tab, client) = (TabName::new(tab).unwrap(), ClientId::new(client).unwrap());
    Block::of_events(tab, client, TabType::new(tab_type).unwrap(), Events::new(&times, values)).unwrap()
}

/// Sends a Batch as a Client does, with what it holds as recorded.
fn send(agent: u16, client: &str, seq: u64) {
    let values: Vec<f64> = (0..EVENTS).map(|n| (n as f64 + seq as f64).sqrt()).collect();
    let mut blocks: Vec<_> =
        (0..TABS).map(|tab| block(&format!("tab{tab}"), client, "TotalsCounter", &values)).collect();
    blocks.push(block("taba.recorded", client, "TotalsCounter", &[(TABS * EVENTS) as f64]));
    let (client, sent_at) = (ClientId::new(client).unwrap(), Timestamp::from_secs(1_795_371_115));
    let batch = ClientBatch::new(client, 7, SeqNo(seq), sent_at, blocks);
    let frame = Frame::encode(Kind::ClientBatch, &batch.encode(), Compression::None);
    let url = format!("http://127.0.0.1:{agent}/v2/events");
    ureq::post(&url).header("content-type", "application/x-taba").send(&frame).unwrap();
}

fn segments(spool: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "spool")).collect();
    files.sort();
    files
}

/// Whether the Agent has noted that the whole of the last segment is synced: number and length stand in its lock file.
fn is_synced(spool: &Path) -> bool {
    let (last, noted) = (segments(spool).pop().unwrap(), fs::read(spool.join("lock")).unwrap());
    let number = |at: usize| u64::from_le_bytes(noted[at..at + 8].try_into().unwrap());
    let name = last.file_stem().unwrap().to_str().unwrap().to_owned();
    (u64::from_str_radix(&name, 16).unwrap(), fs::metadata(&last).unwrap().len()) == (number(16), number(24))
}

/// Records while no Server is there, kills the Agent, does this to its segments, and lets it deliver what it has. Gives its
/// status after the start, the account of each Client (recorded, folded, dropped as damaged), and how many copies of
/// damaged bytes there are.
fn after(surgery: impl FnOnce(&[PathBuf])) -> (Value, Vec<[u64; 3]>, usize) {
    let directory = tempfile::tempdir().unwrap();
    let (port, server, spool) = (free_port(), free_port(), directory.path().join("spool"));
    let mut first = agent(port, server, &spool);
    for seq in 1..=BATCHES {
        CLIENTS.iter().for_each(|client| send(port, client, seq));
    }
    wait_until("the disk has synced it", || is_synced(&spool));
    first.kill();
    let files = segments(&spool);
    assert!(files.len() >= 4, "{files:?}");
    surgery(&files);
    let server = Server::start(&directory.path().join("store"), server);
    let _agent = agent(port, server.port, &spool);
    let status = get(port, "/v2/status").unwrap();
    wait_until("all is delivered", || get(port, "/v2/status").unwrap()["spool"]["events_held"] == 0);
    let number = |value: &Value| value.as_u64().unwrap();
    let account = |client: &&str| {
        let account = server.get(&format!("/v2/ledger?client={client}"))["results"][0].clone();
        assert_eq!(account["in_flight"], 0, "{account}");
        let dropped = account["dropped"].as_array().unwrap();
        assert!(dropped.iter().all(|lost| lost["why"] == "damaged"), "{account}");
        let dropped = dropped.iter().map(|lost| number(&lost["events"])).sum();
        [number(&account["recorded"]), number(&account["folded"]), dropped]
    };
    let accounts = CLIENTS.iter().map(account).collect();
    let damaged = fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path());
    (status, accounts, damaged.filter(|path| path.extension().is_some_and(|end| end == "damaged")).count())
}

#[test]
fn a_segment_that_is_missing_is_counted_for_each_client() {
    let (status, accounts, _) = after(|segments| fs::remove_file(&segments[1]).unwrap());
    let damage = &status["damage"];
    assert_eq!(
        (&damage["segments_missing"], &damage["events_unknown"]),
        (&1.into(), &false.into()),
        "{damage}"
    );
    for (client, [recorded, folded, dropped]) in CLIENTS.iter().zip(accounts) {
        assert_eq!((recorded, folded + dropped), (RECORDED, RECORDED), "{client}");
        assert!(dropped > 0, "{client} lost nothing: {damage}");
        assert_eq!(damage["clients"][client], dropped);
    }
}

#[test]
fn segments_that_are_swapped_doubled_or_have_no_head_lose_nothing() {
    let (status, accounts, damaged) = after(|segments| {
        let other = segments[0].with_file_name("of another name.spool");
        fs::rename(&segments[0], &other).unwrap();
        fs::rename(&segments[1], &segments[0]).unwrap();
        fs::copy(&segments[2], segments[2].with_file_name("00000000000000ff.spool")).unwrap();
        let mut last = fs::read(&segments[3]).unwrap();
        last[12] ^= 1;
        fs::write(&segments[3], last).unwrap();
    });
    assert_eq!(status["damage"]["segments_misnamed"], 3, "{status}");
    assert_eq!(accounts, [[RECORDED, RECORDED, 0]; 2]);
    assert_eq!(damaged, 1, "the head; the copy is the same as what it was copied from");
}

#[test]
fn an_end_that_is_missing_is_said_and_nobody_knows_how_much_it_was() {
    let (status, accounts, _) = after(|segments| fs::remove_file(segments.last().unwrap()).unwrap());
    assert_eq!(status["damage"]["events_unknown"], true, "{status}");
    assert!(accounts.iter().all(|[recorded, folded, dropped]| recorded == folded && *dropped == 0));
    assert!(accounts.iter().any(|[recorded, ..]| *recorded < RECORDED));
}
