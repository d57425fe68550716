//! [`SmallDisk`]: a disk under a Spool that can be full.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes that are written at once to fill it.
static PIECE: [u8; 64 * 1024] = [0x5a; 64 * 1024];

/// A file system of its own, in memory, of few bytes. It takes the right to mount, which containers of CI have as root.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many bytes at this path, which is made.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn mount(path: &Path, bytes: u64) -> Self {
        fs::create_dir_all(path).expect("a directory can be made");
        let size = format!("size={bytes}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).status();
        assert!(
            done.is_ok_and(|status| status.success()),
            "a tmpfs can be mounted at {}: are we root?",
            path.display()
        );
        Self { path: path.to_owned() }
    }

    /// Whether this process may mount.
    pub fn is_permitted() -> bool {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let mount = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(directory.path()).output();
        let is_mounted = mount.is_ok_and(|output| output.status.success());
        if is_mounted {
            unmount(directory.path());
        }
        is_mounted
    }

    /// Fills it to the last byte.
    ///
    /// # Panics
    /// When that does not end in an error.
    pub fn fill(&self) {
        let mut file =
            File::options().create(true).append(true).open(self.filler()).expect("a file can be made");
        // First by large pieces, then byte by byte.
        while file.write_all(&PIECE).is_ok() {}
        while file.write_all(&PIECE[..1]).is_ok() {}
    }

    /// Frees what [`SmallDisk::fill`] took.
    pub fn free(&self) {
        // It may never have been filled. Cut first: a process that is just being started may have the file open still.
        let _ = File::options().write(true).open(self.filler()).and_then(|file| file.set_len(0));
        let _ = fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.path);
    }
}

fn unmount(path: &Path) {
    // Lazily: whoever still has a file open there keeps it until he is gone. If even that fails, the directory stays.
    let _ = Command::new("umount").arg("-l").arg(path).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_is_full_and_is_freed() {
        if !SmallDisk::is_permitted() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let disk = SmallDisk::mount(&directory.path().join("disk"), 1 << 20);
        disk.fill();
        fs::write(directory.path().join("disk/more"), [0; 5000]).unwrap_err();
        disk.free();
        fs::write(directory.path().join("disk/more"), [0; 5000]).unwrap();
    }
}
