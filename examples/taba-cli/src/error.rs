//! [`CliError`]: why there is no answer.

use taba_core::printable;

/// Why there is no answer, or only part of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(
        "no answer from {server}{by}; is the server running there? (--server or TABA_SERVER names another)"
    )]
    Unreachable { server: String, by: String, source: Box<ureq::Error> },
    #[error("{proxy} (--proxy, TABA_PROXY) is no proxy; write http://HOST:PORT")]
    Proxy { proxy: String, source: Box<ureq::Error> },
    #[error("the server refuses: {message} ({reason})")]
    Refused { reason: String, message: String },
    #[error("{server} answers, but not as a taba server does (status {status})")]
    Stranger { server: String, status: u16 },
    #[error("the answer broke off")]
    BrokeOff { source: std::io::Error },
    #[error("the answer is no JSON as this program knows it")]
    Unreadable { source: serde_json::Error },
    #[error("the answer is incomplete: {message} ({reason})")]
    Incomplete { reason: String, message: String },
    #[error("the server ended the watch")]
    WatchEnded,
    #[error("the result cannot be written")]
    Output(#[from] std::io::Error),
}

impl CliError {
    /// What the server says in an error object.
    pub(crate) fn words(error: &serde_json::Value) -> (String, String) {
        let word = |key: &str| printable(error[key].as_str().unwrap_or("unknown")).into_owned();
        (word("reason"), word("message"))
    }
}
