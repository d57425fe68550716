//! Rules of exactly-once that can be switched off, to show that they matter: torture runs again without each, and must
//! then end in wrong totals.
//!
//! Only when built with `--cfg taba_sabotage`, as `scripts/sabotage` does for tests (a feature could be switched on by any
//! crate of a build, and be shipped), and only when `TABA_SABOTAGE` names the rule,
//! perhaps among others: `TABA_SABOTAGE=one,other`.

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
