//! `taba record`: sends events to an Agent by `POST /v2/record`.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use taba_process::Exit;

use crate::args::{Args, RecordArgs};
use crate::client::Client;
use crate::clock;
use crate::error::CliError;

/// Lines and bytes of one request: an Agent's limits.
const LINES_MAX: usize = 10_000;
const BYTES_MAX: usize = 1 << 20;
/// Lines read ahead, each up to the size of a request; bounds memory.
const LINES_AHEAD_MAX: usize = 16;
/// The maximum delay before lines of a slow input are sent.
const GATHER_TIME: Duration = Duration::from_millis(200);
/// Pause between tries: first and maximum.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Records one event, or the lines of standard input.
pub(crate) fn run(args: &Args, record: &RecordArgs) -> Result<Exit, CliError> {
    let key = match &record.key {
        Some(key) => key.clone(),
        None => new_key()?,
    };
    let mut recorder = Recorder::new(args, record.client.as_deref(), key)?;
    if record.stdin {
        lines(&mut recorder, record.key.is_some())?;
    } else {
        let name = record.name.as_deref().unwrap_or_default();
        let mut event = event(name, &record.labels, record.value.as_deref().map(value));
        for (field, text) in [("type", &record.tab_type), ("time", &record.time)] {
            if let Some(text) = text {
                event.insert(field.to_owned(), text.as_str().into());
            }
        }
        recorder.send(Value::Object(event).to_string().as_bytes(), 1)?;
    }
    Ok(recorder.end(record.stdin))
}

/// One event in the JSON of an Agent.
pub(crate) fn event(name: &str, labels: &[(String, String)], value: Option<Value>) -> Map<String, Value> {
    let mut event = Map::from_iter([("tab".to_owned(), name.into())]);
    if !labels.is_empty() {
        let labels = labels.iter().map(|(key, text)| (key.clone(), text.as_str().into()));
        event.insert("labels".to_owned(), Value::Object(labels.collect()));
    }
    event.extend(value.map(|value| ("value".to_owned(), value)));
    event
}

/// A number or object if the text is one; else the text.
fn value(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Object(_))) => value,
        _ => text
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .map_or_else(|| text.into(), Value::from),
    }
}

/// A unique key.
pub(crate) fn new_key() -> Result<String, CliError> {
    let number = getrandom::u64().map_err(|error| CliError::Output(std::io::Error::other(error)))?;
    Ok(format!("taba/{number:016x}"))
}

/// Sends lines in requests that each count once, however often they are retried.
pub(crate) struct Recorder<'a> {
    client: Client,
    agent: String,
    /// The default client of lines.
    name: Option<&'a str>,
    key: String,
    timeout: Duration,
    requests: u64,
    /// The number of lines sent.
    lines: u64,
    recorded: u64,
    refused: u64,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(args: &Args, name: Option<&'a str>, key: String) -> Result<Self, CliError> {
        let agent = args.agents().remove(0);
        let client = Client::to(&agent, args)?;
        let timeout = args.timeout;
        Ok(Self { client, agent, name, key, timeout, requests: 0, lines: 0, recorded: 0, refused: 0 })
    }

    /// Sends lines. Retries with the same key while the Agent does not answer or has no room.
    ///
    /// # Errors
    /// After the timeout: whether the lines count is then unknown.
    pub(crate) fn send(&mut self, body: &[u8], lines: u64) -> Result<(), CliError> {
        self.requests += 1;
        let key = format!("{}/{}", self.key, self.requests);
        let (began, mut pause) = (clock::now(), PAUSE_MIN);
        let answer = loop {
            let error = match self.client.record(body, self.name, &key) {
                Ok(answer) => break answer,
                Err(
                    error @ (CliError::Unreachable { .. }
                    | CliError::TimedOut { .. }
                    | CliError::Busy { .. }
                    | CliError::BrokeOff { .. }),
                ) => error,
                // No line could be read, and none counts.
                Err(CliError::Refused { reason, message }) if reason == "malformed" => {
                    let refused = json!([{ "line": 1, "reason": reason, "message": message }]);
                    break json!({ "recorded": 0, "refused": refused, "refused_lines": lines });
                }
                Err(error) => return Err(error),
            };
            if began.elapsed() + pause > self.timeout {
                return Err(CliError::NotRecorded {
                    agent: self.agent.clone(),
                    key: self.key.clone(),
                    lines: self.lines + 1,
                    source: Box::new(error),
                });
            }
            tracing::warn!(error = taba_core::causes(&error), "not recorded yet; retrying");
            clock::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        };
        self.recorded += answer["recorded"].as_u64().unwrap_or(0);
        self.refused += answer["refused_lines"].as_u64().unwrap_or(0);
        for refused in answer["refused"].as_array().into_iter().flatten() {
            let (reason, message) = CliError::words(refused);
            let line = self.lines + refused["line"].as_u64().unwrap_or(1);
            let _ = writeln!(std::io::stderr(), "line {line}: {message} ({reason})");
        }
        self.lines += lines;
        Ok(())
    }

    /// Reports the result, unless it is obvious.
    fn end(&self, is_many: bool) -> Exit {
        if is_many || self.refused > 0 {
            let Self { recorded, refused, .. } = self;
            let _ = writeln!(std::io::stderr(), "recorded {recorded} events, refused {refused} lines");
        }
        if self.refused > 0 { Exit::Failed } else { Exit::Clean }
    }
}

/// Records standard input until its end, in requests within the Agent's limits.
fn lines(recorder: &mut Recorder<'_>, has_key: bool) -> Result<(), CliError> {
    // A reader thread: slow lines are sent while waiting for the next one.
    let (give, lines) = sync_channel(LINES_AHEAD_MAX);
    let _: thread::JoinHandle<()> =
        thread::Builder::new().name("taba-stdin".to_owned()).spawn(move || {
            let mut input = BufReader::new(std::io::stdin());
            loop {
                let line = line(&mut input);
                let is_last = line.as_ref().map_or(true, Vec::is_empty);
                if line.as_ref().is_ok_and(Vec::is_empty) || give.send(line).is_err() || is_last {
                    return;
                }
            }
        })?;
    // With a given key, the same input must make the same requests.
    let wait = (!has_key).then_some(GATHER_TIME);
    let is_shown = std::io::stderr().is_terminal();
    let mut held = None;
    while let Some(first) = held.take().or_else(|| lines.recv().ok()) {
        let (body, count, next) = gather(first?, &lines, wait);
        held = next;
        recorder.send(&body, count)?;
        if is_shown {
            let _ = write!(std::io::stderr(), "\r{} events recorded ", recorder.recorded);
        }
    }
    if is_shown {
        let _ = write!(std::io::stderr(), "\r");
    }
    Ok(())
}

type Line = std::io::Result<Vec<u8>>;

/// The next line; empty at the end. A line longer than a request is replaced by a short one that is no JSON, so that
/// it is refused under its number.
fn line(input: &mut impl BufRead) -> Line {
    let mut line = Vec::new();
    input.by_ref().take(BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    if line.len() == BYTES_MAX && !line.ends_with(b"\n") {
        input.skip_until(b'\n')?;
        line.truncate(100);
        line.push(b'\n');
    }
    Ok(line)
}

/// The lines of one request, their number, and the line that did not fit.
fn gather(mut body: Vec<u8>, lines: &Receiver<Line>, wait: Option<Duration>) -> (Vec<u8>, u64, Option<Line>) {
    let (began, mut count) = (clock::now(), 1);
    while count < LINES_MAX {
        let next = match wait {
            Some(wait) => lines.recv_timeout(wait.saturating_sub(began.elapsed())),
            None => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(Ok(line)) if body.len() + line.len() < BYTES_MAX => body.extend(line),
            Ok(line) => return (body, count as u64, Some(line)),
            Err(_) => break,
        }
        count += 1;
    }
    (body, count as u64, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_number_a_text_or_an_object() {
        for (text, is) in [
            ("3", json!(3)),
            ("-2.5", json!(-2.5)),
            ("1e3", json!(1e3)),
            ("v1.2", json!("v1.2")),
            ("true", json!("true")),
            ("inf", json!("inf")),
            ("[1]", json!("[1]")),
            (r#"{"key":"a","value":1}"#, json!({ "key": "a", "value": 1 })),
        ] {
            assert_eq!(value(text), is, "{text}");
        }
    }

    #[test]
    fn a_line_without_end_costs_its_own_number_and_no_other() {
        let mut input = &*[&b"{}\n"[..], &vec![b'x'; 3 * BYTES_MAX], b"\n{}"].concat();
        let lines: Vec<_> =
            std::iter::from_fn(|| Some(line(&mut input).unwrap()).filter(|line| !line.is_empty())).collect();
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [3, 101, 2]);
    }

    #[test]
    fn a_request_takes_what_fits_and_leaves_the_rest() {
        let (give, lines) = sync_channel(20_000);
        let line = |bytes: usize| Ok::<_, std::io::Error>([&vec![b'x'; bytes - 1][..], b"\n"].concat());
        for _ in 0..LINES_MAX {
            give.send(line(10)).unwrap();
        }
        give.send(line(BYTES_MAX - 5)).unwrap();
        drop(give);
        let (body, count, held) = gather(line(10).unwrap(), &lines, None);
        assert_eq!((body.len(), count, held.is_none()), (10 * LINES_MAX, LINES_MAX as u64, true));
        let (body, count, held) = gather(lines.recv().unwrap().unwrap(), &lines, None);
        assert_eq!((body.len(), count, held.unwrap().unwrap().len()), (10, 1, BYTES_MAX - 5));
    }
}
