//! [`WrongClock`]: the clock of one process, set back and forth while it runs.
//!
//! `libfaketime` is loaded into the process and reads the offset from a file at each look at the clock. Only the clock on
//! the wall is stepped; the monotonic one goes on, as it does when somebody sets the time of a real machine.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The clock of one process.
#[derive(Debug)]
pub struct WrongClock {
    file: PathBuf,
}

impl WrongClock {
    /// A clock that is right, kept in this directory under this name.
    ///
    /// # Panics
    /// When the directory cannot be written.
    pub fn new(directory: &Path, name: &str) -> Self {
        let clock = Self { file: directory.join(format!("{name}.clock")) };
        clock.set(0);
        clock
    }

    /// Makes a process use it.
    ///
    /// # Panics
    /// When `libfaketime` is not installed and cannot be.
    pub fn wear(&self, command: &mut Command) {
        preload(command, library());
        command.env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        // Otherwise each child would set up shared memory under a name that its parent left.
        command.env_remove("FAKETIME_SHARED");
    }

    /// So many seconds ahead of the right time from now on; negative is behind.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set(&self, seconds: i64) {
        // Renamed into place, so that no look at the clock meets half a number.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{seconds:+}\n")).expect("a clock can be written");
        fs::rename(&next, &self.file).expect("a clock can be set");
    }
}

/// Has a library loaded into a process, beside those that are already to be loaded.
pub(super) fn preload(command: &mut Command, library: impl AsRef<OsStr>) {
    let before = command.get_envs().find_map(|(name, value)| value.filter(|_| name == "LD_PRELOAD"));
    let mut libraries = before.map(OsString::from).unwrap_or_default();
    libraries.push(":");
    libraries.push(library);
    command.env("LD_PRELOAD", libraries);
}

/// Where `libfaketime` is: what the script says, which installs it if it must.
fn library() -> &'static str {
    static LIBRARY: OnceLock<String> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/faketime");
        let output = Command::new(&script).output();
        let output = output.unwrap_or_else(|error| panic!("{} does not run: {error}", script.display()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn year(clock: &WrongClock) -> i32 {
        let mut command = Command::new("date");
        clock.wear(command.args(["+%Y"]));
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().parse().unwrap()
    }

    #[test]
    fn a_clock_is_set_both_ways() {
        let directory = tempfile::tempdir().unwrap();
        let clock = WrongClock::new(directory.path(), "one");
        let now = year(&clock);
        clock.set(10 * 365 * 86_400);
        let later = year(&clock);
        clock.set(-10 * 365 * 86_400);
        let earlier = year(&clock);
        assert!(now > 2025 && (9..=10).contains(&(later - now)) && (9..=11).contains(&(now - earlier)));
    }
}
