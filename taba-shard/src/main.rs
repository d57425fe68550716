//! The tool: it grows, shrinks and looks after the shards of a deployment, while Servers use them.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    taba_process::run("taba-shard", cli::run)
}
