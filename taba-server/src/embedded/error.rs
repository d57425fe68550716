//! [`EmbeddedError`]: why a directory cannot be opened as a store.

use std::path::PathBuf;

/// Why a directory cannot be opened as a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// The directory cannot be made.
    #[error("cannot make the directory {}; --data-dir names another", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// Another process, or another store of this one, has it open.
    #[error("{} is open already: another server uses this directory; stop it or choose another directory", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The directory has another number of VBuckets, which is fixed for its life.
    #[error(
        "the directory was made for {found} vbuckets, not for {expected}: open it with {found}, or use another one"
    )]
    VBuckets {
        /// The number it was made for.
        found: u64,
        /// The number requested.
        expected: u16,
    },
    /// The directory was written by a newer build.
    #[error("format {found} of the directory is unknown; this build knows format {known}")]
    Format {
        /// The format found.
        found: u64,
        /// The newest format of this build.
        known: u64,
    },
    /// The directory has no store.
    #[error("there is no store: {} does not exist; name its directory with --data-dir", path.display())]
    NoStore {
        /// Its file.
        path: PathBuf,
    },
    /// A store was made in the directory, but its file is gone or empty.
    #[error(
        "a store was made here, but {} is gone or empty; restore a backup (taba-server restore), or, to begin \
         from nothing, run taba-server adopt --yes", path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// The file was removed or replaced while the store was open.
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
        "cannot open {}: it is damaged, or no store; restore a backup (taba-server restore); the readable part \
         becomes a backup with taba-server backup --damaged DIR",
        path.display()
    )]
    Database {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The open file cannot be read or written.
    #[error("the store cannot be read")]
    Engine {
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The writer thread cannot be started.
    #[error("the writing thread cannot be started")]
    Thread(#[source] std::io::Error),
}
