//! The real binaries over a network that loses, repeats, cuts, delays and reorders, and under `kill -9`: every total is
//! exact, and the Ledger balances.
//!
//! Can this fail? It did: a Client that gave up a Batch because it had been cut on its way dropped 1,203 of 11,629
//! events here. The last test folds one Batch a second time, under a new number, and sees the count move by exactly its
//! events, so one Batch too many or too few anywhere shows in the sums of the first. And the first asserts that each
//! fault has happened on each way, and that Agent and Server met Batches again that they had taken before.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use taba_client::{Client, Config};
use taba_core::wire::{Answer, Block, Compression, Frame, Kind, LaneBatch, Lanes, decode_acks};
use taba_core::{ClientId, Events, SeqNo, StreamId, TabName, TabType, Timestamp, VBuckets};
use taba_tests::proxy::{Fault, Proxy, chance};
use taba_tests::{Account, Agent, Server, free_port, wait_until};

const SEED: u64 = 20_261_124;
const CLIENTS: usize = 3;
const THREADS: usize = 2;
/// Each thread records this often, and then waits until something has moved, so that there are many Batches.
const ROUNDS: usize = 32;
/// Events of each kind in a round.
const EVENTS: usize = 200;
const TABS: usize = 8;
const KILLS: u64 = 5;

fn client(id: &str, agent: &str) -> Client {
    let mut config = Config::default();
    config.flush_interval = Duration::from_millis(20);
    config.request_timeout = Duration::from_secs(2);
    config.backoff_min = Duration::from_millis(5);
    config.backoff_max = Duration::from_millis(50);
    let handlers = taba_handlers::standard().build().unwrap();
    Client::builder(id).agent(agent).handlers(handlers).config(config).build().unwrap()
}

/// What event number `n` of a Tab adds: no sum of halves up to 2^53 is rounded.
fn amount(n: usize) -> f64 {
    (n % 7) as f64 + 0.5
}

fn record(client: &Client, thread: usize, to_server: &Proxy) {
    let totals: Vec<_> = (0..TABS).map(|n| client.totals(format!("total-{n}")).unwrap()).collect();
    let counters: Vec<_> = (0..TABS).map(|n| client.counter(format!("count-{n}")).unwrap()).collect();
    let gauge = client.gauge(format!("gauge;of={};thread={thread}", client.id())).unwrap();
    let start = now();
    for round in 0..ROUNDS {
        let (acked, requests) = (client.stats().acked, to_server.requests());
        for n in 0..EVENTS {
            totals[n % TABS].add(amount(n));
            counters[n % TABS].add(amount(n));
        }
        // A time of its own: the clock of a Client is too coarse to tell two rounds apart for certain.
        gauge.set_at(start.saturating_add(Duration::from_micros(round as u64)), round as f64);
        wait_until("something moved on both ways", || {
            let stats = client.stats();
            assert_eq!(stats.dropped.total(), 0, "a fault of the network is no reason to drop: {stats:?}");
            stats.acked > acked && to_server.requests() > requests
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "the real processes have real clocks")]
fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_micros(since_epoch.as_micros() as i64)
}

/// Kills the Server at moments that the seed chooses, in requests that came by since it answered again.
fn kill_now_and_then(
    mut server: Server,
    directory: &std::path::Path,
    requests: &Proxy,
    over: &AtomicBool,
) -> Server {
    for kill in 0..KILLS {
        let moment = requests.requests() + 2 + chance(SEED, kill) % 8;
        wait_until("some requests came by", || requests.requests() >= moment || over.load(Ordering::Relaxed));
        let port = server.port;
        server.process.kill();
        server = Server::start(directory, port);
    }
    server
}

fn row(server: &Server, tab: &str) -> Value {
    server.get(&format!("/v2/tabs?name={tab}"))["results"][0]["value"].clone()
}

#[test]
fn a_bad_network_and_a_server_killed_again_and_again_change_no_total() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), free_port());
    let to_server = Proxy::start(server.port, SEED);
    let agent = Agent::start(free_port(), &[to_server.url()]);
    let to_agent = Proxy::start(agent.port, SEED + 1);
    let clients: Vec<_> = (0..CLIENTS).map(|n| client(&format!("web-{n}"), &to_agent.url())).collect();

    let over = AtomicBool::new(false);
    let server = thread::scope(|scope| {
        let killer = scope.spawn(|| kill_now_and_then(server, directory.path(), &to_server, &over));
        thread::scope(|recording| {
            let to_server = &to_server;
            for client in &clients {
                for thread in 0..THREADS {
                    recording.spawn(move || record(client, thread, to_server));
                }
            }
        });
        over.store(true, Ordering::Relaxed);
        killer.join().unwrap()
    });
    // A quiet network, so that the end comes soon; and its many faults are behind us.
    to_agent.calm();
    to_server.calm();

    let each = (THREADS * ROUNDS * (2 * EVENTS + 1)) as i64;
    let expected = Account { recorded: each, folded: each, dropped: 0, in_flight: 0 };
    for client in &clients {
        let id = client.id().as_str();
        let seen = || server.account(id);
        wait_until("the ledger balances", || seen() == expected || seen().folded > expected.folded);
        assert_eq!(seen(), expected, "{id}: {:?}", client.stats());
    }
    for tab in 0..TABS {
        let of_tab = || (0..EVENTS).filter(|n| n % TABS == tab);
        let times = CLIENTS * THREADS * ROUNDS;
        let (count, total) = (times * of_tab().count(), times as f64 * of_tab().map(amount).sum::<f64>());
        let totals = row(&server, &format!("total-{tab}"));
        assert_eq!((totals["count"].as_u64(), totals["total"].as_f64()), (Some(count as u64), Some(total)));
        let day = row(&server, &format!("count-{tab}"))["1d"].clone();
        assert_eq!((day["count"].as_u64(), day["total"].as_f64()), (Some(count as u64), Some(total)));
    }
    for client in &clients {
        for thread in 0..THREADS {
            let gauge = row(&server, &format!("gauge%3Bof%3D{}%3Bthread%3D{thread}", client.id()));
            assert_eq!(gauge["value"].as_f64(), Some((ROUNDS - 1) as f64), "{gauge}");
        }
    }
    the_network_was_bad(&agent, &to_agent, &to_server);
}

fn the_network_was_bad(agent: &Agent, to_agent: &Proxy, to_server: &Proxy) {
    for (way, proxy) in [("client to agent", to_agent), ("agent to server", to_server)] {
        for fault in Fault::ALL {
            assert!(proxy.count(fault) > 0, "{fault:?} never happened from {way}");
        }
    }
    let mut answer = ureq::get(format!("{}/v2/status", agent.url())).call().unwrap();
    let status: Value = answer.body_mut().read_json().unwrap();
    assert!(status["batches"]["repeated"].as_u64() > Some(0), "the agent knew no batch again: {status}");
    let duplicates = status["lane_batches"]["answered"]["duplicate"].as_u64();
    assert!(duplicates > Some(0), "no server knew a batch again: {status}");
}

/// Sends a Batch of three events as an Agent does.
fn send(server: &Server, seq: u64) -> Answer {
    let tab = TabName::new("twice").unwrap();
    let vbucket = VBuckets::default().of(&tab).index();
    let (times, values) = ([Timestamp::from_secs(1); 3], [1.0; 3]);
    let (client, tab_type) = (ClientId::new("web").unwrap(), TabType::new("TotalsCounter").unwrap());
    let block = Block::of_events(tab, client, tab_type, Events::new(&times, &values)).unwrap();
    let (stream, base, events_before) = (StreamId(7), SeqNo(seq), 3 * (seq - 1));
    let batch = LaneBatch::new(stream, vbucket, SeqNo(seq), events_before, vec![block]).with_base(base);
    let frame = Frame::encode(Kind::Lanes, &Lanes::new(now(), vec![batch]).encode(), Compression::None);
    let post = ureq::post(format!("{}/v2/lanes", server.url())).header("content-type", "application/x-taba");
    let body = post.send(&frame[..]).unwrap().body_mut().read_to_vec().unwrap();
    let acks = decode_acks(&Frame::decode(&body.into(), Kind::Acks).unwrap().message).unwrap();
    acks[0].answer
}

#[test]
fn a_batch_that_is_folded_twice_shows_in_the_count() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), free_port());
    let count = || (row(&server, "twice")["count"].as_u64(), server.account("web").folded);
    assert_eq!((send(&server, 1), count()), (Answer::Applied, (Some(3), 3)));
    assert_eq!((send(&server, 1), count()), (Answer::Duplicate, (Some(3), 3)));
    assert_eq!((send(&server, 2), count()), (Answer::Applied, (Some(6), 6)));
}
