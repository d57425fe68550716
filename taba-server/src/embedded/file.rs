//! [`DatabaseFile`]: the open file, and how it is opened again after the disk failed it.

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
};
use taba_core::{VBucket, VBuckets, Version};

use super::{EmbeddedError, EmbeddedOptions, FILE_NAME, MARKER_NAME, layout};

pub(super) const TABLE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("taba");
pub(super) const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("taba.meta");
const FORMAT_KEY: &str = "format";
pub(super) const VBUCKETS_KEY: &str = "vbuckets";
pub(super) const STORE_KEY: &str = "store";

/// Free bytes of the file that are worth compacting it.
const FREE_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// The database, or none while it must be opened again.
pub(super) struct DatabaseFile {
    path: PathBuf,
    /// Which file that was when it was opened.
    identity: Option<(u64, u64)>,
    options: EmbeddedOptions,
    /// Which store it is.
    pub(super) store: u64,
    /// Readers hold the lock while they read, so the holder of the write lock knows that no handle is left. The value is
    /// replaced as one, and calls of redb run guarded, so a panic leaves it whole.
    database: RwLock<Option<Database>>,
}

/// A key and its value, or none to remove it.
pub(super) type Pair = (Vec<u8>, Option<Vec<u8>>);

impl DatabaseFile {
    pub(super) fn open(dir: &Path, options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        let path = dir.join(FILE_NAME);
        let held = std::fs::metadata(&path).map_or(0, |found| found.len());
        if held == 0 && dir.join(MARKER_NAME).exists() {
            return Err(EmbeddedError::Gone { path });
        }
        let database =
            guarded(|| Ok(open(&path, &options))).map_err(|source| unreadable(&path, source))??;
        let found = guarded(|| Ok(check(&database, options.vbuckets, None)));
        let store = found.map_err(|source| unreadable(&path, source))??;
        if let Err(error) = mark(dir, options.vbuckets) {
            tracing::warn!(%error, dir = %dir.display(), "cannot note that a store was made here");
        }
        let identity = identity(&path);
        Ok(Self { path, identity, options, store, database: RwLock::new(Some(database)) })
    }

    /// Whether the file is still where it was. What is written to one that was removed ends with the process.
    ///
    /// # Errors
    /// [`EmbeddedError::Removed`].
    pub(super) fn check_place(&self) -> Result<(), EmbeddedError> {
        let is_there = self.identity.is_none() || identity(&self.path) == self.identity;
        if is_there { Ok(()) } else { Err(EmbeddedError::Removed { path: self.path.clone() }) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.database.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Closes the database: after an error of the disk it can do nothing more. Waits for readers to end.
    pub(super) fn close(&self) {
        drop(self.database.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(super) fn reopen(&self) -> Result<(), EmbeddedError> {
        // Opened again, a file that is gone would be an empty store.
        self.check_place()?;
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old one must be gone first: it holds the lock of the file.
        *slot = None;
        *slot = Some(open(&self.path, &self.options)?);
        Ok(())
    }

    /// Reads at one consistent moment.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or(redb::Error::PreviousIo)?;
        guarded(|| read(&database.begin_read()?))
    }

    /// Writes all pairs at once; when it is `Ok`, they are on the disk.
    pub(super) fn write(&self, pairs: &[Pair]) -> Result<(), redb::Error> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or(redb::Error::PreviousIo)?;
        guarded(|| {
            let mut write = database.begin_write()?;
            write.set_durability(Durability::Immediate)?;
            {
                let mut table = write.open_table(TABLE)?;
                for (key, value) in pairs {
                    match value {
                        Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                        None => table.remove(key.as_slice())?,
                    };
                }
            }
            Ok(write.commit()?)
        })
    }

    /// Gives free pages back when they are most of the file; how many bytes. Waits for readers, and holds up all others
    /// while it runs.
    pub(super) fn compact(&self) -> Result<u64, redb::Error> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_mut().ok_or(redb::Error::PreviousIo)?;
        let size = || std::fs::metadata(&self.path).map_or(0, |found| found.len());
        let before = size();
        guarded(|| {
            let stats = {
                let write = database.begin_write()?;
                let stats = write.stats()?;
                write.abort()?;
                stats
            };
            let used = stats.allocated_pages() * stats.page_size() as u64;
            let free = before.saturating_sub(used);
            if free >= FREE_BYTES_MIN && free > used {
                database.compact()?;
            }
            Ok(())
        })?;
        Ok(before.saturating_sub(size()))
    }

    /// The version of every VBucket that was ever written; `None` of one whose version cannot be read.
    pub(super) fn versions(&self) -> Result<BTreeMap<VBucket, Option<Version>>, redb::Error> {
        self.read(|transaction| {
            let table = transaction.open_table(TABLE)?;
            let mut versions = BTreeMap::new();
            for vbucket in self.options.vbuckets.iter() {
                let read = || match table.get(layout::version_key(vbucket).as_slice())? {
                    Some(value) => Ok(Some(layout::read_version(value.value()).ok_or_else(|| damaged("version"))?)),
                    None => Ok(None),
                };
                match guarded(read) {
                    Ok(Some(version)) => drop(versions.insert(vbucket, Some(version))),
                    Ok(None) => {}
                    Err(error) if is_damage(&error) => {
                        tracing::error!(
                            vbucket = vbucket.index(),
                            %error,
                            "the store is damaged at the version of a vbucket, which takes nothing more; the others go on"
                        );
                        versions.insert(vbucket, None);
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(versions)
        })
    }
}

/// Which file is at this path; `None` where the system does not say.
fn identity(path: &Path) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Does something with the database. A damaged page makes the engine panic in places; that is one more error here.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(damaged("page")))
}

/// Whether what is stored is not what was written.
pub(super) fn is_damage(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. })
}

/// Notes that a store was made in this directory, so that a file that is gone is not taken for one that never was.
fn mark(dir: &Path, vbuckets: VBuckets) -> std::io::Result<()> {
    let path = dir.join(MARKER_NAME);
    if path.exists() {
        return Ok(());
    }
    let mut marker = std::fs::File::create(&path)?;
    writeln!(
        marker,
        "A store of taba-server with {} vbuckets was made in this directory; its States are in {FILE_NAME}.\n\
         While this file is here and that one is not, the server does not start: it would begin from nothing.\n\
         Put a backup in its place (taba-server restore), or begin anew (taba-server adopt --yes).",
        vbuckets.count()
    )?;
    marker.sync_all()
}

fn unreadable(path: &Path, source: redb::Error) -> EmbeddedError {
    EmbeddedError::Database { path: path.to_owned(), source: Box::new(source) }
}

/// Begins a new database beside the place of the store's: it takes that place by [`finish_file`].
pub(super) fn begin_file(
    dir: &Path,
    vbuckets: VBuckets,
    store: Option<u64>,
) -> Result<(Database, PathBuf), EmbeddedError> {
    std::fs::create_dir_all(dir)
        .map_err(|source| EmbeddedError::Directory { path: dir.to_owned(), source })?;
    let part = dir.join(format!("{FILE_NAME}.restoring"));
    // What an earlier try left.
    let _ = std::fs::remove_file(&part);
    let database = open(&part, &EmbeddedOptions { vbuckets, ..EmbeddedOptions::default() })?;
    check(&database, vbuckets, store)?;
    Ok((database, part))
}

/// The new database takes the place of the store's.
pub(super) fn finish_file(dir: &Path, part: &Path, vbuckets: VBuckets) -> std::io::Result<()> {
    std::fs::rename(part, dir.join(FILE_NAME))?;
    mark(dir, vbuckets)?;
    std::fs::File::open(dir)?.sync_all()
}

/// What is stored is not what we write.
pub(super) fn damaged(what: &'static str) -> redb::Error {
    redb::Error::Corrupted(what.to_owned())
}

fn open(path: &std::path::Path, options: &EmbeddedOptions) -> Result<Database, EmbeddedError> {
    Database::builder().set_cache_size(options.cache_bytes).create(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => EmbeddedError::Locked { path: path.to_owned() },
        error => {
            EmbeddedError::Database { path: path.to_owned(), source: Box::new(redb::Error::from(error)) }
        }
    })
}

/// What a file says about itself.
struct FileMeta {
    format: u64,
    count: u64,
    store: u64,
    /// Whether some of it was written just now.
    is_changed: bool,
}

pub(super) fn random() -> Result<u64, redb::Error> {
    getrandom::u64().map_err(|error| redb::Error::Io(std::io::Error::other(error)))
}

/// Compares what the file says about itself with what is expected, or writes it into a new file. Gives which store it is;
/// one that has no number yet gets this one, or a random one.
fn check(database: &Database, vbuckets: VBuckets, store: Option<u64>) -> Result<u64, EmbeddedError> {
    let expected = u64::from(vbuckets.count());
    let look = || -> Result<(u64, u64, u64), redb::Error> {
        let write = database.begin_write()?;
        let found = {
            let mut meta = write.open_table(META)?;
            let format = meta.get(FORMAT_KEY)?.map(|value| value.value());
            let count = meta.get(VBUCKETS_KEY)?.map(|value| value.value());
            let known = meta.get(STORE_KEY)?.map(|value| value.value());
            let store = known.or(store).map_or_else(random, Ok)?;
            match (format, count) {
                (Some(format), Some(count)) if known.is_some() || format != layout::FORMAT => {
                    FileMeta { format, count, store, is_changed: false }
                }
                (Some(format), Some(count)) => {
                    meta.insert(STORE_KEY, store)?;
                    FileMeta { format, count, store, is_changed: true }
                }
                _ => {
                    meta.insert(FORMAT_KEY, layout::FORMAT)?;
                    meta.insert(VBUCKETS_KEY, expected)?;
                    meta.insert(STORE_KEY, store)?;
                    FileMeta { format: layout::FORMAT, count: expected, store, is_changed: true }
                }
            }
        };
        if !found.is_changed {
            write.abort()?;
            return Ok((found.format, found.count, found.store));
        }
        drop(write.open_table(TABLE)?);
        write.commit()?;
        Ok((found.format, found.count, found.store))
    };
    match look() {
        Err(source) => Err(EmbeddedError::Engine { source: Box::new(source) }),
        Ok((found, ..)) if found != layout::FORMAT => {
            Err(EmbeddedError::Format { found, known: layout::FORMAT })
        }
        Ok((_, found, _)) if found != expected => {
            Err(EmbeddedError::VBuckets { found, expected: vbuckets.count() })
        }
        Ok((.., store)) => Ok(store),
    }
}
