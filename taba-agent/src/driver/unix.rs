//! A Unix socket at a path: replaces one left by an earlier run, and is removed when the Agent stops.

use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::{fs, io};

use tokio::net::UnixListener;

/// A listener, and the guard that removes its path.
pub(super) struct BoundSocket {
    pub(super) listener: UnixListener,
    pub(super) socket: Socket,
}

/// Removes the path when it is dropped.
pub(super) struct Socket(PathBuf);

/// Opens a socket. A stale one is replaced; anything else at the path stays.
pub(super) fn open(path: &Path) -> io::Result<BoundSocket> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() && UnixStream::connect(path).is_err() => {
            fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    Ok(BoundSocket { listener, socket: Socket(path.to_owned()) })
}

impl Drop for Socket {
    fn drop(&mut self) {
        // If it cannot be removed, the next run replaces it.
        let _ = fs::remove_file(&self.0);
    }
}
