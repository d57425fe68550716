//! The laws of [`Handler`], each a function of one sample. The table is in the documentation of the trait.
//!
//! States are compared as encoded bytes, Projections by `==` and as rendered; there is no tolerance anywhere.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Broken;
use super::samples::Sample;
use crate::event::{Event, Events};
use crate::handler::{Format, Handler, StateError, decode_state, encode_state};
use crate::limits::FUTURE_MICROS_MAX;
use crate::time::Timestamp;

type Verdict = Result<(), Broken>;

/// `merge(fold(∅, a), fold(∅, b)) ≡ fold(∅, a ++ b)`: Batches are cut wherever the clock falls.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn splitting<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    let mut parts = fold(handler, &sample.a);
    handler.merge(&mut parts, &fold(handler, &sample.b));
    let mut whole = fold(handler, &sample.a);
    fold_into(handler, &mut whole, &sample.b);
    same_state::<H>("splitting", &parts, &whole)
}

/// `fold(∅, ~a) ≡ fold(∅, a)`: the network reorders.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn order<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    let straight = fold(handler, &sample.a);
    let backwards: Vec<_> = sample.a.iter().rev().cloned().collect();
    same_state::<H>("order", &fold(handler, &backwards), &straight)?;
    same_state::<H>("order", &fold(handler, &permuted(&sample.a, sample.seed)), &straight)
}

/// `fold_all(s, a) ≡ fold(s, a₁), fold(s, a₂), …`: how many events come at once depends on the load.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn batching<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    let mut singly = fold(handler, &sample.b);
    let mut at_once = singly.clone();
    fold_into(handler, &mut singly, &sample.a);
    let (times, values) = columns(&sample.a);
    handler.fold_all(&mut at_once, Events::new(&times, &values));
    same_state::<H>("batching", &at_once, &singly)
}

/// `merge(merge(s, t), u) ≡ merge(s, merge(t, u))`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn merge_associates<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    let [s, t, u] = [&sample.a, &sample.b, &sample.c].map(|events| fold(handler, events));
    let left = merged(handler, &merged(handler, &s, &t), &u);
    let right = merged(handler, &s, &merged(handler, &t, &u));
    same_state::<H>("associative merging", &left, &right)
}

/// `merge(s, t) ≡ merge(t, s)`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn merge_commutes<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    let [s, t] = [&sample.a, &sample.b].map(|events| fold(handler, events));
    same_state::<H>("commutative merging", &merged(handler, &s, &t), &merged(handler, &t, &s))
}

/// `merge(s, ∅) ≡ merge(∅, s) ≡ s`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn merge_is_neutral<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    let s = fold(handler, &sample.a);
    let empty = H::State::default();
    same_state::<H>("neutral merging", &merged(handler, &s, &empty), &s)?;
    same_state::<H>("neutral merging", &merged(handler, &empty, &s), &s)
}

/// `aggregate(project(s), project(t)) = project(merge(s, t))`, and so for [`project_now`](Handler::project_now): the
/// whole agrees with its parts.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn projecting<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    let [s, t] = [&sample.a, &sample.b].map(|events| fold(handler, events));
    let mut parts = handler.project(&s, sample.at);
    handler.aggregate(&mut parts, &handler.project(&t, sample.at));
    let both = merged(handler, &s, &t);
    same_projection("projecting", handler, &parts, &handler.project(&both, sample.at))?;
    let mut parts = handler.project_now(&s, sample.at);
    handler.aggregate(&mut parts, &handler.project_now(&t, sample.at));
    same_projection("projecting", handler, &parts, &handler.project_now(&both, sample.at))
}

/// `aggregate(aggregate(p, q), r) = aggregate(p, aggregate(q, r))`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn aggregate_associates<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    let [p, q, r] = projections(handler, sample);
    let left = aggregated(handler, &aggregated(handler, &p, &q), &r);
    let right = aggregated(handler, &p, &aggregated(handler, &q, &r));
    same_projection("associative aggregating", handler, &left, &right)
}

/// `aggregate(p, q) = aggregate(q, p)`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn aggregate_commutes<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    let [p, q, _] = projections(handler, sample);
    let (left, right) = (aggregated(handler, &p, &q), aggregated(handler, &q, &p));
    same_projection("commutative aggregating", handler, &left, &right)
}

/// `aggregate(p, ∅) = aggregate(∅, p) = p`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn aggregate_is_neutral<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    let [p, ..] = projections(handler, sample);
    let empty = H::Projection::default();
    same_projection("neutral aggregating", handler, &aggregated(handler, &p, &empty), &p)?;
    same_projection("neutral aggregating", handler, &aggregated(handler, &empty, &p), &p)
}

/// `decode(encode(s)) ≡ s`, and the State that comes back goes on as the one that was written.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn round_trip<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: &str = "round trip";
    let mut s = fold(handler, &sample.a);
    let mut back = decode_state(handler, H::VERSION, &encode_state(&s))
        .map_err(|error| Broken::new(LAW, format!("what was written cannot be read: {error}")))?;
    if back != s {
        return Err(Broken::new(LAW, format!("{back:?} came back for {s:?}")));
    }
    same_state::<H>(LAW, &back, &s)?;
    fold_into(handler, &mut s, &sample.b);
    fold_into(handler, &mut back, &sample.b);
    same_state::<H>(LAW, &back, &s)
}

/// `upgrade(∅) ≡ ∅`, `upgrade(merge(s, t)) ≡ merge(upgrade(s), upgrade(t))`, and what was upgraded goes on obeying
/// [`merge_commutes`] with States of today. `old` is the Handler as it was; keep one for each older version.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn upgrading<H, O>(handler: &H, old: &O, sample: &Sample<H::Value>) -> Verdict
where
    H: Handler,
    O: Handler<Value = H::Value>,
{
    const LAW: &str = "upgrading";
    let upgrade = |state: &O::State| {
        decode_state(handler, O::VERSION, &encode_state(state))
            .map_err(|error| Broken::new(LAW, format!("version {} cannot be read: {error}", O::VERSION)))
    };
    same_state::<H>(LAW, &upgrade(&O::State::default())?, &H::State::default())?;
    let [s, t] = [&sample.a, &sample.b].map(|events| fold(old, events));
    let (new_s, new_t) = (upgrade(&s)?, upgrade(&t)?);
    same_state::<H>(LAW, &upgrade(&merged(old, &s, &t))?, &merged(handler, &new_s, &new_t))?;
    let today = fold(handler, &sample.c);
    same_state::<H>(LAW, &merged(handler, &new_s, &today), &merged(handler, &today, &new_s))
}

/// A version that nobody ever wrote is an error that says so.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn unknown_versions<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: &str = "upgrading";
    let bytes = encode_state(&fold(handler, &sample.a));
    for version in [0, H::VERSION.wrapping_add(1), u16::MAX] {
        match decode_state(handler, version, &bytes) {
            Err(StateError::UnknownVersion { found, known }) if found == version && known == H::VERSION => {}
            other => return Err(Broken::new(LAW, format!("version {version} gave {other:?}"))),
        }
    }
    Ok(())
}

/// `should_prune(s, t)` ⇒ `project(s, t)` says nothing, and nothing at any later time.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn pruning<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: &str = "pruning";
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
    let s = fold(handler, &sample.a);
    let mut compacted = s.clone();
    handler.compact(&mut compacted, sample.at);
    for at in [sample.at, sample.later, Timestamp::MAX] {
        same_projection("compacting", handler, &handler.project(&compacted, at), &handler.project(&s, at))?;
    }
    Ok(())
}

/// `clamp(fold(∅, e), t)` says what `fold(∅, e at min(time, t))` says, from `t` on: nothing of an event reaches past `t`.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn clamping<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    for event in &sample.a {
        let mut clamped = fold(handler, std::slice::from_ref(event));
        handler.clamp(&mut clamped, sample.at);
        let meant = fold(handler, &[Event::new(event.time.min(sample.at), event.value.clone())]);
        same_said("clamping", handler, sample, (&clamped, &meant))?;
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
    let ahead = Duration::from_micros(1 + sample.seed % FUTURE_MICROS_MAX as u64);
    let late = sample.at.saturating_add(ahead);
    // An event at `t` itself would tie with one that was moved there.
    let time = |time: Timestamp| if time >= sample.at { late } else { time };
    let events: Vec<_> =
        sample.a.iter().map(|event| Event::new(time(event.time), event.value.clone())).collect();
    let (at_once, singly) = clamped_both_ways(handler, &events, sample.at);
    same_said("clamping many", handler, sample, (&at_once, &singly))
}

/// As [`clamping_many`], and the late events keep the order in which they were: for Handlers to which it matters which
/// event is the last, such as gauges.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn clamping_in_order<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    let allowed = sample.at.saturating_add(Duration::from_micros(FUTURE_MICROS_MAX as u64));
    let events: Vec<_> =
        sample.a.iter().map(|event| Event::new(event.time.min(allowed), event.value.clone())).collect();
    let (at_once, singly) = clamped_both_ways(handler, &events, sample.at);
    for at in [sample.at, sample.later, Timestamp::MAX] {
        let (left, right) = (handler.project(&at_once, at), handler.project(&singly, at));
        same_projection("clamping in order", handler, &left, &right)?;
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
    law: &'static str,
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
            return Err(Broken::new(law, format!("{left:?} is not {right:?}")));
        }
    }
    Ok(())
}

/// No input panics: neither events at the ends of their ranges, nor bytes that nobody wrote.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn totality<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: &str = "totality";
    let try_all = |mut state: H::State| {
        fold_into(handler, &mut state, &sample.b);
        let other = state.clone();
        handler.merge(&mut state, &other);
        for at in [Timestamp::MIN, sample.at, Timestamp::MAX] {
            let mut projection = handler.project(&state, at);
            let same = projection.clone();
            handler.aggregate(&mut projection, &same);
            let _ = handler.render(&projection, Format::Detail);
            let _ = handler.render(&handler.project_now(&state, at), Format::Summary);
            let _ = (handler.tally(&projection), handler.error_bound(&projection));
            let _ = handler.caveats(&projection);
            let _ = handler.should_prune(&state, at);
            handler.compact(&mut state.clone(), at);
            handler.clamp(&mut state.clone(), at);
        }
    };
    let hostile = AssertUnwindSafe(|| {
        if let Ok(state) = decode_state(handler, H::VERSION, &sample.bytes) {
            try_all(state);
        }
        // One flipped byte of something real gets further than noise does.
        let mut bytes = encode_state(&fold(handler, &sample.a));
        if !bytes.is_empty() {
            let place = (sample.seed % bytes.len() as u64) as usize;
            bytes[place] ^= (sample.seed >> 32) as u8 | 1;
            if let Ok(state) = decode_state(handler, H::VERSION, &bytes) {
                try_all(state);
            }
        }
        let _ = handler.upgrade((sample.seed >> 16) as u16, &sample.bytes);
        try_all(fold(handler, &sample.a));
    });
    catch_unwind(hostile).map_err(|_| Broken::new(LAW, "it panicked; the message is above"))
}

/// `encode(s)` is at most [`Handler::encoded_bytes_max`].
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn bounded<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    let bytes_max = handler.encoded_bytes_max();
    let mut s = fold(handler, &sample.a);
    for events in [&sample.b, &sample.c] {
        fold_into(handler, &mut s, events);
        let bytes = encode_state(&s).len();
        if bytes > bytes_max {
            return Err(Broken::new("bounds", format!("{bytes} bytes, the stated bound is {bytes_max}")));
        }
    }
    Ok(())
}

fn fold<H: Handler>(handler: &H, events: &[Event<H::Value>]) -> H::State {
    let mut state = H::State::default();
    fold_into(handler, &mut state, events);
    state
}

fn fold_into<H: Handler>(handler: &H, state: &mut H::State, events: &[Event<H::Value>]) {
    events.iter().for_each(|event| handler.fold(state, event.as_ref()));
}

fn merged<H: Handler>(handler: &H, a: &H::State, b: &H::State) -> H::State {
    let mut both = a.clone();
    handler.merge(&mut both, b);
    both
}

fn aggregated<H: Handler>(handler: &H, a: &H::Projection, b: &H::Projection) -> H::Projection {
    let mut both = a.clone();
    handler.aggregate(&mut both, b);
    both
}

fn projections<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> [H::Projection; 3] {
    [&sample.a, &sample.b, &sample.c].map(|events| handler.project(&fold(handler, events), sample.at))
}

fn columns<V: Clone>(events: &[Event<V>]) -> (Vec<Timestamp>, Vec<V>) {
    events.iter().map(|event| (event.time, event.value.clone())).unzip()
}

fn permuted<T: Clone>(items: &[T], seed: u64) -> Vec<T> {
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

fn same_state<H: Handler>(law: &'static str, left: &H::State, right: &H::State) -> Verdict {
    if encode_state(left) == encode_state(right) {
        return Ok(());
    }
    Err(Broken::new(law, format!("{left:?} is not {right:?}")))
}

fn same_projection<H: Handler>(
    law: &'static str,
    handler: &H,
    left: &H::Projection,
    right: &H::Projection,
) -> Verdict {
    let rendered = |p| handler.render(p, Format::Detail).to_string();
    let caveats = |p| handler.caveats(p);
    if left == right && rendered(left) == rendered(right) && caveats(left) == caveats(right) {
        return Ok(());
    }
    Err(Broken::new(law, format!("{left:?} is not {right:?}")))
}
