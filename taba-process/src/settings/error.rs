//! [`SettingsError`]: why settings could not be read.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::{Origin, UnknownVariable, UsageError};
use crate::exit::Exit;
use crate::filter::FilterError;
use crate::log::Log;

/// Why the settings could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A value is wrong, or help was requested.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// An unknown variable with the program's prefix.
    #[error(transparent)]
    UnknownVariable(#[from] UnknownVariable),
    /// The file cannot be read.
    #[error("cannot read {}, the file of {origin}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        origin: Origin,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML. The line is not shown: it may hold a password.
    #[error("{}, line {line}: not TOML: {message}", .path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's message.
        message: String,
    },
    /// A key of the file is not a setting.
    #[error("{key} in {} is not a setting; {hint}", .path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// A suggestion.
        hint: String,
    },
    /// A setting is in the file twice, in two spellings.
    #[error("{key} in {} is a duplicate in another spelling; remove one", .path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The second one.
        key: String,
    },
    /// A value of the file is of an unsupported kind.
    #[error("{key} in {} must be a text, a whole number, true or false, or a list of them", .path.display())]
    KindOfValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value of the file is an empty text or list.
    #[error("{key} in {} is empty; leave it out to get the default", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The log filter is invalid.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Valid values that are out of range, or do not fit together.
    #[error("these settings are not possible: {origins}")]
    Impossible {
        /// The settings concerned, with their sources.
        origins: String,
        /// The reason.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl SettingsError {
    /// Prints it (help, to standard output) and returns the exit code.
    #[must_use = "the process goes on otherwise"]
    pub fn end(&self, log: &Log) -> Exit {
        match self {
            Self::Usage(error) => error.end(log),
            error => log.fail(Exit::Usage, error),
        }
    }
}
