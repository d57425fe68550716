//! The commands: each asks one question and shows the answer.

use std::io::{Read, Write};

use serde_json::Value;
use taba_core::printable;

use crate::args::{Args, Choice, Command};
use crate::client::{Client, Method};
use crate::error::CliError;
use crate::url::Question;
use crate::{table, watch};

/// How an answer is shown.
type Show = fn(&Value, bool) -> String;

/// Runs one command.
pub(crate) fn run(args: &Args, command: &Command) -> Result<(), CliError> {
    let client = Client::new(&args.server, args.proxy.as_deref())?;
    let (method, question, show, detail): (_, _, Show, _) = match command {
        Command::Watch(watch) => return watch::run(&client, watch, args),
        Command::Agg(agg) => {
            let limit = agg.limit.map(|limit| limit.to_string());
            let question = Question::new("/v2/tabs").projecting(&agg.rest).with_all("by", &agg.by);
            (Method::Get, question.with_some("limit", limit.as_deref()), show_answers, agg.rest.detail)
        }
        Command::Proj(proj) => {
            (Method::Get, Question::new("/v2/projections").projecting(proj), show_answers, proj.detail)
        }
        Command::Super(proj) => {
            (Method::Get, Question::new("/v2/super").projecting(proj), show_answers, proj.detail)
        }
        Command::Clients(args) => listing("/v2/clients", &args.choice, args.limit, show_clients),
        Command::Names(args) => listing("/v2/names", &args.choice, args.limit, show_names),
        Command::Types(args) => listing("/v2/types", &args.choice, args.limit, show_types),
        Command::Status => (Method::Get, Question::new("/v2/status"), show_object, false),
        Command::Ledger(args) => {
            let question =
                Question::new("/v2/ledger").with_all("client", &args.clients).with_flag("re", args.re);
            (Method::Get, question, show_ledger, false)
        }
        Command::Delete(choice) => {
            (Method::Delete, Question::new("/v2/tabs").choosing(choice), show_object, false)
        }
        Command::Prune(choice) => {
            (Method::Post, Question::new("/v2/prune").choosing(choice), show_object, false)
        }
    };
    // Where a time has no meaning, the server says so.
    let question = question.with_some("at", args.at.as_deref());
    if args.json {
        return copy(client.open(method, &question, "application/json")?);
    }
    let answer = client.ask(method, &question)?;
    write!(std::io::stdout(), "{}", show(&answer, detail))?;
    remarks(&answer)
}

fn listing(
    path: &'static str,
    choice: &Choice,
    limit: Option<u64>,
    show: Show,
) -> (Method, Question, Show, bool) {
    let limit = limit.map(|limit| limit.to_string());
    (Method::Get, Question::new(path).choosing(choice).with_some("limit", limit.as_deref()), show, false)
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

fn show_object(answer: &Value, _: bool) -> String {
    table::object(answer)
}

/// What the answer says about itself, on standard error; an answer that broke off in the middle is an error.
fn remarks(answer: &Value) -> Result<(), CliError> {
    let mut err = std::io::stderr();
    for fault in answer["errors"].as_array().into_iter().flatten() {
        let (_, message) = CliError::words(fault);
        let (states, name) = (&fault["states"], table::tab(fault["name"].as_str().unwrap_or("?")));
        let _ = writeln!(err, "not included: {states} states of {name}: {message}");
    }
    if let Some(omitted) = answer["errors_omitted"].as_u64().filter(|omitted| *omitted > 0) {
        let _ = writeln!(err, "not included: {omitted} more states");
    }
    if let Some(missing) = answer["missing"].as_object() {
        let words = |of: &str| {
            let words = missing[of].as_array().into_iter().flatten().filter_map(Value::as_str);
            printable(&words.collect::<Vec<_>>().join(", ")).into_owned()
        };
        let (vbuckets, shards, why) = (&missing["vbuckets"], words("shards"), words("why"));
        let _ = writeln!(err, "missing: {vbuckets} vbuckets of {shards}: {why}");
    }
    if answer["truncated"] == true {
        let _ = writeln!(err, "there is more than {} results", results(answer).len());
    }
    if answer["results"].as_array().is_some_and(Vec::is_empty) {
        let _ = writeln!(err, "nothing found");
    }
    if answer["complete"] == false {
        let part = || ("partial".to_owned(), "a part of what was chosen could not be read".to_owned());
        let error = &answer["error"];
        let (reason, message) = if error.is_null() { part() } else { CliError::words(error) };
        return Err(CliError::Incomplete { reason, message });
    }
    Ok(())
}

/// Copies the answer as it comes. Whether it is complete stands at its end.
fn copy(mut answer: impl Read) -> Result<(), CliError> {
    const TAIL_BYTES: usize = 4096;
    let mut out = std::io::stdout().lock();
    let (mut buffer, mut tail) = (vec![0; 64 * 1024], Vec::new());
    loop {
        let read = answer.read(&mut buffer).map_err(|source| CliError::BrokeOff { source })?;
        if read == 0 {
            break;
        }
        out.write_all(&buffer[..read])?;
        tail.extend_from_slice(&buffer[..read]);
        tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
    }
    out.flush()?;
    let tail = String::from_utf8_lossy(&tail);
    match tail.rsplit_once("\"complete\":false,\"error\":") {
        None => Ok(()),
        Some((_, error)) => {
            let error = error.trim_end().trim_end_matches('}').to_owned() + "}";
            let (reason, message) = CliError::words(&serde_json::from_str(&error).unwrap_or_default());
            Err(CliError::Incomplete { reason, message })
        }
    }
}
