//! States from anywhere: whatever decodes can be merged, encoded and read again.

use super::compare::{Law, Verdict, fold, merged, same_projection, same_state};
use crate::backoff::Noise;
use crate::handler::{Handler, decode_state, encode_state};
use crate::laws::Broken;
use crate::laws::samples::Sample;
use crate::time::Timestamp;
use crate::wire::put_u64;

const CLOSED: Law = ("closed", "any two States that decode merge into one that decodes and keeps the laws");

/// Mutations of one encoded State, at most.
const MUTATIONS: usize = 6;

/// Any two States that decode merge into one that is within [`Handler::encoded_bytes_max`], decodes to itself, and keeps
/// the laws of merging, projecting and compacting: one bad sender, or one bad byte, must not make what others stored unreadable.
///
/// Tried on every other sample: on States of events, compacted and clamped, and on mutations of their bytes that decode.
///
/// # Errors
/// [`Broken`] when it does not hold for the sample.
pub fn closed<H: Handler>(handler: &H, sample: &Sample<H::Value>) -> Verdict {
    // It takes as long as all other laws of merging.
    if sample.seed % 2 == 1 {
        return Ok(());
    }
    let (mut noise, [mut s, mut t, u]) =
        (Noise::new(sample.seed), [&sample.a, &sample.b, &sample.c].map(|events| fold(handler, events)));
    match sample.seed % 6 {
        0 => handler.compact(&mut s, sample.at),
        2 => handler.clamp(&mut t, sample.at),
        _ => {}
    }
    let states = [s, t, u].map(|state| {
        let encoded = encode_state(&state);
        mutated_state(handler, &encoded, &mut noise).unwrap_or(encoded)
    });
    check_closed(handler, &states, sample.at)
}

/// The law [`closed`] for these encoded States: each by itself, with itself again and again, and with those after it.
/// What does not decode is left out.
///
/// # Errors
/// [`Broken`] when it does not hold.
pub fn check_closed<H: Handler>(handler: &H, states: &[Vec<u8>], at: Timestamp) -> Verdict {
    let states: Vec<H::State> =
        states.iter().filter_map(|bytes| decode_state(handler, H::VERSION, bytes).ok()).collect();
    for (place, s) in states.iter().enumerate() {
        readable(handler, s)?;
        let neutral = merged(handler, &H::State::default(), s);
        same_state::<H>(CLOSED, &neutral, s)?;
        same_state::<H>(CLOSED, &merged(handler, s, &H::State::default()), s)?;
        let mut often = s.clone();
        for _ in 0..4 {
            often = merged(handler, &often, &often);
            readable(handler, &often)?;
        }
        let mut compacted = s.clone();
        handler.compact(&mut compacted, at);
        same_projection(CLOSED, handler, &handler.project(&compacted, at), &handler.project(s, at))?;
        let Some(t) = states.get(place + 1) else { continue };
        let both = merged(handler, s, t);
        readable(handler, &both)?;
        readable(handler, &merged(handler, &compacted, t))?;
        same_state::<H>(CLOSED, &both, &merged(handler, t, s))?;
        let mut parts = handler.project(s, at);
        handler.aggregate(&mut parts, &handler.project(t, at));
        same_projection(CLOSED, handler, &parts, &handler.project(&both, at))?;
        let Some(u) = states.get(place + 2) else { continue };
        let right = merged(handler, s, &merged(handler, t, u));
        same_state::<H>(CLOSED, &merged(handler, &both, u), &right)?;
    }
    Ok(())
}

/// The State is within its bound, and reads as it was written.
fn readable<H: Handler>(handler: &H, state: &H::State) -> Verdict {
    let (bytes, bytes_max) = (encode_state(state), handler.encoded_bytes_max());
    if bytes.len() > bytes_max {
        return Err(Broken::new(CLOSED, format!("{} bytes, the stated bound is {bytes_max}", bytes.len())));
    }
    match decode_state(handler, H::VERSION, &bytes) {
        Ok(back) if back == *state => same_state::<H>(CLOSED, &back, state),
        other => Err(Broken::new(CLOSED, format!("{other:?} came back for {state:?}"))),
    }
}

/// Bytes that still decode after some [mutations](mutated), and are another State.
fn mutated_state<H: Handler>(handler: &H, encoded: &[u8], noise: &mut Noise) -> Option<Vec<u8>> {
    let mut found = None;
    let mut bytes = encoded.to_vec();
    for _ in 0..MUTATIONS {
        let next = mutated(&bytes, noise);
        if decode_state(handler, H::VERSION, &next).is_ok() {
            bytes.clone_from(&next);
            found = Some(next);
        }
    }
    found
}

/// Bytes with one change at a random place: another byte, an integer at an end of some range, a part that is missing or comes
/// twice.
pub(in crate::laws) fn mutated(bytes: &[u8], noise: &mut Noise) -> Vec<u8> {
    const ENDS: [u64; 18] = [
        0,
        1,
        2,
        5,
        127,
        128,
        255,
        1024,
        2 * 1099,
        2 * 1100,
        4000,
        4095,
        1 << 16,
        u32::MAX as u64,
        u64::MAX >> 2,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    let mut below = |end: usize| (noise.number() % end.max(1) as u64) as usize;
    let place = below(bytes.len() + 1);
    let (head, tail) = bytes.split_at(place);
    let mut out = head.to_vec();
    match below(6) {
        0 => out.push(below(256) as u8),
        1 | 2 => put_u64(ENDS[below(ENDS.len())], &mut out),
        3 => out.extend(tail.first().map(|byte| byte.wrapping_add(1))),
        4 => return [head, tail.get(1 + below(4)..).unwrap_or_default()].concat(),
        _ => return [head, &tail[..below(tail.len().min(40) + 1)], tail].concat(),
    }
    // In place of the integer that was there.
    let end = tail.iter().position(|byte| byte & 0x80 == 0).map_or(tail.len(), |last| last + 1);
    out.extend_from_slice(&tail[end.min(10)..]);
    out
}
