//! Rules of exactly-once that can be switched off, to show that they matter: torture runs again without each, and must
//! then end in wrong totals. And parts that can be made to panic, to show that the process ends with them.
//!
//! Only when built with `--cfg taba_sabotage`, as `scripts/sabotage` does for tests (a feature could be switched on by any
//! crate of a build, and be shipped), and only when `TABA_SABOTAGE` names the rule or
//! the part, perhaps among others: `TABA_SABOTAGE=one,other`.

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

/// Whether this rule is switched off.
#[cfg(taba_sabotage)]
pub(crate) fn is_off(rule: &str) -> bool {
    static OFF: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let off = OFF.get_or_init(|| std::env::var("TABA_SABOTAGE").unwrap_or_default());
    off.split(',').any(|off| off == rule)
}

/// Whether this rule is switched off: never.
#[cfg(not(taba_sabotage))]
pub(crate) const fn is_off(_rule: &str) -> bool {
    false
}

/// Panics if this part is named.
pub(crate) fn panic_in(part: &str) {
    assert!(!is_off(part), "{part} was asked for");
}
