//! [`EmbeddedError`]: why a directory cannot be opened as a store.

use std::path::PathBuf;

/// Why a directory cannot be opened as a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// The directory cannot be made.
    #[error("cannot make the directory {}; --data-dir names another", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process, or another store of this one, has it open.
    #[error("{} is open already: another server uses this directory; stop it or choose another directory", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It was made for another number of VBuckets, which is fixed for its life.
    #[error(
        "the directory was made for {found} vbuckets, not for {expected}: open it with {found}, or use another one"
    )]
    VBuckets {
        /// What it was made for.
        found: u64,
        /// What was asked for.
        expected: u16,
    },
    /// A newer build has written it.
    #[error("format {found} of the directory is unknown; this build knows format {known}")]
    Format {
        /// What it is.
        found: u64,
        /// What this build knows.
        known: u64,
    },
    /// There is no store.
    #[error("there is no store: {} is not there; name its directory with --data-dir", path.display())]
    NoStore {
        /// Its file.
        path: PathBuf,
    },
    /// A store was made in the directory, and its file is gone or empty.
    #[error(
        "a store was made here, but {} is gone or empty; put a backup in its place (taba-server restore), or, to begin \
         from nothing, run taba-server adopt --yes", path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// Somebody removed the file, or put another one in its place, while the store was open.
    #[error(
        "{} was removed, or another file is in its place; what was stored can still be read: copy it with taba-server backup \
         before the server ends, and put the copy in its place with taba-server restore", path.display()
    )]
    Removed {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened.
    #[error(
        "cannot open {}: it is damaged, or no store; put a backup in its place (taba-server restore); what of it can be read \
         becomes a backup with taba-server backup --damaged DIR",
        path.display()
    )]
    Database {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file was opened, but cannot be read or written.
    #[error("the store cannot be read")]
    Engine {
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The thread that writes cannot be started.
    #[error("the writing thread cannot be started")]
    Thread(#[source] std::io::Error),
}
