//! [`put_file`]: a small file is written as a whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes a whole file, or leaves the one that is there; when it returns, the file is safe from a power failure.
///
/// # Errors
/// What the disk says. The unfinished file may be left; it has the same name, but ends in `.new`.
pub(super) fn put_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes what was renamed and removed in a directory safe from a power failure.
///
/// # Errors
/// What the disk says.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
