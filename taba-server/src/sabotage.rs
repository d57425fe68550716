//! Rules of exactly-once that can be switched off, to show that they matter: torture runs again without each, and must
//! then end in wrong totals.
//! See [`taba_core::sabotage`].

pub(crate) use taba_core::sabotage::is_off;

/// A Batch at or below the mark is not folded again.
pub(crate) const MARKS: &str = "ignore-marks";
/// A Batch is folded only if it follows on the mark.
pub(crate) const ORDER: &str = "no-gap-free-order";
/// What is answered without a commit was compared with the store.
pub(crate) const CHECKED: &str = "answer-from-cache";
/// What is acknowledged was committed.
pub(crate) const COMMITTED: &str = "ack-failed-commit";
/// Marks are judged by two clocks.
pub(crate) const TWO_CLOCKS: &str = "one-clock";
/// A version never comes again with other content.
pub(crate) const UNIQUE: &str = "version-counter";

/// A worker does not panic when it is given a Batch. No rule of exactly-once: it shows what a Server does that fails.
#[cfg(feature = "driver")]
pub(crate) const WORKERS: &str = "worker-panics";
