//! Rules of exactly-once that can be switched off, to show that they matter: torture runs again without each, and must
//! then end in wrong totals.
//!
//! Only when built with `--cfg taba_sabotage`, as `scripts/sabotage` does for tests (a feature could be switched on by any
//! crate of a build, and be shipped), and only when `TABA_SABOTAGE` names the rule,
//! perhaps among others: `TABA_SABOTAGE=one,other`.

/// A commit is done only if the VBucket is still at the version that it expects.
pub(crate) const CONDITIONAL: &str = "unconditional-commit";
/// An index that has lost entries is written again before anything is answered.
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
