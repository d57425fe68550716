//! A whole deployment in one thread, on a simulated clock, network and store, with the real machines of Agents and Servers: see
//! `taba_bench::simulate`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench prints its figures, and how far it is"
)]

use std::process::ExitCode;

use clap::Parser;
use taba_bench::simulate::{Options, run};
use taba_bench::{cpu_seconds, now};

/// 1,000 Agents, 100 Servers and 1,000 shards on a simulated network and clock: commits, conflicts, bytes, and how long it takes to
/// recover from lost Servers and shards, and to re-shard. Ends with an error when an event was not stored once
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  simulate                                the full size, some minutes\n  simulate --quick                        seconds\n  simulate --agents 100 --seed 7 --json   another size, another run, for programs"
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    /// The small size that tests use; only --seed counts beside it
    #[arg(long)]
    quick: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let Cli { options, quick, json } = Cli::parse();
    let options = if quick { Options { seed: options.seed, ..Options::quick() } } else { options };
    let start = now();
    let report = run(options, &mut |progress| eprintln!("[{:.0?}] {progress}", start.elapsed()));
    match report {
        Ok(report) if json => {
            println!("{}", serde_json::to_string_pretty(&report).expect("numbers and names"));
            ExitCode::SUCCESS
        }
        Ok(report) => {
            print!("{report}");
            println!("simulated in {:.0?}, {:.0} CPU s", start.elapsed(), cpu_seconds());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
