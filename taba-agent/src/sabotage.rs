//! Rules of exactly-once that tests can switch off: without each, torture must end in wrong totals; and parts that
//! tests can make panic, to show that the process then ends. See [`taba_core::sabotage`].

pub(crate) use taba_core::sabotage::is_off;

/// Acknowledged Batches are kept until confirmed.
pub(crate) const CONFIRM: &str = "release-on-applied";
/// A repeated Batch of a Client is recognised.
pub(crate) const DEDUP: &str = "forget-dedup";
/// A Client gets its answer only once its Batch is in the Spool.
#[cfg(feature = "driver")]
pub(crate) const SPOOLED: &str = "ack-unspooled";

/// The sending task panics at its first request.
#[cfg(feature = "driver")]
pub(crate) const PUMP: &str = "panic-in-pump";
/// The disk thread panics at its first job.
#[cfg(feature = "driver")]
pub(crate) const DISK_THREAD: &str = "panic-in-disk-thread";
/// Accepting a Batch panics: it is in the Spool, and in no Lane yet.
pub(crate) const TAKING: &str = "panic-in-taking";
/// A Handler panics while it merges.
pub(crate) const MERGING: &str = "panic-in-merging";

/// Panics if this part is named.
pub(crate) fn panic_in(part: &str) {
    assert!(!is_off(part), "{part} was asked for");
}
