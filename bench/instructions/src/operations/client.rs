//! Recording, and what the background task does with what was recorded.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use taba_client::{
    Client, Config, Datum, EventBuffer, ManualClock, SealedBatch, SenderIdentity, Sink, SinkError, TabSpec,
    Verified,
};
use taba_core::wire::Receipt;
use taba_core::{Registry, Timestamp};

use super::{START, client_id, integer, tab, tab_type};
use crate::measure::operation;

/// Takes everything and does nothing with it.
struct Nowhere;

#[async_trait]
impl Sink for Nowhere {
    async fn deliver(&self, batch: Arc<SealedBatch>) -> Result<Receipt, SinkError> {
        Ok(Receipt::new(batch.seq(), Timestamp::default(), Vec::new()))
    }
}

pub(super) fn all() {
    record();
    buffer();
}

fn record() {
    let mut config = Config::default();
    // Neither a flush nor a full ring comes into what is counted.
    config.flush_interval = Duration::from_secs(3_600);
    config.ring_events_min = 16 * 1_024;
    config.ring_events_max = 16 * 1_024;
    let clock = ManualClock::new(Timestamp::from_secs(START));
    let builder = Client::builder("web-001").sink(Nowhere).handlers(registry()).clock(clock.clock());
    let client = builder.config(config).build().expect("the configuration is in its bounds");
    let counter = client.counter(tab(0)).expect("a tab name");
    operation("client/record/counter/1000", || (), |()| (0..1_000).for_each(|n| counter.add(n)));
    let gauge = client.gauge("load").expect("a tab name");
    operation(
        "client/record/gauge_number/1000",
        || (),
        |()| (0..1_000).for_each(|n| gauge.set(f64::from(n))),
    );
    operation("client/record/gauge_text/1000", || (), |()| (0..1_000).for_each(|_| gauge.set("serving")));
    operation(
        "client/handle_of_known_name/100",
        || (),
        |()| (0..100).for_each(|_| drop(client.counter("bids_won;exchange=x0"))),
    );
    let _ = client.shutdown(Duration::ZERO);
}

fn registry() -> Registry {
    taba_handlers::standard().build().expect("the standard types have different names")
}

/// A buffer that knows 100 Tabs.
fn empty_buffer() -> EventBuffer {
    let identity = SenderIdentity::new(client_id(0), 7);
    let mut buffer = EventBuffer::new(identity, registry(), Verified::default());
    for n in 0..100 {
        buffer.declare(TabSpec::new::<f64>(tab(n), tab_type("CounterGroup")));
    }
    buffer
}

/// Offers `count` numbers to each of that many Tabs, in turns.
fn offer(buffer: &mut EventBuffer, tabs: u32, count: usize) {
    for n in 0..count {
        for tab in 0..tabs {
            let time = Timestamp::from_micros(START * 1_000_000 + n as i64 * 5_000);
            buffer.offer(tab, time, Datum::Number(integer(n)));
        }
    }
}

fn offered(tabs: u32, count: usize) -> EventBuffer {
    let mut buffer = empty_buffer();
    offer(&mut buffer, tabs, count);
    buffer
}

fn buffer() {
    let now = Timestamp::from_secs(START + 10);
    operation("client/buffer/offer/1_tab_of_1000", empty_buffer, |mut buffer| {
        offer(&mut buffer, 1, 1_000);
        buffer
    });
    operation("client/buffer/offer/100_tabs_of_10", empty_buffer, |mut buffer| {
        offer(&mut buffer, 100, 10);
        buffer
    });
    for (name, count) in [("events", 10), ("states", 100)] {
        operation(
            &format!("client/buffer/seal/100_tabs_of_{name}"),
            || offered(100, count),
            |mut buffer| {
                let sealed = buffer.seal(now);
                (buffer, sealed)
            },
        );
    }
}
