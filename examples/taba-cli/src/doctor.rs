//! `taba doctor`: checks Server and Agents, and suggests remedies.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};
use taba_core::{Timestamp, printable, printable_json};
use taba_process::Exit;

use crate::args::Args;
use crate::client::{Client, Method};
use crate::clock;
use crate::error::CliError;
use crate::number::plain;
use crate::url::Question;

/// Smaller clock differences move no event into another window: Servers allow them.
const CLOCKS_APART_MAX_MICROS: i64 = 10_000_000;
/// Clients listed by name.
const CLIENTS_SHOWN_MAX: usize = 5;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    /// Information, not a fault.
    Note,
    Bad,
}

#[derive(Debug)]
struct Check {
    state: State,
    what: String,
    remedy: Option<&'static str>,
}

/// The results of all checks.
#[derive(Debug, Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn good(&mut self, what: impl Into<String>) {
        self.0.push(Check { state: State::Good, what: what.into(), remedy: None });
    }

    fn note(&mut self, what: impl Into<String>, remedy: &'static str) {
        self.0.push(Check { state: State::Note, what: what.into(), remedy: Some(remedy) });
    }

    fn bad(&mut self, what: impl Into<String>, remedy: &'static str) {
        self.0.push(Check { state: State::Bad, what: what.into(), remedy: Some(remedy) });
    }

    fn is_well(&self) -> bool {
        self.0.iter().all(|check| check.state != State::Bad)
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for Check { state, what, remedy } in &self.0 {
            let word = match state {
                State::Good => "ok  ",
                State::Note => "note",
                State::Bad => "BAD ",
            };
            let _ = writeln!(out, "{word}  {}", printable(what));
            if let Some(remedy) = remedy {
                let _ = writeln!(out, "      {}", printable(remedy));
            }
        }
        out
    }

    fn json(&self) -> Value {
        let check = |Check { state, what, remedy }: &Check| {
            let state = match state {
                State::Good => "ok",
                State::Note => "note",
                State::Bad => "bad",
            };
            json!({ "state": state, "what": what, "remedy": remedy })
        };
        json!({ "is_well": self.is_well(), "checks": self.0.iter().map(check).collect::<Vec<_>>() })
    }
}

/// Checks the Server and the Agents. Exit code 1 if there is a fault.
pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    let mut checks = Checks::default();
    let server = Client::new(args)?;
    match server.ask(Method::Get, &Question::new("/v2/status")) {
        Ok(status) => {
            check_server(&mut checks, &args.server, &status);
            match server.ask(Method::Get, &Question::new("/v2/ledger")) {
                Ok(ledger) => check_ledger(&mut checks, &ledger),
                Err(error) => checks.bad(
                    format!("the ledger cannot be read: {}", taba_core::causes(&error)),
                    "the log of the server says more",
                ),
            }
        }
        Err(error) => {
            checks.bad(taba_core::causes(&error), "start taba-server, or name where it is with --server");
        }
    }
    for agent in args.agents() {
        match Client::to(&agent, args)?.ask(Method::Get, &Question::new("/v2/status")) {
            Ok(status) => check_agent(&mut checks, &agent, &status),
            Err(_) if args.agent.is_empty() => {
                checks.note(format!("no agent at {agent}"), "--agent names those to look at");
            }
            Err(error) => {
                let why = taba_core::causes(&error);
                checks.bad(
                    format!("agent {agent}: {why}"),
                    "start taba-agent there; its clients keep what it does not take",
                );
            }
        }
    }
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{}", printable_json(&format!("{:#}", checks.json())))?;
    } else {
        write!(out, "{}", checks.text())?;
    }
    Ok(if checks.is_well() { Exit::Clean } else { Exit::Failed })
}

fn check_server(checks: &mut Checks, server: &str, status: &Value) {
    let text = |key: &str| status[key].as_str().unwrap_or("?");
    checks.good(format!("server {server} answers: version {}, store {}", text("version"), text("store")));
    let now = status["now"].as_str().and_then(|now| now.parse::<jiff::Timestamp>().ok());
    if let Some(now) = now {
        let apart = Timestamp::from_micros(now.as_microsecond()).as_micros() - clock::time_of_day();
        if apart.abs() < CLOCKS_APART_MAX_MICROS {
            checks.good("its clock and the one here agree");
        } else {
            checks.bad(
                format!("its clock is {} s from the one here", plain(&(apart / 1_000_000).into())),
                "set right the one that is wrong: agents wait while clocks are far apart, and windows are cut by the server's",
            );
        }
    }
    let ingest = &status["ingest"];
    for (count, what, remedy) in [
        (
            "store_errors",
            "answers of the store were errors",
            "its log says which; senders keep what was not stored",
        ),
        ("handler_panics", "times a handler panicked", "its log says which; agents set the blocks aside"),
        ("batches_newer", "batches were of a newer version than it reads", "upgrade this server"),
        (
            "messages_misplaced",
            "batches were meant for another store or other vbuckets",
            "its log says which; compare --store-id and --vbuckets",
        ),
        ("log_lines_dropped", "lines of its log were dropped", "its standard error is not read fast enough"),
    ] {
        let found = ingest[count].as_u64().unwrap_or(0);
        if found > 0 {
            checks.note(format!("{found} {what} since its start"), remedy);
        }
    }
}

fn check_ledger(checks: &mut Checks, ledger: &Value) {
    if ledger["complete"] == true {
        checks.good("its store can be read as a whole");
    } else {
        checks.bad(
            "a part of its store cannot be read",
            "taba ledger says which part; taba-server check says why",
        );
    }
    let totals = &ledger["totals"];
    for dropped in totals["dropped"].as_array().into_iter().flatten() {
        let word = |key: &str| dropped[key].as_str().unwrap_or("?");
        checks.note(
            format!(
                "{} events were dropped in the {}: {}",
                plain(&dropped["events"]),
                word("where"),
                word("why")
            ),
            "docs/FAILURES.md says what leads to it",
        );
    }
    let mut behind = Vec::new();
    for row in ledger["results"].as_array().into_iter().flatten() {
        let client = row["client"].as_str().unwrap_or("?");
        if row["in_flight"].as_u64().is_some_and(|events| events > 0) {
            behind.push(format!("{client} {}", plain(&row["in_flight"])));
        }
        if row["excess"].as_u64().is_some_and(|events| events > 0)
            && !client.starts_with(taba_core::ledger::STREAM_PREFIX)
        {
            checks.note(
                format!("the store lost the record of {} events of {client}", plain(&row["excess"])),
                "it was a memory store that restarted, or an older backup was restored; or it is later than a second",
            );
        }
    }
    if ledger["truncated"] == true {
        checks.note(
            format!(
                "only the first {} clients were looked at",
                ledger["results"].as_array().map_or(0, Vec::len)
            ),
            "taba ledger --from shows the others",
        );
    }
    if behind.is_empty() {
        checks.good("nothing is in flight");
    } else {
        let more = behind.len().saturating_sub(CLIENTS_SHOWN_MAX);
        behind.truncate(CLIENTS_SHOWN_MAX);
        let more = if more > 0 { format!(", and {more} clients more") } else { String::new() };
        checks.note(
            format!("events in flight, by client: {}{more}", behind.join(", ")),
            "look again in a moment; what remains is kept by an agent that cannot deliver, or was lost with its client",
        );
    }
}

fn check_agent(checks: &mut Checks, agent: &str, status: &Value) {
    let before = checks.0.len();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    for server in status["servers"].as_array().into_iter().flatten() {
        if let Some(waits) = server["waits_for"].as_str() {
            checks.bad(
                format!("agent {agent} waits with {}, for {waits}", plain(&server["url"])),
                "set right a clock that is wrong, upgrade a server that is older; nothing is lost meanwhile",
            );
        }
        if server["health"] != "up" {
            let (url, why) = (plain(&server["url"]), plain(&server["last_error"]));
            checks.bad(
                format!("agent {agent} cannot deliver to {url}: {why}"),
                "it keeps everything until that server is back",
            );
        }
    }
    for (url, store) in status["other_stores"].as_object().into_iter().flatten() {
        checks.bad(
            format!(
                "agent {agent}: {url} has the store {}, which is not the one it delivers to",
                plain(store)
            ),
            "correct --servers, or accept the store with --store-id",
        );
    }
    let (own, theirs) = (&status["vbuckets"], &status["vbuckets_of_servers"]);
    if theirs.is_u64() && own != theirs {
        checks.bad(
            format!("agent {agent} has {own} vbuckets, and its servers {theirs}"),
            "start it with --vbuckets as theirs",
        );
    }
    let unapplied = number(&status["spool"]["events_unapplied"]);
    if unapplied > 0 {
        checks.note(
            format!("agent {agent} has {unapplied} events to deliver"),
            "look again in a moment; they should become fewer",
        );
    }
    let aside = number(&status["set_aside"]["events"]);
    if aside > 0 {
        checks.bad(
            format!("agent {agent} has set {aside} events aside, which servers failed on"),
            "taba-agent set-aside list says which",
        );
    }
    let damage = &status["damage"];
    if number(&damage["stretches"]) > 0 || damage["events_unknown"] == true {
        let more = if damage["events_unknown"] == true { ", or more" } else { "" };
        checks.bad(
            format!("the spool of agent {agent} was damaged: {} events lost{more}", plain(&damage["events"])),
            "what could not be read is in *.damaged files in its directory",
        );
    }
    for field in ["refused", "refused_by_servers"] {
        for (why, events) in status[field].as_object().into_iter().flatten() {
            checks.note(
                format!("agent {agent}: {} events were refused: {why}", plain(events)),
                "its log says of which tab and client",
            );
        }
    }
    let lines = number(&status["log_lines_dropped"]);
    if lines > 0 {
        checks.note(
            format!("agent {agent}: {lines} lines of its log were dropped"),
            "its standard error is not read fast enough",
        );
    }
    if checks.0.len() == before {
        checks.good(format!("agent {agent} has delivered everything"));
    }
}
