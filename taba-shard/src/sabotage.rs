//! Rules of exactly-once that tests can switch off: without each, torture must end in wrong totals. [`taba_core::sabotage`] says
//! when.

use taba_core::VBucket;
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

/// As [`die_at`], or waits until this process is killed, if the rule `hold-MOMENT-VBUCKET` is switched off. Says so.
#[expect(clippy::print_stderr, reason = "the log leaves out what repeats, and a test counts these lines")]
pub(crate) async fn stop_at(moment: &str, vbucket: VBucket) {
    die_at(moment);
    if cfg!(taba_sabotage) && is_off(&format!("hold-{moment}-{}", vbucket.index())) {
        eprintln!("a move is held: {vbucket}, {moment}");
        std::future::pending::<()>().await;
    }
}
