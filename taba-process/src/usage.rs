//! [`parse`]: the command line with its variables; an error names the variable that a wrong value came from.

use std::ffi::OsString;
use std::fmt::Write;
use std::io::IsTerminal;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, Error};

use crate::environment::without_empty;
use crate::exit::Exit;
use crate::log::Log;

/// Why a command line is no use, or was only asked for help.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct UsageError {
    #[source]
    error: Error,
    /// The variable that the wrong value came from.
    variable: Option<String>,
}

/// Parses a command line; an empty variable counts as not set. `args` begins with the name of the program.
///
/// # Errors
/// [`UsageError`], also when help or the version was asked for; [`UsageError::end`] does what is usual.
pub fn parse(command: Command, args: &[OsString]) -> Result<ArgMatches, UsageError> {
    let command = without_empty(command);
    command.clone().try_get_matches_from(args).map_err(|error| explain(error, &command, args))
}

/// An error of this command line, with the variable that the wrong value came from.
pub fn explain(error: Error, command: &Command, args: &[OsString]) -> UsageError {
    let variable = variable(&error, command, args);
    UsageError { error, variable }
}

fn variable(error: &Error, command: &Command, args: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else { return None };
    let mut command = command.clone();
    // Until then an argument cannot be shown.
    command.build();
    let wrong = command.get_arguments().find(|arg| arg.to_string() == *shown)?;
    let flag = format!("--{}", wrong.get_long()?);
    let is_given = |arg: &OsString| {
        let arg = arg.to_string_lossy();
        arg.strip_prefix(&flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    if args.iter().any(is_given) {
        return None;
    }
    let name = wrong.get_env()?;
    std::env::var_os(name).is_some_and(|value| !value.is_empty()).then(|| name.to_string_lossy().into_owned())
}

impl UsageError {
    /// Prints it, on standard output when it is the help that was asked for, and says how to end.
    #[must_use = "the process goes on otherwise"]
    pub fn end(&self, log: &Log) -> Exit {
        if !self.error.use_stderr() {
            // A reader that is gone has seen enough.
            let _ = self.error.print();
            return Exit::Clean;
        }
        let text = self.error.render();
        let mut text =
            if std::io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
        if let Some(variable) = &self.variable {
            let _ = write!(text, "\nThe value comes from the variable {variable}.");
        }
        log.say(text.trim_end());
        Exit::Usage
    }

    /// Whether help or the version was asked for.
    pub fn is_help(&self) -> bool {
        matches!(self.error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
    }
}
