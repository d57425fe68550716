//! The law `decode_bounded`: few bytes do not become much memory.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::handler::mutated;
use super::{Broken, samples};
use crate::backoff::Noise;
use crate::event::Event;
use crate::handler::{Handler, decode_state, encode_state};

const LAW: (&str, &str) =
    ("decode_bounded", "bytes that decode(b) allocates ≤ decoded_bytes_max(bytes of b)");
const WEIGHED: (&str, &str) =
    ("decode_bounded", "heap_bytes(s) is what s holds on the heap, within a quarter");

const SAMPLES: usize = 96;
/// Mutations of each encoded State.
const MUTATIONS: usize = 12;

/// What a piece of code allocated, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metered {
    /// At the moment when it held the most.
    pub most: usize,
    /// At its end.
    pub kept: usize,
}

impl Metered {
    /// What an allocation meter of your choice says.
    pub const fn new(most: usize, kept: usize) -> Self {
        Self { most, kept }
    }
}

/// The law `decode_bounded`, tried on States of events and on mutations of their bytes, whether those decode or not: decoding takes
/// at most [`Handler::decoded_bytes_max`] of memory; and [`Handler::heap_bytes`], where it says something, is within a quarter and 128
/// bytes of what the State holds.
///
/// `meter` runs what it is given, once, and says what was allocated: memory is counted by a global allocator, and which one a
/// program has is its own choice. With the crate `allocation-counter`:
/// ```text
/// fn meter(run: &mut dyn FnMut()) -> Metered {
///     let info = allocation_counter::measure(run);
///     Metered::new(info.bytes_max as usize, info.bytes_current as usize)
/// }
/// ```
///
/// # Errors
/// [`Broken`] when it does not hold.
pub fn check_decode_bounded<H, S>(handler: &H, values: S, meter: Meter) -> Result<(), Broken>
where
    H: Handler,
    S: Strategy<Value = H::Value> + Clone + 'static,
{
    let (strategy, mut runner) = (samples::sample(values), TestRunner::deterministic());
    for _ in 0..SAMPLES {
        let sample =
            strategy.new_tree(&mut runner).map_err(|reason| Broken::new(LAW, reason.message()))?.current();
        let mut noise = Noise::new(sample.seed);
        let mut state = None;
        let folded = meter(&mut || {
            let mut folding = H::State::default();
            sample.a.iter().for_each(|event: &Event<_>| handler.fold(&mut folding, event.as_ref()));
            state = Some(folding);
        });
        let state = state.unwrap_or_default();
        weighed(handler, &state, folded)?;
        let mut bytes = encode_state(&state);
        check_decoding(handler, &sample.bytes, meter)?;
        for _ in 0..MUTATIONS {
            let is_state = check_decoding(handler, &bytes, meter)?;
            let next = mutated(&bytes, &mut noise);
            bytes = if is_state || noise.number() % 4 == 0 { next } else { encode_state(&state) };
        }
    }
    Ok(())
}

/// An allocation meter: runs something once, and says what it allocated.
pub type Meter = fn(&mut dyn FnMut()) -> Metered;

/// The law `decode_bounded` for these bytes. Returns whether they are a State.
///
/// # Errors
/// [`Broken`] when it does not hold.
pub fn check_decoding<H: Handler>(handler: &H, bytes: &[u8], meter: Meter) -> Result<bool, Broken> {
    let mut decoded = None;
    let metered = meter(&mut || decoded = decode_state(handler, H::VERSION, bytes).ok());
    let most = handler.decoded_bytes_max(bytes.len());
    if metered.most > most {
        let detail =
            format!("left:  {} bytes for {} encoded\nright: {most} bytes", metered.most, bytes.len());
        return Err(Broken::new(LAW, detail));
    }
    decoded.map_or(Ok(false), |state| weighed(handler, &state, metered).map(|()| true))
}

fn weighed<H: Handler>(handler: &H, state: &H::State, Metered { kept, .. }: Metered) -> Result<(), Broken> {
    let said = handler.heap_bytes(state).unwrap_or(kept);
    if said.abs_diff(kept) > kept / 4 + 128 {
        return Err(Broken::new(WEIGHED, format!("left:  {said} bytes\nright: {kept} bytes\nof {state:?}")));
    }
    Ok(())
}
