//! From the body of a request to a committed `MemoryStore`: the Server's whole path but for the socket.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use taba_bench::{Figure, cpu_seconds, noise, now, print_machine};
use taba_core::wire::{Answer, Block, Compression, Frame, Kind, LaneBatch, Lanes, decode_acks};
use taba_core::{ClientId, Events, MemoryStore, SeqNo, StreamId, TabName, TabType, Timestamp, VBuckets};
use taba_server::Server;
use tower::ServiceExt;

const LANES: usize = 64;
const BLOCKS: usize = 8;
const BLOCK_EVENTS: usize = 1_000;
const REQUESTS: usize = 40;
const ROUNDS: usize = 7;
const EVENTS: usize = LANES * BLOCKS * BLOCK_EVENTS;

/// The Tabs of the bench, by the VBucket they live in: as many lanes as there are, each with so many Tabs.
fn tabs(vbuckets: VBuckets) -> Vec<(u16, Vec<TabName>)> {
    let mut by_vbucket: Vec<Vec<TabName>> = vec![Vec::new(); usize::from(vbuckets.count())];
    for n in 0..100_000 {
        let tab = TabName::new(&format!("bids_won;exchange=x{n}")).expect("a tab name");
        by_vbucket[usize::from(vbuckets.of(&tab).index())].push(tab);
    }
    let full = by_vbucket.into_iter().enumerate().filter(|(_, tabs)| tabs.len() >= BLOCKS);
    full.take(LANES).map(|(index, tabs)| (index as u16, tabs[..BLOCKS].to_vec())).collect()
}

/// One request: the next Batch of every Lane. `value` makes the values.
fn request(seq: u64, tab_type: &str, tabs: &[(u16, Vec<TabName>)], value: fn(usize) -> f64) -> Vec<u8> {
    let client = ClientId::new("web-01").expect("a client id");
    let tab_type = TabType::new(tab_type).expect("a tab type");
    let start = 1_795_371_115_000_000 + seq as i64 * 250_000;
    let times: Vec<_> = (0..BLOCK_EVENTS).map(|n| Timestamp::from_micros(start + n as i64 * 250)).collect();
    let batch = |(vbucket, tabs): &(u16, Vec<TabName>)| {
        LaneBatch::new(
            StreamId(7),
            *vbucket,
            SeqNo(seq),
            (seq - 1) * (BLOCKS * BLOCK_EVENTS) as u64,
            tabs.iter()
                .enumerate()
                .filter_map(|(place, tab)| {
                    let values: Vec<_> =
                        (0..BLOCK_EVENTS).map(|n| value(n + place * 7919 + seq as usize)).collect();
                    let events = Events::new(&times, &values);
                    Block::of_events(tab.clone(), client.clone(), tab_type.clone(), events)
                })
                .collect(),
        )
    };
    let batches: Vec<_> = tabs.iter().map(batch).collect();
    Frame::encode(Kind::Lanes, &Lanes::new(taba_server::system_clock()(), batches).encode(), Compression::Lz4)
}

/// Events per second of CPU, in millions: all threads of the process, the answers included.
async fn measure(name: &str, tab_type: &str, value: fn(usize) -> f64) {
    let store = MemoryStore::default();
    let tabs = tabs(VBuckets::default());
    let handlers = taba_handlers::standard().build().expect("the standard types have different names");
    let builder = Server::builder().store(store).handlers(handlers).commit_interval(Duration::from_millis(1));
    let server = builder.build().expect("it is given all it needs");
    let router = server.router();
    let mut figures = Vec::new();
    let mut walls = Vec::new();
    let mut seq = 0;
    for _ in 0..=ROUNDS {
        let bodies: Vec<_> =
            (1..=REQUESTS as u64).map(|n| request(seq + n, tab_type, &tabs, value)).collect();
        seq += REQUESTS as u64;
        let (start, cpu) = (now(), cpu_seconds());
        for body in bodies {
            let post = Request::post("/v2/lanes")
                .header("host", "localhost")
                .header("content-type", "application/x-taba")
                .body(Body::from(body));
            let answer = router.clone().oneshot(post.expect("a request")).await.expect("routers answer");
            assert_eq!(answer.status(), StatusCode::OK);
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("a body in memory");
            let acks =
                decode_acks(&Frame::decode(&body, Kind::Acks).expect("a frame").message).expect("acks");
            assert!(
                acks.iter().all(|ack| ack.answer == Answer::Applied && ack.refused.is_empty()),
                "all is committed"
            );
        }
        let events = (EVENTS * REQUESTS) as f64;
        figures.push(events / (cpu_seconds() - cpu) / 1e6);
        walls.push(events / start.elapsed().as_secs_f64() / 1e6);
    }
    // The first round makes the States.
    let (cpu, wall) = (Figure::of(figures.split_off(1)), Figure::of(walls.split_off(1)));
    println!("{name}: {cpu} M events per CPU second, {wall} M/s of wall time, {ROUNDS} rounds");
    let _ = server.shutdown(Duration::from_secs(5)).await;
}

#[tokio::main]
async fn main() {
    print_machine();
    println!(
        "{LANES} lanes * {BLOCKS} blocks * {BLOCK_EVENTS} raw events a request, {REQUESTS} requests a round, committed each"
    );
    measure("TotalsCounter, integers", "TotalsCounter", |n| (noise(n) * 1_000.0).floor()).await;
    measure("TotalsCounter, doubles", "TotalsCounter", noise).await;
    measure("CounterGroup, integers", "CounterGroup", |n| (noise(n) * 1_000.0).floor()).await;
    measure("CounterGroup, doubles", "CounterGroup", noise).await;
}
