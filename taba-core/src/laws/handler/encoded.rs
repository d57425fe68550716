//! States and values as bytes: what is written comes back, and has a bound.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::compare::{Law, Verdict, fold, fold_into, merged, same_state, unequal};
use crate::handler::{Format, Handler, StateError, decode_state, encode_state};
use crate::laws::Broken;
use crate::laws::samples::Sample;
use crate::name::TabType;
use crate::state::{BaseId, Envelope};
use crate::store::Part;
use crate::time::Timestamp;
use crate::wire::{Reader, Value};

/// `decode(encode(v)) = v` for the values of events, as a column of one and of all: an event travels as bytes, and a value
/// that does not come back from them is lost, however good the Handler is.
///
/// serde attributes whose values do not survive postcard, the form that they travel in: `tag`, `untagged`, `flatten`,
/// `skip_serializing_if` (also `skip` of a field that matters), and `deserialize_with` that asks what comes.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn values<H: Handler>(_: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("values", "decode(encode(v)) = v");
    let all: Vec<H::Value> = sample.a.iter().map(|event| event.value.clone()).collect();
    for column in all.chunks(1).chain([&all[..]]) {
        if let Some(value) = column.iter().find(|value| !value.is_encodable()) {
            return Err(Broken::new(LAW, format!("{value:?} cannot be encoded")));
        }
        let mut bytes = Vec::new();
        H::Value::encode_column(column, &mut bytes);
        let mut reader = Reader::new(&bytes);
        match H::Value::decode_column(&mut reader, column.len()) {
            Ok(back) if back == column => {}
            Ok(back) => return Err(unequal(LAW, &back, &column)),
            Err(error) => {
                return Err(Broken::new(
                    LAW,
                    format!("{column:?} cannot be read back ({error}): see the list of serde attributes"),
                ));
            }
        }
    }
    Ok(())
}

/// `decode(encode(s)) ≡ s`, and the State that comes back goes on as the one that was written.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn round_trip<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("round_trip", "decode(encode(s)) ≡ s");
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
/// [`merge_commutes`](super::merge_commutes) with States of today. `old` is the Handler as it was; keep one for each older version.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn upgrading<H, O>(handler: &H, old: &O, sample: &Sample<H::Value>) -> Verdict
where
    H: Handler,
    O: Handler<Value = H::Value>,
{
    const LAW: Law = ("upgrading", "upgrade(∅) ≡ ∅, upgrade(merge(s, t)) ≡ merge(upgrade(s), upgrade(t))");
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
    const LAW: Law = ("unknown_versions", "decode(encode(s)) under a version that nobody wrote is an error");
    let bytes = encode_state(&fold(handler, &sample.a));
    for version in [0, H::VERSION.wrapping_add(1), u16::MAX] {
        match decode_state(handler, version, &bytes) {
            Err(StateError::UnknownVersion { found, known }) if found == version && known == H::VERSION => {}
            other => return Err(Broken::new(LAW, format!("version {version} gave {other:?}"))),
        }
    }
    Ok(())
}

/// `merge(decode(encode(s)), decode(encode(t))) ≡ merge(s, t)`, with `s` stored as the base of a [divided](Envelope) State and `t` as
/// what came since: parting and joining is the identity. With a base that is lacking or another it is an error.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn parts<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law =
        ("parts", "merge(decode(encode(s)), decode(encode(t))) ≡ merge(s, t), stored in parts and joined");
    let broken = |detail: String| Broken::new(LAW, detail);
    let (mut before, mut since, late) =
        (fold(handler, &sample.a), fold(handler, &sample.b), fold(handler, &sample.c));
    match sample.seed % 4 {
        0 => handler.compact(&mut before, sample.at),
        1 => handler.clamp(&mut before, sample.at),
        _ => {}
    }
    let mut live = before.clone();
    fold_into(handler, &mut live, &sample.b);
    handler.merge(&mut live, &late);
    handler.merge(&mut since, &late);
    let base = Bytes::from(encode_state(&before));
    let tab_type = TabType::new("T").map_err(|error| broken(error.to_string()))?;
    let envelope = Envelope::new(tab_type, H::VERSION, sample.seed, encode_state(&since).into());
    let whole = envelope.encode_since(BaseId::of(&base));
    let stored = Envelope::join(&[(Part::BASE, base.clone()), (Part::WHOLE, whole.clone())]);
    let stored = stored.map_err(|error| broken(format!("what was written cannot be read: {error}")))?;
    let decode = |bytes: &Bytes| {
        let decoded = decode_state(handler, stored.version, bytes);
        decoded.map_err(|error| broken(format!("what was written cannot be read: {error}")))
    };
    let (Some(of_base), rest) = stored.states() else { return Err(broken("there is no base".to_owned())) };
    let mut joined = decode(of_base)?;
    handler.merge(&mut joined, &decode(rest)?);
    same_state::<H>(LAW, &joined, &live)?;
    let mut other = base.to_vec();
    other.push(0);
    for parts in [vec![(Part::WHOLE, whole.clone())], vec![(Part::WHOLE, whole), (Part::BASE, other.into())]]
    {
        if Envelope::join(&parts).is_ok() {
            return Err(broken(format!("a State without its base was read from {parts:?}")));
        }
    }
    Ok(())
}

/// No input panics: neither events at the ends of their ranges, nor bytes that nobody wrote.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn totality<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    const LAW: Law = ("totality", "no input panics");
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
            assert!(
                handler.tallies() || handler.tally(&projection).is_none(),
                "it says that it has no words"
            );
            let _ = handler.error_bound(&projection);
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
    const LAW: Law = ("bounded", "bytes of encode(s) ≤ encoded_bytes_max");
    let bytes_max = handler.encoded_bytes_max();
    let mut s = fold(handler, &sample.a);
    for events in [&sample.b, &sample.c] {
        fold_into(handler, &mut s, events);
        let bytes = encode_state(&s).len();
        if bytes > bytes_max {
            return Err(Broken::new(LAW, format!("{bytes} bytes, the stated bound is {bytes_max}")));
        }
    }
    Ok(())
}
