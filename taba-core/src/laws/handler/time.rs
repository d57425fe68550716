//! What time does to States: pruning, compacting, clamping.

use std::time::Duration;

use super::compare::{Law, Verdict, fold, same_projection, unequal};
use crate::event::Event;
use crate::handler::{Format, Handler};
#[cfg(doc)]
use crate::laws::Broken;
use crate::laws::samples::Sample;
use crate::limits::FUTURE_MICROS_MAX;
use crate::time::Timestamp;

/// `should_prune(s, t)` ⇒ `project(s, t)` says nothing, and nothing at any later time.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn pruning<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("pruning", "should_prune(s, t) ⇒ project(s, u) = project(∅, u) for u ≥ t");
    let s = fold(handler, &sample.a);
    if handler.should_prune(&s, sample.at) {
        for at in [sample.at, sample.later] {
            let nothing = handler.project(&H::State::default(), at);
            same_projection(LAW, handler, &handler.project(&s, at), &nothing)?;
        }
    }
    Ok(())
}

/// `project(compact(s, t), u) = project(s, u)` for every `u ≥ t`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn compacting<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("compacting", "project(compact(s, t), u) = project(s, u) for u ≥ t");
    let s = fold(handler, &sample.a);
    let mut compacted = s.clone();
    handler.compact(&mut compacted, sample.at);
    for at in [sample.at, sample.later, Timestamp::MAX] {
        same_projection(LAW, handler, &handler.project(&compacted, at), &handler.project(&s, at))?;
    }
    Ok(())
}

/// `clamp(fold(∅, e), t)` says what `fold(∅, e at min(time, t))` says, from `t` on: nothing of an event reaches past `t`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn clamping<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law =
        ("clamping", "clamp(fold(∅, e), t) says what fold(∅, e at min(time, t)) says, from t on");
    for event in &sample.a {
        let mut clamped = fold(handler, std::slice::from_ref(event));
        handler.clamp(&mut clamped, sample.at);
        let meant = fold(handler, &[Event::new(event.time.min(sample.at), event.value.clone())]);
        same_said(LAW, handler, sample, (&clamped, &meant))?;
    }
    Ok(())
}

/// `clamp(fold(∅, a), t)` says what `merge(clamp(fold(∅, a₁), t), clamp(fold(∅, a₂), t), …)` says, from `t` on: the late
/// events of one State are moved as each of them would be, and take nothing else with them. Here all that are late lie at one moment, up
/// to [`FUTURE_MICROS_MAX`] after `t`; [`clamping_in_order`] is about several.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn clamping_many<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law =
        ("clamping_many", "clamp(fold(∅, a), t) says what merge(clamp(fold(∅, a₁), t), …) says, from t on");
    let ahead = Duration::from_micros(1 + sample.seed % FUTURE_MICROS_MAX as u64);
    let late = sample.at.saturating_add(ahead);
    // An event at `t` itself would tie with one that was moved there.
    let time = |time: Timestamp| if time >= sample.at { late } else { time };
    let events: Vec<_> =
        sample.a.iter().map(|event| Event::new(time(event.time), event.value.clone())).collect();
    let (at_once, singly) = clamped_both_ways(handler, &events, sample.at);
    same_said(LAW, handler, sample, (&at_once, &singly))
}

/// As [`clamping_many`], and the late events keep the order in which they were: for Handlers to which it matters which
/// event is the last, such as gauges.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn clamping_in_order<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = (
        "clamping_in_order",
        "project(clamp(fold(∅, a), t), u) = project(merge(clamp(fold(∅, a₁), t), …), u) for u ≥ t",
    );
    let allowed = sample.at.saturating_add(Duration::from_micros(FUTURE_MICROS_MAX as u64));
    let events: Vec<_> =
        sample.a.iter().map(|event| Event::new(event.time.min(allowed), event.value.clone())).collect();
    let (at_once, singly) = clamped_both_ways(handler, &events, sample.at);
    for at in [sample.at, sample.later, Timestamp::MAX] {
        let (left, right) = (handler.project(&at_once, at), handler.project(&singly, at));
        same_projection(LAW, handler, &left, &right)?;
    }
    Ok(())
}

/// Folded and then clamped, and each event clamped and then merged.
fn clamped_both_ways<H: Handler>(
    handler: &H,
    events: &[Event<H::Value>],
    latest: Timestamp,
) -> (H::State, H::State) {
    let mut at_once = fold(handler, events);
    handler.clamp(&mut at_once, latest);
    let mut singly = H::State::default();
    for event in events {
        let mut one = fold(handler, std::slice::from_ref(event));
        handler.clamp(&mut one, latest);
        handler.merge(&mut singly, &one);
    }
    (at_once, singly)
}

/// Whether two States say the same to a reader at the sample's times.
fn same_said<H: Handler>(
    law: Law,
    handler: &H,
    sample: &Sample<H::Value>,
    (left, right): (&H::State, &H::State),
) -> Verdict {
    for at in [sample.at, sample.later, Timestamp::MAX] {
        let said = |state: &H::State| {
            let projection = handler.project(state, at);
            (handler.render(&projection, Format::Detail).to_string(), handler.tally(&projection))
        };
        let (left, right) = (said(left), said(right));
        if left != right {
            return Err(unequal(law, &left, &right));
        }
    }
    Ok(())
}
