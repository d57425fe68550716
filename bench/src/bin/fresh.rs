//! From `record` to visible: how long it takes until a query shows an event, through client, agent, server and embedded
//! store, all over real sockets.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::error::Error;
use std::time::Duration;

use taba_bench::{Figure, now, pause, print_machine};
use taba_client::Client;
use taba_examples::stack::InProcess;
use taba_examples::verify::get;

const EVENTS: u64 = 60;

fn main() -> Result<(), Box<dyn Error>> {
    print_machine();
    let directory = tempfile::tempdir()?;
    let handlers = taba_handlers::standard().build()?;
    let stack = InProcess::start(&([127, 0, 0, 1], 0).into(), directory.path(), handlers.clone())?;
    let client = Client::builder("bench").agent(stack.agent_url()).handlers(handlers).build()?;
    let counter = client.totals("hits")?;
    let url = format!("{}/v2/tabs?name=hits", stack.server_url());
    let mut millis = Vec::new();
    for n in 1..=EVENTS {
        // At another moment of the flush interval each time.
        pause(Duration::from_millis(37 * n % 250));
        let start = now();
        counter.increment();
        while get(&url)?["results"][0]["value"]["count"].as_u64() != Some(n) {
            pause(Duration::from_millis(2));
        }
        millis.push(start.elapsed().as_secs_f64() * 1e3);
    }
    millis.sort_by(f64::total_cmp);
    let p99 = millis[millis.len() * 99 / 100];
    println!(
        "record to visible, {EVENTS} single events, default settings: {} ms; p99 {p99:.0} ms",
        Figure::of(millis)
    );
    stack.stop()
}
