//! [`Exit`]: how a process ended.

use std::process::ExitCode;

/// What the exit codes mean, for `--help`.
pub const EXIT_CODES: &str = "Exit codes: 0 when it ended as asked, 1 when it could not start, failed, or left something undone, \
     2 when the command line, a variable or the file is wrong.";

/// How a process ended. The same codes for all binaries of Taba.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: it ended as it was asked to.
    Clean,
    /// 1: it could not start, failed while it ran, or left something undone. Starting it again may help.
    Failed,
    /// 2: the command line, a variable or the file is wrong. Starting it again as it is does not help.
    Usage,
    /// Of a command that was run: the program ends as that did.
    Of(u8),
}

impl Exit {
    /// The number of the code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Of(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
