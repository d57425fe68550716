//! Backups: a consistent copy of a running [`EmbeddedStore`](super::EmbeddedStore) in one file, and its restore.
//!
//! ```text
//! | "TABABKUP" | version u8 = 2 | vbuckets u16 | store u64 |             version 1: without the store
//! | key bytes u16, at least 1 | value bytes u32 | key … | value … |       for each pair, in the order of keys
//! | 0 u16 | pairs u64 | XXH64 of all bytes before it, seed 0, u64 |
//! ```
//! Integers are little-endian; keys and values are those of [`layout`](super::layout). A truncated or altered file
//! fails the count or the checksum, and is refused.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use redb::Durability;
use taba_core::{VBuckets, VBucketsError};
use xxhash_rust::xxh64::Xxh64;

use super::file::{TABLE, begin_file, finish_file};
use super::{EmbeddedError, EmbeddedStore, FILE_NAME};

const MAGIC: &[u8; 8] = b"TABABKUP";
const VERSION: u8 = 2;
/// The version without the store's number.
const VERSION_WITHOUT_STORE: u8 = 1;
/// Bytes buffered before they are passed on.
const CHUNK_BYTES: usize = 64 * 1024;
/// Pairs in one transaction of a restore.
const BATCH_PAIRS: usize = 20_000;

/// The content of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackedUp {
    /// VBuckets of the store.
    pub vbuckets: u16,
    /// Pairs of key and value.
    pub pairs: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Why a backup cannot be made or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The store cannot be read completely.
    #[error("the store cannot be read completely; taba-server check reports where it is damaged")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Reading or writing the backup failed.
    #[error("the backup cannot be written or read")]
    Stream(#[source] std::io::Error),
    /// The file is no backup, or has a newer version.
    #[error("this is no backup of taba-server, or it has a newer version")]
    Foreign,
    /// The file is truncated.
    #[error("the backup is cut off after {pairs} pairs: it was not completed, or only partly copied")]
    CutOff {
        /// Pairs that were read.
        pairs: u64,
    },
    /// The file was altered.
    #[error("the backup was altered since it was made: its checksum does not match")]
    Altered,
    /// Its number of VBuckets is invalid.
    #[error("the backup is damaged")]
    VBuckets(#[from] VBucketsError),
    /// The directory holds a store.
    #[error("{} already exists; name an empty directory, or move the store away first", path.display())]
    Occupied {
        /// Its file.
        path: PathBuf,
    },
    /// The new store cannot be made.
    #[error("the store cannot be made")]
    Open(#[from] EmbeddedError),
}

impl EmbeddedStore {
    /// Writes a consistent copy of the store; commits continue meanwhile, and are not in it.
    ///
    /// # Errors
    /// [`BackupError`]; what was written is then incomplete, and refused by [`restore`].
    ///
    /// # Cost
    /// Reads the whole store, in the caller's thread. Space that commits free meanwhile is reused only afterwards.
    pub fn backup(&self, to: &mut dyn Write) -> Result<BackedUp, BackupError> {
        let mut out = BackupOut::begin(to, self.vbuckets, self.file.store)?;
        let mut failed = None;
        let read = self.file.read(|moment| {
            for pair in moment.open_table(TABLE)?.range::<&[u8]>(..)? {
                let (key, value) = pair?;
                if let Err(error) = out.record(key.value(), value.value()) {
                    failed = Some(error);
                    break;
                }
            }
            Ok(())
        });
        if let Some(error) = failed {
            return Err(BackupError::Stream(error));
        }
        read.map_err(|error| BackupError::Store(Box::new(error)))?;
        out.end(self.vbuckets)
    }
}

/// The writer of a backup, with its checksum.
pub(super) struct BackupOut<'a> {
    to: &'a mut dyn Write,
    hash: Xxh64,
    buffer: Vec<u8>,
    pairs: u64,
    bytes: u64,
}

impl<'a> BackupOut<'a> {
    pub(super) fn begin(to: &'a mut dyn Write, vbuckets: VBuckets, store: u64) -> Result<Self, BackupError> {
        let buffer = Vec::with_capacity(2 * CHUNK_BYTES);
        let mut out = Self { to, hash: Xxh64::new(0), buffer, pairs: 0, bytes: 0 };
        let mut head = MAGIC.to_vec();
        head.push(VERSION);
        head.extend_from_slice(&vbuckets.count().to_le_bytes());
        head.extend_from_slice(&store.to_le_bytes());
        out.put(&head).map_err(BackupError::Stream)?;
        Ok(out)
    }

    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> std::io::Result<()> {
        let mut record = Vec::with_capacity(6 + key.len() + value.len());
        record.extend_from_slice(&(key.len() as u16).to_le_bytes());
        record.extend_from_slice(&(value.len() as u32).to_le_bytes());
        record.extend_from_slice(key);
        record.extend_from_slice(value);
        self.pairs += 1;
        self.put(&record)
    }

    pub(super) fn end(mut self, vbuckets: VBuckets) -> Result<BackedUp, BackupError> {
        let (vbuckets, pairs) = (vbuckets.count(), self.pairs);
        self.put(&[&0_u16.to_le_bytes()[..], &pairs.to_le_bytes()].concat()).map_err(BackupError::Stream)?;
        let bytes = self.finish().map_err(BackupError::Stream)?;
        Ok(BackedUp { vbuckets, pairs, bytes })
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.buffer.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        if self.buffer.len() >= CHUNK_BYTES {
            self.to.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<u64> {
        self.buffer.extend_from_slice(&self.hash.digest().to_le_bytes());
        self.to.write_all(&self.buffer)?;
        self.to.flush()?;
        Ok(self.bytes + 8)
    }
}

/// A key and its value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// The reader of a backup, with its checksum.
struct BackupIn<R> {
    from: R,
    /// The store's number, if the backup has it.
    store: Option<u64>,
    hash: Xxh64,
    pairs: u64,
    bytes: u64,
}

impl<R: Read> BackupIn<R> {
    fn open(from: R) -> Result<(Self, VBuckets), BackupError> {
        let mut read = Self { from, store: None, hash: Xxh64::new(0), pairs: 0, bytes: 0 };
        let head: [u8; 11] = read.take().map_err(|_| BackupError::Foreign)?;
        if head[..8] != MAGIC[..] || !matches!(head[8], VERSION_WITHOUT_STORE | VERSION) {
            return Err(BackupError::Foreign);
        }
        if head[8] == VERSION {
            read.store = Some(u64::from_le_bytes(read.take()?));
        }
        let vbuckets = VBuckets::new(u32::from(u16::from_le_bytes([head[9], head[10]])))?;
        Ok((read, vbuckets))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => BackupError::CutOff { pairs: self.pairs },
            _ => BackupError::Stream(error),
        })?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// The next pair; `None` at the end, after the count and checksum match.
    fn next(&mut self) -> Result<Option<Record>, BackupError> {
        let key_bytes = usize::from(u16::from_le_bytes(self.take()?));
        if key_bytes == 0 {
            let pairs = u64::from_le_bytes(self.take()?);
            let sum = self.hash.digest();
            let is_whole = u64::from_le_bytes(self.take()?) == sum && pairs == self.pairs;
            return if is_whole { Ok(None) } else { Err(BackupError::Altered) };
        }
        let value_bytes = u32::from_le_bytes(self.take()?) as usize;
        let mut key = vec![0; key_bytes];
        self.fill(&mut key)?;
        // Read in portions, so that an altered length cannot allocate all memory.
        let mut value = Vec::new();
        while value.len() < value_bytes {
            let from = value.len();
            value.resize(value_bytes.min(from + CHUNK_BYTES), 0);
            self.fill(&mut value[from..])?;
        }
        self.pairs += 1;
        Ok(Some((key, value)))
    }
}

/// Reads and verifies a whole backup.
///
/// # Errors
/// [`BackupError`] when it is truncated or altered.
pub fn verify(backup: &Path) -> Result<BackedUp, BackupError> {
    let (mut backup, vbuckets) = open(backup)?;
    while backup.next()?.is_some() {}
    Ok(BackedUp { vbuckets: vbuckets.count(), pairs: backup.pairs, bytes: backup.bytes })
}

fn open(backup: &Path) -> Result<(BackupIn<BufReader<File>>, VBuckets), BackupError> {
    let file = File::open(backup).map_err(BackupError::Stream)?;
    BackupIn::open(BufReader::with_capacity(CHUNK_BYTES, file))
}

/// Makes a store from a backup, in a directory without one. `tell` receives the number of restored pairs now and
/// then.
///
/// On failure nothing is left in the directory. For Agents the restored store is one that went back in time: they
/// send again what they still keep, and the rest is counted as lost.
///
/// # Errors
/// [`BackupError`].
pub fn restore(backup: &Path, dir: &Path, mut tell: impl FnMut(u64)) -> Result<BackedUp, BackupError> {
    let path = dir.join(FILE_NAME);
    if std::fs::metadata(&path).is_ok_and(|found| found.len() > 0) {
        return Err(BackupError::Occupied { path });
    }
    restore_to(backup, dir, &mut tell)
}

/// The same, replacing an existing store.
pub(super) fn restore_over(backup: &Path, dir: &Path) -> Result<BackedUp, BackupError> {
    restore_to(backup, dir, &mut |_| {})
}

fn restore_to(backup: &Path, dir: &Path, tell: &mut dyn FnMut(u64)) -> Result<BackedUp, BackupError> {
    let (mut backup, vbuckets) = open(backup)?;
    let (database, part) = begin_file(dir, vbuckets, backup.store)?;
    let filled = fill(&mut backup, &database, tell);
    drop(database);
    if let Err(error) = filled {
        let _ = std::fs::remove_file(&part);
        return Err(error);
    }
    finish_file(dir, &part, vbuckets).map_err(BackupError::Stream)?;
    Ok(BackedUp { vbuckets: vbuckets.count(), pairs: backup.pairs, bytes: backup.bytes })
}

fn fill<R: Read>(
    backup: &mut BackupIn<R>,
    database: &redb::Database,
    tell: &mut dyn FnMut(u64),
) -> Result<(), BackupError> {
    let engine = |error: redb::Error| BackupError::Store(Box::new(error));
    let mut is_at_end = false;
    while !is_at_end {
        let mut write = database.begin_write().map_err(|error| engine(error.into()))?;
        write.set_durability(Durability::Immediate).map_err(|error| engine(error.into()))?;
        {
            let mut table = write.open_table(TABLE).map_err(|error| engine(error.into()))?;
            for _ in 0..BATCH_PAIRS {
                let Some((key, value)) = backup.next()? else {
                    is_at_end = true;
                    break;
                };
                table.insert(key.as_slice(), value.as_slice()).map_err(|error| engine(error.into()))?;
            }
        }
        write.commit().map_err(|error| engine(error.into()))?;
        tell(backup.pairs);
    }
    Ok(())
}
