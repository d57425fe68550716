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
    /// A value is wrong, or help was asked for.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// A variable begins like ours, and is none of them.
    #[error(transparent)]
    UnknownVariable(#[from] UnknownVariable),
    /// The file cannot be read.
    #[error("cannot read {}, the file of {origin}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What named it.
        origin: Origin,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML. The text of the line is not repeated: it may hold a password.
    #[error("{}, line {line}: not TOML: {message}", .path.display())]
    Toml {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A key of the file is no setting.
    #[error("{key} in {} is no setting; {hint}", .path.display())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
        /// What might have been meant.
        hint: String,
    },
    /// One setting stands in the file twice, in two spellings.
    #[error("{key} in {} is there a second time, in another spelling; leave one out", .path.display())]
    Twice {
        /// Which file.
        path: PathBuf,
        /// The second of the two.
        key: String,
    },
    /// A value of the file is a table, a date, a fraction, or a list in a list.
    #[error("{key} in {} must be a text, a whole number, true or false, or a list of them", .path.display())]
    KindOfValue {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
    },
    /// A value of the file is an empty text or list.
    #[error("{key} in {} is empty; leave it out to get the default", .path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
    },
    /// What to log cannot be read.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Each value can be read, but not this one, or not these together.
    #[error("these settings are not possible: {origins}")]
    Impossible {
        /// The settings that it is about, each with where it comes from.
        origins: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl SettingsError {
    /// Prints it, on standard output when it is the help that was asked for, and says how to end.
    #[must_use = "the process goes on otherwise"]
    pub fn end(&self, log: &Log) -> Exit {
        match self {
            Self::Usage(error) => error.end(log),
            error => log.fail(Exit::Usage, error),
        }
    }
}
