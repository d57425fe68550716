//! The lock of a Spool's directory: one Agent has it, and it contains the [`Extent`] of the log.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;

use super::DiskError;
use crate::spool::{Extent, SegmentId};

/// The lock file; it contains the [`Extent`] of the log.
pub(super) const LOCK: &str = "lock";
/// | magic | oldest u64 | last u64 | last_bytes u64 | crc32 of all before u32 |      little-endian
const EXTENT_BYTES: usize = 36;
const EXTENT_MAGIC: [u8; 8] = *b"TABAEXT1";
const _: () = assert!(EXTENT_BYTES == 8 + 3 * 8 + 4, "the layout above is out of date");

/// Reads the extent: of an empty file, that of a log without segments; `None` when damaged.
pub(super) fn read_extent(mut lock: &File) -> io::Result<Option<Extent>> {
    let mut bytes = Vec::with_capacity(EXTENT_BYTES);
    lock.seek(SeekFrom::Start(0))?;
    lock.take(EXTENT_BYTES as u64).read_to_end(&mut bytes)?;
    let is_whole = bytes.len() == EXTENT_BYTES
        && bytes.starts_with(&EXTENT_MAGIC)
        && bytes[32..] == crc32fast::hash(&bytes[..32]).to_le_bytes();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    Ok(is_whole.then(|| Extent {
        oldest: SegmentId(number(8)),
        last: SegmentId(number(16)),
        last_bytes: number(24),
    }))
}

/// Changes the extent, in memory and in its file.
pub(super) fn change_extent(
    lock: &File,
    extent: &Mutex<Extent>,
    change: impl FnOnce(&mut Extent),
) -> io::Result<()> {
    // A panic here would leave memory and file inconsistent; nothing here panics.
    let mut extent = extent.lock().map_err(|_| io::Error::other("a thread of the spool's disk panicked"))?;
    change(&mut extent);
    let mut bytes = Vec::with_capacity(EXTENT_BYTES);
    bytes.extend_from_slice(&EXTENT_MAGIC);
    for number in [extent.oldest.0, extent.last.0, extent.last_bytes] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    let mut lock = lock;
    lock.seek(SeekFrom::Start(0))?;
    lock.write_all(&bytes)
}

/// Makes the directory if missing, and locks it.
pub(super) fn lock(path: &Path) -> Result<File, DiskError> {
    let failed = |source| DiskError::Directory { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(failed)?;
    let lock = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path.join(LOCK));
    let lock = lock.map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DiskError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Without the lock, another Agent may use the directory, and give segments the same numbers: nothing is written.
pub(super) fn check_lock(lock: &File, path: &Path) -> io::Result<()> {
    let path = path.join(LOCK);
    if is_at(lock, &path)? {
        return Ok(());
    }
    let words = format!("{} is gone; somebody removed it", path.display());
    Err(io::Error::new(io::ErrorKind::NotFound, words))
}

/// Whether this file is still at the path.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        let (here, there) = (file.metadata()?, fs::metadata(path));
        match there {
            Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.try_exists()
    }
}
