//! [`Versions`]: the tokens that a process gives to what it commits.

use std::sync::atomic::{AtomicU64, Ordering};

use taba_core::Version;

/// Makes [`Version`]s, each only once. One per process and store, shared by all who commit.
#[derive(Debug)]
pub struct Versions {
    writer: u64,
    count: AtomicU64,
}

impl Versions {
    /// Versions of a writer: a number drawn at random when the process starts, never one that another process used.
    pub const fn new(writer: u64) -> Self {
        Self { writer, count: AtomicU64::new(1) }
    }

    /// A version that no commit has had.
    pub fn next(&self) -> Version {
        Version { writer: self.writer, count: self.count.fetch_add(1, Ordering::Relaxed) }
    }
}
