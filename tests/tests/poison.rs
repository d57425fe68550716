//! What a Server fails on is found, taken out and counted, and everything else goes on: a Handler that ends the process,
//! a proxy that takes no large requests, one that takes nothing with a certain word in it.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use taba_core::wire::{Block, ClientBatch, Compression, Frame, Kind};
use taba_core::{ClientId, Event, Events, Handler, SeqNo, TabName, TabType, Timestamp};
use taba_server::{EmbeddedOptions, EmbeddedStore};
use taba_tests::{Process, binary, free_port, wait_until};

/// The value that ends the process of the Server that folds it.
const DEADLY: f64 = 666.0;

/// Counts, and ends the process at one value.
struct Brittle;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Count {
    n: u64,
}

impl Handler for Brittle {
    type Value = f64;
    type State = Count;
    type Projection = Count;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Count, event: Event<&f64>) {
        if *event.value == DEADLY {
            std::process::abort();
        }
        state.n += 1;
    }
    fn merge(&self, into: &mut Count, other: &Count) {
        into.n += other.n;
    }
    fn project(&self, state: &Count, _: Timestamp) -> Count {
        state.clone()
    }
    fn aggregate(&self, into: &mut Count, other: &Count) {
        into.n += other.n;
    }
    fn encoded_bytes_max(&self) -> usize {
        10
    }
}

const SERVER: &str = "TABA_TEST_SERVER";

/// No test, but the Server process of the others: this binary runs it, and nothing else, in a process of its own.
#[test]
fn server_process() {
    let Ok(setting) = std::env::var(SERVER) else { return };
    let (port, directory) = setting.split_once(' ').unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let handlers = taba_handlers::standard().with("Brittle", Brittle).build().unwrap();
        let store = EmbeddedStore::open(directory, EmbeddedOptions::default()).unwrap();
        let server = taba_server::Server::builder().store(store).handlers(handlers).build().unwrap();
        let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await.unwrap();
        axum::serve(listener, server.router()).await.unwrap();
    });
}

/// A Server that is started again whenever it has ended.
struct Supervised {
    port: u16,
    is_over: Arc<AtomicBool>,
    starts: Arc<AtomicUsize>,
    supervisor: Option<thread::JoinHandle<()>>,
}

impl Supervised {
    fn start(directory: &Path) -> Self {
        let port = free_port();
        let (is_over, starts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let setting = format!("{port} {}", directory.display());
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&starts));
        let supervisor = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["--exact", "server_process"]).env(SERVER, &setting);
                let mut server = Process::start("server", &mut command);
                count.fetch_add(1, Ordering::Relaxed);
                while server.is_running() && !over.load(Ordering::Relaxed) {
                    pause();
                }
            }
        });
        let server = Self { port, is_over, starts, supervisor: Some(supervisor) };
        wait_until("the server answers", || get(port, "/v2/status").is_some());
        server
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.supervisor.take().map(thread::JoinHandle::join);
    }
}

#[expect(clippy::disallowed_methods, reason = "a supervisor looks now and then")]
fn pause() {
    thread::sleep(Duration::from_millis(10));
}

fn get(port: u16, path: &str) -> Option<Value> {
    let mut answer = ureq::get(format!("http://127.0.0.1:{port}{path}"))
        .header("accept", "application/json")
        .call()
        .ok()?;
    answer.body_mut().read_json().ok()
}

fn agent(port: u16, server: u16, spool: &Path, more: &[&str]) -> Process {
    let mut command = Command::new(binary("taba-agent"));
    command.arg("--listen").arg(format!("127.0.0.1:{port}"));
    command.arg("--servers").arg(format!("http://127.0.0.1:{server}"));
    command.arg("--spool-dir").arg(spool).args(["--backoff-min=20ms", "--backoff-max=200ms"]).args(more);
    let agent = Process::start("taba-agent", &mut command);
    wait_until("the agent answers", || get(port, "/v2/status").is_some());
    agent
}

fn block(tab: &str, client: &str, tab_type: &str, values: &[f64]) -> Block {
    let times: Vec<_> = (0..values.len() as i64).map(|n| Timestamp::from_secs(1_795_371_115 + n)).collect();
    let (tab, client) = (TabName::new(tab).unwrap(), ClientId::new(client).unwrap());
    Block::of_events(tab, client, TabType::new(tab_type).unwrap(), Events::new(&times, values)).unwrap()
}

/// Sends Blocks to an Agent as a Client does, with what they hold as recorded.
fn send(agent: u16, client: &str, seq: u64, mut blocks: Vec<Block>) {
    let events: u64 = blocks.iter().map(|block| block.events).sum();
    blocks.push(block("taba.recorded", client, "TotalsCounter", &[events as f64]));
    let (client, sent_at) = (ClientId::new(client).unwrap(), Timestamp::from_secs(1_795_371_115));
    let batch = ClientBatch::new(client, 7, SeqNo(seq), sent_at, blocks);
    post(agent, &Frame::encode(Kind::ClientBatch, &batch.encode(), Compression::None));
}

fn post(agent: u16, frame: &[u8]) {
    let url = format!("http://127.0.0.1:{agent}/v2/events");
    ureq::post(&url).header("content-type", "application/x-taba").send(frame).unwrap();
}

/// An account of the Ledger: recorded, folded, dropped by the Agent as poison, in flight.
fn account(server: u16, client: &str) -> Option<[i64; 4]> {
    let ledger = get(server, &format!("/v2/ledger?client={client}"))?;
    let account = ledger["results"].as_array()?.first()?.clone();
    let poison = |lost: &&Value| lost["where"] == "agent" && lost["why"] == "poison";
    let dropped = account["dropped"].as_array()?.iter().filter(poison);
    let dropped = dropped.map(|lost| lost["events"].as_i64().unwrap()).sum();
    let number = |field: &str| account[field].as_i64();
    Some([number("recorded")?, number("folded")?, dropped, number("in_flight")?])
}

#[test]
fn a_block_that_ends_the_process_is_found_and_everything_else_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let server = Supervised::start(&directory.path().join("store"));
    let (port, spool) = (free_port(), directory.path().join("spool"));
    let _agent = agent(port, server.port, &spool, &[]);
    // Many Lanes; in the one of the bad Block also good ones, of the same Tab and of others.
    let good = |n: usize| block(&format!("tab{n}"), "web", "Brittle", &[1.0; 5]);
    let mut blocks: Vec<_> = (0..300).map(good).collect();
    blocks.insert(150, block("tab149", "web", "Brittle", &[1.0, DEADLY, 2.0]));
    send(port, "web", 1, blocks);
    let expected = [1503, 1500, 3, 0];
    wait_until("all else is folded", || account(server.port, "web") == Some(expected));
    let starts = server.starts.load(Ordering::Relaxed);
    assert!((2..=22).contains(&starts), "the server was started {starts} times");
    // It is over: what comes next is folded as ever.
    send(port, "web", 2, (0..300).map(good).collect());
    wait_until("it goes on", || account(server.port, "web") == Some([3003, 3000, 3, 0]));
    assert_eq!(server.starts.load(Ordering::Relaxed), starts);
    let aside = &get(port, "/v2/status").unwrap()["set_aside"];
    assert_eq!((&aside["batches"], &aside["blocks"], &aside["events"]), (&1.into(), &1.into(), &3.into()));
    assert_eq!((&aside["last"]["tab"], &aside["last"]["client"]), (&"tab149".into(), &"web".into()));
    let kept = spool.join("set-aside");
    wait_until("it is kept", || kept.is_dir() && kept.read_dir().unwrap().count() == 2);
}

/// An Agent that was started once with another number of VBuckets, larger or smaller, and then with the right one.
#[test]
fn a_setting_that_is_put_right_heals_without_loss() {
    for wrong in ["4096", "64"] {
        let directory = tempfile::tempdir().unwrap();
        let server = taba_tests::Server::start(&directory.path().join("store"), free_port());
        let (port, spool) = (free_port(), directory.path().join("spool"));
        let blocks = |n: i64| {
            let blocks = (0..200).map(|tab| block(&format!("tab{tab}"), "web", "TotalsCounter", &[1.0; 5]));
            send(port, "web", n as u64, blocks.collect());
        };
        let setting = format!("--vbuckets={wrong}");
        let mut first = agent(port, server.port, &spool, &[&setting, "--shutdown-timeout=200ms"]);
        blocks(1);
        let misplaced = || {
            let status = get(port, "/v2/status").unwrap();
            let answered = status["lane_batches"]["answered"]["misplaced"].as_u64().unwrap();
            answered > 0 && status["vbuckets_of_servers"] == 1024
        };
        wait_until("the server says that the setting is wrong", misplaced);
        blocks(2);
        // Killed, or asked to stop: what was not taken is in the Spool.
        if wrong == "64" {
            first.kill();
        } else {
            assert!(first.terminate());
        }
        let mut right = agent(port, server.port, &spool, &[]);
        blocks(3);
        let all = || account(server.port, "web").unwrap_or_default() == [3000, 3000, 0, 0];
        wait_until("all is counted, once", all);
        let status = get(port, "/v2/status").unwrap();
        assert!(status["events_cut_anew"].as_u64().unwrap() > 0, "{status}");
        // Nothing of it comes again.
        right.kill();
        let _again = agent(port, server.port, &spool, &[]);
        blocks(4);
        wait_until("it goes on", || account(server.port, "web").unwrap_or_default() == [4000, 4000, 0, 0]);
    }
}

/// A proxy that turns some requests away.
struct Gate {
    port: u16,
    turned_away: Arc<AtomicU64>,
}

impl Gate {
    /// Before this port; `status` says for a body with which status it is turned away, if it is.
    fn start(upstream: u16, status: impl Fn(&[u8]) -> Option<u16> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let turned_away = Arc::new(AtomicU64::new(0));
        let (count, status) = (Arc::clone(&turned_away), Arc::new(status));
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (count, status) = (Arc::clone(&count), Arc::clone(&status));
                thread::spawn(move || {
                    let mut from = BufReader::new(socket.unwrap());
                    while let Some((head, body)) = read_message(&mut from) {
                        let answer = match status(&body) {
                            Some(status) => {
                                count.fetch_add(1, Ordering::Relaxed);
                                format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n").into_bytes()
                            }
                            None => {
                                let Ok(mut to) = TcpStream::connect(("127.0.0.1", upstream)) else { return };
                                to.write_all(&[head, body].concat()).unwrap();
                                let (head, body) = read_message(&mut BufReader::new(to)).unwrap();
                                [head, body].concat()
                            }
                        };
                        if from.get_mut().write_all(&answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, turned_away }
    }
}

/// The head and the body of a request or an answer.
fn read_message(from: &mut BufReader<TcpStream>) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut head, mut bytes) = (Vec::new(), 0);
    loop {
        let start = head.len();
        if from.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&head[start..]).trim().to_ascii_lowercase();
        if let Some(length) = line.strip_prefix("content-length:") {
            bytes = length.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; bytes];
    from.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// Values that do not compress.
fn noise(seed: u64, count: usize) -> Vec<f64> {
    (0..count as u64).map(|n| (taba_tests::proxy::chance(seed, n) >> 12) as f64 / 3.0).collect()
}

#[test]
fn what_is_too_large_for_a_proxy_is_split_and_what_cannot_be_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let server = taba_tests::Server::start(&directory.path().join("store"), free_port());
    let gate = Gate::start(server.port, |body| (body.len() > 20_000).then_some(413));
    let (port, spool) = (free_port(), directory.path().join("spool"));
    let _agent = agent(port, gate.port, &spool, &["--compression=none"]);
    // Many Lanes, together too large; one Lane whose Batch is too large; one Block that is too large by itself.
    let small = (0..100).map(|n| block(&format!("tab{n}"), "web", "TotalsCounter", &noise(n, 100)));
    send(port, "web", 1, small.collect());
    let same_tab = (0..10).map(|n| block("one", "web", "TotalsCounter", &noise(n, 1000)));
    send(port, "web", 2, same_tab.collect());
    send(port, "web", 3, vec![block("giant", "web", "TotalsCounter", &noise(7, 10_000))]);
    let expected = [30_000, 20_000, 10_000, 0];
    wait_until("all but the giant is folded", || account(server.port, "web") == Some(expected));
    let status = get(port, "/v2/status").unwrap();
    assert_eq!(status["set_aside"]["blocks"], 1);
    assert_eq!(status["set_aside"]["last"]["tab"], "giant");
    assert!(status["servers"][0]["request_bytes_max"].as_u64().unwrap() <= 20_000, "{status}");
    let before = gate.turned_away.load(Ordering::Relaxed);
    assert!(before < 60, "{before} requests were turned away");
    // It knows by now.
    let small = (0..100).map(|n| block(&format!("tab{n}"), "web", "TotalsCounter", &noise(n, 100)));
    send(port, "web", 4, small.collect());
    wait_until("it goes on", || account(server.port, "web") == Some([40_000, 30_000, 10_000, 0]));
    assert!(gate.turned_away.load(Ordering::Relaxed) <= before + 1);
}

#[test]
fn a_block_that_a_proxy_turns_away_is_found_and_everything_else_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let server = taba_tests::Server::start(&directory.path().join("store"), free_port());
    let word = b"forbidden";
    let gate = Gate::start(server.port, move |body| body.windows(9).any(|part| part == word).then_some(400));
    let (port, spool) = (free_port(), directory.path().join("spool"));
    let _agent = agent(port, gate.port, &spool, &["--compression=none"]);
    let mut blocks: Vec<_> =
        (0..100).map(|n| block(&format!("tab{n}"), "web", "TotalsCounter", &[1.0; 5])).collect();
    blocks.insert(50, block("this;is=forbidden", "web", "TotalsCounter", &[1.0; 7]));
    send(port, "web", 1, blocks);
    wait_until("all else is folded", || account(server.port, "web") == Some([507, 500, 7, 0]));
    let status = get(port, "/v2/status").unwrap();
    assert_eq!(status["set_aside"]["last"]["tab"], "this;is=forbidden");
    let turned_away = gate.turned_away.load(Ordering::Relaxed);
    assert!(turned_away < 30, "{turned_away} requests were turned away");
}

/// Runs `taba-agent set-aside …` for the Agent on this port, and gives its exit code, standard output and standard error.
fn set_aside(command: &[&str], port: u16, spool: &Path) -> (i32, String, String) {
    let mut tool = Command::new(binary("taba-agent"));
    tool.arg("set-aside").args(command).arg("--spool-dir").arg(spool).env_remove("RUST_LOG");
    let output = tool.arg(format!("--listen=127.0.0.1:{port}")).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Names of the files that are set aside.
fn names(port: u16, spool: &Path) -> Vec<String> {
    let (code, list, said) = set_aside(&["list"], port, spool);
    assert_eq!(code, 0, "{said}");
    list.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// A Server behind a proxy that turns away whatever has a certain word in it, until that is mended.
fn forbidding(directory: &Path) -> (taba_tests::Server, Gate, Arc<AtomicBool>) {
    let server = taba_tests::Server::start(&directory.join("store"), free_port());
    let is_mended = Arc::new(AtomicBool::new(false));
    let (word, mended) = (b"forbidden", Arc::clone(&is_mended));
    let gate = Gate::start(server.port, move |body| {
        let has_word = body.windows(word.len()).any(|part| part == word);
        (has_word && !mended.load(Ordering::Relaxed)).then_some(400)
    });
    (server, gate, is_mended)
}

#[test]
fn set_aside_says_where_there_is_no_spool() {
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("not-there");
    for command in [&["list"][..], &["show", "x"], &["drop", "x"], &["retry", "--all"]] {
        let (code, list, said) = set_aside(command, 1, &spool);
        assert_eq!((code, list.as_str()), (1, ""), "{command:?}");
        assert!(said.contains("not-there") && said.contains("--spool-dir"), "{said}");
    }
}

#[test]
fn what_was_set_aside_is_sent_again_by_a_command_and_counts_once() {
    let directory = tempfile::tempdir().unwrap();
    let (server, gate, is_mended) = forbidding(directory.path());
    let (port, spool) = (free_port(), directory.path().join("spool"));
    let mut first = agent(port, gate.port, &spool, &["--compression=none"]);
    let forbidden = |n: usize| block("this;is=forbidden", "web", "TotalsCounter", &vec![1.0; n]);
    send(port, "web", 1, vec![block("good", "web", "TotalsCounter", &[1.0; 5]), forbidden(7)]);
    wait_until("it is set aside", || account(server.port, "web") == Some([12, 5, 7, 0]));
    let is_ready =
        || !names(port, &spool).is_empty() && !set_aside(&["list"], port, &spool).1.contains("not ready");
    wait_until("its file is ready", is_ready);
    let (_, list, _) = set_aside(&["list"], port, &spool);
    for word in ["client=web", "tabs=this;is=forbidden", "events=7", "400", "GMT", "batch=1"] {
        assert!(list.contains(word), "{word}: {list}");
    }
    let name = names(port, &spool).remove(0);
    let (_, shown, _) = set_aside(&["show", &name], port, &spool);
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["events"], 7, "{shown}");
    let file = spool.join("set-aside").join(format!("{name}.taba"));
    let copy = std::fs::read(&file).unwrap();

    is_mended.store(true, Ordering::Relaxed);
    let (code, _, said) = set_aside(&["retry", &name], port, &spool);
    assert_eq!(code, 0, "{said}");
    let expected = Some([19, 12, 7, 0]);
    wait_until("it is folded", || account(server.port, "web") == expected);
    assert!(!file.exists() && names(port, &spool).is_empty(), "the file is gone");
    // Sent again from a copy, to this run and to the next: it is recognised.
    std::fs::write(&file, &copy).unwrap();
    assert_eq!(set_aside(&["retry", "--all"], port, &spool).0, 0);
    first.kill();
    std::fs::write(&file, &copy).unwrap();
    let (code, _, said) = set_aside(&["retry", &name], port, &spool);
    assert!(code == 1 && said.contains("no agent answers") && file.exists(), "{said}");
    let _second = agent(port, gate.port, &spool, &["--compression=none"]);
    assert_eq!(set_aside(&["retry", &name], port, &spool).0, 0);
    // What comes behind it has come, and it was not counted again.
    send(port, "web", 2, vec![block("this;is=forbidden", "web", "TotalsCounter", &[1.0])]);
    wait_until("it goes on", || account(server.port, "web") == Some([20, 13, 7, 0]));
    let (code, _, said) = set_aside(&["drop", &name], port, &spool);
    assert!(code == 1 && said.contains("there is no"), "{said}");
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.metadata().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A Block is in its Batch, or in a file that can be sent again, and never in none or in both, whenever the Agent ends.
#[test]
fn a_block_leaves_its_batch_only_once_it_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (server, gate, is_mended) = forbidding(directory.path());
    let (port, spool) = (free_port(), directory.path().join("spool"));
    // A disk that does not take the file: the directory cannot be made.
    std::fs::create_dir_all(&spool).unwrap();
    std::fs::write(spool.join("set-aside"), "in the way").unwrap();
    let mut first = agent(port, gate.port, &spool, &["--compression=none"]);
    let forbidden = || block("this;is=forbidden", "web", "TotalsCounter", &[1.0; 7]);
    send(port, "web", 1, vec![block("good", "web", "TotalsCounter", &[1.0; 5]), forbidden()]);
    send(port, "other", 1, vec![block("good", "other", "TotalsCounter", &[1.0; 3])]);
    wait_until("all other lanes go on", || account(server.port, "other") == Some([3, 3, 0, 0]));
    wait_until("it is found", || gate.turned_away.load(Ordering::Relaxed) >= 5);
    let status = get(port, "/v2/status").unwrap();
    assert_eq!(status["set_aside"]["events"], 0, "it is nowhere else yet: {status}");
    first.kill();
    let before = directory.path().join("before");
    copy_directory(&spool, &before);
    std::fs::remove_file(before.join("set-aside")).unwrap();

    // Killed when the Block had left its Batch, and the file had not its last name yet: the next run gives it that.
    std::fs::remove_file(spool.join("set-aside")).unwrap();
    let mut second = agent(port, gate.port, &spool, &["--compression=none"]);
    wait_until("it is set aside", || account(server.port, "web") == Some([12, 5, 7, 0]));
    let file = |spool: &Path, end: &str| {
        let files = std::fs::read_dir(spool.join("set-aside")).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.extension().is_some_and(|found| found == end))
    };
    wait_until("its file is ready", || file(&spool, "taba").is_some());
    second.kill();
    let ready = file(&spool, "taba").unwrap();
    let pending = ready.with_extension("pending");
    std::fs::rename(&ready, &pending).unwrap();
    // And killed when the file was there, and the Block had not left its Batch yet: it may be delivered with that.
    let earlier = before.join("set-aside").join(pending.file_name().unwrap());
    std::fs::create_dir_all(before.join("set-aside")).unwrap();
    std::fs::copy(&pending, &earlier).unwrap();
    let mut third = agent(port, gate.port, &spool, &["--compression=none"]);
    assert!(ready.exists() && !pending.exists());
    third.kill();
    is_mended.store(true, Ordering::Relaxed);
    let fresh = taba_tests::Server::start(&directory.path().join("fresh"), free_port());
    let store = get(fresh.port, "/v2/store").unwrap()["store"].as_str().unwrap().to_owned();
    let _fourth = agent(port, fresh.port, &before, &[&format!("--store-id={store}")]);
    wait_until("it is delivered with its batch", || account(fresh.port, "web") == Some([12, 12, 0, 0]));
    assert!(names(port, &before).is_empty(), "it cannot be sent a second time");
}
