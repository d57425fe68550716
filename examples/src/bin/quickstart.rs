//! Taba in five minutes: a server with an embedded store, an agent, and a client for each of some 200 airports; real
//! flights of 2001 recorded as events; then what the whole fleet saw.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use taba_core::{HostPort, Timestamp};
use taba_examples::flights::{self, Truth};
use taba_examples::replay::{Replay, Replayed};
use taba_examples::stack::{InProcess, Processes};
use taba_examples::{report, verify};

/// Replays real flights through Taba, and shows what it makes of them.
///
/// Without a FILE: the sample that comes with the repository, everything in this process. With one: through the real
/// taba-server and taba-agent processes.
#[derive(Debug, Parser)]
struct Options {
    /// Flights as CSV with time, origin, destination, delay, distance; may be packed (.zst)
    file: Option<PathBuf>,
    /// End when everything is shown, instead of leaving the server up until Ctrl-C
    #[arg(long)]
    exit: bool,
    /// Compare every answer with the one computed from the file: counts and totals exactly, percentiles within 1 %
    #[arg(long)]
    verify: bool,
    /// Keep the store in this directory, which must be empty or new, instead of in a temporary one
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where the server listens; port 0 takes a free one. Not for FILE, whose server takes a free port
    #[arg(long, default_value = "127.0.0.1:8300", conflicts_with = "file")]
    listen: HostPort,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let directory = options.data_dir.as_deref().unwrap_or(temporary.path());
    if let Some(file) = &options.file {
        let processes = Processes::start(directory)?;
        println!("taba-server at {}, taba-agent at {}", processes.server_url(), processes.agent_url());
        show(options, file, &processes.server_url(), &processes.agent_url())
    } else {
        let handlers = taba_handlers::standard().build()?;
        let stack = InProcess::start(&options.listen, directory, handlers).map_err(|error| {
            format!("{error}; is {} in use? `--listen 127.0.0.1:0` takes a free port", options.listen)
        })?;
        println!("server, store and agent in this process; store in {}", directory.display());
        show(options, &flights::sample_path(), &stack.server_url(), &stack.agent_url())?;
        stack.stop()
    }
}

fn show(options: &Options, file: &Path, server: &str, agent: &str) -> Result<(), Box<dyn Error>> {
    let mut truth = options.verify.then(Truth::default);
    let (replayed, latest) = replay(file, agent, truth.as_mut())?;
    if replayed.left > 0 {
        return Err(format!("{} events did not reach the agent in time", replayed.left).into());
    }
    verify::wait_until_folded(server, replayed.events, Duration::from_secs(120))?;
    println!("{} events of {} clients are recorded, folded and stored", replayed.events, replayed.clients);
    print!("{}", report::report(server, &in_words(latest)?)?);
    if let Some(truth) = &truth {
        let verified = verify::verify(server, truth)?;
        println!(
            "\nverified against {}: {} answers; {} counts and totals are equal, {} percentiles are within {:.3} %",
            file.display(),
            verified.answers,
            verified.numbers,
            verified.percentiles,
            verified.error_max * 100.0
        );
    }
    if !options.exit {
        leave_up(server, latest)?;
    }
    Ok(())
}

/// Records every flight of the file; tells what it came to, and the time of the last flight.
fn replay(
    file: &Path,
    agent: &str,
    mut truth: Option<&mut Truth>,
) -> Result<(Replayed, Timestamp), Box<dyn Error>> {
    let read = || flights::read(file).map_err(|error| format!("{}: {error}", file.display()));
    let style = ProgressStyle::with_template("{msg} {pos} flights, {per_sec}, {elapsed}")?;
    let progress = ProgressBar::new_spinner().with_style(style).with_message("replaying");
    let mut replay = Replay::new(agent, taba_handlers::standard().build()?);
    let mut latest = Timestamp::MIN;
    for flight in read()? {
        let flight = flight.map_err(|error| format!("{}: {error}", file.display()))?;
        replay.record(&flight)?;
        latest = latest.max(Timestamp::from_secs(flight.time));
        if let Some(truth) = truth.as_mut() {
            truth.add(&flight);
        }
        progress.inc(1);
    }
    let replayed = replay.finish(Duration::from_secs(60));
    progress.finish();
    Ok((replayed, latest))
}

/// A time as `2001-06-30T23:59:00Z`.
fn in_words(time: Timestamp) -> Result<String, Box<dyn Error>> {
    Ok(jiff::Timestamp::from_microsecond(time.as_micros())?.to_string())
}

fn leave_up(server: &str, latest: Timestamp) -> Result<(), Box<dyn Error>> {
    let at = in_words(latest)?;
    println!("\nThe server stays up until Ctrl-C. Ask it:");
    for path in [
        format!("/v2/tabs?name=departures&at={at}"),
        format!("/v2/tabs?base=delay&by=to&at={at}"),
        format!("/v2/projections?client=ATL&base=delay&at={at}"),
        format!("/v2/super?base=delay&at={at}"),
        "/v2/names".to_owned(),
        "/v2/clients".to_owned(),
        "/v2/ledger".to_owned(),
        "/metrics".to_owned(),
    ] {
        println!("  curl '{server}{path}'");
    }
    println!("  cargo run --release -p taba-cli -- --server {server} agg departures --at {at}");
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(tokio::signal::ctrl_c())?;
    Ok(())
}
