//! Rules of exactly-once that can be switched off, to show that they matter: torture runs again without each, and must
//! then end in wrong totals. And parts that can be made to panic, to show that the process ends with them.
//! See [`taba_core::sabotage`].

pub(crate) use taba_core::sabotage::is_off;

/// What was acknowledged is kept until it is confirmed.
pub(crate) const CONFIRM: &str = "release-on-applied";
/// A Batch that a Client sends again is recognised.
pub(crate) const DEDUP: &str = "forget-dedup";
/// A Client is told that its Batch was taken only once it is in the Spool.
#[cfg(feature = "driver")]
pub(crate) const SPOOLED: &str = "ack-unspooled";

/// The task that sends, with its first request.
#[cfg(feature = "driver")]
pub(crate) const PUMP: &str = "panic-in-pump";
/// The thread that owns the disk, with its first job.
#[cfg(feature = "driver")]
pub(crate) const DISK_THREAD: &str = "panic-in-disk-thread";
/// Taking a Batch: it is in the Spool, and in no Lane yet.
pub(crate) const TAKING: &str = "panic-in-taking";
/// Merging what waits for Servers, in a Handler.
pub(crate) const MERGING: &str = "panic-in-merging";

/// Panics if this part is named.
pub(crate) fn panic_in(part: &str) {
    assert!(!is_off(part), "{part} was asked for");
}
