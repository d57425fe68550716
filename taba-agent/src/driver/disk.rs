//! [`FileDisk`]: a directory with one file for each segment of the log.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::spool::{Disk, SegmentId};

const SUFFIX: &str = ".spool";
const LOCK: &str = "lock";

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The directory cannot be made, or not be read.
    #[error("cannot use the directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another Agent has it.
    #[error("{} is in use: another agent has it; stop it or choose another directory", path.display())]
    Locked {
        /// Which.
        path: PathBuf,
    },
}

/// A directory with one file for each segment.
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
    /// Locked as long as it is open.
    lock: File,
    /// All segments, open as long as they are needed: should somebody remove them, they can still be read.
    files: BTreeMap<SegmentId, Arc<File>>,
    /// The segment that is appended to.
    last: Option<Last>,
    /// Not known to be synced, the last one excepted: at first, all that are there.
    unsynced: Vec<Arc<File>>,
    /// Whether a file was made or removed since the last sync.
    is_changed: bool,
}

/// The segment that is appended to.
#[derive(Clone, Debug)]
struct Last {
    file: Arc<File>,
    path: PathBuf,
    length: u64,
}

impl FileDisk {
    /// Opens the directory, and makes it if there is none.
    ///
    /// # Errors
    /// [`DiskError`] when another Agent has it, or it cannot be used.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Directory { path: path.to_owned(), source };
        let mut disk = Self {
            path: path.to_owned(),
            lock: lock(path)?,
            files: BTreeMap::new(),
            last: None,
            unsynced: Vec::new(),
            is_changed: true,
        };
        for (segment, _) in disk.segments().map_err(failed)? {
            let file = OpenOptions::new().read(true).append(true).open(disk.file(segment)).map_err(failed)?;
            let file = Arc::new(file);
            disk.unsynced.push(Arc::clone(&file));
            disk.files.insert(segment, file);
        }
        Ok(disk)
    }

    fn file(&self, segment: SegmentId) -> PathBuf {
        self.path.join(format!("{segment}{SUFFIX}"))
    }
}

/// Makes the directory if there is none, and locks it.
fn lock(path: &Path) -> Result<File, DiskError> {
    let failed = |source| DiskError::Directory { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(failed)?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK));
    let lock = lock.map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DiskError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Whether the file at this path is this one, and not gone or another.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
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

impl Last {
    /// That somebody removed the file is no error of writing to it: it has to be looked for.
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
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            let Some(number) = number.and_then(|number| u64::from_str_radix(number, 16).ok()) else {
                continue;
            };
            found.push((SegmentId(number), entry.metadata()?.len()));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn create(&mut self, segment: SegmentId, head: &[u8]) -> io::Result<()> {
        let path = self.file(segment);
        // A file of this number can only be what an earlier try left behind.
        let options = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
        drop(options);
        let file = OpenOptions::new().read(true).append(true).open(&path)?;
        if let Err(error) = (&file).write_all(head) {
            // If it stays, it is found without a whole head, and nobody believes it.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let file = Arc::new(file);
        self.files.insert(segment, Arc::clone(&file));
        let length = head.len() as u64;
        if let Some(before) = self.last.replace(Last { file, path, length }) {
            self.unsynced.push(before.file);
        }
        self.is_changed = true;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(last) = &mut self.last else {
            // As good as gone: begun anew, it is written whole again.
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
                // A disk that is full lets a file become shorter. Should it not, what follows is found behind a record
                // that is cut off, and would be lost with it: so nothing may follow.
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
            self.lock = lock(&self.path).map_err(io::Error::other)?;
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
        let directory = std::mem::take(&mut self.is_changed).then(|| self.path.clone());
        Box::new(move || {
            files.iter().try_for_each(|file| file.sync_data())?;
            if let Some(last) = last {
                last.file.sync_data()?;
                last.check()?;
            }
            match directory {
                Some(path) => File::open(path)?.sync_all(),
                None => Ok(()),
            }
        })
    }
}
