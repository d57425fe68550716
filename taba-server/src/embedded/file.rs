//! [`DatabaseFile`]: the open file, and how it is reopened after a disk error.

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

/// Compaction is worthwhile from this many free bytes.
const FREE_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// The database, or none while it must be reopened.
pub(super) struct DatabaseFile {
    path: PathBuf,
    /// The identity of the file when it was opened.
    identity: Option<(u64, u64)>,
    options: EmbeddedOptions,
    /// The number of the store.
    pub(super) store: u64,
    /// Readers hold the lock while they read, so the holder of the write lock knows that no handle is left. The value
    /// is replaced as a whole, and calls of redb run guarded, so a panic leaves it intact.
    database: RwLock<Option<Database>>,
}

/// A key and its value; `None` removes it.
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

    /// Checks that the file is still in its place: data written to a removed file is lost with the process.
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

    /// Closes the database, which is unusable after a disk error. Waits for readers.
    pub(super) fn close(&self) {
        drop(self.database.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(super) fn reopen(&self) -> Result<(), EmbeddedError> {
        // A missing file would be opened as an empty store.
        self.check_place()?;
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old handle must be dropped first: it holds the file's lock.
        *slot = None;
        *slot = Some(open(&self.path, &self.options)?);
        Ok(())
    }

    /// Reads one consistent snapshot.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or(redb::Error::PreviousIo)?;
        guarded(|| read(&database.begin_read()?))
    }

    /// Writes all pairs in one transaction; `Ok` means synced to the disk.
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

    /// Compacts the file when most of it is free; returns the bytes freed. Waits for readers, and blocks all others
    /// meanwhile.
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

    /// The version of every VBucket that was ever written; `None` for an unreadable version.
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
                            "the version of a vbucket is damaged: this vbucket refuses batches, all others work"
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

/// The identity of the file at this path, if the system provides one.
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

/// Runs redb code. redb panics at some damaged pages; that becomes an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(damaged("page")))
}

/// Whether the stored data is damaged.
pub(super) fn is_damage(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. })
}

/// Records that a store was made in this directory, so that a missing file does not count as a new directory.
fn mark(dir: &Path, vbuckets: VBuckets) -> std::io::Result<()> {
    let path = dir.join(MARKER_NAME);
    if path.exists() {
        return Ok(());
    }
    let mut marker = std::fs::File::create(&path)?;
    writeln!(
        marker,
        "A store of taba-server with {} vbuckets was made in this directory; its States are in {FILE_NAME}.\n\
         While this file is here and that one is not, the server does not start: it would begin with an empty store.\n\
         Restore a backup (taba-server restore), or begin with an empty store (taba-server adopt --yes).",
        vbuckets.count()
    )?;
    marker.sync_all()
}

fn unreadable(path: &Path, source: redb::Error) -> EmbeddedError {
    EmbeddedError::Database { path: path.to_owned(), source: Box::new(source) }
}

/// Makes a new database beside the store's file; [`finish_file`] puts it in place.
pub(super) fn begin_file(
    dir: &Path,
    vbuckets: VBuckets,
    store: Option<u64>,
) -> Result<(Database, PathBuf), EmbeddedError> {
    std::fs::create_dir_all(dir)
        .map_err(|source| EmbeddedError::Directory { path: dir.to_owned(), source })?;
    let part = dir.join(format!("{FILE_NAME}.restoring"));
    // Left by an earlier try.
    let _ = std::fs::remove_file(&part);
    let database = open(&part, &EmbeddedOptions { vbuckets, ..EmbeddedOptions::default() })?;
    check(&database, vbuckets, store)?;
    Ok((database, part))
}

/// Replaces the store's file by the new database.
pub(super) fn finish_file(dir: &Path, part: &Path, vbuckets: VBuckets) -> std::io::Result<()> {
    std::fs::rename(part, dir.join(FILE_NAME))?;
    mark(dir, vbuckets)?;
    std::fs::File::open(dir)?.sync_all()
}

/// An error for stored data that no store writes.
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

/// The metadata of a file.
struct FileMeta {
    format: u64,
    count: u64,
    store: u64,
    /// Whether some of it was just written.
    is_changed: bool,
}

pub(super) fn random() -> Result<u64, redb::Error> {
    getrandom::u64().map_err(|error| redb::Error::Io(std::io::Error::other(error)))
}

/// Compares the file's metadata with the expected values, or writes it into a new file. Returns the store's number; a
/// file without one gets this one, or a random one.
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
