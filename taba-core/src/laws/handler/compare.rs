//! What the laws share: how States come to be, and when two are the same.

use std::fmt::Debug;

use crate::event::Event;
use crate::handler::{Format, Handler, encode_state};
use crate::laws::Broken;
use crate::laws::samples::Sample;
use crate::time::Timestamp;

/// The name of a law, and its equation.
pub(super) type Law = (&'static str, &'static str);
/// What became of a sample.
pub(super) type Verdict = Result<(), Broken>;

/// The two sides of a law differ.
pub(super) fn unequal(law: Law, left: &impl Debug, right: &impl Debug) -> Broken {
    Broken::new(law, format!("left:  {left:?}\nright: {right:?}"))
}

pub(super) fn fold<H: Handler>(handler: &H, events: &[Event<H::Value>]) -> H::State {
    let mut state = H::State::default();
    fold_into(handler, &mut state, events);
    state
}

pub(super) fn fold_into<H: Handler>(handler: &H, state: &mut H::State, events: &[Event<H::Value>]) {
    events.iter().for_each(|event| handler.fold(state, event.as_ref()));
}

pub(super) fn merged<H: Handler>(handler: &H, a: &H::State, b: &H::State) -> H::State {
    let mut both = a.clone();
    handler.merge(&mut both, b);
    both
}

pub(super) fn aggregated<H: Handler>(handler: &H, a: &H::Projection, b: &H::Projection) -> H::Projection {
    let mut both = a.clone();
    handler.aggregate(&mut both, b);
    both
}

pub(super) fn projections<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> [H::Projection; 3] {
    [&sample.a, &sample.b, &sample.c].map(|events| handler.project(&fold(handler, events), sample.at))
}

pub(super) fn columns<V: Clone>(events: &[Event<V>]) -> (Vec<Timestamp>, Vec<V>) {
    events.iter().map(|event| (event.time, event.value.clone())).unzip()
}

pub(super) fn permuted<T: Clone>(items: &[T], seed: u64) -> Vec<T> {
    let mut items = items.to_vec();
    let mut state = seed | 1;
    for i in (1..items.len()).rev() {
        // xorshift64: any permutation will do, as long as the seed decides it.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(i, (state % (i as u64 + 1)) as usize);
    }
    items
}

pub(super) fn same_state<H: Handler>(law: Law, left: &H::State, right: &H::State) -> Verdict {
    if encode_state(left) == encode_state(right) {
        return Ok(());
    }
    Err(unequal(law, left, right))
}

pub(super) fn same_projection<H: Handler>(
    law: Law,
    handler: &H,
    left: &H::Projection,
    right: &H::Projection,
) -> Verdict {
    let rendered = |p| handler.render(p, Format::Detail).to_string();
    let caveats = |p| handler.caveats(p);
    if left == right && rendered(left) == rendered(right) && caveats(left) == caveats(right) {
        return Ok(());
    }
    Err(unequal(law, left, right))
}
