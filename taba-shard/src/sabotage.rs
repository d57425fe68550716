//! Rules of exactly-once that tests can switch off: without each, torture must end in wrong totals. [`taba_core::sabotage`] says
//! when.

pub(crate) use taba_core::sabotage::is_off;

/// A commit succeeds only if the VBucket is at the version that it expects.
pub(crate) const CONDITIONAL: &str = "unconditional-commit";
/// An index that has lost entries is rebuilt before anything is answered.
pub(crate) const LISTED: &str = "believe-indexes";

/// Ends this process at once, as `kill -9` does, if the rule `die-MOMENT` is switched off: after that step of a move.
pub(crate) fn die_at(moment: &str) {
    if cfg!(taba_sabotage) && is_off(&format!("die-{moment}")) {
        std::process::abort();
    }
}
