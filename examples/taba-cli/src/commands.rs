//! The commands: each sends one query and shows the answer.

use std::io::Write;

use clap::CommandFactory;
use serde_json::Value;
use taba_core::{printable, printable_json};
use taba_process::Exit;

use crate::args::{Args, Command, ListArgs, SpreadArgs};
use crate::client::{Client, Method};
use crate::error::CliError;
use crate::number::plain;
use crate::url::Question;
use crate::{doctor, json, record, removal, table, timed, watch};

/// How an answer is shown.
type Show = fn(&Value, bool) -> String;

/// Runs one command.
pub(crate) fn run(args: &Args, command: &Command) -> Result<Exit, CliError> {
    let client = Client::new(args)?;
    let (method, question, show, detail): (_, _, Show, _) = match command {
        Command::Watch(watch) => return watch::run(&client.without_end(), watch, args),
        Command::Record(record) => return record::run(args, record),
        Command::Time(timed) => return timed::run(args, timed),
        Command::Doctor => return doctor::run(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "taba", &mut script);
            std::io::stdout().write_all(&script)?;
            return Ok(Exit::Clean);
        }
        Command::Man { command } => return man(command.as_deref()),
        Command::Agg(agg) => {
            let question = Question::new("/v2/tabs").projecting(&agg.rest).with_all("by", &agg.by);
            (Method::Get, question.paging(&agg.page), show_answers, agg.rest.detail)
        }
        Command::Proj(proj) => {
            let question = Question::new("/v2/projections").projecting(&proj.rest);
            (Method::Get, question.paging(&proj.page), show_answers, proj.rest.detail)
        }
        Command::Super(proj) => {
            (Method::Get, Question::new("/v2/super").projecting(proj), show_answers, proj.detail)
        }
        Command::Clients(args) => listing("/v2/clients", args, show_clients),
        Command::Names(args) => listing("/v2/names", args, show_names),
        Command::Types(args) => listing("/v2/types", args, show_types),
        Command::Status => (Method::Get, Question::new("/v2/status"), show_object, false),
        Command::Ledger(args) => {
            let question =
                Question::new("/v2/ledger").with_all("client", &args.clients).with_flag("re", args.re);
            (Method::Get, question.paging(&args.page), show_ledger, false)
        }
        Command::Delete(choice) => {
            (Method::Delete, Question::new("/v2/tabs").choosing(choice), show_object, false)
        }
        Command::Forget { client } => {
            (Method::Delete, Question::new("/v2/clients").with("client", client), show_object, false)
        }
        Command::Prune(choice) => {
            (Method::Post, Question::new("/v2/prune").choosing(choice), show_object, false)
        }
        Command::Spread(SpreadArgs { name: Some(name), spread, prefix }) => {
            let question = Question::new("/v2/spread").with(if *prefix { "prefix" } else { "name" }, name);
            let spread = spread.map(|spread| spread.to_string());
            (Method::Post, question.with_some("spread", spread.as_deref()), show_spread, false)
        }
        Command::Spread(_) => (Method::Get, Question::new("/v2/spread"), show_spread, false),
    };
    // Where a time is not supported, the server says so.
    let question = question.with_some("at", args.at.as_deref());
    let is_removal = matches!(command, Command::Delete(_) | Command::Prune(_) | Command::Forget { .. });
    if args.json && !is_removal {
        let end = json::copy(client.open(method, &question, "application/json")?)?;
        return is_complete(&end);
    }
    let answer =
        if is_removal { removal::whole(&client, method, &question) } else { client.ask(method, &question) }?;
    let text =
        if args.json { format!("{}\n", printable_json(&answer.to_string())) } else { show(&answer, detail) };
    write!(std::io::stdout(), "{text}")?;
    if let (Some(_), Some(at)) = (&args.at, answer["at"].as_str()) {
        writeln!(std::io::stdout(), "windows and gauges at {} (--at)", printable(at))?;
    }
    remarks(&answer, command);
    is_complete(&answer)
}

/// The manual page of the program, or of one of its commands.
fn man(command: Option<&str>) -> Result<Exit, CliError> {
    let mut page = Args::command();
    page.build();
    if let Some(name) = command {
        let found = page.find_subcommand(name).cloned();
        page = found.ok_or_else(|| CliError::NoCommand { name: name.to_owned() })?;
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    std::io::stdout().write_all(&text)?;
    Ok(Exit::Clean)
}

fn listing(path: &'static str, args: &ListArgs, show: Show) -> (Method, Question, Show, bool) {
    (Method::Get, Question::new(path).choosing(&args.choice).paging(&args.page), show, false)
}

fn results(answer: &Value) -> &[Value] {
    answer["results"].as_array().map_or(&[], Vec::as_slice)
}

fn show_answers(answer: &Value, detail: bool) -> String {
    table::answers(results(answer), detail)
}

fn show_clients(answer: &Value, _: bool) -> String {
    table::list(results(answer), &[("client", "client"), ("tabs", "tabs")])
}

fn show_names(answer: &Value, _: bool) -> String {
    table::list(results(answer), &[("name", "name"), ("type", "type")])
}

fn show_types(answer: &Value, _: bool) -> String {
    table::list(results(answer), &[("type", "type"), ("tabs", "tabs"), ("known", "known here")])
}

fn show_ledger(answer: &Value, _: bool) -> String {
    table::ledger(results(answer), &answer["totals"])
}

fn show_spread(answer: &Value, _: bool) -> String {
    let rules = answer["rules"].as_array().map_or(&[][..], Vec::as_slice);
    if rules.is_empty() {
        return "no tab is spread\n".to_owned();
    }
    let columns = [("name", "name"), ("prefix", "prefix"), ("spread", "vbuckets"), ("widest", "ever")];
    table::list(rules, &columns)
}

fn show_object(answer: &Value, _: bool) -> String {
    table::object(answer)
}

/// Reports on standard error what the answer lacks.
fn remarks(answer: &Value, command: &Command) {
    let mut err = std::io::stderr();
    for fault in answer["errors"].as_array().into_iter().flatten() {
        let (_, message) = CliError::words(fault);
        let (states, name) = (&fault["states"], table::tab(fault["name"].as_str().unwrap_or("?")));
        let _ = writeln!(err, "not included: {states} states of {name}: {message}");
    }
    if let Some(omitted) = answer["errors_omitted"].as_u64().filter(|omitted| *omitted > 0) {
        let _ = writeln!(err, "not included: {omitted} more states");
    }
    if answer["missing"].is_object() {
        let _ = writeln!(err, "missing: {}", missing(&answer["missing"]));
    }
    if answer["truncated"] == true {
        let next =
            answer["next"].as_str().map(|name| format!("; continue with --from '{}'", printable(name)));
        let _ = writeln!(
            err,
            "there are more than {} results{}",
            results(answer).len(),
            next.unwrap_or_default()
        );
    }
    if answer["results"].as_array().is_some_and(Vec::is_empty) || answer["removed"]["states"] == 0 {
        let base = command.choice().filter(|choice| !choice.re).and_then(|choice| choice.names.first());
        // Tabs with labels have longer names.
        let hint = base.filter(|name| !name.contains(';')).map(|name| {
            format!("; tabs of this name with labels are chosen with --base {}", printable(name))
        });
        let _ = writeln!(err, "nothing found{}", hint.unwrap_or_default());
    }
}

/// The unreadable part of the store, and why.
pub(crate) fn missing(missing: &Value) -> String {
    let words = |of: &str| {
        let words = missing[of].as_array().into_iter().flatten().filter_map(Value::as_str);
        printable(&words.collect::<Vec<_>>().join(", ")).into_owned()
    };
    let (vbuckets, shards, why) = (plain(&missing["vbuckets"]), words("shards"), words("why"));
    let of = if shards.is_empty() { "the store" } else { &shards };
    format!("{vbuckets} vbuckets of {of}: {why}")
}

/// An incomplete answer is an error.
fn is_complete(answer: &Value) -> Result<Exit, CliError> {
    if answer["complete"] == false {
        let part = || ("partial".to_owned(), "a part of the selection could not be read".to_owned());
        let error = &answer["error"];
        let (reason, message) = if error.is_null() { part() } else { CliError::words(error) };
        return Err(CliError::Incomplete { reason, message });
    }
    Ok(Exit::Clean)
}
