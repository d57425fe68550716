//! [`UsageError`]: an error of the command line, a variable or the file, that says where the wrong value came from.

use std::fmt::Write;

use clap::Error;
use clap::error::ErrorKind;

use super::Origin;
use crate::exit::Exit;
use crate::log::{Log, has_colours};

/// Why a command line, a variable or a file is no use, or was only asked for help.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct UsageError {
    #[source]
    error: Error,
    /// Where the wrong value came from, if the error does not show it.
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

    /// Prints it, on standard output when it is the help that was asked for, and says how to end.
    #[must_use = "the process goes on otherwise"]
    pub fn end(&self, log: &Log) -> Exit {
        if self.is_help() {
            // A reader that is gone has seen enough.
            let _ = self.error.print();
            return Exit::Clean;
        }
        log.say(self.text(has_colours()).trim_end());
        Exit::Usage
    }

    /// What it says, in several lines; in colours or without.
    pub fn text(&self, in_colours: bool) -> String {
        let text = self.error.render();
        let mut text = if in_colours { text.ansi().to_string() } else { text.to_string() };
        if let Some(origin) = &self.origin {
            let _ = write!(text, "\nThe value comes from {origin}.");
        }
        text
    }

    /// Whether help or the version was asked for.
    pub fn is_help(&self) -> bool {
        matches!(self.error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
    }
}
