//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args as ClapArgs, Parser, Subcommand};
use taba_core::RequestHeader;
use taba_process::settings::Program;
use taba_process::units;
use ureq::http::Uri;

/// How the settings of taba are read. Other programs' variables begin with `TABA_` too.
pub(crate) const PROGRAM: Program = Program::new(None, &[]);

/// Query a Taba Server, and record through an Agent.
#[derive(Debug, Parser)]
#[command(name = "taba", version, about, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 with an answer; 1 without one, or with only part of one; 2 when the command line or a \
    variable is wrong; with `time`, that of the command.\nAn empty variable is not set.\n\n\
    Examples:\n  taba agg --base bids_won --by exchange\n  taba record bids_won 3 --label exchange=adx\n  \
    tail -f events.jsonl | taba record --stdin\n  taba time -- make test\n  taba doctor"
)]
pub(crate) struct Args {
    /// The server to query.
    #[arg(
        long,
        global = true,
        env = "TABA_SERVER",
        default_value = "http://127.0.0.1:8300",
        value_name = "URL",
        value_parser = server
    )]
    pub(crate) server: String,
    /// Use this HTTP proxy: http://HOST:PORT. Without it none is used, whatever http_proxy and the like say.
    #[arg(long, global = true, env = "TABA_PROXY", value_name = "URL", value_parser = proxy)]
    pub(crate) proxy: Option<String>,
    /// The agents to record through, and to check with doctor. Default: http://127.0.0.1:8279
    #[arg(
        long = "agent",
        global = true,
        env = "TABA_AGENT",
        value_delimiter = ',',
        value_name = "URL",
        value_parser = server
    )]
    pub(crate) agent: Vec<String>,
    /// A header of each request, as `Authorization: Bearer …`; a variable or a file hides it from the list of
    /// processes.
    #[arg(
        long,
        global = true,
        env = "TABA_HEADER",
        value_name = "HEADER",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) header: Vec<RequestHeader>,
    /// Timeout of a whole answer; of a watch, of its beginning (--idle is for the rest).
    #[arg(long, global = true, env = "TABA_TIMEOUT", default_value = "2m", value_name = "TIME", value_parser = every)]
    pub(crate) timeout: Duration,
    /// What to log: off, error, warn, info, debug, trace, or MODULE=LEVEL,…; if not given, RUST_LOG is used. Default:
    /// warn.
    #[arg(long, global = true, env = "TABA_LOG", value_name = "FILTER", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) log: Option<String>,
    /// A TOML file of settings: server, agent, header, proxy, timeout, log, without dashes before them. `-` and `_`
    /// are the same within names.
    #[arg(long, global = true, env = "TABA_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the effective settings and their sources, as a file for --config, and end.
    #[arg(long, global = true)]
    pub(crate) print_config: bool,
    /// Print the server's JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Project as of this time: RFC 3339, or seconds since 1970. Default: now.
    #[arg(long, global = true, allow_hyphen_values = true, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// The query.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Aggregates: each tab over all clients.
    Agg(AggArgs),
    /// Projections: each tab of each client.
    Proj(PagedProjArgs),
    /// One aggregate over all chosen tabs, which must be of one type.
    Super(ProjArgs),
    /// The clients.
    Clients(ListArgs),
    /// The tabs.
    Names(ListArgs),
    /// The tab types.
    Types(ListArgs),
    /// The server's own counters.
    Status,
    /// For each client: recorded = folded + dropped + in flight.
    Ledger(LedgerArgs),
    /// Aggregates, shown again whenever they change, until Ctrl-C.
    Watch(WatchArgs),
    /// Delete the chosen tabs and clients; something must be chosen.
    Delete(Choice),
    /// Remove one client: its states, and its account in the ledger, as if it had never been.
    Forget {
        /// The id of the client.
        client: String,
    },
    /// Remove states that hold no more information.
    Prune(Choice),
    /// Show which tabs are split over several vbuckets by client, or split some.
    ///
    /// For tabs that very many clients write: their vbucket, and so one redis, would have to take it all. Queries see one
    /// tab all the while. Agents follow within seconds.
    #[command(
        after_help = "Examples:\n  taba spread                  which tabs are spread, and how wide they ever were\n  \
        taba spread requests 16      over up to 16 vbuckets from now on\n  \
        taba spread --prefix ads. 8  all tabs whose names begin with ads.\n  \
        taba spread requests 1       no wider any more; what is stored stays where it is"
    )]
    Spread(SpreadArgs),
    /// Record an event through an agent, or JSON lines from standard input.
    Record(RecordArgs),
    /// Run a command and record how long it took, in seconds.
    ///
    /// It ends with the exit code of the command, whether the time could be recorded or not. As in a shell: 128 and
    /// the signal that ended it, 127 if the command is not found, 126 if it cannot be run. Signals are forwarded to
    /// it.
    Time(TimeArgs),
    /// Check server and agents: reachability, clocks, delivery, and refusals with reasons.
    Doctor,
    /// Print a shell script that completes command lines: `taba completions bash > …/bash_completion.d/taba`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of a command: `taba man record | man -l -`.
    Man {
        /// The command.
        command: Option<String>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RecordArgs {
    /// The tab: a name, with labels or without.
    #[arg(value_name = "NAME", required_unless_present = "stdin")]
    pub(crate) name: Option<String>,
    /// A number, a text, or a JSON object, depending on the type. Default: 1.
    #[arg(value_name = "VALUE", allow_negative_numbers = true)]
    pub(crate) value: Option<String>,
    /// Record JSON lines from standard input, as for POST /v2/record: {"tab":"bids_won","value":1}
    #[arg(long, conflicts_with_all = ["name", "value", "labels", "tab_type", "time"])]
    pub(crate) stdin: bool,
    /// Labels of the tab; values may be any text.
    #[arg(long = "label", value_parser = label, value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// Its type. Default: CounterGroup for a number, Gauge for a text.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) tab_type: Option<String>,
    /// The client. Default: http.
    #[arg(long, value_name = "CLIENT")]
    pub(crate) client: Option<String>,
    /// The time of the event, as 2026-11-27T12:00:00Z. Default: now.
    #[arg(long, value_name = "TIME")]
    pub(crate) time: Option<String>,
    /// The same key again counts once. Default: a new one for this call.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TimeArgs {
    /// The tab. Default: command.seconds, with the command's name as the label `command`.
    #[arg(long, value_name = "NAME")]
    pub(crate) tab: Option<String>,
    /// Labels of the tab; values may be any text.
    #[arg(long = "label", value_parser = label, value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// The client. Default: http.
    #[arg(long, value_name = "CLIENT")]
    pub(crate) client: Option<String>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// The selected tabs and clients.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct Choice {
    /// Names of tabs, labels included: `delay`, `delay;to=MEM`. Without any selection: all.
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

/// The page of results.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct Page {
    /// The maximum number of results.
    #[arg(long)]
    pub(crate) limit: Option<u64>,
    /// The first name: the end of the last page. Of proj, the tab and the client: 'TAB CLIENT'.
    #[arg(long, value_name = "NAME")]
    pub(crate) from: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct AggArgs {
    /// Group by the values of these labels.
    #[arg(long, value_delimiter = ',', value_name = "KEY,…")]
    pub(crate) by: Vec<String>,
    #[command(flatten)]
    pub(crate) rest: ProjArgs,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PagedProjArgs {
    #[command(flatten)]
    pub(crate) rest: ProjArgs,
    #[command(flatten)]
    pub(crate) page: Page,
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
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SpreadArgs {
    /// The tab, labels included.
    #[arg(value_name = "NAME", requires = "spread")]
    pub(crate) name: Option<String>,
    /// Over how many vbuckets: 1, 2, 4, 8, 16, 32 or 64.
    #[arg(value_name = "VBUCKETS")]
    pub(crate) spread: Option<u16>,
    /// All tabs whose names begin with NAME.
    #[arg(long, requires = "name")]
    pub(crate) prefix: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LedgerArgs {
    /// Only these clients.
    #[arg(long = "client", value_name = "CLIENT")]
    pub(crate) clients: Vec<String>,
    /// Clients are regular expressions that must match in full.
    #[arg(long)]
    pub(crate) re: bool,
    #[command(flatten)]
    pub(crate) page: Page,
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
    /// Time between two updates, as 500ms, 1s or 1m; a bare number is seconds.
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = every)]
    pub(crate) every: Duration,
    /// End with an error when nothing arrives for this long. A server sends at least a comment every 15 s.
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = every)]
    pub(crate) idle: Duration,
}

impl Args {
    /// The given agents, or the default one.
    pub(crate) fn agents(&self) -> Vec<String> {
        if self.agent.is_empty() { vec!["http://127.0.0.1:8279".to_owned()] } else { self.agent.clone() }
    }
}

impl Command {
    /// The selection of the command, if it has one.
    pub(crate) fn choice(&self) -> Option<&Choice> {
        match self {
            Self::Agg(agg) => Some(&agg.rest.choice),
            Self::Proj(proj) => Some(&proj.rest.choice),
            Self::Super(proj) => Some(&proj.choice),
            Self::Clients(list) | Self::Names(list) | Self::Types(list) => Some(&list.choice),
            Self::Delete(choice) | Self::Prune(choice) => Some(choice),
            _ => None,
        }
    }
}

/// Parses the URL of a Server; without a scheme, http.
fn server(text: &str) -> Result<String, String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    match url.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => Ok(text.to_owned()),
        _ => Err("write http://HOST:PORT, as in http://localhost:8300 (TLS is not supported yet)".to_owned()),
    }
}

fn proxy(text: &str) -> Result<String, String> {
    match ureq::Proxy::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; write http://HOST:PORT")),
    }
}

fn every(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.map_or_else(|| units::parse_time(text).map_err(|error| error.to_string()), Ok)
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
    fn every_setting_can_come_from_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        taba_process::laws::settings::<Args>(&PROGRAM, &["taba", "status"], dir.path(), &["log"]);
    }

    #[test]
    fn a_time_is_written_as_in_settings_or_in_seconds() {
        for (text, ms) in [("500ms", 500), ("1s", 1000), ("1", 1000), ("0.5", 500), ("1m", 60_000)] {
            assert_eq!(every(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert!(["", "-1", "soon", "nan"].iter().all(|text| every(text).is_err()));
    }

    #[test]
    fn labels_are_pairs() {
        assert_eq!(label("to=MEM"), Ok(("to".to_owned(), "MEM".to_owned())));
        assert_eq!(label("tenant="), Ok(("tenant".to_owned(), String::new())));
        assert!(label("to").is_err() && label("=x").is_err());
    }
}
