//! The test kit: every law of [`Handler`] and of [`Store`](crate::Store) as a function anyone can
//! run, and macros that make one `#[test]` of each.
//!
//! # Examples
//! In `tests/laws.rs` of a crate with a Handler of numbers:
//! ```
//! # use serde::{Deserialize, Serialize};
//! # use taba_core::{Event, Handler, Timestamp};
//! # pub struct Count;
//! # #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
//! # pub struct N { n: u64 }
//! # impl Handler for Count {
//! #     type Value = f64; type State = N; type Projection = N; const VERSION: u16 = 1;
//! #     fn fold(&self, state: &mut N, _: Event<&f64>) { state.n = state.n.saturating_add(1); }
//! #     fn merge(&self, into: &mut N, other: &N) { into.n = into.n.saturating_add(other.n); }
//! #     fn project(&self, state: &N, _: Timestamp) -> N { state.clone() }
//! #     fn aggregate(&self, into: &mut N, other: &N) { self.merge(into, other); }
//! #     fn encoded_bytes_max(&self) -> usize { 10 }
//! # }
//! use taba_core::{handler_laws, laws::samples};
//!
//! handler_laws!(count, Count, samples::numbers());
//! # fn main() {}
//! ```
//!
//! # What the kit cannot check
//! What passes keeps the laws on what was tried, and no more. Of a Handler:
//! - values that your samples never give: hand it the extremes and the mixtures that you expect, many equal and many different;
//! - that [`VERSION`](Handler::VERSION) rises when the encoding changes, and that `upgrade` reads what an older version wrote: keep
//!   encoded States of each version that was deployed, and a test that reads them;
//! - determinism across machines: logarithms and the like differ in the last bit between platforms;
//! - memory, unless you hand it an allocation meter ([`check_decode_bounded`]);
//! - code that depends on a clock, on chance, or on something global, if it does not while the kit runs;
//! - speed, and whether what a Projection says is what you meant.
//!
//! Of a Store:
//! - power failures, disks that lie about syncs, and failovers: what [`stable`](crate::Store::stable) promises there is for a test
//!   of your own, with the machines;
//! - two processes that commit at once: the kit's racing commits come from one;
//! - versions that come again after the store went back in time, but for the restart that your `Fixture` makes;
//! - sizes and times of production: a VBucket with a million States, a `scan` that takes minutes, a full disk, a slow network;
//! - that every error has the right remedy: an *unavailable* that never passes holds an Agent for ever.

mod bounded;
pub mod handler;
mod macros;
mod maximal;
mod memory;
pub mod samples;
pub mod store;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

pub use self::bounded::check_bounded;
pub use self::memory::{Meter, Metered, check_decode_bounded, check_decoding};
use crate::handler::Handler;
use samples::Sample;

/// What the macros need from the caller's crate, so that it need not depend on it.
#[doc(hidden)]
pub use proptest;

/// A law does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the law `{law}` is broken: {equation}\n{detail}")]
#[non_exhaustive]
pub struct Broken {
    /// Which law: the name of its function, and of its row in the table.
    pub law: &'static str,
    /// What should hold.
    pub equation: &'static str,
    /// What came out on both sides, or what happened.
    pub detail: String,
}

impl Broken {
    /// A law, by its name and its equation, and what came out instead: for laws of your own.
    pub fn new((law, equation): (&'static str, &'static str), detail: impl Into<String>) -> Self {
        Self { law, equation, detail: detail.into() }
    }
}

/// One law of a Handler, as a function of a sample.
pub type Law<H> = fn(&H, &Sample<<H as Handler>::Value>) -> Result<(), Broken>;

/// How many samples a law is tried on.
pub const CASES: u32 = 256;

/// Tries a law on [`CASES`] samples made from `values`, and shrinks the first that breaks it.
///
/// # Errors
/// [`Broken`], with the smallest sample found.
pub fn check<H, S>(handler: &H, values: S, law: Law<H>) -> Result<(), Broken>
where
    H: Handler,
    S: Strategy<Value = H::Value> + Clone + 'static,
{
    // Deterministic, so that a law that holds today holds in every run of the same build.
    let config =
        Config { cases: CASES, failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let mut broken = None;
    let outcome = runner.run(&samples::sample(values), |sample| match law(handler, &sample) {
        Ok(()) => Ok(()),
        Err(found) => Err(TestCaseError::fail(found.detail)),
    });
    if let Err(TestError::Fail(reason, sample)) = outcome {
        let detail = reason.message().to_owned();
        broken = law(handler, &sample)
            .err()
            .map(|found| Broken { detail: format!("{detail}\nsmallest sample: {sample:#?}"), ..found });
        broken = broken
            .or_else(|| Some(Broken::new(("determinism", "a law says the same of the same sample"), detail)));
    } else if let Err(TestError::Abort(reason)) = outcome {
        broken = Some(Broken::new(("sampling", "the strategy gives values"), reason.message()));
    }
    broken.map_or(Ok(()), Err)
}

/// One sample, the same in every run: for trying a law by hand.
pub fn example<S: Strategy + Clone>(values: &S) -> Option<S::Value> {
    let mut runner = TestRunner::deterministic();
    values.new_tree(&mut runner).ok().map(|tree| tree.current())
}
