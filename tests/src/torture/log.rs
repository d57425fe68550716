//! [`Log`]: where the words of one process go: into a file, or to a standard error that takes nothing.

use std::fs::File;
use std::io::{PipeReader, Read, Write, pipe};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use super::plan::Plan;
use crate::Process;

/// What is wrong with a standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stderr {
    /// A file on a disk that is full.
    FullDisk,
    /// A pipe that nobody reads from, and that is full.
    Unread,
    /// A pipe whose reader goes as soon as it has read something, as in `taba-agent 2>&1 | head`.
    ReaderGone,
    /// It is closed before the program begins.
    Closed,
}

/// How many kinds there are.
pub(super) const BAD_STDERRS: usize = Stderr::ALL.len();

impl Stderr {
    const ALL: [Self; 4] = [Self::FullDisk, Self::Unread, Self::ReaderGone, Self::Closed];
}

/// Where the words of one process go, over its runs.
#[derive(Debug)]
pub(super) struct Log {
    file: PathBuf,
    /// The number of the next bad standard error, if it is to get one.
    next: Option<usize>,
    /// The end that nobody reads from.
    unread: Option<PipeReader>,
}

impl Log {
    /// All goes into a file of this name, unless the plan has it that what goes to the standard error goes nowhere;
    /// `first` is then the number of the way of the first run.
    pub(super) fn of(plan: &Plan, directory: &Path, name: &str, first: usize) -> Self {
        let file = directory.join(format!("{name}.log"));
        Self { file, next: plan.has_bad_stderr.then_some(first), unread: None }
    }

    /// Starts a process that logs so.
    ///
    /// # Panics
    /// When it does not start.
    pub(super) fn start(&mut self, name: &str, command: &mut Command) -> Process {
        let Some(next) = &mut self.next else { return Process::start_logged(name, command, &self.file) };
        let stderr = Stderr::ALL[*next % Stderr::ALL.len()];
        *next += 1;
        command.env("RUST_LOG", "debug");
        let log = File::options().create(true).append(true).open(&self.file).expect("a log can be written");
        let start = |command: &mut Command, stderr: Stdio| Process::start_with(name, command, log, stderr);
        let fits = "there are enough pipes";
        match stderr {
            Stderr::FullDisk => {
                let full = File::options().write(true).open("/dev/full").expect("there is a full device");
                start(command, full.into())
            }
            Stderr::Unread => {
                let (reader, writer) = pipe().expect(fits);
                let filler = writer.try_clone().expect(fits);
                thread::spawn(move || fill(filler));
                self.unread = Some(reader);
                start(command, writer.into())
            }
            Stderr::ReaderGone => {
                let (mut reader, writer) = pipe().expect(fits);
                // Whatever comes, it goes.
                thread::spawn(move || reader.read(&mut [0; 1]).is_ok());
                start(command, writer.into())
            }
            Stderr::Closed => start(&mut closed(command), Stdio::null()),
        }
    }
}

/// Keeps a pipe full until nobody can read from it any more.
fn fill(mut pipe: impl Write) {
    while pipe.write_all(b".").is_ok() {}
}

/// The same program, with its standard error closed.
fn closed(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>&-", "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}
