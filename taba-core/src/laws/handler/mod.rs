//! The laws of [`Handler`], each a function of one sample. The table is in the documentation of the trait.
//!
//! States are compared as encoded bytes, Projections by `==` and as rendered; there is no tolerance anywhere.
//!
//! | file | laws of |
//! |---|---|
//! | `mod.rs` | folding, merging, projecting and aggregating |
//! | `time.rs` | what time does to States: pruning, compacting, clamping |
//! | `encoded.rs` | States and values as bytes |
//! | `hostile.rs` | States from anywhere |
//! | `compare.rs` | what they share |

mod compare;
mod encoded;
mod hostile;
mod time;

use self::compare::{
    Law, Verdict, aggregated, columns, fold, fold_into, merged, permuted, projections, same_projection,
    same_state,
};
pub use self::encoded::{bounded, parts, round_trip, totality, unknown_versions, upgrading, values};
pub(super) use self::hostile::mutated;
pub use self::hostile::{check_closed, closed};
pub use self::time::{clamping, clamping_in_order, clamping_many, compacting, pruning};
#[cfg(doc)]
use super::Broken;
use super::samples::Sample;
use crate::event::Events;
use crate::handler::Handler;

/// `merge(fold(∅, a), fold(∅, b)) ≡ fold(∅, a ++ b)`: Batches are cut wherever the clock falls.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn splitting<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("splitting", "merge(fold(∅, a), fold(∅, b)) ≡ fold(∅, a ++ b)");
    let mut parts = fold(handler, &sample.a);
    handler.merge(&mut parts, &fold(handler, &sample.b));
    let mut whole = fold(handler, &sample.a);
    fold_into(handler, &mut whole, &sample.b);
    same_state::<H>(LAW, &parts, &whole)
}

/// `fold(∅, ~a) ≡ fold(∅, a)`: the network reorders.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn order<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("order", "fold(∅, ~a) ≡ fold(∅, a)");
    let straight = fold(handler, &sample.a);
    let backwards: Vec<_> = sample.a.iter().rev().cloned().collect();
    same_state::<H>(LAW, &fold(handler, &backwards), &straight)?;
    same_state::<H>(LAW, &fold(handler, &permuted(&sample.a, sample.seed)), &straight)
}

/// `fold_all(s, a) ≡ fold(s, a₁), fold(s, a₂), …`: how many events come at once depends on the load.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn batching<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("batching", "fold_all(s, a) ≡ fold(s, a₁), fold(s, a₂), …");
    let mut singly = fold(handler, &sample.b);
    let mut at_once = singly.clone();
    fold_into(handler, &mut singly, &sample.a);
    let (times, values) = columns(&sample.a);
    handler.fold_all(&mut at_once, Events::new(&times, &values));
    same_state::<H>(LAW, &at_once, &singly)
}

/// `merge(merge(s, t), u) ≡ merge(s, merge(t, u))`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn merge_associates<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("merge_associates", "merge(merge(s, t), u) ≡ merge(s, merge(t, u))");
    let [s, t, u] = [&sample.a, &sample.b, &sample.c].map(|events| fold(handler, events));
    let left = merged(handler, &merged(handler, &s, &t), &u);
    let right = merged(handler, &s, &merged(handler, &t, &u));
    same_state::<H>(LAW, &left, &right)
}

/// `merge(s, t) ≡ merge(t, s)`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn merge_commutes<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("merge_commutes", "merge(s, t) ≡ merge(t, s)");
    let [s, t] = [&sample.a, &sample.b].map(|events| fold(handler, events));
    same_state::<H>(LAW, &merged(handler, &s, &t), &merged(handler, &t, &s))
}

/// `merge(s, ∅) ≡ merge(∅, s) ≡ s`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn merge_is_neutral<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("merge_is_neutral", "merge(s, ∅) ≡ merge(∅, s) ≡ s");
    let s = fold(handler, &sample.a);
    let empty = H::State::default();
    same_state::<H>(LAW, &merged(handler, &s, &empty), &s)?;
    same_state::<H>(LAW, &merged(handler, &empty, &s), &s)
}

/// `aggregate(project(s), project(t)) = project(merge(s, t))`, and so for [`project_now`](Handler::project_now): the
/// whole agrees with its parts.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn projecting<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("projecting", "aggregate(project(s), project(t)) = project(merge(s, t))");
    let [s, t] = [&sample.a, &sample.b].map(|events| fold(handler, events));
    let mut parts = handler.project(&s, sample.at);
    handler.aggregate(&mut parts, &handler.project(&t, sample.at));
    let both = merged(handler, &s, &t);
    same_projection(LAW, handler, &parts, &handler.project(&both, sample.at))?;
    let mut parts = handler.project_now(&s, sample.at);
    handler.aggregate(&mut parts, &handler.project_now(&t, sample.at));
    same_projection(LAW, handler, &parts, &handler.project_now(&both, sample.at))
}

/// `aggregate(aggregate(p, q), r) = aggregate(p, aggregate(q, r))`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn aggregate_associates<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law =
        ("aggregate_associates", "aggregate(aggregate(p, q), r) = aggregate(p, aggregate(q, r))");
    let [p, q, r] = projections(handler, sample);
    let left = aggregated(handler, &aggregated(handler, &p, &q), &r);
    let right = aggregated(handler, &p, &aggregated(handler, &q, &r));
    same_projection(LAW, handler, &left, &right)
}

/// `aggregate(p, q) = aggregate(q, p)`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn aggregate_commutes<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("aggregate_commutes", "aggregate(p, q) = aggregate(q, p)");
    let [p, q, _] = projections(handler, sample);
    let (left, right) = (aggregated(handler, &p, &q), aggregated(handler, &q, &p));
    same_projection(LAW, handler, &left, &right)
}

/// `aggregate(p, ∅) = aggregate(∅, p) = p`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn aggregate_is_neutral<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("aggregate_is_neutral", "aggregate(p, ∅) = aggregate(∅, p) = p");
    let [p, ..] = projections(handler, sample);
    let empty = H::Projection::default();
    same_projection(LAW, handler, &aggregated(handler, &p, &empty), &p)?;
    same_projection(LAW, handler, &aggregated(handler, &empty, &p), &p)
}
