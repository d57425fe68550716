//! A team's own server: the standard Handlers and one of their own, Taba's routes nested beside theirs.
//!
//! `cargo run -p taba-examples --bin compose_server` listens on 127.0.0.1:8300 until Ctrl-C; with `--exit` it asks
//! itself a question, prints the answer and ends.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use taba_core::{Event, Handler, MemoryStore, Timestamp};
use taba_server::Server;
use tokio::net::TcpListener;

/// The worst there was: a Handler of the team's own.
struct Worst;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Value {
    worst: Option<f64>,
}

impl Handler for Worst {
    type Value = f64;
    type State = Value;
    type Projection = Value;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Value, event: Event<&f64>) {
        self.merge(state, &Value { worst: Some(*event.value) });
    }
    fn merge(&self, into: &mut Value, other: &Value) {
        // Adding 0.0 turns -0.0 into 0.0, so that one number has one spelling.
        into.worst = [into.worst, other.worst].into_iter().flatten().map(|v| v + 0.0).reduce(f64::max);
    }
    fn project(&self, state: &Value, _at: Timestamp) -> Value {
        state.clone()
    }
    fn aggregate(&self, into: &mut Value, other: &Value) {
        self.merge(into, other);
    }
    fn encoded_bytes_max(&self) -> usize {
        9
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let once = std::env::args().any(|arg| arg == "--exit");
    let handlers = taba_handlers::standard().with("Worst", Worst).build()?;
    let taba = Server::builder().store(MemoryStore::default()).handlers(handlers).build()?;

    let app = Router::new().route("/healthz", get(|| async { "ok" })).nest("/taba", taba.router());

    let listener = TcpListener::bind(if once { "127.0.0.1:0" } else { "127.0.0.1:8300" }).await?;
    let address = listener.local_addr()?;
    println!("our own:  http://{address}/healthz");
    println!("Taba's:   http://{address}/taba/v2/types");
    println!("Agents:   taba-agent --servers http://{address}/taba");
    let stop = async move {
        if once {
            let types =
                tokio::task::spawn_blocking(move || get_text(&format!("http://{address}/taba/v2/status")));
            println!("{}", types.await.unwrap_or_else(|error| error.to_string()));
        } else if let Err(error) = tokio::signal::ctrl_c().await {
            println!("cannot wait for Ctrl-C: {error}");
        }
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    let report = taba.shutdown(Duration::from_secs(5)).await;
    println!("requests left unanswered: {}", report.requests_unanswered);
    Ok(())
}

fn get_text(url: &str) -> String {
    let answer = ureq::get(url).call().and_then(|mut answer| answer.body_mut().read_to_string());
    answer.unwrap_or_else(|error| format!("{url}: {error}"))
}
