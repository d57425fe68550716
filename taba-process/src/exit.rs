//! [`Exit`]: the result of a process.

use std::process::ExitCode;

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes: 0 when it ended as asked, 1 when it could not start, failed, or left something undone, \
     2 when the command line, a variable or the file is wrong.";

/// The result of a process, with the same codes for all binaries of Taba.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: it ended as requested.
    Clean,
    /// 1: it could not start, failed while running, or left work undone. Starting it again may help.
    Failed,
    /// 2: the command line, a variable or the file is wrong. Starting it again unchanged does not help.
    Usage,
    /// The code of the command that the program ran.
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
