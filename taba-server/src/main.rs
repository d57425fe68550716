//! The binary: it wires configuration, store, Handlers and sockets together, and prints.

mod cli;

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use taba_core::{MemoryStore, Store};
use taba_server::config::{Config, StoreKind};
use taba_server::query::{QueryState, upkeep};
use taba_server::{EmbeddedOptions, EmbeddedStore, Server};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// What is told to whoever started the process.
macro_rules! say {
    ($($words:tt)*) => {{
        // There is nobody to tell when the error stream is gone.
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

/// The address is taken, or not ours.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
struct CannotListen {
    address: SocketAddr,
    source: std::io::Error,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("taba-server: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                say!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Box<dyn Error>> {
    let config = Config::from_process()?;
    let filter = EnvFilter::try_new(&config.log)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(config))
}

async fn run(config: Config) -> Result<(), Box<dyn Error>> {
    let store: Arc<dyn Store> = match config.store {
        StoreKind::Memory => Arc::new(MemoryStore::new(config.vbuckets)),
        StoreKind::Embedded => {
            let options = EmbeddedOptions { vbuckets: config.vbuckets, ..EmbeddedOptions::default() };
            Arc::new(EmbeddedStore::open(&config.data_dir, options)?)
        }
        StoreKind::Redis => Arc::new(cli::connect::connect(&config).await?),
    };
    let mut builder = Server::builder()
        .shared_store(store)
        .handlers(taba_handlers::standard().build()?)
        .commit_interval(config.commit_interval)
        .cache_bytes_max(config.cache_bytes_max)
        .held_bytes_max(config.held_bytes_max);
    if let Some(workers) = config.workers {
        builder = builder.workers(workers);
    }
    let server = builder.build()?;
    let bound = TcpListener::bind(config.listen).await;
    let listener = bound.map_err(|source| CannotListen { address: config.listen, source })?;
    say!("taba-server: listening on http://{} ({})", listener.local_addr()?, kept_in(&config));

    // Taken before anybody is served, so that no signal can end the process unheard.
    let stopped_by = signal()?;
    let (stop, mut stopping) = watch::channel(false);
    let listener = listener.tap_io(|stream| {
        // An answer waits for nothing; without this it is only slower.
        let _ = stream.set_nodelay(true);
    });
    let serving = axum::serve(listener, server.router()).with_graceful_shutdown(async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    });
    let serving = tokio::spawn(serving.into_future());
    let pruning = config
        .prune_interval
        .map(|interval| tokio::spawn(keep_pruned(server.query_state().clone(), interval)));

    stopped_by.await;
    say!("taba-server: stopping");
    if let Some(pruning) = pruning {
        pruning.abort();
    }
    let report = server.shutdown(config.shutdown).await;
    stop.send_replace(true);
    if tokio::time::timeout(config.shutdown, serving).await.is_err() {
        tracing::warn!("connections were still open at the end");
    }
    match report.requests_unanswered {
        0 => say!("taba-server: stopped; all that was taken is stored"),
        left => say!("taba-server: stopped; {left} requests were not answered, their senders keep them"),
    }
    Ok(())
}

fn kept_in(config: &Config) -> String {
    let vbuckets = config.vbuckets.count();
    match config.store {
        StoreKind::Embedded => {
            format!("embedded store in {}, {vbuckets} vbuckets", config.data_dir.display())
        }
        StoreKind::Memory => format!("memory store, {vbuckets} vbuckets"),
        StoreKind::Redis => {
            let shards: Vec<String> = config.redis.iter().map(ToString::to_string).collect();
            format!("redis store on {}, {vbuckets} vbuckets", shards.join(" "))
        }
    }
}

async fn keep_pruned(state: QueryState, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        match upkeep(&state).await {
            Ok(done) => tracing::info!(
                states = done.pruned.states,
                events = done.pruned.events,
                entries = done.entries_tidied,
                bytes = done.bytes_reclaimed,
                vbuckets_missing = done.missing.map_or(0, |missing| missing.vbuckets.len()),
                "pruned"
            ),
            Err(error) => {
                tracing::warn!(error = taba_core::causes(&error), "pruning failed; it is tried again");
            }
        }
    }
}

/// Resolves when the process is told to stop.
#[cfg(unix)]
fn signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Resolves when the process is told to stop.
#[cfg(not(unix))]
fn signal() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without a way to hear it, the process runs until it is killed, which is safe.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
