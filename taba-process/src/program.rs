//! [`run`]: the frame of every `main`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use crate::exit::Exit;
use crate::log::Log;

/// Runs the whole of a program: starts its log first, so that nothing it says can block it, and writes at the end what
/// the log still holds, for at most [`log::FLUSH_TIME_MAX`](crate::log::FLUSH_TIME_MAX). A panic of `program` is
/// [`Exit::Failed`].
pub fn run(name: &'static str, program: impl FnOnce(&Log) -> Exit) -> ExitCode {
    let log = Log::start(name);
    // The panic itself was logged by the hook.
    let exit = catch_unwind(AssertUnwindSafe(|| program(&log))).unwrap_or(Exit::Failed);
    log.flush();
    exit.into()
}
