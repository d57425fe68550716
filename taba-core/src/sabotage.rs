//! [`is_off`]: whether a rule of exactly-once is switched off, to show that it matters.
//!
//! Only when built with `--cfg taba_sabotage`, as `scripts/sabotage` does for tests (a feature could be switched on by any
//! crate of a build, and be shipped), and only when `TABA_SABOTAGE` names the rule, perhaps among others:
//! `TABA_SABOTAGE=one,other`. The rules are named in `sabotage.rs` of the crates that have them.

/// Whether this rule is switched off.
#[cfg(taba_sabotage)]
pub fn is_off(rule: &str) -> bool {
    static OFF: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let off = OFF.get_or_init(|| std::env::var("TABA_SABOTAGE").unwrap_or_default());
    off.split(',').any(|off| off == rule)
}

/// Whether this rule is switched off: never.
#[cfg(not(taba_sabotage))]
pub const fn is_off(_rule: &str) -> bool {
    false
}
