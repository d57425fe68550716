//! [`Process`]: a process of a test, with the signals that hurt it.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::wait_until;

/// A process of this test; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    pub(crate) child: Child,
}

/// Whether processes are started in groups of their own.
static OWN_GROUPS: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C reaches this process alone, and not those that it starts: it ends them itself when it is done.
pub fn shield_from_ctrl_c() {
    OWN_GROUPS.store(true, Ordering::Relaxed);
}

impl Process {
    /// Starts it; what it says on its error stream is said by the test.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(name: &str, command: &mut Command) -> Self {
        Self::spawn(name, command.stdout(Stdio::null()).stderr(Stdio::inherit()))
    }

    /// Starts it; all that it says is appended to this file.
    ///
    /// # Panics
    /// When it does not start, or the file cannot be written.
    pub fn start_logged(name: &str, command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("a log can be written");
        let also = log.try_clone().expect("a file can be opened twice");
        Self::spawn(name, command.stdout(log).stderr(also))
    }

    /// Starts it; what it says goes to this file, and what it says on its error stream goes there.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_with(name: &str, command: &mut Command, stdout: File, stderr: Stdio) -> Self {
        Self::spawn(name, command.stdout(stdout).stderr(stderr))
    }

    fn spawn(name: &str, command: &mut Command) -> Self {
        #[cfg(unix)]
        if OWN_GROUPS.load(Ordering::Relaxed) {
            std::os::unix::process::CommandExt::process_group(command, 0);
        }
        let child = command.stdin(Stdio::null()).spawn();
        Self {
            name: name.to_owned(),
            child: child.unwrap_or_else(|error| panic!("{name} does not start: {error}")),
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended by itself.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Asks it to stop (SIGTERM) and waits; true when it said that all went well.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub fn terminate(&mut self) -> bool {
        self.signal("TERM");
        let mut status = None;
        wait_until(&format!("{} stops", self.name), || {
            status = self.child.try_wait().expect("a child can be asked");
            status.is_some()
        });
        status.is_some_and(|status| status.success())
    }

    /// Stops it in the middle of whatever it does (SIGSTOP); its sockets stay open, and what arrives there waits.
    ///
    /// # Panics
    /// When it is gone.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on after [`Process::pause`] (SIGCONT).
    ///
    /// # Panics
    /// When it is gone.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        // The shell's own kill: a bare machine may have no other.
        let kill = format!("kill -{signal} {}", self.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("there is a shell");
        assert!(sent.success(), "{} is gone already", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed before; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
