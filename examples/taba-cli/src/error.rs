//! [`CliError`]: why there is no answer.

/// Why there is no answer, or only part of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("no answer from {server}; is the server running there? (--server or TABA_SERVER names another)")]
    Unreachable { server: String, source: Box<ureq::Error> },
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
    /// The error and its causes.
    pub(crate) fn message(&self) -> String {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        message
    }

    /// What the server says in an error object.
    pub(crate) fn words(error: &serde_json::Value) -> (String, String) {
        let word = |key: &str| error[key].as_str().unwrap_or("unknown").to_owned();
        (word("reason"), word("message"))
    }
}
