//! `taba watch`: aggregates as server-sent events, redrawn at each change.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;

use serde_json::Value;
use taba_core::printable;
use taba_process::Exit;

use crate::args::{Args, WatchArgs};
use crate::client::{Client, Method};
use crate::commands::missing;
use crate::error::CliError;
use crate::sse::{Event, Events};
use crate::url::Question;
use crate::{json, pipe, table};

/// Cursor home, then clear to the end: flickers less than clearing first.
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
    let lines = lines(client.open(Method::Get, &question, "text/event-stream, application/json")?)?;
    let mut out = std::io::stdout().lock();
    let on_terminal = out.is_terminal() && !as_json;
    if on_terminal {
        write!(out, "{CLEAR}")?;
    }
    let (mut events, mut shown) = (Events::default(), Shown::default());
    loop {
        let line = match lines.recv_timeout(args.idle) {
            Ok(line) => line.map_err(|source| CliError::BrokeOff { source })?,
            Err(RecvTimeoutError::Timeout) => return Err(CliError::WatchSilent { idle: args.idle }),
            Err(RecvTimeoutError::Disconnected) => return Err(CliError::WatchEnded),
        };
        let Some(Event { name, data }) = events.line(&line) else { continue };
        // Unknown events of a newer Server are ignored.
        if !["aggregate", "gone", "missing", "error"].contains(&name.as_str()) {
            continue;
        }
        if as_json {
            writeln!(out, "{}", json::plain(&data))?;
            out.flush()?;
            continue;
        }
        let data: Value = serde_json::from_str(&data).map_err(|source| CliError::Unreadable { source })?;
        if let Some(remark) = shown.take(&name, data) {
            let _ = writeln!(std::io::stderr(), "taba: {}", printable(&remark));
        } else {
            let results: Vec<Value> = shown.rows.values().cloned().collect();
            let redraw = if on_terminal { REDRAW } else { "" };
            write!(out, "{redraw}{}", table::answers(&results, args.detail))?;
            out.flush()?;
        }
    }
}

/// Reads lines in a thread, so that a silent Server is noticed.
fn lines(reader: impl BufRead + Send + 'static) -> Result<Receiver<std::io::Result<String>>, CliError> {
    let (give, lines) = sync_channel(1);
    let read = move || {
        for line in reader.lines() {
            let is_last = line.is_err();
            if give.send(line).is_err() || is_last {
                return;
            }
        }
    };
    let _: thread::JoinHandle<()> = thread::Builder::new().name("taba-watch".to_owned()).spawn(read)?;
    Ok(lines)
}

/// The displayed rows.
#[derive(Debug, Default)]
struct Shown {
    /// By name and type.
    rows: BTreeMap<(String, String), Value>,
    /// Whether a part of the store cannot be read, so that rows may have different ages.
    is_partial: bool,
}

impl Shown {
    /// Applies one event. Returns a message to show; without one, rows may have changed.
    fn take(&mut self, event: &str, data: Value) -> Option<String> {
        let word = |key: &str| data[key].as_str().unwrap_or("").to_owned();
        match event {
            "aggregate" => {
                let as_of = data["as_of"].clone();
                self.rows.insert((word("name"), word("type")), data);
                // All other rows were checked too, and are unchanged.
                let rows = self.rows.values_mut().filter(|_| !self.is_partial);
                rows.for_each(|row| row["as_of"] = as_of.clone());
                None
            }
            "gone" => {
                self.rows.remove(&(word("name"), word("type")));
                None
            }
            "missing" if data.is_null() => {
                self.is_partial = false;
                Some("the whole store can be read again".to_owned())
            }
            "missing" => {
                self.is_partial = true;
                Some(format!("missing: {}", missing(&data)))
            }
            _ => {
                let (reason, message) = CliError::words(&data);
                Some(format!("{message} ({reason})"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_that_did_not_change_are_as_new_as_the_last_one_that_did() {
        let mut shown = Shown::default();
        let row = |name: &str, as_of: &str| json!({ "name": name, "type": "Gauge", "as_of": as_of });
        let times = |shown: &Shown| -> Vec<String> {
            shown.rows.values().map(|row| row["as_of"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(shown.take("aggregate", row("a", "2001-09-09T01:46:40Z")), None);
        assert_eq!(shown.take("aggregate", row("b", "2001-09-09T01:46:41Z")), None);
        assert_eq!(times(&shown), ["2001-09-09T01:46:41Z"; 2]);
        // Unreadable rows keep their age.
        let part = json!({ "vbuckets": 512, "shards": ["one"], "why": ["it is away"], "affects": "results" });
        assert_eq!(shown.take("missing", part).as_deref(), Some("missing: 512 vbuckets of one: it is away"));
        shown.take("aggregate", row("b", "2001-09-09T01:46:42Z"));
        assert_eq!(times(&shown), ["2001-09-09T01:46:41Z", "2001-09-09T01:46:42Z"]);
        assert!(shown.take("missing", Value::Null).is_some());
        shown.take("gone", json!({ "name": "a", "type": "Gauge" }));
        assert_eq!(times(&shown), ["2001-09-09T01:46:42Z"]);
        assert_eq!(shown.take("error", json!({ "reason": "r", "message": "m" })).as_deref(), Some("m (r)"));
    }
}
