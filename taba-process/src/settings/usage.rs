//! [`UsageError`]: an error of the command line, a variable or the file, with the source of the wrong value.

use std::fmt::Write;

use clap::Error;
use clap::error::ErrorKind;

use super::Origin;
use crate::exit::Exit;
use crate::log::{Log, has_colours};

/// Why the settings are invalid, or a request for help.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct UsageError {
    #[source]
    error: Error,
    /// The source of the wrong value, if the error itself does not show it.
    origin: Option<Origin>,
}

impl From<Error> for UsageError {
    fn from(error: Error) -> Self {
        Self::new(error, None)
    }
}

impl UsageError {
    pub(crate) const fn new(error: Error, origin: Option<Origin>) -> Self {
        Self { error, origin }
    }

    /// Prints it (help, to standard output) and returns the exit code.
    #[must_use = "the process goes on otherwise"]
    pub fn end(&self, log: &Log) -> Exit {
        if self.is_help() {
            // A closed standard output is no error.
            let _ = self.error.print();
            return Exit::Clean;
        }
        let plain = self.text(false);
        // Colours only where nothing else acts on the terminal.
        if has_colours() && taba_core::printable_lines(&plain) == plain {
            log.put(self.text(true).trim_end());
        } else {
            log.say_lines(plain.trim_end());
        }
        Exit::Usage
    }

    /// The message, over several lines.
    pub fn text(&self, in_colours: bool) -> String {
        let text = self.error.render();
        let mut text = if in_colours { text.ansi().to_string() } else { text.to_string() };
        if let Some(origin) = &self.origin {
            let _ = write!(text, "\nThe value comes from {origin}.");
        }
        text
    }

    /// Whether help or the version was requested.
    pub fn is_help(&self) -> bool {
        matches!(self.error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
    }
}
