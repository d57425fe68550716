//! The binary: reads the settings, runs the Agent, tells how it ended.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use taba_agent::cli::{self, LoadError};
use taba_agent::config::DECODERS_MAX;
use taba_agent::driver::with_causes;
use taba_agent::{Agent, Config, Verified};
use tokio::signal::ctrl_c;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let config = match cli::load(std::env::args_os()) {
        Ok(config) => config,
        Err(LoadError::Flags(error)) => error.exit(),
        Err(error) => return fail(2, &with_causes(&error)),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let cores =
        std::thread::available_parallelism().map_or(1, |cores| cores.get().min(DECODERS_MAX as usize));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(config)),
        Err(error) => fail(1, &format!("cannot start threads: {error}")),
    }
}

async fn run(config: Verified<Config>) -> ExitCode {
    let deadline = config.shutdown_timeout;
    let unix = config.unix.clone();
    let servers: Vec<_> = config.servers.iter().map(ToString::to_string).collect();
    let memory_bytes_max = config.memory().total();
    let handlers = match taba_handlers::standard().build() {
        Ok(handlers) => handlers,
        Err(error) => return fail(1, &with_causes(&error)),
    };
    let running = match Agent::new(config).with_handlers(handlers).start().await {
        Ok(running) => running,
        Err(error) => return fail(1, &with_causes(&error)),
    };
    let addr = running.addr();
    tracing::info!(%addr, unix = unix.map(|path| path.display().to_string()), ?servers, memory_bytes_max, "listening");
    asked_to_stop().await;
    tracing::info!(deadline_ms = deadline.as_millis() as u64, "stopping");
    let left = running.shutdown(deadline).await;
    if left.is_nothing() {
        tracing::info!("stopped; everything is stored");
        return ExitCode::SUCCESS;
    }
    if left.is_kept {
        tracing::warn!(
            events = left.events,
            bytes = left.bytes,
            "stopped; these were not brought to a server; the spool keeps them for the next run"
        );
        return ExitCode::SUCCESS;
    }
    tracing::error!(
        events = left.events,
        bytes = left.bytes,
        "stopped; these were not brought to a server and are lost"
    );
    ExitCode::FAILURE
}

#[cfg(unix)]
async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = ctrl_c() => {}
    }
}

#[cfg(not(unix))]
async fn asked_to_stop() {
    let _ = ctrl_c().await;
}

fn fail(code: u8, message: &str) -> ExitCode {
    // If even that cannot be written, the exit code says it.
    let _ = writeln!(std::io::stderr(), "taba-agent: {message}");
    ExitCode::from(code)
}
