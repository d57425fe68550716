//! A Handler that changes in production: Servers of its old and its new version on one store, Clients of both.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::process::Command;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use taba_core::wire::{Block, ClientBatch, Compression, Content, Frame, Kind};
use taba_core::{
    ClientId, Event, Events, Handler, MemoryStore, Registry, SeqNo, StateError, Store, TabName, TabType,
    Timestamp, decode_state, encode_state,
};
use taba_server::Server;
use taba_tests::{Process, binary, free_port, wait_until};

/// Visits as they were counted first.
struct Visits1;

/// Visits, and since version 2 how long they took in all.
struct Visits2;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Count {
    visits: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Stay {
    visits: u64,
    seconds: u64,
}

impl Handler for Visits1 {
    type Value = f64;
    type State = Count;
    type Projection = Count;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Count, _: Event<&f64>) {
        state.visits += 1;
    }
    fn merge(&self, into: &mut Count, other: &Count) {
        into.visits += other.visits;
    }
    fn project(&self, state: &Count, _: Timestamp) -> Count {
        state.clone()
    }
    fn aggregate(&self, into: &mut Count, other: &Count) {
        self.merge(into, other);
    }
    fn encoded_bytes_max(&self) -> usize {
        10
    }
}

impl Handler for Visits2 {
    type Value = f64;
    type State = Stay;
    type Projection = Stay;
    const VERSION: u16 = 2;

    fn fold(&self, state: &mut Stay, event: Event<&f64>) {
        state.visits += 1;
        state.seconds += *event.value as u64;
    }
    fn merge(&self, into: &mut Stay, other: &Stay) {
        into.visits += other.visits;
        into.seconds += other.seconds;
    }
    fn project(&self, state: &Stay, _: Timestamp) -> Stay {
        state.clone()
    }
    fn aggregate(&self, into: &mut Stay, other: &Stay) {
        self.merge(into, other);
    }
    fn encoded_bytes_max(&self) -> usize {
        20
    }
    fn upgrade(&self, version: u16, bytes: &[u8]) -> Result<Stay, StateError> {
        match version {
            Visits1::VERSION => {
                decode_state(&Visits1, version, bytes).map(|old| Stay { visits: old.visits, seconds: 0 })
            }
            _ => Err(StateError::UnknownVersion { found: version, known: Self::VERSION }),
        }
    }
}

fn registry(version: u16) -> Registry {
    let standard = taba_handlers::standard();
    let builder = match version {
        1 => standard.with("Visits", Visits1),
        _ => standard.with("Visits", Visits2),
    };
    builder.build().unwrap()
}

/// Starts a Server of this version on a port.
fn serve(runtime: &tokio::runtime::Runtime, store: &Arc<dyn Store>, version: u16, port: u16) -> Server {
    let server = Server::builder().shared_store(Arc::clone(store)).handlers(registry(version));
    let (server, listener) = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        (server.build().unwrap(), listener)
    });
    let router = server.router();
    runtime.spawn(async move { axum::serve(listener, router).await });
    server
}

fn get(port: u16, path: &str) -> Value {
    let answer = ureq::get(format!("http://127.0.0.1:{port}{path}")).header("accept", "application/json");
    answer.call().unwrap().body_mut().read_json().unwrap()
}

fn block(tab: &str, tab_type: &str, values: &[f64]) -> Block {
    let times = vec![Timestamp::from_secs(1_795_371_115); values.len()];
    let (tab, client) = (TabName::new(tab).unwrap(), ClientId::new("web").unwrap());
    Block::of_events(tab, client, TabType::new(tab_type).unwrap(), Events::new(&times, values)).unwrap()
}

/// A partial State of the new version, as a Client folds it.
fn newer_block(tab: &str) -> Block {
    let bytes = encode_state(&Stay { visits: 5, seconds: 50 }).into();
    {
        let mut block = block(tab, "Visits", &[10.0; 5]);
        block.content = Content::State { version: 2, bytes };
        block
    }
}

fn send(agent: u16, seq: u64, mut blocks: Vec<Block>) {
    let events: u64 = blocks.iter().map(|block| block.events).sum();
    blocks.push(block("taba.recorded", "TotalsCounter", &[events as f64]));
    let (client, sent_at) = (ClientId::new("web").unwrap(), Timestamp::from_secs(1_795_371_115));
    let batch = ClientBatch::new(client, 7, SeqNo(seq), sent_at, blocks);
    let frame = Frame::encode(Kind::ClientBatch, &batch.encode(), Compression::None);
    let url = format!("http://127.0.0.1:{agent}/v2/events");
    ureq::post(&url).header("content-type", "application/x-taba").send(&frame[..]).unwrap();
}

/// What the Ledger says of the Client: folded, events dropped, in flight.
fn account(server: u16) -> [i64; 3] {
    let ledger = get(server, "/v2/ledger?client=web");
    let account = &ledger["results"][0];
    let dropped = account["dropped"].as_array().into_iter().flatten();
    let dropped = dropped.filter_map(|lost| lost["events"].as_i64()).sum();
    [account["folded"].as_i64().unwrap_or(-1), dropped, account["in_flight"].as_i64().unwrap_or(-1)]
}

#[test]
fn a_server_that_meets_a_newer_version_drops_nothing_and_the_next_server_takes_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let (old, new, agent) = (free_port(), free_port(), free_port());
    let old_server = serve(&runtime, &store, 1, old);
    let mut command = Command::new(binary("taba-agent"));
    command.arg("--listen").arg(format!("127.0.0.1:{agent}"));
    command.arg("--servers").arg(format!("http://127.0.0.1:{old},http://127.0.0.1:{new}"));
    command.args(["--spool=memory", "--backoff-min=20ms", "--backoff-max=100ms"]);
    let _agent = Process::start("taba-agent", &mut command);
    wait_until("the agent answers", || {
        ureq::get(format!("http://127.0.0.1:{agent}/v2/status")).call().is_ok()
    });

    // Some Clients have the new version before any Server has it.
    let visited = |n: usize| block(&format!("visited{n}"), "Visits", &[10.0; 5]);
    let mut blocks: Vec<_> = (0..50).map(visited).collect();
    blocks.extend((0..50).map(|n| block(&format!("plain{n}"), "TotalsCounter", &[1.0; 5])));
    blocks.extend((0..10).map(|n| newer_block(&format!("newer{n}"))));
    send(agent, 1, blocks);
    let waits = |of: &str| get(agent, "/v2/status")["servers"][0]["waits_for"].to_string().contains(of);
    wait_until("the agent says what it waits for", || waits("its upgrade"));
    wait_until("what waits is tried again", || {
        get(old, "/v2/status")["ingest"]["batches_newer"].as_u64() > Some(20)
    });
    // A Lane that waits holds all that is in its next Batch; another Tab may share that VBucket.
    wait_until("the other lanes go on", || account(old)[0] >= 5 * 85);
    let [folded, dropped, _] = account(old);
    assert!(folded <= 5 * 100, "nothing of what is newer is folded");
    assert_eq!(dropped, 0);

    // The first Server of the new version takes what waits; the old one goes on with all else.
    let new_server = serve(&runtime, &store, 2, new);
    wait_until("all is folded", || account(new) == [550, 0, 0]);
    wait_until("nothing waits", || !waits("its upgrade"));

    // What is stored is of the new version now: Clients of the old one lose nothing either.
    let mut again: Vec<_> = (0..10).map(|n| block(&format!("newer{n}"), "Visits", &[10.0; 5])).collect();
    again.extend((0..50).map(visited));
    send(agent, 2, again);
    wait_until("all is folded", || account(new) == [850, 0, 0]);
    let shown = get(new, "/v2/projections?name=newer0")["results"][0]["value"].clone();
    assert_eq!((&shown["visits"], &shown["seconds"]), (&10.into(), &100.into()));
    let status = get(agent, "/v2/status");
    assert_eq!(status["set_aside"]["batches"], 0, "nobody is to blame: {status}");
    for server in [old, new] {
        assert_eq!(get(server, "/v2/status")["ingest"]["events_refused"], 0);
    }
    drop((old_server, new_server));
}
