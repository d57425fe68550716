//! `taba watch`: aggregates as server-sent events, drawn again whenever one changed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IsTerminal, Write};

use serde_json::Value;
use taba_process::Exit;

use crate::args::{Args, WatchArgs};
use crate::client::{Client, Method};
use crate::error::CliError;
use crate::url::Question;
use crate::{json, pipe, table};

/// Home, then clear to the end: less flicker than clearing first.
const REDRAW: &str = "\x1b[H\x1b[J";
const CLEAR: &str = "\x1b[2J";

/// Shows changes until the server ends the watch.
pub(crate) fn run(client: &Client, args: &WatchArgs, all: &Args) -> Result<Exit, CliError> {
    let question = Question::new("/v2/watch")
        .choosing(&args.choice)
        .with_all("by", &args.by)
        .with_flag("detail", args.detail)
        .with("every", &args.every.as_secs_f64().to_string())
        .with_some("at", all.at.as_deref());
    pipe::end_with_its_reader();
    let as_json = all.json;
    let reader =
        BufReader::new(client.open(Method::Get, &question, "text/event-stream, application/json")?);
    let mut out = std::io::stdout().lock();
    let on_terminal = out.is_terminal() && !as_json;
    if on_terminal {
        write!(out, "{CLEAR}")?;
    }
    let mut shown: BTreeMap<(String, String), Value> = BTreeMap::new();
    let mut event = String::new();
    for line in reader.lines() {
        let line = line.map_err(|source| CliError::BrokeOff { source })?;
        if let Some(name) = line.strip_prefix("event:") {
            event = name.trim().to_owned();
        }
        let Some(data) = line.strip_prefix("data:") else { continue };
        if as_json {
            writeln!(out, "{}", json::plain(data.trim()))?;
            out.flush()?;
            continue;
        }
        let data: Value = serde_json::from_str(data).map_err(|source| CliError::Unreadable { source })?;
        take(&mut shown, &event, data);
        let results: Vec<Value> = shown.values().cloned().collect();
        write!(out, "{}{}", if on_terminal { REDRAW } else { "" }, table::answers(&results, args.detail))?;
        out.flush()?;
    }
    Err(CliError::WatchEnded)
}

/// Takes one event into what is shown.
fn take(shown: &mut BTreeMap<(String, String), Value>, event: &str, data: Value) {
    let word = |key: &str| data[key].as_str().unwrap_or("").to_owned();
    match event {
        "aggregate" => drop(shown.insert((word("name"), word("type")), data)),
        "gone" => drop(shown.remove(&(word("name"), word("type")))),
        // Events that a newer Server has are none of ours.
        "error" | "missing" if !data.is_null() => {
            let (reason, message) = CliError::words(&data);
            let _ = writeln!(std::io::stderr(), "taba: {message} ({reason})");
        }
        _ => {}
    }
}
