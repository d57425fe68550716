//! [`ApplicationFault`]: code of the application that failed in a [`EventBuffer`](crate::EventBuffer), and what that cost.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use taba_core::ledger::Why;
use taba_core::{TabName, TabType};

/// Code of the application that failed: a Handler, or a value's own code. It concerns one Tab; all others go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApplicationFault {
    /// The Tab.
    pub tab: TabName,
    /// Its type.
    pub tab_type: TabType,
    /// Why its events were dropped.
    pub why: Why,
    /// Events dropped because of it, so far.
    pub events: u64,
    /// What it said.
    pub message: String,
}

/// Runs code of the application. Its panic ends here.
///
/// # Errors
/// What the panic said.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panic_message(panic.as_ref()))
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    format!("panicked: {}", taba_core::guard::panic_message(panic))
}
