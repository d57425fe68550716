//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand};
use taba_process::settings::Program;

/// How the settings of taba are read. Variables of other programs begin with `TABA_` too.
pub(crate) const PROGRAM: Program = Program { prefix: None, renamed: &[] };

/// Ask a Taba Server.
#[derive(Debug, Parser)]
#[command(name = "taba", version, about, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 with an answer; 1 without one, or with only part of one; 2 when the command line or a \
    variable is wrong.\nAn empty variable is not set."
)]
pub(crate) struct Args {
    /// The server to ask.
    #[arg(
        long,
        global = true,
        env = "TABA_SERVER",
        default_value = "http://127.0.0.1:8300",
        value_name = "URL"
    )]
    pub(crate) server: String,
    /// Ask by this HTTP proxy: http://HOST:PORT. Without it no proxy is used, whatever http_proxy and the like say.
    #[arg(long, global = true, env = "TABA_PROXY", value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// What to log: off, error, warn, info, debug, trace, or MODULE=LEVEL,…; RUST_LOG counts where this is not given.
    /// Default: warn.
    #[arg(long, global = true, env = "TABA_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Print the server's JSON as it comes.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Project as of this time: RFC 3339, or seconds since 1970. Default: now.
    #[arg(long, global = true, allow_hyphen_values = true, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// What to ask.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Aggregates: what all clients say about each tab.
    Agg(AggArgs),
    /// Projections: what each client says about each tab.
    Proj(ProjArgs),
    /// One aggregate over all chosen tabs, which must be of one type.
    Super(ProjArgs),
    /// Which clients there are.
    Clients(ListArgs),
    /// Which tabs there are.
    Names(ListArgs),
    /// Which tab types there are.
    Types(ListArgs),
    /// What the server says about itself.
    Status,
    /// For each client: recorded = folded + dropped + in flight.
    Ledger(LedgerArgs),
    /// Aggregates, shown again whenever they change, until Ctrl-C.
    Watch(WatchArgs),
    /// Delete what is stored about the chosen tabs and clients.
    Delete(Choice),
    /// Remove what says nothing any more.
    Prune(Choice),
}

/// Which tabs and clients.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct Choice {
    /// Names of tabs, labels included: `delay`, `delay;to=MEM`. Default: all.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Names and clients are regular expressions that must match in full.
    #[arg(long)]
    pub(crate) re: bool,
    /// Tabs with this name and any labels.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) base: Vec<String>,
    /// Tabs of this type.
    #[arg(long = "type", value_delimiter = ',', value_name = "TYPE")]
    pub(crate) types: Vec<String>,
    /// Tabs with this label; several of one key are alternatives.
    #[arg(long = "label", value_parser = label, value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// Only these clients.
    #[arg(long = "client", value_name = "CLIENT")]
    pub(crate) clients: Vec<String>,
    /// Also the tabs of the ledger.
    #[arg(long)]
    pub(crate) reserved: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct AggArgs {
    /// Group by the values of these labels.
    #[arg(long, value_delimiter = ',', value_name = "KEY,…")]
    pub(crate) by: Vec<String>,
    #[command(flatten)]
    pub(crate) rest: ProjArgs,
    /// At most this many results.
    #[arg(long)]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ProjArgs {
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Show more: every window, every percentile; in JSON, every bucket.
    #[arg(long)]
    pub(crate) detail: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// At most this many results.
    #[arg(long)]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LedgerArgs {
    /// Only these clients.
    #[arg(long = "client", value_name = "CLIENT")]
    pub(crate) clients: Vec<String>,
    /// Clients are regular expressions that must match in full.
    #[arg(long)]
    pub(crate) re: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Group by the values of these labels.
    #[arg(long, value_delimiter = ',', value_name = "KEY,…")]
    pub(crate) by: Vec<String>,
    /// Show more: every window, every percentile.
    #[arg(long)]
    pub(crate) detail: bool,
    /// Seconds between two looks.
    #[arg(long, default_value = "1", value_name = "SECONDS")]
    pub(crate) every: String,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is needed, as in to=MEM".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn labels_are_pairs() {
        assert_eq!(label("to=MEM"), Ok(("to".to_owned(), "MEM".to_owned())));
        assert_eq!(label("tenant="), Ok(("tenant".to_owned(), String::new())));
        assert!(label("to").is_err() && label("=x").is_err());
    }
}
