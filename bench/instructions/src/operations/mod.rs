//! The operations that are counted. Their inputs are the same in every run: no clock, no chance, no socket.

mod client;
mod handlers;
mod server;
mod wire;

use taba_core::wire::Block;
use taba_core::{ClientId, Events, TabName, TabType, Timestamp};

use crate::measure::noise;

/// When the first event happens, in seconds since 1970.
const START: i64 = 1_795_371_000;

/// Runs all of them.
pub(crate) fn all() {
    client::all();
    handlers::all();
    wire::all();
    server::all();
}

/// Times of events, one each `step` microseconds from that second on.
fn times(from_secs: i64, count: usize, step: i64) -> Vec<Timestamp> {
    (0..count as i64).map(|n| Timestamp::from_micros(from_secs * 1_000_000 + n * step)).collect()
}

fn integer(n: usize) -> f64 {
    noise(n, 1_000) as f64
}

fn double(n: usize) -> f64 {
    noise(n, 1 << 53) as f64 / (1_u64 << 53) as f64
}

fn tab(n: usize) -> TabName {
    TabName::new(&format!("bids_won;exchange=x{n}")).expect("a tab name")
}

fn client_id(n: usize) -> ClientId {
    ClientId::new(&format!("web-{n:03}.example")).expect("a client id")
}

fn tab_type(name: &str) -> TabType {
    TabType::new(name).expect("a tab type")
}

/// `count` integers of one Client and Tab, from that second on, 250 microseconds apart.
fn block(tab: TabName, client: ClientId, type_name: &str, from_secs: i64, count: usize) -> Block {
    let values: Vec<_> = (0..count).map(integer).collect();
    let times = times(from_secs, count, 250);
    Block::of_events(tab, client, tab_type(type_name), Events::new(&times, &values))
        .expect("there are events")
}
