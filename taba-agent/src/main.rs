//! The binary: reads the settings, runs the Agent, reports how it ended.

mod set_aside;

use std::process::ExitCode;
use std::time::Duration;

use taba_agent::cli;
use taba_agent::config::DECODERS_MAX;
use taba_agent::{Agent, Config, Verified};
use taba_process::signals::StopSignals;
use taba_process::{Exit, Log};

/// How long threads that wait for a disk may take after everything else has ended.
const THREADS_TIME_MAX: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    taba_process::run("taba-agent", start)
}

fn start(log: &Log) -> Exit {
    if let Some(exit) = set_aside::run(log) {
        return exit;
    }
    let read = cli::load(std::env::args_os(), std::env::vars_os());
    let (filter, loaded, config) =
        match read.and_then(|(loaded, config)| Ok((loaded.filter("info")?, loaded, config))) {
            Ok(read) => read,
            Err(error) => return error.end(log),
        };
    if loaded.settings.print_config {
        return loaded.print(log);
    }
    log.subscribe(filter);
    let cores =
        std::thread::available_parallelism().map_or(1, |cores| cores.get().min(DECODERS_MAX as usize));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return log.fail(Exit::Failed, &error),
    };
    let exit = runtime.block_on(run(config, log));
    runtime.shutdown_timeout(THREADS_TIME_MAX);
    exit
}

async fn run(config: Verified<Config>, log: &Log) -> Exit {
    let deadline = config.shutdown_timeout;
    let unix = config.unix.clone();
    let is_kept = config.spool == taba_agent::config::SpoolKind::File;
    let servers: Vec<_> = config.servers.iter().map(ToString::to_string).collect();
    let memory_bytes_max = config.memory().total();
    // First, so that every signal is handled.
    let mut signals = match StopSignals::listen() {
        Ok(signals) => signals,
        Err(error) => return log.fail(Exit::Failed, &error),
    };
    let handlers = match taba_handlers::standard().build() {
        Ok(handlers) => handlers,
        Err(error) => return log.fail(Exit::Failed, &error),
    };
    let lines_dropped = log.lines_dropped();
    let running = match Agent::new(config)
        .with_handlers(handlers)
        .with_log_lines_dropped(move || lines_dropped())
        .start()
        .await
    {
        Ok(running) => running,
        Err(error) => return log.fail(Exit::Failed, &error),
    };
    let addr = running.addr();
    tracing::info!(%addr, unix = unix.map(|path| path.display().to_string()), ?servers, memory_bytes_max, "listening");
    let failure = tokio::select! {
        () = signals.next() => None,
        failure = running.failed() => Some(failure),
    };
    if let Some(failure) = failure {
        running.abandon().await;
        return log.fail(Exit::Failed, &failure);
    }
    tracing::info!(deadline_ms = deadline.as_millis() as u64, "stopping");
    let left = tokio::select! {
        left = running.shutdown(deadline) => left,
        () = signals.next() => {
            if is_kept {
                tracing::warn!("asked a second time: it ends at once; what is in the spool is brought by the next run");
            } else {
                tracing::error!("asked a second time: it ends at once; what was not brought to a server is lost");
            }
            return Exit::Failed;
        }
    };
    if left.is_nothing() {
        tracing::info!("stopped; everything is stored");
        return Exit::Clean;
    }
    if left.is_kept {
        tracing::warn!(
            events = left.events,
            bytes = left.bytes,
            "stopped; these were not brought to a server; the spool keeps them for the next run"
        );
        return Exit::Clean;
    }
    tracing::error!(
        events = left.events,
        bytes = left.bytes,
        "stopped; these were not brought to a server and are lost"
    );
    Exit::Failed
}
