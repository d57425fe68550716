//! [`BadDisk`]: a disk under a Spool whose calls take their time or fail.
//!
//! `bad_disk.c` is loaded into the process and stands between it and the system; it is compiled with the C compiler
//! that Rust links with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::clock::preload;

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Each call takes 30 ms more.
    Slow,
    /// No call comes to its end before the disk is well again, reads included.
    Hangs,
    /// Writes fail for want of space (`ENOSPC`); every second one has written half of what it was given by then.
    NoSpace,
    /// So do they, because the disk is broken (`EIO`).
    Broken,
    /// Only syncs fail (`EIO`).
    Unsynced,
}

impl Wrong {
    /// All that there is.
    pub const ALL: [Self; 5] = [Self::Slow, Self::Hangs, Self::NoSpace, Self::Broken, Self::Unsynced];

    /// In words.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Slow => "disk slow under a spool",
            Self::Hangs => "disk hangs under a spool",
            Self::NoSpace => "disk without space under a spool",
            Self::Broken => "disk that writes nothing under a spool",
            Self::Unsynced => "disk that syncs nothing under a spool",
        }
    }

    /// The errno of writes, that of syncs, and how many milliseconds each call takes more.
    const fn text(self) -> &'static str {
        match self {
            Self::Slow => "0 0 30",
            Self::Hangs => "0 0 1000000000",
            Self::NoSpace => "28 0 0",
            Self::Broken => "5 0 0",
            Self::Unsynced => "0 5 0",
        }
    }
}

/// The disk under one Spool, as one process sees it.
#[derive(Debug)]
pub struct BadDisk {
    below: PathBuf,
    wrong: PathBuf,
    hits: PathBuf,
}

impl BadDisk {
    /// A disk that is well, of what is below a directory; what is wrong with it is kept in another directory, under
    /// this name.
    pub fn new(below: &Path, directory: &Path, name: &str) -> Self {
        let file = |what: &str| directory.join(format!("{name}.{what}"));
        Self { below: below.to_owned(), wrong: file("disk"), hits: file("disk-hits") }
    }

    /// Makes a process use it.
    ///
    /// # Panics
    /// When there is no C compiler.
    pub fn wear(&self, command: &mut Command) {
        preload(command, library());
        command.env("TABA_BAD_DISK", &self.wrong).env("TABA_BAD_DISK_BELOW", &self.below);
        command.env("TABA_BAD_DISK_HITS", &self.hits);
    }

    /// From now on this is wrong with it; or nothing.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set(&self, wrong: Option<Wrong>) {
        // Renamed into place, so that no look meets half of it.
        let next = self.wrong.with_extension("next");
        fs::write(&next, wrong.map_or("0 0 0", Wrong::text)).expect("a file can be written");
        fs::rename(&next, &self.wrong).expect("a file can be renamed");
    }

    /// How many calls took longer or failed so far.
    pub fn hits(&self) -> u64 {
        fs::metadata(&self.hits).map_or(0, |hits| hits.len())
    }
}

/// Where the compiled library is.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let program = std::env::current_exe().expect("a running program has a file");
        let folder = program.parent().expect("a file is in a directory");
        let (library, mine) =
            (folder.join("bad_disk.so"), folder.join(format!("bad_disk.{}", std::process::id())));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/torture/bad_disk.c");
        let mut compiler = Command::new("cc");
        let output = compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&mine).arg(source).output();
        let output =
            output.unwrap_or_else(|error| panic!("no C compiler (cc), which Rust links with: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Another test may be doing the same.
        fs::rename(mine, &library).expect("a file can be renamed");
        library
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shell that wears the disk says to this.
    fn shell(disk: &BadDisk, script: &str) -> bool {
        let mut command = Command::new("sh");
        disk.wear(command.args(["-c", script]).current_dir(&disk.below));
        command.output().unwrap().status.success()
    }

    #[test]
    fn calls_fail_and_take_their_time_below_the_directory_alone() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        fs::create_dir(&below).unwrap();
        let disk = BadDisk::new(&below, directory.path(), "one");
        assert!(shell(&disk, "echo whole > file && sync -d file"));
        for wrong in [Wrong::NoSpace, Wrong::Broken] {
            disk.set(Some(wrong));
            assert!(!shell(&disk, "echo other > other && echo other >> other"), "{wrong:?}");
            assert!(shell(&disk, "echo free > ../free"), "{wrong:?}");
        }
        disk.set(Some(Wrong::Unsynced));
        assert!(shell(&disk, "echo whole > file"));
        assert!(!shell(&disk, "sync -d file"));
        let hits = disk.hits();
        disk.set(Some(Wrong::Slow));
        assert!(shell(&disk, "echo whole > file"));
        assert_eq!(disk.hits(), hits + 1);
        disk.set(Some(Wrong::Hangs));
        let mut command = Command::new("sh");
        disk.wear(command.args(["-c", "echo later > file"]).current_dir(&disk.below));
        let mut hanging = command.spawn().unwrap();
        crate::wait_until("it hangs", || disk.hits() > hits + 1);
        assert!(hanging.try_wait().unwrap().is_none());
        disk.set(None);
        assert!(hanging.wait().unwrap().success());
        assert_eq!(fs::read_to_string(below.join("file")).unwrap(), "later\n");
    }
}
