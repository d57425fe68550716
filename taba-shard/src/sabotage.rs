//! Rules of exactly-once that tests can switch off: without each, torture must end in wrong totals. [`taba_core::sabotage`] says
//! when.

pub(crate) use taba_core::sabotage::is_off;

/// A commit succeeds only if the VBucket is at the version that it expects.
pub(crate) const CONDITIONAL: &str = "unconditional-commit";
/// An index that has lost entries is rebuilt before anything is answered.
pub(crate) const LISTED: &str = "believe-indexes";
