//! [`CliError`]: why there is no answer.

use std::time::Duration;

use taba_core::printable;
use taba_process::units;

/// Why there is no answer, or only part of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("no answer from {server}{by}; is it running? ({setting} names another)")]
    Unreachable { server: String, setting: &'static str, by: String, source: Box<ureq::Error> },
    #[error("{server}{by} did not answer in time; --timeout or TABA_TIMEOUT sets how long to wait, now {}", units::time_text(*.timeout))]
    TimedOut { server: String, by: String, timeout: Duration },
    #[error("{proxy} (--proxy, TABA_PROXY) is no proxy; write http://HOST:PORT")]
    Proxy { proxy: String, source: Box<ureq::Error> },
    #[error("the server refuses: {message} ({reason})")]
    Refused { reason: String, message: String },
    #[error("{server} answers, but not as a taba server does (status {status})")]
    Stranger { server: String, status: u16 },
    #[error("the answer is incomplete")]
    BrokeOff { source: std::io::Error },
    #[error("the answer has an unknown format")]
    Unreadable { source: serde_json::Error },
    #[error("the answer is incomplete: {message} ({reason})")]
    Incomplete { reason: String, message: String },
    #[error("{server} asks to wait: {message} ({reason})")]
    Busy { server: String, reason: String, message: String },
    #[error(
        "the agent at {agent} did not take the lines from {lines} on in time; whether they count is not known: send them again \
         with --key {key}"
    )]
    NotRecorded { agent: String, key: String, lines: u64, source: Box<CliError> },
    #[error("{command} cannot be run")]
    Command { command: String, source: std::io::Error },
    #[error("the tab has no valid name")]
    Name(#[source] taba_core::NameError),
    #[error("there is no command {name}; --help has the list")]
    NoCommand { name: String },
    #[error("nothing arrived for {}: the server hangs, or is unreachable; --idle sets how long to wait", units::time_text(*.idle))]
    WatchSilent { idle: Duration },
    #[error("the server ended the watch")]
    WatchEnded,
    #[error("the result cannot be written")]
    Output(#[from] std::io::Error),
}

impl CliError {
    /// The code and message of an error object.
    pub(crate) fn words(error: &serde_json::Value) -> (String, String) {
        let word = |key: &str| printable(error[key].as_str().unwrap_or("unknown")).into_owned();
        (word("reason"), word("message"))
    }
}
