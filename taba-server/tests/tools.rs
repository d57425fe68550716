//! The commands of the real binary: backup, restore, check, adopt.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lanes;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lanes::process::Process;
use lanes::{batch, block, tab_in};
use taba_core::VBuckets;
use taba_core::wire::{Answer, LaneBatch};
use taba_tests::redis::{Options, Redis};
use taba_tests::wait_until;
use tempfile::TempDir;

const LANES: [u16; 5] = [0, 1, 31, 32, 63];

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_taba-server"))
}

/// Runs a command to its end; its code and what it said.
fn tool(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = program().args(args).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn start(store: &[&str]) -> Process {
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--vbuckets", "64", "--commit-interval", "2ms"]).args(store);
    Process::start(command)
}

fn embedded(dir: &Path) -> Process {
    start(&["--data-dir", dir.to_str().unwrap()])
}

/// The Batch of this number for one Lane: three events.
fn lane(vbucket: u16, seq: u64) -> LaneBatch {
    let tab = tab_in(VBuckets::new(64).unwrap(), vbucket, "t");
    batch(0xbac0, vbucket, seq, 3 * (seq - 1), vec![block(&tab, "web", &[1.0, 2.0, seq as f64])])
}

fn all(seq: u64) -> Vec<LaneBatch> {
    LANES.map(|vbucket| lane(vbucket, seq)).to_vec()
}

#[test]
fn a_backup_that_is_made_while_events_come_in_ends_with_exact_totals_or_a_loss_by_name() {
    let dir = TempDir::new().unwrap();
    let server = embedded(&dir.path().join("first"));
    let (acked, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let backup = dir.path().join("store.backup");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seq = 0;
            while !enough.load(Ordering::Relaxed) {
                seq += 1;
                assert!(server.send(&all(seq)).iter().all(|ack| ack.answer == Answer::Applied));
                acked.store(seq, Ordering::Relaxed);
            }
        });
        let reaches = |count: u64| wait_until("batches are taken", || acked.load(Ordering::Relaxed) >= count);
        reaches(5);
        let (code, said) = tool(&["backup", "--server", &server.url(), "--to", backup.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{said}");
        reaches(acked.load(Ordering::Relaxed) + 5);
        enough.store(true, Ordering::Relaxed);
    });
    let last = acked.load(Ordering::Relaxed);
    let (code, said) = tool(&["backup", "--server", &server.url(), "--to", backup.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("--to names another file"), "{said}");
    drop(server);

    let restored = dir.path().join("restored");
    let restore = |to: &Path| {
        tool(&["restore", "--from", backup.to_str().unwrap(), "--data-dir", to.to_str().unwrap()])
    };
    let (code, said) = restore(&restored);
    assert!(code == Some(0) && said.contains("--vbuckets 64"), "{said}");
    assert_eq!(restore(&restored).0, Some(1), "a store that is there is left alone");
    // An Agent that kept everything: each Lane goes on where its mark is.
    let server = embedded(&restored);
    for ack in server.send(&all(last)) {
        assert!(ack.applied.0 >= 5 && ack.applied.0 < last, "{ack:?} of {last}");
        for seq in ack.applied.0 + 1..=last {
            assert_eq!(server.send(&[lane(ack.vbucket, seq)])[0].answer, Answer::Applied);
        }
    }
    let tabs = server.get("/v2/tabs");
    assert_eq!(tabs.matches(&format!("events {}", 3 * last)).count(), 5, "{tabs}");
    assert!(!server.get("/v2/ledger").contains("gap"));
    drop(server);
    // An Agent that had let go of what came after the backup: that is a loss, by name.
    let again = dir.path().join("again");
    assert_eq!(restore(&again).0, Some(0));
    let server = embedded(&again);
    let lost: u64 = server.send(&all(last)).iter().map(|ack| 3 * (last - ack.applied.0)).sum();
    let beyond = LANES.map(|vbucket| lane(vbucket, last + 1).with_base(taba_core::SeqNo(last + 1)));
    assert!(server.send(&beyond).iter().all(|ack| ack.answer == Answer::Applied));
    let ledger = server.get("/v2/ledger");
    assert!(ledger.contains(&format!("dropped in agent, gap: {lost}")), "{lost}: {ledger}");
    drop(server);

    // A backup that was cut off, altered, or is something else.
    let bytes = std::fs::read(&backup).unwrap();
    let mut altered = bytes.clone();
    altered[bytes.len() / 2] ^= 1;
    for (bytes, words) in
        [(&bytes[..bytes.len() - 9], "cut off"), (&altered[..], ""), (b"a diary", "no backup")]
    {
        std::fs::write(&backup, bytes).unwrap();
        let to = dir.path().join("none");
        let (code, said) = restore(&to);
        assert!(code == Some(1) && said.contains(words), "{said}");
        assert!(!to.join("taba.redb").exists(), "nothing is left");
    }
}

#[test]
fn check_and_adopt_of_an_embedded_store() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().to_str().unwrap();
    let flags = ["--data-dir", data, "--vbuckets", "64"];
    let run = |command: &str, more: &[&str]| tool(&[&[command], &flags[..], more].concat());
    let (code, said) = run("check", &[]);
    assert!(code == Some(1) && said.contains("there is no store"), "{said}");
    assert!(!dir.path().join("taba.redb").exists(), "checking makes nothing");
    let server = embedded(dir.path());
    server.send(&all(1));
    let (code, said) = run("check", &[]);
    assert!(code == Some(1) && said.contains("is open already"), "{said}");
    drop(server);
    let (code, said) = run("check", &[]);
    assert!(
        code == Some(0)
            && said.contains("nothing is damaged")
            && said.contains("5 states with 15 events, 5 marks"),
        "{said}"
    );
    assert!(run("adopt", &[]).1.contains("nothing to do"), "the store is healthy");
    // Its file is gone: refused, until somebody says that a new one is wanted.
    std::fs::remove_file(dir.path().join("taba.redb")).unwrap();
    let (code, said) = tool(&[&["--listen", "127.0.0.1:0"], &flags[..]].concat());
    assert!(
        code == Some(1) && said.contains("taba-server restore") && said.contains("taba-server adopt"),
        "{said}"
    );
    assert!(run("adopt", &[]).1.contains("--yes lets"));
    assert_eq!(run("adopt", &["--yes"]).0, Some(0));
    drop(embedded(dir.path()));
    assert!(run("adopt", &["--yes"]).1.contains("nothing to do"));
}

#[test]
fn adopt_and_check_of_shards_that_a_server_refuses() {
    let mut redis = Redis::start_many(2, &Options::durable());
    let urls = redis.iter().map(Redis::url).collect::<Vec<_>>().join(",");
    let flags = ["--store", "redis", "--redis", &urls, "--vbuckets", "64"];
    let store = ["--store", "redis", "--redis", &urls];
    let run = |command: &str, more: &[&str]| tool(&[&[command], &flags[..], more].concat());
    let refused = || tool(&[&["--listen", "127.0.0.1:0"], &flags[..]].concat()).1;
    // Two bootstraps in other orders, as servers of before made them.
    for (redis, halves) in redis.iter().zip([[7, 8], [8, 7]]) {
        for n in 0..64_u16 {
            let of = format!("64 {:016x}", halves[usize::from(n / 32)]);
            redis.command(&[
                "HSET",
                &format!("{{vb{n:04}}}"),
                "ver",
                "0000000000000000-0",
                "own",
                "1",
                "of",
                &of,
            ]);
        }
    }
    assert!(refused().contains("taba-server adopt"), "{}", refused());
    let (code, said) = run("adopt", &[]);
    assert!(code == Some(0) && said.contains("nothing was changed"), "{said}");
    assert!(refused().contains("taba-server adopt"));
    assert_eq!(run("adopt", &["--yes"]).0, Some(0));
    let server = start(&store);
    assert!(server.send(&all(1)).iter().all(|ack| ack.answer == Answer::Applied));
    drop(server);
    // Index keys are gone, and one State is damaged.
    let holder = |vbucket: u16| {
        let name = format!("{{vb{vbucket:04}}}");
        redis.iter().position(|redis| redis.command(&["EXISTS", &name]) == "1").unwrap()
    };
    let (first, other) = (holder(0), holder(63));
    redis[first].command(&["DEL", "{vb0000}.streams", "{vb0000}.tabs"]);
    let (code, said) = run("check", &[]);
    assert!(code == Some(0) && said.contains("3 missing index entries were written again"), "{said}");
    let state = format!("s:{} web", tab_in(VBuckets::new(64).unwrap(), 63, "t"));
    redis[other].command(&["HSET", "{vb0063}", &state, "x"]);
    let (code, said) = run("check", &[]);
    assert!(code == Some(1) && said.contains("a state of"), "{said}");
    // A head is damaged: that VBucket waits until it is mended, with all that is in it.
    redis[first].command(&["HSET", "{vb0000}", "own", "many"]);
    let server = start(&store);
    let acks = server.send(&all(2));
    assert_eq!(acks.iter().filter(|ack| ack.answer == Answer::Applied).count(), 4, "{acks:?}");
    drop(server);
    assert_eq!(run("adopt", &["--yes"]).0, Some(0));
    let server = start(&store);
    let acks = server.send(&all(2));
    assert_eq!((acks[0].answer, acks[0].applied.0), (Answer::Applied, 2), "{acks:?}");
    drop(server);
    // A shard is empty: its VBuckets are made anew, and the others stay.
    redis[other].restart_empty();
    assert!(refused().contains("taba-server adopt"), "{}", refused());
    // There is no shard map that says whether these are all: it has to be said.
    let (code, said) = run("adopt", &["--yes"]);
    assert!(code == Some(1) && said.contains("--recreate-empty"), "{said}");
    assert_eq!(run("adopt", &["--yes", "--recreate-empty"]).0, Some(0));
    let server = start(&store);
    let text = server.get("/v2/tabs");
    assert!(text.contains("events 6") && !text.contains("missing"), "{text}");
    // A mark is damaged: its VBucket takes nothing until it is removed, which may be done while a server runs.
    drop(server);
    let fields = redis[first].command(&["HKEYS", "{vb0000}"]);
    let mark = fields
        .split(|c: char| !c.is_ascii_hexdigit() && c != ':')
        .find(|word| word.starts_with("a:"))
        .unwrap();
    redis[first].command(&["HSET", "{vb0000}", mark, "x"]);
    let server = start(&store);
    assert_eq!(server.send(&all(3))[0].answer, Answer::Unavailable);
    assert!(run("check", &[]).1.contains("taba-server mend"));
    let (code, said) = run("mend", &[]);
    assert!(code == Some(0) && said.contains("1 marks would be removed; repeat with --yes"), "{said}");
    assert_eq!(server.send(&all(3))[0].answer, Answer::Unavailable);
    assert!(run("mend", &["--yes"]).1.contains("1 marks were removed"));
    assert!(run("mend", &[]).1.contains("no mark is damaged"));
    assert_eq!(server.send(&all(3))[0].answer, Answer::Nak, "it wants the oldest that its sender still has");
}
