//! [`Versions`]: the unique versions of a process's commits.

use std::sync::atomic::{AtomicU64, Ordering};

use taba_core::Version;

/// Makes unique [`Version`]s. One per process and store, shared by all that commit.
#[derive(Debug)]
pub struct Versions {
    writer: u64,
    count: AtomicU64,
}

impl Versions {
    /// Versions of a writer: a random number drawn at the process's start, never reused by another process.
    pub const fn new(writer: u64) -> Self {
        Self { writer, count: AtomicU64::new(1) }
    }

    /// A new version.
    pub fn next(&self) -> Version {
        Version { writer: self.writer, count: self.count.fetch_add(1, Ordering::Relaxed) }
    }
}
