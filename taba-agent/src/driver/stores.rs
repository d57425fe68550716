//! [`Stores`]: the [`StoreChoice`] of a running Agent, and its file in the Spool's directory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use taba_core::StoreId;

use super::file::put_file;
use super::options::AgentOptions;
use crate::store_choice::{StoreChoice, StoreMatch};

/// The file in the Spool's directory with the store of its events, as [`StoreId`] writes it.
const FILE: &str = "store";

/// The store that this Agent delivers to.
#[derive(Debug)]
pub(super) struct Stores {
    choice: Mutex<StoreChoice>,
    /// Held while a choice is recorded, so that there is one at a time.
    choosing: tokio::sync::Mutex<()>,
    file: Option<PathBuf>,
}

/// Why nothing is sent to this Server.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreMismatch {
    #[error(
        "this server has the store {theirs}, and what this agent holds is for the store {chosen}: name servers of that one \
         with --servers, or, if {theirs} takes its place, start the agent with --store-id={:016x}", theirs.number
    )]
    Other { chosen: StoreId, theirs: StoreId },
    #[error("which store is delivered to cannot be noted in {}; nothing is sent before it is", path.display())]
    Note { path: PathBuf, source: io::Error },
}

impl Stores {
    /// The setting; else what an earlier run has recorded, if its Spool is not empty.
    pub(super) fn open(options: &AgentOptions, holds_something: bool) -> io::Result<Self> {
        let file = options.spool_dir.as_ref().map(|directory| directory.join(FILE));
        let noted = match &file {
            Some(path) => read(path)?,
            None => None,
        };
        let chosen = options.store_id.or(noted.filter(|_| holds_something));
        if let (Some(path), Some(chosen)) = (&file, options.store_id)
            && noted != Some(chosen)
        {
            put_file(path, format!("{chosen}\n").as_bytes())?;
        }
        let choice = Mutex::new(StoreChoice::new(chosen));
        Ok(Self { choice, choosing: tokio::sync::Mutex::default(), file })
    }

    fn choice(&self) -> MutexGuard<'_, StoreChoice> {
        // Nothing under this lock panics; values are replaced as a whole.
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a Server may be sent to without asking it again.
    pub(super) fn may_send(&self, server: &str) -> bool {
        self.choice().may_send(server)
    }

    /// The store that is delivered to, if known.
    pub(super) fn chosen(&self) -> Option<StoreId> {
        self.choice().chosen()
    }

    /// Servers that have another store.
    pub(super) fn others(&self) -> BTreeMap<String, String> {
        self.choice().others().map(|(server, store)| (server.to_owned(), store.to_string())).collect()
    }

    /// Forgets what other Servers said than these.
    pub(super) fn retain(&self, is_kept: impl Fn(&str) -> bool) {
        self.choice().retain(is_kept);
    }

    /// A Server reported its store.
    ///
    /// # Errors
    /// [`StoreMismatch`]: nothing may be sent to it.
    ///
    /// # Cancel safety
    /// Safe: the store may be noted and not chosen yet; it is chosen with the next answer.
    pub(super) async fn meet(&self, server: &str, theirs: Option<StoreId>) -> Result<(), StoreMismatch> {
        let _choosing = self.choosing.lock().await;
        let meeting = self.choice().meet(server, theirs);
        let store = match meeting {
            StoreMatch::Fits => return Ok(()),
            StoreMatch::Other { chosen, theirs } => return Err(StoreMismatch::Other { chosen, theirs }),
            StoreMatch::Choose(store) => store,
        };
        if let Some(path) = self.file.clone() {
            let to = path.clone();
            let written =
                tokio::task::spawn_blocking(move || put_file(&to, format!("{store}\n").as_bytes())).await;
            let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
            written.map_err(|source| StoreMismatch::Note { path, source })?;
        }
        self.choice().choose(store);
        tracing::info!(%store, "this agent delivers to this store");
        Ok(())
    }
}

/// The recorded store; `None` if there is none or it is unreadable.
fn read(path: &Path) -> io::Result<Option<StoreId>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let noted = text.trim_end().parse().ok();
            if noted.is_none() {
                tracing::error!(
                    path = %path.display(),
                    "the file that says for which store the spool's events are is damaged; they go to the first store that \
                     is met: to name another one, start the agent with --store-id"
                );
            }
            Ok(noted)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}
