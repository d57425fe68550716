//! The binary: connects configuration, store, Handlers and sockets.

mod cli;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use taba_core::{HostPort, MemoryStore, Store};
use taba_listen::Connections;
use taba_process::signals::StopSignals;
use taba_process::{Exit, Log, settings};
use taba_server::config::{Cli, PROGRAM, StoreKind, VerifiedServerConfig};
use taba_server::query::{QueryState, upkeep};
use taba_server::{EmbeddedOptions, EmbeddedStore, Server};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

/// How long threads that read a disk may take after everything else has ended.
const THREADS_TIME_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; --listen or TABA_SERVER_LISTEN names another address")]
struct CannotListen {
    address: HostPort,
    source: std::io::Error,
}

fn main() -> ExitCode {
    taba_process::run("taba-server", start)
}

fn start(log: &Log) -> Exit {
    if let Some(exit) = cli::run(log) {
        return exit;
    }
    let loaded = settings::load::<Cli>(&PROGRAM, std::env::args_os(), std::env::vars_os());
    let read = loaded.and_then(|loaded| {
        let config = loaded.settings.settings.verify_loaded(&loaded)?;
        Ok((loaded.filter("info")?, config, loaded))
    });
    let (filter, config, loaded) = match read {
        Ok(read) => read,
        Err(error) => return error.end(log),
    };
    if loaded.settings.file.print_config {
        return loaded.print(log);
    }
    log.subscribe(filter);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return log.fail(Exit::Failed, &error),
    };
    let exit = runtime.block_on(run(&config, log)).unwrap_or_else(|error| log.fail(Exit::Failed, &*error));
    runtime.shutdown_timeout(THREADS_TIME_MAX);
    exit
}

async fn run(config: &VerifiedServerConfig, log: &Log) -> Result<Exit, Box<dyn Error>> {
    // First, so that every signal is handled.
    let mut signals = StopSignals::listen()?;
    let (store, more) = tokio::select! {
        store = open(config) => store?,
        () = signals.next() => {
            log.say("stopped before the store was ready");
            return Ok(Exit::Clean);
        }
    };
    let lines_dropped = log.lines_dropped();
    let connections = Connections::new(config.connection_bounds());
    let mut builder = Server::builder()
        .connections(Arc::clone(&connections))
        .body_pace(config.body_pace())
        .shared_store(store)
        .handlers(taba_handlers::standard().build()?)
        .commit_interval(config.commit_interval)
        .cache_bytes_max(config.cache_bytes_max)
        .held_bytes_max(config.held_bytes_max)
        .host_names(config.all_host_names())
        .log_lines_dropped(move || lines_dropped());
    if let Some(workers) = config.workers() {
        builder = builder.workers(workers);
    }
    let server = builder.build()?;
    let bound = TcpListener::bind((config.listen.host(), config.listen.port())).await;
    let listener = bound.map_err(|source| CannotListen { address: config.listen.clone(), source })?;
    tracing::info!(memory_bytes = config.memory_bytes(), "maximum memory, without queries");
    let listens = listener.local_addr()?;
    log.say(format_args!("listening on http://{listens} ({})", kept_in(config)));
    match config.advertised(listens) {
        Some(url) => {
            tracing::info!(%url, "agents with --discover find this server there");
            server.advertise(url, config.register_interval);
        }
        None if config.register_interval.is_zero() => {}
        None => tracing::info!(
            "agents do not find this server by themselves: it listens on all addresses, and --advertise names none"
        ),
    }
    let listening = Listening { listener, connections };
    Ok(serve(config, log, server, more, listening, signals).await)
}

/// Opens the store, with its additional routes.
async fn open(config: &VerifiedServerConfig) -> Result<(Arc<dyn Store>, Router), Box<dyn Error>> {
    Ok(match config.store {
        StoreKind::Memory => (Arc::new(MemoryStore::new(config.vbuckets())), Router::new()),
        StoreKind::Embedded => {
            let options = EmbeddedOptions::new(config.vbuckets());
            let store = Arc::new(EmbeddedStore::open(&config.data_dir, options)?);
            (store.clone(), cli::backup::router(store))
        }
        StoreKind::Redis => (Arc::new(cli::connect::connect(config).await?), Router::new()),
    })
}

/// Where connections come from, and those that are there.
struct Listening {
    listener: TcpListener,
    connections: Arc<Connections>,
}

/// Serves until it is asked to stop, or a part of it ends unexpectedly; then stops.
async fn serve(
    config: &VerifiedServerConfig,
    log: &Log,
    server: Server,
    more: Router,
    Listening { listener, connections }: Listening,
    mut signals: StopSignals,
) -> Exit {
    let (stop, stopping) = watch::channel(());
    let router = server.router().merge(server.guarded(more));
    let mut serving = tokio::spawn(taba_listen::serve(listener, router, connections, stopping));
    let mut pruning = config
        .prune_interval()
        .map(|interval| tokio::spawn(keep_pruned(server.query_state().clone(), interval)));

    let failure = tokio::select! {
        () = signals.next() => None,
        failure = server.failed() => Some(failure.to_string()),
        end = &mut serving => Some(format!("the listener ended: {}", how(end))),
        end = ended(&mut pruning) => Some(format!("pruning ended: {}", how(end))),
    };
    match &failure {
        None => log.say("stopping"),
        Some(failure) => log.say(format_args!("{failure}; stopping: start it again")),
    }
    if let Some(pruning) = pruning {
        pruning.abort();
    }
    let report = tokio::select! {
        report = server.shutdown(config.shutdown_timeout) => report,
        () = signals.next() => {
            log.say("second signal: ending at once; agents send again what was not answered");
            return Exit::Failed;
        }
    };
    drop(stop);
    if !serving.is_finished() && tokio::time::timeout(config.shutdown_timeout, serving).await.is_err() {
        tracing::warn!("connections were still open at the end");
    }
    match report.requests_unanswered {
        0 if failure.is_some() => {
            log.say("stopped; all that was acknowledged is stored, agents keep the rest");
        }
        0 => log.say("stopped; all that was taken is stored"),
        left => {
            log.say(format_args!("stopped; {left} requests were not answered, agents keep their batches"));
        }
    }
    if failure.is_some() { Exit::Failed } else { Exit::Clean }
}

/// The unexpected end of an optional task.
async fn ended(task: &mut Option<JoinHandle<()>>) -> Result<(), JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

fn how(end: Result<(), JoinError>) -> String {
    match end {
        Ok(()) => "by itself".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn kept_in(config: &VerifiedServerConfig) -> String {
    let vbuckets = config.vbuckets().count();
    match config.store {
        StoreKind::Embedded => {
            format!("embedded store in {}, {vbuckets} vbuckets", config.data_dir.display())
        }
        StoreKind::Memory => format!("memory store, {vbuckets} vbuckets"),
        StoreKind::Redis => {
            let shards: Vec<String> = config.shards().iter().map(ToString::to_string).collect();
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
                tracing::warn!(error = taba_core::causes(&error), "pruning failed and will be retried");
            }
        }
    }
}
