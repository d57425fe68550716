//! Forks and the exit of the process. The two registrations with the C library.

#![expect(unsafe_code, reason = "no kept crate registers a function for the exit of a process or for a fork")]

use std::panic::catch_unwind;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Added to [`generation`] by each fork: more than any number of Clients.
const FORK: u64 = 1 << 48;

static FORKS: AtomicU64 = AtomicU64::new(0);

/// Called at the end of the process.
static AT_EXIT: OnceLock<fn()> = OnceLock::new();

/// The same number until the process forks; another in the child.
#[inline]
pub(crate) fn generation() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

extern "C" fn forked() {
    FORKS.fetch_add(FORK, Ordering::Relaxed);
}

extern "C" fn exiting() {
    if let Some(at_exit) = AT_EXIT.get() {
        // A panic must not leave a function that the C library calls.
        drop(catch_unwind(at_exit));
    }
}

/// Has the C library tell of forks, and call `at_exit` at the end of the process; once.
pub(crate) fn watch(at_exit: fn()) {
    AT_EXIT.get_or_init(|| {
        // SAFETY: `exiting` is a function of this program that takes nothing, gives nothing, and does not unwind.
        let registered = unsafe { libc::atexit(exiting) };
        if registered != 0 {
            tracing::warn!("no function can be registered for the exit of the process; flush before it");
        }
        // SAFETY: `forked` only adds to an atomic number, which a child of a process with many threads may do.
        #[cfg(unix)]
        let registered = unsafe { libc::pthread_atfork(None, None, Some(forked)) };
        #[cfg(unix)]
        if registered != 0 {
            tracing::warn!("forks cannot be noticed; build the client in the child");
        }
        at_exit
    });
}
