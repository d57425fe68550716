//! [`run`]: the frame of every `main`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use crate::exit::Exit;
use crate::log::Log;

/// Runs a whole program: starts its log first, so that logging cannot block it, and flushes the log at the end, for
/// at most [`log::FLUSH_TIME_MAX`](crate::log::FLUSH_TIME_MAX). A panic of `program` is [`Exit::Failed`].
pub fn run(name: &'static str, program: impl FnOnce(&Log) -> Exit) -> ExitCode {
    let log = Log::start(name);
    // The hook has logged the panic.
    let exit = catch_unwind(AssertUnwindSafe(|| program(&log))).unwrap_or(Exit::Failed);
    log.flush();
    exit.into()
}
