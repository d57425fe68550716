//! [`FileDisk`]: a directory with one file per segment.

mod lock_file;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use self::lock_file::{LOCK, change_extent, check_lock, is_at, lock, read_extent};
use crate::spool::{Disk, Extent, SegmentId};

const SUFFIX: &str = ".spool";
/// The suffix of files with unreadable bytes.
const DAMAGED: &str = ".damaged";
/// Maximum bytes of those files.
const DAMAGED_BYTES_MAX: u64 = 64 << 20;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The directory cannot be made or read.
    #[error("cannot use the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A segment cannot be read, or is no file.
    #[error("cannot use {}; without it, moved away, the agent starts and tells what it held as lost", path.display())]
    Segment {
        /// Its file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Another Agent uses it.
    #[error("{} is in use: another agent has it; stop it or choose another directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
}

/// A directory with one file per segment.
///
/// # Examples
/// ```
/// use taba_agent::LogSpool;
/// use taba_agent::driver::FileDisk;
///
/// let directory = tempfile::tempdir()?;
/// let options = taba_agent::Config::default().verify()?.log_options();
/// let mut disk = FileDisk::open(directory.path())?;
/// let (_spool, recovered) = LogSpool::open(&mut disk, options)?;
/// assert!(recovered.lanes.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    /// Locked while it is open.
    lock: Arc<File>,
    /// Its content when it was opened.
    found_extent: Option<Extent>,
    /// Its current content.
    extent: Arc<Mutex<Extent>>,
    /// All segments, open while they are needed: removed files can still be read.
    files: BTreeMap<SegmentId, Arc<File>>,
    /// The segment for appends.
    last: Option<LastSegment>,
    /// Files that may be unsynced, except the last one: at first, all.
    unsynced: Vec<Arc<File>>,
    /// Whether a file was created or removed since the last sync.
    is_changed: bool,
}

/// The segment for appends.
#[derive(Clone, Debug)]
struct LastSegment {
    segment: SegmentId,
    file: Arc<File>,
    path: PathBuf,
    length: u64,
}

impl FileDisk {
    /// Opens the directory, and makes it if missing.
    ///
    /// # Errors
    /// [`DiskError`] when another Agent uses it, or it cannot be used.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Directory { path: path.to_owned(), source };
        let lock = lock(path)?;
        let found_extent = read_extent(&lock).map_err(failed)?;
        let mut disk = Self {
            path: path.to_owned(),
            lock: Arc::new(lock),
            found_extent,
            extent: Arc::default(),
            files: BTreeMap::new(),
            last: None,
            unsynced: Vec::new(),
            is_changed: true,
        };
        disk.take_in_strays().map_err(failed)?;
        for segment in disk.found().map_err(failed)? {
            let path = disk.file(segment);
            let file = open_segment(&path).map_err(|source| DiskError::Segment { path, source })?;
            let file = Arc::new(file);
            disk.unsynced.push(Arc::clone(&file));
            disk.files.insert(segment, file);
        }
        let oldest = disk.files.keys().next().map_or(SegmentId(1), |first| *first);
        let unknown = Extent { oldest, ..Extent::default() };
        disk.extent = Arc::new(Mutex::new(found_extent.unwrap_or(unknown)));
        if found_extent.is_none() && disk.files.is_empty() {
            // So that a run killed before its first sync does not leave a damaged extent. A full disk may refuse it,
            // and then accepts nothing else either.
            let _ = change_extent(&disk.lock, &disk.extent, |_| {});
        }
        Ok(disk)
    }

    /// Segments with a file, ascending.
    fn found(&self) -> io::Result<Vec<SegmentId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            found.extend(number_of(&entry?.file_name()));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Renames log files without a number in their name to a free number: the number inside counts.
    fn take_in_strays(&self) -> io::Result<()> {
        let mut free = self.found()?.last().map_or(1, |last| last.0 + 1);
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_ours = name.to_str().is_some_and(|name| name.ends_with(SUFFIX));
            if is_ours && number_of(&name).is_none() && entry.metadata()?.is_file() {
                fs::rename(entry.path(), self.file(SegmentId(free)))?;
                free += 1;
            }
        }
        Ok(())
    }

    fn file(&self, segment: SegmentId) -> PathBuf {
        self.path.join(format!("{segment}{SUFFIX}"))
    }
}

/// Higher numbers are never used; such a file is foreign.
const NUMBER_MAX: u64 = u64::MAX >> 1;

/// The number in a segment's file name.
fn number_of(name: &OsStr) -> Option<SegmentId> {
    let number = SegmentId(u64::from_str_radix(name.to_str()?.strip_suffix(SUFFIX)?, 16).ok()?);
    (name.to_str()? == format!("{number}{SUFFIX}") && number.0 <= NUMBER_MAX).then_some(number)
}

/// A segment may be a symbolic link, to a larger disk.
fn open_segment(path: &Path) -> io::Result<File> {
    // Checked first: opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    OpenOptions::new().read(true).append(true).open(path)
}

impl LastSegment {
    /// Writing to a removed file is no error, so this must be checked.
    fn check(&self) -> io::Result<()> {
        if is_at(&self.file, &self.path)? {
            return Ok(());
        }
        let words = format!("{} is gone; somebody removed it", self.path.display());
        Err(io::Error::new(io::ErrorKind::NotFound, words))
    }
}

impl Disk for FileDisk {
    fn segments(&self) -> io::Result<Vec<(SegmentId, u64)>> {
        // Of the file itself, not of a symbolic link.
        self.files.iter().map(|(segment, file)| Ok((*segment, file.metadata()?.len()))).collect()
    }

    fn create(&mut self, segment: SegmentId, head: &[u8]) -> io::Result<()> {
        check_lock(&self.lock, &self.path)?;
        let path = self.file(segment);
        // An existing file of this number was left by an earlier try.
        let options = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
        drop(options);
        let file = OpenOptions::new().read(true).append(true).open(&path)?;
        if let Err(error) = (&file).write_all(head) {
            // If it remains, its head is incomplete, and it is ignored.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let file = Arc::new(file);
        self.files.insert(segment, Arc::clone(&file));
        let length = head.len() as u64;
        if let Some(before) = self.last.replace(LastSegment { segment, file, path, length }) {
            self.unsynced.push(before.file);
        }
        self.is_changed = true;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        check_lock(&self.lock, &self.path)?;
        let Some(last) = &mut self.last else {
            // Treated as gone: a renewal rewrites it.
            let words = "a segment could not be made shorter after a write that failed";
            return Err(io::Error::new(io::ErrorKind::NotFound, words));
        };
        let mut writer: &File = &last.file;
        let written = writer.write_all(bytes).and_then(|()| last.check());
        match written {
            Ok(()) => {
                last.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A full disk allows truncation. If it fails all the same, later records would be lost with the torn
                // one: so nothing may follow.
                if last.file.set_len(last.length).is_err() {
                    self.unsynced.extend(self.last.take().map(|last| last.file));
                }
                Err(error)
            }
        }
    }

    fn read(&self, segment: SegmentId, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let file = self.files.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        let mut file: &File = file;
        file.seek(SeekFrom::Start(offset))?;
        let mut found = Vec::with_capacity(bytes);
        file.take(bytes as u64).read_to_end(&mut found)?;
        Ok(found)
    }

    fn cut(&mut self, segment: SegmentId, bytes: u64) -> io::Result<()> {
        let file = self.files.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        file.set_len(bytes)?;
        self.unsynced.push(Arc::clone(file));
        Ok(())
    }

    fn rename(&mut self, from: SegmentId, to: SegmentId) -> io::Result<()> {
        fs::rename(self.file(from), self.file(to))?;
        if let Some(file) = self.files.remove(&from) {
            self.files.insert(to, file);
        }
        self.is_changed = true;
        Ok(())
    }

    fn extent(&self) -> io::Result<Option<Extent>> {
        Ok(self.found_extent.or_else(|| self.files.is_empty().then(Extent::default)))
    }

    fn begins_at(&mut self, oldest: SegmentId) -> io::Result<()> {
        change_extent(&self.lock, &self.extent, |extent| extent.oldest = oldest)?;
        self.lock.sync_data()
    }

    fn keep_damaged(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        let path = self.path.join(format!("{segment}-{offset:08x}{DAMAGED}"));
        if path.try_exists()? {
            return Ok(true);
        }
        let mut kept = bytes.len() as u64;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let is_damaged = entry.file_name().to_str().is_some_and(|name| name.ends_with(DAMAGED));
            kept += if is_damaged { entry.metadata()?.len() } else { 0 };
        }
        if kept > DAMAGED_BYTES_MAX {
            return Ok(false);
        }
        fs::write(&path, bytes).inspect_err(|_| {
            // The next run would take half a copy for the whole.
            let _ = fs::remove_file(&path);
        })?;
        Ok(true)
    }

    fn remove(&mut self, segment: SegmentId) -> io::Result<()> {
        self.is_changed = true;
        self.files.remove(&segment);
        match fs::remove_file(self.file(segment)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn renew(&mut self) -> io::Result<()> {
        (self.last, self.is_changed) = (None, true);
        self.unsynced.clear();
        if !is_at(&self.lock, &self.path.join(LOCK))? {
            self.lock = Arc::new(lock(&self.path).map_err(io::Error::other)?);
            // The log is empty. If this fails, the expected range is unknown.
            let _ = change_extent(&self.lock, &self.extent, |extent| {
                (extent.last, extent.last_bytes) = (SegmentId(0), 0);
            });
        }
        Ok(())
    }

    fn free(&self) -> Option<u64> {
        #[cfg(unix)]
        {
            let room = rustix::fs::statvfs(&self.path).ok()?;
            Some(room.f_bavail.saturating_mul(room.f_frsize))
        }
        #[cfg(not(unix))]
        None
    }

    fn sync(&mut self) -> Box<dyn FnOnce() -> io::Result<()> + Send> {
        let files = std::mem::take(&mut self.unsynced);
        let last = self.last.clone();
        let (lock, extent) = (Arc::clone(&self.lock), Arc::clone(&self.extent));
        let directory = std::mem::take(&mut self.is_changed).then(|| self.path.clone());
        let path = self.path.clone();
        Box::new(move || {
            check_lock(&lock, &path)?;
            files.iter().try_for_each(|file| file.sync_data())?;
            if let Some(last) = &last {
                last.file.sync_data()?;
                last.check()?;
            }
            if let Some(path) = directory {
                File::open(path)?.sync_all()?;
            }
            if let Some(LastSegment { segment, length, .. }) = last {
                // After the sync, so that it never exceeds what exists after a power failure. If this fails, less of
                // the log is known to exist.
                let _ = change_extent(&lock, &extent, |extent| {
                    (extent.last, extent.last_bytes) = (segment, length);
                });
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_behind_a_symbolic_link_is_read_and_what_is_no_file_is_named() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut disk = FileDisk::open(dir.path()).unwrap();
        disk.create(SegmentId(1), b"what it holds").unwrap();
        drop(disk);
        let (path, moved) =
            (dir.path().join(format!("{}{SUFFIX}", SegmentId(1))), elsewhere.path().join("1"));
        fs::copy(&path, &moved).unwrap();
        fs::remove_file(&path).unwrap();
        // A link to nothing, to a directory, to the file.
        for (to, is_good) in
            [(elsewhere.path().join("2"), false), (elsewhere.path().into(), false), (moved, true)]
        {
            std::os::unix::fs::symlink(to, &path).unwrap();
            match FileDisk::open(dir.path()) {
                Ok(disk) => {
                    assert!(is_good);
                    assert_eq!(disk.segments().unwrap(), [(SegmentId(1), 13)]);
                }
                Err(DiskError::Segment { path: named, .. }) => assert!(!is_good && named == path),
                Err(error) => panic!("{error}"),
            }
            fs::remove_file(&path).unwrap();
        }
        fs::create_dir(&path).unwrap();
        assert!(matches!(FileDisk::open(dir.path()), Err(DiskError::Segment { .. })));
    }

    #[test]
    fn an_agent_whose_lock_is_gone_writes_nothing_into_the_log_of_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = FileDisk::open(dir.path()).unwrap();
        first.create(SegmentId(1), b"of the first").unwrap();
        fs::remove_file(dir.path().join(LOCK)).unwrap();
        let mut second = FileDisk::open(dir.path()).unwrap();
        second.create(SegmentId(2), b"of the second").unwrap();
        for refused in [first.create(SegmentId(2), b"x"), first.append(b"x"), first.sync()(), first.renew()] {
            assert!(refused.is_err());
        }
        assert!(first.renew().unwrap_err().to_string().contains("another agent has it"));
        let read = |number: u64| fs::read(dir.path().join(format!("{}{SUFFIX}", SegmentId(number)))).unwrap();
        assert_eq!((read(1), read(2)), (b"of the first".to_vec(), b"of the second".to_vec()));
        // When the other one has ended, it continues.
        drop(second);
        first.renew().unwrap();
        first.create(SegmentId(3), b"again").unwrap();
    }

    #[test]
    fn a_file_with_a_number_that_no_segment_has_gets_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{}{SUFFIX}", SegmentId(u64::MAX))), b"stray").unwrap();
        assert_eq!(FileDisk::open(dir.path()).unwrap().segments().unwrap(), [(SegmentId(1), 5)]);
    }

    #[test]
    fn a_run_that_was_killed_before_its_first_sync_is_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        drop(FileDisk::open(dir.path()).unwrap());
        let file = dir.path().join(format!("{}{SUFFIX}", SegmentId(1)));
        fs::write(file, b"what was written and not synced").unwrap();
        assert_eq!(FileDisk::open(dir.path()).unwrap().extent().unwrap(), Some(Extent::default()));
    }
}
