//! Rules of exactly-once that tests can switch off: without each, torture must end in wrong totals.
//!
//! Compiled only with `--cfg taba_sabotage`, as `scripts/sabotage` does (a feature could be switched on by any crate
//! of a build, and be shipped); active only when `TABA_SABOTAGE` names the rule: `TABA_SABOTAGE=one,other`.

/// A commit succeeds only if the VBucket is at the version that it expects.
pub(crate) const CONDITIONAL: &str = "unconditional-commit";
/// An index that has lost entries is rebuilt before anything is answered.
pub(crate) const LISTED: &str = "believe-indexes";

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
