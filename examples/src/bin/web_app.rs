//! A web service instrumented with taba-client: requests counted by route and status, time of each, who is there.
//!
//! `cargo run -p taba-examples --bin web_app` serves on 127.0.0.1:8080 and sends to an Agent on 127.0.0.1:8279; with
//! `--exit` it asks itself a few pages and ends. It works the same when there is no Agent: recording never waits.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, http::StatusCode};
use taba_client::{Client, Counter, Distinct, Gauge, Timer};
use tokio::net::TcpListener;

/// What the service measures. Handles are made once; recording through them costs nanoseconds.
#[derive(Clone)]
struct Metrics {
    found: Counter,
    missing: Counter,
    time: Timer,
    visitors: Distinct,
    _build: Gauge,
}

impl Metrics {
    fn new(client: &Client) -> Result<Self, Box<dyn Error>> {
        let build = client.gauge("build")?;
        build.set(env!("CARGO_PKG_VERSION"));
        Ok(Self {
            found: client.counter("requests;status=200")?,
            missing: client.counter("requests;status=404")?,
            time: client.timer("request_seconds")?,
            visitors: client.distinct("visitors")?,
            _build: build,
        })
    }
}

async fn measure(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let timer = metrics.time.start();
    let response = next.run(request).await;
    drop(timer); // records the time that has passed
    if response.status() == StatusCode::NOT_FOUND { &metrics.missing } else { &metrics.found }.increment();
    response
}

async fn hello(State(metrics): State<Metrics>, Path(name): Path<String>) -> impl IntoResponse {
    metrics.visitors.observe(name.clone());
    format!("hello, {name}\n")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let once = std::env::args().any(|arg| arg == "--exit");
    let agent = std::env::var("TABA_AGENT").ok().filter(|url| !url.is_empty());
    let agent = agent.unwrap_or_else(|| "http://127.0.0.1:8279".to_owned());
    let client =
        Client::builder("web_app").agent(agent).handlers(taba_handlers::standard().build()?).build()?;
    let metrics = Metrics::new(&client)?;

    let app = Router::new()
        .route("/hello/{name}", get(hello))
        .layer(middleware::from_fn_with_state(metrics.clone(), measure))
        .with_state(metrics);

    let listener = TcpListener::bind(if once { "127.0.0.1:0" } else { "127.0.0.1:8080" }).await?;
    let address = listener.local_addr()?;
    println!("http://{address}/hello/you");
    let stop = async move {
        if once {
            let asked = tokio::task::spawn_blocking(move || {
                for page in ["hello/ada", "hello/bob", "hello/ada", "nowhere"] {
                    let status = match ureq::get(&format!("http://{address}/{page}")).call() {
                        Ok(answer) => answer.status().as_u16(),
                        Err(ureq::Error::StatusCode(status)) => status,
                        Err(_) => 0,
                    };
                    println!("/{page}: {status}");
                }
            });
            let _ = asked.await;
        } else if let Err(error) = tokio::signal::ctrl_c().await {
            println!("cannot wait for Ctrl-C: {error}");
        }
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    let report = client.close(Duration::from_secs(1)).await;
    println!("{report:?}");
    Ok(())
}
