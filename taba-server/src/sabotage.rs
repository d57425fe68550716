//! Rules of exactly-once that tests can switch off: without each, torture must end in wrong totals.
//! See [`taba_core::sabotage`].

pub(crate) use taba_core::sabotage::is_off;

/// A Batch at or below the mark is not folded again.
pub(crate) const MARKS: &str = "ignore-marks";
/// A Batch is folded only if it follows the mark.
pub(crate) const ORDER: &str = "no-gap-free-order";
/// Answers without a commit are compared with the store.
pub(crate) const CHECKED: &str = "answer-from-cache";
/// Acknowledged Batches are committed.
pub(crate) const COMMITTED: &str = "ack-failed-commit";
/// Marks expire by two clocks.
pub(crate) const TWO_CLOCKS: &str = "one-clock";
/// A version is never reused with other content.
pub(crate) const UNIQUE: &str = "version-counter";

/// A worker does not panic at a Batch. No rule of exactly-once: shows what a failing Server does.
#[cfg(feature = "driver")]
pub(crate) const WORKERS: &str = "worker-panics";
