//! [`FileDisk`]: a directory with one file for each segment of the log.

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
/// let (_spool, recovered) = LogSpool::open(FileDisk::open(directory.path())?, options)?;
/// assert!(recovered.lanes.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
    /// The segment that is appended to, and its length.
    last: Option<(Arc<File>, u64)>,
    /// Not known to be synced, the last one excepted: at first, all that are there.
    unsynced: Vec<Arc<File>>,
    /// Whether a file was made or removed since the last sync.
    is_changed: bool,
}

impl FileDisk {
    /// Opens the directory, and makes it if there is none.
    ///
    /// # Errors
    /// [`DiskError`] when another Agent has it, or it cannot be used.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Directory { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DiskError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut disk =
            Self { path: path.to_owned(), _lock: lock, last: None, unsynced: Vec::new(), is_changed: true };
        for (segment, _) in disk.segments().map_err(failed)? {
            let file = OpenOptions::new().append(true).open(disk.file(segment)).map_err(failed)?;
            disk.unsynced.push(Arc::new(file));
        }
        Ok(disk)
    }

    fn file(&self, segment: SegmentId) -> PathBuf {
        self.path.join(format!("{segment}{SUFFIX}"))
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
        let file = OpenOptions::new().append(true).open(&path)?;
        if let Err(error) = (&file).write_all(head) {
            // If it stays, it is found without a whole head, and nobody believes it.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        if let Some((before, _)) = self.last.replace((Arc::new(file), head.len() as u64)) {
            self.unsynced.push(before);
        }
        self.is_changed = true;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((file, length)) = &mut self.last else { return Err(io::ErrorKind::NotFound.into()) };
        let mut writer: &File = file;
        match writer.write_all(bytes) {
            Ok(()) => {
                *length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A disk that is full lets a file become shorter. Should it not, what follows is found behind a record
                // that is cut off, and would be lost with it: so nothing may follow.
                if file.set_len(*length).is_err() {
                    self.unsynced.extend(self.last.take().map(|(file, _)| file));
                }
                Err(error)
            }
        }
    }

    fn read(&self, segment: SegmentId, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.file(segment))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut found = Vec::with_capacity(bytes);
        file.take(bytes as u64).read_to_end(&mut found)?;
        Ok(found)
    }

    fn cut(&mut self, segment: SegmentId, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.file(segment))?;
        file.set_len(bytes)?;
        self.unsynced.push(Arc::new(file));
        Ok(())
    }

    fn remove(&mut self, segment: SegmentId) -> io::Result<()> {
        self.is_changed = true;
        match fs::remove_file(self.file(segment)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync(&mut self) -> Box<dyn FnOnce() -> io::Result<()> + Send> {
        let mut files = std::mem::take(&mut self.unsynced);
        files.extend(self.last.iter().map(|(file, _)| Arc::clone(file)));
        let directory = std::mem::take(&mut self.is_changed).then(|| self.path.clone());
        Box::new(move || {
            files.iter().try_for_each(|file| file.sync_data())?;
            match directory {
                Some(path) => File::open(path)?.sync_all(),
                None => Ok(()),
            }
        })
    }
}
